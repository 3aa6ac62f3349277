//! Wires one cluster's adapters together and keeps them running.

use std::sync::Arc;

use dayfly_core::ids::Uid;
use dayfly_core::ports::Cluster;
use tokio::task::JoinSet;

use crate::api::ApiServer;
use crate::authorize::AccessReviewer;
use crate::cache::ReviewCache;
use crate::config::{ClusterConfig, ConnectError};
use crate::controllers::Controllers;
use crate::directory::{ClusterDirectory, Lookup};
use crate::informer::{Informer, Store};
use crate::keys::ClusterKeys;
use crate::local::LocalCheck;
use crate::objects::Kind;
use crate::review::{Asker, Permits, TokenReviewer};
use crate::sparing::Sparing;

/// A cluster whose informers run. They stop when this is dropped or shut down; the ports then still answer, from the
/// API server.
pub struct RunningCluster {
    cluster: Cluster,
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
    config.check()?;
    let api = Arc::new(ApiServer {
        cluster: config.name.clone(),
        client: config.client().await?,
        clock: Arc::clone(&config.clock),
        sparing: Sparing::default(),
    });
    let limits = &config.limits;
    let cache = Arc::new(ReviewCache::new(limits.review_cache));
    let mut tasks = JoinSet::new();

    let keys =
        config.local_check.then(|| Arc::new(ClusterKeys::new(Arc::clone(&api), limits.review_timeout)));
    if let Some(keys) = keys.clone() {
        // So that the first token need not wait. If it fails, the first token asks again.
        tasks.spawn(async move {
            if let Err(error) = keys.set_for(None).await {
                tracing::warn!(%error, "the cluster's token keys cannot be read yet");
            }
        });
    }
    let directory = ClusterDirectory {
        pods: inform(&mut tasks, &config, &api, &cache),
        service_accounts: inform(&mut tasks, &config, &api, &cache),
        namespaces: inform(&mut tasks, &config, &api, &cache),
        controllers: Controllers::new(Arc::clone(&api), limits.review_timeout),
    };

    let permits = Permits::split(limits.reviews_at_once);
    let authorizer = AccessReviewer {
        api: Arc::clone(&api),
        revoking: Arc::clone(&permits.operators),
        reading: Arc::clone(&permits.lists),
        timeout: limits.review_timeout,
    };
    let local = LocalCheck {
        issuer: config.issuer.clone(),
        audiences: config.audiences,
        api_audiences: config.api_audiences,
        leeway: limits.leeway,
        clock: config.clock,
        keys,
    };
    let asker = Asker { api, cache, local, permits, timeout: limits.review_timeout };
    let cluster = Cluster {
        name: config.name,
        issuer: config.issuer,
        reviewer: Arc::new(TokenReviewer::new(asker)),
        directory: Arc::new(directory),
        authorizer: Arc::new(authorizer),
    };
    Ok(RunningCluster { cluster, tasks })
}

impl RunningCluster {
    /// The ports of this cluster.
    pub fn cluster(&self) -> Cluster {
        self.cluster.clone()
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
) -> Lookup<K> {
    let store = Arc::new(Store::<K>::new());
    let (cache, clock) = (Arc::clone(cache), Arc::clone(&config.clock));
    let silence = config.limits.informer_silence;
    let informer = Informer {
        api: Arc::clone(api),
        store: Arc::clone(&store),
        idle: silence * 2 / 3,
        gone: Box::new(move |uid: Uid| cache.gone(uid, clock.monotonic())),
    };
    tasks.spawn(informer.run());
    Lookup::new(Arc::clone(api), store, silence, config.limits.review_timeout)
}
