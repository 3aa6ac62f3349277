//! What is to be done next: in turns, so that a large teardown keeps no small one waiting.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dayfly_core::ids::RuleId;
use dayfly_core::rule::Rule;
use dayfly_core::teardown::{Step, StepProgress};
use tokio::sync::Notify;
use tokio::time::Instant;

/// A step of a rule's teardown that is not complete.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) rule: Arc<Rule>,
    /// How far it has come, be it unrecorded.
    pub(crate) progress: StepProgress,
    /// Why what was done since cannot be recorded.
    pub(crate) unrecorded: Option<String>,
}

type Key = (RuleId, Step);

impl Work {
    pub(crate) const fn new(rule: Arc<Rule>, progress: StepProgress) -> Self {
        Self { rule, progress, unrecorded: None }
    }

    fn key(&self) -> Key {
        (self.rule.id, self.progress.step)
    }
}

/// Steps that are not complete, and the bell for those that wait to know whether they have anything to do.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    bell: Notify,
}

#[derive(Default)]
struct State {
    works: HashMap<Key, Work>,
    /// New, or not known yet whether there is anything to do.
    unsorted: BTreeSet<Key>,
    /// Known to have something to do.
    sorted: BTreeSet<Key>,
    ready: VecDeque<Key>,
    later: BTreeSet<(Instant, Key)>,
}

impl Queue {
    /// It is to go on then.
    pub(super) fn add(&self, work: Work, due: Instant) {
        let mut state = self.lock();
        let key = work.key();
        state.works.insert(key, work);
        if !state.sorted.contains(&key) {
            state.unsorted.insert(key);
        } else if due <= Instant::now() {
            state.ready.push_back(key);
        } else {
            state.later.insert((due, key));
        }
    }

    /// It is complete.
    pub(super) fn done(&self, work: &Work) {
        let mut state = self.lock();
        state.works.remove(&work.key());
        state.sorted.remove(&work.key());
    }

    /// Asks of what was not sorted whether there is anything to do.
    pub(super) fn sort_out(&self, step: Step, concerns: impl Fn(&Rule) -> Option<bool>) {
        let mut state = self.lock();
        let keys: Vec<_> = state.unsorted.iter().filter(|(_, of)| *of == step).copied().collect();
        for key in keys {
            match state.works.get(&key).map(|work| concerns(&work.rule)) {
                Some(None) => continue,
                Some(Some(true)) => {
                    state.sorted.insert(key);
                    state.ready.push_back(key);
                }
                Some(Some(false)) | None => {
                    state.works.remove(&key);
                }
            }
            state.unsorted.remove(&key);
        }
    }

    /// What is next; else when there may be something.
    pub(super) fn next(&self, now: Instant) -> Result<Work, Option<Instant>> {
        let mut state = self.lock();
        while let Some((due, key)) = state.later.first().copied().filter(|(due, _)| *due <= now) {
            state.later.remove(&(due, key));
            state.ready.push_back(key);
        }
        while let Some(key) = state.ready.pop_front() {
            if let Some(work) = state.works.get(&key) {
                return Ok(work.clone());
            }
        }
        Err(state.later.first().map(|(due, _)| *due))
    }

    /// Only these rules' are left.
    pub(super) fn retain(&self, keep: impl Fn(RuleId) -> bool) {
        let mut state = self.lock();
        state.works.retain(|(rule, _), _| keep(*rule));
        state.unsorted.retain(|(rule, _)| keep(*rule));
        state.sorted.retain(|(rule, _)| keep(*rule));
    }

    pub(super) fn progress(&self, rule: RuleId, step: Step) -> Option<StepProgress> {
        let state = self.lock();
        let work = state.works.get(&(rule, step))?;
        // What may have nothing to do is not told of yet.
        state.sorted.contains(&(rule, step)).then(|| work.progress.clone())
    }

    /// What was not known may be known now.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
