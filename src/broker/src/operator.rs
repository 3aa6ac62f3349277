//! Operators: who they are, and what the cluster that authenticated them lets them do.
//!
//! A right holds for what that cluster holds. Where several clusters are served, only operators of the home cluster act
//! on the others; everyone else's selectors must name their own cluster.

use std::sync::Arc;

use dayfly_core::ids::{ClusterName, OwnerName};
use dayfly_core::limits;
use dayfly_core::ports::{Action, Cluster};
use dayfly_core::rule::Actor;
use dayfly_core::workload::Identity;

use crate::authenticate::{Bearer, Caller};
use crate::{Broker, Error};

/// What an operator may be let do on `owners` in API group `dayfly.dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Revoke,
}

impl Verb {
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Revoke => "revoke",
        }
    }
}

/// An operator whose token was reviewed.
pub(crate) struct Operator<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) identity: Arc<Identity>,
    /// The only cluster whose things it may touch; none where it may touch every cluster's.
    pub(crate) bounds: Option<&'a ClusterName>,
}

impl Broker {
    /// The operator that calls.
    pub(crate) async fn operator(&self, bearer: Bearer<'_>) -> Result<Operator<'_>, Error> {
        let (cluster, identity) = self.authenticate(bearer, Caller::Operator).await?;
        let over_all = self.clusters.len() == 1 || self.home.as_ref() == Some(&cluster.name);
        Ok(Operator { cluster, identity, bounds: (!over_all).then_some(&cluster.name) })
    }

    /// The result, counted for the audit log if the operator was denied.
    pub(crate) fn noted<T>(&self, operator: &Operator<'_>, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error @ (Error::NotAllowed { .. } | Error::Denied { .. })) = &result {
            self.note_denied_actor(&operator.actor(), error.reason());
        }
        result
    }
}

impl Operator<'_> {
    /// The operator, as it is recorded.
    pub(crate) fn actor(&self) -> Actor {
        actor_of(&self.identity)
    }

    /// Whether it may touch what this cluster holds.
    pub(crate) fn reaches(&self, cluster: &ClusterName) -> bool {
        self.bounds.is_none_or(|own| own == cluster)
    }

    /// Whether it may read what these owners answer for, in this cluster: by any one of them, or where there is none by
    /// the right on all.
    pub(crate) async fn may_read(&self, cluster: &ClusterName, owners: &[OwnerName]) -> Result<bool, Error> {
        if !self.reaches(cluster) {
            return Ok(false);
        }
        for owner in owners {
            if self.may(Verb::Get, Some(owner)).await? {
                return Ok(true);
            }
        }
        if owners.is_empty() { self.may(Verb::Get, None).await } else { Ok(false) }
    }

    /// Whether it may do this to an owner's things; without an owner, to everyone's.
    pub(crate) async fn may(&self, verb: Verb, owner: Option<&OwnerName>) -> Result<bool, Error> {
        Ok(self.cluster.authorizer.allowed(&self.identity, &action(verb, owner)).await?)
    }

    /// Why it may not.
    pub(crate) fn refusal(&self, verb: Verb, owner: Option<&OwnerName>) -> Error {
        let action = action(verb, owner);
        let on = match owner {
            Some(owner) => format!("owners.dayfly.dev named {owner}"),
            None => "all owners.dayfly.dev (no resourceNames)".to_owned(),
        };
        let message = format!("needs verb {} on {on} in cluster {}", action.verb, self.cluster.name);
        Error::NotAllowed { action, message }
    }
}

fn action(verb: Verb, owner: Option<&OwnerName>) -> Action {
    Action { verb: verb.name(), resource: "owners", name: owner.map(ToString::to_string) }
}

/// A reviewed identity, as it is recorded: names that are too long are cut.
pub(crate) fn actor_of(identity: &Identity) -> Actor {
    let cut = |text: &str| {
        let end = (0..=limits::ACTOR_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        text.get(..end.unwrap_or_default()).unwrap_or_default().to_owned()
    };
    Actor {
        cluster: Some(identity.cluster.clone()),
        username: cut(&identity.username),
        uid: cut(&identity.uid),
    }
}
