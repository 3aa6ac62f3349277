//! What the API server, the scheduler and the kubelet do to a new or changed object, as far as anyone of ours looks.

use std::fmt::Write as _;

use dayfly_core::digest::Digest;
use serde_json::{Map, Value, json};

use crate::kind::{Key, Kind};
use crate::objects::text;
use crate::refusal::Refusal;

/// The node that all pods run on.
pub(crate) const NODE: &str = "dayfly-dev";

/// Checks what a new object calls itself, gives it a name where it asked for one, and drops what a caller cannot set.
pub(crate) fn named(kind: Kind, namespace: &str, suffix: &str, object: &mut Value) -> Result<Key, Refusal> {
    let given = text(object, "/kind").to_owned();
    if !given.is_empty() && given != kind.name() {
        return Err(Refusal::bad_request(format!("{given} in the body does not match {}", kind.name())));
    }
    let metadata = metadata(object)?;
    let asked = metadata.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
    if asked != namespace {
        return Err(Refusal::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({namespace})"
        )));
    }
    let prefix = metadata.get("generateName").and_then(Value::as_str).unwrap_or_default();
    let name = match metadata.get("name").and_then(Value::as_str) {
        Some(name) => name.to_owned(),
        None if prefix.is_empty() => String::new(),
        None => format!("{prefix}{suffix}"),
    };
    check_name(kind, &name)?;
    for theirs in ["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "generation"] {
        metadata.remove(theirs);
    }
    metadata.insert("name".to_owned(), name.clone().into());
    if kind.namespaced() {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    Ok(Key { kind, namespace: namespace.to_owned(), name })
}

/// Fills in what the cluster gives a new object. A pod runs at once: there is neither a scheduler nor a kubelet to wait for.
pub(crate) fn complete(key: &Key, object: &mut Value, exists: &dyn Fn(&Key) -> bool) -> Result<(), Refusal> {
    match key.kind {
        Kind::ServiceAccount | Kind::ReplicaSet | Kind::Deployment => Ok(()),
        Kind::Namespace => {
            let labels = metadata(object)?.entry("labels").or_insert_with(|| json!({}));
            let Value::Object(labels) = labels else {
                return Err(Refusal::bad_request("metadata.labels is not an object"));
            };
            labels.insert("kubernetes.io/metadata.name".to_owned(), key.name.clone().into());
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            object["status"] = json!({"phase": "Active"});
            Ok(())
        }
        Kind::Pod => complete_pod(key, object, exists),
    }
}

/// Applies a JSON merge patch (RFC 7396).
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        if value.is_null() {
            if let Value::Object(target) = target {
                target.remove(name);
            }
        } else {
            merge(&mut target[name], value);
        }
    }
}

/// Checks a changed object against what it was, and keeps what an update cannot change. `status` says whether the update
/// came by the subresource `status`, which alone changes the status and nothing else.
pub(crate) fn updated(key: &Key, before: &Value, after: &mut Value, status: bool) -> Result<(), Refusal> {
    metadata(after)?;
    let version = text(after, "/metadata/resourceVersion");
    if !version.is_empty() && version != text(before, "/metadata/resourceVersion") {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Refusal::conflict(key, why));
    }
    if status {
        let status = after["status"].take();
        if !status.is_object() {
            return Err(Refusal::bad_request("status is not an object"));
        }
        *after = before.clone();
        after["status"] = status;
        return Ok(());
    }
    if key.kind == Kind::Pod && after.get("spec") != before.get("spec") {
        return Err(Refusal::invalid("Pod", &key.name, "spec", "Forbidden: pod updates may not change it"));
    }
    for theirs in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"] {
        match before["metadata"].get(theirs) {
            Some(value) => after["metadata"][theirs] = value.clone(),
            None => drop(metadata(after)?.remove(theirs)),
        }
    }
    for theirs in ["apiVersion", "kind", "status"] {
        if let Some(value) = before.get(theirs) {
            after[theirs] = value.clone();
        }
    }
    Ok(())
}

fn complete_pod(key: &Key, object: &mut Value, exists: &dyn Fn(&Key) -> bool) -> Result<(), Refusal> {
    if object.pointer("/spec/containers").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        return Err(Refusal::invalid("Pod", &key.name, "spec.containers", "Required value"));
    }
    let account = match text(object, "/spec/serviceAccountName") {
        "" => "default".to_owned(),
        given => given.to_owned(),
    };
    if !exists(&Key::service_account(&key.namespace, &account)) {
        let why = format!(
            "error looking up service account {}/{account}: serviceaccount \"{account}\" not found",
            key.namespace
        );
        return Err(Refusal::forbidden(Kind::Pod, &key.name, &why));
    }
    object["spec"]["serviceAccountName"] = account.into();
    object["spec"]["nodeName"] = NODE.into();
    let containers = object.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let running: Vec<Value> = containers.map(running).collect();
    object["status"] = json!({
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": running,
    });
    Ok(())
}

/// The status of a container. Its image is none: the digest is one of its name.
fn running(container: &Value) -> Value {
    let image = text(container, "/image");
    let digest = Digest::of(image.as_bytes());
    let hex = digest.as_bytes().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let name = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name);
    json!({
        "name": container["name"],
        "image": image,
        "imageID": format!("{name}@sha256:{hex}"),
        "ready": true,
        "restartCount": 0,
    })
}

/// Names as RFC 1123 has them: a label for a namespace, a subdomain for others.
fn check_name(kind: Kind, name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        let why = "Required value: name or generateName is required";
        return Err(Refusal::invalid(kind.name(), name, "metadata.name", why));
    }
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let (longest, good) = match kind {
        Kind::Namespace => (63, label(name)),
        Kind::ServiceAccount | Kind::Pod | Kind::ReplicaSet | Kind::Deployment => {
            (253, name.split('.').all(label))
        }
    };
    if good && name.len() <= longest {
        return Ok(());
    }
    let why = format!("Invalid value: a lowercase RFC 1123 name of at most {longest} characters is required");
    Err(Refusal::invalid(kind.name(), name, "metadata.name", &why))
}

fn metadata(object: &mut Value) -> Result<&mut Map<String, Value>, Refusal> {
    let Value::Object(fields) = object else {
        return Err(Refusal::bad_request("the object provided is not a JSON object"));
    };
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    metadata.as_object_mut().ok_or_else(|| Refusal::bad_request("metadata is not an object"))
}
