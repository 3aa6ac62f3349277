//! `dayfly issue`.

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
        Ok(v1::IssueRequest {
            target: self.target,
            grant: self.grant.unwrap_or_default(),
            scope: self.scope,
            audience: self.audience.unwrap_or_default(),
            ttl,
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

fn issued<'a>(credential: &'a Credential, text: &'a str) -> Issued<'a> {
    let renew_after = credential.renew_after.as_secs();
    Issued { credential: text, lease: LeaseView::from(&credential.lease), renew_after }
}
