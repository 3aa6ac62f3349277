//! Why a token is refused.

use dayfly_jose::{BadTime, TokenShape, VerifyError};

/// Why a token is refused. Its message is safe to tell whoever sent the token: it says nothing of any key, and of the token
/// only what its sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It is no signed JWT, or one with what is not supported, such as `crit`.
    #[error(transparent)]
    Malformed(TokenShape),
    /// Its `typ` is not that of the expected profile: an SVID is no access token, nor the other way round.
    #[error("the token's typ is not that of the credentials accepted here")]
    Typ,
    /// Its `alg` is not accepted, or not that of the key it names.
    #[error("the token's alg is not that of the key it names")]
    Algorithm,
    /// It names no key, or one that its issuer does not publish. Keys are asked for again when this happens.
    #[error("the token is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// The signature is not over this content by this key.
    #[error("the token's signature is not valid")]
    Signature,
    /// Its `iss` is another; of an SVID, the trust domain of its `sub`.
    #[error("the token is not of the issuer accepted here")]
    Issuer,
    /// It is not for exactly one audience, which is one of ours.
    #[error("the token is not for this audience alone")]
    Audience,
    /// It is past its `exp`.
    #[error("the token has expired")]
    Expired,
    /// It is before its `nbf` or `iat`.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A claim that Dayfly's tokens have is missing or malformed.
    #[error("the token's claim {0} is missing or malformed")]
    Claim(&'static str),
    /// It is bound by `cnf`, and its sender proved to hold nothing.
    #[error("the token is bound to a key or certificate, and none was proven")]
    ProofMissing,
    /// It is bound by `cnf` to something else than its sender proved to hold, or in a way that is not supported.
    #[error("the token is bound to another key or certificate than the one proven")]
    ProofWrong,
    /// It was revoked.
    #[error("the token was revoked")]
    Revoked,
    /// It has not all the scope that is required here.
    #[error("the token's scope does not suffice")]
    Scope,
    /// Whether it was revoked is not known: the list of revocations is not whole yet, or the broker is silent.
    #[error("whether the token was revoked is not known now")]
    RevocationsUnknown,
    /// There are no keys yet: the broker has not given them.
    #[error("the keys to check the token with are not known yet")]
    KeysUnknown,
}

impl Refused {
    /// A stable name, for logs and the labels of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed(_) => "MALFORMED",
            Self::Typ => "WRONG_TYP",
            Self::Algorithm => "WRONG_ALGORITHM",
            Self::UnknownKey => "UNKNOWN_KEY",
            Self::Signature => "BAD_SIGNATURE",
            Self::Issuer => "WRONG_ISSUER",
            Self::Audience => "WRONG_AUDIENCE",
            Self::Expired => "EXPIRED",
            Self::NotYetValid => "NOT_YET_VALID",
            Self::Claim(_) => "BAD_CLAIM",
            Self::ProofMissing => "PROOF_MISSING",
            Self::ProofWrong => "PROOF_WRONG",
            Self::Revoked => "REVOKED",
            Self::Scope => "SCOPE_MISSING",
            Self::RevocationsUnknown => "REVOCATIONS_UNKNOWN",
            Self::KeysUnknown => "KEYS_UNKNOWN",
        }
    }

    /// Whether it says nothing of the token: the same one may be good a little later.
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::RevocationsUnknown | Self::KeysUnknown)
    }
}

impl From<VerifyError> for Refused {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Shape(TokenShape::Algorithm) | VerifyError::Algorithm => Self::Algorithm,
            VerifyError::Shape(TokenShape::Claim(claim)) => Self::Claim(claim),
            VerifyError::Shape(shape) => Self::Malformed(shape),
            VerifyError::Typ(_) => Self::Typ,
            VerifyError::NoKid | VerifyError::UnknownKey => Self::UnknownKey,
            VerifyError::Signature => Self::Signature,
        }
    }
}

impl From<BadTime> for Refused {
    fn from(error: BadTime) -> Self {
        match error {
            BadTime::NoExpiry => Self::Claim("exp"),
            BadTime::Expired { .. } => Self::Expired,
            BadTime::NotYetValid { .. } => Self::NotYetValid,
        }
    }
}
