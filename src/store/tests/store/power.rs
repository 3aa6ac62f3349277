//! Power cuts: a process writes a store under a shim that records what reaches the disk and what is synced; whatever
//! a disk may hold after a cut at any moment opens, and has everything that was answered. 30 cuts; 500 with
//! `DAYFLY_LONG=1`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use dayfly_core::change::{Change, Outcome, Revocation};
use dayfly_core::digest::Digest;
use dayfly_core::ids::{LeaseId, Position, RuleId};
use dayfly_core::lease::Phase;
use dayfly_core::ports::{Clock, LeaseStore, TestClock, TestRng};
use dayfly_core::rule::{After, Rule};
use dayfly_core::teardown::{SpelledLease, Step, StepProgress, TeardownChange};
use dayfly_core::time::Timestamp;
use dayfly_store::contract::{drawn, lift, owner, renewing, revocation};
use dayfly_store::{Options, SledStore, verify};
use tempfile::TempDir;

use crate::disk::{Dice, Disk, Record, read_trace};
use crate::shims;

const START: Timestamp = Timestamp::from_secs(1_795_435_200);
const RETENTION: Duration = Duration::from_secs(60);

static SHIM: LazyLock<PathBuf> = LazyLock::new(|| shims::build("record_io"));

fn options(root: &Path, now: Timestamp, seed: u64) -> (Options, Arc<TestClock>) {
    let clock = Arc::new(TestClock::at(now));
    let options = Options {
        retention: RETENTION,
        reserve_bytes: 1,
        rule_reserve_bytes: 0,
        ..Options::new(root.join("store"), clock.clone(), Arc::new(TestRng::new(seed)))
    };
    (options, clock)
}

/// What the preloaded process does; nothing when run as a test.
#[test]
fn power_workload() {
    let (Ok(root), Ok(job)) = (std::env::var("DAYFLY_RECORD_ROOT"), std::env::var("DAYFLY_POWER_JOB")) else {
        return;
    };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (root, seed) = (PathBuf::from(root), number("DAYFLY_POWER_SEED"));
    if job == "write" {
        return Workload::new(&root, seed).run();
    }
    let (options, _) = options(&root, Timestamp::from_millis(number("DAYFLY_POWER_NOW")), seed);
    drop(SledStore::open(options).unwrap());
}

struct Workload {
    root: PathBuf,
    dice: Dice,
    options: Options,
    clock: Arc<TestClock>,
    marks: File,
    leases: Vec<LeaseId>,
    /// Those that may not be lifted yet.
    holds: Vec<Arc<Rule>>,
    /// The newest rules, and how many leases their teardowns have told.
    teardowns: Vec<(Arc<Rule>, u64)>,
    /// Each lease's pod: only that one renews it.
    pods: HashMap<LeaseId, u128>,
}

impl Workload {
    fn new(root: &Path, seed: u64) -> Self {
        let (options, clock) = options(root, START, seed);
        let marks = File::create(root.join("marks")).unwrap();
        let (root, dice, leases, pods) = (root.to_owned(), Dice(seed), Vec::new(), HashMap::new());
        let (holds, teardowns) = (Vec::new(), Vec::new());
        Self { root, dice, options, clock, marks, leases, holds, teardowns, pods }
    }

    fn mark(&mut self, what: &str) {
        self.marks.write_all(what.as_bytes()).unwrap();
    }

    fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for life in 0..3 {
            assert!(self.root.exists());
            let store = SledStore::open(self.options.clone()).unwrap();
            self.mark("opened\n");
            for _ in 0..30 + self.dice.below(20) {
                runtime.block_on(self.burst(&store));
                // Now and then so long that bases go.
                let pause = match self.dice.below(12) {
                    0 => Duration::from_secs(13 * 3600),
                    _ => Duration::from_millis(self.dice.below(4000) as u64),
                };
                self.mark(&format!("time {}\n", self.clock.now().plus(pause).as_millis()));
                self.clock.advance(pause);
            }
            if life == 1 {
                store.close();
            }
        }
    }

    /// Commits some changes at once, and marks each that was answered.
    async fn burst(&mut self, store: &SledStore) {
        let mut pending = Vec::new();
        let size = 1 + self.dice.below(64);
        for _ in 0..size {
            let change = self.change(store);
            pending.push((store.commit(change.clone()), change));
        }
        let mut marks = String::new();
        for (answer, change) in pending {
            let Outcome::Committed(receipt) = answer.await.unwrap() else { continue };
            let position = receipt.position;
            match change {
                Change::Issue(issue) => {
                    let lease = &issue.lease;
                    self.leases.push(lease.id);
                    let until = lease.expires_at.max(lease.id.time().plus(RETENTION)).as_millis();
                    writeln!(marks, "lease {} {position} {until}", lease.id).unwrap();
                    if let Some(earlier) = lease.renews {
                        writeln!(marks, "renewed {earlier} {}", lease.id).unwrap();
                    }
                }
                Change::Revoke(_) => {
                    let rule = receipt.rule.unwrap();
                    writeln!(marks, "rule {} {position}", rule.id).unwrap();
                    if rule.holds() {
                        self.holds.push(Arc::clone(&rule));
                    }
                    self.teardowns.push((rule, 0));
                }
                Change::Lift(lift) => writeln!(marks, "lifted {} {position}", lift.rule).unwrap(),
                Change::Release { lease } => writeln!(marks, "released {lease} {position}").unwrap(),
                Change::Reissue { lease, digest } => {
                    writeln!(marks, "reissued {lease} {position} {digest}").unwrap();
                }
                Change::Teardown(change) => {
                    writeln!(marks, "teardown {} {}", change.rule, change.progress.done).unwrap();
                }
                Change::Key(_) | Change::Note(_) | Change::Adopt { .. } => {}
            }
        }
        self.mark(&marks);
    }

    /// Goes on with one of the newest teardowns: each time one lease is spelled out.
    fn teardown(&mut self) -> Change {
        let newest = self.dice.below(self.teardowns.len().min(3));
        let last = self.teardowns.len() - 1;
        let (rule, done) = &mut self.teardowns[last - newest];
        let id = |n: u64| LeaseId::from_u128(u128::from(n));
        let from = (*done > 0).then(|| id(*done));
        *done += 1;
        let after = Some(id(*done));
        let progress = StepProgress { after, done: *done, ..StepProgress::new(Step::SpellingOut) };
        let (cluster, target) = ("east".parse().unwrap(), "orders".parse().unwrap());
        let spelled = vec![SpelledLease { lease: id(*done), cluster, target }];
        Change::Teardown(Box::new(TeardownChange { rule: rule.id, from, progress, spelled }))
    }

    fn change(&mut self, store: &SledStore) -> Change {
        let some =
            if self.leases.is_empty() { None } else { Some(self.leases[self.dice.below(self.leases.len())]) };
        match (self.dice.below(40), some) {
            (11 | 12, _) if !self.teardowns.is_empty() => self.teardown(),
            (0, _) => Change::Revoke(Box::new(revocation(owner("nobody")))),
            (1, _) => Change::Revoke(Box::new(revocation(owner("checkout")))),
            (10, _) => {
                let hold = Revocation { after: After::Hold, ..revocation(owner("nobody")) };
                self.holds.pop().map_or(Change::Revoke(Box::new(hold)), |rule| lift(&rule))
            }
            (2 | 3, Some(lease)) => Change::Release { lease },
            (4 | 5, Some(lease)) => {
                Change::Reissue { lease, digest: Digest::of(&self.dice.below(1 << 30).to_be_bytes()) }
            }
            (6..=9, Some(earlier)) => {
                let mut issue = renewing(store, earlier);
                let ttl = Duration::from_secs(30 + self.dice.below(60) as u64);
                issue.lease = issue.lease.clone().issued_at(issue.lease.issued_at, ttl);
                let pod = self.pods[&earlier];
                issue.lease = issue.lease.of_pod(pod);
                self.pods.insert(issue.lease.id, pod);
                Change::Issue(Box::new(issue))
            }
            _ => {
                let mut issue = drawn(store);
                let ttl = Duration::from_secs(30 + self.dice.below(60) as u64);
                let owner = ["payments", "checkout", "platform"][self.dice.below(3)];
                issue.lease = issue.lease.clone().issued_at(issue.lease.issued_at, ttl);
                let pod = self.dice.below(50) as u128;
                issue.lease = issue.lease.owned_by(owner).of_pod(pod);
                self.pods.insert(issue.lease.id, pod);
                Change::Issue(Box::new(issue))
            }
        }
    }
}

/// What was answered before the cut.
#[derive(Default)]
struct Answered {
    opened: bool,
    /// The latest the clock may have been.
    time: Timestamp,
    /// Position, and until when it is kept.
    leases: HashMap<LeaseId, (Position, Timestamp)>,
    rules: Vec<(RuleId, Position)>,
    lifted: Vec<RuleId>,
    released: Vec<LeaseId>,
    renewed: Vec<(LeaseId, LeaseId)>,
    reissued: Vec<(LeaseId, Digest)>,
    teardowns: Vec<(RuleId, u64)>,
}

impl Answered {
    fn read(marks: &[u8]) -> Self {
        let mut answered = Self { time: START, ..Self::default() };
        for line in std::str::from_utf8(marks).unwrap().lines() {
            let words: Vec<_> = line.split(' ').collect();
            let position = |n: usize| Position::new(words[n].parse().unwrap());
            let time = |n: usize| Timestamp::from_millis(words[n].parse().unwrap());
            match words[0] {
                "opened" => answered.opened = true,
                "time" => answered.time = time(1),
                "lease" => {
                    answered.leases.insert(words[1].parse().unwrap(), (position(2), time(3)));
                }
                "rule" => answered.rules.push((words[1].parse().unwrap(), position(2))),
                "renewed" => {
                    answered.renewed.push((words[1].parse().unwrap(), words[2].parse().unwrap()));
                }
                "teardown" => {
                    answered.teardowns.push((words[1].parse().unwrap(), words[2].parse().unwrap()));
                }
                "lifted" => answered.lifted.push(words[1].parse().unwrap()),
                "released" => answered.released.push(words[1].parse().unwrap()),
                "reissued" => answered.reissued.push((words[1].parse().unwrap(), words[3].parse().unwrap())),
                other => panic!("{other}"),
            }
        }
        answered
    }

    /// Opens what is left and looks for everything that was answered.
    fn check(&self, root: &Path) -> Result<(), String> {
        let (options, _) = options(root, self.time, 1);
        let dir = options.dir.clone();
        if self.opened && !dir.exists() {
            return Err("the store is gone".to_owned());
        }
        let store = SledStore::open(options).map_err(|error| format!("does not open: {error}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let checked = runtime.block_on(self.check_open(&store));
        store.close();
        checked?;
        let report = verify(&dir).map_err(|error| format!("does not verify: {error}"))?;
        if report.problems.is_empty() {
            Ok(())
        } else {
            Err(format!("does not verify: {:?}", report.problems))
        }
    }

    async fn check_open(&self, store: &SledStore) -> Result<(), String> {
        for (id, position) in &self.rules {
            let rule = store.rule(*id).await.map_err(|error| error.to_string())?;
            // It is folded away, and later leases are pruned.
            let gone = LeaseId::from_bytes(id.to_bytes()).time().plus(RETENTION) <= self.time;
            if rule.as_ref().map_or(!gone, |rule| rule.position != *position) {
                return Err(format!("rule {id} of position {position} is lost"));
            }
            if self.lifted.contains(id) && rule.is_some_and(|rule| rule.lifted.is_none()) {
                return Err(format!("rule {id} of position {position} has lost its lift"));
            }
        }
        for (id, done) in &self.teardowns {
            let recorded = store.teardowns().get(*id).map_or(0, |known| known.step(Step::SpellingOut).done);
            if store.rules().counting(*id).is_some() && recorded < *done {
                return Err(format!("the teardown of rule {id} was at {done} and is at {recorded}"));
            }
        }
        for (id, (position, until)) in &self.leases {
            let lease = store.lease(*id).await.map_err(|error| error.to_string())?;
            if lease.is_none() && *until > self.time {
                return Err(format!("lease {id} of position {position} is lost"));
            }
            let lost = |what: &str| Err(format!("lease {id} of position {position} has lost {what}"));
            if let Some(lease) = lease {
                if self.released.contains(id) && !matches!(lease.phase, Phase::Released { .. }) {
                    return lost("its release");
                }
                let by = self.renewed.iter().find(|(earlier, _)| earlier == id).map(|(_, by)| *by);
                if lease.phase.renewed_by() != by && by.is_some() {
                    return lost("its renewal");
                }
                if self.reissued.iter().any(|(of, digest)| of == id && !lease.digests.contains(digest)) {
                    return lost("a digest");
                }
            }
        }
        let last = self.leases.values().map(|(position, _)| *position).max().unwrap_or_default();
        if store.mark().position < last { Err(format!("position {last} is lost")) } else { Ok(()) }
    }
}

/// What a workload did in an empty folder of this inode.
struct Recorded {
    root: u64,
    records: Vec<Record>,
}

/// Runs this test binary under the shim, in `root`.
fn record(root: &Path, job: &str, seed: u64, now: Timestamp, swallow: bool) -> Vec<Record> {
    let traces = tempfile::tempdir().unwrap();
    let trace = traces.path().join("trace");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "power::power_workload", "--nocapture", "--test-threads=1"]);
    command.env("LD_PRELOAD", &*SHIM).env("DAYFLY_RECORD_ROOT", root).env("DAYFLY_RECORD_TRACE", &trace);
    command.env("DAYFLY_POWER_JOB", job).env("DAYFLY_POWER_SEED", seed.to_string());
    command.env("DAYFLY_POWER_NOW", now.as_millis().to_string());
    if swallow {
        command.env("DAYFLY_RECORD_SWALLOW", "1");
    }
    let output = command.output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    read_trace(&trace)
}

impl Recorded {
    fn new(seed: u64, swallow: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let records = record(root.path(), "write", seed, START, swallow);
        Self { root: fs::metadata(root.path()).unwrap().ino(), records }
    }

    /// Cuts at a moment, checks what is left; then cuts again while that is recovered.
    fn cut(&self, dice: &mut Dice, again: bool) -> Result<(), String> {
        let mut disk = Disk::empty(self.root);
        // One in five within the first moments, when the store is made.
        let bound = if dice.below(5) == 0 { 60.min(self.records.len()) } else { self.records.len() };
        let cut = dice.below(bound + 1);
        self.records[..cut].iter().for_each(|record| disk.apply(record));
        let answered = Answered::read(&disk.written("marks"));
        let root = cut_into(&disk, dice);
        if !again {
            return answered.check(root.path()).map_err(|why| format!("cut at {cut}: {why}"));
        }
        let mut disk = Disk::holding(root.path());
        let records = record(root.path(), "recover", dice.0, answered.time, false);
        let second = dice.below(records.len() + 1);
        records[..second].iter().for_each(|record| disk.apply(record));
        let root = cut_into(&disk, dice);
        answered.check(root.path()).map_err(|why| format!("cut at {cut}, and at {second} of recovery: {why}"))
    }
}

fn cut_into(disk: &Disk, dice: &mut Dice) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    disk.cut(root.path(), dice);
    let _ = fs::remove_file(root.path().join("marks"));
    root
}

#[test]
fn nothing_answered_is_lost_in_a_power_cut() {
    let (cuts, of_one) = if std::env::var_os("DAYFLY_LONG").is_some() { (500, 50) } else { (30, 15) };
    let mut dice = Dice(20_261_123);
    for workload in 0..cuts / of_one {
        let recorded = Recorded::new(workload, false);
        for cut in 0..of_one {
            recorded.cut(&mut dice, cut % 3 == 0).unwrap();
        }
    }
}

#[test]
fn a_store_that_does_not_sync_is_caught() {
    let recorded = Recorded::new(1, true);
    let mut dice = Dice(7);
    let caught = (0..8).filter(|_| recorded.cut(&mut dice, false).is_err()).count();
    assert!(caught > 0, "the sync was left out, and nobody noticed");
}
