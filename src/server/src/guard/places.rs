//! How a crowded broker divides its places.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use dayfly_broker::Caller as Kind;
use dayfly_core::digest::Digest;
use dayfly_core::ids::{ClusterName, Namespace, Uid};
use dayfly_core::workload::Identity;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::held::Held;

/// How many places there are.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// For workloads' and verifiers' calls.
    pub(crate) callers: usize,
    /// Of these, for one cluster's.
    pub(crate) of_one_cluster: usize,
    /// Of these, for one namespace's.
    pub(crate) of_one_namespace: usize,
    /// Of these, for one workload's or verifier's, by its user name.
    pub(crate) of_one_caller: usize,
    /// Tokens of workloads and verifiers that may be under verification, all together.
    pub(crate) unverified: usize,
    /// For operators' calls: kept apart, so that they are never shed for the others.
    pub(crate) operators: usize,
    /// For calls of one operator.
    pub(crate) of_one_operator: usize,
    /// For calls of anyone: keys, health, reflection.
    pub(crate) open: usize,
    /// For streams of workloads.
    pub(crate) streams: usize,
    /// For streams of one workload: of one pod, by its uid.
    pub(crate) streams_of_one_workload: usize,
    /// Calls of one workload in a second, and how many of them at once.
    pub(crate) rate: (u32, u32),
}

/// Who calls, verified: what its calls are counted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) cluster: ClusterName,
    pub(crate) user: String,
    /// Of a service account.
    pub(crate) namespace: Option<Namespace>,
    /// Of a token that is bound to one.
    pub(crate) pod: Option<Uid>,
}

impl Who {
    /// Who this identity is.
    pub(crate) fn of(identity: &Identity) -> Self {
        Self {
            cluster: identity.cluster.clone(),
            user: identity.username.clone(),
            namespace: identity.service_account().map(|account| account.namespace),
            pod: identity.pod().map(|pod| pod.uid),
        }
    }

    /// The one whose calls have a rate: the pod, and where a token is bound to none, its user.
    pub(super) fn workload(&self) -> Workload {
        let cluster = self.cluster.clone();
        match self.pod {
            Some(pod) => Workload::Pod(cluster, pod),
            None => Workload::User(cluster, self.user.clone()),
        }
    }
}

/// Whose calls have a rate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Workload {
    Pod(ClusterName, Uid),
    User(ClusterName, String),
}

/// Whose places are all taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Broker,
    Unverified,
    Cluster,
    Namespace,
    Caller,
    Streams,
}

/// The places, of which some are taken.
pub(crate) struct Places {
    callers: Arc<Semaphore>,
    operators: Arc<Semaphore>,
    /// Calls whose tokens are being verified. Each waits for no more than a review.
    callers_arriving: Arc<Semaphore>,
    operators_arriving: Arc<Semaphore>,
    /// The tokens that workloads' and verifiers' calls are being verified by.
    unverified: Arc<Counts<Digest>>,
    open: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    limits: Limits,
    shares: Arc<Counts<Share>>,
}

/// What calls under way are counted by.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Share {
    Operator(ClusterName, String),
    Caller(ClusterName, String),
    Namespace(ClusterName, Namespace),
    Cluster(ClusterName),
    Streams(Workload),
}

/// What a call that is being verified holds.
pub(super) struct Arrival {
    _place: OwnedSemaphorePermit,
    _token: Option<Counted<Digest>>,
}

/// What a verified call counts in: its caller, namespace and cluster.
pub(super) struct Shares {
    _counted: [Option<Counted<Share>>; 3],
}

impl Shares {
    fn of(counted: [Option<Counted<Share>>; 3]) -> Self {
        Self { _counted: counted }
    }
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        let places = |number: usize| Arc::new(Semaphore::new(number));
        Self {
            callers: places(limits.callers),
            operators: places(limits.operators),
            callers_arriving: places(limits.callers),
            operators_arriving: places(limits.operators),
            unverified: Arc::default(),
            open: places(limits.open),
            streams: places(limits.streams),
            limits: limits.clone(),
            shares: Arc::default(),
        }
    }

    /// A place for a call of anyone.
    pub(super) fn open(&self) -> Result<Held, Full> {
        Ok(Held::place(place(&self.open)?))
    }

    /// A place to be verified in. All calls that bring one token wait for one review, and take one part of what there is
    /// for tokens that nothing is known of.
    pub(super) fn arrive(&self, kind: Kind, token: Digest) -> Result<Arrival, Full> {
        if kind == Kind::Operator {
            return Ok(Arrival { _place: place(&self.operators_arriving)?, _token: None });
        }
        let most = self.limits.unverified;
        let token = Counted::one_more(&self.unverified, token, |tokens, count| {
            if count == 0 && tokens >= most { Err(Full::Unverified) } else { Ok(()) }
        })?;
        Ok(Arrival { _place: place(&self.callers_arriving)?, _token: Some(token) })
    }

    /// A place for a stream of this verified workload.
    pub(super) fn stream(&self, who: &Who) -> Result<Held, Full> {
        let most = self.limits.streams_of_one_workload;
        let count = Counted::one_more(&self.shares, Share::Streams(who.workload()), |_, count| {
            if count < most { Ok(()) } else { Err(Full::Streams) }
        })?;
        let place = place(&self.streams).map_err(|_| Full::Streams)?;
        Ok(Held::place(place).counted(Shares::of([Some(count), None, None])))
    }

    /// A place for a call of this verified caller.
    pub(super) fn take(&self, kind: Kind, who: Who) -> Result<Held, Full> {
        let count = |share: Share, most: usize, full: Full| {
            Counted::one_more(&self.shares, share, |_, count| if count < most { Ok(()) } else { Err(full) })
        };
        let Who { cluster, user, namespace, .. } = who;
        if kind == Kind::Operator {
            let caller = count(Share::Operator(cluster, user), self.limits.of_one_operator, Full::Caller)?;
            return Ok(Held::place(place(&self.operators)?).counted(Shares::of([Some(caller), None, None])));
        }
        let caller = count(Share::Caller(cluster.clone(), user), self.limits.of_one_caller, Full::Caller)?;
        let namespace = namespace.map(|namespace| Share::Namespace(cluster.clone(), namespace));
        let namespace =
            namespace.map(|share| count(share, self.limits.of_one_namespace, Full::Namespace)).transpose()?;
        let cluster = count(Share::Cluster(cluster), self.limits.of_one_cluster, Full::Cluster)?;
        let shares = Shares::of([Some(caller), namespace, Some(cluster)]);
        Ok(Held::place(place(&self.callers)?).counted(shares))
    }

    #[cfg(test)]
    pub(super) fn nobody_counts(&self) -> bool {
        self.unverified.lock().unwrap().is_empty() && self.shares.lock().unwrap().is_empty()
    }
}

fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Full> {
    Arc::clone(places).try_acquire_owned().map_err(|_| Full::Broker)
}

/// Calls under way, by what they are counted by; nothing of what there is none of.
type Counts<K> = Mutex<HashMap<K, usize>>;

/// One of the calls under way.
struct Counted<K: Hash + Eq> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Counted<K> {
    /// Counts one more, unless `admit` refuses; it is told of how many there are some, and how many of this one.
    fn one_more(
        counts: &Arc<Counts<K>>,
        key: K,
        admit: impl FnOnce(usize, usize) -> Result<(), Full>,
    ) -> Result<Self, Full> {
        let mut held = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(&key).copied().unwrap_or_default();
        admit(held.len(), count)?;
        held.insert(key.clone(), count + 1);
        Ok(Self { counts: Arc::clone(counts), key })
    }
}

impl<K: Hash + Eq> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&self.key);
            }
        }
    }
}
