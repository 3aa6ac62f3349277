//! Public keys as JSON: JWK and JWK Set (RFC 7517).

use base64::Engine as _;
use dayfly_core::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::BASE64URL;
use crate::alg::{Alg, Kind};

/// Keys in a JWK Set.
pub const MAX_JWKS_KEYS: usize = 64;
/// A JWK Set's text, in bytes.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;

/// A public key that verifies signatures (RFC 7517, section 4; RFC 7518, section 6; RFC 8037, section 2). It never
/// holds a private part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    /// `kid`.
    pub kid: Option<String>,
    /// `alg`, or what follows from the key: an RSA key without it is for RS256.
    pub alg: Alg,
    pub(crate) material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Material {
    /// On P-256 or P-384, as [`Jwk::alg`] says.
    Ec {
        x: Vec<u8>,
        y: Vec<u8>,
    },
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    Ed25519 {
        x: Vec<u8>,
    },
}

/// A JWK's members as they are written: in this order.
#[derive(Serialize, Deserialize, Default)]
struct Members {
    kty: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    key_use: Option<String>,
    #[serde(skip_serializing)]
    key_ops: Option<Vec<String>>,
}

impl Jwk {
    /// Reads one JWK. Unknown members are ignored, a private part with them.
    ///
    /// # Errors
    /// When it is no JWK, or not of a kind that verifies here.
    pub fn parse(json: &[u8]) -> Result<Self, JwkError> {
        if json.len() > MAX_JWKS_BYTES {
            return Err(JwkError::Malformed);
        }
        let value = serde_json::from_slice(json).map_err(|_| JwkError::Malformed)?;
        Self::from_value(value, SetKind::Jwks)
    }

    /// A key on P-256 from its uncompressed point (SEC 1, section 2.3.3).
    pub(crate) fn p256(point: &[u8]) -> Option<Self> {
        let (x, y) = point.strip_prefix(&[4])?.split_at_checked(32)?;
        let material = Material::Ec { x: x.to_vec(), y: y.to_vec() };
        Some(Self::named(Alg::Es256, material))
    }

    /// A key on Ed25519 from its 32 bytes (RFC 8032, section 5.1.5).
    pub(crate) fn ed25519(point: &[u8]) -> Option<Self> {
        (point.len() == 32).then(|| Self::named(Alg::EdDsa, Material::Ed25519 { x: point.to_vec() }))
    }

    /// The 32 bytes of a key on Ed25519; `None` of another.
    pub fn ed25519_key(&self) -> Option<[u8; 32]> {
        match &self.material {
            Material::Ed25519 { x } => x.as_slice().try_into().ok(),
            Material::Ec { .. } | Material::Rsa { .. } => None,
        }
    }

    /// An RSA key for RS256, from its modulus and exponent.
    pub(crate) fn rs256(n: Vec<u8>, e: Vec<u8>) -> Self {
        Self::named(Alg::Rs256, Material::Rsa { n, e })
    }

    /// A key whose `kid` is its thumbprint.
    fn named(alg: Alg, material: Material) -> Self {
        let key = Self { kid: None, alg, material };
        Self { kid: Some(BASE64URL.encode(key.thumbprint().as_bytes())), ..key }
    }

    /// A key for signatures, or only one for SVIDs: neither is ever the other.
    fn from_value(value: Value, kind: SetKind) -> Result<Self, JwkError> {
        let members: Members = serde_json::from_value(value).map_err(|_| JwkError::Malformed)?;
        let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
        let of_use = match kind {
            SetKind::Jwks => members.key_use.as_deref().is_none_or(|key_use| key_use == "sig"),
            SetKind::Bundle => members.key_use.as_deref() == Some(SVID_USE) && members.kid.is_some(),
        };
        if !of_use || !members.key_ops.as_ref().is_none_or(verifies) {
            return Err(JwkError::NotForSignatures);
        }
        let (implied, material) = match (members.kty.as_str(), members.crv.as_deref()) {
            ("RSA", _) => (Alg::Rs256, rsa(&members)?),
            ("EC", Some("P-256")) => (Alg::Es256, point(&members, 32)?),
            ("EC", Some("P-384")) => (Alg::Es384, point(&members, 48)?),
            ("OKP", Some("Ed25519")) => {
                (Alg::EdDsa, Material::Ed25519 { x: part(members.x.as_ref(), Some(32))? })
            }
            _ => return Err(JwkError::Unsupported),
        };
        let alg = match &members.alg {
            Some(alg) => alg.parse().map_err(|_| JwkError::Unsupported)?,
            None => implied,
        };
        if alg.kind() != implied.kind() {
            return Err(JwkError::Mismatch);
        }
        Ok(Self { kid: members.kid, alg, material })
    }

    /// The SHA-256 thumbprint (RFC 7638, section 3; RFC 8037, section 2 for Ed25519).
    pub fn thumbprint(&self) -> Digest {
        let encode = |part: &[u8]| BASE64URL.encode(part);
        Digest::of(
            match &self.material {
                Material::Ec { x, y } => {
                    let (crv, x, y) = (self.curve(), encode(x), encode(y));
                    format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#)
                }
                Material::Rsa { n, e } => {
                    format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(e), encode(n))
                }
                Material::Ed25519 { x } => {
                    format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(x))
                }
            }
            .as_bytes(),
        )
    }

    /// The key as JSON, with `alg` and `"use":"sig"`.
    pub fn to_json(&self) -> String {
        // Text members only: nothing of this can fail to be written.
        serde_json::to_string(&self.members("sig")).unwrap_or_default()
    }

    fn members(&self, key_use: &str) -> Members {
        let encode = |part: &[u8]| Some(BASE64URL.encode(part));
        let common = Members {
            kid: self.kid.clone(),
            alg: Some(self.alg.name().to_owned()),
            key_use: Some(key_use.to_owned()),
            ..Members::default()
        };
        match &self.material {
            Material::Ec { x, y } => Members {
                kty: "EC".to_owned(),
                crv: Some(self.curve().to_owned()),
                x: encode(x),
                y: encode(y),
                ..common
            },
            Material::Rsa { n, e } => Members { kty: "RSA".to_owned(), n: encode(n), e: encode(e), ..common },
            Material::Ed25519 { x } => {
                Members { kty: "OKP".to_owned(), crv: Some("Ed25519".to_owned()), x: encode(x), ..common }
            }
        }
    }

    fn curve(&self) -> &'static str {
        if self.alg.kind() == Kind::P384 { "P-384" } else { "P-256" }
    }
}

impl Serialize for Jwk {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.members("sig").serialize(serializer)
    }
}

fn point(members: &Members, size: usize) -> Result<Material, JwkError> {
    Ok(Material::Ec { x: part(members.x.as_ref(), Some(size))?, y: part(members.y.as_ref(), Some(size))? })
}

/// RSA of 2048 to 8192 bits, as ring takes it; integers without leading zeros (RFC 7518, section 6.3.1).
fn rsa(members: &Members) -> Result<Material, JwkError> {
    let integer = |value: Option<&String>| -> Result<Vec<u8>, JwkError> {
        let bytes = part(value, None)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Ok(bytes.into_iter().skip(zeros).collect())
    };
    let (n, e) = (integer(members.n.as_ref())?, integer(members.e.as_ref())?);
    let top_bit = n.first().is_some_and(|byte| byte & 0x80 != 0);
    let long_enough = n.len() > 256 || (n.len() == 256 && top_bit);
    if !long_enough || n.len() > 1024 || e.is_empty() || e.len() > 5 {
        return Err(JwkError::Unsupported);
    }
    Ok(Material::Rsa { n, e })
}

fn part(value: Option<&String>, size: Option<usize>) -> Result<Vec<u8>, JwkError> {
    let bytes = BASE64URL.decode(value.ok_or(JwkError::Malformed)?).map_err(|_| JwkError::Malformed)?;
    if size.is_some_and(|size| bytes.len() != size) { Err(JwkError::Malformed) } else { Ok(bytes) }
}

/// A JWK cannot be used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// Not a JWK, or a member is missing or malformed.
    #[error("the key is not a JWK (RFC 7517), or a part of it is missing or malformed")]
    Malformed,
    /// Of a kind, curve, size or algorithm that does not verify here.
    #[error("the key is not RSA of 2048 to 8192 bits, EC on P-256 or P-384, or Ed25519")]
    Unsupported,
    /// Its `alg` is not of its kind.
    #[error("the key's alg does not fit its kty or crv")]
    Mismatch,
    /// Its `use` or `key_ops` say that it does not verify signatures.
    #[error("the key's use or key_ops say that it is not for signatures")]
    NotForSignatures,
}

/// A JWK Set (RFC 7517, section 5): the keys in it that verify here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JwkSet {
    /// The keys that verify here.
    pub keys: Vec<Jwk>,
    /// How many others there were: of unknown kinds, for encryption, malformed (section 5 says to ignore them).
    pub skipped: usize,
}

impl JwkSet {
    /// Reads a JWK Set as Kubernetes and others serve it; keys that cannot be used are skipped.
    ///
    /// # Errors
    /// When it is no JWK Set, or larger than [`MAX_JWKS_BYTES`] or [`MAX_JWKS_KEYS`].
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        Self::parse_as(json, SetKind::Jwks)
    }

    /// Reads the keys for JWT-SVIDs of a SPIFFE bundle (SPIFFE Trust Domain and Bundle, section 4); others are skipped.
    ///
    /// # Errors
    /// As [`JwkSet::parse`].
    pub fn parse_bundle(json: &[u8]) -> Result<Self, JwksError> {
        Self::parse_as(json, SetKind::Bundle)
    }

    fn parse_as(json: &[u8], kind: SetKind) -> Result<Self, JwksError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        if json.len() > MAX_JWKS_BYTES {
            return Err(JwksError::TooLarge);
        }
        let set: Set = serde_json::from_slice(json).map_err(|_| JwksError::Malformed)?;
        let all = set.keys.len();
        if all > MAX_JWKS_KEYS {
            return Err(JwksError::TooMany(all));
        }
        let keys: Vec<Jwk> = set.keys.into_iter().filter_map(|key| Jwk::from_value(key, kind).ok()).collect();
        Ok(Self { skipped: all - keys.len(), keys })
    }

    /// The set as JSON: `{"keys":[...]}`.
    pub fn to_json(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(Jwk::to_json).collect();
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }

    /// The set as a SPIFFE bundle's JSON (SPIFFE Trust Domain and Bundle, section 4): keys for JWT-SVIDs, a sequence
    /// number that grows with each change, and after how many seconds to ask again.
    pub fn to_bundle(&self, sequence: u64, refresh_hint_secs: u32) -> String {
        let keys = self.keys.iter().map(|key| key.members(SVID_USE)).collect();
        let bundle = Bundle { keys, spiffe_sequence: sequence, spiffe_refresh_hint: refresh_hint_secs };
        // Texts and numbers only: nothing of this can fail to be written.
        serde_json::to_string(&bundle).unwrap_or_default()
    }
}

/// The `use` of keys for JWT-SVIDs (SPIFFE JWT-SVID, section 6.1).
const SVID_USE: &str = "jwt-svid";

/// Which keys of a set are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SetKind {
    /// Those for signatures.
    Jwks,
    /// Those for JWT-SVIDs.
    Bundle,
}

#[derive(Serialize)]
struct Bundle {
    keys: Vec<Members>,
    spiffe_sequence: u64,
    spiffe_refresh_hint: u32,
}

/// A JWK Set was refused as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Not `{"keys":[...]}`.
    #[error("the key set is not a JWK Set (RFC 7517)")]
    Malformed,
    /// Larger than [`MAX_JWKS_BYTES`].
    #[error("the key set is larger than {MAX_JWKS_BYTES} bytes")]
    TooLarge,
    /// More keys than [`MAX_JWKS_KEYS`].
    #[error("the key set has {0} keys, more than {MAX_JWKS_KEYS}")]
    TooMany(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7638, section 3.1.
    const RFC_7638: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;
    /// RFC 8037, appendix A.2.
    const RFC_8037: &str =
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    /// RFC 7517, appendix A.1; `use` is `enc` there.
    const RFC_7517: &str = r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"USE","kid":"1"}"#;

    fn thumbprint(json: &str) -> String {
        BASE64URL.encode(Jwk::parse(json.as_bytes()).unwrap().thumbprint().as_bytes())
    }

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        assert_eq!(thumbprint(RFC_7638), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(thumbprint(RFC_8037), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn alg_follows_from_the_key() {
        let parse = |json: &str| Jwk::parse(json.as_bytes()).map(|key| key.alg);
        let ec = RFC_7517.replace("USE", "sig");
        assert_eq!(parse(&ec), Ok(Alg::Es256));
        assert_eq!(parse(RFC_8037), Ok(Alg::EdDsa));
        assert_eq!(parse(&RFC_7638.replace(r#""alg":"RS256","#, "")), Ok(Alg::Rs256));
        assert_eq!(parse(&RFC_7638.replace("RS256", "PS512")), Ok(Alg::Ps512));
        assert_eq!(parse(&RFC_7638.replace("RS256", "HS256")), Err(JwkError::Unsupported));
        assert_eq!(parse(&RFC_7638.replace("RS256", "ES256")), Err(JwkError::Mismatch));
        assert_eq!(parse(&ec.replace(r#""kid""#, r#""alg":"ES384","kid""#)), Err(JwkError::Mismatch));
        assert_eq!(parse(&ec.replace("P-256", "P-384")), Err(JwkError::Malformed));
        assert_eq!(parse(&ec.replace("P-256", "P-521")), Err(JwkError::Unsupported));
        assert_eq!(parse(&RFC_7517.replace("USE", "enc")), Err(JwkError::NotForSignatures));
        assert_eq!(
            parse(&ec.replace(r#""kid""#, r#""key_ops":["sign"],"kid""#)),
            Err(JwkError::NotForSignatures)
        );
        assert_eq!(parse(&ec.replace("MKBC", "MK=C")), Err(JwkError::Malformed));
        assert_eq!(parse(r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#), Err(JwkError::Unsupported));
        assert_eq!(parse(r#"{"kty":"oct","k":"AQAB"}"#), Err(JwkError::Unsupported));
        assert_eq!(parse("[]"), Err(JwkError::Malformed));
    }

    #[test]
    fn a_set_skips_what_it_cannot_use() {
        let enc = RFC_7517.replace("USE", "enc");
        let text = format!(r#"{{"keys":[{RFC_7638},{{"kty":"new"}},{enc},7,{RFC_8037}],"more":1}}"#);
        let set = JwkSet::parse(text.as_bytes()).unwrap();
        assert_eq!((set.keys.len(), set.skipped), (2, 3));
        assert_eq!(JwkSet::parse(set.to_json().as_bytes()).unwrap().keys, set.keys);
    }

    #[test]
    fn a_set_has_limits() {
        let many = |n: usize| format!(r#"{{"keys":[{}]}}"#, vec![RFC_8037; n].join(","));
        assert_eq!(JwkSet::parse(many(MAX_JWKS_KEYS).as_bytes()).unwrap().keys.len(), MAX_JWKS_KEYS);
        assert_eq!(JwkSet::parse(many(65).as_bytes()), Err(JwksError::TooMany(65)));
        assert_eq!(JwkSet::parse(" ".repeat(MAX_JWKS_BYTES + 1).as_bytes()), Err(JwksError::TooLarge));
        assert_eq!(JwkSet::parse(b"{}"), Err(JwksError::Malformed));
    }

    #[test]
    fn a_private_part_is_not_kept() {
        let with_d =
            RFC_8037.replace(r#""kty""#, r#""d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","kty""#);
        let key = Jwk::parse(with_d.as_bytes()).unwrap();
        assert!(!format!("{key:?}{}", key.to_json()).contains("nWGx"));
    }
}
