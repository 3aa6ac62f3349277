//! The use cases, a file each: [`issue`], [`renew`], [`release`], [`watch`], [`who_am_i`], [`introspect`],
//! [`watch_revocations`], [`teardown`], [`spell_out`], [`status_lists`], [`revoke`], [`lift`], [`revocations`], [`list`],
//! [`explain`], [`unowned`], [`reconcile`], [`keys`], [`sessions`], [`checkpoint`], [`backup`], [`events`],
//! [`watch_events`], [`export`]. They see only core's
//! ports and the policy; what stands behind the ports is wired by the server.
//!
//! Start reading at [`issue`]: it is the path of a request in design.md, step by step.

mod attest;
mod authenticate;
pub mod backup;
pub mod checkpoint;
pub mod counts;
mod credential;
pub mod denials;
mod described;
mod error;
pub mod events;
pub mod explain;
pub mod export;
pub mod introspect;
pub mod issue;
pub mod kept;
pub mod keys;
pub mod lift;
pub mod list;
mod operator;
mod policies;
mod reads;
pub mod reconcile;
pub mod release;
pub mod renew;
pub mod revocations;
pub mod revoke;
pub mod selector;
pub mod sessions;
pub mod spell_out;
pub mod status_lists;
pub mod teardown;
pub mod unowned;
mod unwritten;
pub mod watch;
pub mod watch_events;
pub mod watch_revocations;
pub mod who_am_i;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::checkpoint::Checkpoints;
use dayfly_core::clock::ClockGuard;
use dayfly_core::ids::{Audience, ClusterName, LeaseId};
use dayfly_core::keeper::KeyKeeper;
use dayfly_core::lease::{Lease, LeaseState};
use dayfly_core::live::LiveCaps;
use dayfly_core::ports::{Clock, Cluster, Engine, LeaseStore, Rng};
use dayfly_core::rule::Rule;
use dayfly_core::rules::RuleSet;
use dayfly_core::secret::Secret;
use dayfly_core::session::SessionTokens;
use dayfly_core::spiffe::ServedDomain;
use dayfly_core::time::Timestamp;

pub use attest::{Attested, Purpose};
pub use authenticate::{Bearer, Caller, Verified};
pub use backup::Adopted;
pub use counts::{LiveCount, LiveCounts};
pub use denials::DenialCount;
pub use described::Described;
pub use error::{Error, Reason};
pub use events::{EventFilter, EventPage, ListEvents};
pub use explain::{About, Explained};
pub use export::Export;
pub use introspect::Introspection;
pub use issue::{IssueRequest, Issued};
pub use kept::DenialId;
pub use lift::{LiftRequest, LiftedHold};
pub use list::{LeaseViews, ListLeases, OwnerView};
pub use operator::By;
pub use policies::{Policies, PolicyUnavailable, UnknownCluster};
pub use reconcile::{Reconciled, Scope};
pub use renew::{RenewRequest, Renewed};
pub use revocations::{ListRevocations, Revocation, RevocationPage};
pub use revoke::{RevokeRequest, Revoked};
pub use selector::{Named, Which};
pub use sessions::{OpenedSession, SessionRequest};
pub use spell_out::SpelledOut;
pub use status_lists::StatusList;
pub use unowned::UnownedNamespace;
pub use watch::{Watch, WatchNews};
pub use watch_events::{EventNews, EventResume, EventWatch};
pub use watch_revocations::{CoveredNews, Resume, RevocationNews, RevocationWatch};
pub use who_am_i::{Available, WhoAmI};

/// Reads the unverified `iss` of a token, only to choose the cluster that is asked to review it.
pub type IssuerOf = Arc<dyn Fn(&Secret) -> Option<String> + Send + Sync>;

/// Reads the unverified `jti` of a credential, only to choose the lease whose digest it is compared with.
pub type LeaseIdOf = Arc<dyn Fn(&Secret) -> Option<LeaseId> + Send + Sync>;

/// Dayfly's own audiences, one for each kind of caller. They are never interchangeable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audiences {
    /// Of workloads: `dayfly`.
    pub workload: Audience,
    /// Of operators: `dayfly-operator`.
    pub operator: Audience,
    /// Of verifiers: `dayfly-verifier`.
    pub verifier: Audience,
}

/// What a broker is made of.
pub struct Parts {
    /// The durable record.
    pub store: Arc<dyn LeaseStore>,
    /// The clusters it serves. Those of one issuer have no token key in common: their reviewers see to that.
    pub clusters: Vec<Cluster>,
    /// The cluster whose operators may act on what every cluster holds. With one cluster, it is that one.
    pub home_cluster: Option<ClusterName>,
    /// The policy of each cluster.
    pub policies: Arc<Policies>,
    /// Makes the credentials.
    pub engine: Arc<dyn Engine>,
    /// Keeps the signing keys.
    pub keys: Arc<dyn KeyKeeper>,
    /// Signs operators' sessions and reads them back, where they are served.
    pub sessions: Option<Arc<dyn SessionTokens>>,
    /// Signs and publishes the audit log's checkpoints.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// How many leases the teardown goes through in a second, at most.
    pub teardown_rate: u32,
    /// How many leases may be live at once where policy does not say.
    pub live_caps: LiveCaps,
    /// Dayfly's issuer identifier: the `iss` of its tokens.
    pub issuer: String,
    /// The trust domains that it issues SVIDs of.
    pub trust_domains: Vec<ServedDomain>,
    /// Its own audiences.
    pub audiences: Audiences,
    /// Reads a token's issuer.
    pub issuer_of: IssuerOf,
    /// Reads a credential's id.
    pub lease_id_of: LeaseIdOf,
}

/// The parts do not fit each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadParts {
    /// Two clusters of one name.
    #[error("two clusters are named {0}: give each its own name")]
    ClusterTwice(ClusterName),
    /// The home cluster is none of them.
    #[error("the home cluster {0} is not one of the clusters")]
    UnknownHome(ClusterName),
    /// Two of Dayfly's audiences are the same.
    #[error("Dayfly's audiences for workloads, operators and verifiers must differ")]
    AudienceTwice,
    /// Sessions are of the home cluster, and there are several clusters and no home.
    #[error("sessions are of operators of the home cluster: name it (home_cluster)")]
    SessionsWithoutHome,
    /// A cluster's tokens have Dayfly's own issuer.
    #[error("cluster {0} has Dayfly's own issuer: their tokens could not be told apart")]
    OwnIssuer(ClusterName),
    /// There is no policy slot for a cluster.
    #[error("cluster {0} has no place in the policies")]
    NoPolicy(ClusterName),
}

/// The use cases over one set of ports.
pub struct Broker {
    store: Arc<dyn LeaseStore>,
    clusters: BTreeMap<ClusterName, Cluster>,
    by_issuer: HashMap<String, Vec<ClusterName>>,
    home: Option<ClusterName>,
    policies: Arc<Policies>,
    engine: Arc<dyn Engine>,
    keys: Arc<dyn KeyKeeper>,
    sessions: Option<Arc<dyn SessionTokens>>,
    checkpoints: Arc<dyn Checkpoints>,
    clock: Arc<dyn Clock>,
    guard: ClockGuard,
    rng: Arc<dyn Rng>,
    teardown_rate: u32,
    teardown: teardown::Queue,
    live_caps: LiveCaps,
    issuer: String,
    trust_domains: Vec<ServedDomain>,
    audiences: Audiences,
    issuer_of: IssuerOf,
    lease_id_of: LeaseIdOf,
    denials: denials::Denials,
    reads: reads::Reads,
    kept: kept::KeptDenials,
    unowned: denials::UnownedDenials,
    spelling: spell_out::Spelling,
    unwritten: unwritten::Unwritten,
    status_lists: status_lists::StatusLists,
    counts: counts::Counts,
}

/// A lease with its state now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    /// The lease.
    pub lease: Arc<Lease>,
    /// Its state under the rules and the clock.
    pub state: LeaseState,
    /// The rule that revoked it, where it is revoked.
    pub rule: Option<Arc<Rule>>,
}

impl LeaseView {
    /// A lease under these rules, at this time.
    fn under(rules: &RuleSet, lease: Arc<Lease>, now: Timestamp) -> Self {
        let state = lease.state(rules, now);
        let rule = match state {
            LeaseState::Revoked { by, .. } => rules.get(by).cloned(),
            LeaseState::Active | LeaseState::Released { .. } | LeaseState::Expired { .. } => None,
        };
        Self { lease, state, rule }
    }
}

impl Broker {
    /// A broker of these parts.
    ///
    /// # Errors
    /// When they do not fit each other.
    pub fn new(parts: Parts) -> Result<Self, BadParts> {
        let Audiences { workload, operator, verifier } = &parts.audiences;
        if workload == operator || operator == verifier || verifier == workload {
            return Err(BadParts::AudienceTwice);
        }
        let (mut clusters, mut by_issuer) = (BTreeMap::new(), HashMap::<_, Vec<_>>::new());
        for cluster in parts.clusters {
            let name = cluster.name.clone();
            if !parts.policies.knows(&name) {
                return Err(BadParts::NoPolicy(name));
            }
            if cluster.issuer == parts.issuer {
                return Err(BadParts::OwnIssuer(name));
            }
            by_issuer.entry(cluster.issuer.clone()).or_default().push(name.clone());
            if clusters.insert(name.clone(), cluster).is_some() {
                return Err(BadParts::ClusterTwice(name));
            }
        }
        if let Some(home) = parts.home_cluster.as_ref().filter(|home| !clusters.contains_key(*home)) {
            return Err(BadParts::UnknownHome(home.clone()));
        }
        if parts.sessions.is_some() && clusters.len() > 1 && parts.home_cluster.is_none() {
            return Err(BadParts::SessionsWithoutHome);
        }
        let status_lists = status_lists::StatusLists::new(parts.store.mark().position);
        Ok(Self {
            store: parts.store,
            clusters,
            by_issuer,
            home: parts.home_cluster,
            policies: parts.policies,
            engine: parts.engine,
            keys: parts.keys,
            sessions: parts.sessions,
            checkpoints: parts.checkpoints,
            guard: ClockGuard::new(parts.clock.as_ref(), Duration::MAX),
            clock: parts.clock,
            rng: parts.rng,
            teardown_rate: parts.teardown_rate,
            teardown: teardown::Queue::default(),
            live_caps: parts.live_caps,
            issuer: parts.issuer,
            trust_domains: parts.trust_domains,
            audiences: parts.audiences,
            issuer_of: parts.issuer_of,
            lease_id_of: parts.lease_id_of,
            denials: denials::Denials::default(),
            reads: reads::Reads::default(),
            kept: kept::KeptDenials::default(),
            unowned: denials::UnownedDenials::default(),
            spelling: spell_out::Spelling::default(),
            unwritten: unwritten::Unwritten::default(),
            status_lists,
            counts: counts::Counts::default(),
        })
    }

    /// The time that decides what has expired: no clock that goes back brings anything back to life.
    fn now(&self) -> Timestamp {
        self.guard.latest(self.clock.as_ref())
    }

    /// A lease as it is now.
    fn view(&self, lease: Arc<Lease>) -> LeaseView {
        LeaseView::under(&self.store.rules(), lease, self.now())
    }
}
