//! Checks a token's signature against a set of keys.

use ring::signature::{RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};

use crate::alg::Alg;
use crate::claims::Claims;
use crate::compact::{Compact, Header, TokenShape};
use crate::jwk::{Jwk, JwkSet, JwksError, Material};

/// Verifies a compact JWS (RFC 7515, section 5.2) whose payload is a JWT's claims (RFC 7519, section 7.2), but for its
/// times ([`crate::Times`]), issuer and audience, which are the caller's to check.
///
/// The key is the one its `kid` names, the algorithm is the key's, and `alg` must say the same.
///
/// # Errors
/// Why not; safe to tell the caller.
pub fn verify(token: &str, keys: &KeySet, policy: Policy) -> Result<Verified, VerifyError> {
    let compact = Compact::parse(token)?;
    if !policy.typ.admits(compact.header.typ.as_deref()) {
        return Err(VerifyError::Typ(policy.typ));
    }
    keys.check(&compact, policy)?;
    let claims = Claims::parse(&compact.payload)?;
    Ok(Verified { header: compact.header, payload: compact.payload, claims })
}

/// A token whose signature is good.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Its header.
    pub header: Header,
    /// Its payload, as it was signed.
    pub payload: Vec<u8>,
    /// The claims that the payload is.
    pub claims: Claims,
}

/// What a token must be to be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What its `typ` must be.
    pub typ: Typ,
    /// What becomes of a token without `kid`.
    pub without_kid: WithoutKid,
}

impl Policy {
    /// For tokens of exactly this `typ`, such as `at+jwt` (RFC 9068, section 4), with a `kid`.
    pub const fn exactly(typ: &'static str) -> Self {
        Self { typ: Typ::Exactly(typ), without_kid: WithoutKid::Refuse }
    }

    /// For Kubernetes service-account tokens: no `typ`, or `JWT`; with a `kid`.
    pub const fn kubernetes() -> Self {
        Self { typ: Typ::JwtOrAbsent, without_kid: WithoutKid::Refuse }
    }
}

/// What a token's `typ` must be (RFC 8725, section 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typ {
    /// Exactly this.
    Exactly(&'static str),
    /// Absent, or `JWT`.
    JwtOrAbsent,
}

impl Typ {
    fn admits(self, typ: Option<&str>) -> bool {
        match self {
            Self::Exactly(expected) => typ == Some(expected),
            Self::JwtOrAbsent => typ.is_none_or(|typ| typ == "JWT"),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Exactly(expected) => expected,
            Self::JwtOrAbsent => "JWT",
        }
    }
}

/// What becomes of a token without `kid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutKid {
    /// It is refused.
    Refuse,
    /// It is checked with the only key of its algorithm; where there are several, refused.
    OnlyKeyThatFits,
}

/// A token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It does not have the shape of one.
    #[error(transparent)]
    Shape(#[from] TokenShape),
    /// Its `typ` is another.
    #[error("the token's typ is not {}", .0.expected())]
    Typ(Typ),
    /// It has no `kid`.
    #[error("the token's header has no kid")]
    NoKid,
    /// Its `kid` names none of the keys; the set may be older than the key.
    #[error("the token is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// Its `alg` is not the key's.
    #[error("the token's alg is not that of the key it names")]
    Algorithm,
    /// The signature is not over this content by this key.
    #[error("the token's signature is not valid")]
    Signature,
}

/// Keys to verify with, parsed once.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<VerifyingKey>,
}

impl KeySet {
    /// A set of these.
    pub fn new(keys: Vec<VerifyingKey>) -> Self {
        Self { keys }
    }

    /// The keys of a JWK Set's text (RFC 7517, section 5); those that cannot be used are skipped.
    ///
    /// # Errors
    /// When it is no JWK Set, or a too large one.
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        Ok(Self::from(&JwkSet::parse(json)?))
    }

    /// The keys for JWT-SVIDs of a SPIFFE bundle; others are skipped.
    ///
    /// # Errors
    /// As [`KeySet::parse`].
    pub fn parse_bundle(json: &[u8]) -> Result<Self, JwksError> {
        Ok(Self::from(&JwkSet::parse_bundle(json)?))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a key has this `kid`; where none has, a newer set may.
    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
    }

    fn check(&self, compact: &Compact<'_>, policy: Policy) -> Result<(), VerifyError> {
        let of_alg = |key: &&VerifyingKey| key.alg == compact.header.alg;
        let Some(kid) = compact.header.kid.as_deref() else {
            let mut fitting = self.keys.iter().filter(of_alg);
            return match (policy.without_kid, fitting.next(), fitting.next()) {
                (WithoutKid::OnlyKeyThatFits, Some(key), None) => key.check(compact),
                (WithoutKid::OnlyKeyThatFits, None, _) => Err(VerifyError::UnknownKey),
                _ => Err(VerifyError::NoKid),
            };
        };
        // Keys may share a kid (RFC 7517, section 4.5).
        let mut error = VerifyError::UnknownKey;
        for key in self.keys.iter().filter(|key| key.kid() == Some(kid)) {
            let checked = if of_alg(&key) { key.check(compact) } else { Err(VerifyError::Algorithm) };
            match checked {
                Ok(()) => return Ok(()),
                Err(why) => error = why,
            }
        }
        Err(error)
    }
}

impl From<&JwkSet> for KeySet {
    fn from(set: &JwkSet) -> Self {
        Self { keys: set.keys.iter().map(VerifyingKey::from).collect() }
    }
}

/// One public key, ready to verify with.
#[derive(Debug, Clone)]
pub struct VerifyingKey {
    kid: Option<Box<str>>,
    alg: Alg,
    key: Prepared,
}

#[derive(Debug, Clone)]
enum Prepared {
    Bytes(UnparsedPublicKey<Vec<u8>>),
    Rsa(&'static RsaParameters, RsaPublicKeyComponents<Vec<u8>>),
}

impl VerifyingKey {
    /// Its `kid`.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The one algorithm it verifies.
    pub fn alg(&self) -> Alg {
        self.alg
    }

    fn check(&self, compact: &Compact<'_>) -> Result<(), VerifyError> {
        match &self.key {
            Prepared::Bytes(key) => key.verify(compact.signed, &compact.signature),
            Prepared::Rsa(parameters, key) => key.verify(parameters, compact.signed, &compact.signature),
        }
        .map_err(|_| VerifyError::Signature)
    }
}

impl From<&Jwk> for VerifyingKey {
    fn from(jwk: &Jwk) -> Self {
        let bytes = |bytes: Vec<u8>| Prepared::Bytes(UnparsedPublicKey::new(jwk.alg.verification(), bytes));
        let key = match (&jwk.material, jwk.alg.rsa_verification()) {
            (Material::Rsa { n, e }, Some(parameters)) => {
                Prepared::Rsa(parameters, RsaPublicKeyComponents { n: n.clone(), e: e.clone() })
            }
            (Material::Ec { x, y }, _) => bytes([&[4], x.as_slice(), y].concat()),
            (Material::Ed25519 { x }, _) => bytes(x.clone()),
            // A Jwk's alg is of its kind; were it not, nothing would verify.
            (Material::Rsa { .. }, None) => bytes(Vec::new()),
        };
        Self { kid: jwk.kid.as_deref().map(Into::into), alg: jwk.alg, key }
    }
}

#[cfg(test)]
mod tests;
