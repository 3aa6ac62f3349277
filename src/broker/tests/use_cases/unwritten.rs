//! Rules that the store could not write.

use dayfly_broker::{CoveredNews, Reason, RevocationWatch, RevokeRequest, Revoked, Which};
use dayfly_core::lease::LeaseState;
use dayfly_core::ports::LeaseStore as _;
use dayfly_core::rule::{After, Fields};
use tokio::time::timeout;

use crate::revoke::revoke_owner;
use crate::support::{World, api, bearer, operator, orders, refused};
use crate::teardown::tear_down;
use crate::watch_revocations::{begun, ids, next};

#[tokio::test]
async fn what_is_not_on_disk_is_in_effect_and_told_and_said_to_be() {
    let world = World::new();
    world.east().allow("alice", "revoke", Some("payments"));
    let issued = world.issued().await.lease;
    let (mut watch, first) = begun(&world, None).await;
    world.store.full(true);
    let told = revoke_owner(&world, &operator("alice"), "payments").await.unwrap();
    let Revoked::Written { rule, can_reissue, repeated, warnings } = told else { panic!("{told:?}") };
    assert!(!rule.is_durable() && !can_reissue && !repeated);
    assert!(warnings.len() == 1 && warnings[0].starts_with("THIS REVOCATION IS NOT ON DISK"), "{warnings:?}");
    let state = issued.state(&world.store.rules(), issued.issued_at);
    assert!(matches!(state, LeaseState::Revoked { by, .. } if by == rule.id), "{state:?}");
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::StoreFull);

    // At once, and not by the next heartbeat; a place that is resumed from is one on disk.
    let news = timeout(dayfly_core::limits::HEARTBEAT / 2, next(&mut watch)).await.unwrap();
    assert_eq!((ids(&news), news.position), (vec![rule.id], first.position));
    let (_, resumed) = begun(&world, Some(news.resume)).await;
    assert_eq!(ids(&resumed), [rule.id], "whoever comes again is told again");
    let (_, fresh) = begun(&world, None).await;
    assert_eq!((ids(&fresh), fresh.snapshot), (vec![rule.id], true));

    world.store.full(false);
    assert!(world.store.rules().get(rule.id).unwrap().is_durable());
    let (_, resumed) = begun(&world, Some(news.resume)).await;
    assert_eq!(ids(&resumed), [rule.id], "it came after that place");
    let quiet = watch.next().await.unwrap();
    assert_eq!(ids(&quiet), [], "once is enough");
    assert!(quiet.position > news.position);
    world.issued().await;

    // What was in no log keeps no later answer from being covered.
    revoke_owner(&world, &operator("alice"), "payments").await.unwrap();
    assert_eq!(world.checkpoints.covered(), world.store.mark().position);
}

#[tokio::test]
async fn what_no_claim_says_is_spelled_out_of_a_rule_in_memory_too() {
    let world = World::new();
    world.east().allow("alice", "revoke", None);
    let lease = world.issued().await.lease;
    let teardown = tear_down(&world);
    let (mut watch, _) = begun(&world, None).await;
    let mut own = world.broker.watch_my_leases(bearer(&api())).await.unwrap();
    assert_eq!(own.next().await.unwrap().leases.len(), 1);

    world.store.full(true);
    let credential_id = lease.workload.credential_id.clone();
    let request = RevokeRequest {
        which: Which::fields(Fields { credential_id, ..Fields::default() }),
        after: After::Reissue,
        reason: "it leaked".to_owned(),
        dry_run: false,
        idempotency_key: None,
    };
    let told = world.broker.revoke(bearer(&operator("alice")), &request).await.unwrap();
    let Revoked::Written { rule, .. } = told else { panic!("{told:?}") };
    let soon = dayfly_core::limits::HEARTBEAT / 2;
    let news = timeout(soon, own.next()).await.expect("its workload is told at once").unwrap();
    assert!(matches!(news.leases[0].state, LeaseState::Revoked { by, .. } if by == rule.id), "{news:?}");
    let spelled = async |watch: &mut RevocationWatch| loop {
        if let Some(CoveredNews { leases, complete, .. }) = next(watch).await.covered {
            return (leases, complete);
        }
    };
    // That there are no others is said when it is on disk.
    let first = timeout(soon, spelled(&mut watch)).await.expect("it is spelled out at once");
    assert_eq!(first, (vec![lease.id], false));
    world.store.full(false);
    assert_eq!(timeout(2 * soon, spelled(&mut watch)).await.expect("it is tried again"), (vec![], true));
    let (mut fresh, news) = begun(&world, None).await;
    let covered = match news.covered {
        Some(CoveredNews { leases, complete, .. }) => (leases, complete),
        None => spelled(&mut fresh).await,
    };
    assert_eq!(covered, (vec![lease.id], true));
    teardown.abort();
}

#[tokio::test]
async fn a_repeat_is_told_the_same() {
    let world = World::new();
    world.east().allow("alice", "revoke", Some("payments"));
    world.store.full(true);
    let request = RevokeRequest {
        which: Which::fields(Fields { owner: "payments".parse().ok(), ..Fields::default() }),
        after: After::Reissue,
        reason: "incident 12".to_owned(),
        dry_run: false,
        idempotency_key: Some("one".to_owned()),
    };
    let mut ids = Vec::new();
    for full in [true, true, false] {
        if !full {
            world.store.full(false);
        }
        let told = world.broker.revoke(bearer(&operator("alice")), &request).await.unwrap();
        let Revoked::Written { rule, warnings, .. } = told else { panic!("{told:?}") };
        assert_eq!((rule.is_durable(), warnings.is_empty()), (!full, !full));
        ids.push(rule.id);
    }
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
    let error = refused(revoke_owner(&world, &operator("bob"), "payments").await);
    assert_eq!(error.reason(), Reason::NotAllowed);
}
