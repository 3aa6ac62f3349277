//! Checkpoints of the audit log: one that covers what an operator did, before it is answered; and one on demand.
//!
//! The newest one is for anyone to read. That one is made now is asked for by operators: it takes `create` on
//! `checkpoints`, and where several clusters are served it is for operators of the home cluster.

use std::time::Duration;

use dayfly_core::checkpoint::Checkpoint;
use dayfly_core::note::{SignedNote, VerifierKey};

use crate::operator::By;
use crate::{Broker, Error, Reason};

/// A checkpoint that covers all that was recorded when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeCheckpoint {
    /// The checkpoint, signed.
    pub note: SignedNote,
    /// The keys that checkpoints are verified with, newest first.
    pub keys: Vec<VerifierKey>,
}

impl Broker {
    /// Makes and publishes a checkpoint of the log as it is now, where the newest one does not cover it.
    ///
    /// # Errors
    /// When the operator may not, or it is not published in a few seconds.
    pub async fn make_checkpoint<'a>(&'a self, by: impl Into<By<'a>>) -> Result<MadeCheckpoint, Error> {
        let operator = self.operator(by).await?;
        let may = operator.at_home("create", "checkpoints", None).await;
        self.noted(&operator, may)?;
        let position = self.store.mark().position;
        self.checkpoints.cover(position).await;
        let covers = |note: &SignedNote| {
            let made: Option<Checkpoint> = note.text.parse().ok();
            made.is_some_and(|made| made.head.size >= position.number())
        };
        match self.checkpoints.latest().filter(covers) {
            Some(note) => Ok(MadeCheckpoint { note, keys: self.checkpoints.keys() }),
            None => Err(Error::Unavailable {
                reason: Reason::CheckpointUnavailable,
                message: "no checkpoint could be made now: the broker's log says why, and it is tried again"
                    .to_owned(),
                cause: "a checkpoint that was asked for was not made in time".to_owned(),
                retry_after: Duration::from_secs(5),
            }),
        }
    }

    /// Waits, for a short while, until a checkpoint covers all that is recorded now.
    pub(crate) async fn prove(&self) {
        self.checkpoints.cover(self.store.mark().position).await;
    }
}
