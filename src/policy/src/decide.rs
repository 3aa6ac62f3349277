//! The one evaluation function. Issue, renew, reconcile, admission, `policy test` and explain all ask it.

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::claims::Claims;
use dayfly_core::ids::{
    Audience, ClusterName, GrantName, GrantRef, Namespace, OwnerName, Scope, ServiceAccountName, TargetName,
};
use dayfly_core::lease::Owners;
use dayfly_core::limits;
use dayfly_core::live::LiveCaps;
use dayfly_core::provenance::{Labels, ObjectRef};
use dayfly_core::time::Timestamp;

use crate::ceiling::{Asking, Ceiling};
use crate::owners::{Claimed, Narrowing, TopController, Who};
use crate::set::{Grant, PolicySet, Target};
use crate::spec::{self, UNOWNED};
use crate::trace::{Silent, Trace};

/// May this workload have this?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The workload's cluster: the one this policy applies to.
    pub cluster: ClusterName,
    /// Its namespace.
    pub namespace: Namespace,
    /// That namespace's labels.
    pub namespace_labels: Labels,
    /// Its service account.
    pub service_account: ServiceAccountName,
    /// That service account's labels.
    pub service_account_labels: Labels,
    /// Its pod's labels; empty where its token is bound to none.
    pub pod_labels: Labels,
    /// Its pod's top controller.
    pub controller: TopController<ObjectRef>,
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
    /// When it asks.
    pub now: Timestamp,
    /// The configuration's grace for namespaces without an Owner, where there is one.
    pub unowned: Option<UnownedGrace>,
}

/// Until when workloads in namespaces without an Owner are decided with the reserved owner `unowned`. A namespace that
/// several Owners claim is not covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnownedGrace {
    /// From then on they are denied. No credential that is given by it lives longer.
    pub until: Timestamp,
}

impl Question {
    /// The workload, as far as ownership looks at it.
    pub fn who(&self) -> Who<'_> {
        Who {
            namespace: &self.namespace,
            namespace_labels: &self.namespace_labels,
            service_account: &self.service_account,
            pod_labels: &self.pod_labels,
            controller: self.controller.as_ref(),
        }
    }
}

impl UnownedGrace {
    /// The owner that it gives at this moment.
    pub fn owner(self, now: Timestamp) -> Option<OwnerName> {
        if now < self.until { UNOWNED.parse().ok() } else { None }
    }
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
    /// What else its token says.
    pub claims: Claims,
    /// How long, in whole seconds.
    pub ttl: Duration,
    /// How many such leases may be live at once: whoever counts them holds it.
    pub live: LiveCaps,
}

/// No, and why. Tells a workload of its own request and its own namespace, and nothing of others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The namespace has no Owner.
    #[error("namespace {0} has no Owner: have it added to one")]
    Unowned(Namespace),
    /// Several Owners of equal rank name the namespace, or an invalid one does.
    #[error("several Owners name namespace {0}, or an invalid one does: have it left to one")]
    OwnerAmbiguous(Namespace),
    /// Several delegates of the namespace's Owner match the workload, and name different Owners.
    #[error(
        "several Owners answer for this workload by what namespace {0}'s Owner delegates: have it left to one"
    )]
    NarrowingAmbiguous(Namespace),
    /// The Owner that the workload is delegated to is not there, or invalid.
    #[error(
        "the Owner that this workload is delegated to by namespace {0}'s is not there: have that put right"
    )]
    NarrowedUnowned(Namespace),
    /// Who answers for the workload depends on what controls its pod, which cannot be read now.
    #[error(
        "what controls this pod cannot be read from the API server now, and who answers for it in namespace {0} depends on that: ask again"
    )]
    ControllerUnknown(Namespace),
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
    /// A claim of the Grant is above the target's ceiling.
    #[error("claim {} of Grant {grant} is above Target {target}'s ceiling for this namespace: have it left out, or the ceiling raised", .claims.join(", "))]
    ClaimAboveCeiling {
        /// The Grant.
        grant: GrantRef,
        /// The target.
        target: TargetName,
        /// Those claims.
        claims: Vec<String>,
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
            Self::Unowned(_) | Self::NarrowedUnowned(_) => "UNOWNED",
            Self::OwnerAmbiguous(_) | Self::NarrowingAmbiguous(_) => "OWNER_AMBIGUOUS",
            Self::ControllerUnknown(_) => "CLUSTER_UNAVAILABLE",
            Self::TargetUnknown(_) => "TARGET_UNKNOWN",
            Self::GrantMissing { .. } => "GRANT_MISSING",
            Self::GrantAmbiguous(_) => "GRANT_AMBIGUOUS",
            Self::GrantUnknown { .. } => "GRANT_UNKNOWN",
            Self::ScopeNotGranted { .. } => "SCOPE_NOT_GRANTED",
            Self::ScopeAboveCeiling { .. } => "SCOPE_ABOVE_CEILING",
            Self::ClaimAboveCeiling { .. } => "CLAIM_ABOVE_CEILING",
            Self::AudienceNotGranted { .. } => "AUDIENCE_NOT_GRANTED",
            Self::AudienceAmbiguous { .. } => "AUDIENCE_AMBIGUOUS",
            Self::TokenUnbound => "TOKEN_UNBOUND",
            Self::TtlTooShort { .. } => "TTL_TOO_SHORT",
        }
    }
}

/// What a Grant of mode Audit would have decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// The Grant.
    pub grant: GrantRef,
    /// What it would have been.
    pub would: Result<Decision, Denial>,
}

impl PolicySet {
    /// Decides. Denied unless granted.
    ///
    /// Exactly one Grant decides. Scope is asked ∩ grant ∩ ceiling, and never silently reduced: if any of it does not
    /// survive, the answer is no; so it is if a claim of the Grant does not. Life is the least of asked (else the
    /// Grant's default), grant, target, ceiling, the key's end, the grace's end and [`limits::TTL_MAX`].
    ///
    /// # Errors
    /// The first reason to say no.
    pub fn decide(&self, question: &Question) -> Result<Decision, Denial> {
        self.evaluate(question, &mut Silent)
    }

    /// What each Grant of mode Audit that the question is about would have decided, were it the only one. They are
    /// looked at last and apart, and grant nothing.
    pub fn audit(&self, question: &Question) -> Vec<Audited> {
        let audits = self.audits_in(&question.namespace).filter(|grant| {
            grant.spec.target == question.target
                && question.grant.as_ref().is_none_or(|named| *named == grant.name.name)
                && grant.is_for(&question.service_account, &question.service_account_labels)
        });
        let would = |grant: &Arc<Grant>| {
            let owners = self.own(&question.who(), question.unowned, question.now, &mut Silent)?;
            self.within(question, owners, grant, &mut Silent)
        };
        audits.map(|grant| Audited { grant: grant.name.clone(), would: would(grant) }).collect()
    }

    /// The one walk through the checks, in their order. What is traced is worked out only where it is kept.
    pub(crate) fn evaluate<T: Trace>(&self, question: &Question, trace: &mut T) -> Result<Decision, Denial> {
        let owners = self.own(&question.who(), question.unowned, question.now, trace)?;
        // The Grant first: who has none for it is not told whether there is such a Target.
        let grant = self.deciding_grant(question, trace)?;
        self.within(question, owners, grant, trace)
    }

    /// Who answers for a workload: the one place that says so.
    pub(crate) fn own<T: Trace>(
        &self,
        who: &Who<'_>,
        unowned: Option<UnownedGrace>,
        now: Timestamp,
        trace: &mut T,
    ) -> Result<Owners, Denial> {
        let namespace = who.namespace;
        let (owner, rank) = match self.claims.of(namespace, who.namespace_labels) {
            Claimed::By(owner, rank) => (owner, rank),
            Claimed::Contested => return Err(Denial::OwnerAmbiguous(namespace.clone())),
            Claimed::Nobody => {
                let grace = unowned.and_then(|grace| Some((grace.owner(now)?, grace.until)));
                let (unowned, until) = grace.ok_or_else(|| Denial::Unowned(namespace.clone()))?;
                trace.passed("owner", || {
                    format!("namespace {namespace} has no Owner: {UNOWNED} answers until {until}")
                });
                return Ok(Owners::of(unowned));
            }
        };
        let name = &owner.name;
        trace.passed("owner", || format!("namespace {namespace} belongs to Owner {name}, {}", rank.text()));
        trace.object("Owner", name, &owner.generation);
        match owner.narrowing(who) {
            Narrowing::None => {
                if !owner.spec.delegates.is_empty() {
                    trace.passed("narrowing", || "no delegate of that Owner matches".to_owned());
                }
                Ok(Owners::of(name.clone()))
            }
            Narrowing::To(narrower, by) => {
                let Some(other) = self.owner(narrower) else {
                    return Err(Denial::NarrowedUnowned(namespace.clone()));
                };
                trace.passed("narrowing", || format!("that Owner delegates to Owner {narrower} by {by}"));
                trace.object("Owner", narrower, &other.generation);
                Ok(Owners {
                    namespace: name.clone(),
                    narrowed: Some(narrower.clone()),
                    narrowed_by: Some(by),
                })
            }
            Narrowing::Ambiguous(_) => Err(Denial::NarrowingAmbiguous(namespace.clone())),
            Narrowing::Unknown => Err(Denial::ControllerUnknown(namespace.clone())),
        }
    }

    /// What this Grant gives within the target and its ceiling.
    fn within<T: Trace>(
        &self,
        question: &Question,
        owners: Owners,
        grant: &Grant,
        trace: &mut T,
    ) -> Result<Decision, Denial> {
        trace.object("Grant", &grant.name, &grant.generation);
        let target = self.target(&question.target);
        let target = target.ok_or_else(|| Denial::TargetUnknown(question.target.clone()))?;
        trace.object("Target", &target.name, &target.generation);
        let ceiling = Ceiling::of(&target.spec, &question.namespace, Some(&owners));
        trace.passed("target", || {
            let entries: Vec<_> = ceiling.indexes().map(|index| format!("ceiling[{index}]")).collect();
            let entries =
                if entries.is_empty() { "no entry of its ceiling".to_owned() } else { entries.join(", ") };
            format!("Target {} is there; for this namespace and owner: {entries}", target.name)
        });
        let unbound = target.spec.unbound_tokens && grant.spec.unbound_tokens && ceiling.accepts_unbound();
        if !question.bound && !unbound {
            return Err(Denial::TokenUnbound);
        }
        trace.passed("bound", || {
            let how =
                if question.bound { "is bound to a pod" } else { "is bound to no pod, which is accepted" };
            format!("the token {how}")
        });
        let audience = audience(question, target, grant, &ceiling)?;
        trace.passed("audience", || format!("{audience} is allowed by Target and Grant"));
        let asking =
            Asking { audience, service_account: Some(&question.service_account), bound: question.bound };
        let scope = scope(question, grant, asking, &ceiling)?;
        trace.passed("scope", || {
            let asked = if question.scope.is_empty() { "all of the Grant's" } else { "asked" };
            format!("{} ({asked}) is in the Grant and under the ceiling", join(&scope))
        });
        let claims = claims(target, grant, asking, &ceiling)?;
        if !claims.is_empty() {
            let names = || claims.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            trace.passed("claims", || format!("{} under the ceiling", names()));
        }
        let ttl = ttl(question, &owners, target, grant, &ceiling, trace)?;
        let live = ceiling.live_caps();
        if live != LiveCaps::default() {
            trace.passed("live", || format!("at most, live at once: {live}"));
        }
        Ok(Decision {
            owners,
            grant: grant.name.clone(),
            target: target.name.clone(),
            audience: audience.clone(),
            scope,
            claims,
            ttl,
            live,
        })
    }

    fn deciding_grant<T: Trace>(&self, question: &Question, trace: &mut T) -> Result<&Arc<Grant>, Denial> {
        if let Some(name) = &question.grant {
            return self.named_grant(question, name, trace);
        }
        if T::KEEPS {
            for grant in self.grants_in(&question.namespace) {
                if let Some(why) = mismatch(question, grant) {
                    trace.passed_over("grant", || format!("{} {why}", grant.name));
                }
            }
        }
        let matches = |grant: &&Arc<Grant>| mismatch(question, grant).is_none();
        let mut matching = self.grants_in(&question.namespace).filter(matches);
        let Some(one) = matching.next() else {
            return Err(Denial::GrantMissing {
                namespace: question.namespace.clone(),
                service_account: question.service_account.clone(),
                target: question.target.clone(),
            });
        };
        let others: Vec<_> = matching.map(|grant| grant.name.name.clone()).collect();
        if !others.is_empty() {
            let names = std::iter::once(one.name.name.clone()).chain(others).collect();
            return Err(Denial::GrantAmbiguous(names));
        }
        trace.passed("grant", || format!("{} is the only one that matches", one.name));
        Ok(one)
    }

    fn named_grant<T: Trace>(
        &self,
        question: &Question,
        name: &GrantName,
        trace: &mut T,
    ) -> Result<&Arc<Grant>, Denial> {
        let name = GrantRef { namespace: question.namespace.clone(), name: name.clone() };
        let unknown = |why| Denial::GrantUnknown { grant: name.clone(), why };
        let grant = self.grant(&name).ok_or_else(|| unknown("does not exist, or is invalid".to_owned()))?;
        if grant.spec.mode == spec::Mode::Audit {
            return Err(unknown("is of mode Audit: it grants nothing".to_owned()));
        }
        if let Some(why) = mismatch(question, grant) {
            return Err(unknown(why.to_string()));
        }
        trace.passed("grant", || format!("{name} is named, and matches"));
        Ok(grant)
    }
}

/// Why a Grant is not for who asks, or not for what is asked for.
#[derive(Debug, thiserror::Error)]
enum Mismatch<'a> {
    #[error("is for Target {0}")]
    Target(&'a TargetName),
    #[error("does not list service account {0}")]
    ServiceAccount(&'a ServiceAccountName),
}

fn mismatch<'a>(question: &'a Question, grant: &'a Grant) -> Option<Mismatch<'a>> {
    if grant.spec.target != question.target {
        return Some(Mismatch::Target(&grant.spec.target));
    }
    let is_for = grant.is_for(&question.service_account, &question.service_account_labels);
    (!is_for).then_some(Mismatch::ServiceAccount(&question.service_account))
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
    let below_ceiling = ceiling.is_empty() || ceiling.accepts_audience(chosen);
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
    asking: Asking<'_>,
    ceiling: &Ceiling<'_>,
) -> Result<Vec<Scope>, Denial> {
    let wanted = if question.scope.is_empty() { &grant.spec.scope } else { &question.scope };
    let not_granted = without(wanted, |scope| grant.spec.scope.contains(scope));
    if !not_granted.is_empty() {
        return Err(Denial::ScopeNotGranted { grant: grant.name.clone(), scope: not_granted });
    }
    let above = without(wanted, |scope| ceiling.allows(asking, scope));
    if !above.is_empty() {
        return Err(Denial::ScopeAboveCeiling { target: question.target.clone(), scope: above });
    }
    Ok(wanted.clone())
}

fn claims(
    target: &Target,
    grant: &Grant,
    asking: Asking<'_>,
    ceiling: &Ceiling<'_>,
) -> Result<Claims, Denial> {
    let above = grant.spec.claims.iter().filter(|(name, value)| {
        value.values().iter().any(|value| !ceiling.allows_claim(asking, name, value))
    });
    let above: Vec<_> = above.map(|(name, _)| name.clone()).collect();
    if above.is_empty() {
        return Ok(grant.spec.claims.clone());
    }
    Err(Denial::ClaimAboveCeiling { grant: grant.name.clone(), target: target.name.clone(), claims: above })
}

fn ttl<T: Trace>(
    question: &Question,
    owners: &Owners,
    target: &Target,
    grant: &Grant,
    ceiling: &Ceiling<'_>,
    trace: &mut T,
) -> Result<Duration, Denial> {
    if let Some(asked) = question.ttl.filter(|asked| *asked < limits::TTL_MIN) {
        return Err(Denial::TtlTooShort { ttl: asked, asked: true });
    }
    let asked = question.ttl.unwrap_or(grant.spec.default_ttl.duration());
    let grace = question.unowned.filter(|_| owners.namespace.as_str() == UNOWNED);
    let bounds = [
        (if question.ttl.is_some() { "asked" } else { "the Grant's default" }, Some(asked)),
        ("Grant", Some(grant.spec.max_ttl.duration())),
        ("Target", Some(target.spec.max_ttl.duration())),
        ("ceiling", ceiling.max_ttl()),
        ("the signing key's end", question.key_ends_in),
        ("the end of the grace for unowned namespaces", grace.map(|grace| grace.until.since(question.now))),
        ("any credential", Some(limits::TTL_MAX)),
    ];
    let least = bounds.iter().filter_map(|(_, bound)| *bound).min().unwrap_or_default();
    let ttl = Duration::from_secs(least.as_secs());
    if ttl < limits::TTL_MIN {
        return Err(Denial::TtlTooShort { ttl, asked: false });
    }
    trace.passed("ttl", || {
        let bounds =
            bounds.iter().filter_map(|(name, bound)| Some(format!("{name} {} s", bound.as_ref()?.as_secs())));
        format!("{} s, the least of {}", ttl.as_secs(), bounds.collect::<Vec<_>>().join(", "))
    });
    Ok(ttl)
}

fn without(scopes: &[Scope], survives: impl Fn(&Scope) -> bool) -> Vec<Scope> {
    scopes.iter().filter(|scope| !survives(scope)).cloned().collect()
}

pub(crate) fn join(scopes: &[Scope]) -> String {
    scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(", ")
}
