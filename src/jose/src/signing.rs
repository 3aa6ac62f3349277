//! Keys that sign, parsed once and kept.

use std::sync::OnceLock;

use base64::Engine as _;
use dayfly_core::ids::KeyId;
use dayfly_core::secret::Secret;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};

use crate::BASE64URL;
use crate::alg::Alg;
use crate::jwk::Jwk;

/// A key pair that signs by one algorithm: ES256 (RFC 7518, section 3.4), EdDSA on Ed25519 (RFC 8037, section 3.1) or
/// RS256 (RFC 7518, section 3.3). Has no `Debug`: it holds a private key.
pub struct SigningKey {
    pair: Pair,
    der: Secret,
    public: Jwk,
    id: KeyId,
    random: SystemRandom,
    headers: [OnceLock<TypHeader>; KEPT_HEADERS],
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
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
    /// The bytes are not a key pair of the algorithm.
    #[error("the signing key is not a key pair for {0}")]
    NotAKey(Alg),
    /// Nothing signs by this algorithm here.
    #[error("nothing signs by {0} here")]
    Unsupported(Alg),
}

impl SigningKey {
    /// A new key for ES256, of the operating system's randomness.
    ///
    /// # Errors
    /// [`KeyFailed::NoRandomness`].
    pub fn generate() -> Result<Self, KeyFailed> {
        Self::generate_for(Alg::Es256)
    }

    /// A new key for ES256 or EdDSA, of the operating system's randomness. ring makes no others.
    ///
    /// # Errors
    /// [`KeyFailed::NoRandomness`] or [`KeyFailed::Unsupported`].
    pub fn generate_for(alg: Alg) -> Result<Self, KeyFailed> {
        let random = system_random();
        let pkcs8 = match alg {
            Alg::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random),
            Alg::EdDsa => Ed25519KeyPair::generate_pkcs8(&random),
            _ => return Err(KeyFailed::Unsupported(alg)),
        };
        let pkcs8 = pkcs8.map_err(|_| KeyFailed::NoRandomness)?;
        Self::from_der(alg, &Secret::from(pkcs8.as_ref().to_vec()))
    }

    /// A key made earlier, as [`SigningKey::to_der`] gives it: PKCS#8 with its public key (RFC 5915 in RFC 5208 for
    /// P-256, RFC 8410 for Ed25519), for RSA also PKCS#1 (RFC 8017, appendix A.1.2).
    ///
    /// # Errors
    /// [`KeyFailed::NotAKey`], [`KeyFailed::Unsupported`].
    pub fn from_der(alg: Alg, der: &Secret) -> Result<Self, KeyFailed> {
        let not_a_key = KeyFailed::NotAKey(alg);
        let random = system_random();
        let (pair, public) = match alg {
            Alg::Es256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.expose(), &random)
                    .map_err(|_| not_a_key)?;
                let public = Jwk::p256(pair.public_key().as_ref());
                (Pair::P256(pair), public)
            }
            Alg::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8(der.expose()).map_err(|_| not_a_key)?;
                let public = Jwk::ed25519(pair.public_key().as_ref());
                (Pair::Ed25519(pair), public)
            }
            Alg::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(der.expose())
                    .or_else(|_| RsaKeyPair::from_der(der.expose()))
                    .map_err(|_| not_a_key)?;
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
                (Pair::Rsa(pair), Some(Jwk::rs256(n, e)))
            }
            _ => return Err(KeyFailed::Unsupported(alg)),
        };
        let public = public.ok_or(not_a_key)?;
        let id = public.kid.as_deref().and_then(|kid| kid.parse().ok()).ok_or(not_a_key)?;
        Ok(Self { pair, der: der.clone(), public, id, random, headers: Default::default() })
    }

    /// The private key, as DER: to be sealed.
    pub fn to_der(&self) -> Secret {
        self.der.clone()
    }

    /// The one algorithm it signs by.
    pub fn alg(&self) -> Alg {
        self.public.alg
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
        let mut jws =
            String::with_capacity(payload.len() * 4 / 3 + typ.len() * 2 + 160 + self.signature_text());
        match self.kept_header(typ) {
            Some(header) => jws.push_str(&header.encoded),
            None => jws.push_str(&self.header(typ).encoded),
        }
        BASE64URL.encode_string(payload, &mut jws);
        let failed = |_| KeyFailed::NoRandomness;
        match &self.pair {
            Pair::P256(pair) => {
                let signature = pair.sign(&self.random, jws.as_bytes()).map_err(failed)?;
                append(&mut jws, signature.as_ref());
            }
            Pair::Ed25519(pair) => {
                let signature = pair.sign(jws.as_bytes());
                append(&mut jws, signature.as_ref());
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.random, jws.as_bytes(), &mut signature).map_err(failed)?;
                append(&mut jws, &signature);
            }
        }
        Ok(Secret::from(jws))
    }

    /// An Ed25519 signature over `message` itself (RFC 8032, section 5.1.6), for what is signed and is no token. `None` where
    /// the key is of another kind.
    pub fn sign_ed25519(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.pair {
            Pair::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
            Pair::P256(_) | Pair::Rsa(_) => None,
        }
    }

    /// Room for the signature's text, in bytes.
    fn signature_text(&self) -> usize {
        match &self.pair {
            Pair::P256(_) | Pair::Ed25519(_) => 96,
            Pair::Rsa(pair) => pair.public().modulus_len() * 4 / 3 + 8,
        }
    }

    fn kept_header(&self, typ: &str) -> Option<&TypHeader> {
        self.headers.iter().map(|slot| slot.get_or_init(|| self.header(typ))).find(|kept| *kept.typ == *typ)
    }

    fn header(&self, typ: &str) -> TypHeader {
        let json = serde_json::json!({ "alg": self.alg().name(), "kid": self.id.as_str(), "typ": typ });
        let encoded = BASE64URL.encode(json.to_string()) + ".";
        TypHeader { typ: typ.into(), encoded: encoded.into() }
    }
}

fn append(jws: &mut String, signature: &[u8]) {
    jws.push('.');
    BASE64URL.encode_string(signature, jws);
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
        for alg in [Alg::Es256, Alg::EdDsa] {
            signs(&SigningKey::generate_for(alg).unwrap());
        }
        signs(&rsa_of_tests());
        assert_eq!(SigningKey::generate_for(Alg::Rs256).err(), Some(KeyFailed::Unsupported(Alg::Rs256)));
    }

    fn rsa_of_tests() -> SigningKey {
        use base64::engine::general_purpose::STANDARD;
        let der = STANDARD.decode(include_str!("provider/rsa_of_tests.der.base64").trim()).unwrap();
        SigningKey::from_der(Alg::Rs256, &Secret::from(der)).unwrap()
    }

    fn signs(key: &SigningKey) {
        let again = SigningKey::from_der(key.alg(), &key.to_der()).unwrap();
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

    /// RS256 and EdDSA are deterministic: what joserfc signs with these keys is what we sign, byte for byte.
    #[test]
    fn another_library_signs_the_same() {
        let same = |key: &SigningKey, theirs: &str| {
            let ours = key.sign_jws("at+jwt", br#"{"sub":"s"}"#).unwrap();
            assert_eq!(ours.expose_text().unwrap(), theirs.trim_end());
        };
        let rsa = include_str!("import/keys_of_tests/rsa2048.pem").to_owned();
        same(&SigningKey::import_rsa(&Secret::from(rsa)).unwrap(), include_str!("signing/vectors/RS256.jws"));
        // keys_of_tests/ed25519.pem with its public key, as RFC 8410, section 7 has it.
        let ed25519 = "MFECAQEwBQYDK2VwBCIEIDY9UxwA30KiUZRO1uY7DjDTvcxjYSWvlWWcpgLqzZalgSEAqk7JrhQA5OJ79GunDazdJ+3dscNraJOPaBN4YkWOb7s=";
        let ed25519 = base64::engine::general_purpose::STANDARD.decode(ed25519).unwrap();
        let ed25519 = SigningKey::from_der(Alg::EdDsa, &Secret::from(ed25519)).unwrap();
        same(&ed25519, include_str!("signing/vectors/EdDSA.jws"));
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let pkcs8 = SigningKey::generate().unwrap().to_der();
        for bad in [Vec::new(), b"x".to_vec(), pkcs8.expose()[1..].to_vec()] {
            for alg in [Alg::Es256, Alg::EdDsa, Alg::Rs256] {
                let key = SigningKey::from_der(alg, &Secret::from(bad.clone()));
                assert_eq!(key.err(), Some(KeyFailed::NotAKey(alg)));
            }
        }
        assert!(SigningKey::from_der(Alg::EdDsa, &pkcs8).is_err(), "a key of another kind");
        assert!(SigningKey::from_der(Alg::Rs256, &pkcs8).is_err(), "a key of another kind");
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
