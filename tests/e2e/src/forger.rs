//! Somebody who has a key of their own and signs whatever helps.

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

/// An ES256 key that no cluster publishes.
pub struct Forger {
    key: EcdsaKeyPair,
    certificate: Vec<u8>,
    random: SystemRandom,
}

impl Forger {
    /// A new key, and a certificate of it.
    pub fn new() -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "ring signs with its own randomness alone")]
        let random = SystemRandom::new();
        let made = rcgen::generate_simple_self_signed(["attacker.example".to_owned()])?;
        let pkcs8 = made.signing_key.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random)
            .ok()
            .context("not a P-256 key")?;
        Ok(Self { key, certificate: made.cert.der().to_vec(), random })
    }

    /// A JWS over these very texts, whatever they are (RFC 7515, section 7.1).
    ///
    /// # Errors
    /// When ring has no randomness.
    pub fn sign(&self, header: &str, payload: &str) -> Result<String> {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()));
        let signature = self.key.sign(&self.random, signed.as_bytes()).ok().context("no randomness")?;
        Ok(format!("{signed}.{}", encode(signature.as_ref())))
    }

    /// Its public key, under this `kid` (RFC 7517).
    pub fn jwk(&self, kid: &Value) -> Value {
        let point = self.key.public_key().as_ref();
        let part =
            |from: usize| BASE64_URL_SAFE_NO_PAD.encode(point.get(from..from + 32).unwrap_or_default());
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": part(1), "y": part(33) })
    }

    /// Its certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }
}
