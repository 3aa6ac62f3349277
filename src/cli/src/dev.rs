//! `dayfly dev`: the whole of Dayfly on a bare machine, with a guide through it.

mod audit;
mod commands;
mod folder;
mod guide;
mod people;
mod policy;
mod tls;
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::failure::Usage;
use crate::logging::{self, LogFormat};
use crate::output;
use crate::signals::Signals;
use people::Person;
use world::World;

/// How often the token files are replaced, as a kubelet does.
const REFRESH: Duration = Duration::from_secs(600);

/// Runs everything on this machine.
#[derive(Args)]
pub(crate) struct Dev {
    /// Ends after the guide.
    #[arg(long)]
    once: bool,
    /// Where to keep store, keys, policy and tokens. Without it they are in a temporary folder, removed at the end.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Where the broker listens: a loopback address; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    listen: SocketAddr,
}

impl Dev {
    /// Runs it until told to stop.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if !self.listen.ip().is_loopback() {
            return Err(Usage("--listen takes a loopback address: dev is for this machine only").into());
        }
        logging::start(LogFormat::Text, "error,dayfly_policy=warn")?;
        let mut signals = Signals::listen()?;
        let (dir, listen) = (self.dir.clone(), self.listen);
        let world = tokio::select! {
            world = World::start(dir, listen) => world?,
            () = signals.next() => return Ok(self.interrupted()),
        };
        let done = tokio::select! {
            done = self.show(&world) => done.map(|()| ExitCode::SUCCESS),
            () = signals.next() => Ok(self.interrupted()),
        };
        signals.end_at_next();
        let stopped = world.stop().await;
        done.and_then(|code| stopped.map(|()| code))
    }

    /// To be told to stop is how it ends; only a guide that was to be done once is then not done.
    fn interrupted(&self) -> ExitCode {
        if self.once { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    async fn show(&self, world: &World) -> anyhow::Result<()> {
        output::print(&format!("Dayfly at {}, its files in {}\n\n", world.url(), world.folder().display()))?;
        guide::run(world).await?;
        if self.once {
            return Ok(());
        }
        output::print(&commands::to_try(world)?)?;
        loop {
            tokio::time::sleep(REFRESH).await;
            for person in Person::ALL {
                world.write_token(person)?;
            }
        }
    }
}
