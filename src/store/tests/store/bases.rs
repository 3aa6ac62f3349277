//! What leases have alike is stored once, stays for as long as one refers to it, and is never another's.

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::change::{Change, Issue, Outcome};
use dayfly_core::claims::ClaimValue;
use dayfly_core::ids::LeaseId;
use dayfly_core::lease::{Check, Lease, Phase};
use dayfly_core::ports::{LeaseStore, StoreError};
use dayfly_core::provenance::Image;
use dayfly_store::contract::{Harness, drawn, issue, renewing};
use dayfly_store::verify;
use proptest::prelude::*;

use crate::fixture::Fixture;

const HOUR: Duration = Duration::from_secs(3600);
const SPAN: Duration = Duration::from_secs(24 * 3600);
const MOMENT: Duration = Duration::from_millis(1);

/// Issues a lease of this pod.
async fn issued(store: &dyn LeaseStore, pod: u128) -> Lease {
    let Issue { lease, decided_under, caps } = drawn(store);
    let lease = lease.of_pod(pod);
    let outcome = issue(store, Issue { lease: lease.clone(), decided_under, caps }).await;
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    lease
}

fn database(fixture: &Fixture) -> sled::Db {
    sled::Config::new().path(fixture.dir()).segment_size(8 << 20).open().unwrap()
}

fn key(id: LeaseId) -> Vec<u8> {
    [b"b".as_slice(), &id.to_bytes()].concat()
}

/// The bases in a store that is closed first, by the ids of who brought them.
fn bases(fixture: &Fixture) -> Vec<LeaseId> {
    fixture.take();
    let database = database(fixture);
    let id = |key: sled::IVec| LeaseId::from_bytes(key[1..].try_into().unwrap());
    let ids = database.scan_prefix(b"b").keys().map(|key| id(key.unwrap())).collect();
    drop(database);
    fixture.wait_for_lock();
    let report = verify(&fixture.dir()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    ids
}

async fn reads_back(store: &dyn LeaseStore, lease: &Lease) {
    assert_eq!(store.lease(lease.id).await.unwrap().as_deref(), Some(lease));
}

#[tokio::test]
async fn a_basis_is_shared_for_its_span_and_goes_after_the_last_lease_that_refers_to_it() {
    let fixture = Fixture::new().with(|options| options.retention = HOUR);
    let store = fixture.open();
    let first = issued(&*store, 1).await;
    let other = issued(&*store, 2).await;
    let second = issued(&*store, 1).await;
    reads_back(&*store, &second).await;
    fixture.clock.advance(SPAN);
    let last = issued(&*store, 1).await;
    fixture.until(|| store.leases_kept() == 1).await;
    assert_eq!(store.lease(first.id).await.unwrap(), None);
    store.close();
    drop(store);
    assert_eq!(bases(&fixture), [first.id, other.id], "who brought it is gone, and it is not");

    let store = fixture.open();
    reads_back(&*store, &last).await;
    fixture.clock.advance(MOMENT);
    let later = issued(&*store, 1).await;
    fixture.clock.advance(2 * HOUR);
    let latest = issued(&*store, 1).await;
    fixture.until(|| store.leases_kept() == 1).await;
    reads_back(&*store, &latest).await;
    store.close();
    drop(store);
    assert_eq!(bases(&fixture), [later.id], "nobody refers to the others");
}

#[tokio::test]
async fn a_basis_past_its_span_is_written_anew() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let first = issued(&*store, 1).await;
    fixture.clock.advance(SPAN);
    let inside = issued(&*store, 1).await;
    fixture.clock.advance(MOMENT);
    let outside = issued(&*store, 1).await;
    let after = issued(&*store, 1).await;
    for lease in [&first, &inside, &outside, &after] {
        reads_back(&*store, lease).await;
    }
    drop(store);
    assert_eq!(bases(&fixture), [first.id, outside.id]);
}

#[tokio::test]
async fn many_bases_that_nobody_refers_to_go_while_nothing_is_issued() {
    let fixture = Fixture::new().with(|options| options.retention = HOUR);
    let store = fixture.open();
    let pending: Vec<_> = (0..1000)
        .map(|pod| {
            let Issue { lease, decided_under, caps } = drawn(&*store);
            let lease = lease.of_pod(pod);
            store.commit(Change::Issue(Box::new(Issue { lease, decided_under, caps })))
        })
        .collect();
    for answer in pending {
        assert!(matches!(answer.await.unwrap(), Outcome::Committed(_)));
    }
    fixture.clock.advance(SPAN + HOUR);
    let new = issued(&*store, 1).await;
    fixture.clock.advance(2 * HOUR);
    let last = issued(&*store, 1).await;
    fixture.until(|| store.leases_kept() == 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    reads_back(&*store, &last).await;
    store.close();
    drop(store);
    assert_eq!(bases(&fixture), [new.id]);
}

#[tokio::test]
async fn after_a_start_a_basis_is_written_anew_and_older_leases_read_back() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (first, second) = (issued(&*store, 1).await, issued(&*store, 1).await);
    // As a crash would.
    fixture.forget();
    drop(store);
    let store = fixture.store();
    let third = issued(&*store, 1).await;
    for lease in [&first, &second, &third] {
        reads_back(&*store, lease).await;
    }
    let renewal = renewing(&*store, first.id);
    let renewal = Issue { lease: renewal.lease.of_pod(1), ..renewal };
    let renewed = issue(&*store, renewal.clone()).await;
    assert!(matches!(renewed, Outcome::Committed(_)), "{renewed:?}");
    reads_back(&*store, &renewal.lease).await;
    let ends_at = first.issued_at.plus(Duration::from_secs(60));
    let phase = Phase::Renewed { by: renewal.lease.id, ends_at };
    reads_back(&*store, &Lease { phase, ..first.clone() }).await;
    drop(store);
    assert_eq!(bases(&fixture), [first.id, third.id]);
}

#[tokio::test]
async fn a_lease_is_read_and_released_when_its_basis_is_not_in_memory() {
    for recent_bases in [0, 4] {
        let fixture = Fixture::new().with(|options| options.recent_bases = recent_bases);
        let store = fixture.store();
        let old = issued(&*store, 0).await;
        for pod in 1..40 {
            issued(&*store, pod).await;
        }
        reads_back(&*store, &old).await;
        fixture.clock.advance(MOMENT);
        let released = store.commit(Change::Release { lease: old.id }).await.unwrap();
        assert!(matches!(released, Outcome::Committed(_)), "{released:?}");
        let at = old.id.time().plus(MOMENT);
        reads_back(&*store, &Lease { phase: Phase::Released { at, renewed_by: None }, ..old }).await;
        drop(store);
        assert_eq!(bases(&fixture).len(), 40);
    }
}

#[tokio::test]
async fn a_basis_that_is_lost_or_damaged_is_told_of_its_leases_and_loses_nothing_else() {
    for damage in [None, Some(b"\xff\xff".as_slice()), Some(b"")] {
        let fixture = Fixture::new();
        let store = fixture.store();
        let (first, second) = (issued(&*store, 1).await, issued(&*store, 1).await);
        let other = issued(&*store, 2).await;
        drop(store);
        fixture.take();
        let database = database(&fixture);
        match damage {
            None => database.remove(key(first.id)).unwrap(),
            Some(damage) => database.insert(key(first.id), damage).unwrap(),
        };
        database.flush().unwrap();
        drop(database);
        fixture.wait_for_lock();

        let store = fixture.store();
        for lease in [&first, &second] {
            let Err(StoreError::Damaged(why)) = store.lease(lease.id).await else { panic!("{damage:?}") };
            assert!(why.contains(&format!("the basis of lease {}, {},", lease.id, first.id)), "{why}");
            let released = store.commit(Change::Release { lease: lease.id }).await;
            assert!(matches!(released, Err(StoreError::Damaged(_))), "{released:?}");
        }
        reads_back(&*store, &other).await;
        let new = issued(&*store, 1).await;
        reads_back(&*store, &new).await;
        assert_eq!(store.status().trouble, None);
        drop(store);
        fixture.take();
        let problems = verify(&fixture.dir()).unwrap().problems;
        for lease in [&first, &second] {
            let told = |problem: &String| problem.contains(&format!("the basis of lease {}", lease.id));
            assert!(problems.iter().any(told), "{problems:?}");
        }
        assert!(!problems.iter().any(|problem| problem.contains(&other.id.to_string())), "{problems:?}");
    }
}

/// A lease that differs from others in what these bits say.
fn varied(lease: Lease, bits: u16) -> Lease {
    let has = |bit: u16| bits & (1 << bit) != 0;
    let mut lease = lease.of_pod(u128::from(bits % 3));
    if has(2) {
        lease = lease.for_target("ledger");
    }
    if has(3) {
        lease = lease.narrowed_to("api-team");
    }
    if has(4) {
        lease.scope.clear();
    }
    if has(5) {
        lease.key_id = "key-2".parse().unwrap();
    }
    if has(6) {
        let image = Image { container: "api".to_owned(), digest: "sha256:0".to_owned() };
        lease.provenance.images.push(image);
    }
    if has(7) {
        let check = Check { name: "ttl".to_owned(), outcome: "300 s".to_owned() };
        lease.grounds.checks.push(check);
    }
    if has(8) {
        lease.claims = [("team".to_owned(), ClaimValue::One("api".to_owned()))].into();
    }
    if has(9) {
        lease.spiffe_id = "spiffe://prod.example/ns/payments/sa/api".parse().ok();
    }
    if has(10) {
        lease.workload.credential_id = format!("JTI={bits}").parse().ok();
    }
    lease
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// In groups, with more or fewer known bases, over a start and over the span.
    #[test]
    fn no_lease_gets_the_basis_of_another(
        groups in prop::collection::vec((prop::collection::vec(0u16..2048, 1..20), 0u8..8), 1..12),
        recent_bases in prop::sample::select(vec![0usize, 3, 1000]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new().with(|options| options.recent_bases = recent_bases);
            let mut store = fixture.store();
            let mut leases: Vec<Lease> = Vec::new();
            for (group, then) in groups {
                let mut pending = Vec::new();
                for bits in group {
                    let Issue { lease, decided_under, caps } = drawn(&*store);
                    let lease = varied(lease, bits);
                    let change = Issue { lease: lease.clone(), decided_under, caps };
                    pending.push(store.commit(Change::Issue(Box::new(change))));
                    leases.push(lease);
                }
                for answer in pending {
                    assert!(matches!(answer.await.unwrap(), Outcome::Committed(_)));
                }
                match then {
                    0 => {
                        drop(store);
                        store = fixture.reopen();
                    }
                    1 => fixture.clock.advance(SPAN / 2 + MOMENT),
                    _ => {}
                }
            }
            for lease in &leases {
                reads_back(&*store, lease).await;
            }
            drop(store);
            assert!(bases(&fixture).len() <= leases.len());
        });
    }
}

/// As many tasks as a broker has, so that leases come side by side and ids late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_that_come_side_by_side_share_bases_too() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let tasks: Vec<_> = (0..32)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut leases = Vec::new();
                for n in 0..20u128 {
                    leases.push(issued(&*store, (task + n) % 5).await);
                }
                leases
            })
        })
        .collect();
    for task in tasks {
        for lease in task.await.unwrap() {
            reads_back(&*store, &lease).await;
        }
    }
    drop(store);
    assert_eq!(bases(&fixture).len(), 5);
}
