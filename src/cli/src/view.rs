//! The API's messages as they are shown: in JSON with the API's own field names, what is empty left out.

use std::collections::BTreeMap;

use dayfly_client::v1;
use serde::Serialize;

use crate::output::{facts, table};

/// RFC 3339, UTC; empty where there is none.
pub(crate) fn time(time: Option<&prost_types::Timestamp>) -> String {
    time.map(ToString::to_string).unwrap_or_default()
}

/// Whole seconds as people say them: `90s`, `15m`, `1h`.
pub(crate) fn duration(duration: Option<&prost_types::Duration>) -> String {
    match duration.map(|duration| duration.seconds) {
        None => String::new(),
        Some(secs) if secs > 0 && secs % 3600 == 0 => format!("{}h", secs / 3600),
        Some(secs) if secs > 0 && secs % 60 == 0 => format!("{}m", secs / 60),
        Some(secs) => format!("{secs}s"),
    }
}

/// The state's name without its prefix, in lower case: as everywhere else.
fn state(lease: &v1::Lease) -> String {
    lease.state().as_str_name().trim_start_matches("LEASE_STATE_").to_lowercase()
}

/// An attested identity.
#[derive(Serialize)]
pub(crate) struct WorkloadView<'a> {
    cluster: &'a str,
    namespace: &'a str,
    service_account: &'a str,
    service_account_uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod_uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node_uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    credential_id: &'a str,
}

impl<'a> From<&'a v1::Workload> for WorkloadView<'a> {
    fn from(workload: &'a v1::Workload) -> Self {
        Self {
            cluster: &workload.cluster,
            namespace: &workload.namespace,
            service_account: &workload.service_account,
            service_account_uid: &workload.service_account_uid,
            pod: &workload.pod,
            pod_uid: &workload.pod_uid,
            node: &workload.node,
            node_uid: &workload.node_uid,
            credential_id: &workload.credential_id,
        }
    }
}

/// `CLUSTER:NAMESPACE:SERVICE-ACCOUNT`.
pub(crate) fn workload(workload: Option<&v1::Workload>) -> String {
    workload.map(|w| format!("{}:{}:{}", w.cluster, w.namespace, w.service_account)).unwrap_or_default()
}

/// A lease.
#[derive(Serialize)]
pub(crate) struct LeaseView<'a> {
    id: &'a str,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<WorkloadView<'a>>,
    owner: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    narrowed_owner: &'a str,
    target: &'a str,
    grant: &'a str,
    audience: &'a str,
    scope: &'a [String],
    issued_at: String,
    expires_at: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    key_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmation: Option<ConfirmationView<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    spiffe_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    renews: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    renewed_by: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    revoked_by: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    revoked_for: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    ends_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ended_at: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    claims: BTreeMap<&'a str, ClaimView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provenance: Option<ProvenanceView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grounds: Option<GroundsView<'a>>,
}

/// What a claim says, as in the token.
#[derive(Serialize)]
#[serde(untagged)]
enum ClaimView<'a> {
    One(&'a str),
    Many(&'a [String]),
}

/// Where a workload came from.
#[derive(Serialize)]
struct ProvenanceView<'a> {
    controllers: Vec<ObjectView<'a>>,
    images: Vec<ImageView<'a>>,
    images_known: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_by: Option<ObjectView<'a>>,
}

#[derive(Serialize)]
struct ObjectView<'a> {
    api_version: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
}

#[derive(Serialize)]
struct ImageView<'a> {
    container: &'a str,
    digest: &'a str,
}

/// Why it was given.
#[derive(Serialize)]
struct GroundsView<'a> {
    objects: Vec<PolicyObjectView<'a>>,
    checks: Vec<CheckView<'a>>,
}

/// A policy object as it was.
#[derive(Serialize)]
pub(crate) struct PolicyObjectView<'a> {
    kind: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    generation: &'a str,
}

#[derive(Serialize)]
struct CheckView<'a> {
    name: &'a str,
    outcome: &'a str,
}

impl<'a> From<&'a v1::PolicyObject> for PolicyObjectView<'a> {
    fn from(object: &'a v1::PolicyObject) -> Self {
        let v1::PolicyObject { kind, name, uid, generation } = object;
        Self { kind, name, uid, generation }
    }
}

impl<'a> From<&'a v1::ObjectRef> for ObjectView<'a> {
    fn from(object: &'a v1::ObjectRef) -> Self {
        let v1::ObjectRef { api_version, kind, namespace, name, uid } = object;
        Self { api_version, kind, namespace, name, uid }
    }
}

fn claims(lease: &v1::Lease) -> BTreeMap<&str, ClaimView<'_>> {
    let said = lease.claims.iter().map(|claim| {
        let value = match claim.values.as_slice() {
            [value] if !claim.list => ClaimView::One(value),
            values => ClaimView::Many(values),
        };
        (claim.name.as_str(), value)
    });
    said.collect()
}

fn provenance(lease: &v1::Lease) -> Option<ProvenanceView<'_>> {
    let provenance = lease.provenance.as_ref()?;
    Some(ProvenanceView {
        controllers: provenance.controllers.iter().map(Into::into).collect(),
        images: provenance
            .images
            .iter()
            .map(|image| ImageView { container: &image.container, digest: &image.digest })
            .collect(),
        images_known: provenance.images_known,
        applied_by: provenance.applied_by.as_ref().map(Into::into),
    })
}

fn grounds(lease: &v1::Lease) -> Option<GroundsView<'_>> {
    let grounds = lease.grounds.as_ref()?;
    let checks = grounds.checks.iter();
    Some(GroundsView {
        objects: grounds.objects.iter().map(Into::into).collect(),
        checks: checks.map(|check| CheckView { name: &check.name, outcome: &check.outcome }).collect(),
    })
}

/// What a holder must prove to hold.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum ConfirmationView<'a> {
    JwkThumbprint(&'a str),
    CertificateThumbprint(&'a str),
}

fn confirmation(lease: &v1::Lease) -> Option<ConfirmationView<'_>> {
    use v1::confirmation::Kind;
    Some(match lease.confirmation.as_ref()?.kind.as_ref()? {
        Kind::JwkThumbprint(print) => ConfirmationView::JwkThumbprint(print),
        Kind::CertificateThumbprint(print) => ConfirmationView::CertificateThumbprint(print),
        // A lease tells thumbprints alone.
        Kind::Jwk(_) | Kind::Certificate(_) => return None,
    })
}

impl<'a> From<&'a v1::Lease> for LeaseView<'a> {
    fn from(lease: &'a v1::Lease) -> Self {
        Self {
            id: &lease.id,
            state: state(lease),
            workload: lease.workload.as_ref().map(Into::into),
            owner: &lease.owner,
            narrowed_owner: &lease.narrowed_owner,
            target: &lease.target,
            grant: &lease.grant,
            audience: &lease.audience,
            scope: &lease.scope,
            issued_at: time(lease.issued_at.as_ref()),
            expires_at: time(lease.expires_at.as_ref()),
            key_id: &lease.key_id,
            confirmation: confirmation(lease),
            spiffe_id: &lease.spiffe_id,
            renews: &lease.renews,
            renewed_by: &lease.renewed_by,
            revoked_by: &lease.revoked_by,
            revoked_for: &lease.revoked_for,
            ends_at: time(early_end(lease)),
            ended_at: time(lease.ended_at.as_ref()),
            claims: claims(lease),
            provenance: provenance(lease),
            grounds: grounds(lease),
        }
    }
}

/// When it ends, where that is before it expires by itself.
fn early_end(lease: &v1::Lease) -> Option<&prost_types::Timestamp> {
    lease.ends_at.as_ref().filter(|_| lease.ends_at != lease.expires_at)
}

/// A lease in a line of its own: its state, id, target, end and what ended or renewed it.
pub(crate) fn lease_line(lease: &v1::Lease) -> String {
    let end = match (&lease.ended_at, early_end(lease)) {
        (Some(ended), _) => format!("ended {ended}"),
        (None, Some(ends)) => format!("ends {ends}"),
        (None, None) => format!("expires {}", time(lease.expires_at.as_ref())),
    };
    let by = |what: &str, by: &str| if by.is_empty() { String::new() } else { format!(" {what} {by}") };
    format!(
        "{} {} {} {end}{}{}\n",
        state(lease),
        lease.id,
        lease.target,
        by("renewed by", &lease.renewed_by),
        by("revoked by", &lease.revoked_by),
    )
}

/// A lease's facts, a line each.
pub(crate) fn lease_facts(lease: &v1::Lease) -> String {
    let of_pod =
        |w: &v1::Workload| if w.node.is_empty() { w.pod.clone() } else { format!("{} on {}", w.pod, w.node) };
    facts(&[
        ("lease", lease.id.clone()),
        ("state", state(lease)),
        ("workload", workload(lease.workload.as_ref())),
        ("pod", lease.workload.as_ref().map(of_pod).unwrap_or_default()),
        ("owner", lease.owner.clone()),
        ("narrowed owner", lease.narrowed_owner.clone()),
        ("target", lease.target.clone()),
        ("grant", lease.grant.clone()),
        ("audience", lease.audience.clone()),
        ("SPIFFE id", lease.spiffe_id.clone()),
        ("scope", lease.scope.join(" ")),
        ("issued", time(lease.issued_at.as_ref())),
        ("expires", time(lease.expires_at.as_ref())),
        ("ends", time(early_end(lease))),
        ("ended", time(lease.ended_at.as_ref())),
        ("revoked by", lease.revoked_by.clone()),
        ("revoked for", lease.revoked_for.clone()),
        ("renews", lease.renews.clone()),
        ("renewed by", lease.renewed_by.clone()),
        ("key", lease.key_id.clone()),
        ("claims", claims_text(lease)),
        ("controlled by", list(lease, |p| p.controllers.iter().map(object).collect())),
        (
            "images",
            list(lease, |p| p.images.iter().map(|i| format!("{} {}", i.container, i.digest)).collect()),
        ),
        ("applied by", list(lease, |p| p.applied_by.iter().map(object).collect())),
        ("decided by", decided_by(lease)),
    ])
}

fn list(lease: &v1::Lease, of: impl Fn(&v1::Provenance) -> Vec<String>) -> String {
    lease.provenance.as_ref().map(of).unwrap_or_default().join(", ")
}

fn object(object: &v1::ObjectRef) -> String {
    format!("{}/{}", object.kind, object.name)
}

fn claims_text(lease: &v1::Lease) -> String {
    let said = lease.claims.iter().map(|claim| format!("{}={}", claim.name, claim.values.join(",")));
    said.collect::<Vec<_>>().join(" ")
}

/// The policy objects that decided; `dayfly explain --lease` says more.
fn decided_by(lease: &v1::Lease) -> String {
    let objects = lease.grounds.iter().flat_map(|grounds| &grounds.objects);
    let named = objects.map(|object| format!("{} {} {}", object.kind, object.name, object.generation));
    named.collect::<Vec<_>>().join(", ")
}

/// Leases, a line each.
pub(crate) fn lease_table(leases: &[v1::Lease]) -> String {
    let rows: Vec<_> = leases
        .iter()
        .map(|lease| {
            let pod = lease.workload.as_ref().map(|w| w.pod.clone()).unwrap_or_default();
            [
                lease.id.clone(),
                state(lease),
                lease.owner.clone(),
                lease.target.clone(),
                workload(lease.workload.as_ref()),
                pod,
                time(lease.expires_at.as_ref()),
            ]
        })
        .collect();
    table(["LEASE", "STATE", "OWNER", "TARGET", "WORKLOAD", "POD", "EXPIRES"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> v1::Lease {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        v1::Lease {
            id: "01995c5e-0000-7000-8000-000000000007".to_owned(),
            state: v1::LeaseState::Revoked.into(),
            workload: Some(v1::Workload {
                cluster: "east".to_owned(),
                namespace: "payments".to_owned(),
                service_account: "api".to_owned(),
                service_account_uid: "sa-1".to_owned(),
                pod: "api-0".to_owned(),
                pod_uid: "pod-1".to_owned(),
                ..Default::default()
            }),
            owner: "payments".to_owned(),
            target: "orders".to_owned(),
            grant: "payments/orders".to_owned(),
            audience: "https://orders.example".to_owned(),
            scope: vec!["orders:read".to_owned(), "orders:write".to_owned()],
            issued_at: at(1_795_435_200),
            expires_at: at(1_795_435_500),
            key_id: "k1".to_owned(),
            revoked_by: "01995c5e-0000-7000-8000-000000000009".to_owned(),
            ended_at: at(1_795_435_260),
            ..Default::default()
        }
    }

    #[test]
    fn a_lease_as_table_facts_and_json() {
        insta::assert_snapshot!("lease_table", lease_table(&[lease(), v1::Lease::default()]));
        insta::assert_snapshot!("lease_facts", lease_facts(&lease()));
        insta::assert_snapshot!(
            "lease_json",
            serde_json::to_string_pretty(&LeaseView::from(&lease())).unwrap()
        );
    }

    #[test]
    fn what_operators_are_told_besides() {
        let object = |kind: &str, name: &str| v1::ObjectRef {
            api_version: "apps/v1".to_owned(),
            kind: kind.to_owned(),
            namespace: "payments".to_owned(),
            name: name.to_owned(),
            uid: "uid-1".to_owned(),
        };
        let claim =
            |name: &str, list| v1::Claim { name: name.to_owned(), values: vec!["x".to_owned()], list };
        let lease = v1::Lease {
            claims: vec![claim("region", false), claim("tiers", true)],
            provenance: Some(v1::Provenance {
                controllers: vec![object("ReplicaSet", "api-7f"), object("Deployment", "api")],
                images: vec![v1::Image { container: "main".to_owned(), digest: "sha256:ab".to_owned() }],
                applied_by: Some(object("Application", "payments")),
                images_known: true,
            }),
            grounds: Some(v1::Grounds {
                objects: vec![v1::PolicyObject {
                    kind: "Grant".to_owned(),
                    name: "payments/orders".to_owned(),
                    uid: String::new(),
                    generation: "0123456789abcdef".to_owned(),
                }],
                checks: vec![v1::Check {
                    name: "scope".to_owned(),
                    outcome: "all of the Grant's".to_owned(),
                }],
            }),
            ..lease()
        };
        insta::assert_snapshot!("lease_facts_for_operators", lease_facts(&lease));
        insta::assert_snapshot!(
            "lease_json_for_operators",
            serde_json::to_string_pretty(&LeaseView::from(&lease)).unwrap()
        );
    }

    #[test]
    fn durations_as_people_say_them() {
        let said = |seconds| duration(Some(&prost_types::Duration { seconds, nanos: 0 }));
        assert_eq!([said(0), said(90), said(900), said(7200)], ["0s", "90s", "15m", "2h"]);
    }
}
