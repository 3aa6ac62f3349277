//! Child processes that end with us.

use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A child process whose output goes to a log file. Dropping it kills it, and waits until it is gone.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `bin/program` in `dir`, with its output appended to `dir/<program>.log`.
    pub(crate) fn start(bin: &Path, dir: &Path, program: &str, flags: Vec<String>) -> Result<Self> {
        Self::start_with(&bin.join(program), dir, &dir.join(format!("{program}.log")), flags, &[])
    }

    /// Starts a program in `dir`, with its output appended to `log`, and of the environment only `PATH` and these.
    pub(crate) fn start_with(
        program: &Path,
        dir: &Path,
        log: &Path,
        flags: Vec<String>,
        environment: &[(&str, OsString)],
    ) -> Result<Self> {
        let output = std::fs::File::options().create(true).append(true).open(log)?;
        let mut command = if *CAN_END_WITH_US {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.args(flags).current_dir(dir).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let child = spawn(command).with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Ends it as a crash does (SIGKILL), and returns when it is gone.
    pub(crate) fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM).
    pub(crate) fn terminate(&self) -> Result<()> {
        let id =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a child without an id")?;
        Ok(kill_process(id, Signal::TERM)?)
    }

    /// Waits until it has ended by itself, for 60 seconds at most.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus> {
        let mut ended = None;
        let waited = until(async || {
            ended = self.child.try_wait()?;
            Ok(ended.is_some())
        });
        waited.await.with_context(|| {
            format!("it does not end; the end of {}:\n{}", self.log.display(), tail(&self.log))
        })?;
        ended.context("waited for")
    }

    /// Waits until the condition holds.
    ///
    /// # Errors
    /// Those of the condition, and when the server ends or 60 seconds pass before it; with the tail of the log.
    pub(crate) async fn until(&mut self, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        let Self { child, log } = self;
        let held = until(async || match child.try_wait()? {
            None => condition().await,
            Some(status) => bail!("it ended: {status}"),
        });
        held.await.with_context(|| format!("the end of {}:\n{}", log.display(), tail(log)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Of one that has ended already, both succeed.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("cannot end process {}: {error}", self.child.id());
        }
    }
}

/// Polls the condition until it holds, for 60 seconds at most.
pub(crate) async fn until(mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let polled = async {
        while !condition().await? {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    };
    tokio::time::timeout(DEADLINE, polled).await.with_context(|| format!("not within {DEADLINE:?}"))?
}

/// The last 30 lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Whether `setpriv` (util-linux) can have the kernel kill a server when we die.
static CAN_END_WITH_US: LazyLock<bool> = LazyLock::new(|| {
    let mut probe = Command::new("setpriv");
    probe
        .args(["--pdeathsig", "KILL", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
});

/// Spawns from a thread that lives as long as this process: for the kernel, a child's parent is the thread that made it, and a
/// test's thread ends before the servers that it shares with other tests.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, received) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in received {
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, child) = mpsc::channel();
    SPAWNER.send((command, reply)).map_err(io::Error::other)?;
    child.recv().map_err(io::Error::other)?
}

/// A free loopback port below those that the kernel gives to outgoing connections, so that it is still free at a restart.
pub(crate) fn free_port() -> io::Result<u16> {
    const PORTS: std::ops::Range<u16> = 20_000..32_000;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let spread = std::process::id().wrapping_mul(101) % u32::from(PORTS.end - PORTS.start);
        AtomicU16::new(u16::try_from(spread).unwrap_or_default())
    });
    PORTS
        .map(|_| PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| io::Error::other("no free port from 20000 to 31999"))
}
