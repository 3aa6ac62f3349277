//! A Kubernetes API for the broker and its callers: the real one, or the stand-in.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use dayfly_core::clock::SystemClock;
use dayfly_dev::StandIn;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard};

use crate::control_plane::{ControlPlane, Options, SigningKey};
use crate::run::until;

/// Which Kubernetes API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// kube-apiserver and etcd.
    Real,
    /// `dayfly_dev::StandIn`.
    StandIn,
}

/// How long tests' tokens live, in seconds: longer than any test moves the clock.
pub const TOKEN_SECS: u32 = 4 * 3600;

/// A running Kubernetes API.
pub struct Cluster {
    api: Running,
    client: Client,
    done: Mutex<HashSet<&'static str>>,
}

enum Running {
    Real(Box<RwLock<ControlPlane>>),
    StandIn(StandIn),
}

/// How the broker reaches a cluster, and as whom.
#[derive(Clone, Debug)]
pub struct Access {
    /// The issuer of its tokens.
    pub issuer: String,
    /// Its URL.
    pub server: String,
    /// The CA of its certificate, PEM; none for plain HTTP.
    pub ca_pem: Option<String>,
    /// The broker's bearer token.
    pub token: String,
}

impl Cluster {
    /// The cluster of this kind that all tests of this binary share.
    pub async fn shared(kind: Kind) -> Result<Arc<Self>> {
        static REAL: OnceCell<Arc<Cluster>> = OnceCell::const_new();
        static STAND_IN: OnceCell<Arc<Cluster>> = OnceCell::const_new();
        let cell = match kind {
            Kind::Real => &REAL,
            Kind::StandIn => &STAND_IN,
        };
        Ok(Arc::clone(cell.get_or_try_init(|| Self::start(kind)).await?))
    }

    /// Starts a cluster of this kind with its usual options.
    pub async fn start(kind: Kind) -> Result<Arc<Self>> {
        match kind {
            Kind::Real => Self::start_real(Options::default()).await,
            Kind::StandIn => {
                let address = SocketAddr::from(([127, 0, 0, 1], 0));
                let stand_in = StandIn::start(address, Arc::new(SystemClock::new())).await?;
                let mut config = Config::new(stand_in.url().parse()?);
                config.auth_info.token = Some(stand_in.admin_token().to_owned().into());
                let client = Client::try_from(config)?;
                Ok(Arc::new(Self { api: Running::StandIn(stand_in), client, done: Mutex::default() }))
            }
        }
    }

    /// Starts a real cluster, with the broker's service account and its rights as `deploy/rbac.yaml` has them.
    pub async fn start_real(options: Options) -> Result<Arc<Self>> {
        let control_plane = ControlPlane::start(options).await?;
        let rbac = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/rbac.yaml");
        let rbac =
            std::fs::read_to_string(&rbac).with_context(|| format!("cannot read {}", rbac.display()))?;
        let namespace = "{ apiVersion: v1, kind: Namespace, metadata: { name: dayfly } }";
        control_plane.apply_yaml(&format!("{namespace}\n---\n{rbac}")).await?;
        let client = control_plane.client()?;
        Ok(Arc::new(Self {
            api: Running::Real(Box::new(RwLock::new(control_plane))),
            client,
            done: Mutex::default(),
        }))
    }

    /// The real one's control plane.
    pub async fn control_plane(&self) -> Result<RwLockReadGuard<'_, ControlPlane>> {
        match &self.api {
            Running::Real(real) => Ok(real.read().await),
            Running::StandIn(_) => bail!("the stand-in has no control plane"),
        }
    }

    /// Which it is.
    pub fn kind(&self) -> Kind {
        match &self.api {
            Running::Real(_) => Kind::Real,
            Running::StandIn(_) => Kind::StandIn,
        }
    }

    /// How the broker reaches it: as its own service account.
    pub async fn access(&self) -> Result<Access> {
        Ok(match &self.api {
            Running::Real(real) => {
                let real = real.read().await;
                let token = real.token("dayfly", "dayfly", &[], None, i64::from(TOKEN_SECS)).await?;
                let ca_pem = Some(real.ca_pem().to_owned());
                Access { issuer: real.issuer().to_owned(), server: real.url(), ca_pem, token }
            }
            Running::StandIn(stand_in) => Access {
                issuer: stand_in.issuer().to_owned(),
                server: stand_in.url(),
                ca_pem: None,
                token: stand_in.broker_token().to_owned(),
            },
        })
    }

    /// How a broker would reach it as `admin`, by a token that no service-account key signed.
    pub async fn admin_access(&self) -> Result<Access> {
        let token = match &self.api {
            Running::Real(real) => real.read().await.admin_token().to_owned(),
            Running::StandIn(stand_in) => stand_in.admin_token().to_owned(),
        };
        Ok(Access { token, ..self.access().await? })
    }

    /// Begins to rotate the service-account key: a new one signs, the old one is published and trusted still. For a real
    /// cluster that no other test uses.
    pub async fn rotate_key(&self) -> Result<()> {
        match &self.api {
            Running::Real(real) => real.write().await.restart_with_sa_keys(SigningKey::Es256).await,
            Running::StandIn(_) => bail!("the stand-in has one key"),
        }
    }

    /// Ends the rotation: the old key is gone.
    pub async fn forget_old_keys(&self) -> Result<()> {
        match &self.api {
            Running::Real(real) => real.write().await.restart_without_old_sa_keys().await,
            Running::StandIn(_) => bail!("the stand-in has one key"),
        }
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Whether this is asked of this cluster for the first time.
    pub(crate) fn once(&self, what: &'static str) -> bool {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(what)
    }

    /// Makes a namespace.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        match &self.api {
            Running::Real(real) => real.read().await.create_namespace(name, &[]).await,
            Running::StandIn(stand_in) => Ok(stand_in.create_namespace(name).map(drop)?),
        }
    }

    /// Makes a service account, and gives its uid.
    pub async fn create_service_account(&self, namespace: &str, name: &str) -> Result<String> {
        match &self.api {
            Running::Real(real) => real.read().await.create_service_account(namespace, name).await,
            Running::StandIn(stand_in) => Ok(stand_in.create_service_account(namespace, name)?),
        }
    }

    /// Deletes a service account, at once.
    pub async fn delete_service_account(&self, namespace: &str, name: &str) -> Result<()> {
        match &self.api {
            Running::Real(real) => real.read().await.delete_service_account(namespace, name).await,
            Running::StandIn(stand_in) => Ok(stand_in.delete_service_account(namespace, name)?),
        }
    }

    /// Deletes a namespace and what is in it. In a real cluster it is only marked, for want of a controller.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Makes a running pod, and gives its uid.
    pub async fn create_pod(&self, namespace: &str, name: &str, service_account: &str) -> Result<String> {
        match &self.api {
            Running::Real(real) => {
                let real = real.read().await;
                let uid = real.create_pod(namespace, name, service_account).await?;
                real.set_pod_phase(namespace, name, "Running").await?;
                Ok(uid)
            }
            Running::StandIn(stand_in) => Ok(stand_in.create_pod(namespace, name, service_account)?),
        }
    }

    /// Writes a pod's `status.phase`.
    pub async fn set_pod_phase(&self, namespace: &str, name: &str, phase: &str) -> Result<()> {
        match &self.api {
            Running::Real(real) => real.read().await.set_pod_phase(namespace, name, phase).await,
            Running::StandIn(stand_in) => Ok(stand_in.set_pod_phase(namespace, name, phase)?),
        }
    }

    /// Deletes a pod: by `force` it is gone at once, otherwise it stays terminating, as no kubelet ends it.
    pub async fn delete_pod(&self, namespace: &str, name: &str, force: bool) -> Result<()> {
        match &self.api {
            Running::Real(real) => {
                real.read().await.delete_pod(namespace, name, if force { Some(0) } else { None }).await
            }
            Running::StandIn(stand_in) => Ok(stand_in.delete_pod(namespace, name, force)?),
        }
    }

    /// A service account's token by TokenRequest, bound to a pod (name, uid) where one is given, for these audiences; none is
    /// the API server's own.
    pub async fn token(
        &self,
        namespace: &str,
        service_account: &str,
        audiences: &[&str],
        pod: Option<(&str, &str)>,
        secs: u32,
    ) -> Result<String> {
        let bound =
            pod.map(|(name, uid)| json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid }));
        self.token_bound_to(namespace, service_account, audiences, bound, secs).await
    }

    /// The same, bound to any object (`boundObjectRef`).
    pub async fn token_bound_to(
        &self,
        namespace: &str,
        service_account: &str,
        audiences: &[&str],
        bound: Option<Value>,
        secs: u32,
    ) -> Result<String> {
        let request: TokenRequest = serde_json::from_value(json!({ "metadata": {}, "spec": {
            "audiences": audiences, "boundObjectRef": bound, "expirationSeconds": secs,
        }}))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let answer = accounts.create_token_request(service_account, &PostParams::default(), &request).await?;
        answer.status.and_then(|status| status.token).context("a TokenRequest without a token")
    }

    /// A token of the old kind, which lies in a Secret and never ends. A real cluster needs the controller manager for it.
    pub async fn legacy_token(&self, namespace: &str, service_account: &str) -> Result<String> {
        match &self.api {
            Running::Real(real) => real.read().await.legacy_secret_token(namespace, service_account).await,
            Running::StandIn(stand_in) => Ok(stand_in.legacy_token(namespace, service_account)?),
        }
    }

    /// Whether the API server itself says that a token is good for this audience (TokenReview).
    pub async fn accepts(&self, token: &str, audience: &str) -> Result<bool> {
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![audience.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer =
            Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        Ok(answer.status.and_then(|status| status.authenticated).unwrap_or_default())
    }

    /// Lets a service account do these verbs to owners: to the one named, or to all. Returns when it may.
    pub async fn allow(
        &self,
        namespace: &str,
        service_account: &str,
        verbs: &[&str],
        owner: Option<&str>,
    ) -> Result<()> {
        self.allow_on("owners", namespace, service_account, verbs, owner).await
    }

    /// Likewise, to objects of this resource of `dayfly.dev`.
    pub async fn allow_on(
        &self,
        resource: &str,
        namespace: &str,
        service_account: &str,
        verbs: &[&str],
        name: Option<&str>,
    ) -> Result<()> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let user = format!("system:serviceaccount:{namespace}:{service_account}");
        if let Running::StandIn(stand_in) = &self.api {
            for verb in verbs {
                stand_in.allow(&user, verb, resource, name);
            }
            return Ok(());
        }
        let role_name = format!("{namespace}-{service_account}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let role: ClusterRole = serde_json::from_value(json!({
            "metadata": { "name": role_name },
            "rules": [{
                "apiGroups": ["dayfly.dev"], "resources": [resource], "verbs": verbs,
                "resourceNames": name.into_iter().collect::<Vec<_>>(),
            }],
        }))?;
        let binding: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": { "name": role_name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role_name },
            "subjects": [{ "kind": "ServiceAccount", "namespace": namespace, "name": service_account }],
        }))?;
        Api::all(self.client.clone()).create(&PostParams::default(), &role).await?;
        Api::all(self.client.clone()).create(&PostParams::default(), &binding).await?;
        for verb in verbs {
            until(async || self.allows(resource, &user, verb, name).await)
                .await
                .with_context(|| format!("{user} may not {verb} yet"))?;
        }
        Ok(())
    }

    async fn allows(&self, resource: &str, user: &str, verb: &str, name: Option<&str>) -> Result<bool> {
        let attributes = ResourceAttributes {
            group: Some("dayfly.dev".to_owned()),
            resource: Some(resource.to_owned()),
            verb: Some(verb.to_owned()),
            name: name.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Ends the API server as a crash does. For a real cluster that no other test uses.
    pub async fn kill_api_server(&self) -> Result<()> {
        match &self.api {
            Running::Real(real) => real.write().await.kill_api_server(),
            Running::StandIn(_) => bail!("the stand-in forgets all when it ends: cut its Wire instead"),
        }
        Ok(())
    }

    /// Starts the API server again.
    pub async fn restart_api_server(&self) -> Result<()> {
        match &self.api {
            Running::Real(real) => real.write().await.restart_api_server().await,
            Running::StandIn(_) => bail!("the stand-in was never killed"),
        }
    }
}
