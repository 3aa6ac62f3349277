//! The broker: the real process `dayfly serve`, in a folder of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::cluster::Access;
use crate::control_plane::keys::{make_certificates, make_certificates_for};
use crate::folder::Folder;
use crate::policy;
use crate::process::{Process, free_port, tail};

/// The cluster's name in the broker's configuration.
pub const CLUSTER: &str = "east";
/// The broker's SPIFFE trust domain, whose ids name the cluster.
pub const TRUST_DOMAIN: &str = "prod.example.org";
/// The broker's issuer identifier.
pub const ISSUER: &str = "https://dayfly.example.org";

/// The name of the Service by which the API server reaches `sessions.dayfly.dev`.
pub const SESSIONS_NAME: &str = "dayfly-sessions.dayfly.svc";

/// How a broker differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Entries of `[limits]`, over `policy_reload_secs = 1` and rates of one workload and one operator that no test meets.
    pub limits: BTreeMap<&'static str, u64>,
    /// Entries of `[keys]`.
    pub keys: BTreeMap<&'static str, u64>,
    /// Lines of `[log]`.
    pub log: Vec<&'static str>,
    /// The store's folder; by default `store` in the broker's own.
    pub store_dir: Option<PathBuf>,
    /// Free bytes on the store's disk below which nothing is issued.
    pub reserve_bytes: Option<u64>,
    /// Runs under Debian's libfaketime, so far ahead, in seconds, until [`Broker::set_clock`] says otherwise.
    pub clock_ahead: Option<i64>,
    /// Reach the cluster here instead, with its own scheme.
    pub by_way_of: Option<std::net::SocketAddr>,
    /// Writes to its store fail (ENOSPC) while the file [`Broker::failing`] is there, syncs while [`Broker::unsynced`] is.
    pub failing_disk: bool,
    /// What `DAYFLY_LOG` is; by default unset.
    pub log_filter: Option<&'static str>,
    /// `local_check = false`: signatures are left to the API server.
    pub hidden_keys: bool,
    /// `unowned_until` of `[policy]`: the grace for namespaces without an Owner.
    pub unowned_until: Option<&'static str>,
    /// Has a socket of its own, `dayfly.sock` in its folder.
    pub socket: bool,
    /// Serves `sessions.dayfly.dev` at [`Broker::sessions_port`], as [`SESSIONS_NAME`].
    pub sessions: bool,
    /// Not `dayfly`, but the broker that is built to be broken on purpose: in this way, one of `src/bin/dayfly-broken.rs`.
    pub broken: Option<&'static str>,
    /// Further clusters that it serves, by name, each with its policy in [`Broker::policy_of`].
    pub more_clusters: Vec<(&'static str, Access)>,
}

/// A broker, running or not. Dropping it kills it.
pub struct Broker {
    process: tokio::sync::Mutex<Option<Process>>,
    program: PathBuf,
    environment: Vec<(&'static str, OsString)>,
    port: u16,
    sessions_port: u16,
    ca_pem: String,
    channel: Channel,
    markers: AtomicU64,
    secrets: Mutex<Vec<String>>,
    options: Options,
    access: Access,
    dir: Folder,
}

impl Broker {
    /// Starts a broker of one cluster, and returns when its health service says that it serves.
    ///
    /// # Errors
    /// When there is no `dayfly` program; when it ends or does not serve within 60 seconds, with the tail of its log.
    pub async fn start(access: Access, options: Options) -> Result<Self> {
        let broker = Self::prepare(access, options)?;
        broker.launch().await?;
        Ok(broker)
    }

    /// All that a broker needs, and starts nothing yet.
    pub fn prepare(access: Access, options: Options) -> Result<Self> {
        let dir = Folder::new("broker")?;
        let ca_pem = make_certificates(dir.path())?;
        let port = free_port()?;
        let channel = endpoint(port, &ca_pem)?.connect_lazy();
        let program = program(options.broken)?;
        let mut broker = Self {
            process: tokio::sync::Mutex::default(),
            program,
            environment: Vec::new(),
            port,
            sessions_port: free_port()?,
            ca_pem,
            channel,
            markers: AtomicU64::new(0),
            secrets: Mutex::default(),
            options,
            access,
            dir,
        };
        for (name, access) in broker.clusters() {
            std::fs::create_dir(broker.policy_of(name))?;
            broker.write_secret(&format!("{name}.token"), &access.token)?;
            if let Some(ca) = &access.ca_pem {
                std::fs::write(broker.dir().join(format!("{name}-ca.crt")), ca)?;
            }
        }
        if broker.options.sessions {
            make_certificates_for(broker.dir(), ["sessions-ca", "sessions"], &[SESSIONS_NAME, "localhost"])?;
        }
        if let Some(ahead) = broker.options.clock_ahead {
            broker.set_clock(ahead)?;
            broker.environment.push(("LD_PRELOAD", libfaketime()?.into()));
            broker.environment.push(("FAKETIME_TIMESTAMP_FILE", broker.dir().join("clock").into()));
            broker.environment.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()));
            broker.environment.push(("FAKETIME_NO_CACHE", "1".into()));
        }
        if broker.options.failing_disk {
            broker.environment.push(("LD_PRELOAD", shim("enospc", broker.dir())?.into()));
            broker.environment.push(("DAYFLY_FULL_ROOT", broker.store_dir().into()));
            broker.environment.push(("DAYFLY_FULL_WHILE", broker.failing().into()));
            broker.environment.push(("DAYFLY_UNSYNCED_WHILE", broker.unsynced().into()));
        }
        if let Some(filter) = broker.options.log_filter {
            broker.environment.push(("DAYFLY_LOG", filter.into()));
        }
        if let Some(how) = broker.options.broken {
            broker.environment.push(("DAYFLY_BROKEN", how.into()));
        }
        broker.configure(|_| {})?;
        Ok(broker)
    }

    /// Writes `dayfly.toml` anew with other options. It counts from the next start on.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Options)) -> Result<()> {
        self.configure(change)
    }

    fn configure(&mut self, change: impl FnOnce(&mut Options)) -> Result<()> {
        change(&mut self.options);
        std::fs::write(self.dir().join("dayfly.toml"), self.configuration(self.port)?)?;
        Ok(())
    }

    fn configuration(&self, port: u16) -> Result<String> {
        let Options { limits, keys, store_dir, reserve_bytes, by_way_of, hidden_keys, unowned_until, .. } =
            &self.options;
        let mut text =
            format!("issuer = {ISSUER:?}\nlisten = \"127.0.0.1:{port}\"\nhome_cluster = {CLUSTER:?}\n");
        if self.options.socket {
            text += "socket = \"dayfly.sock\"\n";
        }
        text += "[tls]\ncert_file = \"server.crt\"\nkey_file = \"server.key\"\n";
        let store = store_dir.clone().unwrap_or_else(|| "store".into());
        writeln!(text, "[store]\ndir = {:?}", store.to_string_lossy())?;
        if let Some(bytes) = reserve_bytes {
            writeln!(text, "reserve_bytes = {bytes}")?;
        }
        text += "[store.witness]\nfile = \"witness.json\"\ndanger_witness_beside_store = true\n";
        text += "[keys]\nkek_file = \"kek\"\n";
        for (name, value) in keys {
            writeln!(text, "{name} = {value}")?;
        }
        if self.options.sessions {
            // A broker that is started beside this one never gets as far.
            writeln!(text, "[sessions]\nlisten = \"127.0.0.1:{}\"", self.sessions_port)?;
            text += "cert_file = \"sessions.crt\"\nkey_file = \"sessions.key\"\n";
        }
        writeln!(text, "[log]\n{}", self.options.log.join("\n"))?;
        if let Some(until) = unowned_until {
            writeln!(text, "[policy]\nunowned_until = {until:?}")?;
        }
        for (name, Access { issuer, server, ca_pem, .. }) in self.clusters() {
            let server = match by_way_of {
                Some(wire) if name == CLUSTER => {
                    let (scheme, _) = server.split_once("://").context("the cluster's URL has no scheme")?;
                    format!("{scheme}://{wire}")
                }
                _ => server.clone(),
            };
            let policy = self.policy_of(name);
            writeln!(
                text,
                "[[cluster]]\nname = {name:?}\nissuer = {issuer:?}\npolicy = \"{}\"",
                policy.display()
            )?;
            writeln!(text, "server = {server:?}\ntoken_file = \"{name}.token\"")?;
            if ca_pem.is_some() {
                writeln!(text, "ca_file = \"{name}-ca.crt\"")?;
            }
            if *hidden_keys {
                text += "local_check = false\n";
            }
        }
        writeln!(
            text,
            "[[trust_domain]]\nname = {TRUST_DOMAIN:?}\nclusters = [{CLUSTER:?}]\ncluster_in_path = true"
        )?;
        let mut all = BTreeMap::from([
            ("policy_reload_secs", 1),
            // Tests ask for more than a pod does, and share an operator.
            ("calls_per_second_of_one_workload", 10_000),
            ("burst_of_one_workload", 10_000),
            ("calls_per_second_of_one_operator", 10_000),
            ("burst_of_one_operator", 10_000),
        ]);
        all.extend(limits);
        text += "[limits]\n";
        for (name, value) in all {
            writeln!(text, "{name} = {value}")?;
        }
        Ok(text)
    }

    /// Starts the process, and returns when it serves.
    pub async fn launch(&self) -> Result<()> {
        self.launch_with(&[]).await
    }

    /// Starts the process with these arguments too, and returns when it serves.
    pub async fn launch_with(&self, arguments: &[&str]) -> Result<()> {
        self.launch_until(arguments, async || self.serves().await).await
    }

    /// Starts the process, and returns when its health service answers, whatever it says.
    pub async fn launch_unready(&self) -> Result<()> {
        self.launch_until(&[], async || self.health().await.is_some()).await
    }

    async fn launch_until(&self, arguments: &[&str], condition: impl AsyncFn() -> bool) -> Result<()> {
        let mut slot = self.process.lock().await;
        ensure!(slot.is_none(), "the broker runs already");
        let mut process = self.spawn("dayfly.toml", arguments)?;
        process.until(async || Ok(condition().await)).await?;
        *slot = Some(process);
        Ok(())
    }

    fn spawn(&self, configuration: &str, arguments: &[&str]) -> Result<Process> {
        let configuration = self.dir().join(configuration).display().to_string();
        let mut all = vec!["serve".to_owned(), "--config".to_owned(), configuration];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        Process::start_with(&self.program, self.dir(), &self.log_file(), all, &self.environment)
    }

    /// Whether the health service says so.
    pub async fn serves(&self) -> bool {
        self.health().await == Some(ServingStatus::Serving)
    }

    async fn health(&self) -> Option<ServingStatus> {
        let answer = HealthClient::new(self.channel()).check(HealthCheckRequest::default()).await;
        answer.ok().map(|answer| answer.into_inner().status())
    }

    /// Runs `dayfly serve` with these arguments too, beside this broker if it runs, and on a port of its own. Gives how it
    /// ended, and what it logged.
    ///
    /// # Errors
    /// When it serves, or does neither within 60 seconds.
    pub async fn refuses_to_start(&self, arguments: &[&str]) -> Result<(ExitStatus, String)> {
        let port = free_port()?;
        std::fs::write(self.dir().join("other.toml"), self.configuration(port)?)?;
        let before = self.log().len();
        let mut process = self.spawn("other.toml", arguments)?;
        let status = process.ended().await?;
        Ok((status, self.log().split_off(before)))
    }

    /// Runs another command of the program in the broker's folder. Gives how it ended, and what it said (both streams).
    pub async fn command(&self, arguments: &[&str]) -> Result<(ExitStatus, String)> {
        let log = tempfile::NamedTempFile::new_in(self.dir())?;
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut process = Process::start_with(&self.program, self.dir(), log.path(), arguments, &[])?;
        let status = process.ended().await?;
        Ok((status, std::fs::read_to_string(log.path())?))
    }

    /// Runs another command of the program in the broker's folder, and ends it as a crash does (SIGKILL) as soon as this
    /// holds; gives how it ended where it did so by itself before.
    pub async fn command_killed(
        &self,
        arguments: &[&str],
        when: impl AsyncFn() -> bool,
    ) -> Result<Option<ExitStatus>> {
        let log = tempfile::NamedTempFile::new_in(self.dir())?;
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut process = Process::start_with(&self.program, self.dir(), log.path(), arguments, &[])?;
        let ended = tokio::select! {
            ended = process.ended() => Some(ended?),
            () = async { while !when().await { tokio::time::sleep(Duration::from_millis(1)).await } } => None,
        };
        if ended.is_none() {
            process.kill()?;
        }
        Ok(ended)
    }

    /// Ends it as a crash does (SIGKILL), and returns when it is gone.
    pub async fn kill9(&self) -> Result<()> {
        let process = self.process.lock().await.take().context("the broker does not run")?;
        Ok(process.kill()?)
    }

    /// Ends it as an operator does (SIGTERM), and returns when it is gone.
    ///
    /// # Errors
    /// When its exit status is not 0, or its log has a registered secret.
    pub async fn stop(&self) -> Result<()> {
        let mut process = self.process.lock().await.take().context("the broker does not run")?;
        process.terminate()?;
        let status = process.ended().await?;
        ensure!(
            status.success(),
            "the broker ended with {status}; the end of its log:\n{}",
            tail(&self.log_file())
        );
        self.check_log()
    }

    /// Stops it, and starts it again.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.launch().await
    }

    /// Sets its clock so far ahead of the true time, in seconds, from now on. It must run under libfaketime
    /// ([`Options::clock_ahead`]).
    pub fn set_clock(&self, ahead: i64) -> Result<()> {
        ensure!(self.options.clock_ahead.is_some(), "the broker does not run under libfaketime");
        // By rename: the file is read each time that the broker looks at its clock.
        let file = self.dir().join("clock");
        std::fs::write(file.with_extension("new"), format!("{ahead:+}\n"))?;
        Ok(std::fs::rename(file.with_extension("new"), file)?)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The store's folder.
    pub fn store_dir(&self) -> PathBuf {
        self.dir().join(self.options.store_dir.as_deref().unwrap_or(Path::new("store")))
    }

    /// The file that makes its disk fail while it is there, with [`Options::failing_disk`].
    pub fn failing(&self) -> PathBuf {
        self.dir().join("failing")
    }

    /// The file that makes syncs of its store fail while it is there, with [`Options::failing_disk`]: with EIO, or where
    /// it is not empty, in a way that sled takes for none.
    pub fn unsynced(&self) -> PathBuf {
        self.dir().join("unsynced")
    }

    /// The folder with its policy.
    pub fn policy(&self) -> PathBuf {
        self.policy_of(CLUSTER)
    }

    /// The folder with the policy of this cluster.
    pub fn policy_of(&self, cluster: &str) -> PathBuf {
        self.dir().join(if cluster == CLUSTER { "policy".to_owned() } else { format!("policy-{cluster}") })
    }

    fn clusters(&self) -> impl Iterator<Item = (&'static str, &Access)> {
        let more = self.options.more_clusters.iter().map(|(name, access)| (*name, access));
        std::iter::once((CLUSTER, &self.access)).chain(more)
    }

    /// All that it has logged so far, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.dir().join("dayfly.log")
    }

    /// A connection to it, made when it is first used and again after a restart.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A connection of its own.
    pub fn another_channel(&self) -> Result<Channel> {
        Ok(endpoint(self.port, &self.ca_pem)?.connect_lazy())
    }

    /// A connection whose client calls, and takes nothing of any answer but its head (HTTP/2 windows of 0).
    pub fn channel_that_reads_nothing(&self) -> Result<Channel> {
        Ok(endpoint(self.port, &self.ca_pem)?.initial_stream_window_size(0).connect_lazy())
    }

    /// The CA of its certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the API server reaches `sessions.dayfly.dev`, on 127.0.0.1.
    pub fn sessions_port(&self) -> u16 {
        self.sessions_port
    }

    /// Writes an object into its policy folder, in place of its earlier version.
    pub fn put(&self, object: &Value) -> Result<()> {
        self.put_text(&policy::file_name(object), &object.to_string())
    }

    /// Writes an object into the policy folder of this cluster.
    pub fn put_in(&self, cluster: &str, object: &Value) -> Result<()> {
        Ok(std::fs::write(self.policy_of(cluster).join(policy::file_name(object)), object.to_string())?)
    }

    /// Writes a policy file of this name.
    pub fn put_text(&self, file: &str, text: &str) -> Result<()> {
        // A name that begins with a dot is passed over, so that no half of a file is ever read.
        let new = self.policy().join(format!(".{file}.new"));
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, self.policy().join(file))?)
    }

    /// Takes an object out of its policy folder.
    pub fn remove(&self, object: &Value) -> Result<()> {
        Ok(std::fs::remove_file(self.policy().join(policy::file_name(object)))?)
    }

    /// Writes an Owner of a new name into its policy folder, and gives the name and the file. Once the broker knows it, it
    /// has read everything that was in the folder before.
    pub(crate) fn put_marker(&self) -> Result<(String, PathBuf)> {
        let name = format!("marker-{}", self.markers.fetch_add(1, Ordering::Relaxed));
        let marker = policy::owner(&name, &[&name]);
        self.put(&marker)?;
        Ok((name, self.policy().join(policy::file_name(&marker))))
    }

    /// Registers a token or credential that may never be in its log.
    pub fn keep_secret(&self, secret: &str) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(secret.to_owned());
    }

    /// Looks for registered secrets in its log: for a JWT, its signature is enough.
    pub fn check_log(&self) -> Result<()> {
        let log = self.log();
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        for secret in secrets.iter().chain([&self.access.token]) {
            let part = secret.rsplit('.').next().filter(|part| part.len() > 16).unwrap_or(secret);
            if let Some(line) = log.lines().find(|line| line.contains(part)) {
                bail!("the broker's log has a secret, in this line:\n{line}");
            }
        }
        Ok(())
    }

    fn write_secret(&self, name: &str, secret: &str) -> Result<()> {
        let mut file =
            std::fs::File::options().write(true).create_new(true).mode(0o600).open(self.dir().join(name))?;
        Ok(std::io::Write::write_all(&mut file, secret.as_bytes())?)
    }
}

impl Drop for Broker {
    #[expect(clippy::panic, reason = "this is how a test fails")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of the broker's log:\n{}", tail(&self.log_file()));
        } else if let Err(error) = self.check_log() {
            panic!("{error:#}");
        }
    }
}

fn endpoint(port: u16, ca_pem: &str) -> Result<Endpoint> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem)).domain_name("localhost");
    Ok(Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?.tls_config(tls)?)
}

/// The program `dayfly`, or the broken one, from `$DAYFLY_BIN_DIR`, or from the target folder that this test is in.
fn program(broken: Option<&str>) -> Result<PathBuf> {
    let dir = match std::env::var_os("DAYFLY_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            std::env::current_exe()?.ancestors().nth(2).context("a test outside a target folder")?.to_owned()
        }
    };
    let (name, build) = match broken {
        None => ("dayfly", "cargo build -p dayfly"),
        Some(_) => {
            ("dayfly-broken", "cargo build --workspace --features dayfly-e2e/broken --bin dayfly-broken")
        }
    };
    let program = dir.join(name);
    ensure!(
        program.is_file(),
        "there is no {}: run `{build}`, or set DAYFLY_BIN_DIR to the folder that has it",
        program.display()
    );
    Ok(program)
}

/// Builds `tests/shims/NAME.c` into this folder, with the system's compiler.
fn shim(name: &str, folder: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../shims/{name}.c"));
    let object = folder.join(format!("{name}.so"));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let built = std::process::Command::new(&compiler)
        .args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"])
        .args([object.as_os_str(), source.as_os_str(), "-ldl".as_ref()])
        .status();
    ensure!(built.is_ok_and(|status| status.success()), "{compiler} did not build {}", source.display());
    Ok(object)
}

/// Debian's libfaketime, in the form for programs with threads.
fn libfaketime() -> Result<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib")?.flatten();
    libraries
        .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.is_file())
        .context("there is no /usr/lib/*/faketime/libfaketimeMT.so.1: run `apt-get install faketime`")
}
