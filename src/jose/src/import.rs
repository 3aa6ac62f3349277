//! RSA keys that were made elsewhere: ring makes none.

use dayfly_core::secret::Secret;

use crate::alg::Alg;
use crate::pem::{PemFault, only_section};
use crate::signing::SigningKey;

/// The most bytes that a file with an RSA key has: one of 4096 bits has some 3300.
pub const MAX_KEY_FILE_BYTES: usize = 16 * 1024;

/// The one public exponent that is taken.
const EXPONENT: &[u8] = &[1, 0, 1];

impl SigningKey {
    /// An RSA key from PEM, for RS256: PKCS#8 (RFC 5208) or PKCS#1 (RFC 8017, appendix A.1.2), of 2048, 3072 or 4096
    /// bits, with exponent 65537.
    ///
    /// # Errors
    /// What is wrong with it, and what to do; nothing of the key.
    pub fn import_rsa(pem: &Secret) -> Result<Self, ImportError> {
        if pem.len() > MAX_KEY_FILE_BYTES {
            return Err(ImportError::TooLarge);
        }
        if pem.expose_text().is_ok_and(|text| text.contains("ENCRYPTED")) {
            return Err(ImportError::Encrypted);
        }
        let (label, der) = only_section(pem.expose()).map_err(|fault| match fault {
            PemFault::None | PemFault::Malformed => ImportError::NotPem,
            PemFault::Several => ImportError::Several,
        })?;
        let pkcs1 = match label {
            "PRIVATE KEY" => pkcs1_in_pkcs8(der.expose())?,
            "RSA PRIVATE KEY" => der.expose(),
            "EC PRIVATE KEY" | "DSA PRIVATE KEY" => return Err(ImportError::NotRsa),
            other => return Err(ImportError::NotAPrivateKey(other.chars().take(40).collect())),
        };
        let (modulus, exponent) = public_parts(pkcs1).ok_or(ImportError::Damaged)?;
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if ![2048, 3072, 4096].contains(&bits) {
            return Err(ImportError::Size(bits));
        }
        if exponent != EXPONENT {
            return Err(ImportError::Exponent);
        }
        Self::from_der(Alg::Rs256, &der).map_err(|_| ImportError::Damaged)
    }
}

/// The RSAPrivateKey in a PrivateKeyInfo: version, algorithm, and the key as an octet string.
fn pkcs1_in_pkcs8(der: &[u8]) -> Result<&[u8], ImportError> {
    /// rsaEncryption (RFC 8017, appendix A.1), and no other: a key for PSS alone does not sign RS256.
    const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    let read = || {
        let (info, _) = element(SEQUENCE, der)?;
        let (_, rest) = element(INTEGER, info)?;
        let (algorithm, rest) = element(SEQUENCE, rest)?;
        let (id, _) = element(OBJECT_ID, algorithm)?;
        let (key, _) = element(OCTET_STRING, rest)?;
        Some((id, key))
    };
    let (id, key) = read().ok_or(ImportError::Damaged)?;
    if id == RSA_ENCRYPTION { Ok(key) } else { Err(ImportError::NotRsa) }
}

/// Modulus and public exponent of an RSAPrivateKey, without leading zeros.
fn public_parts(pkcs1: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, _) = element(SEQUENCE, pkcs1)?;
    let (_version, rest) = element(INTEGER, key)?;
    let (modulus, rest) = element(INTEGER, rest)?;
    let (exponent, _) = element(INTEGER, rest)?;
    Some((modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent))
}

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// The content of the DER element (X.690, section 8.1) of this tag that `input` begins with, and what is after it. Only
/// to say what is wrong with a key: whether it is good, ring says.
fn element(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, rest) = input.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length))?
}

/// A file holds no RSA key that can be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Larger than [`MAX_KEY_FILE_BYTES`].
    #[error("the file is larger than {MAX_KEY_FILE_BYTES} bytes: give a file with one RSA private key alone")]
    TooLarge,
    /// No PEM.
    #[error(
        "the file is not PEM (-----BEGIN PRIVATE KEY----- or -----BEGIN RSA PRIVATE KEY-----): for DER, convert it with `openssl pkey -inform DER -in FILE`"
    )]
    NotPem,
    /// Several sections.
    #[error("the file has several PEM sections: give a file with one RSA private key alone")]
    Several,
    /// Encrypted with a passphrase.
    #[error(
        "the key is encrypted: decrypt it first, with `openssl pkey -in FILE`, into a file that only you can read"
    )]
    Encrypted,
    /// Some other PEM.
    #[error("the file holds a {0}: a private key is needed")]
    NotAPrivateKey(String),
    /// A private key of another kind.
    #[error("the key is not RSA: only RSA keys are imported, Dayfly makes those for ES256 and EdDSA itself")]
    NotRsa,
    /// Of another size.
    #[error(
        "the key has {0} bits: 2048, 3072 and 4096 are allowed; `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072` makes one"
    )]
    Size(usize),
    /// Another public exponent.
    #[error(
        "the key's public exponent is not 65537: make another key, with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072`"
    )]
    Exponent,
    /// Its parts do not fit each other, or are missing.
    #[error(
        "the key is damaged, or its parts do not fit each other: `openssl rsa -check -in FILE` says more"
    )]
    Damaged,
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn file(name: &str) -> String {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/import/keys_of_tests");
        std::fs::read_to_string(format!("{folder}/{name}.pem")).unwrap()
    }

    fn import(pem: &str) -> Result<SigningKey, ImportError> {
        SigningKey::import_rsa(&Secret::from(pem.to_owned()))
    }

    #[test]
    fn takes_rsa_keys_in_both_forms() {
        let pkcs8 = import(&file("rsa2048")).ok().unwrap();
        let pkcs1 = import(&file("rsa2048_pkcs1")).ok().unwrap();
        assert_eq!(pkcs8.key_id(), pkcs1.key_id());
        assert_eq!(pkcs8.alg(), Alg::Rs256);
        let again = SigningKey::from_der(Alg::Rs256, &pkcs1.to_der()).ok().unwrap();
        assert_eq!(again.public_jwk(), pkcs8.public_jwk());
        assert!(import(&file("rsa3072")).is_ok());
        assert!(import(&file("rsa4096")).is_ok());
    }

    #[test]
    fn says_what_is_wrong_with_others() {
        let good = file("rsa2048");
        let refused = |pem: &str| import(pem).err().unwrap();
        assert_eq!(refused(""), ImportError::NotPem);
        assert_eq!(refused(&good.replace("-----END", "-----")), ImportError::NotPem);
        assert_eq!(refused(&good.repeat(2)), ImportError::Several);
        assert_eq!(refused(&file("encrypted")), ImportError::Encrypted);
        assert_eq!(refused(&file("public")), ImportError::NotAPrivateKey("PUBLIC KEY".to_owned()));
        assert_eq!(refused(&file("p256")), ImportError::NotRsa);
        assert_eq!(refused(&file("p256_sec1")), ImportError::NotRsa);
        assert_eq!(refused(&file("ed25519")), ImportError::NotRsa);
        assert_eq!(refused(&file("rsa_pss")), ImportError::NotRsa);
        assert_eq!(refused(&file("rsa1024")), ImportError::Size(1024));
        assert_eq!(refused(&file("rsa2056")), ImportError::Size(2056));
        assert_eq!(refused(&file("rsa5120")), ImportError::Size(5120));
        assert_eq!(refused(&file("exponent3")), ImportError::Exponent);
        assert_eq!(refused(&" ".repeat(MAX_KEY_FILE_BYTES + 1)), ImportError::TooLarge);
        let (_, der) = only_section(good.as_bytes()).ok().unwrap();
        let mut damaged = der.expose().to_vec();
        damaged[700] ^= 1;
        let damaged =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(damaged));
        assert_eq!(refused(&damaged), ImportError::Damaged);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), label in "(RSA )?PRIVATE KEY") {
            let _ = import(&format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(bytes)));
        }
    }
}
