//! How an event looks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_client::v1;
use dayfly_core::digest::Digest;
use serde::Serialize;

use crate::output::table;
use crate::view::time;

/// An event.
#[derive(Serialize)]
pub(super) struct EventView<'a> {
    position: u64,
    time: String,
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subject: &'a str,
    /// Retention has forgotten its details.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    forgotten: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<DetailView<'a>>,
    leaf_hash: String,
}

#[derive(Serialize)]
struct DetailView<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    workload: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    service_account_uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    credential_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    owners: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    target: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    grant: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    scope: &'a [String],
    #[serde(skip_serializing_if = "String::is_empty")]
    expires_at: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    key_id: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    credential_digest: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    actor: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    selector: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    after: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cut_off: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    count: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    first: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    last: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    note: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    renews: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cluster: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    rpc: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    filter: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    objects: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_uid: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    extra: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    audit_id: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl<'a> From<&'a v1::Event> for EventView<'a> {
    fn from(event: &'a v1::Event) -> Self {
        Self {
            position: event.position,
            time: time(event.at.as_ref()),
            kind: &event.kind,
            subject: &event.subject,
            forgotten: event.detail.is_none(),
            detail: event.detail.as_ref().map(Into::into),
            leaf_hash: STANDARD.encode(&event.leaf_hash),
        }
    }
}

impl<'a> From<&'a v1::EventDetail> for DetailView<'a> {
    fn from(detail: &'a v1::EventDetail) -> Self {
        let digest = detail.credential_digest.as_slice().try_into();
        Self {
            workload: &detail.workload,
            service_account_uid: &detail.service_account_uid,
            pod: &detail.pod,
            credential_id: &detail.credential_id,
            owners: &detail.owners,
            target: &detail.target,
            grant: &detail.grant,
            scope: &detail.scope,
            expires_at: time(detail.expires_at.as_ref()),
            key_id: &detail.key_id,
            credential_digest: digest.map(|it| Digest::from_bytes(it).to_string()).unwrap_or_default(),
            actor: &detail.actor,
            selector: &detail.selector,
            after: &detail.after,
            cut_off: &detail.cut_off,
            reason: &detail.reason,
            count: detail.count,
            first: time(detail.first.as_ref()),
            last: time(detail.last.as_ref()),
            note: &detail.note,
            renews: &detail.renews,
            cluster: &detail.cluster,
            rpc: &detail.rpc,
            filter: &detail.filter,
            objects: &detail.objects,
            user_uid: &detail.user_uid,
            groups: &detail.groups,
            extra: &detail.extra,
            audit_id: &detail.audit_id,
        }
    }
}

/// Events, a line each, under a head.
pub(super) fn event_table(events: &[v1::Event]) -> String {
    let rows: Vec<_> = events.iter().map(cells).collect();
    table(["POSITION", "TIME", "KIND", "ACTOR", "OWNER", "TARGET", "SUBJECT", "NOTE"], &rows)
}

/// What a line tells of an event.
pub(super) fn cells(event: &v1::Event) -> [String; 8] {
    let none = v1::EventDetail::default();
    let detail = event.detail.as_ref().unwrap_or(&none);
    let actor = if detail.actor.is_empty() { &detail.workload } else { &detail.actor };
    [
        event.position.to_string(),
        time(event.at.as_ref()),
        event.kind.clone(),
        actor.clone(),
        detail.owners.join(","),
        detail.target.clone(),
        event.subject.clone(),
        note(event),
    ]
}

/// The rest, in words.
fn note(event: &v1::Event) -> String {
    let Some(detail) = &event.detail else { return "(forgotten)".to_owned() };
    let count = if detail.count > 1 { format!("{} times", detail.count) } else { String::new() };
    let named = |name: &str, value: &str| match value {
        "" => String::new(),
        value => format!("{name} {value}"),
    };
    let parts = [
        count,
        [detail.rpc.as_str(), &detail.filter].join(" ").trim().to_owned(),
        named("scope", &detail.scope.join(" ")),
        named("renews", &detail.renews),
        detail.selector.clone(),
        detail.after.clone(),
        named("key", if detail.target.is_empty() { &detail.key_id } else { "" }),
        detail.reason.clone(),
        detail.note.clone(),
        detail.objects.join(", "),
        named("audit id", &detail.audit_id),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn at(position: u64, kind: &str, detail: Option<v1::EventDetail>) -> v1::Event {
        v1::Event {
            position,
            at: Some(prost_types::Timestamp { seconds: 1_795_435_200, nanos: 250_000_000 }),
            kind: kind.to_owned(),
            subject: if kind == "issued" { "0192f0c1-5d0e-7a39-8b1d-2f6a1c9e4b70" } else { "" }.to_owned(),
            detail,
            leaf_hash: vec![7; 32],
        }
    }

    pub(crate) fn issued() -> v1::Event {
        let detail = v1::EventDetail {
            workload: "east:payments:api".to_owned(),
            owners: vec!["payments".to_owned(), "api-team".to_owned()],
            target: "orders".to_owned(),
            grant: "payments/orders".to_owned(),
            scope: vec!["read".to_owned()],
            key_id: "key-1".to_owned(),
            credential_digest: vec![0xab; 32],
            expires_at: Some(prost_types::Timestamp { seconds: 1_795_436_100, nanos: 0 }),
            ..Default::default()
        };
        at(7, "issued", Some(detail))
    }

    pub(crate) fn denied() -> v1::Event {
        let detail = v1::EventDetail {
            workload: "east:payments:\u{1b}[2J".to_owned(),
            owners: vec!["payments".to_owned()],
            cluster: "east".to_owned(),
            reason: "NO_GRANT".to_owned(),
            count: 3,
            ..Default::default()
        };
        at(8, "denied", Some(detail))
    }

    pub(crate) fn read() -> v1::Event {
        let detail = v1::EventDetail {
            actor: "bob@east".to_owned(),
            cluster: "east".to_owned(),
            rpc: "ListLeases".to_owned(),
            filter: "selector=owner payments".to_owned(),
            owners: vec!["payments".to_owned()],
            count: 1,
            ..Default::default()
        };
        at(9, "read", Some(detail))
    }

    #[test]
    fn events_are_told_a_line_each() {
        insta::assert_snapshot!(event_table(&[at(6, "issued", None), issued(), denied(), read()]));
    }

    #[test]
    fn events_are_told_to_programs() {
        let view: Vec<_> = [at(6, "issued", None), issued()]
            .iter()
            .map(|it| serde_json::to_string_pretty(&EventView::from(it)).unwrap())
            .collect();
        insta::assert_snapshot!(view.join("\n"));
    }
}
