use dayfly_core::ports::Cluster;
use serde_json::Value;

use super::*;
use crate::testing::{Answer, Fake, controlled, reference};

/// What the chain of a pod is that refers to this.
async fn chain(cluster: &Cluster, first: &Value) -> (Vec<String>, ChainEnd) {
    let chain = whole_chain(cluster, first).await;
    (chain.controllers.iter().map(ToString::to_string).collect(), chain.end)
}

async fn whole_chain(cluster: &Cluster, first: &Value) -> ControllerChain {
    chain_in(cluster, "payments", first).await
}

async fn chain_in(cluster: &Cluster, namespace: &str, first: &Value) -> ControllerChain {
    let namespace = namespace.parse().unwrap();
    let references: Vec<OwnerReference> = serde_json::from_value(Value::Array(vec![first.clone()])).unwrap();
    let first = controller(&references, Some(&namespace)).unwrap();
    cluster.directory.controllers(&namespace, &first).await
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Deployment `api` (1), its ReplicaSet `api-7d` (2).
async fn shop() -> (Arc<Fake>, Cluster) {
    let fake = Fake::start().await;
    fake.store("deployments", controlled("api", 1, &[]));
    fake.store("replicasets", controlled("api-7d", 2, &[reference("apps/v1 Deployment api", 1)]));
    let running = fake.connect(|config| config.limits.review_timeout = Duration::from_secs(3)).await;
    let cluster = running.cluster();
    // The informers are not what this is about.
    running.shutdown().await;
    (fake, cluster)
}

fn replica_set() -> Value {
    reference("apps/v1 ReplicaSet api-7d", 2)
}

#[tokio::test]
async fn is_followed_to_the_top_and_kept_for_a_minute() {
    let (fake, cluster) = shop().await;
    let first = replica_set();
    let all = futures_util::future::join_all((0..20).map(|_| chain(&cluster, &first))).await;
    for found in all {
        assert_eq!(found, (names(&["ReplicaSet/api-7d", "Deployment/api"]), ChainEnd::Top));
    }
    let reads = || (fake.count("get replicasets"), fake.count("get deployments"));
    assert_eq!(reads(), (1, 1), "all who ask at once share the reads");
    fake.clock.advance(Duration::from_secs(59));
    chain(&cluster, &replica_set()).await;
    assert_eq!(reads(), (1, 1));
    fake.clock.advance(Duration::from_secs(1));
    chain(&cluster, &replica_set()).await;
    assert_eq!(reads(), (2, 2));
    let found = whole_chain(&cluster, &replica_set()).await.controllers;
    assert_eq!((found[1].api_version.as_str(), found[1].uid), ("apps/v1", Some(Uid::from_u128(1))));
    assert_eq!(found[1].namespace.as_ref().unwrap().as_str(), "payments");
}

#[tokio::test]
async fn every_kind_of_kubernetes_own_is_followed() {
    let (fake, cluster) = shop().await;
    for (what, plural) in [
        ("apps/v1 StatefulSet x", "statefulsets"),
        ("apps/v1 DaemonSet x", "daemonsets"),
        ("batch/v1 Job x", "jobs"),
        ("batch/v1 CronJob x", "cronjobs"),
        ("v1 ReplicationController x", "replicationcontrollers"),
    ] {
        fake.store(plural, controlled("x", 9, &[]));
        let (found, end) = chain(&cluster, &reference(what, 9)).await;
        assert!(end == ChainEnd::Top && found.len() == 1, "{what}");
        assert_eq!(fake.count(&format!("get {plural}")), 1);
    }
}

/// The uid is what a pod's author cannot guess of another's controller, and cannot use if it was told.
#[tokio::test]
async fn is_not_believed_of_another_uid_or_namespace() {
    let (fake, cluster) = shop().await;
    assert_eq!(
        chain(&cluster, &reference("apps/v1 ReplicaSet api-7d", 3)).await,
        (names(&[]), ChainEnd::Broken)
    );
    fake.store("replicasets", controlled("web-5c", 4, &[reference("apps/v1 Deployment api", 7)]));
    let stops = chain(&cluster, &reference("apps/v1 ReplicaSet web-5c", 4)).await;
    assert_eq!(stops, (names(&["ReplicaSet/web-5c"]), ChainEnd::Broken), "further up");

    // The right uid, known and warm, from another namespace, or under another name or kind.
    assert_eq!(chain(&cluster, &replica_set()).await.1, ChainEnd::Top);
    let elsewhere = chain_in(&cluster, "checkout", &replica_set()).await;
    assert_eq!(elsewhere, ControllerChain { end: ChainEnd::Broken, ..ControllerChain::default() });
    for what in ["apps/v1 ReplicaSet web-5c", "apps/v1 Deployment api", "apps/v1 ReplicaSet none"] {
        assert_eq!(chain(&cluster, &reference(what, 2)).await, (names(&[]), ChainEnd::Broken), "{what}");
    }
}

#[tokio::test]
async fn only_controllers_are_followed() {
    let (fake, cluster) = shop().await;
    let mut owner = reference("apps/v1 Deployment api", 1);
    owner["controller"] = false.into();
    fake.store("replicasets", controlled("alone", 5, &[owner]));
    let found = chain(&cluster, &reference("apps/v1 ReplicaSet alone", 5)).await;
    assert_eq!(found, (names(&["ReplicaSet/alone"]), ChainEnd::Top));
    // Two, or one that cannot be followed: which is the top is not known.
    let twice = [reference("apps/v1 Deployment api", 1), reference("apps/v1 Deployment web", 6)];
    fake.store("replicasets", controlled("twice", 6, &twice));
    let found = chain(&cluster, &reference("apps/v1 ReplicaSet twice", 6)).await;
    assert_eq!(found, (names(&["ReplicaSet/twice"]), ChainEnd::Broken));
}

#[tokio::test]
async fn loops_end_and_long_chains_are_cut() {
    let (fake, cluster) = shop().await;
    fake.store("jobs", controlled("a", 10, &[reference("batch/v1 Job b", 11)]));
    fake.store("jobs", controlled("b", 11, &[reference("batch/v1 Job a", 10)]));
    fake.store("jobs", controlled("self", 12, &[reference("batch/v1 Job self", 12)]));
    assert_eq!(
        chain(&cluster, &reference("batch/v1 Job a", 10)).await,
        (names(&["Job/a", "Job/b"]), ChainEnd::Broken)
    );
    assert_eq!(
        chain(&cluster, &reference("batch/v1 Job self", 12)).await,
        (names(&["Job/self"]), ChainEnd::Broken)
    );

    for n in 100..=108 {
        let above = [reference(&format!("batch/v1 Job j{}", n + 1), n + 1)];
        fake.store("jobs", controlled(&format!("j{n}"), n, if n == 108 { &[] } else { &above }));
    }
    let (found, end) = chain(&cluster, &reference("batch/v1 Job j100", 100)).await;
    assert_eq!((found.len(), end), (CONTROLLERS, ChainEnd::Broken));
    let (found, end) = chain(&cluster, &reference("batch/v1 Job j101", 101)).await;
    assert_eq!((found.len(), found.last().unwrap().as_str(), end), (CONTROLLERS, "Job/j108", ChainEnd::Top));
}

#[tokio::test]
async fn what_cannot_be_read_is_not_known() {
    for (answer, again_after, ends) in [
        (Answer::Status(403, None), 60, ChainEnd::Unknown),
        (Answer::Status(404, None), 5, ChainEnd::Unknown),
        (Answer::Status(503, None), 5, ChainEnd::Unknown),
        (Answer::Body("<html>".to_owned()), 5, ChainEnd::Unknown),
        (Answer::Hang, 5, ChainEnd::Unknown),
    ] {
        let (fake, cluster) = shop().await;
        fake.answer("get deployments", answer);
        assert_eq!(chain(&cluster, &replica_set()).await, (names(&["ReplicaSet/api-7d"]), ends));
        // Not asked for again at once, so that nothing waits for it each time.
        chain(&cluster, &replica_set()).await;
        assert_eq!(fake.count("get deployments"), 1);
        fake.recover("get deployments");
        fake.clock.advance(Duration::from_secs(again_after));
        assert_eq!(chain(&cluster, &replica_set()).await.1, ChainEnd::Top);
    }
    let (fake, cluster) = shop().await;
    fake.forget("deployments", "payments", "api");
    assert_eq!(
        chain(&cluster, &replica_set()).await,
        (names(&["ReplicaSet/api-7d"]), ChainEnd::Broken),
        "gone"
    );
}

#[tokio::test]
async fn custom_kinds_are_discovered() {
    let (fake, cluster) = shop().await;
    fake.serve("argoproj.io/v1alpha1", "Rollout/status", "rollouts/status", true);
    fake.serve("argoproj.io/v1alpha1", "Rollout", "rollouts", true);
    fake.serve("argoproj.io/v1alpha1", "ClusterRollout", "clusterrollouts", false);
    fake.store("rollouts", controlled("api", 20, &[]));
    fake.store("replicasets", controlled("api-1", 21, &[reference("argoproj.io/v1alpha1 Rollout api", 20)]));
    let rollout = reference("apps/v1 ReplicaSet api-1", 21);
    assert_eq!(chain(&cluster, &rollout).await, (names(&["ReplicaSet/api-1", "Rollout/api"]), ChainEnd::Top));
    fake.clock.advance(Duration::from_secs(61));
    chain(&cluster, &rollout).await;
    assert_eq!((fake.count("get rollouts"), fake.count("discover argoproj.io/v1alpha1")), (2, 1));
    fake.clock.advance(Duration::from_secs(300));
    chain(&cluster, &rollout).await;
    assert_eq!(fake.count("discover argoproj.io/v1alpha1"), 2);

    // Not served, of the whole cluster, of no such group, one that may not be read.
    for what in [
        "argoproj.io/v1alpha1 Workflow x",
        "argoproj.io/v1alpha1 ClusterRollout x",
        "example.com/v1 X x",
        "v1 Node x",
    ] {
        assert_eq!(chain(&cluster, &reference(what, 22)).await, (names(&[]), ChainEnd::Broken), "{what}");
    }
    fake.answer("get rollouts", Answer::Status(403, None));
    fake.clock.advance(Duration::from_secs(60));
    let known = (names(&["ReplicaSet/api-1", "Rollout/api"]), ChainEnd::Top);
    assert_eq!(chain(&cluster, &rollout).await, known, "as it was known");
    fake.clock.advance(Duration::from_secs(600));
    assert_eq!(chain(&cluster, &rollout).await, (names(&["ReplicaSet/api-1"]), ChainEnd::Unknown));
}

/// Whoever is narrowed to an owner, and held by that owner's revocation, is not set free by an overloaded API server.
#[tokio::test]
async fn what_was_known_is_believed_for_ten_minutes_where_the_api_server_cannot_say() {
    let (fake, cluster) = shop().await;
    let known = chain(&cluster, &replica_set()).await;
    assert_eq!(known.1, ChainEnd::Top);
    fake.answer("get replicasets", Answer::Status(429, None));
    fake.answer("get deployments", Answer::Hang);
    for secs in [60, 300, 230] {
        fake.clock.advance(Duration::from_secs(secs));
        assert_eq!(chain(&cluster, &replica_set()).await, known);
        chain(&cluster, &replica_set()).await;
    }
    assert_eq!((fake.count("get replicasets"), fake.count("get deployments")), (4, 4));
    fake.clock.advance(Duration::from_secs(10));
    assert_eq!(chain(&cluster, &replica_set()).await, (names(&[]), ChainEnd::Unknown));
    fake.recover("get replicasets");
    fake.recover("get deployments");
    fake.clock.advance(Duration::from_secs(5));
    assert_eq!(chain(&cluster, &replica_set()).await, known);
    // That it is gone is said; that it may not be read says nothing of it.
    fake.answer("get deployments", Answer::Status(403, None));
    fake.clock.advance(Duration::from_secs(60));
    assert_eq!(chain(&cluster, &replica_set()).await, known);
    fake.recover("get deployments");
    fake.forget("deployments", "payments", "api");
    fake.clock.advance(Duration::from_secs(60));
    assert_eq!(chain(&cluster, &replica_set()).await, (names(&["ReplicaSet/api-7d"]), ChainEnd::Broken));
}

/// A slow API server does not keep a workload waiting for its provenance.
#[tokio::test]
async fn what_was_found_in_time_is_told() {
    let fake = Fake::start().await;
    fake.store("replicasets", controlled("api-7d", 2, &[reference("apps/v1 Deployment api", 1)]));
    fake.answer("get deployments", Answer::Hang);
    let running = fake.connect(|config| config.limits.review_timeout = Duration::from_millis(300)).await;
    let found = chain(&running.cluster(), &replica_set()).await;
    assert_eq!(found, (names(&["ReplicaSet/api-7d"]), ChainEnd::Unknown));
}

#[tokio::test]
async fn the_top_says_what_applied_it() {
    let (fake, cluster) = shop().await;
    let mut top = controlled("api", 1, &[]);
    top["metadata"]["annotations"]["argocd.argoproj.io/tracking-id"] =
        "shop:apps/Deployment:payments/api".into();
    fake.store("deployments", top.clone());
    // The Deployment controller copies annotations to its ReplicaSets.
    let mut copied = controlled("copied", 3, &[]);
    copied["metadata"]["annotations"] = top["metadata"]["annotations"].clone();
    fake.store("replicasets", copied);
    let applied = whole_chain(&cluster, &replica_set()).await.applied_by.unwrap();
    assert_eq!((applied.to_string().as_str(), applied.uid), ("Application/shop", None));
    assert_eq!(whole_chain(&cluster, &reference("apps/v1 ReplicaSet copied", 3)).await.applied_by, None);
}
