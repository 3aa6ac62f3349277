//! `dayfly policy`: offline, it calls no broker.

mod diff;
mod junit;
mod schema;
mod test;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use dayfly_core::ids::Audience;
use dayfly_policy::{File, Loaded, Problem, Reserved, Severity, load, load_folder};
use serde::Serialize;

use crate::output::{Output, plain};

/// Dayfly's own audiences, unless it is configured otherwise: no target may have them.
const OWN: [&str; 3] = ["dayfly", "dayfly-operator", "dayfly-verifier"];

/// Checks policy and tries it, without a broker.
#[derive(Subcommand)]
pub(crate) enum Policy {
    /// Reads a folder of Owners, Targets and Grants, and says what is wrong with it and where. Exits with 1 when an
    /// object cannot take effect.
    Check(Check),
    /// Asks a folder's policy the questions of its PolicyTests, and says which answers are not as expected, and why.
    ///
    /// Exits with 0 when every case is as expected; with 1 when one is not, when a PolicyTest cannot be read, or when
    /// there is none. What else is wrong with the policy is `dayfly policy check`'s to tell.
    Test(test::Test),
    /// Says which of a set of workloads, or of live leases, another policy would answer otherwise, and how.
    ///
    /// Exits with 0 when nothing changes, and with 1 when something does, or when an input cannot be read.
    Diff(diff::Diff),
    /// Prints the JSON Schema of a kind, for editors.
    Schema(schema::Schema),
}

/// Which folder.
#[derive(Args)]
pub(crate) struct Check {
    /// The folder.
    folder: PathBuf,
    /// Also writes what is wrong to this file, as JUnit XML: errors fail, warnings do not.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    reserved: ReservedAudiences,
    #[command(flatten)]
    output: Output,
}

/// Which audiences no target may have.
#[derive(Args)]
struct ReservedAudiences {
    /// An audience that no target may have, as often as needed: those of the cluster's API server. Dayfly's own are
    /// always among them.
    #[arg(long, value_name = "AUDIENCE")]
    reserved: Vec<Audience>,
}

impl ReservedAudiences {
    /// These, and Dayfly's own.
    fn all(&self) -> anyhow::Result<Reserved> {
        let own = OWN.iter().map(|name| name.parse::<Audience>()).collect::<Result<Vec<_>, _>>()?;
        let audiences = own.into_iter().chain(self.reserved.iter().cloned()).collect();
        // Which trust domains there are, the broker's configuration says.
        Ok(Reserved { audiences, trust_domains: None })
    }

    /// A folder's policy, or one file's.
    fn load(&self, path: &Path) -> anyhow::Result<Loaded> {
        let reserved = self.all()?;
        if path.is_dir() {
            return Ok(load_folder(path, &reserved)?);
        }
        let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(load(&[File { name, text }], &reserved))
    }
}

#[derive(Serialize)]
struct View<'a> {
    owners: usize,
    targets: usize,
    grants: usize,
    tests: usize,
    problems: Vec<ProblemView<'a>>,
}

#[derive(Serialize)]
struct ProblemView<'a> {
    file: &'a str,
    line: u64,
    column: u64,
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<&'a str>,
    message: &'a str,
}

impl Policy {
    /// Reads, and prints.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Check(check) => check.run(),
            Self::Test(test) => test.run(),
            Self::Diff(diff) => diff.run(),
            Self::Schema(schema) => schema.run(),
        }
    }
}

impl Check {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let loaded = load_folder(&self.folder, &self.reserved.all()?)?;
        if let Some(path) = &self.junit {
            junit::write(path, &junit::of_problems(&loaded.problems))?;
        }
        let printed = self.output.answer(&view(&loaded), || text(&loaded))?;
        let broken = loaded.problems.iter().any(|problem| problem.severity == Severity::Error);
        Ok(if broken { ExitCode::FAILURE } else { printed })
    }
}

fn view(loaded: &Loaded) -> View<'_> {
    View {
        owners: loaded.set.owners().count(),
        targets: loaded.set.targets().count(),
        grants: loaded.set.grants().count(),
        tests: loaded.tests.len(),
        problems: loaded.problems.iter().map(problem).collect(),
    }
}

fn problem(problem: &Problem) -> ProblemView<'_> {
    ProblemView {
        file: &problem.file,
        line: problem.line,
        column: problem.column,
        severity: problem.severity.name(),
        object: problem.object.as_deref(),
        message: &problem.message,
    }
}

/// A line for each problem, as compilers write them, then what is valid.
fn text(loaded: &Loaded) -> String {
    let mut text = String::new();
    for problem in &loaded.problems {
        let _ = writeln!(text, "{}", plain(&problem.to_string()));
    }
    let View { owners, targets, grants, tests, .. } = view(loaded);
    let mut valid = vec![(owners, "owner"), (targets, "target"), (grants, "grant")];
    if tests > 0 {
        valid.push((tests, "test"));
    }
    let valid: Vec<_> = valid.into_iter().map(|(n, name)| number(n, name)).collect();
    let _ = writeln!(text, "valid: {}", valid.join(", "));
    text
}

/// `1 case`, `2 cases`.
fn number(n: usize, name: &str) -> String {
    format!("{n} {name}{}", if n == 1 { "" } else { "s" })
}
