//! Workloads that come to an end: their tokens are good for some seconds more, and get nothing.

use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{Pod, Team, WORKLOAD, World, asking_for, reason};

on_both!(
    a_deleted_pod_gets_nothing_at_once,
    a_terminating_pod_gets_nothing,
    a_finished_pod_gets_nothing,
    nothing_new_in_a_namespace_that_goes,
    a_recreated_pod_is_another,
    a_recreated_service_account_is_another,
);

/// What a pod that is gone is told; for a moment it may be seen going.
const GONE: &[&str] = &["POD_GONE", "TOKEN_REFUSED", "POD_TERMINATING"];

/// A team and a running pod of it that has been issued to.
async fn served(world: &World) -> (Team, Pod<'_>) {
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    pod.issue(&team.target).await.unwrap();
    (team, pod)
}

/// Waits until the pod is denied, for this reason and no other.
async fn until_denied(pod: &Pod<'_>, target: &str, expected: &[&str]) {
    until(async || match pod.ask(asking_for(target)).await? {
        Ok(_) => Ok(false),
        Err(denied) if expected.contains(&reason(&denied).as_str()) => Ok(true),
        Err(denied) => Err(denied.into()),
    })
    .await
    .unwrap();
}

/// Waits until the pod is denied for this reason, denied for others meanwhile.
async fn until_denied_only(pod: &Pod<'_>, target: &str, expected: &str) {
    until(async || Ok(reason(&pod.is_denied(target).await?) == expected)).await.unwrap();
}

async fn a_deleted_pod_gets_nothing_at_once(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, pod) = served(&world).await;
    world.cluster().delete_pod(&pod.namespace, &pod.name, true).await.unwrap();
    let deleted = tokio::time::Instant::now();
    until_denied(&pod, &team.target, GONE).await;
    let token = pod.token().await.unwrap();
    let still_accepted = world.cluster().accepts(&token, WORKLOAD).await.unwrap();
    let after = deleted.elapsed();
    if world.is_real() {
        // That is what the test is about: whoever only asks the API server serves the pod for 10 s more.
        assert!(still_accepted, "the API server has forgotten its review after {after:?}");
        until_denied_only(&pod, &team.target, "POD_GONE").await;
    }
    assert!(after.as_secs() < 5, "denied only after {after:?}");
    let gone = world.issue_with(&token, asking_for(&team.target)).await;
    assert!(gone.is_err());
}

async fn a_terminating_pod_gets_nothing(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, pod) = served(&world).await;
    world.cluster().delete_pod(&pod.namespace, &pod.name, false).await.unwrap();
    until_denied(&pod, &team.target, &["POD_TERMINATING"]).await;
    let token = pod.token().await.unwrap();
    assert!(world.cluster().accepts(&token, WORKLOAD).await.unwrap(), "the API server accepts it");
    // Another pod of the same service account is served.
    world.pod(&team.namespace, "api").await.unwrap().issue(&team.target).await.unwrap();
}

async fn a_finished_pod_gets_nothing(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, pod) = served(&world).await;
    for phase in ["Succeeded", "Failed"] {
        let pod = if phase == "Succeeded" { &pod } else { &world.pod(&team.namespace, "api").await.unwrap() };
        world.cluster().set_pod_phase(&pod.namespace, &pod.name, phase).await.unwrap();
        until_denied(pod, &team.target, &["POD_FINISHED"]).await;
    }
}

async fn nothing_new_in_a_namespace_that_goes(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, pod) = served(&world).await;
    world.cluster().delete_namespace(&team.namespace).await.unwrap();
    if world.is_real() {
        // Without a controller it stays, with all that is in it: the pod runs on.
        until_denied(&pod, &team.target, &["NAMESPACE_TERMINATING"]).await;
    } else {
        until_denied(
            &pod,
            &team.target,
            &["NAMESPACE_TERMINATING", "SERVICE_ACCOUNT_GONE", "POD_GONE", "TOKEN_REFUSED"],
        )
        .await;
    }
}

async fn a_recreated_pod_is_another(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, pod) = served(&world).await;
    world.cluster().delete_pod(&pod.namespace, &pod.name, true).await.unwrap();
    let uid = world.cluster().create_pod(&pod.namespace, &pod.name, "api").await.unwrap();
    assert_ne!(uid, pod.uid);
    until_denied(&pod, &team.target, GONE).await;
}

async fn a_recreated_service_account_is_another(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, pod) = served(&world).await;
    world.cluster().delete_service_account(&team.namespace, "api").await.unwrap();
    world.cluster().create_service_account(&team.namespace, "api").await.unwrap();
    until_denied(&pod, &team.target, &["SERVICE_ACCOUNT_GONE", "TOKEN_REFUSED"]).await;
    // A pod of the new one is served.
    until(async || Ok(world.pod(&team.namespace, "api").await?.issue(&team.target).await.is_ok()))
        .await
        .unwrap();
}
