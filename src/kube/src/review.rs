//! Whose token it is: a cache of seconds, the local check, then one TokenReview for all who ask at once.

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::digest::Digest;
use dayfly_core::ids::Audience;
use dayfly_core::limits;
use dayfly_core::ports::{BoxFuture, InvalidToken, ReviewError, Reviewer};
use dayfly_core::secret::Secret;
use dayfly_core::workload::Identity;
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::api::{ApiServer, CallError};
use crate::cache::ReviewCache;
use crate::coalesce::Coalesce;
use crate::lines::Lines;
use crate::local::{LocalCheck, invalid};

const WHAT: &str = "create tokenreviews.authentication.k8s.io";
const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// The `Reviewer` of one cluster.
pub(crate) struct TokenReviewer {
    asker: Arc<Asker>,
    under_way: Coalesce<Digest, Result<Arc<Identity>, ReviewError>>,
}

/// What a review takes once it is not in the cache.
pub(crate) struct Asker {
    pub(crate) api: Arc<ApiServer>,
    pub(crate) cache: Arc<ReviewCache>,
    pub(crate) local: LocalCheck,
    pub(crate) permits: Permits,
    /// Where operators' tokens wait for theirs.
    pub(crate) lines: Lines,
    pub(crate) timeout: Duration,
}

/// How many reviews may be under way. Operators have their own, so that no flood of workloads keeps them from revoking;
/// and their rights have others than their tokens, so that no flood of tokens does.
pub(crate) struct Permits {
    /// For operators' tokens.
    pub(crate) operators: Arc<Semaphore>,
    /// For whether they may revoke.
    pub(crate) revoking: Arc<Semaphore>,
    /// For what else they may.
    pub(crate) lists: Arc<Semaphore>,
    /// For all others.
    pub(crate) others: Arc<Semaphore>,
}

impl Permits {
    /// Splits what may be under way at once: an eighth for operators' tokens, as much for whether they may revoke, and
    /// for their lists.
    pub(crate) fn split(at_once: usize) -> Self {
        let eighth = Self::of_operators(at_once);
        let others = at_once.saturating_sub(3 * eighth).max(1);
        let places = |places| Arc::new(Semaphore::new(places));
        Self {
            operators: places(eighth),
            revoking: places(eighth),
            lists: places(eighth),
            others: places(others),
        }
    }

    /// How many of them are for operators' tokens.
    pub(crate) fn of_operators(at_once: usize) -> usize {
        (at_once / 8).max(1)
    }
}

impl TokenReviewer {
    pub(crate) fn new(asker: Asker) -> Self {
        Self { asker: Arc::new(asker), under_way: Coalesce::new() }
    }
}

impl Reviewer for TokenReviewer {
    fn review<'a>(
        &'a self,
        token: &'a Secret,
        audience: &'a Audience,
    ) -> BoxFuture<'a, Result<Arc<Identity>, ReviewError>> {
        Box::pin(async move {
            if token.len() > limits::TOKEN_BYTES {
                let message = format!("the token is larger than {} bytes", limits::TOKEN_BYTES);
                return Err(invalid(InvalidToken::Malformed, message));
            }
            let key = key(token, audience);
            if let Some(said) = self.asker.known(&key) {
                return said;
            }
            let review = self.under_way.join_or(key, || {
                let (asker, token, audience) = (Arc::clone(&self.asker), token.clone(), audience.clone());
                Some(Box::pin(async move { asker.review(key, &token, &audience).await }))
            });
            let reviewed = match review {
                Some(review) => review.await,
                None => Err(CallError::Busy.into()),
            };
            // It may have become known meanwhile.
            self.asker.local.can_tell()?;
            reviewed
        })
    }

    fn known(&self, token: &Secret, audience: &Audience) -> Option<Result<Arc<Identity>, ReviewError>> {
        self.asker.known(&key(token, audience))
    }
}

/// What a review is kept under. No audience holds a NUL. The cluster is not in it: each has a cache of its own.
fn key(token: &Secret, audience: &Audience) -> Digest {
    Digest::of_parts(&[audience.as_str().as_bytes(), &[0], token.expose()])
}

impl Asker {
    fn known(&self, key: &Digest) -> Option<Result<Arc<Identity>, ReviewError>> {
        if let Err(error) = self.local.can_tell() {
            return Some(Err(error.into()));
        }
        self.cache.get(key, self.api.clock.monotonic())
    }

    async fn review(
        &self,
        key: Digest,
        token: &Secret,
        audience: &Audience,
    ) -> Result<Arc<Identity>, ReviewError> {
        let review = self.check_and_ask(key, token, audience);
        let timeout = CallError::Timeout(self.timeout);
        tokio::time::timeout(self.timeout, review).await.unwrap_or_else(|_| Err(timeout.into()))
    }

    async fn check_and_ask(
        &self,
        key: Digest,
        token: &Secret,
        audience: &Audience,
    ) -> Result<Arc<Identity>, ReviewError> {
        let text = token
            .expose_text()
            .map_err(|_| invalid(InvalidToken::Malformed, "the token is not a signed JWT"))?;
        let _turn = if *audience == self.local.audiences.operator {
            Some(self.lines.turn(text).await.ok_or(ReviewError::Overloaded)?)
        } else {
            None
        };
        let said = self.local.check(text, audience).await?;
        let asked = self.api.clock.monotonic();
        let life = said.expires_at.since(self.api.clock.now());
        let status = self.ask(text, audience).await?;
        let identity = match self.identity(status, audience) {
            Ok(identity) => Arc::new(Identity { of_secret: said.of_secret, ..identity }),
            Err(refused) => {
                // Its own word on this token: a failure to answer is none, and never comes here.
                self.cache.put_refused(key, &refused, self.api.clock.monotonic());
                return Err(refused);
            }
        };
        self.cache.put(key, &identity, asked, life);
        Ok(identity)
    }

    async fn ask(&self, token: &str, audience: &Audience) -> Result<TokenReviewStatus, CallError> {
        let operators = *audience == self.local.audiences.operator;
        let permits = if operators { &self.permits.operators } else { &self.permits.others };
        let _permit = permits.acquire().await.map_err(|_| CallError::Busy)?;
        let review = TokenReview {
            api_version: "authentication.k8s.io/v1",
            kind: "TokenReview",
            spec: Spec { token, audiences: [audience.as_str()] },
        };
        let Reviewed { status } = self.api.create(WHAT, PATH, &review, self.timeout).await?;
        Ok(status)
    }

    /// A yes has to be whole: for our audience and nothing else, and of someone.
    fn identity(&self, status: TokenReviewStatus, audience: &Audience) -> Result<Identity, ReviewError> {
        let refused = |message: &str| Err(invalid(InvalidToken::Refused, message));
        if status.authenticated != Some(true) {
            // The API server's own words are not passed on: they may be about others.
            return refused(
                "the cluster's API server refused the token: its pod or service account is gone, or the token was invalidated",
            );
        }
        if !matches!(status.audiences.as_deref(), Some([only]) if *only == audience.as_str()) {
            let message = format!("the cluster's API server does not confirm the audience {audience}");
            return Err(invalid(InvalidToken::WrongAudience, message));
        }
        let user = status.user.unwrap_or_default();
        match (user.username, user.uid) {
            (Some(username), Some(uid)) if !username.is_empty() && !uid.is_empty() => Ok(Identity {
                cluster: self.api.cluster.clone(),
                username,
                uid,
                groups: user.groups.unwrap_or_default(),
                extra: user.extra.unwrap_or_default(),
                of_secret: false,
            }),
            _ => refused("the cluster's API server does not say whose token it is, by name and uid"),
        }
    }
}

/// The question. Not `k8s_openapi`'s type, which would hold a copy of the token and show it in its `Debug`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenReview<'a> {
    api_version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    audiences: [&'a str; 1],
}

/// The answer, without the token that it repeats.
#[derive(Deserialize)]
struct Reviewed {
    status: TokenReviewStatus,
}

#[cfg(test)]
mod tests;
