//! What is kept of pods and service accounts, read from the API server's JSON; the rest is never held.

use std::hash::Hash;
use std::str::FromStr;

use dayfly_core::ids::{Namespace, NodeName, PodName, ServiceAccountName, Uid};
use dayfly_core::ports::{PodFacts, PodPhase, ServiceAccountFacts};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A kind of object that is watched. A further kind, for provenance say, is one more of these.
pub(crate) trait Kind: Send + Sync + 'static {
    /// Its name within its namespace.
    type Name: Hash + Eq + FromStr + AsRef<str> + Clone + Send + Sync + 'static;
    /// What is kept of it.
    type Facts: Clone + Send + Sync + 'static;
    /// Its plural in URLs, in API group core, version v1.
    const PLURAL: &'static str;
    /// RBAC's words for reading one, listing and watching.
    const GET: &'static str;
    /// The same.
    const LIST: &'static str;
    /// The same.
    const WATCH: &'static str;

    /// What is to be kept of an object; none if it has not what every one of its kind has.
    fn facts(object: &Object) -> Option<Self::Facts>;
    /// Its uid.
    fn uid(facts: &Self::Facts) -> Uid;
}

/// Pods.
pub(crate) struct Pods;

impl Kind for Pods {
    type Name = PodName;
    type Facts = PodFacts;
    const PLURAL: &'static str = "pods";
    const GET: &'static str = "get pods";
    const LIST: &'static str = "list pods";
    const WATCH: &'static str = "watch pods";

    fn facts(object: &Object) -> Option<PodFacts> {
        Some(PodFacts {
            uid: object.metadata.uid.parse().ok()?,
            service_account: object.spec.service_account_name.parse().ok()?,
            node: object.spec.node_name.parse::<NodeName>().ok(),
            phase: phase(&object.status.phase),
            deleting: object.metadata.deletion_timestamp.is_some(),
        })
    }

    fn uid(facts: &PodFacts) -> Uid {
        facts.uid
    }
}

fn phase(text: &str) -> PodPhase {
    match text {
        "" | "Pending" => PodPhase::Pending,
        "Running" => PodPhase::Running,
        "Succeeded" => PodPhase::Succeeded,
        "Failed" => PodPhase::Failed,
        _ => PodPhase::Unknown,
    }
}

/// Service accounts.
pub(crate) struct ServiceAccounts;

impl Kind for ServiceAccounts {
    type Name = ServiceAccountName;
    type Facts = ServiceAccountFacts;
    const PLURAL: &'static str = "serviceaccounts";
    const GET: &'static str = "get serviceaccounts";
    const LIST: &'static str = "list serviceaccounts";
    const WATCH: &'static str = "watch serviceaccounts";

    fn facts(object: &Object) -> Option<ServiceAccountFacts> {
        Some(ServiceAccountFacts {
            uid: object.metadata.uid.parse().ok()?,
            deleting: object.metadata.deletion_timestamp.is_some(),
        })
    }

    fn uid(facts: &ServiceAccountFacts) -> Uid {
        facts.uid
    }
}

/// The parts of any object that are read. What else it has is skipped while parsing.
#[derive(Clone, Deserialize)]
pub(crate) struct Object {
    pub(crate) metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

/// Of `metadata`.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    uid: String,
    #[serde(default)]
    pub(crate) resource_version: String,
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    service_account_name: String,
    node_name: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

impl Object {
    /// Its namespace and name, and what is kept of it.
    pub(crate) fn read<K: Kind>(&self) -> Option<(Namespace, K::Name, K::Facts)> {
        Some((self.metadata.namespace.parse().ok()?, self.metadata.name.parse().ok()?, K::facts(self)?))
    }
}

/// One page of a list.
#[derive(Deserialize)]
pub(crate) struct Page {
    pub(crate) metadata: PageMetadata,
    #[serde(default)]
    pub(crate) items: Vec<Object>,
}

/// Of a page's `metadata`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageMetadata {
    #[serde(default)]
    pub(crate) resource_version: String,
    #[serde(rename = "continue", default)]
    pub(crate) more: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_needed_of_a_pod() {
        let object: Object = serde_json::from_str(
            r#"{"kind": "Pod", "metadata": {"name": "api-0", "namespace": "payments", "resourceVersion": "7",
                "uid": "1c1f8f8e-9f0e-4f0e-8f0e-0c1f8f8e9f0e", "labels": {"a": "b"}, "deletionTimestamp": "2026-11-23T12:00:00Z"},
                "spec": {"serviceAccountName": "api", "nodeName": "node-1", "containers": [{"env": [{"value": "x"}]}]},
                "status": {"phase": "Running"}}"#,
        )
        .unwrap();
        let (namespace, name, facts) = object.read::<Pods>().unwrap();
        assert_eq!((namespace.as_str(), name.as_str()), ("payments", "api-0"));
        assert_eq!(facts.service_account.as_str(), "api");
        assert_eq!(facts.node.unwrap().as_str(), "node-1");
        assert_eq!((facts.phase, facts.deleting), (PodPhase::Running, true));
    }

    #[test]
    fn a_pod_that_is_not_scheduled_has_no_node_and_one_without_service_account_is_not_kept() {
        let mut object = crate::testing::pod("payments", "api-0", 1);
        let parse = |value: &serde_json::Value| serde_json::from_value::<Object>(value.clone()).unwrap();
        object["status"] = serde_json::Value::Null;
        object.as_object_mut().unwrap().remove("status");
        object["spec"].as_object_mut().unwrap().remove("nodeName");
        let (_, _, facts) = parse(&object).read::<Pods>().unwrap();
        assert_eq!((facts.node, facts.phase), (None, PodPhase::Pending));
        object["spec"].as_object_mut().unwrap().remove("serviceAccountName");
        assert!(parse(&object).read::<Pods>().is_none());
    }
}
