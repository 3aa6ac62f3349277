//! Memory stays bounded while leases come and go: sled's garbage is collected as fast as it is made.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::change::{Change, Issue, Outcome};
use dayfly_core::ids::LeaseId;
use dayfly_core::ports::{LeaseStore, StoreError};
use dayfly_store::contract::drawn;

use crate::fixture::Fixture;

const RETENTION: Duration = Duration::from_secs(3600);
const OUTSTANDING: u64 = 64;

/// Leases, half of which fill the store, then as many are pruned as come; and the resident memory that takes, in MiB.
/// (A store whose garbage is not collected has a gigabyte after 60 000.)
fn leases() -> (u64, u64) {
    if std::env::var_os("DAYFLY_LONG").is_some() { (2_000_000, 400) } else { (60_000, 160) }
}

#[test]
fn memory_is_bounded_while_leases_come_and_go() {
    let (leases, most_mib) = leases();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::memory_workload", "--nocapture", "--test-threads=1"])
        .env("DAYFLY_MEMORY_LEASES", leases.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let (_, mib) = said.split_once("most resident MiB: ").unwrap();
    let mib: u64 = mib.split_whitespace().next().unwrap().parse().unwrap();
    assert!((30..=most_mib).contains(&mib), "{mib} MiB; at most {most_mib}");
}

/// What the process does whose memory is looked at; nothing when run as a test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_workload() {
    let Some(leases) = std::env::var("DAYFLY_MEMORY_LEASES").ok().and_then(|n| n.parse::<u64>().ok()) else {
        return;
    };
    let fixture = Fixture::new().with(|options| options.retention = RETENTION);
    let store = fixture.open();
    let step = RETENTION * 2 / u32::try_from(leases).unwrap();
    let tasks: Vec<_> = (0..OUTSTANDING)
        .map(|task| {
            let (store, clock) = (Arc::clone(&store), Arc::clone(&fixture.clock));
            tokio::spawn(async move {
                for n in (task..leases).step_by(usize::try_from(OUTSTANDING).unwrap()) {
                    clock.advance(step);
                    let Issue { lease, decided_under, caps } = drawn(&*store);
                    let lease = lease
                        .of_pod(u128::from(n % 2000))
                        .owned_by(&format!("team-{}", n % 500))
                        .with_key(&n.to_string(), "request");
                    let issue = Box::new(Issue { lease, decided_under, caps });
                    let answer = store.commit(Change::Issue(issue)).await.unwrap();
                    assert!(matches!(answer, Outcome::Committed(_)), "{answer:?}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let kept = store.leases_kept();
    assert!(kept.abs_diff(leases / 2) < leases / 10, "{kept} of {leases} are kept: half should be");
    assert!(store.lease(LeaseId::from_u128(1)).await.unwrap().is_none());
    store.close();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = most.split_whitespace().next().unwrap().parse().unwrap();
    drop(store);
    let problems = dayfly_store::verify(&fixture.dir()).unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
    println!("most resident MiB: {}", kib / 1024);
}

#[tokio::test]
async fn idempotency_keys_are_bounded_and_the_next_one_is_told_to_wait() {
    let fixture = Fixture::new().with(|options| options.recent_keys = 3);
    let store = fixture.open();
    let issue = |key: &str| {
        let Issue { lease, decided_under, caps } = drawn(&*store);
        store.commit(Change::Issue(Box::new(Issue {
            lease: lease.with_key(key, "request"),
            decided_under,
            caps,
        })))
    };
    for key in ["a", "b", "c"] {
        assert!(matches!(issue(key).await, Ok(Outcome::Committed(_))));
    }
    assert!(matches!(issue("d").await, Err(StoreError::Busy)));
    assert!(matches!(issue("a").await, Ok(Outcome::Replayed(_))), "what is known is answered");
    fixture.clock.advance(fixture.options.limits.idempotency + Duration::from_secs(61));
    assert!(matches!(issue("d").await, Ok(Outcome::Committed(_))), "older ones are out of the window");
    assert_eq!(store.leases_kept(), 4, "nothing was written for the one that was refused");
}
