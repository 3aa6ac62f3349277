//! What is served over HTTPS beside gRPC: the public keys, and health for probes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dayfly_core::ports::{KeyUse, Signer};

use crate::readiness::Readiness;

/// Where the keys of access tokens are.
pub(crate) const JWKS: &str = "/.well-known/jwks.json";

/// The HTTPS routes. Whoever keeps the keys asks for them again after `refresh`.
pub(crate) fn routes(signer: Arc<dyn Signer>, readiness: Arc<Readiness>, refresh: Duration) -> Router {
    let published = Published { signer, cached: format!("public, max-age={}", refresh.as_secs()).into() };
    Router::new()
        .route(JWKS, get(jwks))
        .route("/spiffe/{trust_domain}/bundle.json", get(bundle))
        .with_state(published)
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(readiness)
}

#[derive(Clone)]
struct Published {
    signer: Arc<dyn Signer>,
    /// `Cache-Control`: for five minutes at most, and for half the time that a next key is published before it signs.
    cached: Arc<str>,
}

/// The keys that access tokens are verified with (RFC 7517, section 8.5.1).
async fn jwks(State(published): State<Published>) -> Response {
    let keys = published.signer.jwks(&KeyUse::AccessToken);
    published.answer("application/jwk-set+json", keys)
}

/// The keys that a trust domain's SVIDs are verified with (SPIFFE Federation, section 5.2), cached likewise.
async fn bundle(State(published): State<Published>, Path(trust_domain): Path<String>) -> Response {
    let trust_domain = trust_domain.parse().ok();
    let keys = trust_domain.and_then(|domain| published.signer.jwks(&KeyUse::Svid(domain)));
    published.answer("application/json", keys)
}

impl Published {
    fn answer(&self, content_type: &'static str, keys: Option<Arc<str>>) -> Response {
        let Some(keys) = keys else { return StatusCode::NOT_FOUND.into_response() };
        let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, &*self.cached)];
        (headers, keys.to_string()).into_response()
    }
}

/// Whether a restart would help: 503 where it would.
async fn livez(State(readiness): State<Arc<Readiness>>) -> Response {
    answer(readiness.needs_restart().map_or(Ok(()), Err))
}

/// Whether it issues now: 503 with the reasons where it does not, 200 with what is worth knowing where it does.
async fn readyz(State(readiness): State<Arc<Readiness>>) -> Response {
    let troubles = readiness.troubles();
    if !troubles.is_empty() {
        return answer(Err(troubles.join("\n")));
    }
    let ok = "ok".to_owned();
    let lines: Vec<_> = std::iter::once(ok).chain(readiness.notices()).collect();
    format!("{}\n", lines.join("\n")).into_response()
}

fn answer(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
