//! Where the broker is, and who calls it.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use dayfly_client::{Builder, Client};
use dayfly_policy::ttl::Ttl;

use crate::failure::Usage;

/// How the broker is reached, and with whose token.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// The broker.
    #[arg(
        long,
        global = true,
        env = "DAYFLY_SERVER",
        hide_env_values = true,
        value_name = "https://HOST:PORT"
    )]
    server: Option<String>,
    /// The broker's own socket instead of --server, on its machine, as root or the broker's own user: `revoke`,
    /// `revocations`, `keys`, `store backup` and `store adopt` go through without a token and without any API server.
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// PEM of the certificate authorities that the broker's certificate may come from.
    #[arg(long, global = true, env = "DAYFLY_CA_FILE", hide_env_values = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Your projected token, of the audience that the verb needs: dayfly for a workload's, dayfly-verifier for a
    /// verifier's, dayfly-operator for an operator's.
    #[arg(long, global = true, env = "DAYFLY_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The cluster that the token is of, as the broker calls it: a call with one of another is refused. Needed where
    /// several clusters have the token's issuer.
    #[arg(long, global = true, env = "DAYFLY_CLUSTER", hide_env_values = true, value_name = "NAME")]
    cluster: Option<String>,
    /// How long a call may take, all its tries together.
    #[arg(long, global = true, default_value = "10s", value_name = "TIME")]
    timeout: Ttl,
}

impl Connection {
    /// A client that calls with the token, or by the broker's own socket.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        if let Some(socket) = &self.socket {
            return Ok(self.timed(Client::builder(String::new()).socket(socket)).build()?);
        }
        let token =
            self.token_file.as_ref().ok_or(Usage("say whose token to call with: --token-file FILE"))?;
        Ok(self.builder()?.token_file(token).build()?)
    }

    /// A client for what needs no token.
    pub(crate) fn anonymous(&self) -> anyhow::Result<Client> {
        Ok(self.builder()?.build()?)
    }

    fn builder(&self) -> anyhow::Result<Builder> {
        let server =
            self.server.as_ref().ok_or(Usage("say where the broker is: --server https://HOST:PORT"))?;
        let ca =
            self.ca_file.as_ref().ok_or(Usage("say what the broker's certificate is by: --ca-file FILE"))?;
        let builder = self.timed(Client::builder(server).ca_file(ca));
        Ok(match &self.cluster {
            Some(cluster) => builder.cluster(cluster),
            None => builder,
        })
    }

    /// How long a call may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.duration()
    }

    fn timed(&self, builder: Builder) -> Builder {
        let timeout = self.timeout.duration();
        builder.call_timeout(timeout).connect_timeout(timeout.min(Duration::from_secs(5)))
    }
}

/// Runs what waits.
pub(crate) fn run(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Runtime::new().context("cannot start")?.block_on(work)
}
