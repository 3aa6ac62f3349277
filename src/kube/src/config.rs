//! How a cluster is reached and what its tokens say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ids::{Audience, ClusterName};
use dayfly_core::limits::Limits;
use dayfly_core::ports::Clock;
use http::Uri;
use http::uri::PathAndQuery;
use kube::Client;
use kube::config::{Config, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};

use crate::api::chain;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// One cluster, as configured.
#[derive(Clone)]
pub struct ClusterConfig {
    /// Its name: the first part of every identity from it.
    pub name: ClusterName,
    /// The `iss` of its service-account tokens (`--service-account-issuer`).
    pub issuer: String,
    /// Dayfly's own audiences.
    pub audiences: Audiences,
    /// The API server's own audiences (`--api-audiences`; its issuer where that is not set): a token that is good for
    /// any of them is refused.
    pub api_audiences: Vec<String>,
    /// How its API server is reached.
    pub access: Access,
    /// Where its keys are published, where that is not its API server.
    pub jwks: Option<Jwks>,
    /// Whether signatures are checked against the cluster's published keys before a TokenReview. Off only where an
    /// external signer hides keys; all other local checks stay.
    pub local_check: bool,
    /// Limits and named times.
    pub limits: Limits,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Dayfly's own audiences, never interchangeable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audiences {
    /// For workloads: `dayfly`.
    pub workload: Audience,
    /// For operators: `dayfly-operator`.
    pub operator: Audience,
    /// For verifiers: `dayfly-verifier`.
    pub verifier: Audience,
}

impl Audiences {
    /// The three of them.
    pub fn all(&self) -> [&Audience; 3] {
        [&self.workload, &self.operator, &self.verifier]
    }
}

/// Where a cluster's token keys are published (`--service-account-jwks-uri`). No token can name another place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwks {
    /// `https://...`; `http://` is taken of a loopback address only. It is asked without credentials.
    pub url: String,
    /// A PEM file of the CAs to trust, read again as it rotates; the system's where none is named.
    pub ca_file: Option<PathBuf>,
}

/// How an API server is reached, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// As the pod's own service account, with its projected token and CA, both read again as they rotate.
    InCluster,
    /// By a kubeconfig file.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The context in it; its current one if none is named.
        context: Option<String>,
    },
    /// By address.
    Url {
        /// `https://...`; `http://` is taken of a loopback address only.
        server: String,
        /// A PEM file of the CAs to trust, read again as it rotates; the system's where none is named.
        ca_file: Option<PathBuf>,
        /// A file with the broker's bearer token, read again at least once a minute.
        token_file: Option<PathBuf>,
    },
}

/// A cluster's configuration cannot be used. An API server that is down is none of these.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The pod has no service account token, or this is no pod.
    #[error("cluster {cluster}: not running in a cluster: {}", chain(.source))]
    InCluster {
        /// The cluster.
        cluster: ClusterName,
        /// Why.
        source: InClusterError,
    },
    /// The kubeconfig cannot be read, or has not what is asked for.
    #[error("cluster {cluster}: kubeconfig {path}: {}", chain(.source))]
    Kubeconfig {
        /// The cluster.
        cluster: ClusterName,
        /// The file.
        path: PathBuf,
        /// Why.
        source: KubeconfigError,
    },
    /// The server's address is none, or would be spoken to without verified TLS: whoever is on the way could vouch for
    /// any token.
    #[error("cluster {cluster}: server {server:?}: {why}")]
    Server {
        /// The cluster.
        cluster: ClusterName,
        /// The address.
        server: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file cannot be read.
    #[error("cluster {cluster}: {path}: {source}")]
    File {
        /// The cluster.
        cluster: ClusterName,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No client can be made of it: its CA, certificate or key.
    #[error("cluster {cluster}: {}", chain(.source))]
    Client {
        /// The cluster.
        cluster: ClusterName,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The issuer is empty.
    #[error("cluster {0}: the issuer is empty: name its --service-account-issuer")]
    NoIssuer(ClusterName),
    /// Two clusters of one issuer, of which one hides its keys: then nothing tells their tokens apart.
    #[error(
        "clusters {0} and {1} have the same issuer, and local_check is off for one: only their keys tell their tokens apart"
    )]
    NamesakeHidesKeys(ClusterName, ClusterName),
    /// Two clusters of one issuer publish the same key.
    #[error(
        "clusters {0} and {1} have the same issuer and a token key in common: give each API server service-account keys of its own"
    )]
    SharedKeys(ClusterName, ClusterName),
    /// One audience would be good for two things.
    #[error(
        "cluster {cluster}: the audience {audience} has two uses: Dayfly's three and the API server's own must differ"
    )]
    SharedAudience {
        /// The cluster.
        cluster: ClusterName,
        /// The audience.
        audience: Audience,
    },
}

impl ClusterConfig {
    /// What can be wrong without asking anyone.
    pub(crate) fn check(&self) -> Result<(), ConnectError> {
        if self.issuer.is_empty() {
            return Err(ConnectError::NoIssuer(self.name.clone()));
        }
        let ours = self.audiences.all();
        let shared = ours.into_iter().find(|audience| {
            let twice = ours.into_iter().filter(|other| other == audience).count() > 1;
            twice || self.api_audiences.iter().any(|api| api == audience.as_str())
        });
        match shared {
            Some(audience) => {
                Err(ConnectError::SharedAudience { cluster: self.name.clone(), audience: audience.clone() })
            }
            None => Ok(()),
        }
    }

    /// A client for it. Says nothing to the API server yet.
    pub(crate) async fn client(&self) -> Result<Client, ConnectError> {
        let config = match &self.access {
            Access::InCluster => Config::incluster()
                .map_err(|source| ConnectError::InCluster { cluster: self.name.clone(), source })?,
            Access::Kubeconfig { path, context } => self.kubeconfig(path, context.as_ref()).await?,
            Access::Url { server, ca_file, token_file } => {
                self.url(server, ca_file.as_deref(), token_file.as_deref()).await?
            }
        };
        self.check_server(&config)?;
        self.client_of(config)
    }

    /// A client for the server where its keys are published, without credentials, and their path.
    pub(crate) async fn jwks_client(&self, jwks: &Jwks) -> Result<(Client, String), ConnectError> {
        let mut config = self.url(&jwks.url, jwks.ca_file.as_deref(), None).await?;
        self.check_server(&config)?;
        let mut parts = config.cluster_url.into_parts();
        let path = parts.path_and_query.replace(PathAndQuery::from_static("/"));
        let path = path.map(|path| path.to_string()).unwrap_or_default();
        config.cluster_url =
            Uri::from_parts(parts).map_err(|_| self.server_error(&jwks.url, "it is not a URL"))?;
        Ok((self.client_of(config)?, path))
    }

    fn client_of(&self, mut config: Config) -> Result<Client, ConnectError> {
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.write_timeout = Some(WRITE_TIMEOUT);
        // For watches; every other call has a shorter time of its own.
        config.read_timeout = Some(self.limits.informer_silence);
        config.reset_reader_on_write = true;
        // Retrying by itself would take a caller's time without telling it.
        config.default_retry = false;
        Client::try_from(config).map_err(|source| self.client_error(source))
    }

    async fn kubeconfig(&self, path: &Path, context: Option<&String>) -> Result<Config, ConnectError> {
        let failed =
            |source| ConnectError::Kubeconfig { cluster: self.name.clone(), path: path.to_owned(), source };
        let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
        let options = KubeConfigOptions { context: context.cloned(), ..KubeConfigOptions::default() };
        Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)
    }

    async fn url(
        &self,
        server: &str,
        ca_file: Option<&Path>,
        token_file: Option<&Path>,
    ) -> Result<Config, ConnectError> {
        let uri = server.parse::<Uri>().map_err(|_| self.server_error(server, "it is not a URL"))?;
        if uri.scheme().is_none() || uri.host().is_none() {
            return Err(self.server_error(server, "it must be https://HOST[:PORT]"));
        }
        let mut config = Config::new(uri);
        for path in [ca_file, token_file].into_iter().flatten() {
            tokio::fs::read(path).await.map_err(|source| ConnectError::File {
                cluster: self.name.clone(),
                path: path.to_owned(),
                source,
            })?;
        }
        config.root_cert_file = ca_file.map(Path::to_owned);
        config.auth_info.token_file = token_file.map(|path| path.to_string_lossy().into_owned());
        Ok(config)
    }

    fn check_server(&self, config: &Config) -> Result<(), ConnectError> {
        let uri = &config.cluster_url;
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let loopback = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if config.accept_invalid_certs {
            return Err(self.server_error(&uri.to_string(), "insecure-skip-tls-verify is not accepted"));
        }
        if uri.scheme_str() == Some("https") || loopback {
            return Ok(());
        }
        Err(self.server_error(
            &uri.to_string(),
            "it must be https: plain http is taken of a loopback address only",
        ))
    }

    fn server_error(&self, server: &str, why: &'static str) -> ConnectError {
        ConnectError::Server { cluster: self.name.clone(), server: server.to_owned(), why }
    }

    fn client_error(&self, source: kube::Error) -> ConnectError {
        ConnectError::Client { cluster: self.name.clone(), source: Box::new(source) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    async fn error(change: impl FnOnce(&mut ClusterConfig)) -> String {
        let mut config = testing::config("https://127.0.0.1:1");
        change(&mut config);
        match config.check() {
            Err(error) => error.to_string(),
            Ok(()) => config.client().await.err().map(|error| error.to_string()).unwrap_or_default(),
        }
    }

    fn url(server: &str) -> Access {
        Access::Url { server: server.to_owned(), ca_file: None, token_file: None }
    }

    #[tokio::test]
    async fn an_audience_has_one_use() {
        assert!(error(|c| c.api_audiences.push("dayfly".to_owned())).await.contains("dayfly has two uses"));
        assert!(
            error(|c| c.audiences.verifier = c.audiences.operator.clone())
                .await
                .contains("dayfly-operator has two")
        );
        assert!(error(|c| c.issuer.clear()).await.contains("issuer is empty"));
    }

    #[tokio::test]
    async fn an_api_server_is_never_spoken_to_without_verified_tls() {
        assert!(error(|c| c.access = url("http://10.0.0.1:8080")).await.contains("must be https"));
        assert!(error(|c| c.access = url("10.0.0.1:6443")).await.contains("must be https"));
        assert_eq!(error(|c| c.access = url("http://127.0.0.1:1")).await, "");
        assert_eq!(error(|c| c.access = url("http://[::1]:1")).await, "");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let text = "{clusters: [{name: a, cluster: {server: 'https://10.0.0.1', insecure-skip-tls-verify: true}}],
            contexts: [{name: a, context: {cluster: a, user: a}}], users: [{name: a, user: {}}], current-context: a}";
        std::fs::write(&path, text).unwrap();
        let kubeconfig = |context: Option<&str>| Access::Kubeconfig {
            path: path.clone(),
            context: context.map(str::to_owned),
        };
        assert!(error(|c| c.access = kubeconfig(None)).await.contains("insecure-skip-tls-verify"));
        assert!(error(|c| c.access = kubeconfig(Some("b"))).await.contains("kubeconfig"));
    }

    #[tokio::test]
    async fn files_that_are_missing_are_named() {
        let missing = PathBuf::from("/nowhere/token");
        let access =
            Access::Url { server: "https://127.0.0.1".to_owned(), ca_file: None, token_file: Some(missing) };
        assert!(error(|c| c.access = access).await.contains("/nowhere/token"));
    }
}
