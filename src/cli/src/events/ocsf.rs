//! Events in the Open Cybersecurity Schema Framework, version 1.3.0 (<https://schema.ocsf.io/1.3.0>).
//!
//! Which kind is of which class is told in `docs/reference/events.md`. What the schema has no place for is under `unmapped`, the
//! log's own record with it.

use dayfly_client::v1;
use dayfly_core::audit::{Event, EventKind};
use serde_json::{Map, Value, json};

use super::lines::RecordView;
use super::view::EventView;

/// The schema's version.
const VERSION: &str = "1.3.0";

/// A class, and what happened in its words.
struct Class {
    uid: u64,
    activity: u64,
    severity: Severity,
}

#[derive(Clone, Copy)]
enum Severity {
    Informational = 1,
    Low = 2,
    Medium = 3,
    High = 4,
}

const BASE: u64 = 0;
const AUTHENTICATION: u64 = 3002;
const ENTITY_MANAGEMENT: u64 = 3004;
const APPLICATION_LIFECYCLE: u64 = 6002;
const API_ACTIVITY: u64 = 6003;
/// What the schema calls an activity that it has no name for.
const OTHER: u64 = 99;

/// The event as the schema has it.
pub(super) fn event(event: &Event, told: &v1::Event, record: &RecordView) -> anyhow::Result<Value> {
    let class = class(event);
    let detail = told.detail.clone().unwrap_or_default();
    let mut out = Map::new();
    let failed = matches!(event.kind, EventKind::Denied);
    let mut own = serde_json::to_value(EventView::from(told))?;
    own["record"] = serde_json::to_value(record)?;
    let base = json!({
        "class_uid": class.uid,
        "category_uid": class.uid / 1000,
        "activity_id": class.activity,
        "type_uid": class.uid * 100 + class.activity,
        "time": event.at.as_millis(),
        "severity_id": class.severity as u64,
        "status_id": if failed { 2 } else { 1 },
        "metadata": {
            "version": VERSION,
            "product": product(),
            "uid": record.leaf_hash,
            "sequence": event.position.number(),
            "event_code": event.kind.name(),
        },
        "unmapped": { "dayfly": own },
    });
    put(&mut out, base);
    if class.activity == OTHER {
        put(&mut out, json!({ "activity_name": event.kind.name() }));
    }
    if event.detail.is_none() {
        return Ok(Value::Object(out));
    }
    let words = [&detail.reason, &detail.note].map(String::as_str);
    let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
    if !words.is_empty() {
        put(&mut out, json!({ "status_detail": words.join(": ") }));
    }
    if detail.count > 0 {
        put(&mut out, json!({ "count": detail.count }));
        let times = [("start_time", &detail.first), ("end_time", &detail.last)];
        for (name, time) in times.into_iter().filter_map(|(name, time)| Some((name, time.as_ref()?))) {
            put(&mut out, json!({ name: millis(time) }));
        }
    }
    put(&mut out, of_class(&class, told, &detail));
    Ok(Value::Object(out))
}

/// What each class asks for beyond what all have.
fn of_class(class: &Class, told: &v1::Event, detail: &v1::EventDetail) -> Value {
    match class.uid {
        AUTHENTICATION => {
            let mut out = json!({
                "user": workload(detail),
                "service": { "name": or(&detail.target, "unknown") },
            });
            if let Some((name, uid)) = detail.pod.split_once('/') {
                out["src_endpoint"] = json!({ "name": name, "uid": uid });
            }
            if class.activity != OTHER && !told.subject.is_empty() {
                out["session"] = json!({ "uid": told.subject, "issuer": "dayfly" });
                if let Some(at) = &detail.expires_at {
                    out["session"]["expiration_time"] = json!(millis(at));
                }
            }
            out
        }
        ENTITY_MANAGEMENT => json!({ "actor": { "user": actor(detail) }, "entity": entity(told, detail) }),
        APPLICATION_LIFECYCLE => json!({ "app": product() }),
        API_ACTIVITY => json!({
            "actor": { "user": actor(detail) },
            "api": { "operation": or(&detail.rpc, &told.kind), "service": { "name": "dayfly.v1.OperatorService" } },
            // The log has no addresses: whoever calls is known by their cluster.
            "src_endpoint": { "name": or(&detail.cluster, "unknown") },
        }),
        _ => json!({}),
    }
}

/// What each kind is in the schema: its class, activity and severity. One that is not here is a base event.
const CLASSES: [(EventKind, u64, u64, Severity); 25] = {
    use Severity::{High, Informational, Low, Medium};
    [
        (EventKind::Issued, AUTHENTICATION, 4, Informational),
        (EventKind::Reissued, AUTHENTICATION, 4, Informational),
        (EventKind::Renewed, AUTHENTICATION, 5, Informational),
        (EventKind::Released, AUTHENTICATION, 2, Informational),
        (EventKind::Denied, AUTHENTICATION, 4, Low),
        (EventKind::Audited, AUTHENTICATION, OTHER, Informational),
        (EventKind::Revoked, ENTITY_MANAGEMENT, 1, Medium),
        (EventKind::Lifted, ENTITY_MANAGEMENT, 3, Medium),
        (EventKind::KeyCreated, ENTITY_MANAGEMENT, 1, Informational),
        (EventKind::KeyActivated, ENTITY_MANAGEMENT, 3, Informational),
        (EventKind::KeyRetired, ENTITY_MANAGEMENT, 3, Informational),
        (EventKind::KeyResealed, ENTITY_MANAGEMENT, 3, Informational),
        (EventKind::KeyRevoked, ENTITY_MANAGEMENT, 4, High),
        (EventKind::PolicyChanged, ENTITY_MANAGEMENT, 3, Low),
        (EventKind::Started, APPLICATION_LIFECYCLE, 3, Informational),
        (EventKind::StartedUnclean, APPLICATION_LIFECYCLE, 3, Medium),
        (EventKind::Stopped, APPLICATION_LIFECYCLE, 4, Informational),
        (EventKind::RollbackAccepted, APPLICATION_LIFECYCLE, OTHER, High),
        (EventKind::TornDown, ENTITY_MANAGEMENT, 3, Informational),
        (EventKind::Restored, APPLICATION_LIFECYCLE, OTHER, High),
        (EventKind::Adopted, APPLICATION_LIFECYCLE, OTHER, High),
        (EventKind::SessionIssued, API_ACTIVITY, 1, Low),
        (EventKind::BackupTaken, API_ACTIVITY, 2, Medium),
        (EventKind::Read, API_ACTIVITY, 2, Informational),
        (EventKind::Exported, API_ACTIVITY, 2, Low),
    ]
};

/// The class of an event. One whose details are forgotten has nothing left of what a class asks for.
fn class(event: &Event) -> Class {
    let known = CLASSES.iter().find(|(kind, ..)| *kind == event.kind);
    let base = Class { uid: BASE, activity: OTHER, severity: Severity::Informational };
    let (Some(detail), Some((kind, uid, activity, severity))) = (&event.detail, known) else { return base };
    let of_operator = detail.workload.is_empty() && !detail.actor.is_empty();
    match kind {
        EventKind::Denied if of_operator => Class { uid: API_ACTIVITY, activity: 0, severity: *severity },
        _ => Class { uid: *uid, activity: *activity, severity: *severity },
    }
}

fn product() -> Value {
    json!({ "name": "Dayfly", "vendor_name": "Dayfly", "version": env!("CARGO_PKG_VERSION") })
}

/// A workload, as a user: a service account.
fn workload(detail: &v1::EventDetail) -> Value {
    let mut user = json!({ "name": or(&detail.workload, "unknown"), "type_id": 4 });
    if !detail.service_account_uid.is_empty() {
        user["uid"] = json!(detail.service_account_uid);
    }
    user
}

/// Whoever acted: an operator, or Dayfly itself.
fn actor(detail: &v1::EventDetail) -> Value {
    let kind = if detail.actor == "dayfly" { 3 } else { 1 };
    json!({ "name": or(&detail.actor, "unknown"), "type_id": kind })
}

/// What was managed: a rule, a signing key, a policy.
fn entity(told: &v1::Event, detail: &v1::EventDetail) -> Value {
    if !detail.key_id.is_empty() {
        json!({ "type": "signing key", "uid": detail.key_id })
    } else if told.subject.is_empty() {
        json!({ "type": "policy", "name": or(&detail.cluster, "policy") })
    } else {
        json!({ "type": "revocation", "uid": told.subject, "name": or(&detail.selector, "unknown") })
    }
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

fn millis(time: &prost_types::Timestamp) -> i64 {
    time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos / 1_000_000))
}

fn put(out: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        out.extend(more);
    }
}

#[cfg(test)]
#[path = "ocsf_tests.rs"]
mod tests;
