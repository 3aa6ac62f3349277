//! A lease as two records: its [basis](encode_basis), which all leases have alike that one workload gets by one
//! decision, and its [`Own`]. What is written about a lease's life changes the second alone.

use prost::Message;

use super::{BadRecord, Reader, digest_bytes, show, uid_bytes};
use crate::claims::ClaimValue;
use crate::digest::Digest;
use crate::ids::{CredentialId, GrantRef, KeyId, LeaseId, OwnerName, Scope, Uid};
use crate::lease::{Check, Confirmation, Grounds, Idempotency, Lease, Owners, Phase, PolicyObject};
use crate::provenance::{Asserted, Image, ObjectRef, Provenance};
use crate::status::{StatusEntry, StatusListId};
use crate::time::Timestamp;
use crate::workload::{Node, Pod, ServiceAccount, Workload};

/// What is a lease's own: all but its basis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The lease's id.
    pub id: LeaseId,
    /// The id of its basis, which is that of the lease that brought it: this one's own, or another's.
    pub basis: LeaseId,
    /// See [`Workload::credential_id`].
    pub credential_id: Option<CredentialId>,
    /// See [`Lease::issued_at`].
    pub issued_at: Timestamp,
    /// See [`Lease::expires_at`].
    pub expires_at: Timestamp,
    /// See [`Lease::digests`].
    pub digests: Vec<Digest>,
    /// See [`Lease::confirmation`].
    pub confirmation: Option<Confirmation>,
    /// See [`Lease::idempotency`].
    pub idempotency: Option<Idempotency>,
    /// See [`Lease::renews`].
    pub renews: Option<LeaseId>,
    /// See [`Lease::status`].
    pub status: Option<StatusEntry>,
    /// See [`Lease::phase`].
    pub phase: Phase,
}

#[derive(Clone, PartialEq, Message)]
struct OwnRecord {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    /// Empty where it is the lease's own id.
    #[prost(bytes = "vec", tag = "2")]
    basis: Vec<u8>,
    #[prost(string, tag = "3")]
    credential_id: String,
    #[prost(uint64, tag = "4")]
    issued_at: u64,
    #[prost(uint64, tag = "5")]
    expires_at: u64,
    #[prost(bytes = "vec", repeated, tag = "6")]
    digests: Vec<Vec<u8>>,
    #[prost(bytes = "vec", tag = "7")]
    jwk_thumbprint: Vec<u8>,
    #[prost(bytes = "vec", tag = "8")]
    certificate_thumbprint: Vec<u8>,
    #[prost(bytes = "vec", tag = "9")]
    idempotency_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    idempotency_request: Vec<u8>,
    #[prost(bytes = "vec", tag = "11")]
    renews: Vec<u8>,
    #[prost(uint64, optional, tag = "12")]
    released_at: Option<u64>,
    #[prost(bytes = "vec", tag = "13")]
    renewed_by: Vec<u8>,
    /// When the overlap with that one ends.
    #[prost(uint64, tag = "14")]
    renewal_ends_at: u64,
    /// The status list, and the place in it.
    #[prost(fixed64, optional, tag = "15")]
    status_list: Option<u64>,
    #[prost(uint32, tag = "16")]
    status_index: u32,
}

#[derive(Clone, PartialEq, Message)]
struct BasisRecord {
    #[prost(string, tag = "1")]
    cluster: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    service_account: String,
    #[prost(bytes = "vec", tag = "4")]
    service_account_uid: Vec<u8>,
    #[prost(string, tag = "5")]
    pod: String,
    #[prost(bytes = "vec", tag = "6")]
    pod_uid: Vec<u8>,
    #[prost(string, tag = "7")]
    node: String,
    #[prost(bytes = "vec", tag = "8")]
    node_uid: Vec<u8>,
    #[prost(string, tag = "9")]
    owner: String,
    #[prost(string, tag = "10")]
    narrowed_owner: String,
    #[prost(message, optional, tag = "11")]
    narrowed_by: Option<AssertedRecord>,
    #[prost(string, tag = "12")]
    target: String,
    #[prost(string, tag = "13")]
    grant: String,
    #[prost(string, tag = "14")]
    audience: String,
    #[prost(string, repeated, tag = "15")]
    scope: Vec<String>,
    #[prost(message, repeated, tag = "16")]
    claims: Vec<ClaimRecord>,
    #[prost(string, tag = "17")]
    key_id: String,
    #[prost(string, tag = "18")]
    spiffe_id: String,
    #[prost(message, repeated, tag = "19")]
    controllers: Vec<ObjectRecord>,
    /// Names and digests in turn.
    #[prost(string, repeated, tag = "20")]
    images: Vec<String>,
    #[prost(message, optional, tag = "21")]
    applied_by: Option<ObjectRecord>,
    #[prost(message, repeated, tag = "22")]
    objects: Vec<PolicyObjectRecord>,
    /// Names and outcomes in turn.
    #[prost(string, repeated, tag = "23")]
    checks: Vec<String>,
    #[prost(bool, tag = "24")]
    images_known: bool,
}

/// Of a [`BasisRecord`] the owners alone.
#[derive(Clone, PartialEq, Message)]
struct OwnersRecord {
    #[prost(string, tag = "9")]
    owner: String,
    #[prost(string, tag = "10")]
    narrowed_owner: String,
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

impl Own {
    /// What is this lease's own, on the basis with this id.
    pub fn of(lease: &Lease, basis: LeaseId) -> Self {
        Self {
            id: lease.id,
            basis,
            credential_id: lease.workload.credential_id.clone(),
            issued_at: lease.issued_at,
            expires_at: lease.expires_at,
            digests: lease.digests.clone(),
            confirmation: lease.confirmation,
            idempotency: lease.idempotency,
            renews: lease.renews,
            status: lease.status,
            phase: lease.phase,
        }
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (jwk, certificate) = match self.confirmation {
            None => (None, None),
            Some(Confirmation::Jwk(digest)) => (Some(digest), None),
            Some(Confirmation::Certificate(digest)) => (None, Some(digest)),
        };
        OwnRecord {
            id: id_bytes(Some(self.id)),
            basis: id_bytes(Some(self.basis).filter(|basis| *basis != self.id)),
            credential_id: show(self.credential_id.as_ref()),
            issued_at: self.issued_at.as_millis(),
            expires_at: self.expires_at.as_millis(),
            digests: self.digests.iter().map(|digest| digest.as_bytes().to_vec()).collect(),
            jwk_thumbprint: digest_bytes(jwk),
            certificate_thumbprint: digest_bytes(certificate),
            idempotency_key: digest_bytes(self.idempotency.map(|used| used.key)),
            idempotency_request: digest_bytes(self.idempotency.map(|used| used.request)),
            renews: id_bytes(self.renews),
            released_at: match self.phase {
                Phase::Active | Phase::Renewed { .. } => None,
                Phase::Released { at, .. } => Some(at.as_millis()),
            },
            renewed_by: id_bytes(self.phase.renewed_by()),
            renewal_ends_at: match self.phase {
                Phase::Renewed { ends_at, .. } => ends_at.as_millis(),
                Phase::Active | Phase::Released { .. } => 0,
            },
            status_list: self.status.map(|status| status.list.0),
            status_index: self.status.map_or(0, |status| status.index),
        }
        .encode_to_vec()
    }

    /// From [`Own::encode`]'s bytes.
    ///
    /// # Errors
    /// When they are not a lease's own record.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let read = Reader("lease");
        let record = OwnRecord::decode(bytes).map_err(|error| read.bad(&error))?;
        let id = LeaseId::from_bytes(read.id(&record.id)?);
        let confirmation =
            match (read.digest(&record.jwk_thumbprint)?, read.digest(&record.certificate_thumbprint)?) {
                (Some(jwk), _) => Some(Confirmation::Jwk(jwk)),
                (None, certificate) => certificate.map(Confirmation::Certificate),
            };
        let digest = |digest: &Vec<u8>| read.digest(digest)?.ok_or_else(|| read.bad(&"empty digest"));
        let renewed_by = read.optional_id(&record.renewed_by)?.map(LeaseId::from_bytes);
        Ok(Self {
            id,
            basis: read.optional_id(&record.basis)?.map_or(id, LeaseId::from_bytes),
            credential_id: read.optional(&record.credential_id)?,
            issued_at: Timestamp::from_millis(record.issued_at),
            expires_at: Timestamp::from_millis(record.expires_at),
            digests: record.digests.iter().map(digest).collect::<Result<_, _>>()?,
            confirmation,
            idempotency: read.idempotency(&record.idempotency_key, &record.idempotency_request)?,
            renews: read.optional_id(&record.renews)?.map(LeaseId::from_bytes),
            status: record
                .status_list
                .map(|list| StatusEntry { list: StatusListId(list), index: record.status_index }),
            phase: match (record.released_at, renewed_by) {
                (Some(at), renewed_by) => Phase::Released { at: Timestamp::from_millis(at), renewed_by },
                (None, Some(by)) => {
                    Phase::Renewed { by, ends_at: Timestamp::from_millis(record.renewal_ends_at) }
                }
                (None, None) => Phase::Active,
            },
        })
    }

    /// The lease, on this basis.
    ///
    /// # Errors
    /// When these are not the bytes of a basis.
    pub fn on(self, basis: &[u8]) -> Result<Lease, BadRecord> {
        let read = Reader("basis");
        let record = BasisRecord::decode(basis).map_err(|error| read.bad(&error))?;
        let pod = match read.optional_uid(&record.pod_uid)? {
            None => None,
            Some(uid) => Some(Pod { name: read.name(&record.pod)?, uid }),
        };
        let node = match record.node.as_str() {
            "" => None,
            name => Some(Node { name: read.name(name)?, uid: read.optional_uid(&record.node_uid)? }),
        };
        Ok(Lease {
            id: self.id,
            workload: Workload {
                cluster: read.name(&record.cluster)?,
                service_account: ServiceAccount {
                    namespace: read.name(&record.namespace)?,
                    name: read.name(&record.service_account)?,
                    uid: Uid::from_bytes(read.id(&record.service_account_uid)?),
                },
                pod,
                node,
                credential_id: self.credential_id,
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
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            key_id: read.name::<KeyId>(&record.key_id)?,
            digests: self.digests,
            status: self.status,
            confirmation: self.confirmation,
            spiffe_id: read.optional(&record.spiffe_id)?,
            idempotency: self.idempotency,
            renews: self.renews,
            provenance: Provenance {
                controllers: record
                    .controllers
                    .into_iter()
                    .map(|object| read.object(object))
                    .collect::<Result<_, _>>()?,
                images: pairs(record.images).map(|(container, digest)| Image { container, digest }).collect(),
                images_known: record.images_known,
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
            phase: self.phase,
        })
    }
}

/// A lease's basis as bytes: all but its [`Own`]. The same for the same content.
pub fn encode_basis(lease: &Lease) -> Vec<u8> {
    // Every field is here or in Own::of: a new one does not compile until it has its place.
    let Lease {
        workload: Workload { cluster, service_account, pod, node, credential_id: _ },
        owners: Owners { namespace: owner, narrowed, narrowed_by },
        target,
        grant,
        audience,
        scope,
        claims,
        key_id,
        spiffe_id,
        provenance: Provenance { controllers, images, images_known, applied_by },
        grounds: Grounds { objects, checks },
        id: _,
        issued_at: _,
        expires_at: _,
        digests: _,
        status: _,
        confirmation: _,
        idempotency: _,
        renews: _,
        phase: _,
    } = lease;
    let image = |image: &Image| [image.container.clone(), image.digest.clone()];
    let check = |check: &Check| [check.name.clone(), check.outcome.clone()];
    BasisRecord {
        cluster: cluster.to_string(),
        namespace: service_account.namespace.to_string(),
        service_account: service_account.name.to_string(),
        service_account_uid: service_account.uid.to_bytes().to_vec(),
        pod: show(pod.as_ref().map(|pod| &pod.name)),
        pod_uid: uid_bytes(pod.as_ref().map(|pod| pod.uid)),
        node: show(node.as_ref().map(|node| &node.name)),
        node_uid: uid_bytes(node.as_ref().and_then(|node| node.uid)),
        owner: owner.to_string(),
        narrowed_owner: show(narrowed.as_ref()),
        narrowed_by: narrowed_by.as_ref().map(asserted_record),
        target: target.to_string(),
        grant: grant.to_string(),
        audience: audience.to_string(),
        scope: scope.iter().map(ToString::to_string).collect(),
        claims: claims.iter().map(claim_record).collect(),
        key_id: key_id.to_string(),
        spiffe_id: show(spiffe_id.as_ref()),
        controllers: controllers.iter().map(object_record).collect(),
        images: images.iter().flat_map(image).collect(),
        images_known: *images_known,
        applied_by: applied_by.as_ref().map(object_record),
        objects: objects.iter().map(policy_object_record).collect(),
        checks: checks.iter().flat_map(check).collect(),
    }
    .encode_to_vec()
}

/// Of a basis as bytes the owners alone: the namespace's, and the narrowed one.
///
/// # Errors
/// When these are not the bytes of a basis.
pub fn decode_owners(basis: &[u8]) -> Result<(OwnerName, Option<OwnerName>), BadRecord> {
    let read = Reader("basis");
    let record = OwnersRecord::decode(basis).map_err(|error| read.bad(&error))?;
    Ok((read.name(&record.owner)?, read.optional(&record.narrowed_owner)?))
}

fn id_bytes(id: Option<LeaseId>) -> Vec<u8> {
    id.map(|id| id.to_bytes().to_vec()).unwrap_or_default()
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

/// A flat list, two by two.
fn pairs(flat: Vec<String>) -> impl Iterator<Item = (String, String)> {
    let mut flat = flat.into_iter();
    std::iter::from_fn(move || Some((flat.next()?, flat.next()?)))
}

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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_back(lease: &Lease) -> Result<Lease, BadRecord> {
        Own::decode(&Own::of(lease, LeaseId::from_u128(7)).encode())?.on(&encode_basis(lease))
    }

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
            assert_eq!(read_back(&lease), Ok(lease.clone()));
        }
        let many = |values: &[&str]| ClaimValue::Many(values.iter().map(ToString::to_string).collect());
        lease.claims = [("a", ClaimValue::One("x".to_owned())), ("b", many(&["x"])), ("c", many(&[]))]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        assert_eq!(read_back(&lease), Ok(lease.clone()));
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
            images_known: true,
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
            assert_eq!(read_back(&lease), Ok(lease.clone()));
        }
        lease.workload.pod = None;
        lease.confirmation = Some(Confirmation::Jwk(Digest::of(b"jwk")));
        assert_eq!(read_back(&lease), Ok(lease));
    }

    #[test]
    fn leases_of_one_decision_have_the_same_basis_and_others_have_not() {
        let lease = Lease::test(1).narrowed_to("api-team");
        let basis = encode_basis(&lease);
        let mut later = Lease::test(2).narrowed_to("api-team").with_key("k", "r");
        later.workload.credential_id = "JTI=2".parse().ok();
        later.renews = Some(lease.id);
        later.expires_at = Timestamp::from_secs(9);
        assert_eq!(encode_basis(&later), basis);
        let decided = decode_owners(&basis).unwrap();
        assert_eq!(decided, (lease.owners.namespace.clone(), lease.owners.narrowed.clone()));
        let other = |change: fn(&mut Lease)| {
            let mut other = lease.clone();
            change(&mut other);
            assert_ne!(encode_basis(&other), basis);
        };
        other(|lease| lease.workload.pod = None);
        other(|lease| lease.owners.narrowed_by = "api".parse().ok().map(Asserted::ServiceAccount));
        other(|lease| lease.scope.clear());
        other(|lease| lease.key_id = "key-2".parse().unwrap());
        other(|lease| {
            lease.grounds.checks.push(Check { name: "ttl".to_owned(), outcome: String::new() });
        });
    }

    #[test]
    fn a_lease_that_brings_its_basis_names_no_other() {
        let lease = Lease::test(1);
        let (brings, refers) = (Own::of(&lease, lease.id), Own::of(&lease, LeaseId::from_u128(7)));
        assert_eq!(brings.encode().len() + 18, refers.encode().len());
        for own in [brings, refers] {
            assert_eq!(Own::decode(&own.encode()), Ok(own));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let own = Own::of(&Lease::test(1), LeaseId::from_u128(1));
            let _ = (Own::decode(&bytes), own.on(&bytes), decode_owners(&bytes));
        }
    }
}
