//! What is served over HTTPS beside gRPC: the public keys, and health for probes.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dayfly_core::ports::{KeyUse, Signer};

use crate::readiness::Readiness;

/// Where the keys of access tokens are.
pub(crate) const JWKS: &str = "/.well-known/jwks.json";

/// The HTTPS routes.
pub(crate) fn routes(signer: Arc<dyn Signer>, readiness: Arc<Readiness>) -> Router {
    Router::new()
        .route(JWKS, get(jwks))
        .route("/spiffe/{trust_domain}/bundle.json", get(bundle))
        .with_state(signer)
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(readiness)
}

/// The keys that access tokens are verified with (RFC 7517, section 8.5.1). Cached for five minutes at most: a new key
/// is published long before it signs.
async fn jwks(State(signer): State<Arc<dyn Signer>>) -> Response {
    published("application/jwk-set+json", signer.jwks(&KeyUse::AccessToken))
}

/// The keys that a trust domain's SVIDs are verified with (SPIFFE Federation, section 5.2), cached likewise.
async fn bundle(State(signer): State<Arc<dyn Signer>>, Path(trust_domain): Path<String>) -> Response {
    let trust_domain = trust_domain.parse().ok();
    published("application/json", trust_domain.and_then(|domain| signer.jwks(&KeyUse::Svid(domain))))
}

fn published(content_type: &'static str, keys: Option<Arc<str>>) -> Response {
    let Some(keys) = keys else { return StatusCode::NOT_FOUND.into_response() };
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "public, max-age=300")];
    (headers, keys.to_string()).into_response()
}

/// Whether a restart would help: 503 where it would.
async fn livez(State(readiness): State<Arc<Readiness>>) -> Response {
    answer(readiness.needs_restart().map_or(Ok(()), Err))
}

/// Whether it issues now: 503 with the reasons where it does not.
async fn readyz(State(readiness): State<Arc<Readiness>>) -> Response {
    let troubles = readiness.troubles();
    answer(if troubles.is_empty() { Ok(()) } else { Err(troubles.join("\n")) })
}

fn answer(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
