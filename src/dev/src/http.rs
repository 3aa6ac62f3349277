//! The paths, and who may call them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dayfly_core::digest::Digest;
use serde_json::Value;
use tokio::sync::watch;

use crate::access::Access;
use crate::objects::Objects;
use crate::refusal::Refusal;
use crate::tokens::Issuer;

mod discovery;
mod resources;
mod reviews;

/// The largest body taken, in bytes, as of the real API server.
const BODY_LIMIT: usize = 3 << 20;

/// What the handlers work on.
pub(crate) struct App {
    pub(crate) objects: Objects,
    pub(crate) issuer: Issuer,
    pub(crate) access: Access,
    /// Digests of the tokens that may call.
    pub(crate) callers: Vec<Digest>,
    /// Changes when the stand-in stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// All paths.
pub(crate) fn router(app: Arc<App>) -> Router {
    let open = Router::new()
        .route("/readyz", get(discovery::ok))
        .route("/livez", get(discovery::ok))
        .route("/healthz", get(discovery::ok))
        .route("/version", get(discovery::version))
        .route("/.well-known/openid-configuration", get(discovery::openid))
        .route("/openid/v1/jwks", get(discovery::jwks));
    let closed = Router::new()
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(reviews::token_review))
        .route("/apis/authorization.k8s.io/v1/subjectaccessreviews", post(reviews::subject_access_review))
        .route("/api/v1/{plural}", get(resources::list_all).post(resources::create_namespace))
        .route("/api/v1/namespaces/{name}", resources::object_methods())
        .route("/api/v1/namespaces/{namespace}/{plural}", get(resources::list).post(resources::create))
        .route("/api/v1/namespaces/{namespace}/{plural}/{name}", resources::object_methods())
        .route("/api/v1/namespaces/{namespace}/pods/{name}/status", resources::object_methods())
        .route("/apis/apps/v1/{plural}", get(resources::list_all))
        .route("/apis/apps/v1/namespaces/{namespace}/{plural}", get(resources::list).post(resources::create))
        .route("/apis/apps/v1/namespaces/{namespace}/{plural}/{name}", resources::object_methods())
        .route("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", post(reviews::token_request))
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(app.clone(), authenticate));
    open.merge(closed).with_state(app)
}

/// Everything but discovery needs one of the stand-in's own tokens; a service account's will not do.
async fn authenticate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let token = header.strip_prefix(b"Bearer ").unwrap_or_default();
    if app.callers.contains(&Digest::of(token)) {
        next.run(request).await
    } else {
        Refusal::unauthorized().into_response()
    }
}

async fn no_such_path() -> Refusal {
    Refusal::no_such_path()
}

async fn method_not_allowed() -> Refusal {
    Refusal::method_not_allowed()
}

/// The body as JSON.
fn parse(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the body is not JSON: {error}")))
}
