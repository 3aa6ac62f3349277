//! What has lost its ground is ended within seconds, by a rule that says why; and nothing for lack of news.

use std::time::Duration;

use dayfly_api::v1::{self, LeaseState};
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::{Cluster, Kind};
use dayfly_e2e::control_plane;
use dayfly_e2e::policy;
use dayfly_e2e::run::until;
use dayfly_e2e::wire::Mode;
use dayfly_e2e::world::{Operator, Pod, World, leases_of};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use crate::outage::by_wire;

on_both!(
    what_happens_to_a_workload_ends_its_leases_within_seconds,
    what_policy_does_not_give_any_more_is_ended,
    what_was_missed_while_the_broker_was_down_is_made_good,
    nothing_is_ended_while_the_broker_is_cut_off,
);

/// What is promised, of single objects that change.
const SOON: Duration = Duration::from_secs(5);
/// Pods that go while the broker is down.
const PODS: usize = 1000;
/// How soon after a start their leases have ended.
const MADE_GOOD: Duration = Duration::from_secs(30);
/// What the broker logs of each rule that it writes.
const LOST: &str = "leases have lost their ground";
/// What it logs, once until it is known, when a look cannot tell since the API server does not answer.
const NOT_KNOWN: &str = "they stay cluster=east error=\"the cluster's API server does not answer now";

/// Waits until this lease is revoked; says by whom and why.
async fn until_ended(admin: &Operator, lease: &str) -> (String, String) {
    let began = Instant::now();
    let mut ended = None;
    until(async || {
        let now = admin.lease(lease).await?;
        ended = (now.state() == LeaseState::Revoked).then_some(now);
        Ok(ended.is_some())
    })
    .await
    .unwrap();
    let took = began.elapsed();
    assert!(took < SOON, "it took {took:?}");
    let ended = ended.unwrap();
    let rule = admin.revocation(&ended.revoked_by).await.unwrap();
    assert_eq!(rule.after(), v1::After::Reissue);
    assert_eq!(ended.revoked_for, rule.reason, "the reason is on the lease");
    (rule.by, rule.reason)
}

async fn state(admin: &Operator, lease: &str) -> LeaseState {
    admin.lease(lease).await.unwrap().state()
}

async fn issued(pod: &Pod<'_>, target: &str) -> String {
    pod.issue(target).await.unwrap().lease.unwrap().id
}

async fn what_happens_to_a_workload_ends_its_leases_within_seconds(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, admin) = (world.team("payments").await.unwrap(), world.admin().await.unwrap());
    let (namespace, cluster) = (&team.namespace, world.cluster());
    let [deleted, ended, beside] = [(); 3].map(async |()| world.pod(namespace, "api").await.unwrap());
    let (deleted, ended, beside) = (deleted.await, ended.await, beside.await);
    let of_deleted = [issued(&deleted, &team.target).await, issued(&deleted, &team.target).await];
    let (of_ended, of_beside) = (issued(&ended, &team.target).await, issued(&beside, &team.target).await);

    cluster.delete_pod(namespace, &deleted.name, true).await.unwrap();
    for lease in &of_deleted {
        let (by, reason) = until_ended(&admin, lease).await;
        assert_eq!((by.as_str(), reason.contains(&deleted.name)), ("dayfly", true), "{reason}");
    }
    cluster.set_pod_phase(namespace, &ended.name, "Failed").await.unwrap();
    let (_, reason) = until_ended(&admin, &of_ended).await;
    assert!(reason.contains("has ended"), "{reason}");
    assert_eq!(state(&admin, &of_beside).await, LeaseState::Active, "of a pod that nothing happened to");

    cluster.delete_service_account(namespace, "api").await.unwrap();
    cluster.create_service_account(namespace, "api").await.unwrap();
    let (_, reason) = until_ended(&admin, &of_beside).await;
    assert!(reason.contains("service account"), "{reason}");
}

async fn what_policy_does_not_give_any_more_is_ended(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, admin) = (world.team("payments").await.unwrap(), world.admin().await.unwrap());
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let bystander = world.team("orders").await.unwrap();
    let beside = world.pod(&bystander.namespace, "api").await.unwrap();
    let of_beside = issued(&beside, &bystander.target).await;

    let lease = issued(&pod, &team.target).await;
    let mut narrower = team.grant_object.clone();
    narrower["spec"]["scope"] = serde_json::json!(["read"]);
    world.put(&[&narrower]).await.unwrap();
    let (by, reason) = until_ended(&admin, &lease).await;
    assert!(by == "dayfly" && reason.contains("write"), "{reason}");
    // Policy still gives something: it may ask again.
    let lease = issued(&pod, &team.target).await;
    world.remove(&[&narrower]).await.unwrap();
    until_ended(&admin, &lease).await;

    world.put(&[&team.grant_object]).await.unwrap();
    let lease = issued(&pod, &team.target).await;
    let another = policy::owner(&format!("{}-new", team.owner), &[&team.namespace]);
    world.broker().remove(&team.owner_object).unwrap();
    world.put(&[&another]).await.unwrap();
    let (_, reason) = until_ended(&admin, &lease).await;
    assert!(reason.contains("owner") || reason.contains("Owner"), "{reason}");

    let mut lease = String::new();
    until(async || {
        let asked = pod.ask(dayfly_e2e::world::asking_for(&team.target)).await?;
        lease = asked.ok().and_then(|issued| issued.lease).map(|lease| lease.id).unwrap_or_default();
        Ok(!lease.is_empty())
    })
    .await
    .unwrap();
    world.remove(&[&team.target_object]).await.unwrap();
    let (_, reason) = until_ended(&admin, &lease).await;
    assert!(reason.contains(&team.target), "{reason}");
    assert_eq!(state(&admin, &of_beside).await, LeaseState::Active, "another team's");
}

async fn what_was_missed_while_the_broker_was_down_is_made_good(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let (team, admin) = (world.team("payments").await.unwrap(), world.admin().await.unwrap());
    let stays = world.pod(&team.namespace, "api").await.unwrap();
    let of_stays = issued(&stays, &team.target).await;
    let (world_ref, team_ref) = (&world, &team);
    let pods: Vec<Pod<'_>> = stream::iter(0..PODS)
        .map(|_| async move {
            let pod = world_ref.pod(&team_ref.namespace, "api").await?;
            // As often as the service account's share of calls lets it.
            until(async || Ok(pod.ask(dayfly_e2e::world::asking_for(&team_ref.target)).await?.is_ok()))
                .await?;
            anyhow::Ok(pod)
        })
        .buffer_unordered(16)
        .try_collect()
        .await
        .unwrap();
    world.broker().kill9().await.unwrap();
    stream::iter(&pods)
        .map(|pod| world_ref.cluster().delete_pod(&pod.namespace, &pod.name, true))
        .buffer_unordered(16)
        .try_collect::<Vec<()>>()
        .await
        .unwrap();
    world.broker().launch().await.unwrap();
    let began = Instant::now();
    until(async || {
        let listed = v1::ListLeasesRequest { active_only: true, ..leases_of(&team.owner) };
        let active = admin.all_leases(listed).await?;
        Ok(active.len() == 1 && active[0].id == of_stays)
    })
    .await
    .unwrap();
    let took = began.elapsed();
    println!("{PODS} pods that went while the broker was down: their leases had ended after {took:?}");
    assert!(took < MADE_GOOD, "it took {took:?}");
    // They are logged when the look has ended.
    let rules = || {
        let log = world.broker().log();
        log.lines().filter(|line| line.contains(LOST)).map(str::to_owned).collect::<Vec<_>>()
    };
    until(async || Ok(rules().len() >= PODS)).await.unwrap();
    assert_eq!(rules().len(), PODS, "one rule for each pod");
    let of_stays = format!("/{} ", stays.name);
    assert!(!rules().iter().any(|rule| rule.contains(&of_stays)), "and none for the one that stayed");
}

/// All is looked at each second meanwhile, and each look asks an API server that does not answer.
async fn nothing_is_ended_while_the_broker_is_cut_off(kind: Kind) {
    for mode in [Mode::Cut, Mode::Silent] {
        let limits = [("reconcile_secs", 1), ("informer_silence_secs", 2), ("review_timeout_secs", 1)].into();
        let (world, wire) = by_wire(kind, Options { limits, ..Options::default() }).await;
        let (team, admin) = (world.team("payments").await.unwrap(), world.admin().await.unwrap());
        let (pod, goes) = (
            world.pod(&team.namespace, "api").await.unwrap(),
            world.pod(&team.namespace, "api").await.unwrap(),
        );
        let (lease, of_goes) = (issued(&pod, &team.target).await, issued(&goes, &team.target).await);
        let logged = |what: &str| world.broker().log().matches(what).count();
        assert_eq!(logged(NOT_KNOWN), 0, "{mode:?}");
        wire.set(mode);
        until(async || Ok(logged(NOT_KNOWN) + logged(LOST) > 0)).await.unwrap();
        // It looks again and again.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!((logged(NOT_KNOWN) > 0, logged(LOST)), (true, 0), "{mode:?}");
        wire.set(Mode::Open);
        // Operators are reviewed by the API server too. What is revoked stays so: neither was meanwhile.
        for lease in [&lease, &of_goes] {
            let mut now = LeaseState::Unspecified;
            until(async || {
                now = admin.lease(lease).await.map_or(LeaseState::Unspecified, |lease| lease.state());
                Ok(now != LeaseState::Unspecified)
            })
            .await
            .unwrap();
            assert_eq!(now, LeaseState::Active, "{mode:?}");
        }
        world.cluster().delete_pod(&goes.namespace, &goes.name, true).await.unwrap();
        let (_, reason) = until_ended(&admin, &of_goes).await;
        assert!(reason.contains(&goes.name), "{reason}");
        // The looks after it end nothing either.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(state(&admin, &lease).await, LeaseState::Active, "{mode:?}");
        assert_eq!(logged(LOST), 1, "{mode:?}: one rule, for the pod that went");
    }
}

/// Neither an API server that is down nor one that comes back ends anything.
#[test]
fn nothing_is_ended_while_the_api_server_is_down() {
    dayfly_e2e::run::run(async {
        let cluster = Cluster::start_real(control_plane::Options::default()).await.unwrap();
        let world = World::on(cluster, Options::default()).await.unwrap();
        let (team, admin) = (world.team("payments").await.unwrap(), world.admin().await.unwrap());
        let (pod, goes) = (
            world.pod(&team.namespace, "api").await.unwrap(),
            world.pod(&team.namespace, "api").await.unwrap(),
        );
        let (lease, of_goes) = (issued(&pod, &team.target).await, issued(&goes, &team.target).await);
        world.cluster().kill_api_server().await.unwrap();
        // A broker that starts has no news at all.
        world.broker().kill9().await.unwrap();
        world.broker().launch_unready().await.unwrap();
        tokio::time::sleep(Duration::from_secs(8)).await;
        world.cluster().restart_api_server().await.unwrap();
        world.cluster().delete_pod(&goes.namespace, &goes.name, true).await.unwrap();
        let mut ended = LeaseState::Unspecified;
        until(async || {
            // Operators are reviewed by the API server too.
            ended = match admin.lease(&of_goes).await {
                Ok(lease) => lease.state(),
                Err(_) => LeaseState::Unspecified,
            };
            Ok(ended == LeaseState::Revoked)
        })
        .await
        .unwrap();
        let now = admin.lease(&lease).await.unwrap();
        assert_eq!(now.state(), LeaseState::Active, "{now:?}");
        let rules = world.broker().log().matches(LOST).count();
        assert_eq!(rules, 1, "one rule, for the pod that went");
    });
}
