//! Explain: why a workload is answered as it is, for whoever may read its owner; and its own reason, for itself.
//!
//! It asks what Issue asks, by the same walk, and issues nothing. Whoever may not read a thing is told what they would be
//! told if it were not there.

use std::collections::BTreeMap;

use dayfly_core::audit::Draft;
use dayfly_core::ids::{
    Audience, ClusterName, GrantName, LeaseId, Namespace, OwnerName, Position, Scope, TargetName,
};
use dayfly_core::lease::{Grounds, Lease, PolicyObject};
use dayfly_core::live::LiveCaps;
use dayfly_core::ports::Cluster;
use dayfly_core::secret::Secret;
use dayfly_core::time::Timestamp;
use dayfly_core::workload::Workload;
use dayfly_policy::{Answer, Decision, Ownership, PolicySet, Told, Verdict};

use crate::attest::{Attested, Purpose, workload_of};
use crate::authenticate::{Bearer, Caller};
use crate::credential::Credential;
use crate::denials::{change_of, check_of, count_of};
use crate::described::{Described, NOBODY, Seen, Step, check_described, described, seen};
use crate::issue::{Considered, check_scope, held, lease, told};
use crate::operator::{Operator, Verb};
use crate::reads::{Read, in_words};
use crate::{Broker, DenialCount, DenialId, Error, IssueRequest};

/// Events of the audit log that are looked through for what is counted of a denial, newest first.
const EVENTS: u64 = 20_000;
const EVENTS_AT_ONCE: u64 = 1000;
/// Counts told of one denial's minute.
const COUNTS: usize = 100;

/// What to explain.
pub enum About {
    /// What the workload that has this token would be answered. The token is read, never kept. Its cluster is needed only
    /// where several have its issuer.
    Token(Secret, Option<ClusterName>, IssueRequest),
    /// What a workload would be answered that is described.
    Described(Described, IssueRequest),
    /// Why a lease was given.
    Lease(LeaseId),
    /// Why a request was denied.
    Denial(DenialId),
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Who it is about; empty where a token does not say.
    pub workload: String,
    /// What was asked for, in words.
    pub asked: String,
    /// When it was decided.
    pub at: Timestamp,
    /// Why; none where only counts are left.
    pub told: Option<Told>,
    /// For a lease, what would be answered now; none where the operator may not read that.
    pub now: Option<Told>,
    /// For a lease, how policy has moved on since.
    pub moved_on: Vec<String>,
    /// For a denial that is not kept any more, what was counted in its minute.
    pub counts: Vec<DenialCount>,
}

impl IssueRequest {
    /// What is asked for, in words.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("target {}", self.target);
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                text.extend([", ", name, " ", &value]);
            }
        };
        add("Grant", self.grant.as_ref().map(GrantName::to_string));
        let scope = self.scope.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ");
        add("scope", Some(scope).filter(|scope| !scope.is_empty()));
        add("audience", self.audience.as_ref().map(Audience::to_string));
        add("ttl", self.ttl.map(|ttl| format!("{} s", ttl.as_secs())));
        text
    }
}

impl Broker {
    /// What the calling workload would be answered now: its own reason and nothing else. Nothing is issued or counted.
    ///
    /// # Errors
    /// When its token is not good, or the cluster or its policy cannot be read.
    pub async fn explain_own(&self, bearer: Bearer<'_>, asked: &IssueRequest) -> Result<Told, Error> {
        let (cluster, identity) = self.authenticate(bearer, Caller::Workload).await?;
        check_scope(&asked.scope)?;
        let told = match self.attest(cluster, &identity, Purpose::New).await {
            Ok(attested) => self.told_now(&attested, asked, Vec::new())?,
            Err(Error::Denied { reason, message, .. }) => {
                Told::refused(check_of(reason), reason.name(), message, change_of(reason))
            }
            Err(error) => return Err(error),
        };
        Ok(told.own())
    }

    /// Why: verb `get` on an owner of what is explained, or on all where it has none.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such thing, or the operator may not read it.
    pub async fn explain(&self, bearer: Bearer<'_>, about: &About) -> Result<Explained, Error> {
        let operator = self.operator(bearer).await?;
        let explained = match about {
            About::Token(token, of, asked) => self.explain_token(&operator, token, of.as_ref(), asked).await,
            About::Described(who, asked) => self.explain_described(&operator, who, asked).await,
            About::Lease(id) => self.explain_lease(&operator, *id).await,
            About::Denial(id) => self.explain_denial(&operator, *id).await,
        };
        let explained = self.noted(&operator, explained)?;
        let what = match about {
            About::Token(..) | About::Described(..) => in_words(&[("workload", explained.workload.clone())]),
            About::Lease(id) => in_words(&[("lease", id.to_string())]),
            About::Denial(id) => in_words(&[("denial", id.to_string())]),
        };
        self.note_read(&operator, Read::of("Explain", &what));
        Ok(explained)
    }

    async fn explain_token(
        &self,
        operator: &Operator<'_>,
        token: &Secret,
        of: Option<&ClusterName>,
        asked: &IssueRequest,
    ) -> Result<Explained, Error> {
        check_scope(&asked.scope)?;
        let not_found = || not_found("workload of this token");
        let bearer = Bearer { token, cluster: of, verified: None };
        let (cluster, identity) = match self.authenticate(bearer, Caller::Workload).await {
            Ok(known) => known,
            // Whoever holds it is told the same when they use it.
            Err(error @ Error::Unauthenticated { .. }) => {
                let change = "send the pod's projected token of the workloads' audience";
                let told = Told::refused("token", error.reason().name(), error.to_string(), change);
                return Ok(self.explained(String::new(), asked, told));
            }
            Err(Error::Invalid { .. }) if of.is_none() => {
                return Err(Error::invalid(
                    "cluster",
                    "several clusters have the token's issuer: say whose it is",
                ));
            }
            Err(error) => return Err(error),
        };
        if !operator.reaches(&cluster.name) {
            return Err(not_found());
        }
        let token = ("token", Verdict::Passed, format!("{} of cluster {}", identity.username, cluster.name));
        let refused = |name: String, error: Error| {
            let reason = error.reason();
            let mut told = Told::granted("");
            told.push(token.0, token.1, token.2.clone());
            told.refuse(check_of(reason), reason.name(), error.to_string(), change_of(reason));
            Ok(self.explained(name, asked, told))
        };
        let workload = match workload_of(cluster, &identity) {
            Ok(workload) => workload,
            Err(error) if operator.may_read(&cluster.name, &[]).await? => {
                return refused(identity.username.clone(), error);
            }
            Err(_) => return Err(not_found()),
        };
        match self.attest(cluster, &identity, Purpose::New).await {
            Ok(attested) => {
                self.check_may_read(operator, &attested, not_found).await?;
                let seen =
                    format!("{}, its service account and namespace are there", pod_text(&attested.workload));
                let told =
                    self.told_now(&attested, asked, vec![token, ("workload", Verdict::Passed, seen)])?;
                Ok(self.explained(named(&attested.workload), asked, told))
            }
            Err(error @ Error::Denied { .. }) => {
                let owners = self.namespace_owner(cluster, &workload.service_account.namespace).await?;
                if !operator.may_read(&cluster.name, &owners).await? {
                    return Err(not_found());
                }
                refused(named(&workload), error)
            }
            Err(error) => Err(error),
        }
    }

    async fn explain_described(
        &self,
        operator: &Operator<'_>,
        who: &Described,
        asked: &IssueRequest,
    ) -> Result<Explained, Error> {
        check_scope(&asked.scope)?;
        check_described(who)?;
        let not_found = || not_found(&format!("workload {}/{}", who.namespace, who.service_account));
        let cluster = match &who.cluster {
            Some(name) => self.clusters.get(name),
            None if self.clusters.len() == 1 => self.clusters.values().next(),
            None => return Err(Error::invalid("workload.cluster", "several are served: say which")),
        };
        let cluster = cluster.filter(|cluster| operator.reaches(&cluster.name)).ok_or_else(not_found)?;
        let Seen { attested, steps } = seen(cluster, who, None).await?;
        self.check_may_read(operator, &attested, not_found).await?;
        let told = self.told_now(&attested, asked, steps)?;
        Ok(self.explained(named(&attested.workload), asked, told))
    }

    async fn explain_lease(&self, operator: &Operator<'_>, id: LeaseId) -> Result<Explained, Error> {
        let not_found = || not_found(&format!("lease {id}"));
        let lease = self.store.lease(id).await?.ok_or_else(not_found)?;
        let owners: Vec<_> = lease.owners.iter().cloned().collect();
        if !operator.may_read(&lease.workload.cluster, &owners).await? {
            return Err(not_found());
        }
        let asked = asked_of(&lease);
        let mut explained = self.explained(named(&lease.workload), &asked, told_then(&lease));
        explained.at = lease.issued_at;
        let Some(cluster) = self.clusters.get(&lease.workload.cluster) else {
            explained.moved_on = vec![format!("cluster {} is not served any more", lease.workload.cluster)];
            return Ok(explained);
        };
        let policy = self.policies.current(&cluster.name, self.clock.monotonic())?;
        let Seen { attested, steps } = seen(cluster, &described(&lease), Some(&lease.workload)).await?;
        let owners_now = self.answering(&policy, &cluster.name, &attested.who());
        // What the lease's owner may read of itself, it may read of what became of it; not of others.
        if !operator.may_read(&cluster.name, &owners_now).await? {
            explained.moved_on = vec!["another owner answers for this workload now, or none".to_owned()];
            return Ok(explained);
        }
        let now = self.told_now(&attested, &asked, steps)?;
        explained.moved_on = moved_on(&lease.grounds.objects, &policy, &now);
        explained.now = Some(now);
        Ok(explained)
    }

    async fn explain_denial(&self, operator: &Operator<'_>, id: DenialId) -> Result<Explained, Error> {
        let not_found = || not_found(&format!("denial {id}"));
        let Some(kept) = self.kept.get(id) else {
            // Whoever may read nothing has no log searched for an id that it may have made up.
            match self.owners_for(operator, Verb::Get, None).await {
                Err(Error::NotAllowed { .. }) => return Err(not_found()),
                may_read => drop(may_read?),
            }
            let counts = self.counted(operator, id.at()).await?;
            if counts.is_empty() {
                return Err(not_found());
            }
            let (workload, asked) = (String::new(), String::new());
            let (told, now, moved_on) = (None, None, Vec::new());
            return Ok(Explained { workload, asked, at: id.at(), told, now, moved_on, counts });
        };
        let cluster = self.clusters.get(&kept.workload.cluster).ok_or_else(not_found)?;
        let owners = if kept.owners.is_empty() && operator.reaches(&cluster.name) {
            self.namespace_owner(cluster, &kept.workload.service_account.namespace).await?
        } else {
            kept.owners.clone()
        };
        if !operator.may_read(&cluster.name, &owners).await? {
            return Err(not_found());
        }
        Ok(Explained {
            workload: named(&kept.workload),
            asked: kept.asked.clone(),
            at: id.at(),
            told: Some(kept.told.clone()),
            now: None,
            moved_on: Vec::new(),
            counts: Vec::new(),
        })
    }

    /// What is counted of the denials at a moment, of the owners that the operator may read.
    async fn counted(&self, operator: &Operator<'_>, at: Timestamp) -> Result<Vec<DenialCount>, Error> {
        let mut found = self.denials.at(at);
        let newest = self.store.log_head().size;
        let mut end = newest;
        'log: while end > 0 && newest - end < EVENTS {
            let from = end.saturating_sub(EVENTS_AT_ONCE);
            let limit = usize::try_from(end - from).unwrap_or_default();
            let events = self.store.events(Position::new(from + 1), limit).await?;
            for event in events.iter().rev().filter_map(|record| record.read().ok()) {
                if event.at < at {
                    break 'log;
                }
                let Some(detail) = event.detail else { continue };
                let count = count_of(&Draft { kind: event.kind, subject: None, detail });
                found.extend(count.filter(|count| count.first <= at && at <= count.last));
            }
            end = from;
        }
        let mut readable: BTreeMap<String, bool> = BTreeMap::new();
        let mut counts = Vec::new();
        for count in found {
            let mut parts = count.workload.split(':');
            let (Some(cluster), Some(namespace)) = (parts.next(), parts.next()) else { continue };
            let key = format!("{cluster}:{namespace}");
            let may = match readable.get(&key) {
                Some(may) => *may,
                None if readable.len() >= crate::list::OWNERS_ASKED => break,
                None => {
                    let place = cluster.parse().ok().and_then(|name: ClusterName| self.clusters.get(&name));
                    let (Some(place), Ok(namespace)) = (place, namespace.parse()) else { continue };
                    let owners = self.namespace_owner(place, &namespace).await?;
                    let may = operator.may_read(&place.name, &owners).await?;
                    readable.insert(key, may);
                    may
                }
            };
            if may && counts.len() < COUNTS {
                counts.push(count);
            }
        }
        Ok(counts)
    }

    /// The owner of a namespace now; empty where nobody is, or several claim it.
    pub(crate) async fn namespace_owner(
        &self,
        cluster: &Cluster,
        namespace: &Namespace,
    ) -> Result<Vec<OwnerName>, Error> {
        let policy = self.policies.current(&cluster.name, self.clock.monotonic())?;
        let labels =
            cluster.directory.namespace(namespace).await?.map(|facts| facts.labels).unwrap_or_default();
        Ok(match policy.owner_of(namespace, &labels) {
            Ownership::Owned(owners) => vec![owners.namespace],
            Ownership::Unowned | Ownership::Ambiguous => Vec::new(),
        })
    }

    async fn check_may_read(
        &self,
        operator: &Operator<'_>,
        attested: &Attested,
        refusal: impl Fn() -> Error,
    ) -> Result<(), Error> {
        let cluster = &attested.workload.cluster;
        let policy = self.policies.current(cluster, self.clock.monotonic())?;
        let owners = self.answering(&policy, cluster, &attested.who());
        if operator.may_read(cluster, &owners).await? { Ok(()) } else { Err(refusal()) }
    }

    /// What a workload would be answered at this moment, after these steps.
    fn told_now(&self, attested: &Attested, asked: &IssueRequest, steps: Vec<Step>) -> Result<Told, Error> {
        let policy = self.policies.current(&attested.workload.cluster, self.clock.monotonic())?;
        let now = self.now().floor_secs();
        let Considered { explanation, credential } = self.considered(&policy, attested, asked, now);
        let mut all = match &explanation.answer {
            Ok(_) => explanation.told(),
            Err(denial) => told(&explanation, &attested.denied(denial.clone())),
        };
        let policys = std::mem::take(&mut all.checks);
        for (check, verdict, outcome) in steps {
            all.push(check, verdict, outcome);
        }
        all.checks.extend(policys);
        let Ok(decision) = explanation.answer else { return Ok(all) };
        match credential {
            Err(error @ (Error::Unavailable { .. } | Error::Internal { .. })) => return Err(error),
            Err(error) => {
                let reason = error.reason();
                all.refuse("key", reason.name(), error.to_string(), change_of(reason));
            }
            Ok(credential) => {
                all.push("key", Verdict::Passed, format!("key {} signs", credential.key.id));
                self.push_hold(&mut all, attested, asked, decision, credential, now);
            }
        }
        Ok(all)
    }

    fn push_hold(
        &self,
        all: &mut Told,
        attested: &Attested,
        asked: &IssueRequest,
        decision: Decision,
        credential: Credential,
        now: Timestamp,
    ) {
        let would_be =
            lease(attested, asked, decision, credential, Grounds::default(), LeaseId::first_at(now), now);
        match self.store.rules().holding(&would_be) {
            None => all.push("hold", Verdict::Passed, "no revocation holds it"),
            Some(hold) => {
                let error = held(hold, &would_be);
                let reason = error.reason();
                all.refuse("hold", reason.name(), error.to_string(), change_of(reason));
            }
        }
    }

    fn explained(&self, workload: String, asked: &IssueRequest, told: Told) -> Explained {
        Explained {
            workload,
            asked: asked.text(),
            at: self.clock.now(),
            told: Some(told),
            now: None,
            moved_on: Vec::new(),
            counts: Vec::new(),
        }
    }
}

fn not_found(what: &str) -> Error {
    Error::NotFound { message: format!("there is no {what} that you may read") }
}

/// `CLUSTER:NAMESPACE:SERVICE-ACCOUNT`, and its pod.
fn named(workload: &Workload) -> String {
    match workload.pod.as_ref().filter(|pod| pod.uid != NOBODY) {
        Some(pod) => format!("{workload} pod {}", pod.name),
        None => workload.to_string(),
    }
}

fn pod_text(workload: &Workload) -> String {
    match &workload.pod {
        Some(pod) => format!("pod {}", pod.name),
        None => "the token is bound to no pod".to_owned(),
    }
}

/// What a lease's request would be if it were made again.
pub(crate) fn asked_of(lease: &Lease) -> IssueRequest {
    IssueRequest {
        target: lease.target.clone(),
        grant: Some(lease.grant.name.clone()),
        scope: lease.scope.clone(),
        audience: Some(lease.audience.clone()),
        ttl: None,
        confirmation: lease.confirmation,
        idempotency_key: None,
    }
}

/// Why a lease was given, as it was kept.
fn told_then(lease: &Lease) -> Told {
    let decision = Decision {
        owners: lease.owners.clone(),
        grant: lease.grant.clone(),
        target: lease.target.clone(),
        audience: lease.audience.clone(),
        scope: lease.scope.clone(),
        claims: lease.claims.clone(),
        ttl: lease.expires_at.since(lease.issued_at),
        live: LiveCaps::default(),
    };
    let mut told = Told::granted(decision.to_string());
    for check in &lease.grounds.checks {
        told.push(check.name.clone(), Verdict::Passed, check.outcome.clone());
    }
    told.objects.clone_from(&lease.grounds.objects);
    told
}

/// How policy has moved on: what of the objects that decided is another now, what decides besides, and that it says no.
fn moved_on(then: &[PolicyObject], policy: &PolicySet, now: &Told) -> Vec<String> {
    let mut moved = Vec::new();
    for object in then {
        let PolicyObject { kind, name, generation, .. } = object;
        match generation_now(policy, kind, name) {
            None => moved.push(format!("{kind} {name} is not there any more, or invalid")),
            Some(other) if other != *generation => {
                moved.push(format!("{kind} {name} is another: {generation} then, {other} now"));
            }
            Some(_) => {}
        }
    }
    let known = |object: &&PolicyObject| !then.iter().any(|o| o.kind == object.kind && o.name == object.name);
    let besides = now.objects.iter().filter(known);
    moved.extend(besides.map(|object| format!("{} {} decides now, and did not", object.kind, object.name)));
    if let Answer::Denied { reason, message } = &now.answer {
        moved.push(format!("now it would be denied: {reason}: {message}"));
    }
    moved
}

fn generation_now(policy: &PolicySet, kind: &str, name: &str) -> Option<String> {
    match kind {
        "Owner" => policy.owner(&name.parse().ok()?).map(|owner| owner.generation.clone()),
        "Target" => policy.target(&name.parse::<TargetName>().ok()?).map(|target| target.generation.clone()),
        "Grant" => policy.grant(&name.parse().ok()?).map(|grant| grant.generation.clone()),
        _ => None,
    }
}
