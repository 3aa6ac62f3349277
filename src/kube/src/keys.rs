//! The keys of a cluster's service-account tokens, as its API server publishes them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use dayfly_core::ports::BoxFuture;
use dayfly_jose::{Jwk, JwkSet, KeySet};

use crate::api::{ApiServer, CallError};
use crate::coalesce::Coalesce;
use crate::namesakes::Namesakes;

const WHAT: &str = "get /openid/v1/jwks (ClusterRole system:service-account-issuer-discovery)";
/// Where an API server publishes them.
pub(crate) const PATH: &str = "/openid/v1/jwks";
/// Unknown keys make no more than one fetch in this time, since anyone can name one.
const EVERY: Duration = Duration::from_secs(10);
/// How soon a failed fetch may be tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The key set, fetched at start and when a token names a key that is not in it.
pub(crate) struct ClusterKeys {
    api: Arc<ApiServer>,
    path: Arc<str>,
    timeout: Duration,
    namesakes: Option<Arc<Namesakes>>,
    state: Arc<State>,
    fetches: Coalesce<(), Result<(), CallError>>,
}

#[derive(Default)]
struct State {
    keys: ArcSwapOption<KeySet>,
    last: Mutex<Option<Attempt>>,
}

#[derive(Clone)]
struct Attempt {
    at: Duration,
    failed: Option<CallError>,
}

impl ClusterKeys {
    /// No keys yet; they are at `path` of this server, and a fetch may take `timeout`. What is fetched is compared with
    /// the keys of its namesakes.
    pub(crate) fn new(
        api: Arc<ApiServer>,
        path: &str,
        timeout: Duration,
        namesakes: Option<Arc<Namesakes>>,
    ) -> Self {
        Self { api, path: path.into(), timeout, namesakes, state: Arc::default(), fetches: Coalesce::new() }
    }

    /// That no namesake has any of its keys.
    ///
    /// # Errors
    /// [`CallError::SharedKeys`] where one has: then nobody can say which of the two a token is of.
    pub(crate) fn are_its_own(&self) -> Result<(), CallError> {
        let namesakes = self.namesakes.as_ref();
        match namesakes.and_then(|namesakes| namesakes.sharing_with(&self.api.cluster)) {
            Some(other) => Err(CallError::SharedKeys(other)),
            None => Ok(()),
        }
    }

    /// Fetches the set anew, if the last fetch is long enough ago.
    ///
    /// # Errors
    /// When it could not be fetched, now or last.
    pub(crate) async fn refresh(&self) -> Result<(), CallError> {
        match self.fetches.join_or((), || self.fetch_if_due()) {
            Some(fetch) => fetch.await,
            None => self.state.last_failure(),
        }
    }

    /// The newest set there is, fetched anew if `kid` is not in the one at hand and the last fetch is long enough ago.
    ///
    /// # Errors
    /// When the set was to be fetched and could not be.
    pub(crate) async fn set_for(&self, kid: Option<&str>) -> Result<Arc<KeySet>, CallError> {
        let held = self.state.keys.load_full();
        if let Some(set) = held.filter(|set| kid.is_none_or(|kid| set.has(kid))) {
            return Ok(set);
        }
        self.refresh().await?;
        // Nothing fetched, and no failure to tell of: the first fetch was given up by all who waited for it.
        self.state.keys.load_full().ok_or(CallError::Busy)
    }

    /// The same, told in the log where it fails. Whether its keys are known, and its own.
    pub(crate) async fn reread(&self) -> bool {
        let read = self.refresh().await;
        if let Err(error) = &read
            && self.api.sparing.now_about(WHAT, self.api.clock.monotonic())
        {
            tracing::warn!(cluster = %self.api.cluster, %error, "the cluster's token keys cannot be read, and not compared with those of its issuer's other clusters");
        }
        read.is_ok() && self.are_its_own().is_ok()
    }

    fn fetch_if_due(&self) -> Option<BoxFuture<'static, Result<(), CallError>>> {
        let now = self.api.clock.monotonic();
        let mut last = self.state.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.as_ref().is_none_or(|last| {
            now.saturating_sub(last.at) >= if last.failed.is_some() { AFTER_FAILURE } else { EVERY }
        });
        if !due {
            return None;
        }
        // Counted as failed until it has succeeded: also if all who wait give up.
        *last = Some(Attempt { at: now, failed: Some(CallError::Timeout(self.timeout)) });
        let (api, state, timeout) = (Arc::clone(&self.api), Arc::clone(&self.state), self.timeout);
        let (path, namesakes) = (Arc::clone(&self.path), self.namesakes.clone());
        Some(Box::pin(async move {
            let fetched = fetch(&api, &path, timeout).await;
            let failed = fetched.as_ref().err().cloned();
            *state.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Attempt { at: now, failed });
            let published = fetched?;
            // Compared first: no key is in force that a namesake might have too.
            if let Some(namesakes) = namesakes {
                namesakes.learn(&api.cluster, published.keys.iter().map(Jwk::thumbprint).collect());
            }
            state.keys.store(Some(Arc::new(KeySet::from(&published))));
            Ok(())
        }))
    }
}

impl State {
    fn last_failure(&self) -> Result<(), CallError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().and_then(|last| last.failed.clone()).map_or(Ok(()), Err)
    }
}

async fn fetch(api: &ApiServer, path: &str, timeout: Duration) -> Result<JwkSet, CallError> {
    let body = api.get(WHAT, path, timeout).await?;
    let set = JwkSet::parse(&body).map_err(|error| CallError::Unreachable(error.to_string()))?;
    tracing::info!(cluster = %api.cluster, keys = set.keys.len(), "read the cluster's token keys");
    Ok(set)
}
