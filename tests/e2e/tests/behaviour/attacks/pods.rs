//! Pods that say of themselves that they are another's. Whoever makes a pod can write its labels and ownerReferences.

use dayfly_api::v1;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::control_plane::NODE;
use dayfly_e2e::policy;
use dayfly_e2e::world::{Pod, Team, World, asking_for};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use super::{Attack, Scene, asking_by};

/// The uids of the Deployments named `ledger`: of the pod's own namespace, and of another team's.
struct Deployed {
    own: String,
    others: String,
}

/// The `metadata` of pods in a namespace whose Owner delegates to another: pods with the label `team: rival`, and those of
/// the Deployment `ledger`. Each asks for a scope that only the other Owner's namespaces may have.
const NARROWED: &[Attack<Deployed, Value>] = &[
    Attack {
        name: "label-of-another-team",
        gets: "SCOPE_ABOVE_CEILING",
        sends: |_| vec![json!({ "labels": { "team": "rival" } })],
    },
    Attack {
        name: "controller-adopted",
        gets: "SCOPE_ABOVE_CEILING",
        sends: |deployed| {
            vec![json!({ "ownerReferences": [reference("Deployment", "ledger", &deployed.own, true)] })]
        },
    },
];

/// The same, of pods that are not even narrowed.
const NOT_NARROWED: &[Attack<Deployed, Value>] = &[
    Attack {
        name: "label-case-and-place",
        gets: "SCOPE_ABOVE_CEILING",
        sends: |_| {
            vec![
                json!({ "labels": { "Team": "rival" } }),
                json!({ "labels": { "team": "Rival" } }),
                json!({ "labels": { "team": "rival.x" } }),
                json!({ "labels": { "dayfly.dev/team": "rival" } }),
                json!({ "annotations": { "team": "rival" } }),
                json!({ "labels": { "owner": "rival", "dayfly.dev/owner": "rival" } }),
            ]
        },
    },
    Attack {
        name: "controller-of-wrong-uid",
        gets: "SCOPE_ABOVE_CEILING",
        sends: |_| {
            vec![
                json!({ "ownerReferences": [reference("Deployment", "ledger", "0192f0c1-5d0e-4a39-8b1d-2f6a1c9e4b70", true)] }),
            ]
        },
    },
    Attack {
        name: "controller-of-another-namespace",
        gets: "SCOPE_ABOVE_CEILING",
        sends: |deployed| {
            vec![json!({ "ownerReferences": [reference("Deployment", "ledger", &deployed.others, true)] })]
        },
    },
    Attack {
        name: "controller-that-controls-not",
        gets: "SCOPE_ABOVE_CEILING",
        sends: |deployed| {
            let mut silent = reference("Deployment", "ledger", &deployed.own, false);
            let said = silent.clone();
            silent.as_object_mut().unwrap().remove("controller");
            vec![json!({ "ownerReferences": [said] }), json!({ "ownerReferences": [silent] })]
        },
    },
    Attack {
        name: "controller-of-another-kind",
        gets: "SCOPE_ABOVE_CEILING",
        sends: |deployed| {
            vec![
                json!({ "ownerReferences": [reference("ReplicaSet", "ledger", &deployed.own, true)] }),
                json!({ "ownerReferences": [reference("Deployment", "other", &deployed.own, true)] }),
            ]
        },
    },
];

/// Labels that count on another object only.
const MISPLACED: &[(&str, &str)] =
    &[("namespace-label-on-a-pod", "UNOWNED"), ("account-label-on-a-pod", "GRANT_UNKNOWN")];

pub(super) fn names() -> Vec<(&'static str, &'static str)> {
    let pods = NARROWED.iter().chain(NOT_NARROWED).map(|attack| (attack.name, attack.gets));
    pods.chain(MISPLACED.iter().copied()).collect()
}

pub(super) async fn run(scene: &Scene<'_>) {
    let world = scene.world;
    let team = shared_namespace(world).await;
    let deployed = Deployed {
        own: deploy(world, &team.namespace).await,
        others: deploy(world, &scene.teams.victim.namespace).await,
    };
    for (attacks, narrowed) in [(NARROWED, "rival"), (NOT_NARROWED, "")] {
        for attack in attacks {
            for (n, metadata) in (attack.sends)(&deployed).into_iter().enumerate() {
                let what = format!("{}: {metadata}", attack.name);
                let pod = pod(world, &team.namespace, &format!("{}-{n}", attack.name), metadata).await;
                let more = v1::IssueRequest { scope: vec!["list".to_owned()], ..asking_for(&team.target) };
                assert_eq!(scene.ask(&pod, more).await, attack.gets, "{what}");
                let own = v1::IssueRequest { scope: vec!["read".to_owned()], ..asking_for(&team.target) };
                let lease = pod.ask(own).await.unwrap().unwrap().lease.unwrap();
                let owners = (lease.owner.as_str(), lease.narrowed_owner.as_str());
                assert_eq!(owners, (team.owner.as_str(), narrowed), "{what}");
            }
        }
    }
    misplaced(scene, &team).await;
}

/// A namespace whose Owner delegates to `rival`, and a target that gives `list` to the namespaces of `rival` alone.
async fn shared_namespace(world: &World) -> Team {
    let mut team = world.unsettled_team("shared").await.unwrap();
    team.owner_object["spec"]["delegates"] = json!([
        { "owner": "rival", "labels": [{ "team": "rival" }] },
        { "owner": "rival", "controllers": [{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "ledger" }] },
    ]);
    team.target_object["spec"]["ceiling"] = json!([
        { "namespaces": [team.namespace], "scopes": ["read"] },
        { "owners": ["rival"], "scopes": ["read", "list"] },
    ]);
    team.grant_object["spec"]["scope"] = json!(["read", "list"]);
    let rival = policy::owner("rival", &["rival"]);
    world.put(&[&rival, &team.owner_object, &team.target_object, &team.grant_object]).await.unwrap();
    team
}

/// A pod that wears what only a namespace's, or a service account's, label may say.
async fn misplaced(scene: &Scene<'_>, team: &Team) {
    let world = scene.world;
    let labels = json!({ "labels": { "env": "prod", "tier": "gold" } });
    for (name, gets) in MISPLACED {
        let (namespace, request) = if name.starts_with("namespace") {
            // Grant and Target are there: only the Owner is missing, who answers for namespaces with that label.
            let unowned = world.unsettled_team("plain").await.unwrap();
            let mut owner = policy::owner("by-label", &[]);
            owner["spec"]["namespaces"] = json!({ "labels": [{ "env": "prod" }] });
            world.put(&[&owner, &unowned.target_object, &unowned.grant_object]).await.unwrap();
            (unowned.namespace, asking_for(&unowned.target))
        } else {
            let mut grant = team.grant_object.clone();
            grant["metadata"]["name"] = json!("by-label");
            grant["spec"]["serviceAccounts"] = json!([]);
            grant["spec"]["serviceAccountLabels"] = json!([{ "tier": "gold" }]);
            world.put(&[&grant]).await.unwrap();
            (team.namespace.clone(), asking_by("by-label", &team.target))
        };
        let pod = pod(world, &namespace, name, labels.clone()).await;
        assert_eq!(scene.ask(&pod, request).await, *gets, "{name}");
    }
}

async fn deploy(world: &World, namespace: &str) -> String {
    let deployments: Api<Deployment> = Api::namespaced(world.cluster().client(), namespace);
    let made: Deployment = serde_json::from_value(json!({
        "metadata": { "name": "ledger" },
        "spec": { "selector": { "matchLabels": { "app": "ledger" } }, "template": {
            "metadata": { "labels": { "app": "ledger" } },
            "spec": { "containers": [{ "name": "main", "image": "registry.k8s.io/pause" }] },
        }},
    }))
    .unwrap();
    deployments.create(&PostParams::default(), &made).await.unwrap().metadata.uid.unwrap()
}

fn reference(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": controller })
}

/// A running pod of service account `api`.
async fn pod<'w>(world: &'w World, namespace: &str, name: &str, mut metadata: Value) -> Pod<'w> {
    metadata["name"] = json!(name);
    let mut spec = json!({ "serviceAccountName": "api", "containers": [{ "name": "main", "image": "registry.k8s.io/pause" }] });
    if world.cluster().kind() == Kind::Real {
        spec["nodeName"] = json!(NODE);
    }
    let pods: Api<core::Pod> = Api::namespaced(world.cluster().client(), namespace);
    let made: core::Pod = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
    let uid = pods.create(&PostParams::default(), &made).await.unwrap().metadata.uid.unwrap();
    world.cluster().set_pod_phase(namespace, name, "Running").await.unwrap();
    world.pod_that_is(namespace, "api", name, &uid)
}
