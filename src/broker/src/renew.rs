//! Renew: a new decision in the place of an earlier lease, which then ends after an overlap.

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::change::Conflict;
use dayfly_core::ids::{LeaseId, Scope};
use dayfly_core::lease::{Confirmation, Idempotency, Lease, LeaseState};
use dayfly_core::ports::Cluster;
use dayfly_core::workload::{Identity, Workload};

use crate::attest::{Attested, Purpose, workload_of};
use crate::authenticate::{Bearer, Caller};
use crate::issue::{Decided, Issued, check_idempotency_key, check_scope, confirmation_bytes, fingerprint};
use crate::{Broker, Error, IssueRequest, LeaseView, Reason};

/// What a workload asks for in the place of a lease that it has: the same target, grant and audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewRequest {
    /// The lease.
    pub lease: LeaseId,
    /// The scopes, each of the earlier lease's; none asks for all of those.
    pub scope: Vec<Scope>,
    /// The life; none asks for the Grant's default, so that a life that was cut short once does not stay so.
    pub ttl: Option<Duration>,
    /// What the holder must prove to hold; none keeps the earlier lease's.
    pub confirmation: Option<Confirmation>,
    /// Makes a repeat the same request: 1 to 64 bytes, scoped to the method and the calling pod.
    pub idempotency_key: Option<String>,
}

/// A credential in the place of an earlier one.
pub struct Renewed {
    /// The new credential, its lease durable.
    pub issued: Issued,
    /// The earlier lease as it is now: good until the overlap ends. None where it cannot be read back at once.
    pub earlier: Option<LeaseView>,
}

impl Broker {
    /// Renews a lease of the caller's own: the whole path of [`Broker::issue`] again, by the same service account and
    /// pod, for the same target and grant. In the commit of the new lease the earlier one gets its end, after the
    /// overlap ([`dayfly_core::limits::Limits::renewal_overlap`]). A pod that is being deleted may renew until its grace
    /// period ends.
    ///
    /// # Errors
    /// Then nothing was handed out, and the earlier lease is as it was. [`Error::NotFound`] for a lease that is not the
    /// caller's, whether there is one or not.
    pub async fn renew(&self, bearer: Bearer<'_>, request: &RenewRequest) -> Result<Renewed, Error> {
        let (cluster, identity) = self.authenticate(bearer, Caller::Workload).await?;
        check_scope(&request.scope)?;
        check_idempotency_key(request.idempotency_key.as_deref())?;
        let earlier = self.own_lease(cluster, &identity, request.lease).await;
        let earlier = earlier.inspect_err(|error| self.note_refused(cluster, &identity, None, error))?;
        let renewed = self.renew_for(cluster, &identity, &earlier, request).await;
        let issued = renewed
            .map_err(|error| self.noted_denial(cluster, &identity, &as_issue(&earlier, request), error))?;
        // As the commit left it. What is committed is handed out, whether or not this can be read.
        let earlier = self.store.lease(request.lease).await.ok().flatten();
        Ok(Renewed { issued, earlier: earlier.map(|earlier| self.view(earlier)) })
    }

    async fn renew_for(
        &self,
        cluster: &Cluster,
        identity: &Identity,
        earlier: &Arc<Lease>,
        request: &RenewRequest,
    ) -> Result<Issued, Error> {
        let attested = self.attest(cluster, identity, Purpose::Renewal).await?;
        self.check_renewable(earlier, request)?;
        let asked = asked(earlier, request)?;
        let renewed =
            self.decided_and_recorded(|| self.decide_again(&attested, earlier, &asked, request)).await;
        // Where the lease's Grant is of mode Audit by now, it is denied.
        self.note_audited(&attested, &asked);
        renewed
    }

    /// Refuses what cannot be renewed before anything is made for it. One that was renewed before may have been so by
    /// this same request, which the commit finds out by its key.
    fn check_renewable(&self, earlier: &Lease, request: &RenewRequest) -> Result<(), Error> {
        if earlier.phase.renewed_by().is_some() {
            return match request.idempotency_key {
                Some(_) => Ok(()),
                None => Err(renewed_before(earlier.id)),
            };
        }
        match earlier.state(&self.store.rules(), self.now()) {
            LeaseState::Active => Ok(()),
            state => Err(ended(earlier.id, &format!("it is {state}"))),
        }
    }

    /// Steps 3 and 4 under the rules and the policy of this moment: never more than they give, nor than the earlier
    /// lease has.
    fn decide_again(
        &self,
        attested: &Attested,
        earlier: &Lease,
        asked: &IssueRequest,
        request: &RenewRequest,
    ) -> Result<Decided, Error> {
        let mut decided = self.decide(attested, asked)?;
        // An earlier lease without scopes asks for none, which a decision takes for all that the Grant has.
        decided.lease.scope.retain(|scope| asked.scope.contains(scope));
        decided.lease.renews = Some(earlier.id);
        decided.lease.idempotency = idempotency(&attested.workload, request);
        Ok(decided)
    }

    /// A lease of the caller's own, by the uids of its service account and pod.
    pub(crate) async fn own_lease(
        &self,
        cluster: &Cluster,
        identity: &Identity,
        id: LeaseId,
    ) -> Result<Arc<Lease>, Error> {
        let caller = workload_of(cluster, identity)?.caller();
        let lease = self.store.lease(id).await?.filter(|lease| lease.workload.caller() == caller);
        lease.ok_or_else(|| not_yours(id))
    }
}

/// The earlier lease's request, less what is not wanted any more.
fn asked(earlier: &Lease, request: &RenewRequest) -> Result<IssueRequest, Error> {
    if let Some(more) = request.scope.iter().find(|scope| !earlier.scope.contains(scope)) {
        let message = format!("scope {more} is not one of lease {}: ask for it by Issue", earlier.id);
        return Err(Error::denied(Reason::ScopeNotGranted, message));
    }
    Ok(as_issue(earlier, request))
}

fn as_issue(earlier: &Lease, request: &RenewRequest) -> IssueRequest {
    IssueRequest {
        target: earlier.target.clone(),
        grant: Some(earlier.grant.name.clone()),
        scope: if request.scope.is_empty() { earlier.scope.clone() } else { request.scope.clone() },
        audience: Some(earlier.audience.clone()),
        ttl: request.ttl,
        confirmation: request.confirmation.or(earlier.confirmation),
        idempotency_key: None,
    }
}

/// Why the store did not let this lease take the place of the earlier one.
pub(crate) fn not_renewed(lease: &Lease, conflict: Conflict) -> Error {
    match (conflict, lease.renews) {
        (Conflict::NoSuchEarlier, Some(earlier)) => not_yours(earlier),
        (Conflict::EarlierEnded, Some(earlier)) => ended(earlier, "it has ended"),
        (Conflict::EarlierRenewed, Some(earlier)) => renewed_before(earlier),
        (other, _) => Error::internal(format!("the store answered a renewal with {other:?}")),
    }
}

/// Of others' leases nothing is told, not even that there are any.
fn not_yours(lease: LeaseId) -> Error {
    Error::NotFound { message: format!("there is no lease {lease} of this pod: ask for a new one by Issue") }
}

fn ended(lease: LeaseId, why: &str) -> Error {
    let message = format!("lease {lease} cannot be renewed, {why}: ask for a new one by Issue");
    Error::stale(Reason::LeaseEnded, message)
}

fn renewed_before(lease: LeaseId) -> Error {
    let message =
        format!("lease {lease} was renewed before: renew the newer one, or ask for another by Issue");
    Error::stale(Reason::LeaseRenewed, message)
}

fn idempotency(workload: &Workload, request: &RenewRequest) -> Option<Idempotency> {
    let key = request.idempotency_key.as_deref()?;
    let mut parts = vec![
        request.lease.to_bytes().to_vec(),
        request.ttl.map(|ttl| ttl.as_millis().to_be_bytes().to_vec()).unwrap_or_default(),
        confirmation_bytes(request.confirmation),
    ];
    parts.extend(request.scope.iter().map(|scope| scope.as_str().as_bytes().to_vec()));
    let caller = workload.caller().as_bytes().to_vec();
    Some(Idempotency {
        key: fingerprint(&[b"Renew".to_vec(), caller, key.as_bytes().to_vec()]),
        request: fingerprint(&parts),
    })
}
