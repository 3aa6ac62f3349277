//! `dayfly renew` and `dayfly release`.

use std::process::ExitCode;

use clap::Args;
use dayfly_client::v1;
use dayfly_policy::ttl::Ttl;

use crate::connect::Connection;
use crate::issue::{Form, print};
use crate::output::Output;
use crate::view::{LeaseView, lease_facts};

/// Asks for a credential in the place of an earlier one.
#[derive(Args)]
pub(crate) struct Renew {
    /// The earlier lease's id.
    #[arg(value_name = "LEASE")]
    lease: String,
    /// A scope of the earlier lease, as often as wanted. None asks for all of them.
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// How long it shall live: a number and s, m or h. The least of all bounds applies.
    #[arg(long, value_name = "TIME")]
    ttl: Option<Ttl>,
    /// How to print the answer. A table leaves the credential out.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

/// Gives a lease back.
#[derive(Args)]
pub(crate) struct Release {
    /// The lease's id.
    #[arg(value_name = "LEASE")]
    lease: String,
    #[command(flatten)]
    output: Output,
}

impl Renew {
    /// Asks, and prints.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let Self { lease, scope, ttl, output } = self;
        let ttl = ttl.map(|ttl| prost_types::Duration::try_from(ttl.duration())).transpose()?;
        let request = v1::RenewRequest { lease, scope, ttl, ..Default::default() };
        print(&connection.client()?.renew(request).await?, output)
    }
}

impl Release {
    /// Asks, and prints.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let lease = connection.client()?.release(self.lease).await?;
        self.output.answer(&LeaseView::from(&lease), || lease_facts(&lease))
    }
}
