//! `dayfly serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use dayfly_server::{Config, StartOptions};

use crate::logging::{self, LogFormat};
use crate::output;
use crate::signals::Signals;

/// Runs the broker.
#[derive(Args)]
pub(crate) struct Serve {
    /// Its configuration.
    #[arg(long, value_name = "dayfly.toml")]
    config: PathBuf,
    /// Only reads and checks the configuration, and the files that it names.
    #[arg(long)]
    check: bool,
    /// Accepts a store that is older than its witness says, as where a volume was put back: everything issued before is
    /// revoked, and nothing downstream is touched until `dayfly store adopt`.
    #[arg(long)]
    accept_rollback: bool,
    /// The form of the log, on standard error.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    log_format: LogFormat,
}

impl Serve {
    /// Serves until told to stop.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let config = Config::load(&self.config)?;
        if self.check {
            let problems = dayfly_server::check(&config).await?;
            for problem in problems {
                output::print(&format!("warning: {problem}\n"))?;
            }
            return output::print(&format!("{}: good\n", self.config.display()));
        }
        logging::start(self.log_format, "info")?;
        let mut signals = Signals::listen()?;
        let options = StartOptions { accept_rollback: self.accept_rollback };
        let running = tokio::select! {
            running = dayfly_server::start(config, options) => running?,
            () = signals.next() => return Ok(ExitCode::SUCCESS),
        };
        signals.next().await;
        tracing::info!("stopping: calls under way may end");
        signals.end_at_next();
        running.stop().await?;
        Ok(ExitCode::SUCCESS)
    }
}
