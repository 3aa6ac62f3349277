//! Issue: from a token to a credential that is recorded before it is handed over.

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::change::{Change, Conflict, Draw, Earlier, Issue, Outcome};
use dayfly_core::digest::Digest;
use dayfly_core::ids::{Audience, GrantName, LeaseId, Scope, TargetName};
use dayfly_core::lease::{Confirmation, Grounds, Idempotency, Lease, LeaseState, Phase};
use dayfly_core::limits;
use dayfly_core::live::{AtCap, LiveCaps, LiveOf};
use dayfly_core::ports::{Cluster, MintError, Order, SignError, StoreError};
use dayfly_core::rule::Rule;
use dayfly_core::secret::Secret;
use dayfly_core::time::Timestamp;
use dayfly_core::workload::{Identity, Workload};
use dayfly_policy::{Answer, Audited, Decision, Explanation, PolicySet, Question, Told};

use crate::attest::{Attested, Purpose};
use crate::authenticate::{Bearer, Caller};
use crate::credential::Credential;
use crate::denials::change_of;
use crate::renew::not_renewed;
use crate::{Broker, Error, Reason};

/// How often a decision that was outrun is made again.
const DECIDED_AGAIN: usize = 2;
/// When to ask again where all places are taken and it is not known when one is free.
const UNKNOWN_END: Duration = Duration::from_secs(5);
/// How often a repeated request is answered: each answer adds a digest to the lease.
const REPEATS: usize = 16;

/// What a workload asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueRequest {
    /// The target.
    pub target: TargetName,
    /// The Grant, of the workload's own namespace. Needed only where several match.
    pub grant: Option<GrantName>,
    /// The scopes; none asks for all that the Grant has.
    pub scope: Vec<Scope>,
    /// The audience, where the target has several.
    pub audience: Option<Audience>,
    /// The life; none asks for the Grant's default.
    pub ttl: Option<Duration>,
    /// What the holder must prove to hold.
    pub confirmation: Option<Confirmation>,
    /// Makes a repeat the same request: 1 to 64 bytes, scoped to the method and the calling pod.
    pub idempotency_key: Option<String>,
}

/// An issued credential.
pub struct Issued {
    /// The credential.
    pub credential: Secret,
    /// Its lease, durable.
    pub lease: Arc<Lease>,
}

impl Broker {
    /// Issues a credential: authenticate, attest, own and decide, mint, record, answer. A rule or policy that is newer
    /// than the decision sends it back to be decided again, twice at most. Denials of verified callers are counted
    /// for the audit log ([`Broker::flush_denials`]).
    ///
    /// # Errors
    /// Then nothing was handed out.
    pub async fn issue(&self, bearer: Bearer<'_>, request: &IssueRequest) -> Result<Issued, Error> {
        let (cluster, identity) = self.authenticate(bearer, Caller::Workload).await?;
        let issued = self.issue_to(cluster, &identity, request).await;
        issued.map_err(|error| self.noted_denial(cluster, &identity, request, error))
    }

    async fn issue_to(
        &self,
        cluster: &Cluster,
        identity: &Identity,
        request: &IssueRequest,
    ) -> Result<Issued, Error> {
        check(request)?;
        let attested = self.attest(cluster, identity, Purpose::New).await?;
        let issued = self.issue_attested(&attested, request).await;
        self.note_audited(&attested, request);
        issued
    }

    async fn issue_attested(&self, attested: &Attested, request: &IssueRequest) -> Result<Issued, Error> {
        self.decided_and_recorded(|| self.decide(attested, request)).await
    }

    /// Steps 4 to 8: decides, and decides again what a newer rule or policy outran.
    pub(crate) async fn decided_and_recorded(
        &self,
        decide: impl Fn() -> Result<Decided, Error> + Send + Sync,
    ) -> Result<Issued, Error> {
        for _ in 0..=DECIDED_AGAIN {
            match self.record(decide()?).await? {
                Recorded::Done(issued) => return Ok(issued),
                Recorded::Repeated { earlier, fresh } => return self.repeat(&earlier, &fresh).await,
                Recorded::Outrun => {}
            }
        }
        Err(Error::Outrun)
    }

    /// Steps 3 and 4: a lease as it would be, under the rules and the policy of this moment.
    pub(crate) fn decide(&self, attested: &Attested, request: &IssueRequest) -> Result<Decided, Error> {
        let workload = &attested.workload;
        let draw = self.store.draw()?;
        let policy = self.policies.current(&workload.cluster, self.clock.monotonic())?;
        let issued_at = draw.now.floor_secs();
        let Considered { explanation, credential } = self.considered(&policy, attested, request, issued_at);
        let decision = match &explanation.answer {
            Ok(decision) => decision.clone(),
            Err(denial) => {
                let error = attested.denied(denial.clone());
                return Err(self.keep_denial(&policy, attested, request, told(&explanation, &error), error));
            }
        };
        // Only who may have it is told why it cannot be made.
        let credential = credential?;
        let grounds = explanation.grounds();
        let (caps, status_list) = (decision.live.or(self.live_caps), credential.status_list);
        let mut lease = lease(attested, request, decision, credential, grounds, draw.id, issued_at);
        // The rules are read after the draw: what is newer than these sends the commit back.
        if let Some(hold) = self.store.rules().holding(&lease) {
            let error = held(hold, &lease);
            let mut told = explanation.told();
            told.refuse("hold", error.reason().name(), error.to_string(), change_of(error.reason()));
            return Err(self.keep_denial(&policy, attested, request, told, error));
        }
        if status_list {
            let place = self.status_lists.allot(&lease.target_ref(), lease.expires_at, self.rng.as_ref());
            lease.status = Some(place.map_err(StoreError::from)?);
        }
        Ok(Decided { lease, caps, draw, generation: policy.generation() })
    }

    /// What policy says to a request, and what would be made for it.
    pub(crate) fn considered(
        &self,
        policy: &PolicySet,
        attested: &Attested,
        request: &IssueRequest,
        issued_at: Timestamp,
    ) -> Considered {
        let credential = self.credential(policy, &attested.workload, &request.target);
        let not_after = credential.as_ref().ok().and_then(|credential| credential.key.not_after);
        let key_ends_in = not_after.map(|end| end.since(issued_at));
        let explanation = policy.explain(&self.question(attested, request, issued_at, key_ends_in));
        Considered { explanation, credential }
    }

    pub(crate) fn question(
        &self,
        attested: &Attested,
        request: &IssueRequest,
        now: Timestamp,
        key_ends_in: Option<Duration>,
    ) -> Question {
        let workload = &attested.workload;
        Question {
            cluster: workload.cluster.clone(),
            namespace: workload.service_account.namespace.clone(),
            namespace_labels: attested.namespace_labels.as_ref().clone(),
            service_account: workload.service_account.name.clone(),
            service_account_labels: attested.service_account_labels.as_ref().clone(),
            pod_labels: attested.pod_labels.as_ref().clone(),
            controller: attested.top_controller().cloned(),
            bound: workload.pod.is_some(),
            target: request.target.clone(),
            grant: request.grant.clone(),
            scope: request.scope.clone(),
            audience: request.audience.clone(),
            ttl: request.ttl,
            key_ends_in,
            now,
            unowned: self.policies.grace(&workload.cluster),
        }
    }

    /// Counts, for the audit log, what Grants of mode Audit would have decided. They are evaluated last and apart.
    pub(crate) fn note_audited(&self, attested: &Attested, request: &IssueRequest) {
        let workload = &attested.workload;
        let Ok(policy) = self.policies.current(&workload.cluster, self.clock.monotonic()) else { return };
        if policy.audits_in(&workload.service_account.namespace).next().is_none() {
            return;
        }
        let now = self.now().floor_secs();
        let made = || self.credential(&policy, workload, &request.target);
        let not_after = made().ok().and_then(|credential| credential.key.not_after);
        let question = self.question(attested, request, now, not_after.map(|end| end.since(now)));
        for Audited { grant, would } in policy.audit(&question) {
            let would = would.map_err(Error::from).and_then(|decision| {
                let (text, id) = (decision.to_string(), LeaseId::first_at(now));
                let lease = lease(attested, request, decision, made()?, Grounds::default(), id, now);
                self.store.rules().holding(&lease).map_or(Ok(text), |hold| Err(held(hold, &lease)))
            });
            self.note_audited_grant(workload, &request.target, grant, would);
        }
    }

    /// Steps 6 and 7: the credential, and its durable record.
    async fn record(&self, decided: Decided) -> Result<Recorded, Error> {
        let Decided { mut lease, caps, draw, generation } = decided;
        let minted = match self.engine.mint(&Order { lease: &lease, issuer: &self.issuer }).await {
            // The key was revoked since it was chosen.
            Err(MintError::Sign(SignError::NoKey)) => return Ok(Recorded::Outrun),
            minted => minted?,
        };
        lease.digests = vec![minted.digest];
        let policy = self.policies.current(&lease.workload.cluster, self.clock.monotonic())?;
        if policy.generation() != generation {
            return Ok(Recorded::Outrun);
        }
        let issue = Issue { lease: lease.clone(), decided_under: draw.position, caps };
        match self.store.commit(Change::Issue(Box::new(issue))).await? {
            Outcome::Committed(_) => {
                Ok(Recorded::Done(Issued { credential: minted.credential, lease: Arc::new(lease) }))
            }
            // An id that is taken was drawn before a restore or a prune: the next one is above.
            Outcome::Covered(_) | Outcome::Conflict(Conflict::IdTaken) => Ok(Recorded::Outrun),
            Outcome::Replayed(Earlier::Lease(earlier)) => {
                Ok(Recorded::Repeated { earlier, fresh: Box::new(lease) })
            }
            Outcome::Conflict(Conflict::IdempotencyKeyReused) => Err(key_reused()),
            Outcome::Conflict(Conflict::AtCap(at_cap)) => Err(at_its_cap(&lease, at_cap, self.now())),
            Outcome::Conflict(conflict) if lease.renews.is_some() => Err(not_renewed(&lease, conflict)),
            other => Err(Error::internal(format!("the store answered an issue with {other:?}"))),
        }
    }

    /// A repeated request: authenticated and decided afresh like any other, and answered with the earlier lease if
    /// that is still good and the fresh decision would still give all of it.
    async fn repeat(&self, earlier: &Arc<Lease>, fresh: &Lease) -> Result<Issued, Error> {
        self.check_active(earlier)?;
        if let Some(by) = earlier.phase.renewed_by() {
            // It is good for the overlap alone: who got it now would believe it to live for its whole life.
            let message = format!("lease {} was renewed by {by} since: renew that one", earlier.id);
            return Err(Error::stale(Reason::LeaseRenewed, message));
        }
        if !gives_all_of(fresh, earlier) {
            let message =
                "policy no longer gives what this request got before: ask with a new idempotency key";
            return Err(Error::stale(Reason::DecisionChanged, message));
        }
        if earlier.digests.len() >= REPEATS {
            let message = "this request was repeated too often: ask with a new idempotency key";
            return Err(Error::stale(Reason::LeaseEnded, message));
        }
        let order = Order { lease: earlier, issuer: &self.issuer };
        let minted = self.engine.mint(&order).await.map_err(|error| match error {
            MintError::Sign(SignError::NoKey) => ended(earlier.id, "its signing key has retired"),
            other => other.into(),
        })?;
        let change = Change::Reissue { lease: earlier.id, digest: minted.digest };
        match self.store.commit(change).await? {
            Outcome::Committed(_) => {}
            Outcome::Covered(_) => return Err(ended(earlier.id, "it is revoked")),
            Outcome::Conflict(Conflict::Phase) => return Err(ended(earlier.id, "it has ended")),
            other => return Err(Error::internal(format!("the store answered a reissue with {other:?}"))),
        }
        self.check_active(earlier)?;
        Ok(Issued { credential: minted.credential, lease: Arc::clone(earlier) })
    }

    fn check_active(&self, lease: &Lease) -> Result<(), Error> {
        match lease.state(&self.store.rules(), self.now()) {
            LeaseState::Active => Ok(()),
            state => Err(ended(lease.id, &format!("it is {state}"))),
        }
    }
}

/// What policy says to a request.
pub(crate) struct Considered {
    pub(crate) explanation: Explanation,
    /// What would be made, or why it cannot be.
    pub(crate) credential: Result<Credential, Error>,
}

/// A lease as it is decided.
pub(crate) fn lease(
    attested: &Attested,
    request: &IssueRequest,
    decision: Decision,
    credential: Credential,
    grounds: Grounds,
    id: LeaseId,
    issued_at: Timestamp,
) -> Lease {
    let Credential { key, spiffe_id, .. } = credential;
    Lease {
        id,
        workload: attested.workload.clone(),
        owners: decision.owners,
        target: decision.target,
        grant: decision.grant,
        audience: decision.audience,
        scope: decision.scope,
        claims: decision.claims,
        issued_at,
        expires_at: issued_at.plus(decision.ttl),
        key_id: key.id,
        digests: Vec::new(),
        status: None,
        confirmation: request.confirmation,
        spiffe_id,
        idempotency: idempotency(&attested.workload, request),
        renews: None,
        provenance: attested.provenance.clone(),
        grounds,
        phase: Phase::Active,
    }
}

/// An explanation in words, whose denial says what the caller is told.
pub(crate) fn told(explanation: &Explanation, error: &Error) -> Told {
    let mut told = explanation.told();
    told.answer = Answer::Denied { reason: error.reason().name().to_owned(), message: error.to_string() };
    told
}

/// The refusal of what a rule holds, or may hold: whose images are not known could run the one that it names.
pub(crate) fn held(hold: &Rule, lease: &Lease) -> Error {
    if !hold.selector.matches(lease) {
        let message = format!(
            "revocation {} holds an image until it is lifted ({}), and {} known by its digest",
            hold.id,
            hold.reason,
            if lease.workload.pod.is_some() {
                "not every image of this pod is"
            } else {
                "the token is bound to no pod, of which an image would be"
            }
        );
        return if lease.workload.pod.is_some() {
            Error::Unavailable {
                reason: Reason::ImageUnknown,
                message: format!(
                    "{message} yet: ask again when its kubelet has reported them, or name images by digest"
                ),
                cause: "an image hold, and a pod whose images are not all reported".to_owned(),
                retry_after: Duration::from_secs(1),
            }
        } else {
            Error::denied(Reason::Held, message)
        };
    }
    let message = format!("revocation {} holds this until it is lifted: {}", hold.id, hold.reason);
    Error::denied(Reason::Held, message)
}

pub(crate) struct Decided {
    /// Whole but for its digest.
    pub(crate) lease: Lease,
    caps: LiveCaps,
    draw: Draw,
    /// Of the policy it was decided by.
    generation: Digest,
}

enum Recorded {
    Done(Issued),
    Repeated { earlier: Arc<Lease>, fresh: Box<Lease> },
    Outrun,
}

fn check(request: &IssueRequest) -> Result<(), Error> {
    check_scope(&request.scope)?;
    check_idempotency_key(request.idempotency_key.as_deref())
}

pub(crate) fn check_scope(scope: &[Scope]) -> Result<(), Error> {
    if scope.len() > limits::SCOPES {
        return Err(Error::invalid("scope", format!("at most {} scopes", limits::SCOPES)));
    }
    let twice = scope.iter().enumerate().find(|(n, one)| scope.iter().take(*n).any(|s| s == *one));
    match twice {
        Some((_, scope)) => Err(Error::invalid("scope", format!("{scope} is asked for twice"))),
        None => Ok(()),
    }
}

pub(crate) fn check_idempotency_key(key: Option<&str>) -> Result<(), Error> {
    match key {
        Some(key) if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES => {
            let message = format!("an idempotency key has 1 to {} bytes", limits::IDEMPOTENCY_KEY_BYTES);
            Err(Error::invalid("idempotency_key", message))
        }
        _ => Ok(()),
    }
}

pub(crate) fn key_reused() -> Error {
    let message = "the idempotency key was used for a different request: use a new key";
    Error::stale(Reason::IdempotencyKeyReused, message)
}

/// Says whose leases are as many as may be. Of a whole target's it tells the number alone.
fn at_its_cap(lease: &Lease, at_cap: AtCap, now: Timestamp) -> Error {
    let AtCap { of, most, until } = at_cap;
    let account = &lease.workload.service_account;
    let (namespace, target) = (&account.namespace, &lease.target);
    let has = match (of, &lease.workload.pod) {
        (LiveOf::Pod, Some(pod)) => format!("pod {namespace}/{} has", pod.name),
        (LiveOf::Pod | LiveOf::Workload, _) => format!("service account {namespace}/{} has", account.name),
        (LiveOf::Grant, _) => format!("by Grant {} there are", lease.grant),
        (LiveOf::Namespace, _) => format!("namespace {namespace} has"),
        (LiveOf::Target, _) => "there are".to_owned(),
    };
    let retry_after = until.map_or(UNKNOWN_END, |until| until.since(now)).max(Duration::from_secs(1));
    let message = format!(
        "{has} as many live leases for Target {target} as may be at once: {most}. Release what is not needed, or ask \
         again when one ends"
    );
    Error::LiveLeases { message, retry_after }
}

fn ended(lease: LeaseId, why: &str) -> Error {
    let message = format!("lease {lease} cannot be given again, {why}: ask with a new idempotency key");
    Error::stale(Reason::LeaseEnded, message)
}

/// Whether a fresh decision gives everything that an earlier lease has.
fn gives_all_of(fresh: &Lease, earlier: &Lease) -> bool {
    fresh.grant == earlier.grant
        && fresh.target == earlier.target
        && fresh.audience == earlier.audience
        && fresh.owners == earlier.owners
        && fresh.claims == earlier.claims
        && fresh.confirmation == earlier.confirmation
        && fresh.spiffe_id == earlier.spiffe_id
        && fresh.status.is_some() == earlier.status.is_some()
        // A rule by the id of a presented token must cover all that was got with it.
        && fresh.workload.credential_id == earlier.workload.credential_id
        && earlier.scope.iter().all(|scope| fresh.scope.contains(scope))
        && fresh.expires_at >= earlier.expires_at
}

fn idempotency(workload: &Workload, request: &IssueRequest) -> Option<Idempotency> {
    let key = request.idempotency_key.as_deref()?;
    let text = |text: Option<&str>| text.unwrap_or_default().as_bytes().to_vec();
    let mut parts = vec![
        text(Some(request.target.as_str())),
        text(request.grant.as_ref().map(GrantName::as_str)),
        text(request.audience.as_ref().map(Audience::as_str)),
        request.ttl.map(|ttl| ttl.as_millis().to_be_bytes().to_vec()).unwrap_or_default(),
        confirmation_bytes(request.confirmation),
    ];
    parts.extend(request.scope.iter().map(|scope| text(Some(scope.as_str()))));
    Some(Idempotency {
        key: fingerprint(&[b"Issue".to_vec(), workload.caller().as_bytes().to_vec(), text(Some(key))]),
        request: fingerprint(&parts),
    })
}

pub(crate) fn confirmation_bytes(confirmation: Option<Confirmation>) -> Vec<u8> {
    match confirmation {
        None => Vec::new(),
        Some(Confirmation::Jwk(digest)) => [b"jkt".as_slice(), digest.as_bytes()].concat(),
        Some(Confirmation::Certificate(digest)) => [b"x5t".as_slice(), digest.as_bytes()].concat(),
    }
}

/// A digest over parts that says where each of them ends.
pub(crate) fn fingerprint(parts: &[Vec<u8>]) -> Digest {
    let lengths: Vec<_> = parts.iter().map(|part| part.len().to_be_bytes()).collect();
    let pieces: Vec<&[u8]> =
        lengths.iter().zip(parts).flat_map(|(length, part)| [length.as_slice(), part.as_slice()]).collect();
    Digest::of_parts(&pieces)
}
