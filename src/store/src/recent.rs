//! What the writer keeps in memory of the newest leases and idempotency keys, bounded.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dayfly_core::digest::Digest;
use dayfly_core::ids::LeaseId;
use dayfly_core::lease::{Idempotency, Lease};
use dayfly_core::time::Timestamp;

use crate::layout::fingerprint;

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

/// The idempotency keys of the last minutes: the newest with what they were used for, all others by a fingerprint. A
/// key that is not among the fingerprints was not used; one that is, is looked for on disk, among its caller's leases.
/// After a start the disk is asked once for each caller.
pub(crate) struct RecentKeys {
    bound: usize,
    window: Duration,
    newest: HashMap<Digest, Use>,
    /// Each use; a key that was used again has a later entry too.
    order: VecDeque<(Digest, LeaseId)>,
    /// By the time they were added, a tenth of the window each, oldest first.
    seen: VecDeque<Generation>,
    /// Every use by a lease committed after this is seen,
    complete_since: Timestamp,
    /// and every use by these callers (their key range in the store).
    asked: HashSet<Vec<u8>>,
}

/// Keys that are kept with what they were used for.
const NEWEST: usize = 16_384;

struct Generation {
    until: Timestamp,
    fingerprints: HashSet<u64>,
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
            newest: HashMap::new(),
            order: VecDeque::new(),
            seen: VecDeque::new(),
            complete_since: since,
            asked: HashSet::new(),
        }
    }

    pub(crate) fn look(&self, key: &Digest, caller: &[u8], now: Timestamp) -> Known {
        let oldest = now.minus(self.window);
        match self.newest.get(key) {
            Some(used) if used.lease.time() >= oldest => return Known::Used(*used),
            Some(_) => return Known::Unused,
            None => {}
        }
        let fingerprint = fingerprint(key);
        let seen = self.seen.iter().any(|generation| generation.fingerprints.contains(&fingerprint));
        let complete = self.complete_since <= oldest || self.asked.contains(caller);
        if complete && !seen { Known::Unused } else { Known::Ask(oldest) }
    }

    /// What the disk said of a caller.
    pub(crate) fn learn(&mut self, caller: Vec<u8>, fingerprints: &[u64], now: Timestamp) {
        if self.complete_since <= now.minus(self.window) {
            self.asked = HashSet::new();
            return;
        }
        if self.asked.len() >= self.bound {
            self.asked.clear();
        }
        self.asked.insert(caller);
        for fingerprint in fingerprints {
            self.see(*fingerprint, now);
        }
    }

    pub(crate) fn add(&mut self, used: Idempotency, lease: LeaseId, now: Timestamp) {
        self.see(fingerprint(&used.key), now);
        self.newest.insert(used.key, Use { request: used.request, lease });
        self.order.push_back((used.key, lease));
        if self.order.len() > NEWEST.min(self.bound)
            && let Some((key, lease)) = self.order.pop_front()
            && self.newest.get(&key).is_some_and(|newest| newest.lease == lease)
        {
            self.newest.remove(&key);
        }
    }

    fn see(&mut self, fingerprint: u64, now: Timestamp) {
        let oldest = now.minus(self.window);
        while self.seen.front().is_some_and(|generation| generation.until < oldest) {
            self.seen.pop_front();
        }
        if self.seen.back().is_none_or(|generation| generation.until < now) {
            let until = now.plus(self.window / 10);
            self.seen.push_back(Generation { until, fingerprints: HashSet::new() });
        }
        if let Some(newest) = self.seen.back_mut() {
            newest.fingerprints.insert(fingerprint);
        }
        let kept: usize = self.seen.iter().map(|generation| generation.fingerprints.len()).sum();
        if kept > self.bound {
            // More than memory is to hold: what goes has to be asked for again.
            let gone = self.seen.pop_front().map_or(now, |generation| generation.until);
            self.complete_since = self.complete_since.max(gone);
            self.asked.clear();
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
    fn what_is_not_in_memory_is_asked_for_and_only_once_a_caller() {
        let at = |secs: u64| Timestamp::from_secs(1_000_000 + secs);
        let lease = |secs| LeaseId::first_at(at(secs));
        let mut keys = RecentKeys::since(at(0), 3, Duration::from_secs(600));
        let look = |keys: &RecentKeys, n, caller: &[u8], secs| match keys.look(&used(n).key, caller, at(secs))
        {
            Known::Used(_) => "used",
            Known::Unused => "unused",
            Known::Ask(_) => "ask",
        };
        assert_eq!(look(&keys, 1, b"a", 1), "ask");
        keys.learn(b"a".to_vec(), &[fingerprint(&used(1).key)], at(1));
        assert_eq!(look(&keys, 1, b"a", 1), "ask", "it was seen: the disk knows what for");
        assert_eq!((look(&keys, 2, b"a", 1), look(&keys, 2, b"b", 1)), ("unused", "ask"));
        keys.add(used(2), lease(2), at(2));
        assert_eq!(look(&keys, 2, b"b", 2), "used");
        keys.add(used(3), lease(100), at(100));
        keys.add(used(4), lease(101), at(101));
        assert_eq!(look(&keys, 9, b"a", 101), "ask", "there were too many to keep");
        assert_eq!(look(&keys, 4, b"a", 101), "used");
        assert_eq!(look(&keys, 9, b"a", 700), "unused", "the window is over");
        assert_eq!(look(&keys, 4, b"a", 702), "unused");
    }
}
