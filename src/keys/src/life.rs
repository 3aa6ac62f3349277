//! The lives of the signing keys: which step is due, and taking it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dayfly_core::change::{Change, Conflict, KeyChange, KeyStep, Outcome, Receipt, SealedKey};
use dayfly_core::ids::KeyId;
use dayfly_core::keeper::{KeeperError, KeyKeeper, KeyState, RevokedKey};
use dayfly_core::ports::{BoxFuture, Clock, LeaseStore, Rng, StoreError};
use dayfly_core::rule::Actor;
use dayfly_core::secret::Secret;
use dayfly_core::signing::{KeyPurpose, KeyStage, RETIRING, TargetRef};
use dayfly_core::time::Timestamp;
use tokio::sync::Mutex;

use crate::ring::InRing;
use crate::sessions::SESSION_KEYS;
use crate::{FileKek, KeyEncryption as _, KeyError, KeyRing};

/// Why a copy's keys of operators' sessions are revoked.
const REPLACED: &str = "the store is a copy that is not adopted: it may not know that this key was revoked";

/// When keys go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// How long a key that Dayfly makes signs.
    pub rotate: Duration,
    /// How long a next key is published, at least, before it signs: by the monotonic clock, and by this process.
    pub publish_before: Duration,
}

impl Schedule {
    /// After how long verifiers are to ask for the published keys again: they have asked twice before a next key signs.
    pub fn refresh(&self) -> Duration {
        Duration::from_secs((self.publish_before.as_secs() / 2).clamp(1, 300))
    }
}

/// Takes the steps of the keys' lives, one at a time: each is committed, and then in effect.
///
/// Everything that is due follows from what the store has, so a start goes on where an end came, however it came.
pub struct KeyLife(Arc<Life>);

struct Life {
    ring: Arc<KeyRing>,
    store: Arc<dyn LeaseStore>,
    clock: Arc<dyn Clock>,
    schedule: Schedule,
    /// What Dayfly makes keys for.
    purposes: Vec<KeyPurpose>,
    /// Where successors of the key-encryption key come.
    kek: Option<(PathBuf, Arc<dyn Rng>)>,
    one_at_a_time: Mutex<()>,
    /// A commit was not answered, so the store may be ahead of the ring.
    behind: AtomicBool,
}

/// A step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// The ring could not make it.
    #[error(transparent)]
    Ring(#[from] KeyError),
    /// The store did not commit it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys were elsewhere than the step is from.
    #[error("{0}")]
    Conflict(#[from] Conflict),
    /// The store answered what it does not answer to a step.
    #[error("the store answered a step of a signing key with {0}")]
    Unexpected(String),
    /// A successor of the key-encryption key cannot be used.
    #[error(transparent)]
    Kek(#[from] crate::KekError),
}

impl KeyLife {
    /// The lives of this ring's keys. Of `purposes` there is a key that signs after [`KeyLife::go_on`], whatever there was.
    /// Successors of the key-encryption key are used when they come, where it is said how they are read.
    pub fn new(
        ring: Arc<KeyRing>,
        store: Arc<dyn LeaseStore>,
        clock: Arc<dyn Clock>,
        schedule: Schedule,
        purposes: Vec<KeyPurpose>,
        kek: Option<(PathBuf, Arc<dyn Rng>)>,
    ) -> Self {
        let (one_at_a_time, behind) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Life { ring, store, clock, schedule, purposes, kek, one_at_a_time, behind }))
    }

    /// Takes every step that is due, and says how many those were.
    ///
    /// # Errors
    /// The first that was not taken; those before it were.
    pub async fn go_on(&self) -> Result<usize, LifeError> {
        self.0.go_on().await
    }

    /// Revokes the keys of operators' sessions that a copy of a store came with: whoever has one of them has rights by it,
    /// and nobody outside knows them. Others sign instead.
    ///
    /// # Errors
    /// When one is still believed.
    pub async fn replace_session_keys(&self) -> Result<(), KeeperError> {
        let of_sessions = |key: &KeyState| key.purpose == SESSION_KEYS && key.stage.is_published();
        for key in self.0.states().into_iter().filter(of_sessions) {
            self.0.revoke_now(&key.id, &Actor::dayfly(), REPLACED).await?;
        }
        Ok(())
    }

    /// Seals an imported key into the store: the next one of its target, or the first, which signs at once.
    ///
    /// # Errors
    /// When it is not taken, or not committed. Nothing was imported then.
    pub async fn import(&self, pem: &Secret, only: TargetRef) -> Result<KeyState, LifeError> {
        self.0.import(pem, only).await
    }
}

impl Life {
    async fn go_on(&self) -> Result<usize, LifeError> {
        let _one_at_a_time = self.one_at_a_time.lock().await;
        self.catch_up().await?;
        let mut taken = 0;
        // Each step makes others due, and none makes itself due again.
        while let Some(step) = self.due()? {
            tell(&step);
            self.take(step, &Actor::dayfly()).await?;
            taken += 1;
        }
        taken += self.reseal().await?;
        Ok(taken)
    }

    async fn import(&self, pem: &Secret, only: TargetRef) -> Result<KeyState, LifeError> {
        let _one_at_a_time = self.one_at_a_time.lock().await;
        let step = self.ring.import(pem, only)?;
        let id = first_of(&step).id.clone();
        self.take(step, &Actor::dayfly()).await?;
        self.state_of(&id).ok_or(LifeError::Ring(KeyError::NoSuchKey(id)))
    }

    /// The step that is due first.
    fn due(&self) -> Result<Option<KeyStep>, KeyError> {
        let (keys, now) = (self.ring.published(), self.clock.now());
        for key in &keys {
            let ripe = match key.stage {
                KeyStage::Next if key.published_for >= self.schedule.publish_before => {
                    Some(self.ring.activate(&key.id))
                }
                KeyStage::Retiring if now >= key.since.plus(RETIRING) => Some(self.ring.retire(&key.id)),
                _ => None,
            };
            if let Some(step) = ripe {
                return step.map(Some);
            }
        }
        for purpose in &self.purposes {
            let of = |stage| keys.iter().find(|key| key.purpose == *purpose && key.stage == stage);
            let is_due = match (of(KeyStage::Active), of(KeyStage::Next)) {
                (_, Some(_)) => false,
                (None, None) => true,
                (Some(active), None) => now >= self.next_at(active.since),
            };
            if !is_due {
                continue;
            }
            match self.ring.generate(purpose) {
                // By commands alone: the one that signs goes on signing until there is room.
                Err(KeyError::TooMany) if of(KeyStage::Active).is_some() => {}
                other => return other.map(Some),
            }
        }
        Ok(None)
    }

    /// When the next key is to be published, after one that is active since then.
    fn next_at(&self, since: Timestamp) -> Timestamp {
        since.plus(self.schedule.rotate.saturating_sub(self.schedule.publish_before))
    }

    /// Seals again what is sealed with an older generation of the key-encryption key, once there is a newer one.
    async fn reseal(&self) -> Result<usize, LifeError> {
        if let Some((file, rng)) = &self.kek
            && FileKek::newest_at(file)? > self.ring.generation()
        {
            let kek = FileKek::open(file, Arc::clone(rng))?;
            tracing::info!(key = %kek.id(), "generation {} of the key-encryption key is there", kek.generation());
            self.ring.use_kek(Arc::new(kek));
        }
        let newest = self.ring.generation();
        let older: Vec<_> = self.ring.published().into_iter().filter(|key| key.generation < newest).collect();
        for key in &older {
            let step = self.ring.reseal(&key.id)?;
            self.take(step, &Actor::dayfly()).await?;
        }
        if !older.is_empty() {
            tracing::info!(
                "{} signing keys are sealed again with generation {newest}: earlier ones are not needed any more",
                older.len()
            );
        }
        Ok(older.len())
    }

    /// Commits a step; then it is in effect.
    async fn take(&self, step: KeyStep, by: &Actor) -> Result<Receipt, LifeError> {
        let change = KeyChange { step, by: by.clone() };
        let committed = self.store.commit(Change::Key(Box::new(change.clone()))).await;
        let receipt = match committed {
            Ok(Outcome::Committed(receipt)) => receipt,
            Ok(other) => {
                self.behind.store(true, Ordering::Relaxed);
                return Err(match other {
                    Outcome::Conflict(conflict) => conflict.into(),
                    other => LifeError::Unexpected(format!("{other:?}")),
                });
            }
            // It may be found after the store was reopened.
            Err(error) => {
                self.behind.store(true, Ordering::Relaxed);
                return Err(error.into());
            }
        };
        self.ring.apply(&change.step).inspect_err(|_| self.behind.store(true, Ordering::Relaxed))?;
        Ok(receipt)
    }

    /// After a commit that was not answered, the ring is what the store has.
    async fn catch_up(&self) -> Result<(), LifeError> {
        if self.behind.load(Ordering::Relaxed) {
            self.ring.reload(&self.store.keys().await?)?;
            self.behind.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn states(&self) -> Vec<KeyState> {
        let (published, now) = (self.ring.published(), self.clock.now());
        let state = |record: SealedKey| self.state(&record, &published, now);
        self.ring.records().into_iter().filter_map(state).collect()
    }

    fn state_of(&self, id: &KeyId) -> Option<KeyState> {
        self.states().into_iter().find(|state| state.id == *id)
    }

    fn state(&self, record: &SealedKey, published: &[InRing], now: Timestamp) -> Option<KeyState> {
        let purpose: KeyPurpose = record.purpose.parse().ok()?;
        let signs_from =
            |next: &InRing| now.plus(self.schedule.publish_before.saturating_sub(next.published_for));
        let next = published.iter().find(|key| key.purpose == purpose && key.stage == KeyStage::Next);
        let made_here = self.purposes.contains(&purpose);
        let scheduled = made_here.then(|| record.since.plus(self.schedule.rotate).max(now));
        let (signs_until, published_until) = match record.stage {
            KeyStage::Next => (None, None),
            KeyStage::Active => {
                let until = next.map(signs_from).or(scheduled);
                (until, until.map(|until| until.plus(RETIRING)))
            }
            KeyStage::Retiring => (Some(record.since), Some(record.since.plus(RETIRING))),
            KeyStage::Retired | KeyStage::Revoked => (Some(record.since), Some(record.since)),
        };
        Some(KeyState {
            id: record.id.clone(),
            stage: record.stage,
            since: record.since,
            created_at: record.created_at,
            signs_from: next.filter(|next| next.id == record.id).map(signs_from),
            signs_until,
            published_until,
            generation: record.generation,
            purpose,
        })
    }

    async fn rotate_now(&self, purpose: &KeyPurpose, now: bool, by: &Actor) -> Result<KeyState, KeeperError> {
        let _one_at_a_time = self.one_at_a_time.lock().await;
        self.catch_up().await?;
        let keys = self.ring.published();
        let of = |stage| keys.iter().find(|key| key.purpose == *purpose && key.stage == stage);
        if of(KeyStage::Active).is_none() && !self.purposes.contains(purpose) {
            return Err(KeeperError::NoSuchPurpose(purpose.clone()));
        }
        let next = match of(KeyStage::Next) {
            Some(next) => next.id.clone(),
            None if purpose.algorithm.is_imported() => {
                let target = purpose.only.as_ref().map(ToString::to_string).unwrap_or_default();
                return Err(KeeperError::Stage(format!(
                    "Dayfly makes no {} keys: `dayfly keys import FILE --target {target}` brings the next one",
                    purpose.algorithm
                )));
            }
            None => {
                let step = self.ring.generate(purpose)?;
                let id = first_of(&step).id.clone();
                self.take(step, by).await?;
                id
            }
        };
        let state = || self.state_of(&next).ok_or_else(|| KeeperError::NoSuchKey(next.clone()));
        if now && state()?.stage == KeyStage::Next {
            let step = self.ring.activate(&next)?;
            self.take(step, by).await?;
        }
        state()
    }

    async fn revoke_now(&self, id: &KeyId, by: &Actor, reason: &str) -> Result<RevokedKey, KeeperError> {
        let _one_at_a_time = self.one_at_a_time.lock().await;
        self.catch_up().await?;
        let Some(before) = self.state_of(id) else { return Err(KeeperError::NoSuchKey(id.clone())) };
        if !before.stage.is_published() {
            return Err(KeeperError::Stage(format!(
                "{id} is {} since {}: it is not published, and nothing that it signed is good",
                before.stage, before.since
            )));
        }
        let step = self.ring.revoke(id, reason)?;
        let instead = step.keys().nth(1).map(|key| key.id.clone());
        self.ring.stop(id);
        let receipt = match self.take(step, by).await {
            Ok(receipt) => receipt,
            Err(error) => {
                // Where it was not revoked, it signs on; where that is not to be known, not before it is.
                self.catch_up().await?;
                return Err(error.into());
            }
        };
        let rule = receipt.rule.ok_or_else(|| {
            KeeperError::Failed("the store committed a key's revocation and told no rule".to_owned())
        })?;
        let instead = instead.and_then(|id| self.state_of(&id));
        Ok(RevokedKey { rule, instead, was_active: before.stage == KeyStage::Active })
    }
}

impl KeyKeeper for KeyLife {
    fn refresh(&self) -> Duration {
        self.0.schedule.refresh()
    }

    fn keys(&self) -> Vec<KeyState> {
        self.0.states()
    }

    fn rotate<'a>(
        &'a self,
        purpose: &'a KeyPurpose,
        now: bool,
        by: &'a Actor,
    ) -> BoxFuture<'a, Result<KeyState, KeeperError>> {
        let (life, purpose, by) = (Arc::clone(&self.0), purpose.clone(), by.clone());
        Box::pin(whole(async move { life.rotate_now(&purpose, now, &by).await }))
    }

    fn revoke<'a>(
        &'a self,
        key: &'a KeyId,
        by: &'a Actor,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<RevokedKey, KeeperError>> {
        let (life, key, by, reason) = (Arc::clone(&self.0), key.clone(), by.clone(), reason.to_owned());
        Box::pin(whole(async move { life.revoke_now(&key, &by, &reason).await }))
    }
}

/// Goes on when whoever asked is gone: a step that is committed is in effect too.
async fn whole<T: Send + 'static>(
    steps: impl Future<Output = Result<T, KeeperError>> + Send + 'static,
) -> Result<T, KeeperError> {
    tokio::spawn(steps).await.unwrap_or_else(|failed| Err(KeeperError::Failed(failed.to_string())))
}

impl From<KeyError> for KeeperError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::TooMany | KeyError::NextAlready { .. } => Self::Stage(error.to_string()),
            KeyError::NoSuchKey(id) => Self::NoSuchKey(id),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<LifeError> for KeeperError {
    fn from(error: LifeError) -> Self {
        match error {
            LifeError::Ring(error) => error.into(),
            LifeError::Store(error) => Self::Store(error),
            other => Self::Failed(other.to_string()),
        }
    }
}

fn first_of(step: &KeyStep) -> &SealedKey {
    let (KeyStep::Add(key)
    | KeyStep::Retire(key)
    | KeyStep::Reseal(key)
    | KeyStep::Activate { key, .. }
    | KeyStep::Revoke { key, .. }) = step;
    key
}

fn tell(step: &KeyStep) {
    let SealedKey { id, purpose, stage, .. } = first_of(step);
    tracing::info!(key = %id, %purpose, %stage, "a signing key goes on");
}

#[cfg(test)]
mod tests;
