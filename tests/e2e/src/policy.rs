//! Owners, Targets and Grants as people write them. Each is a JSON value, which is YAML too, for a test to change before it
//! is put into force ([`World::put`](crate::world::World::put)).

use serde_json::{Value, json};

/// The scopes of a [`target`]'s ceiling.
pub const CEILING: [&str; 3] = ["read", "write", "list"];

/// An Owner that answers for these namespaces.
pub fn owner(name: &str, namespaces: &[&str]) -> Value {
    json!({
        "apiVersion": "dayfly.dev/v1alpha1",
        "kind": "Owner",
        "metadata": { "name": name },
        "spec": {
            "displayName": format!("Team {name}"),
            "contacts": [format!("{name}@example.org")],
            "namespaces": { "names": namespaces },
        },
    })
}

/// A Target of kind `jwt` with the one audience [`audience`], credentials of at most an hour, and a ceiling of [`CEILING`]
/// for these namespaces.
pub fn target(name: &str, namespaces: &[&str]) -> Value {
    json!({
        "apiVersion": "dayfly.dev/v1alpha1",
        "kind": "Target",
        "metadata": { "name": name },
        "spec": {
            "jwt": { "audiences": [audience(name)] },
            "maxTtl": "1h",
            "ceiling": [{ "namespaces": namespaces, "scopes": CEILING }],
        },
    })
}

/// The same target, of kind `svid`.
pub fn to_svid(target: &mut Value, trust_domain: &str) {
    let audiences = target["spec"]["jwt"]["audiences"].take();
    target["spec"]["svid"] = json!({ "trustDomain": trust_domain, "audiences": audiences });
    if let Some(spec) = target["spec"].as_object_mut() {
        spec.remove("jwt");
    }
}

/// The audience of the [`target`] of this name.
pub fn audience(target: &str) -> String {
    format!("https://{target}.example.org")
}

/// Makes a service account (namespace, name) one of a target's verifiers.
pub fn add_verifier(target: &mut Value, namespace: &str, service_account: &str) {
    let verifier = json!({ "namespace": namespace, "serviceAccount": service_account });
    match target["spec"]["verifiers"].as_array_mut() {
        Some(verifiers) => verifiers.push(verifier),
        None => target["spec"]["verifiers"] = json!([verifier]),
    }
}

/// A Grant of these scopes of a target to one service account; credentials live 5 minutes, at most 10.
pub fn grant(namespace: &str, name: &str, service_account: &str, target: &str, scope: &[&str]) -> Value {
    json!({
        "apiVersion": "dayfly.dev/v1alpha1",
        "kind": "Grant",
        "metadata": { "namespace": namespace, "name": name },
        "spec": {
            "serviceAccounts": [service_account],
            "target": target,
            "scope": scope,
            "defaultTtl": "5m",
            "maxTtl": "10m",
        },
    })
}

/// The file of an object: the same for every version of it.
pub(crate) fn file_name(object: &Value) -> String {
    let part = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or("none");
    format!("{}.{}.{}.yaml", part("/kind"), part("/metadata/namespace"), part("/metadata/name"))
}
