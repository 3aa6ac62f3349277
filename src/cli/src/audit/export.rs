//! What an export of events says, line by line, and whether it is whole: nothing changed, missing, out of order or cut off.

use std::collections::BTreeSet;
use std::io::{BufRead, Read as _};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_core::audit::{BadEvent, EventRecord};
use dayfly_core::change::LogHead;
use dayfly_core::merkle::{Frontier, Hash, leaf_hash};
use dayfly_core::note::SignedNote;
use serde_json::Value;

/// The longest line, in bytes.
const LINE: u64 = 1024 * 1024;
/// Problems told; more are counted.
const TOLD: usize = 100;

/// An event of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) position: u64,
    pub(super) leaf_hash: Hash,
    /// These are absent where they were forgotten.
    pub(super) leaf: Option<Vec<u8>>,
    pub(super) salt: Option<Vec<u8>>,
    pub(super) detail: Option<Vec<u8>>,
}

/// What a line is.
pub(super) enum Line {
    Event(Box<Record>),
    Checkpoint(SignedNote),
}

/// An export, read whole.
#[derive(Default)]
pub(super) struct Export {
    /// Positions and leaf hashes, as they stand.
    pub(super) leaves: Vec<(u64, Hash)>,
    /// Its own checkpoints.
    pub(super) checkpoints: Vec<SignedNote>,
    /// What is wrong with single events.
    pub(super) problems: Vec<String>,
}

/// Reads one line: an event's record is at `record`, or where OCSF puts what it has no place for.
pub(super) fn line(text: &str) -> anyhow::Result<Line> {
    let line: Value = serde_json::from_str(text).context("it is no JSON")?;
    if let Some(note) = line.get("checkpoint") {
        let note = note.as_str().context("its checkpoint is no text")?;
        return Ok(Line::Checkpoint(note.parse()?));
    }
    let record = line.get("record").or_else(|| line.pointer("/unmapped/dayfly/record"));
    let record = record.context("it has no record of an event")?;
    let bytes = |name: &str| -> anyhow::Result<Option<Vec<u8>>> {
        let Some(value) = record.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
        let decoded = value.as_str().and_then(|text| STANDARD.decode(text).ok());
        decoded.map(Some).with_context(|| format!("its {name} is no base64"))
    };
    let leaf_hash = bytes("leaf_hash")?.and_then(|hash| Hash::try_from(hash).ok());
    Ok(Line::Event(Box::new(Record {
        position: record.get("position").and_then(Value::as_u64).context("it has no position")?,
        leaf_hash: leaf_hash.context("it has no leaf_hash of 32 bytes")?,
        leaf: bytes("leaf")?,
        salt: bytes("salt")?,
        detail: bytes("detail")?,
    })))
}

impl Record {
    /// What of it does not fit together.
    pub(super) fn problem(&self) -> Option<String> {
        let position = self.position;
        let Some(leaf) = &self.leaf else {
            let alone = self.detail.is_some() || self.salt.is_some();
            return alone.then(|| format!("event {position} has a detail, and no leaf that binds it"));
        };
        if leaf_hash(leaf) != self.leaf_hash {
            return Some(format!(
                "event {position} was changed: its leaf has another hash than its leaf_hash"
            ));
        }
        let (salt, detail) = (self.salt.clone().unwrap_or_default(), self.detail.clone().unwrap_or_default());
        match (EventRecord { leaf: leaf.clone(), salt, detail }).read() {
            Ok(event) if event.position.number() == position => None,
            Ok(event) => Some(format!("event {} stands as event {position}: it was moved", event.position)),
            Err(BadEvent::Leaf) => Some(format!("event {position}: its leaf does not decode")),
            Err(BadEvent::Detail) => Some(format!(
                "event {position} was changed: its detail, or its salt, is not what its leaf binds"
            )),
        }
    }
}

impl Export {
    /// Reads it.
    ///
    /// # Errors
    /// When a line is none of an export.
    pub(super) fn read(mut from: impl BufRead) -> anyhow::Result<Self> {
        let mut export = Self::default();
        for number in 1u64.. {
            let mut text = String::new();
            if from.by_ref().take(LINE).read_line(&mut text)? == 0 {
                break;
            }
            let whole = text.ends_with('\n') || (text.len() as u64) < LINE;
            anyhow::ensure!(whole, "line {number} is longer than {LINE} bytes");
            if text.trim().is_empty() {
                continue;
            }
            match line(&text).with_context(|| format!("line {number}"))? {
                Line::Event(record) => {
                    export.tell(record.problem());
                    export.leaves.push((record.position, record.leaf_hash));
                }
                Line::Checkpoint(note) => export.checkpoints.push(note),
            }
        }
        Ok(export)
    }

    /// Compares what is there with heads that the log had, of positions from `first` on. Says up to which event a head tells
    /// that nothing was changed; `None` where it tells nothing.
    pub(super) fn check(&mut self, first: u64, heads: &[LogHead]) -> Option<u64> {
        let mut newest = 0;
        for n in 0..self.leaves.len() {
            let Some((position, _)) = self.leaves.get(n).copied() else { break };
            let problem = match position {
                0 => Some("there is no event 0".to_owned()),
                _ if position < first => Some(format!("event {position} is before {first}, where it begins")),
                _ if position < newest => {
                    Some(format!("event {position} is out of order: it stands after event {newest}"))
                }
                _ if position == newest => Some(format!("event {position} is there twice")),
                _ => None,
            };
            self.tell(problem);
            newest = newest.max(position);
        }
        let there: BTreeSet<u64> = self.leaves.iter().map(|(position, _)| *position).collect();
        let mut next = first;
        for position in there.iter().copied().filter(|position| *position >= first) {
            if position > next {
                let what = missing(next, position - 1);
                self.tell(Some(if next == first {
                    format!(
                        "{what}: cut off at the beginning (of an export that begins later, say so by --from)"
                    )
                } else {
                    what
                }));
            }
            next = position + 1;
        }
        if let Some(longest) = heads.iter().map(|head| head.size).max().filter(|size| *size >= next) {
            self.tell(Some(format!(
                "{}: cut off at the end, of {longest} that a checkpoint is of",
                missing(next, longest)
            )));
        }
        if first > 1 { None } else { self.roots(heads) }
    }

    /// Whether the events have the root of each head, as far as they are all there.
    fn roots(&mut self, heads: &[LogHead]) -> Option<u64> {
        let mut heads = heads.to_vec();
        heads.sort_unstable_by_key(|head| head.size);
        let mut sorted = self.leaves.clone();
        sorted.sort_by_key(|(position, _)| *position);
        sorted.dedup_by_key(|(position, _)| *position);
        let (mut frontier, mut sure, mut checked) = (Frontier::default(), 0, None);
        let mut leaves = sorted.into_iter();
        for LogHead { size, root } in heads {
            while frontier.size() < size {
                let next = leaves.next().filter(|(position, _)| *position == frontier.size() + 1);
                let Some((_, leaf)) = next else { return checked };
                frontier.push(leaf);
            }
            checked = Some(size);
            if frontier.root() == root {
                sure = size;
            } else {
                self.tell(Some(format!(
                    "of events {} to {size}, at least one was changed: the first {size} do not have the checkpoint's root",
                    sure + 1
                )));
                return checked;
            }
        }
        checked
    }

    fn tell(&mut self, problem: Option<String>) {
        if let Some(problem) = problem {
            if self.problems.len() < TOLD {
                self.problems.push(problem);
            } else if self.problems.len() == TOLD {
                self.problems.push("and more".to_owned());
            }
        }
    }
}

fn missing(first: u64, last: u64) -> String {
    if first == last {
        format!("event {first} is missing")
    } else {
        format!("events {first} to {last} are missing")
    }
}

#[cfg(test)]
mod tests;
