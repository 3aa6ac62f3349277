//! Servers, each in a process of its own: the broker as it is, and an echo that does nothing. Both end with their
//! standard input, so that none outlives the run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use dayfly_api::v1::workload_service_server::{WorkloadService, WorkloadServiceServer};
use dayfly_api::v1::{
    IssueRequest, IssueResponse, ReleaseRequest, ReleaseResponse, RenewRequest, RenewResponse,
    WatchMyLeasesRequest, WatchMyLeasesResponse, WhoAmIRequest, WhoAmIResponse,
    WorkloadServiceExplainRequest, WorkloadServiceExplainResponse,
};
use dayfly_server::{Config, StartOptions};
use prost::Message as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::transport::ServerTlsConfig;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::tls::Tls;

/// How long a server may take to be ready: the broker opens a store with a million leases.
const READY: Duration = Duration::from_secs(120);
/// How long a server may take to stop.
const STOP: Duration = Duration::from_secs(60);

/// A server that runs in a process of its own.
pub(crate) struct Server {
    child: Child,
    addr: SocketAddr,
    id: u32,
}

impl Server {
    /// Starts this binary with these arguments and waits until it says where it listens; its log goes to a file.
    pub(crate) async fn start(arguments: &[&Path], log: &Path) -> anyhow::Result<Self> {
        let log_file =
            std::fs::File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().context("the server has no standard output")?;
        let mut lines = BufReader::new(output).lines();
        let said = tokio::time::timeout(READY, lines.next_line()).await;
        let line = said.context("the server is not ready in time")??;
        let addr =
            line.with_context(|| format!("the server did not start; see {}", log.display()))?.parse()?;
        let id = child.id().context("the server has ended")?;
        Ok(Self { child, addr, id })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Has it stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let status =
            tokio::time::timeout(STOP, self.child.wait()).await.context("the server does not stop")??;
        anyhow::ensure!(status.success(), "the server ended badly: {status}");
        Ok(())
    }
}

/// Which broker.
#[derive(Debug, clap::Args)]
pub(crate) struct BrokerArgs {
    config: PathBuf,
}

/// Which echo.
#[derive(Debug, clap::Args)]
pub(crate) struct EchoArgs {
    /// The folder with its certificate.
    tls: PathBuf,
    /// The encoded `IssueResponse` that it answers with.
    answer: PathBuf,
}

/// The broker as `dayfly serve` runs it, its log at `info` included.
pub(crate) async fn broker(args: &BrokerArgs) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter).with_writer(std::io::stderr).init();
    let running = dayfly_server::start(Config::load(&args.config)?, StartOptions::default()).await?;
    let ready = async {
        while !running.troubles().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(READY, ready).await.is_err() {
        anyhow::bail!("the broker is not ready: {}", running.troubles().join("; "));
    }
    println!("{}", running.addr());
    until_input_ends().await?;
    running.stop().await
}

/// A bare tonic server with TLS, whose answer to `Issue` is always the same.
pub(crate) async fn echo(args: &EchoArgs) -> anyhow::Result<()> {
    let answer = IssueResponse::decode(std::fs::read(&args.answer)?.as_slice())?;
    let listener = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?.with_nodelay(Some(true));
    println!("{}", listener.local_addr()?);
    tonic::transport::Server::builder()
        .tls_config(ServerTlsConfig::new().identity(Tls::of(&args.tls).identity()?))?
        .add_service(WorkloadServiceServer::new(Echo { answer }))
        .serve_with_incoming_shutdown(listener, async {
            // An error ends the echo as the end of input does.
            until_input_ends().await.ok();
        })
        .await?;
    Ok(())
}

struct Echo {
    answer: IssueResponse,
}

#[tonic::async_trait]
impl WorkloadService for Echo {
    async fn issue(&self, _: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        Ok(Response::new(self.answer.clone()))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(knows_issue_only())
    }

    async fn explain(
        &self,
        _: Request<WorkloadServiceExplainRequest>,
    ) -> Result<Response<WorkloadServiceExplainResponse>, Status> {
        Err(knows_issue_only())
    }

    async fn release(&self, _: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        Err(knows_issue_only())
    }

    type WatchMyLeasesStream = tonic::codegen::BoxStream<WatchMyLeasesResponse>;

    async fn watch_my_leases(
        &self,
        _: Request<WatchMyLeasesRequest>,
    ) -> Result<Response<Self::WatchMyLeasesStream>, Status> {
        Err(knows_issue_only())
    }

    async fn who_am_i(&self, _: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        Err(knows_issue_only())
    }
}

fn knows_issue_only() -> Status {
    Status::unimplemented("the echo knows Issue only")
}

async fn until_input_ends() -> anyhow::Result<()> {
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    Ok(())
}
