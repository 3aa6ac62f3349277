//! The one resource of `sessions.dayfly.dev`: `operatorsessions`, cluster-scoped, which is created and never kept.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use dayfly_broker::{Broker, OpenedSession, SessionRequest};
use dayfly_core::limits;
use dayfly_core::ports::Clock;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::documents::{self, API_VERSION, KIND};
use super::front_proxy::Trust;
use super::status::Refused;
use crate::guard::{Rate, Rates};
use crate::listener::Peer;

/// How often one user may open a session.
const RATE: Rate = Rate { per_second: 1, burst: 30 };
/// How many may be opened at once.
const AT_ONCE: usize = 64;

/// How long a refused request is read on.
const DRAIN: Duration = Duration::from_millis(200);

/// What the routes know.
pub(super) struct Shared {
    broker: Arc<Broker>,
    trust: Arc<Trust>,
    clock: Arc<dyn Clock>,
    call_timeout: Duration,
    rates: Rates<String>,
    places: Semaphore,
}

impl Shared {
    pub(super) fn new(
        broker: Arc<Broker>,
        trust: Arc<Trust>,
        clock: Arc<dyn Clock>,
        call_timeout: Duration,
    ) -> Arc<Self> {
        let (rates, places) = (Rates::new(RATE), Semaphore::new(AT_ONCE));
        Arc::new(Self { broker, trust, clock, call_timeout, rates, places })
    }
}

/// The routes. Nothing is answered to anyone but the API server.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new().route(documents::RESOURCE, post(create));
    for (path, document) in documents::all() {
        router = router.route(path, get(|| std::future::ready(Json(document))));
    }
    router
        .fallback(|| {
            std::future::ready(Refused::new(StatusCode::NOT_FOUND, "NotFound", "there is nothing here"))
        })
        .method_not_allowed_fallback(|| {
            let message = "sessions are created, and neither kept nor listed: use `create`";
            std::future::ready(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message))
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), admit))
        .with_state(shared)
}

/// Lets the API server in, and says with the request whom it names.
async fn admit(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    let certificates = peer.map(|peer| peer.certificates.as_ref()).unwrap_or_default();
    match shared.trust.request(certificates, request.headers()) {
        Ok(named) => {
            request.extensions_mut().insert(Arc::new(named));
            next.run(request).await
        }
        Err(refused) => {
            // What it has sent is read, so that its transport reads our answer rather than a reset.
            let read = axum::body::to_bytes(request.into_body(), limits::MESSAGE_BYTES);
            let _ = tokio::time::timeout(DRAIN, read).await;
            refused.into_response()
        }
    }
}

/// What is posted.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Posted {
    api_version: String,
    kind: String,
    spec: Option<Map<String, Value>>,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

/// Opens a session for whom the API server names.
async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(named): Extension<Arc<SessionRequest>>,
    request: Request,
) -> Result<Response, Refused> {
    let dry_run = is_dry_run(request.uri().query().unwrap_or_default())?;
    posted(request).await?;
    if dry_run {
        return Ok(answer(None));
    }
    let now = shared.clock.monotonic();
    shared.rates.take(named.username.clone(), now).map_err(|wait| {
        Refused::too_many("this user opens sessions too often: use the one that was opened", wait)
    })?;
    let _place = shared
        .places
        .try_acquire()
        .map_err(|_| Refused::too_many("too many sessions are being opened", Duration::from_secs(1)))?;
    let opened = tokio::time::timeout(shared.call_timeout, shared.broker.open_session(&named)).await;
    let late = |_| Refused::unavailable("the session was not recorded in time", Duration::from_secs(1));
    Ok(answer(Some(&opened.map_err(late)??)))
}

/// Of the query's parameters, the one that says not to do it.
fn is_dry_run(query: &str) -> Result<bool, Refused> {
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("dryRun="));
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some("All"), None) => Ok(true),
        _ => Err(Refused::bad_request("dryRun is All, or is not there")),
    }
}

/// Reads what was posted, and that it asks for nothing that is not given.
async fn posted(request: Request) -> Result<(), Refused> {
    let content = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_json =
        content.is_some_and(|content| content.split(';').next().map(str::trim) == Some("application/json"));
    if !is_json {
        let message = "send application/json";
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message));
    }
    let body = axum::body::to_bytes(request.into_body(), limits::MESSAGE_BYTES).await.map_err(|_| {
        let message = format!("an {KIND} is at most {} bytes", limits::MESSAGE_BYTES);
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    })?;
    let posted: Posted = serde_json::from_slice(&body).map_err(|_| {
        Refused::bad_request(format!("send an object of apiVersion {API_VERSION}, kind {KIND}"))
    })?;
    if posted.api_version != API_VERSION || posted.kind != KIND {
        return Err(Refused::bad_request(format!("this is not apiVersion {API_VERSION}, kind {KIND}")));
    }
    if posted.spec.is_some_and(|spec| !spec.is_empty()) {
        return Err(Refused::bad_request(format!("spec: an {KIND} has nothing to choose")));
    }
    Ok(())
}

/// The object, created; a session that was not opened has no token.
fn answer(opened: Option<&OpenedSession>) -> Response {
    let mut object = json!({ "apiVersion": API_VERSION, "kind": KIND, "metadata": {}, "spec": {} });
    if let Some(OpenedSession { id, token, expires_at }) = opened {
        object["metadata"]["name"] = id.to_string().into();
        let expires_at = expires_at.to_string().replace(".000Z", "Z");
        object["status"] =
            json!({ "token": token.expose_text().unwrap_or_default(), "expirationTimestamp": expires_at });
    }
    (StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(object)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn code(content: &str, body: &str) -> u16 {
        let request = Request::post(documents::RESOURCE).header(header::CONTENT_TYPE, content);
        let request = request.body(body.to_owned().into()).unwrap();
        posted(request).await.map_or_else(|refused| refused.code.as_u16(), |()| 201)
    }

    #[tokio::test]
    async fn a_session_asks_for_nothing_but_to_be() {
        let object = |more: &str| format!(r#"{{"apiVersion": "{API_VERSION}", "kind": "{KIND}"{more}}}"#);
        let json = "application/json; charset=utf-8";
        assert_eq!(code(json, &object("")).await, 201);
        assert_eq!(
            code(json, &object(r#", "metadata": {"name": "a"}, "spec": {}, "status": null"#)).await,
            201
        );
        for refused in [
            object(r#", "spec": {"expirationSeconds": 86400}"#),
            object(r#", "user": "root""#),
            object("").replace("v1alpha1", "v1"),
            object("").replace(KIND, "TokenRequest"),
            "{}".to_owned(),
            String::new(),
        ] {
            assert_eq!(code(json, &refused).await, 400, "{refused}");
        }
        assert_eq!(code("application/yaml", &object("")).await, 415);
        assert_eq!(code(json, &object(&" ".repeat(limits::MESSAGE_BYTES))).await, 413);
    }

    #[test]
    fn a_dry_run_is_one_and_nothing_is_taken_for_none() {
        assert_eq!(is_dry_run("fieldManager=kubectl-create&fieldValidation=Strict"), Ok(false));
        assert_eq!(is_dry_run("dryRun=All"), Ok(true));
        for refused in ["dryRun=", "dryRun=all", "dryRun=All&dryRun=All", "dryRun=All&dryRun=None"] {
            assert!(is_dry_run(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_refusal_is_a_status_of_kubernetes_own() {
        let answer = Refused::too_many("wait", Duration::from_secs(7)).into_response();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["retry-after"]),
            (429, &"7".parse().unwrap())
        );
    }
}
