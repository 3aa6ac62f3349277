//! How answers look: tables for people, JSON for programs.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

/// How to print the answer.
#[derive(Args)]
pub(crate) struct Output {
    /// How to print the answer.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    #[default]
    Table,
    /// For programs: the API's field names.
    Json,
}

impl Output {
    /// Prints the answer in the form that was asked for.
    pub(crate) fn answer<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce() -> String,
    ) -> anyhow::Result<ExitCode> {
        match self.output {
            Form::Table => print(&table()),
            Form::Json => json(value),
        }
    }
}

/// Prints a value as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> anyhow::Result<ExitCode> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints to standard output. A reader that has gone away is no failure.
pub(crate) fn print(text: &str) -> anyhow::Result<ExitCode> {
    print_on(text).map(|_| ExitCode::SUCCESS)
}

/// Prints to standard output, where there is more to come, and says whether somebody still reads.
pub(crate) fn print_on(text: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Rows under a head, in columns.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut width = head.map(str::len);
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(|cell| cell_of(cell))).collect();
    for row in &rows {
        width = std::array::from_fn(|n| width[n].max(row[n].chars().count()));
    }
    let head = head.map(Cow::Borrowed);
    let lines = std::iter::once(&head).chain(&rows).map(|row| {
        let cells = row.iter().zip(width).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    });
    lines.collect()
}

/// One thing's facts, a line each; what is empty is left out.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let facts = facts.iter().filter(|(_, value)| !value.is_empty());
    let width = facts.clone().map(|(name, _)| name.len()).max().unwrap_or_default();
    facts.fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:width$}  {}", plain(value));
        text
    })
}

fn cell_of(text: &str) -> Cow<'_, str> {
    if text.is_empty() { Cow::Borrowed("-") } else { plain(text) }
}

/// Text that cannot move a terminal's cursor.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_moves_the_cursor() {
        let rows = [["a".to_owned(), "payments".to_owned()], [String::new(), "\u{1b}[2Jx".to_owned()]];
        insta::assert_snapshot!(table(["ID", "OWNER"], &rows), @r"
        ID  OWNER
        a   payments
        -   �[2Jx
        ");
        insta::assert_snapshot!(facts(&[("id", "a".to_owned()), ("renews", String::new())]), @"id  a");
    }
}
