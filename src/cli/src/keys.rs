//! `dayfly keys`.

use std::fmt::Write as _;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use dayfly_core::ids::{ClusterName, TargetName, TrustDomain};
use dayfly_core::secret::Secret;
use dayfly_server::Config;
use serde::Serialize;

use crate::connect::{self, Connection};
use crate::output::{self, Output, facts, plain};

mod life;

use life::{List, Revoke, Rotate};

/// Prints the public keys; or looks after the signing keys.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Keys {
    /// Prints this trust domain's SPIFFE bundle instead: the keys of its SVIDs.
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<TrustDomain>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Lists the signing keys, and where each is in its life, as an operator.
    ///
    /// A key is `next` (published, signs nothing yet), `active` (signs), `retiring` (published until nothing that it
    /// signed is alive), then `retired`. A `revoked` one is not published, and all that it signed is revoked.
    List(List),
    /// Publishes a next signing key, which signs when verifiers can have seen it, as an operator.
    ///
    /// Keys that Dayfly makes rotate by themselves (`rotate_secs` of `[keys]`): this is for sooner. A next key that is there
    /// already stays it.
    Rotate(Rotate),
    /// Ends a signing key at once, and everything that it signed, as an operator.
    ///
    /// It is not published any more and signs nothing, its private key is deleted, and a rule revokes all that it signed:
    /// workloads may ask again. Where it was active, another signs in its place. All of that before this answers.
    Revoke(Revoke),
    /// Seals an RSA private key for one target, which then signs with it by RS256.
    ///
    /// For Targets with `signingAlgorithm: RS256`, whose verifiers know nothing newer: Dayfly makes no RSA keys itself.
    /// The broker must be stopped, and this runs where its store and its key-encryption key are. The key is published
    /// when the broker starts again. A target's first key signs at once. A further one is its next: it signs when it was
    /// published long enough, and the earlier one retires.
    Import(Import),
}

#[derive(Args)]
struct Import {
    /// PEM: PKCS#8 or PKCS#1, of 2048, 3072 or 4096 bits, with exponent 65537, not encrypted.
    file: PathBuf,
    /// The only target that signs with it, with its cluster where the broker serves several.
    #[arg(long, value_name = "[CLUSTER/]NAME")]
    target: Of,
    /// The broker's configuration: where its store and its key-encryption key are.
    #[arg(long, value_name = "dayfly.toml")]
    config: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// A target, and its cluster where that is said.
#[derive(Clone)]
struct Of {
    cluster: Option<ClusterName>,
    target: TargetName,
}

impl std::str::FromStr for Of {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (cluster, target) = match text.split_once('/') {
            Some((cluster, target)) => (Some(cluster.parse().map_err(|error| format!("{error}"))?), target),
            None => (None, text),
        };
        Ok(Self { cluster, target: target.parse().map_err(|error| format!("{error}"))? })
    }
}

#[derive(Serialize)]
struct View<'a> {
    key_id: &'a str,
    algorithm: &'static str,
    cluster: &'a str,
    target: &'a str,
    stage: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    hints: &'a [String],
}

impl Keys {
    /// Does what was asked.
    pub(crate) fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        match self.verb {
            Some(Verb::List(list)) => connect::run(list.run(connection)),
            Some(Verb::Rotate(rotate)) => connect::run(rotate.run(connection)),
            Some(Verb::Revoke(revoke)) => connect::run(revoke.run(connection)),
            Some(Verb::Import(import)) => connect::run(import.run()),
            None => connect::run(published(connection, self.trust_domain)),
        }
    }
}

/// Asks, and prints the JWK Set or bundle.
async fn published(connection: &Connection, trust_domain: Option<TrustDomain>) -> anyhow::Result<ExitCode> {
    let keys = connection.anonymous()?.get_keys().await?;
    let text = match &trust_domain {
        None => &keys.jwks,
        Some(domain) => {
            let of_domain = keys.bundles.iter().find(|bundle| bundle.trust_domain == domain.as_str());
            &of_domain.with_context(|| format!("the broker has no trust domain {domain}"))?.bundle
        }
    };
    output::json(&serde_json::from_str::<serde_json::Value>(text)?)
}

impl Import {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let (pem, exposed) = read(&self.file)?;
        let config = Config::load(&self.config)?;
        let Of { cluster, target } = self.target;
        let imported = dayfly_server::import_key(&config, &pem, cluster, target)
            .await
            .with_context(|| format!("{} was not imported", self.file.display()))?;
        let mut hints = imported.hints;
        if exposed {
            hints.push(
                "others on this machine could read the file: have it made again, for its owner alone"
                    .to_owned(),
            );
        }
        let view = View {
            key_id: imported.id.as_str(),
            algorithm: "RS256",
            cluster: imported.cluster.as_str(),
            target: imported.target.as_str(),
            stage: if imported.next { "next" } else { "active" },
            hints: &hints,
        };
        self.output.answer(&view, || text(&view, &self.file))
    }
}

/// The file's content, of a file that is too large, enough to be refused; and whether others than its owner may read it.
fn read(path: &Path) -> anyhow::Result<(Secret, bool)> {
    let cannot = || format!("cannot read {}", path.display());
    let most = dayfly_server::MAX_KEY_FILE_BYTES + 1;
    // Room for all of it at once, so that no part stays behind in a buffer that was outgrown.
    let mut content = vec![0; most];
    let mut file = std::fs::File::open(path).with_context(cannot)?;
    let exposed = file.metadata().with_context(cannot)?.mode() & 0o077 != 0;
    let mut length = 0;
    let read = loop {
        match file.read(content.get_mut(length..).unwrap_or_default()) {
            Ok(0) => break Ok(()),
            Ok(more) => length += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    content.truncate(length);
    let content = Secret::from(content);
    read.with_context(cannot)?;
    Ok((content, exposed))
}

fn text(view: &View<'_>, file: &Path) -> String {
    let mut text = facts(&[
        ("key", view.key_id.to_owned()),
        ("algorithm", view.algorithm.to_owned()),
        ("cluster", view.cluster.to_owned()),
        ("target", view.target.to_owned()),
        ("stage", view.stage.to_owned()),
    ]);
    for hint in view.hints {
        let _ = writeln!(text, "warning: {}", plain(hint));
    }
    let _ =
        writeln!(text, "Sealed. Start the broker, and remove {}: it is not needed any more.", file.display());
    text
}
