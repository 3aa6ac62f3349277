//! `dayfly revoke` and `dayfly revocations`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use dayfly_client::v1;
use dayfly_server::Config;
use serde::Serialize;

use crate::connect::Connection;
use crate::failure::Usage;
use crate::output::{Output, facts, table};
use crate::teardown::{self, StepView};
use crate::view::time;

/// The largest page that the API gives.
const PAGE: usize = 1000;

/// Ends every credential that the selector covers, with one durable rule, effective before this answers.
#[derive(Args)]
#[command(
    group = ArgGroup::new("selector").required(true).multiple(true),
    override_usage = "dayfly revoke <WHICH>... --after <AFTER> --reason <TEXT> [OPTIONS]",
)]
pub(crate) struct Revoke {
    /// What those who lose their credentials may do next.
    #[arg(long, value_enum)]
    after: After,
    /// Why: it is recorded, and told to those it holds.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Only says what would be covered.
    #[arg(long)]
    dry_run: bool,
    /// Writes it into the store of a broker that is stopped, by its configuration, as the user whose store it is. It is in
    /// force when the broker starts. Pods and service accounts are named by their uids.
    #[arg(long, value_name = "dayfly.toml", conflicts_with = "dry_run")]
    store: Option<PathBuf>,
    /// Means it: needed for `--all`.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Output,
    // Last: what follows a heading is under it.
    #[command(flatten)]
    selector: Selector,
}

/// Which leases: those that match all that is said.
#[derive(Args)]
#[command(next_help_heading = "Which credentials (at least one; those that match all)")]
struct Selector {
    /// Those that this owner answers for.
    #[arg(long, group = "selector", value_name = "NAME")]
    owner: Option<String>,
    /// Those of this service account; by its uid where it is gone.
    #[arg(long, group = "selector", value_name = "NAMESPACE/NAME|UID", value_parser = pair)]
    service_account: Option<(String, String)>,
    /// Those of this pod; by its uid where it is gone.
    #[arg(long, group = "selector", value_name = "NAMESPACE/NAME|UID", value_parser = pair)]
    pod: Option<(String, String)>,
    /// Those of workloads on this node.
    #[arg(long, group = "selector", value_name = "UID")]
    node: Option<String>,
    /// Those of workloads in this namespace.
    #[arg(long, group = "selector", value_name = "NAME")]
    namespace: Option<String>,
    /// Those of workloads in this cluster.
    #[arg(long, group = "selector", value_name = "NAME")]
    in_cluster: Option<String>,
    /// Those for this target.
    #[arg(long, group = "selector", value_name = "NAME")]
    target: Option<String>,
    /// Those by this grant.
    #[arg(long, group = "selector", value_name = "NAMESPACE/NAME", value_parser = pair)]
    grant: Option<(String, String)>,
    /// Those signed by this key.
    #[arg(long, group = "selector", value_name = "KID")]
    key_id: Option<String>,
    /// Those issued for the presented token of this id.
    #[arg(long, group = "selector", value_name = "ID")]
    credential_id: Option<String>,
    /// The one of this lease.
    #[arg(long, group = "selector", value_name = "ID")]
    lease: Option<String>,
    /// Those of pods that run this image, by its digest alone: `sha256:...`.
    #[arg(long, group = "selector", value_name = "DIGEST")]
    image_digest: Option<String>,
    /// Everything.
    #[arg(long, group = "selector", conflicts_with_all = [
        "owner", "service_account", "pod", "node", "namespace", "in_cluster", "target", "grant", "key_id", "credential_id",
        "lease", "image_digest",
    ])]
    all: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum After {
    /// They may ask again: policy is unchanged.
    Reissue,
    /// They get nothing new until the hold is lifted.
    Hold,
}

/// `NAMESPACE/NAME`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("write it as NAMESPACE/NAME".to_owned()),
    }
}

impl Selector {
    fn message(self) -> Result<v1::Selector, Usage> {
        let named = [&self.service_account, &self.pod].into_iter().flatten().map(|(namespace, _)| namespace);
        let mut namespaces: Vec<_> = named.chain(&self.namespace).cloned().collect();
        namespaces.dedup();
        if namespaces.len() > 1 {
            return Err(Usage("nothing is in two namespaces: name one"));
        }
        let name = |pair: Option<(String, String)>| pair.map(|(_, name)| name).unwrap_or_default();
        Ok(v1::Selector {
            all: self.all,
            cluster: self.in_cluster.unwrap_or_default(),
            owner: self.owner.unwrap_or_default(),
            namespace: namespaces.pop().unwrap_or_default(),
            service_account: name(self.service_account),
            pod: name(self.pod),
            node_uid: self.node.unwrap_or_default(),
            grant: self.grant.map(|(namespace, name)| format!("{namespace}/{name}")).unwrap_or_default(),
            target: self.target.unwrap_or_default(),
            key_id: self.key_id.unwrap_or_default(),
            credential_id: self.credential_id.unwrap_or_default(),
            lease: self.lease.unwrap_or_default(),
            image_digest: self.image_digest.unwrap_or_default(),
        })
    }
}

#[derive(Serialize)]
struct RevokeView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RuleView<'a>>,
    can_reissue: bool,
    repeated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_cover: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_cover_at_least: Option<bool>,
    resolved: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
}

#[derive(Serialize)]
struct RuleView<'a> {
    id: &'a str,
    position: u64,
    selector: SelectorView<'a>,
    cut_off: &'a str,
    after: &'static str,
    written_at: String,
    by: &'a str,
    reason: &'a str,
    until: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    authority: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lifted: Option<LiftedView<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    in_memory_only: bool,
}

#[derive(Serialize)]
struct LiftedView<'a> {
    at: String,
    by: &'a str,
    reason: &'a str,
    position: u64,
}

#[derive(Serialize)]
struct SelectorView<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    all: bool,
    #[serde(flatten)]
    fields: std::collections::BTreeMap<&'static str, &'a str>,
}

impl Revoke {
    /// Asks, and prints.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        if self.selector.all && !self.dry_run && !self.yes {
            return Err(
                Usage("--all ends every credential there is: add --yes to mean it, or --dry-run").into()
            );
        }
        let request = v1::RevokeRequest {
            selector: Some(self.selector.message()?),
            after: match self.after {
                After::Reissue => v1::After::Reissue,
                After::Hold => v1::After::Hold,
            }
            .into(),
            reason: self.reason,
            dry_run: self.dry_run,
            idempotency_key: String::new(),
        };
        let answer = match &self.store {
            Some(config) => dayfly_server::revoke_offline(&Config::load(config)?, request).await?,
            None => connection.client()?.revoke(request).await?,
        };
        let view = RevokeView {
            rule: answer.rule.as_ref().map(rule_view),
            can_reissue: answer.can_reissue,
            repeated: answer.repeated,
            would_cover: self.dry_run.then_some(answer.would_cover),
            would_cover_at_least: self.dry_run.then_some(answer.would_cover_at_least),
            resolved: &answer.resolved,
            warnings: &answer.warnings,
        };
        self.output.answer(&view, || revoke_text(&answer, self.dry_run))
    }
}

fn revoke_text(answer: &v1::RevokeResponse, dry_run: bool) -> String {
    let mut lines = Vec::new();
    if dry_run {
        let least = if answer.would_cover_at_least { "at least " } else { "" };
        lines.push(("would cover", format!("{least}{} live leases", answer.would_cover)));
        lines.push(("selector", answer.resolved.clone()));
    } else {
        lines.extend(answer.rule.iter().flat_map(rule_facts));
    }
    if answer.repeated {
        lines.push(("repeated", "this was asked before: it is the earlier rule".to_owned()));
    }
    let in_memory_only = answer.rule.as_ref().is_some_and(|rule| rule.in_memory_only);
    let new = match (answer.can_reissue, in_memory_only) {
        (true, _) => "they may ask again now",
        (false, true) => "none for anybody, until the store can write",
        (false, false) => "none until lifted",
    };
    lines.push(("new ones", new.to_owned()));
    lines.extend(answer.warnings.iter().map(|warning| ("warning", warning.clone())));
    facts(&lines)
}

/// Looks at revocations, and lifts holds.
#[derive(Subcommand)]
pub(crate) enum Revocations {
    /// Lists the rules that revocations wrote, newest first.
    List(List),
    /// Shows the rule that a revocation wrote, and how many live leases it ended.
    Get(Get),
    /// Ends a hold: what it is about may be asked for again. What was revoked stays revoked.
    Lift(Lift),
}

/// Which revocations to list.
#[derive(Args)]
pub(crate) struct List {
    /// Those whose selector names this owner.
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Only those that hold, or cover something that a verifier may still accept.
    #[arg(long)]
    in_force: bool,
    /// Only those that hold.
    #[arg(long)]
    holds: bool,
    /// At most this many.
    #[arg(long, default_value_t = 100, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

/// Which revocation.
#[derive(Args)]
pub(crate) struct Get {
    /// The rule's id.
    id: String,
    #[command(flatten)]
    output: Output,
}

/// Which hold to end.
#[derive(Args)]
pub(crate) struct Lift {
    /// The rule's id.
    id: String,
    /// Why: it is recorded.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct ListView<'a> {
    rules: Vec<RuleView<'a>>,
    /// There are more than the limit.
    more: bool,
}

#[derive(Serialize)]
struct GetView<'a> {
    #[serde(flatten)]
    rule: RuleView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<CountsView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    teardown: Vec<StepView<'a>>,
}

#[derive(Serialize)]
struct CountsView<'a> {
    state: &'static str,
    leases: u64,
    by_owner_and_target: Vec<CountView<'a>>,
}

#[derive(Serialize)]
struct CountView<'a> {
    owner: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    narrowed_owner: &'a str,
    target: &'a str,
    leases: u64,
}

#[derive(Serialize)]
struct LiftView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RuleView<'a>>,
    repeated: bool,
    can_reissue: bool,
}

impl Revocations {
    /// Asks, and prints.
    pub(crate) async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(connection).await,
            Self::Get(get) => {
                let answer = connection.client()?.get_revocation(get.id).await?;
                let rule = answer.rule.unwrap_or_default();
                let counts = answer.counts.as_ref();
                let progress = answer.progress.as_ref();
                let view = GetView {
                    rule: rule_view(&rule),
                    counts: counts.map(counts_view),
                    teardown: teardown::views(progress),
                };
                get.output.answer(&view, || get_text(&rule, counts, progress))
            }
            Self::Lift(lift) => {
                let request = v1::LiftRevocationRequest { id: lift.id, reason: lift.reason };
                let answer = connection.client()?.lift_revocation(request).await?;
                let view = LiftView {
                    rule: answer.rule.as_ref().map(rule_view),
                    repeated: answer.repeated,
                    can_reissue: answer.can_reissue,
                };
                lift.output.answer(&view, || lift_text(&answer))
            }
        }
    }
}

impl List {
    async fn run(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let client = connection.client()?;
        let mut request = v1::ListRevocationsRequest {
            owner: self.owner.unwrap_or_default(),
            in_force_only: self.in_force,
            holds_only: self.holds,
            ..Default::default()
        };
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut rules: Vec<v1::Rule> = Vec::new();
        let more = loop {
            let left = limit - rules.len();
            request.page_size = i32::try_from(left.min(PAGE)).unwrap_or_default();
            let page = client.list_revocations(request.clone()).await?;
            rules.extend(page.rules);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() || rules.len() >= limit {
                break !request.page_token.is_empty();
            }
        };
        let view = ListView { rules: rules.iter().map(rule_view).collect(), more };
        self.output.answer(&view, || {
            let more = if more { "there are more: see --limit\n" } else { "" };
            rule_table(&rules) + more
        })
    }
}

fn rule_table(rules: &[v1::Rule]) -> String {
    let row = |rule: &v1::Rule| {
        [
            rule.id.clone(),
            time(rule.written_at.as_ref()),
            rule.selector.as_ref().map(in_words).unwrap_or_default(),
            if rule.lifted.is_some() { "hold, lifted".to_owned() } else { after(rule).to_owned() },
            time(rule.until.as_ref()),
            rule.by.clone(),
            rule.reason.clone(),
        ]
    };
    let head = ["REVOCATION", "WRITTEN", "SELECTOR", "AFTER", "UNTIL", "BY", "REASON"];
    table(head, &rules.iter().map(row).collect::<Vec<_>>())
}

fn get_text(rule: &v1::Rule, counts: Option<&v1::LiveCounts>, progress: Option<&v1::Teardown>) -> String {
    let mut lines = rule_facts(rule);
    if let Some(counts) = counts {
        let so_far = if counts.state() == v1::CountState::Counted { "" } else { " so far: still counting" };
        lines.push(("ended", format!("{} live leases{so_far}", counts.leases)));
        lines.extend(counts.by_owner_and_target.iter().map(|count| {
            let narrowed = match count.narrowed_owner.as_str() {
                "" => String::new(),
                narrowed => format!("/{narrowed}"),
            };
            ("of them", format!("{} of {}{narrowed} for {}", count.leases, count.owner, count.target))
        }));
    }
    lines.extend(teardown::lines(progress));
    facts(&lines)
}

fn lift_text(answer: &v1::LiftRevocationResponse) -> String {
    let mut lines = answer.rule.as_ref().map(rule_facts).unwrap_or_default();
    if answer.repeated {
        lines.push(("repeated", "it was lifted before: nothing was changed".to_owned()));
    }
    let new = if answer.can_reissue { "they may ask again now" } else { "none: another hold stands" };
    lines.push(("new ones", new.to_owned()));
    facts(&lines)
}

fn counts_view(counts: &v1::LiveCounts) -> CountsView<'_> {
    CountsView {
        state: match counts.state() {
            v1::CountState::Counted => "counted",
            v1::CountState::Counting | v1::CountState::Unspecified => "counting",
        },
        leases: counts.leases,
        by_owner_and_target: counts
            .by_owner_and_target
            .iter()
            .map(|count| CountView {
                owner: &count.owner,
                narrowed_owner: &count.narrowed_owner,
                target: &count.target,
                leases: count.leases,
            })
            .collect(),
    }
}

fn rule_view(rule: &v1::Rule) -> RuleView<'_> {
    let selector = rule.selector.as_ref();
    RuleView {
        id: &rule.id,
        position: rule.position,
        selector: SelectorView {
            all: selector.is_some_and(|selector| selector.all),
            fields: selector.map(fields).unwrap_or_default().into_iter().collect(),
        },
        cut_off: &rule.cut_off,
        after: after(rule),
        written_at: time(rule.written_at.as_ref()),
        by: &rule.by,
        reason: &rule.reason,
        until: time(rule.until.as_ref()),
        authority: match rule.authority() {
            v1::Authority::Owners => "owners",
            v1::Authority::ClusterWide => "cluster_wide",
            v1::Authority::Socket => "socket",
            v1::Authority::Dayfly => "dayfly",
            v1::Authority::Unspecified => "",
        },
        lifted: rule.lifted.as_ref().map(|lifted| LiftedView {
            at: time(lifted.at.as_ref()),
            by: &lifted.by,
            reason: &lifted.reason,
            position: lifted.position,
        }),
        in_memory_only: rule.in_memory_only,
    }
}

fn rule_facts(rule: &v1::Rule) -> Vec<(&'static str, String)> {
    let lifted = rule
        .lifted
        .as_ref()
        .map(|lifted| format!("{} by {}: {}", time(lifted.at.as_ref()), lifted.by, lifted.reason));
    let by_right = match rule.authority() {
        v1::Authority::Owners => "on the owners that it is about",
        v1::Authority::ClusterWide => "on all owners",
        v1::Authority::Socket => "of whoever is on the broker's machine",
        v1::Authority::Dayfly => "of Dayfly itself",
        v1::Authority::Unspecified => "",
    };
    let position = if rule.in_memory_only {
        "NONE: IT IS NOT ON DISK, and lost if the broker ends before it is".to_owned()
    } else {
        rule.position.to_string()
    };
    vec![
        ("revocation", rule.id.clone()),
        ("position", position),
        ("selector", rule.selector.as_ref().map(in_words).unwrap_or_default()),
        ("cut-off", rule.cut_off.clone()),
        ("after", after(rule).to_owned()),
        ("written", time(rule.written_at.as_ref())),
        ("by", rule.by.clone()),
        ("reason", rule.reason.clone()),
        ("by right", by_right.to_owned()),
        ("offline", format!("a verifier that never asks may accept it until {}", time(rule.until.as_ref()))),
        ("lifted", lifted.unwrap_or_default()),
    ]
}

fn after(rule: &v1::Rule) -> &'static str {
    match rule.after() {
        v1::After::Reissue => "reissue",
        v1::After::Hold => "hold",
        v1::After::Unspecified => "",
    }
}

fn in_words(selector: &v1::Selector) -> String {
    if selector.all {
        return "all".to_owned();
    }
    let fields =
        fields(selector).into_iter().map(|(name, value)| format!("{}={value}", name.replace('_', "-")));
    fields.collect::<Vec<_>>().join(" ")
}

/// The fields that are set, by the API's names.
fn fields(selector: &v1::Selector) -> Vec<(&'static str, &str)> {
    let fields = [
        ("cluster", selector.cluster.as_str()),
        ("owner", &selector.owner),
        ("namespace", &selector.namespace),
        ("service_account", &selector.service_account),
        ("pod", &selector.pod),
        ("node_uid", &selector.node_uid),
        ("grant", &selector.grant),
        ("target", &selector.target),
        ("key_id", &selector.key_id),
        ("credential_id", &selector.credential_id),
        ("lease", &selector.lease),
        ("image_digest", &selector.image_digest),
    ];
    fields.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> v1::RevokeResponse {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        v1::RevokeResponse {
            rule: Some(v1::Rule {
                id: "01995c5e-0000-7000-8000-000000000009".to_owned(),
                position: 12,
                selector: Some(v1::Selector {
                    owner: "payments".to_owned(),
                    target: "orders".to_owned(),
                    ..Default::default()
                }),
                cut_off: "01995c5e-0000-7000-8000-000000000008".to_owned(),
                after: v1::After::Reissue.into(),
                written_at: at(1_795_435_200),
                by: "system:serviceaccount:ops:oncall@east".to_owned(),
                reason: "token\u{1b} leaked".to_owned(),
                until: at(1_795_435_500),
                ..Default::default()
            }),
            can_reissue: true,
            resolved: "owner=payments target=orders".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn a_revocation_as_text_and_json() {
        insta::assert_snapshot!("revoke_text", revoke_text(&answer(), false));
        let rule = answer().rule.unwrap();
        insta::assert_snapshot!("rule_json", serde_json::to_string_pretty(&rule_view(&rule)).unwrap());
        let rule = v1::Rule { position: 0, in_memory_only: true, ..rule };
        insta::assert_snapshot!(
            "unwritten_rule_json",
            serde_json::to_string_pretty(&rule_view(&rule)).unwrap()
        );
        let warnings = vec!["THIS REVOCATION IS NOT ON DISK".to_owned()];
        let unwritten = v1::RevokeResponse { rule: Some(rule), can_reissue: false, warnings, ..answer() };
        insta::assert_snapshot!("unwritten_revoke_text", revoke_text(&unwritten, false));
        let dry = v1::RevokeResponse { rule: None, would_cover: 7, would_cover_at_least: true, ..answer() };
        insta::assert_snapshot!("dry_run_text", revoke_text(&dry, true));
    }

    #[test]
    fn a_lifted_hold_and_what_it_ended() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let lifted = v1::Lifted {
            at: at(1_795_435_400),
            by: "bob@east".to_owned(),
            reason: "it is over".to_owned(),
            position: 19,
        };
        let rule = v1::Rule {
            after: v1::After::Hold.into(),
            authority: v1::Authority::ClusterWide.into(),
            lifted: Some(lifted),
            ..answer().rule.unwrap()
        };
        let count = |narrowed: &str, leases| v1::LiveCount {
            owner: "payments".to_owned(),
            narrowed_owner: narrowed.to_owned(),
            target: "orders".to_owned(),
            leases,
        };
        let mut counts = v1::LiveCounts {
            state: v1::CountState::Counting.into(),
            leases: 4,
            by_owner_and_target: Vec::new(),
        };
        insta::assert_snapshot!("counting_text", get_text(&rule, Some(&counts), None));
        counts.state = v1::CountState::Counted.into();
        counts.by_owner_and_target = vec![count("api-team", 3), count("", 1)];
        insta::assert_snapshot!("counted_text", get_text(&rule, Some(&counts), None));
        let view =
            GetView { rule: rule_view(&rule), counts: Some(counts_view(&counts)), teardown: Vec::new() };
        insta::assert_snapshot!("counted_json", serde_json::to_string_pretty(&view).unwrap());
        insta::assert_snapshot!("rules_table", rule_table(&[rule.clone(), answer().rule.unwrap()]));
        let lifted = v1::LiftRevocationResponse { rule: Some(rule), repeated: true, can_reissue: false };
        insta::assert_snapshot!("lift_text", lift_text(&lifted));
    }

    #[test]
    fn names_are_namespaced() {
        assert_eq!(pair("payments/api"), Ok(("payments".to_owned(), "api".to_owned())));
        assert!(["api", "/api", "payments/", "a/b/c"].iter().all(|text| pair(text).is_err()));
    }
}
