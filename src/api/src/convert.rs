//! Wire to core and back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dayfly_core::claims::{ClaimValue, Claims};
use dayfly_core::digest::Digest;
use dayfly_core::lease::{Check, Confirmation, Grounds, Lease, LeaseState, PolicyObject};
use dayfly_core::limits;
use dayfly_core::provenance::{Asserted, Image, ObjectRef, Provenance};
use dayfly_core::rule::{After, Authority, Fields, Rule, Selector};
use dayfly_core::time::Timestamp;
use dayfly_core::workload::Workload;

use crate::v1;

/// A field of a request is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct BadField {
    /// Its path in the request.
    pub field: &'static str,
    /// What would be right.
    pub why: String,
}

/// How the thumbprint of what a request binds its credential to is computed. An error says what is wrong with it.
#[derive(Clone, Copy)]
pub struct Thumbprints {
    /// Of a public JWK's JSON (RFC 7638).
    pub jwk: fn(&[u8]) -> Result<Digest, String>,
    /// Of a certificate in PEM or DER (RFC 8705, section 3.1).
    pub certificate: fn(&[u8]) -> Result<Digest, String>,
}

/// A confirmation, if the request has one.
///
/// # Errors
/// Unless it is exactly one thumbprint of 43 characters of base64url, public JWK or certificate.
pub fn confirmation(
    wire: Option<&v1::Confirmation>,
    thumbprints: Thumbprints,
) -> Result<Option<Confirmation>, BadField> {
    use v1::confirmation::Kind;
    let Some(wire) = wire else { return Ok(None) };
    let bad = |field, why: String| BadField { field, why };
    let digest = |text: &str, field| {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let why = "a SHA-256 thumbprint is 43 characters of base64url without padding";
        bytes.map(Digest::from_bytes).ok_or_else(|| bad(field, why.to_owned()))
    };
    let within = |content: &[u8], most: usize, field| {
        if content.len() > most { Err(bad(field, format!("at most {most} bytes"))) } else { Ok(()) }
    };
    let confirmation = match &wire.kind {
        Some(Kind::JwkThumbprint(text)) => Confirmation::Jwk(digest(text, "confirmation.jwk_thumbprint")?),
        Some(Kind::CertificateThumbprint(text)) => {
            Confirmation::Certificate(digest(text, "confirmation.certificate_thumbprint")?)
        }
        Some(Kind::Jwk(json)) => {
            let field = "confirmation.jwk";
            within(json.as_bytes(), limits::CONFIRMATION_JWK_BYTES, field)?;
            Confirmation::Jwk((thumbprints.jwk)(json.as_bytes()).map_err(|why| bad(field, why))?)
        }
        Some(Kind::Certificate(content)) => {
            let field = "confirmation.certificate";
            within(content, limits::CONFIRMATION_CERTIFICATE_BYTES, field)?;
            Confirmation::Certificate((thumbprints.certificate)(content).map_err(|why| bad(field, why))?)
        }
        None => return Err(bad("confirmation", "set one kind of it, or leave it out".to_owned())),
    };
    Ok(Some(confirmation))
}

/// A lease with its state, as the API shows it.
pub fn lease(lease: &Lease, state: LeaseState) -> v1::Lease {
    let (revoked_by, ended_at) = match state {
        LeaseState::Active => (String::new(), None),
        LeaseState::Revoked { by, at } => (by.to_string(), Some(at)),
        LeaseState::Released { at } | LeaseState::Expired { at } => (String::new(), Some(at)),
    };
    v1::Lease {
        id: lease.id.to_string(),
        state: lease_state(state).into(),
        workload: Some(workload(&lease.workload)),
        owner: lease.owners.namespace.to_string(),
        narrowed_owner: text(lease.owners.narrowed.as_ref()),
        target: lease.target.to_string(),
        grant: lease.grant.to_string(),
        audience: lease.audience.to_string(),
        scope: lease.scope.iter().map(ToString::to_string).collect(),
        issued_at: Some(timestamp(lease.issued_at)),
        expires_at: Some(timestamp(lease.expires_at)),
        key_id: lease.key_id.to_string(),
        confirmation: lease.confirmation.map(|confirmation| {
            let show = |digest: Digest| URL_SAFE_NO_PAD.encode(digest.as_bytes());
            v1::Confirmation {
                kind: Some(match confirmation {
                    Confirmation::Jwk(digest) => v1::confirmation::Kind::JwkThumbprint(show(digest)),
                    Confirmation::Certificate(digest) => {
                        v1::confirmation::Kind::CertificateThumbprint(show(digest))
                    }
                }),
            }
        }),
        renews: text(lease.renews.as_ref()),
        revoked_by,
        ended_at: ended_at.map(timestamp),
        // What no lease has yet: the API says from when on.
        pending: None,
        ending: None,
        revoked_for: String::new(),
        provenance: None,
        narrowed_by: lease.owners.narrowed_by.as_ref().map(asserted),
        renewed_by: text(lease.phase.renewed_by().as_ref()),
        ends_at: Some(timestamp(lease.ends_at())),
        spiffe_id: text(lease.spiffe_id.as_ref()),
        claims: Vec::new(),
        grounds: None,
    }
}

/// The same, as its workload is shown it: why it was revoked is Dayfly's to say, an operator's words are not for it.
pub fn lease_for_its_workload(core: &Lease, state: LeaseState, rule: Option<&Rule>) -> v1::Lease {
    let own = rule.filter(|rule| rule.authority == Authority::Dayfly);
    v1::Lease { revoked_for: reason(own), ..lease(core, state) }
}

/// The same, with what is told to operators only.
pub fn lease_for_operators(core: &Lease, state: LeaseState, rule: Option<&Rule>) -> v1::Lease {
    let provenance = (core.provenance != Provenance::default()).then(|| provenance(&core.provenance));
    let grounds = (core.grounds != Grounds::default()).then(|| grounds(&core.grounds));
    let revoked_for = reason(rule);
    v1::Lease { provenance, claims: claims(&core.claims), grounds, revoked_for, ..lease(core, state) }
}

fn reason(rule: Option<&Rule>) -> String {
    rule.map(|rule| rule.reason.clone()).unwrap_or_default()
}

fn claims(claims: &Claims) -> Vec<v1::Claim> {
    let claim = |(name, value): (&String, &ClaimValue)| v1::Claim {
        name: name.clone(),
        values: value.values().to_vec(),
        list: matches!(value, ClaimValue::Many(_)),
    };
    claims.iter().map(claim).collect()
}

fn grounds(grounds: &Grounds) -> v1::Grounds {
    let check = |check: &Check| v1::Check { name: check.name.clone(), outcome: check.outcome.clone() };
    v1::Grounds {
        objects: grounds.objects.iter().map(policy_object).collect(),
        checks: grounds.checks.iter().map(check).collect(),
    }
}

/// A policy object as it was, as the API shows it.
pub fn policy_object(object: &PolicyObject) -> v1::PolicyObject {
    v1::PolicyObject {
        kind: object.kind.clone(),
        name: object.name.clone(),
        uid: text(object.uid.as_ref()),
        generation: object.generation.clone(),
    }
}

/// Where a workload came from, as the API shows it.
pub fn provenance(provenance: &Provenance) -> v1::Provenance {
    let image =
        |image: &Image| v1::Image { container: image.container.clone(), digest: image.digest.clone() };
    v1::Provenance {
        controllers: provenance.controllers.iter().map(object).collect(),
        images: provenance.images.iter().map(image).collect(),
        applied_by: provenance.applied_by.as_ref().map(object),
        images_known: provenance.images_known,
    }
}

fn object(object: &ObjectRef) -> v1::ObjectRef {
    v1::ObjectRef {
        api_version: object.api_version.clone(),
        kind: object.kind.clone(),
        namespace: text(object.namespace.as_ref()),
        name: object.name.clone(),
        uid: text(object.uid.as_ref()),
    }
}

fn asserted(by: &Asserted) -> v1::Asserted {
    use v1::asserted::Kind;
    let kind = match by {
        Asserted::Label { key, value } => Kind::Label(format!("{key}={value}")),
        Asserted::ServiceAccount(name) => Kind::ServiceAccount(name.to_string()),
        Asserted::Controller(controller) => Kind::Controller(object(controller)),
    };
    v1::Asserted { kind: Some(kind) }
}

/// The state's value on the wire.
pub const fn lease_state(state: LeaseState) -> v1::LeaseState {
    match state {
        LeaseState::Active => v1::LeaseState::Active,
        LeaseState::Released { .. } => v1::LeaseState::Released,
        LeaseState::Revoked { .. } => v1::LeaseState::Revoked,
        LeaseState::Expired { .. } => v1::LeaseState::Expired,
    }
}

/// A workload, as the API shows it.
pub fn workload(workload: &Workload) -> v1::Workload {
    v1::Workload {
        cluster: workload.cluster.to_string(),
        namespace: workload.service_account.namespace.to_string(),
        service_account: workload.service_account.name.to_string(),
        service_account_uid: workload.service_account.uid.to_string(),
        pod: text(workload.pod.as_ref().map(|pod| &pod.name)),
        pod_uid: text(workload.pod.as_ref().map(|pod| &pod.uid)),
        node: text(workload.node.as_ref().map(|node| &node.name)),
        node_uid: text(workload.node.as_ref().and_then(|node| node.uid.as_ref())),
        credential_id: text(workload.credential_id.as_ref()),
    }
}

/// A rule, as the API shows it.
pub fn rule(rule: &Rule) -> v1::Rule {
    v1::Rule {
        id: rule.id.to_string(),
        position: position(rule),
        selector: Some(selector(&rule.selector)),
        cut_off: rule.cut_off.to_string(),
        after: after(rule.after).into(),
        written_at: Some(timestamp(rule.written_at)),
        by: rule.by.to_string(),
        reason: rule.reason.clone(),
        until: Some(timestamp(rule.until)),
        lifted: rule.lifted.as_ref().map(|lifted| v1::Lifted {
            at: Some(timestamp(lifted.at)),
            by: lifted.by.to_string(),
            reason: lifted.reason.clone(),
            position: lifted.position.number(),
        }),
        authority: match rule.authority {
            Authority::Unrecorded => v1::Authority::Unspecified,
            Authority::Owners => v1::Authority::Owners,
            Authority::ClusterWide => v1::Authority::ClusterWide,
            Authority::Socket => v1::Authority::Socket,
            Authority::Dayfly => v1::Authority::Dayfly,
        }
        .into(),
        in_memory_only: !rule.is_durable(),
    }
}

/// A rule's place; 0 where it has none yet.
fn position(rule: &Rule) -> u64 {
    if rule.is_durable() { rule.position.number() } else { 0 }
}

/// A rule, as verifiers need it: without who wrote it, and why.
pub fn revocation_rule(rule: &Rule) -> v1::RevocationRule {
    v1::RevocationRule {
        id: rule.id.to_string(),
        position: position(rule),
        selector: Some(selector(&rule.selector)),
        cut_off: rule.cut_off.to_string(),
        after: after(rule.after).into(),
        until: Some(timestamp(rule.until)),
    }
}

fn after(after: After) -> v1::After {
    match after {
        After::Reissue => v1::After::Reissue,
        After::Hold => v1::After::Hold,
    }
}

/// A selector, with uids where the request had names.
pub fn selector(selector: &Selector) -> v1::Selector {
    let fields = match selector {
        Selector::All => return v1::Selector { all: true, ..v1::Selector::default() },
        Selector::Where(fields) => fields.as_ref(),
    };
    let Fields {
        cluster,
        owner,
        namespace,
        service_account,
        pod,
        node,
        grant,
        target,
        key,
        credential_id,
        lease,
        image,
    } = fields;
    v1::Selector {
        all: false,
        cluster: text(cluster.as_ref()),
        owner: text(owner.as_ref()),
        namespace: text(namespace.as_ref()),
        service_account: text(service_account.as_ref()),
        pod: text(pod.as_ref()),
        node_uid: text(node.as_ref()),
        grant: text(grant.as_ref()),
        target: text(target.as_ref()),
        key_id: text(key.as_ref()),
        credential_id: text(credential_id.as_ref()),
        lease: text(lease.as_ref()),
        image_digest: text(image.as_ref()),
    }
}

fn text<T: std::fmt::Display>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// A moment, to the millisecond.
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let (secs, millis) = (at.as_millis() / 1000, at.as_millis() % 1000);
    prost_types::Timestamp {
        seconds: i64::try_from(secs).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis * 1_000_000).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use dayfly_core::ids::RuleId;

    use super::*;

    #[test]
    fn a_lease_shows_its_state() {
        let core = Lease::test(5).narrowed_to("api-team");
        let at = core.issued_at.plus(std::time::Duration::from_millis(1500));
        let wire = lease(&core, LeaseState::Revoked { by: RuleId::from_u128(7), at });
        assert_eq!(wire.state(), v1::LeaseState::Revoked);
        assert_eq!(wire.revoked_by, RuleId::from_u128(7).to_string());
        assert_eq!(wire.ended_at.unwrap().nanos, 500_000_000);
        assert_eq!((wire.owner.as_str(), wire.narrowed_owner.as_str()), ("payments", "api-team"));
    }

    #[test]
    fn operators_alone_are_told_of_claims_and_grounds() {
        let mut core = Lease::test(5);
        core.claims.insert("tier".to_owned(), ClaimValue::Many(vec!["gold".to_owned()]));
        core.claims.insert("region".to_owned(), ClaimValue::One("eu".to_owned()));
        core.grounds.objects.push(PolicyObject {
            kind: "Grant".to_owned(),
            name: "payments/orders".to_owned(),
            uid: None,
            generation: "0123456789abcdef".to_owned(),
        });
        core.grounds.checks.push(Check { name: "scope".to_owned(), outcome: "read".to_owned() });
        let rule = Rule::test(9, Selector::All, 70);
        let told = lease_for_operators(&core, LeaseState::Active, Some(&rule));
        let claims: Vec<_> = told.claims.iter().map(|c| (c.name.as_str(), c.list)).collect();
        assert_eq!(claims, [("region", false), ("tier", true)]);
        let grounds = told.grounds.unwrap();
        assert_eq!((grounds.objects[0].uid.as_str(), grounds.checks[0].name.as_str()), ("", "scope"));
        let others = lease(&core, LeaseState::Active);
        assert_eq!((others.claims.len(), others.grounds), (0, None));
        let own = Rule { authority: Authority::Dayfly, ..rule.clone() };
        let to_its_workload =
            |rule| lease_for_its_workload(&core, LeaseState::Active, Some(rule)).revoked_for;
        assert_eq!((told.revoked_for, to_its_workload(&own)), (rule.reason.clone(), own.reason.clone()));
        assert_eq!((to_its_workload(&rule), others.revoked_for), (String::new(), String::new()));
    }

    #[test]
    fn a_renewed_lease_shows_its_link_and_its_end() {
        let (by, minute) = (dayfly_core::ids::LeaseId::from_u128(6), std::time::Duration::from_secs(60));
        let mut core = Lease::test(5);
        assert_eq!(lease(&core, LeaseState::Active).ends_at, lease(&core, LeaseState::Active).expires_at);
        let at = core.issued_at.plus(minute);
        core.phase = core.phase.renew(by, at).unwrap();
        let wire = lease(&core, LeaseState::Expired { at });
        assert_eq!(
            (wire.renewed_by.as_str(), wire.state()),
            (by.to_string().as_str(), v1::LeaseState::Expired)
        );
        assert_eq!((wire.ends_at, wire.ended_at), (Some(timestamp(at)), Some(timestamp(at))));
    }

    #[test]
    fn a_confirmation_is_one_thumbprint_or_what_has_one() {
        use v1::confirmation::Kind;
        let digest = Digest::of(b"key");
        let thumbprints =
            Thumbprints { jwk: |json| Ok(Digest::of(json)), certificate: |_| Err("not one".to_owned()) };
        let read = |kind| confirmation(Some(&v1::Confirmation { kind }), thumbprints);
        let shown = || URL_SAFE_NO_PAD.encode(digest.as_bytes());
        assert_eq!(read(Some(Kind::JwkThumbprint(shown()))), Ok(Some(Confirmation::Jwk(digest))));
        assert_eq!(read(Some(Kind::Jwk("key".to_owned()))), Ok(Some(Confirmation::Jwk(digest))));
        let refused = |kind| read(kind).unwrap_err().field;
        assert_eq!(refused(Some(Kind::JwkThumbprint("short".to_owned()))), "confirmation.jwk_thumbprint");
        assert_eq!(refused(Some(Kind::Certificate(vec![1]))), "confirmation.certificate");
        assert_eq!(
            refused(Some(Kind::Jwk(" ".repeat(limits::CONFIRMATION_JWK_BYTES + 1)))),
            "confirmation.jwk"
        );
        let certificate = vec![0; limits::CONFIRMATION_CERTIFICATE_BYTES + 1];
        assert_eq!(read(Some(Kind::Certificate(certificate))).unwrap_err().why, "at most 16384 bytes");
        assert_eq!(refused(None), "confirmation");
        assert_eq!(confirmation(None, thumbprints), Ok(None));
    }
}
