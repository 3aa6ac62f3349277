//! `dayfly leases`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use dayfly_client::v1;
use serde::Serialize;

use crate::connect::Connection;
use crate::output::Output;
use crate::view::{LeaseView, lease_facts, lease_table};

/// The largest page that the API gives.
const PAGE: u32 = 1000;

/// Looks at leases.
#[derive(Subcommand)]
pub(crate) enum Leases {
    /// Lists leases, oldest first.
    List(List),
    /// Shows one lease.
    Get(Get),
}

/// Which leases to list: those that match all that is said.
#[derive(Args)]
pub(crate) struct List {
    /// Those that this owner answers for.
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Those for this target.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Those of workloads in this namespace.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Only those whose credential is good now.
    #[arg(long)]
    active: bool,
    /// At most this many.
    #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

/// Which lease.
#[derive(Args)]
pub(crate) struct Get {
    /// Its id.
    id: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View<'a> {
    leases: Vec<LeaseView<'a>>,
    /// There are more than the limit.
    more: bool,
}

impl Leases {
    /// Asks, and prints.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(connection).await,
            Self::Get(get) => {
                let lease = connection.client()?.get_lease(get.id).await?;
                get.output.answer(&LeaseView::from(&lease), || lease_facts(&lease))
            }
        }
    }
}

impl List {
    async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        let mut request = v1::ListLeasesRequest {
            selector: self.selector(),
            active_only: self.active,
            page_size: 0,
            page_token: String::new(),
        };
        let limit = usize::try_from(self.limit)?;
        let mut leases = Vec::new();
        while leases.len() < limit {
            let wanted = u32::try_from(limit - leases.len())?.min(PAGE);
            request.page_size = i32::try_from(wanted)?;
            let page = client.list_leases(request.clone()).await?;
            leases.extend(page.leases);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        let more = !request.page_token.is_empty();
        if more {
            eprintln!("there are more: raise --limit");
        }
        let view = View { leases: leases.iter().map(Into::into).collect(), more };
        self.output.answer(&view, || lease_table(&leases))
    }

    /// None where nothing is said: an empty selector is refused.
    fn selector(&self) -> Option<v1::Selector> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let selector = v1::Selector {
            owner: text(&self.owner),
            target: text(&self.target),
            namespace: text(&self.namespace),
            ..Default::default()
        };
        (selector != v1::Selector::default()).then_some(selector)
    }
}
