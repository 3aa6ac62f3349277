//! What is kept of pods, service accounts and namespaces, read from the API server's JSON; the rest is never held.

use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;

use dayfly_core::ids::{Namespace, NodeName, PodName, ServiceAccountName, Uid};
use dayfly_core::ports::{NamespaceFacts, PodFacts, PodPhase, ServiceAccountFacts};
use dayfly_core::provenance::Labels;
use dayfly_core::time::Timestamp;
use serde::Deserialize;

use crate::containers::{Container, Status, images};
use crate::metadata::{BoundedLabels, Origin, OwnerReference, applied_by, controller};
use crate::sharing::Sharing;

/// A kind of object that is watched, of API group core, version v1. A further one is one more of these.
pub(crate) trait Kind: Send + Sync + 'static {
    /// Its name within its namespace.
    type Name: Hash + Eq + FromStr + AsRef<str> + Clone + Send + Sync + 'static;
    /// What is kept of it.
    type Facts: Clone + Send + Sync + 'static;
    /// Its plural in URLs.
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
    /// Whether it has ended, though it is still there.
    fn has_ended(_: &Self::Facts) -> bool {
        false
    }
    /// Its labels.
    fn labels(facts: &Self::Facts) -> &Labels;
    /// Has what is kept share what others have alike.
    fn share(facts: &mut Self::Facts, with: &mut Sharing);

    /// The namespace it is filed under.
    fn namespace(metadata: &Metadata) -> &str {
        &metadata.namespace
    }

    /// Its path in URLs. Names are checked: nothing in them needs escaping.
    fn path(namespace: &Namespace, name: &Self::Name) -> String {
        format!("/api/v1/namespaces/{namespace}/{}/{}", Self::PLURAL, name.as_ref())
    }
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
        let metadata = &object.metadata;
        let applied_by = applied_by(&metadata.labels, &metadata.annotations, |tracked| {
            tracked.is("", "Pod", &metadata.namespace, &metadata.name)
        });
        let namespace = metadata.namespace.parse().ok();
        let spec = &object.spec;
        let containers = [&spec.containers, &spec.init_containers, &spec.ephemeral_containers];
        let (images, images_known) = images(containers.map(Vec::as_slice), &object.status);
        Some(PodFacts {
            uid: metadata.uid.parse().ok()?,
            service_account: object.spec.service_account_name.parse().ok()?,
            node: object.spec.node_name.parse::<NodeName>().ok(),
            phase: phase(&object.status.phase),
            deleting: metadata.deleting(),
            labels: Arc::clone(&metadata.labels.0),
            controller: controller(&metadata.owner_references, namespace.as_ref()).map(Arc::new),
            images,
            images_known,
            applied_by: applied_by.map(Arc::new),
        })
    }

    fn uid(facts: &PodFacts) -> Uid {
        facts.uid
    }

    fn labels(facts: &PodFacts) -> &Labels {
        &facts.labels
    }

    fn has_ended(facts: &PodFacts) -> bool {
        matches!(facts.phase, PodPhase::Succeeded | PodPhase::Failed)
    }

    fn share(facts: &mut PodFacts, with: &mut Sharing) {
        with.labels.share(&mut facts.labels);
        with.images.share(&mut facts.images);
        facts.controller.iter_mut().chain(&mut facts.applied_by).for_each(|it| with.references.share(it));
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
            deleting: object.metadata.deleting().is_some(),
            labels: Arc::clone(&object.metadata.labels.0),
        })
    }

    fn uid(facts: &ServiceAccountFacts) -> Uid {
        facts.uid
    }

    fn labels(facts: &ServiceAccountFacts) -> &Labels {
        &facts.labels
    }

    fn share(facts: &mut ServiceAccountFacts, with: &mut Sharing) {
        with.labels.share(&mut facts.labels);
    }
}

/// Namespaces, each filed under itself.
pub(crate) struct Namespaces;

impl Kind for Namespaces {
    type Name = Namespace;
    type Facts = NamespaceFacts;
    const PLURAL: &'static str = "namespaces";
    const GET: &'static str = "get namespaces";
    const LIST: &'static str = "list namespaces";
    const WATCH: &'static str = "watch namespaces";

    fn facts(object: &Object) -> Option<NamespaceFacts> {
        Some(NamespaceFacts {
            uid: object.metadata.uid.parse().ok()?,
            labels: Arc::clone(&object.metadata.labels.0),
            deleting: object.metadata.deleting().is_some(),
        })
    }

    fn uid(facts: &NamespaceFacts) -> Uid {
        facts.uid
    }

    fn labels(facts: &NamespaceFacts) -> &Labels {
        &facts.labels
    }

    fn share(facts: &mut NamespaceFacts, with: &mut Sharing) {
        with.labels.share(&mut facts.labels);
    }

    fn namespace(metadata: &Metadata) -> &str {
        &metadata.name
    }

    fn path(_: &Namespace, name: &Namespace) -> String {
        format!("/api/v1/namespaces/{name}")
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
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) namespace: String,
    pub(crate) uid: String,
    #[serde(default)]
    pub(crate) resource_version: String,
    deletion_timestamp: Option<String>,
    #[serde(default)]
    pub(crate) labels: BoundedLabels,
    #[serde(default)]
    pub(crate) annotations: Origin,
    #[serde(default)]
    pub(crate) owner_references: Vec<OwnerReference>,
}

impl Metadata {
    /// Until when it goes on, if it is being deleted. A time that does not read is over.
    fn deleting(&self) -> Option<Timestamp> {
        self.deletion_timestamp.as_ref().map(|time| time.parse().unwrap_or_default())
    }
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    service_account_name: String,
    node_name: String,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    ephemeral_containers: Vec<Container>,
}

impl Object {
    /// Its namespace and name, and what is kept of it.
    pub(crate) fn read<K: Kind>(&self) -> Option<(Namespace, K::Name, K::Facts)> {
        Some((K::namespace(&self.metadata).parse().ok()?, self.metadata.name.parse().ok()?, K::facts(self)?))
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
mod tests;
