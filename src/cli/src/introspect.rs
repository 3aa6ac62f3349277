//! `dayfly introspect`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use dayfly_client::{Secret, v1};
use dayfly_core::limits;
use serde::Serialize;

use crate::connect::Connection;
use crate::output::{Output, facts};
use crate::view::{LeaseView, lease_facts};

/// Says whether a credential is good now.
#[derive(Args)]
pub(crate) struct Introspect {
    /// The file that holds it; `-` is standard input.
    #[arg(long, default_value = "-", value_name = "FILE")]
    credential_file: PathBuf,
    /// Exits with 1 when it is not active.
    #[arg(long)]
    require_active: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View<'a> {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<LeaseView<'a>>,
    position: u64,
}

impl Introspect {
    /// Asks, and prints.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        let answer = client.introspect(&read(&self.credential_file)?).await?;
        let lease = answer.lease.as_ref().map(Into::into);
        let view = View { active: answer.active, lease, position: answer.position };
        let printed = self.output.answer(&view, || text(&answer))?;
        Ok(if self.require_active && !answer.active { ExitCode::FAILURE } else { printed })
    }
}

fn text(answer: &v1::IntrospectResponse) -> String {
    let active = facts(&[("active", if answer.active { "yes" } else { "no" }.to_owned())]);
    let lease = answer.lease.as_ref().map(lease_facts).unwrap_or_default();
    format!("{active}{lease}")
}

/// The credential in a file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Secret> {
    let shown = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let reader: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(|| format!("cannot read {shown}"))?)
    };
    // One byte more than may be, and a line's end, is enough to know that it is too much.
    let most = limits::TOKEN_BYTES + 2;
    let mut bytes = Vec::with_capacity(most + 1);
    reader.take(most as u64 + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {shown}"))?;
    let bytes = Secret::from(bytes);
    let credential = bytes.expose().trim_ascii();
    anyhow::ensure!(!credential.is_empty(), "{shown} holds no credential");
    anyhow::ensure!(credential.len() <= limits::TOKEN_BYTES, "{shown} holds more than a credential");
    Ok(Secret::from(credential.to_vec()))
}
