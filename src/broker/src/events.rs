//! Events of the audit log, as far as the operator may read them.

use std::collections::BTreeSet;

use dayfly_core::audit::{Detail, Event, EventKind, EventRecord};
use dayfly_core::ids::{ClusterName, LeaseId, OwnerName, Position, TargetName};
use dayfly_core::limits::{EVENT_PAGE_BYTES, EVENTS_LOOKED_AT, PAGE};
use dayfly_core::ports::StoreError;
use dayfly_core::time::Timestamp;

use crate::list::page_size;
use crate::operator::{By, Operator, Verb};
use crate::reads::Read;
use crate::{Broker, Error};

/// What rights on events are called.
pub(crate) const EVENTS: &str = "events";

/// Which events; every part that is set must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// Not before this position.
    pub from: Option<Position>,
    /// Not after this position.
    pub to: Option<Position>,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Of one of these kinds; none of them means all.
    pub kinds: Vec<EventKind>,
    /// Of this owner.
    pub owner: Option<OwnerName>,
    /// About the lease or rule of this id, or a renewal of that lease.
    pub subject: Option<LeaseId>,
    /// For this target.
    pub target: Option<TargetName>,
    /// By this operator or workload, as it is recorded.
    pub actor: Option<String>,
}

/// Which events to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListEvents {
    /// Those that pass.
    pub filter: EventFilter,
    /// The newest first.
    pub newest_first: bool,
    /// Where the page begins: `next` of the page before.
    pub at: Option<Position>,
    /// At most this many, 1 to 1000; none is 100.
    pub limit: Option<usize>,
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventPage {
    /// The events. A page may be shorter than asked although more follow.
    pub events: Vec<Event>,
    /// Where the next page begins; none at the end.
    pub next: Option<Position>,
}

/// Whose events an operator sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Those about this cluster only.
    pub(crate) bounds: Option<ClusterName>,
    /// Those of these owners only; none means all, and those of no owner.
    pub(crate) owners: Option<BTreeSet<OwnerName>>,
}

impl Broker {
    /// A page of the events that the operator may list: verb `list` on all `events`, or on those of an owner of each.
    ///
    /// # Errors
    /// When the operator may list none, or something needed does not answer.
    pub async fn list_events<'a>(
        &'a self,
        by: impl Into<By<'a>>,
        request: &ListEvents,
    ) -> Result<EventPage, Error> {
        let operator = self.operator(by).await?;
        let limit = page_size(request.limit)?;
        let filter = &request.filter;
        let sight = self.noted(&operator, self.sight(&operator, filter.owner.as_ref()).await)?;
        self.note_read(&operator, Read::of("ListEvents", &filter.text()).about(filter.owner.as_ref()));
        let newest = Position::new(self.store.log_head().size);
        let low = filter.from.unwrap_or_default().max(Position::new(1));
        let high = filter.to.map_or(newest, |to| to.min(newest));
        let mut page = EventPage::default();
        let (mut at, mut bytes, mut looked_at) = (request.at, 0, 0);
        loop {
            let Some((first, last)) = chunk(low, high, at, request.newest_first) else { return Ok(page) };
            let mut read = self.events_between(first, last).await?;
            if request.newest_first {
                read.reverse();
            }
            let long_ago = filter.since.map(|since| since.minus(CLOCK_IS_OFF));
            let over =
                request.newest_first && read.iter().all(|event| long_ago.is_some_and(|t| event.at < t));
            for event in read {
                let position = event.position;
                if page.events.len() == limit || bytes >= EVENT_PAGE_BYTES || looked_at == EVENTS_LOOKED_AT {
                    page.next = Some(position);
                    return Ok(page);
                }
                looked_at += 1;
                if sight.sees(&event) && filter.passes(&event) {
                    bytes += event.detail.as_ref().map_or(0, Detail::size);
                    page.events.push(event);
                }
            }
            if over {
                return Ok(page);
            }
            at = if request.newest_first { before(first) } else { Some(last.next()) };
            if at.is_none() {
                return Ok(page);
            }
        }
    }

    /// The events from one position to another, both included, which is at most [`PAGE`] of them.
    pub(crate) async fn events_between(&self, first: Position, last: Position) -> Result<Vec<Event>, Error> {
        let records = self.records_between(first, last).await?;
        let read = records.iter().zip(first.number()..).map(|(record, position)| {
            let damaged = |why: String| StoreError::Damaged(format!("event {position}: {why}"));
            let event = record.read().map_err(|error| damaged(error.to_string()))?;
            if event.position.number() == position {
                Ok(event)
            } else {
                Err(damaged(format!("event {} stands there", event.position)))
            }
        });
        Ok(read.collect::<Result<_, StoreError>>()?)
    }

    /// The same, as they are kept.
    pub(crate) async fn records_between(
        &self,
        first: Position,
        last: Position,
    ) -> Result<Vec<EventRecord>, Error> {
        let wanted = usize::try_from(last.number().saturating_sub(first.number()) + 1).unwrap_or(usize::MAX);
        let records = self.store.events(first, wanted).await?;
        if records.len() != wanted {
            let found = records.len();
            return Err(StoreError::Damaged(format!("of events {first} to {last} there are {found}")).into());
        }
        Ok(records)
    }

    /// Whose events an operator sees. An owner that the request names is the only one that is asked about.
    pub(crate) async fn sight(
        &self,
        operator: &Operator<'_>,
        named: Option<&OwnerName>,
    ) -> Result<Sight, Error> {
        let owners = self.owners_on(operator, Verb::List, EVENTS, named).await?;
        Ok(Sight { bounds: operator.bounds.cloned(), owners })
    }
}

/// How far the broker's clock is taken to have been off at most, for where a search for late events ends.
const CLOCK_IS_OFF: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// The next events to read: from where to where. None at the end.
fn chunk(
    low: Position,
    high: Position,
    at: Option<Position>,
    newest_first: bool,
) -> Option<(Position, Position)> {
    let most = PAGE as u64 - 1;
    let (first, last) = if newest_first {
        let last = at.map_or(high, |at| at.min(high));
        (Position::new(last.number().saturating_sub(most)).max(low), last)
    } else {
        let first = at.map_or(low, |at| at.max(low));
        (first, Position::new(first.number().saturating_add(most)).min(high))
    };
    (first <= last && last.number() > 0).then_some((first, last))
}

fn before(position: Position) -> Option<Position> {
    position.number().checked_sub(1).filter(|before| *before > 0).map(Position::new)
}

impl Sight {
    /// Whether this event is one of those. One whose details are forgotten is nobody's any more.
    pub(crate) fn sees(&self, event: &Event) -> bool {
        let detail = event.detail.as_ref();
        let in_bounds = |own: &ClusterName| detail.is_some_and(|it| it.about_cluster() == own.as_str());
        let owned = |owners: &BTreeSet<OwnerName>| {
            let names = detail.map(|detail| detail.owners.as_slice()).unwrap_or_default();
            names.iter().any(|name| owners.iter().any(|owner| owner.as_str() == name))
        };
        self.bounds.as_ref().is_none_or(in_bounds) && self.owners.as_ref().is_none_or(owned)
    }
}

impl EventFilter {
    /// Whether an event passes.
    pub(crate) fn passes(&self, event: &Event) -> bool {
        let none = Detail::default();
        let detail = event.detail.as_ref().unwrap_or(&none);
        let about = |subject: &LeaseId| {
            event.subject == Some(subject.to_bytes()) || detail.renews == subject.to_string()
        };
        self.from.is_none_or(|from| event.position >= from)
            && self.to.is_none_or(|to| event.position <= to)
            && self.since.is_none_or(|since| event.at >= since)
            && self.until.is_none_or(|until| event.at < until)
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.owner.as_ref().is_none_or(|owner| detail.owners.iter().any(|it| it == owner.as_str()))
            && self.subject.as_ref().is_none_or(about)
            && self.target.as_ref().is_none_or(|target| detail.target == target.as_str())
            && self.actor.as_ref().is_none_or(|actor| [&detail.actor, &detail.workload].contains(&actor))
    }

    /// It in words, as it is recorded. Positions are left out, so that those who follow the log are counted together.
    pub(crate) fn text(&self) -> String {
        let kinds: Vec<_> = self.kinds.iter().map(|kind| kind.name()).collect();
        let parts = [
            ("kind", kinds.join("|")),
            ("owner", text(self.owner.as_ref())),
            ("subject", text(self.subject.as_ref())),
            ("target", text(self.target.as_ref())),
            ("actor", text(self.actor.as_ref())),
            ("since", text(self.since.as_ref())),
            ("until", text(self.until.as_ref())),
        ];
        crate::reads::in_words(&parts)
    }
}

fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}
