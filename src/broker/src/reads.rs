//! What operators read, counted per minute, operator, RPC and filter, and written to the audit log: who looked at what is
//! known, and reading does not flood the log.
//!
//! As denials are, reads are written within a minute and at a stop; what a crash takes is lost. Introspection is not here:
//! a verifier asks for each of its own callers, and counting those is for metrics.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use dayfly_core::audit::{Detail, Draft, EventKind};
use dayfly_core::change::Change;
use dayfly_core::ids::{ClusterName, OwnerName};
use dayfly_core::ports::StoreError;
use dayfly_core::time::Timestamp;
use dayfly_policy::explain::shortened;
use futures_util::future::join_all;

use crate::Broker;
use crate::operator::Operator;

/// Counts kept at once; what is beyond is counted by RPC only.
pub(crate) const ENTRIES: usize = 10_000;
/// Events written at once, so that the store commits them as groups.
const AT_ONCE: usize = 64;
/// The most bytes of a filter that are recorded.
const FILTER_BYTES: usize = 512;

/// What is counted since the last flush.
#[derive(Default)]
pub(crate) struct Reads(Mutex<HashMap<Key, Tally>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    minute: u64,
    /// `USERNAME@CLUSTER`.
    actor: String,
    cluster: Option<ClusterName>,
    read: Read,
}

#[derive(Debug, Clone, Copy)]
struct Tally {
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Read {
    rpc: &'static str,
    filter: String,
    owners: Vec<OwnerName>,
}

impl Read {
    /// By this RPC, with this filter in words.
    pub(crate) fn of(rpc: &'static str, filter: &str) -> Self {
        Self { rpc, filter: shortened(filter, FILTER_BYTES), owners: Vec::new() }
    }

    /// Of these owners' things, so far as is known beforehand.
    pub(crate) fn about<'a>(self, owners: impl IntoIterator<Item = &'a OwnerName>) -> Self {
        Self { owners: owners.into_iter().cloned().collect(), ..self }
    }
}

/// Named values in words; what is empty is left out.
pub(crate) fn in_words(parts: &[(&str, String)]) -> String {
    let said = parts.iter().filter(|(_, value)| !value.is_empty());
    said.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

impl Broker {
    /// Counts what an operator reads.
    pub(crate) fn note_read(&self, operator: &Operator<'_>, read: Read) {
        let (now, actor) = (self.clock.now(), operator.actor());
        let key = Key { minute: now.as_secs() / 60, actor: actor.to_string(), cluster: actor.cluster, read };
        self.reads.add(key, Tally { count: 1, first: now, last: now });
    }

    /// Writes what was counted to the audit log, one event each, and says how many.
    ///
    /// # Errors
    /// When the store cannot commit: what was not written is kept for the next time.
    pub async fn flush_reads(&self) -> Result<usize, StoreError> {
        let (mut written, mut left) = (0, self.reads.len());
        while left > 0 {
            let batch = self.reads.take(AT_ONCE.min(left));
            if batch.is_empty() {
                break;
            }
            left = left.saturating_sub(batch.len());
            let commits =
                batch.iter().map(|(key, tally)| self.store.commit(Change::Note(Box::new(draft(key, tally)))));
            let mut failed = None;
            for ((key, tally), outcome) in batch.iter().zip(join_all(commits).await) {
                match outcome {
                    Ok(_) => written += 1,
                    Err(error) => {
                        self.reads.add(key.clone(), *tally);
                        failed = Some(error);
                    }
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(written)
    }
}

impl Reads {
    fn add(&self, key: Key, tally: Tally) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = counts.len() >= ENTRIES && !counts.contains_key(&key);
        let key = if full { key.other() } else { key };
        let kept = counts.entry(key).or_insert(Tally { count: 0, ..tally });
        kept.count += tally.count;
        kept.first = kept.first.min(tally.first);
        kept.last = kept.last.max(tally.last);
    }

    fn take(&self, most: usize) -> Vec<(Key, Tally)> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<_> = counts.keys().take(most).cloned().collect();
        keys.into_iter().filter_map(|key| counts.remove_entry(&key)).collect()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Key {
    /// Where a read is counted when there are too many different ones.
    fn other(&self) -> Self {
        let read = Read { rpc: self.read.rpc, filter: String::new(), owners: Vec::new() };
        Self { minute: 0, actor: "other".to_owned(), cluster: None, read }
    }
}

fn draft(key: &Key, tally: &Tally) -> Draft {
    let Read { rpc, filter, owners } = &key.read;
    let detail = Detail {
        actor: key.actor.clone(),
        cluster: key.cluster.as_ref().map(ToString::to_string).unwrap_or_default(),
        owners: owners.iter().map(ToString::to_string).collect(),
        rpc: (*rpc).to_owned(),
        filter: filter.clone(),
        count: tally.count,
        first_millis: tally.first.as_millis(),
        last_millis: tally.last.as_millis(),
        ..Detail::default()
    };
    Draft { kind: EventKind::Read, subject: None, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_bounded_and_none_is_lost() {
        let reads = Reads::default();
        let now = Timestamp::from_secs(60);
        for n in 0..(ENTRIES as u64 + 500) {
            let read = Read::of("ListLeases", &format!("owner={n}"));
            let key = Key { minute: 1, actor: "bob@east".to_owned(), cluster: None, read };
            reads.add(key, Tally { count: 1, first: now, last: now });
        }
        assert_eq!(reads.len(), ENTRIES + 1);
        let total: u64 = reads.take(usize::MAX).iter().map(|(_, tally)| tally.count).sum();
        assert_eq!(total, ENTRIES as u64 + 500);
    }

    #[test]
    fn a_filter_is_told_in_words() {
        let parts =
            [("owner", "payments".to_owned()), ("target", String::new()), ("kind", "read".to_owned())];
        assert_eq!(in_words(&parts), "owner=payments kind=read");
    }
}
