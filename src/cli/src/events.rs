//! `dayfly events`.

mod export;
mod lines;
mod ocsf;
mod tail;
mod view;

use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Subcommand};
use dayfly_client::v1;
use dayfly_core::clock::SystemClock;
use dayfly_core::ports::Clock as _;
use dayfly_core::time::Timestamp;
use dayfly_policy::ttl::Ttl;
use serde::Serialize;

use crate::connect::Connection;
use crate::output::Output;
use view::EventView;

/// The largest page that the API gives.
const PAGE: u32 = 1000;

/// Looks at the audit log.
#[derive(Subcommand)]
pub(crate) enum Events {
    /// Lists events: the newest ones, or with --from those from a position on; the oldest of them first.
    List(List),
    /// Prints events as they come, each once, until it is interrupted.
    ///
    /// It goes on when the broker was restarted, and misses nothing.
    Tail(tail::Tail),
    /// Writes the log itself, record by record, so that whoever has the file can check it.
    ///
    /// It takes the right to list all events. That the log was exported is an event, which is the last in the file.
    Export(export::Export),
}

/// Which events: those that match all that is said.
#[derive(Args, Clone)]
struct Which {
    /// Of this kind, as docs/reference/events.md names it; may be given more than once.
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// Of this owner.
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// About this lease or rule, by its id, or a renewal of that lease.
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    /// For this target.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// By this operator (`username@cluster`) or workload (`cluster:namespace:service-account`).
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
    /// Not before this time: RFC 3339, or so long ago, such as 1h.
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
}

/// Which events to list, and how many.
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    /// Before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// From this position on.
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// Up to this position.
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
    /// At most this many.
    #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View<'a> {
    events: Vec<EventView<'a>>,
    /// There are more than the limit.
    more: bool,
}

/// A moment, as it is given.
#[derive(Clone, Copy)]
enum When {
    At(Timestamp),
    Ago(Ttl),
}

impl FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = text.parse().map(Self::At);
        at.or_else(|_| text.parse().map(Self::Ago)).map_err(|_| "neither RFC 3339 nor such as 90s, 15m or 1h")
    }
}

impl When {
    fn wire(self) -> prost_types::Timestamp {
        dayfly_api::timestamp(match self {
            Self::At(time) => time,
            Self::Ago(long) => SystemClock::new().now().minus(long.duration()),
        })
    }
}

impl Which {
    fn filter(self) -> v1::EventFilter {
        v1::EventFilter {
            since: self.since.map(When::wire),
            kinds: self.kinds,
            owner: self.owner.unwrap_or_default(),
            subject: self.subject.unwrap_or_default(),
            target: self.target.unwrap_or_default(),
            actor: self.actor.unwrap_or_default(),
            ..Default::default()
        }
    }
}

impl Events {
    /// Asks, and prints.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(connection).await,
            Self::Tail(tail) => tail.run(connection).await,
            Self::Export(export) => export.run(connection).await,
        }
    }
}

impl List {
    async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        let newest_first = self.from.is_none();
        let filter = v1::EventFilter {
            from: self.from.unwrap_or_default(),
            to: self.to.unwrap_or_default(),
            until: self.until.map(When::wire),
            ..self.which.filter()
        };
        let mut request =
            v1::ListEventsRequest { filter: Some(filter), newest_first, ..v1::ListEventsRequest::default() };
        let limit = usize::try_from(self.limit)?;
        let mut events = Vec::new();
        while events.len() < limit {
            let wanted = u32::try_from(limit - events.len())?.min(PAGE);
            request.page_size = i32::try_from(wanted)?;
            let page = client.list_events(request.clone()).await?;
            events.extend(page.events);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        let more = !request.page_token.is_empty();
        if more {
            eprintln!("there may be more: raise --limit");
        }
        if newest_first {
            events.reverse();
        }
        let view = View { events: events.iter().map(Into::into).collect(), more };
        self.output.answer(&view, || view::event_table(&events))
    }
}
