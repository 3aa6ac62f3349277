//! Tokens that are not good enough.

use dayfly_api::v1;
use dayfly_e2e::broker::{Broker, Options};
use dayfly_e2e::cluster::{Cluster, Kind};
use dayfly_e2e::run::until;
use dayfly_e2e::world::{OPERATOR, Team, VERIFIER, WORKLOAD, World, asking_for, bearing, reason};
use dayfly_e2e::{control_plane, jwt};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, PostParams};
use serde_json::json;
use tonic::{Code, Status};

on_both!(
    each_service_takes_its_own_audience_only,
    a_token_for_several_audiences_is_refused,
    an_expired_token_is_refused,
    a_forged_token_is_refused,
    an_unbound_token_is_refused_unless_target_and_grant_accept_it,
    where_keys_are_hidden_the_api_server_alone_judges_signatures,
    tokens_that_are_bound_to_no_pod_are_told_apart,
);

/// What each of the services says to this token.
async fn what_all_say(world: &World, team: &Team, token: &str) -> [Result<(), Status>; 3] {
    let introspect = v1::IntrospectRequest { credential: "x".to_owned() };
    let mut operators = v1::operator_service_client::OperatorServiceClient::new(world.broker().channel());
    let who_am_i = world.workloads().who_am_i(bearing(token, v1::WhoAmIRequest {})).await.map(drop);
    let issue = world.issue_with(token, asking_for(&team.target)).await.map(drop);
    assert_eq!(issue.as_ref().err().map(reason), who_am_i.as_ref().err().map(reason), "Issue and WhoAmI");
    [
        issue,
        operators.list_owners(bearing(token, v1::ListOwnersRequest::default())).await.map(drop),
        world.verifiers().introspect(bearing(token, introspect)).await.map(drop),
    ]
}

async fn each_service_takes_its_own_audience_only(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    world.cluster().allow(&team.namespace, "api", &["list"], None).await.unwrap();
    for (audience, accepted) in
        [(WORKLOAD, Some(0)), (OPERATOR, Some(1)), (VERIFIER, Some(2)), ("", None), ("other", None)]
    {
        let token = pod.token_for(audience).await.unwrap();
        for (service, answer) in what_all_say(&world, &team, &token).await.into_iter().enumerate() {
            let what = format!("audience {audience:?} to service {service}");
            match answer {
                Ok(()) => assert_eq!(Some(service), accepted, "{what}"),
                Err(status) => {
                    assert_ne!(Some(service), accepted, "{what}: {status:?}");
                    assert_eq!(
                        (reason(&status).as_str(), status.code()),
                        ("TOKEN_AUDIENCE", Code::Unauthenticated),
                        "{what}"
                    );
                }
            }
        }
    }
}

async fn a_token_for_several_audiences_is_refused(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let own =
        jwt::read(&pod.token_for("").await.unwrap()).unwrap().claims["aud"][0].as_str().unwrap().to_owned();
    let several =
        [[WORKLOAD, own.as_str()], [own.as_str(), WORKLOAD], [WORKLOAD, OPERATOR], [VERIFIER, "other"]];
    for audiences in several {
        let token = pod.token_for_all(&audiences, 3600).await.unwrap();
        for answer in what_all_say(&world, &team, &token).await {
            assert_eq!(reason(&answer.unwrap_err()), "TOKEN_AUDIENCE", "{audiences:?}");
        }
    }
}

async fn an_expired_token_is_refused(kind: Kind) {
    // The broker's clock is ahead by more than a token's least life and the leeway; it has not jumped since its start.
    let options = Options { clock_ahead: Some(640), ..Options::default() };
    let world = World::with_own_broker(kind, options).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let expired = pod.token_of_life(WORKLOAD, 600).await.unwrap();
    assert!(
        world.cluster().accepts(&expired, WORKLOAD).await.unwrap(),
        "the API server's clock is not ahead"
    );
    let refused = world.issue_with(&expired, asking_for(&team.target)).await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), refused.code()), ("TOKEN_EXPIRED", Code::Unauthenticated));
    pod.issue(&team.target).await.unwrap();
}

async fn a_forged_token_is_refused(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let elsewhere = |claims: &mut serde_json::Value| claims["iss"] = "https://elsewhere.example".into();
    let admin =
        |claims: &mut serde_json::Value| claims["sub"] = "system:serviceaccount:kube-system:admin".into();
    for (service, audience) in [WORKLOAD, OPERATOR, VERIFIER].into_iter().enumerate() {
        let good = pod.token_for(audience).await.unwrap();
        let forged = [
            ("tampered", jwt::tampered(&good).unwrap(), "TOKEN_SIGNATURE"),
            ("of other claims", jwt::with_claims(&good, admin).unwrap(), "TOKEN_SIGNATURE"),
            ("of alg none", jwt::unsigned(&good).unwrap(), "TOKEN_MALFORMED TOKEN_SIGNATURE"),
            ("of another issuer", jwt::with_claims(&good, elsewhere).unwrap(), "TOKEN_ISSUER_UNKNOWN"),
            ("no JWT", "sesame".to_owned(), "TOKEN_MALFORMED"),
            ("two parts", good.rsplit_once('.').unwrap().0.to_owned(), "TOKEN_MALFORMED"),
            ("oversized", format!("{good}{}", "A".repeat(8 * 1024)), "TOKEN_MALFORMED"),
            ("empty", String::new(), "TOKEN_MISSING TOKEN_MALFORMED"),
        ];
        for (what, token, expected) in forged {
            let refused = what_all_say(&world, &team, &token).await[service].clone().unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{what}: {refused:?}");
            assert!(expected.split(' ').any(|expected| expected == reason(&refused)), "{what}: {refused:?}");
            assert!(!refused.message().contains(&good), "{what}: the token is in the message");
        }
    }
    let good = pod.token().await.unwrap();
    let without = world.workloads().issue(asking_for(&team.target)).await.unwrap_err();
    assert_eq!((reason(&without).as_str(), without.code()), ("TOKEN_MISSING", Code::Unauthenticated));
    let mut basic = tonic::Request::new(asking_for(&team.target));
    basic.metadata_mut().insert("authorization", "Basic c2VzYW1lOg==".parse().unwrap());
    assert_eq!(reason(&world.workloads().issue(basic).await.unwrap_err()), "TOKEN_MISSING");
    let mut elsewhere = bearing(&good, asking_for(&team.target));
    elsewhere.metadata_mut().insert("dayfly-cluster", "west".parse().unwrap());
    assert_eq!(reason(&world.workloads().issue(elsewhere).await.unwrap_err()), "TOKEN_ISSUER_UNKNOWN");
}

async fn an_unbound_token_is_refused_unless_target_and_grant_accept_it(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let mut team = world.team("payments").await.unwrap();
    let token = world.unbound_token(&team.namespace, "api", WORKLOAD).await.unwrap();
    let ask = || world.issue_with(&token, asking_for(&team.target));
    let refused = ask().await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), refused.code()), ("TOKEN_UNBOUND", Code::PermissionDenied));

    team.grant_object["spec"]["unboundTokens"] = json!(true);
    world.put(&[&team.grant_object]).await.unwrap();
    assert_eq!(reason(&ask().await.unwrap_err()), "TOKEN_UNBOUND", "the Grant alone");
    team.target_object["spec"]["unboundTokens"] = json!(true);
    world.put(&[&team.target_object]).await.unwrap();
    assert_eq!(ask().await.unwrap().lease.unwrap().workload.unwrap().pod, "");
}

async fn tokens_that_are_bound_to_no_pod_are_told_apart(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let mut team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let pods: Api<Pod> = Api::namespaced(world.cluster().client(), &team.namespace);
    let node = pods.get(&pod.name).await.unwrap().spec.unwrap().node_name.unwrap();
    if world.is_real() {
        // The stand-in keeps none, and takes any to be there.
        let secret: Secret = serde_json::from_value(json!({ "metadata": { "name": "api" } })).unwrap();
        let secrets = Api::namespaced(world.cluster().client(), &team.namespace);
        secrets.create(&PostParams::default(), &secret).await.unwrap();
    }
    let of_pod = world.token_bound_to(&team.namespace, "api", "Pod", &pod.name).await.unwrap();
    let of_node = world.token_bound_to(&team.namespace, "api", "Node", &node).await.unwrap();
    let of_secret = world.token_bound_to(&team.namespace, "api", "Secret", "api").await.unwrap();
    let unbound = world.unbound_token(&team.namespace, "api", WORKLOAD).await.unwrap();
    let ask = |token: &str| {
        let (world, token, target) = (&world, token.to_owned(), team.target.clone());
        async move { world.issue_with(&token, asking_for(&target)).await }
    };
    ask(&of_pod).await.unwrap();
    let all = [
        (&of_node, "to a node, and to no pod"),
        (&of_secret, "to a Secret, and to no pod"),
        (&unbound, "to no pod"),
    ];
    for (token, says) in all {
        let refused = ask(token).await.unwrap_err();
        assert_eq!((reason(&refused).as_str(), refused.code()), ("TOKEN_UNBOUND", Code::PermissionDenied));
        assert!(refused.message().contains(&format!("is bound {says}:")), "{refused:?}");
    }
    team.grant_object["spec"]["unboundTokens"] = json!(true);
    world.put(&[&team.grant_object]).await.unwrap();
    for (token, _) in all {
        assert_eq!(reason(&ask(token).await.unwrap_err()), "TOKEN_UNBOUND", "the Grant alone");
    }
    team.target_object["spec"]["unboundTokens"] = json!(true);
    world.put(&[&team.target_object]).await.unwrap();
    for (token, says) in all {
        let workload = ask(token).await.unwrap().lease.unwrap().workload.unwrap();
        let expected = if says.contains("node") { node.as_str() } else { "" };
        assert_eq!((workload.pod.as_str(), workload.node.as_str()), ("", expected));
    }
}

#[test]
fn a_legacy_token_is_refused_on_the_stand_in() {
    dayfly_e2e::run::run(async {
        a_legacy_token_is_refused(World::shared(Kind::StandIn).await.unwrap()).await;
    });
}

#[test]
fn a_legacy_token_is_refused_on_the_real_cluster() {
    dayfly_e2e::run::run(async {
        let options =
            control_plane::Options { controller_manager: true, ..control_plane::Options::default() };
        let cluster = Cluster::start_real(options).await.unwrap();
        a_legacy_token_is_refused(World::on(cluster, Options::default()).await.unwrap()).await;
    });
}

async fn a_legacy_token_is_refused(world: World) {
    let team = world.team("payments").await.unwrap();
    let token = world.cluster().legacy_token(&team.namespace, "api").await.unwrap();
    world.broker().keep_secret(&token);
    for answer in what_all_say(&world, &team, &token).await {
        let refused = answer.unwrap_err();
        assert_eq!((reason(&refused).as_str(), refused.code()), ("TOKEN_LEGACY", Code::Unauthenticated));
        assert!(refused.message().contains("projected"), "names the replacement: {refused:?}");
    }
}

async fn where_keys_are_hidden_the_api_server_alone_judges_signatures(kind: Kind) {
    let options = Options { hidden_keys: true, ..Options::default() };
    let world = World::with_own_broker(kind, options).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    pod.issue(&team.target).await.unwrap();
    let good = pod.token().await.unwrap();
    let admin =
        |claims: &mut serde_json::Value| claims["sub"] = "system:serviceaccount:kube-system:admin".into();
    for (forged, expected) in [
        (jwt::tampered(&good).unwrap(), "TOKEN_REFUSED"),
        (jwt::with_claims(&good, admin).unwrap(), "TOKEN_REFUSED"),
        // All other local checks stay.
        (jwt::unsigned(&good).unwrap(), "TOKEN_MALFORMED"),
        (pod.token_for(VERIFIER).await.unwrap(), "TOKEN_AUDIENCE"),
        (pod.token_for_all(&[WORKLOAD, "other"], 600).await.unwrap(), "TOKEN_AUDIENCE"),
    ] {
        for _ in 0..2 {
            let refused = world.issue_with(&forged, asking_for(&team.target)).await.unwrap_err();
            assert_eq!((reason(&refused).as_str(), refused.code()), (expected, Code::Unauthenticated));
        }
    }
    assert!(!world.broker().log().contains("token keys"), "no keys are asked for");
}

#[test]
fn a_rotation_of_the_api_servers_key_takes_no_restart() {
    dayfly_e2e::run::run(async {
        let cluster = Cluster::start_real(control_plane::Options::default()).await.unwrap();
        // The broker's own token would go with the old key.
        let access = cluster.admin_access().await.unwrap();
        let broker = Broker::start(access, Options::default()).await.unwrap();
        let world = World::of(cluster, std::sync::Arc::new(broker));
        let team = world.team("payments").await.unwrap();
        let pod = world.pod(&team.namespace, "api").await.unwrap();
        let [of_old_key, another] =
            [pod.token_for(WORKLOAD).await.unwrap(), pod.token_for(WORKLOAD).await.unwrap()];
        let kid = |token: &str| jwt::read(token).unwrap().header["kid"].clone();
        let ask = async |token: &str| world.issue_with(token, asking_for(&team.target)).await;
        ask(&of_old_key).await.unwrap();

        world.cluster().rotate_key().await.unwrap();
        let of_new_key = pod.token_for(WORKLOAD).await.unwrap();
        assert_ne!(kid(&of_new_key), kid(&of_old_key));
        let began = tokio::time::Instant::now();
        until(async || match ask(&of_new_key).await {
            Ok(_) => Ok(true),
            // Unknown keys are asked for once in ten seconds; the API server has just begun.
            Err(status) if ["TOKEN_SIGNATURE", "CLUSTER_UNAVAILABLE"].contains(&reason(&status).as_str()) => {
                Ok(false)
            }
            Err(status) => Err(status.into()),
        })
        .await
        .unwrap();
        assert!(began.elapsed() < std::time::Duration::from_secs(15), "{:?}", began.elapsed());
        ask(&of_old_key).await.unwrap();

        world.cluster().forget_old_keys().await.unwrap();
        // The API server's word, as the broker has not seen the old key go.
        let refused = async |token: &str| match ask(token).await {
            Ok(_) => Ok(false),
            Err(status) if status.code() == Code::Unavailable => Ok(false),
            Err(status) => {
                assert!(
                    ["TOKEN_REFUSED", "TOKEN_SIGNATURE"].contains(&reason(&status).as_str()),
                    "{status:?}"
                );
                Ok(true)
            }
        };
        assert!(ask(&another).await.is_err(), "not even once");
        until(async || refused(&another).await).await.unwrap();
        // This one's good review is kept for ten seconds.
        until(async || refused(&of_old_key).await).await.unwrap();
        until(async || Ok(ask(&of_new_key).await.is_ok())).await.unwrap();
    });
}
