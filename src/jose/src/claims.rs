//! A JWT's claims (RFC 7519, section 4) and its times.

use std::time::Duration;

use dayfly_core::time::Timestamp;
use serde_json::{Map, Value};

use crate::compact::TokenShape;
use crate::json;

/// A JWT's claims: the registered ones (RFC 7519, section 4.1) parsed, and all of them as they came.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`, a string or an array of them; empty where there is none.
    pub audiences: Vec<String>,
    /// `exp`.
    pub expires_at: Option<Timestamp>,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// `jti`.
    pub id: Option<String>,
    /// Every claim, those above included.
    pub all: Map<String, Value>,
}

impl Claims {
    /// Reads a JWT's payload: a JSON object in which no member occurs twice, whose registered claims have their types.
    ///
    /// # Errors
    /// [`TokenShape::Claims`], [`TokenShape::Duplicate`], [`TokenShape::TooDeep`] or [`TokenShape::Claim`].
    pub fn parse(payload: &[u8]) -> Result<Self, TokenShape> {
        let all = json::object(payload).map_err(|fault| TokenShape::of(fault, TokenShape::Claims))?;
        Ok(Self {
            issuer: text(&all, "iss")?,
            subject: text(&all, "sub")?,
            audiences: audiences(&all)?,
            expires_at: numeric_date(&all, "exp")?,
            not_before: numeric_date(&all, "nbf")?,
            issued_at: numeric_date(&all, "iat")?,
            id: text(&all, "jti")?,
            all,
        })
    }

    /// Whether `aud` is exactly this one audience.
    pub fn is_only_for(&self, audience: &str) -> bool {
        matches!(self.audiences.as_slice(), [only] if only == audience)
    }
}

fn text(claims: &Map<String, Value>, name: &'static str) -> Result<Option<String>, TokenShape> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(TokenShape::Claim(name)),
    }
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, TokenShape> {
    let one = |value: &Value| value.as_str().map(str::to_owned).ok_or(TokenShape::Claim("aud"));
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(one).collect(),
        Some(value) => Ok(vec![one(value)?]),
    }
}

/// The end of the year 9999, in seconds: no NumericDate is later.
const LATEST: u64 = 253_402_300_799;

/// A NumericDate (RFC 7519, section 2): seconds since 1970, fractions allowed, kept to the millisecond.
fn numeric_date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, TokenShape> {
    let wrong = TokenShape::Claim(name);
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match number.as_u64() {
            Some(secs) if secs <= LATEST => Ok(Some(Timestamp::from_secs(secs))),
            Some(_) => Err(wrong),
            None => {
                let secs = number.as_f64().ok_or(wrong)?;
                #[expect(clippy::cast_precision_loss, reason = "2^38 is exact in an f64")]
                let in_range = secs.is_sign_positive() && secs <= LATEST as f64;
                let time = Duration::try_from_secs_f64(secs).map_err(|_| wrong)?;
                if in_range { Ok(Some(Timestamp::default().plus(time))) } else { Err(wrong) }
            }
        },
        Some(_) => Err(wrong),
    }
}

/// Checks a token's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How far the issuer's clock may be off ([`dayfly_core::limits::Limits::leeway`]).
    pub leeway: Duration,
}

impl Times {
    /// Whether a token with these claims is good at `now`: `exp` must be there and later, `nbf` and `iat`, where they
    /// are there, must not be later (RFC 7519, sections 4.1.4 to 4.1.6).
    pub fn check(self, claims: &Claims, now: Timestamp) -> Result<(), BadTime> {
        let expires_at = claims.expires_at.ok_or(BadTime::NoExpiry)?;
        if now >= expires_at.plus(self.leeway) {
            return Err(BadTime::Expired { at: expires_at });
        }
        let latest = now.plus(self.leeway);
        for from in [claims.not_before, claims.issued_at].into_iter().flatten() {
            if from > latest {
                return Err(BadTime::NotYetValid { from });
            }
        }
        Ok(())
    }
}

/// A token's times are not good now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTime {
    /// There is no `exp`.
    #[error("the token has no expiry (claim exp)")]
    NoExpiry,
    /// It is past its `exp`.
    #[error("the token expired at {at}")]
    Expired {
        /// Its `exp`.
        at: Timestamp,
    },
    /// It is before its `nbf` or `iat`.
    #[error("the token is not valid before {from}")]
    NotYetValid {
        /// Its `nbf` or `iat`.
        from: Timestamp,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Result<Claims, TokenShape> {
        Claims::parse(json.as_bytes())
    }

    #[test]
    fn reads_registered_claims() {
        let claims = claims(
            r#"{"iss":"https://k","sub":"s","aud":["a","b"],"exp":10,"nbf":1.25,"iat":1e0,"jti":"j","x":{"y":1}}"#,
        )
        .unwrap();
        assert_eq!(claims.issuer.as_deref(), Some("https://k"));
        assert_eq!(claims.audiences, ["a", "b"]);
        assert_eq!(claims.expires_at, Some(Timestamp::from_secs(10)));
        assert_eq!(claims.not_before, Some(Timestamp::from_millis(1250)));
        assert_eq!(claims.issued_at, Some(Timestamp::from_secs(1)));
        assert_eq!(claims.all["x"]["y"], 1);
        assert!(!claims.is_only_for("a"));
        assert!(Claims::parse(br#"{"aud":"a"}"#).unwrap().is_only_for("a"));
    }

    #[test]
    fn refuses_claims_of_a_wrong_type() {
        for json in [
            r#"{"iss":1}"#,
            r#"{"sub":null}"#,
            r#"{"aud":[1]}"#,
            r#"{"aud":{}}"#,
            r#"{"jti":[]}"#,
            r#"{"exp":"10"}"#,
            r#"{"exp":-1}"#,
            r#"{"exp":-0.5}"#,
            r#"{"exp":null}"#,
            r#"{"exp":253402300800}"#,
            r#"{"exp":1e300}"#,
            r#"{"exp":18446744073709551616}"#,
        ] {
            assert!(matches!(claims(json), Err(TokenShape::Claim(_))), "{json}");
        }
        assert_eq!(claims(r#"{"exp":1,"exp":2}"#), Err(TokenShape::Duplicate));
        assert_eq!(claims("[]"), Err(TokenShape::Claims));
    }

    #[test]
    fn times_have_a_leeway() {
        let times = Times { leeway: Duration::from_secs(30) };
        let claims = claims(r#"{"exp":1000,"nbf":500,"iat":500}"#).unwrap();
        let at = Timestamp::from_secs;
        assert_eq!(times.check(&claims, at(700)), Ok(()));
        assert_eq!(times.check(&claims, at(1029)), Ok(()));
        assert_eq!(times.check(&claims, at(1030)), Err(BadTime::Expired { at: at(1000) }));
        assert_eq!(times.check(&claims, at(470)), Ok(()));
        assert_eq!(times.check(&claims, at(469)), Err(BadTime::NotYetValid { from: at(500) }));
        assert_eq!(times.check(&Claims { expires_at: None, ..claims }, at(700)), Err(BadTime::NoExpiry));
    }
}
