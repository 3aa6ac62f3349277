//! Backups: what the store gives, sealed with the key-encryption key, and told in the audit log before it is complete.

mod file;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dayfly_api::rejection::Rejection;
use dayfly_api::v1;
use dayfly_api::v1::ErrorReason;
use dayfly_core::audit::{Draft, EventKind};
use dayfly_core::change::{Change, Outcome};
use dayfly_core::digest::Digest;
use dayfly_core::ports::{Clock, LeaseStore, Rng, StoreError};
use dayfly_core::rule::Actor;
use dayfly_keys::{BackupSealer, FileKek, KekError, SealBackupError};
use dayfly_store::{Backup, BackupError, Point, SledStore};
use tonic::Status;

use crate::services::reject;

pub use file::BackupFile;

/// What backups are made of.
#[derive(Clone)]
pub(crate) struct Backups {
    pub(crate) store: Arc<SledStore>,
    pub(crate) kek_file: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupFailed {
    #[error(transparent)]
    Store(#[from] BackupError),
    #[error("the backup is taken and not written down in the audit log, so it does not count: {0}")]
    Note(StoreError),
    #[error("the key-encryption key that seals it: {0}")]
    Kek(#[from] KekError),
    #[error(transparent)]
    Seal(#[from] SealBackupError),
    #[error("{0}")]
    Failed(String),
}

/// A backup that is being taken, sealed. Dropped, it is given up.
pub(crate) struct SealedBackup {
    from: Backups,
    backup: Backup,
    by: Actor,
    digest: Digest,
    begin: Option<Vec<u8>>,
    sealer: Option<BackupSealer>,
}

/// A complete backup.
#[derive(Debug, Clone, Copy)]
pub struct BackupTaken {
    /// Of what moment it is.
    pub point: Point,
    /// What names it.
    pub digest: Digest,
}

impl Backups {
    /// Begins a backup for whoever may have one.
    pub(crate) async fn begin(&self, by: Actor) -> Result<SealedBackup, BackupFailed> {
        let (file, rng) = (self.kek_file.clone(), Arc::clone(&self.rng));
        let kek = tokio::task::spawn_blocking(move || FileKek::open(&file, rng)).await;
        let kek = kek.map_err(|error| BackupFailed::Failed(error.to_string()))??;
        let backup = self.store.backup().await?;
        let mark = self.store.mark();
        let (sealer, begin, digest) =
            BackupSealer::begin(&kek, self.rng.as_ref(), mark.instance, mark.incarnation, self.clock.now())?;
        Ok(SealedBackup { from: self.clone(), backup, by, digest, begin: Some(begin), sealer: Some(sealer) })
    }
}

impl SealedBackup {
    /// The next bytes of the file; none when it is complete. What the last ones say is in the audit log by then.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, BackupFailed> {
        if let Some(begin) = self.begin.take() {
            return Ok(Some(begin));
        }
        while let Some(sealer) = &mut self.sealer {
            let Some(bytes) = self.backup.next().await? else { break };
            let sealed = sealer.push(&bytes)?;
            if !sealed.is_empty() {
                return Ok(Some(sealed));
            }
        }
        let (Some(sealer), Some(point)) = (self.sealer.take(), self.backup.point()) else { return Ok(None) };
        let note = format!(
            "position {}, root {}, backup {}",
            point.mark.position,
            Digest::from_bytes(point.root),
            self.digest
        );
        let event = Draft::note(EventKind::BackupTaken, &self.by, note);
        match self.from.store.commit(Change::Note(Box::new(event))).await {
            Ok(Outcome::Committed(_)) => {}
            Ok(other) => {
                return Err(BackupFailed::Failed(format!("the store answered a note with {other:?}")));
            }
            Err(error) => return Err(BackupFailed::Note(error)),
        }
        tracing::info!(position = %point.mark.position, backup = %self.digest, by = %self.by, "a backup was taken");
        Ok(Some(sealer.finish()?))
    }

    /// What it is, once it is complete.
    pub(crate) fn taken(&self) -> Option<BackupTaken> {
        let point = self.backup.point().filter(|_| self.sealer.is_none())?;
        Some(BackupTaken { point, digest: self.digest })
    }
}

impl BackupTaken {
    /// As it is told.
    pub(crate) fn info(&self) -> v1::BackupInfo {
        let mark = self.point.mark;
        v1::BackupInfo {
            instance: mark.instance.to_string(),
            incarnation: mark.incarnation.0,
            position: mark.position.number(),
            root: self.point.root.to_vec(),
            leases: self.point.leases,
            digest: self.digest.as_bytes().to_vec(),
        }
    }
}

impl BackupFailed {
    /// As a caller is told; what only the log should have is logged here.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Store(BackupError::Store(error)) | Self::Note(error) => {
                reject::status(dayfly_broker::Error::from(error))
            }
            Self::Store(cut) => {
                tracing::warn!(%cut, "a backup was not taken");
                let again = Rejection::new(ErrorReason::BackupCut, cut.to_string());
                again.retry_after(Duration::from_secs(5)).into_status()
            }
            Self::Kek(_) | Self::Seal(_) | Self::Failed(_) => {
                tracing::error!(error = %self, "a backup was not taken");
                Rejection::new(
                    ErrorReason::Internal,
                    "the backup cannot be sealed: the broker's log says why",
                )
                .into_status()
            }
        }
    }
}
