//! Operators' sessions: their tokens, signed and read with keys of that use alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ids::{Audience, Incarnation, InstanceId};
use dayfly_core::limits;
use dayfly_core::ports::{InvalidToken, SignError};
use dayfly_core::secret::Secret;
use dayfly_core::session::{NoSession, Session, SessionToken, SessionTokens};
use dayfly_core::signing::{KeyPurpose, KeyUse, SigningAlgorithm};
use dayfly_core::time::Timestamp;
use dayfly_core::workload::Identity;
use dayfly_jose::{Claims, VerifyError};
use serde_json::{Value, json};

use crate::KeyRing;

/// How far a clock may have gone back since a session's token was signed.
const LEEWAY: Duration = Duration::from_secs(30);

/// What their keys are for.
pub const SESSION_KEYS: KeyPurpose = KeyPurpose::of(KeyUse::OperatorSession, SigningAlgorithm::Es256);

/// The sessions of one store, in one life of it: a token of another is none of its own.
pub struct RingSessions {
    ring: Arc<KeyRing>,
    issuer: String,
    audience: Audience,
    instance: InstanceId,
    incarnation: Incarnation,
}

impl RingSessions {
    /// Sessions of this issuer, for this audience, by the keys of this ring.
    pub const fn new(
        ring: Arc<KeyRing>,
        issuer: String,
        audience: Audience,
        instance: InstanceId,
        incarnation: Incarnation,
    ) -> Self {
        Self { ring, issuer, audience, instance, incarnation }
    }

    fn session(&self, claims: &Claims) -> Option<Session> {
        let own = claims.all.get("dayfly")?;
        let text = |name: &str| own.get(name)?.as_str().map(str::to_owned);
        let of_this_life = text("instance")? == self.instance.to_string()
            && own.get("incarnation")?.as_u64()? == u64::from(self.incarnation.0);
        if !of_this_life || claims.issuer.as_deref() != Some(&self.issuer) {
            return None;
        }
        let identity = Identity {
            cluster: text("cluster")?.parse().ok()?,
            username: claims.subject.clone()?,
            uid: text("uid")?,
            groups: texts(own.get("groups")?)?,
            extra: extra(own.get("extra")?)?,
            of_secret: false,
        };
        let (id, issued_at, expires_at) =
            (claims.id.as_ref()?.parse().ok()?, claims.issued_at?, claims.expires_at?);
        let whole = expires_at.since(issued_at) <= limits::SESSION_TTL;
        whole.then_some(Session { id, identity, issued_at, expires_at })
    }
}

impl SessionTokens for RingSessions {
    fn sign(&self, session: &Session) -> Result<SessionToken, SignError> {
        let Session { id, identity, issued_at, expires_at } = session;
        let claims = json!({
            "iss": self.issuer,
            "sub": identity.username,
            "aud": self.audience.as_str(),
            "iat": issued_at.as_secs(),
            "exp": expires_at.as_secs(),
            "jti": id.to_string(),
            "dayfly": {
                "cluster": identity.cluster.as_str(),
                "instance": self.instance.to_string(),
                "incarnation": self.incarnation.0,
                "uid": identity.uid,
                "groups": identity.groups,
                "extra": identity.extra,
            },
        });
        let (key, token) = self.ring.sign_own(&SESSION_KEYS, claims.to_string().as_bytes())?;
        // Broker::open_session has seen to what may make it larger.
        if token.len() > limits::TOKEN_BYTES {
            Err(SignError::Failed)
        } else {
            Ok(SessionToken { token, key })
        }
    }

    fn read(&self, token: &Secret, now: Timestamp) -> Result<Session, NoSession> {
        let bad = |kind, message: &str| NoSession { kind, message: message.to_owned() };
        let text =
            token.expose_text().map_err(|_| bad(InvalidToken::Malformed, "the token is not a signed JWT"))?;
        let verified = self.ring.verify_own(&KeyUse::OperatorSession, text).map_err(|error| match error {
            VerifyError::Typ(_) => bad(
                InvalidToken::WrongAudience,
                "a token that Dayfly issued to a workload is good for its target, and not for Dayfly",
            ),
            VerifyError::UnknownKey => bad(
                InvalidToken::BadSignature,
                "the session was signed by a key that is not there any more, or by another broker: open a new one",
            ),
            VerifyError::Shape(_) => bad(InvalidToken::Malformed, &error.to_string()),
            _ => bad(InvalidToken::BadSignature, &error.to_string()),
        })?;
        if !verified.claims.is_only_for(self.audience.as_str()) {
            return Err(bad(
                InvalidToken::WrongAudience,
                "the session is for another audience: open a new one",
            ));
        }
        let session = self.session(&verified.claims).ok_or_else(|| {
            bad(
                InvalidToken::Refused,
                "the session is of an earlier life of this broker's store: open a new one",
            )
        })?;
        if now >= session.expires_at {
            let message = format!("the session ended at {}: open a new one", session.expires_at);
            return Err(NoSession { kind: InvalidToken::Expired, message });
        }
        if session.issued_at > now.plus(LEEWAY) {
            return Err(bad(
                InvalidToken::NotYetValid,
                "the session begins later than it is now: open a new one",
            ));
        }
        Ok(session)
    }
}

fn texts(list: &Value) -> Option<Vec<String>> {
    list.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

fn extra(map: &Value) -> Option<BTreeMap<String, Vec<String>>> {
    map.as_object()?.iter().map(|(key, values)| Some((key.clone(), texts(values)?))).collect()
}

#[cfg(test)]
mod tests;
