//! The audit log's RPCs of `OperatorService`.

use std::sync::Arc;

use dayfly_api::v1;
use dayfly_broker::{Broker, EventFilter, EventNews, EventWatch, Export, ListEvents};
use dayfly_core::audit::EventKind;
use dayfly_core::ids::{Incarnation, Position};
use dayfly_core::limits;
use dayfly_core::time::Timestamp;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::operator::page_size;
use super::page::{EventToken, EventsToken};
use super::reject;
use super::stream::{self, Answers, Source};
use super::workload::optional;

/// Kinds that a filter may name.
const KINDS: usize = 64;

pub(super) async fn list(
    broker: &Broker,
    incarnation: Incarnation,
    request: Request<v1::ListEventsRequest>,
) -> Result<Response<v1::ListEventsResponse>, Status> {
    let caller = Caller::behind(&request)?;
    let wire = request.into_inner();
    let asked = ListEvents {
        filter: filter(wire.filter)?,
        newest_first: wire.newest_first,
        at: EventToken::read(&wire.page_token, incarnation)?.map(|token| token.at),
        limit: page_size(wire.page_size)?,
    };
    let page = broker.list_events(caller.bearer(), &asked).await.map_err(reject::status)?;
    let next = page.next.map(|at| EventToken { at }.write(incarnation));
    Ok(Response::new(v1::ListEventsResponse {
        events: page.events.iter().map(dayfly_api::event).collect(),
        next_page_token: next.unwrap_or_default(),
    }))
}

pub(super) async fn watch(
    broker: &Arc<Broker>,
    stopped: &watch::Receiver<bool>,
    request: Request<v1::WatchEventsRequest>,
) -> Result<Response<Answers<v1::WatchEventsResponse>>, Status> {
    let caller = Caller::behind(&request)?;
    let wire = request.into_inner();
    let resume = EventsToken::read(&wire.resume)?;
    let watch = broker.watch_events(caller.bearer(), filter(wire.filter)?, resume).await;
    let watch = watch.map_err(reject::status)?;
    Ok(Response::new(stream::answers(watch, stopped.clone(), limits::SLOW_READER)))
}

pub(super) async fn export(
    broker: &Arc<Broker>,
    stopped: &watch::Receiver<bool>,
    request: Request<v1::ExportEventsRequest>,
) -> Result<Response<Answers<v1::ExportEventsResponse>>, Status> {
    let caller = Caller::behind(&request)?;
    let from = position(request.into_inner().from);
    let export = broker.export_events(caller.bearer(), from).await.map_err(reject::status)?;
    Ok(Response::new(stream::until_done(export, stopped.clone(), limits::SLOW_READER)))
}

impl Source for EventWatch {
    type Message = v1::WatchEventsResponse;

    async fn next(&mut self) -> Result<Vec<Self::Message>, Status> {
        self.next().await.map(|news| vec![message(&news)]).map_err(reject::status)
    }
}

impl Source for Export {
    type Message = v1::ExportEventsResponse;

    async fn next(&mut self) -> Result<Vec<Self::Message>, Status> {
        let Some((first, records)) = self.next().await.map_err(reject::status)? else {
            return Ok(Vec::new());
        };
        let positions = (first.number()..).map(Position::new);
        let records = positions.zip(records).map(|(at, record)| dayfly_api::event_record(at, record));
        Ok(vec![v1::ExportEventsResponse { records: records.collect() }])
    }
}

fn message(news: &EventNews) -> v1::WatchEventsResponse {
    v1::WatchEventsResponse {
        events: news.events.iter().map(dayfly_api::event).collect(),
        position: news.position.number(),
        resume: EventsToken::write(news),
    }
}

fn filter(wire: Option<v1::EventFilter>) -> Result<EventFilter, Status> {
    let wire = wire.unwrap_or_default();
    if wire.kinds.len() > KINDS {
        return Err(reject::field("filter.kinds", &format!("at most {KINDS}")));
    }
    let kinds = wire.kinds.iter().map(|name| {
        let unknown =
            || reject::field("filter.kinds", &"not the name of a kind: see docs/reference/events.md");
        EventKind::named(name).ok_or_else(unknown)
    });
    if wire.actor.len() > 2 * limits::ACTOR_BYTES {
        return Err(reject::field("filter.actor", &format!("at most {} bytes", 2 * limits::ACTOR_BYTES)));
    }
    Ok(EventFilter {
        from: position(wire.from),
        to: position(wire.to),
        since: wire.since.map(|time| moment("filter.since", time)).transpose()?,
        until: wire.until.map(|time| moment("filter.until", time)).transpose()?,
        kinds: kinds.collect::<Result<_, _>>()?,
        owner: parsed("filter.owner", wire.owner)?,
        subject: parsed("filter.subject", wire.subject)?,
        target: parsed("filter.target", wire.target)?,
        actor: optional(wire.actor),
    })
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &'static str,
    text: String,
) -> Result<Option<T>, Status> {
    optional(text).map(|text| text.parse()).transpose().map_err(|error| reject::field(field, &error))
}

fn position(wire: u64) -> Option<Position> {
    (wire > 0).then(|| Position::new(wire))
}

fn moment(field: &'static str, time: prost_types::Timestamp) -> Result<Timestamp, Status> {
    let secs = u64::try_from(time.seconds).ok();
    let nanos = u64::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let millis = secs.zip(nanos).and_then(|(s, n)| s.checked_mul(1000)?.checked_add(n / 1_000_000));
    millis.map(Timestamp::from_millis).ok_or_else(|| reject::field(field, &"not a time after 1970"))
}
