//! The client and its calls.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dayfly_api::v1::operator_service_client::OperatorServiceClient;
use dayfly_api::v1::verifier_service_client::VerifierServiceClient;
use dayfly_api::v1::workload_service_client::WorkloadServiceClient;
use dayfly_api::{CLUSTER_METADATA, v1};
use dayfly_core::ports::{Clock, Rng};
use dayfly_core::secret::Secret;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::builder::Builder;
use crate::credential::Credential;
use crate::error::Error;
use crate::fresh::Fresh;
use crate::retry::Backoff;
use crate::token::{TokenError, TokenSource};
use crate::watch::Watch;
use crate::watch_events::EventWatch;

/// The most bytes of an answer: a page of 1000 leases may be large.
const ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// Random bytes of an idempotency key.
const KEY_BYTES: usize = 16;

/// A client of one broker. Cloning it shares its connection.
///
/// Every call gives [`Error`]: by [`Error::reason`] a program can tell rejections apart.
#[derive(Clone)]
pub struct Client(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) channel: Channel,
    pub(crate) token: Option<Arc<dyn TokenSource>>,
    pub(crate) cluster: Option<MetadataValue<Ascii>>,
    pub(crate) call_timeout: Duration,
    pub(crate) attempts: u32,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
}

impl Client {
    /// A client of the broker at `https://HOST:PORT`.
    pub fn builder(endpoint: impl Into<String>) -> Builder {
        Builder::new(endpoint.into())
    }

    pub(crate) fn of(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.0
    }

    /// Issues a credential, as a workload. Without an idempotency key it gets one of this call, so that a repeat after a
    /// broken connection does not issue a second.
    pub async fn issue(&self, mut request: v1::IssueRequest) -> Result<Credential, Error> {
        self.give_key(&mut request.idempotency_key)?;
        let send = |channel, request| async move { workload(channel).issue(request).await };
        Credential::of(self.call(request, send).await?)
    }

    /// Issues a credential in the place of an earlier one, as a workload. Without an idempotency key it gets one of this
    /// call, so that a repeat after a broken connection is answered with the same lease.
    ///
    /// # Errors
    /// Where [`Error::asks_for_issue`], the earlier lease cannot be renewed, and [`Client::issue`] may give another.
    pub async fn renew(&self, mut request: v1::RenewRequest) -> Result<Credential, Error> {
        self.give_key(&mut request.idempotency_key)?;
        let send = |channel, request| async move { workload(channel).renew(request).await };
        let v1::RenewResponse { credential, lease, renew_after, .. } = self.call(request, send).await?;
        Credential::of(v1::IssueResponse { credential, lease, renew_after })
    }

    /// Gives a lease back, as a workload, and gives it as it is then. One that has ended stays as it ended.
    pub async fn release(&self, lease: impl Into<String>) -> Result<v1::Lease, Error> {
        let send = |channel, request| async move { workload(channel).release(request).await };
        let answer = self.call(v1::ReleaseRequest { lease: lease.into() }, send).await?;
        answer.lease.ok_or(Error::Malformed("lease"))
    }

    /// Watches the caller's own leases, as a workload: what is, then each change.
    ///
    /// # Errors
    /// When the watch cannot begin.
    pub async fn watch_my_leases(&self) -> Result<Watch, Error> {
        Watch::start(self.clone()).await
    }

    /// One stream of a watch.
    pub(crate) async fn watch_once(&self) -> Result<Streaming<v1::WatchMyLeasesResponse>, Error> {
        let send = |channel, request| async move { workload(channel).watch_my_leases(request).await };
        self.open(v1::WatchMyLeasesRequest {}, send).await
    }

    /// Issues a credential and keeps it fresh in the background, until the handle is dropped.
    ///
    /// # Errors
    /// When the first one cannot be had.
    pub async fn keep_fresh(&self, request: v1::IssueRequest) -> Result<Fresh, Error> {
        Fresh::start(self.clone(), request).await
    }

    /// Says who the broker takes the caller for, as a workload.
    pub async fn who_am_i(&self) -> Result<v1::WhoAmIResponse, Error> {
        let send = |channel, request| async move { workload(channel).who_am_i(request).await };
        self.call(v1::WhoAmIRequest {}, send).await
    }

    /// Says whether a credential is good now, as a verifier.
    pub async fn introspect(&self, credential: &Secret) -> Result<v1::IntrospectResponse, Error> {
        let text = credential.expose_text().map_err(|_| Error::Config("a credential is text".to_owned()))?;
        let request = v1::IntrospectRequest { credential: text.to_owned() };
        let send = |channel, request| async move { verifier(channel).introspect(request).await };
        self.call(request, send).await
    }

    /// One stream of what is revoked, as a verifier: all that is in force, or what came after `resume` where that is not
    /// empty. Whoever is cut calls again.
    pub async fn watch_revocations(
        &self,
        resume: impl Into<String>,
    ) -> Result<Streaming<v1::WatchRevocationsResponse>, Error> {
        let request = v1::WatchRevocationsRequest { resume: resume.into() };
        let send = |channel, request| async move { verifier(channel).watch_revocations(request).await };
        self.open(request, send).await
    }

    /// The public keys that credentials are signed with; needs no token.
    pub async fn get_keys(&self) -> Result<v1::GetKeysResponse, Error> {
        let send = |channel, request| async move { verifier(channel).get_keys(request).await };
        self.call(v1::GetKeysRequest {}, send).await
    }

    /// A page of leases, as an operator.
    pub async fn list_leases(&self, request: v1::ListLeasesRequest) -> Result<v1::ListLeasesResponse, Error> {
        let send = |channel, request| async move { operator(channel).list_leases(request).await };
        self.call(request, send).await
    }

    /// One lease, as an operator.
    pub async fn get_lease(&self, id: impl Into<String>) -> Result<v1::Lease, Error> {
        let send = |channel, request| async move { operator(channel).get_lease(request).await };
        let answer = self.call(v1::GetLeaseRequest { id: id.into() }, send).await?;
        answer.lease.ok_or(Error::Malformed("lease"))
    }

    /// Ends every credential that the selector covers, as an operator. Without an idempotency key it gets one of this
    /// call, so that a repeat does not write a second rule.
    pub async fn revoke(&self, mut request: v1::RevokeRequest) -> Result<v1::RevokeResponse, Error> {
        if !request.dry_run {
            self.give_key(&mut request.idempotency_key)?;
        }
        let send = |channel, request| async move { operator(channel).revoke(request).await };
        self.call(request, send).await
    }

    /// A revocation, as an operator: its rule is there.
    pub async fn get_revocation(&self, id: impl Into<String>) -> Result<v1::GetRevocationResponse, Error> {
        let send = |channel, request| async move { operator(channel).get_revocation(request).await };
        let answer = self.call(v1::GetRevocationRequest { id: id.into() }, send).await?;
        if answer.rule.is_some() { Ok(answer) } else { Err(Error::Malformed("rule")) }
    }

    /// A page of revocations, the newest first, as an operator.
    pub async fn list_revocations(
        &self,
        request: v1::ListRevocationsRequest,
    ) -> Result<v1::ListRevocationsResponse, Error> {
        let send = |channel, request| async move { operator(channel).list_revocations(request).await };
        self.call(request, send).await
    }

    /// Ends the hold of a revocation, as an operator. A repeat changes nothing, and says so.
    pub async fn lift_revocation(
        &self,
        request: v1::LiftRevocationRequest,
    ) -> Result<v1::LiftRevocationResponse, Error> {
        let send = |channel, request| async move { operator(channel).lift_revocation(request).await };
        self.call(request, send).await
    }

    /// A page of the Owners that the caller may list, as an operator.
    pub async fn list_owners(&self, request: v1::ListOwnersRequest) -> Result<v1::ListOwnersResponse, Error> {
        let send = |channel, request| async move { operator(channel).list_owners(request).await };
        self.call(request, send).await
    }

    /// A page of the namespaces that no Owner answers for, as an operator.
    pub async fn list_unowned(
        &self,
        request: v1::ListUnownedRequest,
    ) -> Result<v1::ListUnownedResponse, Error> {
        let send = |channel, request| async move { operator(channel).list_unowned(request).await };
        self.call(request, send).await
    }

    /// The signing keys, as an operator.
    pub async fn list_keys(&self, request: v1::ListKeysRequest) -> Result<v1::ListKeysResponse, Error> {
        let send = |channel, request| async move { operator(channel).list_keys(request).await };
        self.call(request, send).await
    }

    /// Publishes a next signing key, or lets it sign at once, as an operator.
    pub async fn rotate_key(&self, request: v1::RotateKeyRequest) -> Result<v1::RotateKeyResponse, Error> {
        let send = |channel, request| async move { operator(channel).rotate_key(request).await };
        self.call(request, send).await
    }

    /// Ends a signing key and all that it signed, as an operator.
    pub async fn revoke_key(&self, request: v1::RevokeKeyRequest) -> Result<v1::RevokeKeyResponse, Error> {
        let send = |channel, request| async move { operator(channel).revoke_key(request).await };
        self.call(request, send).await
    }

    /// A backup of the store, as an operator: the bytes of its file, then what it is. It is whole only where the last
    /// message says so.
    pub async fn create_backup(&self) -> Result<Streaming<v1::CreateBackupResponse>, Error> {
        let send = |channel, request| async move { operator(channel).create_backup(request).await };
        self.open(v1::CreateBackupRequest {}, send).await
    }

    /// Says that a store that was restored is the one that counts, as an operator.
    pub async fn adopt_store(&self) -> Result<v1::AdoptStoreResponse, Error> {
        let send = |channel, request| async move { operator(channel).adopt_store(request).await };
        self.call(v1::AdoptStoreRequest {}, send).await
    }

    /// Has a checkpoint of the audit log made, of all that is recorded now, as an operator.
    pub async fn make_checkpoint(&self) -> Result<v1::MakeCheckpointResponse, Error> {
        let send = |channel, request| async move { operator(channel).make_checkpoint(request).await };
        self.call(v1::MakeCheckpointRequest {}, send).await
    }

    /// A page of events of the audit log, as an operator.
    pub async fn list_events(&self, request: v1::ListEventsRequest) -> Result<v1::ListEventsResponse, Error> {
        let send = |channel, request| async move { operator(channel).list_events(request).await };
        self.call(request, send).await
    }

    /// Events as they come, as an operator: it goes on where it is cut.
    pub async fn watch_events(&self, request: v1::WatchEventsRequest) -> Result<EventWatch, Error> {
        EventWatch::start(self.clone(), request).await
    }

    /// One stream of such a watch.
    pub(crate) async fn watch_events_once(
        &self,
        request: v1::WatchEventsRequest,
    ) -> Result<Streaming<v1::WatchEventsResponse>, Error> {
        let send = |channel, request| async move { operator(channel).watch_events(request).await };
        self.open(request, send).await
    }

    /// The audit log's records from a position on, as an operator: the stream ends when all were told.
    pub async fn export_events(&self, from: u64) -> Result<Streaming<v1::ExportEventsResponse>, Error> {
        let send = |channel, request| async move { operator(channel).export_events(request).await };
        self.open(v1::ExportEventsRequest { from }, send).await
    }

    /// Why a workload is answered as it is, as an operator.
    pub async fn explain(&self, request: v1::ExplainRequest) -> Result<v1::ExplainResponse, Error> {
        let send = |channel, request| async move { operator(channel).explain(request).await };
        self.call(request, send).await
    }

    /// What the caller would be answered now, as a workload: its own reason.
    pub async fn explain_own(&self, asked: v1::AskedFor) -> Result<v1::Explanation, Error> {
        let send = |channel, request| async move { workload(channel).explain(request).await };
        let request = v1::WorkloadServiceExplainRequest { asked: Some(asked) };
        let answer = self.call(request, send).await?;
        answer.explanation.ok_or(Error::Malformed("explanation"))
    }

    fn give_key(&self, key: &mut String) -> Result<(), Error> {
        if key.is_empty() {
            let mut bytes = [0; KEY_BYTES];
            self.0.rng.fill(&mut bytes).map_err(|_| Error::Randomness)?;
            *key = format!("{:032x}", u128::from_be_bytes(bytes));
        }
        Ok(())
    }

    /// One call: its tries, within its deadline.
    async fn call<Q, A, F, Sent>(&self, message: Q, send: F) -> Result<A, Error>
    where
        Q: Clone + Send,
        F: Fn(Channel, Request<Q>) -> Sent + Send,
        Sent: Future<Output = Result<Response<A>, Status>> + Send,
    {
        self.tries(message, true, send).await
    }

    /// The beginning of a stream. It has the deadline of a call, but that is not told: it would be the whole stream's.
    async fn open<Q, A, F, Sent>(&self, message: Q, send: F) -> Result<A, Error>
    where
        Q: Clone + Send,
        F: Fn(Channel, Request<Q>) -> Sent + Send,
        Sent: Future<Output = Result<Response<A>, Status>> + Send,
    {
        self.tries(message, false, send).await
    }

    async fn tries<Q, A, F, Sent>(&self, message: Q, tell_deadline: bool, send: F) -> Result<A, Error>
    where
        Q: Clone + Send,
        F: Fn(Channel, Request<Q>) -> Sent + Send,
        Sent: Future<Output = Result<Response<A>, Status>> + Send,
    {
        let within = self.0.call_timeout;
        let deadline = Instant::now() + within;
        let mut last = None;
        for attempt in 1.. {
            let told = tell_deadline.then_some(deadline);
            let tried = timeout_at(deadline, self.once(message.clone(), told, &send)).await;
            let error = match tried {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if Instant::now() < deadline => error,
                Ok(Err(_)) | Err(_) => break,
            };
            if attempt >= self.0.attempts || !error.is_worth_repeating() {
                return Err(error);
            }
            let pause = Backoff::CALL.pause(attempt, error.retry_after(), &*self.0.rng);
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::debug!(attempt, reason = error.reason(), ?pause, "asking again");
            sleep(pause).await;
            last = Some(Box::new(error));
        }
        Err(Error::Deadline { within, last })
    }

    async fn once<Q, A, F, Sent>(&self, message: Q, deadline: Option<Instant>, send: &F) -> Result<A, Error>
    where
        F: Fn(Channel, Request<Q>) -> Sent,
        Sent: Future<Output = Result<Response<A>, Status>>,
    {
        let mut request = Request::new(message);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        let metadata = request.metadata_mut();
        if let Some(source) = &self.0.token {
            metadata.insert(http::header::AUTHORIZATION.as_str(), bearer(&*source.token().await?)?);
        }
        if let Some(cluster) = &self.0.cluster {
            metadata.insert(CLUSTER_METADATA, cluster.clone());
        }
        let answer = send(self.0.channel.clone(), request).await;
        answer.map(Response::into_inner).map_err(|status| Error::of_status(&status))
    }
}

/// The token as metadata that is never logged nor kept in a header table.
fn bearer(token: &Secret) -> Result<MetadataValue<Ascii>, Error> {
    let whole = Secret::from([b"Bearer ", token.expose()].concat());
    let no_token = || TokenError("the token cannot be sent in a header".to_owned());
    let mut value: MetadataValue<Ascii> =
        whole.expose_text().map_err(|_| no_token())?.parse().map_err(|_| no_token())?;
    value.set_sensitive(true);
    Ok(value)
}

fn workload(channel: Channel) -> WorkloadServiceClient<Channel> {
    WorkloadServiceClient::new(channel)
}

fn verifier(channel: Channel) -> VerifierServiceClient<Channel> {
    VerifierServiceClient::new(channel)
}

fn operator(channel: Channel) -> OperatorServiceClient<Channel> {
    OperatorServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES)
}
