//! ExportEvents: the audit log itself, for those who may list all events.

use std::sync::Arc;

use dayfly_core::audit::{Draft, EventRecord};
use dayfly_core::change::{Change, Outcome};
use dayfly_core::ids::Position;
use dayfly_core::limits::EVENT_PAGE_BYTES;
use dayfly_core::ports::Action;

use crate::authenticate::Bearer;
use crate::events::EVENTS;
use crate::operator::Verb;
use crate::{Broker, Error};

/// Records that are read at once.
const RECORDS_AT_ONCE: u64 = 200;

/// An export under way.
pub struct Export {
    broker: Arc<Broker>,
    next: Position,
    last: Position,
}

impl Broker {
    /// Begins an export from a position on. It takes `list` on all `events`, and the home cluster. That the log was exported
    /// is an event of its own, which is durable when this answers, and the last that is exported.
    ///
    /// # Errors
    /// When the operator may not, or the store cannot commit.
    pub async fn export_events(
        self: &Arc<Self>,
        bearer: Bearer<'_>,
        from: Option<Position>,
    ) -> Result<Export, Error> {
        let operator = self.operator(bearer).await?;
        let from = from.unwrap_or_default().max(Position::new(1));
        let newest = self.store.mark().position;
        if from > newest.next() {
            let message = format!("event {from} is still to come: the newest is {newest}");
            return Err(Error::invalid("from", message));
        }
        let may = if let Some(here) = operator.bounds {
            let action = Action { verb: "list", resource: EVENTS, name: None };
            let message = format!("the whole log is for operators of the home cluster, which {here} is not");
            Err(Error::NotAllowed { action, message })
        } else if operator.may_on(EVENTS, Verb::List, None).await? {
            Ok(())
        } else {
            Err(operator.refusal_on(EVENTS, Verb::List, None))
        };
        self.noted(&operator, may)?;
        let event = Draft::exported(&operator.actor(), from);
        match self.store.commit(Change::Note(Box::new(event))).await? {
            Outcome::Committed(receipt) => {
                Ok(Export { broker: Arc::clone(self), next: from, last: receipt.position })
            }
            other => Err(Error::internal(format!("the store answered an event with {other:?}"))),
        }
    }
}

impl Export {
    /// The next records, with the position of the first; none at the end.
    ///
    /// # Errors
    /// When the store does not read.
    pub async fn next(&mut self) -> Result<Option<(Position, Vec<EventRecord>)>, Error> {
        if self.next > self.last {
            return Ok(None);
        }
        let first = self.next;
        let last = self.last.min(Position::new(first.number() + RECORDS_AT_ONCE - 1));
        let mut records = self.broker.records_between(first, last).await?;
        let (mut bytes, mut kept) = (0, 0u64);
        while let Some(record) = records.get(usize::try_from(kept).unwrap_or(usize::MAX)) {
            bytes += record.size();
            if kept > 0 && bytes > EVENT_PAGE_BYTES {
                break;
            }
            kept += 1;
        }
        records.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        self.next = Position::new(first.number() + kept);
        Ok(Some((first, records)))
    }
}
