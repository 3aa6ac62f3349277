//! OAuth 2.0 as others speak it: introspection (RFC 7662) and discovery (RFC 8414, OpenID Connect Discovery 1.0).

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, RequestExt as _, Router};
use dayfly_broker::{Broker, LeaseView};
use dayfly_core::limits;
use dayfly_core::ports::{KeyUse, Order, Signer};
use dayfly_core::secret::Secret;
use dayfly_mint::{jwt, svid};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

use crate::http::JWKS;
use crate::services::caller::Caller;
use crate::services::reject;

/// Where introspection is.
pub(crate) const INTROSPECT: &str = "/introspect";

/// What the routes know.
pub(crate) struct Shared {
    pub(crate) broker: Arc<Broker>,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) issuer: String,
}

/// The routes.
pub(crate) fn routes(shared: Shared) -> Router {
    let issuer = shared.issuer.trim_end_matches('/');
    // Of an issuer with a path: RFC 8414 has it after the well-known part, OpenID Connect before.
    let path = issuer.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default();
    let mut oauth = vec!["/.well-known/oauth-authorization-server".to_owned()];
    let mut openid = vec!["/.well-known/openid-configuration".to_owned()];
    if !path.is_empty() {
        oauth.push(format!("/.well-known/oauth-authorization-server{path}"));
        openid.push(format!("{path}/.well-known/openid-configuration"));
    }
    let mut router = Router::new().route(INTROSPECT, post(introspect));
    for place in &oauth {
        router = router.route(place, get(authorization_server));
    }
    for place in &openid {
        router = router.route(place, get(openid_configuration));
    }
    router.with_state(Arc::new(shared))
}

/// RFC 7662, section 2. Whoever asks shows a verifier's token, and is told of its own targets' credentials; of any other
/// that it is not active, and nothing else.
async fn introspect(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let Some(caller) = request.extensions().get::<Arc<Caller>>().cloned() else {
        return refused(&Status::internal("the call came past no guard"));
    };
    // All of it is read, so that its transport reads our answer rather than a reset.
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, limits::MESSAGE_BYTES).await else {
        return bad_request("the form is larger than any token that is issued");
    };
    let request = Request::from_parts(head, body.into());
    let form: Result<Form<Vec<(String, String)>>, FormRejection> = request.extract().await;
    let Ok(Form(fields)) = form else { return bad_request("send application/x-www-form-urlencoded") };
    let mut tokens = fields.into_iter().filter(|(name, _)| name == "token").map(|(_, value)| value);
    let (Some(token), None) = (tokens.next(), tokens.next()) else {
        return bad_request("send `token` once");
    };
    let token = Secret::from(token);
    if token.is_empty() || token.len() > limits::TOKEN_BYTES {
        return bad_request("`token` is empty, or larger than any that is issued");
    }
    match shared.broker.introspect(caller.bearer(), &token).await {
        Ok(said) => {
            let view = said.known.as_ref().filter(|_| said.active());
            let answer = view.map_or_else(|| Some(inactive()), |view| active(view, &shared.issuer));
            match answer {
                Some(answer) => not_stored(Json(answer)),
                None => refused(&Status::internal("the credential's claims cannot be said")),
            }
        }
        Err(error) => refused(&reject::status(error)),
    }
}

fn inactive() -> Value {
    json!({ "active": false })
}

/// What the credential says of itself, which is all that a verifier may know.
fn active(view: &LeaseView, issuer: &str) -> Option<Value> {
    let order = Order { lease: &view.lease, issuer };
    let claims = match view.lease.spiffe_id {
        Some(_) => serde_json::to_value(svid::claims(&order)?),
        None => serde_json::to_value(jwt::claims(&order)),
    };
    let Value::Object(claims) = claims.ok()? else { return None };
    let mut said = Map::from_iter([
        ("active".to_owned(), Value::Bool(true)),
        ("token_type".to_owned(), Value::from("Bearer")),
    ]);
    said.extend(claims);
    Some(Value::Object(said))
}

/// RFC 8414, section 3. There is no grant to ask for here: credentials are issued over gRPC.
async fn authorization_server(State(shared): State<Arc<Shared>>) -> Response {
    let issuer = shared.issuer.trim_end_matches('/');
    public(json!({
        "issuer": shared.issuer,
        "jwks_uri": format!("{issuer}{JWKS}"),
        "introspection_endpoint": format!("{issuer}{INTROSPECT}"),
        "introspection_endpoint_auth_methods_supported": ["bearer"],
        "response_types_supported": [],
        "grant_types_supported": [],
    }))
}

/// OpenID Connect Discovery 1.0, section 3, as far as a verifier of tokens needs it: what clouds read of a workload
/// identity's issuer.
async fn openid_configuration(State(shared): State<Arc<Shared>>) -> Response {
    let issuer = shared.issuer.trim_end_matches('/');
    public(json!({
        "issuer": shared.issuer,
        "jwks_uri": format!("{issuer}{JWKS}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms(shared.signer.as_ref()),
        "claims_supported": ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "cnf", "status", "dayfly"],
    }))
}

/// Of the keys that are published now.
fn algorithms(signer: &dyn Signer) -> Vec<String> {
    let jwks = signer.jwks(&KeyUse::AccessToken).unwrap_or_default();
    let jwks: Value = serde_json::from_str(&jwks).unwrap_or_default();
    let keys = jwks["keys"].as_array().into_iter().flatten();
    let mut all: Vec<_> = keys.filter_map(|key| key["alg"].as_str().map(str::to_owned)).collect();
    all.sort();
    all.dedup();
    all
}

fn public(document: Value) -> Response {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(document)).into_response()
}

fn not_stored(answer: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], answer).into_response()
}

/// RFC 6749, section 5.2.
fn bad_request(what: &str) -> Response {
    let body = json!({ "error": "invalid_request", "error_description": what });
    not_stored((StatusCode::BAD_REQUEST, Json(body)))
}

/// A refusal over HTTP: RFC 6750, section 3, where it is about the caller's token.
pub(crate) fn refused(status: &Status) -> Response {
    let (code, challenge) = match status.code() {
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, Some("Bearer error=\"invalid_token\"")),
        Code::PermissionDenied => (StatusCode::FORBIDDEN, None),
        Code::InvalidArgument => (StatusCode::BAD_REQUEST, None),
        Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, None),
        Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, None),
        Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, None),
        _ => (StatusCode::SERVICE_UNAVAILABLE, None),
    };
    let mut answer = (code, format!("{}\n", status.message())).into_response();
    if let Some(challenge) = challenge {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if code == StatusCode::TOO_MANY_REQUESTS || code == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}
