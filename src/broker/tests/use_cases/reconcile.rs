use std::sync::atomic::Ordering;
use std::time::Duration;

use dayfly_broker::{IssueRequest, Reconciled, Scope};
use dayfly_core::ids::{LeaseId, Uid};
use dayfly_core::lease::Lease;
use dayfly_core::ports::{
    Affected, ChainEnd, Clock as _, ControllerChain, LeaseStore as _, NamespaceFacts, PodFacts, PodPhase,
    ServiceAccountFacts,
};
use dayfly_core::provenance::ObjectRef;

use crate::support::{POLICY, World, api, orders, other_pod, uid_of, web};

async fn look(world: &World, scope: Scope) -> Reconciled {
    world.broker.reconcile(&"east".parse().unwrap(), &scope).await.unwrap()
}

fn affected(namespace: &str, uid: Uid) -> Scope {
    Scope::Of(vec![Affected { namespace: namespace.parse().unwrap(), uid }])
}

async fn issued_to(world: &World, token: &dayfly_core::secret::Secret) -> Lease {
    world.issue(token, &orders()).await.unwrap_or_else(|error| panic!("{error}")).lease.as_ref().clone()
}

/// Which of these leases rules have ended.
fn ended(world: &World, leases: &[&Lease]) -> Vec<bool> {
    let rules = world.store.rules();
    leases.iter().map(|lease| rules.covering(lease).is_some()).collect()
}

/// The selectors and reasons of the rules that were written.
fn told(done: &Reconciled) -> Vec<String> {
    done.rules.iter().map(|rule| format!("{}: {}: {}", rule.by, rule.selector, rule.reason)).collect()
}

#[tokio::test]
async fn what_has_kept_its_ground_stays() {
    let world = World::new();
    let (one, two) = (world.issued().await.lease, issued_to(&world, &web()).await);
    for scope in [Scope::All, affected("payments", uid_of("api-0")), affected("payments", uid_of("nobody"))] {
        let done = look(&world, scope).await;
        assert!(done.rules.is_empty() && done.unknown.is_none(), "{done:?}");
    }
    assert_eq!(ended(&world, &[&one, &two]), [false, false]);
}

#[tokio::test]
async fn a_pod_that_has_gone_or_ended_loses_its_leases_and_no_other() {
    let ends: [fn(PodFacts) -> Option<PodFacts>; 4] = [
        |_| None,
        |pod| Some(PodFacts { phase: PodPhase::Failed, ..pod }),
        |pod| Some(PodFacts { phase: PodPhase::Succeeded, ..pod }),
        |pod| Some(PodFacts { uid: uid_of("another"), ..pod }),
    ];
    for (n, end) in ends.into_iter().enumerate() {
        let world = World::new();
        let mine = world.issued().await.lease;
        let beside = issued_to(&world, &other_pod()).await;
        let elsewhere = issued_to(&world, &web()).await;
        world.east().pod("api-0", end);
        // By what was noticed, or by a look at all, as after a restart.
        let scope = if n % 2 == 0 { affected("payments", uid_of("api-0")) } else { Scope::All };
        let done = look(&world, scope.clone()).await;
        assert_eq!(ended(&world, &[&mine, &beside, &elsewhere]), [true, false, false], "{done:?}");
        let [said] = told(&done).try_into().unwrap();
        let begins = format!("dayfly: cluster=east, pod-uid={}: pod payments/api-0 ", uid_of("api-0"));
        assert!(said.starts_with(&begins), "{said}");
        assert!(look(&world, scope).await.rules.is_empty(), "once");
    }
}

#[tokio::test]
async fn a_pod_that_finishes_its_work_keeps_its_leases() {
    let world = World::new();
    let lease = world.issued().await.lease;
    let long_ago = world.clock.now().as_secs() - 60;
    world.east().pod("api-0", |pod| {
        Some(PodFacts { deleting: Some(dayfly_core::time::Timestamp::from_secs(long_ago)), ..pod })
    });
    let namespace =
        NamespaceFacts { uid: uid_of("payments"), labels: std::sync::Arc::default(), deleting: true };
    world.east().namespace("payments", Some(namespace));
    assert!(look(&world, Scope::All).await.rules.is_empty());
    assert_eq!(ended(&world, &[&lease]), [false]);
}

#[tokio::test]
async fn a_service_account_that_has_gone_or_is_another_loses_all_its_pods_leases() {
    let another =
        ServiceAccountFacts { uid: uid_of("another"), deleting: false, labels: std::sync::Arc::default() };
    for now in [None, Some(another)] {
        let world = World::new();
        let leases = [world.issued().await.lease.as_ref().clone(), issued_to(&world, &other_pod()).await];
        let elsewhere = issued_to(&world, &web()).await;
        world.east().account("api", now);
        let done = look(&world, affected("payments", uid_of("api"))).await;
        assert_eq!(ended(&world, &[&leases[0], &leases[1], &elsewhere]), [true, true, false]);
        let [said] = told(&done).try_into().unwrap();
        assert!(
            said.contains(&format!("service-account-uid={}", uid_of("api"))),
            "one rule for all of them: {said}"
        );
    }
}

/// Each with the selector of its rule and what it says.
#[tokio::test]
async fn what_policy_would_not_give_any_more_is_ended() {
    let grant = POLICY.split("---\n").find(|object| object.contains("{name: orders, namespace: payments}"));
    let grant = grant.unwrap();
    let narrower = grant.replace("scope: [read, write]", "scope: [read]");
    let cases = [
        (
            POLICY.replace(&format!("---\n{grant}"), ""),
            "grant=payments/orders",
            "does not give this any more",
        ),
        (POLICY.replace(grant, &narrower), "service-account-uid=", "does not have scope write"),
        (
            POLICY.replace("scopes: [read, write]", "scopes: [read]"),
            "service-account-uid=",
            "scope write is above",
        ),
        (POLICY.replace("  maxTtl: 1h\n", "  maxTtl: 1m\n"), "service-account-uid=", "60 s at most now"),
        (
            POLICY.replace("{name: orders}\nspec:\n  jwt", "{name: others}\nspec:\n  jwt"),
            "target=orders",
            "no valid Target orders",
        ),
        (
            POLICY.replace(
                "metadata: {name: payments}\nspec: {displayName",
                "metadata: {name: pay}\nspec: {displayName",
            ),
            "service-account-uid=",
            "another owner answers",
        ),
        (
            POLICY.replace("namespaces: {names: [payments]}", "namespaces: {names: [nowhere]}"),
            "service-account-uid=",
            "has no Owner",
        ),
    ];
    for (policy, selector, reason) in cases {
        assert_ne!(policy, POLICY, "{reason}");
        // One by one; and where they are many, all that are alike.
        for (beside, selector) in [(0, "lease="), (64, selector)] {
            let world = World::new();
            let (mine, elsewhere) = (world.issued().await.lease, issued_to(&world, &web()).await);
            for _ in 0..beside {
                world.issued().await;
            }
            world.policy_with_warnings(&policy);
            let done = look(&world, Scope::All).await;
            let said = told(&done);
            assert!(
                said.iter().any(|said| said.contains(selector) && said.contains(reason)),
                "{reason}: {said:?}"
            );
            assert!(ended(&world, &[&mine])[0], "{reason}");
            let both = ["60 s at most", "Target orders"].iter().any(|of_target| reason.contains(of_target));
            assert_eq!(ended(&world, &[&elsewhere])[0], both, "{reason}");
            assert!(said.len() <= 2, "{said:?}");
            assert!(look(&world, Scope::All).await.rules.is_empty(), "once: {reason}");
        }
    }
}

/// What was issued under the policy of now, before the rule was written, is not ended with the rest.
#[tokio::test]
async fn what_policy_gives_now_stays() {
    let world = World::new();
    let before = world.issued().await.lease;
    world.policy(&POLICY.replace("scope: [read, write], defaultTtl", "scope: [read], defaultTtl"));
    let since = world.issued().await.lease;
    look(&world, Scope::All).await;
    assert_eq!(ended(&world, &[&before, &since]), [true, false]);
}

#[tokio::test]
async fn a_clock_that_is_set_back_ends_nothing() {
    let world = World::new();
    let all_that_policy_gives = Duration::from_secs(15 * 60);
    world.clock.jump(100);
    let request = IssueRequest { ttl: Some(all_that_policy_gives), ..orders() };
    let lease = world.issue(&api(), &request).await.unwrap_or_else(|error| panic!("{error}")).lease;
    assert_eq!(lease.expires_at.since(lease.issued_at), all_that_policy_gives);
    world.clock.jump(-100);
    let done = look(&world, Scope::All).await;
    assert!(done.rules.is_empty(), "{:?}", told(&done));
    assert_eq!(ended(&world, &[&lease]), [false]);
}

#[tokio::test]
async fn a_wider_policy_ends_nothing_and_a_shorter_life_only_what_is_longer() {
    let world = World::new();
    let lease = world.issued().await.lease;
    world.policy(
        &POLICY
            .replace("scopes: [read, write]", "scopes: [read, write, delete]")
            .replace("maxTtl: 1h", "maxTtl: 2h"),
    );
    assert!(look(&world, Scope::All).await.rules.is_empty());
    world.policy_with_warnings(&POLICY.replace("  maxTtl: 1h\n", "  maxTtl: 2m\n"));
    world.clock.advance(lease.expires_at.since(lease.issued_at).saturating_sub(Duration::from_secs(110)));
    assert!(look(&world, Scope::All).await.rules.is_empty(), "what is left of it is not longer");
}

#[tokio::test]
async fn nothing_is_ended_for_lack_of_news() {
    let world = World::new();
    let lease = world.issued().await.lease;
    world.east().pod("api-0", |_| None);
    world.east().silent.store(true, Ordering::SeqCst);
    for scope in [Scope::All, affected("payments", uid_of("api-0"))] {
        match world.broker.reconcile(&"east".parse().unwrap(), &scope).await {
            Ok(done) => assert!(done.rules.is_empty() && done.unknown.is_some(), "{done:?}"),
            Err(error) => assert_eq!(error.reason(), dayfly_broker::Reason::ClusterUnavailable),
        }
    }
    world.east().silent.store(false, Ordering::SeqCst);
    // Lists that have not arrived yet.
    world.east().ready.store(false, Ordering::SeqCst);
    world.broker.reconcile(&"east".parse().unwrap(), &Scope::All).await.unwrap_err();
    world.east().ready.store(true, Ordering::SeqCst);
    // A policy that could not be read for too long.
    world.east().pod("api-0", Some);
    world.clock.advance(Duration::from_secs(601));
    let lease_now = world.store.lease(lease.id).await.unwrap().unwrap();
    assert_eq!(ended(&world, &[&lease_now]), [false]);

    // What controls a pod cannot be read, and its owner depends on it.
    let world = World::new();
    world.policy(&POLICY.replace(
        "namespaces: {names: [payments]}}",
        "namespaces: {names: [payments]}, delegates: [{owner: checkout, controllers: [{apiVersion: apps/v1, kind: \
         Deployment, name: api}]}]}",
    ));
    let deployment = ObjectRef {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        namespace: "payments".parse().ok(),
        name: "api".to_owned(),
        uid: Some(uid_of("deployment")),
    };
    let controller = std::sync::Arc::new(deployment.clone());
    world.east().pod("api-0", |pod| Some(PodFacts { controller: Some(controller), ..pod }));
    let chain = |end| ControllerChain { controllers: vec![deployment.clone()], end, applied_by: None };
    world.east().chain(chain(ChainEnd::Top));
    let lease = issued_to(&world, &api()).await;
    world.east().chain(chain(ChainEnd::Unknown));
    let done = look(&world, Scope::All).await;
    assert!(done.rules.is_empty() && done.unknown.is_some(), "{done:?}");
    world.east().chain(chain(ChainEnd::Broken));
    assert_eq!(
        look(&world, Scope::All).await.rules.len(),
        1,
        "it is known not to be the Deployment's any more"
    );
    assert_eq!(ended(&world, &[&lease]), [true]);
}

/// A list that is empty for an error says of each pod that it went. That is a reason to look, and no answer.
#[tokio::test]
async fn an_empty_list_ends_nothing_unless_the_pod_is_not_there() {
    let world = World::new();
    let mine = world.issued().await.lease;
    let beside = issued_to(&world, &other_pod()).await;
    let noticed = || affected("payments", uid_of("api-0"));
    let uncertain = async |look: Scope| {
        let done = world.broker.reconcile(&"east".parse().unwrap(), &look).await;
        assert!(done.is_err() || done.is_ok_and(|done| done.rules.is_empty() && done.unknown.is_some()));
        assert_eq!(ended(&world, &[&mine, &beside]), [false, false]);
    };
    // Whatever is asked meanwhile is not answered.
    world.east().silent.store(true, Ordering::SeqCst);
    for scope in [noticed(), Scope::All] {
        uncertain(scope).await;
    }
    world.east().silent.store(false, Ordering::SeqCst);
    // It is asked, and has the pod.
    for scope in [noticed(), Scope::All] {
        let done = look(&world, scope).await;
        assert!(done.rules.is_empty() && done.unknown.is_none() && done.looked_at > 0, "{done:?}");
    }
    assert_eq!(ended(&world, &[&mine, &beside]), [false, false]);
    // It is asked, and has no such pod.
    world.east().pod("api-0", |_| None);
    assert_eq!(look(&world, noticed()).await.rules.len(), 1);
    assert_eq!(ended(&world, &[&mine, &beside]), [true, false]);
}

/// However many pods go: those without live leases write no rule.
#[tokio::test]
async fn pods_without_live_leases_write_nothing() {
    let world = World::new();
    world.issued().await;
    let done = look(&world, affected("payments", Uid::from_u128(7))).await;
    assert_eq!((done.rules.len(), done.looked_at), (0, 0));
    world.clock.advance(Duration::from_secs(3600));
    world.east().pod("api-0", |_| None);
    assert!(look(&world, Scope::All).await.rules.is_empty(), "what has expired needs no rule");
    assert!(world.store.all().iter().all(|lease| lease.id > LeaseId::from_u128(0)));
}
