//! A certificate for this machine alone, and connections that trust it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const NAME: &str = "localhost";

/// A self-made certificate with its key (P-256, as the broker's own would be), in files.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    /// PEM.
    pub(crate) cert_file: PathBuf,
    /// PEM.
    pub(crate) key_file: PathBuf,
}

impl Tls {
    /// Makes both in this folder.
    pub(crate) fn make(dir: &Path) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let tls = Self::of(dir);
        fs::write(&tls.cert_file, made.cert.pem())?;
        fs::write(&tls.key_file, made.signing_key.serialize_pem())?;
        Ok(tls)
    }

    /// The ones that were made in this folder.
    pub(crate) fn of(dir: &Path) -> Self {
        Self { cert_file: dir.join("tls.crt"), key_file: dir.join("tls.key") }
    }

    /// What a server shows.
    pub(crate) fn identity(&self) -> anyhow::Result<Identity> {
        Ok(Identity::from_pem(read(&self.cert_file)?, read(&self.key_file)?))
    }

    /// So many connections, each of its own.
    pub(crate) async fn connect(&self, addr: SocketAddr, connections: usize) -> anyhow::Result<Vec<Channel>> {
        let trust = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(&self.cert_file)?))
            .domain_name(NAME);
        let endpoint = Endpoint::from_shared(format!("https://{addr}"))?.tls_config(trust)?;
        let mut channels = Vec::with_capacity(connections);
        for _ in 0..connections {
            channels.push(endpoint.connect().await.with_context(|| format!("cannot connect to {addr}"))?);
        }
        Ok(channels)
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
