//! The ring of signing keys.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use dayfly_core::change::{KeyStep, SealedKey};
use dayfly_core::ids::{InstanceId, KeyId, TrustDomain};
use dayfly_core::note::{KeyName, NoteSigner, Signature, SignedNote, VerifierKey};
use dayfly_core::ports::{Clock, KeyFor, KeyUse, SignError, Signer, SigningAlgorithm, SigningKey, TargetRef};
use dayfly_core::secret::Secret;
use dayfly_core::signing::{KeyPurpose, KeyStage};
use dayfly_core::time::Timestamp;
use dayfly_jose::{
    Alg, ImportError, Jwk, JwkSet, KeyFailed, KeySet, MAX_JWKS_KEYS, Policy, Verified, VerifyError,
    VerifyingKey,
};

use crate::kek::{KeyEncryption, OpenError, SealError};

/// Dayfly's signing keys, opened. Reading and signing take no lock.
///
/// It makes the steps of their lives, and takes none by itself: a step is committed to the store (`Change::Key`), and
/// then [applied](Self::apply).
pub struct KeyRing {
    instance: InstanceId,
    kek: Mutex<Arc<dyn KeyEncryption>>,
    clock: Arc<dyn Clock>,
    /// After how long verifiers should ask for the published keys again.
    refresh: Duration,
    keys: ArcSwap<Keys>,
    /// Held while `keys` is replaced, so that no change is lost.
    changing: Mutex<()>,
}

#[derive(Clone, Default)]
struct Keys {
    /// Those that are published: oldest first, and of one moment by their ids.
    all: Vec<Held>,
    /// Those that are not any more, oldest first.
    gone: Vec<SealedKey>,
    /// One that signs nothing while the step that revokes it is being committed.
    stopped: Option<KeyId>,
    /// The published keys of each use that has any, as text.
    published: Vec<(KeyUse, Arc<str>)>,
}

#[derive(Clone)]
struct Held {
    pair: Arc<dayfly_jose::SigningKey>,
    purpose: KeyPurpose,
    /// As the store has it.
    record: SealedKey,
    /// Since when this process publishes it, by the monotonic clock.
    published_at: Duration,
}

/// A published key, as those who take its steps see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InRing {
    pub(crate) id: KeyId,
    pub(crate) purpose: KeyPurpose,
    pub(crate) stage: KeyStage,
    pub(crate) since: Timestamp,
    pub(crate) generation: u32,
    /// For how long this process has published it.
    pub(crate) published_for: Duration,
}

impl KeyRing {
    /// Opens the keys of this store. Verifiers are told to ask again after `refresh`.
    ///
    /// # Errors
    /// When one does not open: sealed with another key-encryption key, changed, swapped with another's or an earlier
    /// stage's, or from another store; and when they contradict each other.
    pub fn load(
        sealed: &[SealedKey],
        instance: InstanceId,
        kek: Arc<dyn KeyEncryption>,
        clock: Arc<dyn Clock>,
        refresh: Duration,
    ) -> Result<Self, KeyError> {
        let (kek, keys) = (Mutex::new(kek), ArcSwap::default());
        let ring = Self { instance, kek, clock, refresh, keys, changing: Mutex::new(()) };
        ring.reload(sealed)?;
        Ok(ring)
    }

    /// The keys are these, as the store has them.
    ///
    /// # Errors
    /// As [`KeyRing::load`]. The ring is as it was then.
    pub fn reload(&self, sealed: &[SealedKey]) -> Result<(), KeyError> {
        let kek = self.kek();
        let lacks = |key: &&SealedKey| {
            let opened = key.stage.is_published().then(|| self.unseal(key, kek.as_ref()));
            matches!(opened, Some(Err(OpenError::Generation { .. })))
        };
        let lacking: Vec<_> = sealed.iter().filter(lacks).collect();
        if let Some(first) = lacking.first() {
            let keys = lacking.iter().map(|key| key.id.to_string()).collect::<Vec<_>>().join(", ");
            return Err(KeyError::NoGeneration { generation: first.generation, keys });
        }
        self.change(|keys| {
            let mut fresh = Keys::default();
            for record in sealed {
                fresh.put(record, keys.held(&record.id), || self.open(record))?;
            }
            fresh.check()?;
            *keys = fresh;
            Ok(())
        })
    }

    /// A key signs nothing from now on, until a step is applied or the ring is read again: what it signed was signed under an
    /// id that is below the cut-off of the rule to come.
    pub(crate) fn stop(&self, id: &KeyId) {
        // It cannot fail.
        let _ = self.change(|keys| {
            keys.stopped = Some(id.clone());
            Ok(())
        });
    }

    /// A step that was committed is in effect from now on.
    ///
    /// # Errors
    /// When a key does not open. The ring is as it was then.
    pub fn apply(&self, step: &KeyStep) -> Result<(), KeyError> {
        self.change(|keys| {
            let mut changed = Keys { stopped: None, ..keys.clone() };
            for record in step.keys() {
                changed.put(record, keys.held(&record.id), || self.open(record))?;
            }
            *keys = changed;
            Ok(())
        })
    }

    /// Whether no key is published.
    pub fn is_empty(&self) -> bool {
        self.keys.load().all.is_empty()
    }

    /// What seals and opens from now on.
    pub fn use_kek(&self, kek: Arc<dyn KeyEncryption>) {
        *self.kek.lock().unwrap_or_else(PoisonError::into_inner) = kek;
    }

    /// The generation that seals.
    pub fn generation(&self) -> u32 {
        self.kek().generation()
    }

    fn kek(&self) -> Arc<dyn KeyEncryption> {
        Arc::clone(&self.kek.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A new key for this purpose: the next one; the first of its purpose is active.
    ///
    /// # Errors
    /// When there is no randomness, the key-encryption key does not seal, such keys are only imported, one is next
    /// already, or as many are published as verifiers take ([`MAX_JWKS_KEYS`]).
    pub fn generate(&self, purpose: &KeyPurpose) -> Result<KeyStep, KeyError> {
        let key = dayfly_jose::SigningKey::generate_for(alg_of(purpose.algorithm))?;
        self.add(&key, purpose, self.first_stage(purpose)?)
    }

    /// An RSA key from PEM for one target, likewise.
    ///
    /// # Errors
    /// When it is no key that is taken, it is in the ring already, for this target or another, or was; and as
    /// [`KeyRing::generate`].
    pub fn import(&self, pem: &Secret, only: TargetRef) -> Result<KeyStep, KeyError> {
        let key = dayfly_jose::SigningKey::import_rsa(pem)?;
        let keys = self.keys.load();
        if let Some(known) = keys.records().find(|known| known.id == *key.key_id()) {
            let (id, purpose, stage) = (known.id.clone(), known.purpose.clone(), known.stage);
            return Err(KeyError::KnownAlready { id, purpose, stage });
        }
        let purpose = KeyPurpose::imported(only);
        self.add(&key, &purpose, self.first_stage(&purpose)?)
    }

    fn first_stage(&self, purpose: &KeyPurpose) -> Result<KeyStage, KeyError> {
        let keys = self.keys.load();
        if let Some(next) = keys.of(purpose, KeyStage::Next) {
            return Err(KeyError::NextAlready { id: next.record.id.clone(), purpose: purpose.to_string() });
        }
        let of_use = keys.all.iter().filter(|key| key.purpose.key_use == purpose.key_use).count();
        if of_use >= MAX_JWKS_KEYS {
            return Err(KeyError::TooMany);
        }
        let active = keys.of(purpose, KeyStage::Active).is_some();
        Ok(if active { KeyStage::Next } else { KeyStage::Active })
    }

    fn add(
        &self,
        key: &dayfly_jose::SigningKey,
        purpose: &KeyPurpose,
        stage: KeyStage,
    ) -> Result<KeyStep, KeyError> {
        Ok(KeyStep::Add(self.made(key, purpose, stage)?))
    }

    /// The first record of a key.
    fn made(
        &self,
        key: &dayfly_jose::SigningKey,
        purpose: &KeyPurpose,
        stage: KeyStage,
    ) -> Result<SealedKey, KeyError> {
        let since = self.step_time();
        let record = SealedKey {
            id: key.key_id().clone(),
            purpose: purpose.to_string(),
            generation: 0,
            created_at: since,
            public_jwk: key.public_jwk().to_json(),
            sealed: Vec::new(),
            stage,
            since,
            version: 1,
        };
        self.seal(record, key)
    }

    /// The next key signs, and the active one of its purpose retires.
    ///
    /// # Errors
    /// [`KeyError::NoSuchKey`], where none of this id is next; when the key-encryption key does not seal.
    pub fn activate(&self, id: &KeyId) -> Result<KeyStep, KeyError> {
        let keys = self.keys.load();
        let next = keys.held_as(id, |stage| stage == KeyStage::Next)?;
        let active = keys.of(&next.purpose, KeyStage::Active);
        let retiring = active.map(|active| self.then(active, KeyStage::Retiring)).transpose()?;
        Ok(KeyStep::Activate { key: self.then(next, KeyStage::Active)?, retiring })
    }

    /// A retiring key is not published any more.
    ///
    /// # Errors
    /// [`KeyError::NoSuchKey`], where none of this id is retiring.
    pub fn retire(&self, id: &KeyId) -> Result<KeyStep, KeyError> {
        let keys = self.keys.load();
        let retiring = keys.held_as(id, |stage| stage == KeyStage::Retiring)?;
        Ok(KeyStep::Retire(self.then(retiring, KeyStage::Retired)?))
    }

    /// A key is sealed again.
    ///
    /// # Errors
    /// [`KeyError::NoSuchKey`]; when the key-encryption key does not seal.
    pub fn reseal(&self, id: &KeyId) -> Result<KeyStep, KeyError> {
        let keys = self.keys.load();
        let held = keys.held_as(id, KeyStage::is_published)?;
        Ok(KeyStep::Reseal(self.then(held, held.record.stage)?))
    }

    /// A key is not published any more, and what it signed is revoked. Where it was active, the next key of its purpose
    /// signs from then on, or, of those that Dayfly makes, a new one.
    ///
    /// # Errors
    /// [`KeyError::NoSuchKey`], where none of this id is published; when the key-encryption key does not seal.
    pub fn revoke(&self, id: &KeyId, reason: &str) -> Result<KeyStep, KeyError> {
        let keys = self.keys.load();
        let held = keys.held_as(id, KeyStage::is_published)?;
        let purpose = &held.purpose;
        let instead = match keys.of(purpose, KeyStage::Next) {
            _ if held.record.stage != KeyStage::Active => None,
            Some(next) => Some(self.then(next, KeyStage::Active)?),
            None if purpose.algorithm.is_imported() => None,
            None => {
                let key = dayfly_jose::SigningKey::generate_for(alg_of(purpose.algorithm))?;
                Some(self.made(&key, purpose, KeyStage::Active)?)
            }
        };
        let key = self.then(held, KeyStage::Revoked)?;
        Ok(KeyStep::Revoke { key, instead, reason: reason.to_owned() })
    }

    /// A key's record one step on, sealed again where it is published.
    fn then(&self, held: &Held, stage: KeyStage) -> Result<SealedKey, KeyError> {
        let record = SealedKey {
            stage,
            since: self.step_time(),
            version: held.record.version.saturating_add(1),
            sealed: Vec::new(),
            ..held.record.clone()
        };
        if stage.is_published() { self.seal(record, &held.pair) } else { Ok(record) }
    }

    fn seal(&self, record: SealedKey, key: &dayfly_jose::SigningKey) -> Result<SealedKey, KeyError> {
        let kek = self.kek();
        let record = SealedKey { generation: kek.generation(), ..record };
        let sealed = kek.seal(&associated_data(self.instance, &record), &key.to_der())?;
        Ok(SealedKey { sealed, ..record })
    }

    /// Signs what is for Dayfly itself, with the active key of a purpose that is for no target. Gives the key, and the JWS.
    pub(crate) fn sign_own(
        &self,
        purpose: &KeyPurpose,
        payload: &[u8],
    ) -> Result<(KeyId, Secret), SignError> {
        let keys = self.keys.load();
        let held = keys.of(purpose, KeyStage::Active).ok_or(SignError::NoKey)?;
        if keys.stopped.as_ref() == Some(&held.record.id) {
            return Err(SignError::NoKey);
        }
        let jws = held.pair.sign_jws(purpose.key_use.typ(), payload).map_err(|_| SignError::Failed)?;
        Ok((held.record.id.clone(), jws))
    }

    /// Verifies what Dayfly signed for itself, with the keys of this use that are published now: none that is being
    /// revoked, and none that signs nothing yet.
    pub(crate) fn verify_own(&self, key_use: &KeyUse, token: &str) -> Result<Verified, VerifyError> {
        let keys = self.keys.load();
        let good = keys.all.iter().filter(|held| {
            held.purpose.key_use == *key_use
                && held.record.stage != KeyStage::Next
                && keys.stopped.as_ref() != Some(&held.record.id)
        });
        let keys = KeySet::new(good.map(|held| VerifyingKey::from(held.pair.public_jwk())).collect());
        dayfly_jose::verify(token, &keys, Policy::exactly(key_use.typ()))
    }

    /// Now, and later than any step of any key: no clock that goes back makes an earlier bundle of a later one.
    fn step_time(&self) -> Timestamp {
        let keys = self.keys.load();
        let latest = keys.records().map(|record| record.since).max();
        let after = latest.map(|latest| latest.plus(Duration::from_millis(1)));
        after.unwrap_or_default().max(self.clock.now())
    }

    /// The published keys, oldest first.
    pub(crate) fn published(&self) -> Vec<InRing> {
        let now = self.clock.monotonic();
        let seen = |held: &Held| InRing {
            id: held.record.id.clone(),
            purpose: held.purpose.clone(),
            stage: held.record.stage,
            since: held.record.since,
            generation: held.record.generation,
            published_for: now.saturating_sub(held.published_at),
        };
        self.keys.load().all.iter().map(seen).collect()
    }

    /// Every key's record, oldest first.
    pub(crate) fn records(&self) -> Vec<SealedKey> {
        let mut records: Vec<_> = self.keys.load().records().cloned().collect();
        records.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        records
    }

    fn change<T>(&self, change: impl FnOnce(&mut Keys) -> Result<T, KeyError>) -> Result<T, KeyError> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys = Keys::clone(&self.keys.load());
        let answer = change(&mut keys)?;
        keys.publish(self.refresh);
        self.keys.store(Arc::new(keys));
        Ok(answer)
    }

    fn unseal(&self, record: &SealedKey, kek: &dyn KeyEncryption) -> Result<Secret, OpenError> {
        kek.open(&associated_data(self.instance, record), record.generation, &record.sealed)
    }

    fn open(&self, record: &SealedKey) -> Result<Held, KeyError> {
        let purpose = purpose_of(record)?;
        let instance = self.instance;
        let does_not_open = |why| KeyError::DoesNotOpen { id: record.id.clone(), instance, why };
        let der = self.unseal(record, self.kek().as_ref()).map_err(does_not_open)?;
        let key = dayfly_jose::SigningKey::from_der(alg_of(purpose.algorithm), &der)?;
        if *key.key_id() != record.id || key.public_jwk().to_json() != record.public_jwk {
            return Err(does_not_open(OpenError::Changed));
        }
        let published_at = self.clock.monotonic();
        Ok(Held { pair: Arc::new(key), purpose, record: record.clone(), published_at })
    }
}

impl Keys {
    fn held(&self, id: &KeyId) -> Option<&Held> {
        self.all.iter().find(|held| held.record.id == *id)
    }

    fn held_as(&self, id: &KeyId, fits: impl Fn(KeyStage) -> bool) -> Result<&Held, KeyError> {
        let held = self.held(id).filter(|held| fits(held.record.stage));
        held.ok_or_else(|| KeyError::NoSuchKey(id.clone()))
    }

    /// The one key of this purpose that is next, or active.
    fn of(&self, purpose: &KeyPurpose, stage: KeyStage) -> Option<&Held> {
        self.all.iter().find(|held| held.purpose == *purpose && held.record.stage == stage)
    }

    fn records(&self) -> impl Iterator<Item = &SealedKey> {
        self.all.iter().map(|held| &held.record).chain(&self.gone)
    }

    /// A key is as this record says. One that was published before stays published since then.
    fn put(
        &mut self,
        record: &SealedKey,
        before: Option<&Held>,
        open: impl FnOnce() -> Result<Held, KeyError>,
    ) -> Result<(), KeyError> {
        let held = if record.stage.is_published() { Some(open()?) } else { None };
        purpose_of(record)?;
        self.all.retain(|held| held.record.id != record.id);
        self.gone.retain(|gone| gone.id != record.id);
        match held {
            Some(held) => {
                let published_at = before.map_or(held.published_at, |before| before.published_at);
                self.all.push(Held { published_at, ..held });
            }
            None => self.gone.push(record.clone()),
        }
        Ok(())
    }

    /// No step leaves several keys of a purpose next or active, nor a next one that is older than the active one's
    /// stage: such a record was put back from an older copy.
    fn check(&self) -> Result<(), KeyError> {
        for held in &self.all {
            let others = self
                .all
                .iter()
                .filter(|other| other.purpose == held.purpose && other.record.id != held.record.id);
            let contradicts = |other: &Held| match (held.record.stage, other.record.stage) {
                (KeyStage::Next, KeyStage::Next) | (KeyStage::Active, KeyStage::Active) => true,
                (KeyStage::Next, KeyStage::Active) => held.record.since < other.record.since,
                _ => false,
            };
            if let Some(other) = others.into_iter().find(|other| contradicts(other)) {
                return Err(KeyError::Contradiction {
                    id: held.record.id.clone(),
                    stage: held.record.stage,
                    other: other.record.id.clone(),
                    other_stage: other.record.stage,
                });
            }
        }
        Ok(())
    }

    /// Makes the published sets. The same keys are the same text, before a restart and after it.
    fn publish(&mut self, refresh: Duration) {
        self.all.sort_by(|one, other| {
            (one.record.created_at, &one.record.id).cmp(&(other.record.created_at, &other.record.id))
        });
        let mut uses: Vec<&KeyUse> = vec![&KeyUse::AccessToken];
        for key in &self.all {
            // Notes have verifier keys, and no token is ever verified with one.
            if key.purpose.key_use != KeyUse::Checkpoint && !uses.contains(&&key.purpose.key_use) {
                uses.push(&key.purpose.key_use);
            }
        }
        let set = |key_use: &&KeyUse| ((*key_use).clone(), self.set(key_use, refresh));
        self.published = uses.iter().map(set).collect();
    }

    fn set(&self, key_use: &KeyUse, refresh: Duration) -> Arc<str> {
        let of_use = self.all.iter().filter(|key| key.purpose.key_use == *key_use);
        let keys: Vec<Jwk> = of_use.map(|key| key.pair.public_jwk().clone()).collect();
        let set = JwkSet { keys, skipped: 0 };
        Arc::from(match key_use {
            KeyUse::AccessToken | KeyUse::OperatorSession | KeyUse::StatusList | KeyUse::Checkpoint => {
                set.to_json()
            }
            KeyUse::Svid(_) => {
                // Each step has a later time than any before, so this grows with every change of the set.
                let of_use = self
                    .records()
                    .filter(|record| purpose_of(record).is_ok_and(|purpose| purpose.key_use == *key_use));
                let sequence = of_use.map(|record| record.since.as_millis()).max().unwrap_or_default();
                set.to_bundle(sequence, u32::try_from(refresh.as_secs()).unwrap_or(u32::MAX))
            }
        })
    }
}

fn purpose_of(record: &SealedKey) -> Result<KeyPurpose, KeyError> {
    record.purpose.parse().map_err(|_| KeyError::UnknownPurpose {
        id: record.id.clone(),
        purpose: record.purpose.chars().take(80).collect(),
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
    /// No key has an end by itself: what it signed last lives on while it is retiring.
    fn current(&self, wanted: &KeyFor) -> Result<SigningKey, SignError> {
        let KeyFor { key_use, algorithm, target } = wanted;
        let only = algorithm.is_imported().then(|| target.clone());
        let purpose = KeyPurpose { key_use: key_use.clone(), algorithm: *algorithm, only };
        let keys = self.keys.load();
        let key = keys.of(&purpose, KeyStage::Active).ok_or_else(|| match &purpose.only {
            Some(target) => SignError::NotImported(target.clone(), *algorithm),
            None => SignError::NoKey,
        })?;
        Ok(SigningKey { id: key.record.id.clone(), not_after: None })
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
            held.record.stage != KeyStage::Next
                && keys.stopped.as_ref() != Some(key)
                && *key_use != KeyUse::Checkpoint
                && held.purpose.key_use == *key_use
                && held.purpose.serves(target)
        };
        let held = keys.held(key).filter(signs).ok_or(SignError::NoKey)?;
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
            KeyUse::AccessToken | KeyUse::OperatorSession | KeyUse::StatusList | KeyUse::Checkpoint => None,
        });
        let mut domains: Vec<_> = domains.collect();
        domains.sort();
        domains
    }
}

impl NoteSigner for KeyRing {
    fn sign_note(&self, name: &KeyName, text: &str) -> Result<SignedNote, SignError> {
        let keys = self.keys.load();
        let signs = |held: &&Held| {
            matches!(held.record.stage, KeyStage::Active | KeyStage::Retiring)
                && keys.stopped.as_ref() != Some(&held.record.id)
                && held.purpose.key_use == KeyUse::Checkpoint
        };
        let signature = |held: &Held| {
            let public = held.pair.public_jwk().ed25519_key()?;
            let key = VerifierKey { name: name.clone(), public };
            Some(Signature::by(&key, held.pair.sign_ed25519(text.as_bytes())?))
        };
        let signatures = keys.all.iter().rev().filter(signs).map(signature).collect::<Option<Vec<_>>>();
        let signatures = signatures.ok_or(SignError::Failed)?;
        if signatures.is_empty() {
            return Err(SignError::NoKey);
        }
        Ok(SignedNote { text: text.to_owned(), signatures })
    }

    fn note_keys(&self) -> Vec<[u8; 32]> {
        let of_notes = |record: &SealedKey| {
            record.stage != KeyStage::Revoked
                && purpose_of(record).is_ok_and(|purpose| purpose.key_use == KeyUse::Checkpoint)
        };
        let public = |record: &SealedKey| Jwk::parse(record.public_jwk.as_bytes()).ok()?.ed25519_key();
        self.records().iter().rev().filter(|record| of_notes(record)).filter_map(public).collect()
    }
}

/// What a sealed key is bound to. Every part has its length before it, so that no two keys have the same.
///
/// The stage is in it, with its time and the number of the step that led there: a record of one stage opens as no other,
/// so a stage is not to be had by writing it over, nor by an earlier stage's sealed bytes under the later one's name.
fn associated_data(instance: InstanceId, key: &SealedKey) -> Vec<u8> {
    let SealedKey { id, purpose, generation, created_at, public_jwk: _, sealed: _, stage, since, version } =
        key;
    let parts: [&[u8]; 9] = [
        b"dayfly sealed signing key v2",
        &instance.to_bytes(),
        purpose.as_bytes(),
        id.as_str().as_bytes(),
        &generation.to_be_bytes(),
        &Timestamp::as_millis(*created_at).to_be_bytes(),
        stage.name().as_bytes(),
        &Timestamp::as_millis(*since).to_be_bytes(),
        &version.to_be_bytes(),
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
    /// Keys of the store are sealed with a generation of the key-encryption key that is not there.
    #[error(
        "generation {generation} of the key-encryption key is not there, and signing keys are sealed with it: {keys}"
    )]
    NoGeneration {
        /// The generation.
        generation: u32,
        /// The keys.
        keys: String,
    },
    /// Two keys of the store cannot be at these stages together.
    #[error(
        "signing key {id} is {stage} and {other} is {other_stage}, which no step leaves so: part of the store was put back from an older copy"
    )]
    Contradiction {
        /// One key.
        id: KeyId,
        /// Its stage.
        stage: KeyStage,
        /// The other.
        other: KeyId,
        /// Its stage.
        other_stage: KeyStage,
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
    #[error("a signing key was not sealed: {0}")]
    Seal(#[from] SealError),
    /// A key could not be made, or what was opened is none.
    #[error(transparent)]
    Key(#[from] KeyFailed),
    /// A file holds no key that can be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A key that is to be imported is there already, or was.
    #[error(
        "the key is there already, as {id} for {purpose} ({stage}): each target needs a key of its own, and each rotation a new one"
    )]
    KnownAlready {
        /// The key.
        id: KeyId,
        /// What it is for.
        purpose: String,
        /// Where it is in its life.
        stage: KeyStage,
    },
    /// There is a next key already.
    #[error(
        "{id} is the next key for {purpose} already: let it sign first (`dayfly keys rotate {purpose} --now`), or revoke it"
    )]
    NextAlready {
        /// The key.
        id: KeyId,
        /// What it is for.
        purpose: String,
    },
    /// The published set would be larger than verifiers take.
    #[error(
        "{MAX_JWKS_KEYS} keys of this use are published already, and verifiers take no more: earlier ones retire a day after they last signed"
    )]
    TooMany,
    /// No key of this id is at the stage for the step.
    #[error("there is no signing key {0} at this stage")]
    NoSuchKey(KeyId),
}

#[cfg(test)]
mod tests;
