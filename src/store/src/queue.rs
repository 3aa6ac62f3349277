//! The changes that wait for the writer: bounded, with room of their own for rules.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dayfly_core::change::{Change, KeyStep, Outcome};
use dayfly_core::ports::StoreError;
use tokio::sync::oneshot;

use crate::writer::Writer;

/// Rules have this much room beyond the queue's bound: an operator's revocation is never shed for issues.
const ROOM_FOR_RULES: usize = 256;

/// A change and who waits for its outcome.
pub(crate) struct Request {
    pub(crate) change: Change,
    pub(crate) answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// What the writer does between two commits: short, since everything waits for it.
pub(crate) type Between = Box<dyn FnOnce(&mut Writer) + Send>;

/// How the writer is to stop once the queue is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// With a `Stopped` event.
    Clean,
    /// As it is.
    Dropped,
}

/// What the writer takes.
pub(crate) enum Work {
    /// These changes, in the order they came; none when nothing came in time.
    Changes(Vec<Request>),
    /// This, before any change.
    Between(Between),
    /// Nothing will come any more.
    Stop(Stop),
}

pub(crate) struct Queue {
    bound: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    between: VecDeque<Between>,
    stop: Option<Stop>,
}

impl Queue {
    pub(crate) fn new(bound: usize) -> Self {
        Self { bound, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Adds a change.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when there is no room, [`StoreError::Closing`] after [`Queue::stop`].
    pub(crate) fn push(&self, request: Request) -> Result<(), StoreError> {
        let room = match &request.change {
            Change::Revoke(_) | Change::Lift(_) => self.bound + ROOM_FOR_RULES,
            Change::Key(change) if matches!(change.step, KeyStep::Revoke { .. }) => {
                self.bound + ROOM_FOR_RULES
            }
            _ => self.bound,
        };
        let mut state = self.lock();
        if state.stop.is_some() {
            return Err(StoreError::Closing);
        }
        if state.requests.len() >= room {
            return Err(StoreError::Busy);
        }
        state.requests.push_back(request);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Has the writer do this between two commits.
    ///
    /// # Errors
    /// [`StoreError::Closing`] after [`Queue::stop`].
    pub(crate) fn push_between(&self, between: Between) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.stop.is_some() {
            return Err(StoreError::Closing);
        }
        state.between.push_back(between);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// What has queued up, as far as `fits` lets it, at least one; or nothing after `patience`.
    pub(crate) fn take(&self, patience: Duration, mut fits: impl FnMut(&Change) -> bool) -> Work {
        let state = self.lock();
        let idle =
            |state: &mut State| state.requests.is_empty() && state.between.is_empty() && state.stop.is_none();
        let (mut state, _) =
            self.changed.wait_timeout_while(state, patience, idle).unwrap_or_else(PoisonError::into_inner);
        if let Some(between) = state.between.pop_front() {
            return Work::Between(between);
        }
        if let (Some(stop), true) = (state.stop, state.requests.is_empty()) {
            return Work::Stop(stop);
        }
        let mut taken = Vec::new();
        while state.requests.front().is_some_and(|next| fits(&next.change) || taken.is_empty()) {
            taken.extend(state.requests.pop_front());
        }
        Work::Changes(taken)
    }

    /// No more changes; those that wait are still done.
    pub(crate) fn stop(&self, stop: Stop) {
        self.lock().stop.get_or_insert(stop);
        self.changed.notify_all();
    }

    /// No more changes; those that wait are refused.
    pub(crate) fn fail(&self, error: &StoreError) {
        self.stop(Stop::Dropped);
        let mut state = self.lock();
        state.between.clear();
        for request in state.requests.drain(..) {
            // Whoever asked may have gone.
            let _ = request.answer.send(Err(error.clone()));
        }
    }

    /// Whether [`Queue::stop`] was called.
    pub(crate) fn stopping(&self) -> bool {
        self.lock().stop.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
