//! Thumbprints of what a credential's holder must prove to hold (`cnf`, RFC 7800): a public JWK or a certificate.

use dayfly_core::digest::Digest;
use ring::agreement::{self, ECDH_P256, ECDH_P384, EphemeralPrivateKey, UnparsedPublicKey};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::alg::Kind;
use crate::json;
use crate::jwk::{Jwk, JwkError, Material};
use crate::pem::{PemFault, only_section};
use crate::signing::system_random;

/// Members that only a private or symmetric JWK has (RFC 7518, sections 6.2.2, 6.3.2 and 6.4; RFC 8037, section 2).
const PRIVATE: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// The SHA-256 thumbprint (RFC 7638, section 3) of a public JWK's text.
///
/// # Errors
/// What is wrong with it, a private part above all; nothing of its content.
pub fn jwk_thumbprint(text: &[u8]) -> Result<Digest, BadConfirmation> {
    let members = json::object(text).map_err(|_| BadConfirmation::NotAJwk)?;
    if PRIVATE.iter().any(|private| members.contains_key(*private)) {
        return Err(BadConfirmation::Private);
    }
    let jwk = Jwk::parse(text)?;
    if is_strong(&jwk) { Ok(jwk.thumbprint()) } else { Err(BadConfirmation::Weak) }
}

/// The SHA-256 digest of a certificate's DER form (`x5t#S256`: RFC 8705, section 3.1), from PEM or DER.
///
/// # Errors
/// What is wrong with it; nothing of its content.
pub fn certificate_thumbprint(pem_or_der: &[u8]) -> Result<Digest, BadConfirmation> {
    match only_section(pem_or_der) {
        Ok(("CERTIFICATE", der)) => digest_of_certificate(der.expose()),
        Ok((label, _)) if label.ends_with("PRIVATE KEY") => Err(BadConfirmation::Private),
        Ok(_) | Err(PemFault::Malformed) => Err(BadConfirmation::NotACertificate),
        Err(PemFault::Several) if contains(pem_or_der, b"PRIVATE KEY-----") => Err(BadConfirmation::Private),
        Err(PemFault::Several) => Err(BadConfirmation::SeveralCertificates),
        Err(PemFault::None) => digest_of_certificate(pem_or_der),
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn digest_of_certificate(der: &[u8]) -> Result<Digest, BadConfirmation> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| BadConfirmation::NotACertificate)?;
    if !rest.is_empty() {
        return Err(BadConfirmation::NotACertificate);
    }
    // id-Ed25519 (RFC 8410, section 3).
    let is_ed25519 = certificate.public_key().algorithm.algorithm.to_id_string() == "1.3.101.112";
    let strong = match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(rsa)) => (2048..=8192).contains(&rsa.key_size()),
        Ok(PublicKey::EC(point)) => (256..=521).contains(&point.key_size()),
        Ok(PublicKey::Unknown(key)) if is_ed25519 => key.len() == 32,
        _ => false,
    };
    if strong { Ok(Digest::of(der)) } else { Err(BadConfirmation::Weak) }
}

/// Whether nobody but its holder can sign for it, as far as that shows: the size was checked when it was read.
fn is_strong(jwk: &Jwk) -> bool {
    match &jwk.material {
        // Exponent 1 signs nothing, an even one is none.
        Material::Rsa { e, .. } => e != &[1] && e.last().is_some_and(|byte| byte & 1 == 1),
        Material::Ed25519 { x } => !has_small_order(x),
        Material::Ec { x, y } => {
            let algorithm = if jwk.alg.kind() == Kind::P384 { &ECDH_P384 } else { &ECDH_P256 };
            let point = UnparsedPublicKey::new(algorithm, [&[4], x.as_slice(), y].concat());
            // ring says whether a point is on its curve only by agreeing on a key with it.
            EphemeralPrivateKey::generate(algorithm, &system_random())
                .is_ok_and(|own| agreement::agree_ephemeral(own, &point, |_| ()).is_ok())
        }
    }
}

/// Whether a point of Ed25519 has an order of 8 or less: for such a key there are signatures that anyone can make.
fn has_small_order(point: &[u8]) -> bool {
    /// The y of the points of order 8 (little-endian); those of order 4, 1 and 2 are 0, 1 and p-1.
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let mut y = point.to_vec();
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    if ORDER_8.iter().any(|known| *known == *y) {
        return true;
    }
    let [first, middle @ .., last] = y.as_slice() else { return true };
    let small = middle.iter().all(|byte| *byte == 0) && *last == 0 && *first <= 1;
    // p-1, and p and p+1, which are 0 and 1 written otherwise.
    let near_p = middle.iter().all(|byte| *byte == 0xff) && *last == 0x7f && *first >= 0xec;
    small || near_p
}

/// A key or certificate cannot be bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadConfirmation {
    /// It has a private part.
    #[error("it holds a private key: send the public part alone, and do not use this key any more")]
    Private,
    /// No JSON object in which no member occurs twice.
    #[error("it is not a JWK: one JSON object (RFC 7517) in which no member occurs twice")]
    NotAJwk,
    /// A JWK that cannot be used.
    #[error(transparent)]
    Jwk(#[from] JwkError),
    /// Neither PEM nor DER of a certificate.
    #[error("it is not an X.509 certificate, in PEM or DER")]
    NotACertificate,
    /// More than one.
    #[error("there are several PEM sections: send the certificate of the key's holder alone")]
    SeveralCertificates,
    /// A key that others could use too, or that is none.
    #[error(
        "its public key is weak or not supported: RSA of 2048 to 8192 bits, EC of 256 bits or more (in a JWK: P-256 or P-384), or Ed25519 is needed"
    )]
    Weak,
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;
    use crate::BASE64URL;

    /// RFC 8705, appendix A: a certificate and its `x5t#S256`.
    const RFC_8705: &str = "MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAxODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwIDSQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOVbUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=";
    const RFC_8705_THUMBPRINT: &str = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0";
    /// RFC 9449, section 4.1, figure 3 (its `jwk`), whose thumbprint is in section 6.1, figure 10.
    const RFC_9449: &str = r#"{"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"}"#;
    const RFC_9449_THUMBPRINT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    const RFC_8037: &str =
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn shown(digest: Result<Digest, BadConfirmation>) -> String {
        BASE64URL.encode(digest.unwrap().as_bytes())
    }

    fn pem(label: &str, base64: &str) -> String {
        format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
    }

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        assert_eq!(shown(jwk_thumbprint(RFC_9449.as_bytes())), RFC_9449_THUMBPRINT);
        assert_eq!(shown(jwk_thumbprint(RFC_8037.as_bytes())), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let der = STANDARD.decode(RFC_8705).unwrap();
        assert_eq!(shown(certificate_thumbprint(&der)), RFC_8705_THUMBPRINT);
        assert_eq!(
            shown(certificate_thumbprint(pem("CERTIFICATE", RFC_8705).as_bytes())),
            RFC_8705_THUMBPRINT
        );
    }

    #[test]
    fn a_private_part_is_refused_and_named() {
        for private in PRIVATE {
            let jwk = RFC_8037.replace(r#""kty""#, &format!(r#""{private}":"AQAB","kty""#));
            assert_eq!(jwk_thumbprint(jwk.as_bytes()), Err(BadConfirmation::Private), "{private}");
        }
        assert_eq!(jwk_thumbprint(br#"{"kty":"oct","k":"AQAB"}"#), Err(BadConfirmation::Private));
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
            let key = pem(label, "AQAB");
            assert_eq!(certificate_thumbprint(key.as_bytes()), Err(BadConfirmation::Private));
            let both = pem("CERTIFICATE", RFC_8705) + &key;
            assert_eq!(certificate_thumbprint(both.as_bytes()), Err(BadConfirmation::Private));
        }
    }

    #[test]
    fn weak_keys_are_refused() {
        let ed25519 = |x: &[u8]| format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, BASE64URL.encode(x));
        let (mut one, mut minus_one, mut p) = ([0; 32], [0xff; 32], [0xff; 32]);
        (one[0], minus_one[0], p[0]) = (1, 0xec, 0xed);
        (minus_one[31], p[31]) = (0x7f, 0xff);
        let order_8 = BASE64URL.decode("JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU").unwrap();
        for point in [&[0; 32], &one, &minus_one, &p, order_8.as_slice()] {
            assert_eq!(jwk_thumbprint(ed25519(point).as_bytes()), Err(BadConfirmation::Weak), "{point:?}");
        }
        let off_the_curve = RFC_9449.replace("l8tF", "l8tG");
        assert_eq!(jwk_thumbprint(off_the_curve.as_bytes()), Err(BadConfirmation::Weak));
        let n = BASE64URL.encode([0xff; 256]);
        for (e, ok) in [("AQ", false), ("AQAA", false), ("AQAB", true)] {
            let jwk = format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}"}}"#);
            assert_eq!(jwk_thumbprint(jwk.as_bytes()).is_ok(), ok, "{e}");
        }
        let short = format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, BASE64URL.encode([0xff; 128]));
        assert_eq!(jwk_thumbprint(short.as_bytes()), Err(BadConfirmation::Jwk(JwkError::Unsupported)));
        let weak = include_str!("confirmation/rsa1024.crt");
        assert_eq!(certificate_thumbprint(weak.as_bytes()), Err(BadConfirmation::Weak));
        let good = include_str!("confirmation/ed25519.crt");
        assert!(certificate_thumbprint(good.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_neither_is_refused() {
        for bad in ["", "[]", "{}", r#"{"kty":"OKP","kty":"OKP"}"#] {
            assert!(jwk_thumbprint(bad.as_bytes()).is_err(), "{bad}");
        }
        let der = STANDARD.decode(RFC_8705).unwrap();
        for bad in [&[], &der[1..], &der[..der.len() - 1], &[der.as_slice(), &[0]].concat()] {
            assert_eq!(certificate_thumbprint(bad), Err(BadConfirmation::NotACertificate));
        }
        for (label, content) in [("CERTIFICATE", "AQAB"), ("PUBLIC KEY", RFC_8705), ("CERTIFICATE", "?")] {
            assert_eq!(
                certificate_thumbprint(pem(label, content).as_bytes()),
                Err(BadConfirmation::NotACertificate)
            );
        }
        let two = pem("CERTIFICATE", RFC_8705).repeat(2);
        assert_eq!(certificate_thumbprint(two.as_bytes()), Err(BadConfirmation::SeveralCertificates));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = jwk_thumbprint(&bytes);
            let _ = certificate_thumbprint(&bytes);
            let _ = certificate_thumbprint(pem("CERTIFICATE", &STANDARD.encode(&bytes)).as_bytes());
        }

        #[test]
        fn no_certificate_with_another_byte_makes_it_panic(at in 0_usize..266, byte: u8) {
            let mut der = STANDARD.decode(RFC_8705).unwrap();
            let at = at % der.len();
            der[at] = byte;
            let _ = certificate_thumbprint(&der);
        }
    }
}
