//! Leases that are old or too many are removed from the low end of ids, whole runs, a few with each commit. Their events stay.

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ids::LeaseId;
use dayfly_core::lease::Lease;
use dayfly_core::ports::StoreError;
use dayfly_core::time::Timestamp;

use crate::group::Group;
use crate::layout;
use crate::runs;

/// How long pruning rests after a record that does not read back.
const AFTER_DAMAGE: Duration = Duration::from_secs(3600);

/// How long it rests when there was something to prune and it could not be.
const REST: Duration = Duration::from_secs(5);

/// When to look again for leases to prune.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Schedule {
    /// When the oldest lease has been kept long enough.
    next_look: Timestamp,
    /// When the oldest lease has expired, as far as known: for when there are too many.
    next_expiry: Timestamp,
}

impl Schedule {
    /// Whether there may be something to prune.
    pub(crate) fn is_due(&self, leases: u64, most: u64, now: Timestamp) -> bool {
        leases > 0 && now >= if leases > most { self.next_expiry } else { self.next_look }
    }

    /// Nothing could be pruned: not to be tried again at once.
    pub(crate) fn rest(&mut self, now: Timestamp) {
        let later = now.plus(REST);
        (self.next_look, self.next_expiry) = (self.next_look.max(later), self.next_expiry.max(later));
    }

    /// Adds removals to the commit until it has `operations` keys, as far as there is something to prune: whole runs,
    /// when all in them may go. Gives how many leases it removed.
    pub(crate) fn prune(&mut self, group: &mut Group<'_>, operations: usize) -> Result<usize, StoreError> {
        let (retention, most) = (group.shared.options.retention, group.shared.options.max_leases);
        if !self.is_due(group.tip.leases, most, group.now()) {
            return Ok(0);
        }
        let from = group.tip.pruned.unwrap_or(LeaseId::from_u128(0));
        let engine = group.engine;
        for entry in engine.scan(&[layout::LEASES], &layout::run(from)) {
            let (key, value) = entry?;
            let leases = match leases(&key, &value) {
                Ok(leases) => leases,
                Err(error) => {
                    tracing::error!(%error, "leases do not read back: nothing is pruned");
                    self.next_look = group.now().plus(AFTER_DAMAGE);
                    self.next_expiry = self.next_look;
                    break;
                }
            };
            let indexes: Vec<Vec<u8>> = leases.iter().flat_map(|lease| layout::indexes(lease)).collect();
            let Some(last) = leases.last().map(|lease| lease.id) else { break };
            let touched = group.records.range(..=last).next().is_some();
            if touched || group.operations() + 1 + indexes.len() > operations {
                break;
            }
            let latest = |of: fn(&Lease, Duration) -> Timestamp| {
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
            group.remove(key.to_vec());
            for index in indexes {
                group.remove(index);
            }
            group.tip.leases = group.tip.leases.saturating_sub(leases.len() as u64);
            group.tip.pruned = Some(last);
            group.pruned.extend(leases.iter().map(|lease| lease.id));
        }
        Ok(group.pruned.len())
    }
}

/// The leases of a run, ascending.
fn leases(key: &[u8], value: &[u8]) -> Result<Vec<Arc<Lease>>, StoreError> {
    runs::decode(key, value)?.iter().map(|(id, record)| runs::decode_lease(*id, record)).collect()
}
