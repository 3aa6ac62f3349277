//! The ring of signing keys.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use dayfly_core::change::SealedKey;
use dayfly_core::ids::{InstanceId, KeyId, TrustDomain};
use dayfly_core::ports::{Clock, KeyFor, KeyUse, SignError, Signer, SigningAlgorithm, SigningKey, TargetRef};
use dayfly_core::secret::Secret;
use dayfly_core::signing::KeyPurpose;
use dayfly_core::time::Timestamp;
use dayfly_jose::{Alg, ImportError, Jwk, JwkSet, KeyFailed, MAX_JWKS_KEYS};

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

/// After how many seconds verifiers should ask for a bundle again: a new key is published long before it signs.
const REFRESH_HINT_SECS: u32 = 300;

#[derive(Clone)]
struct Keys {
    /// Oldest first, and of one moment by their ids.
    all: Vec<Held>,
    /// The published keys of each use that has any, as text.
    published: Vec<(KeyUse, Arc<str>)>,
}

#[derive(Clone)]
struct Held {
    pair: Arc<dayfly_jose::SigningKey>,
    purpose: KeyPurpose,
    created_at: Timestamp,
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
    purpose: KeyPurpose,
}

impl NewKey {
    /// What the store keeps of it.
    pub fn sealed(&self) -> &SealedKey {
        &self.sealed
    }
}

impl KeyRing {
    /// Opens the keys of this store, oldest first as it gives them. All are published; the newest of each
    /// purpose signs.
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
        sealed.sort_by_key(|key| (key.created_at, &key.id));
        let mut all: Vec<Held> = Vec::with_capacity(sealed.len());
        for sealed in sealed {
            let key = open(sealed, instance, kek.as_ref())?;
            for older in all.iter_mut().filter(|older| older.purpose == key.purpose) {
                older.stage = Stage::Superseded;
            }
            all.push(key);
        }
        let keys = ArcSwap::from_pointee(Keys::new(all));
        Ok(Self { instance, kek, clock, keys, changing: Mutex::new(()) })
    }

    /// A new key for this use and algorithm, sealed, and not in the ring yet.
    ///
    /// # Errors
    /// When there is no randomness, the key-encryption key does not seal, or such keys are only imported.
    pub fn generate(&self, key_use: KeyUse, algorithm: SigningAlgorithm) -> Result<NewKey, KeyError> {
        let key = dayfly_jose::SigningKey::generate_for(alg_of(algorithm))?;
        self.seal(key, KeyPurpose::of(key_use, algorithm))
    }

    /// An RSA key from PEM for one target, sealed, and not in the ring yet.
    ///
    /// # Errors
    /// When it is no key that is taken, it is in the ring already, for this target or another, there are as many
    /// as verifiers take ([`MAX_JWKS_KEYS`]), or the key-encryption key does not seal.
    pub fn import(&self, pem: &Secret, only: TargetRef) -> Result<NewKey, KeyError> {
        let key = dayfly_jose::SigningKey::import_rsa(pem)?;
        let keys = self.keys.load();
        if let Some(held) = keys.all.iter().find(|held| held.pair.key_id() == key.key_id()) {
            let (id, purpose) = (key.key_id().clone(), held.purpose.to_string());
            return Err(KeyError::KnownAlready { id, purpose });
        }
        let published = keys.all.iter().filter(|held| held.purpose.key_use == KeyUse::AccessToken).count();
        if published >= MAX_JWKS_KEYS {
            return Err(KeyError::TooMany);
        }
        self.seal(key, KeyPurpose::imported(only))
    }

    fn seal(&self, key: dayfly_jose::SigningKey, purpose: KeyPurpose) -> Result<NewKey, KeyError> {
        let mut sealed = SealedKey {
            id: key.key_id().clone(),
            purpose: purpose.to_string(),
            generation: self.kek.generation(),
            created_at: self.clock.now(),
            public_jwk: key.public_jwk().to_json(),
            sealed: Vec::new(),
        };
        sealed.sealed = self.kek.seal(&associated_data(self.instance, &sealed), &key.to_der())?;
        Ok(NewKey { sealed, key, purpose })
    }

    /// Whether a key signs for this use and algorithm, of those that Dayfly makes itself.
    pub fn signs(&self, key_use: &KeyUse, algorithm: SigningAlgorithm) -> bool {
        let purpose = KeyPurpose::of(key_use.clone(), algorithm);
        self.keys.load().all.iter().any(|key| key.purpose == purpose && key.stage == Stage::Active)
    }

    /// Publishes a key whose sealed form the store has: it is in [`Signer::jwks`] from now on, and does not sign yet.
    pub fn publish(&self, new: NewKey) -> KeyId {
        let NewKey { sealed, key, purpose } = new;
        let held =
            Held { pair: Arc::new(key), purpose, created_at: sealed.created_at, stage: Stage::Published };
        self.change(|all| all.push(held));
        sealed.id
    }

    /// Lets a published key sign, instead of the one that did for its purpose.
    ///
    /// # Errors
    /// [`KeyError::NoSuchKey`].
    pub fn activate(&self, id: &KeyId) -> Result<(), KeyError> {
        self.change(|all| {
            let purpose = all.iter().find(|key| key.pair.key_id() == id).map(|key| key.purpose.clone());
            let purpose = purpose.ok_or_else(|| KeyError::NoSuchKey(id.clone()))?;
            for key in all.iter_mut().filter(|key| key.purpose == purpose) {
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
    fn new(mut all: Vec<Held>) -> Self {
        // The same set is the same text, before a restart and after it.
        all.sort_by(|one, other| {
            (one.created_at, one.pair.key_id()).cmp(&(other.created_at, other.pair.key_id()))
        });
        let mut uses: Vec<&KeyUse> = vec![&KeyUse::AccessToken];
        for key in &all {
            if !uses.contains(&&key.purpose.key_use) {
                uses.push(&key.purpose.key_use);
            }
        }
        let published = uses.into_iter().map(|key_use| (key_use.clone(), published(key_use, &all))).collect();
        Self { all, published }
    }
}

fn published(key_use: &KeyUse, all: &[Held]) -> Arc<str> {
    let of_use = || all.iter().filter(|key| key.purpose.key_use == *key_use);
    let keys: Vec<Jwk> = of_use().map(|key| key.pair.public_jwk().clone()).collect();
    let set = JwkSet { keys, skipped: 0 };
    Arc::from(match key_use {
        KeyUse::AccessToken => set.to_json(),
        KeyUse::Svid(_) => {
            // No key retires yet, so the newest's time is of the last change.
            let sequence = of_use().map(|key| key.created_at.as_millis()).max().unwrap_or_default();
            set.to_bundle(sequence, REFRESH_HINT_SECS)
        }
    })
}

const fn alg_of(algorithm: SigningAlgorithm) -> Alg {
    match algorithm {
        SigningAlgorithm::Es256 => Alg::Es256,
        SigningAlgorithm::EdDsa => Alg::EdDsa,
        SigningAlgorithm::Rs256 => Alg::Rs256,
    }
}

impl Signer for KeyRing {
    fn current(&self, wanted: &KeyFor) -> Result<SigningKey, SignError> {
        let KeyFor { key_use, algorithm, target } = wanted;
        let only = algorithm.is_imported().then(|| target.clone());
        let purpose = KeyPurpose { key_use: key_use.clone(), algorithm: *algorithm, only };
        let keys = self.keys.load();
        let active = keys.all.iter().rfind(|key| key.purpose == purpose && key.stage == Stage::Active);
        let key = active.ok_or_else(|| match &purpose.only {
            Some(target) => SignError::NotImported(target.clone(), *algorithm),
            None => SignError::NoKey,
        })?;
        Ok(SigningKey { id: key.pair.key_id().clone(), not_after: None })
    }

    fn sign(
        &self,
        key: &KeyId,
        key_use: &KeyUse,
        target: &TargetRef,
        payload: &[u8],
    ) -> Result<Secret, SignError> {
        let keys = self.keys.load();
        let signs = |held: &&Held| {
            held.pair.key_id() == key
                && held.stage != Stage::Published
                && held.purpose.key_use == *key_use
                && held.purpose.serves(target)
        };
        let held = keys.all.iter().rfind(signs).ok_or(SignError::NoKey)?;
        held.pair.sign_jws(key_use.typ(), payload).map_err(|_| SignError::Failed)
    }

    fn jwks(&self, key_use: &KeyUse) -> Option<Arc<str>> {
        let keys = self.keys.load();
        keys.published.iter().find(|(each, _)| each == key_use).map(|(_, jwks)| Arc::clone(jwks))
    }

    fn trust_domains(&self) -> Vec<TrustDomain> {
        let keys = self.keys.load();
        let domains = keys.published.iter().filter_map(|(key_use, _)| match key_use {
            KeyUse::Svid(domain) => Some(domain.clone()),
            KeyUse::AccessToken => None,
        });
        let mut domains: Vec<_> = domains.collect();
        domains.sort();
        domains
    }
}

fn open(sealed: &SealedKey, instance: InstanceId, kek: &dyn KeyEncryption) -> Result<Held, KeyError> {
    let purpose: KeyPurpose = sealed.purpose.parse().map_err(|_| KeyError::UnknownPurpose {
        id: sealed.id.clone(),
        purpose: sealed.purpose.chars().take(80).collect(),
    })?;
    let does_not_open = |why| KeyError::DoesNotOpen { id: sealed.id.clone(), instance, why };
    let der = kek
        .open(&associated_data(instance, sealed), sealed.generation, &sealed.sealed)
        .map_err(does_not_open)?;
    let key = dayfly_jose::SigningKey::from_der(alg_of(purpose.algorithm), &der)?;
    if *key.key_id() != sealed.id || key.public_jwk().to_json() != sealed.public_jwk {
        return Err(does_not_open(OpenError::Changed));
    }
    Ok(Held { pair: Arc::new(key), purpose, created_at: sealed.created_at, stage: Stage::Active })
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
    /// A file holds no key that can be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A key that is to be imported is there already.
    #[error("the key is there already, as {id} for {purpose}: each target needs a key of its own")]
    KnownAlready {
        /// The key.
        id: KeyId,
        /// What it is for.
        purpose: String,
    },
    /// The published set would be larger than verifiers take.
    #[error(
        "{MAX_JWKS_KEYS} keys for access tokens are published already, and verifiers take no more: let targets sign by ES256 or EdDSA"
    )]
    TooMany,
    /// No key of this id is published.
    #[error("there is no published signing key {0}")]
    NoSuchKey(KeyId),
}

#[cfg(test)]
mod tests;
