//! The key that signs service-account tokens: made at each start, kept in memory.

use dayfly_jose::{JwkSet, KeySet, Policy, SigningKey, verify};
use serde_json::{Value, json};

use crate::refusal::Refusal;

/// One ES256 key, and the set that verifies it.
pub(crate) struct Keys {
    signing: SigningKey,
    verifying: KeySet,
}

impl Keys {
    pub(crate) fn generate() -> Result<Self, Refusal> {
        let signing = SigningKey::generate().map_err(|failed| Refusal::internal(failed.to_string()))?;
        let set = JwkSet { keys: vec![signing.public_jwk().clone()], skipped: 0 };
        Ok(Self { verifying: KeySet::from(&set), signing })
    }

    /// A compact JWS over these claims. Its header has a `typ`, which the real API server leaves out.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, Refusal> {
        let failed = |why: String| Refusal::internal(why);
        let token = self.signing.sign_jws("JWT", claims.to_string().as_bytes());
        let token = token.map_err(|error| failed(error.to_string()))?;
        token.expose_text().map(str::to_owned).map_err(|error| failed(error.to_string()))
    }

    /// The claims of a token whose signature is good.
    pub(crate) fn verify(&self, token: &str) -> Option<Value> {
        let verified = verify(token, &self.verifying, Policy::kubernetes()).ok()?;
        Some(Value::Object(verified.claims.all))
    }

    /// The JWK Set (RFC 7517, section 5).
    pub(crate) fn jwks(&self) -> Value {
        json!({"keys": [self.signing.public_jwk()]})
    }
}
