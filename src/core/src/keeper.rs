//! The port to the lives of Dayfly's own signing keys: what they are, and the steps that operators may ask for.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::KeyId;
use crate::ports::{BoxFuture, StoreError};
use crate::rule::{Actor, Rule};
use crate::signing::{KeyPurpose, KeyStage};
use crate::time::Timestamp;

/// Keeps Dayfly's signing keys. Each step is durable before it is answered, and in effect.
pub trait KeyKeeper: Send + Sync + 'static {
    /// After how long at most verifiers ask for the published keys again.
    fn refresh(&self) -> Duration;
    /// Every key, oldest first; those that have retired or were revoked too.
    fn keys(&self) -> Vec<KeyState>;
    /// Makes a next key for this purpose, where there is none; with `now`, it signs at once, before verifiers that cache
    /// the published keys can know it.
    fn rotate<'a>(
        &'a self,
        purpose: &'a KeyPurpose,
        now: bool,
        by: &'a Actor,
    ) -> BoxFuture<'a, Result<KeyState, KeeperError>>;
    /// Ends this key at once, and all that it signed; where it was active, another signs in its place.
    fn revoke<'a>(
        &'a self,
        key: &'a KeyId,
        by: &'a Actor,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<RevokedKey, KeeperError>>;
}

/// A signing key as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyState {
    /// Its id: the `kid` of what it signs.
    pub id: KeyId,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Where it is in its life.
    pub stage: KeyStage,
    /// Since when.
    pub since: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on a next key signs.
    pub signs_from: Option<Timestamp>,
    /// Until when it signs, or did; none where no rotation is due.
    pub signs_until: Option<Timestamp>,
    /// Until when it is published, or was; none where no rotation is due.
    pub published_until: Option<Timestamp>,
    /// The generation of the key-encryption key that it is sealed with.
    pub generation: u32,
}

/// A key that was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedKey {
    /// The rule about all that it signed.
    pub rule: Arc<Rule>,
    /// What signs in its place, from now on.
    pub instead: Option<KeyState>,
    /// Whether it was active, so that where nothing signs in its place, nothing does until a key is imported.
    pub was_active: bool,
}

/// A key cannot take the step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeeperError {
    /// There is no such key.
    #[error("there is no signing key {0}")]
    NoSuchKey(KeyId),
    /// Nothing signs for this purpose.
    #[error("there is no signing key for {0}: see `dayfly keys list`")]
    NoSuchPurpose(KeyPurpose),
    /// Its stage, or that of others, does not allow it; the text says what to change.
    #[error("{0}")]
    Stage(String),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A defect, or the key-encryption key failed: for the log.
    #[error("{0}")]
    Failed(String),
}
