//! Details of events that are old are forgotten, whole groups from the oldest on, a few with each commit. Leaves stay, and what
//! is proved by them.

use std::time::Duration;

use dayfly_core::audit::Leaf;
use dayfly_core::ids::Position;
use dayfly_core::ports::StoreError;
use dayfly_core::time::Timestamp;
use prost::Message as _;

use crate::engine::damaged;
use crate::group::Group;
use crate::layout::{self, EventGroup};
use crate::tip::Tip;

/// What of the log one commit reads and writes again for it, in bytes: other changes wait for it.
const BYTES: usize = 512 * 1024;
/// How long it rests after an event that does not read back.
const AFTER_DAMAGE: Duration = Duration::from_secs(3600);

/// When to look again for details to forget.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Forgetting {
    next_look: Timestamp,
}

impl Forgetting {
    /// Whether there may be something to forget.
    pub(crate) fn is_due(self, tip: &Tip, now: Timestamp) -> bool {
        tip.forgotten < tip.position && now >= self.next_look
    }

    /// Nothing could be forgotten: not to be tried again before then.
    pub(crate) fn rest_until(&mut self, time: Timestamp) {
        self.next_look = self.next_look.max(time);
    }

    /// Adds groups without their details to the commit until it has `operations` keys.
    pub(crate) fn forget(&mut self, group: &mut Group<'_>, operations: usize) -> Result<(), StoreError> {
        match self.forget_some(group, operations) {
            Err(error @ StoreError::Damaged(_)) => {
                tracing::error!(%error, "an event does not read back: no more details are forgotten");
                self.next_look = group.now().plus(AFTER_DAMAGE);
                Ok(())
            }
            done => done,
        }
    }

    fn forget_some(&mut self, group: &mut Group<'_>, operations: usize) -> Result<(), StoreError> {
        let (engine, retention) = (group.engine, group.shared.options.detail_retention);
        let from = layout::events(group.tip.forgotten.next());
        let mut bytes = 0;
        for entry in engine.scan(&[layout::EVENTS], &from) {
            let (key, value) = entry?;
            let first = layout::number_at_end(&key).unwrap_or_default();
            if first != group.tip.forgotten.number() + 1 {
                return Err(damaged(&key, &"there are events missing before it"));
            }
            let mut events = EventGroup::decode(value.as_ref()).map_err(|error| damaged(&key, &error))?;
            let mut newest = Timestamp::default();
            for event in &events.events {
                let leaf = Leaf::decode(event.leaf.as_slice()).map_err(|error| damaged(&key, &error))?;
                newest = newest.max(Timestamp::from_millis(leaf.at_millis));
            }
            let due = newest.plus(retention);
            if due > group.now() {
                self.next_look = due;
                return Ok(());
            }
            bytes += value.len();
            if group.operations() >= operations || bytes > BYTES {
                return Ok(());
            }
            for event in &mut events.events {
                (event.salt, event.detail) = (Vec::new(), Vec::new());
            }
            group.tip.forgotten = Position::new(first + events.events.len() as u64 - 1);
            group.insert(key.to_vec(), events.encode_to_vec());
        }
        // What this commit adds is not older than now.
        self.next_look = group.now().plus(retention);
        Ok(())
    }
}
