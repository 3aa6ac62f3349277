//! The verifier and its checks.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::builder::Builder;
use crate::profile::{Expected, Profile};
use crate::proof::Proof;
use crate::refused::Refused;
use crate::state::State;
use crate::verified::Verified;

/// How long a check waits for newer keys where a token names an unknown one.
const KEYS_WITHIN: Duration = Duration::from_secs(2);

/// Checks Dayfly's credentials offline. Cloning it shares what it knows; when the last clone is dropped, it stops to listen
/// to the broker.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) expected: Expected,
    pub(crate) state: Arc<State>,
    /// Whether a token is accepted of which it is not known whether it was revoked.
    pub(crate) unknown_is_good: bool,
    /// What keeps the state up to date.
    pub(crate) tasks: Vec<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Verifier {
    /// A verifier of credentials of this kind.
    pub fn builder(profile: Profile) -> Builder {
        Builder::new(profile)
    }

    pub(crate) fn of(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Whether the token is good now, by what is known here: nothing is asked of anyone.
    ///
    /// The signature by a published key, the exact `typ`, the `alg` of the key, issuer, audience, times, what it is bound to,
    /// revocations, then the required scope. Where it names an unknown key, the keys are asked for again in the background.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, token: &str, proof: Proof) -> Result<Verified, Refused> {
        let Inner { expected, state, unknown_is_good, .. } = &*self.0;
        let keys = state.keys().ok_or(Refused::KeysUnknown)?;
        let checked = expected.check(token, &keys, proof, state.now());
        if matches!(checked, Err(Refused::UnknownKey)) {
            state.keys_wanted.notify_one();
        }
        let said = checked?;
        state.check_revoked(&said.facts, *unknown_is_good)?;
        expected.check_scope(&said.scope)?;
        Ok(Verified(Arc::new(said)))
    }

    /// Whether a credential that was good still is: not expired and not revoked since. For connections and streams that outlive
    /// a request, asked every second or so.
    ///
    /// # Errors
    /// [`Refused::Expired`], [`Refused::Revoked`], [`Refused::RevocationsUnknown`].
    pub fn still_good(&self, verified: &Verified) -> Result<(), Refused> {
        let Inner { expected, state, unknown_is_good, .. } = &*self.0;
        if state.now() >= verified.expires_at().plus(expected.leeway) {
            return Err(Refused::Expired);
        }
        state.check_revoked(&verified.0.facts, *unknown_is_good)
    }

    /// The same as [`Verifier::verify`], but where the token names an unknown key and the keys were not asked for in the last 5 s, it waits for newer
    /// ones, for 2 s at most, and checks again: so that the first token of a new key is not refused.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn verify_with_fresh_keys(&self, token: &str, proof: Proof) -> Result<Verified, Refused> {
        let state = &self.0.state;
        let mut changes = state.changes();
        let may_ask = state.may_ask_for_keys();
        let checked = self.verify(token, proof);
        if !may_ask || !matches!(checked, Err(Refused::UnknownKey)) {
            return checked;
        }
        let newer = async { while state.may_ask_for_keys() && changes.changed().await.is_ok() {} };
        match timeout(KEYS_WITHIN, newer).await {
            Ok(()) => self.verify(token, proof),
            Err(_elapsed) => checked,
        }
    }

    /// Whether it knows keys and revocations: until then every token is refused. For readiness probes.
    pub fn is_ready(&self) -> bool {
        let Inner { state, unknown_is_good, .. } = &*self.0;
        state.keys().is_some() && (*unknown_is_good || state.knows_revocations())
    }

    /// Returns when it is ready, to wait for at start.
    pub async fn ready(&self) {
        let mut changes = self.0.state.changes();
        while !self.is_ready() && changes.changed().await.is_ok() {}
    }

    /// The position in the broker's store that the revocations known here are as of; none before the first are.
    pub fn position(&self) -> Option<u64> {
        self.0.state.position()
    }

    /// What scope every token must have, as challenges say it.
    #[cfg(any(feature = "tower", feature = "axum"))]
    pub(crate) fn required_scope(&self) -> &[String] {
        &self.0.expected.scope
    }
}
