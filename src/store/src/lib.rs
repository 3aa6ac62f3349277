//! The embedded lease store: sled, one writer, durable before it answers.
//!
//! [`SledStore`] implements [`dayfly_core::ports::LeaseStore`]. One thread writes: it takes what has queued up, checks
//! each change in order against everything before it, applies all as one batch, syncs once, and answers. Reads come
//! from memory, or from a small pool of threads; sled is never called from an async worker.
//!
//! Start reading at `layout.rs` (what is where), then `runs.rs` and `bases.rs` (what a lease is made of),
//! then `group.rs` (what a commit does), then `writer.rs` (when).
//! `docs/decisions/sled-durability.md` says why sled is held the way it is, `docs/decisions/merkle-log.md` how the
//! audit log is kept.
//!
//! Another engine passes the same suite: `contract` (feature `contract`).

mod backup;
mod bases;
#[cfg(feature = "broken")]
pub mod broken;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod durable_sync;
mod engine;
mod error;
mod files;
mod forget;
mod group;
mod keys;
mod layout;
mod life;
mod list;
mod live;
mod log;
mod news;
mod options;
mod prune;
mod queue;
mod reader;
mod recent;
mod records;
mod restore;
mod rules;
mod runs;
mod shared;
mod store;
mod teardown;
mod time;
mod tip;
mod unwritten;
mod verify;
mod witness;
mod writer;

pub use backup::{Backup, BackupError, Point};
pub use error::OpenError;
pub use options::Options;
pub use restore::{Restore, RestoreError, Restored};
pub use store::SledStore;
pub use verify::{VerifyReport, verify, verify_against};
pub use witness::{FileWitness, replace as replace_file};

/// Whether this was built to be broken on purpose (feature `broken`).
pub const IS_BROKEN: bool = cfg!(feature = "broken");
