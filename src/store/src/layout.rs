//! Where what is: one sled tree, with a prefix for each kind of key. The number of keys is what limits the rate of
//! issue, so a lease has four at most: its record, one or two owners, its workload.
//!
//! | key | value |
//! |---|---|
//! | `H` | [`Header`]: which store this is |
//! | `P` | [`Progress`]: where it is; rewritten with each group |
//! | `l` id | the lease's record |
//! | `o` owner 0 id | empty |
//! | `w` cluster 0 namespace 0 service-account-uid pod-uid id | the idempotency key's [`fingerprint`], or empty; a pod uid of zeros where there is no pod |
//! | `r` position | the rule |
//! | `k` purpose 0 key-id | the sealed key |
//! | `e` position | [`EventGroup`]: the events from this position on |
//! | `t` level index | a full tile: 256 hashes (C2SP tlog-tiles) |
//!
//! Ids, positions and indexes are big-endian, so that their order is the keys' order.

use dayfly_core::audit::EventRecord;
use dayfly_core::digest::Digest;
use dayfly_core::ids::{LeaseId, Position};
use dayfly_core::lease::Lease;
use dayfly_core::workload::Workload;

/// The newest format this code writes and the newest it reads.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const HEADER: &[u8] = b"H";
pub(crate) const PROGRESS: &[u8] = b"P";

/// Which store this is. Written at creation and when an older copy is accepted.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Header {
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) instance: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub(crate) incarnation: u32,
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
}

/// A run of events of one commit.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct EventGroup {
    #[prost(message, repeated, tag = "1")]
    pub(crate) events: Vec<EventRecord>,
}

pub(crate) const LEASES: u8 = b'l';
pub(crate) const OWNERS: u8 = b'o';
pub(crate) const WORKLOADS: u8 = b'w';
pub(crate) const RULES: u8 = b'r';
pub(crate) const KEYS: u8 = b'k';
pub(crate) const EVENTS: u8 = b'e';
pub(crate) const TILES: u8 = b't';

pub(crate) fn lease(id: LeaseId) -> Vec<u8> {
    with_id(vec![LEASES], id)
}

/// A lease's index keys, its owners' and its workload's, with their values.
pub(crate) fn indexes(lease: &Lease) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let narrowed = lease.owners.narrowed.as_ref().filter(|narrowed| **narrowed != lease.owners.namespace);
    let used =
        lease.idempotency.map(|used| fingerprint(&used.key).to_be_bytes().to_vec()).unwrap_or_default();
    std::iter::once(&lease.owners.namespace)
        .chain(narrowed)
        .map(|owner| (with_id(owner_prefix(owner.as_str()), lease.id), Vec::new()))
        .chain(std::iter::once((with_id(workload_prefix(&lease.workload), lease.id), used)))
}

/// Eight bytes of an idempotency key, which is a digest already: enough to see that it is another one.
pub(crate) fn fingerprint(key: &Digest) -> u64 {
    key.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// All of an owner's leases, by id.
pub(crate) fn owner_prefix(owner: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(owner.len() + 18);
    key.push(OWNERS);
    key.extend_from_slice(owner.as_bytes());
    key.push(0);
    key
}

/// All of one workload's leases, by id.
pub(crate) fn workload_prefix(workload: &Workload) -> Vec<u8> {
    let account = &workload.service_account;
    let mut key = namespace_prefix(workload.cluster.as_str(), account.namespace.as_str());
    key.extend_from_slice(&account.uid.to_bytes());
    key.extend_from_slice(&workload.pod.as_ref().map_or([0; 16], |pod| pod.uid.to_bytes()));
    key
}

/// All of a namespace's leases, by service account, pod and id.
pub(crate) fn namespace_prefix(cluster: &str, namespace: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(cluster.len() + namespace.len() + 51);
    key.push(WORKLOADS);
    key.extend_from_slice(cluster.as_bytes());
    key.push(0);
    key.extend_from_slice(namespace.as_bytes());
    key.push(0);
    key
}

pub(crate) fn rule(position: Position) -> Vec<u8> {
    with_number(vec![RULES], position.number())
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
