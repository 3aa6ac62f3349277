//! What verifying says of teardowns that do not fit their rules, their events, or what was spelled out.

use std::sync::Arc;

use dayfly_core::change::{Change, Outcome};
use dayfly_core::encoding::{decode_teardown, encode_teardown};
use dayfly_core::ids::LeaseId;
use dayfly_core::ports::LeaseStore;
use dayfly_core::rule::Rule;
use dayfly_core::teardown::{SpelledLease, Step, StepProgress, Teardown, TeardownChange};
use dayfly_store::contract::{Harness as _, owner, revocation, revoke};
use dayfly_store::verify;

use crate::fixture::Fixture;

/// A rule whose teardown is complete, and two leases that were spelled out by it.
async fn torn_down(store: &dyn LeaseStore) -> Arc<Rule> {
    let rule = revoke(store, revocation(owner("payments"))).await;
    let of = |id| SpelledLease {
        lease: LeaseId::from_u128(id),
        cluster: "east".parse().unwrap(),
        target: "orders".parse().unwrap(),
    };
    let after = Some(LeaseId::from_u128(9));
    let progress = StepProgress { after, done: 2, complete: true, ..StepProgress::new(Step::SpellingOut) };
    let spelled = vec![of(3), of(4)];
    let change = TeardownChange { rule: rule.id, from: None, progress, spelled };
    let outcome = store.commit(Change::Teardown(Box::new(change))).await.unwrap();
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    rule
}

fn key(prefix: u8, rule: &Rule, lease: Option<u128>) -> Vec<u8> {
    let mut key = vec![prefix];
    key.extend_from_slice(&rule.position.number().to_be_bytes());
    key.extend(lease.into_iter().flat_map(u128::to_be_bytes));
    key
}

fn changed(database: &sled::Db, rule: &Rule, change: impl FnOnce(&mut Teardown)) {
    let key = key(b'q', rule, None);
    let mut teardown = decode_teardown(&database.get(&key).unwrap().unwrap()).unwrap();
    change(&mut teardown);
    database.insert(key, encode_teardown(&teardown)).unwrap();
}

type Damage = fn(&sled::Db, &Rule);

#[tokio::test]
async fn a_teardown_that_does_not_fit_is_told_of() {
    let cases: [(Damage, &str); 7] = [
        (|_, _| {}, ""),
        (|database, rule| drop(database.remove(key(b'q', rule, None)).unwrap()), "which has no teardown"),
        (
            |database, rule| drop(database.remove(key(b's', rule, Some(3))).unwrap()),
            "0 leases are spelled out",
        ),
        (
            |database, rule| changed(database, rule, |teardown| teardown.steps[0].done = 3),
            "2 leases are spelled out",
        ),
        (
            |database, rule| changed(database, rule, |teardown| teardown.steps[0].complete = false),
            "is not complete",
        ),
        (
            |database, rule| {
                changed(database, rule, |teardown| {
                    let other =
                        StepProgress { done: 1, complete: true, ..StepProgress::new(Step::StatusList) };
                    teardown.put(other);
                });
            },
            "no event says so",
        ),
        (
            |database, rule| {
                changed(database, rule, |teardown| teardown.position = teardown.position.next());
            },
            "is of no rule, or not in its place",
        ),
    ];
    for (damage, expected) in cases {
        let fixture = Fixture::new();
        let store = fixture.store();
        let rule = torn_down(&*store).await;
        drop(store);
        fixture.take();
        let database = sled::Config::new().path(fixture.dir()).segment_size(8 << 20).open().unwrap();
        damage(&database, &rule);
        database.flush().unwrap();
        drop(database);
        fixture.wait_for_lock();
        let problems = verify(&fixture.dir()).unwrap().problems;
        if expected.is_empty() {
            assert_eq!(problems, [""; 0]);
        } else {
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:?}");
        }
    }
}
