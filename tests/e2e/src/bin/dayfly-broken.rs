//! `dayfly serve` with a store that is broken on purpose, in the way that `DAYFLY_BROKEN` says: tests/histories must tell.

use std::path::Path;

use anyhow::{Context as _, bail};
use dayfly_server::{Config, StartOptions};
use dayfly_store::broken::Broken;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match std::env::var("DAYFLY_BROKEN").as_deref() {
        Ok("nothing") => Broken::Nothing.apply(),
        Ok("coverage") => Broken::Coverage.apply(),
        Ok("stale-rules") => Broken::StaleRules.apply(),
        other => bail!("DAYFLY_BROKEN is {other:?}: it says what is broken"),
    }
    // serve --config FILE
    let config = std::env::args_os().nth(3).context("no configuration")?;
    let running = dayfly_server::start(Config::load(Path::new(&config))?, StartOptions::default()).await?;
    signal(SignalKind::terminate())?.recv().await;
    running.stop().await
}
