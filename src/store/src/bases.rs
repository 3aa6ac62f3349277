//! Bases: what leases have alike that one workload gets by one decision is stored once, under the id of the lease that
//! brought it. Nobody counts who refers to a basis: only leases of the [`SPAN`] after it may, so one that is older than
//! the oldest lease by more than that is nobody's.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dayfly_core::digest::Digest;
use dayfly_core::encoding::{BadRecord, Own};
use dayfly_core::ids::LeaseId;
use dayfly_core::lease::Lease;
use dayfly_core::ports::StoreError;

use crate::engine::Engine;
use crate::layout::{self, Entry};
use crate::live::{self, Keys};
use crate::runs;

/// How long after a basis leases may refer to it, by the times of their ids; then it is written anew.
const SPAN: Duration = Duration::from_secs(24 * 3600);
/// What a basis takes in memory beside its bytes, about.
const OVERHEAD: usize = 128;
/// Bytes for each basis that may be kept, on average.
const BYTES: usize = 1024 + OVERHEAD;

/// A basis, encoded: decoding a lease anew costs no more than cloning one.
pub(crate) type Basis = Arc<[u8]>;

/// The lowest id of a basis that this lease, or one above it, may refer to.
pub(crate) fn lowest(lease: LeaseId) -> LeaseId {
    LeaseId::first_at(lease.time().minus(SPAN))
}

/// A map that forgets: what was not put into it since its first half was full goes when the second is.
struct Forgetful<K, V> {
    bound: usize,
    size: usize,
    new: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Forgetful<K, V> {
    fn new(bound: usize) -> Self {
        Self { bound, size: 0, new: HashMap::new(), old: HashMap::new() }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.new.get(key).or_else(|| self.old.get(key))
    }

    fn is_new(&self, key: &K) -> bool {
        self.new.contains_key(key)
    }

    fn put(&mut self, key: K, value: V, size: usize) {
        if size > self.bound / 2 {
            return;
        }
        if self.size + size > self.bound / 2 {
            self.old = std::mem::take(&mut self.new);
            self.size = 0;
        }
        if self.new.insert(key, value).is_none() {
            self.size += size;
        }
    }
}

/// The bases of the newest leases, and some that were read: for whoever reads leases.
pub(crate) struct Bases {
    bound: usize,
    kept: RwLock<Forgetful<LeaseId, Basis>>,
}

impl Bases {
    /// For so many bases, or for fewer that are larger.
    pub(crate) fn new(bases: usize) -> Self {
        let bound = bases.saturating_mul(BYTES);
        Self { bound, kept: RwLock::new(Forgetful::new(bound)) }
    }

    /// A basis that is kept.
    pub(crate) fn get(&self, id: LeaseId) -> Option<Basis> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Whether this one would go next, or is not there.
    pub(crate) fn lacks(&self, id: LeaseId) -> bool {
        !self.kept.read().unwrap_or_else(PoisonError::into_inner).is_new(&id)
    }

    pub(crate) fn keep(&self, bases: impl IntoIterator<Item = (LeaseId, Basis)>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        for (id, basis) in bases {
            let size = basis.len() + OVERHEAD;
            kept.put(id, basis, size);
        }
    }

    pub(crate) fn clear(&self) {
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Forgetful::new(self.bound);
    }

    /// The basis of a lease, kept or on disk.
    ///
    /// # Errors
    /// When it is not there: the lease is damaged.
    pub(crate) fn read(&self, engine: &Engine, own: &Own) -> Result<Basis, StoreError> {
        if let Some(basis) = self.get(own.basis) {
            return Ok(basis);
        }
        let basis = engine.get(&layout::basis(own.basis))?.ok_or_else(|| {
            StoreError::Damaged(format!("the basis of lease {}, {}, is not there", own.id, own.basis))
        })?;
        Ok(Basis::from(basis.as_ref()))
    }

    /// A lease, put together; none if it was pruned while it was read.
    pub(crate) fn lease(&self, engine: &Engine, own: Own) -> Result<Option<Arc<Lease>>, StoreError> {
        let basis = match self.read(engine, &own) {
            Err(StoreError::Damaged(_)) if runs::read(engine, own.id)?.is_none() => return Ok(None),
            basis => basis?,
        };
        if self.lacks(own.basis) {
            self.keep([(own.basis, Arc::clone(&basis))]);
        }
        whole(own, &basis).map(Some)
    }
}

/// A lease on its basis.
pub(crate) fn whole(own: Own, basis: &[u8]) -> Result<Arc<Lease>, StoreError> {
    let (id, of) = (own.id, own.basis);
    own.on(basis).map(Arc::new).map_err(|error| unreadable(id, of, &error))
}

/// The basis of this lease does not read back.
pub(crate) fn unreadable(lease: LeaseId, basis: LeaseId, error: &BadRecord) -> StoreError {
    StoreError::Damaged(format!("the basis of lease {lease}, {basis}, does not read back: {error}"))
}

/// What follows from a basis, computed once for all its leases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) id: LeaseId,
    /// What its leases count for.
    pub(crate) places: Keys,
    /// Whose they are.
    pub(crate) caller: Digest,
    /// What their index entries say, each [under](Entry::under) its own idempotency key.
    pub(crate) entry: Entry,
}

impl Known {
    /// Of the basis that this lease brings.
    pub(crate) fn of(lease: &Lease) -> Self {
        Self {
            id: lease.id,
            places: live::keys(lease),
            caller: lease.workload.caller(),
            entry: Entry::of(lease),
        }
    }
}

/// The newest bases by the digest of their bytes, so that the next lease refers to its own: whoever chooses names and
/// labels must not find two of one digest. The writer's, of what is durable; one that is forgotten is written anew.
pub(crate) struct KnownBases(Forgetful<[u8; 32], Known>);

impl KnownBases {
    pub(crate) fn new(bound: usize) -> Self {
        Self(Forgetful::new(bound))
    }

    /// The basis with this digest, if this lease may refer to it.
    pub(crate) fn find(&mut self, digest: &Digest, lease: LeaseId) -> Option<Known> {
        let digest = digest.as_bytes();
        let known = self.0.get(digest).copied().filter(|known| known.id >= lowest(lease))?;
        if !self.0.is_new(digest) {
            self.0.put(*digest, known, 1);
        }
        Some(known)
    }

    /// These are durable.
    pub(crate) fn learn(&mut self, bases: impl IntoIterator<Item = (Digest, Known)>) {
        for (digest, known) in bases {
            self.0.put(*digest.as_bytes(), known, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_used_is_forgotten() {
        let mut map = Forgetful::new(4);
        for n in 0..3 {
            map.put(n, n, 1);
        }
        assert_eq!((map.get(&0), map.is_new(&0), map.is_new(&2)), (Some(&0), false, true));
        map.put(0, 0, 1);
        map.put(3, 3, 1);
        assert_eq!((map.get(&0), map.get(&1), map.get(&2)), (Some(&0), None, Some(&2)));
        map.put(4, 4, 3);
        assert_eq!(map.get(&4), None, "it has no room");
        map.put(3, 30, 1);
        assert_eq!((map.get(&3), map.size), (Some(&30), 1));
    }

    #[test]
    fn a_basis_is_referred_to_for_its_span() {
        let start = dayfly_core::time::Timestamp::from_secs(1_795_435_200);
        let lease = Lease { id: LeaseId::first_at(start), ..Lease::test(1) };
        let (digest, known) = (Digest::of(b"basis"), Known::of(&lease));
        let mut bases = KnownBases::new(4);
        bases.learn([(digest, known)]);
        let mut found = |at| bases.find(&digest, LeaseId::first_at(at)).is_some();
        assert!(found(start) && found(start.plus(SPAN)));
        assert!(!found(start.plus(SPAN).plus(Duration::from_millis(1))));
        assert!(found(start.minus(SPAN)), "one that was drawn before");
    }
}
