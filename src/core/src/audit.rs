//! What the audit log says: one event for each change, in the order of positions.
//!
//! An event's *leaf* is what the Merkle tree is over. Tenant detail is not in it but beside it, as a *detail* that the
//! leaf binds by a salted digest: retention can forget the detail and its salt, the leaf and its proof stay.

use prost::Message;

use crate::change::{KeyChange, KeyStep};
use crate::digest::Digest;
use crate::ids::{KeyId, LeaseId, OwnerName, Position, RuleId};
use crate::lease::Lease;
use crate::merkle;
use crate::rule::{Actor, After, Rule};
use crate::session::Session;
use crate::signing::KeyPurpose;
use crate::time::Timestamp;
use crate::workload::Identity;

/// Bytes of the random salt that an event's detail is hashed with.
pub const SALT_BYTES: usize = 16;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EventKind {
    /// Never written.
    Unspecified = 0,
    /// A lease was issued.
    Issued = 1,
    /// A request was repeated under its idempotency key, and the same lease's credential signed again.
    Reissued = 2,
    /// A workload gave its lease back.
    Released = 3,
    /// A rule was written.
    Revoked = 4,
    /// Denials of verified callers, of one minute, workload, target and reason.
    Denied = 5,
    /// A signing key was made.
    KeyCreated = 6,
    /// The broker started on this store, for the first time or after a clean stop.
    Started = 7,
    /// The broker stopped cleanly.
    Stopped = 8,
    /// The policy in force changed.
    PolicyChanged = 9,
    /// A store behind its witness was accepted: a new incarnation.
    RollbackAccepted = 10,
    /// A lease was issued in the place of an earlier one of the same pod, which ends after the overlap.
    Renewed = 12,
    /// What a Grant of mode Audit would have decided, of one minute, workload, target, Grant and outcome.
    Audited = 11,
    /// A rule's hold was lifted.
    Lifted = 13,
    /// The next signing key signs, and the one that did retires.
    KeyActivated = 20,
    /// A signing key is not published any more: nothing that it signed is alive.
    KeyRetired = 21,
    /// A signing key was revoked: a rule was written about all that it signed.
    KeyRevoked = 22,
    /// A signing key was sealed again, with another generation of the key-encryption key.
    KeyResealed = 23,
    /// A step of the teardown of what a rule covers is complete.
    TornDown = 26,
    /// An operator's session was issued, by way of an API server.
    SessionIssued = 30,
    /// A backup was taken: of everything up to a position, which the detail says.
    BackupTaken = 50,
    /// The store was made from a backup: a new incarnation.
    Restored = 51,
    /// A store that was restored, or was behind its witness, is the one that counts: it touches what is downstream again.
    Adopted = 52,
    /// What an operator read, of one minute, operator, RPC and filter.
    Read = 40,
    /// The audit log was exported: from a position up to this event.
    Exported = 41,
    /// The broker started on this store, and was not stopped cleanly before.
    StartedUnclean = 42,
}

impl EventKind {
    /// The kind's name, as the CLI shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Issued => "issued",
            Self::Reissued => "reissued",
            Self::Released => "released",
            Self::Revoked => "revoked",
            Self::Denied => "denied",
            Self::KeyCreated => "key-created",
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::PolicyChanged => "policy-changed",
            Self::RollbackAccepted => "rollback-accepted",
            Self::Renewed => "renewed",
            Self::Audited => "audited",
            Self::Lifted => "lifted",
            Self::KeyActivated => "key-activated",
            Self::KeyRetired => "key-retired",
            Self::KeyRevoked => "key-revoked",
            Self::KeyResealed => "key-resealed",
            Self::TornDown => "torn-down",
            Self::SessionIssued => "session-issued",
            Self::BackupTaken => "backup-taken",
            Self::Restored => "restored",
            Self::Adopted => "adopted",
            Self::Read => "read",
            Self::Exported => "exported",
            Self::StartedUnclean => "started-unclean",
        }
    }

    /// Every kind that is written, by its number.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=i32::from(u8::MAX)).filter_map(|number| Self::try_from(number).ok())
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.name() == name)
    }
}

/// The bytes that the tree is over, encoded as protobuf with these field numbers.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Leaf {
    /// What it is about.
    #[prost(enumeration = "EventKind", tag = "1")]
    pub kind: i32,
    /// The change's position, from 1: one more than the leaf's index.
    #[prost(uint64, tag = "2")]
    pub position: u64,
    /// When: milliseconds since the Unix epoch.
    #[prost(uint64, tag = "3")]
    pub at_millis: u64,
    /// The lease's, rule's or session's id: 16 bytes; empty where there is none.
    #[prost(bytes = "vec", tag = "4")]
    pub subject: Vec<u8>,
    /// `SHA-256(salt ‖ detail)`: 32 bytes.
    #[prost(bytes = "vec", tag = "5")]
    pub detail_digest: Vec<u8>,
}

/// Who, what and why, in words: what retention can forget. Encoded as protobuf with these field numbers; what does not
/// apply is empty.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Detail {
    /// `CLUSTER:NAMESPACE:SERVICE-ACCOUNT` of the workload.
    #[prost(string, tag = "1")]
    pub workload: String,
    /// The service account's uid.
    #[prost(string, tag = "2")]
    pub service_account_uid: String,
    /// The pod, as `NAME/UID`.
    #[prost(string, tag = "3")]
    pub pod: String,
    /// The id of the token it presented.
    #[prost(string, tag = "4")]
    pub credential_id: String,
    /// The namespace's owner, then the narrowed one.
    #[prost(string, repeated, tag = "5")]
    pub owners: Vec<String>,
    /// The target.
    #[prost(string, tag = "6")]
    pub target: String,
    /// The grant, as `NAMESPACE/NAME`.
    #[prost(string, tag = "7")]
    pub grant: String,
    /// What it may do there.
    #[prost(string, repeated, tag = "8")]
    pub scope: Vec<String>,
    /// When the credential ends by itself: seconds since the Unix epoch.
    #[prost(uint64, tag = "9")]
    pub expires_at_secs: u64,
    /// The signing key.
    #[prost(string, tag = "10")]
    pub key_id: String,
    /// The credential's digest.
    #[prost(bytes = "vec", tag = "11")]
    pub credential_digest: Vec<u8>,
    /// Who did it, where it was not the workload.
    #[prost(string, tag = "12")]
    pub actor: String,
    /// A rule's selector.
    #[prost(string, tag = "13")]
    pub selector: String,
    /// `REISSUE` or `HOLD`.
    #[prost(string, tag = "14")]
    pub after: String,
    /// A rule's cut-off.
    #[prost(string, tag = "15")]
    pub cut_off: String,
    /// Why: an operator's words, or a denial's reason.
    #[prost(string, tag = "16")]
    pub reason: String,
    /// How often, for an aggregate.
    #[prost(uint64, tag = "17")]
    pub count: u64,
    /// The first of an aggregate: milliseconds since the Unix epoch.
    #[prost(uint64, tag = "18")]
    pub first_millis: u64,
    /// The last of an aggregate: milliseconds since the Unix epoch.
    #[prost(uint64, tag = "19")]
    pub last_millis: u64,
    /// Anything else, in words.
    #[prost(string, tag = "20")]
    pub note: String,
    /// The id of the lease that this one renews.
    #[prost(string, tag = "24")]
    pub renews: String,
    /// The uid of who a session is of, as the API server said it.
    #[prost(string, tag = "30")]
    pub user_uid: String,
    /// Their groups.
    #[prost(string, repeated, tag = "31")]
    pub groups: Vec<String>,
    /// What else the API server said of them: `KEY=VALUE`.
    #[prost(string, repeated, tag = "32")]
    pub extra: Vec<String>,
    /// The `Audit-ID` of the request for a session: what finds it in the API server's own audit log.
    #[prost(string, tag = "33")]
    pub audit_id: String,
    /// The cluster whose things it is about, where no workload says it.
    #[prost(string, tag = "40")]
    pub cluster: String,
    /// What an operator called.
    #[prost(string, tag = "41")]
    pub rpc: String,
    /// And with which filter, in words.
    #[prost(string, tag = "42")]
    pub filter: String,
    /// Policy objects that changed, each in words.
    #[prost(string, repeated, tag = "43")]
    pub objects: Vec<String>,
}

impl Detail {
    /// The cluster whose things it is about; empty where it is about the broker itself, or several.
    pub fn about_cluster(&self) -> &str {
        match self.workload.split_once(':') {
            Some((cluster, _)) if self.cluster.is_empty() => cluster,
            _ => &self.cluster,
        }
    }

    /// How many bytes it takes.
    pub fn size(&self) -> usize {
        self.encoded_len()
    }
}

/// An event that has no position yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// What it is about.
    pub kind: EventKind,
    /// The lease or rule it is about.
    pub subject: Option<[u8; 16]>,
    /// Who, what and why.
    pub detail: Detail,
}

/// An event as the store keeps it: the leaf verbatim, the salt and the detail until they are forgotten.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct EventRecord {
    /// The encoded [`Leaf`], exactly as hashed.
    #[prost(bytes = "vec", tag = "1")]
    pub leaf: Vec<u8>,
    /// The salt; empty when forgotten.
    #[prost(bytes = "vec", tag = "2")]
    pub salt: Vec<u8>,
    /// The encoded [`Detail`]; empty when forgotten.
    #[prost(bytes = "vec", tag = "3")]
    pub detail: Vec<u8>,
}

/// An event read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its place in the order of changes.
    pub position: Position,
    /// When it happened.
    pub at: Timestamp,
    /// What it is about.
    pub kind: EventKind,
    /// The lease's or rule's id.
    pub subject: Option<[u8; 16]>,
    /// Who, what and why; `None` when forgotten.
    pub detail: Option<Detail>,
    /// Its leaf's hash in the tree.
    pub leaf_hash: merkle::Hash,
}

/// A stored event does not agree with itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    /// The leaf does not decode.
    #[error("the event's leaf does not decode")]
    Leaf,
    /// The detail is not the one its leaf was written with.
    #[error("the event's detail is not the one its leaf binds")]
    Detail,
}

impl Draft {
    /// A lease was issued; where it renews another, the event names that too.
    pub fn issued(lease: &Lease) -> Self {
        let kind = if lease.renews.is_some() { EventKind::Renewed } else { EventKind::Issued };
        Self { kind, subject: Some(lease.id.to_bytes()), detail: of_lease(lease) }
    }

    /// A lease's credential was signed again for a repeated request.
    pub fn reissued(lease: &Lease, digest: &Digest) -> Self {
        let detail = Detail { credential_digest: digest.as_bytes().to_vec(), ..of_lease(lease) };
        Self { kind: EventKind::Reissued, subject: Some(lease.id.to_bytes()), detail }
    }

    /// A workload gave a lease back.
    pub fn released(lease: &Lease) -> Self {
        Self { kind: EventKind::Released, subject: Some(lease.id.to_bytes()), detail: of_lease(lease) }
    }

    /// A rule was written.
    pub fn revoked(rule: &Rule) -> Self {
        let detail = Detail {
            actor: rule.by.to_string(),
            selector: rule.selector.to_string(),
            after: match rule.after {
                After::Reissue => "REISSUE",
                After::Hold => "HOLD",
            }
            .to_owned(),
            cut_off: rule.cut_off.to_string(),
            reason: rule.reason.clone(),
            ..of_selector(rule)
        };
        Self { kind: EventKind::Revoked, subject: Some(rule.id.to_bytes()), detail }
    }

    /// The same, of these owners too.
    #[must_use]
    pub fn about(mut self, owners: &[OwnerName]) -> Self {
        for owner in owners.iter().map(ToString::to_string) {
            if !self.detail.owners.contains(&owner) {
                self.detail.owners.push(owner);
            }
        }
        self
    }

    /// A rule's hold was lifted.
    pub fn lifted(rule: &Rule, by: &Actor, reason: &str) -> Self {
        let detail = Detail {
            actor: by.to_string(),
            selector: rule.selector.to_string(),
            reason: reason.to_owned(),
            ..of_selector(rule)
        };
        Self { kind: EventKind::Lifted, subject: Some(rule.id.to_bytes()), detail }
    }

    /// A step in a signing key's life; `rule` is the one that was written with it.
    pub fn key(change: &KeyChange, rule: Option<&Rule>) -> Self {
        let (kind, key, note) = match &change.step {
            KeyStep::Add(key) => {
                let only = key.purpose.parse().ok().and_then(|purpose: KeyPurpose| purpose.only);
                let imported = if only.is_some() { ", imported" } else { "" };
                let note = format!("a signing key for {}, {}{imported}", key.purpose, key.stage);
                (EventKind::KeyCreated, key, note)
            }
            KeyStep::Activate { key, retiring } => {
                let retires = retiring.as_ref().map(|key| format!("; {} retires", key.id));
                let note = format!("signs for {}{}", key.purpose, retires.unwrap_or_default());
                (EventKind::KeyActivated, key, note)
            }
            KeyStep::Retire(key) => (EventKind::KeyRetired, key, format!("for {}", key.purpose)),
            KeyStep::Reseal(key) => {
                (EventKind::KeyResealed, key, format!("with generation {}", key.generation))
            }
            KeyStep::Revoke { key, instead, .. } => {
                let instead = instead.as_ref().map(|key| format!("; {} signs instead", key.id));
                let note = format!("for {}{}", key.purpose, instead.unwrap_or_default());
                (EventKind::KeyRevoked, key, note)
            }
        };
        let only = key.purpose.parse().ok().and_then(|purpose: KeyPurpose| purpose.only);
        let of_rule = rule.map(|rule| Self::revoked(rule).detail).unwrap_or_default();
        let detail = Detail {
            actor: change.by.to_string(),
            key_id: key.id.to_string(),
            target: only.map(|only| only.target.to_string()).unwrap_or_default(),
            note,
            ..of_rule
        };
        Self { kind, subject: rule.map(|rule| rule.id.to_bytes()), detail }
    }

    /// An operator's session was issued: its token has this digest.
    pub fn session_issued(
        session: &Session,
        by: &Actor,
        key: &KeyId,
        digest: &Digest,
        audit_id: &str,
    ) -> Self {
        let Identity { uid, groups, extra, .. } = &session.identity;
        let extra = extra.iter().flat_map(|(key, values)| values.iter().map(move |it| format!("{key}={it}")));
        let detail = Detail {
            actor: by.to_string(),
            user_uid: uid.clone(),
            groups: groups.clone(),
            extra: extra.collect(),
            audit_id: audit_id.to_owned(),
            expires_at_secs: session.expires_at.as_secs(),
            key_id: key.to_string(),
            credential_digest: digest.as_bytes().to_vec(),
            ..Detail::default()
        };
        Self { kind: EventKind::SessionIssued, subject: Some(session.id.to_bytes()), detail }
    }

    /// The log is exported from this position on, up to this event.
    pub fn exported(actor: &Actor, from: Position) -> Self {
        let note = format!("from position {from} up to this one");
        let rpc = "ExportEvents".to_owned();
        let draft = Self::note(EventKind::Exported, actor, note);
        Self { detail: Detail { rpc, ..draft.detail }, ..draft }
    }

    /// Something that changes neither lease nor rule.
    pub fn note(kind: EventKind, actor: &Actor, note: String) -> Self {
        Self { kind, subject: None, detail: Detail { actor: actor.to_string(), note, ..Detail::default() } }
    }

    /// The event at its place: what the store keeps, and the hash that joins the tree.
    pub fn place(
        &self,
        position: Position,
        at: Timestamp,
        salt: [u8; SALT_BYTES],
    ) -> (EventRecord, merkle::Hash) {
        let detail = self.detail.encode_to_vec();
        let leaf = Leaf {
            kind: self.kind.into(),
            position: position.number(),
            at_millis: at.as_millis(),
            subject: self.subject.map(|id| id.to_vec()).unwrap_or_default(),
            detail_digest: Digest::of_parts(&[&salt, &detail]).as_bytes().to_vec(),
        }
        .encode_to_vec();
        let hash = merkle::leaf_hash(&leaf);
        (EventRecord { leaf, salt: salt.to_vec(), detail }, hash)
    }
}

/// Whose a rule is: of the owner and the cluster that its selector names.
pub(crate) fn of_selector(rule: &Rule) -> Detail {
    let named = rule.selector.named();
    Detail {
        owners: named.owner.iter().map(ToString::to_string).collect(),
        cluster: named.cluster.as_ref().map(ToString::to_string).unwrap_or_default(),
        ..Detail::default()
    }
}

fn of_lease(lease: &Lease) -> Detail {
    let workload = &lease.workload;
    Detail {
        workload: workload.to_string(),
        service_account_uid: workload.service_account.uid.to_string(),
        pod: workload.pod.as_ref().map(|pod| format!("{}/{}", pod.name, pod.uid)).unwrap_or_default(),
        credential_id: workload.credential_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        owners: lease.owners.iter().map(ToString::to_string).collect(),
        target: lease.target.to_string(),
        grant: lease.grant.to_string(),
        scope: lease.scope.iter().map(ToString::to_string).collect(),
        expires_at_secs: lease.expires_at.as_secs(),
        key_id: lease.key_id.to_string(),
        credential_digest: lease.digests.first().map(|digest| digest.as_bytes().to_vec()).unwrap_or_default(),
        renews: lease.renews.map(|earlier| earlier.to_string()).unwrap_or_default(),
        ..Detail::default()
    }
}

impl EventRecord {
    /// How many bytes it takes.
    pub fn size(&self) -> usize {
        self.encoded_len()
    }

    /// Reads it back, and checks the detail against the leaf.
    ///
    /// # Errors
    /// When the leaf does not decode, or the detail is not the one it binds.
    pub fn read(&self) -> Result<Event, BadEvent> {
        let leaf = Leaf::decode(self.leaf.as_slice()).map_err(|_| BadEvent::Leaf)?;
        let kind = EventKind::try_from(leaf.kind).map_err(|_| BadEvent::Leaf)?;
        let subject = match leaf.subject.len() {
            0 => None,
            _ => Some(leaf.subject.as_slice().try_into().map_err(|_| BadEvent::Leaf)?),
        };
        let forgotten = self.salt.is_empty() && self.detail.is_empty();
        let detail = if forgotten {
            None
        } else if Digest::of_parts(&[&self.salt, &self.detail]).as_bytes().as_slice() == leaf.detail_digest {
            Some(Detail::decode(self.detail.as_slice()).map_err(|_| BadEvent::Detail)?)
        } else {
            return Err(BadEvent::Detail);
        };
        Ok(Event {
            position: Position::new(leaf.position),
            at: Timestamp::from_millis(leaf.at_millis),
            kind,
            subject,
            detail,
            leaf_hash: merkle::leaf_hash(&self.leaf),
        })
    }
}

impl Event {
    /// The lease it is about, if it is about one.
    pub fn lease(&self) -> Option<LeaseId> {
        let of_lease = matches!(self.kind, EventKind::Reissued | EventKind::Released);
        self.subject.filter(|_| of_lease).map(LeaseId::from_bytes).or_else(|| self.issued())
    }

    /// The lease that was issued, if one was: a first one, or one that renews another.
    pub fn issued(&self) -> Option<LeaseId> {
        let of_lease = matches!(self.kind, EventKind::Issued | EventKind::Renewed);
        self.subject.filter(|_| of_lease).map(LeaseId::from_bytes)
    }

    /// The rule that was written, if one was.
    pub fn rule(&self) -> Option<RuleId> {
        let of_rule = matches!(self.kind, EventKind::Revoked | EventKind::KeyRevoked);
        self.subject.filter(|_| of_rule).map(RuleId::from_bytes)
    }

    /// The rule of which a step of the teardown is complete, if it is about one.
    pub fn torn_down(&self) -> Option<RuleId> {
        self.subject.filter(|_| self.kind == EventKind::TornDown).map(RuleId::from_bytes)
    }

    /// The rule whose hold was lifted, if one was.
    pub fn lifted(&self) -> Option<RuleId> {
        self.subject.filter(|_| self.kind == EventKind::Lifted).map(RuleId::from_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed() -> EventRecord {
        let at = Timestamp::from_secs(1_795_435_200);
        Draft::issued(&Lease::test(7)).place(Position::new(3), at, [9; SALT_BYTES]).0
    }

    #[test]
    fn reads_back_what_was_written() {
        let event = placed().read().unwrap();
        assert_eq!(event.position, Position::new(3));
        assert_eq!(event.lease(), Some(LeaseId::from_u128(7)));
        assert_eq!(event.detail.unwrap().workload, "east:payments:api");
    }

    #[test]
    fn a_renewal_names_the_earlier_lease_in_its_detail() {
        let earlier = LeaseId::from_u128(5);
        let draft = Draft::issued(&Lease::test(7).renewing(earlier));
        let event = draft.place(Position::new(3), Timestamp::default(), [9; SALT_BYTES]).0.read().unwrap();
        assert_eq!((event.kind, event.issued()), (EventKind::Renewed, Some(LeaseId::from_u128(7))));
        assert_eq!(event.detail.unwrap().renews, earlier.to_string());
    }

    #[test]
    fn a_changed_detail_is_noticed_and_a_forgotten_one_is_not_missed() {
        let record = placed();
        let mut changed = record.clone();
        changed.detail.push(0);
        assert_eq!(changed.read(), Err(BadEvent::Detail));
        let forgotten = EventRecord { salt: Vec::new(), detail: Vec::new(), ..record.clone() };
        let event = forgotten.read().unwrap();
        assert_eq!(event.detail, None);
        assert_eq!(event.leaf_hash, record.read().unwrap().leaf_hash);
    }

    #[test]
    fn a_leaf_holds_no_tenant_detail() {
        let leaf = placed().leaf;
        for word in ["payments", "orders", "api", "east"] {
            assert!(!leaf.windows(word.len()).any(|w| w == word.as_bytes()), "{word}");
        }
    }
}
