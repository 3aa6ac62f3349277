use std::sync::atomic::Ordering;
use std::time::Duration;

use dayfly_broker::{Error, IssueRequest, Reason};
use dayfly_core::change::Change;
use dayfly_core::digest::Digest;
use dayfly_core::rule::After;

use crate::support::{POLICY, World, api, operator, orders, refused, secret};

fn keyed() -> IssueRequest {
    IssueRequest { idempotency_key: Some("deploy-7".to_owned()), ..orders() }
}

async fn repeated(world: &World) -> Error {
    refused(world.issue(&api(), &keyed()).await)
}

#[tokio::test]
async fn a_repeat_gets_the_same_lease_signed_again() {
    let world = World::new();
    let first = world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}"));
    world.clock.advance(Duration::from_secs(20));
    let again = world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.lease.id, first.lease.id);
    assert_ne!(again.credential.expose(), first.credential.expose());
    let [lease] = world.store.all().try_into().unwrap();
    let digests = [&first, &again].map(|issued| Digest::of(issued.credential.expose()));
    assert_eq!(lease.digests, digests, "both forms are known");
}

#[tokio::test]
async fn a_key_is_of_one_request_and_one_pod() {
    let world = World::new();
    let first = world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}"));
    for changed in [
        IssueRequest { scope: vec!["read".parse().unwrap()], ..keyed() },
        IssueRequest { ttl: Some(Duration::from_secs(60)), ..keyed() },
        IssueRequest { grant: Some("orders".parse().unwrap()), ..keyed() },
    ] {
        assert_eq!(world.refusal(&changed).await.reason(), Reason::IdempotencyKeyReused, "{changed:?}");
    }
    let other = secret("east/dayfly/system:serviceaccount:payments:api/api-1");
    let other = world.issue(&other, &keyed()).await.unwrap_or_else(|error| panic!("{error}"));
    assert_ne!(other.lease.id, first.lease.id);
}

#[tokio::test]
async fn a_repeat_of_an_ended_lease_is_refused() {
    let world = World::new();
    let first = world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}"));
    world.store.commit_now(Change::Release { lease: first.lease.id }).unwrap();
    assert_eq!(repeated(&world).await.reason(), Reason::LeaseEnded);
    assert_eq!(world.store.all()[0].digests.len(), 1, "nothing was signed again");

    let world = World::new();
    world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}"));
    world.east().allow("alice", "revoke", None);
    crate::revoke::revoke_owner(&world, &operator("alice"), "payments").await.unwrap();
    assert_eq!(repeated(&world).await.reason(), Reason::LeaseEnded);

    let world = World::new();
    world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}"));
    world.clock.advance(Duration::from_secs(300));
    assert_eq!(repeated(&world).await.reason(), Reason::LeaseEnded);
}

/// Between the first look at the lease and the commit: the credential is covered by the rule, and not handed out.
#[tokio::test]
async fn a_revocation_while_a_repeat_is_signed_refuses_it() {
    let world = World::new();
    world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}"));
    let store = std::sync::Arc::clone(&world.store);
    world.engine.meanwhile(move || crate::issue::revoke_payments(&store, After::Reissue));
    world.engine.meanwhile(|| ());
    assert_eq!(repeated(&world).await.reason(), Reason::LeaseEnded);
}

#[tokio::test]
async fn a_repeat_is_decided_afresh() {
    let narrower = [
        POLICY.replace("target: orders, scope: [read, write]", "target: orders, scope: [read]"),
        POLICY.replace("defaultTtl: 5m", "defaultTtl: 1m"),
        POLICY.replace(
            "metadata: {name: orders, namespace: payments}",
            "metadata: {name: orders-2, namespace: payments}",
        ),
        POLICY.replace("metadata: {name: payments}", "metadata: {name: payments-2}"),
    ];
    for policy in narrower {
        let world = World::new();
        world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}"));
        world.policy(&policy);
        assert_eq!(repeated(&world).await.reason(), Reason::DecisionChanged);
    }
    let world = World::new();
    world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}"));
    world.east().pod("api-0", |_| None);
    assert_eq!(repeated(&world).await.reason(), Reason::PodGone);
}

#[tokio::test]
async fn repeats_are_bounded() {
    let world = World::new();
    for _ in 0..16 {
        world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}"));
    }
    assert_eq!(repeated(&world).await.reason(), Reason::LeaseEnded);
    assert_eq!(world.store.all()[0].digests.len(), 16);
}

#[tokio::test]
async fn without_a_key_each_request_is_its_own() {
    let world = World::new();
    let (one, other) = (world.issued().await.lease.id, world.issued().await.lease.id);
    assert!(other > one);
    world.engine.retired.store(true, Ordering::SeqCst);
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::Internal);
}
