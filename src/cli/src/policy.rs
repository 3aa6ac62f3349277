//! `dayfly policy`.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use dayfly_core::ids::Audience;
use dayfly_policy::{Loaded, Problem, Reserved, Severity, load_folder};
use serde::Serialize;

use crate::output::{Output, plain};

/// Dayfly's own audiences, unless it is configured otherwise: no target may have them.
const OWN: [&str; 3] = ["dayfly", "dayfly-operator", "dayfly-verifier"];

/// Checks policy.
#[derive(Subcommand)]
pub(crate) enum Policy {
    /// Reads a folder of Owners, Targets and Grants, and says what is wrong with it and where. Exits with 1 when an
    /// object cannot take effect.
    Check(Check),
}

/// Which folder.
#[derive(Args)]
pub(crate) struct Check {
    /// The folder.
    folder: PathBuf,
    /// An audience that no target may have, as often as needed: those of the cluster's API server. Dayfly's own are
    /// always among them.
    #[arg(long, value_name = "AUDIENCE")]
    reserved: Vec<Audience>,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View<'a> {
    owners: usize,
    targets: usize,
    grants: usize,
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
        let Self::Check(check) = self;
        let own = OWN.iter().map(|name| name.parse::<Audience>()).collect::<Result<Vec<_>, _>>()?;
        let audiences = own.into_iter().chain(check.reserved).collect();
        // Which trust domains there are, the broker's configuration says.
        let reserved = Reserved { audiences, trust_domains: None };
        let loaded = load_folder(&check.folder, &reserved)?;
        let printed = check.output.answer(&view(&loaded), || text(&loaded))?;
        let broken = loaded.problems.iter().any(|problem| problem.severity == Severity::Error);
        Ok(if broken { ExitCode::FAILURE } else { printed })
    }
}

fn view(loaded: &Loaded) -> View<'_> {
    View {
        owners: loaded.set.owners().count(),
        targets: loaded.set.targets().count(),
        grants: loaded.set.grants().count(),
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
    let View { owners, targets, grants, .. } = view(loaded);
    let valid = [(owners, "owner"), (targets, "target"), (grants, "grant")];
    let valid = valid.map(|(n, name)| format!("{n} {name}{}", if n == 1 { "" } else { "s" }));
    let _ = writeln!(text, "valid: {}", valid.join(", "));
    text
}
