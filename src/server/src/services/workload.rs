//! `WorkloadService`.

use std::sync::Arc;
use std::time::Duration;

use dayfly_api::v1;
use dayfly_api::v1::workload_service_server::WorkloadService;
use dayfly_broker::{Broker, IssueRequest, Issued, LeaseView, RenewRequest, Watch, WatchNews};
use dayfly_core::ids::{LeaseId, Scope};
use dayfly_core::lease::LeaseState;
use dayfly_core::limits;
use dayfly_policy::Ownership;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::stream::{self, Answers, Source};
use super::{explain, reject};

/// Leases in one message of a stream.
const TOLD_AT_ONCE: usize = 100;

pub(super) struct Workloads {
    broker: Arc<Broker>,
    stopped: watch::Receiver<bool>,
}

impl Workloads {
    pub(super) fn new(broker: Arc<Broker>, stopped: watch::Receiver<bool>) -> Self {
        Self { broker, stopped }
    }
}

#[tonic::async_trait]
impl WorkloadService for Workloads {
    async fn issue(&self, request: Request<v1::IssueRequest>) -> Result<Response<v1::IssueResponse>, Status> {
        let caller = Caller::behind(&request)?;
        let asked = asked(request.into_inner())?;
        let issued = self.broker.issue(caller.bearer(), &asked).await.map_err(reject::status)?;
        Ok(Response::new(v1::IssueResponse {
            credential: credential(&issued)?,
            lease: Some(dayfly_api::lease(&issued.lease, LeaseState::Active)),
            renew_after: Some(renew_after(&issued)),
        }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let caller = Caller::behind(&request)?;
        let asked = renewal(request.into_inner())?;
        let renewed = self.broker.renew(caller.bearer(), &asked).await.map_err(reject::status)?;
        let issued = &renewed.issued;
        Ok(Response::new(v1::RenewResponse {
            credential: credential(issued)?,
            lease: Some(dayfly_api::lease(&issued.lease, LeaseState::Active)),
            renew_after: Some(renew_after(issued)),
            earlier: renewed.earlier.as_ref().map(shown),
        }))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let caller = Caller::behind(&request)?;
        let lease = lease_id(&request.get_ref().lease)?;
        let released = self.broker.release(caller.bearer(), lease).await.map_err(reject::status)?;
        Ok(Response::new(v1::ReleaseResponse { lease: Some(shown(&released)) }))
    }

    type WatchMyLeasesStream = Answers<v1::WatchMyLeasesResponse>;

    async fn watch_my_leases(
        &self,
        request: Request<v1::WatchMyLeasesRequest>,
    ) -> Result<Response<Self::WatchMyLeasesStream>, Status> {
        let caller = Caller::behind(&request)?;
        let watch = self.broker.watch_my_leases(caller.bearer()).await.map_err(reject::status)?;
        Ok(Response::new(stream::answers(watch, self.stopped.clone(), limits::SLOW_READER)))
    }

    async fn explain(
        &self,
        request: Request<v1::WorkloadServiceExplainRequest>,
    ) -> Result<Response<v1::WorkloadServiceExplainResponse>, Status> {
        let caller = Caller::behind(&request)?;
        let asked = explain::asked(request.into_inner().asked)?;
        let told = self.broker.explain_own(caller.bearer(), &asked).await.map_err(reject::status)?;
        let explanation = Some(explain::explanation(&told));
        Ok(Response::new(v1::WorkloadServiceExplainResponse { explanation }))
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let caller = Caller::behind(&request)?;
        let who = self.broker.who_am_i(caller.bearer()).await.map_err(reject::status)?;
        let grants = who.grants.into_iter().map(|grant| v1::GrantSummary {
            name: grant.name.to_string(),
            target: grant.target.to_string(),
            scope: grant.scope.iter().map(ToString::to_string).collect(),
            max_ttl: Some(duration(grant.max_ttl)),
            held_by: grant.held_by.map(|rule| rule.to_string()).unwrap_or_default(),
        });
        let (owner, narrowed_owner) = match who.ownership {
            Ownership::Owned(owners) => (
                owners.namespace.to_string(),
                owners.narrowed.map(|owner| owner.to_string()).unwrap_or_default(),
            ),
            Ownership::Unowned | Ownership::Ambiguous => (String::new(), String::new()),
        };
        Ok(Response::new(v1::WhoAmIResponse {
            workload: Some(dayfly_api::workload(&who.workload)),
            owner,
            narrowed_owner,
            grants: grants.collect(),
            trouble_reason: who
                .trouble
                .as_ref()
                .map(|error| error.reason().name().to_owned())
                .unwrap_or_default(),
            trouble: who.trouble.map(|error| error.to_string()).unwrap_or_default(),
        }))
    }
}

/// The request, parsed.
fn asked(wire: v1::IssueRequest) -> Result<IssueRequest, Status> {
    Ok(IssueRequest {
        target: wire.target.parse().map_err(|error| reject::field("target", &error))?,
        grant: optional(wire.grant)
            .map(|text| text.parse().map_err(|error| reject::field("grant", &error)))
            .transpose()?,
        scope: scope(&wire.scope)?,
        audience: optional(wire.audience)
            .map(|text| text.parse().map_err(|error| reject::field("audience", &error)))
            .transpose()?,
        ttl: wire.ttl.map(ttl).transpose()?,
        confirmation: super::confirmation(wire.confirmation.as_ref())?,
        idempotency_key: optional(wire.idempotency_key),
    })
}

/// The request to renew, parsed.
fn renewal(wire: v1::RenewRequest) -> Result<RenewRequest, Status> {
    Ok(RenewRequest {
        lease: lease_id(&wire.lease)?,
        scope: scope(&wire.scope)?,
        ttl: wire.ttl.map(ttl).transpose()?,
        confirmation: super::confirmation(wire.confirmation.as_ref())?,
        idempotency_key: optional(wire.idempotency_key),
    })
}

pub(super) fn optional(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

pub(super) fn scope(wire: &[String]) -> Result<Vec<Scope>, Status> {
    if wire.len() > limits::SCOPES {
        return Err(reject::field("scope", &format!("at most {} scopes", limits::SCOPES)));
    }
    wire.iter().map(|text| text.parse().map_err(|error| reject::field("scope", &error))).collect()
}

fn lease_id(text: &str) -> Result<LeaseId, Status> {
    text.parse().map_err(|error| reject::field("lease", &error))
}

fn credential(issued: &Issued) -> Result<String, Status> {
    let text = issued.credential.expose_text().map_err(|_| Status::internal("the credential is no text"))?;
    Ok(text.to_owned())
}

fn renew_after(issued: &Issued) -> prost_types::Duration {
    duration(issued.lease.expires_at.since(issued.lease.issued_at).mul_f64(0.7))
}

fn shown(view: &LeaseView) -> v1::Lease {
    dayfly_api::lease_for_its_workload(&view.lease, view.state, view.rule.as_deref())
}

impl Source for Watch {
    type Message = v1::WatchMyLeasesResponse;

    async fn next(&mut self) -> Result<Vec<Self::Message>, Status> {
        self.next().await.map(|news| messages(&news)).map_err(reject::status)
    }
}

/// What there is to tell, in messages that are not too large. There is always one.
fn messages(news: &WatchNews) -> Vec<v1::WatchMyLeasesResponse> {
    let of = |leases: &[LeaseView], more| v1::WatchMyLeasesResponse {
        position: news.position.number(),
        leases: leases.iter().map(shown).collect(),
        snapshot: news.snapshot,
        more,
    };
    let parts = news.leases.len().div_ceil(TOLD_AT_ONCE);
    if parts == 0 {
        return vec![of(&[], false)];
    }
    let parts = news.leases.chunks(TOLD_AT_ONCE).zip(1..).map(|(leases, n)| of(leases, n < parts));
    parts.collect()
}

/// A life in whole seconds, within the bounds of any.
pub(super) fn ttl(wire: prost_types::Duration) -> Result<Duration, Status> {
    let (least, most) = (limits::TTL_MIN.as_secs(), limits::TTL_MAX.as_secs());
    match u64::try_from(wire.seconds) {
        Ok(secs) if wire.nanos == 0 && (least..=most).contains(&secs) => Ok(Duration::from_secs(secs)),
        _ => Err(reject::field("ttl", &format!("whole seconds from {least} to {most}, or left out"))),
    }
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), nanos: 0 }
}
