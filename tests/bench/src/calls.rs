//! What the callers ask, and how the answers are checked: no phase may skip the work.

use anyhow::Context as _;
use dayfly_api::v1::verifier_service_client::VerifierServiceClient;
use dayfly_api::v1::workload_service_client::WorkloadServiceClient;
use dayfly_api::v1::{IntrospectRequest, IssueRequest, IssueResponse, LeaseState};
use dayfly_core::ids::LeaseId;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::load::Caller;
use crate::world::TARGET;

/// A token as a call carries it, marked sensitive.
pub(crate) fn bearer(token: &str) -> anyhow::Result<MetadataValue<Ascii>> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse()?;
    value.set_sensitive(true);
    Ok(value)
}

/// A credential as it was answered, for a verifier to ask about.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    credential: String,
    lease: String,
}

/// Asks for credentials, of one workload after the other.
pub(crate) struct Issuing {
    client: WorkloadServiceClient<Channel>,
    bearers: Vec<MetadataValue<Ascii>>,
    next: usize,
    /// Every lease that was answered. None for the echo, whose answer is always the same.
    leases: Option<Vec<LeaseId>>,
    /// The newest answer to each workload.
    held: Vec<Option<Held>>,
}

impl Issuing {
    /// Over this connection, for these workloads.
    pub(crate) fn new(channel: Channel, bearers: Vec<MetadataValue<Ascii>>, distinct: bool) -> Self {
        let held = vec![None; bearers.len()];
        Self {
            client: WorkloadServiceClient::new(channel),
            bearers,
            next: 0,
            leases: distinct.then(Vec::new),
            held,
        }
    }

    /// The answer, checked.
    pub(crate) async fn issue(&mut self) -> anyhow::Result<IssueResponse> {
        let at = self.next % self.bearers.len();
        self.next += 1;
        let mut request = Request::new(request());
        request.metadata_mut().insert("authorization", self.bearers[at].clone());
        let answer = self.client.issue(request).await.context("Issue was refused")?.into_inner();
        let lease = answer.lease.as_ref().context("Issue answered without a lease")?;
        anyhow::ensure!(!answer.credential.is_empty(), "Issue answered without a credential");
        anyhow::ensure!(
            lease.state == i32::from(LeaseState::Active),
            "Issue answered a lease that is not active"
        );
        let id: LeaseId = lease.id.parse().context("Issue answered a lease without an id")?;
        if let Some(leases) = &mut self.leases {
            leases.push(id);
            self.held[at] = Some(Held { credential: answer.credential.clone(), lease: lease.id.clone() });
        }
        Ok(answer)
    }

    /// Asks once for each of its workloads.
    pub(crate) async fn once_each(&mut self) -> anyhow::Result<()> {
        for _ in 0..self.bearers.len() {
            self.issue().await?;
        }
        Ok(())
    }

    /// The newest credential of each workload.
    pub(crate) fn held(&self) -> impl Iterator<Item = Held> {
        self.held.iter().flatten().cloned()
    }
}

impl Caller for Issuing {
    async fn call(&mut self) -> anyhow::Result<()> {
        self.issue().await.map(drop)
    }
}

/// What every workload asks for.
pub(crate) fn request() -> IssueRequest {
    IssueRequest {
        target: TARGET.to_owned(),
        scope: vec!["orders:read".to_owned()],
        ..IssueRequest::default()
    }
}

/// Fails if two answers had the same lease; gives how many there were.
pub(crate) fn all_distinct(callers: &[Issuing]) -> anyhow::Result<usize> {
    let mut leases: Vec<_> =
        callers.iter().flat_map(|caller| caller.leases.iter().flatten().copied()).collect();
    let answered = leases.len();
    leases.sort_unstable();
    leases.dedup();
    anyhow::ensure!(leases.len() == answered, "{} leases were answered twice", answered - leases.len());
    Ok(answered)
}

/// Asks whether credentials are good, one after the other.
pub(crate) struct Introspecting {
    client: VerifierServiceClient<Channel>,
    bearer: MetadataValue<Ascii>,
    held: Vec<Held>,
    next: usize,
}

impl Introspecting {
    /// Over this connection, as this verifier, about these credentials.
    pub(crate) fn new(
        channel: Channel,
        bearer: MetadataValue<Ascii>,
        held: Vec<Held>,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(!held.is_empty(), "there is no credential to introspect");
        Ok(Self { client: VerifierServiceClient::new(channel), bearer, held, next: 0 })
    }
}

impl Caller for Introspecting {
    async fn call(&mut self) -> anyhow::Result<()> {
        let held = &self.held[self.next % self.held.len()];
        self.next += 1;
        let mut request = Request::new(IntrospectRequest { credential: held.credential.clone() });
        request.metadata_mut().insert("authorization", self.bearer.clone());
        let answer = self.client.introspect(request).await.context("Introspect was refused")?.into_inner();
        anyhow::ensure!(answer.active, "Introspect says that lease {} is not active", held.lease);
        let lease = answer.lease.context("Introspect answered without a lease")?;
        anyhow::ensure!(lease.id == held.lease, "Introspect answered lease {} for {}", lease.id, held.lease);
        Ok(())
    }
}
