//! What a token's sender proved to hold, and what the token asks for (`cnf`, RFC 7800).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dayfly_core::digest::Digest;
use dayfly_core::lease::Confirmation;
use serde_json::{Map, Value};

use crate::refused::Refused;

/// What the sender of a token proved to hold, on the way it was sent. The proof itself is the caller's to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proof {
    /// Nothing: a token that is bound is refused.
    #[default]
    Nothing,
    /// The key with this JWK thumbprint, by a DPoP proof that is good (RFC 9449, section 4.3).
    Key(Digest),
    /// The certificate with this digest, by TLS (RFC 8705, section 3).
    Certificate(Digest),
}

impl Proof {
    /// The key with this thumbprint (RFC 7638, SHA-256, base64url); none where the text is no such thumbprint.
    pub fn jwk_thumbprint(thumbprint: &str) -> Option<Self> {
        digest(thumbprint).map(Self::Key)
    }

    /// The client certificate of the TLS connection, in its DER form.
    pub fn certificate(der: &[u8]) -> Self {
        Self::Certificate(Digest::of(der))
    }

    /// What the claims ask for, where it is this.
    ///
    /// # Errors
    /// [`Refused::ProofMissing`], [`Refused::ProofWrong`], [`Refused::Claim`].
    pub(crate) fn satisfies(self, claims: &Map<String, Value>) -> Result<Option<Confirmation>, Refused> {
        let Some(cnf) = claims.get("cnf") else { return Ok(None) };
        let cnf = cnf.as_object().ok_or(Refused::Claim("cnf"))?;
        let mut members = cnf.iter();
        // Several, or one that is not known here, ask for more than can be said to be proven.
        let (Some((name @ ("jkt" | "x5t#S256"), thumbprint)), None) =
            (members.next().map(|(name, value)| (name.as_str(), value)), members.next())
        else {
            return Err(Refused::ProofWrong);
        };
        let asked = thumbprint.as_str().and_then(digest).ok_or(Refused::Claim("cnf"))?;
        match (name, self) {
            (_, Self::Nothing) => Err(Refused::ProofMissing),
            ("jkt", Self::Key(proven)) if proven == asked => Ok(Some(Confirmation::Jwk(asked))),
            ("x5t#S256", Self::Certificate(proven)) if proven == asked => {
                Ok(Some(Confirmation::Certificate(asked)))
            }
            _ => Err(Refused::ProofWrong),
        }
    }
}

fn digest(base64url: &str) -> Option<Digest> {
    let bytes = URL_SAFE_NO_PAD.decode(base64url).ok()?;
    Some(Digest::from_bytes(bytes.try_into().ok()?))
}
