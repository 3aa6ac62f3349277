//! `dayfly store`.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use dayfly_core::digest::Digest;
use serde::Serialize;

use crate::output::{Output, facts, plain};

/// Looks after a store.
#[derive(Subcommand)]
pub(crate) enum Store {
    /// Reads a whole store that no broker has open, and checks everything in it against everything else: records,
    /// indexes, keys, audit log. Exits with 1 when something does not fit.
    Verify(Verify),
}

/// Which store.
#[derive(Args)]
pub(crate) struct Verify {
    /// Its folder.
    folder: PathBuf,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View<'a> {
    instance: String,
    incarnation: u32,
    position: u64,
    root: String,
    events: u64,
    forgotten: u64,
    leases: u64,
    bases: u64,
    rules: u64,
    keys: u64,
    problems: &'a [String],
}

impl Store {
    /// Checks, and prints.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Self::Verify(verify) = self;
        let report = dayfly_server::verify_store(&verify.folder)?;
        let view = View {
            instance: report.instance.to_string(),
            incarnation: report.incarnation.0,
            position: report.position.number(),
            root: Digest::from_bytes(report.root).to_string(),
            events: report.events,
            forgotten: report.forgotten,
            leases: report.leases,
            bases: report.bases,
            rules: report.rules,
            keys: report.keys,
            problems: &report.problems,
        };
        let printed = verify.output.answer(&view, || text(&view))?;
        Ok(if report.problems.is_empty() { printed } else { ExitCode::FAILURE })
    }
}

fn text(view: &View<'_>) -> String {
    let mut text = facts(&[
        ("instance", view.instance.clone()),
        ("incarnation", view.incarnation.to_string()),
        ("position", view.position.to_string()),
        ("root", view.root.clone()),
        ("events", format!("{}, details of {} forgotten", view.events, view.forgotten)),
        ("leases", view.leases.to_string()),
        ("bases", view.bases.to_string()),
        ("rules", view.rules.to_string()),
        ("keys", view.keys.to_string()),
    ]);
    for problem in view.problems {
        let _ = writeln!(text, "error: {}", plain(problem));
    }
    if view.problems.is_empty() {
        text.push_str("whole\n");
    }
    text
}
