//! What Dayfly signs with: uses, algorithms, and which key is for what.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterName, TargetName};
use crate::limits;
use crate::spiffe::TrustDomain;

/// What a key is for. Each use has its own keys, and each trust domain is a use of its own: no key is ever in two
/// published sets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyUse {
    /// Access tokens, `typ` `at+jwt` (RFC 9068).
    AccessToken,
    /// JWT-SVIDs of this trust domain, `typ` `JWT` (SPIFFE JWT-SVID, section 2.3).
    Svid(TrustDomain),
    /// Operators' sessions: see [`crate::session`]. Their public keys are published to nobody.
    OperatorSession,
    /// Status lists, `typ` `statuslist+jwt` (draft-ietf-oauth-status-list, section 5.1).
    StatusList,
    /// Checkpoints of the audit log: signed notes, and no JWS of any `typ`.
    Checkpoint,
}

impl KeyUse {
    /// The one `typ` that keys of this use sign, so that a key is never talked into another kind of token. Empty for those
    /// that sign none.
    pub const fn typ(&self) -> &'static str {
        match self {
            Self::AccessToken => "at+jwt",
            Self::Svid(_) => "JWT",
            Self::OperatorSession => crate::session::TYP,
            Self::StatusList => "statuslist+jwt",
            Self::Checkpoint => "",
        }
    }
}

/// A signature algorithm that Dayfly signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    /// ECDSA on P-256 with SHA-256 (RFC 7518, section 3.4).
    #[default]
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519 (RFC 8037, section 3.1).
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518, section 3.3), with a key that was imported for one target.
    #[serde(rename = "RS256")]
    Rs256,
}

impl SigningAlgorithm {
    /// Its name in `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }

    /// Whether Dayfly makes no such keys, and they are imported for one target each.
    pub const fn is_imported(self) -> bool {
        matches!(self, Self::Rs256)
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A target of one cluster's policy: another cluster's target of the same name is another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetRef {
    /// The cluster whose policy has it.
    pub cluster: ClusterName,
    /// Its name there.
    pub target: TargetName,
}

impl fmt::Display for TargetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.target)
    }
}

/// What one key is for, whole. As text it is in the store and in what the sealed key is bound to, so that a key can be
/// taken for no other use, algorithm or target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyPurpose {
    /// What it signs.
    pub key_use: KeyUse,
    /// How.
    pub algorithm: SigningAlgorithm,
    /// The only target it signs for, where it was imported for one.
    pub only: Option<TargetRef>,
}

impl KeyPurpose {
    /// A key that Dayfly makes itself, for every target of this use and algorithm.
    pub const fn of(key_use: KeyUse, algorithm: SigningAlgorithm) -> Self {
        Self { key_use, algorithm, only: None }
    }

    /// An RSA key that is imported for the access tokens of one target.
    pub const fn imported(only: TargetRef) -> Self {
        Self { key_use: KeyUse::AccessToken, algorithm: SigningAlgorithm::Rs256, only: Some(only) }
    }

    /// Whether it signs for this target.
    pub fn serves(&self, target: &TargetRef) -> bool {
        self.only.as_ref().is_none_or(|only| only == target)
    }
}

/// ES256 keys for access tokens are `access-token`; the others name what differs from that: `access-token/EdDSA`,
/// `access-token/RS256/CLUSTER/TARGET`, `svid/TRUST-DOMAIN`, `operator-session`, `status-list`, `checkpoint/EdDSA`. No part can hold a slash.
impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key_use {
            KeyUse::AccessToken => f.write_str("access-token")?,
            KeyUse::Svid(domain) => write!(f, "svid/{domain}")?,
            KeyUse::OperatorSession => f.write_str("operator-session")?,
            KeyUse::StatusList => f.write_str("status-list")?,
            KeyUse::Checkpoint => f.write_str("checkpoint")?,
        }
        if self.algorithm != SigningAlgorithm::Es256 {
            write!(f, "/{}", self.algorithm)?;
        }
        self.only.as_ref().map_or(Ok(()), |only| write!(f, "/{only}"))
    }
}

/// A text is no purpose of a key that this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a purpose that this version knows")]
pub struct UnknownPurpose;

impl FromStr for KeyPurpose {
    type Err = UnknownPurpose;

    fn from_str(text: &str) -> Result<Self, UnknownPurpose> {
        let name = |part: &str| part.parse().map_err(|_| UnknownPurpose);
        match text.split('/').collect::<Vec<_>>().as_slice() {
            ["access-token"] => Ok(Self::of(KeyUse::AccessToken, SigningAlgorithm::Es256)),
            ["access-token", "EdDSA"] => Ok(Self::of(KeyUse::AccessToken, SigningAlgorithm::EdDsa)),
            ["access-token", "RS256", cluster, target] => Ok(Self::imported(TargetRef {
                cluster: name(cluster)?,
                target: target.parse().map_err(|_| UnknownPurpose)?,
            })),
            ["operator-session"] => Ok(Self::of(KeyUse::OperatorSession, SigningAlgorithm::Es256)),
            ["status-list"] => Ok(Self::of(KeyUse::StatusList, SigningAlgorithm::Es256)),
            ["svid", domain] => {
                let domain = domain.parse().map_err(|_| UnknownPurpose)?;
                Ok(Self::of(KeyUse::Svid(domain), SigningAlgorithm::Es256))
            }
            ["checkpoint", "EdDSA"] => Ok(Self::of(KeyUse::Checkpoint, SigningAlgorithm::EdDsa)),
            _ => Err(UnknownPurpose),
        }
    }
}

/// Where a signing key is in its life. It goes on in this order, and never back; it can be revoked from each of the first
/// three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyStage {
    /// Published, and signs nothing yet: verifiers get to know it.
    Next,
    /// Published, and signs. The first key of a purpose begins here.
    Active,
    /// Published, and signs nothing but again what it signed before, or was about to.
    Retiring,
    /// Not published. Nothing that it signed is alive, and its private key is gone.
    Retired,
    /// The same, at once, and a rule is about all that it signed.
    Revoked,
}

/// How long a retiring key stays published: the longest life of what it may have signed last, and an hour for verifiers'
/// leeway, for clocks, and for what was being decided when the next key took over.
pub const RETIRING: Duration = limits::TTL_MAX.saturating_add(Duration::from_secs(3600));

impl KeyStage {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
        }
    }

    /// Whether it is published, and its private key kept.
    pub const fn is_published(self) -> bool {
        matches!(self, Self::Next | Self::Active | Self::Retiring)
    }

    /// Whether a key of this stage may be of that one after one change. Sealed again, it stays where it is.
    pub const fn may_become(self, then: Self) -> bool {
        match self {
            Self::Next => matches!(then, Self::Next | Self::Active | Self::Revoked),
            Self::Active => matches!(then, Self::Active | Self::Retiring | Self::Revoked),
            Self::Retiring => matches!(then, Self::Retiring | Self::Retired | Self::Revoked),
            Self::Retired | Self::Revoked => false,
        }
    }
}

impl fmt::Display for KeyStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_on_and_never_back() {
        use KeyStage::{Active, Next, Retired, Retiring, Revoked};
        let stages = [Next, Active, Retiring, Retired, Revoked];
        let from = |stage: KeyStage| stages.into_iter().filter(move |then| stage.may_become(*then));
        assert_eq!(from(Next).collect::<Vec<_>>(), [Next, Active, Revoked]);
        assert_eq!(from(Active).collect::<Vec<_>>(), [Active, Retiring, Revoked]);
        assert_eq!(from(Retiring).collect::<Vec<_>>(), [Retiring, Retired, Revoked]);
        assert_eq!(from(Retired).chain(from(Revoked)).count(), 0);
    }

    #[test]
    fn purposes_read_back_and_are_all_different() {
        let target = |cluster: &str, target: &str| TargetRef {
            cluster: cluster.parse().unwrap(),
            target: target.parse().unwrap(),
        };
        let purposes = [
            (KeyPurpose::of(KeyUse::AccessToken, SigningAlgorithm::Es256), "access-token"),
            (KeyPurpose::of(KeyUse::AccessToken, SigningAlgorithm::EdDsa), "access-token/EdDSA"),
            (KeyPurpose::imported(target("east", "orders")), "access-token/RS256/east/orders"),
            (KeyPurpose::imported(target("west", "orders")), "access-token/RS256/west/orders"),
            (
                KeyPurpose::of(KeyUse::Svid("prod.example".parse().unwrap()), SigningAlgorithm::Es256),
                "svid/prod.example",
            ),
            (KeyPurpose::of(KeyUse::OperatorSession, SigningAlgorithm::Es256), "operator-session"),
            (KeyPurpose::of(KeyUse::StatusList, SigningAlgorithm::Es256), "status-list"),
            (KeyPurpose::of(KeyUse::Checkpoint, SigningAlgorithm::EdDsa), "checkpoint/EdDSA"),
        ];
        for (purpose, text) in &purposes {
            assert_eq!(purpose.to_string(), *text);
            assert_eq!(text.parse(), Ok(purpose.clone()));
        }
        for unknown in [
            "",
            "access-token/",
            "access-token/ES256",
            "access-token/RS256",
            "svid",
            "svid/a/b",
            "svid/A",
            "checkpoint",
        ] {
            assert_eq!(unknown.parse::<KeyPurpose>(), Err(UnknownPurpose), "{unknown}");
        }
    }

    #[test]
    fn an_imported_key_serves_one_target_of_one_cluster() {
        let at =
            |cluster: &str| TargetRef { cluster: cluster.parse().unwrap(), target: "a".parse().unwrap() };
        let imported = KeyPurpose::imported(at("east"));
        assert!(imported.serves(&at("east")) && !imported.serves(&at("west")));
        assert!(KeyPurpose::of(KeyUse::AccessToken, SigningAlgorithm::EdDsa).serves(&at("west")));
    }
}
