use std::time::Duration;

use dayfly_broker::{Error, Reason, Watch, WatchNews};
use dayfly_core::change::Change;
use dayfly_core::ids::LeaseId;
use dayfly_core::ports::PodFacts;
use dayfly_core::rule::After;
use dayfly_core::secret::Secret;

use crate::issue::revoke_payments;
use crate::support::{World, api, bearer, orders, other_pod, refused, web};

async fn watch(world: &World, token: &Secret) -> Result<Watch, Error> {
    Ok(world.broker.watch_my_leases(bearer(token)).await?.with_heartbeat(Duration::from_millis(200)))
}

fn told(news: &WatchNews) -> Vec<(LeaseId, &str)> {
    news.leases.iter().map(|view| (view.lease.id, view.state.name())).collect()
}

/// The next news that is no heartbeat.
async fn next(watch: &mut Watch) -> WatchNews {
    loop {
        let news = watch.next().await.unwrap_or_else(|error| panic!("{error}"));
        if !news.leases.is_empty() {
            return news;
        }
    }
}

#[tokio::test]
async fn begins_with_what_is_and_tells_each_change() {
    let world = World::new();
    let (one, two) = (world.issued().await.lease, world.issued().await.lease);
    world.store.commit_now(Change::Release { lease: one.id }).unwrap();
    world.issue(&other_pod(), &orders()).await.unwrap_or_else(|error| panic!("{error}"));
    let mut watching = watch(&world, &api()).await.ok().unwrap();
    let first = watching.next().await.unwrap();
    assert!(first.snapshot);
    assert_eq!(told(&first), [(two.id, "active")], "neither what has ended nor another pod's");

    let three = world.issued().await.lease;
    let news = next(&mut watching).await;
    assert!(!news.snapshot && news.position > first.position);
    assert_eq!(told(&news), [(three.id, "active")]);

    let renewed = world.renewed(two.id).await.issued.lease;
    let news = next(&mut watching).await;
    assert_eq!(told(&news), [(two.id, "active"), (renewed.id, "active")]);
    assert_eq!(news.leases[0].lease.phase.renewed_by(), Some(renewed.id));

    world.broker.release(bearer(&api()), three.id).await.unwrap();
    assert_eq!(told(&next(&mut watching).await), [(three.id, "released")]);

    world.clock.advance(Duration::from_secs(60));
    assert_eq!(told(&next(&mut watching).await), [(two.id, "expired")], "the overlap is over");

    revoke_payments(&world.store, After::Hold);
    assert_eq!(told(&next(&mut watching).await), [(renewed.id, "revoked")]);
    let quiet = watching.next().await.unwrap();
    assert!(quiet.leases.is_empty() && !quiet.snapshot, "a heartbeat");
}

#[tokio::test]
async fn hears_nothing_of_others() {
    let world = World::new();
    let mut watching = watch(&world, &web()).await.ok().unwrap();
    assert!(told(&watching.next().await.unwrap()).is_empty());
    let lease = world.issued().await.lease;
    world.renewed(lease.id).await;
    let news = watching.next().await.unwrap();
    assert_eq!((told(&news), news.snapshot), (vec![], false), "no more than that the store has moved on");
}

#[tokio::test]
async fn ends_with_the_authority_it_stands_on() {
    let world = World::new();
    let mut watching = watch(&world, &api()).await.ok().unwrap();
    watching.next().await.unwrap();
    world.east().pod("api-0", |pod| {
        Some(PodFacts { deleting: Some(dayfly_core::time::Timestamp::from_secs(2_000_000_000)), ..pod })
    });
    watching.next().await.unwrap();
    world.east().down.store(true, std::sync::atomic::Ordering::SeqCst);
    world.clock.advance(Duration::from_secs(61));
    watching.next().await.unwrap();
    world.east().down.store(false, std::sync::atomic::Ordering::SeqCst);
    world.east().pod("api-0", |_| None);
    assert_eq!(refused(watching.next().await).reason(), Reason::PodGone);
    assert_eq!(refused(watch(&world, &api()).await).reason(), Reason::PodGone);

    let mut watching = watch(&world, &other_pod()).await.ok().unwrap();
    watching.next().await.unwrap();
    world.clock.advance(Duration::from_secs(61));
    world.east().refuse_tokens();
    let error = refused(watching.next().await);
    assert!(matches!(error, Error::Unauthenticated { .. }), "{error:?}");
}

#[tokio::test]
async fn a_workload_with_too_many_leases_is_told_so() {
    let world = World::new();
    for _ in 0..=1000 {
        world.issued().await;
    }
    let mut watching = watch(&world, &api()).await.ok().unwrap();
    assert_eq!(refused(watching.next().await).reason(), Reason::Overloaded);
}
