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
use super::rates::Rate;

/// How many places there are.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// For workloads' and verifiers' calls.
    pub(crate) callers: Room,
    /// For operators' calls: kept apart, so that they are never shed for the others.
    pub(crate) operators: Room,
    /// For the operators' calls that end something, when they find none among those: what is read never crowds them out.
    pub(crate) ending: Room,
    /// Tokens of workloads and verifiers that may be under verification, all together.
    pub(crate) unverified: usize,
    /// Tokens of operators that may be, all together.
    pub(crate) unverified_operators: usize,
    /// For calls of anyone that have one answer: keys.
    pub(crate) open: usize,
    /// For calls of anyone that go on: health watches, reflection.
    pub(crate) open_streams: usize,
    /// For streams of workloads.
    pub(crate) streams: usize,
    /// For streams of one workload: of one pod, by its uid.
    pub(crate) streams_of_one_workload: usize,
    /// For streams of verifiers.
    pub(crate) verifier_streams: usize,
    /// For streams of one verifier: of one pod, by its uid.
    pub(crate) streams_of_one_verifier: usize,
    /// For streams of operators.
    pub(crate) operator_streams: usize,
    /// For streams of one operator: of one user, or of one pod, by its uid.
    pub(crate) streams_of_one_operator: usize,
    /// How often one workload may call.
    pub(crate) rate: Rate,
    /// How often one operator may: so often for what ends something, and so often for the rest.
    pub(crate) operator_rate: Rate,
}

/// Places for one kind of calls, and the share that each may have of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// All of them.
    pub(crate) places: usize,
    /// For one cluster's service accounts. People are not counted in it: they find what these leave.
    pub(crate) of_one_cluster: usize,
    /// For one namespace's service accounts.
    pub(crate) of_one_namespace: usize,
    /// For one user name: a service account with all its pods, or a person.
    pub(crate) of_one_user: usize,
    /// For one pod, by its uid.
    pub(crate) of_one_pod: usize,
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
    Pod,
    Streams,
    OpenStreams,
}

/// The places, of which some are taken.
pub(crate) struct Places {
    callers: Shared,
    operators: Shared,
    ending: Shared,
    /// Workloads' and verifiers' calls whose tokens are being verified. Each waits for no more than a review.
    callers_arriving: Arc<Semaphore>,
    /// The tokens that they are being verified by.
    unverified: Arc<Counts<Digest>>,
    /// And those of operators.
    unverified_operators: Arc<Counts<Digest>>,
    open: Arc<Semaphore>,
    open_streams: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    verifier_streams: Arc<Semaphore>,
    operator_streams: Arc<Semaphore>,
    streams_of: Arc<Counts<Share>>,
    limits: Limits,
}

/// A room's places, of which some are taken.
struct Shared {
    room: Room,
    places: Arc<Semaphore>,
    shares: Arc<Counts<Share>>,
}

/// What calls under way are counted by.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Share {
    Cluster(ClusterName),
    Namespace(ClusterName, Namespace),
    User(ClusterName, String),
    Pod(ClusterName, Uid),
    Streams(Workload),
    VerifierStreams(Workload),
    OperatorStreams(Workload),
}

/// What a call that is being verified holds.
pub(super) struct Arrival {
    _place: Option<OwnedSemaphorePermit>,
    _token: Counted<Digest>,
}

/// What a verified call counts in: its pod, user, namespace and cluster.
pub(super) struct Shares {
    _counted: Vec<Counted<Share>>,
}

impl Shared {
    fn new(room: Room) -> Self {
        Self { room, places: Arc::new(Semaphore::new(room.places)), shares: Arc::default() }
    }

    /// A place for a call of this caller: the one place where shares are decided.
    fn take(&self, who: &Who) -> Result<Held, Full> {
        let Who { cluster, user, namespace, pod } = who;
        let of_user = Share::User(cluster.clone(), user.clone());
        let mut counted = vec![self.count(of_user, self.room.of_one_user, Full::Caller)?];
        if let Some(pod) = pod {
            counted.push(self.count(Share::Pod(cluster.clone(), *pod), self.room.of_one_pod, Full::Pod)?);
        }
        if let Some(namespace) = namespace {
            let of_namespace = Share::Namespace(cluster.clone(), namespace.clone());
            counted.push(self.count(of_namespace, self.room.of_one_namespace, Full::Namespace)?);
            let of_cluster = Share::Cluster(cluster.clone());
            counted.push(self.count(of_cluster, self.room.of_one_cluster, Full::Cluster)?);
        }
        Ok(Held::place(place(&self.places)?).counted(Shares { _counted: counted }))
    }

    fn count(&self, share: Share, most: usize, full: Full) -> Result<Counted<Share>, Full> {
        Counted::one_more(&self.shares, share, |_, count| if count < most { Ok(()) } else { Err(full) })
    }
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        let places = |number: usize| Arc::new(Semaphore::new(number));
        Self {
            callers: Shared::new(limits.callers),
            operators: Shared::new(limits.operators),
            ending: Shared::new(limits.ending),
            callers_arriving: places(limits.callers.places),
            unverified: Arc::default(),
            unverified_operators: Arc::default(),
            open: places(limits.open),
            open_streams: places(limits.open_streams),
            streams: places(limits.streams),
            verifier_streams: places(limits.verifier_streams),
            operator_streams: places(limits.operator_streams),
            streams_of: Arc::default(),
            limits: limits.clone(),
        }
    }

    /// A place for a call of anyone that has one answer.
    pub(super) fn open(&self) -> Result<Held, Full> {
        Ok(Held::place(place(&self.open)?))
    }

    /// A place for one that goes on.
    pub(super) fn open_stream(&self) -> Result<Held, Full> {
        Ok(Held::place(place(&self.open_streams).map_err(|_| Full::OpenStreams)?))
    }

    /// A place to be verified in. All calls that bring one token wait for one review, and take one part of what there is
    /// for tokens that nothing is known of. Operators' have a part of their own.
    pub(super) fn arrive(&self, kind: Kind, token: Digest) -> Result<Arrival, Full> {
        let operator = kind == Kind::Operator;
        let (tokens, most) = if operator {
            (&self.unverified_operators, self.limits.unverified_operators)
        } else {
            (&self.unverified, self.limits.unverified)
        };
        let token = Counted::one_more(tokens, token, |tokens, count| match count {
            0 if tokens >= most => Err(Full::Unverified),
            _ if operator && count >= self.limits.operators.of_one_user => Err(Full::Caller),
            _ => Ok(()),
        })?;
        let place = if operator { None } else { Some(place(&self.callers_arriving)?) };
        Ok(Arrival { _place: place, _token: token })
    }

    /// A place for a stream of this verified caller.
    pub(super) fn stream(&self, kind: Kind, who: &Who) -> Result<Held, Full> {
        let (share, most, places) = match kind {
            Kind::Verifier => {
                let most = self.limits.streams_of_one_verifier;
                (Share::VerifierStreams(who.workload()), most, &self.verifier_streams)
            }
            Kind::Operator => {
                let most = self.limits.streams_of_one_operator;
                (Share::OperatorStreams(who.workload()), most, &self.operator_streams)
            }
            Kind::Workload => {
                (Share::Streams(who.workload()), self.limits.streams_of_one_workload, &self.streams)
            }
        };
        let count = Counted::one_more(&self.streams_of, share, |_, count| {
            if count < most { Ok(()) } else { Err(Full::Streams) }
        })?;
        let place = place(places).map_err(|_| Full::Streams)?;
        Ok(Held::place(place).counted(Shares { _counted: vec![count] }))
    }

    /// A place for a call of this verified caller.
    pub(super) fn take(&self, kind: Kind, who: &Who) -> Result<Held, Full> {
        if kind == Kind::Operator { self.operators.take(who) } else { self.callers.take(who) }
    }

    /// A place for a call by which this verified operator ends something.
    pub(super) fn take_to_end(&self, who: &Who) -> Result<Held, Full> {
        self.operators.take(who).or_else(|full| self.ending.take(who).map_err(|_| full))
    }

    #[cfg(test)]
    pub(super) fn nobody_counts(&self) -> bool {
        let shares = [&self.callers, &self.operators, &self.ending].map(|room| &room.shares);
        let tokens = [&self.unverified, &self.unverified_operators];
        tokens.iter().all(|counts| counts.lock().unwrap().is_empty())
            && shares.iter().chain([&&self.streams_of]).all(|counts| counts.lock().unwrap().is_empty())
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
