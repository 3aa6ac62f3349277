//! A real Kubernetes control plane for tests: etcd and kube-apiserver, and kube-controller-manager where a test needs
//! garbage collection or legacy tokens. There is no kubelet: pods are bound to a node that exists only as an object, run
//! nothing, and a test writes their status itself.
//!
//! One control plane serves all tests of a binary, each in its own namespace; a test that kills or reconfigures the API
//! server starts its own. The servers end when their [`ControlPlane`] is dropped, and on Linux also when the test process
//! ends without dropping it (a `static` is never dropped).

mod aggregation;
pub(crate) mod keys;
mod objects;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Id as RuntimeId};

use crate::folder::Folder;
use crate::process::{Process, free_port};
use aggregation::Authorities;
use keys::{make_certificates, make_signing_key, public_key, signing_key};
pub use objects::pod;

/// The node that every control plane has, and that [`ControlPlane::create_pod`] binds pods to.
pub const NODE: &str = "node-1";

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// How a control plane differs from the usual one. The default: ES256 tokens, no audit log, no controller manager.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What service-account tokens are signed with.
    pub signing_key: SigningKey,
    /// Log every request's metadata (no bodies) to [`ControlPlane::audit_log`].
    pub audit: bool,
    /// Run kube-controller-manager: garbage collection, namespace deletion, Deployments, legacy tokens. It makes the start
    /// some seconds longer.
    pub controller_manager: bool,
    /// Aggregated APIs are forwarded to, and people are known by client certificates.
    pub aggregation: bool,
    /// More flags for kube-apiserver (`--name=value`), after ours: of a flag given twice, the last one counts.
    pub api_server_flags: Vec<String>,
}

/// The kind of key that the API server signs service-account tokens with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SigningKey {
    /// EC P-256.
    #[default]
    Es256,
    /// RSA of 2048 bits, the usual kind in clusters. Needs `openssl`.
    Rs256,
}

/// A running control plane. Its API server trusts service-account tokens of its own issuer, and one admin token.
pub struct ControlPlane {
    // Ended in this order; the folder goes last.
    controller_manager: Option<Process>,
    api_server: Option<Process>,
    _etcd: Process,
    options: Options,
    bin: PathBuf,
    port: u16,
    etcd_port: u16,
    ca_pem: String,
    admin_token: String,
    /// The service-account keys, of which the last one signs; those below `first_key` are not trusted any more.
    keys: u16,
    first_key: u16,
    kubeconfigs: AtomicU16,
    authorities: Option<Authorities>,
    clients: Mutex<HashMap<RuntimeId, Client>>,
    dir: Folder,
}

impl ControlPlane {
    /// Starts a control plane from the programs in `$DAYFLY_CLUSTER_BIN`, and returns when it serves.
    ///
    /// # Errors
    /// When that variable is unset, or a server ends or does not serve within 60 seconds (with the tail of its log).
    pub async fn start(options: Options) -> Result<Self> {
        let bin = std::env::var_os("DAYFLY_CLUSTER_BIN").map(PathBuf::from).context(
            "DAYFLY_CLUSTER_BIN is not set: run tests/cluster/build and set it to the folder that it prints (./test does)",
        )?;
        let dir = Folder::new("cluster")?;
        let (port, etcd_port) = (free_port()?, free_port()?);
        let ca_pem = make_certificates(dir.path())?;
        // Random, by way of a fresh key; the loopback is open to every user of the machine.
        let admin_token = BASE64_URL_SAFE_NO_PAD.encode(rcgen::KeyPair::generate()?.public_key_raw());
        make_signing_key(dir.path(), 0, options.signing_key)?;
        write(dir.path(), "tokens.csv", &format!("{admin_token},admin,admin,\"system:masters\"\n"))?;
        write(dir.path(), "audit-policy", AUDIT_POLICY)?;

        let authorities = options.aggregation.then(|| Authorities::make(dir.path())).transpose()?;
        let mut control_plane = Self {
            controller_manager: None,
            api_server: None,
            _etcd: start_etcd(&bin, dir.path(), etcd_port).await?,
            options,
            bin,
            port,
            etcd_port,
            ca_pem,
            admin_token,
            keys: 1,
            first_key: 0,
            kubeconfigs: AtomicU16::new(0),
            authorities,
            clients: Mutex::default(),
            dir,
        };
        control_plane.restart_api_server().await?;
        control_plane.create_node(NODE).await?;
        control_plane.start_controller_manager().await?;
        Ok(control_plane)
    }

    /// The API server's address, `https://127.0.0.1:<port>`; the same after a restart.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The certificate authority of the API server's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The bearer token of `admin`, in group `system:masters`.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The issuer of service-account tokens, and the audience of those that name none.
    pub fn issuer(&self) -> &'static str {
        ISSUER
    }

    /// The folder with the servers' logs (`<program>.log`) and other files. It goes with the control plane.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The audit log, one JSON object a line; there is none unless [`Options::audit`] is set.
    pub fn audit_log(&self) -> PathBuf {
        self.dir().join("audit.log")
    }

    /// The `kubectl` program.
    pub fn kubectl(&self) -> PathBuf {
        self.bin.join("kubectl")
    }

    /// Writes a new kubeconfig file that has this bearer token. It goes with the control plane.
    pub fn kubeconfig_for(&self, token: &str) -> Result<PathBuf> {
        let number = self.kubeconfigs.fetch_add(1, Ordering::Relaxed);
        let cluster = json!({ "server": self.url(), "certificate-authority": self.dir().join("ca.crt") });
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "users": [{ "name": "test", "user": { "token": token } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "current-context": "test",
        });
        write(self.dir(), &format!("kubeconfig-{number}"), &kubeconfig.to_string())
    }

    /// A client as `admin`. It belongs to the tokio runtime that this is called in, and so to one test.
    pub fn client(&self) -> Result<Client> {
        // Kept, because the first request of a connection takes 40 ms: kube does not set TCP_NODELAY.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match clients.entry(Handle::try_current()?.id()) {
            Entry::Occupied(kept) => kept.get().clone(),
            Entry::Vacant(vacant) => vacant.insert(self.client_for(&self.admin_token)?).clone(),
        })
    }

    /// A new client with this bearer token. It belongs to the tokio runtime that this is called in.
    pub fn client_for(&self, token: &str) -> Result<Client> {
        let mut config = Config::new(self.url().parse()?);
        config.root_cert_file = Some(self.dir().join("ca.crt"));
        config.auth_info.token = Some(token.to_owned().into());
        Ok(Client::try_from(config)?)
    }

    /// Ends the API server as a crash does (SIGKILL), and returns when it is gone. etcd and its data stay.
    pub fn kill_api_server(&mut self) {
        self.api_server = None;
        self.clients.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Starts the API server again, killed or not, on the same port and data, and returns when it serves.
    pub async fn restart_api_server(&mut self) -> Result<()> {
        self.kill_api_server();
        let mut server = Process::start(&self.bin, self.dir(), "kube-apiserver", self.api_server_flags())?;
        let client = self.client()?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        server
            .until(async || {
                let readyz = http::Request::get("/readyz").body(Vec::new())?;
                let ready = client.request_text(readyz).await.is_ok_and(|answer| answer == "ok");
                Ok(ready && namespaces.get("default").await.is_ok())
            })
            .await?;
        self.api_server = Some(server);
        Ok(())
    }

    /// Rotates the service-account key: a new one of this kind signs from now on, and tokens by the earlier ones stay valid.
    /// Restarts the API server, as a cluster's rotation does, and the controller manager.
    pub async fn restart_with_sa_keys(&mut self, kind: SigningKey) -> Result<()> {
        make_signing_key(self.dir(), self.keys, kind)?;
        self.keys += 1;
        self.restart_api_server().await?;
        self.start_controller_manager().await
    }

    /// Ends a rotation: only the key that signs is trusted and published from now on. Restarts the API server.
    pub async fn restart_without_old_sa_keys(&mut self) -> Result<()> {
        self.first_key = self.keys - 1;
        self.restart_api_server().await
    }

    async fn start_controller_manager(&mut self) -> Result<()> {
        self.controller_manager = None;
        if !self.options.controller_manager {
            return Ok(());
        }
        let flags = self.controller_manager_flags()?;
        let mut server = Process::start(&self.bin, self.dir(), "kube-controller-manager", flags)?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client()?, "default");
        server.until(async || Ok(accounts.get_opt("default").await?.is_some())).await?;
        self.controller_manager = Some(server);
        Ok(())
    }

    fn api_server_flags(&self) -> Vec<String> {
        let file = |name: &str| self.dir().join(name).display().to_string();
        let mut flags = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            // A loopback address is refused as an endpoint, and nothing here uses Service `kubernetes`.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={}", self.port),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--service-account-issuer={ISSUER}"),
            format!("--api-audiences={ISSUER}"),
            format!("--service-account-signing-key-file={}", file(&signing_key(self.keys - 1))),
        ];
        flags.extend(
            (self.first_key..self.keys)
                .map(|key| format!("--service-account-key-file={}", file(&public_key(key)))),
        );
        if self.options.audit {
            flags.push(format!("--audit-log-path={}", self.audit_log().display()));
            flags.push(format!("--audit-policy-file={}", file("audit-policy")));
        }
        if self.options.aggregation {
            flags.extend(Authorities::flags(self.dir()));
        }
        flags.extend_from_slice(&self.options.api_server_flags);
        flags
    }

    fn controller_manager_flags(&self) -> Result<Vec<String>> {
        let file = |name: &str| self.dir().join(name).display().to_string();
        Ok(vec![
            format!("--kubeconfig={}", self.kubeconfig_for(&self.admin_token)?.display()),
            format!("--service-account-private-key-file={}", file(&signing_key(self.keys - 1))),
            format!("--root-ca-file={}", file("ca.crt")),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            // It would find our nodes dead, for want of a kubelet, and take their pods away.
            "--controllers=*,-node-lifecycle-controller".to_owned(),
        ])
    }
}

const AUDIT_POLICY: &str =
    r#"{ "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{ "level": "Metadata" }] }"#;

async fn start_etcd(bin: &Path, dir: &Path, port: u16) -> Result<Process> {
    let flags = vec![
        format!("--data-dir={}", dir.join("etcd").display()),
        format!("--listen-client-urls=http://127.0.0.1:{port}"),
        format!("--advertise-client-urls=http://127.0.0.1:{port}"),
        "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    let mut etcd = Process::start(bin, dir, "etcd", flags)?;
    etcd.until(async || Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok())).await?;
    Ok(etcd)
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
