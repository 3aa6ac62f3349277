//! JWS, JWT and JWKS with ring behind jsonwebtoken, on our Clock.
//!
//! - [`install`] gives the jsonwebtoken crate its cryptography, once, by ring.
//! - [`SigningKey`] is parsed once and signs compact JWS (RFC 7515, section 7.1); [`SigningKey::import_rsa`] reads RSA keys
//!   that were made elsewhere.
//! - [`jwk_thumbprint`] and [`certificate_thumbprint`] are what `cnf` binds to.
//! - [`KeySet`] holds a JWK Set's keys, parsed once; [`verify`] checks a token against it, strictly.
//! - [`peek`] reads a token without checking its signature: to pick a cluster, and for cheap refusals.
//! - [`Times`] checks `exp`, `nbf` and `iat` against a time that the caller takes from its Clock.
//!
//! The algorithm comes from the key and never from the token; there is no HMAC and no `none`. `jku`, `jwk`, `x5u` and
//! `x5c` in a header are ignored, never fetched. No error says anything of a token's content.

mod alg;
mod claims;
mod compact;
mod confirmation;
mod import;
mod json;
mod jwk;
mod pem;
mod provider;
mod signing;
mod verify;

pub use alg::{Alg, NotAnAlg};
pub use claims::{BadTime, Claims, Times};
pub use compact::{Header, Peek, TokenShape, peek};
pub use confirmation::{BadConfirmation, certificate_thumbprint, jwk_thumbprint};
pub use import::{ImportError, MAX_KEY_FILE_BYTES};
pub use jwk::{Jwk, JwkError, JwkSet, JwksError, MAX_JWKS_BYTES, MAX_JWKS_KEYS};
pub use provider::{AnotherProvider, install};
pub use signing::{KeyFailed, SigningKey};
pub use verify::{KeySet, Policy, Typ, Verified, VerifyError, VerifyingKey, WithoutKid, verify};

use base64::engine::general_purpose::{GeneralPurpose, URL_SAFE_NO_PAD};

/// Base64url without padding (RFC 7515, section 2); decoding refuses padding, blanks and stray trailing bits.
pub(crate) const BASE64URL: GeneralPurpose = URL_SAFE_NO_PAD;
