//! `dayfly policy diff`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use dayfly_core::ids::GrantRef;
use dayfly_core::provenance::Labels;
use dayfly_core::time::Timestamp;
use dayfly_policy::diff::Change;
use dayfly_policy::{Question, Severity, TopController};
use serde::{Deserialize, Serialize};

use super::{ReservedAudiences, number};
use crate::output::{Output, table};

/// Which policies, and whom to ask them for.
#[derive(Args)]
pub(crate) struct Diff {
    /// The folder with the policy as it is.
    old: PathBuf,
    /// The folder with the policy as it would be.
    new: PathBuf,
    /// The workloads: a file or folder of PolicyTests, of which `given` and `asks` are looked at.
    #[arg(long, value_name = "PATH", required_unless_present = "leases", conflicts_with = "leases")]
    workloads: Option<PathBuf>,
    /// The workloads of live leases: a file with the output of `dayfly leases list -o json`. It tells of no labels and
    /// controllers, so Owners, delegates and Grants by those do not match here.
    #[arg(long, value_name = "FILE")]
    leases: Option<PathBuf>,
    #[command(flatten)]
    reserved: ReservedAudiences,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View {
    /// How many questions were asked of both policies.
    asked: usize,
    changes: Vec<ChangeView>,
}

#[derive(Serialize)]
struct ChangeView {
    change: &'static str,
    /// What it is about: the case's name, or the number of leases.
    about: String,
    workload: String,
    target: String,
    how: String,
}

impl Diff {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let (old, new) = (self.reserved.load(&self.old)?, self.reserved.load(&self.new)?);
        for (path, loaded) in [(&self.old, &old), (&self.new, &new)] {
            let broken = loaded.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
            if broken > 0 {
                let broken = number(broken, "problem");
                eprintln!("{} has {broken}: `dayfly policy check` tells", path.display());
            }
        }
        let asked = self.questions()?;
        let changes = asked.iter().filter_map(|(about, question)| {
            let change = Change::between(&old.set, &new.set, question)?;
            let Question { cluster, namespace, service_account, target, .. } = question;
            Some(ChangeView {
                change: change.name(),
                about: about.clone(),
                workload: format!("{cluster}:{namespace}:{service_account}"),
                target: target.to_string(),
                how: change.to_string(),
            })
        });
        let view = View { asked: asked.len(), changes: changes.collect() };
        let printed = self.output.answer(&view, || text(&view))?;
        Ok(if view.changes.is_empty() { printed } else { ExitCode::FAILURE })
    }

    fn questions(&self) -> anyhow::Result<Vec<(String, Question)>> {
        if let Some(path) = &self.leases {
            return of_leases(path);
        }
        let path = self.workloads.as_deref().unwrap_or(Path::new("."));
        let loaded = self.reserved.load(path)?;
        if let Some(problem) = loaded.problems.iter().find(|problem| problem.severity == Severity::Error) {
            anyhow::bail!("{problem}");
        }
        let tables = loaded.tests.iter().flat_map(|table| {
            table.questions().map(|(case, question)| (format!("{}: {}", table.name, case.name), question))
        });
        let questions: Vec<_> = tables.collect();
        anyhow::ensure!(!questions.is_empty(), "{} holds no PolicyTest", path.display());
        Ok(questions)
    }
}

fn text(view: &View) -> String {
    let asked = number(view.asked, "question");
    if view.changes.is_empty() {
        return format!("{asked}, no change\n");
    }
    let rows: Vec<_> = view
        .changes
        .iter()
        .map(|c| [c.change.to_owned(), c.about.clone(), c.workload.clone(), c.target.clone(), c.how.clone()])
        .collect();
    let head = ["CHANGE", "ABOUT", "WORKLOAD", "TARGET", "HOW"];
    format!("{}{asked}, {}\n", table(head, &rows), number(rows.len(), "change"))
}

/// As `dayfly leases list -o json` prints them; what is not looked at is left out.
#[derive(Deserialize)]
struct Leases {
    leases: Vec<Lease>,
}

#[derive(Deserialize)]
struct Lease {
    state: String,
    workload: Workload,
    target: String,
    grant: String,
    audience: String,
    scope: Vec<String>,
    issued_at: String,
    expires_at: String,
}

#[derive(Deserialize)]
struct Workload {
    cluster: String,
    namespace: String,
    service_account: String,
    #[serde(default)]
    pod: String,
}

/// What each active lease was given, asked for again; equal questions once.
fn of_leases(path: &Path) -> anyhow::Result<Vec<(String, Question)>> {
    let file = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("{file} cannot be read"))?;
    let Leases { leases } = serde_json::from_str(&text)
        .with_context(|| format!("{file} is not the output of `leases list -o json`"))?;
    let mut questions: BTreeMap<String, (usize, Question)> = BTreeMap::new();
    for lease in leases.iter().filter(|lease| lease.state == "active") {
        let question = lease.question().with_context(|| format!("{file} has a lease that cannot be read"))?;
        questions.entry(format!("{question:?}")).or_insert((0, question)).0 += 1;
    }
    Ok(questions.into_values().map(|(count, question)| (number(count, "lease"), question)).collect())
}

impl Lease {
    fn question(&self) -> anyhow::Result<Question> {
        let GrantRef { namespace, name } = self.grant.parse()?;
        let Workload { cluster, namespace: of_workload, service_account, pod } = &self.workload;
        anyhow::ensure!(namespace.as_str() == of_workload, "its Grant is of another namespace");
        let (issued_at, expires_at): (Timestamp, Timestamp) =
            (self.issued_at.parse()?, self.expires_at.parse()?);
        Ok(Question {
            cluster: cluster.parse()?,
            namespace,
            namespace_labels: Labels::new(),
            service_account: service_account.parse()?,
            service_account_labels: Labels::new(),
            pod_labels: Labels::new(),
            controller: TopController::None,
            bound: !pod.is_empty(),
            target: self.target.parse()?,
            grant: Some(name),
            scope: self.scope.iter().map(|scope| scope.parse()).collect::<Result<_, _>>()?,
            audience: Some(self.audience.parse()?),
            ttl: Some(Duration::from_secs(expires_at.since(issued_at).as_secs())),
            key_ends_in: None,
            now: Timestamp::default(),
            unowned: None,
        })
    }
}
