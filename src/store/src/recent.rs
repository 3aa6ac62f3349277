//! What the writer keeps in memory of the newest leases and idempotency keys, bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dayfly_core::digest::Digest;
use dayfly_core::ids::LeaseId;
use dayfly_core::lease::{Idempotency, Lease};
use dayfly_core::time::Timestamp;

/// The newest leases. Only the writer changes it; anyone reads it without touching the disk.
pub(crate) struct RecentLeases {
    bound: usize,
    kept: RwLock<Kept>,
}

#[derive(Default)]
struct Kept {
    leases: HashMap<LeaseId, Arc<Lease>>,
    order: VecDeque<LeaseId>,
}

impl RecentLeases {
    pub(crate) fn new(bound: usize) -> Self {
        Self { bound, kept: RwLock::default() }
    }

    pub(crate) fn get(&self, id: LeaseId) -> Option<Arc<Lease>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).leases.get(&id).cloned()
    }

    /// Keeps these, forgets the oldest beyond the bound.
    pub(crate) fn keep(&self, changed: impl IntoIterator<Item = Arc<Lease>>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        for lease in changed {
            let id = lease.id;
            if kept.leases.insert(id, lease).is_none() {
                kept.order.push_back(id);
            }
        }
        while kept.order.len() > self.bound {
            let oldest = kept.order.pop_front();
            oldest.map(|id| kept.leases.remove(&id));
        }
    }

    /// Forgets these, which were pruned.
    pub(crate) fn forget(&self, pruned: &[LeaseId]) {
        if pruned.is_empty() {
            return;
        }
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        for id in pruned {
            if kept.leases.remove(id).is_some() {
                kept.order.retain(|kept| kept != id);
            }
        }
    }

    pub(crate) fn clear(&self) {
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Kept::default();
    }
}

/// The idempotency keys of the last minutes. What it does not know is looked for on disk, unless it knows all of the
/// window.
pub(crate) struct RecentKeys {
    bound: usize,
    window: Duration,
    uses: HashMap<Digest, Use>,
    order: VecDeque<(Digest, LeaseId)>,
    /// Every use by a lease committed after this is known.
    complete_since: Timestamp,
}

/// What a key was used for.
#[derive(Clone, Copy)]
pub(crate) struct Use {
    pub(crate) request: Digest,
    pub(crate) lease: LeaseId,
}

/// What is known of a key.
pub(crate) enum Known {
    /// It was used, within the window.
    Used(Use),
    /// It was not.
    Unused,
    /// It may have been, by a lease with an id from this time on: the disk knows.
    Unknown(Timestamp),
}

impl RecentKeys {
    /// Knows nothing of before `now`.
    pub(crate) fn since(now: Timestamp, bound: usize, window: Duration) -> Self {
        Self { bound, window, uses: HashMap::new(), order: VecDeque::new(), complete_since: now }
    }

    pub(crate) fn look(&self, key: &Digest, now: Timestamp) -> Known {
        let oldest = now.minus(self.window);
        match self.uses.get(key) {
            Some(used) if used.lease.time() >= oldest => Known::Used(*used),
            Some(_) => Known::Unused,
            None if self.complete_since <= oldest => Known::Unused,
            None => Known::Unknown(oldest),
        }
    }

    pub(crate) fn add(&mut self, used: Idempotency, lease: LeaseId, now: Timestamp) {
        self.uses.insert(used.key, Use { request: used.request, lease });
        self.order.push_back((used.key, lease));
        let oldest = now.minus(self.window);
        while let Some((key, lease)) = self.order.front().copied() {
            let outdated = lease.time() < oldest;
            if !outdated && self.order.len() <= self.bound {
                break;
            }
            if !outdated {
                self.complete_since = self.complete_since.max(now);
            }
            self.order.pop_front();
            if self.uses.get(&key).is_some_and(|used| used.lease == lease) {
                self.uses.remove(&key);
            }
        }
    }
}
