//! `dayfly policy test`.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use dayfly_policy::table::{Difference, Ran, Table};
use dayfly_policy::{Loaded, Problem, Severity};
use serde::Serialize;

use super::{ReservedAudiences, junit, number};
use crate::output::{Output, plain};

/// Which policy, and which tests.
#[derive(Args)]
pub(crate) struct Test {
    /// The folder with the policy, and its PolicyTests.
    folder: PathBuf,
    /// Another folder, or one file, with the PolicyTests to run instead of the policy's own.
    #[arg(long, value_name = "PATH")]
    tests: Option<PathBuf>,
    /// Also writes what came of it to this file, as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    reserved: ReservedAudiences,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct View<'a> {
    passed: usize,
    failed: usize,
    cases: Vec<CaseView<'a>>,
    /// What keeps a PolicyTest from being run.
    problems: Vec<String>,
}

#[derive(Serialize)]
struct CaseView<'a> {
    file: &'a str,
    test: &'a str,
    case: &'a str,
    passed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<DifferenceView<'a>>,
    explanation: String,
}

#[derive(Serialize)]
struct DifferenceView<'a> {
    field: &'a str,
    expected: &'a str,
    got: &'a str,
}

impl Test {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let loaded = self.reserved.load(&self.folder)?;
        let apart = self.tests.as_ref().map(|path| self.reserved.load(path)).transpose()?;
        let tests = apart.as_ref().unwrap_or(&loaded);
        let ran: Vec<_> = tests.tests.iter().map(|table| (table, table.run(&loaded.set))).collect();
        let problems = problems_of_tests(tests, apart.is_some());
        let others = loaded.problems.iter().filter(|problem| problem.severity == Severity::Error);
        let others = others.filter(|problem| apart.is_some() || !problems.contains(problem)).count();
        if others > 0 {
            eprintln!("the policy has {}: `dayfly policy check` tells", number(others, "problem"));
        }
        if let Some(path) = &self.junit {
            junit::write(path, &junit::of_tests(&ran, &problems))?;
        }
        let view = view(&ran, &problems);
        let printed = self.output.answer(&view, || text(&ran, &view))?;
        if view.cases.is_empty() && problems.is_empty() {
            let place = self.tests.as_ref().unwrap_or(&self.folder);
            anyhow::bail!("{} holds no PolicyTest with a case that expects something", place.display());
        }
        Ok(if view.failed > 0 || !problems.is_empty() { ExitCode::FAILURE } else { printed })
    }
}

/// What is wrong with the tests themselves. Where they lie apart, whatever is wrong there.
fn problems_of_tests(loaded: &Loaded, apart: bool) -> Vec<&Problem> {
    let of_test = |problem: &&Problem| {
        let object = problem.object.as_ref();
        problem.severity == Severity::Error
            && (apart || object.is_some_and(|object| object.starts_with("PolicyTest ")))
    };
    loaded.problems.iter().filter(of_test).collect()
}

fn view<'a>(ran: &'a [(&'a Table, Vec<Ran<'a>>)], problems: &[&Problem]) -> View<'a> {
    let case = |table: &'a Table, ran: &'a Ran<'a>| CaseView {
        file: &table.file,
        test: &table.name,
        case: &ran.case.name,
        passed: ran.differences.is_empty(),
        differences: ran.differences.iter().map(difference).collect(),
        explanation: ran.explanation.to_string(),
    };
    let cases: Vec<_> = ran.iter().flat_map(|(table, ran)| ran.iter().map(|ran| case(table, ran))).collect();
    let passed = cases.iter().filter(|case| case.passed).count();
    let problems = problems.iter().map(ToString::to_string).collect();
    View { passed, failed: cases.len() - passed, cases, problems }
}

fn difference(difference: &Difference) -> DifferenceView<'_> {
    DifferenceView { field: difference.field, expected: &difference.expected, got: &difference.got }
}

/// A line for each case; under one that is not as expected, what differs, and the whole evaluation.
fn text(ran: &[(&Table, Vec<Ran<'_>>)], view: &View<'_>) -> String {
    let mut text = String::new();
    for problem in &view.problems {
        let _ = writeln!(text, "{}", plain(problem));
    }
    for (table, ran) in ran {
        for Ran { case, differences, explanation } in ran {
            let verdict = if differences.is_empty() { "ok  " } else { "FAIL" };
            let _ = writeln!(text, "{verdict}  {}: {}", table.name, plain(&case.name));
            for Difference { field, expected, got } in differences {
                let _ = writeln!(text, "      {field}: expected {}", plain(expected));
                let _ =
                    writeln!(text, "      {:width$}  got      {}", "", plain(got), width = field.len() - 1);
            }
            if !differences.is_empty() {
                for line in explanation.to_string().lines() {
                    let _ = writeln!(text, "        {}", plain(line));
                }
            }
        }
    }
    let cases = number(view.cases.len(), "case");
    let _ = writeln!(text, "{cases}: {} as expected, {} not", view.passed, view.failed);
    text
}
