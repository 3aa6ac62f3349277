//! A workload watches its own leases.

use std::collections::BTreeMap;
use std::time::Duration;

use dayfly_api::v1;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::world::{Pod, World, leases_of, owned_by, reason};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, Streaming};

on_both!(
    a_watch_tells_what_is_and_each_change_within_a_second,
    a_watch_hears_nothing_of_others,
    a_watch_ends_with_its_pod,
    streams_are_bounded_and_take_no_place_of_a_call,
    a_watch_goes_on_after_a_stop_and_after_a_crash,
);

type News = Streaming<v1::WatchMyLeasesResponse>;

/// Longer than two heartbeats.
const PATIENCE: Duration = Duration::from_secs(12);

async fn watching(pod: &Pod<'_>) -> (News, v1::WatchMyLeasesResponse) {
    let mut news = pod.watch().await.unwrap().unwrap();
    let first = message(&mut news).await.unwrap();
    assert!(first.snapshot && !first.more);
    (news, first)
}

async fn message(news: &mut News) -> Result<v1::WatchMyLeasesResponse, Status> {
    let next = timeout(PATIENCE, news.message()).await.unwrap_or_else(|_| panic!("the stream is silent"));
    next.map(|message| message.unwrap_or_else(|| panic!("the stream ends without a reason")))
}

/// The state of this lease that is told next, heartbeats and others aside.
async fn told(news: &mut News, id: &str) -> v1::Lease {
    loop {
        let message = message(news).await.unwrap();
        if let Some(lease) = message.leases.into_iter().find(|lease| lease.id == id) {
            return lease;
        }
    }
}

/// Why it ends.
async fn end(news: &mut News) -> Status {
    loop {
        if let Err(status) = message(news).await {
            return status;
        }
    }
}

async fn a_watch_tells_what_is_and_each_change_within_a_second(kind: Kind) {
    const SOON: Duration = Duration::from_secs(1);
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let [one, two] = [pod.issue(&team.target).await.unwrap(), pod.issue(&team.target).await.unwrap()]
        .map(|issued| issued.lease.unwrap().id);
    pod.release(&one).await.unwrap().unwrap();
    let (mut news, first) = watching(&pod).await;
    assert_eq!(first.leases.iter().map(|lease| &lease.id).collect::<Vec<_>>(), [&two]);

    let new = pod.renew(&two).await.unwrap().lease.unwrap().id;
    let earlier = told(&mut news, &two).await;
    assert_eq!((earlier.state(), &earlier.renewed_by), (v1::LeaseState::Active, &new));
    let three = pod.issue(&team.target).await.unwrap().lease.unwrap().id;
    assert_eq!(told(&mut news, &three).await.state(), v1::LeaseState::Active);
    pod.release(&three).await.unwrap().unwrap();
    assert_eq!(told(&mut news, &three).await.state(), v1::LeaseState::Released);

    let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    let hold = operator.hold(owned_by(&team.owner)).await.unwrap();
    let revoked = Instant::now();
    let covered = told(&mut news, &new).await;
    assert!(revoked.elapsed() < SOON, "told after {:?}", revoked.elapsed());
    assert_eq!((covered.state(), covered.revoked_by), (v1::LeaseState::Revoked, hold.id));

    while !message(&mut news).await.unwrap().leases.is_empty() {}
    let heartbeat = message(&mut news).await.unwrap();
    assert!(heartbeat.leases.is_empty() && !heartbeat.snapshot && heartbeat.position > first.position);
}

async fn a_watch_hears_nothing_of_others(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let other = world.pod(&team.namespace, "api").await.unwrap();
    let theirs = other.issue(&team.target).await.unwrap().lease.unwrap().id;
    let (mut news, first) = watching(&pod).await;
    assert!(first.leases.is_empty());
    other.renew(&theirs).await.unwrap();
    let mine = pod.issue(&team.target).await.unwrap().lease.unwrap().id;
    loop {
        let leases = message(&mut news).await.unwrap().leases;
        assert!(leases.iter().all(|lease| lease.id == mine), "{leases:?}");
        if !leases.is_empty() {
            break;
        }
    }
}

async fn a_watch_ends_with_its_pod(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let (mut news, _) = watching(&pod).await;
    world.cluster().delete_pod(&pod.namespace, &pod.name, true).await.unwrap();
    let ended = end(&mut news).await;
    assert!(["POD_GONE", "TOKEN_REFUSED"].contains(&reason(&ended).as_str()), "{ended:?}");
}

async fn streams_are_bounded_and_take_no_place_of_a_call(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(watching(&pod).await);
    }
    let refused = pod.watch().await.unwrap().err().unwrap();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    let other = world.pod(&team.namespace, "api").await.unwrap();
    watching(&other).await;
    let lease = pod.issue(&team.target).await.unwrap().lease.unwrap().id;
    for (news, _) in &mut open {
        told(news, &lease).await;
    }
    drop(open);
    // The places come back when the broker sees that the streams are gone.
    dayfly_e2e::run::until(async || Ok(pod.watch().await?.is_ok())).await.unwrap();
}

async fn a_watch_goes_on_after_a_stop_and_after_a_crash(kind: Kind) {
    let limits = BTreeMap::from([("call_timeout_secs", 4)]);
    let world = World::with_own_broker(kind, Options { limits, ..Options::default() }).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let lease = pod.issue(&team.target).await.unwrap().lease.unwrap().id;
    let (mut news, _) = watching(&pod).await;
    // Longer than a call may take.
    assert!(message(&mut news).await.unwrap().leases.is_empty(), "a heartbeat");
    let stopping = Instant::now();
    let (ended, stopped) = tokio::join!(end(&mut news), world.broker().stop());
    stopped.unwrap();
    assert_eq!(reason(&ended), "NOT_READY");
    assert!(stopping.elapsed() < Duration::from_secs(20), "open streams hold up no stop");

    world.broker().launch().await.unwrap();
    let (mut news, first) = watching(&pod).await;
    assert_eq!(first.leases[0].id, lease);
    let new = pod.renew(&lease).await.unwrap().lease.unwrap().id;
    world.broker().kill9().await.unwrap();
    end(&mut news).await;
    world.broker().launch().await.unwrap();
    let (mut news, first) = watching(&pod).await;
    assert_eq!(first.leases.iter().map(|lease| &lease.id).collect::<Vec<_>>(), [&lease, &new]);
    let admin = world.admin().await.unwrap();
    admin.revoke(owned_by(&team.owner)).await.unwrap();
    assert_eq!(told(&mut news, &new).await.state(), v1::LeaseState::Revoked);
    assert_eq!(admin.all_leases(leases_of(&team.owner)).await.unwrap().len(), 2);
}
