//! How many leases are live, of each pod, workload, Grant, namespace and target: counted in memory by the writer, for the
//! caps. One that is renewed is not counted any more, its successor is.
//!
//! A rule frees the places of what it covers only when somebody is about to be refused for one: then those of the cap
//! in question are looked at, each once for all the rules there are, a bounded number in one commit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use dayfly_core::ids::{LeaseId, Position};
use dayfly_core::lease::{Lease, LeaseState, Phase};
use dayfly_core::limits::TTL_MAX;
use dayfly_core::live::LiveOf;
use dayfly_core::ports::StoreError;
use dayfly_core::rules::RuleSet;
use dayfly_core::time::Timestamp;

use crate::layout::fingerprint;
use crate::runs;
use crate::shared::Shared;

/// Leases that end by themselves and are forgotten in one step.
const ENDING: usize = 20_000;
/// Leases that are looked at for when a place is free.
const LOOKED_AT: usize = 256;
/// Leases of earlier starts that are read at a time, and how many such batches wait for the writer.
const BATCH: usize = 512;
const BATCHES: usize = 4;

/// What a lease counts for: a fingerprint for each of [`LiveOf::ALL`].
pub(crate) type Keys = [u64; 5];

/// What this lease counts for.
pub(crate) fn keys(lease: &Lease) -> Keys {
    LiveOf::ALL.map(|of| fingerprint(&of.place(lease)))
}

/// Index of a [`Place`].
type Slot = u32;

/// A lease, where it is found: those of a target, of a namespace, of a workload and of a pod are each a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    target: Slot,
    namespace: Slot,
    workload: Slot,
    pod: Slot,
    id: LeaseId,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    grant: Slot,
    /// Seconds since the Unix epoch.
    end: u32,
}

/// What leases are counted of.
struct Place {
    key: u64,
    leases: u32,
    /// Of a pod its workload, of a workload its namespace, of a namespace its target.
    parent: Slot,
    /// No rule up to this one covers any of its leases.
    checked: Position,
    pass: Option<Box<Pass>>,
}

/// A look through the leases of a place, for those that rules cover.
struct Pass {
    /// All rules up to this one.
    under: Position,
    /// Below this, all have been looked at.
    next: Spot,
}

/// What comes next in a [`Pass`].
pub(crate) enum Next {
    /// This lease is to be looked at.
    Lease(Counted),
    /// One that does not count for the place.
    Other,
    /// Nothing: all are live under these rules.
    Done,
}

/// A lease that is counted.
#[derive(Clone, Copy)]
pub(crate) struct Counted(Spot);

impl Counted {
    pub(crate) fn id(self) -> LeaseId {
        self.0.id
    }
}

/// Live leases of earlier starts, as they were read.
pub(crate) struct Found {
    under: Position,
    leases: Vec<FoundLease>,
}

/// Its id, what it counts for, when it ends.
type FoundLease = (LeaseId, Keys, Timestamp);

struct Reading {
    found: Receiver<Found>,
    /// What has ended since it began: it may have been read before.
    ended: HashSet<LeaseId>,
}

/// The live leases.
pub(crate) struct Live {
    bound: usize,
    places: Vec<Place>,
    free: Vec<Slot>,
    by_key: HashMap<u64, Slot>,
    leases: BTreeMap<Spot, Held>,
    /// For each second, the leases that end in it, with their pods' slots; some of leases that ended before.
    ends: BTreeMap<u32, Vec<(Slot, LeaseId)>>,
    reading: Option<Reading>,
}

impl Live {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            bound,
            places: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            leases: BTreeMap::new(),
            ends: BTreeMap::new(),
            reading: None,
        }
    }

    /// Whether no more can be counted.
    pub(crate) fn is_full(&mut self, now: Timestamp) -> bool {
        if self.leases.len() >= self.bound {
            self.expire(now, usize::MAX);
        }
        self.leases.len() >= self.bound
    }

    /// How many count for this.
    pub(crate) fn count(&self, key: u64) -> u32 {
        self.by_key.get(&key).map_or(0, |slot| self.place(*slot).map_or(0, |place| place.leases))
    }

    /// Counts a lease that no rule up to `checked` covers.
    pub(crate) fn add(&mut self, id: LeaseId, keys: Keys, ends_at: Timestamp, checked: Position) {
        let [pod, workload, grant, namespace, target] = keys;
        let target = self.slot(target, 0, checked);
        let namespace = self.slot(namespace, target, checked);
        let grant = self.slot(grant, namespace, checked);
        let workload = self.slot(workload, namespace, checked);
        let pod = self.slot(pod, workload, checked);
        let end = u32::try_from(ends_at.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        let spot = Spot { target, namespace, workload, pod, id };
        if self.leases.insert(spot, Held { grant, end }).is_none() {
            for slot in [pod, workload, grant, namespace, target] {
                if let Some(place) = self.place_mut(slot) {
                    place.leases += 1;
                }
            }
            self.ends.entry(end).or_default().push((pod, id));
        }
    }

    /// A lease has ended, or was renewed.
    pub(crate) fn end(&mut self, id: LeaseId, keys: Keys) {
        if let Some(reading) = &mut self.reading {
            reading.ended.insert(id);
        }
        let [pod, workload, _, namespace, target] = keys.map(|key| self.by_key.get(&key).copied());
        if let (Some(target), Some(namespace), Some(workload), Some(pod)) = (target, namespace, workload, pod)
        {
            self.forget(Counted(Spot { target, namespace, workload, pod, id }));
        }
    }

    /// Counts this one no more.
    pub(crate) fn forget(&mut self, Counted(spot): Counted) {
        let Some(held) = self.leases.remove(&spot) else { return };
        for slot in [spot.pod, spot.workload, held.grant, spot.namespace, spot.target] {
            let Some(place) = self.place_mut(slot) else { continue };
            place.leases -= 1;
            if place.leases == 0 {
                place.pass = None;
                let key = place.key;
                self.by_key.remove(&key);
                self.free.push(slot);
            }
        }
    }

    /// Forgets leases that have ended by themselves, and counts those that were read meanwhile.
    pub(crate) fn tend(&mut self, now: Timestamp) {
        self.expire(now, ENDING);
        for _ in 0..BATCHES {
            let Some(reading) = &self.reading else { return };
            match reading.found.try_recv() {
                Ok(found) => self.add_found(found, now),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.reading = None,
            }
        }
    }

    /// Forgets so many of the leases that have ended by themselves.
    pub(crate) fn expire(&mut self, now: Timestamp, most: usize) {
        for _ in 0..most {
            let Some(mut first) = self.ends.first_entry() else { return };
            let end = *first.key();
            if u64::from(end) > now.as_secs() {
                return;
            }
            let Some((pod, id)) = first.get_mut().pop() else {
                first.remove();
                continue;
            };
            let Some(spot) = self.spot(pod, id) else { continue };
            if self.leases.get(&spot).is_some_and(|held| held.end == end) {
                self.forget(Counted(spot));
            }
        }
    }

    /// What to look at next of what counts for `of` of these keys, to know that no rule up to `position` covers it.
    pub(crate) fn next_unchecked(&mut self, of: LiveOf, keys: Keys, position: Position) -> Next {
        let Some((slot, range)) = self.range(of, keys) else { return Next::Done };
        let leases = &self.leases;
        let Some(place) = self.places.get_mut(slot as usize) else { return Next::Done };
        while place.checked < position {
            let pass =
                place.pass.get_or_insert_with(|| Box::new(Pass { under: position, next: *range.start() }));
            let Some((spot, held)) = leases.range(pass.next..=*range.end()).next() else {
                place.checked = pass.under;
                place.pass = None;
                continue;
            };
            pass.next = Spot { id: LeaseId::from_u128(spot.id.as_u128().saturating_add(1)), ..*spot };
            return if of == LiveOf::Grant && held.grant != slot {
                Next::Other
            } else {
                Next::Lease(Counted(*spot))
            };
        }
        Next::Done
    }

    /// When one of what counts for `of` of these keys ends by itself, as far as a short look tells.
    pub(crate) fn first_end(&self, of: LiveOf, keys: Keys) -> Option<Timestamp> {
        let (slot, range) = self.range(of, keys)?;
        let some = self.leases.range(range).take(LOOKED_AT);
        let ends =
            some.filter(|(_, held)| of != LiveOf::Grant || held.grant == slot).map(|(_, held)| held.end);
        ends.min().map(|end| Timestamp::from_secs(u64::from(end)))
    }

    /// Counts what is found from now on, too.
    pub(crate) fn read(&mut self, found: Receiver<Found>) {
        self.reading = Some(Reading { found, ended: HashSet::new() });
    }

    /// Whether leases of earlier starts are still being read.
    pub(crate) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    fn add_found(&mut self, Found { under, leases }: Found, now: Timestamp) {
        for (id, keys, ends_at) in leases {
            let ended = self.reading.as_ref().is_some_and(|reading| reading.ended.contains(&id));
            if ended || ends_at <= now {
                continue;
            }
            self.add(id, keys, ends_at, under);
            for slot in keys.map(|key| self.by_key.get(&key).copied()).into_iter().flatten() {
                if let Some(place) = self.place_mut(slot) {
                    // It was looked at under fewer rules than what is there, maybe behind a pass.
                    place.checked = place.checked.min(under);
                    place.pass = None;
                }
            }
        }
    }

    /// Where the leases of a place are; those of a Grant among those of its namespace.
    fn range(&self, of: LiveOf, keys: Keys) -> Option<(Slot, RangeInclusive<Spot>)> {
        let [pod, workload, grant, namespace, target] = keys.map(|key| self.by_key.get(&key).copied());
        let (slot, parts) = match of {
            LiveOf::Pod => (pod?, [target, namespace, workload, pod]),
            LiveOf::Workload => (workload?, [target, namespace, workload, None]),
            LiveOf::Grant => (grant?, [target, namespace, None, None]),
            LiveOf::Namespace => (namespace?, [target, namespace, None, None]),
            LiveOf::Target => (target?, [target, None, None, None]),
        };
        let spot = |other: Slot, id: u128| {
            let [target, namespace, workload, pod] = parts.map(|part| part.unwrap_or(other));
            Spot { target, namespace, workload, pod, id: LeaseId::from_u128(id) }
        };
        Some((slot, spot(0, 0)..=spot(Slot::MAX, u128::MAX)))
    }

    /// The lease of a pod.
    fn spot(&self, pod: Slot, id: LeaseId) -> Option<Spot> {
        let workload = self.place(pod)?.parent;
        let namespace = self.place(workload)?.parent;
        let target = self.place(namespace)?.parent;
        Some(Spot { target, namespace, workload, pod, id })
    }

    fn slot(&mut self, key: u64, parent: Slot, checked: Position) -> Slot {
        if let Some(slot) = self.by_key.get(&key) {
            return *slot;
        }
        let place = Place { key, leases: 0, parent, checked, pass: None };
        let slot = if let Some(slot) = self.free.pop() {
            if let Some(free) = self.place_mut(slot) {
                *free = place;
            }
            slot
        } else {
            self.places.push(place);
            // There are no more than five places for each of the leases there may be.
            Slot::try_from(self.places.len() - 1).unwrap_or(Slot::MAX)
        };
        self.by_key.insert(key, slot);
        slot
    }

    fn place(&self, slot: Slot) -> Option<&Place> {
        self.places.get(slot as usize)
    }

    fn place_mut(&mut self, slot: Slot) -> Option<&mut Place> {
        self.places.get_mut(slot as usize)
    }
}

/// Reads the leases of earlier starts that may be live, in a thread of its own, for as long as somebody takes them.
pub(crate) fn read(shared: &Arc<Shared>) -> std::io::Result<Receiver<Found>> {
    let (send, found) = sync_channel(BATCHES);
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("store-live".to_owned());
    thread.spawn(move || read_all(&shared, &send))?;
    Ok(found)
}

fn read_all(shared: &Shared, send: &SyncSender<Found>) {
    let now = shared.cautious_now();
    let rules = shared.rules.load_full();
    // An id's time may be off from the lease's by as much as the clock may jump.
    let oldest = now.minus(TTL_MAX).minus(shared.options.limits.clock_jump);
    let mut from = Some(LeaseId::first_at(oldest));
    while let Some(id) = from {
        // Without the database there is nobody to count for, or it will be read anew.
        let Ok((leases, next)) = read_some(shared, &rules, now, id) else { return };
        from = next;
        if send.send(Found { under: rules.position(), leases }).is_err() {
            return;
        }
    }
}

/// The live leases from an id on that are read at a time, and where to go on. It holds the database no longer.
fn read_some(
    shared: &Shared,
    rules: &RuleSet,
    now: Timestamp,
    from: LeaseId,
) -> Result<(Vec<FoundLease>, Option<LeaseId>), StoreError> {
    let engine = shared.engine()?;
    let (mut leases, mut read) = (Vec::new(), 0);
    for run in runs::from(&engine, from)? {
        let run = match run {
            Ok((_, run)) => run,
            Err(error) => {
                tracing::error!(%error, "leases do not read back: they are not counted");
                continue;
            }
        };
        let last = run.last_key_value().map(|(id, _)| *id);
        for (id, record) in run.into_iter().filter(|(id, _)| *id >= from) {
            read += 1;
            let Ok(own) = runs::own(id, &record) else { continue };
            if own.phase != Phase::Active || own.expires_at <= now {
                continue;
            }
            let lease = match shared.bases.lease(&engine, own) {
                Ok(Some(lease)) => lease,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(%error, "a lease does not read back: it is not counted");
                    continue;
                }
            };
            if lease.state(rules, now) == LeaseState::Active {
                leases.push((id, keys(&lease), lease.expires_at));
            }
        }
        if read >= BATCH {
            let next = last.map(|last| LeaseId::from_u128(last.as_u128().saturating_add(1)));
            return Ok((leases, next));
        }
    }
    Ok((leases, None))
}

#[cfg(test)]
mod tests;
