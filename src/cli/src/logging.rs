//! What is logged, and how: to standard error, by `DAYFLY_LOG`.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// The form of a log line.
#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs from here on. `DAYFLY_LOG` says what, by level or by `TARGET=LEVEL`; `default` where it is not set.
pub(crate) fn start(format: LogFormat, default: &str) -> anyhow::Result<()> {
    let filter = match std::env::var("DAYFLY_LOG") {
        Ok(set) => EnvFilter::try_new(&set).map_err(|error| anyhow::anyhow!("DAYFLY_LOG={set}: {error}"))?,
        Err(_) => EnvFilter::try_new(default)?,
    };
    // Whatever is asked for: kube's client logs answers that it cannot read, and a TokenReview's repeats the token. What
    // goes wrong with an API server is logged by dayfly-kube.
    let filter = filter.add_directive("kube_client=off".parse()?);
    // sled logs its details while threads end, when there is no logging any more: that aborts the process.
    let filter = filter.add_directive("sled=info".parse()?);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot log: {error}"))
}
