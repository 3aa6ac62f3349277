//! What the writer keeps in memory of the newest leases and idempotency keys, bounded.

use std::collections::{HashMap, HashSet, VecDeque};
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
        // Their places in the order go when they come up: an id that was pruned never comes again.
        for id in pruned {
            kept.leases.remove(id);
        }
    }

    pub(crate) fn clear(&self) {
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Kept::default();
    }
}

/// The idempotency keys of the last minutes. After a start, and when there were too many to keep, it does not know all
/// of them; then the disk knows a caller's, and is asked once for each caller.
pub(crate) struct RecentKeys {
    bound: usize,
    window: Duration,
    uses: HashMap<Digest, Use>,
    order: VecDeque<(Digest, LeaseId)>,
    /// Every use by a lease committed after this is known,
    complete_since: Timestamp,
    /// and every use by these callers (their key range in the store).
    asked: HashSet<Vec<u8>>,
}

/// What a key was used for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    pub(crate) request: Digest,
    pub(crate) lease: LeaseId,
}

/// What is known of a key.
#[derive(Debug)]
pub(crate) enum Known {
    /// It was used, within the window.
    Used(Use),
    /// It was not.
    Unused,
    /// The disk knows what this caller used, in leases with an id from this time on: tell [`RecentKeys::learn`].
    Ask(Timestamp),
}

impl RecentKeys {
    /// Knows every use by a lease committed from `since` on.
    pub(crate) fn since(since: Timestamp, bound: usize, window: Duration) -> Self {
        Self {
            bound,
            window,
            uses: HashMap::new(),
            order: VecDeque::new(),
            complete_since: since,
            asked: HashSet::new(),
        }
    }

    pub(crate) fn look(&self, key: &Digest, caller: &[u8], now: Timestamp) -> Known {
        let oldest = now.minus(self.window);
        match self.uses.get(key) {
            Some(used) if used.lease.time() >= oldest => Known::Used(*used),
            Some(_) => Known::Unused,
            None if self.complete_since <= oldest || self.asked.contains(caller) => Known::Unused,
            None => Known::Ask(oldest),
        }
    }

    /// What the disk said of a caller.
    pub(crate) fn learn(&mut self, caller: Vec<u8>, uses: Vec<(Idempotency, LeaseId)>, now: Timestamp) {
        if self.asked.len() >= self.bound {
            self.asked.clear();
        }
        self.asked.insert(caller);
        for (used, lease) in uses {
            self.add(used, lease, now);
        }
    }

    pub(crate) fn add(&mut self, used: Idempotency, lease: LeaseId, now: Timestamp) {
        self.uses.insert(used.key, Use { request: used.request, lease });
        self.order.push_back((used.key, lease));
        let oldest = now.minus(self.window);
        if self.complete_since <= oldest && !self.asked.is_empty() {
            self.asked = HashSet::new();
        }
        while let Some((key, lease)) = self.order.front().copied() {
            let outdated = lease.time() < oldest;
            if !outdated && self.order.len() <= self.bound {
                break;
            }
            if !outdated {
                self.complete_since = self.complete_since.max(now);
                self.asked.clear();
            }
            self.order.pop_front();
            if self.uses.get(&key).is_some_and(|used| used.lease == lease) {
                self.uses.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(n: u8) -> Idempotency {
        Idempotency { key: Digest::of(&[n]), request: Digest::of(b"request") }
    }

    #[test]
    fn what_was_forgotten_is_asked_for_and_only_once_a_caller() {
        let at = |secs: u64| Timestamp::from_secs(1_000_000 + secs);
        let lease = |secs| LeaseId::first_at(at(secs));
        let mut keys = RecentKeys::since(at(0), 2, Duration::from_secs(600));
        let look = |keys: &RecentKeys, n, caller: &[u8], secs| match keys.look(&used(n).key, caller, at(secs))
        {
            Known::Used(_) => "used",
            Known::Unused => "unused",
            Known::Ask(_) => "ask",
        };
        assert_eq!(look(&keys, 1, b"a", 1), "ask");
        keys.learn(b"a".to_vec(), vec![(used(1), lease(0))], at(1));
        assert_eq!(
            (look(&keys, 1, b"a", 1), look(&keys, 2, b"a", 1), look(&keys, 2, b"b", 1)),
            ("used", "unused", "ask")
        );
        keys.add(used(2), lease(2), at(2));
        keys.add(used(3), lease(3), at(3));
        assert_eq!((look(&keys, 1, b"a", 3), look(&keys, 3, b"a", 3)), ("ask", "used"), "too many to keep");
        assert_eq!(look(&keys, 1, b"a", 603), "unused", "the window is over");
        assert_eq!(look(&keys, 3, b"a", 604), "unused");
    }
}
