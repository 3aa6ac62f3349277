//! What the audit log says, checked against its head.

use dayfly_core::audit::Event;
use dayfly_core::ids::Position;
use dayfly_core::merkle;
use dayfly_core::ports::LeaseStore;

/// Events of one read.
const BATCH: usize = 256;

/// Every event up to the log's head; each one's detail is the one that its leaf binds, and the root over all leaves is
/// the head's.
pub(crate) async fn events(store: &dyn LeaseStore) -> anyhow::Result<Vec<Event>> {
    let head = store.log_head();
    let size = usize::try_from(head.size)?;
    let mut events: Vec<Event> = Vec::new();
    while events.len() < size {
        let next = Position::new(u64::try_from(events.len())? + 1);
        let batch = store.events(next, BATCH.min(size - events.len())).await?;
        anyhow::ensure!(!batch.is_empty(), "the log ends before position {next}, its head says {size}");
        for record in batch {
            let event = record.read()?;
            anyhow::ensure!(
                event.position.number() == u64::try_from(events.len())? + 1,
                "a position is missing"
            );
            events.push(event);
        }
    }
    let leaves: Vec<_> = events.iter().map(|event| event.leaf_hash).collect();
    anyhow::ensure!(merkle::root_of(&leaves) == head.root, "the leaves do not give the log's root");
    Ok(events)
}
