//! WatchMyLeases: a workload hears of its own leases as they change.
//!
//! It is told states, not steps: whoever reads slowly gets the newest, and whoever calls again begins with what is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::change::LeaseFilter;
use dayfly_core::digest::Digest;
use dayfly_core::ids::{ClusterName, LeaseId, Position, RuleId};
use dayfly_core::lease::{Lease, LeaseState};
use dayfly_core::limits::{HEARTBEAT, PAGE, STREAM_REVIEW, WATCHED_LEASES};
use dayfly_core::rule::{Fields, Selector};
use dayfly_core::rules::RuleSet;
use dayfly_core::secret::Secret;
use dayfly_core::time::Timestamp;
use dayfly_core::workload::Workload;
use tokio::time::{Instant, sleep, timeout};

use crate::attest::{Purpose, check_live, workload_of};
use crate::authenticate::{Bearer, Caller};
use crate::{Broker, Error, LeaseView};

/// How long a watch rests after the store has called it: on a busy broker most calls are about others' leases.
const REST: Duration = Duration::from_millis(50);

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchNews {
    /// The store's position that this is as of: it may know of more, not of less.
    pub position: Position,
    /// Whether `leases` are all that are good now; else they are those that changed. None that changed is a heartbeat.
    pub snapshot: bool,
    /// Leases with their states, by ascending id.
    pub leases: Vec<LeaseView>,
}

/// A workload's watch over its own leases.
pub struct Watch {
    broker: Arc<Broker>,
    token: Secret,
    named: Option<ClusterName>,
    workload: Workload,
    caller: Digest,
    /// What the workload believes to be good.
    live: BTreeMap<LeaseId, Arc<Lease>>,
    position: Position,
    /// The newest rule that `live` was looked at under; none before the first look.
    ruled: Option<Ruled>,
    /// Rings when a rule is in effect in memory alone.
    unwritten: tokio::sync::watch::Receiver<()>,
    verified: Duration,
    heartbeat: Duration,
}

/// Which rules there are: up to where, and the newest, which may be in memory alone.
type Ruled = (Position, Option<RuleId>);

fn ruled(rules: &RuleSet) -> Ruled {
    (rules.position(), rules.iter().next_back().map(|rule| rule.id))
}

impl Broker {
    /// Begins a watch over the caller's own leases: those of the same service account and pod.
    ///
    /// # Errors
    /// When its token is not good, or its pod or service account is gone.
    pub async fn watch_my_leases(self: &Arc<Self>, bearer: Bearer<'_>) -> Result<Watch, Error> {
        let (cluster, identity) = self.authenticate(bearer, Caller::Workload).await?;
        let workload = workload_of(cluster, &identity)?;
        check_live(cluster, &workload, Purpose::Renewal, self.now()).await?;
        Ok(Watch {
            token: Secret::from(bearer.token.expose().to_vec()),
            named: bearer.cluster.cloned(),
            caller: workload.caller(),
            live: BTreeMap::new(),
            position: Position::ZERO,
            ruled: None,
            unwritten: self.unwritten.bell(),
            verified: self.clock.monotonic(),
            heartbeat: HEARTBEAT,
            broker: Arc::clone(self),
            workload,
        })
    }
}

impl Watch {
    /// With another time between heartbeats than [`HEARTBEAT`].
    #[must_use]
    pub fn with_heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }

    /// What there is to tell next: first what is, then each change within a moment of its commit, and a heartbeat where
    /// nothing changes. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The watch is over: the token or the pod has lost its authority, or the store closes.
    pub async fn next(&mut self) -> Result<WatchNews, Error> {
        if self.ruled.is_none() {
            return self.snapshot().await;
        }
        let heartbeat = Instant::now() + self.heartbeat;
        loop {
            let wait = heartbeat.saturating_duration_since(Instant::now()).min(self.next_end());
            let heard = tokio::select! {
                heard = timeout(wait, self.broker.store.news(self.caller, self.position)) => heard.ok(),
                // Its sender is the broker, which is there.
                _ = self.unwritten.changed() => None,
            };
            let (mut changed, mut position) = (Vec::new(), self.position);
            if let Some(news) = heard {
                let news = news?;
                let Some(leases) = news.leases else { return self.snapshot().await };
                for id in leases {
                    changed.extend(self.broker.store.lease(id).await?);
                }
                position = news.position;
            }
            let due = Instant::now() >= heartbeat;
            if due {
                self.check_authority().await?;
            }
            // From here to the answer nothing waits: what was heard is told.
            self.position = position;
            let told = self.changes(changed)?;
            if due || !told.is_empty() {
                return Ok(WatchNews { position: self.position, snapshot: false, leases: told });
            }
            sleep(REST).await;
        }
    }

    /// All of the workload's leases that are good now.
    async fn snapshot(&mut self) -> Result<WatchNews, Error> {
        let Workload { cluster, service_account, pod, .. } = &self.workload;
        let fields = Fields {
            cluster: Some(cluster.clone()),
            namespace: Some(service_account.namespace.clone()),
            service_account: Some(service_account.uid),
            pod: pod.as_ref().map(|pod| pod.uid),
            ..Fields::default()
        };
        let selector = Some(Selector::Where(Box::new(fields)));
        let filter = LeaseFilter { selector, active_only: true, owners: None };
        let store = Arc::clone(&self.broker.store);
        // Before the list: what changes meanwhile is told once more.
        let position = store.mark().position;
        let (mut live, mut after) = (BTreeMap::new(), None);
        loop {
            let page = store.leases(filter.clone(), after, PAGE).await?;
            let own = page.leases.into_iter().filter(|lease| lease.workload.caller() == self.caller);
            live.extend(own.map(|lease| (lease.id, lease)));
            after = page.next;
            if after.is_none() || live.len() > WATCHED_LEASES {
                break;
            }
        }
        (self.live, self.position) = (BTreeMap::new(), position);
        let leases = self.changes(live.into_values().collect())?;
        Ok(WatchNews { position, snapshot: true, leases })
    }

    /// These leases as they are now, and those among the live ones that have ended since they were last looked at.
    fn changes(&mut self, changed: Vec<Arc<Lease>>) -> Result<Vec<LeaseView>, Error> {
        let (rules, now) = (self.broker.store.rules(), self.broker.now());
        let mut told = BTreeMap::new();
        for lease in changed {
            self.live.insert(lease.id, Arc::clone(&lease));
            told.insert(lease.id, LeaseView::under(&rules, lease, now));
        }
        if self.ruled != Some(ruled(&rules)) || self.earliest_end().is_some_and(|end| end <= now) {
            for (id, lease) in &self.live {
                let view = LeaseView::under(&rules, Arc::clone(lease), now);
                if view.state != LeaseState::Active {
                    told.insert(*id, view);
                }
            }
        }
        self.ruled = Some(ruled(&rules));
        self.live.retain(|id, _| told.get(id).is_none_or(|view| view.state == LeaseState::Active));
        if self.live.len() > WATCHED_LEASES {
            return Err(Error::Overloaded {
                message: format!("the workload has more than {WATCHED_LEASES} live leases: none are watched"),
                retry_after: Duration::from_secs(60),
            });
        }
        Ok(told.into_values().collect())
    }

    fn earliest_end(&self) -> Option<Timestamp> {
        self.live.values().map(|lease| lease.ends_at()).min()
    }

    /// How long until the next of the live leases ends by itself.
    fn next_end(&self) -> Duration {
        self.earliest_end().map_or(Duration::MAX, |end| end.since(self.broker.now()))
    }

    /// That the pod is there, and, now and then, that the token is still good. For lack of news nothing is ended.
    async fn check_authority(&mut self) -> Result<(), Error> {
        let broker = Arc::clone(&self.broker);
        if let Some(cluster) = broker.clusters.get(&self.workload.cluster) {
            but_for_outages(
                check_live(cluster, &self.workload, Purpose::Renewal, broker.now()).await.map(drop),
            )?;
        }
        let now = broker.clock.monotonic();
        if now.saturating_sub(self.verified) >= STREAM_REVIEW {
            let bearer = Bearer { token: &self.token, cluster: self.named.as_ref(), verified: None };
            but_for_outages(broker.authenticate(bearer, Caller::Workload).await.map(drop))?;
            self.verified = now;
        }
        Ok(())
    }
}

pub(crate) fn but_for_outages(checked: Result<(), Error>) -> Result<(), Error> {
    match checked {
        Err(Error::Unavailable { .. } | Error::Overloaded { .. }) => Ok(()),
        checked => checked,
    }
}
