//! The one writer: takes what has queued up, commits it as one batch, syncs once, answers all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dayfly_core::audit::{Draft, EventKind};
use dayfly_core::change::{Change, Outcome, Revocation};
use dayfly_core::ports::StoreError;
use dayfly_core::rule::{Actor, Rule};
use dayfly_core::time::Timestamp;
use prost::Message;
use sled::Batch;
use tokio::sync::oneshot;

use crate::backup::{BackupError, Feed};
use crate::bases::KnownBases;
use crate::engine::Engine;
use crate::files;
use crate::group::{Group, Memory, Ready};
use crate::layout;
use crate::live::{self, Live};
use crate::prune::Schedule;
use crate::queue::{Request, Stop, Work};
use crate::recent::{RecentKeys, SeenNamespaces};
use crate::rules;
use crate::shared::Shared;
use crate::teardown;
use crate::tip::{NoTip, Tip};

/// Key operations of a batch: larger ones starve sled's garbage collection.
const BATCH: usize = 512;
/// Of those, what every commit has beside its changes and removals: events, tiles, progress.
const OVERHEAD: usize = 24;
/// Of those, what changes may take, so that pruning keeps up with issuing.
const CHANGES: usize = 288;
/// What pruning takes alone: little, since whatever comes in the meantime waits for it.
const PRUNING: usize = 128;
/// How long the writer sleeps when nothing comes, before it looks for leases to prune.
const IDLE: Duration = Duration::from_secs(5);
/// The same, while leases of earlier starts are being read.
const READING: Duration = Duration::from_millis(2);
/// The same, while rules are in effect that are not on disk.
const UNWRITTEN: Duration = Duration::from_millis(250);
/// While the database is closed, how long the writer sleeps before it looks whether somebody asks.
const ASKED: Duration = Duration::from_millis(20);

/// Room enough, whatever the disk says: for what the store writes of itself.
pub(crate) const NO_RESERVE: u64 = u64::MAX;

pub(crate) struct Writer {
    shared: Arc<Shared>,
    engine: Option<Arc<Engine>>,
    tip: Tip,
    memory: Memory,
    schedule: Schedule,
    /// Told of what each commit writes, while a backup is taken.
    pub(crate) backup: Option<Arc<Feed>>,
    /// The database of which nothing is known any more, until it is closed.
    given_up: Option<Arc<Engine>>,
}

type Answer = oneshot::Sender<Result<Outcome, StoreError>>;

/// Who waits for a change, and where it is a revocation, what is to be put in effect in any case.
struct Asked {
    answer: Answer,
    revocation: Option<Box<Revocation>>,
}

impl Asked {
    fn of(change: Change, answer: Answer) -> (Change, Self) {
        let revocation = match &change {
            Change::Revoke(revocation) => Some(revocation.clone()),
            _ => None,
        };
        (change, Self { answer, revocation })
    }
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, tip: Tip) -> Self {
        let mut keys = keys_from_now(&shared);
        if tip.leases == 0 && tip.pruned.is_none() {
            // There was no lease yet, so there is no key it does not know.
            keys = RecentKeys::since(
                Timestamp::default(),
                shared.options.recent_keys,
                shared.options.limits.idempotency,
            );
        }
        let engine = shared.engine().ok();
        let memory = Memory {
            keys,
            namespaces: SeenNamespaces::default(),
            bases: KnownBases::new(shared.options.recent_bases),
            live: Live::new(shared.options.live_leases),
        };
        Self { shared, engine, tip, memory, schedule: Schedule::default(), backup: None, given_up: None }
    }

    /// Counts the live leases of earlier starts, too, as they are read in the background.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(crate) fn count_live(&mut self) -> std::io::Result<()> {
        self.memory.live = Live::new(self.shared.options.live_leases);
        if self.tip.leases > 0 {
            self.memory.live.read(live::read(&self.shared)?);
        }
        self.shared.live_counted.store(!self.memory.live.is_reading(), Ordering::Release);
        Ok(())
    }

    fn tend_live(&mut self) {
        let was_reading = self.memory.live.is_reading();
        self.memory.live.tend(self.shared.cautious_now());
        if was_reading && !self.memory.live.is_reading() {
            self.shared.live_counted.store(true, Ordering::Release);
        }
    }

    /// Works until the queue stops.
    pub(crate) fn run(self) {
        let shared = Arc::clone(&self.shared);
        if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            // A defect of ours. Nobody waits for a writer that is not there.
            let why = "its writer panicked: restart the broker".to_owned();
            tracing::error!(%why, "the store has stopped");
            shared.set_trouble(Some(why.clone()));
            shared.queue.fail(&StoreError::Poisoned(why));
        }
    }

    fn work(mut self) {
        loop {
            let mut operations = 0;
            let fits = |change: &Change| {
                operations += cost(change);
                operations <= CHANGES
            };
            let patience = match (self.pruning_is_due(), self.memory.live.is_reading()) {
                (true, _) => Duration::ZERO,
                (false, true) => READING,
                (false, false) if self.shared.unwritten.any() => UNWRITTEN,
                (false, false) => IDLE,
            };
            let work = self.shared.queue.take(patience, fits);
            self.tend_live();
            match work {
                Work::Changes(requests) if requests.is_empty() => self.tidy(),
                Work::Changes(requests) => self.commit_all(requests),
                Work::Between(run) => run(&mut self),
                Work::Stop(stop) => return self.stop(stop),
            }
        }
    }

    /// Prunes and folds a little, while there is nothing else to do.
    fn tidy(&mut self) {
        if self.shared.unwritten.any() {
            return self.commit_all(Vec::new());
        }
        let pruning = self.pruning_is_due();
        let folding =
            self.tip.rules.folds(self.shared.cautious_now()) || !self.tip.folded_teardowns.is_empty();
        if !pruning && !folding {
            return;
        }
        let before = (self.tip.leases, self.tip.forgotten, self.schedule.lowest());
        self.commit_all(Vec::new());
        if pruning && (self.tip.leases, self.tip.forgotten, self.schedule.lowest()) == before {
            self.schedule.rest(self.shared.cautious_now());
        }
    }

    /// Commits these as one; nothing is answered before it is durable.
    fn commit_all(&mut self, requests: Vec<Request>) {
        let (changes, asked): (Vec<Change>, Vec<Asked>) =
            requests.into_iter().map(|Request { change, answer }| Asked::of(change, answer)).unzip();
        let (room, mut outcomes) = (self.room(), Vec::with_capacity(changes.len()));
        let committed = room.and_then(|room| self.commit_to(&mut outcomes, changes, room, |_| ()));
        if let Err(error) = committed {
            return self.give_up(&error, asked, outcomes);
        }
        for (Asked { answer, revocation }, outcome) in asked.into_iter().zip(outcomes) {
            let outcome = match (outcome, revocation) {
                (Err(why @ (StoreError::Full | StoreError::Unwritten)), Some(revocation)) => {
                    self.shared.apply_unwritten(&self.tip, *revocation, None, &why)
                }
                (outcome, _) => outcome,
            };
            // Whoever asked may have gone; what is committed is committed.
            let _ = answer.send(outcome);
        }
    }

    /// Nothing is known of what is on disk: answers that, puts in effect in memory what was to be revoked, and opens the
    /// database anew. `outcomes` are what the commit had come to.
    fn give_up(&mut self, error: &StoreError, asked: Vec<Asked>, outcomes: Vec<Result<Outcome, StoreError>>) {
        let why = error.to_string();
        tracing::error!(%why, "the store cannot commit; nothing is issued until it is reopened and verified");
        self.shared.set_trouble(Some(why.clone()));
        // Whoever is answered reads nothing of what may not be on disk.
        self.given_up = self.shared.set_engine(None);
        if let Some(backup) = self.backup.take() {
            backup.cut(BackupError::Reopened);
        }
        let outcomes = outcomes.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        for (Asked { answer, revocation }, outcome) in asked.into_iter().zip(outcomes) {
            // What it made may be on disk.
            let made = match outcome {
                Some(Ok(Outcome::Committed(receipt))) => receipt.rule,
                _ => None,
            };
            if let (None, Some(made)) = (&revocation, &made) {
                self.shared.keep_made(made);
            }
            let _ = answer.send(self.without_disk(revocation, made, &why));
        }
        self.reopen(why);
    }

    /// What is answered while nothing can be committed.
    fn without_disk(
        &self,
        revocation: Option<Box<Revocation>>,
        made: Option<Arc<Rule>>,
        why: &str,
    ) -> Result<Outcome, StoreError> {
        let why = StoreError::Poisoned(why.to_owned());
        match revocation {
            Some(revocation) => self.shared.apply_unwritten(&self.tip, *revocation, made, &why),
            None => Err(why),
        }
    }

    /// Free bytes on the store's disk.
    fn room(&self) -> Result<u64, StoreError> {
        files::free_bytes(&self.shared.options.dir)
            .map_err(|error| StoreError::Poisoned(format!("cannot see how full the disk is: {error}")))
    }

    /// Commits changes in order, each with its own outcome, where there are `room` bytes free on the disk. `extra`
    /// adds records of its own.
    ///
    /// # Errors
    /// When nothing is known of what is on disk.
    pub(crate) fn commit(
        &mut self,
        changes: Vec<Change>,
        room: u64,
        extra: impl FnOnce(&mut Group<'_>),
    ) -> Result<Vec<Result<Outcome, StoreError>>, StoreError> {
        let mut outcomes = Vec::with_capacity(changes.len());
        self.commit_to(&mut outcomes, changes, room, extra)?;
        Ok(outcomes)
    }

    /// The same, and where it fails, what it had come to.
    fn commit_to(
        &mut self,
        outcomes: &mut Vec<Result<Outcome, StoreError>>,
        changes: Vec<Change>,
        room: u64,
        extra: impl FnOnce(&mut Group<'_>),
    ) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let engine = self.engine.as_ref().map(Arc::clone).ok_or_else(|| shared.refusal())?;
        let before = self.tip.position;
        let copied = self.backup.is_some();
        let mut group = Group::new(&shared, &engine, &mut self.tip, &mut self.memory, room, copied);
        let unwritten = shared.unwritten.all();
        group.unwritten = !unwritten.is_empty() && room < shared.options.rule_reserve_bytes;
        if !group.unwritten {
            unwritten.iter().try_for_each(|rule| group.write_down(rule))?;
        }
        for change in changes {
            match group.add(change) {
                Err(StoreError::Poisoned(why)) => return Err(StoreError::Poisoned(why)),
                outcome => outcomes.push(outcome),
            }
        }
        extra(&mut group);
        let changed = group.operations() > 0 || group.tip.position > before;
        if room >= shared.options.rule_reserve_bytes {
            let most = if changed { BATCH - OVERHEAD } else { PRUNING };
            // Of rules that this commit folds, it may itself bring something: those come with the next.
            teardown::forget(&mut group, most)?;
            let folded = rules::fold(&mut group);
            self.schedule.prune(&mut group, most)?;
            for rule in folded {
                self.schedule.folded(rule.cut_off);
            }
        }
        if changed || group.operations() > 0 {
            let Ready { batch, records, brought, bases, pruned, told, copied } = group.ready()?;
            engine.commit(batch)?;
            // After it is there to be read: see `backup.rs`.
            self.tell_backup(copied);
            self.memory.bases.learn(brought);
            shared.recent.forget(&pruned);
            // Before the leases that refer to them.
            shared.bases.keep(bases);
            shared.recent.keep(records);
            shared.news.add(told);
            shared.publish(&self.tip);
            if !unwritten.is_empty() && !shared.unwritten.any() {
                tracing::info!(rules = unwritten.len(), "what was revoked in memory alone is on disk");
            }
        }
        Ok(())
    }

    pub(crate) fn tip(&mut self) -> &mut Tip {
        &mut self.tip
    }

    fn tell_backup(&mut self, records: Option<Vec<u8>>) {
        let reads = self.backup.as_ref().zip(records).is_none_or(|(backup, records)| backup.tell(&records));
        if !reads {
            self.backup = None;
        }
    }

    fn pruning_is_due(&self) -> bool {
        let most = self.shared.options.max_leases;
        self.schedule.is_due(&self.tip, most, self.shared.cautious_now())
    }

    /// Closes the database and opens it again until it opens and has everything that was answered.
    fn reopen(&mut self, mut why: String) {
        let mut wait = Duration::from_millis(50);
        self.give_up_engine();
        loop {
            self.refuse_waiting(&why, wait);
            if self.shared.queue.stopping() {
                return;
            }
            match self.try_reopen() {
                Ok(()) => {
                    tracing::info!(position = %self.tip.position, "the store is open again and verified");
                    self.shared.set_trouble(None);
                    return;
                }
                Err(error) => {
                    why = error;
                    tracing::error!(%why, "the store is still not usable");
                    self.shared.set_trouble(Some(why.clone()));
                }
            }
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    /// Lets readers finish, then closes the database.
    pub(crate) fn give_up_engine(&mut self) {
        drop(self.engine.take());
        let Some(mut engine) = self.given_up.take().or_else(|| self.shared.set_engine(None)) else { return };
        loop {
            match Arc::try_unwrap(engine) {
                Ok(last) => return last.close(),
                Err(still_read) => engine = still_read,
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Answers what comes in the meantime.
    fn refuse_waiting(&self, why: &str, wait: Duration) {
        let mut waited = Duration::ZERO;
        loop {
            match self.shared.queue.take(Duration::ZERO, |_| true) {
                Work::Stop(_) => return,
                // Whoever waits for it sees that it is not done.
                Work::Between(_) => {}
                Work::Changes(requests) => {
                    for Request { change, answer } in requests {
                        let (_, Asked { answer, revocation }) = Asked::of(change, answer);
                        let _ = answer.send(self.without_disk(revocation, None, why));
                    }
                }
            }
            if waited >= wait {
                return;
            }
            std::thread::sleep(ASKED.min(wait));
            waited += ASKED;
        }
    }

    fn try_reopen(&mut self) -> Result<(), String> {
        let options = &self.shared.options;
        let engine = Engine::open(&options.dir, options.cache_bytes).map_err(|error| error.to_string())?;
        match self.verified(&engine) {
            Ok(tip) => self.tip = tip,
            Err(why) => {
                engine.close();
                return Err(why);
            }
        }
        // The changes under way may be there or not; memory must agree with the disk.
        self.shared.recent.clear();
        self.shared.bases.clear();
        self.shared.news.forget(self.tip.position);
        self.memory.keys = keys_from_now(&self.shared);
        self.memory.namespaces = SeenNamespaces::default();
        self.memory.bases = KnownBases::new(self.shared.options.recent_bases);
        self.schedule = Schedule::default();
        self.shared.publish(&self.tip);
        let engine = Arc::new(engine);
        self.engine = Some(Arc::clone(&engine));
        self.shared.set_engine(Some(engine));
        if let Err(error) = self.count_live() {
            tracing::error!(%error, "live leases from before cannot be read: only those issued from now on are counted");
        }
        Ok(())
    }

    /// Where a reopened store is: not before what was answered, and it can be written to.
    fn verified(&self, engine: &Engine) -> Result<Tip, String> {
        let acknowledged = self.shared.head.load().mark;
        let mut tip = Tip::load(engine).map_err(|problem| problem.to_string())?;
        let same = tip.instance == acknowledged.instance && tip.incarnation == acknowledged.incarnation;
        if !same || tip.position < acknowledged.position {
            return Err(format!(
                "the store has lost what was acknowledged: it has position {}, {} was answered",
                tip.position, acknowledged.position
            ));
        }
        tip.reopened += 1;
        let mut batch = Batch::default();
        batch.insert(layout::PROGRESS, tip.progress().encode_to_vec());
        engine.commit(batch).map_err(|error| error.to_string())?;
        Ok(tip)
    }

    fn stop(mut self, stop: Stop) {
        if stop == Stop::Clean && self.engine.is_some() {
            self.tip.clean = true;
            let draft = Draft::note(EventKind::Stopped, &Actor::dayfly(), String::new());
            let stopped = self.commit(vec![Change::Note(Box::new(draft))], NO_RESERVE, |_| ());
            if let Err(error) = stopped {
                tracing::error!(%error, "the store could not record that it stopped");
            }
        }
        let lost = self.shared.unwritten.all();
        for rule in lost {
            tracing::error!(
                rule = %rule.id, selector = %rule.selector,
                "a revocation that was in effect in memory alone is lost: revoke again"
            );
        }
        self.give_up_engine();
    }
}

impl std::fmt::Display for NoTip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(why) => f.write_str(why),
            Self::Format(found) => write!(f, "it has format {found}"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

fn keys_from_now(shared: &Shared) -> RecentKeys {
    RecentKeys::since(shared.cautious_now(), shared.options.recent_keys, shared.options.limits.idempotency)
}

/// What a change counts for: the keys it writes, at most; one that writes fewer has an event that takes room. A renewal
/// also writes the run of the earlier lease anew, which may become two.
fn cost(change: &Change) -> usize {
    match change {
        Change::Issue(issue) if issue.lease.renews.is_some() => 7,
        _ => 5,
    }
}
