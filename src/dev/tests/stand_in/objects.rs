//! Objects and refusals.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use crate::{Shop, status};

#[tokio::test]
async fn objects_have_the_real_shapes() {
    let shop = Shop::open().await;
    let namespaces = Api::<Namespace>::all(shop.client.clone());
    let namespace = namespaces.get("shop").await.unwrap();
    assert_eq!(namespace.status.unwrap().phase.as_deref(), Some("Active"));
    assert_eq!(namespace.metadata.labels.unwrap()["kubernetes.io/metadata.name"], "shop");

    let accounts =
        Api::<ServiceAccount>::all(shop.client.clone()).list(&ListParams::default()).await.unwrap();
    let names: Vec<_> =
        accounts.items.iter().map(|account| account.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["cart", "default"]);
    assert!(accounts.metadata.resource_version.unwrap().parse::<u64>().unwrap() > 0);

    let pod = shop.pods().get("cart-0").await.unwrap();
    assert_eq!(pod.metadata.uid.as_deref(), Some(shop.pod_uid.as_str()));
    assert!(pod.metadata.creation_timestamp.is_some());
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Running"));
    let spec = pod.spec.unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("cart"));
    assert!(spec.node_name.is_some());

    let metadata = shop.pods().list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items[0].metadata.uid.as_deref(), Some(shop.pod_uid.as_str()));
}

#[tokio::test]
async fn refusals_are_statuses_with_the_right_codes() {
    let shop = Shop::open().await;
    let pods = shop.pods();
    assert_eq!(reason(pods.get("nobody").await), (404, "NotFound".to_owned()));
    let again = pod("cart-0", "cart");
    assert_eq!(reason(pods.create(&PostParams::default(), &again).await), (409, "AlreadyExists".to_owned()));
    let stranger = pod("cart-1", "nobody");
    assert_eq!(reason(pods.create(&PostParams::default(), &stranger).await), (403, "Forbidden".to_owned()));
    let misnamed = pod("Cart_1", "cart");
    assert_eq!(reason(pods.create(&PostParams::default(), &misnamed).await), (422, "Invalid".to_owned()));
    let elsewhere = Api::<Pod>::namespaced(shop.client.clone(), "nowhere");
    let nowhere = elsewhere.create(&PostParams::default(), &pod("a", "default")).await;
    assert_eq!(reason(nowhere), (404, "NotFound".to_owned()));
    let stale: Value = json!({"metadata": {"resourceVersion": "1"}});
    let stale = pods.patch("cart-0", &PatchParams::default(), &Patch::Merge(stale)).await;
    assert_eq!(reason(stale), (409, "Conflict".to_owned()));
    let configs = Api::<ConfigMap>::all(shop.client.clone());
    assert_eq!(reason(configs.list(&ListParams::default()).await), (404, "NotFound".to_owned()));
}

#[tokio::test]
async fn a_pod_ends_by_grace_or_at_once() {
    let shop = Shop::open().await;
    let pods = shop.pods();
    let marked = pods.delete("cart-0", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some());
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(30));
    assert!(pods.get_opt("cart-0").await.unwrap().is_some());

    let other_uid = DeleteParams {
        preconditions: Some(Preconditions { uid: Some("other".into()), resource_version: None }),
        ..DeleteParams::default().grace_period(0)
    };
    assert_eq!(reason(pods.delete("cart-0", &other_uid).await).0, 409);
    pods.delete("cart-0", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(pods.get_opt("cart-0").await.unwrap().is_none());

    let again = pods.create(&PostParams::default(), &pod("cart-0", "cart")).await.unwrap();
    assert_ne!(again.metadata.uid.as_deref(), Some(shop.pod_uid.as_str()));
}

#[tokio::test]
async fn a_status_is_patched_by_its_subresource_alone() {
    let shop = Shop::open().await;
    let pods = shop.pods();
    let failed = json!({"status": {"phase": "Failed"}, "metadata": {"labels": {"ignored": "yes"}}});
    let patched = pods.patch_status("cart-0", &PatchParams::default(), &Patch::Merge(&failed)).await.unwrap();
    assert_eq!(patched.status.unwrap().phase.as_deref(), Some("Failed"));
    assert_eq!(patched.metadata.labels, None);

    let labelled =
        json!({"status": {"phase": "Running"}, "metadata": {"labels": {"app": "cart"}, "uid": "x"}});
    let patched = pods.patch("cart-0", &PatchParams::default(), &Patch::Merge(&labelled)).await.unwrap();
    assert_eq!(patched.status.unwrap().phase.as_deref(), Some("Failed"));
    assert_eq!(patched.metadata.labels, Some(BTreeMap::from([("app".to_owned(), "cart".to_owned())])));
    assert_eq!(patched.metadata.uid.as_deref(), Some(shop.pod_uid.as_str()));

    shop.stand_in.set_pod_phase("shop", "cart-0", "Succeeded").unwrap();
    assert_eq!(pods.get_status("cart-0").await.unwrap().status.unwrap().phase.as_deref(), Some("Succeeded"));
}

#[tokio::test]
async fn a_deployments_pod_refers_to_what_controls_it() {
    let shop = Shop::open().await;
    let uid = shop.stand_in.create_pod_of("shop", "cart", "cart-7d-1", "cart").unwrap();
    shop.stand_in.create_pod_of("shop", "cart", "cart-7d-2", "cart").unwrap();
    let pod = shop.pods().get("cart-7d-1").await.unwrap();
    assert_eq!(pod.metadata.uid.as_deref(), Some(uid.as_str()));
    assert_eq!(pod.metadata.labels.unwrap()["app"], "cart");
    let status = &pod.status.unwrap().container_statuses.unwrap()[0];
    let (name, digest) = status.image_id.split_once("@sha256:").unwrap();
    assert_eq!((name, digest.len()), ("registry.invalid/cart", 64));

    let reference = &pod.metadata.owner_references.unwrap()[0];
    let sets = Api::<ReplicaSet>::namespaced(shop.client.clone(), "shop");
    let set = sets.get_metadata(&reference.name).await.unwrap();
    assert_eq!(
        (set.metadata.uid.as_deref(), reference.controller),
        (Some(reference.uid.as_str()), Some(true))
    );
    let reference = &set.metadata.owner_references.unwrap()[0];
    let deployments = Api::<Deployment>::all(shop.client.clone()).list(&ListParams::default()).await.unwrap();
    assert_eq!(deployments.items.len(), 1, "both pods are of it");
    assert_eq!(deployments.items[0].metadata.uid.as_deref(), Some(reference.uid.as_str()));
    // A plural is of one group only.
    let core: Result<Value, _> = shop
        .client
        .request(http::Request::get("/api/v1/namespaces/shop/deployments").body(vec![]).unwrap())
        .await;
    assert_eq!(reason(core), (404, "NotFound".to_owned()));
}

fn pod(name: &str, account: &str) -> Pod {
    let spec = json!({"serviceAccountName": account, "containers": [{"name": "main", "image": "none"}]});
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

fn reason<T>(result: kube::Result<T>) -> (u16, String) {
    let status = status(result);
    (status.code, status.reason)
}
