//! The one evaluation function. Issue, renew, reconcile, admission, `policy test` and explain all ask it.

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ids::{
    Audience, ClusterName, GrantName, GrantRef, Namespace, Scope, ServiceAccountName, TargetName,
};
use dayfly_core::lease::Owners;
use dayfly_core::limits;

use crate::ceiling::Ceiling;
use crate::set::{Grant, Ownership, PolicySet, Target};
use crate::spec;

/// May this workload have this?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The workload's cluster: the one this policy applies to.
    pub cluster: ClusterName,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its service account.
    pub service_account: ServiceAccountName,
    /// Whether its token is bound to a pod.
    pub bound: bool,
    /// What it asks a credential for.
    pub target: TargetName,
    /// The Grant it names, of its own namespace.
    pub grant: Option<GrantName>,
    /// The scopes it asks for; none asks for all of the Grant's.
    pub scope: Vec<Scope>,
    /// The audience it asks for.
    pub audience: Option<Audience>,
    /// The life it asks for.
    pub ttl: Option<Duration>,
    /// How long the signing key still signs, where that ends.
    pub key_ends_in: Option<Duration>,
}

/// Yes, and this is what it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Who answers for it.
    pub owners: Owners,
    /// The one Grant that decided.
    pub grant: GrantRef,
    /// The target.
    pub target: TargetName,
    /// The one audience.
    pub audience: Audience,
    /// What it may do there, in the order asked, or granted.
    pub scope: Vec<Scope>,
    /// How long, in whole seconds.
    pub ttl: Duration,
}

/// No, and why. Tells a workload of its own request and its own namespace, and nothing of others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The namespace has no Owner.
    #[error("namespace {0} has no Owner: have it added to one")]
    Unowned(Namespace),
    /// Several Owners of equal rank name the namespace.
    #[error("several Owners name namespace {0}: have it left to one")]
    OwnerAmbiguous(Namespace),
    /// There is no valid Target of this name.
    #[error("there is no valid Target {0}")]
    TargetUnknown(TargetName),
    /// No Grant of the namespace gives this service account this target.
    #[error(
        "no valid Grant in namespace {namespace} gives service account {service_account} target {target}: add one"
    )]
    GrantMissing {
        /// The workload's namespace.
        namespace: Namespace,
        /// Its service account.
        service_account: ServiceAccountName,
        /// What it asked for.
        target: TargetName,
    },
    /// Several Grants match, and the request names none.
    #[error("several Grants match, name one of them in the request: {}", spec::names(&.0.iter().collect::<Vec<_>>()))]
    GrantAmbiguous(Vec<GrantName>),
    /// The Grant that the request names is not there, is invalid, or is not for this caller or target.
    #[error("Grant {grant} {why}")]
    GrantUnknown {
        /// The Grant, of the workload's own namespace.
        grant: GrantRef,
        /// What is wrong with naming it.
        why: String,
    },
    /// Scopes asked for are not in the Grant.
    #[error("Grant {grant} does not have scope {}", join(.scope))]
    ScopeNotGranted {
        /// The Grant.
        grant: GrantRef,
        /// Those scopes.
        scope: Vec<Scope>,
    },
    /// Scopes of the Grant are above the target's ceiling.
    #[error("scope {} is above Target {target}'s ceiling for this namespace: ask for less, or have the ceiling raised", join(.scope))]
    ScopeAboveCeiling {
        /// The target.
        target: TargetName,
        /// Those scopes.
        scope: Vec<Scope>,
    },
    /// The audience is not one that Grant and Target allow.
    #[error("audience {audience} is not one that Grant {grant} and Target {target} allow")]
    AudienceNotGranted {
        /// The audience that was asked for, or that the Grant names.
        audience: Audience,
        /// The Grant.
        grant: GrantRef,
        /// The target.
        target: TargetName,
    },
    /// The target has several audiences, and neither Grant nor request names one.
    #[error("Target {target} has several audiences: name one in the request, or in Grant {grant}")]
    AudienceAmbiguous {
        /// The Grant.
        grant: GrantRef,
        /// The target.
        target: TargetName,
    },
    /// The token is bound to no pod, and target and grant do not both accept that.
    #[error("the token is bound to no pod: use a projected serviceAccountToken volume")]
    TokenUnbound,
    /// What was asked for, or what may be given, lives shorter than the shortest life.
    #[error("a life of {} s is too short: 30 s is the least{}", .ttl.as_secs(), if *.asked { "" } else { ", and no more can be given now" })]
    TtlTooShort {
        /// How long it would live.
        ttl: Duration,
        /// Whether that is what was asked for.
        asked: bool,
    },
}

impl Denial {
    /// The stable reason, as the API tells it.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unowned(_) => "UNOWNED",
            Self::OwnerAmbiguous(_) => "OWNER_AMBIGUOUS",
            Self::TargetUnknown(_) => "TARGET_UNKNOWN",
            Self::GrantMissing { .. } => "GRANT_MISSING",
            Self::GrantAmbiguous(_) => "GRANT_AMBIGUOUS",
            Self::GrantUnknown { .. } => "GRANT_UNKNOWN",
            Self::ScopeNotGranted { .. } => "SCOPE_NOT_GRANTED",
            Self::ScopeAboveCeiling { .. } => "SCOPE_ABOVE_CEILING",
            Self::AudienceNotGranted { .. } => "AUDIENCE_NOT_GRANTED",
            Self::AudienceAmbiguous { .. } => "AUDIENCE_AMBIGUOUS",
            Self::TokenUnbound => "TOKEN_UNBOUND",
            Self::TtlTooShort { .. } => "TTL_TOO_SHORT",
        }
    }
}

impl PolicySet {
    /// Decides. Denied unless granted.
    ///
    /// Exactly one Grant decides. Scope is asked ∩ grant ∩ ceiling, and never silently reduced: if any of it does not
    /// survive, the answer is no. Life is the least of asked (else the Grant's default), grant, target, ceiling, the
    /// key's end and [`limits::TTL_MAX`].
    ///
    /// # Errors
    /// The first reason to say no.
    pub fn decide(&self, question: &Question) -> Result<Decision, Denial> {
        let owners = match self.owner_of(&question.namespace) {
            Ownership::Owned(owners) => owners,
            Ownership::Unowned => return Err(Denial::Unowned(question.namespace.clone())),
            Ownership::Ambiguous => return Err(Denial::OwnerAmbiguous(question.namespace.clone())),
        };
        // The Grant first: who has none for it is not told whether there is such a Target.
        let grant = self.deciding_grant(question)?;
        let target = self.target(&question.target);
        let target = target.ok_or_else(|| Denial::TargetUnknown(question.target.clone()))?;
        let unbound_accepted = target.spec.unbound_tokens && grant.spec.unbound_tokens;
        if !question.bound && !unbound_accepted {
            return Err(Denial::TokenUnbound);
        }
        let ceiling = Ceiling::of(&target.spec, &question.namespace, Some(owners));
        let audience = audience(question, target, grant, &ceiling)?;
        let scope = scope(question, grant, audience, &ceiling)?;
        let ttl = ttl(question, target, grant, &ceiling)?;
        Ok(Decision {
            owners: owners.clone(),
            grant: grant.name.clone(),
            target: target.name.clone(),
            audience: audience.clone(),
            scope,
            ttl,
        })
    }

    fn deciding_grant(&self, question: &Question) -> Result<&Arc<Grant>, Denial> {
        if let Some(name) = &question.grant {
            return self.named_grant(question, name);
        }
        let matches = |grant: &&Arc<Grant>| {
            grant.spec.target == question.target
                && grant.spec.service_accounts.contains(&question.service_account)
        };
        let matching: Vec<_> = self.grants_in(&question.namespace).filter(matches).collect();
        match matching.as_slice() {
            [] => Err(Denial::GrantMissing {
                namespace: question.namespace.clone(),
                service_account: question.service_account.clone(),
                target: question.target.clone(),
            }),
            [one] => Ok(one),
            several => {
                Err(Denial::GrantAmbiguous(several.iter().map(|grant| grant.name.name.clone()).collect()))
            }
        }
    }

    fn named_grant(&self, question: &Question, name: &GrantName) -> Result<&Arc<Grant>, Denial> {
        let name = GrantRef { namespace: question.namespace.clone(), name: name.clone() };
        let unknown = |why| Denial::GrantUnknown { grant: name.clone(), why };
        let grant = self.grant(&name).ok_or_else(|| unknown("does not exist, or is invalid".to_owned()))?;
        if grant.spec.target != question.target {
            return Err(unknown(format!("is for Target {}", grant.spec.target)));
        }
        if !grant.spec.service_accounts.contains(&question.service_account) {
            return Err(unknown(format!("does not list service account {}", question.service_account)));
        }
        Ok(grant)
    }
}

fn audience<'a>(
    question: &'a Question,
    target: &'a Target,
    grant: &'a Grant,
    ceiling: &Ceiling<'_>,
) -> Result<&'a Audience, Denial> {
    let of_target = target.spec.audiences();
    let chosen = match (&question.audience, &grant.spec.audience, of_target) {
        (Some(asked), _, _) => asked,
        (None, Some(granted), _) => granted,
        (None, None, [only]) => only,
        (None, None, _) => {
            return Err(Denial::AudienceAmbiguous { grant: grant.name.clone(), target: target.name.clone() });
        }
    };
    let granted = grant.spec.audience.as_ref().is_none_or(|granted| granted == chosen);
    // Without a matching entry nothing is allowed at all; then the scopes are what is told.
    let below_ceiling = ceiling.is_empty() || ceiling.accepts(chosen);
    if granted && of_target.contains(chosen) && below_ceiling {
        Ok(chosen)
    } else {
        Err(Denial::AudienceNotGranted {
            audience: chosen.clone(),
            grant: grant.name.clone(),
            target: target.name.clone(),
        })
    }
}

fn scope(
    question: &Question,
    grant: &Grant,
    audience: &Audience,
    ceiling: &Ceiling<'_>,
) -> Result<Vec<Scope>, Denial> {
    let wanted = if question.scope.is_empty() { &grant.spec.scope } else { &question.scope };
    let not_granted = without(wanted, |scope| grant.spec.scope.contains(scope));
    if !not_granted.is_empty() {
        return Err(Denial::ScopeNotGranted { grant: grant.name.clone(), scope: not_granted });
    }
    let above = without(wanted, |scope| ceiling.allows(audience, scope));
    if !above.is_empty() {
        return Err(Denial::ScopeAboveCeiling { target: question.target.clone(), scope: above });
    }
    Ok(wanted.clone())
}

fn ttl(
    question: &Question,
    target: &Target,
    grant: &Grant,
    ceiling: &Ceiling<'_>,
) -> Result<Duration, Denial> {
    if let Some(asked) = question.ttl.filter(|asked| *asked < limits::TTL_MIN) {
        return Err(Denial::TtlTooShort { ttl: asked, asked: true });
    }
    let bounds = [
        Some(question.ttl.unwrap_or(grant.spec.default_ttl.duration())),
        Some(grant.spec.max_ttl.duration()),
        Some(target.spec.max_ttl.duration()),
        ceiling.max_ttl(),
        question.key_ends_in,
        Some(limits::TTL_MAX),
    ];
    let least = bounds.into_iter().flatten().min().unwrap_or_default();
    let ttl = Duration::from_secs(least.as_secs());
    if ttl < limits::TTL_MIN { Err(Denial::TtlTooShort { ttl, asked: false }) } else { Ok(ttl) }
}

fn without(scopes: &[Scope], survives: impl Fn(&Scope) -> bool) -> Vec<Scope> {
    scopes.iter().filter(|scope| !survives(scope)).cloned().collect()
}

fn join(scopes: &[Scope]) -> String {
    scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(", ")
}
