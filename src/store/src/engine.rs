//! sled, opened so that what it says is durable is durable, and so that its panics and errors stop here.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dayfly_core::ports::StoreError;
use prost::Message;
use sled::{Batch, Db, IVec};

use crate::durable_sync;
use crate::error::OpenError;
use crate::files::{self, Lock};

/// One value of sled's `segment_size`: with the default, more than a segment of log between two syncs can lose data.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;

/// An open sled database.
pub(crate) struct Engine {
    db: Db,
    dir: PathBuf,
    /// Odd while a flush is under way.
    flushes: AtomicU64,
    /// Failed syncs before it was opened: one more, at any time, and it cannot be trusted any more.
    failures: u64,
}

impl Engine {
    /// Opens the database in `dir`, which is made if it does not exist.
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, OpenError> {
        files::remove_unfinished_snapshots(dir)?;
        let failures = durable_sync::failures();
        let config = sled::Config::new()
            .path(dir)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(None)
            .cache_capacity(cache_bytes);
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
        let db = match opened {
            Ok(Ok(db)) => db,
            Ok(Err(sled::Error::Io(error))) if error.to_string().contains("could not acquire lock") => {
                return Err(OpenError::InUse { dir: dir.to_owned() });
            }
            Ok(Err(sled::Error::Io(error))) => return Err(OpenError::io("open the store", dir)(error)),
            Ok(Err(error)) => return Err(OpenError::damaged(dir, error.to_string())),
            Err(_) => return Err(OpenError::damaged(dir, "sled panicked while opening it")),
        };
        // Values are far below the size at which sled makes blob files, which it never syncs.
        if !files::is_empty(&dir.join("blobs"))? {
            return Err(OpenError::damaged(dir, "there are blob files, which this program never writes"));
        }
        files::sync_folder(dir)?;
        Ok(Self { db, dir: dir.to_owned(), flushes: AtomicU64::new(0), failures })
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        guarded(|| self.db.get(key))
    }

    /// A record, decoded.
    pub(crate) fn record<M: Message + Default>(&self, key: &[u8]) -> Result<Option<M>, StoreError> {
        let Some(value) = self.get(key)? else { return Ok(None) };
        M::decode(value.as_ref()).map(Some).map_err(|error| damaged(key, &error))
    }

    /// Keys and values from `from` on, as long as keys start with `prefix`.
    pub(crate) fn scan<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> Scan<'a> {
        Scan { inner: self.db.range(from.to_vec()..), prefix }
    }

    /// Keys and values under a prefix of one byte, from the last to the first.
    pub(crate) fn scan_back(
        &self,
        prefix: &[u8; 1],
    ) -> impl Iterator<Item = Result<(IVec, IVec), StoreError>> {
        let mut inner = self.db.range(prefix.to_vec()..vec![prefix[0] + 1]);
        std::iter::from_fn(move || guarded(|| inner.next_back().transpose()).transpose())
    }

    /// The last key and value that is not above `to`, if its key starts with `prefix`.
    pub(crate) fn last_up_to(&self, prefix: &[u8], to: &[u8]) -> Result<Option<(IVec, IVec)>, StoreError> {
        let found = guarded(|| self.db.range(prefix.to_vec()..=to.to_vec()).next_back().transpose())?;
        Ok(found.filter(|(key, _)| key.starts_with(prefix)))
    }

    /// Applies a batch and makes it durable. After an error nothing is known of what is on disk.
    pub(crate) fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        guarded(|| self.db.apply_batch(batch))?;
        self.flushes.fetch_add(1, Ordering::SeqCst);
        let flushed = guarded(|| self.db.flush());
        self.flushes.fetch_add(1, Ordering::SeqCst);
        flushed?;
        if durable_sync::failures() != self.failures {
            return Err(StoreError::Poisoned("a sync of its log failed".to_owned()));
        }
        Ok(())
    }

    /// The number of the flush that is under way.
    pub(crate) fn flushing(&self) -> Option<u64> {
        Some(self.flushes.load(Ordering::SeqCst)).filter(|flushes| flushes % 2 == 1)
    }

    /// Wakes a flush that sleeps through an error: where a write fails on one of sled's own threads, sled does not
    /// always wake who waits for it, but another flush sees the error and wakes all.
    pub(crate) fn nudge(&self) {
        let _ = guarded(|| self.db.flush());
    }

    /// Closes the database and waits until its lock is free.
    pub(crate) fn close(self) {
        let Self { db, dir, .. } = self;
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!(dir = %dir.display(), "sled panicked while closing");
        }
        // sled's own threads may hold the file for a moment longer.
        for _ in 0..500 {
            match Lock::state(&dir) {
                Lock::Held => std::thread::sleep(Duration::from_millis(10)),
                Lock::Free | Lock::None => return,
            }
        }
        tracing::warn!(dir = %dir.display(), "sled still holds its lock after closing");
    }
}

/// Keys and values under a prefix, ascending.
pub(crate) struct Scan<'a> {
    inner: sled::Iter,
    prefix: &'a [u8],
}

impl Iterator for Scan<'_> {
    type Item = Result<(IVec, IVec), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        match guarded(|| self.inner.next().transpose()) {
            Ok(Some((key, _))) if !key.starts_with(self.prefix) => None,
            found => found.transpose(),
        }
    }
}

/// Runs sled; its errors and panics both poison.
fn guarded<T>(run: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(StoreError::Poisoned(error.to_string())),
        Err(_) => Err(StoreError::Poisoned("sled panicked".to_owned())),
    }
}

/// A record under this key does not decode.
pub(crate) fn damaged(key: &[u8], why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("the record {} does not read back: {why}", key.escape_ascii()))
}

/// Makes a database in a folder that has none, under a temporary name: `fill` writes its first records. It is under
/// its own name only once everything in it is durable.
pub(crate) fn create(
    dir: &Path,
    temporary: &Path,
    cache_bytes: u64,
    fill: impl FnOnce(&Engine) -> Result<(), StoreError>,
) -> Result<(), OpenError> {
    let engine = Engine::open(temporary, cache_bytes)?;
    let filled = fill(&engine);
    engine.close();
    filled?;
    give_name(dir, temporary)
}

/// Makes all of a closed database durable, and gives it its name.
pub(crate) fn give_name(dir: &Path, temporary: &Path) -> Result<(), OpenError> {
    for file in ["conf", "db"] {
        files::sync_file(&temporary.join(file))?;
    }
    files::sync_folder(&temporary.join("blobs"))?;
    files::sync_folder(temporary)?;
    fs::rename(temporary, dir).map_err(OpenError::io(
        "give the new store its name (a folder that is a mount point cannot be one: name a folder below it)",
        dir,
    ))?;
    files::sync_folder(&files::parent(dir))
}
