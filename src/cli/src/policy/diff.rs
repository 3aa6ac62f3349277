//! `dayfly policy diff`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use dayfly_core::clock::SystemClock;
use dayfly_core::ids::{ClusterName, GrantRef};
use dayfly_core::ports::Clock;
use dayfly_core::provenance::Labels;
use dayfly_core::time::Timestamp;
use dayfly_policy::diff::Change;
use dayfly_policy::{Question, Severity, TopController, UnownedGrace, rfc_3339};
use serde::{Deserialize, Serialize};

use super::{ReservedAudiences, junit, number};
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
    /// controllers, so Owners, delegates and Grants by those do not match here; leases that the old policy does not give,
    /// for that or another reason, are listed as `not-given`.
    #[arg(long, value_name = "FILE")]
    leases: Option<PathBuf>,
    /// The cluster that the policies are of, where there are leases of several: those of others are passed over.
    #[arg(long, value_name = "NAME", requires = "leases")]
    in_cluster: Option<ClusterName>,
    /// The configuration's `unowned_until`, such as 2027-01-31T00:00:00Z, with which the leases are decided now.
    #[arg(long, value_name = "TIME", requires = "leases", value_parser = grace)]
    unowned_until: Option<UnownedGrace>,
    /// Also writes what came of it to this file, as JUnit XML: a case for each question, that fails if it changes.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
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
    /// Leases that the old policy does not give: what it says of them may be wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_given: Vec<ChangeView>,
    /// Leases of other clusters, which were not asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_other_clusters: Option<usize>,
    /// What is to be known of the answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

/// What leases do not say.
const NO_LABELS: &str = "leases do not say labels and controllers: what Owners, delegates and Grants match by those is not \
                         seen here";

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
        let Asked { questions, of_other_clusters } = self.asked()?;
        let (mut changes, mut not_given) = (Vec::new(), Vec::new());
        for (about, question) in &questions {
            if let Some(change) = Change::between(&old.set, &new.set, question) {
                changes.push(row(change.name(), about, question, change.to_string()));
            }
            if let Some(denial) = old.set.decide(question).err().filter(|_| self.leases.is_some()) {
                let how = format!("the old policy does not give this: {}: {denial}", denial.reason());
                not_given.push(row("not-given", about, question, how));
            }
        }
        if let Some(path) = &self.junit {
            junit::write(
                path,
                &junit::of_diff(&questions, |question| Change::between(&old.set, &new.set, question)),
            )?;
        }
        let note = self.leases.as_ref().map(|_| NO_LABELS);
        let view = View { asked: questions.len(), changes, not_given, of_other_clusters, note };
        let printed = self.output.answer(&view, || text(&view))?;
        Ok(if view.changes.is_empty() { printed } else { ExitCode::FAILURE })
    }

    fn asked(&self) -> anyhow::Result<Asked> {
        if let Some(path) = &self.leases {
            return self.of_leases(path);
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
        Ok(Asked { questions, of_other_clusters: None })
    }

    /// What each active lease of the cluster was given, asked for again; equal questions once.
    fn of_leases(&self, path: &Path) -> anyhow::Result<Asked> {
        let file = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("{file} cannot be read"))?;
        let Leases { leases } = serde_json::from_str(&text)
            .with_context(|| format!("{file} is not the output of `leases list -o json`"))?;
        let now = SystemClock::new().now();
        let mut questions: BTreeMap<String, (usize, Question)> = BTreeMap::new();
        let mut others = 0;
        for lease in leases.iter().filter(|lease| lease.state == "active") {
            let question =
                lease.question().with_context(|| format!("{file} has a lease that cannot be read"))?;
            if self.in_cluster.as_ref().is_some_and(|cluster| *cluster != question.cluster) {
                others += 1;
                continue;
            }
            let question = Question { now, unowned: self.unowned_until, ..question };
            questions.entry(format!("{question:?}")).or_insert((0, question)).0 += 1;
        }
        let questions: Vec<_> =
            questions.into_values().map(|(count, question)| (number(count, "lease"), question)).collect();
        let clusters: BTreeSet<_> = questions.iter().map(|(_, question)| &question.cluster).collect();
        if clusters.len() > 1 {
            let clusters: Vec<_> = clusters.iter().map(ToString::to_string).collect();
            let clusters = clusters.join(", ");
            anyhow::bail!(
                "{file} has leases of clusters {clusters}: say with --in-cluster which one the policies are of"
            );
        }
        Ok(Asked { questions, of_other_clusters: self.in_cluster.is_some().then_some(others) })
    }
}

/// What is asked of both policies.
struct Asked {
    /// With what each is about: the case's name, or the number of leases.
    questions: Vec<(String, Question)>,
    of_other_clusters: Option<usize>,
}

fn grace(text: &str) -> Result<UnownedGrace, String> {
    let until = rfc_3339(text).ok_or("a time such as 2027-01-31T00:00:00Z")?;
    Ok(UnownedGrace { until })
}

fn row(change: &'static str, about: &str, question: &Question, how: String) -> ChangeView {
    let Question { cluster, namespace, service_account, target, .. } = question;
    let workload = format!("{cluster}:{namespace}:{service_account}");
    ChangeView { change, about: about.to_owned(), workload, target: target.to_string(), how }
}

fn text(view: &View) -> String {
    let mut said = vec![number(view.asked, "question")];
    said.push(match view.changes.len() {
        0 => "no change".to_owned(),
        changes => number(changes, "change"),
    });
    if !view.not_given.is_empty() {
        said.push(format!("{} not given by the old policy", view.not_given.len()));
    }
    if let Some(others @ 1..) = view.of_other_clusters {
        said.push(format!("{} of other clusters passed over", number(others, "lease")));
    }
    let mut text = view.note.map(|note| format!("{note}\n")).unwrap_or_default();
    text += &said.join(", ");
    text.push('\n');
    let rows: Vec<_> = view
        .changes
        .iter()
        .chain(&view.not_given)
        .map(|c| [c.change.to_owned(), c.about.clone(), c.workload.clone(), c.target.clone(), c.how.clone()])
        .collect();
    if rows.is_empty() {
        return text;
    }
    let head = ["CHANGE", "ABOUT", "WORKLOAD", "TARGET", "HOW"];
    table(head, &rows) + &text
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
