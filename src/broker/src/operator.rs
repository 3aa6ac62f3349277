//! Operators: who they are, and what the cluster that authenticated them lets them do.
//!
//! A right holds for what that cluster holds. Where several clusters are served, only operators of the home cluster act
//! on the others; everyone else's selectors must name their own cluster.
//!
//! Whoever comes by the broker's own socket needs no cluster: it works when none answers, and may do everything.

use std::sync::Arc;

use dayfly_core::ids::{ClusterName, OwnerName};
use dayfly_core::limits;
use dayfly_core::ports::{Action, Cluster};
use dayfly_core::rule::{Actor, Selector};
use dayfly_core::workload::Identity;

use crate::authenticate::{Bearer, Caller};
use crate::{Broker, Error};

/// What rights on owners, and on what they answer for, are called.
pub(crate) const OWNERS: &str = "owners";

/// What an operator may be let do on `owners` in API group `dayfly.dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Revoke,
    Lift,
}

impl Verb {
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Revoke => "revoke",
            Self::Lift => "lift",
        }
    }
}

/// Who calls as an operator.
#[derive(Clone, Copy)]
pub enum By<'a> {
    /// Whoever presents a token.
    Token(Bearer<'a>),
    /// Whoever is at the other end of the broker's own socket: root, or the broker's own user.
    Socket {
        /// The numeric user id, as the kernel tells it.
        uid: u32,
    },
}

impl<'a> From<Bearer<'a>> for By<'a> {
    fn from(bearer: Bearer<'a>) -> Self {
        Self::Token(bearer)
    }
}

/// An operator who is known.
pub(crate) struct Operator<'a> {
    who: Who<'a>,
    /// The only cluster whose things it may touch; none where it may touch every cluster's.
    pub(crate) bounds: Option<&'a ClusterName>,
}

enum Who<'a> {
    /// Its token was reviewed.
    Reviewed { cluster: &'a Cluster, identity: Arc<Identity> },
    /// It came by the socket.
    Socket { uid: u32 },
}

impl Broker {
    /// The operator that calls.
    pub(crate) async fn operator<'a>(&'a self, by: impl Into<By<'a>>) -> Result<Operator<'a>, Error> {
        let bearer = match by.into() {
            By::Token(bearer) => bearer,
            By::Socket { uid } => return Ok(Operator { who: Who::Socket { uid }, bounds: None }),
        };
        let (cluster, identity) = self.authenticate(bearer, Caller::Operator).await?;
        let over_all = self.clusters.len() == 1 || self.home.as_ref() == Some(&cluster.name);
        let bounds = (!over_all).then_some(&cluster.name);
        Ok(Operator { who: Who::Reviewed { cluster, identity }, bounds })
    }

    /// The result, counted for the audit log if the operator was denied, or asked for what it may not see or is not there.
    pub(crate) fn noted<T>(&self, operator: &Operator<'_>, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error @ (Error::NotAllowed { .. } | Error::Denied { .. } | Error::NotFound { .. })) =
            &result
        {
            self.note_denied_actor(&operator.actor(), error);
        }
        result
    }
}

impl Operator<'_> {
    /// The operator, as it is recorded.
    pub(crate) fn actor(&self) -> Actor {
        match &self.who {
            Who::Reviewed { identity, .. } => actor_of(identity),
            Who::Socket { uid } => Actor::socket(*uid),
        }
    }

    /// What makes its idempotency keys its own.
    pub(crate) fn key_scope(&self) -> [String; 3] {
        match &self.who {
            Who::Reviewed { identity, .. } => {
                [identity.cluster.to_string(), identity.username.clone(), identity.uid.clone()]
            }
            // No cluster has this name.
            Who::Socket { uid } => [String::new(), Actor::socket(*uid).username, String::new()],
        }
    }

    /// Whether it came by the socket.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.who, Who::Socket { .. })
    }

    /// Whether it may touch what this cluster holds.
    pub(crate) fn reaches(&self, cluster: &ClusterName) -> bool {
        self.bounds.is_none_or(|own| own == cluster)
    }

    /// Whether it may touch what this selector is about.
    pub(crate) fn reaches_all_of(&self, selector: &Selector) -> bool {
        self.bounds.is_none_or(|own| selector.named().cluster.as_ref() == Some(own))
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
        self.may_on(OWNERS, verb, owner).await
    }

    /// Whether it may do this to what an owner has of a resource; without an owner, to everyone's.
    pub(crate) async fn may_on(
        &self,
        resource: &'static str,
        verb: Verb,
        owner: Option<&OwnerName>,
    ) -> Result<bool, Error> {
        self.is_allowed(&action_on(resource, verb, owner)).await
    }

    /// Why it may not.
    pub(crate) fn refusal_on(&self, resource: &'static str, verb: Verb, owner: Option<&OwnerName>) -> Error {
        let on = match owner {
            Some(owner) => format!("{resource}.dayfly.dev named {owner}"),
            None => format!("all {resource}.dayfly.dev (no resourceNames)"),
        };
        self.refused(action_on(resource, verb, owner), &on)
    }

    /// Whether it may do this.
    pub(crate) async fn is_allowed(&self, action: &Action) -> Result<bool, Error> {
        match &self.who {
            Who::Reviewed { cluster, identity } => Ok(cluster.authorizer.allowed(identity, action).await?),
            Who::Socket { .. } => Ok(true),
        }
    }

    /// Refused unless it may do this to what is the whole installation's: it takes an operator of the home cluster.
    pub(crate) async fn at_home(
        &self,
        verb: &'static str,
        resource: &'static str,
        name: Option<String>,
    ) -> Result<(), Error> {
        let action = Action { verb, resource, name };
        if let Some(here) = self.bounds {
            let message = format!("{resource} are for operators of the home cluster, which {here} is not");
            return Err(Error::NotAllowed { action, message });
        }
        if self.is_allowed(&action).await? {
            return Ok(());
        }
        let on = match &action.name {
            Some(name) => format!("{resource}.dayfly.dev named {name}"),
            None => format!("all {resource}.dayfly.dev (no resourceNames)"),
        };
        Err(self.refused(action, &on))
    }

    /// Why it may not.
    pub(crate) fn refusal(&self, verb: Verb, owner: Option<&OwnerName>) -> Error {
        self.refusal_on(OWNERS, verb, owner)
    }

    /// Why it may not do this to one lease's owners, which are told only to those who may.
    pub(crate) fn refusal_of_lease(&self, verb: Verb) -> Error {
        self.refused(action(verb, None), "each owner of that lease in owners.dayfly.dev,")
    }

    /// Why it may not do this; `on` says which right it takes.
    pub(crate) fn refused(&self, action: Action, on: &str) -> Error {
        let cluster = match &self.who {
            Who::Reviewed { cluster, .. } => cluster.name.to_string(),
            Who::Socket { .. } => String::new(),
        };
        let message = format!("needs verb {} on {on} in cluster {cluster}", action.verb);
        Error::NotAllowed { action, message }
    }
}

fn action(verb: Verb, owner: Option<&OwnerName>) -> Action {
    action_on(OWNERS, verb, owner)
}

fn action_on(resource: &'static str, verb: Verb, owner: Option<&OwnerName>) -> Action {
    Action { verb: verb.name(), resource, name: owner.map(ToString::to_string) }
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
