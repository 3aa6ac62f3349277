//! How a crowded broker divides its places.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dayfly_broker::Caller as Kind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::held::Held;

/// How many places there are.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// For workloads' and verifiers' calls.
    pub(crate) callers: usize,
    /// For operators' calls: kept apart, so that they are never shed for the others.
    pub(crate) operators: usize,
    /// For calls of one workload or verifier, by its user name.
    pub(crate) of_one_caller: usize,
    /// For calls of one operator.
    pub(crate) of_one_operator: usize,
    /// For calls of anyone: keys, health, reflection.
    pub(crate) open: usize,
    /// For streams of workloads.
    pub(crate) streams: usize,
    /// For streams of one workload: of one pod, by user name and pod uid.
    pub(crate) streams_of_one_workload: usize,
}

/// The places, of which some are taken.
pub(crate) struct Places {
    callers: Arc<Semaphore>,
    operators: Arc<Semaphore>,
    /// Calls whose tokens are being verified. Each waits for no more than a review.
    callers_arriving: Arc<Semaphore>,
    operators_arriving: Arc<Semaphore>,
    open: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    limits: Limits,
    by_caller: Counts,
    streams_by_workload: Counts,
}

type Operator = bool;
type Counts = Arc<Mutex<HashMap<(Operator, String), usize>>>;

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        let places = |number: usize| Arc::new(Semaphore::new(number));
        Self {
            callers: places(limits.callers),
            operators: places(limits.operators),
            callers_arriving: places(limits.callers),
            operators_arriving: places(limits.operators),
            open: places(limits.open),
            streams: places(limits.streams),
            limits: limits.clone(),
            by_caller: Arc::default(),
            streams_by_workload: Arc::default(),
        }
    }

    /// A place for a call of anyone.
    pub(super) fn open(&self) -> Option<Held> {
        Some(Held::place(Arc::clone(&self.open).try_acquire_owned().ok()?))
    }

    /// A place to be verified in.
    pub(super) fn arrive(&self, kind: Kind) -> Option<OwnedSemaphorePermit> {
        let arriving = if kind == Kind::Operator { &self.operators_arriving } else { &self.callers_arriving };
        Arc::clone(arriving).try_acquire_owned().ok()
    }

    /// A place for a stream of this verified workload.
    pub(super) fn stream(&self, workload: String) -> Option<Held> {
        let most = self.limits.streams_of_one_workload;
        let counted = Counted::one_more(&self.streams_by_workload, (false, workload), most)?;
        let place = Arc::clone(&self.streams).try_acquire_owned().ok()?;
        Some(Held::place(place).counted(counted))
    }

    /// A place for a call of this verified caller.
    pub(super) fn take(&self, kind: Kind, who: String) -> Option<Held> {
        let operator = kind == Kind::Operator;
        let (places, most) = if operator {
            (&self.operators, self.limits.of_one_operator)
        } else {
            (&self.callers, self.limits.of_one_caller)
        };
        let counted = Counted::one_more(&self.by_caller, (operator, who), most)?;
        let place = Arc::clone(places).try_acquire_owned().ok()?;
        Some(Held::place(place).counted(counted))
    }
}

/// One of a caller's calls under way.
pub(super) struct Counted {
    by_caller: Counts,
    who: (Operator, String),
}

impl Counted {
    fn one_more(by_caller: &Counts, who: (Operator, String), most: usize) -> Option<Self> {
        let mut counts = by_caller.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&who).copied().unwrap_or_default();
        if count >= most {
            return None;
        }
        counts.insert(who.clone(), count + 1);
        Some(Self { by_caller: Arc::clone(by_caller), who })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.by_caller.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.who) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&self.who);
            }
        }
    }
}
