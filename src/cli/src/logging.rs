//! What is logged, and how: to standard error, by `DAYFLY_LOG`.

use clap::ValueEnum;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

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
    let filter = filter.and(filter_fn(may_be_logged));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => {
            tracing_subscriber::registry().with(lines.with_ansi(false).with_filter(filter)).try_init()
        }
        LogFormat::Json => tracing_subscriber::registry().with(lines.json().with_filter(filter)).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot log: {error}"))
}

/// What is never logged, whatever is asked for: kube's client logs answers that it cannot read, and a TokenReview's
/// repeats the token (what goes wrong with an API server is logged by dayfly-kube); sled logs its details while threads
/// end, when there is no logging any more, and that aborts the process.
fn may_be_logged(line: &Metadata<'_>) -> bool {
    let of = |library: &str| line.target().starts_with(library);
    !(of("kube_client") || of("sled") && *line.level() > Level::INFO)
}
