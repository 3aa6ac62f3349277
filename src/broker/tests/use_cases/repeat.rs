use std::sync::atomic::Ordering;
use std::time::Duration;

use dayfly_broker::{Error, IssueRequest, Reason, RenewRequest};
use dayfly_core::change::Change;
use dayfly_core::digest::Digest;
use dayfly_core::ids::LeaseId;
use dayfly_core::ports::StoreError;
use dayfly_core::rule::After;

use crate::support::{Hang, POLICY, World, api, operator, orders, other_pod, refused, renewal, secret};

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
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::DecisionOutrun);
}

/// Longer than a commit in memory takes.
const SOON: Duration = Duration::from_millis(200);

/// The caller goes away while the commit is under way: before it has taken effect, or after.
#[tokio::test]
async fn a_lost_answer_is_answered_again_with_the_one_lease_there_is() {
    for (hang, there) in [(Hang::Before, 0), (Hang::After, 1)] {
        let world = World::new();
        world.store.hang(Some(hang));
        let lost = tokio::time::timeout(SOON, world.issue(&api(), &keyed())).await;
        assert!(lost.is_err(), "the answer is lost");
        world.store.hang(None);
        assert_eq!(world.store.all().len(), there);
        let again = world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}"));
        let [lease] = world.store.all().try_into().unwrap();
        assert_eq!(again.lease.id, lease.id);
        assert!(
            lease.digests.contains(&Digest::of(again.credential.expose())),
            "what is handed out is known"
        );

        // The same of a renewal, for which the key is free: it is scoped to the method.
        let request = renew_keyed(lease.id);
        world.store.hang(Some(hang));
        let lost = tokio::time::timeout(SOON, world.renew(&api(), &request)).await;
        assert!(lost.is_err());
        world.store.hang(None);
        let renewed = world.renew(&api(), &request).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(world.store.all().len(), 2);
        assert_eq!(renewed.issued.lease.renews, Some(lease.id));
        assert_eq!(renewed.earlier.unwrap().lease.phase.renewed_by(), Some(renewed.issued.lease.id));
    }
}

/// A commit that failed may have taken effect or not; here it has not.
#[tokio::test]
async fn a_failed_commit_is_tried_again_with_the_same_key() {
    let world = World::new();
    world.store.fail(Some(StoreError::Poisoned("a sync failed".to_owned())));
    assert_eq!(repeated(&world).await.reason(), Reason::StoreUnavailable);
    world.store.fail(None);
    world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(world.store.all().len(), 1);
}

fn renew_keyed(lease: LeaseId) -> RenewRequest {
    RenewRequest { idempotency_key: Some("deploy-7".to_owned()), ..renewal(lease) }
}

#[tokio::test]
async fn a_repeated_renewal_gets_the_same_lease_signed_again() {
    let world = World::new();
    let lease = world.issued().await.lease;
    let request = renew_keyed(lease.id);
    let first = world.renew(&api(), &request).await.unwrap_or_else(|error| panic!("{error}")).issued;
    // By then the earlier one has ended.
    world.clock.advance(Duration::from_secs(90));
    let again = world.renew(&api(), &request).await.unwrap_or_else(|error| panic!("{error}")).issued;
    assert_eq!(again.lease.id, first.lease.id);
    assert_ne!(again.credential.expose(), first.credential.expose());
    assert_eq!(world.store.all().len(), 2);

    for changed in [
        RenewRequest { scope: vec!["read".parse().unwrap()], ..request.clone() },
        RenewRequest { ttl: Some(Duration::from_secs(60)), ..request.clone() },
        RenewRequest { lease: first.lease.id, ..request.clone() },
    ] {
        let error = refused(world.renew(&api(), &changed).await);
        assert_eq!(error.reason(), Reason::IdempotencyKeyReused, "{changed:?}");
    }
    let other = RenewRequest { idempotency_key: Some("another".to_owned()), ..request.clone() };
    assert_eq!(refused(world.renew(&api(), &other).await).reason(), Reason::LeaseRenewed);

    world.policy(&POLICY.replace("target: orders, scope: [read, write]", "target: orders, scope: [read]"));
    let denied = refused(world.renew(&api(), &request).await);
    assert_eq!(denied.reason(), Reason::ScopeNotGranted, "a repeat is decided afresh");
    world.policy(POLICY);
    crate::issue::revoke_payments(&world.store, After::Reissue);
    assert_eq!(refused(world.renew(&api(), &request).await).reason(), Reason::LeaseEnded);
}

/// It ends with the overlap: whoever got it again would take it for one that lives as long as it says.
#[tokio::test]
async fn a_renewed_lease_is_not_given_again() {
    let world = World::new();
    let first = world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}")).lease;
    let request = renew_keyed(first.id);
    let second = world.renew(&api(), &request).await.unwrap_or_else(|error| panic!("{error}")).issued.lease;
    let error = repeated(&world).await;
    assert_eq!(error.reason(), Reason::LeaseRenewed);
    assert!(error.to_string().contains(&second.id.to_string()), "{error}");
    world.renewed(second.id).await;
    assert_eq!(refused(world.renew(&api(), &request).await).reason(), Reason::LeaseRenewed);
}

/// Neither does it hit the other's, nor does it tell that there is one.
#[tokio::test]
async fn anothers_key_is_as_good_as_a_new_one() {
    let world = World::new();
    let mine = world.issue(&api(), &keyed()).await.unwrap_or_else(|error| panic!("{error}")).lease;
    let other = world.issue(&other_pod(), &keyed()).await.unwrap_or_else(|error| panic!("{error}")).lease;
    assert_ne!(mine.id, other.id);
    world.renew(&api(), &renew_keyed(mine.id)).await.unwrap_or_else(|error| panic!("{error}"));
    let theirs = refused(world.renew(&other_pod(), &renew_keyed(mine.id)).await);
    assert_eq!(theirs.reason(), Reason::NotFound);
    world.renew(&other_pod(), &renew_keyed(other.id)).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(world.store.all().len(), 4);
}
