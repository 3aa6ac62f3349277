//! What a client asks before it knows anything: health, version and OpenID discovery.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::App;

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
