//! Edges: ids that come late beside runs that go, the end of the window of idempotency keys, what verifying must see.

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::change::{Change, Issue, Outcome, Revocation};
use dayfly_core::ports::{LeaseStore, StoreError};
use dayfly_core::rule::After;
use dayfly_store::contract::{Harness, drawn, issue, owner, revocation, revoke};
use dayfly_store::verify;

use crate::fixture::Fixture;

fn committed(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_straggler_beside_a_run_that_goes_does_not_bring_it_back() {
    let fixture = Fixture::new().with(|options| options.retention = Duration::from_secs(600));
    let store = fixture.open();
    let old = drawn(&*store);
    let id = old.lease.id;
    committed(&issue(&*store, old).await);
    fixture.clock.advance(Duration::from_secs(590));
    let straggler = drawn(&*store);
    let drawn_before = straggler.lease.id;
    committed(&issue(&*store, drawn(&*store)).await);
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Now the old one may go, in the commit that has the straggler.
    fixture.clock.advance(Duration::from_secs(20));
    committed(&issue(&*store, straggler).await);
    assert_eq!(store.leases_kept(), 2);
    let there = store.lease(id).await.unwrap().is_some();
    assert!(store.lease(drawn_before).await.unwrap().is_some());
    store.close();
    drop(store);
    let report = verify(&fixture.dir()).unwrap();
    assert!(!there && report.problems.is_empty(), "old one there: {there}; {:?}", report.problems);
}

/// The same with a rule of another owner in between, which raises the highest id: one caller alone is enough.
#[tokio::test]
async fn a_rule_in_between_is_enough() {
    let fixture = Fixture::new().with(|options| options.retention = Duration::from_secs(600));
    let store = fixture.open();
    committed(&issue(&*store, drawn(&*store)).await);
    fixture.clock.advance(Duration::from_secs(590));
    let straggler = drawn(&*store);
    revoke(&*store, revocation(owner("nobody"))).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    fixture.clock.advance(Duration::from_secs(20));
    committed(&issue(&*store, straggler).await);
    store.close();
    drop(store);
    let report = verify(&fixture.dir()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

/// A rule's record goes when no lease is left that it covers, and a hold's never.
#[tokio::test]
async fn rules_that_are_folded_away_go_with_the_leases_that_they_cover() {
    let fixture = Fixture::new().with(|options| options.retention = Duration::from_secs(600));
    let mut store = fixture.open();
    committed(&issue(&*store, drawn(&*store)).await);
    let rule = revoke(&*store, revocation(owner("payments"))).await;
    let held = Revocation { after: After::Hold, ..revocation(owner("nobody")) };
    let hold = revoke(&*store, held).await;
    for (later, kept) in [(500, true), (200, false)] {
        fixture.clock.advance(Duration::from_secs(later));
        for _ in 0..4 {
            committed(&issue(&*store, drawn(&*store)).await);
        }
        fixture.clock.advance(Duration::from_secs(1));
        if !kept {
            // The last of those that it covers went; one more goes, and it is below that.
            fixture.clock.advance(Duration::from_secs(600));
            committed(&issue(&*store, drawn(&*store)).await);
            committed(&issue(&*store, drawn(&*store)).await);
        }
        assert!(store.rules().get(rule.id).is_some() && store.rules().len() == 1, "folded, and remembered");
        store.close();
        drop(store);
        let report = verify(&fixture.dir()).unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert_eq!(report.rules, 1 + u64::from(kept));
        store = fixture.open();
        assert_eq!(store.rule(rule.id).await.unwrap().is_some(), kept);
        assert!(store.rule(hold.id).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn keys_learnt_from_disk_go_when_their_leases_leave_the_window() {
    let fixture = Fixture::new().with(|options| options.recent_keys = 10);
    let with = |store: &dyn LeaseStore, key: &str| {
        let Issue { lease, decided_under, caps } = drawn(store);
        Change::Issue(Box::new(Issue { lease: lease.with_key(key, "request"), decided_under, caps }))
    };
    let store = fixture.store();
    for n in 0..6 {
        committed(&store.commit(with(&*store, &n.to_string())).await.unwrap());
    }
    drop(store);
    fixture.clock.advance(Duration::from_secs(300));
    let store = fixture.reopen();
    for n in 6..10 {
        committed(&store.commit(with(&*store, &n.to_string())).await.unwrap());
    }
    assert!(matches!(store.commit(with(&*store, "x")).await, Err(StoreError::Busy)));
    // The six of before the start are out of the window, by more than a tenth of it: four are in it.
    fixture.clock.advance(Duration::from_secs(400));
    let next = store.commit(with(&*store, "x")).await;
    assert!(matches!(next, Ok(Outcome::Committed(_))), "{next:?}");
}

#[tokio::test]
async fn a_repeat_at_the_very_end_of_the_window_is_one_after_a_restart_too() {
    for restart in [false, true] {
        let fixture = Fixture::new();
        let store = fixture.store();
        let with = |store: &dyn LeaseStore| {
            let Issue { lease, decided_under, caps } = drawn(store);
            Issue { lease: lease.with_key("key", "request"), decided_under, caps }
        };
        committed(&issue(&*store, with(&*store)).await);
        drop(store);
        let store = if restart { fixture.reopen() } else { fixture.store() };
        fixture.clock.advance(fixture.options.limits.idempotency);
        let again = issue(&*store, with(&*store)).await;
        assert!(matches!(again, Outcome::Replayed(_)), "restart {restart}: {again:?}");
    }
}

#[tokio::test]
async fn verify_notices_a_release_that_is_lost() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let new = drawn(&*store);
    let lease = new.lease.id;
    committed(&issue(&*store, new).await);
    drop(store);
    fixture.take();
    let key = [b"l".as_slice(), &lease.to_bytes()].concat();
    let open = || sled::Config::new().path(fixture.dir()).segment_size(8 << 20).open().unwrap();
    let before = open().get(&key).unwrap().unwrap();
    fixture.wait_for_lock();
    let store = fixture.store();
    committed(&store.commit(Change::Release { lease }).await.unwrap());
    drop(store);
    fixture.take();
    let db = open();
    db.insert(&key, before).unwrap();
    db.flush().unwrap();
    drop(db);
    fixture.wait_for_lock();
    let report = verify(&fixture.dir()).unwrap();
    assert!(!report.problems.is_empty(), "a released lease is active again, and nobody notices");
}

/// Nobody waits for a whole owner's keys to be learnt: whoever needs them is told to ask again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_busy_owner_are_learnt_in_slices() {
    const LEASES: u64 = 25_000;
    let fixture = Fixture::new();
    let with = |store: &dyn LeaseStore, key: String| {
        let Issue { lease, decided_under, caps } = drawn(store);
        Change::Issue(Box::new(Issue { lease: lease.with_key(&key, "request"), decided_under, caps }))
    };
    let store = fixture.store();
    let tasks: Vec<_> = (0..128)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in (task..LEASES).step_by(128) {
                    committed(&store.commit(with(&*store, n.to_string())).await.unwrap());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    drop(store);
    let store = fixture.reopen();
    let new = || store.commit(with(&*store, "new".to_owned()));
    assert!(matches!(new().await, Err(StoreError::Busy)), "the first slice");
    committed(&new().await.unwrap());
    for old in [0, LEASES / 2, LEASES - 1] {
        let again = store.commit(with(&*store, old.to_string())).await.unwrap();
        assert!(matches!(again, Outcome::Replayed(_)), "{old}: {again:?}");
    }
}
