//! Wiring: the one place that sees every adapter.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use dayfly_broker::{Audiences, Broker, Parts, Policies};
use dayfly_core::change::Mark;
use dayfly_core::checkpoint::Checkpoints;
use dayfly_core::clock::{ClockGuard, SystemClock, SystemRng};
use dayfly_core::ids::LeaseId;
use dayfly_core::keeper::KeyKeeper;
use dayfly_core::limits::Limits;
use dayfly_core::live::LiveCaps;
use dayfly_core::note::NoteSigner;
use dayfly_core::ports::{Clock, LeaseStore, Rng, Signer, Witness};
use dayfly_core::secret::Secret;
use dayfly_core::session::SessionTokens;
use dayfly_keys::RingSessions;
use dayfly_kube::RunningCluster;
use dayfly_mint::signed::SignedEngines;
use dayfly_store::{FileWitness, SledStore};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic_health::ServingStatus;

use crate::backup::Backups;
use crate::checkpoints::Publisher;
use crate::config::Config;
use crate::guard::{Door, Guard};
use crate::keys::key_ring;
use crate::readiness::Readiness;
use crate::sessions::Served;
use crate::socket::Socket;
use crate::{background, http, listener, log, oauth, readiness, services, sessions, socket, status_lists};

/// How long a connection lives before its client is asked to make a new one: half an hour.
const CONNECTION_AGE: Duration = Duration::from_secs(1800);

/// How long a stop waits for calls under way at the broker's own socket.
const SOCKET_DRAIN: Duration = Duration::from_secs(2);

/// A broker that serves. Stop it with [`Running::stop`]: dropped, it ends without draining.
pub struct Running {
    addr: SocketAddr,
    store: Arc<SledStore>,
    broker: Arc<Broker>,
    readiness: Arc<Readiness>,
    witness: Arc<dyn Witness>,
    clusters: Vec<RunningCluster>,
    stop: watch::Sender<bool>,
    serving: Serving,
    /// The aggregated API for operators' sessions, where it is served.
    sessions: Option<Served>,
    /// The broker's own socket, where there is one.
    socket: Option<(Socket, Serving)>,
    background: JoinSet<()>,
    drain: Duration,
}

pub(crate) type Serving = tokio::task::JoinHandle<Result<(), tonic::transport::Error>>;

/// What a start may be told beyond the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartOptions {
    /// Accept a store behind its witness: it begins a new incarnation, and everything issued before is revoked.
    pub accept_rollback: bool,
}

/// Starts a broker: opens the store, loads or makes its keys, begins to hear its clusters, and listens.
///
/// # Errors
/// When the configuration cannot be used, the store cannot be opened, or the address cannot be bound. An API server
/// that is down is no error: the broker starts, and is not ready.
pub async fn start(config: Config, options: StartOptions) -> anyhow::Result<Running> {
    dayfly_jose::install()?;
    let limits = config.limits();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let rng: Arc<dyn Rng> = Arc::new(SystemRng::new());
    let tls = listener::tls_acceptor(&config.tls.cert_file, &config.tls.key_file)?;

    let witness: Arc<dyn Witness> = Arc::new(FileWitness::new(
        &config.store.witness.file,
        &config.store.dir,
        config.store.witness.danger_witness_beside_store,
    )?);
    let expected = witness.read().await?;
    let store = open_store(&config, options, expected, &limits, &clock, &rng).await?;
    if expected.is_none() && store.status().start.0 > 1 {
        let path = config.store.witness.file.display();
        tracing::error!(%path, "the store is not new and its witness is missing: if the store was restored, nobody would know");
    }
    if !store.status().is_adopted() {
        tracing::warn!("the store was restored and is not adopted: {}", readiness::NOT_ADOPTED);
    }
    // From here on the store has a position: the witness knows it before anything else happens.
    witness.write(store.mark()).await?;

    let domains = config.trust_domains()?;
    let for_keys = Arc::clone(&store) as Arc<dyn LeaseStore>;
    let (ring, key_life) = key_ring(&config, &domains, &for_keys, &clock, &rng).await?;
    let mark = store.mark();
    let sessions = config.sessions.as_ref().map(|_| {
        let (issuer, audience) = (config.issuer.clone(), config.audiences.operator.clone());
        let sessions =
            RingSessions::new(Arc::clone(&ring), issuer, audience, mark.instance, mark.incarnation);
        Arc::new(sessions) as Arc<dyn SessionTokens>
    });
    let notes = Arc::clone(&ring) as Arc<dyn NoteSigner>;
    let publisher = Publisher::start(&config, Arc::clone(&for_keys), notes).await?;
    let signer: Arc<dyn Signer> = ring;
    let clusters = config.clusters.iter().map(|cluster| cluster.name.clone());
    let policies = Policies::new(clusters, limits.policy_unreadable);
    let policies = config.graces().fold(policies, |policies, (cluster, grace)| {
        if clock.now() < grace.until {
            tracing::warn!(%cluster, until = %grace.until, "namespaces without an Owner are decided as `unowned`");
        }
        policies.with_grace(cluster.clone(), grace)
    });
    let policies = Arc::new(policies);
    let folders = background::policy_folders(&config);
    for folder in &folders {
        folder.read_into(&policies, signer.as_ref(), clock.as_ref()).await;
    }
    let clusters = connect_clusters(&config, &limits, &clock).await?;
    let ports: Vec<_> = clusters.iter().map(RunningCluster::cluster).collect();

    let broker = Arc::new(Broker::new(Parts {
        store: Arc::clone(&store) as Arc<dyn LeaseStore>,
        clusters: ports.clone(),
        policies: Arc::clone(&policies),
        engine: Arc::new(SignedEngines::new(&signer)),
        keys: Arc::clone(&key_life) as Arc<dyn KeyKeeper>,
        sessions,
        checkpoints: Arc::clone(&publisher) as Arc<dyn Checkpoints>,
        clock: Arc::clone(&clock),
        rng: Arc::clone(&rng),
        teardown_rate: config.limits.teardown_leases_per_second.unwrap_or(20_000),
        live_caps: LiveCaps {
            per_pod: Some(limits.live_leases_per_pod),
            per_workload: Some(limits.live_leases_per_workload),
            ..LiveCaps::default()
        },
        issuer: config.issuer.clone(),
        trust_domains: domains,
        audiences: Audiences {
            workload: config.audiences.workload.clone(),
            operator: config.audiences.operator.clone(),
            verifier: config.audiences.verifier.clone(),
        },
        home_cluster: config.home_cluster.clone(),
        issuer_of: Arc::new(issuer_of),
        lease_id_of: Arc::new(lease_id_of),
    })?);

    let guard = ClockGuard::new(clock.as_ref(), limits.clock_jump);
    let readiness = Arc::new(Readiness::new(
        Arc::clone(&store) as Arc<dyn LeaseStore>,
        ports,
        Arc::clone(&policies),
        Arc::clone(&clock),
        guard,
    ));
    let (health, health_service) = tonic_health::server::health_reporter();
    // The library's own first word is that all is well.
    health.set_service_status("", ServingStatus::NotServing).await;
    let (stop, stopped) = watch::channel(false);
    let incarnation = store.mark().incarnation;
    let backups = Backups {
        store: Arc::clone(&store),
        kek_file: config.keys.kek_file.clone(),
        clock: Arc::clone(&clock),
        rng: Arc::clone(&rng),
    };
    let grpc =
        services::routes(&broker, &signer, &config.issuer, incarnation, &backups, health_service, &stopped)?;
    let door = Arc::clone(&broker) as Arc<dyn Door>;
    let calls = Guard::new(door, &config.places(), limits.call_timeout, Arc::clone(&clock), stopped.clone());
    let shared = oauth::Shared {
        broker: Arc::clone(&broker),
        signer: Arc::clone(&signer),
        issuer: config.issuer.clone(),
    };
    let lists = status_lists::Shared {
        broker: Arc::clone(&broker),
        signer: Arc::clone(&signer),
        clock: Arc::clone(&clock),
        issuer: config.issuer.clone(),
        ttl: Duration::from_secs(config.status_lists.ttl_secs),
        life: Duration::from_secs(config.status_lists.life_secs),
        refresh: key_life.refresh(),
        signed: Mutex::default(),
    };
    let published = log::Log {
        store: Arc::clone(&store) as Arc<dyn LeaseStore>,
        checkpoints: Arc::clone(&publisher) as Arc<dyn Checkpoints>,
    };
    let router = grpc
        .into_axum_router()
        .merge(http::routes(Arc::clone(&signer), Arc::clone(&readiness), key_life.refresh()))
        .merge(oauth::routes(shared))
        .merge(status_lists::routes(lists))
        .merge(log::routes(published))
        .layer(calls);

    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let addr = listener.local_addr()?;
    let connections = listener::connections(listener, tls, config.limits.connections.unwrap_or(8192));
    let serving = tokio::spawn(serve(router, connections, until(stopped.clone()), limits.drain));
    let socket = match &config.socket {
        Some(path) => {
            let (socket, listener) = socket::listen(path)?;
            tracing::info!(path = %path.display(), "listening at the broker's own socket");
            let routes = services::socket_routes(&broker, incarnation, &backups, &stopped);
            let serving = serve_socket(
                routes,
                socket::connections(listener),
                until(stopped.clone()),
                limits.call_timeout,
            );
            Some((socket, tokio::spawn(serving)))
        }
        None => None,
    };

    let sessions = match &config.sessions {
        Some(sessions) => {
            // Where there are several clusters, there is a home: the configuration was checked.
            let home = config.home_cluster.as_ref();
            let of_home = |cluster: &&RunningCluster| home.is_none_or(|home| cluster.cluster().name == *home);
            let front_proxy =
                clusters.iter().find(of_home).context("sessions need a home cluster")?.front_proxy();
            let (broker, timeout) = (Arc::clone(&broker), limits.call_timeout);
            let served = sessions::serve(
                sessions,
                broker,
                front_proxy,
                &clock,
                timeout,
                limits.drain,
                stopped.clone(),
            );
            Some(served.await?)
        }
        None => None,
    };

    let mut background = JoinSet::new();
    background.spawn(background::report_health(Arc::clone(&readiness), health));
    background
        .spawn(background::keep_witness(Arc::clone(&store) as Arc<dyn LeaseStore>, Arc::clone(&witness)));
    let every = Duration::from_secs(config.log.flush_secs);
    background.spawn(background::flush_counts(Arc::clone(&broker), every));
    let every = Duration::from_secs(config.limits.reconcile_secs.unwrap_or(300).max(1));
    for cluster in &config.clusters {
        let (broker, policies) = (Arc::clone(&broker), Arc::clone(&policies));
        background.spawn(background::reconcile(broker, policies, cluster.name.clone(), every));
    }
    background.spawn({
        let broker = Arc::clone(&broker);
        async move { broker.tear_down().await }
    });
    background.spawn({
        let broker = Arc::clone(&broker);
        async move { broker.rebuild_status_lists().await }
    });
    background.spawn(background::count_revocations(Arc::clone(&broker)));
    background.spawn(background::keep_keys(key_life));
    background.spawn(publisher.run(Duration::from_secs(config.log.checkpoint_secs)));
    let every = Duration::from_secs(config.limits.policy_reload_secs.unwrap_or(2).max(1));
    for folder in folders {
        // Each by itself: one that hangs keeps no other from being read.
        let (policies, store) = (Arc::clone(&policies), Arc::clone(&store) as Arc<dyn LeaseStore>);
        let (signer, clock) = (Arc::clone(&signer), Arc::clone(&clock));
        background.spawn(background::reload_policy(folder, policies, signer, store, clock, every));
    }
    tracing::info!(%addr, "listening");
    Ok(Running {
        addr,
        store,
        broker,
        readiness,
        witness,
        clusters,
        stop,
        serving,
        sessions,
        socket,
        background,
        drain: limits.drain,
    })
}

/// Whether a broker could start with this configuration, as far as that can be told without opening its store, binding
/// its address or asking a cluster. Gives what is worth knowing and stops nothing: problems of policy objects.
///
/// # Errors
/// The first thing that would stop it.
pub async fn check(config: &Config) -> anyhow::Result<Vec<String>> {
    listener::tls_acceptor(&config.tls.cert_file, &config.tls.key_file)?;
    let witness = &config.store.witness;
    FileWitness::new(&witness.file, &config.store.dir, witness.danger_witness_beside_store)?.read().await?;
    let (clock, limits): (Arc<dyn Clock>, _) = (Arc::new(SystemClock::new()), config.limits());
    if let Some(sessions) = &config.sessions {
        sessions.check(&clock)?;
    }
    for cluster in &config.clusters {
        dayfly_kube::check(&cluster.adapter(&config.audiences, &limits, &clock)).await?;
    }
    let folders = background::policy_folders(config);
    let problems = folders.iter().map(background::PolicyFolder::problems).collect::<Result<Vec<_>, _>>()?;
    Ok(problems.into_iter().flatten().collect())
}

impl Running {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the API server reaches `sessions.dayfly.dev`, where that is served.
    pub fn sessions_addr(&self) -> Option<SocketAddr> {
        self.sessions.as_ref().map(|served| served.addr)
    }

    /// Its store.
    pub fn store(&self) -> Arc<dyn LeaseStore> {
        Arc::clone(&self.store) as Arc<dyn LeaseStore>
    }

    /// Why it cannot issue now; nothing when it can.
    pub fn troubles(&self) -> Vec<String> {
        self.readiness.troubles()
    }

    /// Stops taking calls, waits for those under way, writes what is left to write, and closes the store.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.readiness.stopping();
        self.stop.send_replace(true);
        if let Ok(served) = tokio::time::timeout(self.drain, &mut self.serving).await {
            served??;
        } else {
            tracing::warn!("calls were still under way after {:?}: cut off", self.drain);
            self.serving.abort();
        }
        if let Some(Served { serving, .. }) = &mut self.sessions
            && tokio::time::timeout(SOCKET_DRAIN, &mut *serving).await.is_err()
        {
            serving.abort();
        }
        if let Some((_, serving)) = &mut self.socket
            && tokio::time::timeout(SOCKET_DRAIN, &mut *serving).await.is_err()
        {
            serving.abort();
        }
        self.background.shutdown().await;
        if let Err(error) = self.broker.flush_denials().await {
            tracing::warn!(%error, "denials were not written down");
        }
        if let Err(error) = self.broker.flush_reads().await {
            tracing::warn!(%error, "what operators read was not written down");
        }
        for cluster in self.clusters {
            cluster.shutdown().await;
        }
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.close()).await?;
        self.witness.write(self.store.mark()).await?;
        Ok(())
    }
}

pub(crate) async fn open_store(
    config: &Config,
    start: StartOptions,
    expected: Option<Mark>,
    limits: &Limits,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
) -> anyhow::Result<Arc<SledStore>> {
    let mut options = store_options(config, limits, clock, rng);
    options.expected = expected;
    options.accept_rollback = start.accept_rollback;
    Ok(tokio::task::spawn_blocking(move || SledStore::open(options)).await??)
}

/// What the configuration says of its store.
pub(crate) fn store_options(
    config: &Config,
    limits: &Limits,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
) -> dayfly_store::Options {
    let mut options = dayfly_store::Options::new(&config.store.dir, Arc::clone(clock), Arc::clone(rng));
    options.limits = limits.clone();
    options.retention = Duration::from_secs(u64::from(config.store.retention_days) * 24 * 3600);
    options.max_leases = config.store.max_leases;
    options.detail_retention = Duration::from_secs(u64::from(config.log.detail_retention_days) * 24 * 3600);
    options.reserve_bytes = config.store.reserve_bytes;
    options.rule_reserve_bytes = config.store.reserve_bytes / 4;
    options
}

async fn connect_clusters(
    config: &Config,
    limits: &Limits,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Vec<RunningCluster>> {
    let adapters = config.clusters.iter().map(|cluster| cluster.adapter(&config.audiences, limits, clock));
    Ok(dayfly_kube::connect_all(adapters).await?)
}

pub(crate) async fn serve(
    router: axum::Router,
    connections: impl futures_util::Stream<Item = std::io::Result<listener::Connection>>,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Result<(), tonic::transport::Error> {
    tonic::transport::Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(100)
        .max_connection_age(CONNECTION_AGE)
        .max_connection_age_grace(grace)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(32 * 1024)
        .add_routes(tonic::service::Routes::from(router))
        .serve_with_incoming_shutdown(connections, stop)
        .await
}

/// The socket has none of the guard's places: whoever may come there is not crowded out by anyone else.
async fn serve_socket(
    routes: tonic::service::Routes,
    connections: impl futures_util::Stream<Item = std::io::Result<socket::Connection>>,
    stop: impl Future<Output = ()>,
    call_timeout: Duration,
) -> Result<(), tonic::transport::Error> {
    tonic::transport::Server::builder()
        .timeout(call_timeout)
        .max_concurrent_streams(16)
        .max_connection_age(CONNECTION_AGE)
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, stop)
        .await
}

pub(crate) async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, and the broker with it.
    stopped.wait_for(|stop| *stop).await.ok();
}

fn issuer_of(token: &Secret) -> Option<String> {
    dayfly_jose::peek(token.expose_text().ok()?).ok()?.claims.issuer
}

fn lease_id_of(credential: &Secret) -> Option<LeaseId> {
    dayfly_jose::peek(credential.expose_text().ok()?).ok()?.claims.id?.parse().ok()
}
