//! `dayfly whoami`.

use std::process::ExitCode;

use clap::Args;
use dayfly_client::v1;
use serde::Serialize;

use crate::connect::Connection;
use crate::output::{Output, facts, table};
use crate::view::{WorkloadView, duration, workload};

/// Says who the broker takes you for.
#[derive(Args)]
pub(crate) struct Whoami {
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View<'a> {
    workload: Option<WorkloadView<'a>>,
    owner: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    narrowed_owner: &'a str,
    grants: Vec<GrantView<'a>>,
}

#[derive(Serialize)]
struct GrantView<'a> {
    name: &'a str,
    target: &'a str,
    scope: &'a [String],
    max_ttl: String,
}

impl Whoami {
    /// Asks, and prints.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let me = connection.client()?.who_am_i().await?;
        self.output.answer(&view(&me), || text(&me))
    }
}

fn view(me: &v1::WhoAmIResponse) -> View<'_> {
    let grants = me.grants.iter().map(|grant| GrantView {
        name: &grant.name,
        target: &grant.target,
        scope: &grant.scope,
        max_ttl: duration(grant.max_ttl.as_ref()),
    });
    View {
        workload: me.workload.as_ref().map(Into::into),
        owner: &me.owner,
        narrowed_owner: &me.narrowed_owner,
        grants: grants.collect(),
    }
}

fn text(me: &v1::WhoAmIResponse) -> String {
    let owner =
        if me.owner.is_empty() { "none: this workload gets nothing".to_owned() } else { me.owner.clone() };
    let who = facts(&[
        ("workload", workload(me.workload.as_ref())),
        ("pod", me.workload.as_ref().map(|w| w.pod.clone()).unwrap_or_default()),
        ("owner", owner),
        ("narrowed owner", me.narrowed_owner.clone()),
    ]);
    let grants: Vec<_> = me
        .grants
        .iter()
        .map(|g| [g.name.clone(), g.target.clone(), g.scope.join(" "), duration(g.max_ttl.as_ref())])
        .collect();
    let grants = table(["GRANT", "TARGET", "SCOPE", "LONGEST LIFE"], &grants);
    format!("{who}\n{grants}")
}
