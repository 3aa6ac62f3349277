//! Leases that are old or too many are removed from the low end of ids, whole runs, a few with each commit; then the bases
//! that nobody may refer to any more, and the rules that are folded away and cover none that is left. Their events stay, but
//! for their details, which are [forgotten](crate::forget) in their own time.

use std::time::Duration;

use dayfly_core::encoding::{self, Own};
use dayfly_core::ids::LeaseId;
use dayfly_core::ports::StoreError;
use dayfly_core::time::Timestamp;

use crate::bases;
use crate::engine::damaged;
use crate::forget::Forgetting;
use crate::group::Group;
use crate::layout;
use crate::rules;
use crate::runs;
use crate::tip::Tip;

/// How long pruning rests after a record that does not read back.
const AFTER_DAMAGE: Duration = Duration::from_secs(3600);

/// How long it rests when there was something to prune and it could not be.
const REST: Duration = Duration::from_secs(5);

/// When to look again for leases to prune.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// When the oldest lease has been kept long enough.
    next_look: Timestamp,
    /// When the oldest lease has expired, as far as known: for when there are too many.
    next_expiry: Timestamp,
    /// No basis is below this one, and not before then is it looked for.
    bases: (LeaseId, Timestamp),
    /// No rule that is folded away has a cut-off below this one.
    rules: LeaseId,
    /// Details of events.
    forgetting: Forgetting,
}

impl Default for Schedule {
    fn default() -> Self {
        let start = Timestamp::default();
        Self {
            next_look: start,
            next_expiry: start,
            bases: (LeaseId::from_u128(0), start),
            rules: LeaseId::from_u128(0),
            forgetting: Forgetting::default(),
        }
    }
}

impl Schedule {
    /// Whether there may be something to prune.
    pub(crate) fn is_due(&self, tip: &Tip, most: u64, now: Timestamp) -> bool {
        self.leases_due(tip, most, now)
            || self.forgetting.is_due(tip, now)
            || ((self.bases_due(tip) || self.rules_due(tip)) && now >= self.bases.1)
    }

    fn leases_due(&self, tip: &Tip, most: u64, now: Timestamp) -> bool {
        tip.leases > 0 && now >= if tip.leases > most { self.next_expiry } else { self.next_look }
    }

    fn bases_due(&self, tip: &Tip) -> bool {
        tip.pruned.is_some_and(|pruned| bases::lowest(pruned) > self.bases.0)
    }

    fn rules_due(&self, tip: &Tip) -> bool {
        tip.pruned.is_some_and(|pruned| self.rules <= pruned)
    }

    /// A rule with this cut-off was folded away.
    pub(crate) fn folded(&mut self, cut_off: LeaseId) {
        self.rules = self.rules.min(cut_off);
    }

    /// How far bases and rules are pruned.
    pub(crate) fn lowest(&self) -> [LeaseId; 2] {
        [self.bases.0, self.rules]
    }

    /// Nothing could be pruned: not to be tried again at once.
    pub(crate) fn rest(&mut self, now: Timestamp) {
        let later = now.plus(REST);
        (self.next_look, self.next_expiry) = (self.next_look.max(later), self.next_expiry.max(later));
        self.bases.1 = later;
        self.forgetting.rest_until(later);
    }

    /// Adds removals to the commit until it has `operations` keys, as far as there is something to prune.
    pub(crate) fn prune(&mut self, group: &mut Group<'_>, operations: usize) -> Result<(), StoreError> {
        let now = group.now();
        if self.leases_due(group.tip, group.shared.options.max_leases, now) {
            self.prune_leases(group, operations)?;
        }
        if self.bases_due(group.tip) && now >= self.bases.1 {
            self.prune_bases(group, operations)?;
        }
        if self.rules_due(group.tip) && now >= self.bases.1 {
            self.prune_rules(group, operations)?;
        }
        if self.forgetting.is_due(group.tip, now) {
            self.forgetting.forget(group, operations)?;
        }
        Ok(())
    }

    /// Whole runs, when all in them may go.
    fn prune_leases(&mut self, group: &mut Group<'_>, operations: usize) -> Result<(), StoreError> {
        let (retention, most) = (group.shared.options.retention, group.shared.options.max_leases);
        let from = group.tip.pruned.unwrap_or(LeaseId::from_u128(0));
        let engine = group.engine;
        for entry in engine.scan(&[layout::LEASES], &layout::run(from)) {
            let (key, value) = entry?;
            let leases = match leases(&key, &value) {
                Ok(leases) => leases,
                Err(error) => {
                    self.rest_after(&error, group.now());
                    break;
                }
            };
            let Some(last) = leases.last().map(|lease| lease.id) else { break };
            let latest = |of: fn(&Own, Duration) -> Timestamp| {
                leases.iter().map(|lease| of(lease, retention)).max().unwrap_or_default()
            };
            let forgettable_at =
                latest(|lease, retention| lease.id.time().plus(retention).max(lease.expires_at));
            let expires_at = latest(|lease, _| lease.expires_at);
            let old = forgettable_at <= group.now();
            let too_many = group.tip.leases > most && expires_at <= group.now();
            if !old && !too_many {
                (self.next_look, self.next_expiry) = (forgettable_at, expires_at);
                break;
            }
            let touched = group.records.range(..=last).next().is_some();
            if touched {
                break;
            }
            let indexes = match indexes(group, &leases) {
                Err(error @ StoreError::Damaged(_)) => {
                    self.rest_after(&error, group.now());
                    break;
                }
                indexes => indexes?,
            };
            if group.operations() + 1 + indexes.len() > operations {
                break;
            }
            group.remove(key.to_vec());
            for index in indexes {
                group.remove(index);
            }
            group.tip.leases = group.tip.leases.saturating_sub(leases.len() as u64);
            group.tip.pruned = Some(last);
            group.pruned.extend(leases.iter().map(|lease| lease.id));
        }
        Ok(())
    }

    fn rest_after(&mut self, error: &StoreError, now: Timestamp) {
        tracing::error!(%error, "leases do not read back: nothing is pruned");
        self.next_look = now.plus(AFTER_DAMAGE);
        self.next_expiry = self.next_look;
        self.bases.1 = self.next_look;
    }

    /// Rules that are folded away and cover no lease that is not pruned.
    fn prune_rules(&mut self, group: &mut Group<'_>, operations: usize) -> Result<(), StoreError> {
        let engine = group.engine;
        for entry in engine.scan(&[layout::FOLDED], &[layout::FOLDED]) {
            let (key, value) = entry?;
            let cut_off = match rules::read(&key, &value) {
                Ok(rule) => rule.cut_off,
                Err(error) => {
                    self.rest_after(&error, group.now());
                    return Ok(());
                }
            };
            if Some(cut_off) > group.tip.pruned || group.operations() >= operations {
                self.rules = cut_off;
                return Ok(());
            }
            group.remove(key.to_vec());
        }
        // Those that this commit folds away are told of apart.
        self.rules = LeaseId::from_u128(u128::MAX);
        Ok(())
    }

    /// Bases that no lease may refer to which is not pruned.
    fn prune_bases(&mut self, group: &mut Group<'_>, operations: usize) -> Result<(), StoreError> {
        let Some(pruned) = group.tip.pruned else { return Ok(()) };
        let lowest = bases::lowest(pruned);
        let engine = group.engine;
        for entry in engine.scan(&[layout::BASES], &layout::basis(self.bases.0)) {
            let (key, _) = entry?;
            let id = layout::id_at_end(&key).ok_or_else(|| damaged(&key, &"it has no id"))?;
            if id >= lowest || group.operations() >= operations {
                // A lease that comes late brings one above what is pruned.
                self.bases.0 = id.min(pruned);
                return Ok(());
            }
            group.remove(key.to_vec());
        }
        self.bases.0 = lowest;
        Ok(())
    }
}

/// What is own of the leases of a run, ascending.
fn leases(key: &[u8], value: &[u8]) -> Result<Vec<Own>, StoreError> {
    runs::decode(key, value)?.iter().map(|(id, record)| runs::own(*id, record)).collect()
}

/// The index keys of leases.
fn indexes(group: &Group<'_>, leases: &[Own]) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut keys = Vec::with_capacity(leases.len());
    for own in leases {
        let basis = group.shared.bases.read(group.engine, own)?;
        let (namespace, narrowed) =
            encoding::decode_owners(&basis).map_err(|error| bases::unreadable(own.id, own.basis, &error))?;
        keys.extend(layout::indexes(own.id, &namespace, narrowed.as_ref()));
    }
    Ok(keys)
}
