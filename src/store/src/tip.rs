//! The writer's own state: where the store is, as of its last commit.

use std::sync::Arc;

use dayfly_core::change::{LogHead, Mark};
use dayfly_core::ids::{Incarnation, InstanceId, LeaseId, Position, StartNumber};
use dayfly_core::ports::StoreError;
use dayfly_core::rules::RuleSet;
use dayfly_core::teardown::Teardowns;
use dayfly_core::time::Timestamp;

use crate::engine::{Engine, damaged};
use crate::layout::{self, Header, Progress};
use crate::log::{Log, TILE};
use crate::{rules, teardown};

/// Where the store is.
pub(crate) struct Tip {
    pub(crate) instance: InstanceId,
    pub(crate) incarnation: Incarnation,
    /// Where it was restored, as long as it is not adopted.
    pub(crate) restored_at: Option<Position>,
    pub(crate) start: StartNumber,
    pub(crate) clean: bool,
    pub(crate) position: Position,
    pub(crate) highest: LeaseId,
    pub(crate) latest_expiry: Timestamp,
    pub(crate) leases: u64,
    pub(crate) pruned: Option<LeaseId>,
    pub(crate) reopened: u64,
    /// Details of events up to here are forgotten.
    pub(crate) forgotten: Position,
    pub(crate) log: Log,
    pub(crate) rules: Arc<RuleSet>,
    pub(crate) teardowns: Arc<Teardowns>,
    /// Rules that are folded away, whose teardowns are still recorded.
    pub(crate) folded_teardowns: Vec<Position>,
}

/// Why there is no tip to be had.
pub(crate) enum NoTip {
    /// A record that every store has is not there.
    Lost(&'static str),
    /// The store was written by a newer version.
    Format(u32),
    /// It does not read.
    Failed(StoreError),
}

impl From<StoreError> for NoTip {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl Tip {
    /// A store that has nothing yet.
    pub(crate) fn new(instance: InstanceId) -> Self {
        Self {
            instance,
            incarnation: Incarnation(1),
            restored_at: None,
            start: StartNumber(0),
            clean: true,
            position: Position::ZERO,
            highest: LeaseId::from_u128(0),
            latest_expiry: Timestamp::default(),
            leases: 0,
            pruned: None,
            reopened: 0,
            forgotten: Position::ZERO,
            log: Log::default(),
            rules: Arc::default(),
            teardowns: Arc::default(),
            folded_teardowns: Vec::new(),
        }
    }

    /// What the store holds. Takes no scan of leases or events.
    pub(crate) fn load(engine: &Engine) -> Result<Self, NoTip> {
        let header: Header =
            engine.record(layout::HEADER)?.ok_or(NoTip::Lost("its header record is missing"))?;
        if header.format > layout::FORMAT {
            return Err(NoTip::Format(header.format));
        }
        let progress: Progress =
            engine.record(layout::PROGRESS)?.ok_or(NoTip::Lost("its progress record is missing"))?;
        let log = Log::load(engine, progress.position)?;
        if log.frontier_bytes() != progress.frontier {
            return Err(
                StoreError::Damaged(format!(
                    "the audit log does not add up to its frontier: of events {} to {}, or of the tiles before, something was changed",
                    progress.position - progress.position % TILE as u64 + 1,
                    progress.position
                ))
                .into()
            );
        }
        let pruned =
            if progress.pruned.is_empty() { None } else { Some(id(layout::PROGRESS, &progress.pruned)?) };
        let rules = rules::load(engine)?;
        let (teardowns, folded_teardowns) = teardown::load(engine, &rules)?;
        Ok(Self {
            instance: InstanceId::from_bytes(id(layout::HEADER, &header.instance)?.to_bytes()),
            incarnation: Incarnation(header.incarnation),
            restored_at: Some(Position::new(header.restored_at)).filter(|at| *at > Position::ZERO),
            start: StartNumber(progress.start),
            clean: progress.clean,
            position: Position::new(progress.position),
            highest: id(layout::PROGRESS, &progress.highest)?,
            latest_expiry: Timestamp::from_millis(progress.latest_expiry),
            leases: progress.leases,
            pruned,
            reopened: progress.reopened,
            forgotten: Position::new(progress.forgotten),
            log,
            rules: Arc::new(rules),
            teardowns: Arc::new(teardowns),
            folded_teardowns,
        })
    }

    pub(crate) fn header(&self) -> Header {
        Header {
            format: layout::FORMAT,
            instance: self.instance.to_bytes().to_vec(),
            incarnation: self.incarnation.0,
            restored_at: self.restored_at.map_or(0, Position::number),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress {
            position: self.position.number(),
            highest: self.highest.to_bytes().to_vec(),
            latest_expiry: self.latest_expiry.as_millis(),
            frontier: self.log.frontier_bytes(),
            start: self.start.0,
            clean: self.clean,
            leases: self.leases,
            pruned: self.pruned.map(|id| id.to_bytes().to_vec()).unwrap_or_default(),
            reopened: self.reopened,
            forgotten: self.forgotten.number(),
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            instance: self.instance,
            incarnation: self.incarnation,
            position: self.position,
            highest: self.highest,
        }
    }

    pub(crate) fn log_head(&self) -> LogHead {
        LogHead { size: self.log.frontier().size(), root: self.log.frontier().root() }
    }
}

fn id(key: &[u8], bytes: &[u8]) -> Result<LeaseId, StoreError> {
    bytes.try_into().map(LeaseId::from_bytes).map_err(|_| damaged(key, &"an id is not 16 bytes"))
}
