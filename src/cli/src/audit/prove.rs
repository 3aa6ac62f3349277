//! `dayfly audit prove`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use dayfly_core::note::VerifierKey;
use dayfly_core::proof;
use serde::Serialize;

use super::export::{Line, Record, line};
use super::{WRONG, live, notes, opened, published};
use crate::connect::Connection;
use crate::output::{Output, facts};

/// The most that a file with the event may have.
const EVENTS: u64 = 256 * 1024 * 1024;

/// Which event, in which checkpoint.
#[derive(Args)]
pub(crate) struct Prove {
    /// The event's position, from 1.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    position: u64,
    /// The checkpoint that it is proved to be in; by default the broker's newest. Of a file with several, the last.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// A file that `dayfly events export` wrote, with the event: what it says goes with the proof, and is checked. Without it, its
    /// hash alone does.
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,
    /// A key that verifies checkpoints, as `/log/keys` gave it when you learnt it. By default the broker's own word is taken.
    #[arg(long, value_name = "NAME+HASH+KEY")]
    key: Vec<VerifierKey>,
    #[command(flatten)]
    output: Output,
}

/// All that an outsider needs, but for the key that they know already.
#[derive(Serialize)]
struct View {
    position: u64,
    size: u64,
    leaf_hash: String,
    hashes: Vec<String>,
    checkpoint: String,
    keys: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Prove {
    pub(super) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let record = self.event.as_deref().map(|file| event(file, self.position)).transpose()?;
        let client = connection.anonymous()?;
        let (newest, said) = published(&client).await?;
        let keys = if self.key.is_empty() { said } else { self.key };
        let note = match &self.checkpoint {
            Some(file) => notes::read(file)?.pop().context("there is no checkpoint")?,
            None => newest,
        };
        let checkpoint = opened(&note, &keys, "the checkpoint")?;
        let size = checkpoint.head.size;
        anyhow::ensure!(
            self.position <= size,
            "the checkpoint is of {size} events: `dayfly audit checkpoint --now` makes one of all there are"
        );
        let (leaf, hashes) = live::inclusion(&client, self.position, size).await?;
        let wrong = match &record {
            Some(record) if record.leaf_hash != leaf => {
                Some(format!("event {} was changed: the log has another hash of it", self.position))
            }
            Some(record) => record.problem(),
            None => None,
        };
        let proved = proof::includes(&leaf, self.position - 1, size, &hashes, &checkpoint.head.root);
        let wrong = wrong.or_else(|| {
            (!proved).then(|| {
                format!("the proof of event {} does not lead to the checkpoint's root", self.position)
            })
        });
        if let Some(wrong) = wrong {
            crate::failure::tell(&anyhow::anyhow!(wrong));
            return Ok(ExitCode::from(WRONG));
        }
        let encoded = |bytes: Option<Vec<u8>>| bytes.map(|bytes| STANDARD.encode(bytes));
        let (leaf_of, salt, detail) = record.map_or((None, None, None), |it| (it.leaf, it.salt, it.detail));
        let view = View {
            position: self.position,
            size,
            leaf_hash: STANDARD.encode(leaf),
            hashes: hashes.iter().map(|hash| STANDARD.encode(hash)).collect(),
            checkpoint: note.to_string(),
            keys: keys.iter().map(ToString::to_string).collect(),
            leaf: encoded(leaf_of),
            salt: encoded(salt),
            detail: encoded(detail),
        };
        self.output.answer(&view, || table(&view))
    }
}

/// The event at a position, in a file of an export.
fn event(file: &std::path::Path, position: u64) -> anyhow::Result<Record> {
    let shown = file.display();
    for (number, text) in (1..).zip(super::read(file, EVENTS)?.lines().filter(|line| !line.trim().is_empty()))
    {
        match line(text).with_context(|| format!("{shown}, line {number}"))? {
            Line::Event(record) if record.position == position => return Ok(*record),
            _ => {}
        }
    }
    anyhow::bail!("{shown} has no event {position}")
}

fn table(view: &View) -> String {
    let what = if view.leaf.is_some() { "what it says, and its hash" } else { "its hash" };
    facts(&[
        ("event", view.position.to_string()),
        ("proved", what.to_owned()),
        ("leaf hash", view.leaf_hash.clone()),
        ("in the log of", format!("{} events", view.size)),
        ("by", format!("{} hashes (-o json gives all that an outsider needs)", view.hashes.len())),
    ])
}
