//! The teardown: what is done, lease by lease, about what a rule covers, after the rule is in effect. Every rule in force
//! is in the queue; how far each step has come is durable, so a start goes on where an end came.
//!
//! A step is a file with a [`TeardownStep`]: [`crate::spell_out`], [`crate::status_lists`].
//! `docs/decisions/teardown-queue.md` says why so.

mod queue;

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::change::{Change, LeaseFilter, Outcome};
use dayfly_core::ids::{LeaseId, Position};
use dayfly_core::lease::Lease;
use dayfly_core::limits::TTL_MAX;
use dayfly_core::ports::{BoxFuture, StoreError};
use dayfly_core::rule::Rule;
use dayfly_core::teardown::{ERROR_BYTES, SpelledLease, Step, StepProgress, TURN, TeardownChange};
use dayfly_policy::explain::shortened;
use tokio::time::{Instant, sleep, sleep_until};

pub(crate) use self::queue::Queue;
use self::queue::Work;
use crate::Broker;

/// How long what failed once rests; twice as long each further time, up to [`REST_MOST`].
const REST: Duration = Duration::from_secs(1);
const REST_MOST: Duration = Duration::from_secs(60);
/// How long a walk rests at least between its pages: many leases may have been passed by for few.
const BETWEEN: Duration = Duration::from_millis(5);
/// How often it is looked which rules have gone out of force.
const LOOK: Duration = Duration::from_secs(5);

/// What a step of the teardown does. Each has a file of its own.
pub(crate) trait TeardownStep: Send + Sync {
    /// Which it is.
    fn step(&self) -> Step;

    /// Whether there may be something to do about what this rule covers; none where that is not known yet, until
    /// [`Queue::ring`].
    fn concerns(&self, rule: &Rule) -> Option<bool>;

    /// Does it for these leases, which the rule covers. To do it again changes nothing.
    ///
    /// # Errors
    /// In words for operators: it is tried again then.
    fn take<'a>(
        &'a self,
        rule: &'a Arc<Rule>,
        leases: &'a [Arc<Lease>],
    ) -> BoxFuture<'a, Result<Taken, String>>;

    /// It was done for all that the rule covers.
    fn completed(&self, rule: &Arc<Rule>);
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// For how many leases there was something to do.
    pub(crate) done: u64,
    /// Those that are to be kept as spelled out.
    pub(crate) spelled: Vec<SpelledLease>,
}

/// Why a turn was not taken.
enum Failed {
    /// The store closes.
    Closing,
    /// What is tried again.
    Again(String),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closing => Self::Closing,
            other => Self::Again(other.to_string()),
        }
    }
}

impl Broker {
    /// Goes on with the teardowns that there are, and with each as its rule comes. Ends when the store closes.
    pub async fn tear_down(&self) {
        while let Err(error) = self.recall_spelled().await {
            if error == StoreError::Closing {
                return;
            }
            sleep(REST).await;
        }
        let (mut heard, mut looked, mut last) = (Position::ZERO, None, None);
        let mut unwritten = self.unwritten.bell();
        loop {
            let (rules, now) = (self.store.rules(), self.not_ahead());
            if rules.position() > heard || looked.is_none_or(|looked: Instant| looked.elapsed() >= LOOK) {
                (heard, looked) = (rules.position(), Some(Instant::now()));
                // As it is now: a hold may have been lifted.
                let counts = |id| rules.get(id).is_some_and(|rule| rule.in_force(now));
                self.spelling.retain(counts);
                self.status_lists.forget(now);
                self.teardown.retain(counts);
                for rule in rules.after(last).filter(|rule| rule.in_force(now)) {
                    self.queue_steps(rule);
                }
                last = last.max(rules.iter().next_back().map(|rule| rule.id));
                self.sort_out();
            }
            let rest = match self.teardown.next(Instant::now()) {
                Ok(work) => match self.turn(work).await {
                    Ok(rest) => Instant::now() + rest,
                    Err(Failed::Closing) => return,
                    // It is told of in GetRevocation, and logged by the store where it is the store's.
                    Err(Failed::Again(_)) => continue,
                },
                Err(due) => {
                    tokio::select! {
                        ruled = self.store.ruled(heard) => if ruled.is_err() { return },
                        () = self.teardown.rung() => looked = None,
                        // Its sender is the broker, which is there.
                        _ = unwritten.changed() => looked = None,
                        () = sleep_until(due.unwrap_or_else(|| Instant::now() + LOOK)) => {}
                    }
                    continue;
                }
            };
            sleep_until(rest).await;
        }
    }

    fn steps(&self) -> [&dyn TeardownStep; 2] {
        [&self.spelling, &self.status_lists]
    }

    fn queue_steps(&self, rule: &Arc<Rule>) {
        let recorded = self.store.teardowns().get(rule.id).cloned();
        for step in self.steps() {
            let progress = recorded.as_ref().map(|recorded| recorded.step(step.step()));
            let progress = progress.unwrap_or_else(|| StepProgress::new(step.step()));
            if progress.complete {
                step.completed(rule);
            } else {
                // What rested when the broker stopped is tried at once.
                self.teardown.add(Work::new(Arc::clone(rule), progress), Instant::now());
            }
        }
    }

    /// Drops what there is nothing to do about, and begins with what waited to know.
    fn sort_out(&self) {
        for step in self.steps() {
            self.teardown.sort_out(step.step(), |rule| step.concerns(rule));
        }
    }

    /// When what has failed before is tried again: never later than after the longest rest, whatever the clock says.
    fn due_in(&self, progress: &StepProgress) -> Instant {
        let wait = progress.next_try.map_or(Duration::ZERO, |next| next.since(self.now()));
        Instant::now() + wait.min(REST_MOST)
    }

    /// One step of one rule goes on by some leases. Gives how long to rest then.
    async fn turn(&self, mut work: Work) -> Result<Duration, Failed> {
        let Some(step) = self.steps().into_iter().find(|step| step.step() == work.progress.step) else {
            return Ok(Duration::ZERO);
        };
        match self.go_on(step, &mut work).await {
            Ok(leases) => {
                let leases = u32::try_from(leases).unwrap_or(u32::MAX);
                let rest = Duration::from_secs_f64(f64::from(leases) / f64::from(self.teardown_rate.max(1)));
                if work.progress.complete {
                    step.completed(&work.rule);
                    self.teardown.done(&work);
                    return Ok(rest);
                }
                self.teardown.add(work, Instant::now());
                Ok(rest.max(BETWEEN))
            }
            Err(failed) => {
                if let Failed::Again(why) = &failed {
                    self.rest(&mut work, why).await;
                }
                let due = self.due_in(&work.progress);
                self.teardown.add(work, due);
                Err(failed)
            }
        }
    }

    /// Takes the step for the next leases, and records that. Gives how many leases there were.
    async fn go_on(&self, step: &dyn TeardownStep, work: &mut Work) -> Result<usize, Failed> {
        let rule = Arc::clone(&work.rule);
        let filter = LeaseFilter { selector: Some(rule.selector.clone()), ..LeaseFilter::default() };
        // A lease's id may be off from its time, and a verifier's clock: twice the longest life is more than both.
        let oldest = || LeaseId::first_at(self.not_ahead().minus(TTL_MAX * 2)).min(rule.cut_off);
        let from = work.progress.after.unwrap_or_else(oldest);
        let page = self.store.leases(filter, Some(from), self.turn_leases()).await?;
        let covered: Vec<_> = page.leases.iter().filter(|lease| rule.covers(lease)).cloned().collect();
        let taken = step.take(&rule, &covered).await.map_err(Failed::Again)?;
        // No new one can come: whatever is committed after the rule is above its cut-off.
        let next = page.next.filter(|next| *next < rule.cut_off);
        let progress = StepProgress {
            after: Some(next.unwrap_or(rule.cut_off)),
            done: work.progress.done + taken.done,
            complete: next.is_none(),
            ..StepProgress::new(work.progress.step)
        };
        self.keep_progress(work, progress, taken.spelled).await?;
        Ok(page.leases.len())
    }

    /// What was done is durable; where it cannot be made so, it goes on all the same, and is done again once it can.
    async fn keep_progress(
        &self,
        work: &mut Work,
        progress: StepProgress,
        spelled: Vec<SpelledLease>,
    ) -> Result<(), Failed> {
        if work.unrecorded.is_none() {
            let from = work.progress.after;
            let change = TeardownChange { rule: work.rule.id, from, progress: progress.clone(), spelled };
            match self.store.commit(Change::Teardown(Box::new(change))).await {
                Ok(Outcome::Committed(_)) => {
                    work.progress = progress;
                    return Ok(());
                }
                Ok(Outcome::Conflict(conflict)) => work.unrecorded = Some(conflict.to_string()),
                Ok(other) => work.unrecorded = Some(format!("the store answered {other:?}")),
                Err(StoreError::Closing) => return Err(Failed::Closing),
                Err(error) => work.unrecorded = Some(error.to_string()),
            }
        }
        if !progress.complete {
            work.progress = progress;
            return Ok(());
        }
        let why = work.unrecorded.take().unwrap_or_default();
        let (id, step) = (work.rule.id, progress.step);
        let tries = work.progress.tries;
        let recorded = self.store.teardowns().get(id).map(|recorded| recorded.step(step));
        work.progress = recorded.unwrap_or_else(|| StepProgress::new(step));
        work.progress.tries = work.progress.tries.max(tries);
        if work.progress.complete {
            return Ok(());
        }
        Err(Failed::Again(format!("it is done and cannot be recorded: {why}")))
    }

    /// It has failed: how often and why is recorded, where that can be.
    async fn rest(&self, work: &mut Work, why: &str) {
        let progress = &mut work.progress;
        progress.tries = progress.tries.saturating_add(1);
        progress.last_error = shortened(why, ERROR_BYTES);
        progress.next_try = Some(self.now().plus(self.backoff(progress.tries)));
        if work.unrecorded.is_none() {
            let (rule, from, progress) = (work.rule.id, progress.after, progress.clone());
            let change = TeardownChange { rule, from, progress, spelled: Vec::new() };
            // What the store cannot take now is known here until it can.
            let _ = self.store.commit(Change::Teardown(Box::new(change))).await;
        }
    }

    /// Half of the rest is left to chance, so that what failed together is not tried together.
    fn backoff(&self, tries: u32) -> Duration {
        let most = REST.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(REST_MOST);
        let mut chance = [0; 2];
        // Without randomness it is the whole.
        let chance = self.rng.fill(&mut chance).map_or(u16::MAX, |()| u16::from_le_bytes(chance));
        most / 2 + (most / 2).mul_f64(f64::from(chance) / f64::from(u16::MAX))
    }

    /// Leases of one turn: a tenth of a second's.
    fn turn_leases(&self) -> usize {
        usize::try_from(self.teardown_rate / 10).unwrap_or(TURN).clamp(1, TURN)
    }

    /// How far the teardown of what this rule covers has come: the steps that have, or may have, something to do.
    pub fn teardown_of(&self, rule: &Rule) -> Vec<StepProgress> {
        let recorded = self.store.teardowns().get(rule.id).cloned();
        let progress = |step: Step| {
            let known = self.teardown.progress(rule.id, step);
            known.or_else(|| recorded.as_ref()?.steps.iter().find(|known| known.step == step).cloned())
        };
        let told = Step::ALL.into_iter().filter_map(progress);
        // A step that had nothing to do is not worth a word.
        told.filter(|progress| progress.done > 0 || !progress.complete).collect()
    }
}
