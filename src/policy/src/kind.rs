//! What a Target's credentials are: `spec.<kind>`, exactly one of them.

use dayfly_core::ids::{Audience, TrustDomain};
use dayfly_core::ports::{KeyUse, SigningAlgorithm};
use serde::{Deserialize, Serialize};

use crate::load::Reserved;
use crate::spec::{Faults, LIST, Step, TargetSpec};

/// Settings of kind `jwt`: RFC 9068 access tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtSpec {
    /// The audiences its tokens may have, at least one; each token has exactly one.
    pub audiences: Vec<Audience>,
    /// What its tokens are signed by: `ES256` (the default), `EdDSA`, or `RS256`, with a key that `dayfly keys import`
    /// sealed for this target.
    #[serde(default, skip_serializing_if = "is_default")]
    pub signing_algorithm: SigningAlgorithm,
    /// Whether each of its tokens has a bit in a Token Status List, for verifiers that hold no stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub status_list: bool,
}

/// Settings of kind `svid`: SPIFFE JWT-SVIDs, signed by ES256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SvidSpec {
    /// The trust domain of its SVIDs, one that the broker's configuration gives to this cluster (`[[trust_domain]]`).
    pub trust_domain: TrustDomain,
    /// The audiences its SVIDs may have, at least one; each has exactly one.
    pub audiences: Vec<Audience>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the type of serde's skip_serializing_if")]
fn is_default(algorithm: &SigningAlgorithm) -> bool {
    *algorithm == SigningAlgorithm::default()
}

/// A Target's kind, with its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Access tokens.
    Jwt(&'a JwtSpec),
    /// JWT-SVIDs.
    Svid(&'a SvidSpec),
}

impl<'a> Kind<'a> {
    /// The audiences its credentials may have.
    pub fn audiences(self) -> &'a [Audience] {
        match self {
            Self::Jwt(jwt) => &jwt.audiences,
            Self::Svid(svid) => &svid.audiences,
        }
    }

    /// Which keys sign its credentials, and how.
    pub fn signed_by(self) -> (KeyUse, SigningAlgorithm) {
        match self {
            Self::Jwt(jwt) => (KeyUse::AccessToken, jwt.signing_algorithm),
            Self::Svid(svid) => (KeyUse::Svid(svid.trust_domain.clone()), SigningAlgorithm::Es256),
        }
    }

    /// Whether its credentials have bits in status lists.
    pub fn status_list(self) -> bool {
        match self {
            Self::Jwt(jwt) => jwt.status_list,
            Self::Svid(_) => false,
        }
    }

    /// Its field in `spec`.
    const fn field(self) -> &'static str {
        match self {
            Self::Jwt(_) => "jwt",
            Self::Svid(_) => "svid",
        }
    }
}

impl TargetSpec {
    /// Its kind; none where it names none or several, which no valid Target does.
    pub fn kind(&self) -> Option<Kind<'_>> {
        match (&self.jwt, &self.svid) {
            (Some(jwt), None) => Some(Kind::Jwt(jwt)),
            (None, Some(svid)) => Some(Kind::Svid(svid)),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }

    /// The audiences its credentials may have.
    pub fn audiences(&self) -> &[Audience] {
        self.kind().map(Kind::audiences).unwrap_or_default()
    }

    pub(crate) fn check_kind(&self, reserved: &Reserved, faults: &mut Faults) {
        let Some(kind) = self.kind() else {
            faults.add(&[], "needs exactly one kind: jwt or svid");
            return;
        };
        let audiences = [Step::Key(kind.field()), Step::Key("audiences")];
        faults.list(&audiences, kind.audiences(), 1, LIST);
        let taken = kind.audiences().iter().enumerate().filter(|(_, a)| reserved.audiences.contains(*a));
        for (index, _) in taken {
            let message =
                "is an audience of Dayfly itself or of a cluster's API server: name the target's own";
            faults.add(&[audiences[0], audiences[1], Step::Index(index)], message);
        }
        if let (Kind::Svid(svid), Some(known)) = (kind, &reserved.trust_domains)
            && !known.contains(&svid.trust_domain)
        {
            let message = "is no trust domain of this cluster: add it to [[trust_domain]] in dayfly.toml";
            faults.add(&[Step::Key("svid"), Step::Key("trustDomain")], message);
        }
    }
}
