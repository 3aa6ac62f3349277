//! `dayfly keys`.

use std::process::ExitCode;

use clap::Args;

use crate::connect::Connection;
use crate::output;

/// Prints the public keys.
#[derive(Args)]
pub(crate) struct Keys {}

impl Keys {
    /// Asks, and prints the JWK Set.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let keys = connection.anonymous()?.get_keys().await?;
        output::json(&serde_json::from_str::<serde_json::Value>(&keys.jwks)?)
    }
}
