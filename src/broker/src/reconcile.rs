//! Reconcile: what has lost its ground is ended, by a rule that says why; and nothing for lack of news.
//!
//! A pod that has gone or ended, a service account that has gone, an owner, Grant or Target that would not give the lease
//! any more. What an informer or a policy says is a reason to look; what is ended was looked up before, and refused in so
//! many words. A rule is written only where there are live leases.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use dayfly_core::change::{Change, LeaseFilter, Outcome, Revocation};
use dayfly_core::digest::Digest;
use dayfly_core::ids::{ClusterName, Namespace, OwnerName, Uid};
use dayfly_core::lease::{Lease, LeaseState};
use dayfly_core::limits;
use dayfly_core::ports::{Affected, AffectedObjects, Cluster};
use dayfly_core::rule::{Actor, After, Authority, Fields, Rule, Selector};
use dayfly_policy::{Denial, PolicySet, shortened};

use crate::attest::{Purpose, check_live};
use crate::described::{described, seen};
use crate::explain::asked_of;
use crate::issue::fingerprint;
use crate::{Broker, Error, IssueRequest, Reason};

/// Which leases of a cluster are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All that are live.
    All,
    /// Those of these pods, service accounts and namespaces.
    Of(Vec<Affected>),
}

/// What came of a look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// Leases that were looked at.
    pub looked_at: u64,
    /// The rules that were written.
    pub rules: Vec<Arc<Rule>>,
    /// Why it could not be said of some, the first time: they are to be looked at again.
    pub unknown: Option<Error>,
}

/// Leases that policy does not give any more and that are ended one by one, since rules by Grant and service account
/// would end what is issued to them meanwhile; beyond it those are few, and these many.
const ONE_BY_ONE: usize = 64;

/// Why a lease has lost its ground, and which others have with it.
#[derive(Debug, Clone)]
struct Lost {
    alike: Fields,
    /// Whose all of those are; none where they may be of several.
    owners: Vec<OwnerName>,
    reason: String,
}

/// What is known of workloads and decisions in one look.
#[derive(Default)]
struct Known {
    /// By the workload: whether it is known to be there.
    workloads: HashMap<Digest, bool>,
    /// By workload and decision: why it would not be given any more; none where it would, or that is not known.
    decisions: HashMap<Digest, Option<Arc<Lost>>>,
    /// What policy does not give any more: the first leases, and how many.
    not_given: Vec<(Arc<Lease>, Arc<Lost>)>,
    count: usize,
    /// Those that are alike, once.
    alike: HashMap<Fields, Arc<Lost>>,
}

impl Scope {
    /// These and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Of(mut these), Self::Of(those)) => {
                these.extend(those);
                Self::Of(these)
            }
            _ => Self::All,
        }
    }
}

impl Broker {
    /// Waits until something has happened in this cluster that leases may depend on. None for one that is not served.
    pub async fn affected(&self, cluster: &ClusterName) -> Option<Scope> {
        Some(match self.clusters.get(cluster)?.directory.affected().await {
            AffectedObjects::These(objects) => Scope::Of(objects),
            AffectedObjects::Many => Scope::All,
        })
    }

    /// Looks at live leases of a cluster, and ends what has lost its ground.
    ///
    /// # Errors
    /// When nothing can be said now, or the store does not answer. What was ended so far stays so.
    pub async fn reconcile(&self, cluster: &ClusterName, scope: &Scope) -> Result<Reconciled, Error> {
        let Some(cluster) = self.clusters.get(cluster) else { return Ok(Reconciled::default()) };
        if !cluster.directory.ready() {
            return Err(crate::attest::not_ready());
        }
        let (mut known, mut done) = (Known::default(), Reconciled::default());
        let mut by_namespace: BTreeMap<&Namespace, HashSet<Uid>> = BTreeMap::new();
        match scope {
            Scope::All => self.look(cluster, None, |_| true, &mut known, &mut done).await?,
            Scope::Of(objects) => {
                for Affected { namespace, uid } in objects {
                    by_namespace.entry(namespace).or_default().insert(*uid);
                }
            }
        }
        for (namespace, uids) in by_namespace {
            let all = cluster.directory.namespace(namespace).await?.is_none_or(|now| uids.contains(&now.uid));
            let is_one = |lease: &Lease| {
                let workload = &lease.workload;
                all || uids.contains(&workload.service_account.uid)
                    || workload.pod.as_ref().is_some_and(|pod| uids.contains(&pod.uid))
            };
            self.look(cluster, Some(namespace), is_one, &mut known, &mut done).await?;
        }
        self.end_what_is_not_given(known, &mut done).await?;
        Ok(done)
    }

    async fn look(
        &self,
        cluster: &Cluster,
        namespace: Option<&Namespace>,
        is_one: impl Fn(&Lease) -> bool + Send + Sync,
        known: &mut Known,
        done: &mut Reconciled,
    ) -> Result<(), Error> {
        let fields = Fields {
            cluster: Some(cluster.name.clone()),
            namespace: namespace.cloned(),
            ..Fields::default()
        };
        let selector = Selector::Where(Box::new(fields));
        let filter = LeaseFilter { selector: Some(selector), active_only: true, owners: None };
        let mut after = None;
        loop {
            let page = self.store.leases(filter.clone(), after, limits::PAGE).await?;
            for lease in page.leases.iter().filter(|lease| is_one(lease)) {
                self.look_at(cluster, lease, known, done).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn look_at(
        &self,
        cluster: &Cluster,
        lease: &Arc<Lease>,
        known: &mut Known,
        done: &mut Reconciled,
    ) -> Result<(), Error> {
        done.looked_at += 1;
        // A rule of this look may have ended it since the page was read.
        if lease.state(&self.store.rules(), self.now()) != LeaseState::Active {
            return Ok(());
        }
        let caller = lease.workload.caller();
        let there = match known.workloads.get(&caller) {
            Some(there) => *there,
            None => match self.lost_workload(cluster, lease).await {
                Ok(Some(lost)) => return self.end(lost.alike, lost.owners, &lost.reason, done).await,
                Ok(None) => true,
                Err(error) => {
                    done.unknown.get_or_insert(error);
                    false
                }
            },
        };
        known.workloads.insert(caller, there);
        if !there {
            return Ok(());
        }
        let decision = decision_of(lease);
        let lost = if let Some(lost) = known.decisions.get(&decision) {
            lost.clone()
        } else {
            let lost = self.lost_decision(cluster, lease).await.unwrap_or_else(|error| {
                done.unknown.get_or_insert(error);
                None
            });
            known.decisions.entry(decision).or_insert(lost.map(Arc::new)).clone()
        };
        if let Some(lost) = lost {
            known.count += 1;
            if known.not_given.len() < ONE_BY_ONE {
                known.not_given.push((Arc::clone(lease), Arc::clone(&lost)));
            }
            known.alike.entry(lost.alike.clone()).or_insert(lost);
        }
        Ok(())
    }

    /// One by one; or, where there are many, all that are alike by one rule.
    async fn end_what_is_not_given(&self, known: Known, done: &mut Reconciled) -> Result<(), Error> {
        if known.count > ONE_BY_ONE {
            for (alike, lost) in known.alike {
                self.end(alike, lost.owners.clone(), &lost.reason, done).await?;
            }
            return Ok(());
        }
        for (lease, lost) in known.not_given {
            let cluster = lost.alike.cluster.clone();
            let one = Fields { cluster, lease: Some(lease.id), ..Fields::default() };
            self.end(one, lease.owners.iter().cloned().collect(), &lost.reason, done).await?;
        }
        Ok(())
    }

    /// Why the workload is not there any more, where it is known not to be.
    async fn lost_workload(&self, cluster: &Cluster, lease: &Lease) -> Result<Option<Lost>, Error> {
        let workload = &lease.workload;
        let live = check_live(cluster, workload, Purpose::Renewal, self.now()).await;
        let Err(error) = live else { return Ok(None) };
        let Error::Denied { reason, message, .. } = &error else { return Err(error) };
        let of_cluster = Fields { cluster: Some(workload.cluster.clone()), ..Fields::default() };
        let alike = match (reason, &workload.pod) {
            (Reason::ServiceAccountGone, _) => {
                Fields { service_account: Some(workload.service_account.uid), ..of_cluster }
            }
            (Reason::PodGone | Reason::PodFinished, Some(pod)) => Fields { pod: Some(pod.uid), ..of_cluster },
            // It is going, and may finish its work.
            _ => return Ok(None),
        };
        let owners = lease.owners.iter().cloned().collect();
        Ok(Some(Lost { alike, owners, reason: message.clone() }))
    }

    /// Why policy would not give the lease any more, where that is known.
    async fn lost_decision(&self, cluster: &Cluster, lease: &Lease) -> Result<Option<Lost>, Error> {
        let policy = self.policies.current(&cluster.name, self.clock.monotonic())?;
        let attested = seen(cluster, &described(lease), Some(&lease.workload)).await?.attested;
        let life = lease.expires_at.since(lease.issued_at);
        let asked = IssueRequest { ttl: Some(life), ..asked_of(lease) };
        let now = self.now();
        let reason = match policy.decide(&self.question(&attested, &asked, now, None)) {
            Err(Denial::ControllerUnknown(_)) => {
                return Err(Error::from(Denial::ControllerUnknown(lease.grant.namespace.clone())));
            }
            // It ends before the least life.
            Err(Denial::TtlTooShort { .. }) => return Ok(None),
            Err(denial) => format!("policy does not give this any more: {denial}"),
            Ok(decision) => {
                let (then, today) = (&lease.owners, &decision.owners);
                if (&then.namespace, &then.narrowed) != (&today.namespace, &today.narrowed) {
                    "another owner answers for the workload now".to_owned()
                } else if !lease.scope.iter().all(|scope| decision.scope.contains(scope))
                    || lease.claims != decision.claims
                    || lease.audience != decision.audience
                {
                    "policy gives less than this now".to_owned()
                // A clock that was set back has made no life shorter.
                } else if now.max(lease.issued_at).plus(decision.ttl) < lease.expires_at {
                    format!("policy gives {} s at most now", decision.ttl.as_secs())
                } else {
                    return Ok(None);
                }
            }
        };
        let alike = decided_alike(&policy, lease);
        // A Target has leases of many; a Grant is of one namespace.
        let owners = if alike.target.is_some() { Vec::new() } else { lease.owners.iter().cloned().collect() };
        Ok(Some(Lost { alike, owners, reason }))
    }

    async fn end(
        &self,
        which: Fields,
        owners: Vec<OwnerName>,
        reason: &str,
        done: &mut Reconciled,
    ) -> Result<(), Error> {
        let reason: String = reason.chars().filter(|letter| !letter.is_control()).collect();
        let reason = shortened(&reason, limits::REASON_BYTES);
        let selector = Selector::Where(Box::new(which));
        let revocation = Revocation {
            selector,
            after: After::Reissue,
            by: Actor::dayfly(),
            authority: Authority::Dayfly,
            reason,
            idempotency: None,
            owners,
        };
        match self.store.commit(Change::Revoke(Box::new(revocation))).await? {
            Outcome::Committed(receipt) => {
                done.rules.extend(receipt.rule);
                Ok(())
            }
            other => Err(Error::internal(format!("the store answered a revocation with {other:?}"))),
        }
    }
}

/// The workload and the decision that a lease is of, so that each is made again once.
fn decision_of(lease: &Lease) -> Digest {
    let mut parts = vec![
        lease.workload.caller().as_bytes().to_vec(),
        lease.grant.to_string().into_bytes(),
        lease.target.as_str().as_bytes().to_vec(),
        lease.audience.as_str().as_bytes().to_vec(),
        // By the minute: what was given for longer may be more than is given now.
        (lease.expires_at.as_secs() / 60).to_be_bytes().to_vec(),
    ];
    parts.extend(lease.scope.iter().map(|scope| scope.as_str().as_bytes().to_vec()));
    fingerprint(&parts)
}

/// Leases that were decided alike: all of the Target or of the Grant where that is gone, else the service account's by
/// the Grant.
fn decided_alike(policy: &PolicySet, lease: &Lease) -> Fields {
    let of_cluster = Fields { cluster: Some(lease.workload.cluster.clone()), ..Fields::default() };
    if policy.target(&lease.target).is_none() {
        return Fields { target: Some(lease.target.clone()), ..of_cluster };
    }
    let of_grant = Fields { grant: Some(lease.grant.clone()), ..of_cluster };
    if policy.grant(&lease.grant).is_none() {
        return of_grant;
    }
    Fields { service_account: Some(lease.workload.service_account.uid), ..of_grant }
}
