//! A new incarnation of a store that is a copy of another one: restored, or accepted behind its witness.

use dayfly_core::audit::{Draft, EventKind};
use dayfly_core::change::{Change, Mark, Revocation};
use dayfly_core::ids::Incarnation;
use dayfly_core::limits::TTL_MAX;
use dayfly_core::ports::StoreError;
use dayfly_core::rule::{Actor, After, Authority, Selector};

use crate::shared::Shared;
use crate::writer::Writer;

/// An incarnation is at most this far above the ones before it: some eight thousand fit into its number.
const FARTHEST: u32 = 1 << 20;

/// What made it one.
pub(crate) enum Why {
    /// It is behind its witness, and the operator said that it counts.
    Accepted,
    /// It was made from a backup; where that came from, in words.
    Restored(String),
}

/// Begins a new incarnation above this store's and its witness's, with ids above all of either, not adopted. Gives what to
/// commit with it: a rule over everything issued before, by either, and the event.
///
/// The number is drawn, not counted: of two copies that are started from the same moment, neither takes the other's tokens.
pub(crate) fn anew(
    shared: &Shared,
    writer: &mut Writer,
    witness: &Mark,
    why: &Why,
) -> Result<Vec<Change>, StoreError> {
    let mut random = [0; 4];
    shared.options.rng.fill(&mut random)?;
    let step = 1 + u32::from_be_bytes(random) % FARTHEST;
    let tip = writer.tip();
    let found = tip.mark();
    tip.incarnation = Incarnation(tip.incarnation.0.max(witness.incarnation.0).saturating_add(step));
    tip.highest = tip.highest.max(witness.highest);
    // What was issued after this copy was made is not known here, only how long it can live.
    tip.latest_expiry = tip.latest_expiry.max(shared.options.clock.now().plus(TTL_MAX));
    tip.restored_at = Some(tip.position.next());
    let (kind, reason, note) = match why {
        Why::Accepted => {
            let note = format!(
                "accepted instance {} at incarnation {}, position {}, where the witness had seen instance {} at incarnation {}, position {}",
                found.instance,
                found.incarnation.0,
                found.position,
                witness.instance,
                witness.incarnation.0,
                witness.position
            );
            (EventKind::RollbackAccepted, "a store behind its witness was accepted", note)
        }
        Why::Restored(from) => {
            let note = format!(
                "restored position {} of incarnation {} from {from}",
                found.position, found.incarnation.0
            );
            (EventKind::Restored, "the store was restored from a backup", note)
        }
    };
    let revocation = Revocation {
        selector: Selector::All,
        after: After::Reissue,
        by: Actor::dayfly(),
        authority: Authority::Dayfly,
        reason: format!("{reason}: everything issued before is revoked"),
        idempotency: None,
        owners: Vec::new(),
    };
    let event = Draft::note(kind, &Actor::dayfly(), note);
    Ok(vec![Change::Revoke(Box::new(revocation)), Change::Note(Box::new(event))])
}
