//! The compact form of a JWS (RFC 7515, section 7.1), read strictly, and its header.

use base64::Engine as _;
use dayfly_core::limits;
use serde_json::{Map, Value};

use crate::BASE64URL;
use crate::alg::Alg;
use crate::claims::Claims;
use crate::json::{self, Fault};

/// Reads a token's header and claims, strictly, without checking its signature: to see which cluster it may be from,
/// and to refuse what cannot be good before anything costly. Nothing of it is true until it is verified.
///
/// # Errors
/// What is wrong with its shape; safe to tell the caller.
pub fn peek(token: &str) -> Result<Peek, TokenShape> {
    let compact = Compact::parse(token)?;
    Ok(Peek { claims: Claims::parse(&compact.payload)?, header: compact.header })
}

/// What a token says of itself, unverified.
#[derive(Debug, Clone, PartialEq)]
pub struct Peek {
    /// Its header.
    pub header: Header,
    /// Its claims.
    pub claims: Claims,
}

/// What counts of a JOSE header (RFC 7515, section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `alg`.
    pub alg: Alg,
    /// `kid`.
    pub kid: Option<String>,
    /// `typ`.
    pub typ: Option<String>,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, TokenShape> {
        let header = json::object(bytes).map_err(|fault| TokenShape::of(fault, TokenShape::Header))?;
        // Extensions that must be understood (section 4.1.11), and the unencoded payload (RFC 7797), are not.
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(TokenShape::Critical);
        }
        let alg = header.get("alg").and_then(Value::as_str).ok_or(TokenShape::Algorithm)?;
        Ok(Self {
            alg: alg.parse().map_err(|_| TokenShape::Algorithm)?,
            kid: member(&header, "kid")?,
            typ: member(&header, "typ")?,
        })
    }
}

fn member(header: &Map<String, Value>, name: &str) -> Result<Option<String>, TokenShape> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(TokenShape::Header),
    }
}

/// A compact JWS, taken apart.
pub(crate) struct Compact<'a> {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    /// What is signed: the first two parts as they came, with the dot.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: Vec<u8>,
}

impl<'a> Compact<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, TokenShape> {
        if token.len() > limits::TOKEN_BYTES {
            return Err(TokenShape::TooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenShape::Parts)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenShape::Parts)?;
        if payload.contains('.') || header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(TokenShape::Parts);
        }
        Ok(Self {
            header: Header::parse(&decode(header)?)?,
            payload: decode(payload)?,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
        })
    }
}

fn decode(part: &str) -> Result<Vec<u8>, TokenShape> {
    BASE64URL.decode(part).map_err(|_| TokenShape::Base64)
}

/// A token does not have the shape of a signed JWT. Says nothing of its content; safe to tell the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenShape {
    /// Larger than [`limits::TOKEN_BYTES`].
    #[error("the token is larger than {} bytes", limits::TOKEN_BYTES)]
    TooLarge,
    /// Not three parts.
    #[error("the token is not a signed JWT: it must be three parts, separated by dots")]
    Parts,
    /// A part is not base64url.
    #[error("the token is not a signed JWT: its parts must be base64url without padding")]
    Base64,
    /// The header is not a JSON object, or `kid` or `typ` is not text.
    #[error("the token's header is not a JSON object with text in kid and typ")]
    Header,
    /// The header has `crit` or `b64`.
    #[error("the token's header has crit or b64, which are not supported")]
    Critical,
    /// `alg` is missing, `none`, symmetric or unknown.
    #[error(
        "the token's algorithm is not accepted: it must be ES256, ES384, EdDSA, RS256 to RS512 or PS256 to PS512"
    )]
    Algorithm,
    /// The payload is not a JSON object.
    #[error("the token's claims are not a JSON object")]
    Claims,
    /// A member of header or payload occurs twice.
    #[error("the token's header or claims have a member twice")]
    Duplicate,
    /// Header or payload are nested too deep.
    #[error("the token's header or claims are nested too deep")]
    TooDeep,
    /// A registered claim (this one) has a wrong type or an impossible value.
    #[error("the token's claim {0} is malformed")]
    Claim(&'static str),
}

impl TokenShape {
    pub(crate) fn of(fault: Fault, not_an_object: Self) -> Self {
        match fault {
            Fault::NotAnObject => not_an_object,
            Fault::Duplicate => Self::Duplicate,
            Fault::TooDeep => Self::TooDeep,
        }
    }
}
