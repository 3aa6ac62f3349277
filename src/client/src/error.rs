//! Why a call gave nothing.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::token::TokenError;

/// Why a call gave nothing. It never holds a token or a credential.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client was set up wrongly.
    #[error("{0}")]
    Config(String),
    /// The caller's own token cannot be had.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The broker rejected the call.
    #[error("{}", .0.message)]
    Rejected(Box<Rejected>),
    /// The broker cannot be reached, or the connection broke.
    #[error("cannot reach the broker: {0}")]
    Unreachable(String),
    /// The call did not end in its time. Whether it took effect is not known.
    #[error("the call did not end within {within:?}{}", .last.as_ref().map(|e| format!("; the last try: {e}")).unwrap_or_default())]
    Deadline {
        /// The time it had.
        within: Duration,
        /// How the last try before failed, where one did.
        last: Option<Box<Error>>,
    },
    /// The broker's answer lacks what its API promises.
    #[error("the broker's answer has no {0}")]
    Malformed(&'static str),
    /// The kept credential has expired and could not be refreshed.
    #[error("the credential has expired and could not be refreshed: {0}")]
    Stale(Box<Error>),
    /// The system gave no randomness for an idempotency key.
    #[error("the system gave no randomness")]
    Randomness,
}

/// A rejection by the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The gRPC code.
    pub code: Code,
    /// The stable reason (`google.rpc.ErrorInfo`), one of docs/reference/errors.md; none from something in between.
    pub reason: Option<String>,
    /// What to change, for people.
    pub message: String,
    /// Facts a program can act on.
    pub metadata: BTreeMap<String, String>,
    /// When asking again can help (`google.rpc.RetryInfo`).
    pub retry_after: Option<Duration>,
}

impl Error {
    /// The stable reason of docs/reference/errors.md, such as `GRANT_MISSING`, where the broker gave one.
    pub fn reason(&self) -> Option<&str> {
        self.rejected().and_then(|rejected| rejected.reason.as_deref())
    }

    /// The broker's rejection, where it was one.
    pub fn rejected(&self) -> Option<&Rejected> {
        match self {
            Self::Rejected(rejected) => Some(rejected),
            Self::Deadline { last: Some(inner), .. } | Self::Stale(inner) => inner.rejected(),
            _ => None,
        }
    }

    /// Facts of the rejection that a program can act on; empty where there are none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.rejected().map_or(&NONE, |rejected| &rejected.metadata)
    }

    /// The gRPC code it comes to, where it came to a call.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Rejected(rejected) => Some(rejected.code),
            Self::Unreachable(_) => Some(Code::Unavailable),
            Self::Deadline { .. } => Some(Code::DeadlineExceeded),
            Self::Stale(inner) => inner.code(),
            Self::Config(_) | Self::Token(_) | Self::Malformed(_) | Self::Randomness => None,
        }
    }

    /// Whether a lease could not be renewed for what it is, and asking for a new one may do: it has ended or was renewed
    /// before, is not known, or is of what is not given any more.
    pub fn asks_for_issue(&self) -> bool {
        const REASONS: [&str; 11] = [
            "LEASE_ENDED",
            "LEASE_RENEWED",
            "NOT_FOUND",
            "METHOD_UNKNOWN",
            "DECISION_CHANGED",
            "GRANT_UNKNOWN",
            "SCOPE_NOT_GRANTED",
            "SCOPE_ABOVE_CEILING",
            "CLAIM_ABOVE_CEILING",
            "AUDIENCE_NOT_GRANTED",
            "TARGET_UNKNOWN",
        ];
        self.code() == Some(Code::Unimplemented)
            || self.reason().is_some_and(|reason| REASONS.contains(&reason))
    }

    /// Whether asking the same again can help.
    pub fn is_worth_repeating(&self) -> bool {
        matches!(self.code(), Some(Code::Unavailable | Code::ResourceExhausted | Code::Aborted))
    }

    /// When asking again can help, where the broker said so (`google.rpc.RetryInfo`).
    pub fn retry_after(&self) -> Option<Duration> {
        self.rejected().and_then(|rejected| rejected.retry_after)
    }

    /// A status, from the broker or from our own side of the connection.
    pub fn of_status(status: &Status) -> Self {
        if status.source().is_some() {
            return Self::Unreachable(causes(status));
        }
        let info = status.get_details_error_info();
        let (reason, metadata) = info.map(|info| (info.reason, info.metadata)).unzip();
        Self::Rejected(Box::new(Rejected {
            code: status.code(),
            reason: reason.filter(|reason| !reason.is_empty()),
            message: status.message().to_owned(),
            metadata: metadata.unwrap_or_default().into_iter().collect(),
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
        }))
    }
}

/// What lies under a broken connection, outermost first, each once: the outer ones say only "transport error".
fn causes(status: &Status) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut cause = status.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !causes.iter().any(|earlier| earlier.contains(&text)) {
            causes.push(text);
        }
        cause = error.source();
    }
    causes.retain(|text| text != "transport error");
    if causes.is_empty() { "the connection broke".to_owned() } else { causes.join(": ") }
}
