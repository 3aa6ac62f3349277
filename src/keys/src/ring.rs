//! The ring of signing keys.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use dayfly_core::change::SealedKey;
use dayfly_core::ids::{InstanceId, KeyId};
use dayfly_core::ports::{Clock, KeyUse, SignError, Signer, SigningKey};
use dayfly_core::secret::Secret;
use dayfly_core::time::Timestamp;
use dayfly_jose::{Jwk, JwkSet, KeyFailed};

use crate::kek::{KeyEncryption, OpenError, SealError};

/// Dayfly's signing keys, opened. Reading and signing take no lock.
///
/// Rotation has no schedule yet: nothing retires, and a key has no end.
pub struct KeyRing {
    instance: InstanceId,
    kek: Arc<dyn KeyEncryption>,
    clock: Arc<dyn Clock>,
    keys: ArcSwap<Keys>,
    /// Held while `keys` is replaced, so that no change is lost.
    changing: Mutex<()>,
}

/// Every use there is.
const USES: [KeyUse; 1] = [KeyUse::AccessToken];

/// The one `typ` that keys of a use sign, so that a key is never talked into another kind of token.
const fn typ_of(key_use: KeyUse) -> &'static str {
    match key_use {
        KeyUse::AccessToken => "at+jwt",
    }
}

#[derive(Clone)]
struct Keys {
    /// Oldest first.
    all: Vec<Held>,
    /// The published keys of each of [`USES`], as text.
    jwks: [Arc<str>; USES.len()],
}

#[derive(Clone)]
struct Held {
    pair: Arc<dayfly_jose::SigningKey>,
    key_use: KeyUse,
    stage: Stage,
}

/// A key's life, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Verifiers can have seen it; it does not sign yet.
    Published,
    /// It signs.
    Active,
    /// A newer key signs; what was prepared with this one is still signed.
    Superseded,
}

/// A key that has been made and is not in the ring yet: commit [`NewKey::sealed`] first, then [`KeyRing::publish`].
pub struct NewKey {
    sealed: SealedKey,
    key: dayfly_jose::SigningKey,
    key_use: KeyUse,
}

impl NewKey {
    /// What the store keeps of it.
    pub fn sealed(&self) -> &SealedKey {
        &self.sealed
    }
}

impl KeyRing {
    /// Opens the keys of this store, oldest first as it gives them. All are published; the newest of each use signs.
    ///
    /// # Errors
    /// When one does not open: sealed with another key-encryption key, changed, swapped with another's, or from
    /// another store.
    pub fn load(
        sealed: &[SealedKey],
        instance: InstanceId,
        kek: Arc<dyn KeyEncryption>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KeyError> {
        let mut sealed: Vec<&SealedKey> = sealed.iter().collect();
        sealed.sort_by_key(|key| key.created_at);
        let mut all: Vec<Held> = Vec::with_capacity(sealed.len());
        for sealed in sealed {
            let key = open(sealed, instance, kek.as_ref())?;
            for older in all.iter_mut().filter(|older| older.key_use == key.key_use) {
                older.stage = Stage::Superseded;
            }
            all.push(key);
        }
        let keys = ArcSwap::from_pointee(Keys::new(all));
        Ok(Self { instance, kek, clock, keys, changing: Mutex::new(()) })
    }

    /// A new key for this use, sealed, and not in the ring yet.
    ///
    /// # Errors
    /// When there is no randomness, or the key-encryption key does not seal.
    pub fn generate(&self, key_use: KeyUse) -> Result<NewKey, KeyError> {
        let key = dayfly_jose::SigningKey::generate()?;
        let mut sealed = SealedKey {
            id: key.key_id().clone(),
            purpose: key_use.name().to_owned(),
            generation: self.kek.generation(),
            created_at: self.clock.now(),
            public_jwk: key.public_jwk().to_json(),
            sealed: Vec::new(),
        };
        sealed.sealed = self.kek.seal(&associated_data(self.instance, &sealed), &key.to_pkcs8())?;
        Ok(NewKey { sealed, key, key_use })
    }

    /// Publishes a key whose sealed form the store has: it is in [`Signer::jwks`] from now on, and does not sign yet.
    pub fn publish(&self, new: NewKey) -> KeyId {
        let id = new.sealed.id;
        let key = Held { pair: Arc::new(new.key), key_use: new.key_use, stage: Stage::Published };
        self.change(|all| all.push(key));
        id
    }

    /// Lets a published key sign, instead of the one that did for its use.
    ///
    /// # Errors
    /// [`KeyError::NoSuchKey`].
    pub fn activate(&self, id: &KeyId) -> Result<(), KeyError> {
        self.change(|all| {
            let key_use = all.iter().find(|key| key.pair.key_id() == id).map(|key| key.key_use);
            let key_use = key_use.ok_or_else(|| KeyError::NoSuchKey(id.clone()))?;
            for key in all.iter_mut().filter(|key| key.key_use == key_use) {
                key.stage = match key.stage {
                    _ if key.pair.key_id() == id => Stage::Active,
                    Stage::Active => Stage::Superseded,
                    other => other,
                };
            }
            Ok(())
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Held>) -> T) -> T {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.keys.load().all.clone();
        let answer = change(&mut all);
        self.keys.store(Arc::new(Keys::new(all)));
        answer
    }
}

impl Keys {
    fn new(all: Vec<Held>) -> Self {
        let of_use = |key_use| {
            let keys: Vec<Jwk> = all
                .iter()
                .filter(|key| key.key_use == key_use)
                .map(|key| key.pair.public_jwk().clone())
                .collect();
            Arc::from(JwkSet { keys, skipped: 0 }.to_json())
        };
        Self { jwks: USES.map(of_use), all }
    }
}

impl Signer for KeyRing {
    fn current(&self, key_use: KeyUse) -> Result<SigningKey, SignError> {
        let keys = self.keys.load();
        let active = keys.all.iter().rfind(|key| key.key_use == key_use && key.stage == Stage::Active);
        let key = active.ok_or(SignError::NoKey)?;
        Ok(SigningKey { id: key.pair.key_id().clone(), not_after: None })
    }

    fn sign(&self, key: &KeyId, typ: &str, payload: &[u8]) -> Result<Secret, SignError> {
        let keys = self.keys.load();
        let signs = |kept: &&Held| {
            kept.pair.key_id() == key && kept.stage != Stage::Published && typ_of(kept.key_use) == typ
        };
        let kept = keys.all.iter().rfind(signs).ok_or(SignError::NoKey)?;
        kept.pair.sign_jws(typ, payload).map_err(|_| SignError::Failed)
    }

    fn jwks(&self, key_use: KeyUse) -> Arc<str> {
        let keys = self.keys.load();
        let of_use = USES.iter().zip(&keys.jwks).find(|(each, _)| **each == key_use);
        of_use.map_or_else(|| Arc::from(r#"{"keys":[]}"#), |(_, jwks)| Arc::clone(jwks))
    }
}

fn open(sealed: &SealedKey, instance: InstanceId, kek: &dyn KeyEncryption) -> Result<Held, KeyError> {
    let key_use = USES.into_iter().find(|key_use| key_use.name() == sealed.purpose);
    let key_use = key_use.ok_or_else(|| KeyError::UnknownPurpose {
        id: sealed.id.clone(),
        purpose: sealed.purpose.chars().take(80).collect(),
    })?;
    let does_not_open = |why| KeyError::DoesNotOpen { id: sealed.id.clone(), instance, why };
    let pkcs8 = kek
        .open(&associated_data(instance, sealed), sealed.generation, &sealed.sealed)
        .map_err(does_not_open)?;
    let key = dayfly_jose::SigningKey::from_pkcs8(&pkcs8)?;
    if *key.key_id() != sealed.id || key.public_jwk().to_json() != sealed.public_jwk {
        return Err(does_not_open(OpenError::Changed));
    }
    Ok(Held { pair: Arc::new(key), key_use, stage: Stage::Active })
}

/// What a sealed key is bound to. Every part has its length before it, so that no two keys have the same.
///
/// The time is in it because it says which key is the newest, and so which signs.
fn associated_data(instance: InstanceId, key: &SealedKey) -> Vec<u8> {
    let SealedKey { id, purpose, generation, created_at, public_jwk: _, sealed: _ } = key;
    let parts: [&[u8]; 6] = [
        b"dayfly sealed signing key v1",
        &instance.to_bytes(),
        purpose.as_bytes(),
        id.as_str().as_bytes(),
        &generation.to_be_bytes(),
        &Timestamp::as_millis(*created_at).to_be_bytes(),
    ];
    let mut out = Vec::new();
    for part in parts {
        out.extend((part.len() as u64).to_be_bytes());
        out.extend(part);
    }
    out
}

/// The key ring could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key of the store does not open.
    #[error("signing key {id} of store {instance} does not open: {why}")]
    DoesNotOpen {
        /// The key.
        id: KeyId,
        /// The store.
        instance: InstanceId,
        /// Why.
        why: OpenError,
    },
    /// A key is for something this version does not know.
    #[error(
        "signing key {id} is for {purpose:?}, which this version of dayfly does not know: was the store used by a newer one?"
    )]
    UnknownPurpose {
        /// The key.
        id: KeyId,
        /// What it is for.
        purpose: String,
    },
    /// A new key could not be sealed.
    #[error("a new signing key was not sealed: {0}")]
    Seal(#[from] SealError),
    /// A key could not be made, or what was opened is none.
    #[error(transparent)]
    Key(#[from] KeyFailed),
    /// No key of this id is published.
    #[error("there is no published signing key {0}")]
    NoSuchKey(KeyId),
}

#[cfg(test)]
mod tests;
