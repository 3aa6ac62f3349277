//! Tokens in `authorization`, and how a request without a good one is answered (RFC 6750).

use std::fmt::Write as _;

use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::proof::Proof;
use crate::refused::Refused;
use crate::verified::Verified;
use crate::verifier::Verifier;

/// Codes of gRPC, for requests that are calls of it.
const PERMISSION_DENIED: u16 = 7;
const UNAVAILABLE: u16 = 14;
const UNAUTHENTICATED: u16 = 16;

/// A request brings no token that could be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// There is no `authorization: Bearer TOKEN`.
    #[error("no bearer token was sent: `authorization: Bearer TOKEN` is needed")]
    Missing,
    /// There are several `authorization`, or what follows `Bearer` is no token (RFC 6750, section 2.1).
    #[error("authorization must be sent once, as `Bearer TOKEN`")]
    Malformed,
}

/// The answer to a request without a good token: 401, 403 where its scope does not suffice, 400 where `authorization` is sent
/// twice or malformed (RFC 6750, section 3.1), 503 while it cannot be known whether the token is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Why.
    pub why: Why,
    scope: Vec<String>,
}

/// Why a request is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// There is no token to look at.
    #[error(transparent)]
    NoToken(#[from] NoToken),
    /// The token is refused.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// The credential that these headers bring, where it is good.
pub(crate) async fn authenticate(
    verifier: &Verifier,
    headers: &HeaderMap,
    proof: Proof,
) -> Result<Verified, Challenge> {
    let challenge = |why| Challenge { why, scope: verifier.required_scope().to_vec() };
    let token = bearer(headers).map_err(|why| challenge(why.into()))?;
    // A token that is bound to a DPoP key is never taken as a bearer token (RFC 9449, section 7.2).
    let proof = if matches!(proof, Proof::Key(_)) { Proof::Nothing } else { proof };
    verifier.verify_with_fresh_keys(token, proof).await.map_err(|why| challenge(why.into()))
}

/// The one bearer token of the request (RFC 6750, section 2.1; the scheme in any case: RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Result<&str, NoToken> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, more) = (values.next().ok_or(NoToken::Missing)?, values.next());
    if more.is_some() {
        return Err(NoToken::Malformed);
    }
    let value = value.to_str().map_err(|_| NoToken::Malformed)?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(NoToken::Missing);
    }
    let token = token.trim_start_matches(' ');
    let b64token = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if token.is_empty() || !token.bytes().all(b64token) { Err(NoToken::Malformed) } else { Ok(token) }
}

impl Challenge {
    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        match self.why {
            Why::NoToken(NoToken::Malformed) => StatusCode::BAD_REQUEST,
            Why::Refused(Refused::Scope) => StatusCode::FORBIDDEN,
            Why::Refused(refused) if refused.is_temporary() => StatusCode::SERVICE_UNAVAILABLE,
            Why::NoToken(NoToken::Missing) | Why::Refused(_) => StatusCode::UNAUTHORIZED,
        }
    }

    /// `WWW-Authenticate` (RFC 6750, section 3): without an error where the request brought no token at all; none where nothing
    /// is said of the token.
    pub fn www_authenticate(&self) -> Option<String> {
        let mut challenge = "Bearer".to_owned();
        let error = match self.why {
            Why::NoToken(NoToken::Missing) => None,
            Why::NoToken(NoToken::Malformed) => Some("invalid_request"),
            Why::Refused(Refused::Scope) => Some("insufficient_scope"),
            Why::Refused(refused) if refused.is_temporary() => return None,
            Why::Refused(_) => Some("invalid_token"),
        };
        if let Some(error) = error {
            // Our own words, and never what the token says. No quotation mark may be in them.
            let why = self.why.to_string().replace(['"', '\\'], "'");
            let _infallible = write!(challenge, r#" error="{error}", error_description="{why}""#);
            if !self.scope.is_empty() && error == "insufficient_scope" {
                let _infallible = write!(challenge, r#", scope="{}""#, self.scope.join(" "));
            }
        }
        Some(challenge)
    }

    /// The answer to a request with these headers: to a call of gRPC a status of it, to others one of HTTP; with an empty body.
    pub fn response<B: Default>(&self, request: &HeaderMap) -> Response<B> {
        let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
        let mut response = Response::new(B::default());
        let headers = response.headers_mut();
        if let Some(Ok(challenge)) = self.www_authenticate().map(HeaderValue::try_from) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        let status = self.status();
        if request.get(CONTENT_TYPE).is_some_and(is_grpc) {
            let code = match status {
                StatusCode::FORBIDDEN => PERMISSION_DENIED,
                StatusCode::SERVICE_UNAVAILABLE => UNAVAILABLE,
                _ => UNAUTHENTICATED,
            };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(code));
            // Printable ASCII without a percent sign, which is how the message must be encoded.
            if let Ok(message) = HeaderValue::try_from(self.why.to_string()) {
                headers.insert("grpc-message", message);
            }
            return response;
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        *response.status_mut() = status;
        response
    }
}

/// For what one route asks for beyond the others: `verified.require_scope("orders:write")?`.
impl From<Refused> for Challenge {
    fn from(refused: Refused) -> Self {
        Self { why: refused.into(), scope: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let value = |value: &&str| (AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        values.iter().map(value).collect()
    }

    #[test]
    fn exactly_one_bearer_token_is_taken() {
        assert_eq!(bearer(&headers(&["Bearer a.b-c_d"])), Ok("a.b-c_d"));
        assert_eq!(bearer(&headers(&["bearer  a"])), Ok("a"));
        assert_eq!(bearer(&headers(&[])), Err(NoToken::Missing));
        assert_eq!(bearer(&headers(&["Basic YTpi"])), Err(NoToken::Missing));
        assert_eq!(bearer(&headers(&["DPoP a"])), Err(NoToken::Missing));
        for malformed in [
            &["Bearer a", "Bearer a"][..],
            &["Bearer a", "Basic b"],
            &["Bearer"],
            &["Bearer "],
            &["Bearer a b"],
        ] {
            assert_eq!(bearer(&headers(malformed)), Err(NoToken::Malformed), "{malformed:?}");
        }
        assert_eq!(bearer(&headers(&["Bearer a,Bearer b"])), Err(NoToken::Malformed));
    }

    #[test]
    fn challenges_are_those_of_rfc_6750() {
        let of = |why: Why| Challenge { why, scope: vec!["orders:read".to_owned(), "x".to_owned()] };
        let told = |why: Why| (of(why).status().as_u16(), of(why).www_authenticate().unwrap_or_default());
        assert_eq!(told(NoToken::Missing.into()), (401, "Bearer".to_owned()));
        let (status, told_of) = told(NoToken::Malformed.into());
        assert!(status == 400 && told_of.starts_with(r#"Bearer error="invalid_request""#), "{told_of}");
        assert_eq!(
            told(Refused::Revoked.into()),
            (401, r#"Bearer error="invalid_token", error_description="the token was revoked""#.to_owned())
        );
        let (status, told_of) = told(Refused::Scope.into());
        assert!(status == 403 && told_of.starts_with(r#"Bearer error="insufficient_scope""#), "{told_of}");
        assert!(told_of.ends_with(r#", scope="orders:read x""#), "{told_of}");
        assert_eq!(told(Refused::RevocationsUnknown.into()), (503, String::new()));
        assert_eq!(told(Refused::KeysUnknown.into()), (503, String::new()));
    }

    #[test]
    fn a_call_of_grpc_is_answered_in_its_words() {
        let call = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"))]);
        for (refused, code) in
            [(Refused::Expired, "16"), (Refused::Scope, "7"), (Refused::RevocationsUnknown, "14")]
        {
            let answer: Response<()> = Challenge::from(refused).response(&call);
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["grpc-status"], code);
            assert_eq!(answer.headers()["grpc-message"], refused.to_string().as_str());
            let answer: Response<()> = Challenge::from(refused).response(&HeaderMap::new());
            assert_eq!(answer.status(), Challenge::from(refused).status());
            assert!(!answer.headers().contains_key("grpc-status"));
        }
    }
}
