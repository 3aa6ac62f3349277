//! When the API server is gone, or the broker starts anew: no answer is wrong, none hangs, and all comes back by itself.

use std::time::Duration;

use dayfly_api::v1;
use dayfly_e2e::broker::{Broker, Options};
use dayfly_e2e::cluster::{Cluster, Kind};
use dayfly_e2e::control_plane;
use dayfly_e2e::run::until;
use dayfly_e2e::wire::{Mode, Wire};
use dayfly_e2e::world::{
    OPERATOR, VERIFIER, WORKLOAD, World, asking_for, bearing, leases_of, owned_by, reason, retry_after,
    revocation,
};
use tonic::{Code, Status};

on_both!(
    without_its_api_server_the_broker_says_so_and_comes_back,
    a_call_without_a_deadline_gets_the_servers,
    a_crowded_broker_sheds_workloads_and_not_operators,
    a_pod_that_loops_is_shed_and_its_neighbours_and_operators_are_served,
    what_was_issued_and_revoked_survives_a_restart,
);

#[test]
fn a_killed_api_server_is_told_and_comes_back() {
    dayfly_e2e::run::run(async {
        let cluster = Cluster::start_real(control_plane::Options::default()).await.unwrap();
        let world = World::on(cluster, Options::default()).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let pod = world.pod(&team.namespace, "api").await.unwrap();
        let issued = pod.issue(&team.target).await.unwrap();
        let unused = Tokens::of(&world, &pod).await;
        world.cluster().kill_api_server().await.unwrap();
        unused.are_told_that_the_cluster_is_gone(&world).await;
        world.cluster().restart_api_server().await.unwrap();
        comes_back(&world, &team, &unused, &issued).await;
    });
}

#[test]
fn a_broker_that_lacks_its_rights_says_which() {
    dayfly_e2e::run::run(async {
        let cluster = Cluster::shared(Kind::Real).await.unwrap();
        let namespace = "without-rights";
        cluster.create_namespace(namespace).await.unwrap();
        cluster.create_service_account(namespace, "dayfly").await.unwrap();
        let mut access = cluster.access().await.unwrap();
        access.token = cluster.token(namespace, "dayfly", &[], None, 3600).await.unwrap();
        let broker = Broker::prepare(access, Options::default()).unwrap();
        broker.launch_unready().await.unwrap();
        let says = |what: &str| broker.log().contains(&format!("may not list {what} (403)"));
        until(async || Ok(says("pods") && says("serviceaccounts")))
            .await
            .unwrap_or_else(|_| panic!("{}", broker.log()));
        assert!(!broker.serves().await);
        broker.stop().await.unwrap();
    });
}

/// Tokens that the broker has not seen before, so that it has no review of them.
struct Tokens {
    workload: String,
    operator: String,
    verifier: String,
    target: String,
    owner: String,
}

impl Tokens {
    async fn of(world: &World, pod: &dayfly_e2e::world::Pod<'_>) -> Self {
        world.cluster().allow(&pod.namespace, "api", &["revoke"], Some(&pod.namespace)).await.unwrap();
        Self {
            workload: pod.token_for(WORKLOAD).await.unwrap(),
            operator: pod.token_for(OPERATOR).await.unwrap(),
            verifier: pod.token_for(VERIFIER).await.unwrap(),
            target: format!("{}-ledger", pod.namespace),
            owner: pod.namespace.clone(),
        }
    }

    async fn issue(&self, world: &World) -> Result<v1::IssueResponse, Status> {
        world.issue_with(&self.workload, asking_for(&self.target)).await
    }

    async fn revoke(&self, world: &World) -> Result<(), Status> {
        let mut client = v1::operator_service_client::OperatorServiceClient::new(world.broker().channel());
        let request = revocation(owned_by(&self.owner), v1::After::Reissue);
        client.revoke(bearing(&self.operator, request)).await.map(drop)
    }

    async fn introspect(&self, world: &World) -> Result<(), Status> {
        let request = v1::IntrospectRequest { credential: "sesame".to_owned() };
        world.verifiers().introspect(bearing(&self.verifier, request)).await.map(drop)
    }

    async fn are_told_that_the_cluster_is_gone(&self, world: &World) {
        let told = async |what: &str, call: &mut (dyn Future<Output = Result<(), Status>> + Unpin)| {
            let answer = tokio::time::timeout(Duration::from_secs(5), call).await;
            let Ok(answer) = answer else { panic!("{what} hangs") };
            let status = answer.unwrap_err();
            assert_eq!(
                (reason(&status).as_str(), status.code()),
                ("CLUSTER_UNAVAILABLE", Code::Unavailable),
                "{what}"
            );
            assert!(retry_after(&status).is_some_and(|after| !after.is_zero()), "{what}: {status:?}");
        };
        told("Issue", &mut Box::pin(async { self.issue(world).await.map(drop) })).await;
        told("Revoke", &mut Box::pin(self.revoke(world))).await;
        told("Introspect", &mut Box::pin(self.introspect(world))).await;
    }
}

/// Waits until all works again, without a restart of the broker, and what was issued before is as it was.
async fn comes_back(
    world: &World,
    team: &dayfly_e2e::world::Team,
    tokens: &Tokens,
    issued: &v1::IssueResponse,
) {
    let again = async |what: Result<(), Status>| match what {
        Ok(()) => Ok(true),
        Err(status) if status.code() == Code::Unavailable => Ok(false),
        Err(status) => Err(status.into()),
    };
    until(async || again(tokens.issue(world).await.map(drop)).await).await.unwrap();
    until(async || again(tokens.introspect(world).await).await).await.unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
    until(async || again(tokens.revoke(world).await).await).await.unwrap();
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Revoked);
    // News of pods arrive again.
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    pod.issue(&team.target).await.unwrap();
    world.cluster().delete_pod(&pod.namespace, &pod.name, true).await.unwrap();
    until(async || Ok(pod.ask(asking_for(&team.target)).await?.is_err())).await.unwrap();
}

/// A broker that reaches the shared cluster by a wire.
pub(crate) async fn by_wire(kind: Kind, mut options: Options) -> (World, Wire) {
    let cluster = Cluster::shared(kind).await.unwrap();
    let access = cluster.access().await.unwrap();
    let (_, address) = access.server.split_once("://").unwrap();
    let wire = Wire::to(address.parse().unwrap()).await.unwrap();
    options.by_way_of = Some(wire.addr());
    let broker = Broker::start(access, options).await.unwrap();
    (World::of(cluster, std::sync::Arc::new(broker)), wire)
}

async fn without_its_api_server_the_broker_says_so_and_comes_back(kind: Kind) {
    let (world, wire) = by_wire(kind, Options::default()).await;
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let issued = pod.issue(&team.target).await.unwrap();
    for mode in [Mode::Cut, Mode::Silent] {
        let tokens = Tokens::of(&world, &pod).await;
        wire.set(mode);
        tokens.are_told_that_the_cluster_is_gone(&world).await;
        wire.set(Mode::Open);
        let issued = if mode == Mode::Cut { &issued } else { &pod.issue(&team.target).await.unwrap() };
        comes_back(&world, &team, &tokens, issued).await;
    }
}

async fn a_call_without_a_deadline_gets_the_servers(kind: Kind) {
    let limits = [("call_timeout_secs", 2), ("review_timeout_secs", 60)].into();
    let (world, wire) = by_wire(kind, Options { limits, ..Options::default() }).await;
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let token = pod.token().await.unwrap();
    wire.set(Mode::Silent);
    let asked = tokio::time::Instant::now();
    let late = world.issue_with(&token, asking_for(&team.target)).await.unwrap_err();
    assert_eq!((reason(&late).as_str(), late.code()), ("DEADLINE", Code::DeadlineExceeded));
    let took = asked.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&took), "{took:?}");
    wire.set(Mode::Open);
    until(async || Ok(world.issue_with(&token, asking_for(&team.target)).await.is_ok())).await.unwrap();
}

async fn a_crowded_broker_sheds_workloads_and_not_operators(kind: Kind) {
    let limits = [("calls_at_once", 2), ("review_timeout_secs", 60), ("call_timeout_secs", 60)].into();
    let (world, wire) = by_wire(kind, Options { limits, ..Options::default() }).await;
    let team = world.team("payments").await.unwrap();
    let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let [a, b, c] = [
        pod.token_for(WORKLOAD).await.unwrap(),
        pod.token_for(WORKLOAD).await.unwrap(),
        pod.token_for(VERIFIER).await.unwrap(),
    ];
    operator.revoke(owned_by(&team.owner)).await.unwrap();
    wire.set(Mode::Silent);
    let stuck = futures_util::future::join_all([&a, &b].map(async |token| {
        loop {
            match world.issue_with(token, asking_for(&team.target)).await {
                // By the other and by those who look.
                Err(status) if reason(&status) == "OVERLOADED" => {}
                ended => return ended,
            }
        }
    }));
    let meanwhile = async {
        let mut shed = None;
        until(async || {
            let request = v1::IntrospectRequest { credential: "sesame".to_owned() };
            let mut verifiers = world.verifiers();
            let asked = verifiers.introspect(bearing(&c, request));
            let answer = tokio::time::timeout(Duration::from_millis(200), asked).await;
            shed = answer.ok().and_then(Result::err).filter(|status| reason(status) == "OVERLOADED");
            Ok(shed.is_some())
        })
        .await
        .unwrap();
        let shed = shed.unwrap();
        assert_eq!(shed.code(), Code::ResourceExhausted);
        assert!(retry_after(&shed).is_some_and(|after| !after.is_zero()), "{shed:?}");
        // Operators are let in, and wait for the API server like everyone.
        let revoke = operator.revoke(owned_by(&team.owner));
        let answer = tokio::time::timeout(Duration::from_millis(500), revoke).await;
        assert!(answer.is_err(), "{answer:?}");
        wire.set(Mode::Cut);
    };
    let (stuck, ()) = tokio::join!(stuck, meanwhile);
    for late in stuck {
        assert_eq!(reason(&late.unwrap_err()), "CLUSTER_UNAVAILABLE");
    }
    wire.set(Mode::Open);
    until(async || Ok(operator.revoke(owned_by(&team.owner)).await.is_ok())).await.unwrap();
}

async fn a_pod_that_loops_is_shed_and_its_neighbours_and_operators_are_served(kind: Kind) {
    let limits = [("calls_per_second_of_one_workload", 1), ("burst_of_one_workload", 5)].into();
    let world = World::with_own_broker(kind, Options { limits, ..Options::default() }).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let neighbour = world.pod(&team.namespace, "api").await.unwrap();
    let issued = neighbour.issue(&team.target).await.unwrap();
    // As one that crashes and asks anew at each start, each time with another token.
    let (mut served, mut shed) = (0, None);
    for _ in 0..20 {
        let token = pod.token_for(WORKLOAD).await.unwrap();
        match world.issue_with(&token, asking_for(&team.target)).await {
            Ok(_) => served += 1,
            Err(status) => {
                assert_eq!(
                    (reason(&status).as_str(), status.code()),
                    ("OVERLOADED", Code::ResourceExhausted)
                );
                shed = Some(status);
            }
        }
    }
    assert!((5..15).contains(&served), "{served}");
    let hint = retry_after(&shed.unwrap()).unwrap();
    assert!(!hint.is_zero() && hint <= Duration::from_secs(1), "{hint:?}");
    for _ in 0..3 {
        neighbour.issue(&team.target).await.unwrap();
        assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
    }
    operator.revoke(owned_by(&team.owner)).await.unwrap();
    until(async || Ok(pod.ask(asking_for(&team.target)).await?.is_ok())).await.unwrap();
}

async fn what_was_issued_and_revoked_survives_a_restart(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let (team, held) = (world.team("payments").await.unwrap(), world.team("orders").await.unwrap());
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let held_pod = world.pod(&held.namespace, "api").await.unwrap();
    let repeatable = v1::IssueRequest { idempotency_key: "once".to_owned(), ..asking_for(&team.target) };
    let living = pod.ask(repeatable.clone()).await.unwrap().unwrap();
    let revoked = pod.issue(&team.target).await.unwrap();
    held_pod.issue(&held.target).await.unwrap();
    let admin = world.admin().await.unwrap();
    let lease = v1::Selector { lease: revoked.lease.clone().unwrap().id, ..v1::Selector::default() };
    let rules = [admin.revoke(lease).await.unwrap(), admin.hold(owned_by(&held.owner)).await.unwrap()];
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let introspect = async || {
        let mut answers = Vec::new();
        for issued in [&living, &revoked] {
            answers.push(verifier.introspect(&issued.credential).await.unwrap().lease.unwrap());
        }
        answers
    };
    let keys = async || world.verifiers().get_keys(v1::GetKeysRequest {}).await.unwrap().into_inner();
    let (told, published) = (introspect().await, keys().await);
    let listed = admin.all_leases(leases_of(&team.owner)).await.unwrap();
    let first = admin.leases(v1::ListLeasesRequest { page_size: 1, ..leases_of(&team.owner) }).await.unwrap();

    for _ in 0..2 {
        world.broker().restart().await.unwrap();
        assert_eq!(introspect().await, told);
        assert_eq!(keys().await, published);
        assert_eq!(admin.all_leases(leases_of(&team.owner)).await.unwrap(), listed);
        for rule in &rules {
            assert_eq!(&admin.revocation(&rule.id).await.unwrap(), rule);
        }
        assert_eq!(reason(&held_pod.is_denied(&held.target).await.unwrap()), "HELD");
        assert_eq!(pod.ask(repeatable.clone()).await.unwrap().unwrap().lease, living.lease);
    }
    // A page token survives a restart.
    let second = v1::ListLeasesRequest { page_token: first.next_page_token, ..leases_of(&team.owner) };
    assert_eq!(admin.leases(second).await.unwrap().leases, listed[1..]);
    let newer = pod.issue(&team.target).await.unwrap().lease.unwrap();
    assert!(newer.id > rules[1].cut_off);
    assert_eq!(newer.key_id, living.lease.clone().unwrap().key_id);
}
