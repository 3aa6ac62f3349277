//! Who takes all that it can get leaves enough for the others: operators above all.

use std::time::Duration;

use dayfly_api::v1;
use dayfly_api::v1::workload_service_client::WorkloadServiceClient;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{OPERATOR, WORKLOAD, World, bearing, leases_of, owned_by, reason, retry_after};
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

on_both!(
    pods_that_take_all_they_get_keep_no_operator_from_revoking,
    a_pod_that_reads_nothing_leaves_places_to_its_neighbour_and_is_cut,
    keys_are_served_while_health_watches_are_held_and_a_stop_ends_those,
);

/// What ends something, or asks how far that is.
const ENDING: [&str; 2] = ["/dayfly.v1.OperatorService/Revoke", "/dayfly.v1.OperatorService/GetRevocation"];

/// A call of an operator that sends its head and never its request, until the broker has had enough of it.
fn slow_call(channel: Channel, path: &'static str, token: &str) -> JoinHandle<Status> {
    let request = bearing(token, futures_util::stream::pending::<v1::RevokeRequest>());
    tokio::spawn(async move {
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<v1::RevokeRequest, v1::RevokeResponse>::default();
        grpc.client_streaming(request, path.parse().unwrap(), codec).await.unwrap_err()
    })
}

fn is_overloaded(status: &Status) -> bool {
    assert!(reason(status) != "OVERLOADED" || status.code() == Code::ResourceExhausted, "{status:?}");
    reason(status) == "OVERLOADED" && retry_after(status).is_some_and(|after| !after.is_zero())
}

async fn pods_that_take_all_they_get_keep_no_operator_from_revoking(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let operator = world.operator(&["revoke", "list"], Some(&team.owner)).await.unwrap();
    // Service accounts without a right, whose pods project tokens for operators.
    let mut tokens = Vec::new();
    for namespace in ["loops", "spins"] {
        let namespace = world.namespace(namespace).await.unwrap();
        for number in 0..8 {
            let account = format!("api-{number}");
            world.cluster().create_service_account(&namespace, &account).await.unwrap();
            let token = world.unbound_token(&namespace, &account, OPERATOR).await.unwrap();
            // Reviewed in peace, so that what follows is about places alone.
            let mut client =
                v1::operator_service_client::OperatorServiceClient::new(world.broker().channel());
            let asked = client.list_owners(bearing(&token, v1::ListOwnersRequest::default())).await;
            assert!(asked.as_ref().err().is_none_or(|status| !is_overloaded(status)), "{asked:?}");
            tokens.push(token);
        }
    }
    let connections = [world.broker().another_channel().unwrap(), world.broker().another_channel().unwrap()];
    let flood: Vec<_> = tokens
        .iter()
        .flat_map(|token| (0..8).map(move |number| (token, ENDING[number % 2])))
        .zip(connections.iter().cycle())
        .map(|((token, path), connection)| slow_call(connection.clone(), path, token))
        .collect();
    for token in [&tokens[0], &tokens[8]] {
        until(async || {
            let probe = slow_call(world.broker().channel(), ENDING[0], token);
            let answer = tokio::time::timeout(Duration::from_secs(1), probe).await;
            Ok(answer.is_ok_and(|status| is_overloaded(&status.unwrap())))
        })
        .await
        .unwrap();
    }
    let asked = Instant::now();
    operator.revoke(owned_by(&team.owner)).await.unwrap();
    operator.leases(leases_of(&team.owner)).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    // Those that were let in have held on to their places all the while.
    assert!(flood.iter().any(|call| !call.is_finished()));
    for ended in join_all(flood).await {
        let ended = ended.unwrap();
        assert!(is_overloaded(&ended) || reason(&ended) == "DEADLINE", "{ended:?}");
    }
}

async fn a_pod_that_reads_nothing_leaves_places_to_its_neighbour_and_is_cut(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let (pod, neighbour) =
        (world.pod(&team.namespace, "api").await.unwrap(), world.pod(&team.namespace, "api").await.unwrap());
    let token = pod.token_for(WORKLOAD).await.unwrap();
    neighbour.who_am_i().await.unwrap();
    let who_am_i = async |channel: Channel| {
        let request = bearing(&token, v1::WhoAmIRequest::default());
        WorkloadServiceClient::new(channel).who_am_i(request).await.map(drop)
    };
    who_am_i(world.broker().channel()).await.unwrap();
    let mut unread = Vec::new();
    for _ in 0..2 {
        let connection = world.broker().channel_that_reads_nothing().unwrap();
        for _ in 0..90 {
            let (connection, token) = (connection.clone(), token.clone());
            unread.push(tokio::spawn(async move {
                let request = bearing(&token, v1::WhoAmIRequest::default());
                WorkloadServiceClient::new(connection).who_am_i(request).await.map(drop)
            }));
        }
    }
    // It has taken all that it gets.
    until(async || Ok(who_am_i(world.broker().channel()).await.is_err_and(|status| is_overloaded(&status))))
        .await
        .unwrap();
    neighbour.who_am_i().await.unwrap();
    neighbour.issue(&team.target).await.unwrap();
    // It still takes nothing, and is cut: its places are its own again.
    until(async || Ok(who_am_i(world.broker().channel()).await.is_ok())).await.unwrap();
    unread.iter().for_each(JoinHandle::abort);
}

async fn keys_are_served_while_health_watches_are_held_and_a_stop_ends_those(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let mut watches = Vec::new();
    let mut refused = None;
    for _ in 0..3 {
        let connection = world.broker().another_channel().unwrap();
        for _ in 0..90 {
            let mut health = HealthClient::new(connection.clone());
            match health.watch(HealthCheckRequest::default()).await {
                Ok(answer) => watches.push(answer.into_inner()),
                Err(status) => refused = Some(status),
            }
        }
    }
    assert!(is_overloaded(&refused.unwrap()));
    world.keys().await.unwrap();
    world.fetch("/.well-known/jwks.json").await.unwrap().unwrap();
    assert!(world.broker().serves().await, "probes are answered");
    let stopped = Instant::now();
    let ended = async {
        let mut watch = watches.pop().unwrap();
        loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                ended => return ended,
            }
        }
    };
    let (ended, stop) = tokio::join!(ended, world.broker().stop());
    stop.unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
    assert_eq!(reason(&ended.unwrap_err()), "NOT_READY");
    drop(watches);
}
