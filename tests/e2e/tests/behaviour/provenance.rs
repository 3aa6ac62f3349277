//! Where a workload came from: what the lease says of it, and what it does not believe.

use std::collections::BTreeMap;

use dayfly_api::v1;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::{Cluster, Kind};
use dayfly_e2e::control_plane;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{Pod, World};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

on_both!(a_lease_says_what_controls_its_pod, what_others_control_is_not_claimed);

/// The lease of a credential of this pod, as an operator sees it.
async fn lease(world: &World, pod: &Pod<'_>, target: &str) -> v1::Lease {
    let issued = pod.issue(target).await.unwrap();
    world.admin().await.unwrap().lease(&issued.lease.unwrap().id).await.unwrap()
}

/// `Kind/name` of its controllers, from the pod's own up.
fn controllers(lease: &v1::Lease) -> Vec<String> {
    let provenance = lease.provenance.as_ref();
    let all = provenance.into_iter().flat_map(|provenance| &provenance.controllers);
    all.map(|object| format!("{}/{}", object.kind, object.name)).collect()
}

async fn create<K>(api: &Api<K>, object: Value) -> String
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize + kube::Resource,
{
    let object: K = serde_json::from_value(object).unwrap();
    let created = api.create(&PostParams::default(), &object).await.unwrap();
    created.meta().uid.clone().unwrap()
}

fn reference(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!({ "apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true })
}

fn template() -> Value {
    json!({
        "metadata": { "labels": { "app": "api" } },
        "spec": {
            "nodeName": control_plane::NODE,
            "serviceAccountName": "api",
            "containers": [{ "name": "main", "image": "registry.k8s.io/pause" }],
        },
    })
}

fn deployment(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "api" } }, "template": template() },
    })
}

fn replica_set(name: &str, controllers: &[Value]) -> Value {
    json!({
        "metadata": { "name": name, "ownerReferences": controllers },
        "spec": { "selector": { "matchLabels": { "app": "api" } }, "template": template() },
    })
}

/// A running pod of service account `api` that says what controls it.
async fn claiming<'w>(world: &'w World, namespace: &str, name: &str, controller: Value) -> Pod<'w> {
    let pods: Api<core::Pod> = Api::namespaced(world.cluster().client(), namespace);
    let mut pod = template();
    pod["metadata"] = json!({ "name": name, "ownerReferences": [controller] });
    if !world.is_real() {
        pod["spec"].as_object_mut().unwrap().remove("nodeName");
    }
    let uid = create(&pods, pod).await;
    world.cluster().set_pod_phase(namespace, name, "Running").await.unwrap();
    world.pod_that_is(namespace, "api", name, &uid)
}

/// Without a controller manager: what controls what is written by hand.
async fn a_lease_says_what_controls_its_pod(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let client = world.cluster().client();
    let mut top = deployment("api");
    top["metadata"]["labels"] = json!({
        "kustomize.toolkit.fluxcd.io/name": "shop", "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
    });
    let deployed = create(&Api::<Deployment>::namespaced(client.clone(), &team.namespace), top).await;
    let sets: Api<ReplicaSet> = Api::namespaced(client, &team.namespace);
    let set =
        create(&sets, replica_set("api-7d", &[reference("apps/v1", "Deployment", "api", &deployed)])).await;
    let controller = reference("apps/v1", "ReplicaSet", "api-7d", &set);
    let pod = claiming(&world, &team.namespace, "api-7d-x", controller).await;
    let lease = lease(&world, &pod, &team.target).await;
    assert_eq!(controllers(&lease), ["ReplicaSet/api-7d", "Deployment/api"]);
    let provenance = lease.provenance.unwrap();
    let top = &provenance.controllers[1];
    assert_eq!((top.api_version.as_str(), &top.namespace, &top.uid), ("apps/v1", &team.namespace, &deployed));
    let applied = provenance.applied_by.unwrap();
    assert_eq!(
        (applied.kind.as_str(), applied.namespace.as_str(), applied.name.as_str(), applied.uid.as_str()),
        ("Kustomization", "flux-system", "shop", "")
    );
    let issued = pod.issue(&team.target).await.unwrap().lease.unwrap();
    assert_eq!(issued.provenance, None, "it is told to operators only");
}

async fn what_others_control_is_not_claimed(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let theirs = world.team("payments").await.unwrap();
    let ours = world.team("checkout").await.unwrap();
    let sets: Api<ReplicaSet> = Api::namespaced(world.cluster().client(), &theirs.namespace);
    let uid = create(&sets, replica_set("api-7d", &[])).await;
    let other = create(&sets, replica_set("other", &[])).await;

    // Theirs, so that it is known and fresh in the broker's memory.
    let good = reference("apps/v1", "ReplicaSet", "api-7d", &uid);
    let pod = claiming(&world, &theirs.namespace, "good", good.clone()).await;
    assert_eq!(controllers(&lease(&world, &pod, &theirs.target).await), ["ReplicaSet/api-7d"]);

    // Ours, with the right name and uid, of which there is no such thing in our namespace.
    let pod = claiming(&world, &ours.namespace, "stranger", good).await;
    assert_eq!(controllers(&lease(&world, &pod, &ours.target).await), [""; 0]);
    // One of their own, of another uid, or of another's.
    let unknown = "0192f0c1-5d0e-4a39-8b1d-2f6a1c9e4b70";
    for (name, uid) in [("a", unknown), ("b", other.as_str())] {
        let claim = reference("apps/v1", "ReplicaSet", "api-7d", uid);
        let pod = claiming(&world, &theirs.namespace, &format!("wrong-{name}"), claim).await;
        assert_eq!(controllers(&lease(&world, &pod, &theirs.target).await), [""; 0]);
    }
    // What the broker may not read, and what is no kind, is no reason to refuse.
    for (api_version, kind) in [("v1", "Secret"), ("example.org/v1", "Thing")] {
        let claim = reference(api_version, kind, "api", unknown);
        let pod = claiming(&world, &theirs.namespace, &kind.to_lowercase(), claim).await;
        assert_eq!(controllers(&lease(&world, &pod, &theirs.target).await), [""; 0]);
    }
}

/// The real controllers make the ReplicaSet and the pod, and copy annotations as they do.
#[test]
fn a_deployments_pod_is_known_as_such() {
    dayfly_e2e::run::run(async {
        let options =
            control_plane::Options { controller_manager: true, ..control_plane::Options::default() };
        let cluster = Cluster::start_real(options).await.unwrap();
        let world = World::on(cluster, Options::default()).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let client = world.cluster().client();
        let mut made = deployment("api");
        let tracking = format!("shop:apps/Deployment:{}/api", team.namespace);
        made["metadata"]["annotations"] = json!({ "argocd.argoproj.io/tracking-id": tracking });
        let uid = create(&Api::<Deployment>::namespaced(client.clone(), &team.namespace), made).await;

        let pods: Api<core::Pod> = Api::namespaced(client, &team.namespace);
        let mut pod = None;
        let app = ListParams::default().labels("app=api");
        until(async || {
            pod = pods.list(&app).await?.items.pop();
            Ok(pod.is_some())
        })
        .await
        .unwrap();
        let metadata = pod.unwrap().metadata;
        let (name, pod_uid) = (metadata.name.unwrap(), metadata.uid.unwrap());
        // As its kubelet would.
        let digest = format!("sha256:{}", "a1".repeat(32));
        let status = json!({ "status": { "phase": "Running", "containerStatuses": [{
            "name": "main", "image": "registry.k8s.io/pause:latest", "ready": true, "restartCount": 0,
            "imageID": format!("registry.k8s.io/pause@{digest}"),
        }]}});
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();

        let pod = world.pod_that_is(&team.namespace, "api", &name, &pod_uid);
        let mut provenance = v1::Provenance::default();
        until(async || {
            provenance = lease(&world, &pod, &team.target).await.provenance.unwrap_or_default();
            Ok(!provenance.images.is_empty())
        })
        .await
        .unwrap();
        let [set, top] = provenance.controllers.as_slice() else { panic!("{provenance:?}") };
        assert_eq!((set.kind.as_str(), top.kind.as_str(), &top.uid), ("ReplicaSet", "Deployment", &uid));
        assert!(name.starts_with(&set.name) && set.name.starts_with("api-"), "{provenance:?}");
        let image = &provenance.images[0];
        assert_eq!((image.container.as_str(), &image.digest), ("main", &digest));
        assert_eq!(provenance.applied_by.unwrap().name, "shop");
    });
}

/// A kind of somebody's own is followed where the broker was given the right to read it.
#[test]
fn a_controller_of_a_custom_kind_is_known() {
    dayfly_e2e::run::run(async {
        let world = World::shared(Kind::Real).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let client = world.cluster().client();
        for (plural, kind) in [("rollouts", "Rollout"), ("secretrollouts", "SecretRollout")] {
            serve(&world, plural, kind).await;
        }
        may_read(&world, "rollouts").await;
        for (kind, known) in [("Rollout", true), ("SecretRollout", false)] {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("dayfly.test", "v1", kind));
            let objects: Api<DynamicObject> =
                Api::namespaced_with(client.clone(), &team.namespace, &resource);
            let mut object = DynamicObject::new("api", &resource);
            object.metadata.labels =
                Some(BTreeMap::from([("argocd.argoproj.io/instance".into(), "shop".into())]));
            let made = objects.create(&PostParams::default(), &object).await.unwrap();
            let claim = reference("dayfly.test/v1", kind, "api", &made.metadata.uid.unwrap());
            let pod = claiming(&world, &team.namespace, &kind.to_lowercase(), claim).await;
            let lease = lease(&world, &pod, &team.target).await;
            let expected = if known { vec![format!("{kind}/api")] } else { vec![] };
            assert_eq!(controllers(&lease), expected);
            let applied = lease.provenance.and_then(|provenance| provenance.applied_by);
            assert_eq!(applied.map(|by| by.name), known.then(|| "shop".to_owned()));
        }
    });
}

/// Makes a kind of group `dayfly.test`.
async fn serve(world: &World, plural: &str, kind: &str) {
    let definitions: Api<CustomResourceDefinition> = Api::all(world.cluster().client());
    let schema = json!({ "openAPIV3Schema": { "type": "object" } });
    let definition = json!({
        "metadata": { "name": format!("{plural}.dayfly.test") },
        "spec": {
            "group": "dayfly.test", "scope": "Namespaced",
            "names": { "plural": plural, "singular": kind.to_lowercase(), "kind": kind },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": schema }],
        },
    });
    create(&definitions, definition).await;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("dayfly.test", "v1", kind));
    let objects: Api<DynamicObject> = Api::all_with(world.cluster().client(), &resource);
    until(async || Ok(objects.list(&ListParams::default()).await.is_ok())).await.unwrap();
    // Discovery comes a moment after.
    until(async || {
        let kinds = world.cluster().client().list_api_group_resources("dayfly.test/v1").await;
        Ok(kinds.is_ok_and(|kinds| kinds.resources.iter().any(|it| it.kind == kind)))
    })
    .await
    .unwrap();
}

/// Gives the broker what `deploy/rbac.yaml` has as an example.
async fn may_read(world: &World, plural: &str) {
    let client = world.cluster().client();
    let rules = json!([{ "apiGroups": ["dayfly.test"], "resources": [plural], "verbs": ["get"] }]);
    let role = json!({ "metadata": { "name": "dayfly-test" }, "rules": rules });
    create(&Api::<ClusterRole>::all(client.clone()), role).await;
    let binding = json!({
        "metadata": { "name": "dayfly-test" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "dayfly-test" },
        "subjects": [{ "kind": "ServiceAccount", "namespace": "dayfly", "name": "dayfly" }],
    });
    create(&Api::<ClusterRoleBinding>::all(client), binding).await;
    let review = json!({ "metadata": {}, "spec": {
        "user": "system:serviceaccount:dayfly:dayfly",
        "resourceAttributes": { "group": "dayfly.test", "resource": plural, "verb": "get", "namespace": "default" },
    }});
    let review: k8s_openapi::api::authorization::v1::SubjectAccessReview =
        serde_json::from_value(review).unwrap();
    let reviews = Api::all(world.cluster().client());
    until(async || {
        let answer: k8s_openapi::api::authorization::v1::SubjectAccessReview =
            reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    })
    .await
    .unwrap();
}
