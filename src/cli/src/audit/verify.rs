//! `dayfly audit verify`.

use std::fmt::Write as _;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use dayfly_core::change::LogHead;
use dayfly_core::checkpoint::Checkpoint;
use dayfly_core::note::{SignedNote, VerifierKey};
use dayfly_server::{Config, StoreOpenError, VerifyReport, WrongBackup};
use serde::Serialize;

use super::export::Export;
use super::{WRONG, live, notes, opened};
use crate::connect::Connection;
use crate::output::{Output, facts, plain};

/// Of what: of the broker that --server names, unless it is said otherwise.
#[derive(Args)]
pub(crate) struct Verify {
    /// The store's folder of a broker that is stopped, or a copy of it.
    #[arg(long, value_name = "FOLDER", conflicts_with = "export")]
    store: Option<PathBuf>,
    /// A backup: it is opened with the key-encryption key of --config, made a store in a folder beside it, checked, and removed
    /// again.
    #[arg(long, value_name = "FILE", requires = "config", conflicts_with_all = ["store", "export"])]
    backup: Option<PathBuf>,
    /// The broker's configuration, for --backup: where its key-encryption key is.
    #[arg(long, value_name = "dayfly.toml", requires = "backup")]
    config: Option<PathBuf>,
    /// A file that `dayfly events export` wrote.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// The first position of the export, where that is not the log's beginning. Then no checkpoint's root can be computed.
    #[arg(long, value_name = "POSITION", requires = "export", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// An earlier checkpoint, or several: the log must be that one, grown.
    #[arg(long, value_name = "FILE")]
    since: Vec<PathBuf>,
    /// A key that verifies checkpoints, as `/log/keys` gave it when you learnt it. Without one, a broker is checked by the keys
    /// that it says itself.
    #[arg(long, value_name = "NAME+HASH+KEY")]
    key: Vec<VerifierKey>,
    #[command(flatten)]
    output: Output,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Found {
    /// Of how many events.
    pub(super) events: u64,
    /// The root over them, where it was computed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) root_hash: String,
    /// What agrees.
    pub(super) checked: Vec<String>,
    /// What to know, and is not wrong.
    pub(super) warnings: Vec<String>,
    /// What is wrong.
    pub(super) problems: Vec<String>,
}

impl Verify {
    pub(super) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let mut since = Vec::new();
        for file in &self.since {
            since.extend(notes::read(file)?);
        }
        let found = match (&self.store, &self.export, &self.backup, &self.config) {
            (Some(folder), ..) => of_store(folder, &since, &self.key)?,
            (None, Some(file), ..) => of_export(file, self.from, since, &self.key)?,
            (None, None, Some(file), Some(config)) => of_backup(file, config, &since, &self.key).await?,
            _ => live::verify(&connection.anonymous()?, &since, &self.key).await?,
        };
        let printed = self.output.answer(&found, || text(&found))?;
        Ok(if found.problems.is_empty() { printed } else { ExitCode::from(WRONG) })
    }
}

/// The heads that these notes say, of one log. A note that a key did not sign is a problem, and not relied on.
pub(super) fn heads(
    notes: &[SignedNote],
    keys: &[VerifierKey],
    what: &str,
    found: &mut Found,
) -> Vec<Checkpoint> {
    let mut heads = Vec::new();
    for (number, note) in (1..).zip(notes) {
        match opened(note, keys, &format!("checkpoint {number} of {what}")) {
            Ok(checkpoint) => heads.push(checkpoint),
            Err(error) => found.problems.push(format!("{error:#}")),
        }
    }
    heads
}

fn sizes(heads: &[Checkpoint]) -> Vec<LogHead> {
    heads.iter().map(|checkpoint| checkpoint.head).collect()
}

/// The checkpoints that a store or a backup is checked against.
fn earlier(since: &[SignedNote], keys: &[VerifierKey], found: &mut Found) -> anyhow::Result<Vec<Checkpoint>> {
    anyhow::ensure!(since.is_empty() || !keys.is_empty(), "say which key verifies those checkpoints: --key");
    Ok(heads(since, keys, "--since", found))
}

fn of_store(folder: &Path, since: &[SignedNote], keys: &[VerifierKey]) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let heads = earlier(since, keys, &mut found)?;
    match dayfly_server::verify_store_against(folder, &sizes(&heads)) {
        Ok(report) => reported(&mut found, report, &heads, "store"),
        Err(error @ (StoreOpenError::Damaged { .. } | StoreOpenError::Lost { .. })) => {
            found.problems.push(error.to_string());
        }
        Err(error) => return Err(error.into()),
    }
    Ok(found)
}

async fn of_backup(
    file: &Path,
    config: &Path,
    since: &[SignedNote],
    keys: &[VerifierKey],
) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let heads = earlier(since, keys, &mut found)?;
    let config = Config::load(config)?;
    match dayfly_server::verify_backup_against(&config, file, sizes(&heads)).await {
        Ok(report) => reported(&mut found, report, &heads, "backup"),
        Err(error) => match error.downcast::<WrongBackup>() {
            Ok(wrong) => found.problems.push(wrong.to_string()),
            Err(error) => return Err(error),
        },
    }
    Ok(found)
}

/// What was found of a store, or of a backup.
fn reported(found: &mut Found, report: VerifyReport, heads: &[Checkpoint], what: &str) {
    let store = Some((report.instance, report.incarnation));
    for checkpoint in
        heads.iter().filter(|checkpoint| checkpoint.store.is_some() && checkpoint.store != store)
    {
        found.problems.push(format!(
            "the checkpoint of {} events is of another store or incarnation than {} / {}",
            checkpoint.head.size, report.instance, report.incarnation.0
        ));
    }
    found.events = report.events;
    found.root_hash = STANDARD.encode(report.root);
    found.checked.push(format!("every event, lease, rule and key of the {what} ({} leases)", report.leases));
    match heads.iter().map(|checkpoint| checkpoint.head.size).max() {
        Some(size) => found.checked.push(format!("up to event {size}, against checkpoints")),
        None => found.warnings.push(format!(
            "a {what} that was written anew as a whole agrees with itself: give an earlier checkpoint (--since FILE --key KEY)"
        )),
    }
    found.problems.extend(report.problems);
}

fn of_export(
    file: &Path,
    from: u64,
    mut since: Vec<SignedNote>,
    keys: &[VerifierKey],
) -> anyhow::Result<Found> {
    let shown = file.display();
    let opened = std::fs::File::open(file).with_context(|| format!("cannot read {shown}"))?;
    let mut export = Export::read(BufReader::new(opened)).with_context(|| format!("{shown} is no export"))?;
    since.append(&mut export.checkpoints);
    let mut found = Found { events: export.leaves.len() as u64, ..Found::default() };
    // Whose signature is not known tells nothing; the events are still compared with each other.
    let heads = if keys.is_empty() { Vec::new() } else { heads(&since, keys, "these", &mut found) };
    let checked = export.check(from, &sizes(&heads));
    found.problems.append(&mut export.problems);
    if let Some(size) = checked {
        found.checked.push(format!("up to event {size}, against checkpoints"));
        let after = export.leaves.iter().filter(|(position, _)| *position > size).count();
        if after > 0 {
            found.warnings.push(format!("{after} events after that are in no checkpoint yet"));
        }
    }
    if found.problems.is_empty() && checked.is_none() {
        let lacking = match (keys.is_empty(), since.is_empty(), from) {
            (_, _, 2..) => {
                "an export that does not begin at event 1 has no root: `dayfly audit prove` proves single events of it"
            }
            (_, true, _) => "it has no checkpoint: give one that you have (--since FILE)",
            (true, ..) => "say which key verifies its checkpoint: --key",
            _ => "its checkpoints are not of these events",
        };
        anyhow::bail!(
            "its events agree with each other, but nothing shows that they are those of the log: {lacking}"
        );
    }
    Ok(found)
}

fn text(found: &Found) -> String {
    let mut text = facts(&[("events", found.events.to_string()), ("root", found.root_hash.clone())]);
    for checked in &found.checked {
        let _ = writeln!(text, "checked: {}", plain(checked));
    }
    for warning in &found.warnings {
        let _ = writeln!(text, "warning: {}", plain(warning));
    }
    for problem in &found.problems {
        let _ = writeln!(text, "error: {}", plain(problem));
    }
    if found.problems.is_empty() {
        text.push_str("whole\n");
    }
    text
}
