//! ring as jsonwebtoken's cryptography. jsonwebtoken panics without a provider, so whoever calls it installs this first.

use std::sync::OnceLock;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, new_error};
use jsonwebtoken::jwk::{EllipticCurve, ThumbprintHash};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};

use crate::alg::{Alg, Kind};
use crate::signing::system_random;

/// Makes ring jsonwebtoken's cryptography for this process. Symmetric algorithms are refused. Any number of calls, from
/// any threads, are one.
///
/// # Errors
/// When another provider was installed before, or jsonwebtoken was already used without one.
pub fn install() -> Result<(), AnotherProvider> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    if *INSTALLED.get_or_init(|| PROVIDER.install_default().is_ok()) { Ok(()) } else { Err(AnotherProvider) }
}

/// jsonwebtoken has another provider already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("jsonwebtoken has another cryptography provider already")]
pub struct AnotherProvider;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: rsa_of_private,
        rsa_pub_components_from_public_key: |_| Err(new_error(ErrorKind::UnsupportedAlgorithm)),
        ec_pub_components_from_private_key: ec_of_private,
        ed_pub_components_from_private_key: ed_of_private,
        compute_digest,
    },
};

type Answer<T> = Result<T, Error>;

fn alg_of(algorithm: Algorithm) -> Answer<Alg> {
    Ok(match algorithm {
        Algorithm::ES256 => Alg::Es256,
        Algorithm::ES384 => Alg::Es384,
        Algorithm::RS256 => Alg::Rs256,
        Algorithm::RS384 => Alg::Rs384,
        Algorithm::RS512 => Alg::Rs512,
        Algorithm::PS256 => Alg::Ps256,
        Algorithm::PS384 => Alg::Ps384,
        Algorithm::PS512 => Alg::Ps512,
        Algorithm::EdDSA => Alg::EdDsa,
        _ => return Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    })
}

fn family_of(alg: Alg) -> AlgorithmFamily {
    match alg.kind() {
        Kind::P256 | Kind::P384 => AlgorithmFamily::Ec,
        Kind::Rsa => AlgorithmFamily::Rsa,
        Kind::Ed25519 => AlgorithmFamily::Ed,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the type of CryptoProvider::signer_factory")]
fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Answer<Box<dyn JwtSigner>> {
    let alg = alg_of(*algorithm)?;
    if key.family() != family_of(alg) {
        return Err(new_error(ErrorKind::InvalidKeyFormat));
    }
    let pair = match alg.kind() {
        Kind::P256 => Pair::Ec(ec_pair(&sig::ECDSA_P256_SHA256_FIXED_SIGNING, key.as_bytes())?),
        Kind::P384 => Pair::Ec(ec_pair(&sig::ECDSA_P384_SHA384_FIXED_SIGNING, key.as_bytes())?),
        Kind::Ed25519 => Pair::Ed(ed_pair(key.as_bytes())?),
        Kind::Rsa => Pair::Rsa(
            rsa_pair(key.as_bytes())?,
            alg.rsa_signing().ok_or_else(|| new_error(ErrorKind::UnsupportedAlgorithm))?,
        ),
    };
    Ok(Box::new(RingSigner { algorithm: *algorithm, pair }))
}

struct RingSigner {
    algorithm: Algorithm,
    pair: Pair,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair, &'static dyn sig::RsaEncoding),
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        match &self.pair {
            Pair::Ec(pair) => {
                pair.sign(&system_random(), message).map(|signature| signature.as_ref().to_vec())
            }
            Pair::Ed(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &system_random(), message, &mut signature).map(|()| signature)
            }
        }
        .map_err(|_| SignatureError::new())
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the type of CryptoProvider::verifier_factory")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Answer<Box<dyn JwtVerifier>> {
    let alg = alg_of(*algorithm)?;
    if key.family() != family_of(alg) {
        return Err(new_error(ErrorKind::InvalidKeyFormat));
    }
    Ok(Box::new(RingVerifier { algorithm: *algorithm, alg, key: key.clone() }))
}

struct RingVerifier {
    algorithm: Algorithm,
    alg: Alg,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        match (self.key.kind(), self.alg.rsa_verification()) {
            (DecodingKeyKind::SecretOrDer(bytes), _) => {
                sig::UnparsedPublicKey::new(self.alg.verification(), bytes).verify(message, signature)
            }
            (DecodingKeyKind::RsaModulusExponent { n, e }, Some(parameters)) => {
                sig::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (DecodingKeyKind::RsaModulusExponent { .. }, None) => Err(ring::error::Unspecified),
        }
        .map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn ec_pair(algorithm: &'static sig::EcdsaSigningAlgorithm, pkcs8: &[u8]) -> Answer<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &system_random())
        .map_err(|_| new_error(ErrorKind::InvalidEcdsaKey))
}

fn ed_pair(pkcs8: &[u8]) -> Answer<Ed25519KeyPair> {
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| new_error(ErrorKind::InvalidEddsaKey))
}

fn rsa_pair(der: &[u8]) -> Answer<RsaKeyPair> {
    RsaKeyPair::from_der(der).map_err(|error| new_error(ErrorKind::InvalidRsaKey(error.to_string())))
}

fn rsa_of_private(der: &[u8]) -> Answer<(Vec<u8>, Vec<u8>)> {
    let components = sig::RsaPublicKeyComponents::<Vec<u8>>::from(rsa_pair(der)?.public());
    Ok((components.n, components.e))
}

fn ec_of_private(pkcs8: &[u8], algorithm: Algorithm) -> Answer<(EllipticCurve, Vec<u8>, Vec<u8>)> {
    let wrong = || new_error(ErrorKind::InvalidEcdsaKey);
    let (signing, curve, size) = match algorithm {
        Algorithm::ES256 => (&sig::ECDSA_P256_SHA256_FIXED_SIGNING, EllipticCurve::P256, 32),
        Algorithm::ES384 => (&sig::ECDSA_P384_SHA384_FIXED_SIGNING, EllipticCurve::P384, 48),
        _ => return Err(wrong()),
    };
    let pair = ec_pair(signing, pkcs8)?;
    let point = pair.public_key().as_ref().strip_prefix(&[4]).and_then(|xy| xy.split_at_checked(size));
    let (x, y) = point.ok_or_else(wrong)?;
    Ok((curve, x.to_vec(), y.to_vec()))
}

fn ed_of_private(pkcs8: &[u8], curve: &EllipticCurve) -> Answer<Vec<u8>> {
    match curve {
        EllipticCurve::Ed25519 => Ok(ed_pair(pkcs8)?.public_key().as_ref().to_vec()),
        _ => Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the type of KeyUtils::compute_digest")]
fn compute_digest(data: &[u8], hash: ThumbprintHash) -> Answer<Vec<u8>> {
    let algorithm = match hash {
        ThumbprintHash::SHA256 => &ring::digest::SHA256,
        ThumbprintHash::SHA384 => &ring::digest::SHA384,
        ThumbprintHash::SHA512 => &ring::digest::SHA512,
        _ => return Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    };
    Ok(ring::digest::digest(algorithm, data).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use jsonwebtoken::{Header, Validation, decode, encode};
    use serde_json::{Value, json};

    use super::*;
    use crate::{KeySet, Policy, SigningKey, verify};

    #[test]
    fn installing_twice_is_installing_once() {
        assert_eq!(install(), Ok(()));
        assert_eq!(install(), Ok(()));
    }

    #[test]
    fn jsonwebtoken_accepts_what_we_sign() {
        install().unwrap();
        let key = SigningKey::generate().unwrap();
        let token = key.sign_jws("at+jwt", br#"{"sub":"s","aud":"a","exp":4000000000}"#).unwrap();
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_str(&key.public_jwk().to_json()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["a"]);
        let data: jsonwebtoken::TokenData<Value> =
            decode(token.expose(), &DecodingKey::from_jwk(&jwk).unwrap(), &validation).unwrap();
        assert_eq!(data.claims["sub"], "s");
        assert_eq!(data.header.kid.as_deref(), Some(key.key_id().as_str()));
        assert_eq!(data.header.typ.as_deref(), Some("at+jwt"));
    }

    #[test]
    fn we_accept_what_jsonwebtoken_signs() {
        install().unwrap();
        let key = SigningKey::generate().unwrap();
        let header =
            Header { typ: None, kid: Some(key.key_id().to_string()), ..Header::new(Algorithm::ES256) };
        let token =
            encode(&header, &json!({"iss": "k"}), &EncodingKey::from_ec_der(key.to_der().expose())).unwrap();
        let keys = KeySet::new(vec![key.public_jwk().into()]);
        assert_eq!(verify(&token, &keys, Policy::kubernetes()).unwrap().claims.issuer.as_deref(), Some("k"));
    }

    #[test]
    fn ed25519_signs_and_verifies() {
        install().unwrap();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&system_random()).unwrap();
        let public = ed_of_private(pkcs8.as_ref(), &EllipticCurve::Ed25519).unwrap();
        let mut token = encode(
            &Header::new(Algorithm::EdDSA),
            &json!({"sub": "s"}),
            &EncodingKey::from_ed_der(pkcs8.as_ref()),
        )
        .unwrap();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.required_spec_claims.clear();
        let key = DecodingKey::from_ed_der(&public);
        assert!(decode::<Value>(&token, &key, &validation).is_ok());
        token.replace_range(..2, "eX");
        assert!(decode::<Value>(&token, &key, &validation).is_err());
    }

    #[test]
    fn rsa_signs_and_verifies() {
        install().unwrap();
        let der = STANDARD.decode(include_str!("provider/rsa_of_tests.der.base64").trim()).unwrap();
        let (n, e) = rsa_of_private(&der).unwrap();
        let key = DecodingKey::from_rsa_raw_components(&n, &e);
        for algorithm in AlgorithmFamily::Rsa.algorithms() {
            let token =
                encode(&Header::new(*algorithm), &json!({"sub": "s"}), &EncodingKey::from_rsa_der(&der))
                    .unwrap();
            let mut validation = Validation::new(*algorithm);
            validation.required_spec_claims.clear();
            assert!(decode::<Value>(&token, &key, &validation).is_ok(), "{algorithm:?}");
            assert!(decode::<Value>(format!("{token}A"), &key, &validation).is_err(), "{algorithm:?}");
        }
    }

    #[test]
    fn symmetric_algorithms_and_strange_keys_are_refused() {
        let secret = EncodingKey::from_secret(b"a public key, as bytes");
        assert!(signer(&Algorithm::HS256, &secret).is_err());
        assert!(signer(&Algorithm::ES256, &secret).is_err());
        assert!(verifier(&Algorithm::HS256, &DecodingKey::from_secret(b"x")).is_err());
        assert!(verifier(&Algorithm::ES256, &DecodingKey::from_secret(b"x")).is_err());
        for algorithm in [Algorithm::ES256, Algorithm::ES384, Algorithm::RS256, Algorithm::EdDSA] {
            let key = match algorithm.family() {
                AlgorithmFamily::Ec => EncodingKey::from_ec_der(b"x"),
                AlgorithmFamily::Ed => EncodingKey::from_ed_der(b"x"),
                _ => EncodingKey::from_rsa_der(b"x"),
            };
            assert!(signer(&algorithm, &key).is_err());
        }
    }

    #[test]
    fn jwks_of_private_keys() {
        let key = SigningKey::generate().unwrap();
        let (curve, x, y) = ec_of_private(key.to_der().expose(), Algorithm::ES256).unwrap();
        assert_eq!((curve, x.len(), y.len()), (EllipticCurve::P256, 32, 32));
        assert!(ec_of_private(key.to_der().expose(), Algorithm::ES384).is_err());
        assert!(rsa_of_private(b"x").is_err());
        assert_eq!(compute_digest(b"abc", ThumbprintHash::SHA384).unwrap().len(), 48);
    }
}
