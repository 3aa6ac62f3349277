//! What goes on beside the calls: policy is read again, the witness follows the store, denials are written down, health
//! is told.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dayfly_broker::{Broker, Policies, Scope};
use dayfly_core::audit::{Draft, EventKind};
use dayfly_core::change::{Change, Mark};
use dayfly_core::ids::{Audience, ClusterName};
use dayfly_core::ports::{Clock, LeaseStore, Signer, Witness};
use dayfly_core::rule::Actor;
use dayfly_keys::KeyLife;
use dayfly_policy::{
    Loaded, PolicySet, Reserved, SourceError, changed_objects, load_folder, load_folder_after,
};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::config::Config;
use crate::keys::missed;
use crate::readiness::Readiness;

/// A cluster's policy folder.
pub(crate) struct PolicyFolder {
    cluster: ClusterName,
    path: PathBuf,
    reserved: Reserved,
}

/// The policy folders of a configuration.
pub(crate) fn policy_folders(config: &Config) -> Vec<PolicyFolder> {
    let ours = &config.audiences;
    let of_clusters = config.clusters.iter().flat_map(crate::config::Cluster::api_audiences);
    // An API server's audience that is no audience of ours to give cannot be named by a Target either.
    let of_clusters = of_clusters.filter_map(|audience| audience.parse().ok());
    let audiences: BTreeSet<Audience> =
        [&ours.workload, &ours.operator, &ours.verifier].into_iter().cloned().chain(of_clusters).collect();
    let folder = |cluster: &crate::config::Cluster| PolicyFolder {
        cluster: cluster.name.clone(),
        path: cluster.policy.clone(),
        reserved: Reserved {
            audiences: audiences.clone(),
            trust_domains: Some(config.trust_domains_of(&cluster.name)),
        },
    };
    config.clusters.iter().map(folder).collect()
}

impl PolicyFolder {
    /// Whose policy it has.
    pub(crate) fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// What it says now.
    pub(crate) fn load(&self) -> Result<Loaded, SourceError> {
        load_folder(&self.path, &self.reserved)
    }

    /// What is wrong with its objects.
    pub(crate) fn problems(&self) -> Result<Vec<String>, SourceError> {
        let loaded = self.load()?;
        Ok(loaded.problems.iter().map(|problem| format!("cluster {}: {problem}", self.cluster)).collect())
    }

    /// Reads the folder and puts what it says in force; says whether that changed anything.
    pub(crate) async fn read_into(
        &self,
        policies: &Policies,
        signer: &dyn Signer,
        clock: &dyn Clock,
    ) -> bool {
        let (path, reserved) = (self.path.clone(), self.reserved.clone());
        let (known, before) = (policies.problems(&self.cluster), policies.last(&self.cluster));
        let began = clock.monotonic();
        let read =
            tokio::task::spawn_blocking(move || load_folder_after(&path, &reserved, before.as_deref()));
        let read = read.await;
        let changed = match read.map_err(|failed| failed.to_string()) {
            Ok(Ok(loaded)) => {
                policies.replace(&self.cluster, loaded, began).map_err(|error| error.to_string())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error),
        };
        let changed = changed.unwrap_or_else(|error| {
            tracing::error!(cluster = %self.cluster, error, "policy cannot be read: the one that was read last, if any, stays for a while");
            false
        });
        let problems = policies.problems(&self.cluster);
        for problem in problems.iter().filter(|problem| !known.contains(problem)) {
            tracing::warn!(target: "dayfly_policy", cluster = %self.cluster, "{problem}");
        }
        if let Some(policy) = policies.last(&self.cluster).filter(|_| changed) {
            for target in missed(&policy, &self.cluster, signer) {
                tracing::warn!(target: "dayfly_policy", cluster = %self.cluster, "Target {target} signs with a key that is to be imported, and has none: stop the broker and run `dayfly keys import FILE --target {}/{target}`", self.cluster);
            }
        }
        changed
    }
}

/// Reads a folder again and again, and records each change.
pub(crate) async fn reload_policy(
    folder: PolicyFolder,
    policies: Arc<Policies>,
    signer: Arc<dyn Signer>,
    store: Arc<dyn LeaseStore>,
    clock: Arc<dyn Clock>,
    every: Duration,
) {
    let mut ticks = tokio::time::interval(every);
    let mut recorded = policies.last(&folder.cluster);
    if let Some(policy) = &recorded {
        // It may have changed while nothing ran.
        record_policy(store.as_ref(), &folder.cluster, policy, None).await;
    }
    loop {
        ticks.tick().await;
        if !folder.read_into(&policies, signer.as_ref(), clock.as_ref()).await {
            continue;
        }
        let Some(policy) = policies.last(&folder.cluster) else { continue };
        let objects = changed_objects(recorded.as_deref(), &policy);
        record_policy(store.as_ref(), &folder.cluster, &policy, Some(objects)).await;
        recorded = Some(policy);
    }
}

async fn record_policy(
    store: &dyn LeaseStore,
    cluster: &ClusterName,
    policy: &PolicySet,
    objects: Option<Vec<String>>,
) {
    let at_start = if objects.is_none() { ", as read at the start" } else { "" };
    let note = format!("policy of cluster {cluster}: sha256 {}{at_start}", policy.generation());
    let mut event = Draft::note(EventKind::PolicyChanged, &Actor::dayfly(), note);
    (event.detail.cluster, event.detail.objects) = (cluster.to_string(), objects.unwrap_or_default());
    if let Err(error) = store.commit(Change::Note(Box::new(event))).await {
        tracing::warn!(%error, "a change of policy was not recorded");
    }
}

/// Writes the store's mark to its witness, each second that it has moved.
pub(crate) async fn keep_witness(store: Arc<dyn LeaseStore>, witness: Arc<dyn Witness>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut written: Option<Mark> = None;
    loop {
        ticks.tick().await;
        let mark = store.mark();
        if written == Some(mark) {
            continue;
        }
        match witness.write(mark).await {
            Ok(()) => written = Some(mark),
            Err(error) => {
                tracing::error!(%error, "the witness was not written: an older store would not be noticed");
            }
        }
    }
}

/// How often it is looked whether a cluster's policy has changed.
const POLICY_LOOK: Duration = Duration::from_secs(1);
/// How soon what could not be said is looked at again.
const RECONCILE_AGAIN: Duration = Duration::from_secs(2);

/// Ends what has lost its ground in a cluster: after a start all is looked at, then what something happened to; all again
/// when policy has changed, and now and then.
pub(crate) async fn reconcile(
    broker: Arc<Broker>,
    policies: Arc<Policies>,
    cluster: ClusterName,
    every: Duration,
) {
    let (mut due, mut decided_by, mut told) = (Some(Scope::All), None, None);
    let mut full = tokio::time::interval(every);
    full.reset();
    let mut look = tokio::time::interval(POLICY_LOOK);
    loop {
        let more = tokio::select! {
            scope = broker.affected(&cluster) => match scope {
                Some(scope) => Some(scope),
                None => return,
            },
            _ = full.tick() => Some(Scope::All),
            _ = look.tick() => {
                let generation = policies.last(&cluster).map(|policy| policy.generation());
                let changed = decided_by != generation;
                decided_by = generation;
                changed.then_some(Scope::All)
            }
        };
        due = match (due.take(), more) {
            (Some(due), Some(more)) => Some(due.and(more)),
            (due, more) => due.or(more),
        };
        let Some(scope) = due.take() else { continue };
        let unknown = match broker.reconcile(&cluster, &scope).await {
            Ok(done) => {
                for rule in &done.rules {
                    tracing::info!(%cluster, rule = %rule.id, selector = %rule.selector, reason = rule.reason, "leases have lost their ground: they are revoked");
                }
                done.unknown
            }
            Err(error) => Some(error),
        };
        let unknown = unknown.map(|error| error.to_string());
        if unknown.is_some() {
            if told != unknown {
                tracing::info!(%cluster, error = unknown, "whether some leases have kept their ground is not known now: they stay");
            }
            due = Some(scope);
            tokio::time::sleep(RECONCILE_AGAIN).await;
        }
        told = unknown;
    }
}

/// Takes the steps of the signing keys' lives that are due.
pub(crate) async fn keep_keys(life: Arc<KeyLife>) {
    // Told once, until it is another or none.
    let mut told = None;
    let mut ticks = tokio::time::interval(KEYS_EVERY);
    loop {
        ticks.tick().await;
        let error = life.go_on().await.err().map(|error| error.to_string());
        if let Some(error) = error.as_ref().filter(|_| told != error) {
            tracing::error!(
                error,
                "the signing keys do not go on: those that sign go on signing, and it is tried again"
            );
        }
        told = error;
    }
}

/// How often it is looked whether a signing key is due, and whether the key-encryption key has a successor.
const KEYS_EVERY: Duration = Duration::from_secs(5);

/// Writes down the denials and reads of each minute.
pub(crate) async fn flush_counts(broker: Arc<Broker>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        if let Err(error) = broker.flush_reads().await {
            tracing::warn!(%error, "what operators read was not written down; it is kept for the next time");
        }
        if let Err(error) = broker.flush_denials().await {
            tracing::warn!(%error, "denials were not written down; they are kept for the next time");
        }
    }
}

/// Counts the live leases that revocations ended.
pub(crate) async fn count_revocations(broker: Arc<Broker>) {
    loop {
        if let Err(error) = broker.count_a_revocation().await {
            tracing::warn!(%error, "what a revocation ended was not counted; it is when it is asked for");
            // While the store does not read, there is no hurry.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Tells the health service (grpc.health.v1) whether the broker is ready.
pub(crate) async fn report_health(readiness: Arc<Readiness>, health: HealthReporter) {
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let mut told = None;
    // Revoking and introspecting need neither a trusted clock nor a cluster's lists.
    for service in ["dayfly.v1.VerifierService", "dayfly.v1.OperatorService"] {
        health.set_service_status(service, ServingStatus::Serving).await;
    }
    loop {
        ticks.tick().await;
        let troubles = readiness.troubles();
        if told.as_ref() == Some(&troubles) {
            continue;
        }
        let status = if troubles.is_empty() { ServingStatus::Serving } else { ServingStatus::NotServing };
        if troubles.is_empty() {
            tracing::info!("ready");
        } else {
            tracing::warn!(troubles = troubles.join("; "), "not ready");
        }
        health.set_service_status("", status).await;
        health.set_service_status("dayfly.v1.WorkloadService", status).await;
        told = Some(troubles);
    }
}
