//! `sessions.dayfly.dev`: the small aggregated API by which any kubeconfig becomes an operator's token of ten minutes.
//!
//! The home cluster's API server authenticates whoever asks, lets them `create operatorsessions` by its own RBAC, and forwards
//! the request here with its front-proxy certificate and their name in headers. A file each:
//!
//! | file | what |
//! |---|---|
//! | `front_proxy` | that it is the API server that forwards, at each request, and whom it names |
//! | `api` | the one resource |
//! | `documents` | discovery and `OpenAPI`, so that kubectl knows it |
//! | `status` | refusals as Kubernetes has them |

mod api;
mod documents;
mod front_proxy;
mod status;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dayfly_broker::Broker;
use dayfly_core::ports::Clock;
use dayfly_kube::FrontProxySource;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::listener;
use front_proxy::Trust;

/// Open connections: API servers keep a few.
const CONNECTIONS: usize = 256;
/// How often it is read by what the API server shows who it is.
const READ_EVERY: Duration = Duration::from_secs(10);
/// And how often as long as that cannot be read.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// Where the API server of the home cluster reaches `sessions.dayfly.dev`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// Where to listen.
    pub listen: SocketAddr,
    /// PEM: the certificate chain, leaf first, for `SERVICE.NAMESPACE.svc`, by the CA that the APIService names (`caBundle`).
    pub cert_file: PathBuf,
    /// PEM: its private key.
    pub key_file: PathBuf,
}

impl Sessions {
    /// Whether certificate and key can be used.
    pub(crate) fn check(&self, clock: &Arc<dyn Clock>) -> anyhow::Result<()> {
        self.acceptor(&Trust::new(Arc::clone(clock))).map(drop)
    }

    fn acceptor(&self, trust: &Arc<Trust>) -> anyhow::Result<tokio_rustls::TlsAcceptor> {
        let verifier = front_proxy::at_handshake(trust);
        Ok(listener::tls_acceptor_of(&self.cert_file, &self.key_file, Some(verifier))?)
    }
}

/// What serves sessions.
pub(crate) struct Served {
    /// Where.
    pub(crate) addr: SocketAddr,
    /// Until it is stopped.
    pub(crate) serving: crate::run::Serving,
}

/// Listens for the API server. What it shows who it is by is read in the background; until then it is turned away.
pub(crate) async fn serve(
    config: &Sessions,
    broker: Arc<Broker>,
    source: FrontProxySource,
    clock: &Arc<dyn Clock>,
    call_timeout: Duration,
    drain: Duration,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<Served> {
    let trust = Trust::new(Arc::clone(clock));
    let tls = config.acceptor(&trust)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {} for sessions", config.listen))?;
    let addr = listener.local_addr()?;
    let router = api::router(api::Shared::new(broker, Arc::clone(&trust), Arc::clone(clock), call_timeout));
    let connections = listener::connections(listener, tls, CONNECTIONS);
    let keeping = keep(trust, source);
    let until = crate::run::until(stopped);
    let serving = tokio::spawn(async move {
        let serving = crate::run::serve(router, connections, until, drain);
        tokio::select! {
            served = serving => served,
            never = keeping => match never {},
        }
    });
    tracing::info!(%addr, "listening for operators' sessions");
    Ok(Served { addr, serving })
}

/// Reads again and again by what the API server shows who it is.
async fn keep(trust: Arc<Trust>, source: FrontProxySource) -> std::convert::Infallible {
    // Told once, until it is another or none.
    let mut told = None;
    loop {
        let read = source.read().await.map_err(|error| error.to_string());
        let error = read.and_then(|read| trust.replace(read)).err();
        if let Some(error) = error.as_ref().filter(|_| told != error) {
            tracing::warn!(error, "sessions: the API server's front proxy cannot be known now");
        }
        let pause = if error.is_some() { READ_AGAIN } else { READ_EVERY };
        told = error;
        tokio::time::sleep(pause).await;
    }
}
