//! Table tests of a policy: `kind: PolicyTest`, beside the policy or apart. They decide nothing.

use std::time::Duration;

use dayfly_core::claims::Claims;
use dayfly_core::ids::{
    Audience, ClusterName, GrantName, Namespace, OwnerName, Scope, ServiceAccountName, TargetName,
};
use dayfly_core::provenance::{Labels, ObjectRef};
use dayfly_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::decide::{Decision, Question, UnownedGrace};
use crate::explain::Explanation;
use crate::load::Reserved;
use crate::owners::TopController;
use crate::parts::ControllerSpec;
use crate::set::PolicySet;
use crate::spec::Step::{Index, Key};
use crate::spec::{Faults, Spec};
use crate::ttl::Ttl;

/// The most cases one table may have.
pub const CASES: usize = 10_000;

/// A table of questions to a policy, and what it should answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestSpec {
    /// When the cases ask: an RFC 3339 date-time. None means 1970-01-01T00:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// The configuration's `unowned_until` that the cases are decided with: an RFC 3339 date-time. None means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unowned_until: Option<String>,
    /// The cases: 1 to 10 000.
    pub cases: Vec<CaseSpec>,
}

/// One question, and the answer it should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaseSpec {
    /// What it shows, in words; at most 512 bytes.
    pub name: String,
    /// The workload.
    pub given: GivenSpec,
    /// What it asks for.
    pub asks: AsksSpec,
    /// What should come of it. None where the case is only to be compared by `dayfly policy diff`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expects: Option<ExpectsSpec>,
}

/// A workload as it is described, not attested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GivenSpec {
    /// Its cluster: the one that the policy applies to.
    pub cluster: ClusterName,
    /// Its namespace.
    pub namespace: Namespace,
    /// That namespace's labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub namespace_labels: Labels,
    /// Its service account.
    pub service_account: ServiceAccountName,
    /// That service account's labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub service_account_labels: Labels,
    /// Its pod's labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub pod_labels: Labels,
    /// Its pod's top controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerSpec>,
    /// Whether its token is bound to a pod. None means that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<bool>,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AsksSpec {
    /// The target.
    pub target: TargetName,
    /// The Grant, of the workload's namespace. None names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantName>,
    /// The scopes. None asks for all of the Grant's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<Scope>,
    /// The audience. None names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
    /// The life. None asks for the Grant's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
}

/// An answer; what is left out may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectsSpec {
    /// Whether it is granted.
    pub decision: Expected,
    /// Of a denial: its reason, as the API names it, such as `GRANT_MISSING`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of what is granted: the scopes, in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Vec<Scope>>,
    /// The life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// The narrowest owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerName>,
    /// The Grant that decides, of the workload's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantName>,
    /// The audience.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
    /// The claims that the Grant sets, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Claims>,
}

/// What should come of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// A credential.
    Granted,
    /// A denial.
    Denied,
}

/// A `PolicyTest` object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The file it is in.
    pub file: String,
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: TestSpec,
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran<'a> {
    /// The case.
    pub case: &'a CaseSpec,
    /// What is not as expected; empty where all is.
    pub differences: Vec<Difference>,
    /// The evaluation, whole.
    pub explanation: Explanation,
}

/// Something that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which part of the answer.
    pub field: &'static str,
    /// What it should have been.
    pub expected: String,
    /// What it is.
    pub got: String,
}

impl Table {
    /// Each case as a question.
    pub fn questions(&self) -> impl Iterator<Item = (&CaseSpec, Question)> {
        self.spec.cases.iter().map(|case| (case, case.question(&self.spec)))
    }

    /// Asks the policy each of them that expects something.
    pub fn run(&self, set: &PolicySet) -> Vec<Ran<'_>> {
        let ran = |(case, question): (&'_ CaseSpec, Question)| {
            let expects = case.expects.as_ref()?;
            let explanation = set.explain(&question);
            Some((expects.differences(&explanation), explanation))
        };
        let cases = self.questions().filter_map(|asked| {
            let case = asked.0;
            ran(asked).map(|(differences, explanation)| Ran { case, differences, explanation })
        });
        cases.collect()
    }
}

impl CaseSpec {
    fn question(&self, table: &TestSpec) -> Question {
        let time = |text: &Option<String>| text.as_ref().and_then(|text| rfc_3339(text));
        let Self { given, asks, .. } = self;
        Question {
            cluster: given.cluster.clone(),
            namespace: given.namespace.clone(),
            namespace_labels: given.namespace_labels.clone(),
            service_account: given.service_account.clone(),
            service_account_labels: given.service_account_labels.clone(),
            pod_labels: given.pod_labels.clone(),
            controller: TopController::from(given.controller.as_ref().map(|controller| ObjectRef {
                api_version: controller.api_version.clone(),
                kind: controller.kind.clone(),
                namespace: Some(given.namespace.clone()),
                name: controller.name.clone(),
                uid: None,
            })),
            bound: given.bound.unwrap_or(true),
            target: asks.target.clone(),
            grant: asks.grant.clone(),
            scope: asks.scope.clone(),
            audience: asks.audience.clone(),
            ttl: asks.ttl.map(Ttl::duration),
            key_ends_in: None,
            now: time(&table.now).unwrap_or_default(),
            unowned: time(&table.unowned_until).map(|until| UnownedGrace { until }),
        }
    }
}

impl ExpectsSpec {
    fn differences(&self, explanation: &Explanation) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut differ = |field, expected: Option<String>, got: String| {
            if let Some(expected) = expected.filter(|expected| *expected != got) {
                found.push(Difference { field, expected, got });
            }
        };
        match (self.decision, &explanation.answer) {
            (Expected::Granted, Err(denial)) => {
                let got = format!("Denied: {}: {denial}", denial.reason());
                differ("decision", Some("Granted".to_owned()), got);
            }
            (Expected::Denied, Ok(decision)) => {
                let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                differ("decision", Some(format!("Denied{reason}")), format!("Granted: {decision}"));
            }
            (Expected::Denied, Err(denial)) => {
                differ("reason", self.reason.clone(), denial.reason().to_owned());
            }
            (Expected::Granted, Ok(decision)) => {
                for ((field, expected), (_, got)) in self.parts().into_iter().zip(parts_of(decision)) {
                    differ(field, expected, got);
                }
            }
        }
        found
    }

    /// In the order of [`parts_of`].
    fn parts(&self) -> [(&'static str, Option<String>); 6] {
        [
            ("owner", self.owner.as_ref().map(ToString::to_string)),
            ("grant", self.grant.as_ref().map(ToString::to_string)),
            ("audience", self.audience.as_ref().map(ToString::to_string)),
            ("scope", self.scope.as_ref().map(|scope| crate::decide::join(scope))),
            ("claims", self.claims.as_ref().map(claims_text)),
            ("ttl", self.ttl.map(|ttl| seconds(ttl.duration()))),
        ]
    }
}

/// What tests and comparisons look at of what is granted, as text.
pub(crate) fn parts_of(decision: &Decision) -> [(&'static str, String); 6] {
    [
        ("owner", decision.owners.narrowest().to_string()),
        ("grant", decision.grant.name.to_string()),
        ("audience", decision.audience.to_string()),
        ("scope", crate::decide::join(&decision.scope)),
        ("claims", claims_text(&decision.claims)),
        ("ttl", seconds(decision.ttl)),
    ]
}

fn claims_text(claims: &Claims) -> String {
    let claim = |(name, value): (&String, &dayfly_core::claims::ClaimValue)| match value {
        dayfly_core::claims::ClaimValue::One(value) => format!("{name}={value}"),
        dayfly_core::claims::ClaimValue::Many(values) => format!("{name}=[{}]", values.join(", ")),
    };
    claims.iter().map(claim).collect::<Vec<_>>().join(", ")
}

fn seconds(duration: Duration) -> String {
    Ttl::from_secs(duration.as_secs()).to_string()
}

/// A date-time as RFC 3339, section 5.6, has it: `2026-11-23T12:00:00Z`, or with an offset.
pub fn rfc_3339(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let digits =
        |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|b| b.iter().all(u8::is_ascii_digit));
    let at = |place: usize, any: &[u8]| bytes.get(place).is_some_and(|b| any.contains(b));
    let offset = match bytes.last()? {
        b'Z' | b'z' => bytes.len() - 1,
        _ => bytes.len().checked_sub(6)?,
    };
    let whole_offset = bytes.len() - offset == 1
        || (at(offset, b"+-")
            && digits(offset + 1..offset + 3)
            && at(offset + 3, b":")
            && digits(offset + 4..offset + 6));
    let fraction = offset == 19 || (offset > 20 && at(19, b".") && digits(20..offset));
    let date = digits(0..4) && at(4, b"-") && digits(5..7) && at(7, b"-") && digits(8..10) && at(10, b"Tt");
    let time = digits(11..13) && at(13, b":") && digits(14..16) && at(16, b":") && digits(17..19);
    if whole_offset && fraction && date && time { text.parse().ok() } else { None }
}

impl Spec for TestSpec {
    fn check(&self, _: &Reserved, faults: &mut Faults) {
        faults.count(&[Key("cases")], self.cases.len(), 1, CASES);
        for (field, text) in [("now", &self.now), ("unownedUntil", &self.unowned_until)] {
            if text.as_ref().is_some_and(|text| rfc_3339(text).is_none()) {
                faults.add(&[Key(field)], "is not a date-time such as 2026-11-23T12:00:00Z (RFC 3339)");
            }
        }
        for (index, case) in self.cases.iter().enumerate().take(CASES) {
            faults.text(&[Key("cases"), Index(index), Key("name")], &case.name);
            let Some(expects) = &case.expects else { continue };
            let granted = expects.parts().iter().any(|(_, part)| part.is_some());
            let at = [Key("cases"), Index(index), Key("expects")];
            match expects.decision {
                Expected::Granted if expects.reason.is_some() => {
                    faults.add(&at, "has a reason, which only a denial has");
                }
                Expected::Denied if granted => {
                    faults.add(&at, "has parts that only what is granted has");
                }
                Expected::Granted | Expected::Denied => {}
            }
        }
    }
}
