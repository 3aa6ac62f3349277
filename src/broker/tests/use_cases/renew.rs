use std::sync::Arc;
use std::time::Duration;

use dayfly_broker::{Error, IssueRequest, Reason, RenewRequest};
use dayfly_core::change::Change;
use dayfly_core::digest::Digest;
use dayfly_core::ids::LeaseId;
use dayfly_core::lease::{Confirmation, Lease, LeaseState, Phase};
use dayfly_core::ports::{Clock as _, PodFacts, PodPhase};
use dayfly_core::rule::After;

use crate::issue::revoke_payments;
use crate::support::{POLICY, World, api, orders, other_pod, refused, renewal, web};

const MINUTE: Duration = Duration::from_secs(60);

async fn refusal(world: &World, request: &RenewRequest) -> Error {
    refused(world.renew(&api(), request).await)
}

#[tokio::test]
async fn a_renewal_is_a_new_lease_and_the_earlier_one_ends_after_the_overlap() {
    let world = World::new();
    let first = world.issued().await.lease;
    world.clock.advance(3 * MINUTE);
    let renewed = world.renewed(first.id).await;
    let (new, earlier) = (&renewed.issued.lease, renewed.earlier.as_ref().unwrap());
    assert_eq!((new.renews, earlier.lease.phase.renewed_by()), (Some(first.id), Some(new.id)));
    assert_eq!((&new.target, &new.grant, &new.scope), (&first.target, &first.grant, &first.scope));
    assert_eq!(new.digests, [Digest::of(renewed.issued.credential.expose())]);
    let ends_at = world.clock.now().plus(MINUTE);
    assert_eq!(earlier.lease.phase, Phase::Renewed { by: new.id, ends_at });
    assert_eq!(earlier.state, LeaseState::Active, "for the overlap");

    world.clock.advance(MINUTE);
    assert_eq!(refusal(&world, &renewal(first.id)).await.reason(), Reason::LeaseRenewed);
    assert_eq!(world.renewed(new.id).await.issued.lease.renews, Some(new.id), "and so on");
}

#[tokio::test]
async fn no_other_pod_learns_that_there_is_a_lease() {
    let world = World::new();
    let lease = world.issued().await.lease;
    let unknown = LeaseId::from_u128(5);
    for token in [other_pod(), web()] {
        let of_others = refused(world.renew(&token, &renewal(lease.id)).await);
        let of_nobody = refused(world.renew(&token, &renewal(unknown)).await);
        assert_eq!(of_others.reason(), Reason::NotFound);
        let same = of_nobody.to_string().replace(&unknown.to_string(), &lease.id.to_string());
        assert_eq!(of_others.to_string(), same);
    }
    assert_eq!(world.store.all().len(), 1);
}

#[tokio::test]
async fn it_gives_the_earlier_scope_or_less_and_never_more() {
    let world = World::new();
    let read = vec!["read".parse().unwrap()];
    let narrow = IssueRequest { scope: read.clone(), ..orders() };
    let lease = world.issue(&api(), &narrow).await.unwrap_or_else(|error| panic!("{error}")).lease;
    let renewed = world.renewed(lease.id).await.issued.lease;
    assert_eq!(renewed.scope, read, "not all that the Grant has");
    let more = RenewRequest { scope: vec!["write".parse().unwrap()], ..renewal(renewed.id) };
    let error = refusal(&world, &more).await;
    assert_eq!(error.reason(), Reason::ScopeNotGranted);
    assert!(error.to_string().contains("write"), "{error}");

    let all = world.issued().await.lease;
    let less = RenewRequest { scope: read.clone(), ..renewal(all.id) };
    let less = world.renew(&api(), &less).await.unwrap_or_else(|error| panic!("{error}")).issued.lease;
    assert_eq!(less.scope, read);
}

#[tokio::test]
async fn it_is_decided_by_the_policy_of_now() {
    let cases = [
        (POLICY.replace("target: orders, scope: [read, write]", "target: orders, scope: [read]"), "write"),
        (
            POLICY.replace(
                "metadata: {name: orders, namespace: payments}",
                "metadata: {name: other, namespace: payments}",
            ),
            "orders",
        ),
        (POLICY.replace("names: [payments]}", "names: [elsewhere]}"), "payments"),
    ];
    for (policy, named) in cases {
        let world = World::new();
        let lease = world.issued().await.lease;
        world.policy(&policy);
        let error = refusal(&world, &renewal(lease.id)).await;
        assert!(matches!(error, Error::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains(named), "{error}");
        let kept = &world.store.all()[0];
        assert_eq!(kept.phase, Phase::Active, "the earlier lease is as it was");
    }
}

#[tokio::test]
async fn a_life_that_was_cut_short_once_does_not_stay_so() {
    let world = World::new();
    let lease = world.issued().await.lease;
    world.policy(&POLICY.replace("defaultTtl: 5m, maxTtl: 15m", "defaultTtl: 1m, maxTtl: 1m"));
    let life = |lease: &Lease| lease.expires_at.since(lease.issued_at);
    let asked = RenewRequest { ttl: Some(10 * MINUTE), ..renewal(lease.id) };
    let short = world.renew(&api(), &asked).await.unwrap_or_else(|error| panic!("{error}")).issued.lease;
    assert_eq!(life(&short), MINUTE, "the least of all bounds");
    world.policy(POLICY);
    let renewed = world.renewed(short.id).await.issued.lease;
    assert_eq!(life(&renewed), 5 * MINUTE, "the Grant's default");
    let asked = RenewRequest { ttl: Some(10 * MINUTE), ..renewal(renewed.id) };
    let long = world.renew(&api(), &asked).await.unwrap_or_else(|error| panic!("{error}")).issued.lease;
    assert_eq!(life(&long), 10 * MINUTE);
}

#[tokio::test]
async fn what_has_ended_is_asked_for_by_issue() {
    let world = World::new();
    let lease = world.issued().await.lease;
    world.clock.advance(5 * MINUTE);
    let error = refusal(&world, &renewal(lease.id)).await;
    assert_eq!(error.reason(), Reason::LeaseEnded);
    assert!(error.to_string().contains("by Issue"), "{error}");

    let lease = world.issued().await.lease;
    world.store.commit_now(Change::Release { lease: lease.id }).unwrap();
    assert_eq!(refusal(&world, &renewal(lease.id)).await.reason(), Reason::LeaseEnded);

    let lease = world.issued().await.lease;
    revoke_payments(&world.store, After::Reissue);
    assert_eq!(refusal(&world, &renewal(lease.id)).await.reason(), Reason::LeaseEnded);
    world.issued().await;
    assert_eq!(world.engine.mints(), 4, "nothing was made for those refused");
}

/// Between the look at the earlier lease and the commit.
#[tokio::test]
async fn a_revocation_during_a_renewal_wins() {
    let world = World::new();
    let lease = world.issued().await.lease;
    let store = Arc::clone(&world.store);
    world.engine.meanwhile(move || revoke_payments(&store, After::Reissue));
    assert_eq!(refusal(&world, &renewal(lease.id)).await.reason(), Reason::LeaseEnded);
    let world = World::new();
    let lease = world.issued().await.lease;
    let store = Arc::clone(&world.store);
    world.engine.meanwhile(move || revoke_payments(&store, After::Hold));
    let error = refusal(&world, &renewal(lease.id)).await;
    assert!(matches!(error.reason(), Reason::LeaseEnded | Reason::Held), "{error}");
    assert_eq!(world.store.all().len(), 1);
}

#[tokio::test]
async fn a_confirmation_stays_or_changes() {
    let world = World::new();
    let [one, other] = [b"one", b"two"].map(|key| Confirmation::Jwk(Digest::of(key)));
    let bound = IssueRequest { confirmation: Some(one), ..orders() };
    let lease = world.issue(&api(), &bound).await.unwrap_or_else(|error| panic!("{error}")).lease;
    let kept = world.renewed(lease.id).await.issued.lease;
    assert_eq!(kept.confirmation, Some(one));
    let changed = RenewRequest { confirmation: Some(other), ..renewal(kept.id) };
    let changed = world.renew(&api(), &changed).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(changed.issued.lease.confirmation, Some(other));
}

#[tokio::test]
async fn a_terminating_pod_renews_and_gets_nothing_new() {
    let world = World::new();
    let lease = world.issued().await.lease;
    world.east().pod("api-0", |pod| {
        Some(PodFacts { deleting: Some(dayfly_core::time::Timestamp::from_secs(2_000_000_000)), ..pod })
    });
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::PodTerminating);
    let renewed = world.renewed(lease.id).await.issued.lease;
    world.east().pod("api-0", |pod| Some(PodFacts { phase: PodPhase::Failed, ..pod }));
    assert_eq!(refusal(&world, &renewal(renewed.id)).await.reason(), Reason::PodFinished);
    world.east().pod("api-0", |_| None);
    assert_eq!(refusal(&world, &renewal(renewed.id)).await.reason(), Reason::PodGone);
}
