//! `dayfly store`.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use dayfly_core::digest::Digest;
use dayfly_server::{Config, VerifyReport};
use serde::Serialize;

use crate::connect::{self, Connection};
use crate::failure::Usage;
use crate::output::{Output, facts, plain};

mod adopt;
mod backup;
mod restore;

use adopt::Adopt;
use backup::Backup;
use restore::Restore;

/// Looks after a store.
#[derive(Subcommand)]
pub(crate) enum Store {
    /// Reads a whole store that no broker has open, and checks everything in it against everything else: records,
    /// indexes, keys, audit log. Or a backup. Exits with 1 when something does not fit.
    Verify(Verify),
    /// Takes a backup of the broker's store while it goes on, as an operator.
    ///
    /// It holds everything up to one position and nothing after it, sealed with the key-encryption key, which is not in it:
    /// keep that elsewhere, a backup is worth nothing without it.
    Backup(Backup),
    /// Makes the store of a broker that is stopped from a backup.
    ///
    /// Into a folder that is not there or empty. It is a new incarnation: every credential issued before is revoked, and
    /// nothing downstream is touched until `dayfly store adopt`. Run it as the user that the broker runs as.
    Restore(Restore),
    /// Says that a store that was restored, or was accepted behind its witness, is the one that counts, as an operator.
    ///
    /// From then on the broker touches what is downstream. Make sure first that the store it is a copy of is not in use
    /// any more, and never will be.
    Adopt(Adopt),
}

/// Which store, or backup.
#[derive(Args)]
#[group(id = "what", required = true, multiple = false)]
pub(crate) struct What {
    /// The store's folder.
    folder: Option<PathBuf>,
    /// A backup instead: it is opened with the key-encryption key of --config, made a store in a folder beside it, checked,
    /// and removed again.
    #[arg(long, value_name = "FILE", requires = "config")]
    backup: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    what: What,
    /// The broker's configuration, for --backup: where its key-encryption key is.
    #[arg(long, value_name = "dayfly.toml", requires = "backup")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View<'a> {
    instance: String,
    incarnation: u32,
    adopted: bool,
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
    /// Does it, and prints.
    pub(crate) fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        match self {
            Self::Verify(verify) => verify.run(),
            Self::Backup(backup) => connect::run(backup.run(connection)),
            Self::Restore(restore) => connect::run(restore.run()),
            Self::Adopt(adopt) => connect::run(adopt.run(connection)),
        }
    }
}

impl Verify {
    fn run(self) -> anyhow::Result<ExitCode> {
        let report = match (self.what.folder, self.what.backup, self.config) {
            (Some(folder), ..) => dayfly_server::verify_store(&folder)?,
            (None, Some(backup), Some(config)) => {
                let config = Config::load(&config)?;
                return connect::run(async move {
                    let (_, report) = dayfly_server::verify_backup(&config, &backup).await?;
                    print(&report, &self.output)
                });
            }
            _ => return Err(Usage("say which: FOLDER, or --backup FILE --config dayfly.toml").into()),
        };
        print(&report, &self.output)
    }
}

fn print(report: &VerifyReport, output: &Output) -> anyhow::Result<ExitCode> {
    let view = View {
        instance: report.instance.to_string(),
        incarnation: report.incarnation.0,
        adopted: report.adopted,
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
    let printed = output.answer(&view, || text(&view))?;
    Ok(if report.problems.is_empty() { printed } else { ExitCode::FAILURE })
}

fn text(view: &View<'_>) -> String {
    let mut text = facts(&[
        ("instance", view.instance.clone()),
        ("incarnation", view.incarnation.to_string()),
        ("adopted", if view.adopted { "yes" } else { "no: restored, see `dayfly store adopt`" }.to_owned()),
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
