//! `dayfly audit checkpoint`.

use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use dayfly_core::note::{SignedNote, VerifierKey};
use serde::Serialize;

use crate::connect::Connection;
use crate::output::Output;

/// Which checkpoint, and how to print it.
#[derive(Args)]
pub(crate) struct Show {
    /// Has one made of all that is recorded now, as an operator.
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View {
    checkpoint: String,
    origin: String,
    size: u64,
    root_hash: String,
    keys: Vec<String>,
}

impl Show {
    pub(super) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let (note, keys): (SignedNote, Vec<VerifierKey>) = if self.now {
            let made = connection.client()?.make_checkpoint().await?;
            let keys = made.keys.iter().map(|key| key.parse()).collect::<Result<_, _>>()?;
            (made.checkpoint.parse()?, keys)
        } else {
            super::published(&connection.anonymous()?).await?
        };
        let checkpoint = super::opened(&note, &keys, "the broker's checkpoint")?;
        let view = View {
            checkpoint: note.to_string(),
            origin: checkpoint.origin.to_string(),
            size: checkpoint.head.size,
            root_hash: STANDARD.encode(checkpoint.head.root),
            keys: keys.iter().map(ToString::to_string).collect(),
        };
        self.output.answer(&view, || view.checkpoint.clone())
    }
}
