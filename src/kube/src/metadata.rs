//! What is read of any object's `metadata` beside its name: labels, its controller, and what GitOps tools left on it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use dayfly_core::ids::{Namespace, ServiceAccountName};
use dayfly_core::provenance::{LABELS, Labels, ObjectRef};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// `metadata.labels`, as long as they are few and as Kubernetes has them; else none. An object of which only some were
/// kept could be taken for another.
#[derive(Debug, Clone)]
pub(crate) struct BoundedLabels(pub(crate) Arc<Labels>);

impl Default for BoundedLabels {
    fn default() -> Self {
        // Most objects of a large cluster that have none share these.
        static NONE: LazyLock<Arc<Labels>> = LazyLock::new(Arc::default);
        Self(Arc::clone(&NONE))
    }
}

impl<'de> Deserialize<'de> for BoundedLabels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;

        impl<'de> Visitor<'de> for Bounded {
            type Value = BoundedLabels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }

            fn visit_unit<E>(self) -> Result<BoundedLabels, E> {
                Ok(BoundedLabels::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BoundedLabels, A::Error> {
                let mut labels = Labels::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if labels.len() == LABELS || !is_label_key(&key) || !is_label_value(&value) {
                        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        return Ok(BoundedLabels::default());
                    }
                    labels.insert(key, value);
                }
                Ok(BoundedLabels(Arc::new(labels)))
            }
        }

        deserializer.deserialize_any(Bounded)
    }
}

/// `[prefix/]name`: a subdomain of at most 253 bytes, a name of at most 63.
fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

/// At most 63 bytes, none at all included.
fn is_label_value(value: &str) -> bool {
    let end = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    bytes.len() <= 63 && bytes.iter().all(inner) && end(bytes.first()) && end(bytes.last())
}

/// RFC 1123 subdomain: what most kinds' names are, and API groups.
fn is_subdomain(text: &str) -> bool {
    // A service account's name is no more and no less.
    text.parse::<ServiceAccountName>().is_ok()
}

/// One of `metadata.ownerReferences`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct OwnerReference {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    controller: Option<bool>,
}

impl OwnerReference {
    /// Whether it says that it is the controller.
    pub(crate) fn controls(&self) -> bool {
        self.controller == Some(true)
    }
}

/// The one that is the controller, of an object in this namespace. The API server lets only one be that; of several, none
/// is believed, and neither is one that is not well formed: its author's words become a path.
pub(crate) fn controller(references: &[OwnerReference], namespace: Option<&Namespace>) -> Option<ObjectRef> {
    let mut controllers = references.iter().filter(|reference| reference.controls());
    let (Some(one), None) = (controllers.next(), controllers.next()) else { return None };
    let well_formed = is_api_version(&one.api_version) && is_kind(&one.kind) && is_subdomain(&one.name);
    Some(ObjectRef {
        api_version: Some(&one.api_version).filter(|_| well_formed)?.clone(),
        kind: one.kind.clone(),
        namespace: Some(namespace?.clone()),
        name: one.name.clone(),
        uid: Some(one.uid.parse().ok()?),
    })
}

/// `v1`, or `group/version`.
fn is_api_version(text: &str) -> bool {
    let version = |text: &str| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    match text.split_once('/') {
        Some((group, name)) => is_subdomain(group) && version(name),
        None => text == "v1",
    }
}

fn is_kind(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The annotations that say who applied an object. Others are skipped.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Origin {
    #[serde(rename = "argocd.argoproj.io/tracking-id")]
    argo: Option<String>,
    #[serde(rename = "meta.helm.sh/release-name")]
    release: Option<String>,
    #[serde(rename = "meta.helm.sh/release-namespace")]
    release_namespace: Option<String>,
}

/// What an Argo CD tracking id says it is on: `APPLICATION:GROUP/KIND:NAMESPACE/NAME`.
pub(crate) struct Tracked<'a> {
    group: &'a str,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl Tracked<'_> {
    /// Whether that is this object.
    pub(crate) fn is(&self, group: &str, kind: &str, namespace: &str, name: &str) -> bool {
        (self.group, self.kind, self.namespace, self.name) == (group, kind, namespace, name)
    }
}

/// The GitOps object that applied an object, by its labels and annotations: Argo CD, Flux, or Helm itself. Whoever may
/// write the object can write them.
///
/// `is_this` says whether a tracking id is of this very object: annotations are copied, by the controllers of Deployments
/// for one, and then say nothing.
pub(crate) fn applied_by(
    labels: &BoundedLabels,
    annotations: &Origin,
    is_this: impl FnOnce(&Tracked<'_>) -> bool,
) -> Option<ObjectRef> {
    let label = |key: &str| labels.0.get(key).map(String::as_str);
    let flux = |group: &str| {
        let of = |part: &str| label(&format!("{group}/{part}"));
        Some((of("name")?, of("namespace")?))
    };
    if let Some(application) = annotations.argo.as_deref().and_then(|id| tracking(id, is_this)) {
        return argo_application(application);
    }
    if let Some(application) = label("argocd.argoproj.io/instance") {
        return argo_application(application);
    }
    if let Some((name, namespace)) = flux("kustomize.toolkit.fluxcd.io") {
        return origin("kustomize.toolkit.fluxcd.io/v1", "Kustomization", Some(namespace), name);
    }
    if let Some((name, namespace)) = flux("helm.toolkit.fluxcd.io") {
        return origin("helm.toolkit.fluxcd.io/v2", "HelmRelease", Some(namespace), name);
    }
    if label("app.kubernetes.io/managed-by") == Some("Helm") {
        // No object of the API: Helm keeps its releases in Secrets of type `helm.sh/release.v1`.
        let namespace = annotations.release_namespace.as_deref()?;
        return origin("helm.sh/v1", "Release", Some(namespace), annotations.release.as_deref()?);
    }
    None
}

fn tracking(id: &str, is_this: impl FnOnce(&Tracked<'_>) -> bool) -> Option<&str> {
    let mut parts = id.splitn(3, ':');
    let (application, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    let ((group, kind), (namespace, name)) = (kind.split_once('/')?, name.split_once('/')?);
    is_this(&Tracked { group, kind, namespace, name }).then_some(application)
}

/// An Application is `name`, or `namespace_name` where it is not in Argo CD's own namespace.
fn argo_application(instance: &str) -> Option<ObjectRef> {
    let (namespace, name) =
        instance.split_once('_').map_or((None, instance), |(namespace, name)| (Some(namespace), name));
    origin("argoproj.io/v1alpha1", "Application", namespace, name)
}

fn origin(api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Option<ObjectRef> {
    let namespace: Option<Namespace> = namespace.map(str::parse).transpose().ok()?;
    is_subdomain(name).then(|| ObjectRef {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace,
        name: name.to_owned(),
        uid: None,
    })
}

#[cfg(test)]
mod tests;
