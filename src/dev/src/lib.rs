//! A stand-in for the Kubernetes API, for `dayfly dev` and for tests: never for serving anyone.
//!
//! It listens on loopback only, over plain HTTP, keeps its objects in memory and forgets them when it stops. It speaks the
//! real API's shapes for what Dayfly asks of a cluster: namespaces, service accounts, pods and Deployments with list and watch,
//! TokenRequest, TokenReview, SubjectAccessReview, and the discovery of the issuer and its keys. Start at [`StandIn`].
//!
//! What differs from a real cluster: a pod runs at once, on a node that exists in name only; a namespace is gone at once; nothing
//! makes pods of a Deployment, or deletes what it controls; images have the digests of their names; any Secret is there; a
//! good TokenReview is not remembered for 10 s; lists are never paged; nothing is selected by label; tokens carry
//! `typ: JWT`; legacy tokens are signed by the one key there is and always refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::digest::Digest;
use dayfly_core::ports::Clock;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::access::Access;
use crate::http::App;
use crate::keys::Keys;
use crate::kind::{Key, Kind};
use crate::objects::{Deletion, Objects, text};
use crate::refusal::Refusal;
use crate::tokens::{BoundObject, Issuer, TokenRequestSpec};

mod access;
mod admission;
mod http;
mod keys;
mod kind;
mod kubeconfig;
mod objects;
mod refusal;
mod tokens;
mod view;
mod watch_stream;

/// How long open connections get to finish when the stand-in stops.
const DRAIN: Duration = Duration::from_secs(2);

/// A running stand-in. It stops when this is dropped, or by [`StandIn::shutdown`].
pub struct StandIn {
    app: Arc<App>,
    addr: SocketAddr,
    admin_token: String,
    broker_token: String,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

/// The stand-in did not start, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// The address is not a loopback address.
    #[error("{0} is not a loopback address: the stand-in for the Kubernetes API is for this machine only")]
    NotLoopback(SocketAddr),
    /// It could not listen, or write a file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The object is not there.
    #[error("{0}")]
    NotFound(String),
    /// Refused as the API would, with its message.
    #[error("{0}")]
    Refused(String),
}

impl From<Refusal> for StandInError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.message().to_owned();
        if refusal.is_not_found() { Self::NotFound(message) } else { Self::Refused(message) }
    }
}

impl StandIn {
    /// Starts on a loopback address; port 0 takes a free one. Times are `clock`'s.
    ///
    /// # Errors
    /// [`StandInError::NotLoopback`] for any other address; [`StandInError::Io`] when it cannot listen there.
    pub async fn start(addr: SocketAddr, clock: Arc<dyn Clock>) -> Result<Self, StandInError> {
        if !addr.ip().is_loopback() {
            return Err(StandInError::NotLoopback(addr));
        }
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let objects = Objects::new(clock)?;
        let admin_token = format!("dayfly-dev-admin-{}", objects.uid()?);
        let broker_token = format!("dayfly-dev-broker-{}", objects.uid()?);
        let callers = [&admin_token, &broker_token].map(|token| Digest::of(token.as_bytes()));
        let (stop, stopping) = watch::channel(false);
        let app = Arc::new(App {
            objects,
            issuer: Issuer { name: url(addr), keys: Keys::generate()? },
            access: Access::default(),
            callers: callers.to_vec(),
            stopping: stopping.clone(),
        });
        let serving = tokio::spawn(serve(listener, app.clone(), stopping));
        Ok(Self { app, addr, admin_token, broker_token, stop, serving })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its address as a client takes it: `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        url(self.addr)
    }

    /// The `iss` of its service-account tokens; also the audience of tokens that are good for the API itself.
    pub fn issuer(&self) -> &str {
        &self.app.issuer.name
    }

    /// A token that may do everything here.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// Another that may do the same, for the broker.
    pub fn broker_token(&self) -> &str {
        &self.broker_token
    }

    /// Writes `kubeconfig` into this folder, with the admin token, readable by its owner only.
    pub fn kubeconfig(&self, dir: &Path) -> Result<PathBuf, StandInError> {
        let path = dir.join("kubeconfig");
        kubeconfig::write(&path, &self.url(), "admin", &self.admin_token)?;
        Ok(path)
    }

    /// Writes `broker.kubeconfig` into this folder, with the broker's token, readable by its owner only.
    pub fn broker_kubeconfig(&self, dir: &Path) -> Result<PathBuf, StandInError> {
        let path = dir.join("broker.kubeconfig");
        kubeconfig::write(&path, &self.url(), "broker", &self.broker_token)?;
        Ok(path)
    }

    /// Lets a user or group (as TokenReview names them) do `verb` on `resource` of API group `dayfly.dev`: on the one of
    /// this name, or on all of them. `*` stands for any verb, resource or name. What nothing allows is denied.
    pub fn allow(&self, who: &str, verb: &str, resource: &str, name: Option<&str>) {
        self.app.access.allow(who, verb, resource, name);
    }

    /// Takes back all that [`StandIn::allow`] gave this user or group.
    pub fn forget(&self, who: &str) {
        self.app.access.forget(who);
    }

    /// Creates a namespace, with its `default` service account; gives its uid.
    pub fn create_namespace(&self, name: &str) -> Result<String, StandInError> {
        self.create(Kind::Namespace, "", json!({"metadata": {"name": name}}))
    }

    /// Creates a service account; gives its uid.
    pub fn create_service_account(&self, namespace: &str, name: &str) -> Result<String, StandInError> {
        self.create(Kind::ServiceAccount, namespace, json!({"metadata": {"name": name}}))
    }

    /// Creates a pod, which runs as this service account at once; gives its uid.
    pub fn create_pod(
        &self,
        namespace: &str,
        name: &str,
        service_account: &str,
    ) -> Result<String, StandInError> {
        let containers = json!([{"name": "main", "image": "registry.invalid/dayfly-dev:1"}]);
        let spec = json!({"serviceAccountName": service_account, "containers": containers});
        self.create(Kind::Pod, namespace, json!({"metadata": {"name": name}, "spec": spec}))
    }

    /// Creates a pod as a Deployment's: with its ReplicaSet, which come with the first. Gives the pod's uid.
    pub fn create_pod_of(
        &self,
        namespace: &str,
        deployment: &str,
        name: &str,
        service_account: &str,
    ) -> Result<String, StandInError> {
        let replica_set = format!("{deployment}-1");
        let labels = json!({"app": deployment});
        let uid = self.there(Kind::Deployment, namespace, deployment, json!({"labels": labels}))?;
        let controllers = [controller("Deployment", deployment, &uid)];
        let metadata = json!({"labels": labels, "ownerReferences": controllers});
        let uid = self.there(Kind::ReplicaSet, namespace, &replica_set, metadata)?;
        let controllers = [controller("ReplicaSet", &replica_set, &uid)];
        let metadata = json!({"name": name, "labels": labels, "ownerReferences": controllers});
        let containers = json!([{"name": "main", "image": format!("registry.invalid/{deployment}:1")}]);
        let spec = json!({"serviceAccountName": service_account, "containers": containers});
        self.create(Kind::Pod, namespace, json!({"metadata": metadata, "spec": spec}))
    }

    /// Deletes a pod: by `force` it is gone at once, otherwise it is marked and stays, as no kubelet ends it.
    pub fn delete_pod(&self, namespace: &str, name: &str, force: bool) -> Result<(), StandInError> {
        self.delete(&Key::pod(namespace, name), if force { Some(0) } else { None })
    }

    /// Deletes a service account, at once.
    pub fn delete_service_account(&self, namespace: &str, name: &str) -> Result<(), StandInError> {
        self.delete(&Key::service_account(namespace, name), None)
    }

    /// Deletes a namespace and all that is in it, at once.
    pub fn delete_namespace(&self, name: &str) -> Result<(), StandInError> {
        self.delete(&Key::namespace(name), None)
    }

    /// Sets a pod's `status.phase`: `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub fn set_pod_phase(&self, namespace: &str, name: &str, phase: &str) -> Result<(), StandInError> {
        self.app.objects.edit(&Key::pod(namespace, name), |pod| {
            pod["status"]["phase"] = phase.into();
            Ok(())
        })?;
        Ok(())
    }

    /// A service account's token by TokenRequest, for one audience, bound to a pod where one is given (name, uid), that
    /// lives this many seconds (at least 600). An empty audience is the API's own.
    pub fn token(
        &self,
        namespace: &str,
        service_account: &str,
        audience: &str,
        pod: Option<(&str, &str)>,
        secs: u64,
    ) -> Result<String, StandInError> {
        let bound = |(name, uid): (&str, &str)| BoundObject {
            kind: "Pod".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        let spec = TokenRequestSpec {
            audiences: Some(audience.to_owned()).filter(|it| !it.is_empty()).into_iter().collect(),
            expiration_seconds: Some(secs),
            bound_object_ref: pod.map(bound),
        };
        let account = Key::service_account(namespace, service_account);
        Ok(self.app.issuer.issue(&self.app.objects, &account, &spec)?.token)
    }

    /// A token in the shape of the legacy ones that lie in Secrets: without an end and without an audience.
    pub fn legacy_token(&self, namespace: &str, service_account: &str) -> Result<String, StandInError> {
        let account = Key::service_account(namespace, service_account);
        self.sign(&Issuer::legacy_claims(&self.app.objects, &account)?)
    }

    /// A token of any claims, signed with the cluster's key: for tests of odd ones.
    pub fn sign(&self, claims: &Value) -> Result<String, StandInError> {
        Ok(self.app.issuer.keys.sign(claims)?)
    }

    /// Ends watches, gives other calls 2 s to finish, and stops.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(DRAIN, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
    }

    /// The uid of an object, which is created where it is not there.
    fn there(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        mut metadata: Value,
    ) -> Result<String, StandInError> {
        if let Ok(object) = self.app.objects.get(&Key::of(kind, namespace, name)) {
            return Ok(text(&object, "/metadata/uid").to_owned());
        }
        metadata["name"] = name.into();
        self.create(kind, namespace, json!({"metadata": metadata}))
    }

    fn create(&self, kind: Kind, namespace: &str, object: Value) -> Result<String, StandInError> {
        let object = self.app.objects.create(kind, namespace, object)?;
        Ok(text(&object, "/metadata/uid").to_owned())
    }

    fn delete(&self, key: &Key, grace: Option<u64>) -> Result<(), StandInError> {
        self.app.objects.delete(key, &Deletion { grace, uid: None })?;
        Ok(())
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, app: Arc<App>, mut stopping: watch::Receiver<bool>) {
    let stopped = async move {
        // An error is that the stand-in was dropped, which stops it as well.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    if let Err(error) = axum::serve(listener, http::router(app)).with_graceful_shutdown(stopped).await {
        tracing::error!(%error, "the stand-in for the Kubernetes API stopped");
    }
}

fn controller(kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true})
}

fn url(addr: SocketAddr) -> String {
    format!("http://{addr}")
}
