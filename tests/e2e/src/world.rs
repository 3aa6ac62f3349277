//! A cluster, a broker and its policy, and who acts in them.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use dayfly_e2e::cluster::Kind;
//! use dayfly_e2e::world::{World, owned_by};
//!
//! let world = World::shared(Kind::StandIn).await?;
//! let payments = world.team("payments").await?;
//! let pod = world.pod(&payments.namespace, "api").await?;
//! let issued = pod.issue(&payments.target).await?;
//! let operator = world.operator(&["revoke"], Some(&payments.owner)).await?;
//! operator.revoke(owned_by(&payments.owner)).await?;
//! # Ok(())
//! # }
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use dayfly_api::v1;
use dayfly_api::v1::operator_service_client::OperatorServiceClient;
use dayfly_api::v1::verifier_service_client::VerifierServiceClient;
use dayfly_api::v1::workload_service_client::WorkloadServiceClient;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::broker::{Broker, Options};
use crate::cluster::{Cluster, Kind, TOKEN_SECS};
use crate::policy;
use crate::run::until;

/// The audience of workloads' tokens.
pub const WORKLOAD: &str = "dayfly";
/// The audience of operators' tokens.
pub const OPERATOR: &str = "dayfly-operator";
/// The audience of verifiers' tokens.
pub const VERIFIER: &str = "dayfly-verifier";

/// A cluster, a broker and its policy. What a test makes in it has names of its own.
pub struct World {
    cluster: Arc<Cluster>,
    broker: Arc<Broker>,
    number: u32,
}

/// A team with all that its workloads need: a namespace that it owns, with service account `api`, a target, and Grant
/// `api-ledger` of scopes `read` and `write`. Service account `gate` of the namespace is the target's verifier.
#[derive(Debug, Clone)]
pub struct Team {
    /// Its one namespace.
    pub namespace: String,
    /// It, as an Owner.
    pub owner: String,
    /// The target.
    pub target: String,
    /// The Owner, as written.
    pub owner_object: Value,
    /// The Target, as written.
    pub target_object: Value,
    /// The Grant, as written.
    pub grant_object: Value,
}

impl World {
    /// The broker and the cluster of this kind that tests share.
    pub async fn shared(kind: Kind) -> Result<Self> {
        static BROKERS: OnceCell<Mutex<HashMap<Kind, Arc<Broker>>>> = OnceCell::const_new();
        let brokers = BROKERS.get_or_init(async || Mutex::default()).await;
        let cluster = Cluster::shared(kind).await?;
        let mut brokers = brokers.lock().await;
        if let Some(broker) = brokers.get(&kind) {
            return Ok(Self::of(cluster, Arc::clone(broker)));
        }
        let broker = Arc::new(Broker::start(cluster.access().await?, Options::default()).await?);
        brokers.insert(kind, Arc::clone(&broker));
        drop(brokers);
        Ok(Self::of(cluster, broker))
    }

    /// A broker of its own on the cluster of this kind that tests share.
    pub async fn with_own_broker(kind: Kind, options: Options) -> Result<Self> {
        Self::on(Cluster::shared(kind).await?, options).await
    }

    /// A broker of its own on this cluster.
    pub async fn on(cluster: Arc<Cluster>, options: Options) -> Result<Self> {
        let broker = Arc::new(Broker::start(cluster.access().await?, options).await?);
        Ok(Self::of(cluster, broker))
    }

    /// This broker and cluster.
    pub fn of(cluster: Arc<Cluster>, broker: Arc<Broker>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        Self { cluster, broker, number: NUMBER.fetch_add(1, Ordering::Relaxed) }
    }

    /// The same, for another test.
    #[must_use]
    pub fn sharing(&self) -> Self {
        Self::of(Arc::clone(&self.cluster), Arc::clone(&self.broker))
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Whether the cluster is a real one.
    pub fn is_real(&self) -> bool {
        self.cluster.kind() == Kind::Real
    }

    /// This name, as no other test has it.
    pub fn named(&self, name: &str) -> String {
        format!("{name}-{}", self.number)
    }

    /// Makes a namespace of nobody's, with service accounts `api` and `gate`, and gives its name.
    pub async fn namespace(&self, name: &str) -> Result<String> {
        let namespace = self.named(name);
        self.cluster.create_namespace(&namespace).await?;
        for account in ["api", "gate"] {
            self.cluster.create_service_account(&namespace, account).await?;
        }
        Ok(namespace)
    }

    /// Makes a team, and returns when its policy is in force.
    pub async fn team(&self, name: &str) -> Result<Team> {
        let team = self.unsettled_team(name).await?;
        self.put(&[&team.owner_object, &team.target_object, &team.grant_object]).await?;
        Ok(team)
    }

    /// Makes a team's namespace and service accounts, and none of its policy.
    pub async fn unsettled_team(&self, name: &str) -> Result<Team> {
        let namespace = self.namespace(name).await?;
        let owner = namespace.clone();
        let target = format!("{namespace}-ledger");
        let mut target_object = policy::target(&target, &[&namespace]);
        policy::add_verifier(&mut target_object, &namespace, "gate");
        Ok(Team {
            owner_object: policy::owner(&owner, &[&namespace]),
            target_object,
            grant_object: policy::grant(&namespace, "api-ledger", "api", &target, &["read", "write"]),
            namespace,
            owner,
            target,
        })
    }

    /// Writes policy objects, each in place of its earlier version, and returns when they are in force.
    pub async fn put(&self, objects: &[&Value]) -> Result<()> {
        for object in objects {
            self.broker.put(object)?;
        }
        self.settle().await
    }

    /// Removes policy objects, and returns when they are not in force any more.
    pub async fn remove(&self, objects: &[&Value]) -> Result<()> {
        for object in objects {
            self.broker.remove(object)?;
        }
        self.settle().await
    }

    /// Returns when the policy folder as it is now is in force.
    pub async fn settle(&self) -> Result<()> {
        let (marker, file) = self.broker.put_marker()?;
        let admin = self.admin().await?;
        until(async || {
            let owners = admin.all_owners().await?;
            Ok(owners.iter().any(|owner| owner.name == marker))
        })
        .await
        .context("the policy folder is not read again")?;
        Ok(std::fs::remove_file(file)?)
    }

    /// Makes a running pod of a service account.
    pub async fn pod(&self, namespace: &str, service_account: &str) -> Result<Pod<'_>> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("{service_account}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let uid = self.cluster.create_pod(namespace, &name, service_account).await?;
        Ok(self.pod_that_is(namespace, service_account, &name, &uid))
    }

    /// A running pod that something else made.
    pub fn pod_that_is(&self, namespace: &str, service_account: &str, name: &str, uid: &str) -> Pod<'_> {
        Pod {
            world: self,
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            token: OnceCell::new(),
        }
    }

    /// A token of a service account that is bound to no pod.
    pub async fn unbound_token(
        &self,
        namespace: &str,
        service_account: &str,
        audience: &str,
    ) -> Result<String> {
        let token = self.cluster.token(namespace, service_account, &[audience], None, TOKEN_SECS).await?;
        self.broker.keep_secret(&token);
        Ok(token)
    }

    /// A token for workloads that is bound to an object of this kind.
    pub async fn token_bound_to(
        &self,
        namespace: &str,
        service_account: &str,
        kind: &str,
        name: &str,
    ) -> Result<String> {
        let bound = json!({ "apiVersion": "v1", "kind": kind, "name": name });
        let cluster = &self.cluster;
        let token =
            cluster.token_bound_to(namespace, service_account, &[WORKLOAD], Some(bound), TOKEN_SECS).await?;
        self.broker.keep_secret(&token);
        Ok(token)
    }

    /// An operator with these rights: on the owner named, or on all.
    pub async fn operator(&self, verbs: &[&str], owner: Option<&str>) -> Result<Operator> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let namespace = self.operators().await?;
        let account = format!("operator-{}-{}", self.number, NUMBER.fetch_add(1, Ordering::Relaxed));
        self.cluster.create_service_account(&namespace, &account).await?;
        if !verbs.is_empty() {
            self.cluster.allow(&namespace, &account, verbs, owner).await?;
        }
        self.operator_of(&namespace, &account).await
    }

    /// An operator with these rights on signing keys: on the purpose or key named, or on all.
    pub async fn key_operator(&self, verbs: &[&str], name: Option<&str>) -> Result<Operator> {
        self.operator_on("keys", verbs, name).await
    }

    /// An operator with these rights on this resource: on the one named, or on all.
    pub async fn operator_on(&self, resource: &str, verbs: &[&str], name: Option<&str>) -> Result<Operator> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let namespace = self.operators().await?;
        let account = format!("keeper-{}-{}", self.number, NUMBER.fetch_add(1, Ordering::Relaxed));
        self.cluster.create_service_account(&namespace, &account).await?;
        self.cluster.allow_on(resource, &namespace, &account, verbs, name).await?;
        self.operator_of(&namespace, &account).await
    }

    /// An operator who may list events: of the owner named, or all.
    pub async fn auditor(&self, owner: Option<&str>) -> Result<Operator> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let namespace = self.operators().await?;
        let account = format!("auditor-{}-{}", self.number, NUMBER.fetch_add(1, Ordering::Relaxed));
        self.cluster.create_service_account(&namespace, &account).await?;
        self.cluster.allow_on("events", &namespace, &account, &["list"], owner).await?;
        self.operator_of(&namespace, &account).await
    }

    /// An operator with all rights on owners.
    pub async fn admin(&self) -> Result<Operator> {
        let namespace = self.operators().await?;
        self.operator_of(&namespace, "admin").await
    }

    async fn operator_of(&self, namespace: &str, account: &str) -> Result<Operator> {
        Ok(self.operator_with(self.unbound_token(namespace, account, OPERATOR).await?))
    }

    /// Somebody who calls as an operator with this token.
    pub fn operator_with(&self, token: String) -> Operator {
        self.broker.keep_secret(&token);
        Operator {
            token,
            client: OperatorServiceClient::new(self.broker.channel()),
            broker: self.broker.clone(),
        }
    }

    /// The namespace of operators, with service account `admin`.
    async fn operators(&self) -> Result<String> {
        const NAMESPACE: &str = "operators";
        static MADE: Mutex<()> = Mutex::const_new(());
        let _one_at_a_time = MADE.lock().await;
        if self.cluster.once("operators") {
            self.cluster.create_namespace(NAMESPACE).await?;
            self.cluster.create_service_account(NAMESPACE, "admin").await?;
            self.cluster.allow(NAMESPACE, "admin", &["get", "list", "revoke"], None).await?;
        }
        Ok(NAMESPACE.to_owned())
    }

    /// The verifier that this service account is, in a pod of its own.
    pub async fn verifier(&self, namespace: &str, service_account: &str) -> Result<Verifier> {
        let pod = self.pod(namespace, service_account).await?;
        let token = pod.token_for(VERIFIER).await?;
        Ok(Verifier { token, client: self.verifiers() })
    }

    /// A client of `WorkloadService` that brings no token.
    pub fn workloads(&self) -> WorkloadServiceClient<Channel> {
        WorkloadServiceClient::new(self.broker.channel())
    }

    /// A client of `VerifierService` that brings no token.
    pub fn verifiers(&self) -> VerifierServiceClient<Channel> {
        VerifierServiceClient::new(self.broker.channel())
    }

    /// What the broker serves at this path over HTTPS; the status where that is not 200.
    pub async fn fetch(&self, path: &str) -> Result<Result<String, u16>> {
        let (status, body) = self.curl(path, &[]).await?;
        Ok(if status == 200 { Ok(body) } else { Err(status) })
    }

    /// What the broker answers over HTTPS to `curl` with these arguments.
    pub async fn curl(&self, path: &str, arguments: &[&str]) -> Result<(u16, String)> {
        let url = format!("https://127.0.0.1:{}{path}", self.broker.port());
        let output = tokio::process::Command::new("curl")
            .args(["--silent", "--show-error", "--path-as-is", "--write-out", "\n%{http_code}", "--cacert"])
            .arg(self.broker.dir().join("ca.crt"))
            .args(arguments)
            .arg(url)
            .output()
            .await?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let (body, status) = text.rsplit_once('\n').context("curl told no status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    /// The public keys, as gRPC tells them.
    pub async fn keys(&self) -> Result<v1::GetKeysResponse> {
        Ok(self.verifiers().get_keys(v1::GetKeysRequest {}).await?.into_inner())
    }

    /// Asks for a credential with this token.
    pub async fn issue_with(
        &self,
        token: &str,
        request: v1::IssueRequest,
    ) -> Result<v1::IssueResponse, Status> {
        let issued = self.workloads().issue(bearing(token, request)).await?.into_inner();
        self.broker.keep_secret(&issued.credential);
        Ok(issued)
    }
}

impl Drop for World {
    #[expect(clippy::panic, reason = "this is how a test fails")]
    fn drop(&mut self) {
        if !std::thread::panicking()
            && let Err(error) = self.broker.check_log()
        {
            panic!("{error:#}");
        }
    }
}

/// A running pod.
pub struct Pod<'w> {
    world: &'w World,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    token: OnceCell<String>,
}

impl Pod<'_> {
    /// Its projected token for Dayfly: the same each time.
    pub async fn token(&self) -> Result<String> {
        Ok(self.token.get_or_try_init(|| self.token_for(WORKLOAD)).await?.clone())
    }

    /// A new projected token for this audience; an empty one is the API server's own.
    pub async fn token_for(&self, audience: &str) -> Result<String> {
        self.token_of_life(audience, TOKEN_SECS).await
    }

    /// A new projected token for this audience that lives so many seconds, at least 600.
    pub async fn token_of_life(&self, audience: &str, secs: u32) -> Result<String> {
        let audiences: Vec<_> = Some(audience).filter(|audience| !audience.is_empty()).into_iter().collect();
        self.token_for_all(&audiences, secs).await
    }

    /// A new projected token for all of these audiences at once.
    pub async fn token_for_all(&self, audiences: &[&str], secs: u32) -> Result<String> {
        let pod = Some((self.name.as_str(), self.uid.as_str()));
        let cluster = &self.world.cluster;
        let token = cluster.token(&self.namespace, &self.service_account, audiences, pod, secs).await?;
        self.world.broker.keep_secret(&token);
        Ok(token)
    }

    /// Gets a credential for a target: all that its Grant has.
    pub async fn issue(&self, target: &str) -> Result<v1::IssueResponse> {
        self.ask(asking_for(target)).await?.map_err(Into::into)
    }

    /// Is denied a credential for a target.
    pub async fn is_denied(&self, target: &str) -> Result<Status> {
        self.ask(asking_for(target)).await?.err().context("a credential was issued")
    }

    /// Asks for a credential.
    ///
    /// # Errors
    /// When there is no token to be had; the broker's answer is the inner result.
    pub async fn ask(&self, request: v1::IssueRequest) -> Result<Result<v1::IssueResponse, Status>> {
        Ok(self.world.issue_with(&self.token().await?, request).await)
    }

    /// Gets a credential in the place of an earlier lease: all that that one has.
    pub async fn renew(&self, lease: &str) -> Result<v1::RenewResponse> {
        self.ask_to_renew(renewal_of(lease)).await?.map_err(Into::into)
    }

    /// Asks for a credential in the place of an earlier lease.
    ///
    /// # Errors
    /// When there is no token to be had; the broker's answer is the inner result.
    pub async fn ask_to_renew(&self, request: v1::RenewRequest) -> Result<Result<v1::RenewResponse, Status>> {
        let request = bearing(&self.token().await?, request);
        let answer = self.world.workloads().renew(request).await.map(Response::into_inner);
        if let Ok(renewed) = &answer {
            self.world.broker.keep_secret(&renewed.credential);
        }
        Ok(answer)
    }

    /// Gives a lease back.
    ///
    /// # Errors
    /// When there is no token to be had; the broker's answer is the inner result.
    pub async fn release(&self, lease: &str) -> Result<Result<v1::Lease, Status>> {
        let request = bearing(&self.token().await?, v1::ReleaseRequest { lease: lease.to_owned() });
        let answer = self.world.workloads().release(request).await;
        Ok(answer.map(|answer| answer.into_inner().lease.unwrap_or_default()))
    }

    /// Watches its own leases.
    ///
    /// # Errors
    /// When there is no token to be had; the broker's answer is the inner result.
    pub async fn watch(&self) -> Result<Result<Streaming<v1::WatchMyLeasesResponse>, Status>> {
        let request = bearing(&self.token().await?, v1::WatchMyLeasesRequest {});
        Ok(self.world.workloads().watch_my_leases(request).await.map(Response::into_inner))
    }

    /// Asks who it is.
    pub async fn who_am_i(&self) -> Result<v1::WhoAmIResponse> {
        let request = bearing(&self.token().await?, v1::WhoAmIRequest {});
        Ok(self.world.workloads().who_am_i(request).await?.into_inner())
    }
}

/// Somebody with a token of audience `dayfly-operator`.
#[derive(Clone)]
pub struct Operator {
    token: String,
    client: OperatorServiceClient<Channel>,
    broker: Arc<Broker>,
}

impl Operator {
    /// Its token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Revokes what the selector covers: it may be issued again.
    pub async fn revoke(&self, selector: v1::Selector) -> Result<v1::Rule, Status> {
        self.rule(self.ask(revocation(selector, v1::After::Reissue)).await?)
    }

    /// Revokes what the selector covers, and holds it.
    pub async fn hold(&self, selector: v1::Selector) -> Result<v1::Rule, Status> {
        self.rule(self.ask(revocation(selector, v1::After::Hold)).await?)
    }

    fn rule(&self, answer: v1::RevokeResponse) -> Result<v1::Rule, Status> {
        let log = self.broker.dir();
        answer
            .rule
            .ok_or_else(|| Status::unknown(format!("Revoke answered without a rule, see {}", log.display())))
    }

    /// Revokes as this request says.
    pub async fn ask(&self, request: v1::RevokeRequest) -> Result<v1::RevokeResponse, Status> {
        Ok(self.client.clone().revoke(bearing(&self.token, request)).await?.into_inner())
    }

    /// The signing keys, those that are gone too.
    pub async fn signing_keys(&self) -> Result<Vec<v1::KeyInfo>, Status> {
        let request = bearing(&self.token, v1::ListKeysRequest { include_gone: true });
        Ok(self.client.clone().list_keys(request).await?.into_inner().keys)
    }

    /// Makes a next key for this purpose; or one that signs at once.
    pub async fn rotate_key(&self, purpose: &str, now: bool) -> Result<v1::RotateKeyResponse, Status> {
        let request = v1::RotateKeyRequest { purpose: purpose.to_owned(), now };
        Ok(self.client.clone().rotate_key(bearing(&self.token, request)).await?.into_inner())
    }

    /// Ends this key.
    pub async fn revoke_key(&self, key: &str, reason: &str) -> Result<v1::RevokeKeyResponse, Status> {
        let request = v1::RevokeKeyRequest { key_id: key.to_owned(), reason: reason.to_owned() };
        Ok(self.client.clone().revoke_key(bearing(&self.token, request)).await?.into_inner())
    }

    /// A backup of the broker's store: its file, and what it says of itself.
    pub async fn backup(&self) -> Result<(Vec<u8>, v1::BackupInfo), Status> {
        let request = bearing(&self.token, v1::CreateBackupRequest {});
        let mut stream = self.client.clone().create_backup(request).await?.into_inner();
        let (mut file, mut complete) = (Vec::new(), None);
        while let Some(message) = stream.message().await? {
            file.extend(message.data);
            complete = complete.or(message.complete);
        }
        Ok((file, complete.ok_or_else(|| Status::unknown("the backup is not complete"))?))
    }

    /// Adopts the broker's store.
    pub async fn adopt_store(&self) -> Result<v1::AdoptStoreResponse, Status> {
        let request = bearing(&self.token, v1::AdoptStoreRequest {});
        Ok(self.client.clone().adopt_store(request).await?.into_inner())
    }

    /// The lease of this id.
    pub async fn lease(&self, id: &str) -> Result<v1::Lease, Status> {
        let request = bearing(&self.token, v1::GetLeaseRequest { id: id.to_owned() });
        let answer = self.client.clone().get_lease(request).await?.into_inner();
        answer.lease.ok_or_else(|| Status::unknown("GetLease answered without a lease"))
    }

    /// The rule of the revocation of this id.
    pub async fn revocation(&self, id: &str) -> Result<v1::Rule, Status> {
        let answer = self.revocation_and_counts(id).await?;
        answer.rule.ok_or_else(|| Status::unknown("GetRevocation answered without a rule"))
    }

    /// The revocation of this id.
    pub async fn revocation_and_counts(&self, id: &str) -> Result<v1::GetRevocationResponse, Status> {
        let request = bearing(&self.token, v1::GetRevocationRequest { id: id.to_owned() });
        Ok(self.client.clone().get_revocation(request).await?.into_inner())
    }

    /// Lifts the hold of this id.
    pub async fn lift(&self, id: &str) -> Result<v1::LiftRevocationResponse, Status> {
        let request = v1::LiftRevocationRequest { id: id.to_owned(), reason: "it is over".to_owned() };
        Ok(self.client.clone().lift_revocation(bearing(&self.token, request)).await?.into_inner())
    }

    /// A page of revocations.
    pub async fn revocations(
        &self,
        request: v1::ListRevocationsRequest,
    ) -> Result<v1::ListRevocationsResponse, Status> {
        Ok(self.client.clone().list_revocations(bearing(&self.token, request)).await?.into_inner())
    }

    /// A page of leases.
    pub async fn leases(&self, request: v1::ListLeasesRequest) -> Result<v1::ListLeasesResponse, Status> {
        Ok(self.client.clone().list_leases(bearing(&self.token, request)).await?.into_inner())
    }

    /// All leases that pass, over as many pages as it takes.
    pub async fn all_leases(&self, mut request: v1::ListLeasesRequest) -> Result<Vec<v1::Lease>, Status> {
        let mut all = Vec::new();
        loop {
            let page = self.leases(request.clone()).await?;
            all.extend(page.leases);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// A page of Owners.
    pub async fn owners(&self, request: v1::ListOwnersRequest) -> Result<v1::ListOwnersResponse, Status> {
        Ok(self.client.clone().list_owners(bearing(&self.token, request)).await?.into_inner())
    }

    /// All events that pass, over as many pages as it takes.
    pub async fn events(&self, filter: v1::EventFilter) -> Result<Vec<v1::Event>, Status> {
        let mut all = Vec::new();
        let mut request =
            v1::ListEventsRequest { filter: Some(filter), page_size: 1000, ..Default::default() };
        loop {
            let asked = bearing(&self.token, request.clone());
            let page = self.client.clone().list_events(asked).await?.into_inner();
            all.extend(page.events);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Watches events.
    pub async fn watch_events(
        &self,
        request: v1::WatchEventsRequest,
    ) -> Result<Streaming<v1::WatchEventsResponse>, Status> {
        Ok(self.client.clone().watch_events(bearing(&self.token, request)).await?.into_inner())
    }

    /// Exports events from a position on.
    pub async fn export_events(&self, from: u64) -> Result<Streaming<v1::ExportEventsResponse>, Status> {
        let request = bearing(&self.token, v1::ExportEventsRequest { from });
        Ok(self.client.clone().export_events(request).await?.into_inner())
    }

    /// Why.
    pub async fn explain(&self, request: v1::ExplainRequest) -> Result<v1::ExplainResponse, Status> {
        Ok(self.client.clone().explain(bearing(&self.token, request)).await?.into_inner())
    }

    /// All namespaces without Owner.
    pub async fn all_unowned(&self) -> Result<Vec<v1::UnownedNamespace>, Status> {
        let mut all = Vec::new();
        let mut request = v1::ListUnownedRequest { page_size: 1000, page_token: String::new() };
        loop {
            let asked = bearing(&self.token, request.clone());
            let page = self.client.clone().list_unowned(asked).await?.into_inner();
            all.extend(page.namespaces);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// All Owners that it may list.
    pub async fn all_owners(&self) -> Result<Vec<v1::Owner>, Status> {
        let mut all = Vec::new();
        let mut request = v1::ListOwnersRequest { page_size: 1000, page_token: String::new() };
        loop {
            let page = self.owners(request.clone()).await?;
            all.extend(page.owners);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }
}

/// Somebody with a token of audience `dayfly-verifier`.
#[derive(Clone)]
pub struct Verifier {
    token: String,
    client: VerifierServiceClient<Channel>,
}

impl Verifier {
    /// Its token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Asks whether a credential is good now.
    pub async fn introspect(&self, credential: &str) -> Result<v1::IntrospectResponse, Status> {
        let request = v1::IntrospectRequest { credential: credential.to_owned() };
        Ok(self.client.clone().introspect(bearing(&self.token, request)).await?.into_inner())
    }

    /// Watches revocations, from where `resume` says.
    pub async fn watch(&self, resume: &str) -> Result<Streaming<v1::WatchRevocationsResponse>, Status> {
        self.watch_over(self.client.clone(), resume).await
    }

    /// The same, over another connection.
    pub async fn watch_by(
        &self,
        channel: Channel,
        resume: &str,
    ) -> Result<Streaming<v1::WatchRevocationsResponse>, Status> {
        self.watch_over(VerifierServiceClient::new(channel), resume).await
    }

    async fn watch_over(
        &self,
        mut client: VerifierServiceClient<Channel>,
        resume: &str,
    ) -> Result<Streaming<v1::WatchRevocationsResponse>, Status> {
        let request = v1::WatchRevocationsRequest { resume: resume.to_owned() };
        client.watch_revocations(bearing(&self.token, request)).await.map(Response::into_inner)
    }

    /// The state of a credential's lease, as introspection has it.
    pub async fn state(&self, credential: &str) -> Result<v1::LeaseState> {
        let answer = self.introspect(credential).await?;
        let state = answer.lease.context("introspection tells no lease")?.state();
        anyhow::ensure!(
            answer.active == (state == v1::LeaseState::Active),
            "active: {}, {state:?}",
            answer.active
        );
        Ok(state)
    }
}

/// A call with this token.
#[expect(clippy::expect_used, reason = "tests' tokens are fit for metadata")]
pub fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a token of ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

/// A request for all that the one matching Grant of a target has.
pub fn asking_for(target: &str) -> v1::IssueRequest {
    v1::IssueRequest { target: target.to_owned(), ..v1::IssueRequest::default() }
}

/// A request for all that an earlier lease has.
pub fn renewal_of(lease: &str) -> v1::RenewRequest {
    v1::RenewRequest { lease: lease.to_owned(), ..v1::RenewRequest::default() }
}

/// One lease.
pub fn lease_of(id: &str) -> v1::Selector {
    v1::Selector { lease: id.to_owned(), ..v1::Selector::default() }
}

/// Everything of an owner.
pub fn owned_by(owner: &str) -> v1::Selector {
    v1::Selector { owner: owner.to_owned(), ..v1::Selector::default() }
}

/// Leases of an owner.
pub fn leases_of(owner: &str) -> v1::ListLeasesRequest {
    v1::ListLeasesRequest { selector: Some(owned_by(owner)), ..v1::ListLeasesRequest::default() }
}

/// A request to end what the selector covers.
pub fn revocation(selector: v1::Selector, after: v1::After) -> v1::RevokeRequest {
    v1::RevokeRequest {
        selector: Some(selector),
        after: after.into(),
        reason: "a test says so".to_owned(),
        ..v1::RevokeRequest::default()
    }
}

/// Why a call was rejected: the reason of its `google.rpc.ErrorInfo`, where that is Dayfly's; else what it was, in brackets.
pub fn reason(status: &Status) -> String {
    match status.get_details_error_info() {
        Some(info) if info.domain == "dayfly.dev" => info.reason,
        _ => format!("({:?} without a reason: {})", status.code(), status.message()),
    }
}

/// Leases without what is told to operators only: as their workloads and verifiers see them.
pub fn as_others_see(leases: impl IntoIterator<Item = v1::Lease>) -> Vec<v1::Lease> {
    leases
        .into_iter()
        .map(|lease| v1::Lease {
            provenance: None,
            claims: Vec::new(),
            grounds: None,
            revoked_for: String::new(),
            ..lease
        })
        .collect()
}

/// When to ask again: the delay of its `google.rpc.RetryInfo`.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}
