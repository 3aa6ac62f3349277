//! `WorkloadService`.

use std::sync::Arc;
use std::time::Duration;

use dayfly_api::v1;
use dayfly_api::v1::workload_service_server::WorkloadService;
use dayfly_broker::{Broker, IssueRequest};
use dayfly_core::lease::LeaseState;
use dayfly_core::limits;
use dayfly_policy::Ownership;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::reject;

pub(super) struct Workloads(Arc<Broker>);

impl Workloads {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self(broker)
    }
}

#[tonic::async_trait]
impl WorkloadService for Workloads {
    async fn issue(&self, request: Request<v1::IssueRequest>) -> Result<Response<v1::IssueResponse>, Status> {
        let caller = Caller::behind(&request)?;
        let asked = asked(request.into_inner())?;
        let issued = self.0.issue(caller.bearer(), &asked).await.map_err(reject::status)?;
        let credential =
            issued.credential.expose_text().map_err(|_| Status::internal("the credential is no text"))?;
        let life = issued.lease.expires_at.since(issued.lease.issued_at);
        Ok(Response::new(v1::IssueResponse {
            credential: credential.to_owned(),
            lease: Some(dayfly_api::lease(&issued.lease, LeaseState::Active)),
            renew_after: Some(duration(life.mul_f64(0.7))),
        }))
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let caller = Caller::behind(&request)?;
        let who = self.0.who_am_i(caller.bearer()).await.map_err(reject::status)?;
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
    if wire.scope.len() > limits::SCOPES {
        return Err(reject::field("scope", &format!("at most {} scopes", limits::SCOPES)));
    }
    let optional = |text: String| Some(text).filter(|text| !text.is_empty());
    let parse_scope = |text: &String| text.parse().map_err(|error| reject::field("scope", &error));
    Ok(IssueRequest {
        target: wire.target.parse().map_err(|error| reject::field("target", &error))?,
        grant: optional(wire.grant)
            .map(|text| text.parse().map_err(|error| reject::field("grant", &error)))
            .transpose()?,
        scope: wire.scope.iter().map(parse_scope).collect::<Result<_, _>>()?,
        audience: optional(wire.audience)
            .map(|text| text.parse().map_err(|error| reject::field("audience", &error)))
            .transpose()?,
        ttl: wire.ttl.map(ttl).transpose()?,
        confirmation: super::confirmation(wire.confirmation.as_ref())?,
        idempotency_key: optional(wire.idempotency_key),
    })
}

/// A life in whole seconds, within the bounds of any.
fn ttl(wire: prost_types::Duration) -> Result<Duration, Status> {
    let (least, most) = (limits::TTL_MIN.as_secs(), limits::TTL_MAX.as_secs());
    match u64::try_from(wire.seconds) {
        Ok(secs) if wire.nanos == 0 && (least..=most).contains(&secs) => Ok(Duration::from_secs(secs)),
        _ => Err(reject::field("ttl", &format!("whole seconds from {least} to {most}, or left out"))),
    }
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), nanos: 0 }
}
