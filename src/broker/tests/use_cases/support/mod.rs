//! A broker over ports in memory: `World::new().issue_to("api-0", "orders")`.

mod checkpoints;
mod ports;
mod store;

use std::sync::Arc;
use std::time::Duration;

use dayfly_broker::{
    Audiences, BadParts, Bearer, Broker, Error, IssueRequest, Issued, Parts, Policies, RenewRequest, Renewed,
};
use dayfly_core::ids::{ClusterName, LeaseId};
use dayfly_core::live::LiveCaps;
use dayfly_core::ports::{Clock as _, Cluster, LeaseStore, TestClock, TestRng};
use dayfly_core::secret::Secret;
use dayfly_core::session::SessionTokens;
use dayfly_core::spiffe::ServedDomain;
use dayfly_core::time::Timestamp;
use dayfly_policy::{File, Loaded, Reserved, Severity, UnownedGrace, load};

pub(crate) use checkpoints::FakeCheckpoints;
pub(crate) use ports::{FakeCluster, FakeEngine, FakeKeeper, FakeSessions, uid_of};
pub(crate) use store::{FakeStore, Hang, UNTIL};

pub(crate) const POLICY: &str = "
apiVersion: dayfly.dev/v1alpha1
kind: Owner
metadata: {name: payments}
spec: {displayName: Payments, contacts: [a@example.com], namespaces: {names: [payments]}}
---
apiVersion: dayfly.dev/v1alpha1
kind: Owner
metadata: {name: checkout}
spec: {displayName: Checkout, contacts: [a@example.com], namespaces: {names: [checkout]}}
---
apiVersion: dayfly.dev/v1alpha1
kind: Target
metadata: {name: orders}
spec:
  jwt: {audiences: ['https://orders.example']}
  maxTtl: 1h
  verifiers: [{namespace: orders, serviceAccount: gate}]
  ceiling: [{namespaces: [payments, checkout], scopes: [read, write]}]
---
apiVersion: dayfly.dev/v1alpha1
kind: Target
metadata: {name: ledger}
spec: {jwt: {audiences: ['https://ledger.example']}, maxTtl: 1h, ceiling: [{namespaces: [payments], scopes: [read]}]}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: orders, namespace: payments}
spec: {serviceAccounts: [api], target: orders, scope: [read, write], defaultTtl: 5m, maxTtl: 15m}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: orders, namespace: checkout}
spec: {serviceAccounts: [web], target: orders, scope: [read], defaultTtl: 5m, maxTtl: 15m}
";

pub(crate) struct World {
    pub(crate) store: Arc<FakeStore>,
    pub(crate) engine: Arc<FakeEngine>,
    pub(crate) keeper: Arc<FakeKeeper>,
    pub(crate) checkpoints: Arc<FakeCheckpoints>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) clusters: Vec<Arc<FakeCluster>>,
    pub(crate) policies: Arc<Policies>,
    pub(crate) broker: Arc<Broker>,
}

impl World {
    /// One cluster, `east`.
    pub(crate) fn new() -> Self {
        Self::of(&["east"], None).unwrap()
    }

    /// Several clusters of one policy; operators of `home` act on all of them.
    pub(crate) fn of(names: &[&str], home: Option<&str>) -> Result<Self, BadParts> {
        let issuers: Vec<_> = names.iter().map(|name| (*name, *name)).collect();
        Self::made(&issuers, home, None, home.is_some() || names.len() == 1)
    }

    /// Several clusters, each with its issuer: the first part of its tokens.
    pub(crate) fn with(named: &[(&str, &str)]) -> Self {
        Self::made(named, None, None, false).unwrap()
    }

    /// One cluster, `east`, with a grace for namespaces without an Owner.
    pub(crate) fn with_grace(until: Timestamp) -> Self {
        Self::made(&[("east", "east")], None, Some(UnownedGrace { until }), true).unwrap()
    }

    /// One cluster, `east`, whose operators get no sessions.
    pub(crate) fn without_sessions() -> Self {
        Self::made(&[("east", "east")], None, None, false).unwrap()
    }

    /// The same store, of one cluster, after a restart of its broker.
    pub(crate) fn restarted(&self) -> Self {
        let (clock, store) = (Arc::clone(&self.clock), Arc::clone(&self.store));
        Self::over(&[("east", "east")], None, None, true, clock, store).unwrap()
    }

    fn made(
        named: &[(&str, &str)],
        home: Option<&str>,
        grace: Option<UnownedGrace>,
        sessions: bool,
    ) -> Result<Self, BadParts> {
        let clock = Arc::new(TestClock::at(Timestamp::from_millis(1_795_435_200_250)));
        let store = Arc::new(FakeStore::new(Arc::clone(&clock)));
        Self::over(named, home, grace, sessions, clock, store)
    }

    fn over(
        named: &[(&str, &str)],
        home: Option<&str>,
        grace: Option<UnownedGrace>,
        sessions: bool,
        clock: Arc<TestClock>,
        store: Arc<FakeStore>,
    ) -> Result<Self, BadParts> {
        let names: Vec<_> = named.iter().map(|(name, _)| *name).collect();
        let engine = Arc::new(FakeEngine::default());
        let keeper = Arc::new(FakeKeeper::default());
        let checkpoints = Arc::new(FakeCheckpoints::default());
        let clusters: Vec<_> = names.iter().map(|name| Arc::new(FakeCluster::new(name))).collect();
        let of_names = names.iter().map(|name| name.parse::<ClusterName>().unwrap());
        let mut policies = Policies::new(of_names, Duration::from_secs(600));
        if let Some(grace) = grace {
            policies = policies.with_grace("east".parse().unwrap(), grace);
        }
        let policies = Arc::new(policies);
        for name in &names {
            policies.replace(&name.parse().unwrap(), loaded(POLICY), clock.monotonic()).unwrap();
        }
        let ports = named.iter().zip(&clusters).map(|((name, issuer), cluster)| Cluster {
            name: name.parse().unwrap(),
            issuer: format!("https://{issuer}"),
            reviewer: Arc::<FakeCluster>::clone(cluster),
            directory: Arc::<FakeCluster>::clone(cluster),
            authorizer: Arc::<FakeCluster>::clone(cluster),
        });
        let broker = Arc::new(Broker::new(Parts {
            store: Arc::<FakeStore>::clone(&store),
            clusters: ports.collect(),
            home_cluster: home.map(|home| home.parse().unwrap()),
            policies: Arc::clone(&policies),
            engine: Arc::<FakeEngine>::clone(&engine),
            keys: Arc::<FakeKeeper>::clone(&keeper),
            sessions: sessions.then(|| Arc::<FakeSessions>::default() as Arc<dyn SessionTokens>),
            checkpoints: Arc::<FakeCheckpoints>::clone(&checkpoints),
            clock: Arc::<TestClock>::clone(&clock),
            rng: Arc::new(TestRng::new(11 + store.mark().position.number())),
            teardown_rate: 1000,
            live_caps: LiveCaps { per_workload: Some(2000), ..LiveCaps::default() },
            issuer: "https://dayfly.example".to_owned(),
            trust_domains: vec![
                ServedDomain::new(
                    "prod.example".parse().unwrap(),
                    names.iter().map(|n| n.parse().unwrap()).collect(),
                    None,
                )
                .unwrap(),
            ],
            audiences: Audiences {
                workload: "dayfly".parse().unwrap(),
                operator: "dayfly-operator".parse().unwrap(),
                verifier: "dayfly-verifier".parse().unwrap(),
            },
            issuer_of: Arc::new(|token| {
                Some(format!("https://{}", token.expose_text().ok()?.split_once('/')?.0))
            }),
            lease_id_of: Arc::new(|token| {
                token.expose_text().ok()?.split('/').nth(1)?.parse::<LeaseId>().ok()
            }),
        })?);
        Ok(Self { store, engine, keeper, checkpoints, clock, clusters, policies, broker })
    }

    pub(crate) fn east(&self) -> &FakeCluster {
        &self.clusters[0]
    }

    /// Puts another policy in force in `east`.
    pub(crate) fn policy(&self, text: &str) {
        self.policies.replace(&"east".parse().unwrap(), loaded(text), self.clock.monotonic()).unwrap();
    }

    /// The same, of a policy about which there are warnings.
    pub(crate) fn policy_with_warnings(&self, text: &str) {
        let file = File { name: "p.yaml".to_owned(), text: text.to_owned() };
        let loaded = load(&[file], &Reserved::default());
        assert!(loaded.problems.iter().all(|problem| problem.severity == Severity::Warning));
        self.policies.replace(&"east".parse().unwrap(), loaded, self.clock.monotonic()).unwrap();
    }

    pub(crate) async fn issue(&self, token: &Secret, request: &IssueRequest) -> Result<Issued, Error> {
        self.broker.issue(bearer(token), request).await
    }

    /// The default request of `payments/api`.
    pub(crate) async fn issued(&self) -> Issued {
        self.issue(&api(), &orders()).await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) async fn renew(&self, token: &Secret, request: &RenewRequest) -> Result<Renewed, Error> {
        self.broker.renew(bearer(token), request).await
    }

    /// A lease renewed by `payments/api`.
    pub(crate) async fn renewed(&self, lease: LeaseId) -> Renewed {
        self.renew(&api(), &renewal(lease)).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The reason for which a request of `payments/api` is refused.
    pub(crate) async fn refusal(&self, request: &IssueRequest) -> Error {
        refused(self.issue(&api(), request).await)
    }

    /// What the store would list of its own accord.
    pub(crate) fn rules(&self) -> usize {
        self.store.rules().len()
    }
}

pub(crate) fn refused<T>(result: Result<T, Error>) -> Error {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(error) => error,
    }
}

pub(crate) fn loaded(text: &str) -> Loaded {
    let loaded = load(&[File { name: "p.yaml".to_owned(), text: text.to_owned() }], &Reserved::default());
    assert_eq!(loaded.problems, [], "the tests' policy is right");
    loaded
}

pub(crate) fn bearer(token: &Secret) -> Bearer<'_> {
    Bearer { token, cluster: None, verified: None }
}

pub(crate) fn secret(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

/// The token of pod `api-0` of `payments/api`.
pub(crate) fn api() -> Secret {
    secret("east/dayfly/system:serviceaccount:payments:api/api-0")
}

/// The token of pod `web-0` of `checkout/web`.
pub(crate) fn web() -> Secret {
    secret("east/dayfly/system:serviceaccount:checkout:web/web-0")
}

/// An operator's token.
pub(crate) fn operator(name: &str) -> Secret {
    secret(&format!("east/dayfly-operator/{name}"))
}

/// The token of the verifier that target `orders` lists.
pub(crate) fn gate() -> Secret {
    secret("east/dayfly-verifier/system:serviceaccount:orders:gate/gate-0")
}

/// The token of another pod of `payments/api`.
pub(crate) fn other_pod() -> Secret {
    secret("east/dayfly/system:serviceaccount:payments:api/api-1")
}

/// A request to renew a lease as it is.
pub(crate) fn renewal(lease: LeaseId) -> RenewRequest {
    RenewRequest { lease, scope: Vec::new(), ttl: None, confirmation: None, idempotency_key: None }
}

/// A request for target `orders`.
pub(crate) fn orders() -> IssueRequest {
    IssueRequest {
        target: "orders".parse().unwrap(),
        grant: None,
        scope: Vec::new(),
        audience: None,
        ttl: None,
        confirmation: None,
        idempotency_key: None,
    }
}
