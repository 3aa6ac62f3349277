//! Where what is: one sled tree, with a prefix for each kind of key. The number of keys is what limits the rate of
//! issue, so leases of one commit share keys: a lease has one key of its own for each owner, and a part of others.
//!
//! | key | value |
//! |---|---|
//! | `H` | [`Header`]: which store this is |
//! | `P` | [`Progress`]: where it is; rewritten with each group |
//! | `l` id | a [run](crate::runs) of leases from this id on: of each what is its own |
//! | `b` id | a [basis](crate::bases): the rest, of the lease with this id and of later ones |
//! | `o` owner 0 id | an [`Entry`]: enough of a lease to pass it by unread |
//! | `n` cluster 0 namespace 0 owner | empty: the owner of the namespace for some lease, once; stays |
//! | `r` position | the rule, as long as it counts |
//! | `f` position | the rule, folded away; pruned with the last lease that it covers |
//! | `q` position | how far the teardown of what the rule with this position covers has come; goes when that is folded |
//! | `s` position id | leases spelled out of that rule, from this id on; goes with it |
//! | `k` purpose 0 key-id | the sealed key |
//! | `e` position | [`EventGroup`]: the events from this position on |
//! | `t` level index | a full tile: 256 hashes (C2SP tlog-tiles) |
//!
//! Ids, positions and indexes are big-endian, so that their order is the keys' order.

use dayfly_core::audit::EventRecord;
use dayfly_core::digest::Digest;
use dayfly_core::ids::{ClusterName, LeaseId, Namespace, OwnerName, Position, Uid};
use dayfly_core::lease::{Idempotency, Lease};
use dayfly_core::ports::StoreError;
use dayfly_core::rule::Fields;
use dayfly_core::workload::Workload;

use crate::engine::damaged;

/// The newest format this code writes and the newest it reads.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const HEADER: &[u8] = b"H";
pub(crate) const PROGRESS: &[u8] = b"P";

/// Which store this is. Written at creation, when it is restored or an older copy is accepted, and when it is adopted.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Header {
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) instance: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub(crate) incarnation: u32,
    /// The position at which it was restored, or an older copy accepted, as long as it is not adopted; else 0.
    #[prost(uint64, tag = "4")]
    pub(crate) restored_at: u64,
}

/// Where the store is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Progress {
    /// The newest change.
    #[prost(uint64, tag = "1")]
    pub(crate) position: u64,
    /// The highest id of any lease, cut-off or rule.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) highest: Vec<u8>,
    /// The latest expiry of anything given out, milliseconds since the Unix epoch.
    #[prost(uint64, tag = "3")]
    pub(crate) latest_expiry: u64,
    /// The audit log's frontier: the roots of its perfect subtrees, largest first, 32 bytes each.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) frontier: Vec<u8>,
    /// This start's number.
    #[prost(uint64, tag = "5")]
    pub(crate) start: u64,
    /// Whether the last thing written was a clean stop.
    #[prost(bool, tag = "6")]
    pub(crate) clean: bool,
    /// How many leases there are.
    #[prost(uint64, tag = "7")]
    pub(crate) leases: u64,
    /// Leases up to this id are pruned; empty before the first pruning.
    #[prost(bytes = "vec", tag = "8")]
    pub(crate) pruned: Vec<u8>,
    /// How often it was reopened after a failed write: what makes the record a new one then.
    #[prost(uint64, tag = "9")]
    pub(crate) reopened: u64,
    /// Details of events up to this position are forgotten.
    #[prost(uint64, tag = "40")]
    pub(crate) forgotten: u64,
}

/// A run of events of one commit.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct EventGroup {
    #[prost(message, repeated, tag = "1")]
    pub(crate) events: Vec<EventRecord>,
}

pub(crate) const LEASES: u8 = b'l';
pub(crate) const BASES: u8 = b'b';
pub(crate) const OWNERS: u8 = b'o';
pub(crate) const NAMESPACES: u8 = b'n';
pub(crate) const RULES: u8 = b'r';
pub(crate) const FOLDED: u8 = b'f';
pub(crate) const TEARDOWNS: u8 = b'q';
pub(crate) const SPELLED: u8 = b's';
pub(crate) const KEYS: u8 = b'k';
pub(crate) const EVENTS: u8 = b'e';
pub(crate) const TILES: u8 = b't';

/// A run that begins with this id.
pub(crate) fn run(first: LeaseId) -> Vec<u8> {
    with_id(vec![LEASES], first)
}

/// The basis with this id.
pub(crate) fn basis(id: LeaseId) -> Vec<u8> {
    with_id(vec![BASES], id)
}

/// A lease's index keys: each of its owners, one or two. All have the same value, its [`Entry`].
pub(crate) fn indexes<'a>(
    id: LeaseId,
    namespace: &'a OwnerName,
    narrowed: Option<&'a OwnerName>,
) -> impl Iterator<Item = Vec<u8>> {
    let narrowed = narrowed.filter(|narrowed| *narrowed != namespace);
    std::iter::once(namespace).chain(narrowed).map(move |owner| with_id(owner_prefix(owner), id))
}

/// All of an owner's leases, by id.
pub(crate) fn owner_prefix(owner: &OwnerName) -> Vec<u8> {
    let owner = owner.as_str();
    let mut key = Vec::with_capacity(owner.len() + 18);
    key.push(OWNERS);
    key.extend_from_slice(owner.as_bytes());
    key.push(0);
    key
}

/// All the owners that a namespace had when something was issued in it.
pub(crate) fn namespace_prefix(cluster: &ClusterName, namespace: &Namespace) -> Vec<u8> {
    [&[NAMESPACES], cluster.as_str().as_bytes(), &[0], namespace.as_str().as_bytes(), &[0]].concat()
}

/// That this owner is one of them.
pub(crate) fn namespace_owner(lease: &Lease) -> Vec<u8> {
    let mut key = namespace_prefix(&lease.workload.cluster, &lease.workload.service_account.namespace);
    key.extend_from_slice(lease.owners.namespace.as_str().as_bytes());
    key
}

/// The owner in a key under a namespace's prefix.
pub(crate) fn owner_at_end(key: &[u8], prefix: &[u8]) -> Result<OwnerName, StoreError> {
    let name = String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default());
    name.parse().map_err(|error| damaged(key, &error))
}

/// What an owner's index says of a lease: parts of digests and uids, so that a lease of another workload, or for
/// another idempotency key, is passed by without reading it. What may be the one that is looked for has to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    namespace: [u8; 4],
    account: [u8; 4],
    pod: [u8; 4],
    /// Of the idempotency key.
    pub(crate) used: Option<u64>,
}

impl Entry {
    pub(crate) fn of(lease: &Lease) -> Self {
        let Workload { cluster, service_account, pod, .. } = &lease.workload;
        Self {
            namespace: namespace_part(cluster, &service_account.namespace),
            account: uid_part(service_account.uid),
            pod: pod.as_ref().map_or([0; 4], |pod| uid_part(pod.uid)),
            used: None,
        }
        .under(lease.idempotency.as_ref())
    }

    /// The same, of a lease of the same workload that was asked for under this key.
    pub(crate) fn under(self, idempotency: Option<&Idempotency>) -> Self {
        Self { used: idempotency.map(|used| fingerprint(&used.key)), ..self }
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        let mut value = [self.namespace, self.account, self.pod].concat();
        value.extend(self.used.into_iter().flat_map(u64::to_be_bytes));
        value
    }

    /// The entry under this key.
    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        Self::parts(value).ok_or_else(|| damaged(key, &"it is no index entry"))
    }

    fn parts(value: &[u8]) -> Option<Self> {
        let (namespace, rest) = value.split_first_chunk()?;
        let (account, rest) = rest.split_first_chunk()?;
        let (pod, rest) = rest.split_first_chunk()?;
        let used = match rest {
            [] => None,
            used => Some(u64::from_be_bytes(used.try_into().ok()?)),
        };
        Some(Self { namespace: *namespace, account: *account, pod: *pod, used })
    }
}

/// The part of an [`Entry`] that a filter's fields ask for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    namespace: Option<[u8; 4]>,
    account: Option<[u8; 4]>,
    pod: Option<[u8; 4]>,
}

impl Wanted {
    pub(crate) fn by(fields: &Fields) -> Self {
        let namespace = fields.cluster.as_ref().zip(fields.namespace.as_ref());
        Self {
            namespace: namespace.map(|(cluster, namespace)| namespace_part(cluster, namespace)),
            account: fields.service_account.map(uid_part),
            pod: fields.pod.map(uid_part),
        }
    }

    /// Whether a lease with this entry may be one of those wanted.
    pub(crate) fn may_be(&self, entry: &Entry) -> bool {
        let fits = |wanted: Option<[u8; 4]>, part| wanted.is_none_or(|wanted| wanted == part);
        fits(self.namespace, entry.namespace)
            && fits(self.account, entry.account)
            && fits(self.pod, entry.pod)
    }
}

fn namespace_part(cluster: &ClusterName, namespace: &Namespace) -> [u8; 4] {
    let digest = Digest::of_parts(&[cluster.as_str().as_bytes(), namespace.as_str().as_bytes()]);
    digest.as_bytes().first_chunk().copied().unwrap_or_default()
}

fn uid_part(uid: Uid) -> [u8; 4] {
    uid.to_bytes().last_chunk().copied().unwrap_or_default()
}

/// Eight bytes of an idempotency key, which is a digest already: enough to find what it was used for.
pub(crate) fn fingerprint(key: &Digest) -> u64 {
    key.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

pub(crate) fn rule(position: Position) -> Vec<u8> {
    with_number(vec![RULES], position.number())
}

/// The same, folded away.
pub(crate) fn folded(position: Position) -> Vec<u8> {
    with_number(vec![FOLDED], position.number())
}

/// How far the teardown of this rule has come.
pub(crate) fn teardown(rule: Position) -> Vec<u8> {
    with_number(vec![TEARDOWNS], rule.number())
}

/// All that was spelled out of this rule, by the first lease's id.
pub(crate) fn spelled_prefix(rule: Position) -> Vec<u8> {
    with_number(vec![SPELLED], rule.number())
}

/// The rule that a key of what was spelled out is of.
pub(crate) fn spelled_rule(key: &[u8]) -> Option<Position> {
    let (number, _) = key.get(1..)?.split_first_chunk::<8>()?;
    Some(Position::new(u64::from_be_bytes(*number)))
}

pub(crate) fn key(purpose: &str, id: &str) -> Vec<u8> {
    [&[KEYS], purpose.as_bytes(), &[0], id.as_bytes()].concat()
}

pub(crate) fn events(first: Position) -> Vec<u8> {
    with_number(vec![EVENTS], first.number())
}

pub(crate) fn tile(level: u8, index: u64) -> Vec<u8> {
    with_number(vec![TILES, level], index)
}

/// `prefix` with an id behind it.
pub(crate) fn with_id(mut prefix: Vec<u8>, id: LeaseId) -> Vec<u8> {
    prefix.extend_from_slice(&id.to_bytes());
    prefix
}

fn with_number(mut prefix: Vec<u8>, number: u64) -> Vec<u8> {
    prefix.extend_from_slice(&number.to_be_bytes());
    prefix
}

/// The id at the end of a key.
pub(crate) fn id_at_end(key: &[u8]) -> Option<LeaseId> {
    let (_, id) = key.split_last_chunk::<16>()?;
    Some(LeaseId::from_bytes(*id))
}

/// The number at the end of a key.
pub(crate) fn number_at_end(key: &[u8]) -> Option<u64> {
    let (_, number) = key.split_last_chunk::<8>()?;
    Some(u64::from_be_bytes(*number))
}
