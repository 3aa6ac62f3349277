//! Wires one cluster's adapters together and keeps them running.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ports::{Affected, Cluster};
use tokio::task::JoinSet;

use crate::affected::AffectedQueue;
use crate::api::{ApiServer, CallError};
use crate::authorize::AccessReviewer;
use crate::cache::ReviewCache;
use crate::config::{ClusterConfig, ConnectError};
use crate::controllers::Controllers;
use crate::directory::{ClusterDirectory, Lookup};
use crate::front_proxy::FrontProxySource;
use crate::informer::{Informer, Store};
use crate::keys::{self, ClusterKeys};
use crate::lines::Lines;
use crate::local::LocalCheck;
use crate::namesakes::Namesakes;
use crate::objects::Kind;
use crate::review::{Asker, Permits, TokenReviewer};
use crate::sparing::Sparing;

/// How often the keys of a cluster with namesakes are read again, so that a key in common is known soon.
const NAMESAKES_REREAD: Duration = Duration::from_secs(60);
/// And how often as long as they cannot be read, or are in common.
const NAMESAKES_TROUBLED: Duration = Duration::from_secs(10);

/// A cluster whose informers run. They stop when this is dropped or shut down; the ports then still answer, from the
/// API server.
pub struct RunningCluster {
    cluster: Cluster,
    keys: Option<Arc<ClusterKeys>>,
    front_proxy: FrontProxySource,
    tasks: JoinSet<()>,
}

/// Whether a cluster's configuration can be used. Says nothing to the API server.
///
/// # Errors
/// When it cannot.
pub async fn check(config: &ClusterConfig) -> Result<(), ConnectError> {
    config.check()?;
    config.client().await.map(drop)
}

/// Begins to serve a cluster. Returns before the API server has said anything: whether it has is
/// [`dayfly_core::ports::Directory::ready`], so that a cluster that is down keeps no other from being served.
///
/// # Errors
/// When the configuration cannot be used.
pub async fn connect(config: ClusterConfig) -> Result<RunningCluster, ConnectError> {
    connect_beside(config, None).await
}

/// Begins to serve several clusters. Those of one issuer are told apart by the call's metadata and held apart by their
/// keys: it returns when the keys of each of them have been read and compared, or could not be read.
///
/// # Errors
/// When the configuration of one cannot be used, or two of one issuer have a key in common.
pub async fn connect_all(
    configs: impl IntoIterator<Item = ClusterConfig>,
) -> Result<Vec<RunningCluster>, ConnectError> {
    let configs: Vec<_> = configs.into_iter().collect();
    let mut of_issuer: HashMap<&str, Vec<&ClusterConfig>> = HashMap::new();
    for config in &configs {
        of_issuer.entry(&config.issuer).or_default().push(config);
    }
    let mut namesakes = HashMap::new();
    for (issuer, clusters) in of_issuer {
        if let [first, others @ ..] = clusters.as_slice()
            && let [second, ..] = others
        {
            if let Some(hiding) = clusters.iter().find(|cluster| !cluster.local_check) {
                let other = if hiding.name == first.name { second } else { first };
                return Err(ConnectError::NamesakeHidesKeys(hiding.name.clone(), other.name.clone()));
            }
            namesakes.insert(issuer.to_owned(), Arc::new(Namesakes::default()));
        }
    }
    let mut running = Vec::new();
    for config in configs {
        let namesakes = namesakes.get(&config.issuer).cloned();
        running.push(connect_beside(config, namesakes).await?);
    }
    let read = running.iter().map(RunningCluster::compare_keys);
    futures_util::future::join_all(read).await.into_iter().collect::<Result<(), _>>()?;
    // The last to be read may have a key of the first.
    running.iter().try_for_each(RunningCluster::has_keys_of_its_own)?;
    Ok(running)
}

async fn connect_beside(
    config: ClusterConfig,
    namesakes: Option<Arc<Namesakes>>,
) -> Result<RunningCluster, ConnectError> {
    config.check()?;
    let api = Arc::new(ApiServer {
        cluster: config.name.clone(),
        client: config.client().await?,
        clock: Arc::clone(&config.clock),
        sparing: Sparing::default(),
    });
    let limits = &config.limits;
    let cache = Arc::new(ReviewCache::new(limits.review_cache, limits.refused_cache, config.local_check));
    let mut tasks = JoinSet::new();

    let has_namesakes = namesakes.is_some();
    let keys = if config.local_check {
        let (server, path) = keys_place(&config, &api).await?;
        Some(Arc::new(ClusterKeys::new(server, &path, limits.review_timeout, namesakes)))
    } else {
        None
    };
    if let Some(keys) = keys.clone().filter(|_| has_namesakes) {
        tasks.spawn(keep_compared(keys));
    } else if let Some(keys) = keys.clone() {
        // So that the first token need not wait. If it fails, the first token asks again.
        tasks.spawn(async move {
            if let Err(error) = keys.set_for(None).await {
                tracing::warn!(%error, "the cluster's token keys cannot be read yet");
            }
        });
    }
    let affected = Arc::new(AffectedQueue::default());
    let directory = ClusterDirectory {
        pods: inform(&mut tasks, &config, &api, &cache, &affected),
        service_accounts: inform(&mut tasks, &config, &api, &cache, &affected),
        namespaces: inform(&mut tasks, &config, &api, &cache, &affected),
        affected,
        controllers: Controllers::new(Arc::clone(&api), limits.review_timeout),
    };

    let permits = Permits::split(limits.reviews_at_once);
    let lines = Lines::new(
        Permits::of_operators(limits.reviews_at_once),
        Arc::clone(&directory.service_accounts.store),
    );
    let authorizer = AccessReviewer {
        api: Arc::clone(&api),
        revoking: Arc::clone(&permits.revoking),
        reading: Arc::clone(&permits.lists),
        timeout: limits.review_timeout,
    };
    let local = LocalCheck {
        issuer: config.issuer.clone(),
        audiences: config.audiences,
        api_audiences: config.api_audiences,
        leeway: limits.leeway,
        clock: config.clock,
        keys: keys.clone(),
    };
    let front_proxy = FrontProxySource::new(Arc::clone(&api), limits.review_timeout);
    let asker = Asker { api, cache, local, permits, lines, timeout: limits.review_timeout };
    let cluster = Cluster {
        name: config.name,
        issuer: config.issuer,
        reviewer: Arc::new(TokenReviewer::new(asker)),
        directory: Arc::new(directory),
        authorizer: Arc::new(authorizer),
    };
    Ok(RunningCluster { cluster, keys: keys.filter(|_| has_namesakes), front_proxy, tasks })
}

/// The server that publishes a cluster's keys, and the path.
async fn keys_place(
    config: &ClusterConfig,
    api: &Arc<ApiServer>,
) -> Result<(Arc<ApiServer>, String), ConnectError> {
    let Some(jwks) = &config.jwks else { return Ok((Arc::clone(api), keys::PATH.to_owned())) };
    let (client, path) = config.jwks_client(jwks).await?;
    let server = ApiServer {
        cluster: config.name.clone(),
        client,
        clock: Arc::clone(&config.clock),
        sparing: Sparing::default(),
    };
    Ok((Arc::new(server), path))
}

/// Reads a cluster's keys again and again; what is read is compared with its namesakes'.
async fn keep_compared(keys: Arc<ClusterKeys>) {
    loop {
        let well = keys.reread().await;
        tokio::time::sleep(if well { NAMESAKES_REREAD } else { NAMESAKES_TROUBLED }).await;
    }
}

impl RunningCluster {
    /// The ports of this cluster.
    pub fn cluster(&self) -> Cluster {
        self.cluster.clone()
    }

    /// By what its API server shows who it is to an aggregated API.
    pub fn front_proxy(&self) -> FrontProxySource {
        self.front_proxy.clone()
    }

    /// Returns when its keys have been compared with its namesakes', or cannot be read now.
    async fn compare_keys(&self) -> Result<(), ConnectError> {
        if let Some(keys) = &self.keys {
            // Logged where it is tried again.
            let _ = keys.refresh().await;
        }
        self.has_keys_of_its_own()
    }

    fn has_keys_of_its_own(&self) -> Result<(), ConnectError> {
        match self.keys.as_ref().map(|keys| keys.are_its_own()) {
            Some(Err(CallError::SharedKeys(other))) => {
                Err(ConnectError::SharedKeys(self.cluster.name.clone(), other))
            }
            _ => Ok(()),
        }
    }

    /// Stops the informers and waits until they have.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Starts the informer of one kind.
fn inform<K: Kind>(
    tasks: &mut JoinSet<()>,
    config: &ClusterConfig,
    api: &Arc<ApiServer>,
    cache: &Arc<ReviewCache>,
    affected: &Arc<AffectedQueue>,
) -> Lookup<K> {
    let store = Arc::new(Store::<K>::new());
    let (cache, affected, clock) = (Arc::clone(cache), Arc::clone(affected), Arc::clone(&config.clock));
    let silence = config.limits.informer_silence;
    let informer = Informer {
        api: Arc::clone(api),
        store: Arc::clone(&store),
        idle: silence * 2 / 3,
        affected: Box::new(move |object: Affected| {
            cache.gone(object.uid, clock.monotonic());
            affected.put(object);
        }),
    };
    tasks.spawn(informer.run());
    Lookup::new(Arc::clone(api), store, silence, config.limits.review_timeout)
}

#[cfg(test)]
mod tests;
