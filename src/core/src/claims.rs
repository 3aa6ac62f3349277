//! Claims that a Grant puts into tokens, beside those that Dayfly sets.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A token's claims of a Grant's, by name.
pub type Claims = BTreeMap<String, ClaimValue>;

/// What such a claim says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ClaimValue {
    /// A string.
    One(String),
    /// A list of strings.
    Many(Vec<String>),
}

impl ClaimValue {
    /// Its string, or its list's.
    pub fn values(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

impl<'de> Deserialize<'de> for ClaimValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl<'de> Visitor<'de> for Value {
            type Value = ClaimValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E>(self, text: &str) -> Result<ClaimValue, E> {
                Ok(ClaimValue::One(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ClaimValue, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(ClaimValue::Many(values))
            }
        }
        deserializer.deserialize_any(Value)
    }
}

/// Claims that no Grant may set: what a verifier takes for who the caller is, what it may do, or how the token is bound.
/// Those registered by RFC 7519, 7800, 8693, 9068, OpenID Connect Core and the token status list, what Kubernetes and
/// SD-JWT put into theirs, and Dayfly's own.
const RESERVED: &[&str] = &[
    // RFC 7519, section 4.1
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    // RFC 9068, section 2.2; RFC 8693, section 4; RFC 9396; RFC 7662
    "client_id",
    "scope",
    "scp",
    "auth_time",
    "acr",
    "amr",
    "groups",
    "roles",
    "entitlements",
    "act",
    "may_act",
    "authorization_details",
    "token_introspection",
    "active",
    "token_type",
    "username",
    // RFC 7800; the token status list; SD-JWT; RFC 8417; RFC 9493
    "cnf",
    "status",
    "_sd",
    "_sd_alg",
    "...",
    "events",
    "toe",
    "txn",
    "sub_id",
    "sub_jwk",
    "vc",
    "vp",
    // OpenID Connect Core, sections 2 and 5.1
    "azp",
    "nonce",
    "at_hash",
    "c_hash",
    "s_hash",
    "sid",
    "org",
    "name",
    "given_name",
    "family_name",
    "middle_name",
    "nickname",
    "preferred_username",
    "profile",
    "picture",
    "website",
    "email",
    "email_verified",
    "gender",
    "birthdate",
    "zoneinfo",
    "locale",
    "phone_number",
    "phone_number_verified",
    "address",
    "updated_at",
    "upn",
    // What takes part in identity elsewhere
    "kubernetes.io",
    "uid",
    "user_id",
    "vot",
    // Ours
    "dayfly",
    "owner",
];

/// Whether no Grant may set this claim. Case does not count: some verifiers are careless about it.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_get_round_a_reserved_name() {
        assert!(["sub", "SUB", "Scope", "cnf", "act", "dayfly", "DayFly"].into_iter().all(is_reserved));
        assert!(!is_reserved("tier") && !is_reserved("https://example.com/sub"));
    }

    #[test]
    fn a_string_and_a_list_of_it_are_told_apart() {
        let json = |value: &ClaimValue| serde_json::to_string(value).unwrap();
        let (one, many) = (ClaimValue::One("a".to_owned()), ClaimValue::Many(vec!["a".to_owned()]));
        assert_eq!((json(&one).as_str(), json(&many).as_str()), ("\"a\"", "[\"a\"]"));
        assert_eq!(one.values(), many.values());
    }
}
