//! Explanations on the wire, and what asks for them.

use std::str::FromStr;

use dayfly_api::v1;
use dayfly_api::v1::explain_request;
use dayfly_broker::{About, Described, Explained, IssueRequest};
use dayfly_core::limits;
use dayfly_core::provenance::ObjectRef;
use dayfly_core::secret::Secret;
use dayfly_policy::{Answer, Checked, Told, Verdict};
use tonic::Status;

use super::reject;
use super::workload::{optional, scope, ttl};

/// What an operator wants explained. The token is taken out of the message, and is a secret from then on.
pub(super) fn about(wire: v1::ExplainRequest) -> Result<About, Status> {
    use explain_request::About as Wire;
    let of_none = |about: About| match &wire.asked {
        None => Ok(about),
        Some(_) => Err(reject::field("asked", &"leave it out: a lease or denial says what was asked for")),
    };
    let cluster = optional(wire.cluster).map(|text| parsed("cluster", &text)).transpose()?;
    if cluster.is_some() && !matches!(wire.about, Some(Wire::Token(_))) {
        return Err(reject::field("cluster", &"leave it out: it is the cluster of a token"));
    }
    match wire.about {
        None => Err(reject::field("about", &"say what to explain: a token, workload, lease or denial")),
        Some(Wire::Token(token)) => {
            let token = Secret::from(token);
            if token.is_empty() || token.len() > limits::TOKEN_BYTES {
                return Err(reject::field("token", &format!("1 to {} bytes", limits::TOKEN_BYTES)));
            }
            Ok(About::Token(token, cluster, asked(wire.asked)?))
        }
        Some(Wire::Workload(workload)) => Ok(About::Described(described(workload)?, asked(wire.asked)?)),
        Some(Wire::Lease(id)) => of_none(About::Lease(parsed("lease", &id)?)),
        Some(Wire::Denial(id)) => of_none(About::Denial(parsed("denial", &id)?)),
    }
}

/// What would be asked for.
pub(super) fn asked(wire: Option<v1::AskedFor>) -> Result<IssueRequest, Status> {
    let wire = wire.ok_or_else(|| reject::field("asked", &"say what is asked for"))?;
    Ok(IssueRequest {
        target: parsed("asked.target", &wire.target)?,
        grant: optional(wire.grant).map(|text| parsed("asked.grant", &text)).transpose()?,
        scope: scope(&wire.scope)?,
        audience: optional(wire.audience).map(|text| parsed("asked.audience", &text)).transpose()?,
        ttl: wire.ttl.map(ttl).transpose()?,
        confirmation: None,
        idempotency_key: None,
    })
}

fn described(wire: v1::DescribedWorkload) -> Result<Described, Status> {
    Ok(Described {
        cluster: optional(wire.cluster).map(|text| parsed("workload.cluster", &text)).transpose()?,
        namespace: parsed("workload.namespace", &wire.namespace)?,
        service_account: parsed("workload.service_account", &wire.service_account)?,
        pod: optional(wire.pod).map(|text| parsed("workload.pod", &text)).transpose()?,
        pod_labels: wire.pod_labels.into_iter().collect(),
        controller: wire.controller.map(controller).transpose()?,
        unbound: wire.unbound,
    })
}

fn controller(wire: v1::ObjectRef) -> Result<ObjectRef, Status> {
    let field = "workload.controller";
    if wire.api_version.is_empty() || wire.kind.is_empty() || wire.name.is_empty() {
        return Err(reject::field(field, &"say its api_version, kind and name"));
    }
    let namespace = optional(wire.namespace).map(|text| parsed(field, &text)).transpose()?;
    let uid = optional(wire.uid).map(|text| parsed(field, &text)).transpose()?;
    Ok(ObjectRef { api_version: wire.api_version, kind: wire.kind, namespace, name: wire.name, uid })
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(field: &'static str, text: &str) -> Result<T, Status> {
    text.parse().map_err(|error| reject::field(field, &error))
}

/// Why, on the wire.
pub(super) fn explained(explained: &Explained) -> v1::ExplainResponse {
    let counts = explained.counts.iter().map(|count| v1::DenialCount {
        workload: count.workload.clone(),
        target: count.target.clone(),
        reason: count.reason.clone(),
        count: count.count,
        first_millis: count.first.as_millis(),
        last_millis: count.last.as_millis(),
    });
    v1::ExplainResponse {
        workload: explained.workload.clone(),
        asked: explained.asked.clone(),
        decided_at_millis: explained.at.as_millis(),
        explanation: explained.told.as_ref().map(explanation),
        now: explained.now.as_ref().map(explanation),
        moved_on: explained.moved_on.clone(),
        counts: counts.collect(),
    }
}

/// An explanation on the wire.
pub(super) fn explanation(told: &Told) -> v1::Explanation {
    let (reason, answer) = match &told.answer {
        Answer::Granted(what) => (String::new(), what.clone()),
        Answer::Denied { reason, message } => (reason.clone(), message.clone()),
    };
    v1::Explanation {
        granted: told.is_granted(),
        reason,
        answer,
        checks: told.checks.iter().map(step).collect(),
        objects: told.objects.iter().map(dayfly_api::policy_object).collect(),
        audited: told.audited.clone(),
        change: told.change.clone().unwrap_or_default(),
        text: told.to_string(),
    }
}

fn step(checked: &Checked) -> v1::CheckedStep {
    let verdict = match checked.verdict {
        Verdict::Passed => v1::Verdict::Passed,
        Verdict::PassedOver => v1::Verdict::PassedOver,
        Verdict::Refused => v1::Verdict::Refused,
    };
    v1::CheckedStep {
        name: checked.check.to_string(),
        verdict: verdict.into(),
        outcome: checked.outcome.clone(),
    }
}
