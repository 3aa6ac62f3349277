//! `dayfly events tail`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use dayfly_client::v1;

use super::Which;
use super::view::{EventView, cells};
use crate::connect::Connection;
use crate::output::{self, plain};

/// Which events, and how to print them.
#[derive(Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    which: Which,
    /// From this position on; else those that come from now on.
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// Ends after so many events.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How to print each event.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A line for each event: position, time, kind, actor, owner, target, subject, note.
    #[default]
    Lines,
    /// A JSON object a line for each event.
    Json,
}

impl Tail {
    /// Asks, and prints until it is interrupted or refused.
    pub(super) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let from = self.from.unwrap_or_default();
        let filter = Some(v1::EventFilter { from, ..self.which.clone().filter() });
        let request = v1::WatchEventsRequest { filter, resume: String::new() };
        let mut watch = connection.client()?.watch_events(request).await?;
        let mut left = self.count;
        loop {
            for event in watch.next().await?.events {
                if !output::print_on(&self.output.line(&event)?)? {
                    return Ok(ExitCode::SUCCESS);
                }
                left = left.map(|left| left.saturating_sub(1));
                if left == Some(0) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    }
}

impl Form {
    fn line(self, event: &v1::Event) -> anyhow::Result<String> {
        if self == Self::Json {
            return Ok(format!("{}\n", serde_json::to_string(&EventView::from(event))?));
        }
        let cells = cells(event).map(|cell| if cell.is_empty() { "-".to_owned() } else { cell });
        Ok(format!("{}\n", plain(&cells.join("  "))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{denied, issued, read};
    use super::*;

    #[test]
    fn each_event_is_a_line() {
        let lines: Vec<_> =
            [issued(), denied(), read()].iter().map(|it| Form::Lines.line(it).unwrap()).collect();
        insta::assert_snapshot!(lines.concat());
        let json = Form::Json.line(&issued()).unwrap();
        assert_eq!(json.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["position"], 7);
    }
}
