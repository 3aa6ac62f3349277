//! What can be said of a token without a TokenReview: cheap refusals, and the audiences that a TokenReview does not tell.

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ids::Audience;
use dayfly_core::ports::{Clock, InvalidToken, LEGACY_ISSUER, ReviewError};
use dayfly_core::time::Timestamp;
use dayfly_jose::{BadTime, Claims, Policy, Times, VerifyError, peek, verify};

use crate::api::CallError;
use crate::config::Audiences;
use crate::keys::ClusterKeys;

/// The local check of one cluster's tokens.
///
/// Its claims count even where no signature is checked: the TokenReview that follows vouches for the same token.
pub(crate) struct LocalCheck {
    pub(crate) issuer: String,
    pub(crate) audiences: Audiences,
    pub(crate) api_audiences: Vec<String>,
    pub(crate) leeway: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    /// None where the cluster hides keys: then signatures are left to the API server.
    pub(crate) keys: Option<Arc<ClusterKeys>>,
}

/// What a token says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    /// When it ends.
    pub(crate) expires_at: Timestamp,
    /// Whether it is bound to a Secret.
    pub(crate) of_secret: bool,
}

impl LocalCheck {
    /// That tokens of this cluster can be told from those of every other.
    pub(crate) fn can_tell(&self) -> Result<(), CallError> {
        self.keys.as_ref().map_or(Ok(()), |keys| keys.are_its_own())
    }

    /// Whether the token may be good for `audience`; what it says that a TokenReview does not.
    pub(crate) async fn check(&self, token: &str, audience: &Audience) -> Result<Said, ReviewError> {
        let peek = peek(token).map_err(|shape| invalid(InvalidToken::Malformed, shape.to_string()))?;
        self.origin(&peek.claims, audience)?;
        let times = Times { leeway: self.leeway };
        times.check(&peek.claims, self.clock.now()).map_err(|error| bad_time(error, audience))?;
        self.audience(&peek.claims, audience)?;
        if let Some(keys) = &self.keys {
            let set = keys.set_for(peek.header.kid.as_deref()).await?;
            // The set may just have been read, and be a namesake's too.
            keys.are_its_own()?;
            verify(token, &set, Policy::kubernetes()).map_err(bad_signature)?;
        }
        let expires_at = peek.claims.expires_at.ok_or_else(|| ReviewError::legacy(audience))?;
        let of_secret = peek.claims.all.get("kubernetes.io").is_some_and(|ours| ours.get("secret").is_some());
        Ok(Said { expires_at, of_secret })
    }

    fn origin(&self, claims: &Claims, audience: &Audience) -> Result<(), ReviewError> {
        let of_secret = claims.all.contains_key("kubernetes.io/serviceaccount/secret.name");
        match claims.issuer.as_deref() {
            Some(LEGACY_ISSUER) => Err(ReviewError::legacy(audience)),
            Some(issuer) if issuer == self.issuer => {
                let endless = claims.expires_at.is_none() || claims.audiences.is_empty();
                if of_secret || endless { Err(ReviewError::legacy(audience)) } else { Ok(()) }
            }
            _ => Err(invalid(
                InvalidToken::UnknownIssuer,
                format!("the token is not of this cluster, whose issuer is {}", self.issuer),
            )),
        }
    }

    /// Exactly the one audience: whoever else a token is for could bring it here, and we could take it there.
    fn audience(&self, claims: &Claims, audience: &Audience) -> Result<(), ReviewError> {
        if claims.is_only_for(audience.as_str()) {
            return Ok(());
        }
        let has = |wanted: &str| claims.audiences.iter().any(|audience| audience == wanted);
        let message = if self.api_audiences.iter().any(|api| has(api)) {
            format!(
                "the token is good for the API server itself, which Dayfly never takes: project one for the audience {audience} alone"
            )
        } else if let Some(other) =
            self.audiences.all().into_iter().find(|o| *o != audience && has(o.as_str()))
        {
            format!("the token is for Dayfly's audience {other}, this call takes {audience} alone")
        } else if has(audience.as_str()) {
            format!("the token has other audiences too: it must be for {audience} alone")
        } else {
            format!("the token is for another audience: it must be for {audience}")
        };
        Err(invalid(InvalidToken::WrongAudience, message))
    }
}

fn bad_time(error: BadTime, audience: &Audience) -> ReviewError {
    match error {
        BadTime::NoExpiry => ReviewError::legacy(audience),
        BadTime::Expired { .. } => invalid(InvalidToken::Expired, error.to_string()),
        BadTime::NotYetValid { .. } => invalid(InvalidToken::NotYetValid, error.to_string()),
    }
}

fn bad_signature(error: VerifyError) -> ReviewError {
    let kind = match error {
        VerifyError::Shape(_) | VerifyError::Typ(_) => InvalidToken::Malformed,
        VerifyError::NoKid | VerifyError::UnknownKey | VerifyError::Algorithm | VerifyError::Signature => {
            InvalidToken::BadSignature
        }
    };
    invalid(kind, error.to_string())
}

/// A refusal, whose message is safe to tell the caller.
pub(crate) fn invalid(kind: InvalidToken, message: impl Into<String>) -> ReviewError {
    ReviewError::Invalid { kind, message: message.into() }
}
