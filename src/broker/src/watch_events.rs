//! WatchEvents: an operator hears of each event that it may list, in order and each once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::audit::{Detail, Event};
use dayfly_core::ids::{ClusterName, Incarnation, Position};
use dayfly_core::limits::{EVENT_PAGE_BYTES, HEARTBEAT, PAGE, STREAM_REVIEW};
use dayfly_core::secret::Secret;
use tokio::time::{Instant, sleep, sleep_until};

use crate::authenticate::Bearer;
use crate::events::{EventFilter, Sight};
use crate::reads::Read;
use crate::{Broker, Error};

/// Events in one message.
const EVENTS_AT_ONCE: usize = 100;
/// How long a stream rests after it has read: events that come close together go in one message.
const REST: Duration = Duration::from_millis(20);
/// How soon a store that has too much to read is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// What an operator is told.
#[derive(Debug, Clone, PartialEq)]
pub struct EventNews {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Every event up to here that passes has been told.
    pub position: Position,
    /// The store's life that this is of.
    pub incarnation: Incarnation,
}

/// Where a watch was: in which life of the store, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventResume {
    /// The store's life.
    pub incarnation: Incarnation,
    /// Every event up to this has been told.
    pub position: Position,
}

/// An operator's watch over events.
pub struct EventWatch {
    broker: Arc<Broker>,
    token: Secret,
    named: Option<ClusterName>,
    filter: EventFilter,
    sight: Sight,
    /// Every event up to here has been looked at.
    position: Position,
    /// Of those, what passes and is not told yet.
    untold: VecDeque<Event>,
    incarnation: Incarnation,
    /// Something was told: whoever begins is told at once from where.
    begun: bool,
    rested: Instant,
    verified: Duration,
    heartbeat: Duration,
}

impl Broker {
    /// Begins a watch over the events that the operator may list: verb `list` on all `events`, or on those of an owner of
    /// each. It goes on after `resume`; without it, it begins at the filter's `from`, and where there is none either, with
    /// what comes from now on.
    ///
    /// # Errors
    /// When the operator may list none, or the watch cannot be resumed ([`Error::OutOfRange`]).
    pub async fn watch_events(
        self: &Arc<Self>,
        bearer: Bearer<'_>,
        filter: EventFilter,
        resume: Option<EventResume>,
    ) -> Result<EventWatch, Error> {
        let operator = self.operator(bearer).await?;
        if filter.to.is_some() || filter.until.is_some() {
            return Err(Error::invalid("filter", "a watch has no end: `to` and `until` are for ListEvents"));
        }
        let sight = self.noted(&operator, self.sight(&operator, filter.owner.as_ref()).await)?;
        let mark = self.store.mark();
        let position = match (resume, filter.from) {
            (Some(resume), _) => {
                if resume.incarnation != mark.incarnation || resume.position > mark.position {
                    let message = "`resume` is not of this incarnation of the store: call again without it, from a \
                                   position";
                    return Err(Error::OutOfRange { message: message.to_owned() });
                }
                resume.position
            }
            (None, Some(from)) if from > mark.position.next() => {
                let message = format!("event {from} is still to come: the newest is {}", mark.position);
                return Err(Error::invalid("filter.from", message));
            }
            (None, Some(from)) => Position::new(from.number().saturating_sub(1)),
            (None, None) => mark.position,
        };
        self.note_read(&operator, Read::of("WatchEvents", &filter.text()).about(filter.owner.as_ref()));
        Ok(EventWatch {
            token: Secret::from(bearer.token.expose().to_vec()),
            named: bearer.cluster.cloned(),
            filter: EventFilter { from: None, ..filter },
            sight,
            position,
            untold: VecDeque::new(),
            incarnation: mark.incarnation,
            begun: false,
            rested: Instant::now(),
            verified: self.clock.monotonic(),
            heartbeat: HEARTBEAT,
            broker: Arc::clone(self),
        })
    }
}

impl EventWatch {
    /// With another time between heartbeats than [`HEARTBEAT`].
    #[must_use]
    pub fn with_heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }

    /// What there is to tell next: at once from where it begins, then what was there before, then each event when it is durable, and a heartbeat where none
    /// comes that passes. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The watch is over: the operator has lost the right, or the store closes.
    pub async fn next(&mut self) -> Result<EventNews, Error> {
        let heartbeat = Instant::now() + self.heartbeat;
        while self.begun && self.untold.is_empty() && Instant::now() < heartbeat {
            sleep_until(self.rested.min(heartbeat)).await;
            let newest = tokio::select! {
                newest = self.broker.store.committed(self.position) => newest?,
                () = sleep_until(heartbeat) => break,
            };
            match self.look(newest).await {
                Err(Error::Overloaded { .. }) => sleep(AGAIN).await,
                looked => looked?,
            }
        }
        self.check_authority().await?;
        // From here to the answer nothing waits: what was heard is told.
        self.begun = true;
        let mut events = Vec::new();
        let mut bytes = 0;
        while events.len() < EVENTS_AT_ONCE && bytes < EVENT_PAGE_BYTES {
            let Some(event) = self.untold.pop_front() else { break };
            bytes += event.detail.as_ref().map_or(0, Detail::size);
            events.push(event);
        }
        let told = events.last().filter(|_| !self.untold.is_empty());
        let position = told.map_or(self.position, |last| last.position);
        Ok(EventNews { events, position, incarnation: self.incarnation })
    }

    /// Looks at some of the events up to the newest.
    async fn look(&mut self, newest: Position) -> Result<(), Error> {
        let first = self.position.next();
        let last = newest.min(Position::new(self.position.number() + PAGE as u64));
        let read = self.broker.events_between(first, last).await?;
        // Nothing waits from here on.
        self.untold.extend(read.into_iter().filter(|it| self.sight.sees(it) && self.filter.passes(it)));
        self.position = last;
        if last == newest {
            self.rested = Instant::now() + REST;
        }
        Ok(())
    }

    /// That the token is still good, and what may be listed by it, now and then. For lack of news nothing is ended.
    async fn check_authority(&mut self) -> Result<(), Error> {
        let now = self.broker.clock.monotonic();
        if now.saturating_sub(self.verified) < STREAM_REVIEW {
            return Ok(());
        }
        let broker = Arc::clone(&self.broker);
        let bearer = Bearer { token: &self.token, cluster: self.named.as_ref(), verified: None };
        let sight = match broker.operator(bearer).await {
            Ok(operator) => {
                let sight = broker.sight(&operator, self.filter.owner.as_ref()).await;
                broker.noted(&operator, sight)
            }
            Err(error) => Err(error),
        };
        match sight {
            Ok(sight) => {
                self.untold.retain(|event| sight.sees(event));
                self.sight = sight;
                self.verified = now;
                Ok(())
            }
            Err(Error::Unavailable { .. } | Error::Overloaded { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
