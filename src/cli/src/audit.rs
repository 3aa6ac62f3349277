//! `dayfly audit`: the audit log's checkpoints, proofs, and whether it is still what it was.

mod checkpoint;
mod export;
mod live;
mod notes;
mod prove;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use dayfly_client::Client;
use dayfly_core::checkpoint::{self as core, Checkpoint};
use dayfly_core::note::{SignedNote, VerifierKey};

use crate::connect::{self, Connection};
use crate::failure;

/// The audit log as anyone may check it.
#[derive(Subcommand)]
pub(crate) enum Audit {
    /// Prints the newest checkpoint of the audit log: its size and root, signed.
    ///
    /// Keep one where the broker's operators cannot change it: `dayfly audit verify --since FILE` tells later whether the log
    /// is still the one that it was then.
    Checkpoint(checkpoint::Show),
    /// Proves that an event is in the audit log, and shows nothing of any other.
    ///
    /// The proof is verified here before it is printed. As JSON it can be given to an outsider. Exit codes: 0 proved, 1 the
    /// proof is wrong, 2 it could not be had.
    Prove(prove::Prove),
    /// Checks that the audit log was not changed: of a broker that runs, of the store of one that is stopped, of a
    /// backup, or of an export.
    ///
    /// It names what was changed, is missing, out of order or cut off. Exit codes: 0 all is well, 1 something is wrong, 2 it
    /// could not be checked.
    Verify(verify::Verify),
}

/// Something is wrong with the log.
const WRONG: u8 = 1;
/// It could not be checked.
const UNCHECKED: u8 = 2;

impl Audit {
    /// Does what was asked.
    pub(crate) fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        match self {
            Self::Checkpoint(show) => connect::run(show.run(connection)),
            Self::Prove(prove) => Ok(checked(connect::run(prove.run(connection)))),
            Self::Verify(verify) => Ok(checked(connect::run(verify.run(connection)))),
        }
    }
}

/// What went wrong before anything could be checked is not what a wrong log is.
fn checked(done: anyhow::Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| {
        failure::tell(&error);
        ExitCode::from(UNCHECKED)
    })
}

/// The broker's newest checkpoint, and the keys that it publishes for them.
async fn published(client: &Client) -> anyhow::Result<(SignedNote, Vec<VerifierKey>)> {
    let note = text(client.fetch("/log/checkpoint").await?)?;
    let note = note.parse().context("what the broker serves as a checkpoint")?;
    let keys = text(client.fetch("/log/keys").await?)?;
    Ok((note, keys.lines().map(str::parse).collect::<Result<_, _>>()?))
}

fn text(bytes: Vec<u8>) -> anyhow::Result<String> {
    String::from_utf8(bytes).context("what the broker serves is no text")
}

/// A checkpoint by one of these keys. `shown` says which it is.
fn opened(note: &SignedNote, keys: &[VerifierKey], shown: &str) -> anyhow::Result<Checkpoint> {
    core::open(note, keys).with_context(|| format!("{shown} cannot be relied on"))
}

/// A file that is no larger than this.
fn read(path: &Path, most: u64) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).with_context(cannot)?.len();
    anyhow::ensure!(size <= most, "{} is larger than {most} bytes", path.display());
    std::fs::read_to_string(path).with_context(cannot)
}
