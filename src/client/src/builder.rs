//! Setting a client up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::clock::{SystemClock, SystemRng};
use dayfly_core::ports::Clock;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::client::{Client, Parts};
use crate::error::Error;
use crate::retry::ATTEMPTS;
use crate::token::{TokenFile, TokenSource};

/// An endpoint that is the broker's own socket begins with this.
const SOCKET: &str = "unix:";
/// How long a call may take, unless set otherwise.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting may take, unless set otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection is not asked whether it lives; one with a call under way is, this often.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Sets a [`Client`] up; made by [`Client::builder`].
#[must_use]
pub struct Builder {
    endpoint: String,
    ca: Ca,
    token: Option<Arc<dyn TokenSource>>,
    cluster: Option<String>,
    connect_timeout: Duration,
    call_timeout: Duration,
    attempts: u32,
    plaintext: bool,
    clock: Arc<dyn Clock>,
}

enum Ca {
    None,
    Pem(Vec<u8>),
    File(PathBuf),
}

impl Builder {
    pub(crate) fn new(endpoint: String) -> Self {
        Self {
            endpoint,
            ca: Ca::None,
            token: None,
            cluster: None,
            connect_timeout: CONNECT_TIMEOUT,
            call_timeout: CALL_TIMEOUT,
            attempts: ATTEMPTS,
            plaintext: false,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// The certificate authorities that the broker's certificate may come from, as PEM. Required, unless in a file.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Ca::Pem(pem.into());
        self
    }

    /// The same from a file, read once, by [`Builder::build`].
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Ca::File(path.into());
        self
    }

    /// A client of the broker's own socket instead, on its machine: the kernel says who calls, and no token is needed.
    /// It serves revoking, lifting and reading revocations alone.
    pub fn socket(mut self, path: &Path) -> Self {
        self.endpoint = format!("{SOCKET}{}", path.display());
        self
    }

    /// The caller's own token, in a file that may be replaced at any time.
    pub fn token_file(self, path: impl Into<PathBuf>) -> Self {
        self.token_source(Arc::new(TokenFile::new(path)))
    }

    /// The caller's own token, from elsewhere.
    pub fn token_source(mut self, source: Arc<dyn TokenSource>) -> Self {
        self.token = Some(source);
        self
    }

    /// Says which cluster the token is of, by its name in the broker's configuration. Needed where several clusters have
    /// the token's issuer, as many have the default one.
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = Some(name.into());
        self
    }

    /// How long connecting may take: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take, all its tries together: 10 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// How often a call is tried, the first time included: 4.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Allows an `http` endpoint. Whoever is on the way then reads tokens and credentials: for tests on loopback.
    pub fn danger_plaintext(mut self) -> Self {
        self.plaintext = true;
        self
    }

    /// Takes the time from elsewhere, for tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The client. It connects at its first call, and again whenever the connection broke.
    ///
    /// # Errors
    /// [`Error::Config`] when the endpoint is no `https://HOST:PORT`, there is no usable CA certificate, or the cluster's
    /// name cannot be metadata.
    pub fn build(self) -> Result<Client, Error> {
        let cluster = self.cluster.as_deref().map(cluster_metadata).transpose()?;
        let endpoint = self.endpoint()?;
        Ok(Client::of(Parts {
            channel: endpoint.connect_lazy(),
            token: self.token,
            cluster,
            call_timeout: self.call_timeout,
            attempts: self.attempts,
            clock: self.clock,
            rng: Arc::new(SystemRng::new()),
        }))
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let no_endpoint = || Error::Config(format!("{}: an endpoint is https://HOST:PORT", self.endpoint));
        let endpoint = Endpoint::from_shared(self.endpoint.clone()).map_err(|_| no_endpoint())?;
        let endpoint = endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(self.connect_timeout)
            .user_agent(concat!("dayfly-client/", env!("CARGO_PKG_VERSION")))
            .map_err(|_| no_endpoint())?;
        if self.endpoint.starts_with(SOCKET) {
            // The kernel says who is at either end.
            return Ok(endpoint);
        }
        match endpoint.uri().scheme_str() {
            Some("https") => {
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.ca_bytes()?));
                let broken = |error| Error::Config(format!("the CA certificates cannot be used: {error}"));
                endpoint.tls_config(tls).map_err(broken)
            }
            Some("http") if self.plaintext => Ok(endpoint),
            Some("http") => Err(Error::Config(format!("{}: plaintext is refused: use https", self.endpoint))),
            _ => Err(no_endpoint()),
        }
    }

    fn ca_bytes(&self) -> Result<Vec<u8>, Error> {
        let pem = match &self.ca {
            Ca::None => {
                return Err(Error::Config("say which CA the broker's certificate comes from".to_owned()));
            }
            Ca::Pem(pem) => pem.clone(),
            Ca::File(path) => std::fs::read(path).map_err(|error| {
                Error::Config(format!("cannot read the CA file {}: {error}", path.display()))
            })?,
        };
        let begins = b"-----BEGIN CERTIFICATE-----";
        if pem.windows(begins.len()).any(|window| window == begins) {
            Ok(pem)
        } else {
            Err(Error::Config("the CA holds no PEM certificate".to_owned()))
        }
    }
}

fn cluster_metadata(name: &str) -> Result<MetadataValue<Ascii>, Error> {
    name.parse().map_err(|_| Error::Config(format!("{name:?} cannot be a cluster's name")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(builder: Builder) -> String {
        builder.build().err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn says_what_is_wrong_with_its_setup() {
        assert!(refusal(Client::builder("broker 1")).contains("https://HOST:PORT"));
        assert!(refusal(Client::builder("http://127.0.0.1:1")).contains("plaintext is refused"));
        assert!(refusal(Client::builder("https://127.0.0.1:1")).contains("say which CA"));
        assert!(refusal(Client::builder("https://127.0.0.1:1").ca_pem("x")).contains("no PEM certificate"));
        assert!(refusal(Client::builder("https://127.0.0.1:1").ca_file("/no/ca")).contains("/no/ca"));
        let client = Client::builder("http://127.0.0.1:1").danger_plaintext().cluster("ea\nst");
        assert!(refusal(client).contains("cluster's name"));
    }
}
