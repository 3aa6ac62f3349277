//! Why a use case said no. One enum for all of them: they fail in the same ways, and one exhaustive match at the edge
//! turns it into a gRPC status.

use std::time::Duration;

use dayfly_core::ports::{
    Action, DirectoryError, InvalidToken, MintError, ReviewError, SignError, StoreError, TargetRef,
};
use dayfly_policy::Denial;

use crate::kept::DenialId;

/// A use case's refusal. `Display` is for the caller: it names what to change and holds nothing secret and nothing of
/// other tenants. [`Error::cause`] is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// UNAUTHENTICATED: the token is not good.
    #[error("{message}")]
    Unauthenticated {
        /// What kind of wrong.
        kind: InvalidToken,
        /// What to change.
        message: String,
    },
    /// PERMISSION_DENIED: a verified caller may not have this.
    #[error("{message}")]
    Denied {
        /// Why.
        reason: Reason,
        /// What to change.
        message: String,
        /// By what it can be explained, where it is kept.
        denial: Option<DenialId>,
    },
    /// PERMISSION_DENIED: an operator lacks a right.
    #[error("{message}")]
    NotAllowed {
        /// The right that would have been enough.
        action: Action,
        /// What to change.
        message: String,
    },
    /// INVALID_ARGUMENT: a field of the request is wrong.
    #[error("{field}: {message}")]
    Invalid {
        /// The field, by its name in the API.
        field: &'static str,
        /// What would be right.
        message: String,
    },
    /// NOT_FOUND: there is no such thing, or the caller may not see it.
    #[error("{message}")]
    NotFound {
        /// What was looked for.
        message: String,
    },
    /// FAILED_PRECONDITION: the request fits an earlier state of things.
    #[error("{message}")]
    FailedPrecondition {
        /// Why.
        reason: Reason,
        /// What to change.
        message: String,
    },
    /// OUT_OF_RANGE: a watch cannot go on from where it was.
    #[error("{message}")]
    OutOfRange {
        /// Why.
        message: String,
    },
    /// ABORTED: policy or rules changed each time while this was decided.
    #[error("policy or revocations changed while this was decided: ask again")]
    Outrun,
    /// UNAVAILABLE: something that is needed does not answer.
    #[error("{message}")]
    Unavailable {
        /// What.
        reason: Reason,
        /// What the caller is told.
        message: String,
        /// What the log is told.
        cause: String,
        /// When asking again may help.
        retry_after: Duration,
    },
    /// RESOURCE_EXHAUSTED: too much at once.
    #[error("{message}")]
    Overloaded {
        /// What the caller is told.
        message: String,
        /// When asking again may help.
        retry_after: Duration,
    },
    /// RESOURCE_EXHAUSTED: as many leases are live as may be.
    #[error("{message}")]
    LiveLeases {
        /// Of what, and how many those are.
        message: String,
        /// When one of them ends.
        retry_after: Duration,
    },
    /// INTERNAL: a defect of Dayfly.
    #[error("internal error: the broker's log has more under this request's id")]
    Internal {
        /// What the log is told.
        cause: String,
    },
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// The stable reasons, as the API lists them (`ErrorReason` in `errors.proto`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in the API.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// The token is not of the expected shape, or too large.
    TokenMalformed = "TOKEN_MALFORMED",
    /// The token is of no cluster that is served.
    TokenIssuerUnknown = "TOKEN_ISSUER_UNKNOWN",
    /// The token is not for this audience.
    TokenAudience = "TOKEN_AUDIENCE",
    /// The token is past its expiry.
    TokenExpired = "TOKEN_EXPIRED",
    /// The token is not valid yet.
    TokenNotYetValid = "TOKEN_NOT_YET_VALID",
    /// The token's signature is not by a key of its cluster.
    TokenSignature = "TOKEN_SIGNATURE",
    /// A legacy token from a Secret.
    TokenLegacy = "TOKEN_LEGACY",
    /// The API server does not accept the token.
    TokenRefused = "TOKEN_REFUSED",
    /// The caller is no service account.
    NotAWorkload = "NOT_A_WORKLOAD",
    /// The token is bound to no pod.
    TokenUnbound = "TOKEN_UNBOUND",
    /// The pod is gone, or another one by now.
    PodGone = "POD_GONE",
    /// The pod is being deleted.
    PodTerminating = "POD_TERMINATING",
    /// The pod has ended.
    PodFinished = "POD_FINISHED",
    /// The service account is gone, or was recreated.
    ServiceAccountGone = "SERVICE_ACCOUNT_GONE",
    /// The namespace is being deleted.
    NamespaceTerminating = "NAMESPACE_TERMINATING",
    /// The namespace has no Owner.
    Unowned = "UNOWNED",
    /// The namespace has several Owners of equal rank.
    OwnerAmbiguous = "OWNER_AMBIGUOUS",
    /// There is no valid Target of this name.
    TargetUnknown = "TARGET_UNKNOWN",
    /// No Grant matches.
    GrantMissing = "GRANT_MISSING",
    /// Several Grants match.
    GrantAmbiguous = "GRANT_AMBIGUOUS",
    /// The Grant that was named does not match.
    GrantUnknown = "GRANT_UNKNOWN",
    /// A scope is not in the Grant.
    ScopeNotGranted = "SCOPE_NOT_GRANTED",
    /// A scope is above the Target's ceiling.
    ScopeAboveCeiling = "SCOPE_ABOVE_CEILING",
    /// A claim is above the Target's ceiling.
    ClaimAboveCeiling = "CLAIM_ABOVE_CEILING",
    /// The audience is not allowed.
    AudienceNotGranted = "AUDIENCE_NOT_GRANTED",
    /// Several audiences, none named.
    AudienceAmbiguous = "AUDIENCE_AMBIGUOUS",
    /// It would live too short.
    TtlTooShort = "TTL_TOO_SHORT",
    /// A revocation holds it.
    Held = "HELD",
    /// The operator lacks a right.
    NotAllowed = "NOT_ALLOWED",
    /// No Target lists the caller among its verifiers.
    NotAVerifier = "NOT_A_VERIFIER",
    /// A field is wrong.
    InvalidField = "INVALID_FIELD",
    /// No such thing.
    NotFound = "NOT_FOUND",
    /// The idempotency key was used for another request.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED",
    /// A repeat would not be decided as before.
    DecisionChanged = "DECISION_CHANGED",
    /// The lease of a repeated request, or the one to renew, has ended.
    LeaseEnded = "LEASE_ENDED",
    /// The lease was renewed before.
    LeaseRenewed = "LEASE_RENEWED",
    /// The revocation to lift is no hold.
    NotAHold = "NOT_A_HOLD",
    /// The target signs with an imported key, and there is none.
    SigningKeyMissing = "SIGNING_KEY_MISSING",
    /// The signing key's stage does not allow it.
    KeyStage = "KEY_STAGE",
    /// Policy or rules changed each time.
    DecisionOutrun = "DECISION_OUTRUN",
    /// A watch cannot go on from where it was.
    ResumeOutOfRange = "RESUME_OUT_OF_RANGE",
    /// A revocation holds an image, and not all of the caller's are known.
    ImageUnknown = "IMAGE_UNKNOWN",
    /// Too much at once.
    Overloaded = "OVERLOADED",
    /// As many leases are live as may be.
    LiveLeases = "LIVE_LEASES",
    /// A stream's reader took nothing for too long.
    ReaderSlow = "READER_SLOW",
    /// The cluster's API server does not answer.
    ClusterUnavailable = "CLUSTER_UNAVAILABLE",
    /// The store cannot commit.
    StoreUnavailable = "STORE_UNAVAILABLE",
    /// The store's disk is full.
    StoreFull = "STORE_FULL",
    /// The clock jumped.
    ClockJumped = "CLOCK_JUMPED",
    /// The policy cannot be read.
    PolicyUnavailable = "POLICY_UNAVAILABLE",
    /// No checkpoint could be made.
    CheckpointUnavailable = "CHECKPOINT_UNAVAILABLE",
    /// Starting or stopping.
    NotReady = "NOT_READY",
    /// A defect.
    Internal = "INTERNAL",
}

impl Error {
    /// The stable reason.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Unauthenticated { kind, .. } => of_token(*kind),
            Self::Denied { reason, .. }
            | Self::FailedPrecondition { reason, .. }
            | Self::Unavailable { reason, .. } => *reason,
            Self::NotAllowed { .. } => Reason::NotAllowed,
            Self::Invalid { .. } => Reason::InvalidField,
            Self::NotFound { .. } => Reason::NotFound,
            Self::OutOfRange { .. } => Reason::ResumeOutOfRange,
            Self::Outrun => Reason::DecisionOutrun,
            Self::Overloaded { .. } => Reason::Overloaded,
            Self::LiveLeases { .. } => Reason::LiveLeases,
            Self::Internal { .. } => Reason::Internal,
        }
    }

    /// What the log should have and the caller should not.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Unavailable { cause, .. } | Self::Internal { cause } => Some(cause),
            _ => None,
        }
    }

    /// Whether it says no to what the caller may have, so that the audit log counts it: not what is malformed, and not
    /// what asking again may mend.
    pub(crate) const fn is_refusal(&self) -> bool {
        match self {
            Self::Denied { .. }
            | Self::NotAllowed { .. }
            | Self::NotFound { .. }
            | Self::FailedPrecondition { .. }
            | Self::LiveLeases { .. } => true,
            Self::Unauthenticated { .. }
            | Self::Invalid { .. }
            | Self::OutOfRange { .. }
            | Self::Outrun
            | Self::Unavailable { .. }
            | Self::Overloaded { .. }
            | Self::Internal { .. } => false,
        }
    }

    pub(crate) fn denied(reason: Reason, message: impl Into<String>) -> Self {
        Self::Denied { reason, message: message.into(), denial: None }
    }

    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { field, message: message.into() }
    }

    pub(crate) fn stale(reason: Reason, message: impl Into<String>) -> Self {
        Self::FailedPrecondition { reason, message: message.into() }
    }

    pub(crate) fn internal(cause: impl Into<String>) -> Self {
        Self::Internal { cause: cause.into() }
    }
}

const fn of_token(kind: InvalidToken) -> Reason {
    match kind {
        InvalidToken::Malformed => Reason::TokenMalformed,
        InvalidToken::UnknownIssuer => Reason::TokenIssuerUnknown,
        InvalidToken::WrongAudience => Reason::TokenAudience,
        InvalidToken::Expired => Reason::TokenExpired,
        InvalidToken::NotYetValid => Reason::TokenNotYetValid,
        InvalidToken::BadSignature => Reason::TokenSignature,
        InvalidToken::Legacy => Reason::TokenLegacy,
        InvalidToken::Refused => Reason::TokenRefused,
    }
}

impl From<Denial> for Error {
    fn from(denial: Denial) -> Self {
        let reason = match &denial {
            Denial::ControllerUnknown(_) => {
                return Self::Unavailable {
                    reason: Reason::ClusterUnavailable,
                    message: denial.to_string(),
                    cause: "the controllers of a pod cannot be read".to_owned(),
                    retry_after: Duration::from_secs(5),
                };
            }
            Denial::Unowned(_) | Denial::NarrowedUnowned(_) => Reason::Unowned,
            Denial::OwnerAmbiguous(_) | Denial::NarrowingAmbiguous(_) => Reason::OwnerAmbiguous,
            Denial::TargetUnknown(_) => Reason::TargetUnknown,
            Denial::GrantMissing { .. } => Reason::GrantMissing,
            Denial::GrantAmbiguous(_) => Reason::GrantAmbiguous,
            Denial::GrantUnknown { .. } => Reason::GrantUnknown,
            Denial::ScopeNotGranted { .. } => Reason::ScopeNotGranted,
            Denial::ScopeAboveCeiling { .. } => Reason::ScopeAboveCeiling,
            Denial::ClaimAboveCeiling { .. } => Reason::ClaimAboveCeiling,
            Denial::AudienceNotGranted { .. } => Reason::AudienceNotGranted,
            Denial::AudienceAmbiguous { .. } => Reason::AudienceAmbiguous,
            Denial::TokenUnbound => Reason::TokenUnbound,
            Denial::TtlTooShort { .. } => Reason::TtlTooShort,
        };
        Self::denied(reason, denial.to_string())
    }
}

impl From<ReviewError> for Error {
    fn from(error: ReviewError) -> Self {
        match error {
            ReviewError::Invalid { kind, message } => Self::Unauthenticated { kind, message },
            ReviewError::Unavailable { why, retry_after } => cluster_unavailable(why, retry_after),
            ReviewError::Overloaded => {
                Self::Overloaded { message: error.to_string(), retry_after: Duration::from_secs(1) }
            }
        }
    }
}

impl From<DirectoryError> for Error {
    fn from(error: DirectoryError) -> Self {
        cluster_unavailable(error.why, error.retry_after)
    }
}

fn cluster_unavailable(cause: String, retry_after: Duration) -> Error {
    let message = "the cluster's API server does not answer now: ask again".to_owned();
    Error::Unavailable { reason: Reason::ClusterUnavailable, message, cause, retry_after }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let unavailable = |reason, message: &str, secs| Self::Unavailable {
            reason,
            message: message.to_owned(),
            cause: error.to_string(),
            retry_after: Duration::from_secs(secs),
        };
        match &error {
            StoreError::Full => {
                unavailable(Reason::StoreFull, "the store's disk is full: nothing was issued or written", 30)
            }
            StoreError::Poisoned(_) | StoreError::Closing => unavailable(
                Reason::StoreUnavailable,
                "the store cannot commit now: what was asked for cannot be relied on to have taken effect",
                5,
            ),
            StoreError::Unwritten => unavailable(
                Reason::StoreUnavailable,
                "a revocation is in effect that the store could not write yet: nothing is issued until it is on disk",
                5,
            ),
            StoreError::ClockJumped(_) => unavailable(
                Reason::ClockJumped,
                "the broker's clock jumped: nothing is issued until it is right again",
                30,
            ),
            StoreError::Rng(_) => {
                unavailable(Reason::StoreUnavailable, "the broker's system gives no randomness now", 5)
            }
            StoreError::Busy => Self::Overloaded {
                message: "more is waiting to be recorded than the store takes: ask again".to_owned(),
                retry_after: Duration::from_secs(1),
            },
            StoreError::TooLarge(_) => {
                Self::invalid("request", "what is to be recorded is too large: ask for fewer scopes")
            }
            StoreError::Damaged(_) => Self::internal(error.to_string()),
        }
    }
}

impl From<MintError> for Error {
    fn from(error: MintError) -> Self {
        match &error {
            MintError::TooLarge(_) => {
                Self::invalid("scope", "the credential would be too large: ask for fewer scopes")
            }
            MintError::Sign(SignError::NotImported(target, algorithm)) => {
                let TargetRef { cluster, target } = target;
                let message = format!(
                    "Target {target} signs with {algorithm}, and no key was imported for it: whoever runs the broker \
                     does that, with `dayfly keys import FILE --target {cluster}/{target}`"
                );
                Self::stale(Reason::SigningKeyMissing, message)
            }
            MintError::Sign(_) => Self::internal(error.to_string()),
        }
    }
}

impl From<crate::policies::PolicyUnavailable> for Error {
    fn from(error: crate::policies::PolicyUnavailable) -> Self {
        Self::Unavailable {
            reason: Reason::PolicyUnavailable,
            message: error.to_string(),
            cause: error.to_string(),
            retry_after: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_keep_their_reason() {
        let denial = Denial::Unowned("payments".parse().unwrap());
        assert_eq!(Error::from(denial.clone()).reason().name(), denial.reason());
        assert_eq!(Error::from(Denial::TokenUnbound).reason().name(), Denial::TokenUnbound.reason());
    }

    /// Every reason is one that the API lists.
    #[test]
    fn every_reason_is_in_the_api() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/dayfly/v1/errors.proto");
        let proto = std::fs::read_to_string(path).unwrap();
        for reason in Reason::ALL {
            assert!(proto.contains(&format!(" ERROR_REASON_{} = ", reason.name())), "{}", reason.name());
        }
    }
}
