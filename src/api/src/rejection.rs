//! The form of every rejection: a gRPC status with `google.rpc.ErrorInfo`, and `RetryInfo` where asking again helps.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::v1::ErrorReason;

/// `ErrorInfo.domain` of all our rejections.
pub const DOMAIN: &str = "dayfly.dev";

/// A rejection, before it becomes a status.
#[derive(Debug, Clone)]
pub struct Rejection {
    reason: ErrorReason,
    message: String,
    metadata: HashMap<String, String>,
    retry_after: Option<Duration>,
}

impl Rejection {
    /// A rejection for this reason; `message` names what to change and holds nothing secret.
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), metadata: HashMap::new(), retry_after: None }
    }

    /// Adds a fact that a program can act on.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Says when asking again can help.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The status that carries it.
    pub fn into_status(self) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason_name(self.reason), DOMAIN, self.metadata);
        if let Some(after) = self.retry_after {
            details.set_retry_info(Some(after));
        }
        Status::with_error_details(code(self.reason), self.message, details)
    }
}

/// The reason as `ErrorInfo` carries it: without its prefix.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

/// The reason of this name, as `ErrorInfo` or a denial carries it.
pub fn reason_of_name(name: &str) -> Option<ErrorReason> {
    ErrorReason::from_str_name(&format!("ERROR_REASON_{name}"))
}

/// The gRPC code that a reason comes with.
pub fn code(reason: ErrorReason) -> Code {
    use ErrorReason as R;
    match reason {
        R::TokenMissing
        | R::TokenMalformed
        | R::TokenIssuerUnknown
        | R::TokenAudience
        | R::TokenExpired
        | R::TokenNotYetValid
        | R::TokenSignature
        | R::TokenLegacy
        | R::TokenRefused => Code::Unauthenticated,
        R::NotAWorkload
        | R::TokenUnbound
        | R::PodGone
        | R::PodTerminating
        | R::PodFinished
        | R::ServiceAccountGone
        | R::NamespaceTerminating
        | R::Unowned
        | R::OwnerAmbiguous
        | R::TargetUnknown
        | R::GrantMissing
        | R::GrantAmbiguous
        | R::GrantUnknown
        | R::ScopeNotGranted
        | R::ScopeAboveCeiling
        | R::ClaimAboveCeiling
        | R::AudienceNotGranted
        | R::AudienceAmbiguous
        | R::TtlTooShort
        | R::Held
        | R::NotAllowed
        | R::NotAVerifier => Code::PermissionDenied,
        R::InvalidField | R::SelectorEmpty | R::AfterMissing | R::PageToken | R::RequestMalformed => {
            Code::InvalidArgument
        }
        R::MethodUnknown => Code::Unimplemented,
        R::NotFound => Code::NotFound,
        R::IdempotencyKeyReused
        | R::DecisionChanged
        | R::LeaseEnded
        | R::LeaseRenewed
        | R::NotAHold
        | R::KeyStage
        | R::SigningKeyMissing => Code::FailedPrecondition,
        R::DecisionOutrun => Code::Aborted,
        R::ResumeOutOfRange => Code::OutOfRange,
        R::Overloaded | R::ReaderSlow | R::LiveLeases | R::BackupCut => Code::ResourceExhausted,
        R::ImageUnknown
        | R::CheckpointUnavailable
        | R::ClusterUnavailable
        | R::StoreUnavailable
        | R::StoreFull
        | R::ClockJumped
        | R::PolicyUnavailable
        | R::NotReady => Code::Unavailable,
        R::Deadline => Code::DeadlineExceeded,
        R::Internal | R::Unspecified => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_carries_reason_metadata_and_hint() {
        let status = Rejection::new(ErrorReason::StoreFull, "no room")
            .with("free_bytes", "0")
            .retry_after(Duration::from_secs(5))
            .into_status();
        assert_eq!(status.code(), Code::Unavailable);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("STORE_FULL", DOMAIN));
        assert_eq!(info.metadata["free_bytes"], "0");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(5)));
        assert_eq!(reason_of_name("STORE_FULL"), Some(ErrorReason::StoreFull));
    }

    /// The comment of each reason begins with the code that it comes with.
    #[test]
    fn codes_are_as_documented() {
        let table = include_str!("../../../docs/reference/errors.md");
        let mut rows = 0;
        for row in table.lines().filter_map(|line| line.strip_prefix("| `")) {
            let mut cells = row.split('`');
            let (name, documented) = (cells.next().unwrap(), cells.nth(1).unwrap());
            let reason = reason_of_name(name).unwrap();
            let code = format!("{:?}", code(reason));
            assert_eq!(code.to_uppercase(), documented.replace('_', ""), "{name}");
            rows += 1;
        }
        assert!(rows > 40, "{rows} rows");
    }
}
