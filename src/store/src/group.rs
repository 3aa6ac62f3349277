//! One commit: changes checked in order, each against everything before it, and put into one batch.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dayfly_core::audit::{Draft, EventKind, EventRecord, SALT_BYTES};
use dayfly_core::change::{
    Change, Conflict, Earlier, Issue, KeyStep, Lift, Outcome, Receipt, Revocation, SealedKey,
};
use dayfly_core::digest::Digest;
use dayfly_core::encoding::{self, Own};
use dayfly_core::ids::{KeyId, LeaseId, Position};
use dayfly_core::lease::{Idempotency, Lease, LeaseState};
use dayfly_core::limits::{RECORD_BYTES, STORED_VALUE_BYTES};
use dayfly_core::live::{AtCap, LiveOf};
use dayfly_core::ports::StoreError;
use dayfly_core::rule::{Actor, Lifted, Rule};
use dayfly_core::time::Timestamp;
use prost::Message;
use sled::Batch;

use crate::bases::{self, Basis, Known, KnownBases};
use crate::engine::{Engine, damaged};
use crate::layout::{self, Entry, EventGroup};
use crate::live::{self, Keys, Live, Next};
use crate::news::Told;
use crate::recent::{RecentKeys, SeenNamespaces};
use crate::records;
use crate::rules;
use crate::runs::{self, Records};
use crate::shared::Shared;
use crate::tip::Tip;

/// Index entries that one request may have read for it while others wait: some 50 ms.
const LEARNT_AT_ONCE: usize = 20_000;
/// Forms of one credential that a lease records.
const DIGESTS: usize = 16;
/// What a commit may look at, of leases that rules may cover, to make room under caps; one whose record is read counts
/// [`READ`].
const LOOKED_AT: usize = 8192;
const READ: usize = 16;

/// What the writer knows without asking the disk.
pub(crate) struct Memory {
    pub(crate) keys: RecentKeys,
    pub(crate) namespaces: SeenNamespaces,
    pub(crate) bases: KnownBases,
    pub(crate) live: Live,
}

/// A commit in the making. It changes the tip as it goes: if it fails, the tip is to be loaded anew.
pub(crate) struct Group<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) engine: &'a Engine,
    pub(crate) tip: &'a mut Tip,
    memory: &'a mut Memory,
    /// What was looked at to make room under caps.
    looked_at: usize,
    /// Free bytes on the disk.
    pub(crate) room: u64,
    /// Rules are in effect that this commit does not write: it takes no other change.
    pub(crate) unwritten: bool,
    now: Timestamp,
    batch: Batch,
    operations: usize,
    /// The same as records, where a backup is told of them.
    copied: Option<Vec<u8>>,
    events: Vec<EventRecord>,
    first_event: Position,
    tiles: Vec<crate::log::Tile>,
    /// The highest id before this commit.
    highest: LeaseId,
    /// Records of leases as this commit leaves them.
    pub(crate) records: Records,
    /// The bases that it writes, by their digests.
    brought: HashMap<Digest, Known>,
    /// What it writes, and what its leases refer to that is to be kept in memory.
    bases: HashMap<LeaseId, Basis>,
    pub(crate) pruned: Vec<LeaseId>,
    /// Whose leases it changes.
    told: Vec<Told>,
    /// Every signing key as this commit leaves it, once one was asked for.
    pub(crate) signing_keys: Option<BTreeMap<KeyId, SealedKey>>,
}

/// A commit ready to be written.
pub(crate) struct Ready {
    pub(crate) batch: Batch,
    pub(crate) records: Records,
    pub(crate) brought: HashMap<Digest, Known>,
    pub(crate) bases: HashMap<LeaseId, Basis>,
    pub(crate) pruned: Vec<LeaseId>,
    pub(crate) told: Vec<Told>,
    pub(crate) copied: Option<Vec<u8>>,
}

impl<'a> Group<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        engine: &'a Engine,
        tip: &'a mut Tip,
        memory: &'a mut Memory,
        room: u64,
        copied: bool,
    ) -> Self {
        Self {
            now: shared.cautious_now(),
            first_event: tip.position.next(),
            highest: tip.highest,
            shared,
            engine,
            tip,
            memory,
            looked_at: 0,
            room,
            unwritten: false,
            batch: Batch::default(),
            operations: 0,
            copied: copied.then(Vec::new),
            events: Vec::new(),
            tiles: Vec::new(),
            records: Records::new(),
            brought: HashMap::new(),
            bases: HashMap::new(),
            pruned: Vec::new(),
            told: Vec::new(),
            signing_keys: None,
        }
    }

    /// Checks a change and adds it.
    ///
    /// # Errors
    /// The change is refused and the commit is as before; but for [`StoreError::Poisoned`]: then there is no commit.
    pub(crate) fn add(&mut self, change: Change) -> Result<Outcome, StoreError> {
        let reserve = match &change {
            Change::Revoke(_) | Change::Lift(_) | Change::Release { .. } | Change::Teardown(_) => {
                self.shared.options.rule_reserve_bytes
            }
            Change::Key(change) if matches!(change.step, KeyStep::Revoke { .. }) => {
                self.shared.options.rule_reserve_bytes
            }
            // By whom it is ended, and what is needed to go elsewhere.
            Change::Adopt { .. } => self.shared.options.rule_reserve_bytes,
            Change::Note(draft)
                if matches!(draft.kind, EventKind::SessionIssued | EventKind::BackupTaken) =>
            {
                self.shared.options.rule_reserve_bytes
            }
            _ => self.shared.options.reserve_bytes,
        };
        if self.room < reserve {
            return Err(StoreError::Full);
        }
        // What is in effect goes first: here it does not fit.
        if self.unwritten {
            return Err(StoreError::Unwritten);
        }
        match change {
            Change::Issue(issue) => self.issue(&issue),
            Change::Reissue { lease, digest } => self.reissue(lease, &digest),
            Change::Release { lease } => self.release(lease),
            Change::Revoke(revocation) => self.revoke(*revocation),
            Change::Lift(lift) => self.lift(*lift),
            Change::Key(change) => self.key(&change),
            Change::Note(draft) => self.append(&draft).map(committed),
            Change::Adopt { by } => self.adopt(&by),
            Change::Teardown(change) => self.tear_down(&change),
        }
    }

    fn issue(&mut self, issue: &Issue) -> Result<Outcome, StoreError> {
        self.shared.time.trusted(self.shared.options.clock.as_ref())?;
        let lease = &issue.lease;
        let pruned = self.tip.pruned.is_some_and(|pruned| lease.id <= pruned);
        // Above the highest there is none: most ids need no look.
        if pruned || (lease.id <= self.tip.highest && self.own(lease.id)?.is_some()) {
            return Ok(Outcome::Conflict(Conflict::IdTaken));
        }
        if let Some(earlier) = self.earlier_use(lease)? {
            return Ok(replay(lease, earlier));
        }
        if let Some(rule) = self.covering(issue) {
            return Ok(Outcome::Covered(rule));
        }
        let (basis, content, brings) = self.basis(lease);
        let record = Own::of(lease, basis.id).encode();
        if record.len() + content.len() > RECORD_BYTES {
            return Err(StoreError::TooLarge(record.len() + content.len()));
        }
        let earlier = match lease.renews.map(|earlier| self.renewed(earlier, lease.id, &basis)).transpose()? {
            Some(Renewal::Conflict(conflict)) => return Ok(Outcome::Conflict(conflict)),
            Some(Renewal::Earlier { id, record, places }) => Some((id, record, places)),
            None => None,
        };
        let Known { places, caller, .. } = basis;
        if let Some(at_cap) = self.at_cap(issue, places, earlier.as_ref().map(|(.., places)| *places)) {
            return Ok(Outcome::Conflict(Conflict::AtCap(at_cap)));
        }
        if self.memory.live.is_full(self.now)
            || (lease.idempotency.is_some() && self.memory.keys.is_full(self.now))
        {
            return Err(StoreError::Busy);
        }
        // The namespace of a basis that is there is known.
        let namespace = brings.map(|_| layout::namespace_owner(lease));
        let new_namespace = match namespace {
            Some(namespace) if self.memory.namespaces.is_new(self.engine, &namespace)? => Some(namespace),
            _ => None,
        };
        let position = self.append(&Draft::issued(lease))?;
        self.records.insert(lease.id, record.into());
        if let Some((id, record, places)) = earlier {
            self.memory.live.end(id, places);
            self.records.insert(id, record.into());
            self.told.push(Told { position, caller, lease: id });
        }
        self.memory.live.add(lease.id, places, lease.expires_at, self.tip.rules.position());
        self.told.push(Told { position, caller, lease: lease.id });
        let entry = basis.entry.under(lease.idempotency.as_ref()).encode();
        layout::indexes(lease.id, &lease.owners.namespace, lease.owners.narrowed.as_ref())
            .for_each(|key| self.insert(key, entry.clone()));
        if let Some(namespace) = new_namespace {
            self.memory.namespaces.add(namespace.clone());
            self.insert(namespace, Vec::new());
        }
        if brings.is_some() || self.shared.bases.lacks(basis.id) {
            self.bases.insert(basis.id, content.as_slice().into());
        }
        if let Some(digest) = brings {
            self.brought.insert(digest, basis);
            self.insert(layout::basis(basis.id), content);
        }
        if let Some(used) = lease.idempotency {
            self.memory.keys.add(&used.key, lease.id);
        }
        self.tip.leases += 1;
        self.tip.latest_expiry = self.tip.latest_expiry.max(lease.expires_at);
        self.tip.highest = self.tip.highest.max(lease.id);
        Ok(committed(position))
    }

    /// The basis that this lease is to refer to, its content, and, where the lease brings it, its digest.
    fn basis(&mut self, lease: &Lease) -> (Known, Vec<u8>, Option<Digest>) {
        let content = encoding::encode_basis(lease);
        let digest = Digest::of(&content);
        let brought = self.brought.get(&digest).copied().filter(|known| known.id >= bases::lowest(lease.id));
        match brought.or_else(|| self.memory.bases.find(&digest, lease.id)) {
            Some(known) => (known, content, None),
            None => (Known::of(lease), content, Some(digest)),
        }
    }

    /// The lease that one of this id and basis renews, as it is then: it ends with the overlap.
    fn renewed(&self, id: LeaseId, by: LeaseId, basis: &Known) -> Result<Renewal, StoreError> {
        let Some((own, earlier)) = self.find(id)? else {
            return Ok(Renewal::Conflict(Conflict::NoSuchEarlier));
        };
        let same = own.basis == basis.id;
        if !same && earlier.workload.caller() != basis.caller {
            return Ok(Renewal::Conflict(Conflict::NoSuchEarlier));
        }
        if earlier.phase.renewed_by().is_some() {
            return Ok(Renewal::Conflict(Conflict::EarlierRenewed));
        }
        let ends_at = self.now.plus(self.shared.options.limits.renewal_overlap).min(earlier.expires_at);
        match earlier.phase.renew(by, ends_at) {
            Ok(phase) if earlier.state(&self.tip.rules, self.now) == LeaseState::Active => {
                let record = sized(Own { phase, ..own }.encode())?;
                let places = if same { basis.places } else { live::keys(&earlier) };
                Ok(Renewal::Earlier { id, record, places })
            }
            _ => Ok(Renewal::Conflict(Conflict::EarlierEnded)),
        }
    }

    /// The narrowest cap that leaves no room for this lease. What it renews has the same places, and gives them to it.
    fn at_cap(&mut self, issue: &Issue, places: Keys, replaced: Option<Keys>) -> Option<AtCap> {
        for ((n, of), key) in LiveOf::ALL.into_iter().enumerate().zip(places) {
            let Some(most) = issue.caps.most(of, &issue.lease) else { continue };
            let replaces = replaced.is_some_and(|replaced| replaced.get(n) == Some(&key));
            if replaces || self.memory.live.count(key) < most {
                continue;
            }
            self.memory.live.expire(self.now, usize::MAX);
            self.make_room(of, places, key, most);
            if self.memory.live.count(key) >= most {
                return Some(AtCap { of, most, until: self.memory.live.first_end(of, places) });
            }
        }
        None
    }

    /// Gives free the places of leases that rules have ended since they were counted, until there is one.
    fn make_room(&mut self, of: LiveOf, places: Keys, key: u64, most: u32) {
        let rules = Arc::clone(&self.tip.rules);
        while self.memory.live.count(key) >= most && self.looked_at < LOOKED_AT {
            match self.memory.live.next_unchecked(of, places, rules.position()) {
                Next::Done => return,
                Next::Other => self.looked_at += 1,
                Next::Lease(counted) => {
                    self.looked_at += READ;
                    let covered = |lease: Arc<Lease>| rules.covering(&lease).is_some();
                    // One that does not read back keeps its place.
                    if self.lease(counted.id()).is_ok_and(|lease| lease.is_none_or(covered)) {
                        self.memory.live.forget(counted);
                    }
                }
            }
        }
    }

    /// A rule that the decision did not know and that is about this lease, or whose cut-off is not below its id.
    fn covering(&self, issue: &Issue) -> Option<Arc<Rule>> {
        #[cfg(feature = "broken")]
        if crate::broken::Broken::Coverage.applies() {
            return None;
        }
        let rules = &self.tip.rules;
        rules
            .newer(&issue.lease, issue.decided_under)
            .or_else(|| rules.covering(&issue.lease))
            .map(Arc::clone)
    }

    /// What the caller got before for this lease's idempotency key.
    fn earlier_use(&mut self, lease: &Lease) -> Result<Option<Arc<Lease>>, StoreError> {
        let Some(Idempotency { key, .. }) = lease.idempotency else { return Ok(None) };
        if let Some(from) = self.memory.keys.may_lack(self.now) {
            self.learn_keys(lease, from)?;
        }
        let Some(earlier) = self.memory.keys.find(&key, self.now) else { return Ok(None) };
        let earlier = self.lease(earlier)?;
        Ok(earlier.filter(|earlier| earlier.idempotency.is_some_and(|used| used.key == key)))
    }

    /// Learns from the disk which keys were used since then in the caller's namespace, by way of the owners it had: once for
    /// each, and no more at a time than others can wait for.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when there is more: to be asked again.
    fn learn_keys(&mut self, lease: &Lease, from: Timestamp) -> Result<(), StoreError> {
        let workload = &lease.workload;
        let namespace = layout::namespace_prefix(&workload.cluster, &workload.service_account.namespace);
        let mut left = LEARNT_AT_ONCE;
        for entry in self.engine.scan(&namespace, &namespace) {
            let (key, _) = entry?;
            let owner = layout::owner_at_end(&key, &namespace)?;
            let Some(from) = self.memory.keys.learns_from(&owner, from) else { continue };
            let prefix = layout::owner_prefix(&owner);
            for entry in self.engine.scan(&prefix, &layout::with_id(prefix.clone(), from)) {
                let (key, value) = entry?;
                let id = layout::id_at_end(&key).ok_or_else(|| damaged(&key, &"it has no id"))?;
                if left == 0 {
                    self.memory.keys.learnt_up_to(owner, id);
                    return Err(StoreError::Busy);
                }
                left -= 1;
                if let Some(used) = Entry::decode(&key, &value)?.used {
                    self.memory.keys.see(used, id);
                }
            }
            self.memory.keys.learnt(owner);
        }
        Ok(())
    }

    fn reissue(&mut self, id: LeaseId, digest: &Digest) -> Result<Outcome, StoreError> {
        let Some((mut own, lease)) = self.find(id)? else {
            return Ok(Outcome::Conflict(Conflict::NoSuchLease));
        };
        if let Some(rule) = self.tip.rules.covering(&lease) {
            return Ok(Outcome::Covered(Arc::clone(rule)));
        }
        if !own.digests.contains(digest) {
            own.digests.push(*digest);
        }
        if lease.state(&self.tip.rules, self.now) != LeaseState::Active || own.digests.len() > DIGESTS {
            return Ok(Outcome::Conflict(Conflict::Phase));
        }
        self.rewrite(&own, &Draft::reissued(&lease, digest))
    }

    fn release(&mut self, id: LeaseId) -> Result<Outcome, StoreError> {
        let Some((own, lease)) = self.find(id)? else {
            return Ok(Outcome::Conflict(Conflict::NoSuchLease));
        };
        match own.phase.release(self.now) {
            Ok(phase) => {
                let outcome = self.rewrite(&Own { phase, ..own }, &Draft::released(&lease))?;
                self.memory.live.end(id, live::keys(&lease));
                let (position, caller) = (self.tip.position, lease.workload.caller());
                self.told.push(Told { position, caller, lease: id });
                Ok(outcome)
            }
            Err(_) => Ok(Outcome::Conflict(Conflict::Phase)),
        }
    }

    /// What changes of a lease is its own: its basis stays.
    fn rewrite(&mut self, own: &Own, draft: &Draft) -> Result<Outcome, StoreError> {
        let record = sized(own.encode())?;
        let position = self.append(draft)?;
        self.records.insert(own.id, record.into());
        Ok(committed(position))
    }

    fn revoke(&mut self, revocation: Revocation) -> Result<Outcome, StoreError> {
        if let Some(asked) = revocation.idempotency
            && let Some(earlier) = self.tip.rules.by_idempotency(asked.key)
        {
            let same = earlier.idempotency.is_some_and(|used| used.request == asked.request);
            return Ok(if same {
                Outcome::Replayed(Earlier::Rule(Arc::clone(earlier)))
            } else {
                Outcome::Conflict(Conflict::IdempotencyKeyReused)
            });
        }
        let owners = revocation.owners.clone();
        self.write_rule(revocation, |rule| Draft::revoked(rule).about(&owners))
    }

    /// Writes a rule, with the event that this makes of it.
    pub(crate) fn write_rule(
        &mut self,
        revocation: Revocation,
        event: impl FnOnce(&Rule) -> Draft,
    ) -> Result<Outcome, StoreError> {
        let (cut_off, id) = self.shared.cut_off(self.tip.highest, self.now)?;
        let until = self.tip.latest_expiry.max(self.now).plus(self.shared.options.limits.leeway);
        let rule = revocation.rule(id, self.tip.position.next(), cut_off, self.now, until);
        self.put_rule(rule, event)
    }

    /// Writes a rule that is in effect in memory, under its id and its cut-off; where it is there already, nothing.
    pub(crate) fn write_down(&mut self, rule: &Rule) -> Result<(), StoreError> {
        if self.tip.rules.get(rule.id).is_some() {
            return Ok(());
        }
        let rule = Rule { position: self.tip.position.next(), ..rule.clone() };
        self.put_rule(rule, Draft::revoked).map(drop)
    }

    fn put_rule(&mut self, rule: Rule, event: impl FnOnce(&Rule) -> Draft) -> Result<Outcome, StoreError> {
        let id = rule.id;
        let record = sized(encoding::encode_rule(&rule))?;
        let position = self.append(&event(&rule))?;
        self.insert(layout::rule(position), record);
        let rule = Arc::new(rule);
        // Cloned once a commit: nobody else holds the clone.
        Arc::make_mut(&mut self.tip.rules).add(Arc::clone(&rule));
        self.tip.highest = self.tip.highest.max(LeaseId::from_bytes(id.to_bytes()));
        Ok(Outcome::Committed(Receipt { position, rule: Some(rule) }))
    }

    fn lift(&mut self, lift: Lift) -> Result<Outcome, StoreError> {
        let rule = match self.tip.rules.get(lift.rule) {
            Some(rule) => Arc::clone(rule),
            None => match rules::find_folded(self.engine, lift.rule, self.tip.position)? {
                Some(rule) => rule,
                None => return Ok(Outcome::Conflict(Conflict::NoSuchRule)),
            },
        };
        if rule.lifted.is_some() {
            return Ok(Outcome::Replayed(Earlier::Rule(rule)));
        }
        if !rule.holds() {
            return Ok(Outcome::Conflict(Conflict::NotHold));
        }
        let Lift { by, reason, .. } = lift;
        let draft = Draft::lifted(&rule, &by, &reason);
        let lifted = Lifted { at: self.now, by, reason, position: self.tip.position.next() };
        let rule = Rule { lifted: Some(lifted.clone()), ..Rule::clone(&rule) };
        let record = sized(encoding::encode_rule(&rule))?;
        let position = self.append(&draft)?;
        self.insert(layout::rule(rule.position), record);
        let rule = Arc::make_mut(&mut self.tip.rules).lift(rule.id, lifted);
        Ok(Outcome::Committed(Receipt { position, rule }))
    }

    fn adopt(&mut self, by: &Actor) -> Result<Outcome, StoreError> {
        let Some(at) = self.tip.restored_at else { return Ok(Outcome::Conflict(Conflict::Adopted)) };
        let note = format!("incarnation {}, restored at position {at}", self.tip.incarnation.0);
        let position = self.append(&Draft::note(EventKind::Adopted, by, note))?;
        self.tip.restored_at = None;
        let header = self.tip.header().encode_to_vec();
        self.insert(layout::HEADER.to_vec(), header);
        Ok(committed(position))
    }

    /// The event of a change; with it the change has its position.
    pub(crate) fn append(&mut self, draft: &Draft) -> Result<Position, StoreError> {
        let mut salt = [0; SALT_BYTES];
        self.shared.options.rng.fill(&mut salt)?;
        let position = self.tip.position.next();
        let (event, leaf) = draft.place(position, self.now, salt);
        if event.encoded_len() > RECORD_BYTES {
            return Err(StoreError::TooLarge(event.encoded_len()));
        }
        self.tip.log.push(leaf, &mut self.tiles);
        self.tip.position = position;
        self.events.push(event);
        Ok(position)
    }

    /// A lease as it is after what was added so far.
    fn lease(&self, id: LeaseId) -> Result<Option<Arc<Lease>>, StoreError> {
        Ok(self.find(id)?.map(|(_, lease)| lease))
    }

    /// The same, and apart what is its own.
    fn find(&self, id: LeaseId) -> Result<Option<(Own, Arc<Lease>)>, StoreError> {
        let Some(own) = self.own(id)? else { return Ok(None) };
        let basis = match self.bases.get(&own.basis) {
            Some(basis) => Arc::clone(basis),
            None => self.shared.bases.read(self.engine, &own)?,
        };
        let lease = bases::whole(own.clone(), &basis)?;
        Ok(Some((own, lease)))
    }

    fn own(&self, id: LeaseId) -> Result<Option<Own>, StoreError> {
        match self.records.get(&id).cloned().or_else(|| self.shared.recent.record(id)) {
            Some(record) => runs::own(id, &record).map(Some),
            None => runs::read(self.engine, id),
        }
    }

    pub(crate) fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.operations += 1;
        if let Some(copied) = &mut self.copied {
            records::put(copied, &key, &value);
        }
        self.batch.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: Vec<u8>) {
        self.operations += 1;
        if let Some(copied) = &mut self.copied {
            records::remove(copied, &key);
        }
        self.batch.remove(key);
    }

    /// How many keys the batch has so far, about: leases that it records may share theirs, and a run may be split.
    pub(crate) fn operations(&self) -> usize {
        self.operations + self.records.len()
    }

    /// When it is.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Adds the leases, and what every commit has: its events, the tiles that became full, the progress record.
    ///
    /// # Errors
    /// When a run that a lease belongs to does not read back: there is no commit then.
    pub(crate) fn ready(mut self) -> Result<Ready, StoreError> {
        for (key, run) in runs::place(self.engine, self.records.clone(), self.highest, self.tip.pruned)? {
            self.insert(key, run);
        }
        let mut first = self.first_event;
        for run in runs(std::mem::take(&mut self.events)) {
            let next = Position::new(first.number() + run.events.len() as u64);
            self.insert(layout::events(first), run.encode_to_vec());
            first = next;
        }
        for tile in std::mem::take(&mut self.tiles) {
            self.insert(tile.key, tile.hashes);
        }
        let progress = self.tip.progress().encode_to_vec();
        self.insert(layout::PROGRESS.to_vec(), progress);
        let Self { batch, records, brought, bases, pruned, told, copied, .. } = self;
        Ok(Ready { batch, records, brought, bases, pruned, told, copied })
    }
}

/// What a renewal does to the earlier lease.
enum Renewal {
    /// Its record from then on, and what it counted for.
    Earlier { id: LeaseId, record: Vec<u8>, places: Keys },
    /// It cannot be renewed.
    Conflict(Conflict),
}

/// A request that was answered before.
fn replay(asked: &Lease, earlier: Arc<Lease>) -> Outcome {
    let request = |lease: &Lease| lease.idempotency.map(|used| used.request);
    if request(asked) == request(&earlier) {
        Outcome::Replayed(Earlier::Lease(earlier))
    } else {
        Outcome::Conflict(Conflict::IdempotencyKeyReused)
    }
}

pub(crate) fn committed(position: Position) -> Outcome {
    Outcome::Committed(Receipt { position, rule: None })
}

pub(crate) fn sized(record: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    if record.len() > RECORD_BYTES { Err(StoreError::TooLarge(record.len())) } else { Ok(record) }
}

/// Events as values that stay below the size at which sled would make a file of them.
fn runs(events: Vec<EventRecord>) -> Vec<EventGroup> {
    let mut runs: Vec<EventGroup> = Vec::new();
    let mut bytes = 0;
    for event in events {
        // Its own bytes, its tag and its length.
        let length = event.encoded_len() + 8;
        match runs.last_mut() {
            Some(run) if bytes + length <= STORED_VALUE_BYTES => run.events.push(event),
            _ => {
                bytes = 0;
                runs.push(EventGroup { events: vec![event] });
            }
        }
        bytes += length;
    }
    runs
}
