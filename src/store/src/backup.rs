//! A backup of a store that goes on: everything up to one position, and nothing after it.
//!
//! Two things are written, in turn: what is there, key after key, and what the writer commits meanwhile. The writer tells
//! of a commit after it can be read, and each part that is read is written after everything that was told before it was
//! read. So for each key the last thing written is how it is at the end: what was told last, or else what was read, since
//! it has not changed. The end is between two commits: its position is the backup's. The writer waits for nobody: it
//! leaves what it tells in memory, and cuts a backup whose reader takes too little.

use std::sync::{Arc, Mutex, PoisonError};

use dayfly_core::change::Mark;
use dayfly_core::merkle::Hash;
use dayfly_core::ports::StoreError;
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::records;
use crate::store::SledStore;
use crate::writer::Writer;

/// What is read of the store at a time, in bytes: some milliseconds.
const PART_BYTES: usize = 256 * 1024;
/// What may wait for the backup's reader, in bytes: some seconds of what a storm writes.
const WAITING_BYTES: usize = 32 * 1024 * 1024;

/// Why a backup was not taken. None of it may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// One is under way.
    #[error("another backup of this store is being taken: wait for it")]
    Busy,
    /// What was committed meanwhile has waited for the reader for too long.
    #[error(
        "the store changed faster than the backup was read ({} MiB were waiting): take it again, on a faster disk or network",
        WAITING_BYTES >> 20
    )]
    TooSlow,
    /// The store was closed and opened again after a failed write.
    #[error("the store was opened anew while the backup was taken: take it again")]
    Reopened,
    /// The store does not read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Of what moment a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Which store, and its newest position then: everything up to it is there, and nothing after it.
    pub mark: Mark,
    /// The root of the audit log's tree.
    pub root: Hash,
    /// How many leases it holds, ended ones included.
    pub leases: u64,
}

/// A backup that is being taken. Dropped, it is given up.
pub struct Backup {
    store: Arc<SledStore>,
    feed: Arc<Feed>,
    stage: Stage,
}

enum Stage {
    /// Everything below this key was read.
    Reading(Vec<u8>),
    Ending,
    Ended(Point),
}

impl SledStore {
    /// Begins a backup of everything that the store holds. Blocks the writer for no longer than it takes to note that.
    ///
    /// # Errors
    /// [`BackupError::Busy`] while another one is taken, and when the store cannot be read.
    pub async fn backup(self: &Arc<Self>) -> Result<Backup, BackupError> {
        let feed = Arc::new(Feed::default());
        let told = Arc::clone(&feed);
        self.between(move |writer| writer.begin_backup(told)).await??;
        Ok(Backup { store: Arc::clone(self), feed, stage: Stage::Reading(Vec::new()) })
    }

    /// Has the writer do this between two commits.
    async fn between<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.shared.queue.push_between(Box::new(move |writer| {
            // Whoever asked may have gone.
            let _ = answer.send(run(writer));
        }))?;
        answered.await.map_err(|_| self.shared.refusal())
    }
}

impl Backup {
    /// The next bytes; none after the end. Do not drop the future before it answers: what it would have given is lost.
    ///
    /// # Errors
    /// The backup is cut: none of it may be used.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, BackupError> {
        match &self.stage {
            Stage::Reading(from) => {
                let from = from.clone();
                // What was told first: what is read is newer.
                let mut bytes = self.feed.take()?;
                let read = self.store.readers.scan(move |_, engine| part(engine, &from)).await?;
                bytes.extend(read.records);
                self.stage = read.next.map_or(Stage::Ending, Stage::Reading);
                Ok(Some(bytes))
            }
            Stage::Ending => {
                let feed = Arc::clone(&self.feed);
                let (bytes, point) = self.store.between(move |writer| writer.end_backup(&feed)).await??;
                self.stage = Stage::Ended(point);
                Ok(Some(bytes))
            }
            Stage::Ended(_) => Ok(None),
        }
    }

    /// Of what moment it is, once its last bytes were given.
    pub fn point(&self) -> Option<Point> {
        match &self.stage {
            Stage::Ended(point) => Some(*point),
            _ => None,
        }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        self.feed.cut(BackupError::Busy);
    }
}

impl Writer {
    fn begin_backup(&mut self, feed: Arc<Feed>) -> Result<(), BackupError> {
        if self.backup.as_ref().is_some_and(|backup| !backup.is_cut()) {
            return Err(BackupError::Busy);
        }
        self.backup = Some(feed);
        Ok(())
    }

    /// The last bytes: what was told and not yet read, and the end.
    fn end_backup(&mut self, feed: &Arc<Feed>) -> Result<(Vec<u8>, Point), BackupError> {
        let mut bytes = feed.take()?;
        self.backup = None;
        let tip = self.tip();
        let point = Point { mark: tip.mark(), root: tip.log_head().root, leases: tip.leases };
        records::end(&mut bytes, &point);
        Ok((bytes, point))
    }
}

/// What the writer has told a backup and its reader has not taken yet.
#[derive(Default)]
pub(crate) struct Feed(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    records: Vec<u8>,
    cut: Option<BackupError>,
}

impl Feed {
    /// Adds what a commit wrote; false when nobody reads it any more.
    pub(crate) fn tell(&self, records: &[u8]) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.cut.is_none() && waiting.records.len() + records.len() > WAITING_BYTES {
            waiting.cut = Some(BackupError::TooSlow);
        }
        if waiting.cut.is_some() {
            waiting.records = Vec::new();
            return false;
        }
        waiting.records.extend_from_slice(records);
        true
    }

    /// Ends it, if nothing has yet.
    pub(crate) fn cut(&self, why: BackupError) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cut.get_or_insert(why);
    }

    fn is_cut(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cut.is_some()
    }

    fn take(&self) -> Result<Vec<u8>, BackupError> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &waiting.cut {
            Some(why) => Err(why.clone()),
            None => Ok(std::mem::take(&mut waiting.records)),
        }
    }
}

struct Part {
    records: Vec<u8>,
    /// Where the next one begins; none after the last key.
    next: Option<Vec<u8>>,
}

/// What is there from a key on, as much as is read at a time.
fn part(engine: &Engine, from: &[u8]) -> Result<Part, StoreError> {
    let mut records = Vec::new();
    for entry in engine.scan(&[], from) {
        let (key, value) = entry?;
        records::put(&mut records, &key, &value);
        if records.len() >= PART_BYTES {
            // The key right after this one.
            return Ok(Part { records, next: Some([key.as_ref(), &[0]].concat()) });
        }
    }
    Ok(Part { records, next: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_the_writer_learns_that_nobody_reads() {
        let feed = Feed::default();
        let commit = vec![0; WAITING_BYTES / 4];
        assert!((0..4).all(|_| feed.tell(&commit)));
        assert_eq!(feed.take().map(|bytes| bytes.len()), Ok(WAITING_BYTES));
        assert!((0..4).all(|_| feed.tell(&commit)));
        assert!(!feed.tell(&[0]));
        assert_eq!((feed.take(), feed.is_cut()), (Err(BackupError::TooSlow), true));
        feed.cut(BackupError::Reopened);
        assert_eq!(feed.take(), Err(BackupError::TooSlow), "the first reason counts");
        assert!(!feed.tell(&[]));
    }
}
