//! Records as every engine of the store keeps them: protobuf with fixed field numbers, so that an older record is
//! still read when fields are added.

use prost::Message;

use crate::change::SealedKey;
use crate::claims::ClaimValue;
use crate::digest::Digest;
use crate::ids::{GrantRef, KeyId, LeaseId, Position, RuleId, Scope, Uid};
use crate::lease::{Check, Confirmation, Grounds, Idempotency, Lease, Owners, Phase, PolicyObject};
use crate::provenance::{Asserted, Image, ObjectRef, Provenance};
use crate::rule::{Actor, After, Fields, Rule, Selector};
use crate::time::Timestamp;
use crate::workload::{Node, Pod, ServiceAccount, Workload};

/// A stored record does not read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored {record} does not read back: {why}")]
pub struct BadRecord {
    record: &'static str,
    why: String,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseRecord {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    cluster: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "4")]
    service_account: String,
    #[prost(bytes = "vec", tag = "5")]
    service_account_uid: Vec<u8>,
    #[prost(string, tag = "6")]
    pod: String,
    #[prost(bytes = "vec", tag = "7")]
    pod_uid: Vec<u8>,
    #[prost(string, tag = "8")]
    node: String,
    #[prost(bytes = "vec", tag = "9")]
    node_uid: Vec<u8>,
    #[prost(string, tag = "10")]
    credential_id: String,
    #[prost(string, tag = "11")]
    owner: String,
    #[prost(string, tag = "12")]
    narrowed_owner: String,
    #[prost(string, tag = "13")]
    target: String,
    #[prost(string, tag = "14")]
    grant: String,
    #[prost(string, tag = "15")]
    audience: String,
    #[prost(string, repeated, tag = "16")]
    scope: Vec<String>,
    #[prost(uint64, tag = "17")]
    issued_at: u64,
    #[prost(uint64, tag = "18")]
    expires_at: u64,
    #[prost(string, tag = "19")]
    key_id: String,
    #[prost(bytes = "vec", repeated, tag = "20")]
    digests: Vec<Vec<u8>>,
    #[prost(bytes = "vec", tag = "21")]
    jwk_thumbprint: Vec<u8>,
    #[prost(bytes = "vec", tag = "22")]
    certificate_thumbprint: Vec<u8>,
    #[prost(bytes = "vec", tag = "23")]
    idempotency_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "24")]
    idempotency_request: Vec<u8>,
    #[prost(bytes = "vec", tag = "25")]
    renews: Vec<u8>,
    #[prost(uint64, optional, tag = "26")]
    released_at: Option<u64>,
    #[prost(message, repeated, tag = "27")]
    controllers: Vec<ObjectRecord>,
    /// Names and digests in turn.
    #[prost(string, repeated, tag = "28")]
    images: Vec<String>,
    #[prost(message, optional, tag = "29")]
    applied_by: Option<ObjectRecord>,
    #[prost(message, optional, tag = "30")]
    narrowed_by: Option<AssertedRecord>,
    #[prost(message, repeated, tag = "31")]
    objects: Vec<PolicyObjectRecord>,
    /// Names and outcomes in turn.
    #[prost(string, repeated, tag = "32")]
    checks: Vec<String>,
    #[prost(bytes = "vec", tag = "40")]
    renewed_by: Vec<u8>,
    /// When the overlap with that one ends.
    #[prost(uint64, tag = "41")]
    renewal_ends_at: u64,
    #[prost(message, repeated, tag = "33")]
    claims: Vec<ClaimRecord>,
    #[prost(string, tag = "50")]
    spiffe_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ClaimRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "2")]
    values: Vec<String>,
    /// A list, even of one.
    #[prost(bool, tag = "3")]
    many: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ObjectRecord {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(bytes = "vec", tag = "5")]
    uid: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct AssertedRecord {
    #[prost(string, tag = "1")]
    label: String,
    #[prost(string, tag = "2")]
    label_value: String,
    #[prost(string, tag = "3")]
    service_account: String,
    #[prost(message, optional, tag = "4")]
    controller: Option<ObjectRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct PolicyObjectRecord {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bytes = "vec", tag = "3")]
    uid: Vec<u8>,
    #[prost(string, tag = "4")]
    generation: String,
}

#[derive(Clone, PartialEq, Message)]
struct RuleRecord {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    position: u64,
    #[prost(bytes = "vec", tag = "3")]
    cut_off: Vec<u8>,
    #[prost(bool, tag = "4")]
    hold: bool,
    #[prost(uint64, tag = "5")]
    written_at: u64,
    #[prost(string, tag = "6")]
    actor_cluster: String,
    #[prost(string, tag = "7")]
    actor: String,
    #[prost(string, tag = "8")]
    actor_uid: String,
    #[prost(string, tag = "9")]
    reason: String,
    #[prost(uint64, tag = "10")]
    until: u64,
    #[prost(bytes = "vec", tag = "11")]
    idempotency_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "12")]
    idempotency_request: Vec<u8>,
    #[prost(bool, tag = "13")]
    all: bool,
    #[prost(string, tag = "14")]
    cluster: String,
    #[prost(string, tag = "15")]
    owner: String,
    #[prost(string, tag = "16")]
    namespace: String,
    #[prost(bytes = "vec", tag = "17")]
    service_account: Vec<u8>,
    #[prost(bytes = "vec", tag = "18")]
    pod: Vec<u8>,
    #[prost(bytes = "vec", tag = "19")]
    node: Vec<u8>,
    #[prost(string, tag = "20")]
    grant: String,
    #[prost(string, tag = "21")]
    target: String,
    #[prost(string, tag = "22")]
    key: String,
    #[prost(string, tag = "23")]
    credential_id: String,
    #[prost(bytes = "vec", tag = "24")]
    lease: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    purpose: String,
    #[prost(uint32, tag = "3")]
    generation: u32,
    #[prost(uint64, tag = "4")]
    created_at: u64,
    #[prost(string, tag = "5")]
    public_jwk: String,
    #[prost(bytes = "vec", tag = "6")]
    sealed: Vec<u8>,
}

/// A lease as bytes.
pub fn encode_lease(lease: &Lease) -> Vec<u8> {
    let workload = &lease.workload;
    let (jwk, certificate) = match lease.confirmation {
        None => (Vec::new(), Vec::new()),
        Some(Confirmation::Jwk(digest)) => (digest.as_bytes().to_vec(), Vec::new()),
        Some(Confirmation::Certificate(digest)) => (Vec::new(), digest.as_bytes().to_vec()),
    };
    let node_uid = workload.node.as_ref().and_then(|node| node.uid);
    LeaseRecord {
        id: lease.id.to_bytes().to_vec(),
        cluster: workload.cluster.to_string(),
        namespace: workload.service_account.namespace.to_string(),
        service_account: workload.service_account.name.to_string(),
        service_account_uid: workload.service_account.uid.to_bytes().to_vec(),
        pod: show(workload.pod.as_ref().map(|pod| &pod.name)),
        pod_uid: uid_bytes(workload.pod.as_ref().map(|pod| pod.uid)),
        node: show(workload.node.as_ref().map(|node| &node.name)),
        node_uid: uid_bytes(node_uid),
        credential_id: show(workload.credential_id.as_ref()),
        owner: lease.owners.namespace.to_string(),
        narrowed_owner: show(lease.owners.narrowed.as_ref()),
        target: lease.target.to_string(),
        grant: lease.grant.to_string(),
        audience: lease.audience.to_string(),
        scope: lease.scope.iter().map(ToString::to_string).collect(),
        issued_at: lease.issued_at.as_millis(),
        expires_at: lease.expires_at.as_millis(),
        key_id: lease.key_id.to_string(),
        digests: lease.digests.iter().map(|digest| digest.as_bytes().to_vec()).collect(),
        jwk_thumbprint: jwk,
        certificate_thumbprint: certificate,
        idempotency_key: digest_bytes(lease.idempotency.map(|i| i.key)),
        idempotency_request: digest_bytes(lease.idempotency.map(|i| i.request)),
        renews: lease.renews.map(|id| id.to_bytes().to_vec()).unwrap_or_default(),
        released_at: match lease.phase {
            Phase::Active | Phase::Renewed { .. } => None,
            Phase::Released { at, .. } => Some(at.as_millis()),
        },
        controllers: lease.provenance.controllers.iter().map(object_record).collect(),
        images: lease
            .provenance
            .images
            .iter()
            .flat_map(|image| [image.container.clone(), image.digest.clone()])
            .collect(),
        applied_by: lease.provenance.applied_by.as_ref().map(object_record),
        narrowed_by: lease.owners.narrowed_by.as_ref().map(asserted_record),
        objects: lease.grounds.objects.iter().map(policy_object_record).collect(),
        spiffe_id: show(lease.spiffe_id.as_ref()),
        checks: lease
            .grounds
            .checks
            .iter()
            .flat_map(|check| [check.name.clone(), check.outcome.clone()])
            .collect(),
        renewed_by: lease.phase.renewed_by().map(|id| id.to_bytes().to_vec()).unwrap_or_default(),
        renewal_ends_at: match lease.phase {
            Phase::Renewed { ends_at, .. } => ends_at.as_millis(),
            Phase::Active | Phase::Released { .. } => 0,
        },
        claims: lease.claims.iter().map(claim_record).collect(),
    }
    .encode_to_vec()
}

fn claim_record((name, value): (&String, &ClaimValue)) -> ClaimRecord {
    let many = matches!(value, ClaimValue::Many(_));
    ClaimRecord { name: name.clone(), values: value.values().to_vec(), many }
}

fn object_record(object: &ObjectRef) -> ObjectRecord {
    ObjectRecord {
        api_version: object.api_version.clone(),
        kind: object.kind.clone(),
        namespace: show(object.namespace.as_ref()),
        name: object.name.clone(),
        uid: uid_bytes(object.uid),
    }
}

fn asserted_record(asserted: &Asserted) -> AssertedRecord {
    let none = AssertedRecord::default();
    match asserted {
        Asserted::Label { key, value } => {
            AssertedRecord { label: key.clone(), label_value: value.clone(), ..none }
        }
        Asserted::ServiceAccount(name) => AssertedRecord { service_account: name.to_string(), ..none },
        Asserted::Controller(object) => AssertedRecord { controller: Some(object_record(object)), ..none },
    }
}

fn policy_object_record(object: &PolicyObject) -> PolicyObjectRecord {
    PolicyObjectRecord {
        kind: object.kind.clone(),
        name: object.name.clone(),
        uid: uid_bytes(object.uid),
        generation: object.generation.clone(),
    }
}

/// A lease from [`encode_lease`]'s bytes.
///
/// # Errors
/// When they are not a lease.
pub fn decode_lease(bytes: &[u8]) -> Result<Lease, BadRecord> {
    let read = Reader("lease");
    let record = LeaseRecord::decode(bytes).map_err(|error| read.bad(&error))?;
    let pod = match read.optional_uid(&record.pod_uid)? {
        None => None,
        Some(uid) => Some(Pod { name: read.name(&record.pod)?, uid }),
    };
    let node = match record.node.as_str() {
        "" => None,
        name => Some(Node { name: read.name(name)?, uid: read.optional_uid(&record.node_uid)? }),
    };
    let confirmation =
        match (read.digest(&record.jwk_thumbprint)?, read.digest(&record.certificate_thumbprint)?) {
            (Some(jwk), _) => Some(Confirmation::Jwk(jwk)),
            (None, certificate) => certificate.map(Confirmation::Certificate),
        };
    let digests =
        record.digests.iter().map(|digest| read.digest(digest)?.ok_or_else(|| read.bad(&"empty digest")));
    Ok(Lease {
        id: LeaseId::from_bytes(read.id(&record.id)?),
        workload: Workload {
            cluster: read.name(&record.cluster)?,
            service_account: ServiceAccount {
                namespace: read.name(&record.namespace)?,
                name: read.name(&record.service_account)?,
                uid: Uid::from_bytes(read.id(&record.service_account_uid)?),
            },
            pod,
            node,
            credential_id: read.optional(&record.credential_id)?,
        },
        owners: Owners {
            namespace: read.name(&record.owner)?,
            narrowed: read.optional(&record.narrowed_owner)?,
            narrowed_by: record.narrowed_by.map(|asserted| read.asserted(asserted)).transpose()?,
        },
        target: read.name(&record.target)?,
        grant: read.name::<GrantRef>(&record.grant)?,
        audience: read.name(&record.audience)?,
        scope: record.scope.iter().map(|scope| read.name::<Scope>(scope)).collect::<Result<_, _>>()?,
        claims: record
            .claims
            .into_iter()
            .map(|claim| Ok((claim.name, read.claim(claim.values, claim.many)?)))
            .collect::<Result<_, BadRecord>>()?,
        issued_at: Timestamp::from_millis(record.issued_at),
        expires_at: Timestamp::from_millis(record.expires_at),
        key_id: read.name::<KeyId>(&record.key_id)?,
        digests: digests.collect::<Result<_, _>>()?,
        confirmation,
        spiffe_id: read.optional(&record.spiffe_id)?,
        idempotency: read.idempotency(&record.idempotency_key, &record.idempotency_request)?,
        renews: read.optional_id(&record.renews)?.map(LeaseId::from_bytes),
        provenance: Provenance {
            controllers: record
                .controllers
                .into_iter()
                .map(|object| read.object(object))
                .collect::<Result<_, _>>()?,
            images: pairs(record.images).map(|(container, digest)| Image { container, digest }).collect(),
            applied_by: record.applied_by.map(|object| read.object(object)).transpose()?,
        },
        grounds: Grounds {
            objects: record
                .objects
                .into_iter()
                .map(|object| read.policy_object(object))
                .collect::<Result<_, _>>()?,
            checks: pairs(record.checks).map(|(name, outcome)| Check { name, outcome }).collect(),
        },
        phase: match (record.released_at, read.optional_id(&record.renewed_by)?.map(LeaseId::from_bytes)) {
            (Some(at), renewed_by) => Phase::Released { at: Timestamp::from_millis(at), renewed_by },
            (None, Some(by)) => {
                Phase::Renewed { by, ends_at: Timestamp::from_millis(record.renewal_ends_at) }
            }
            (None, None) => Phase::Active,
        },
    })
}

/// A rule as bytes.
pub fn encode_rule(rule: &Rule) -> Vec<u8> {
    let (all, fields) = match &rule.selector {
        Selector::All => (true, Fields::default()),
        Selector::Where(fields) => (false, fields.as_ref().clone()),
    };
    RuleRecord {
        id: rule.id.to_bytes().to_vec(),
        position: rule.position.number(),
        cut_off: rule.cut_off.to_bytes().to_vec(),
        hold: rule.after == After::Hold,
        written_at: rule.written_at.as_millis(),
        actor_cluster: show(rule.by.cluster.as_ref()),
        actor: rule.by.username.clone(),
        actor_uid: rule.by.uid.clone(),
        reason: rule.reason.clone(),
        until: rule.until.as_millis(),
        idempotency_key: digest_bytes(rule.idempotency.map(|i| i.key)),
        idempotency_request: digest_bytes(rule.idempotency.map(|i| i.request)),
        all,
        cluster: show(fields.cluster.as_ref()),
        owner: show(fields.owner.as_ref()),
        namespace: show(fields.namespace.as_ref()),
        service_account: uid_bytes(fields.service_account),
        pod: uid_bytes(fields.pod),
        node: uid_bytes(fields.node),
        grant: show(fields.grant.as_ref()),
        target: show(fields.target.as_ref()),
        key: show(fields.key.as_ref()),
        credential_id: show(fields.credential_id.as_ref()),
        lease: fields.lease.map(|id| id.to_bytes().to_vec()).unwrap_or_default(),
    }
    .encode_to_vec()
}

/// A rule from [`encode_rule`]'s bytes.
///
/// # Errors
/// When they are not a rule.
pub fn decode_rule(bytes: &[u8]) -> Result<Rule, BadRecord> {
    let read = Reader("rule");
    let record = RuleRecord::decode(bytes).map_err(|error| read.bad(&error))?;
    let selector = if record.all {
        Selector::All
    } else {
        let fields = Fields {
            cluster: read.optional(&record.cluster)?,
            owner: read.optional(&record.owner)?,
            namespace: read.optional(&record.namespace)?,
            service_account: read.optional_uid(&record.service_account)?,
            pod: read.optional_uid(&record.pod)?,
            node: read.optional_uid(&record.node)?,
            grant: read.optional(&record.grant)?,
            target: read.optional(&record.target)?,
            key: read.optional(&record.key)?,
            credential_id: read.optional(&record.credential_id)?,
            lease: read.optional_id(&record.lease)?.map(LeaseId::from_bytes),
        };
        Selector::fields(fields).map_err(|error| read.bad(&error))?
    };
    Ok(Rule {
        id: RuleId::from_bytes(read.id(&record.id)?),
        position: Position::new(record.position),
        selector,
        cut_off: LeaseId::from_bytes(read.id(&record.cut_off)?),
        after: if record.hold { After::Hold } else { After::Reissue },
        written_at: Timestamp::from_millis(record.written_at),
        by: Actor {
            cluster: read.optional(&record.actor_cluster)?,
            username: record.actor,
            uid: record.actor_uid,
        },
        reason: record.reason,
        until: Timestamp::from_millis(record.until),
        idempotency: read.idempotency(&record.idempotency_key, &record.idempotency_request)?,
    })
}

/// A sealed key as bytes.
pub fn encode_key(key: &SealedKey) -> Vec<u8> {
    KeyRecord {
        id: key.id.to_string(),
        purpose: key.purpose.clone(),
        generation: key.generation,
        created_at: key.created_at.as_millis(),
        public_jwk: key.public_jwk.clone(),
        sealed: key.sealed.clone(),
    }
    .encode_to_vec()
}

/// A sealed key from [`encode_key`]'s bytes.
///
/// # Errors
/// When they are not a sealed key.
pub fn decode_key(bytes: &[u8]) -> Result<SealedKey, BadRecord> {
    let read = Reader("key");
    let record = KeyRecord::decode(bytes).map_err(|error| read.bad(&error))?;
    Ok(SealedKey {
        id: read.name(&record.id)?,
        purpose: record.purpose,
        generation: record.generation,
        created_at: Timestamp::from_millis(record.created_at),
        public_jwk: record.public_jwk,
        sealed: record.sealed,
    })
}

fn show<T: std::fmt::Display>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn uid_bytes(uid: Option<Uid>) -> Vec<u8> {
    uid.map(|uid| uid.to_bytes().to_vec()).unwrap_or_default()
}

fn digest_bytes(digest: Option<Digest>) -> Vec<u8> {
    digest.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default()
}

/// Reads fields of a record of this kind; empty is absent.
/// A flat list, two by two.
fn pairs(flat: Vec<String>) -> impl Iterator<Item = (String, String)> {
    let mut flat = flat.into_iter();
    std::iter::from_fn(move || Some((flat.next()?, flat.next()?)))
}

struct Reader(&'static str);

impl Reader {
    fn object(&self, record: ObjectRecord) -> Result<ObjectRef, BadRecord> {
        Ok(ObjectRef {
            api_version: record.api_version,
            kind: record.kind,
            namespace: self.optional(&record.namespace)?,
            name: record.name,
            uid: self.optional_uid(&record.uid)?,
        })
    }

    fn asserted(&self, record: AssertedRecord) -> Result<Asserted, BadRecord> {
        Ok(match record.controller {
            Some(controller) => Asserted::Controller(self.object(controller)?),
            None if record.label.is_empty() => Asserted::ServiceAccount(self.name(&record.service_account)?),
            None => Asserted::Label { key: record.label, value: record.label_value },
        })
    }

    fn claim(&self, values: Vec<String>, many: bool) -> Result<ClaimValue, BadRecord> {
        if many {
            return Ok(ClaimValue::Many(values));
        }
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(ClaimValue::One(value)),
            _ => Err(self.bad(&"a claim has not one value")),
        }
    }

    fn policy_object(&self, record: PolicyObjectRecord) -> Result<PolicyObject, BadRecord> {
        Ok(PolicyObject {
            kind: record.kind,
            name: record.name,
            uid: self.optional_uid(&record.uid)?,
            generation: record.generation,
        })
    }

    fn bad(&self, why: &dyn std::fmt::Display) -> BadRecord {
        BadRecord { record: self.0, why: why.to_string() }
    }

    fn name<T: std::str::FromStr<Err: std::fmt::Display>>(&self, text: &str) -> Result<T, BadRecord> {
        text.parse().map_err(|error| self.bad(&error))
    }

    fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        text: &str,
    ) -> Result<Option<T>, BadRecord> {
        if text.is_empty() { Ok(None) } else { self.name(text).map(Some) }
    }

    fn id(&self, bytes: &[u8]) -> Result<[u8; 16], BadRecord> {
        bytes.try_into().map_err(|_| self.bad(&"an id is not 16 bytes"))
    }

    fn optional_id(&self, bytes: &[u8]) -> Result<Option<[u8; 16]>, BadRecord> {
        if bytes.is_empty() { Ok(None) } else { self.id(bytes).map(Some) }
    }

    fn optional_uid(&self, bytes: &[u8]) -> Result<Option<Uid>, BadRecord> {
        Ok(self.optional_id(bytes)?.map(Uid::from_bytes))
    }

    fn digest(&self, bytes: &[u8]) -> Result<Option<Digest>, BadRecord> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let bytes = bytes.try_into().map_err(|_| self.bad(&"a digest is not 32 bytes"))?;
        Ok(Some(Digest::from_bytes(bytes)))
    }

    fn idempotency(&self, key: &[u8], request: &[u8]) -> Result<Option<Idempotency>, BadRecord> {
        Ok(match (self.digest(key)?, self.digest(request)?) {
            (Some(key), Some(request)) => Some(Idempotency { key, request }),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lease_reads_back() {
        let mut lease = Lease::test(9).narrowed_to("api-team").with_key("k", "r");
        lease.confirmation = Some(Confirmation::Certificate(Digest::of(b"der")));
        lease.renews = Some(LeaseId::from_u128(8));
        lease.spiffe_id = "spiffe://prod.example/ns/payments/sa/api".parse().ok();
        lease.workload.node = Some(Node { name: "node-1".parse().unwrap(), uid: None });
        let (at, by) = (Timestamp::from_secs(5), LeaseId::from_u128(10));
        for phase in [
            Phase::Active,
            Phase::Renewed { by, ends_at: at },
            Phase::Released { at, renewed_by: Some(by) },
            Phase::Released { at, renewed_by: None },
        ] {
            lease.phase = phase;
            assert_eq!(decode_lease(&encode_lease(&lease)), Ok(lease.clone()));
        }
        let many = |values: &[&str]| ClaimValue::Many(values.iter().map(ToString::to_string).collect());
        lease.claims = [("a", ClaimValue::One("x".to_owned())), ("b", many(&["x"])), ("c", many(&[]))]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        assert_eq!(decode_lease(&encode_lease(&lease)), Ok(lease.clone()));
        let object = |kind: &str, uid: Option<u128>| ObjectRef {
            api_version: "apps/v1".to_owned(),
            kind: kind.to_owned(),
            namespace: "payments".parse().ok(),
            name: "api".to_owned(),
            uid: uid.map(Uid::from_u128),
        };
        lease.provenance = Provenance {
            controllers: vec![object("ReplicaSet", Some(1)), object("Deployment", Some(2))],
            images: vec![Image { container: "api".to_owned(), digest: format!("sha256:{}", "0".repeat(64)) }],
            applied_by: Some(object("Application", None)),
        };
        lease.grounds = Grounds {
            objects: vec![PolicyObject {
                kind: "Grant".to_owned(),
                name: "payments/orders".to_owned(),
                uid: None,
                generation: "00ff".to_owned(),
            }],
            checks: vec![Check { name: "ttl".to_owned(), outcome: "300 s".to_owned() }],
        };
        for by in [
            Asserted::Label { key: "team".to_owned(), value: String::new() },
            Asserted::ServiceAccount("api".parse().unwrap()),
            Asserted::Controller(object("Deployment", Some(2))),
        ] {
            lease.owners.narrowed_by = Some(by);
            assert_eq!(decode_lease(&encode_lease(&lease)), Ok(lease.clone()));
        }
        lease.workload.pod = None;
        lease.confirmation = Some(Confirmation::Jwk(Digest::of(b"jwk")));
        assert_eq!(decode_lease(&encode_lease(&lease)), Ok(lease));
    }

    #[test]
    fn a_rule_and_a_key_read_back() {
        let fields = Fields {
            cluster: "east".parse().ok(),
            owner: "payments".parse().ok(),
            pod: Some(Uid::from_u128(3)),
            lease: Some(LeaseId::from_u128(4)),
            grant: "payments/orders".parse().ok(),
            ..Fields::default()
        };
        for selector in [Selector::All, Selector::fields(fields).unwrap()] {
            let mut rule = Rule::test(4, selector, 17).holding();
            rule.by.cluster = "east".parse().ok();
            rule.idempotency = Some(Idempotency { key: Digest::of(b"k"), request: Digest::of(b"r") });
            assert_eq!(decode_rule(&encode_rule(&rule)), Ok(rule));
        }
        let key = SealedKey {
            id: "abc".parse().unwrap(),
            purpose: "access-token".to_owned(),
            generation: 1,
            created_at: Timestamp::from_secs(1),
            public_jwk: "{}".to_owned(),
            sealed: vec![1, 2, 3],
        };
        assert_eq!(decode_key(&encode_key(&key)), Ok(key));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode_lease(&bytes);
            let _ = decode_rule(&bytes);
            let _ = decode_key(&bytes);
        }
    }
}
