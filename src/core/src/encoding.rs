//! Records as every engine of the store keeps them: protobuf with fixed field numbers, so that an older record is
//! still read when fields are added.

mod lease;
mod teardown;

use prost::Message;

pub use self::lease::{Own, decode_owners, encode_basis};
pub use self::teardown::{decode_spelled, decode_teardown, encode_spelled, encode_teardown};
use crate::change::SealedKey;
use crate::digest::Digest;
use crate::ids::{LeaseId, Position, RuleId, Uid};
use crate::lease::Idempotency;
use crate::rule::{Actor, After, Authority, Fields, Lifted, Rule, Selector};
use crate::signing::KeyStage;
use crate::time::Timestamp;

/// A stored record does not read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored {record} does not read back: {why}")]
pub struct BadRecord {
    record: &'static str,
    why: String,
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
    /// As in the API; 0 where it is not recorded.
    #[prost(uint32, tag = "25")]
    authority: u32,
    #[prost(message, tag = "26")]
    lifted: Option<LiftedRecord>,
    #[prost(string, tag = "27")]
    image: String,
}

#[derive(Clone, PartialEq, Message)]
struct LiftedRecord {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(string, tag = "2")]
    actor_cluster: String,
    #[prost(string, tag = "3")]
    actor: String,
    #[prost(string, tag = "4")]
    actor_uid: String,
    #[prost(string, tag = "5")]
    reason: String,
    #[prost(uint64, tag = "6")]
    position: u64,
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
    /// 1 next, 2 active, 3 retiring, 4 retired, 5 revoked.
    #[prost(uint32, tag = "7")]
    stage: u32,
    #[prost(uint64, tag = "8")]
    since: u64,
    #[prost(uint32, tag = "9")]
    version: u32,
}

const STAGES: [KeyStage; 5] =
    [KeyStage::Next, KeyStage::Active, KeyStage::Retiring, KeyStage::Retired, KeyStage::Revoked];

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
        image: show(fields.image.as_ref()),
        authority: match rule.authority {
            Authority::Unrecorded => 0,
            Authority::Owners => 1,
            Authority::ClusterWide => 2,
            Authority::Socket => 3,
            Authority::Dayfly => 4,
        },
        lifted: rule.lifted.as_ref().map(|lifted| LiftedRecord {
            at: lifted.at.as_millis(),
            actor_cluster: show(lifted.by.cluster.as_ref()),
            actor: lifted.by.username.clone(),
            actor_uid: lifted.by.uid.clone(),
            reason: lifted.reason.clone(),
            position: lifted.position.number(),
        }),
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
            image: read.optional(&record.image)?,
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
        authority: match record.authority {
            0 => Authority::Unrecorded,
            1 => Authority::Owners,
            2 => Authority::ClusterWide,
            3 => Authority::Socket,
            4 => Authority::Dayfly,
            _ => return Err(read.bad(&"its authority is of a newer version")),
        },
        lifted: record.lifted.map(|lifted| read.lifted(lifted)).transpose()?,
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
        stage: (1..).zip(STAGES).find(|(_, stage)| *stage == key.stage).map_or(0, |(number, _)| number),
        since: key.since.as_millis(),
        version: key.version,
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
    let stage = (1..).zip(STAGES).find(|(number, _)| *number == record.stage);
    let (_, stage) = stage.ok_or_else(|| read.bad(&"it has no stage"))?;
    Ok(SealedKey {
        id: read.name(&record.id)?,
        purpose: record.purpose,
        generation: record.generation,
        created_at: Timestamp::from_millis(record.created_at),
        public_jwk: record.public_jwk,
        sealed: record.sealed,
        stage,
        since: Timestamp::from_millis(record.since),
        version: record.version,
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
struct Reader(&'static str);

impl Reader {
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

    fn lifted(&self, record: LiftedRecord) -> Result<Lifted, BadRecord> {
        let cluster = self.optional(&record.actor_cluster)?;
        Ok(Lifted {
            at: Timestamp::from_millis(record.at),
            by: Actor { cluster, username: record.actor, uid: record.actor_uid },
            reason: record.reason,
            position: Position::new(record.position),
        })
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
    fn a_rule_and_a_key_read_back() {
        let fields = Fields {
            cluster: "east".parse().ok(),
            owner: "payments".parse().ok(),
            pod: Some(Uid::from_u128(3)),
            lease: Some(LeaseId::from_u128(4)),
            grant: "payments/orders".parse().ok(),
            image: format!("sha256:{}", "ab".repeat(32)).parse().ok(),
            ..Fields::default()
        };
        for selector in [Selector::All, Selector::fields(fields).unwrap()] {
            let mut rule = Rule::test(4, selector, 17).holding();
            rule.by.cluster = "east".parse().ok();
            rule.idempotency = Some(Idempotency { key: Digest::of(b"k"), request: Digest::of(b"r") });
            assert_eq!(decode_rule(&encode_rule(&rule)), Ok(rule.clone()));
            rule.authority = Authority::Owners;
            rule.lifted = Some(Lifted {
                at: rule.until,
                by: rule.by.clone(),
                reason: "over".to_owned(),
                position: Position::new(9),
            });
            assert_eq!(decode_rule(&encode_rule(&rule)), Ok(rule));
        }
        let key = SealedKey {
            id: "abc".parse().unwrap(),
            purpose: "access-token".to_owned(),
            generation: 1,
            created_at: Timestamp::from_secs(1),
            public_jwk: "{}".to_owned(),
            sealed: vec![1, 2, 3],
            stage: KeyStage::Next,
            since: Timestamp::from_secs(2),
            version: 7,
        };
        for stage in STAGES {
            let key = SealedKey { stage, ..key.clone() };
            assert_eq!(decode_key(&encode_key(&key)), Ok(key));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode_rule(&bytes);
            let _ = decode_key(&bytes);
        }
    }
}
