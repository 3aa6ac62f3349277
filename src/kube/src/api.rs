//! One call to the API server, and what its failures mean.
//!
//! kube's own `Client::request` is not used: it logs an answer it cannot parse, and a TokenReview's answer repeats the
//! token; it also drops `Retry-After`.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dayfly_core::ids::ClusterName;
use dayfly_core::ports::{Clock, DirectoryError, ReviewError};
use http::{HeaderMap, Request, StatusCode, header};
use kube::Client;
use kube::client::Body;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sparing::Sparing;

/// The longest `Retry-After` that is passed on.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// One cluster's API server.
pub(crate) struct ApiServer {
    pub(crate) cluster: ClusterName,
    pub(crate) client: Client,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sparing: Sparing,
}

impl ApiServer {
    /// `GET path`. `what` names the RBAC verb and resource that it takes.
    pub(crate) async fn get(
        &self,
        what: &'static str,
        path: &str,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let request = Request::get(path).body(Vec::new());
        self.send(what, request, timeout).await
    }

    /// `POST path`: creates `object`.
    pub(crate) async fn create<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        object: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let body = serde_json::to_vec(object).map_err(|error| CallError::unreadable(&error))?;
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json").body(body);
        parse(&self.send(what, request, timeout).await?)
    }

    /// Sends a request and takes the body of a good answer.
    pub(crate) async fn send(
        &self,
        what: &'static str,
        request: Result<Request<Vec<u8>>, http::Error>,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let answer = self.ask(what, request, timeout).await;
        answer.inspect_err(|error| self.tell_of_own_credentials(error, what))
    }

    /// The same for what the broker can do without: that it may not have it is for the caller to tell.
    pub(crate) async fn ask(
        &self,
        what: &'static str,
        request: Result<Request<Vec<u8>>, http::Error>,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let request = request.map_err(|error| CallError::Unreachable(error.to_string()))?.map(Body::from);
        let call = async {
            let answer =
                self.client.send(request).await.map_err(|error| CallError::from_kube(&error, what))?;
            let (head, body) = answer.into_parts();
            let body = body.collect_bytes().await.map_err(|error| CallError::from_kube(&error, what))?;
            match CallError::from_status(head.status, &head.headers, what) {
                _ if head.status.is_success() => Ok(body),
                // A proxy's 404 says nothing about an object.
                CallError::NotFound if !says_not_found(&body) => Err(CallError::Failed(404, None)),
                error => Err(error),
            }
        };
        tokio::time::timeout(timeout, call).await.unwrap_or(Err(CallError::Timeout(timeout)))
    }

    /// A broker whose own rights are wrong cannot get better by itself: whoever runs it has to see that.
    pub(crate) fn tell_of_own_credentials(&self, error: &CallError, what: &'static str) {
        let own = matches!(error, CallError::Unauthenticated | CallError::Forbidden(_));
        if own && self.sparing.now_about(what, self.clock.monotonic()) {
            tracing::error!(cluster = %self.cluster, %error, "the broker's own access to the API server is wrong");
        }
    }
}

/// Parses an answer. What it says is in no error: it may repeat a token.
pub(crate) fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(answer).map_err(|error| CallError::unreadable(&error))
}

/// Whether this is the API server's own word (`metav1.Status`) that an object is not there.
fn says_not_found(body: &[u8]) -> bool {
    serde_json::from_slice::<kube::core::Status>(body).is_ok_and(|status| status.reason == "NotFound")
}

/// The API server did not answer, or not as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("it did not answer within {0:?}")]
    Timeout(Duration),
    #[error("too much is waiting for it")]
    Busy,
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it refuses the broker's own credentials (401): they are missing, wrong, or expired")]
    Unauthenticated,
    #[error(
        "the broker itself may not {0} (403): its own RBAC is wrong, deploy/rbac.yaml says what it needs"
    )]
    Forbidden(&'static str),
    #[error("there is no such thing (404)")]
    NotFound,
    #[error("that version is gone (410)")]
    Gone,
    #[error("it is overloaded (429)")]
    Overloaded(Option<Duration>),
    #[error("it failed ({0})")]
    Failed(u16, Option<Duration>),
    #[error(
        "it publishes a token key that cluster {0} of the same issuer publishes too: give each API server service-account keys of its own"
    )]
    SharedKeys(ClusterName),
    #[error("it answered what cannot be read, at line {line}, column {column}")]
    Unreadable { line: usize, column: usize },
}

impl CallError {
    pub(crate) fn from_kube(error: &kube::Error, what: &'static str) -> Self {
        match error {
            kube::Error::Api(status) => match StatusCode::from_u16(status.code) {
                Ok(code) => Self::from_status(code, &HeaderMap::new(), what),
                Err(_) => Self::Failed(status.code, None),
            },
            kube::Error::SerdeError(error) => Self::unreadable(error),
            // kube's own words add nothing to those of hyper.
            error => Self::Unreachable(chain(error.source().unwrap_or(error))),
        }
    }

    fn from_status(status: StatusCode, headers: &HeaderMap, what: &'static str) -> Self {
        let retry_after = || {
            let secs = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
            Some(Duration::from_secs(secs).clamp(Duration::from_secs(1), RETRY_AFTER_MAX))
        };
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthenticated,
            StatusCode::FORBIDDEN => Self::Forbidden(what),
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::GONE => Self::Gone,
            StatusCode::TOO_MANY_REQUESTS => Self::Overloaded(retry_after()),
            status => Self::Failed(status.as_u16(), retry_after()),
        }
    }

    fn unreadable(error: &serde_json::Error) -> Self {
        Self::Unreadable { line: error.line(), column: error.column() }
    }

    /// When asking again may help.
    pub(crate) fn retry_after(&self) -> Duration {
        let secs = match self {
            Self::Overloaded(Some(after)) | Self::Failed(_, Some(after)) => return *after,
            Self::Busy | Self::Overloaded(None) | Self::Timeout(_) => 1,
            Self::Failed(..) | Self::Unreachable(_) | Self::NotFound | Self::Gone => 2,
            Self::Unauthenticated | Self::Forbidden(_) | Self::SharedKeys(_) | Self::Unreadable { .. } => 5,
        };
        Duration::from_secs(secs)
    }
}

impl From<CallError> for ReviewError {
    fn from(error: CallError) -> Self {
        Self::Unavailable { why: error.to_string(), retry_after: error.retry_after() }
    }
}

impl From<CallError> for DirectoryError {
    fn from(error: CallError) -> Self {
        Self { why: error.to_string(), retry_after: error.retry_after() }
    }
}

/// An error and its causes, each once: those of hyper say little by themselves.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}
