//! `dayfly watch`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use dayfly_client::v1;
use serde::Serialize;

use crate::connect::Connection;
use crate::output;
use crate::view::{LeaseView, lease_line};

/// Tells of your own leases: those that are good now, then each change.
#[derive(Args)]
pub(crate) struct Watch {
    /// Ends after those that are good now.
    #[arg(long)]
    once: bool,
    /// How to print each change.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A line for each lease: its state, id, target, end and what ended it.
    #[default]
    Lines,
    /// A JSON object a line for each message, heartbeats included.
    Json,
}

#[derive(Serialize)]
struct View<'a> {
    position: u64,
    snapshot: bool,
    more: bool,
    leases: Vec<LeaseView<'a>>,
}

impl Watch {
    /// Asks, and prints until it is interrupted or refused.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let mut watch = connection.client()?.watch_my_leases().await?;
        loop {
            let message = watch.next().await?;
            if !output::print_on(&self.text(&message)?)? || self.once && message.snapshot && !message.more {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    fn text(&self, message: &v1::WatchMyLeasesResponse) -> anyhow::Result<String> {
        if self.output == Form::Lines {
            return Ok(message.leases.iter().map(lease_line).collect());
        }
        let leases = message.leases.iter().map(Into::into).collect();
        let view =
            View { position: message.position, snapshot: message.snapshot, more: message.more, leases };
        Ok(format!("{}\n", serde_json::to_string(&view)?))
    }
}
