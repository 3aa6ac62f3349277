//! `dayfly store restore`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use dayfly_server::Config;
use serde::Serialize;

use crate::output::{Output, facts};

/// From what, into what.
#[derive(Args)]
pub(crate) struct Restore {
    /// The broker's configuration: where its store is to be, its witness, and its key-encryption key.
    #[arg(long, value_name = "dayfly.toml")]
    config: PathBuf,
    /// The backup.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View {
    store: String,
    instance: String,
    /// Up to here it is what was backed up.
    position: u64,
    /// The new one.
    incarnation: u32,
    leases: u64,
    rules: u64,
}

impl Restore {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let config = Config::load(&self.config)?;
        let restored = dayfly_server::restore(&config, &self.from).await?;
        let view = View {
            store: config.store.dir.display().to_string(),
            instance: restored.mark.instance.to_string(),
            position: restored.point.mark.position.number(),
            incarnation: restored.mark.incarnation.0,
            leases: restored.report.leases,
            rules: restored.report.rules,
        };
        self.output.answer(&view, || text(&view))
    }
}

fn text(view: &View) -> String {
    let mut text = facts(&[
        ("store", view.store.clone()),
        ("instance", view.instance.clone()),
        ("position", view.position.to_string()),
        ("incarnation", view.incarnation.to_string()),
        ("leases", view.leases.to_string()),
        ("rules", view.rules.to_string()),
    ]);
    text.push_str(
        "whole. Everything issued before is revoked. Start the broker; nothing downstream is touched until `dayfly store adopt`.\n",
    );
    text
}
