//! `dayfly store backup`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use dayfly_client::{Error, v1};
use dayfly_core::digest::Digest;
use dayfly_server::{BackupFile, BackupTaken, Config};
use serde::Serialize;
use tokio::time::timeout;

use crate::connect::Connection;
use crate::output::{Output, facts};
use crate::signals::Signals;

/// A stream that is silent for so long is dead.
const SILENCE: Duration = Duration::from_secs(60);

/// Where to put it.
#[derive(Args)]
pub(crate) struct Backup {
    /// The file, which must not be there yet. It has its name when it is whole; until then it is FILE.part-N.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Of the store of a broker that is stopped, by its configuration, as the user whose store it is.
    #[arg(long, value_name = "dayfly.toml")]
    store: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View {
    file: String,
    instance: String,
    incarnation: u32,
    position: u64,
    root: String,
    leases: u64,
    digest: String,
}

impl Backup {
    /// Takes it; a signal ends that, and leaves nothing.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let mut signals = Signals::listen()?;
        let view = tokio::select! {
            view = self.take(connection) => view?,
            () = signals.next() => anyhow::bail!("it was ended before the backup was complete"),
        };
        self.output.answer(&view, || text(&view))
    }

    async fn take(&self, connection: &Connection) -> anyhow::Result<View> {
        Ok(if let Some(config) = &self.store {
            let BackupTaken { point, digest } =
                dayfly_server::back_up_offline(&Config::load(config)?, &self.out).await?;
            View {
                file: self.out.display().to_string(),
                instance: point.mark.instance.to_string(),
                incarnation: point.mark.incarnation.0,
                position: point.mark.position.number(),
                root: Digest::from_bytes(point.root).to_string(),
                leases: point.leases,
                digest: digest.to_string(),
            }
        } else {
            let info = self.fetch(connection).await?;
            let digest = |bytes: &[u8]| bytes.try_into().map(Digest::from_bytes).map_err(|_| malformed());
            View {
                file: self.out.display().to_string(),
                instance: info.instance,
                incarnation: info.incarnation,
                position: info.position,
                root: digest(&info.root)?.to_string(),
                leases: info.leases,
                digest: digest(&info.digest)?.to_string(),
            }
        })
    }

    async fn fetch(&self, connection: &Connection) -> anyhow::Result<v1::BackupInfo> {
        let client = connection.client()?;
        let mut file = BackupFile::create(&self.out)?;
        let mut stream = client.create_backup().await?;
        let mut complete = None;
        loop {
            let next = timeout(SILENCE, stream.message()).await;
            let next = next.with_context(|| format!("the broker has sent nothing for {SILENCE:?}"))?;
            match next.map_err(|status| Error::of_status(&status))? {
                Some(message) => {
                    file.write(&message.data)?;
                    complete = complete.or(message.complete);
                }
                None => break,
            }
        }
        let info = complete.context("the broker ended before the backup was complete: take it again")?;
        file.finish()?;
        Ok(info)
    }
}

fn malformed() -> Error {
    Error::Malformed("complete")
}

fn text(view: &View) -> String {
    facts(&[
        ("file", view.file.clone()),
        ("instance", view.instance.clone()),
        ("incarnation", view.incarnation.to_string()),
        ("position", view.position.to_string()),
        ("root", view.root.clone()),
        ("leases", view.leases.to_string()),
        ("digest", view.digest.clone()),
    ])
}
