//! Leases that are old or too many are removed from the low end of ids, a few with each commit. Their events stay.

use std::time::Duration;

use dayfly_core::encoding;
use dayfly_core::ids::LeaseId;
use dayfly_core::ports::StoreError;
use dayfly_core::time::Timestamp;

use crate::group::Group;
use crate::layout;

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

    /// Adds removals to the commit until it has `operations` keys, as far as there is something to prune. Gives how
    /// many leases it removed.
    pub(crate) fn prune(&mut self, group: &mut Group<'_>, operations: usize) -> Result<usize, StoreError> {
        let (retention, most) = (group.shared.options.retention, group.shared.options.max_leases);
        if !self.is_due(group.tip.leases, most, group.now()) {
            return Ok(0);
        }
        let from = group.tip.pruned.map_or(0, LeaseId::as_u128);
        let engine = group.engine;
        for entry in engine.scan(&[layout::LEASES], &layout::lease(LeaseId::from_u128(from))) {
            if group.operations() + 4 > operations {
                break;
            }
            let (key, value) = entry?;
            let lease = match encoding::decode_lease(&value) {
                Ok(lease) => lease,
                Err(error) => {
                    tracing::error!(key = %key.escape_ascii(), %error, "a lease does not read back: nothing is pruned");
                    self.next_look = group.now().plus(AFTER_DAMAGE);
                    self.next_expiry = self.next_look;
                    break;
                }
            };
            let forgettable_at = lease.id.time().plus(retention).max(lease.expires_at);
            let old = forgettable_at <= group.now();
            let one_too_many = group.tip.leases > most && lease.expires_at <= group.now();
            if !old && !one_too_many {
                (self.next_look, self.next_expiry) = (forgettable_at, lease.expires_at);
                break;
            }
            group.remove(key.to_vec());
            layout::indexes(&lease).for_each(|(key, _)| group.remove(key));
            group.tip.leases = group.tip.leases.saturating_sub(1);
            group.tip.pruned = Some(lease.id);
            group.pruned.push(lease.id);
        }
        Ok(group.pruned.len())
    }
}
