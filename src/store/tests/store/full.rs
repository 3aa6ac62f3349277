//! A disk that is full: nothing is answered that is not there, nothing that was answered is lost, and it goes on when
//! there is room.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use dayfly_core::change::{Change, Earlier, Issue, Outcome, Revocation};
use dayfly_core::ids::LeaseId;
use dayfly_core::lease::Lease;
use dayfly_core::ports::{LeaseStore, StoreError};
use dayfly_core::rule::{Authority, Rule, Selector};
use dayfly_store::contract::{drawn, issue, lift, log_adds_up, revocation, revoke};
use dayfly_store::verify;

use crate::fixture::Fixture;
use crate::shims;

const MIB: u64 = 1024 * 1024;

fn free(path: &std::path::Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

fn key(text: &str) -> Option<dayfly_core::lease::Idempotency> {
    Lease::test(0).with_key(text, "the same").idempotency
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
    // Decided before it, to be committed after it.
    let outrun = drawn(&*store);
    let keyed = Revocation { idempotency: key("all"), ..revocation(Selector::All) };
    let refused_rule = store.commit(Change::Revoke(Box::new(keyed.clone()))).await.unwrap();
    let Outcome::InMemory(rule) = refused_rule else { panic!("{refused_rule:?}") };
    assert!(!rule.is_durable() && rule.cut_off > outrun.lease.id);
    assert!(matches!(store.draw(), Err(StoreError::Unwritten)), "issuing stops");
    let seen = store.rules();
    assert_eq!((seen.len(), seen.covering(&outrun.lease).map(|rule| rule.id)), (2, Some(rule.id)));
    assert!(seen.position() <= store.mark().position, "it has no position");
    assert!(store.rule(rule.id).await.unwrap().is_some());
    let again = store.commit(Change::Revoke(Box::new(keyed))).await.unwrap();
    assert!(matches!(again, Outcome::Replayed(Earlier::Rule(earlier)) if earlier.id == rule.id));
    let other = store.commit(Change::Revoke(Box::new(revocation(Selector::lease(id))))).await.unwrap();
    let Outcome::InMemory(other) = other else { panic!("{other:?}") };
    assert!(other.id > rule.id && store.rules().len() == 3);
    let lifted = store.commit(lift(&rule)).await;
    assert_eq!(lifted.unwrap_err(), StoreError::Full);

    let of_authority =
        |authority| Change::Revoke(Box::new(Revocation { authority, ..revocation(Selector::All) }));
    let by_dayfly = store.commit(of_authority(Authority::Dayfly)).await;
    assert_eq!(by_dayfly.unwrap_err(), StoreError::Full, "it looks again");
    let mut of_owners = 0;
    while let Ok(Outcome::InMemory(_)) = store.commit(of_authority(Authority::Owners)).await {
        of_owners += 1;
    }
    assert_eq!((of_owners, store.rules().len()), (62, 65), "teams leave room");
    let above = store.commit(of_authority(Authority::ClusterWide)).await;
    assert!(matches!(above, Ok(Outcome::InMemory(_))));

    // Room for rules alone: they are written, by the ids that were told.
    fs::remove_file(folder.path().join("more")).unwrap();
    fixture.until(|| store.draw().is_ok()).await;
    let written = store.rule(rule.id).await.unwrap().unwrap();
    assert_eq!(
        Rule { position: rule.position, ..Rule::clone(&written) },
        *rule,
        "all but its place is as told"
    );
    assert!(written.position < store.rules().get(other.id).unwrap().position);
    assert_eq!(refused(&*store).await.unwrap_err(), StoreError::Full);
    fs::remove_file(&filler).unwrap();
    assert!(matches!(issue(&*store, outrun).await, Outcome::Covered(_)));
    assert!(matches!(issue(&*store, drawn(&*store)).await, Outcome::Committed(_)));
    assert_eq!((store.rules().len(), store.leases_kept()), (66, 2));
    log_adds_up(&*store).await;
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
    let mut rules = Vec::new();
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
        // In the commit that fails, or after it.
        let among =
            store.commit(Change::Revoke(Box::new(revocation(Selector::lease(LeaseId::from_u128(1))))));
        for refused in pending {
            assert!(matches!(refused.await, Err(StoreError::Poisoned(_))), "nothing is answered");
        }
        let told = among.await.unwrap();
        let Outcome::InMemory(rule) = told else { panic!("{told:?}") };
        rules.push(rule.id);
        assert!(matches!(store.draw(), Err(StoreError::Poisoned(_))), "issuing stops");
        let told = store.commit(Change::Revoke(Box::new(revocation(Selector::All)))).await.unwrap();
        let Outcome::InMemory(rule) = told else { panic!("{told:?}") };
        assert!(store.rules().covering(&drawn_before.lease).is_some());
        rules.push(rule.id);
        assert!(store.status().trouble.is_some());
        assert_eq!(store.mark(), before, "what is not durable is not shown");
        fs::remove_file(&full).unwrap();
        fixture.until(|| store.draw().is_ok()).await;
        for id in &rules {
            assert!(
                store.rule(*id).await.unwrap().is_some_and(|rule| rule.is_durable()),
                "{id} was answered"
            );
        }
        assert_eq!(store.rules().len(), rules.len(), "each is there once");
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
    store.close();
    assert_eq!(fixture.open().rules().iter().map(|rule| rule.id).collect::<Vec<_>>(), rules);
    let report = verify(&dir).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    println!("the disk was full 3 times");
}
