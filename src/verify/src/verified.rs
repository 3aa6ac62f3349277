//! A credential that is good.

use std::fmt;
use std::sync::Arc;

use dayfly_core::ids::{Audience, LeaseId, OwnerName, SpiffeId};
use dayfly_core::lease::Confirmation;
use dayfly_core::time::Timestamp;
use serde_json::{Map, Value};

use crate::origin::{Facts, Origin};
use crate::refused::Refused;

/// What a good credential says. Cloning it is cheap.
#[derive(Clone, PartialEq)]
pub struct Verified(pub(crate) Arc<Said>);

#[derive(PartialEq)]
pub(crate) struct Said {
    pub(crate) subject: String,
    pub(crate) spiffe_id: Option<SpiffeId>,
    pub(crate) audience: Audience,
    pub(crate) scope: Vec<String>,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) confirmation: Option<Confirmation>,
    pub(crate) origin: Origin,
    pub(crate) facts: Facts,
    pub(crate) claims: Map<String, Value>,
}

impl Verified {
    /// Its lease's id: the token's `jti`.
    pub fn lease(&self) -> LeaseId {
        self.0.facts.id
    }

    /// Its `sub`: the workload as `CLUSTER:NAMESPACE:SERVICE-ACCOUNT`, or its SPIFFE id.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The SPIFFE id that an SVID's `sub` is.
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.0.spiffe_id.as_ref()
    }

    /// The team that answers for the workload: the narrowest owner.
    pub fn owner(&self) -> &OwnerName {
        &self.0.origin.owner
    }

    /// Where it comes from: cluster, namespace, service account, pod, grant and so on.
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// The audience it is for, one of the verifier's.
    pub fn audience(&self) -> &Audience {
        &self.0.audience
    }

    /// Its scopes.
    pub fn scope(&self) -> impl Iterator<Item = &str> {
        self.0.scope.iter().map(String::as_str)
    }

    /// Whether it has this scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scope().any(|has| has == scope)
    }

    /// That it has this scope, for what one route asks for beyond the others.
    ///
    /// # Errors
    /// [`Refused::Scope`].
    pub fn require_scope(&self, scope: &str) -> Result<(), Refused> {
        if self.has_scope(scope) { Ok(()) } else { Err(Refused::Scope) }
    }

    /// When it was issued, UTC.
    pub fn issued_at(&self) -> Timestamp {
        self.0.issued_at
    }

    /// When it ends at the latest, UTC.
    pub fn expires_at(&self) -> Timestamp {
        self.0.expires_at
    }

    /// What its sender proved to hold, where it is bound.
    pub fn confirmation(&self) -> Option<Confirmation> {
        self.0.confirmation
    }

    /// A claim of this name, such as one that its Grant puts in.
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.0.claims.get(name)
    }

    /// All claims as they came.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.0.claims
    }
}

/// What it takes to find the credential again, and no claim of a Grant's: those may be personal.
impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("lease", &self.0.facts.id)
            .field("subject", &self.0.subject)
            .field("owner", &self.0.origin.owner)
            .field("scope", &self.0.scope)
            .finish_non_exhaustive()
    }
}
