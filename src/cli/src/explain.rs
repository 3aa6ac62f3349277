//! `dayfly explain`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use dayfly_client::v1;
use dayfly_core::time::Timestamp;
use dayfly_policy::ttl::Ttl;
use serde::Serialize;

use crate::connect::Connection;
use crate::failure::Usage;
use crate::introspect;
use crate::output::{Output, facts, plain};

/// Says why a workload is answered as it is.
#[derive(Args)]
#[command(
    group = ArgGroup::new("about").required(true),
    override_usage = "dayfly explain <ABOUT> [--target <NAME>] [OPTIONS]",
)]
pub(crate) struct Explain {
    /// This lease: why it was given, and what policy would say now.
    #[arg(long, group = "about", value_name = "ID", conflicts_with_all = ASKED)]
    lease: Option<String>,
    /// This denial, by the id that it was answered with.
    #[arg(long, group = "about", value_name = "ID", conflicts_with_all = ASKED)]
    denial: Option<String>,
    /// The workload whose projected token this file holds; `-` is standard input.
    #[arg(long, group = "about", value_name = "FILE", requires = "target")]
    workload_token_file: Option<PathBuf>,
    /// The cluster of that token, where several that are served have its issuer.
    #[arg(long, value_name = "NAME", requires = "workload_token_file")]
    workload_cluster: Option<String>,
    /// A workload of this service account, whether it is there or not.
    #[arg(long, group = "about", value_name = "NAMESPACE/NAME", requires = "target")]
    service_account: Option<String>,
    /// Yourself, as a workload: your own reason alone.
    #[arg(long, group = "about", requires = "target")]
    own: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    described: Described,
    #[command(flatten)]
    asked: Asked,
}

const ASKED: [&str; 10] = [
    "target",
    "grant",
    "scope",
    "audience",
    "ttl",
    "in_cluster",
    "pod",
    "pod_label",
    "controller",
    "unbound",
];

/// More of the workload of `--service-account`.
#[derive(Args)]
#[command(next_help_heading = "More of that service account's workload")]
struct Described {
    /// Its cluster, where several are served.
    #[arg(long, value_name = "NAME", requires = "service_account")]
    in_cluster: Option<String>,
    /// Its pod: where it is there, its labels and controllers are the cluster's.
    #[arg(long, value_name = "NAME", requires = "service_account")]
    pod: Option<String>,
    /// A label of its pod, where that is not there; as often as wanted.
    #[arg(long, value_name = "KEY=VALUE", requires = "service_account", value_parser = label)]
    pod_label: Vec<(String, String)>,
    /// The top controller of its pod, where that is not there: `apps/v1/Deployment/api`.
    #[arg(long, value_name = "APIVERSION/KIND/NAME", requires = "service_account", value_parser = controller)]
    controller: Option<v1::ObjectRef>,
    /// Its token is bound to no pod.
    #[arg(long, requires = "service_account")]
    unbound: bool,
}

/// What is asked for.
#[derive(Args)]
#[command(next_help_heading = "What it asks for")]
struct Asked {
    /// What it is for.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// The Grant, where several match.
    #[arg(long, value_name = "NAME", requires = "target")]
    grant: Option<String>,
    /// A scope, as often as wanted. None asks for all that the Grant has.
    #[arg(long, value_name = "SCOPE", requires = "target")]
    scope: Vec<String>,
    /// The audience, where the target has several.
    #[arg(long, value_name = "AUDIENCE", requires = "target")]
    audience: Option<String>,
    /// How long it shall live: a number and s, m or h.
    #[arg(long, value_name = "TIME", requires = "target")]
    ttl: Option<Ttl>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn controller(text: &str) -> Result<v1::ObjectRef, String> {
    let mut parts = text.rsplitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(kind), Some(version)) if !name.is_empty() && !kind.is_empty() => {
            Ok(v1::ObjectRef {
                api_version: version.to_owned(),
                kind: kind.to_owned(),
                name: name.to_owned(),
                ..Default::default()
            })
        }
        _ => Err("APIVERSION/KIND/NAME, such as apps/v1/Deployment/api".to_owned()),
    }
}

#[derive(Serialize)]
struct View<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    workload: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    asked: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    decided_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<ExplanationView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<ExplanationView<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    moved_on: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    counts: Vec<CountView<'a>>,
}

#[derive(Serialize)]
struct ExplanationView<'a> {
    granted: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    answer: &'a str,
    checks: Vec<StepView<'a>>,
    objects: Vec<crate::view::PolicyObjectView<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    audited: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    change: &'a str,
}

#[derive(Serialize)]
struct StepView<'a> {
    name: &'a str,
    verdict: String,
    outcome: &'a str,
}

#[derive(Serialize)]
struct CountView<'a> {
    workload: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    target: &'a str,
    reason: &'a str,
    count: u64,
    first: String,
    last: String,
}

impl Explain {
    /// Asks, and prints.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        let asked = self.asked.message()?;
        if self.own {
            let asked = asked.ok_or(Usage("say what you would ask for: --target NAME"))?;
            let own = client.explain_own(asked).await?;
            return self.output.answer(&explanation(&own), || lines(&own.text));
        }
        let (about, cluster) = (self.about()?, self.workload_cluster.clone().unwrap_or_default());
        let answer = client.explain(v1::ExplainRequest { about: Some(about), asked, cluster }).await?;
        self.output.answer(&view(&answer), || text(&answer))
    }

    fn about(&self) -> anyhow::Result<v1::explain_request::About> {
        use v1::explain_request::About;
        if let Some(id) = &self.lease {
            return Ok(About::Lease(id.clone()));
        }
        if let Some(id) = &self.denial {
            return Ok(About::Denial(id.clone()));
        }
        if let Some(path) = &self.workload_token_file {
            let token = introspect::read(path)?;
            return Ok(About::Token(token.expose_text().context("the token is not text")?.to_owned()));
        }
        let named = self.service_account.as_deref().and_then(|named| named.split_once('/'));
        let (namespace, service_account) =
            named.ok_or(Usage("--service-account is NAMESPACE/NAME, such as payments/api"))?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let Described { in_cluster, pod, pod_label, controller, unbound } = &self.described;
        Ok(About::Workload(v1::DescribedWorkload {
            cluster: text(in_cluster),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            pod: text(pod),
            pod_labels: pod_label.iter().cloned().collect::<HashMap<_, _>>(),
            controller: controller.clone(),
            unbound: *unbound,
        }))
    }
}

impl Asked {
    fn message(&self) -> anyhow::Result<Option<v1::AskedFor>> {
        let Some(target) = &self.target else { return Ok(None) };
        let ttl = self.ttl.map(|ttl| prost_types::Duration::try_from(ttl.duration())).transpose()?;
        Ok(Some(v1::AskedFor {
            target: target.clone(),
            grant: self.grant.clone().unwrap_or_default(),
            scope: self.scope.clone(),
            audience: self.audience.clone().unwrap_or_default(),
            ttl,
        }))
    }
}

fn view(answer: &v1::ExplainResponse) -> View<'_> {
    View {
        workload: &answer.workload,
        asked: &answer.asked,
        decided_at: moment(answer.decided_at_millis),
        explanation: answer.explanation.as_ref().map(explanation),
        now: answer.now.as_ref().map(explanation),
        moved_on: &answer.moved_on,
        counts: answer.counts.iter().map(count).collect(),
    }
}

fn count(count: &v1::DenialCount) -> CountView<'_> {
    let v1::DenialCount { workload, target, reason, count, first_millis, last_millis } = count;
    let (first, last) = (moment(*first_millis), moment(*last_millis));
    CountView { workload, target, reason, count: *count, first, last }
}

fn explanation(explanation: &v1::Explanation) -> ExplanationView<'_> {
    let step = |step: &'_ v1::CheckedStep| {
        step.verdict().as_str_name().trim_start_matches("VERDICT_").to_lowercase()
    };
    let checks = explanation.checks.iter().map(|checked| StepView {
        name: &checked.name,
        verdict: step(checked),
        outcome: &checked.outcome,
    });
    ExplanationView {
        granted: explanation.granted,
        reason: &explanation.reason,
        answer: &explanation.answer,
        checks: checks.collect(),
        objects: explanation.objects.iter().map(Into::into).collect(),
        audited: &explanation.audited,
        change: &explanation.change,
    }
}

/// The broker's text, and around it what it is about.
fn text(answer: &v1::ExplainResponse) -> String {
    let mut text = facts(&[
        ("workload", answer.workload.clone()),
        ("asked", answer.asked.clone()),
        ("decided", moment(answer.decided_at_millis)),
    ]);
    if let Some(then) = &answer.explanation {
        text.push_str(&lines(&then.text));
    }
    for count in &answer.counts {
        let v1::DenialCount { workload, target, reason, count, first_millis, last_millis } = count;
        let target = if target.is_empty() { "an unknown target" } else { target };
        let (first, last) = (moment(*first_millis), moment(*last_millis));
        let _ = writeln!(
            text,
            "denied {count} times: {}: {} for {}, from {first} to {last}",
            plain(reason),
            plain(workload),
            plain(target)
        );
    }
    if !answer.counts.is_empty() {
        text.push_str("That denial is not kept any more; these were counted in its minute.\n");
    }
    for moved in &answer.moved_on {
        let _ = writeln!(text, "since then: {}", plain(moved));
    }
    // What has not moved on would be the same again.
    if let Some(now) = answer.now.as_ref().filter(|_| !answer.moved_on.is_empty()) {
        text.push_str("now:\n");
        text.push_str(&lines(&now.text));
    }
    text
}

/// A text of several lines, none of which can move a terminal's cursor.
fn lines(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "{}", plain(line));
        all
    })
}

/// RFC 3339, UTC; empty where there is none.
pub(crate) fn moment(millis: u64) -> String {
    if millis == 0 { String::new() } else { Timestamp::from_millis(millis).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> v1::ExplainResponse {
        let step = |name: &str, verdict: v1::Verdict, outcome: &str| v1::CheckedStep {
            name: name.to_owned(),
            verdict: verdict.into(),
            outcome: outcome.to_owned(),
        };
        let text = "denied: SCOPE_NOT_GRANTED: Grant payments/orders does not have scope admin\n  ok  owner      payments\n";
        v1::ExplainResponse {
            workload: "east:payments:api pod api-0".to_owned(),
            asked: "target orders, scope admin".to_owned(),
            decided_at_millis: 1_795_435_200_000,
            explanation: Some(v1::Explanation {
                granted: false,
                reason: "SCOPE_NOT_GRANTED".to_owned(),
                answer: "Grant payments/orders does not have scope admin".to_owned(),
                checks: vec![
                    step("owner", v1::Verdict::Passed, "payments"),
                    step("scope", v1::Verdict::Refused, "Grant payments/orders does not have scope admin"),
                ],
                change: "ask for less".to_owned(),
                text: format!("{text}to change: ask for \u{1b}[2Jless\n"),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn an_explanation_as_text_and_json() {
        insta::assert_snapshot!("explain_text", text(&answer()));
        insta::assert_snapshot!("explain_json", serde_json::to_string_pretty(&view(&answer())).unwrap());
        let then = answer().explanation;
        let lease = v1::ExplainResponse {
            moved_on: vec!["Grant payments/orders is not there any more, or invalid".to_owned()],
            now: then.clone(),
            explanation: then,
            ..Default::default()
        };
        insta::assert_snapshot!("explain_lease_text", text(&lease));
        let counts = vec![v1::DenialCount {
            workload: "east:payments:api".to_owned(),
            reason: "UNOWNED".to_owned(),
            count: 3,
            first_millis: 1_795_435_200_000,
            last_millis: 1_795_435_201_000,
            ..Default::default()
        }];
        let counted = v1::ExplainResponse { counts, ..Default::default() };
        insta::assert_snapshot!("explain_counts_text", text(&counted));
    }

    #[test]
    fn a_controller_is_version_kind_and_name() {
        let read = controller("apps/v1/Deployment/api").unwrap();
        assert_eq!(
            (read.api_version.as_str(), read.kind.as_str(), read.name.as_str()),
            ("apps/v1", "Deployment", "api")
        );
        assert_eq!(controller("v1/Node/n").unwrap().api_version, "v1");
        assert!(controller("Deployment/api").is_err());
    }
}
