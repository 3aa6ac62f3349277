//! `dayfly issue`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use dayfly_client::{Credential, v1};
use dayfly_policy::ttl::Ttl;
use serde::Serialize;

use crate::connect::Connection;
use crate::output;
use crate::view::{LeaseView, lease_facts};

/// Asks for a credential, as a workload.
#[derive(Args)]
pub(crate) struct Issue {
    /// What it is for.
    #[arg(long, value_name = "NAME")]
    target: String,
    /// The Grant, where several match.
    #[arg(long, value_name = "NAME")]
    grant: Option<String>,
    /// A scope, as often as wanted. None asks for all that the Grant has.
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// The audience, where the target has several.
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// How long it shall live: a number and s, m or h. The least of all bounds applies.
    #[arg(long, value_name = "TIME")]
    ttl: Option<Ttl>,
    /// Binds the credential to the key pair of this public JWK, a file with JSON.
    #[arg(long, value_name = "FILE", conflicts_with = "bind_certificate")]
    bind_jwk: Option<PathBuf>,
    /// Binds the credential to this certificate, a file in PEM or DER.
    #[arg(long, value_name = "FILE")]
    bind_certificate: Option<PathBuf>,
    /// How to print the answer. A table leaves the credential out.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// The lease, for people, without the credential.
    #[default]
    Table,
    /// Credential and lease, for programs.
    Json,
    /// The credential alone.
    Credential,
}

#[derive(Serialize)]
struct Issued<'a> {
    credential: &'a str,
    lease: LeaseView<'a>,
    /// Seconds from now.
    renew_after: u64,
}

impl Issue {
    /// Asks, and prints.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let form = self.output;
        print(&connection.client()?.issue(self.request()?).await?, form)
    }

    fn request(self) -> anyhow::Result<v1::IssueRequest> {
        let ttl = self.ttl.map(|ttl| prost_types::Duration::try_from(ttl.duration())).transpose()?;
        let confirmation = confirmation(self.bind_jwk.as_deref(), self.bind_certificate.as_deref())?;
        Ok(v1::IssueRequest {
            target: self.target,
            grant: self.grant.unwrap_or_default(),
            scope: self.scope,
            audience: self.audience.unwrap_or_default(),
            ttl,
            confirmation,
            ..Default::default()
        })
    }
}

/// Prints a credential.
pub(crate) fn print(credential: &Credential, form: Form) -> anyhow::Result<ExitCode> {
    let text = credential.secret.expose_text().context("the credential is not text")?;
    match form {
        Form::Table => output::print(&lease_facts(&credential.lease)),
        Form::Json => output::json(&issued(credential, text)),
        Form::Credential => output::print(&format!("{text}\n")),
    }
}

fn confirmation(jwk: Option<&Path>, certificate: Option<&Path>) -> anyhow::Result<Option<v1::Confirmation>> {
    use v1::confirmation::Kind;
    // A private key does not even travel to the broker, which would refuse it.
    let public = |path: &Path, private: bool| {
        anyhow::ensure!(!private, "{} holds a private key: give the public part alone", path.display());
        Ok(())
    };
    let cannot = |path: &Path| format!("cannot read {}", path.display());
    let kind = match (jwk, certificate) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path).with_context(|| cannot(path))?;
            let jwk: serde_json::Value = serde_json::from_str(&text)
                .map_err(|_| anyhow::anyhow!("{} is not a JWK in JSON", path.display()))?;
            public(path, ["d", "k", "p"].iter().any(|name| jwk.get(name).is_some()))?;
            Kind::Jwk(text)
        }
        (None, Some(path)) => {
            let content = std::fs::read(path).with_context(|| cannot(path))?;
            public(path, String::from_utf8_lossy(&content).contains("PRIVATE KEY-----"))?;
            Kind::Certificate(content)
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(v1::Confirmation { kind: Some(kind) }))
}

fn issued<'a>(credential: &'a Credential, text: &'a str) -> Issued<'a> {
    let renew_after = credential.renew_after.as_secs();
    Issued { credential: text, lease: LeaseView::from(&credential.lease), renew_after }
}
