//! A disk that is full: nothing is answered that is not there, nothing that was answered is lost, and it goes on when
//! there is room.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use dayfly_core::change::{Change, Issue, Outcome};
use dayfly_core::ids::LeaseId;
use dayfly_core::ports::{LeaseStore, StoreError};
use dayfly_core::rule::Selector;
use dayfly_store::contract::{drawn, issue, log_adds_up, revocation, revoke};
use dayfly_store::verify;

use crate::fixture::Fixture;
use crate::shims;

const MIB: u64 = 1024 * 1024;

fn free(path: &std::path::Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

#[tokio::test]
async fn below_the_reserve_nothing_is_issued_and_rules_are_still_written() {
    // A disk of memory, since the others may be filled by anyone.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let filler = folder.path().join("filler");
    let fixture = Fixture::new().with(|options| {
        options.dir = folder.path().join("store");
        // The store itself takes a segment or two.
        options.reserve_bytes = free(folder.path()) - 40 * MIB;
        options.rule_reserve_bytes = options.reserve_bytes - 20 * MIB;
    });
    let store = fixture.open();
    let kept = drawn(&*store);
    let id = kept.lease.id;
    assert!(matches!(issue(&*store, kept).await, Outcome::Committed(_)));
    let refused = |store| async move {
        let store: &dyn LeaseStore = store;
        store.commit(Change::Issue(Box::new(drawn(store)))).await
    };
    fs::write(
        &filler,
        vec![1; usize::try_from(free(folder.path()) - fixture.options.reserve_bytes + MIB).unwrap()],
    )
    .unwrap();
    for _ in 0..3 {
        assert_eq!(refused(&*store).await.unwrap_err(), StoreError::Full);
    }
    revoke(&*store, revocation(Selector::lease(id))).await;
    assert_eq!(store.status().trouble, None, "it is not broken");
    let more = usize::try_from(free(folder.path()) - fixture.options.rule_reserve_bytes + MIB).unwrap();
    fs::write(folder.path().join("more"), vec![1; more]).unwrap();
    let refused_rule = store.commit(Change::Revoke(Box::new(revocation(Selector::All)))).await;
    assert_eq!(refused_rule.unwrap_err(), StoreError::Full);
    fs::remove_file(folder.path().join("more")).unwrap();
    fs::remove_file(&filler).unwrap();
    assert!(matches!(issue(&*store, drawn(&*store)).await, Outcome::Committed(_)));
    assert_eq!((store.rules().len(), store.leases_kept()), (1, 2));
    store.close();
    assert!(verify(&fixture.options.dir).unwrap().problems.is_empty());
}

#[test]
fn a_failed_write_poisons_until_reopened_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "full::full_disk_workload", "--nocapture", "--test-threads=1"])
        .env("LD_PRELOAD", shims::build("enospc"))
        .env("DAYFLY_FULL_ROOT", folder.path().join("disk"))
        .env("DAYFLY_FULL_WHILE", folder.path().join("full"))
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("the disk was full 3 times"), "{said}");
}

/// What the process with the full disk does; nothing when run as a test.
#[tokio::test]
async fn full_disk_workload() {
    let (Ok(root), Ok(full)) = (std::env::var("DAYFLY_FULL_ROOT"), std::env::var("DAYFLY_FULL_WHILE")) else {
        return;
    };
    let (dir, full) = (PathBuf::from(root).join("store"), PathBuf::from(full));
    let fixture = Fixture::new().with(|options| options.dir.clone_from(&dir));
    let store = fixture.open();
    let mut answered: Vec<LeaseId> = Vec::new();
    for _ in 0..3 {
        for _ in 0..5 {
            let new = drawn(&*store);
            answered.push(new.lease.id);
            assert!(matches!(issue(&*store, new).await, Outcome::Committed(_)));
        }
        let (before, drawn_before) = (store.mark(), drawn(&*store));
        // Half of them bring a basis that is then not there.
        let pods = answered.len() as u128..;
        let new = |(n, pod): (u128, u128)| {
            let Issue { lease, decided_under, caps } = drawn(&*store);
            let lease = if n % 2 == 0 { lease.of_pod(100 + pod) } else { lease };
            Change::Issue(Box::new(Issue { lease, decided_under, caps }))
        };
        let waiting: Vec<_> = (0..40).zip(pods.clone()).map(new).collect();
        fs::write(&full, "").unwrap();
        let pending: Vec<_> = waiting.into_iter().map(|change| store.commit(change)).collect();
        for refused in pending {
            assert!(matches!(refused.await, Err(StoreError::Poisoned(_))), "nothing is answered");
        }
        assert!(matches!(store.draw(), Err(StoreError::Poisoned(_))), "issuing stops");
        let rule = store.commit(Change::Revoke(Box::new(revocation(Selector::All)))).await;
        assert!(matches!(rule, Err(StoreError::Poisoned(_))));
        assert!(store.status().trouble.is_some());
        assert_eq!(store.mark(), before, "what is not durable is not shown");
        fs::remove_file(&full).unwrap();
        fixture.until(|| store.status().trouble.is_none()).await;
        for again in (0..40).zip(pods).map(new) {
            let Change::Issue(again) = again else { continue };
            answered.push(again.lease.id);
            assert!(matches!(issue(&*store, *again).await, Outcome::Committed(_)));
        }
        for id in &answered {
            assert!(store.lease(*id).await.unwrap().is_some(), "{id} was answered");
        }
        assert!(store.mark().position >= before.position);
        assert!(store.draw().unwrap().id > drawn_before.lease.id);
        log_adds_up(&*store).await;
    }
    assert!(store.rules().is_empty());
    store.close();
    let report = verify(&dir).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    println!("the disk was full 3 times");
}
