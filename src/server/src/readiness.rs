//! Whether the broker can issue now, and why not: for probes, the health service and people.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dayfly_broker::Policies;
use dayfly_core::clock::ClockGuard;
use dayfly_core::ports::{Clock, Cluster, LeaseStore, StoreError};

/// What that means, and what ends it.
pub(crate) const NOT_ADOPTED: &str = "nothing downstream is touched until `dayfly store adopt`";

/// What readiness depends on.
pub(crate) struct Readiness {
    store: Arc<dyn LeaseStore>,
    clusters: Vec<Cluster>,
    policies: Arc<Policies>,
    clock: Arc<dyn Clock>,
    guard: ClockGuard,
    stopping: AtomicBool,
}

impl Readiness {
    /// Readiness of these.
    pub(crate) fn new(
        store: Arc<dyn LeaseStore>,
        clusters: Vec<Cluster>,
        policies: Arc<Policies>,
        clock: Arc<dyn Clock>,
        guard: ClockGuard,
    ) -> Self {
        Self { store, clusters, policies, clock, guard, stopping: AtomicBool::new(false) }
    }

    /// The broker stops: it is not ready any more.
    pub(crate) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Why it cannot issue now; nothing when it can. One cluster down leaves the others served: only when none can be
    /// served is the broker not ready.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        if self.stopping.load(Ordering::Relaxed) {
            troubles.push("stopping".to_owned());
        }
        troubles.extend(self.store.status().trouble.map(|why| format!("store: {why}")));
        // An id that is drawn and not used is nothing; one that cannot be drawn is no credential.
        match self.store.draw() {
            Err(StoreError::Unwritten) => troubles.push(format!("store: {}", StoreError::Unwritten)),
            // The store's trouble is told above.
            Ok(_) | Err(StoreError::Poisoned(_)) => {}
            Err(error) => troubles.push(format!("clock: {error}")),
        }
        let now = self.clock.monotonic();
        let served = |cluster: &Cluster| {
            let policy = self.policies.current(&cluster.name, now).map_err(|error| error.to_string());
            let lists = cluster.directory.ready().then_some(());
            let lists = lists.ok_or_else(|| {
                format!(
                    "cluster {}: no first list of pods, service accounts and namespaces yet",
                    cluster.name
                )
            });
            policy.and(lists)
        };
        let unserved: Vec<_> = self.clusters.iter().filter_map(|cluster| served(cluster).err()).collect();
        if unserved.len() == self.clusters.len() {
            troubles.extend(unserved);
        }
        troubles
    }

    /// What is worth knowing and keeps nobody from being issued to.
    pub(crate) fn notices(&self) -> Vec<String> {
        let restored = self.store.status().restored_at;
        let notice = |at| format!("store: restored at position {at}, not adopted: {NOT_ADOPTED}");
        restored.map(notice).into_iter().collect()
    }

    /// Why a restart would help: the clock was set right while this process remembers it wrong.
    pub(crate) fn needs_restart(&self) -> Option<String> {
        self.guard.now(self.clock.as_ref()).err().map(|jumped| format!("clock: {jumped}"))
    }
}
