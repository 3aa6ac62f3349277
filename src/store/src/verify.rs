//! Everything a store holds, checked against everything else it holds.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use dayfly_core::audit::{Event, EventKind};
use dayfly_core::change::LogHead;
use dayfly_core::encoding;
use dayfly_core::ids::{Incarnation, InstanceId, LeaseId, Position, RuleId};
use dayfly_core::lease::{Lease, Owners, Phase};
use dayfly_core::merkle::{Hash, leaf_hash};
use dayfly_core::ports::StoreError;
use dayfly_core::teardown::{Step, Teardown};

use crate::bases::Bases;
use crate::engine::{Engine, damaged};
use crate::error::OpenError;
use crate::files::Found;
use crate::layout::{self, Entry, EventGroup};
use crate::log::{Log, TILE, Tile};
use crate::tip::Tip;
use crate::{keys, rules, runs, store, teardown};

/// Problems told of one store; more are counted.
const TOLD: usize = 100;
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Bases kept in memory.
const BASES: usize = 65_536;

/// What a store that is not in use holds, and what does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// Which store.
    pub instance: InstanceId,
    /// Which of its lives.
    pub incarnation: Incarnation,
    /// Whether it may touch what is downstream: not after it was restored, until it is adopted.
    pub adopted: bool,
    /// Its newest position: the size of the audit log's tree.
    pub position: Position,
    /// The root of that tree, computed from every event.
    pub root: Hash,
    /// Events that read back and have their place in the tree.
    pub events: u64,
    /// Of those, events whose detail was forgotten.
    pub forgotten: u64,
    /// Full tiles that agree with the events.
    pub tiles: u64,
    /// Leases.
    pub leases: u64,
    /// What they were given on: one for all leases that a workload gets by one decision, for a day.
    pub bases: u64,
    /// Rules.
    pub rules: u64,
    /// Sealed keys.
    pub keys: u64,
    /// What does not fit, in words, the first hundred; empty for a whole store.
    pub problems: Vec<String>,
}

/// Checks the store in `dir`, which no broker has open: the audit log's tree is computed anew from every event and
/// compared with tiles and frontier, every event with its detail, every issued lease and every rule is there, every
/// index agrees. Writes nothing of its own; sled recovers when it opens.
///
/// # Errors
/// When it cannot be opened or read. What is read and does not fit is in the report.
pub fn verify(dir: &Path) -> Result<VerifyReport, OpenError> {
    verify_against(dir, &[])
}

/// The same, and that the log is the one whose heads these were, grown.
///
/// # Errors
/// As [`verify`].
pub fn verify_against(dir: &Path, published: &[LogHead]) -> Result<VerifyReport, OpenError> {
    if let Found::Nothing = store::look(dir)? {
        return Err(OpenError::lost(dir, "there is nothing in it"));
    }
    let (engine, tip) = store::load(dir, CACHE_BYTES)?;
    let checked = Check { published, ..Check::new(&engine, &tip) }.run();
    engine.close();
    checked.map_err(|error| OpenError::damaged(dir, error.to_string()))
}

struct Check<'a> {
    engine: &'a Engine,
    tip: &'a Tip,
    /// Heads that the log had.
    published: &'a [LogHead],
    bases: Bases,
    /// Where each rule was written, and lifted.
    rules: HashMap<RuleId, (Position, Option<Position>)>,
    /// The steps of teardowns that are complete and had something to do.
    torn_down: HashMap<RuleId, usize>,
    report: VerifyReport,
}

impl<'a> Check<'a> {
    fn new(engine: &'a Engine, tip: &'a Tip) -> Self {
        let report = VerifyReport {
            instance: tip.instance,
            incarnation: tip.incarnation,
            adopted: tip.restored_at.is_none(),
            position: tip.position,
            root: [0; 32],
            events: 0,
            forgotten: 0,
            tiles: 0,
            leases: 0,
            bases: 0,
            rules: 0,
            keys: 0,
            problems: Vec::new(),
        };
        Self {
            engine,
            tip,
            published: &[],
            bases: Bases::new(BASES),
            rules: HashMap::new(),
            torn_down: HashMap::new(),
            report,
        }
    }

    fn run(mut self) -> Result<VerifyReport, StoreError> {
        self.rules()?;
        self.teardowns()?;
        self.log()?;
        self.bases()?;
        self.leases()?;
        self.keys()?;
        Ok(self.report)
    }

    fn rules(&mut self) -> Result<(), StoreError> {
        for prefix in [layout::RULES, layout::FOLDED] {
            for entry in self.engine.scan(&[prefix], &[prefix]) {
                let (key, value) = entry?;
                let rule = match rules::read(&key, &value) {
                    Ok(rule) => rule,
                    Err(error) => {
                        self.problem(error.to_string());
                        continue;
                    }
                };
                self.report.rules += 1;
                let at = rule.lifted.as_ref().map(|lifted| lifted.position);
                let place = layout::number_at_end(&key);
                if self.rules.insert(rule.id, (rule.position, at)).is_some()
                    || place != Some(rule.position.number())
                {
                    self.problem(format!("rule {} is there twice, or not in its place", rule.id));
                }
            }
        }
        Ok(())
    }

    /// Each teardown is of a rule, and what it says was spelled out is there.
    fn teardowns(&mut self) -> Result<(), StoreError> {
        for entry in self.engine.scan(&[layout::TEARDOWNS], &[layout::TEARDOWNS]) {
            let (key, value) = entry?;
            let teardown = match teardown::read(&key, &value) {
                Ok(teardown) => teardown,
                Err(error) => {
                    self.problem(error.to_string());
                    continue;
                }
            };
            let (rule, position) = (teardown.rule, teardown.position);
            let known = match self.rules.get(&rule) {
                Some((written, _)) => *written == position,
                None => Some(LeaseId::from_bytes(rule.to_bytes())) <= self.tip.pruned,
            };
            if !known || layout::number_at_end(&key) != Some(position.number()) {
                self.problem(format!("the teardown of rule {rule} is of no rule, or not in its place"));
            }
            // What is folded away is removed little by little.
            if self.tip.rules.counting(rule).is_some() {
                let complete = teardown.steps.iter().filter(|step| step.complete && step.done > 0).count();
                self.torn_down.insert(rule, complete);
                self.spelled(&teardown);
            }
        }
        let mut spelled = std::collections::BTreeSet::new();
        for entry in self.engine.scan(&[layout::SPELLED], &[layout::SPELLED]) {
            spelled.extend(layout::spelled_rule(&entry?.0));
        }
        for position in spelled {
            if self.engine.get(&layout::teardown(position))?.is_none() {
                self.problem(format!("leases are spelled out of {position}, which has no teardown"));
            }
        }
        Ok(())
    }

    fn spelled(&mut self, teardown: &Teardown) {
        let progress = teardown.step(Step::SpellingOut);
        let (mut told, mut last) = (0, None);
        loop {
            let leases = match teardown::spelled(self.engine, teardown.position, last) {
                Ok(leases) => leases,
                Err(error) => {
                    self.problem(error.to_string());
                    return;
                }
            };
            if leases.is_empty() {
                break;
            }
            let ids = || leases.iter().map(|spelled| spelled.lease);
            if !ids().is_sorted_by(|one, next| one < next) || ids().next() <= last {
                self.problem(format!("what is spelled out of rule {} is out of order", teardown.rule));
                return;
            }
            told += leases.len() as u64;
            last = ids().next_back();
        }
        if told != progress.done || last > progress.after {
            self.problem(format!(
                "{told} leases are spelled out of rule {}, and {} are recorded",
                teardown.rule, progress.done
            ));
        }
    }

    fn problem(&mut self, what: String) {
        if self.report.problems.len() < TOLD {
            self.report.problems.push(what);
        }
    }

    fn log(&mut self) -> Result<(), StoreError> {
        let mut log = Log::default();
        let (mut revoked, mut lifted) = (0, 0);
        for entry in self.engine.scan(&[layout::EVENTS], &[layout::EVENTS]) {
            let (key, value) = entry?;
            let group: EventGroup =
                prost::Message::decode(value.as_ref()).map_err(|error| damaged(&key, &error))?;
            let expected = log.frontier().size() + 1;
            let first = layout::number_at_end(&key).unwrap_or_default();
            if first > expected {
                self.problem(format!("events {expected} to {} are missing", first - 1));
            } else if first < expected {
                self.problem(format!("event {first} is there twice"));
            }
            for (position, record) in (first..).zip(group.events) {
                match record.read() {
                    Ok(event) if event.position == Position::new(position) => {
                        revoked += usize::from(event.rule().is_some_and(|id| self.rules.contains_key(&id)));
                        lifted += usize::from(event.lifted().is_some_and(|id| self.rules.contains_key(&id)));
                        self.event(&event, &mut log)?;
                    }
                    Ok(event) => {
                        self.problem(format!("event {} stands at position {position}", event.position));
                        self.event(&event, &mut log)?;
                    }
                    Err(error) => {
                        self.problem(format!("event {position}: {error}"));
                        self.hashed(leaf_hash(&record.leaf), position, &mut log)?;
                    }
                }
            }
        }
        for head in self.published.iter().filter(|head| head.size > log.frontier().size()) {
            let first_missing = log.frontier().size() + 1;
            self.problem(format!(
                "events {first_missing} to {} are missing: a checkpoint is of {} events, and they were cut off since",
                head.size, head.size
            ));
        }
        self.report.events = log.frontier().size();
        self.report.root = log.frontier().root();
        if log.frontier() != self.tip.log.frontier() {
            self.problem("the audit log's root is not the one its events have".to_owned());
        }
        if self.report.events != self.tip.position.number() {
            self.problem(format!(
                "there are {} events for {} changes",
                self.report.events, self.tip.position
            ));
        }
        let missing = |(rule, left): (&RuleId, &usize)| {
            (*left > 0).then(|| format!("the teardown of rule {rule} is complete, and no event says so"))
        };
        let missing: Vec<_> = self.torn_down.iter().filter_map(missing).collect();
        for what in missing {
            self.problem(what);
        }
        let lifts = self.rules.values().filter(|(_, lifted)| lifted.is_some()).count();
        if (revoked, lifted) != (self.rules.len(), lifts) {
            self.problem(format!(
                "there are {} rules, {lifts} of them lifted, and events of {revoked} and {lifted}",
                self.rules.len()
            ));
        }
        Ok(())
    }

    /// A leaf joins the tree, which is as the tiles and the published heads have it.
    fn hashed(&mut self, leaf: Hash, position: u64, log: &mut Log) -> Result<(), StoreError> {
        let mut full = Vec::new();
        log.push(leaf, &mut full);
        for tile in full {
            if self.engine.get(&tile.key)?.is_some_and(|kept| kept.as_ref() == tile.hashes) {
                self.report.tiles += 1;
            } else {
                let changed = self.first_other(&tile, position)?;
                self.problem(format!(
                    "tile {} does not agree with the events{changed}",
                    tile.key.escape_ascii()
                ));
            }
        }
        let (size, root) = (log.frontier().size(), log.frontier().root());
        if self.published.iter().any(|head| head.size == size && head.root != root) {
            self.problem(format!(
                "the first {size} events are not those of the checkpoint of that size: events up to {size} were \
                 changed since"
            ));
        }
        Ok(())
    }

    fn event(&mut self, event: &Event, log: &mut Log) -> Result<(), StoreError> {
        self.hashed(event.leaf_hash, event.position.number(), log)?;
        self.report.forgotten += u64::from(event.detail.is_none());
        if event.detail.is_none() != (event.position <= self.tip.forgotten) {
            let what = if event.detail.is_none() { "are missing" } else { "were to be forgotten" };
            self.problem(format!("the details of event {} {what}", event.position));
        }
        if let Some(id) = event.issued().filter(|id| Some(*id) > self.tip.pruned) {
            self.issued(id, event)?;
        }
        self.changed(event)?;
        if let Some(rule) = event.torn_down() {
            // Of a rule that is folded away it is gone.
            if self.tip.rules.counting(rule).is_some() {
                match self.torn_down.get_mut(&rule).filter(|left| **left > 0) {
                    Some(left) => *left -= 1,
                    None => {
                        self.problem(format!("the teardown of event {} is not complete", event.position));
                    }
                }
            }
        }
        if let Some(id) = event.rule().or(event.lifted()) {
            let shows = match self.rules.get(&id) {
                Some((written, lifted)) => {
                    [Some(*written), *lifted][usize::from(event.lifted().is_some())] == Some(event.position)
                }
                // Right above the cut-off: nothing that it covers is left.
                None => Some(LeaseId::from_bytes(id.to_bytes())) <= self.tip.pruned,
            };
            if !shows {
                self.problem(format!("the rule of event {} is not there", event.position));
            }
        }
        Ok(())
    }

    /// Which event a tile of leaves, that the event at its end makes full, has another hash of.
    fn first_other(&self, tile: &Tile, last: u64) -> Result<String, StoreError> {
        let Some(kept) = self.engine.get(&tile.key)?.filter(|_| tile.key.get(1) == Some(&0)) else {
            return Ok(String::new());
        };
        let mut pairs = kept.chunks(32).zip(tile.hashes.chunks(32));
        let Some(at) = pairs.position(|(kept, computed)| kept != computed) else { return Ok(String::new()) };
        let first = last.saturating_sub(TILE as u64);
        Ok(format!(": event {} was changed, or its hash", first + 1 + at as u64))
    }

    /// A lease that an event says was issued: it is there, and renews what the event says.
    fn issued(&mut self, id: LeaseId, event: &Event) -> Result<(), StoreError> {
        let at = event.position;
        let Some(lease) = runs::read(self.engine, id)? else {
            self.problem(format!("lease {id} was issued at {at} and is not there"));
            return Ok(());
        };
        let renews = lease.renews.map(|earlier| earlier.to_string()).unwrap_or_default();
        let told = event.detail.as_ref().is_none_or(|detail| detail.renews == renews);
        if !told || (event.kind == EventKind::Renewed) != lease.renews.is_some() {
            self.problem(format!("lease {id} does not renew what event {at} says"));
        }
        Ok(())
    }

    /// What an event says was done to a lease, where that is still kept, shows in it.
    fn changed(&mut self, event: &Event) -> Result<(), StoreError> {
        if !matches!(event.kind, EventKind::Released | EventKind::Reissued) {
            return Ok(());
        }
        let Some(id) = event.lease().filter(|id| Some(*id) > self.tip.pruned) else { return Ok(()) };
        let lease = runs::read(self.engine, id)?;
        let shows = lease.is_some_and(|lease| match event.kind {
            EventKind::Released => matches!(lease.phase, Phase::Released { .. }),
            _ => event.detail.as_ref().is_none_or(|detail| {
                lease.digests.iter().any(|digest| digest.as_bytes().as_slice() == detail.credential_digest)
            }),
        });
        if !shows {
            self.problem(format!("lease {id} does not show what event {} says", event.position));
        }
        Ok(())
    }

    fn bases(&mut self) -> Result<(), StoreError> {
        for entry in self.engine.scan(&[layout::BASES], &[layout::BASES]) {
            let (key, value) = entry?;
            match encoding::decode_owners(&value) {
                Ok(_) => self.report.bases += 1,
                Err(error) => self.problem(format!("{}: {error}", key.escape_ascii())),
            }
        }
        Ok(())
    }

    fn leases(&mut self) -> Result<(), StoreError> {
        let mut indexed = 0u64;
        let mut last = LeaseId::from_u128(0);
        for run in runs::from(self.engine, last)? {
            let run = match run {
                Ok((_, run)) => run,
                Err(StoreError::Damaged(why)) => {
                    self.problem(why);
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (id, record) in run {
                self.report.leases += 1;
                match runs::own(id, &record).and_then(|own| self.bases.lease(self.engine, own)) {
                    Ok(lease) => indexed += lease.map_or(Ok(0), |lease| self.lease(id, &lease))?,
                    Err(StoreError::Damaged(why)) => self.problem(why),
                    Err(error) => return Err(error),
                }
                if id <= last {
                    self.problem(format!("lease {id} stands after {last}"));
                }
                last = id;
            }
        }
        let mut entries = 0u64;
        for entry in self.engine.scan(&[layout::OWNERS], &[layout::OWNERS]) {
            entries += u64::from(layout::id_at_end(&entry?.0) > Some(LeaseId::from_u128(0)));
        }
        if entries != indexed {
            self.problem(format!("the indexes have {entries} entries, the leases {indexed}"));
        }
        if self.report.leases != self.tip.leases {
            self.problem(format!(
                "there are {} leases and {} are counted",
                self.report.leases, self.tip.leases
            ));
        }
        Ok(())
    }

    /// One lease, as its place says and as it is; gives how many index entries it has.
    fn lease(&mut self, id: LeaseId, lease: &Lease) -> Result<u64, StoreError> {
        if id != lease.id {
            self.problem(format!("lease {} stands where {id} is", lease.id));
        }
        if lease.id > self.tip.highest {
            self.problem(format!("lease {} is above the highest id, {}", lease.id, self.tip.highest));
        }
        self.links(lease)?;
        let expected = Entry::of(lease).encode();
        let mut indexed = 0;
        let Owners { namespace, narrowed, .. } = &lease.owners;
        for index in layout::indexes(lease.id, namespace, narrowed.as_ref()) {
            indexed += 1;
            if self.engine.get(&index)?.as_deref() != Some(expected.as_slice()) {
                let index = index.escape_ascii();
                self.problem(format!("lease {id} is not in the index {index}, or not as it is"));
            }
        }
        if self.engine.get(&layout::namespace_owner(lease))?.is_none() {
            self.problem(format!("the namespace of lease {id} is not among its owner's"));
        }
        Ok(indexed)
    }

    /// A renewal's two leases name each other, where both are still kept, and are of one caller.
    fn links(&mut self, lease: &Lease) -> Result<(), StoreError> {
        let caller = lease.workload.caller();
        for (other, what) in [(lease.renews, "renews"), (lease.phase.renewed_by(), "is renewed by")] {
            let Some(id) = other.filter(|id| Some(*id) > self.tip.pruned) else { continue };
            let other = runs::read(self.engine, id)?.map(|own| self.bases.lease(self.engine, own));
            let other = match other.transpose() {
                // That one is told of itself.
                Err(StoreError::Damaged(_)) => continue,
                other => other?.flatten(),
            };
            let back = other.filter(|other| other.workload.caller() == caller);
            let back = back.map(|other| [other.phase.renewed_by(), other.renews]);
            let back = back.map(|[by, renews]| if what == "renews" { by } else { renews });
            if back != Some(Some(lease.id)) {
                self.problem(format!("lease {} {what} {id}, which does not say so", lease.id));
            }
        }
        Ok(())
    }

    fn keys(&mut self) -> Result<(), StoreError> {
        let mut keys = BTreeMap::new();
        for entry in self.engine.scan(&[layout::KEYS], &[layout::KEYS]) {
            let (key, value) = entry?;
            match encoding::decode_key(&value) {
                Ok(key) => {
                    self.report.keys += 1;
                    keys.insert(key.id.clone(), key);
                }
                Err(error) => self.problem(format!("{}: {error}", key.escape_ascii())),
            }
        }
        if let Some(key) = keys::contested(&keys) {
            self.problem(format!("several signing keys for {} are {}", key.purpose, key.stage));
        }
        Ok(())
    }
}
