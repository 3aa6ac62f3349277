//! What a token must be to be accepted, but for what is revoked.

use std::time::Duration;

use dayfly_core::ids::{Audience, KeyId, LeaseId, SpiffeId, TrustDomain};
use dayfly_core::time::Timestamp;
use dayfly_jose::{Claims, KeySet, Policy, Times, verify};
use serde_json::{Map, Value};

use crate::origin::{Facts, Origin};
use crate::proof::Proof;
use crate::refused::Refused;
use crate::verified::Said;

/// Which kind of credential is accepted: never both by one verifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// Access tokens, `typ` `at+jwt` (RFC 9068, section 4), of this issuer: `issuer` in the broker's `dayfly.toml`.
    AccessToken {
        /// What `iss` must be.
        issuer: String,
    },
    /// JWT-SVIDs, `typ` `JWT` (SPIFFE JWT-SVID, section 2.3), of this trust domain.
    Svid {
        /// What the trust domain of `sub` must be.
        trust_domain: TrustDomain,
    },
}

/// All that a token is held against, but for what is revoked.
pub(crate) struct Expected {
    pub(crate) profile: Profile,
    pub(crate) audiences: Vec<Audience>,
    pub(crate) scope: Vec<String>,
    pub(crate) leeway: Duration,
}

impl Expected {
    /// Whether the token is good at `now`, but for what is revoked and for its scope.
    pub(crate) fn check(
        &self,
        token: &str,
        keys: &KeySet,
        proof: Proof,
        now: Timestamp,
    ) -> Result<Said, Refused> {
        let policy = match &self.profile {
            Profile::AccessToken { .. } => Policy::exactly("at+jwt"),
            Profile::Svid { .. } => Policy::exactly("JWT"),
        };
        let token = verify(token, keys, policy)?;
        let key: KeyId =
            token.header.kid.as_deref().and_then(|kid| kid.parse().ok()).ok_or(Refused::UnknownKey)?;
        let Claims { issuer, subject, audiences, expires_at, issued_at, id, .. } = &token.claims;
        let subject = subject.clone().ok_or(Refused::Claim("sub"))?;
        let spiffe_id = match &self.profile {
            Profile::AccessToken { issuer: ours } if issuer.as_ref() == Some(ours) => None,
            Profile::AccessToken { .. } => return Err(Refused::Issuer),
            Profile::Svid { trust_domain } => {
                let id: SpiffeId = subject.parse().map_err(|_| Refused::Claim("sub"))?;
                if id.trust_domain() != *trust_domain {
                    return Err(Refused::Issuer);
                }
                Some(id)
            }
        };
        let [audience] = audiences.as_slice() else { return Err(Refused::Audience) };
        let audience = self.audiences.iter().find(|ours| ours.as_str() == audience);
        let audience = audience.ok_or(Refused::Audience)?.clone();
        Times { leeway: self.leeway }.check(&token.claims, now)?;
        let id: LeaseId = id.as_deref().and_then(|id| id.parse().ok()).ok_or(Refused::Claim("jti"))?;
        let origin = origin(&token.claims.all)?;
        Ok(Said {
            facts: Facts::of(&origin, &key, id),
            subject,
            spiffe_id,
            audience,
            scope: scope(&token.claims.all)?,
            issued_at: issued_at.ok_or(Refused::Claim("iat"))?,
            expires_at: expires_at.ok_or(Refused::Claim("exp"))?,
            confirmation: proof.satisfies(&token.claims.all)?,
            origin,
            claims: token.claims.all,
        })
    }

    /// Whether it has all the scope that is required.
    pub(crate) fn check_scope(&self, scope: &[String]) -> Result<(), Refused> {
        if self.scope.iter().all(|required| scope.contains(required)) { Ok(()) } else { Err(Refused::Scope) }
    }
}

fn origin(claims: &Map<String, Value>) -> Result<Origin, Refused> {
    let wrong = Refused::Claim("dayfly");
    serde::Deserialize::deserialize(claims.get("dayfly").ok_or(wrong)?).map_err(|_: serde_json::Error| wrong)
}

/// Scopes, separated by single spaces (RFC 6749, section 3.3).
fn scope(claims: &Map<String, Value>) -> Result<Vec<String>, Refused> {
    match claims.get("scope") {
        None => Ok(Vec::new()),
        Some(Value::String(scope)) => {
            Ok(scope.split(' ').filter(|part| !part.is_empty()).map(Into::into).collect())
        }
        Some(_) => Err(Refused::Claim("scope")),
    }
}
