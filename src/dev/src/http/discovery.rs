//! What a client asks before it knows anything: health, version, OpenID discovery, and which resources there are.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::App;
use crate::kind::Kind;

pub(super) async fn ok() -> &'static str {
    "ok"
}

pub(super) async fn version() -> Json<Value> {
    Json(json!({
        "major": "1",
        "minor": "37",
        "gitVersion": "v1.37.0+dayfly-dev",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": "none",
    }))
}

/// OpenID Connect Discovery 1.0, section 3, as far as Kubernetes has it.
pub(super) async fn openid(State(app): State<Arc<App>>) -> Json<Value> {
    let issuer = &app.issuer.name;
    Json(json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

pub(super) async fn jwks(State(app): State<Arc<App>>) -> Json<Value> {
    Json(app.issuer.keys.jwks())
}

pub(super) async fn core_versions() -> Json<Value> {
    Json(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}))
}

pub(super) async fn groups() -> Json<Value> {
    let group = |name: &str| {
        let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    let groups = [group("authentication.k8s.io"), group("authorization.k8s.io")];
    Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

pub(super) async fn core_resources() -> Json<Value> {
    let mut resources: Vec<Value> = Kind::ALL.into_iter().map(resource).collect();
    resources.push(json!({
        "name": "serviceaccounts/token",
        "singularName": "",
        "namespaced": true,
        "group": "authentication.k8s.io",
        "version": "v1",
        "kind": "TokenRequest",
        "verbs": ["create"],
    }));
    resources.push(json!({
        "name": "pods/status",
        "singularName": "",
        "namespaced": true,
        "kind": "Pod",
        "verbs": ["get", "patch", "update"],
    }));
    Json(resource_list("v1", &resources))
}

pub(super) async fn authentication_resources() -> Json<Value> {
    Json(resource_list("authentication.k8s.io/v1", &[review("tokenreviews", "TokenReview")]))
}

pub(super) async fn authorization_resources() -> Json<Value> {
    let review = review("subjectaccessreviews", "SubjectAccessReview");
    Json(resource_list("authorization.k8s.io/v1", &[review]))
}

fn resource(kind: Kind) -> Value {
    json!({
        "name": kind.plural(),
        "singularName": kind.name().to_lowercase(),
        "namespaced": kind.namespaced(),
        "kind": kind.name(),
        "shortNames": [kind.short_name()],
        "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
    })
}

fn review(plural: &str, kind: &str) -> Value {
    json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"]})
}

fn resource_list(version: &str, resources: &[Value]) -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources})
}
