//! Status list tokens (draft-ietf-oauth-status-list, section 5.1): a target's list of bits, signed by keys of their own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dayfly_core::ports::{KeyFor, KeyUse, SignError, Signer, SigningAlgorithm, TargetRef};
use dayfly_core::secret::Secret;
use miniz_oxide::deflate::compress_to_vec_zlib;
use serde::Serialize;

/// How well the bits are compressed, 0 to 10: the draft recommends the best.
const LEVEL: u8 = 9;

/// The claims of a status list token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusListClaims<'a> {
    /// The list's URL: the `uri` in the tokens that it is about.
    pub sub: &'a str,
    /// When it was made, in seconds since 1970.
    pub iat: u64,
    /// When it is not to be relied on any more, likewise.
    pub exp: u64,
    /// For how many seconds it may be cached.
    pub ttl: u64,
    /// The list.
    pub status_list: Bits,
}

/// The list: one bit for each token, 0 valid, 1 invalid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bits {
    /// How many bits a token has: 1.
    pub bits: u8,
    /// The bits, by zlib and base64url.
    pub lst: String,
}

impl Bits {
    /// These bits, the least significant of each byte first.
    pub fn of(bits: &[u8]) -> Self {
        Self { bits: 1, lst: URL_SAFE_NO_PAD.encode(compress_to_vec_zlib(bits, LEVEL)) }
    }
}

/// A status list token of this target.
///
/// # Errors
/// When there is no key for it, or it did not sign.
pub fn sign(
    signer: &dyn Signer,
    target: &TargetRef,
    claims: &StatusListClaims<'_>,
) -> Result<Secret, SignError> {
    let (key_use, algorithm) = (KeyUse::StatusList, SigningAlgorithm::Es256);
    let key = signer.current(&KeyFor { key_use, algorithm, target: target.clone() })?;
    let payload = serde_json::to_vec(claims).map_err(|_| SignError::Failed)?;
    signer.sign(&key.id, &KeyUse::StatusList, target, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of section 4.1 of the draft.
    #[test]
    fn a_list_is_compressed_as_the_draft_has_it() {
        let Bits { bits, lst } = Bits::of(&[0xB9, 0xA3]);
        assert_eq!((bits, lst.as_str()), (1, "eNrbuRgAAhcBXQ"));
    }
}
