//! JUnit XML, as CI systems read it.

use std::path::Path;
use std::{fmt, fs};

use anyhow::Context;
use dayfly_policy::diff::Change;
use dayfly_policy::table::{Difference, Ran, Table};
use dayfly_policy::{Problem, Question, Severity};

/// What one command came to.
pub(super) struct Report {
    command: &'static str,
    suites: Vec<Suite>,
}

struct Suite {
    name: String,
    file: Option<String>,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    failure: Option<Failure>,
}

struct Failure {
    message: String,
    text: String,
}

/// A suite for each table, a case for each of its cases; one more suite with what keeps tables from being run.
pub(super) fn of_tests(ran: &[(&Table, Vec<Ran<'_>>)], problems: &[&Problem]) -> Report {
    let differs = |d: &Difference| format!("{}: expected {}, got {}", d.field, d.expected, d.got);
    let case = |ran: &Ran<'_>| Case {
        name: ran.case.name.clone(),
        failure: (!ran.differences.is_empty()).then(|| Failure {
            message: ran.differences.iter().map(differs).collect::<Vec<_>>().join("; "),
            text: ran.explanation.to_string(),
        }),
    };
    let suites = ran.iter().map(|(table, ran)| Suite {
        name: table.name.clone(),
        file: Some(table.file.clone()),
        cases: ran.iter().map(case).collect(),
    });
    let mut suites: Vec<_> = suites.collect();
    if !problems.is_empty() {
        let cases = problems.iter().map(|problem| of_problem(problem)).collect();
        suites.push(Suite { name: "problems".to_owned(), file: None, cases });
    }
    Report { command: "dayfly policy test", suites }
}

/// A case for each problem; warnings pass. Where there is none, one that passes, so that the report is not empty.
pub(super) fn of_problems(problems: &[Problem]) -> Report {
    let mut cases: Vec<_> = problems.iter().map(of_problem).collect();
    if cases.is_empty() {
        cases.push(Case { name: "every object is valid".to_owned(), failure: None });
    }
    let suites = vec![Suite { name: "problems".to_owned(), file: None, cases }];
    Report { command: "dayfly policy check", suites }
}

/// A case for each question, that fails if its answer changes.
pub(super) fn of_diff(
    questions: &[(String, Question)],
    change: impl Fn(&Question) -> Option<Change>,
) -> Report {
    let case = |(about, question): &(String, Question)| {
        let Question { cluster, namespace, service_account, target, .. } = question;
        Case {
            name: format!("{about}: {cluster}:{namespace}:{service_account} for {target}"),
            failure: change(question).map(|change| Failure {
                message: format!("{}: {change}", change.name()),
                text: String::new(),
            }),
        }
    };
    let cases = questions.iter().map(case).collect();
    Report {
        command: "dayfly policy diff",
        suites: vec![Suite { name: "changes".to_owned(), file: None, cases }],
    }
}

fn of_problem(problem: &Problem) -> Case {
    let failure = || Failure { message: problem.to_string(), text: String::new() };
    Case {
        name: format!("{}:{}:{}", problem.file, problem.line, problem.column),
        failure: (problem.severity == Severity::Error).then(failure),
    }
}

/// Writes a report to a file.
pub(super) fn write(path: &Path, report: &Report) -> anyhow::Result<()> {
    fs::write(path, report.to_string()).with_context(|| format!("{} cannot be written", path.display()))
}

impl Suite {
    fn failures(&self) -> usize {
        self.cases.iter().filter(|case| case.failure.is_some()).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: usize = self.suites.iter().map(|suite| suite.cases.len()).sum();
        let failed: usize = self.suites.iter().map(Suite::failures).sum();
        writeln!(f, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
        writeln!(f, "<testsuites name=\"{}\" tests=\"{all}\" failures=\"{failed}\">", self.command)?;
        self.suites.iter().try_for_each(|suite| suite.fmt(f))?;
        writeln!(f, "</testsuites>")
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, tests, failed) = (escaped(&self.name), self.cases.len(), self.failures());
        let file = self.file.as_ref().map(|file| format!(" file=\"{}\"", escaped(file))).unwrap_or_default();
        writeln!(f, "  <testsuite name=\"{class}\"{file} tests=\"{tests}\" failures=\"{failed}\">")?;
        for Case { name, failure } in &self.cases {
            let name = escaped(name);
            let Some(Failure { message, text }) = failure else {
                writeln!(f, "    <testcase classname=\"{class}\" name=\"{name}\"/>")?;
                continue;
            };
            let (message, text) = (escaped(message), escaped(text));
            writeln!(f, "    <testcase classname=\"{class}\" name=\"{name}\">")?;
            writeln!(f, "      <failure message=\"{message}\">{text}</failure>\n    </testcase>")?;
        }
        writeln!(f, "  </testsuite>")
    }
}

/// Text for attributes and elements (XML 1.0, section 2.4); what XML cannot say is replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_an_attribute() {
        assert_eq!(escaped("a\"<b>&\u{1b}\n"), "a&quot;&lt;b&gt;&amp;\u{fffd}\n");
    }
}
