//! What the writer keeps in memory of the newest leases and idempotency keys, bounded.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use dayfly_core::digest::Digest;
use dayfly_core::ids::{LeaseId, OwnerName};
use dayfly_core::ports::StoreError;
use dayfly_core::time::Timestamp;

use crate::engine::Engine;
use crate::layout::fingerprint;
use crate::runs::{Record, Records};

/// The newest leases' own records. Only the writer changes it; anyone reads it without touching the disk. Records and
/// not leases, which take many times the memory and the pieces.
pub(crate) struct RecentLeases {
    bound: usize,
    kept: RwLock<Kept>,
}

#[derive(Default)]
struct Kept {
    records: HashMap<LeaseId, Record>,
    order: VecDeque<LeaseId>,
}

impl RecentLeases {
    pub(crate) fn new(bound: usize) -> Self {
        Self { bound, kept: RwLock::default() }
    }

    /// The record of a lease that is kept.
    pub(crate) fn record(&self, id: LeaseId) -> Option<Record> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).records.get(&id).cloned()
    }

    /// Keeps these, forgets the oldest beyond the bound.
    pub(crate) fn keep(&self, changed: Records) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        for (id, record) in changed {
            if kept.records.insert(id, record).is_none() {
                kept.order.push_back(id);
            }
        }
        while kept.order.len() > self.bound {
            let oldest = kept.order.pop_front();
            oldest.map(|id| kept.records.remove(&id));
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
            kept.records.remove(id);
        }
    }

    pub(crate) fn clear(&self) {
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Kept::default();
    }
}

/// The idempotency keys of the last minutes, each with the lease it was used for. A key that is not among them was not
/// used. After a start the disk is asked once for each owner.
pub(crate) struct RecentKeys {
    bound: usize,
    window: Duration,
    /// By a tenth of the window, by the time of their leases' ids.
    seen: BTreeMap<u64, HashMap<u64, LeaseId>>,
    /// Every use by a lease committed after this is seen,
    complete_since: Timestamp,
    /// and every use by a lease of these owners, or where to go on with them.
    known: HashMap<OwnerName, Learnt>,
}

/// How far an owner's keys were learnt.
#[derive(Clone, Copy)]
enum Learnt {
    All,
    /// Below this id.
    Below(LeaseId),
}

impl RecentKeys {
    /// Knows every use by a lease committed from `since` on.
    pub(crate) fn since(since: Timestamp, bound: usize, window: Duration) -> Self {
        Self { bound, window, seen: BTreeMap::new(), complete_since: since, known: HashMap::new() }
    }

    /// The lease that a key with this one's fingerprint was used for last, within the window.
    pub(crate) fn find(&self, key: &Digest, now: Timestamp) -> Option<LeaseId> {
        let fingerprint = fingerprint(key);
        let found = self.seen.values().filter_map(|uses| uses.get(&fingerprint)).max();
        found.copied().filter(|lease| lease.time() >= now.minus(self.window))
    }

    /// Since when there may be leases on disk whose keys are not known here; none where all are.
    pub(crate) fn may_lack(&self, now: Timestamp) -> Option<Timestamp> {
        let oldest = now.minus(self.window);
        (self.complete_since >= oldest).then_some(oldest)
    }

    /// From which id on an owner's leases are still to be looked at, of those from `oldest` on; none where all are known.
    pub(crate) fn learns_from(&self, owner: &OwnerName, oldest: Timestamp) -> Option<LeaseId> {
        let first = LeaseId::first_at(oldest);
        match self.known.get(owner) {
            None => Some(first),
            Some(Learnt::Below(id)) => Some(first.max(*id)),
            Some(Learnt::All) => None,
        }
    }

    /// What this owner's leases below this id used has been seen.
    pub(crate) fn learnt_up_to(&mut self, owner: OwnerName, below: LeaseId) {
        self.known.insert(owner, Learnt::Below(below));
    }

    /// All that this owner's leases used has been seen.
    pub(crate) fn learnt(&mut self, owner: OwnerName) {
        self.known.insert(owner, Learnt::All);
    }

    /// Whether no more keys can be kept until older ones are out of the window.
    pub(crate) fn is_full(&mut self, now: Timestamp) -> bool {
        self.forget(now);
        self.seen.values().map(HashMap::len).sum::<usize>() >= self.bound
    }

    pub(crate) fn add(&mut self, key: &Digest, lease: LeaseId) {
        self.see(fingerprint(key), lease);
    }

    pub(crate) fn see(&mut self, fingerprint: u64, lease: LeaseId) {
        let last = self.seen.entry(self.tenth(lease.time())).or_default().entry(fingerprint).or_insert(lease);
        *last = lease.max(*last);
    }

    fn forget(&mut self, now: Timestamp) {
        self.seen = self.seen.split_off(&self.tenth(now.minus(self.window)));
        if self.may_lack(now).is_none() {
            self.known = HashMap::new();
        }
    }

    fn tenth(&self, time: Timestamp) -> u64 {
        let tenth = u64::try_from((self.window / 10).as_millis()).unwrap_or(u64::MAX);
        time.as_millis() / tenth.max(1)
    }
}

/// Which namespaces' owners are known to be in the store's list of them.
#[derive(Default)]
pub(crate) struct SeenNamespaces(HashSet<Vec<u8>>);

impl SeenNamespaces {
    const BOUND: usize = 65_536;

    /// Whether this key has to be written.
    pub(crate) fn is_new(&mut self, engine: &Engine, key: &[u8]) -> Result<bool, StoreError> {
        if self.0.contains(key) {
            return Ok(false);
        }
        let is_new = engine.get(key)?.is_none();
        if !is_new {
            self.add(key.to_vec());
        }
        Ok(is_new)
    }

    /// This key is being written.
    pub(crate) fn add(&mut self, key: Vec<u8>) {
        if self.0.len() >= Self::BOUND {
            self.0.clear();
        }
        self.0.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_within_the_window_and_what_is_missing_is_learnt_once_an_owner() {
        let key = |n: u8| Digest::of(&[n]);
        let at = |secs: u64| Timestamp::from_secs(1_000_000 + secs);
        let lease = |secs| LeaseId::first_at(at(secs));
        let mut keys = RecentKeys::since(at(0), 3, Duration::from_secs(600));
        let payments: OwnerName = "payments".parse().unwrap();

        assert_eq!(keys.may_lack(at(1)), Some(at(1).minus(Duration::from_secs(600))));
        let first = LeaseId::first_at(at(1).minus(Duration::from_secs(600)));
        assert_eq!(keys.learns_from(&payments, first.time()), Some(first));
        keys.see(fingerprint(&key(1)), lease(0));
        keys.learnt_up_to(payments.clone(), lease(1));
        assert_eq!(keys.learns_from(&payments, first.time()), Some(lease(1)), "it goes on there");
        keys.learnt(payments.clone());
        assert_eq!(keys.learns_from(&payments, first.time()), None);
        assert_eq!((keys.find(&key(1), at(1)), keys.find(&key(2), at(1))), (Some(lease(0)), None));
        assert_eq!((keys.find(&key(1), at(600)), keys.find(&key(1), at(601))), (Some(lease(0)), None));

        keys.add(&key(2), lease(100));
        assert!(!keys.is_full(at(100)));
        keys.add(&key(3), lease(101));
        assert!(keys.is_full(at(101)));
        assert_eq!(keys.find(&key(2), at(700)), Some(lease(100)));
        assert_eq!((keys.may_lack(at(600)).is_some(), keys.may_lack(at(601))), (true, None));
        assert!(!keys.is_full(at(662)), "what is out of the window goes");
        assert_eq!(keys.known.len(), 0, "and nobody needs to be asked any more");
        keys.add(&key(2), lease(702));
        assert_eq!(keys.find(&key(2), at(702)), Some(lease(702)), "used again");
    }
}
