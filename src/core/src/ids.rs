//! Names and ids, parsed at the edge into types that cannot be wrong.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A text is not a name of its kind; says what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {kind}: {rule}")]
pub struct NotAName {
    kind: &'static str,
    rule: &'static str,
    given: String,
}

impl NotAName {
    fn new(kind: &'static str, rule: &'static str, given: &str) -> Self {
        Self { kind, rule, given: given.chars().take(80).collect() }
    }
}

const LABEL: &str =
    "1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit (RFC 1123 label)";
const SUBDOMAIN: &str = "1 to 253 of a-z, 0-9, '-' and '.', each part starting and ending with a letter or digit (RFC 1123 subdomain)";

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|part| !part.is_empty() && part.len() <= 253 && is_part(part))
}

fn is_part(part: &str) -> bool {
    part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !part.starts_with('-')
        && !part.ends_with('-')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $rule:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Box<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NotAName;

            fn from_str(text: &str) -> Result<Self, NotAName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.into())) } else { Err(NotAName::new($kind, $rule, text)) }
            }
        }

        impl TryFrom<String> for $type {
            type Error = NotAName;

            fn try_from(text: String) -> Result<Self, NotAName> {
                text.parse()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A cluster's name in Dayfly's configuration: the first part of every identity.
    ClusterName, "a cluster name", LABEL, is_label
);
name!(
    /// A Kubernetes namespace.
    Namespace, "a namespace", LABEL, is_label
);
name!(
    /// A Kubernetes service account's name.
    ServiceAccountName, "a service account name", SUBDOMAIN, is_subdomain
);
name!(
    /// A Kubernetes pod's name.
    PodName, "a pod name", SUBDOMAIN, is_subdomain
);
name!(
    /// A Kubernetes node's name.
    NodeName, "a node name", SUBDOMAIN, is_subdomain
);
name!(
    /// The name of an `Owner`: the team, application or control objective that answers for a workload.
    OwnerName, "an owner name", LABEL, is_label
);
name!(
    /// The name of a `Target`: a downstream system that credentials are for.
    TargetName, "a target name", LABEL, is_label
);
name!(
    /// The name of a `Grant` within its namespace.
    GrantName, "a grant name", SUBDOMAIN, is_subdomain
);
name!(
    /// One scope value: RFC 6749, section 3.3 (`scope-token`), at most 128 bytes.
    Scope,
    "a scope",
    "1 to 128 printable ASCII characters without space, '\"' and '\\' (RFC 6749, section 3.3)",
    |text| {
        !text.is_empty()
            && text.len() <= 128
            && text.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b'"' && b != b'\\')
    }
);
name!(
    /// The audience of a credential: the `aud` of a token (RFC 7519, section 4.1.3), at most 255 bytes.
    Audience,
    "an audience",
    "1 to 255 printable ASCII characters without space",
    |text| !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| (0x21..=0x7e).contains(&b))
);
name!(
    /// A signing key's id: the `kid` of a JWS header (RFC 7515, section 4.1.4). Ours are JWK thumbprints (RFC 7638).
    KeyId,
    "a key id",
    "1 to 64 of A-Z, a-z, 0-9, '-' and '_'",
    |text| {
        !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    }
);
name!(
    /// The id of the token that a workload presented (`authentication.kubernetes.io/credential-id`, `JTI=...`).
    CredentialId,
    "a credential id",
    "1 to 128 printable ASCII characters without space",
    |text| !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| (0x21..=0x7e).contains(&b))
);

name!(
    /// The digest of a container image (OCI image specification, "Digests"): of SHA-256, as a pod's status tells it.
    ImageDigest,
    "an image digest",
    "sha256: and 64 of 0-9 and a-f, without the image's name",
    crate::provenance::is_image_digest
);
name!(
    /// A SPIFFE trust domain's name (SPIFFE ID, section 2.1).
    TrustDomain,
    "a trust domain",
    "1 to 255 of a-z, 0-9, '.', '-' and '_', without spiffe:// (SPIFFE ID, section 2.1)",
    crate::spiffe::is_trust_domain
);
name!(
    /// A SPIFFE id with a path (SPIFFE ID, section 2), at most 2048 bytes.
    SpiffeId,
    "a SPIFFE id",
    "spiffe://TRUST-DOMAIN/PATH, at most 2048 bytes (SPIFFE ID, section 2)",
    crate::spiffe::is_spiffe_id
);

impl SpiffeId {
    /// Its trust domain.
    pub fn trust_domain(&self) -> TrustDomain {
        let rest = self.0.strip_prefix("spiffe://").unwrap_or_default();
        TrustDomain(rest.split('/').next().unwrap_or_default().into())
    }
}

macro_rules! uuid_type {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Uuid);

        impl $type {
            /// From the 128 bits of a UUID.
            pub const fn from_u128(bits: u128) -> Self {
                Self(Uuid::from_u128(bits))
            }

            /// The 128 bits; their order is the ids' order.
            pub const fn as_u128(self) -> u128 {
                self.0.as_u128()
            }

            /// Big-endian bytes, whose order is the ids' order.
            pub const fn to_bytes(self) -> [u8; 16] {
                *self.0.as_bytes()
            }

            /// From big-endian bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl FromStr for $type {
            type Err = NotAName;

            /// Takes the hyphenated form only, in either case.
            fn from_str(text: &str) -> Result<Self, NotAName> {
                let wrong = || NotAName::new($kind, "a UUID such as 0192f0c1-5d0e-7a39-8b1d-2f6a1c9e4b70", text);
                if text.len() != 36 {
                    return Err(wrong());
                }
                Uuid::try_parse(text).map(Self).map_err(|_| wrong())
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.hyphenated())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self.0.hyphenated())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

uuid_type!(
    /// A lease's id and its credential's `jti`: a UUIDv7 (RFC 9562, section 5.7) from the store's monotonic
    /// [`crate::generator::IdGenerator`]. A rule's cut-off is one too.
    LeaseId, "a lease id"
);
uuid_type!(
    /// A rule's id, drawn by the same generator, right above its cut-off.
    RuleId, "a rule id"
);
uuid_type!(
    /// The uid of a Kubernetes object: names are reused, uids are not.
    Uid, "a uid"
);
uuid_type!(
    /// A store's id, made at its first start.
    InstanceId, "an instance id"
);

impl LeaseId {
    /// The millisecond a UUIDv7 carries.
    pub fn time(self) -> crate::time::Timestamp {
        crate::time::Timestamp::from_millis(u64::try_from(self.as_u128() >> 80).unwrap_or(u64::MAX))
    }

    /// The lowest id of a millisecond, to begin a range of ids with.
    pub fn first_at(time: crate::time::Timestamp) -> Self {
        Self::from_u128(u128::from(time.as_millis() & 0xFFFF_FFFF_FFFF) << 80)
    }
}

/// A grant's full name: grants are namespaced. Shown as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantRef {
    /// The grant's namespace, which is its subjects' namespace too.
    pub namespace: Namespace,
    /// Its name there.
    pub name: GrantName,
}

impl fmt::Display for GrantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for GrantRef {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let (namespace, name) =
            text.split_once('/').ok_or_else(|| NotAName::new("a grant", "namespace/name", text))?;
        Ok(Self { namespace: namespace.parse()?, name: name.parse()? })
    }
}

/// The number of a [`crate::change::Change`] in the store, from 1: the one order of things. Change `n` is leaf `n - 1`
/// of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

impl Position {
    /// Before the first change.
    pub const ZERO: Self = Self(0);

    /// The `n`th of what is in effect and has no place yet, since it could not be made durable: later than all that has.
    pub const fn unwritten(n: u64) -> Self {
        Self(Self::UNWRITTEN.0 | n)
    }

    /// Whether it is no place among what is durable.
    pub const fn is_unwritten(self) -> bool {
        self.0 >= Self::UNWRITTEN.0
    }

    const UNWRITTEN: Self = Self(1 << 63);

    /// The position of this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which life of the store this is: 1 from the first start, and a random step higher with each restore, or acceptance of an
/// older copy, so that two copies of one moment differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u32);

/// The number of a start of the broker on this store, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StartNumber(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_the_edge() {
        assert!("payments".parse::<Namespace>().is_ok());
        for bad in
            ["", "Payments", "-a", "a-", "a_b", "a.b", &"a".repeat(64), "pаyments" /* Cyrillic a */]
        {
            assert!(bad.parse::<Namespace>().is_err(), "{bad:?}");
        }
        assert!("api.v2".parse::<ServiceAccountName>().is_ok());
        for bad in ["", "a..b", ".a", "a.", &"a".repeat(254)] {
            assert!(bad.parse::<ServiceAccountName>().is_err(), "{bad:?}");
        }
        assert!("orders:read".parse::<Scope>().is_ok());
        for bad in ["", "a b", "a\"", "a\\", "ä", &"a".repeat(129)] {
            assert!(bad.parse::<Scope>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_show_and_parse() {
        let id = LeaseId::from_u128(0x0192_f0c1_5d0e_7a39_8b1d_2f6a_1c9e_4b70);
        assert_eq!(id.to_string(), "0192f0c1-5d0e-7a39-8b1d-2f6a1c9e4b70");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(LeaseId::from_bytes(id.to_bytes()), id);
        assert!("{0192f0c1-5d0e-7a39-8b1d-2f6a1c9e4b7}".parse::<LeaseId>().is_err());
        assert_eq!(
            "payments/orders".parse::<GrantRef>().map(|g| g.to_string()),
            Ok("payments/orders".to_owned())
        );
    }
}
