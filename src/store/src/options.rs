//! What a store is opened with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::change::Mark;
use dayfly_core::limits::Limits;
use dayfly_core::ports::{Clock, Rng};

const MIB: u64 = 1024 * 1024;

/// What a [`crate::SledStore`] is opened with. [`Options::new`] has the defaults.
#[derive(Clone)]
pub struct Options {
    /// The store's folder: made when it does not exist, used when it is empty. It is made under another name beside
    /// itself and renamed, so it cannot be a mount point: name a folder below one.
    pub dir: PathBuf,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for ids and the salts of events.
    pub rng: Arc<dyn Rng>,
    /// Limits and named times.
    pub limits: Limits,
    /// What the witness last saw: a store behind it is refused. None where there is no witness, or it has seen nothing.
    pub expected: Option<Mark>,
    /// Accept a store behind its witness: a new incarnation, and a rule over everything issued before.
    pub accept_rollback: bool,
    /// How long an expired lease is kept, from its issue: 30 days.
    pub retention: Duration,
    /// How long an event of the log keeps its details: 400 days. Its leaf is kept for ever.
    pub detail_retention: Duration,
    /// How many leases are kept, the live ones always: 10 million.
    pub max_leases: u64,
    /// Free bytes on the disk below which nothing is issued: 64 MiB.
    pub reserve_bytes: u64,
    /// Free bytes on the disk below which no rule is written either: 16 MiB.
    pub rule_reserve_bytes: u64,
    /// sled's page cache, in bytes: 64 MiB.
    pub cache_bytes: u64,
    /// How many of the newest leases are kept in memory for reading, but for their bases: 65 536.
    pub recent_leases: usize,
    /// How many bases of the newest leases are known in memory: 32 768, at some 250 bytes each, and what is in them for
    /// reading, in at most as many times 1 152 bytes. Beyond it, a lease brings one that may be there already.
    pub recent_bases: usize,
    /// How many of the newest changes of leases are known in memory, for those who watch their own: 16 384, of 64 bytes.
    /// Who is further behind lists anew.
    pub news: usize,
    /// How many idempotency keys of the last minutes are known in memory, at some 30 bytes each: 5 million, which is
    /// 7 500 a second. Beyond it, nothing is issued for a new one.
    pub recent_keys: usize,
    /// How many live leases are counted for the caps, at 100 bytes each, or 240 where each is of a pod and a service account of its
    /// own: 4 million. Beyond it, nothing is issued.
    pub live_leases: usize,
    /// How many changes may wait for the writer: 4 096. Rules have room of their own beyond it.
    pub queue: usize,
}

impl Options {
    /// The defaults, for a store in `dir`.
    pub fn new(dir: impl Into<PathBuf>, clock: Arc<dyn Clock>, rng: Arc<dyn Rng>) -> Self {
        Self {
            dir: dir.into(),
            clock,
            rng,
            limits: Limits::default(),
            expected: None,
            accept_rollback: false,
            retention: Duration::from_secs(30 * 24 * 3600),
            detail_retention: Duration::from_secs(400 * 24 * 3600),
            max_leases: 10_000_000,
            reserve_bytes: 64 * MIB,
            rule_reserve_bytes: 16 * MIB,
            cache_bytes: 64 * MIB,
            recent_leases: 65_536,
            recent_bases: 32_768,
            news: 16_384,
            recent_keys: 5_000_000,
            live_leases: 4_000_000,
            queue: 4096,
        }
    }
}
