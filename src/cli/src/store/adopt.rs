//! `dayfly store adopt`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use dayfly_server::Config;
use serde::Serialize;

use crate::connect::Connection;
use crate::output::{Output, facts};

/// Which store.
#[derive(Args)]
pub(crate) struct Adopt {
    /// That of a broker that is stopped, by its configuration, as the user whose store it is.
    #[arg(long, value_name = "dayfly.toml")]
    store: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View {
    /// It was adopted before, or never a copy.
    already: bool,
    incarnation: u32,
    position: u64,
}

impl Adopt {
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let view = if let Some(config) = &self.store {
            let (adopted, mark) = dayfly_server::adopt_offline(&Config::load(config)?).await?;
            View { already: !adopted, incarnation: mark.incarnation.0, position: mark.position.number() }
        } else {
            let answer = connection.client()?.adopt_store().await?;
            View { already: answer.already, incarnation: answer.incarnation, position: answer.position }
        };
        self.output.answer(&view, || {
            let adopted = if view.already { "before, or never a copy" } else { "now" };
            facts(&[
                ("adopted", adopted.to_owned()),
                ("incarnation", view.incarnation.to_string()),
                ("position", view.position.to_string()),
            ])
        })
    }
}
