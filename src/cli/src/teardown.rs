//! How far the teardown of what a revocation ended has come.

use dayfly_client::v1;
use serde::Serialize;

use crate::view::time;

#[derive(Serialize)]
pub(crate) struct StepView<'a> {
    name: &'a str,
    done: u64,
    complete: bool,
    #[serde(skip_serializing_if = "is_zero")]
    tries: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    last_error: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    next_try: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    up_to: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the type of serde's skip_serializing_if")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Each step, for JSON.
pub(crate) fn views(teardown: Option<&v1::Teardown>) -> Vec<StepView<'_>> {
    let steps = teardown.map(|teardown| teardown.steps.as_slice()).unwrap_or_default();
    let view = |step: &'_ v1::TeardownStep| time(step.next_try.as_ref());
    steps
        .iter()
        .map(|step| StepView {
            name: &step.name,
            done: step.done,
            complete: step.complete,
            tries: step.tries,
            last_error: &step.last_error,
            next_try: view(step),
            up_to: &step.up_to,
        })
        .collect()
}

/// Each step, in words.
pub(crate) fn lines(teardown: Option<&v1::Teardown>) -> Vec<(&'static str, String)> {
    let steps = teardown.map(|teardown| teardown.steps.as_slice()).unwrap_or_default();
    let line = |step: &v1::TeardownStep| {
        let v1::TeardownStep { name, done, tries, last_error, .. } = step;
        let state = match (step.complete, tries) {
            (true, _) => "all of them".to_owned(),
            (false, 0) => "so far".to_owned(),
            (false, _) => format!(
                "so far; failed {tries} times, again at {}: {last_error}",
                time(step.next_try.as_ref())
            ),
        };
        ("teardown", format!("{name}: {done} leases, {state}"))
    };
    steps.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_as_text_and_json() {
        let at = Some(prost_types::Timestamp { seconds: 1_795_435_200, nanos: 0 });
        let complete = v1::TeardownStep {
            name: "spelling-out".to_owned(),
            done: 3,
            complete: true,
            up_to: "01995c5e-0000-7000-8000-000000000008".to_owned(),
            ..Default::default()
        };
        let going_on =
            v1::TeardownStep { name: "status-list".to_owned(), complete: false, ..complete.clone() };
        let failed = v1::TeardownStep {
            tries: 2,
            last_error: "the store is busy".to_owned(),
            next_try: at,
            ..going_on.clone()
        };
        let teardown = v1::Teardown { steps: vec![complete, going_on, failed], ..Default::default() };
        let text: Vec<_> = lines(Some(&teardown)).into_iter().map(|(_, text)| text).collect();
        insta::assert_snapshot!("teardown_text", text.join("\n"));
        let json = serde_json::to_string_pretty(&views(Some(&teardown))).unwrap();
        insta::assert_snapshot!("teardown_json", json);
        assert!(lines(None).is_empty() && views(None).is_empty());
    }
}
