//! Backups of a store that goes on, and what is made of them.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use dayfly_core::audit::{Draft, EventKind};
use dayfly_core::change::{Change, LeaseFilter, Mark, Outcome};
use dayfly_core::clock::SystemClock;
use dayfly_core::ids::{LeaseId, Position, RuleId};
use dayfly_core::lease::Phase;
use dayfly_core::ports::{Clock as _, LeaseStore};
use dayfly_core::rule::{Actor, Rule};
use dayfly_store::contract::{drawn, issue, owner, revocation, revoke};
use dayfly_store::{BackupError, Point, Restore, RestoreError, Restored, SledStore, verify};

use crate::fixture::Fixture;

pub async fn taken(store: &Arc<SledStore>) -> (Vec<u8>, Point) {
    let mut backup = store.backup().await.unwrap();
    let mut bytes = Vec::new();
    while let Some(more) = backup.next().await.unwrap() {
        bytes.extend(more);
    }
    (bytes, backup.point().unwrap())
}

pub fn restored(fixture: &Fixture, bytes: &[u8], witness: Option<Mark>) -> Result<Restored, RestoreError> {
    let mut restore = Restore::begin(fixture.options.clone())?;
    for bytes in bytes.chunks(1000) {
        restore.write(bytes)?;
    }
    restore.finish(witness, "a backup".to_owned())
}

/// Commits these at once.
async fn all_committed(store: &SledStore, changes: impl Iterator<Item = Change>) {
    let waiting: Vec<_> = changes.map(|change| store.commit(change)).collect();
    for waiting in waiting {
        let outcome = waiting.await.unwrap();
        assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    }
}

pub async fn some(store: &SledStore, n: usize) -> Vec<LeaseId> {
    let mut issued = Vec::new();
    for _ in 0..n {
        let lease = drawn(store);
        issued.push(lease.lease.id);
        assert!(matches!(issue(store, lease).await, Outcome::Committed(_)));
    }
    issued
}

/// What a task of the storm was answered: positions of leases, of releases and of rules.
#[derive(Default)]
struct Answered {
    leases: Vec<(Position, LeaseId)>,
    released: Vec<(Position, LeaseId)>,
    rules: Vec<(Position, RuleId)>,
}

async fn storm(store: Arc<SledStore>, over: Arc<AtomicBool>, n: usize) -> Answered {
    let mut answered = Answered::default();
    while !over.load(Ordering::SeqCst) {
        let lease = drawn(&*store);
        let id = lease.lease.id;
        let Outcome::Committed(receipt) = issue(&*store, lease).await else { continue };
        answered.leases.push((receipt.position, id));
        match (n + answered.leases.len()) % 7 {
            0 => {
                let released = store.commit(Change::Release { lease: id }).await.unwrap();
                let Outcome::Committed(receipt) = released else { panic!("{released:?}") };
                answered.released.push((receipt.position, id));
            }
            3 => {
                let rule = revoke(&*store, revocation(owner("nobody"))).await;
                answered.rules.push((rule.position, rule.id));
            }
            _ => {}
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_in_a_storm_holds_all_up_to_its_position_and_nothing_after() {
    // Old leases are pruned while it is taken.
    let fixture = Fixture::new().with(|options| options.max_leases = 1500);
    let store = fixture.open();
    let old = some(&store, 2500).await;
    fixture.clock.advance(Duration::from_secs(1000));
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> =
        (0..8).map(|n| tokio::spawn(storm(Arc::clone(&store), Arc::clone(&over), n))).collect();
    fixture.until(|| store.mark().position > Position::new(2600)).await;
    let began = store.mark().position;
    let mut backup = store.backup().await.unwrap();
    let mut bytes = Vec::new();
    while let Some(more) = backup.next().await.unwrap() {
        bytes.extend(more);
        // Others get on in between.
        let next = store.mark().position.number() + 20;
        if backup.point().is_none() {
            fixture.until(|| store.mark().position.number() > next).await;
        }
    }
    let point = backup.point().unwrap();
    let at = point.mark.position;
    fixture.until(|| store.mark().position.number() > at.number() + 200).await;
    over.store(true, Ordering::SeqCst);
    let mut all = Answered::default();
    for task in tasks {
        let Answered { leases, released, rules } = task.await.unwrap();
        all.leases.extend(leases);
        all.released.extend(released);
        all.rules.extend(rules);
    }
    let between = all.leases.iter().filter(|(position, _)| *position > began && *position <= at).count();
    let after = all.leases.iter().filter(|(position, _)| *position > at).count();
    assert!(between > 20 && after > 50, "it is a storm: {between} meanwhile, {after} after");

    let other = Fixture::new();
    let made = restored(&other, &bytes, None).unwrap();
    assert_eq!((made.point, made.report.position, made.report.root), (point, at, point.root));
    assert_eq!(verify(&other.dir()).unwrap().problems, Vec::<String>::new());
    let copy = other.open();
    let pruned = |id: &LeaseId| old.contains(id);
    let kept: BTreeSet<_> = leases(&copy).await.into_iter().filter(|id| !pruned(id)).collect();
    let expected: BTreeSet<_> =
        all.leases.iter().filter(|(position, _)| *position <= at).map(|(_, id)| *id).collect();
    assert_eq!(
        kept.len() as u64 + leases(&copy).await.iter().filter(|id| pruned(id)).count() as u64,
        point.leases
    );
    assert!(expected.is_superset(&kept), "it has leases from after its position");
    let lost: Vec<_> = expected.difference(&kept).collect();
    assert!(lost.is_empty(), "it has not what was answered before its position: {lost:?}");
    for (position, id) in &all.released {
        let lease = copy.lease(*id).await.unwrap();
        let released = lease.is_some_and(|lease| matches!(lease.phase, Phase::Released { .. }));
        assert_eq!(released, *position <= at, "{id}, released at {position}");
    }
    let rules: BTreeSet<_> = copy.rules().before(None).map(|rule: &Arc<Rule>| rule.id).collect();
    for (position, id) in &all.rules {
        assert_eq!(rules.contains(id), *position <= at, "rule {id} of {position}");
    }
    copy.close();
    store.close();
}

async fn leases(store: &SledStore) -> Vec<LeaseId> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = store.leases(LeaseFilter::default(), after, 1000).await.unwrap();
        found.extend(page.leases.iter().map(|lease| lease.id));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

/// What changes after a part was read, and before it is taken, is written after it.
#[tokio::test]
async fn what_is_told_while_a_part_waits_comes_after_it() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let leases = some(&store, 500).await;
    let mut backup = store.backup().await.unwrap();
    let page = || store.leases(LeaseFilter::default(), None, 1000);
    let busy: Vec<_> = (0..5).map(|_| page()).collect();
    let mut first = Box::pin(backup.next());
    // Asked for, and behind others.
    assert!(poll_once(first.as_mut()).await.is_pending());
    for page in busy.into_iter().chain([page()]) {
        page.await.unwrap();
    }
    // Read by the store's thread, and not taken yet.
    assert!(matches!(
        store.commit(Change::Release { lease: leases[1] }).await.unwrap(),
        Outcome::Committed(_)
    ));
    let mut bytes = first.await.unwrap().unwrap();
    while let Some(more) = backup.next().await.unwrap() {
        bytes.extend(more);
    }
    store.close();
    let other = Fixture::new();
    restored(&other, &bytes, None).unwrap();
    let copy = other.open();
    let lease = copy.lease(leases[1]).await.unwrap().unwrap();
    assert!(matches!(lease.phase, Phase::Released { .. }));
    copy.close();
}

async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

#[tokio::test]
async fn one_backup_is_taken_at_a_time_and_one_that_is_given_up_is_over() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut first = store.backup().await.unwrap();
    first.next().await.unwrap();
    assert_eq!(store.backup().await.err(), Some(BackupError::Busy));
    drop(first);
    let mut second = store.backup().await.unwrap();
    some(&store, 1).await;
    while second.next().await.unwrap().is_some() {}
    assert_eq!(second.point().unwrap().mark.position, store.mark().position);
    let mut last = store.backup().await.unwrap();
    store.close();
    assert!(matches!(last.next().await, Err(BackupError::Store(_))));
    assert!(store.backup().await.is_err());
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_the_writer_does_not_wait() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut backup = store.backup().await.unwrap();
    backup.next().await.unwrap();
    // 48 MiB.
    let note = Draft::note(EventKind::PolicyChanged, &Actor::dayfly(), "x".repeat(15 * 1024));
    for _ in 0..100 {
        all_committed(&store, (0..32).map(|_| Change::Note(Box::new(note.clone())))).await;
    }
    assert_eq!(backup.next().await, Err(BackupError::TooSlow));
    drop(backup);
    let fixture = Fixture::new();
    restored(&fixture, &taken(&store).await.0, None).unwrap();
    store.close();
}

/// 20 000 leases, or 100 000 with `DAYFLY_LONG=1`: `--nocapture` shows what `docs/decisions/backup-and-restore.md` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_holds_up_no_commit() {
    let leases = if std::env::var_os("DAYFLY_LONG").is_some() { 100_000 } else { 20_000 };
    let fixture = Fixture::new();
    let store = fixture.open();
    for _ in 0..leases / 100 {
        all_committed(&store, (0..100).map(|_| Change::Issue(Box::new(drawn(&*store))))).await;
    }
    let clock = SystemClock::new();
    let (mut took, mut longest, mut commits) = (Duration::ZERO, Duration::ZERO, 0);
    let mut backup = store.backup().await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let begun = clock.monotonic();
        let more = backup.next().await.unwrap();
        took += clock.monotonic().saturating_sub(begun);
        let Some(more) = more else { break };
        bytes.extend(more);
        // While the backup waits for us.
        let begun = clock.monotonic();
        assert!(matches!(issue(&*store, drawn(&*store)).await, Outcome::Committed(_)));
        longest = longest.max(clock.monotonic().saturating_sub(begun));
        commits += 1;
    }
    store.close();
    let other = Fixture::new();
    let begun = clock.monotonic();
    let mut restore = Restore::begin(other.options.clone()).unwrap();
    restore.write(&bytes).unwrap();
    let written = clock.monotonic().saturating_sub(begun);
    restore.finish(None, "a backup".to_owned()).unwrap();
    println!(
        "{leases} leases: {} MiB in {took:?}, {commits} commits meanwhile, the longest {longest:?}; written in {written:?}, with the checks in {:?}",
        bytes.len() >> 20,
        clock.monotonic().saturating_sub(begun)
    );
    assert!(commits > 10, "it has parts");
}
