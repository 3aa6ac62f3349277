//! What surrounds the calls: health, reflection, keys over HTTPS, logs; and the documentation of the calls themselves.

use std::collections::BTreeSet;

use dayfly_api::v1;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::world::{World, asking_for, bearing, owned_by, reason};
use prost::Message as _;
use tonic::Code;
use tonic_reflection::pb::v1 as reflection;

on_both!(health_answers, the_log_holds_no_secret_at_any_level);

async fn health_answers(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(world.broker().channel());
    for service in ["", "dayfly.v1.WorkloadService"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(
            answer.status(),
            tonic_health::pb::health_check_response::ServingStatus::Serving,
            "{service:?}"
        );
    }
}

/// With everything logged that any library can log.
async fn the_log_holds_no_secret_at_any_level(kind: Kind) {
    let options = Options {
        log_filter: Some("trace,kube_client=trace,kube_client::client=trace"),
        ..Options::default()
    };
    let world = World::with_own_broker(kind, options).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let issued = pod.issue(&team.target).await.unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    assert!(verifier.introspect(&issued.credential).await.unwrap().active);
    world
        .operator(&["revoke"], Some(&team.owner))
        .await
        .unwrap()
        .revoke(owned_by(&team.owner))
        .await
        .unwrap();
    let tampered = dayfly_e2e::jwt::tampered(&pod.token().await.unwrap()).unwrap();
    world.broker().keep_secret(&tampered);
    world.issue_with(&tampered, asking_for(&team.target)).await.unwrap_err();
    assert!(world.broker().log().contains("TRACE"), "trace is on");
    world.broker().stop().await.unwrap();
}

#[test]
fn reflection_tells_every_service() {
    dayfly_e2e::run::run(async {
        let world = World::shared(Kind::StandIn).await.unwrap();
        let mut client =
            reflection::server_reflection_client::ServerReflectionClient::new(world.broker().channel());
        let list = reflection::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(reflection::server_reflection_request::MessageRequest::ListServices(
                String::new(),
            )),
        };
        let mut answers = client.server_reflection_info(tokio_stream_of(list)).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
        let reflection::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer
        else {
            panic!("{answer:?}")
        };
        let told: BTreeSet<_> = list.service.into_iter().map(|service| service.name).collect();
        let declared = services().into_iter().map(|(name, _)| format!("dayfly.v1.{name}"));
        for service in declared.chain(["grpc.health.v1.Health".to_owned()]) {
            assert!(told.contains(&service), "{service} is not in {told:?}");
        }
    });
}

fn tokio_stream_of<T: Send + 'static>(one: T) -> impl futures_util::Stream<Item = T> + Send + 'static {
    futures_util::stream::iter([one])
}

#[test]
fn calls_that_make_no_sense_are_refused() {
    dayfly_e2e::run::run(async {
        let world = World::shared(Kind::StandIn).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let pod = world.pod(&team.namespace, "api").await.unwrap();
        let token = pod.token().await.unwrap();
        let call = async |path: &'static str| {
            let mut client = tonic::client::Grpc::new(world.broker().channel());
            client.ready().await.unwrap();
            // Field 1 is a boolean here, and a string in every request.
            let message = v1::Selector { all: true, ..v1::Selector::default() };
            let codec = tonic_prost::ProstCodec::<v1::Selector, v1::IssueResponse>::default();
            let path = http::uri::PathAndQuery::from_static(path);
            client.unary(bearing(&token, message), path, codec).await.unwrap_err()
        };
        for path in ["/dayfly.v1.WorkloadService/Nothing", "/dayfly.v2.WorkloadService/Issue"] {
            let unknown = call(path).await;
            assert_eq!(
                (reason(&unknown).as_str(), unknown.code()),
                ("METHOD_UNKNOWN", Code::Unimplemented),
                "{path}"
            );
        }
        let malformed = ("REQUEST_MALFORMED".to_owned(), Code::InvalidArgument);
        let garbled = call("/dayfly.v1.WorkloadService/Issue").await;
        assert_eq!((reason(&garbled), garbled.code()), malformed);
        let huge = v1::IssueRequest { audience: "a".repeat(70 * 1024), ..asking_for(&team.target) };
        let huge = pod.ask(huge).await.unwrap().unwrap_err();
        assert_eq!((reason(&huge), huge.code()), malformed);

        let authorized = |values: &[String]| {
            let mut request = tonic::Request::new(asking_for(&team.target));
            for value in values {
                request.metadata_mut().append("authorization", value.parse().unwrap());
            }
            let mut client = world.workloads();
            async move { client.issue(request).await.map(drop) }
        };
        // A scheme is the same in any case (RFC 9110, section 11.1); two tokens are none.
        authorized(&[format!("bearer {token}")]).await.unwrap();
        let other = pod.token_for("dayfly").await.unwrap();
        let twice = authorized(&[format!("Bearer {token}"), format!("Bearer {other}")]).await.unwrap_err();
        assert_eq!((reason(&twice).as_str(), twice.code()), ("TOKEN_MISSING", Code::Unauthenticated));
        for nothing in ["", "Bearer", "Bearer ", "Basic c2VzYW1l"] {
            let missing = authorized(&[nothing.to_owned()]).await.unwrap_err();
            assert_eq!(missing.code(), Code::Unauthenticated, "{nothing:?}");
            assert!(
                ["TOKEN_MISSING", "TOKEN_MALFORMED"].contains(&reason(&missing).as_str()),
                "{nothing:?}: {missing:?}"
            );
        }
    });
}

#[test]
fn keys_are_served_over_https_too() {
    dayfly_e2e::run::run(async {
        let world = World::shared(Kind::StandIn).await.unwrap();
        let told = world.verifiers().get_keys(v1::GetKeysRequest {}).await.unwrap().into_inner().jwks;
        let ca = world.broker().dir().join("ca.crt");
        let url = format!("https://127.0.0.1:{}/.well-known/jwks.json", world.broker().port());
        let curl = tokio::process::Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--include", "--cacert"])
            .arg(ca)
            .arg(url)
            .output();
        let output = curl.await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.to_lowercase().contains("content-type: application/jwk-set+json"), "{head}");
        let [told, served] =
            [told.as_str(), body].map(|jwks| serde_json::from_str::<serde_json::Value>(jwks).unwrap());
        assert_eq!(told, served);
        assert!(!body.contains("\"d\""), "no private key is published");
    });
}

/// Each RPC of the API has a row in its service's table: who may call it, or which right it takes.
#[test]
fn every_rpc_has_a_row_in_the_table_of_its_service() {
    let protos = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/dayfly/v1");
    let text: String = std::fs::read_dir(protos)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let services = services();
    assert_eq!(services.len(), 3, "{services:?}");
    for (service, rpcs) in services {
        let before = text.split_once(&format!("\nservice {service} {{")).unwrap().0;
        let comment: Vec<_> =
            before.lines().rev().take_while(|line| line.starts_with("//")).map(str::to_owned).collect();
        let rows: Vec<Vec<String>> = comment
            .iter()
            .rev()
            .filter_map(|line| line.strip_prefix("// |"))
            .map(|line| line.trim_end_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
            .collect();
        let (head, rows) = rows.split_first().unwrap();
        assert_eq!(head[0], "RPC", "{service}");
        let documented: Vec<_> = rows.iter().skip(1).map(|row| row[0].clone()).collect();
        assert_eq!(documented, rpcs, "the rows of {service}, in the order of its RPCs");
        for row in rows.iter().skip(1) {
            assert!(row.len() == head.len() && row.iter().all(|cell| !cell.is_empty()), "{service}: {row:?}");
        }
    }
}

/// The services of `dayfly.v1`, with their RPCs.
fn services() -> Vec<(String, Vec<String>)> {
    let descriptors = prost_types::FileDescriptorSet::decode(dayfly_api::FILE_DESCRIPTOR_SET).unwrap();
    let ours = descriptors.file.into_iter().filter(|file| file.package() == "dayfly.v1");
    ours.flat_map(|file| file.service)
        .map(|service| {
            let rpcs = service.method.iter().map(|method| method.name().to_owned()).collect();
            (service.name().to_owned(), rpcs)
        })
        .collect()
}
