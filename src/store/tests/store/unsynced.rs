//! A disk that takes writes and whose syncs fail: nothing is answered, what is revoked is in effect, nothing that was
//! answered is lost.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use dayfly_core::change::{Change, Outcome};
use dayfly_core::ids::{LeaseId, RuleId};
use dayfly_core::ports::{LeaseStore, StoreError};
use dayfly_core::rule::Selector;
use dayfly_store::contract::{drawn, issue, log_adds_up, revocation};
use dayfly_store::verify;

use crate::fixture::Fixture;
use crate::shims;

/// What the shim makes of syncs (see there): EIO, which sled tells; and ENOSYS, after which sled says that all is well.
const FAILURES: [&str; 2] = ["", "as if there were no fdatasync"];
/// What the store says where sled does not.
const COUNTED: &str = "a sync of its log failed";

#[test]
fn a_failed_sync_poisons_until_reopened_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "unsynced::unsynced_workload", "--nocapture", "--test-threads=1"])
        .env("LD_PRELOAD", shims::build("enospc"))
        .env("DAYFLY_FULL_ROOT", folder.path().join("disk"))
        .env("DAYFLY_UNSYNCED_WHILE", folder.path().join("unsynced"))
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("its syncs failed in 2 ways"), "{said}");
}

/// What the process whose syncs fail does; nothing when run as a test.
#[tokio::test]
async fn unsynced_workload() {
    let (Ok(root), Ok(flag)) = (std::env::var("DAYFLY_FULL_ROOT"), std::env::var("DAYFLY_UNSYNCED_WHILE"))
    else {
        return;
    };
    let (dir, flag) = (PathBuf::from(root).join("store"), PathBuf::from(flag));
    let fixture = Fixture::new().with(|options| options.dir.clone_from(&dir));
    let store = fixture.open();
    let mut answered: Vec<LeaseId> = Vec::new();
    let mut rules: Vec<RuleId> = Vec::new();
    for failure in FAILURES {
        answered.push(issued(&*store).await);
        let (before, drawn_before) = (store.mark(), drawn(&*store));
        let waiting: Vec<_> = (0..20).map(|_| Change::Issue(Box::new(drawn(&*store)))).collect();
        fs::write(&flag, failure).unwrap();
        let pending: Vec<_> = waiting.into_iter().map(|change| store.commit(change)).collect();
        // In the commit whose sync fails, or after it.
        let among = store.commit(revoked(Selector::lease(answered[0])));
        for refused in pending {
            let refused = refused.await;
            let Err(StoreError::Poisoned(why)) = refused else { panic!("acknowledged: {refused:?}") };
            assert!(failure.is_empty() || why.contains(COUNTED), "{why}");
        }
        rules.push(in_memory(among.await));
        let trouble = store.status().trouble.unwrap();
        assert!(failure.is_empty() || trouble.contains(COUNTED), "{trouble}");
        assert!(matches!(store.draw(), Err(StoreError::Poisoned(_))), "issuing stops");
        rules.push(in_memory(store.commit(revoked(Selector::All)).await));
        assert!(store.rules().covering(&drawn_before.lease).is_some(), "it is in effect");
        assert_eq!(store.mark(), before, "what is not durable is not shown");
        // It tries, and syncs still fail.
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        assert!(store.status().trouble.is_some() && store.draw().is_err());
        rules.push(in_memory(store.commit(revoked(Selector::All)).await));

        fs::remove_file(&flag).unwrap();
        fixture.until(|| store.draw().is_ok()).await;
        assert_eq!(store.status().trouble, None);
        for id in &rules {
            let rule = store.rule(*id).await.unwrap();
            assert!(rule.is_some_and(|rule| rule.is_durable()), "{id} was answered");
        }
        assert_eq!(store.rules().len(), rules.len(), "each is there once");
        answered.push(issued(&*store).await);
        for id in &answered {
            assert!(store.lease(*id).await.unwrap().is_some(), "{id} was answered");
        }
        assert!(store.mark().position >= before.position);
        log_adds_up(&*store).await;
    }
    store.close();
    let report = verify(&dir).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let again = fixture.open();
    assert_eq!(again.rules().iter().map(|rule| rule.id).collect::<Vec<_>>(), rules);
    for id in &answered {
        assert!(again.lease(*id).await.unwrap().is_some(), "{id} was answered");
    }
    println!("its syncs failed in {} ways", FAILURES.len());
}

async fn issued(store: &dyn LeaseStore) -> LeaseId {
    let new = drawn(store);
    let id = new.lease.id;
    assert!(matches!(issue(store, new).await, Outcome::Committed(_)));
    id
}

fn revoked(selector: Selector) -> Change {
    Change::Revoke(Box::new(revocation(selector)))
}

/// The rule, which says that it is in effect and not on disk.
fn in_memory(told: Result<Outcome, StoreError>) -> RuleId {
    let Ok(Outcome::InMemory(rule)) = told else { panic!("{told:?}") };
    assert!(!rule.is_durable());
    rule.id
}
