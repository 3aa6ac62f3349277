//! Keeps the keys up to date.

use std::sync::Arc;
use std::time::Duration;

use dayfly_client::{Backoff, Client, v1};
use dayfly_core::ports::Rng;
use dayfly_jose::KeySet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::profile::Profile;
use crate::state::{KEYS_AT_MOST_EVERY, State};

/// Keys are asked for at least this often: what the broker says of them may be cached for 5 min.
const AT_LEAST_EVERY: Duration = Duration::from_secs(240);
/// Between tries that fail.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), cap: Duration::from_secs(30) };

pub(crate) struct Keys {
    client: Client,
    profile: Profile,
    state: Arc<State>,
    rng: Arc<dyn Rng>,
}

impl Keys {
    pub(crate) fn new(client: Client, profile: Profile, state: Arc<State>, rng: Arc<dyn Rng>) -> Self {
        Self { client, profile, state, rng }
    }

    /// Asks for the keys: now, then from time to time, and where one is missing.
    pub(crate) async fn keep(self) {
        let mut failures = 0;
        loop {
            let asked = Instant::now();
            match self.ask().await {
                Ok(keys) => {
                    failures = 0;
                    tracing::debug!(keys = keys.len(), "the broker gave its keys");
                    self.state.put_keys(keys);
                    let wanted = self.state.keys_wanted.notified();
                    if timeout(AT_LEAST_EVERY, wanted).await.is_ok() {
                        sleep_until(asked + KEYS_AT_MOST_EVERY).await;
                    }
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, "the broker gave no keys; those known are kept");
                    sleep(BACKOFF.pause(failures, None, &*self.rng)).await;
                }
            }
        }
    }

    async fn ask(&self) -> Result<KeySet, String> {
        let v1::GetKeysResponse { jwks, issuer, bundles } =
            self.client.get_keys().await.map_err(|error| error.to_string())?;
        let keys = match &self.profile {
            Profile::AccessToken { issuer: ours } if issuer == *ours => KeySet::parse(jwks.as_bytes()),
            Profile::AccessToken { issuer: ours } => {
                return Err(format!("it is the broker of the issuer {issuer:?}, and {ours:?} is expected"));
            }
            Profile::Svid { trust_domain } => {
                let bundle = bundles.iter().find(|bundle| bundle.trust_domain == trust_domain.as_str());
                let bundle =
                    bundle.ok_or_else(|| format!("it does not serve the trust domain {trust_domain}"))?;
                KeySet::parse_bundle(bundle.bundle.as_bytes())
            }
        };
        keys.map_err(|error| error.to_string())
    }
}
