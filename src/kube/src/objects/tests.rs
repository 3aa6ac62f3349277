use super::*;
use crate::testing::pod;

fn read(value: &serde_json::Value) -> Option<PodFacts> {
    // By way of text, as the informer reads it.
    let object: Object = serde_json::from_str(&value.to_string()).unwrap();
    object.read::<Pods>().map(|(_, _, facts)| facts)
}

#[test]
fn keeps_what_is_needed_of_a_pod() {
    let object: Object = serde_json::from_str(
        r#"{"kind": "Pod", "metadata": {"name": "api-0", "namespace": "payments", "resourceVersion": "7",
            "uid": "1c1f8f8e-9f0e-4f0e-8f0e-0c1f8f8e9f0e", "labels": {"a": "b"}, "deletionTimestamp": "2026-11-23T12:00:00Z",
            "annotations": {"other": "x"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "api", "controller": true,
                "uid": "2c1f8f8e-9f0e-4f0e-8f0e-0c1f8f8e9f0e", "blockOwnerDeletion": true}]},
            "spec": {"serviceAccountName": "api", "nodeName": "node-1", "containers": [{"env": [{"value": "x"}]}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "api", "image": "api:1", "ready": true,
                "imageID": "r/api@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}]}}"#,
    )
    .unwrap();
    let (namespace, name, facts) = object.read::<Pods>().unwrap();
    assert_eq!((namespace.as_str(), name.as_str()), ("payments", "api-0"));
    assert_eq!(facts.service_account.as_str(), "api");
    assert_eq!(facts.node.unwrap().as_str(), "node-1");
    assert_eq!(facts.phase, PodPhase::Running);
    assert_eq!(facts.deleting, Some("2026-11-23T12:00:00Z".parse().unwrap()));
    assert_eq!(facts.labels["a"], "b");
    assert_eq!(facts.controller.unwrap().to_string(), "StatefulSet/api");
    assert_eq!((facts.images.len(), facts.images[0].container.as_str()), (1, "api"));
    assert_eq!(facts.applied_by, None);
}

#[test]
fn a_pod_that_is_not_scheduled_has_no_node_and_one_without_service_account_is_not_kept() {
    let mut object = pod("payments", "api-0", 1);
    object.as_object_mut().unwrap().remove("status");
    object["spec"].as_object_mut().unwrap().remove("nodeName");
    let facts = read(&object).unwrap();
    assert_eq!((facts.node, facts.phase), (None, PodPhase::Pending));
    assert!(facts.images.is_empty() && facts.labels.is_empty() && facts.controller.is_none());
    object["spec"].as_object_mut().unwrap().remove("serviceAccountName");
    assert!(read(&object).is_none());
}

#[test]
fn a_deletion_whose_time_does_not_read_is_over() {
    let mut object = pod("payments", "api-0", 1);
    object["metadata"]["deletionTimestamp"] = "soon".into();
    assert_eq!(read(&object).unwrap().deleting, Some(Timestamp::from_secs(0)));
}

#[test]
fn a_namespace_is_filed_under_itself() {
    let object: Object = serde_json::from_str(
        r#"{"metadata": {"name": "payments", "uid": "1c1f8f8e-9f0e-4f0e-8f0e-0c1f8f8e9f0e", "labels": {"team": "a"},
            "deletionTimestamp": "2026-11-23T12:00:00Z"}, "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Terminating"}}"#,
    )
    .unwrap();
    let (namespace, name, facts) = object.read::<Namespaces>().unwrap();
    assert_eq!((&namespace, name.as_str()), (&name, "payments"));
    assert_eq!((facts.labels["team"].as_str(), facts.deleting), ("a", true));
    assert_eq!(Namespaces::path(&namespace, &name), "/api/v1/namespaces/payments");
}
