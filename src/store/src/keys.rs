//! Signing keys: each step of their lives, checked against where they are.

use std::collections::BTreeMap;

use dayfly_core::audit::Draft;
use dayfly_core::change::{Conflict, KeyChange, KeyStep, Outcome, Revocation, SealedKey};
use dayfly_core::encoding;
use dayfly_core::ids::KeyId;
use dayfly_core::ports::StoreError;
use dayfly_core::rule::{After, Authority, Fields, Selector};
use dayfly_core::signing::KeyStage;

use crate::engine::{Engine, damaged};
use crate::group::{Group, committed, sized};
use crate::layout;

/// Every signing key there is.
pub(crate) fn all(engine: &Engine) -> Result<Vec<SealedKey>, StoreError> {
    let read = |entry: Result<(sled::IVec, sled::IVec), StoreError>| {
        let (key, value) = entry?;
        encoding::decode_key(&value).map_err(|error| damaged(&key, &error))
    };
    engine.scan(&[layout::KEYS], &[layout::KEYS]).map(read).collect()
}

/// Several keys of one purpose that are next, or active: there is at most one of each.
pub(crate) fn contested(keys: &BTreeMap<KeyId, SealedKey>) -> Option<&SealedKey> {
    let single = |key: &&SealedKey| matches!(key.stage, KeyStage::Next | KeyStage::Active);
    let same = |one: &SealedKey, other: &SealedKey| {
        one.id != other.id && one.stage == other.stage && one.purpose == other.purpose
    };
    keys.values().filter(single).find(|key| keys.values().any(|other| same(key, other)))
}

impl Group<'_> {
    /// # Errors
    /// While the clock cannot be trusted, a key is only revoked.
    pub(crate) fn key(&mut self, change: &KeyChange) -> Result<Outcome, StoreError> {
        if !matches!(change.step, KeyStep::Revoke { .. }) {
            self.shared.time.trusted(self.shared.options.clock.as_ref())?;
        }
        let mut keys = match &self.signing_keys {
            Some(keys) => keys.clone(),
            None => all(self.engine)?.into_iter().map(|key| (key.id.clone(), key)).collect(),
        };
        if let Some(conflict) = check(&keys, change) {
            return Ok(Outcome::Conflict(conflict));
        }
        keys.extend(change.step.keys().map(|key| (key.id.clone(), key.clone())));
        if contested(&keys).is_some() {
            return Ok(Outcome::Conflict(Conflict::KeyStage));
        }
        let records = change
            .step
            .keys()
            .map(|key| Ok((layout::key(&key.purpose, key.id.as_str()), sized(encoding::encode_key(key))?)));
        let records = records.collect::<Result<Vec<_>, StoreError>>()?;
        let outcome = self.key_event(change)?;
        for (place, record) in records {
            self.insert(place, record);
        }
        self.signing_keys = Some(keys);
        Ok(outcome)
    }

    /// The event, and with it the rule where what the key signed is revoked.
    fn key_event(&mut self, change: &KeyChange) -> Result<Outcome, StoreError> {
        let KeyStep::Revoke { key, reason, .. } = &change.step else {
            return self.append(&Draft::key(change, None)).map(committed);
        };
        let fields = Fields { key: Some(key.id.clone()), ..Fields::default() };
        let revocation = Revocation {
            selector: Selector::Where(Box::new(fields)),
            after: After::Reissue,
            by: change.by.clone(),
            authority: Authority::ClusterWide,
            reason: reason.clone(),
            idempotency: None,
            owners: Vec::new(),
        };
        self.write_rule(revocation, |rule| Draft::key(change, Some(rule)))
    }
}

/// Why a step cannot be taken from where the keys are.
fn check(before: &BTreeMap<KeyId, SealedKey>, change: &KeyChange) -> Option<Conflict> {
    for key in change.step.keys() {
        let revoked = matches!(&change.step, KeyStep::Revoke { key: revoked, .. } if revoked.id == key.id);
        let in_form =
            key.stage.is_published() != key.sealed.is_empty() && revoked == (key.stage == KeyStage::Revoked);
        let fits = match before.get(&key.id) {
            Some(_) if key.version == 1 => return Some(Conflict::KeyExists),
            Some(before) => {
                before.version.checked_add(1) == Some(key.version)
                    && before.stage.may_become(key.stage)
                    && before.purpose == key.purpose
                    && before.public_jwk == key.public_jwk
                    && before.since < key.since
            }
            None => key.version == 1 && matches!(key.stage, KeyStage::Next | KeyStage::Active),
        };
        if !in_form || !fits {
            return Some(Conflict::KeyStage);
        }
    }
    None
}
