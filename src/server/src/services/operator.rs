//! `OperatorService`.

use std::sync::Arc;

use dayfly_api::rejection::Rejection;
use dayfly_api::v1;
use dayfly_api::v1::ErrorReason;
use dayfly_api::v1::operator_service_server::OperatorService;
use dayfly_broker::unowned::WHO_MAY_CHANGE;
use dayfly_broker::{
    Broker, LiftRequest, ListLeases, ListRevocations, LiveCounts, OwnerView, RevokeRequest, Revoked,
    SpelledOut, UnownedNamespace,
};
use dayfly_core::ids::Incarnation;
use dayfly_core::limits;
use dayfly_core::rule::After;
use dayfly_core::teardown::StepProgress;
use dayfly_policy::parts::label_text;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::page::{LeaseToken, OwnerToken, RevocationToken, UnownedToken};
use super::stream::Answers;
use super::{backup, events, explain, keys, reject, selector};
use crate::backup::Backups;

pub(super) struct Operators {
    broker: Arc<Broker>,
    /// Page tokens of another incarnation are refused.
    incarnation: Incarnation,
    backups: Backups,
    stopped: watch::Receiver<bool>,
}

impl Operators {
    pub(super) fn new(
        broker: Arc<Broker>,
        incarnation: Incarnation,
        backups: Backups,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self { broker, incarnation, backups, stopped }
    }
}

#[tonic::async_trait]
impl OperatorService for Operators {
    async fn list_leases(
        &self,
        request: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        let caller = Caller::behind(&request)?;
        let wire = request.into_inner();
        let asked = ListLeases {
            which: wire.selector.as_ref().map(selector::which).transpose()?,
            active_only: wire.active_only,
            after: LeaseToken::read(&wire.page_token, self.incarnation)?.map(|token| token.after),
            limit: page_size(wire.page_size)?,
        };
        let page = self.broker.list_leases(caller.bearer(), &asked).await.map_err(reject::status)?;
        let next = page.next.map(|after| LeaseToken { after }.write(self.incarnation));
        Ok(Response::new(v1::ListLeasesResponse {
            leases: page
                .leases
                .iter()
                .map(|view| dayfly_api::lease_for_operators(&view.lease, view.state, view.rule.as_deref()))
                .collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn get_lease(
        &self,
        request: Request<v1::GetLeaseRequest>,
    ) -> Result<Response<v1::GetLeaseResponse>, Status> {
        let caller = Caller::behind(&request)?;
        let id = request.into_inner().id.parse().map_err(|error| reject::field("id", &error))?;
        let view = self.broker.get_lease(caller.bearer(), id).await.map_err(reject::status)?;
        Ok(Response::new(v1::GetLeaseResponse {
            lease: Some(dayfly_api::lease_for_operators(&view.lease, view.state, view.rule.as_deref())),
        }))
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<v1::RevokeResponse>, Status> {
        let by = Caller::operator(&request)?;
        let asked = to_revoke(request.into_inner())?;
        let revoked = self.broker.revoke(by.by(), &asked).await.map_err(reject::status)?;
        Ok(Response::new(match revoked {
            Revoked::Written { rule, can_reissue, repeated, warnings } => v1::RevokeResponse {
                rule: Some(dayfly_api::rule(&rule)),
                can_reissue,
                repeated,
                warnings,
                resolved: rule.selector.to_string(),
                ..v1::RevokeResponse::default()
            },
            Revoked::DryRun { selector, leases, at_least, can_reissue, warnings } => v1::RevokeResponse {
                can_reissue,
                would_cover: leases,
                would_cover_at_least: at_least,
                warnings,
                resolved: selector.to_string(),
                ..v1::RevokeResponse::default()
            },
        }))
    }

    async fn get_revocation(
        &self,
        request: Request<v1::GetRevocationRequest>,
    ) -> Result<Response<v1::GetRevocationResponse>, Status> {
        let by = Caller::operator(&request)?;
        let id = request.into_inner().id.parse().map_err(|error| reject::field("id", &error))?;
        let found = self.broker.get_revocation(by.by(), id).await.map_err(reject::status)?;
        Ok(Response::new(v1::GetRevocationResponse {
            rule: Some(dayfly_api::rule(&found.rule)),
            counts: found.counts.as_ref().map(counts),
            progress: teardown(&self.broker.teardown_of(&found.rule)),
            spelled_out: self.broker.spelled_out(&found.rule).map(spelled_out),
        }))
    }

    async fn list_revocations(
        &self,
        request: Request<v1::ListRevocationsRequest>,
    ) -> Result<Response<v1::ListRevocationsResponse>, Status> {
        let by = Caller::operator(&request)?;
        let wire = request.into_inner();
        let owner = Some(wire.owner).filter(|owner| !owner.is_empty());
        let asked = ListRevocations {
            owner: owner.map(|owner| owner.parse()).transpose().map_err(|e| reject::field("owner", &e))?,
            in_force_only: wire.in_force_only,
            holds_only: wire.holds_only,
            before: RevocationToken::read(&wire.page_token, self.incarnation)?.map(|token| token.before),
            limit: page_size(wire.page_size)?,
        };
        let page = self.broker.list_revocations(by.by(), &asked).await.map_err(reject::status)?;
        let next = page.next.map(|before| RevocationToken { before }.write(self.incarnation));
        let progress = page.rules.iter().map(|rule| teardown(&self.broker.teardown_of(rule)));
        Ok(Response::new(v1::ListRevocationsResponse {
            progress: progress.map(Option::unwrap_or_default).collect(),
            rules: page.rules.iter().map(|rule| dayfly_api::rule(rule)).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn lift_revocation(
        &self,
        request: Request<v1::LiftRevocationRequest>,
    ) -> Result<Response<v1::LiftRevocationResponse>, Status> {
        let by = Caller::operator(&request)?;
        let wire = request.into_inner();
        let rule = wire.id.parse().map_err(|error| reject::field("id", &error))?;
        let asked = LiftRequest { rule, reason: wire.reason };
        let lifted = self.broker.lift(by.by(), &asked).await.map_err(reject::status)?;
        Ok(Response::new(v1::LiftRevocationResponse {
            rule: Some(dayfly_api::rule(&lifted.rule)),
            repeated: lifted.repeated,
            can_reissue: lifted.can_reissue,
        }))
    }

    async fn list_owners(
        &self,
        request: Request<v1::ListOwnersRequest>,
    ) -> Result<Response<v1::ListOwnersResponse>, Status> {
        let caller = Caller::behind(&request)?;
        let wire = request.into_inner();
        let limit = page_size(wire.page_size)?;
        let after = OwnerToken::read(&wire.page_token, self.incarnation)?.map(|token| token.after);
        let owners =
            self.broker.list_owners(caller.bearer(), after.as_ref(), limit).await.map_err(reject::status)?;
        let full = owners.len() == limit.unwrap_or(limits::PAGE_DEFAULT);
        let next = owners.last().filter(|_| full).map(|last| {
            OwnerToken { after: (last.cluster.clone(), last.owner.name.clone()) }.write(self.incarnation)
        });
        Ok(Response::new(v1::ListOwnersResponse {
            owners: owners.iter().map(owner).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn list_unowned(
        &self,
        request: Request<v1::ListUnownedRequest>,
    ) -> Result<Response<v1::ListUnownedResponse>, Status> {
        let caller = Caller::behind(&request)?;
        let wire = request.into_inner();
        let limit = page_size(wire.page_size)?;
        let after = UnownedToken::read(&wire.page_token, self.incarnation)?.map(|token| token.after);
        let found = self.broker.list_unowned(caller.bearer(), after.as_ref(), limit).await;
        let found = found.map_err(reject::status)?;
        let full = found.len() == limit.unwrap_or(limits::PAGE_DEFAULT);
        let next = found.last().filter(|_| full).map(|last| {
            UnownedToken { after: (last.cluster.clone(), last.namespace.clone()) }.write(self.incarnation)
        });
        Ok(Response::new(v1::ListUnownedResponse {
            namespaces: found.iter().map(unowned).collect(),
            next_page_token: next.unwrap_or_default(),
            who_may_change: WHO_MAY_CHANGE.to_owned(),
        }))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let caller = Caller::behind(&request)?;
        let about = explain::about(request.into_inner())?;
        let explained = self.broker.explain(caller.bearer(), &about).await.map_err(reject::status)?;
        Ok(Response::new(explain::explained(&explained)))
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        keys::list(&self.broker, request).await
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::RotateKeyResponse>, Status> {
        keys::rotate(&self.broker, request).await
    }

    async fn revoke_key(
        &self,
        request: Request<v1::RevokeKeyRequest>,
    ) -> Result<Response<v1::RevokeKeyResponse>, Status> {
        keys::revoke(&self.broker, request).await
    }

    type CreateBackupStream = Answers<v1::CreateBackupResponse>;

    async fn create_backup(
        &self,
        request: Request<v1::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        backup::create(&self.broker, &self.backups, &self.stopped, request).await
    }

    async fn adopt_store(
        &self,
        request: Request<v1::AdoptStoreRequest>,
    ) -> Result<Response<v1::AdoptStoreResponse>, Status> {
        backup::adopt(&self.broker, request).await
    }

    async fn make_checkpoint(
        &self,
        request: Request<v1::MakeCheckpointRequest>,
    ) -> Result<Response<v1::MakeCheckpointResponse>, Status> {
        let by = Caller::operator(&request)?;
        let made = self.broker.make_checkpoint(by.by()).await.map_err(reject::status)?;
        Ok(Response::new(v1::MakeCheckpointResponse {
            checkpoint: made.note.to_string(),
            keys: made.keys.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        events::list(&self.broker, self.incarnation, request).await
    }

    type WatchEventsStream = Answers<v1::WatchEventsResponse>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        events::watch(&self.broker, &self.stopped, request).await
    }

    type ExportEventsStream = Answers<v1::ExportEventsResponse>;

    async fn export_events(
        &self,
        request: Request<v1::ExportEventsRequest>,
    ) -> Result<Response<Self::ExportEventsStream>, Status> {
        events::export(&self.broker, &self.stopped, request).await
    }
}

/// A request to revoke, as the use case takes it.
pub(crate) fn to_revoke(wire: v1::RevokeRequest) -> Result<RevokeRequest, Status> {
    let after = match wire.after() {
        v1::After::Reissue => After::Reissue,
        v1::After::Hold => After::Hold,
        v1::After::Unspecified => {
            let message =
                "say what comes after: AFTER_REISSUE (they may ask again) or AFTER_HOLD (nothing new)";
            return Err(Rejection::new(ErrorReason::AfterMissing, message)
                .with("field", "after")
                .into_status());
        }
    };
    Ok(RevokeRequest {
        which: selector::which(&wire.selector.unwrap_or_default())?,
        after,
        reason: wire.reason,
        dry_run: wire.dry_run,
        idempotency_key: Some(wire.idempotency_key).filter(|key| !key.is_empty()),
    })
}

/// The page size; none where the request leaves it to us.
pub(super) fn page_size(wire: i32) -> Result<Option<usize>, Status> {
    match usize::try_from(wire) {
        Ok(0) => Ok(None),
        Ok(size) if size <= limits::PAGE => Ok(Some(size)),
        _ => Err(reject::field(
            "page_size",
            &format!("1 to {}, or 0 for {}", limits::PAGE, limits::PAGE_DEFAULT),
        )),
    }
}

fn spelled_out(SpelledOut { leases, complete }: SpelledOut) -> v1::SpelledOut {
    let told = u64::try_from(leases).unwrap_or(u64::MAX);
    v1::SpelledOut { told, total: told, complete }
}

/// None where nothing is to be done.
fn teardown(steps: &[StepProgress]) -> Option<v1::Teardown> {
    let step = |progress: &StepProgress| v1::TeardownStep {
        name: progress.step.to_string(),
        done: progress.done,
        complete: progress.complete,
        tries: progress.tries,
        last_error: progress.last_error.clone(),
        next_try: progress.next_try.map(dayfly_api::timestamp),
        up_to: progress.after.map(|id| id.to_string()).unwrap_or_default(),
    };
    let steps: Vec<_> = steps.iter().map(step).collect();
    (!steps.is_empty()).then(|| v1::Teardown { steps, ..v1::Teardown::default() })
}

fn counts(counts: &LiveCounts) -> v1::LiveCounts {
    let state = if counts.counted { v1::CountState::Counted } else { v1::CountState::Counting };
    let told = counts.by_owner_and_target.iter().map(|count| v1::LiveCount {
        owner: count.owner.to_string(),
        narrowed_owner: count.narrowed_owner.as_ref().map(ToString::to_string).unwrap_or_default(),
        target: count.target.to_string(),
        leases: count.leases,
    });
    v1::LiveCounts { state: state.into(), leases: counts.leases, by_owner_and_target: told.collect() }
}

fn unowned(found: &UnownedNamespace) -> v1::UnownedNamespace {
    let (denied, last) = found.denied.unwrap_or_default();
    v1::UnownedNamespace {
        cluster: found.cluster.to_string(),
        namespace: found.namespace.to_string(),
        contested: found.contested,
        denied,
        last_denied_millis: last.as_millis(),
        exists: found.exists,
        label_keys: found.label_keys.clone(),
        related: found.related.iter().map(ToString::to_string).collect(),
    }
}

fn owner(view: &OwnerView) -> v1::Owner {
    let spec = &view.owner.spec;
    v1::Owner {
        name: view.owner.name.to_string(),
        cluster: view.cluster.to_string(),
        display_name: spec.display_name.clone(),
        contacts: spec.contacts.clone(),
        namespaces: spec.namespaces.names.iter().map(ToString::to_string).collect(),
        namespace_labels: spec.namespaces.labels.iter().map(label_text).collect(),
    }
}
