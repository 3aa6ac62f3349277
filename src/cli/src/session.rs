//! `dayfly session`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use dayfly_core::secret::Secret;
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde::Deserialize;

use crate::output;

const PATH: &str = "/apis/sessions.dayfly.dev/v1alpha1/operatorsessions";
const SESSION: &str = r#"{"apiVersion":"sessions.dayfly.dev/v1alpha1","kind":"OperatorSession"}"#;

/// Gets an operator's token of ten minutes, as whoever a kubeconfig says you are.
#[derive(Args)]
pub(crate) struct Session {
    /// The kubeconfig; by default what kubectl takes: `KUBECONFIG`, or `~/.kube/config`.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Its context; by default its current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Asks as this user, as kubectl's `--as`: your cluster must let you.
    #[arg(long = "as", value_name = "USER")]
    user: Option<String>,
    /// And as of this group, as often as wanted.
    #[arg(long = "as-group", value_name = "GROUP", requires = "user")]
    groups: Vec<String>,
    /// Writes the token into this file, readable by you alone, instead of printing it: for `--token-file`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The API server, or Dayfly behind it, said no.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    /// The HTTP status.
    pub(crate) code: u16,
    message: String,
}

#[derive(Deserialize)]
struct Answer {
    status: Opened,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Opened {
    token: String,
    expiration_timestamp: String,
}

impl Session {
    /// Asks, and prints or writes the token.
    pub(crate) async fn run(self, timeout: Duration) -> anyhow::Result<ExitCode> {
        let config = self.config().await?;
        let asked = tokio::time::timeout(timeout, ask(config)).await;
        let (token, expires) = asked.context("the API server did not answer in time (--timeout)")??;
        let text = token.expose_text().context("the token is not text")?;
        match &self.out {
            None => output::print(&format!("{text}\n")),
            Some(file) => {
                write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
                output::print(&format!("{} is good until {expires}\n", file.display()))
            }
        }
    }

    async fn config(&self) -> anyhow::Result<Config> {
        let kubeconfig = match &self.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let mut config = Config::from_custom_kubeconfig(kubeconfig?, &options).await?;
        anyhow::ensure!(
            !config.accept_invalid_certs,
            "insecure-skip-tls-verify is not accepted: the token would go to whoever is on the way"
        );
        if self.user.is_some() {
            config.auth_info.impersonate.clone_from(&self.user);
            config.auth_info.impersonate_groups =
                Some(self.groups.clone()).filter(|groups| !groups.is_empty());
        }
        Ok(config)
    }
}

async fn ask(config: Config) -> anyhow::Result<(Secret, String)> {
    let client = kube::Client::try_from(config)?;
    let request = http::Request::post(PATH)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, "application/json")
        .body(Body::from(SESSION.as_bytes().to_vec()))?;
    // Not `request`, which logs an answer that it cannot read.
    let answer = client.send(request).await?;
    let code = answer.status();
    let body = answer.into_body().collect_bytes().await?;
    if !code.is_success() {
        let said = serde_json::from_slice::<kube::core::Status>(&body).map(|status| status.message);
        let message = match (code.as_u16(), said) {
            (404, _) => "this cluster has no sessions.dayfly.dev: see deploy/sessions.yaml".to_owned(),
            (_, Ok(message)) if !message.is_empty() => message,
            _ => format!("the API server answered {code}"),
        };
        return Err(Refused { code: code.as_u16(), message }.into());
    }
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|_| anyhow::anyhow!("the API server answered {code} and no session"))?;
    Ok((Secret::from(answer.status.token), answer.status.expiration_timestamp))
}

/// In place of what was there, and never half: a call that reads it meanwhile has the one or the other.
fn write(file: &Path, token: &str) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = file.with_file_name(name);
    let written = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut opened| opened.write_all(token.as_bytes()))
        .and_then(|()| std::fs::rename(&new, file));
    if written.is_err() {
        // What is left of it is a secret too. It may not be there.
        let _ = std::fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_is_ones_own_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "the earlier and longer one").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        write(&file, "later").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "later");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
