//! The ports: what the use cases need from the outside. All are object-safe; futures are boxed. `Signer`, `Clock` and
//! `Rng` are synchronous.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::audit::EventRecord;
use crate::change::{
    Change, Draw, LeaseFilter, LeasePage, LogHead, Mark, News, Outcome, SealedKey, StoreStatus,
};
use crate::clock::ClockJumped;
use crate::digest::Digest;
use crate::ids::{
    Audience, ClusterName, KeyId, LeaseId, Namespace, NodeName, PodName, Position, RuleId,
    ServiceAccountName, Uid,
};
use crate::lease::Lease;
use crate::merkle::Hash;
use crate::provenance::{Image, Labels, ObjectRef};
use crate::rule::Rule;
use crate::rules::RuleSet;
use crate::secret::Secret;
pub use crate::signing::{KeyUse, SigningAlgorithm, TargetRef};
use crate::spiffe::TrustDomain;
use crate::teardown::{SpelledLease, Teardowns};
use crate::tiles::Tile;
use crate::time::Timestamp;
use crate::workload::Identity;

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment, which never jumps.
    fn monotonic(&self) -> Duration;
}

/// Randomness.
pub trait Rng: Send + Sync + 'static {
    /// Fills `bytes` with randomness fit for keys.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RngFailed>;
}

/// The system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no randomness")]
pub struct RngFailed;

/// The durable record of leases, rules, keys and events. Correctness has one place: [`LeaseStore::commit`].
///
/// Every engine passes the contract suite of `dayfly-store`.
pub trait LeaseStore: Send + Sync + 'static {
    /// An id for a new lease, and the position its decision is made under.
    ///
    /// # Errors
    /// [`StoreError::ClockJumped`] while the clock cannot be trusted.
    fn draw(&self) -> Result<Draw, StoreError>;

    /// All rules committed so far that count. Read it after [`LeaseStore::draw`].
    fn rules(&self) -> Arc<RuleSet>;

    /// The rule of this id, one that was folded away too, for as long as leases that it covers are kept.
    fn rule(&self, id: RuleId) -> BoxFuture<'_, Result<Option<Arc<Rule>>, StoreError>>;

    /// Commits a change. When it answers, the answer is durable. The writer alone gives positions and audit order, and
    /// checks coverage, idempotency and expected state.
    ///
    /// # Errors
    /// Nothing was handed out and nothing may be: the change may or may not be found after a restart.
    fn commit(&self, change: Change) -> BoxFuture<'_, Result<Outcome, StoreError>>;

    /// The lease of this id.
    fn lease(&self, id: LeaseId) -> BoxFuture<'_, Result<Option<Arc<Lease>>, StoreError>>;

    /// A page of the leases that pass `filter`, of ids above `after`, at most `limit` of them.
    fn leases(
        &self,
        filter: LeaseFilter,
        after: Option<LeaseId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<LeasePage, StoreError>>;

    /// Waits for a position above `after`, then says which of this caller's leases changed in between. `caller` is
    /// [`crate::workload::Workload::caller`]. What it names can be read, and every rule up to that position is among
    /// [`LeaseStore::rules`]. It may be dropped and asked again at any time.
    ///
    /// # Errors
    /// [`StoreError::Closing`] when nothing more will come.
    fn news(&self, caller: Digest, after: Position) -> BoxFuture<'_, Result<News, StoreError>>;

    /// Waits for a rule later than `after`, and gives the newest rule's position: every rule up to it is among
    /// [`LeaseStore::rules`]. Leases wake nobody. It may be dropped and asked again at any time.
    ///
    /// # Errors
    /// [`StoreError::Closing`] when nothing more will come.
    fn ruled(&self, after: Position) -> BoxFuture<'_, Result<Position, StoreError>>;

    /// Waits for a position above `after`, and gives the newest: every event up to it can be read. It may be dropped and
    /// asked again at any time.
    ///
    /// # Errors
    /// [`StoreError::Closing`] when nothing more will come.
    fn committed(&self, after: Position) -> BoxFuture<'_, Result<Position, StoreError>>;

    /// Events from a position on, at most `limit` of them, in order.
    fn events(&self, from: Position, limit: usize) -> BoxFuture<'_, Result<Vec<EventRecord>, StoreError>>;

    /// How far the teardowns of what rules cover have come, as of the last commit.
    fn teardowns(&self) -> Arc<Teardowns>;

    /// Leases that were spelled out of a rule, ascending, above `after`: the next few; none at the end.
    fn spelled(
        &self,
        rule: Position,
        after: Option<LeaseId>,
    ) -> BoxFuture<'_, Result<Vec<SpelledLease>, StoreError>>;

    /// What the audit log has of these tiles now, each in its place: 256 hashes at most, none where the tree does not reach
    /// there. It has all that [`LeaseStore::log_head`] covered before. Reads no event.
    fn log_tiles(&self, tiles: Vec<Tile>) -> BoxFuture<'_, Result<Vec<Vec<Hash>>, StoreError>>;

    /// Every signing key, oldest first.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<SealedKey>, StoreError>>;

    /// The audit log's head.
    fn log_head(&self) -> LogHead;

    /// Where the store is, for the witness.
    fn mark(&self) -> Mark;

    /// What the store is and how it does.
    fn status(&self) -> StoreStatus;
}

/// The store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no room on its disk; room for rules is kept apart.
    #[error("the store's disk is full")]
    Full,
    /// A write or sync failed: nothing is committed until the store has been reopened and verified.
    #[error("the store cannot commit: {0}")]
    Poisoned(String),
    /// A revocation is in effect that is not on disk yet.
    #[error("a revocation is in effect in memory alone: nothing is issued until it is on disk")]
    Unwritten,
    /// More is waiting than the store takes.
    #[error("the store is overloaded")]
    Busy,
    /// The clock cannot be trusted.
    #[error(transparent)]
    ClockJumped(#[from] ClockJumped),
    /// A record is larger than a store takes.
    #[error("a record of {0} bytes is too large")]
    TooLarge(usize),
    /// A record does not read back.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The store is closing.
    #[error("the store is closing")]
    Closing,
    /// The system gave no randomness.
    #[error(transparent)]
    Rng(#[from] RngFailed),
}

/// What keeps a store's [`Mark`] outside the store.
pub trait Witness: Send + Sync + 'static {
    /// The last mark written; none if there never was one.
    fn read(&self) -> BoxFuture<'_, Result<Option<Mark>, WitnessError>>;
    /// Writes the mark, durably.
    fn write(&self, mark: Mark) -> BoxFuture<'_, Result<(), WitnessError>>;
}

/// The witness cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the witness {0}")]
pub struct WitnessError(pub String);

/// Signs with Dayfly's own keys, which never leave it.
pub trait Signer: Send + Sync + 'static {
    /// The key that signs for this now.
    fn current(&self, wanted: &KeyFor) -> Result<SigningKey, SignError>;
    /// A compact JWS (RFC 7515, section 7.1) over `payload`, with header `typ`, the key's `alg` and its `kid`, as a
    /// credential for this target. A key signs for its use alone, and one that was imported, for its target alone.
    fn sign(
        &self,
        key: &KeyId,
        key_use: &KeyUse,
        target: &TargetRef,
        payload: &[u8],
    ) -> Result<Secret, SignError>;
    /// The public keys of this use, of every key that has not retired, as JSON: a JWK Set (RFC 7517, section 5), for
    /// SVIDs a SPIFFE bundle (SPIFFE Trust Domain and Bundle, section 4). None where there is no key of this use.
    fn jwks(&self, key_use: &KeyUse) -> Option<Arc<str>>;
    /// The trust domains that there are bundles of, in order.
    fn trust_domains(&self) -> Vec<TrustDomain>;
}

/// Which key is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFor {
    /// To sign what.
    pub key_use: KeyUse,
    /// How.
    pub algorithm: SigningAlgorithm,
    /// For which target.
    pub target: TargetRef,
}

/// A key that signs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its id.
    pub id: KeyId,
    /// Nothing it signs may live longer than this, where the key has an end.
    pub not_after: Option<Timestamp>,
}

/// Signing failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// There is no key for this use, or none of this id.
    #[error("there is no such signing key")]
    NoKey,
    /// The target signs with an imported key, and none was imported for it.
    #[error("no {1} key was imported for target {0}")]
    NotImported(TargetRef, SigningAlgorithm),
    /// The key did not sign.
    #[error("the signing key failed")]
    Failed,
}

/// Makes the credentials of one kind of target.
pub trait Engine: Send + Sync + 'static {
    /// Draws what the lease must say before it is minted: the signing key, and until when that signs.
    fn prepare(&self, wanted: &KeyFor) -> Result<SigningKey, MintError>;
    /// Makes the credential of this lease. It is not handed over before the lease is committed.
    fn mint<'a>(&'a self, order: &'a Order<'a>) -> BoxFuture<'a, Result<Minted, MintError>>;
}

/// What to mint.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The lease, whole but for its digest.
    pub lease: &'a Lease,
    /// Dayfly's issuer identifier: the `iss` of its tokens.
    pub issuer: &'a str,
}

/// A credential, made and not yet handed over.
pub struct Minted {
    /// The credential.
    pub credential: Secret,
    /// Its digest, which the lease records.
    pub digest: Digest,
}

/// The engine made nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// Signing failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The credential would be larger than its kind allows.
    #[error("the credential would have {0} bytes, which is too large")]
    TooLarge(usize),
}

/// The ports of one cluster.
#[derive(Clone)]
pub struct Cluster {
    /// Its name in Dayfly's configuration.
    pub name: ClusterName,
    /// The `iss` of its service-account tokens.
    pub issuer: String,
    /// Says whose token this is.
    pub reviewer: Arc<dyn Reviewer>,
    /// Knows its pods, service accounts and namespaces.
    pub directory: Arc<dyn Directory>,
    /// Says what someone may do.
    pub authorizer: Arc<dyn Authorizer>,
}

/// Has a cluster's API server review a token (TokenReview), behind a cheap local check and a cache of seconds.
pub trait Reviewer: Send + Sync + 'static {
    /// Whose token this is, if it is good for exactly this one of Dayfly's audiences and not for the API server.
    fn review<'a>(
        &'a self,
        token: &'a Secret,
        audience: &'a Audience,
    ) -> BoxFuture<'a, Result<Arc<Identity>, ReviewError>>;

    /// What a review would say without asking anyone, where it is known. One that keeps nothing knows nothing.
    fn known(&self, token: &Secret, audience: &Audience) -> Option<Result<Arc<Identity>, ReviewError>> {
        let _ = (token, audience);
        None
    }
}

/// A token was not accepted, or could not be reviewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The token is not good; the message says why and is safe to tell the caller.
    #[error("{message}")]
    Invalid {
        /// What kind of wrong.
        kind: InvalidToken,
        /// What to change, in words; without anything of the token.
        message: String,
    },
    /// The API server cannot say now.
    #[error("the cluster's API server cannot review tokens now: {why}")]
    Unavailable {
        /// Why, for the log and the caller.
        why: String,
        /// When asking again may help.
        retry_after: Duration,
    },
    /// Too many tokens like this one wait to be reviewed; soon they do not.
    #[error("too many callers are being verified: ask again after the hint")]
    Overloaded,
}

/// The `iss` of every cluster's legacy tokens: it says nothing of which cluster.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

impl ReviewError {
    /// A legacy token from a Secret, and what to use instead.
    pub fn legacy(audience: &Audience) -> Self {
        let message = format!(
            "legacy service-account tokens from Secrets are refused: use a projected volume instead \
             (projected.sources.serviceAccountToken with audience: {audience})"
        );
        Self::Invalid { kind: InvalidToken::Legacy, message }
    }
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InvalidToken {
    /// Not a signed JWT of a known shape, or too large.
    Malformed,
    /// Not from a cluster that Dayfly serves.
    UnknownIssuer,
    /// Not for this audience, or for the API server too.
    WrongAudience,
    /// Past its `exp`.
    Expired,
    /// Before its `nbf`.
    NotYetValid,
    /// The signature is not by a key of the cluster.
    BadSignature,
    /// A legacy service-account token from a Secret.
    Legacy,
    /// The API server refused it: its pod or service account is gone, or it was invalidated.
    Refused,
}

/// What a cluster has, as its informers last heard, asked for once where they have not heard yet.
pub trait Directory: Send + Sync + 'static {
    /// The pod of this name now. Where the informer still holds another than `expected` (a recreated pod keeps its
    /// name), the API server is asked once.
    fn pod<'a>(
        &'a self,
        namespace: &'a Namespace,
        name: &'a PodName,
        expected: Option<Uid>,
    ) -> BoxFuture<'a, Result<Option<PodFacts>, DirectoryError>>;
    /// The service account of this name now, `expected` likewise.
    fn service_account<'a>(
        &'a self,
        namespace: &'a Namespace,
        name: &'a ServiceAccountName,
        expected: Option<Uid>,
    ) -> BoxFuture<'a, Result<Option<ServiceAccountFacts>, DirectoryError>>;
    /// The namespace of this name now.
    fn namespace<'a>(
        &'a self,
        name: &'a Namespace,
    ) -> BoxFuture<'a, Result<Option<NamespaceFacts>, DirectoryError>>;
    /// Namespaces that there are, as last heard, in no order: at most `limit` of them.
    fn namespaces(&self, limit: usize) -> Vec<(Namespace, NamespaceFacts)>;
    /// The chain of controllers that begins with `first`, in this namespace: each as its API server tells it now, or told
    /// a moment ago. It does not fail: what cannot be read ends the chain, which is then not whole.
    fn controllers<'a>(
        &'a self,
        namespace: &'a Namespace,
        first: &'a ObjectRef,
    ) -> BoxFuture<'a, ControllerChain>;
    /// Whether the first lists have arrived: nothing is issued before.
    fn ready(&self) -> bool;
    /// Waits until something happened, since it was last asked, to objects that leases depend on; each is told once. It is
    /// news and no proof: whoever ends something for it looks it up first.
    fn affected(&self) -> BoxFuture<'_, AffectedObjects>;
}

/// What something happened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AffectedObjects {
    /// These.
    These(Vec<Affected>),
    /// More than is remembered: it may be anything.
    Many,
}

/// A pod, service account or namespace that has gone, a pod that has ended, or any of them that has other labels now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Affected {
    /// Where it is or was; of a namespace, itself.
    pub namespace: Namespace,
    /// Its uid, before.
    pub uid: Uid,
}

/// What Dayfly keeps of a pod. What its author wrote is shared, not copied, by those who look it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Its uid.
    pub uid: Uid,
    /// The service account it runs as.
    pub service_account: ServiceAccountName,
    /// The node it is on.
    pub node: Option<NodeName>,
    /// Its phase.
    pub phase: PodPhase,
    /// Until when its grace period runs, where it is being deleted (`metadata.deletionTimestamp`). The epoch, where that
    /// does not read.
    pub deleting: Option<Timestamp>,
    /// Its labels, as its author wrote them: asserted. None of them where they are more than
    /// [`crate::provenance::LABELS`], or not as Kubernetes has them.
    pub labels: Arc<Labels>,
    /// Its controller: the one entry of its `ownerReferences` with `controller: true`. Its author can write it, so
    /// nothing is to be believed of it before [`Directory::controllers`] has looked.
    pub controller: Option<Arc<ObjectRef>>,
    /// What its containers run or ran, from its status, and by its spec where that names a digest.
    pub images: Arc<[Image]>,
    /// Whether those are the images of all its containers.
    pub images_known: bool,
    /// The GitOps object that applied it, by its own labels and annotations: asserted.
    pub applied_by: Option<Arc<ObjectRef>>,
}

/// A pod's phase (`status.phase`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PodPhase {
    /// Accepted, not running yet; also where the status does not say.
    Pending,
    /// Running.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// The node does not answer.
    Unknown,
}

/// What Dayfly keeps of a service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccountFacts {
    /// Its uid.
    pub uid: Uid,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its labels, bounded as a pod's are.
    pub labels: Arc<Labels>,
}

/// What Dayfly keeps of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its uid.
    pub uid: Uid,
    /// Its labels, bounded as a pod's are.
    pub labels: Arc<Labels>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// The controllers of an object, from its own up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ControllerChain {
    /// Those that are there, under the uid by which they are referred to; at most [`crate::provenance::CONTROLLERS`].
    pub controllers: Vec<ObjectRef>,
    /// What is above the last of them.
    pub end: ChainEnd,
    /// The GitOps object that applied the last of them, by that one's labels and annotations: asserted.
    pub applied_by: Option<ObjectRef>,
}

/// What a chain of controllers ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChainEnd {
    /// Nothing: the last is the top, and where there is none, the object controls itself.
    Top,
    /// Something that is not as it is referred to (gone, of another uid, in a loop), or too much: nothing may follow from
    /// which one is last.
    Broken,
    /// It could not be read.
    #[default]
    Unknown,
}

/// The directory cannot say now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cluster's objects cannot be read now: {why}")]
pub struct DirectoryError {
    /// Why, for the log and the caller.
    pub why: String,
    /// When asking again may help.
    pub retry_after: Duration,
}

/// Asks a cluster what someone may do (SubjectAccessReview).
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `identity`, as that cluster reviewed it, may do this.
    fn allowed<'a>(
        &'a self,
        identity: &'a Identity,
        action: &'a Action,
    ) -> BoxFuture<'a, Result<bool, DirectoryError>>;
}

/// Something to be allowed, in API group `dayfly.dev`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Action {
    /// The verb: `revoke`, `list`, `get`, ...
    pub verb: &'static str,
    /// The resource: `owners`, ...
    pub resource: &'static str,
    /// The object's name; none means all of them.
    pub name: Option<String>,
}

/// A clock for tests: it stands still until told.
#[cfg(any(test, feature = "test"))]
pub struct TestClock(std::sync::Mutex<(u64, Duration)>);

#[cfg(any(test, feature = "test"))]
#[expect(clippy::unwrap_used, missing_docs, reason = "fixtures of tests")]
impl TestClock {
    pub fn at(now: Timestamp) -> Self {
        Self(std::sync::Mutex::new((now.as_millis(), Duration::from_secs(1))))
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        let mut clock = self.0.lock().unwrap();
        clock.0 += u64::try_from(by.as_millis()).unwrap();
        clock.1 += by;
    }

    /// The wall clock is set, by this many seconds.
    pub fn jump(&self, secs: i64) {
        let mut clock = self.0.lock().unwrap();
        clock.0 = clock.0.checked_add_signed(secs * 1000).unwrap();
    }
}

#[cfg(any(test, feature = "test"))]
#[expect(clippy::unwrap_used, reason = "fixtures of tests")]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.lock().unwrap().0)
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().unwrap().1
    }
}

/// Repeatable randomness for tests (`SplitMix64`).
#[cfg(any(test, feature = "test"))]
pub struct TestRng(std::sync::atomic::AtomicU64);

#[cfg(any(test, feature = "test"))]
#[expect(missing_docs, reason = "fixtures of tests")]
impl TestRng {
    pub fn new(seed: u64) -> Self {
        Self(std::sync::atomic::AtomicU64::new(seed))
    }
}

#[cfg(any(test, feature = "test"))]
impl Rng for TestRng {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RngFailed> {
        const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
        for chunk in bytes.chunks_mut(8) {
            let state = self.0.fetch_add(GAMMA, std::sync::atomic::Ordering::Relaxed).wrapping_add(GAMMA);
            let mut z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            let value = (z ^ (z >> 31)).to_le_bytes();
            chunk.iter_mut().zip(value).for_each(|(byte, random)| *byte = random);
        }
        Ok(())
    }
}
