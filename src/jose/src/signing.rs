//! Keys that sign: ES256, parsed once and kept.

use std::sync::OnceLock;

use base64::Engine as _;
use dayfly_core::ids::KeyId;
use dayfly_core::secret::Secret;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use crate::BASE64URL;
use crate::alg::Alg;
use crate::jwk::Jwk;

/// An ES256 key pair (RFC 7518, section 3.4): ECDSA on P-256 with SHA-256. Has no `Debug`: it holds a private key.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    pkcs8: Secret,
    public: Jwk,
    id: KeyId,
    random: SystemRandom,
    headers: [OnceLock<TypHeader>; KEPT_HEADERS],
}

/// Headers that a key keeps encoded; a further `typ` is encoded each time.
const KEPT_HEADERS: usize = 4;

/// The encoded header for one `typ`, with the dot after it.
struct TypHeader {
    typ: Box<str>,
    encoded: Box<str>,
}

/// A key cannot be made, read or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFailed {
    /// ring did not make a key or signature: there was no randomness.
    #[error("the signing key failed: the system gave no randomness")]
    NoRandomness,
    /// The bytes are not a P-256 key pair in PKCS#8.
    #[error("the signing key is not a P-256 key pair in PKCS#8")]
    NotAKey,
}

impl SigningKey {
    /// A new key, of the operating system's randomness.
    ///
    /// # Errors
    /// [`KeyFailed::NoRandomness`].
    pub fn generate() -> Result<Self, KeyFailed> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &system_random())
            .map_err(|_| KeyFailed::NoRandomness)?;
        Self::from_pkcs8(&Secret::from(pkcs8.as_ref().to_vec()))
    }

    /// A key made earlier: PKCS#8 v1 (RFC 5208) with its public key (RFC 5915), as [`SigningKey::to_pkcs8`] gives.
    ///
    /// # Errors
    /// [`KeyFailed::NotAKey`].
    pub fn from_pkcs8(pkcs8: &Secret) -> Result<Self, KeyFailed> {
        let random = system_random();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.expose(), &random)
            .map_err(|_| KeyFailed::NotAKey)?;
        let public = Jwk::p256(pair.public_key().as_ref()).ok_or(KeyFailed::NotAKey)?;
        let id = public.kid.as_deref().and_then(|kid| kid.parse().ok()).ok_or(KeyFailed::NotAKey)?;
        Ok(Self { pair, pkcs8: pkcs8.clone(), public, id, random, headers: Default::default() })
    }

    /// The private key, as PKCS#8 v1: to be sealed.
    pub fn to_pkcs8(&self) -> Secret {
        self.pkcs8.clone()
    }

    /// The public key, with its `kid`, `alg` and `use`.
    pub fn public_jwk(&self) -> &Jwk {
        &self.public
    }

    /// Its id: the base64url of its public key's thumbprint (RFC 7638).
    pub fn key_id(&self) -> &KeyId {
        &self.id
    }

    /// A compact JWS (RFC 7515, section 7.1) over `payload`, with header `typ`, `alg` and `kid`.
    ///
    /// # Errors
    /// [`KeyFailed::NoRandomness`].
    pub fn sign_jws(&self, typ: &str, payload: &[u8]) -> Result<Secret, KeyFailed> {
        // Reserved at once, so that no part of the token stays behind in a buffer that was outgrown.
        let mut jws = String::with_capacity(payload.len() * 4 / 3 + typ.len() * 2 + 256);
        match self.kept_header(typ) {
            Some(header) => jws.push_str(&header.encoded),
            None => jws.push_str(&self.header(typ).encoded),
        }
        BASE64URL.encode_string(payload, &mut jws);
        let signature = self.pair.sign(&self.random, jws.as_bytes()).map_err(|_| KeyFailed::NoRandomness)?;
        jws.push('.');
        BASE64URL.encode_string(signature.as_ref(), &mut jws);
        Ok(Secret::from(jws))
    }

    fn kept_header(&self, typ: &str) -> Option<&TypHeader> {
        self.headers.iter().map(|slot| slot.get_or_init(|| self.header(typ))).find(|kept| *kept.typ == *typ)
    }

    fn header(&self, typ: &str) -> TypHeader {
        let json = serde_json::json!({ "alg": Alg::Es256.name(), "kid": self.id.as_str(), "typ": typ });
        let encoded = BASE64URL.encode(json.to_string()) + ".";
        TypHeader { typ: typ.into(), encoded: encoded.into() }
    }
}

/// ring takes no randomness but its own.
#[expect(clippy::disallowed_methods, reason = "ring's SecureRandom is sealed: it cannot be our Rng")]
pub(crate) fn system_random() -> SystemRandom {
    SystemRandom::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeySet, Policy, verify};

    /// Does not compile where the type has `Debug`: then there are two `is`, and neither is chosen.
    macro_rules! has_no_debug {
    ($($type:ty),*) => {$(
        const _: fn() = || {
            trait Either<T> { fn is() {} }
            struct WithDebug;
            impl<T: ?Sized> Either<()> for T {}
            impl<T: ?Sized + std::fmt::Debug> Either<WithDebug> for T {}
            let _ = <$type as Either<_>>::is;
        };
    )*};
}

    has_no_debug!(SigningKey);

    #[test]
    fn signs_what_its_public_key_verifies() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pkcs8(&key.to_pkcs8()).unwrap();
        assert_eq!(again.key_id(), key.key_id());
        let keys = KeySet::new(vec![key.public_jwk().into()]);
        for typ in ["at+jwt", "a", "b", "c", "at+jwt", "one more than are kept", "\"quoted\""] {
            let jws = again.sign_jws(typ, br#"{"sub":"s"}"#).unwrap();
            let peek = crate::peek(jws.expose_text().unwrap()).unwrap();
            assert_eq!(peek.header.typ.as_deref(), Some(typ));
            assert_eq!(peek.header.kid.as_deref(), Some(key.key_id().as_str()));
        }
        let jws = key.sign_jws("at+jwt", br#"{"sub":"s"}"#).unwrap();
        let verified = verify(jws.expose_text().unwrap(), &keys, Policy::exactly("at+jwt")).unwrap();
        assert_eq!(verified.payload, br#"{"sub":"s"}"#);
        assert_eq!(verified.claims.subject.as_deref(), Some("s"));
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let pkcs8 = SigningKey::generate().unwrap().to_pkcs8();
        for bad in [Vec::new(), b"x".to_vec(), pkcs8.expose()[1..].to_vec()] {
            assert_eq!(SigningKey::from_pkcs8(&Secret::from(bad)).err(), Some(KeyFailed::NotAKey));
        }
    }

    #[test]
    fn the_public_key_has_no_private_part() {
        let key = SigningKey::generate().unwrap();
        let json: serde_json::Value = serde_json::from_str(&key.public_jwk().to_json()).unwrap();
        let mut names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
        assert_eq!(Jwk::parse(key.public_jwk().to_json().as_bytes()).as_ref(), Ok(key.public_jwk()));
    }
}
