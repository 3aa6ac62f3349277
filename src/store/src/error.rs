//! Why a store was not opened.

use std::path::{Path, PathBuf};

use dayfly_core::change::Mark;
use dayfly_core::ports::StoreError;

/// A store was not opened. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "the store {} is in use by another process: only one broker may open it; stop that one, or give this one a folder of its own",
        dir.display()
    )]
    InUse {
        /// The store's folder.
        dir: PathBuf,
    },
    /// It is there, but what it must hold is not.
    #[error(
        "the store {} has lost its data ({why}): move the folder away and make the store from a backup (`dayfly store restore`), or begin anew, which forgets every lease and rule",
        dir.display()
    )]
    Lost {
        /// The store's folder.
        dir: PathBuf,
        /// What is missing.
        why: String,
    },
    /// It is older than, or another than, what the witness has seen.
    #[error(
        "the store {} is {}, but its witness has seen {}: an older copy was put in its place, or another store. Put the right one back; or accept this one with `dayfly serve --accept-rollback`, which revokes everything issued before",
        dir.display(), store.as_deref().map_or_else(|| "new".to_owned(), told), told(witness)
    )]
    Behind {
        /// The store's folder.
        dir: PathBuf,
        /// Where the store is; none where it is new.
        store: Option<Box<Mark>>,
        /// Where the witness has seen it.
        witness: Box<Mark>,
    },
    /// A newer version wrote it.
    #[error("the store {} has format {found}, this version of Dayfly reads up to {known}: use the version that wrote it, or a newer one", dir.display())]
    Format {
        /// The store's folder.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this version reads.
        known: u32,
    },
    /// sled did not sync through our `sync_file_range`.
    #[error(
        "the store cannot be made durable: sled did not call this program's sync_file_range, so nothing it writes would survive a power cut; this build is broken, use a released one on Linux with glibc"
    )]
    NotDurable,
    /// What it holds does not fit together.
    #[error("the store {} is damaged: {why}; ask `dayfly store verify` for more, or move the folder away and make the store from a backup (`dayfly store restore`)", dir.display())]
    Damaged {
        /// The store's folder.
        dir: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// A file could not be read or written.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// It opened, and its first commit failed.
    #[error("the store cannot write its first record: {0}")]
    Commit(#[from] StoreError),
}

impl OpenError {
    pub(crate) fn damaged(dir: &Path, why: impl Into<String>) -> Self {
        Self::Damaged { dir: dir.to_owned(), why: why.into() }
    }

    pub(crate) fn lost(dir: &Path, why: impl Into<String>) -> Self {
        Self::Lost { dir: dir.to_owned(), why: why.into() }
    }

    /// For `map_err`: what was being done, on which path.
    pub(crate) fn io(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let what = format!("cannot {what} {}", path.display());
        move |error| Self::Io { what, error }
    }
}

fn told(mark: &Mark) -> String {
    format!("instance {}, incarnation {}, position {}", mark.instance, mark.incarnation.0, mark.position)
}
