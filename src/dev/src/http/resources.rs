//! Namespaces, service accounts, pods and what controls them: get, list, watch, create, replace, patch, delete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{App, parse};
use crate::admission;
use crate::kind::{Key, Kind};
use crate::objects::Deletion;
use crate::refusal::Refusal;
use crate::view::View;
use crate::watch_stream::{self, Watch};

type AppState = State<Arc<App>>;
type Answer = Result<Response, Refusal>;

/// `metav1.ListOptions`, as far as the stand-in heeds it: a list is always whole, whatever `limit` says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListOptions {
    watch: Option<String>,
    resource_version: Option<String>,
    allow_watch_bookmarks: Option<String>,
    send_initial_events: Option<String>,
    timeout_seconds: Option<u64>,
    field_selector: Option<String>,
    label_selector: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DeleteOptions {
    grace_period_seconds: Option<u64>,
    preconditions: Option<Preconditions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Preconditions {
    uid: Option<String>,
}

/// The object that a path names, and whether by its subresource `status`.
pub(super) struct Named {
    key: Key,
    status: bool,
}

/// The methods of one object: `namespaces/{name}`, `namespaces/{namespace}/{plural}/{name}`, and
/// `namespaces/{namespace}/pods/{name}/status`, which cannot be deleted.
pub(super) fn object_methods() -> MethodRouter<Arc<App>> {
    get(show).delete(delete).put(replace).patch(patch)
}

pub(super) async fn list_all(
    State(app): AppState,
    uri: Uri,
    Path(plural): Path<String>,
    Query(options): Query<ListOptions>,
    headers: HeaderMap,
) -> Answer {
    list_or_watch(&app, kind(&uri, &plural)?, None, &options, &headers)
}

pub(super) async fn list(
    State(app): AppState,
    uri: Uri,
    Path((namespace, plural)): Path<(String, String)>,
    Query(options): Query<ListOptions>,
    headers: HeaderMap,
) -> Answer {
    list_or_watch(&app, namespaced(&uri, &plural)?, Some(namespace), &options, &headers)
}

pub(super) async fn create_namespace(
    State(app): AppState,
    uri: Uri,
    Path(plural): Path<String>,
    body: Bytes,
) -> Answer {
    if kind(&uri, &plural)? != Kind::Namespace {
        return Err(Refusal::method_not_allowed());
    }
    created(&app, Kind::Namespace, "", &body)
}

pub(super) async fn create(
    State(app): AppState,
    uri: Uri,
    Path((namespace, plural)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    created(&app, namespaced(&uri, &plural)?, &namespace, &body)
}

async fn show(State(app): AppState, named: Named, headers: HeaderMap) -> Answer {
    let view = View::new(header(&headers, &ACCEPT), None, None)?;
    let object = app.objects.get(&named.key)?;
    Ok(Json(view.of(object.as_ref().clone())).into_response())
}

/// A pod is answered with, other kinds with a `metav1.Status`.
async fn delete(
    State(app): AppState,
    Named { key, status }: Named,
    Query(query): Query<DeleteOptions>,
    body: Bytes,
) -> Answer {
    if status {
        return Err(Refusal::method_not_allowed());
    }
    let given = if body.is_empty() { json!({}) } else { parse(&body)? };
    let given: DeleteOptions = serde_json::from_value(given)
        .map_err(|error| Refusal::bad_request(format!("the DeleteOptions do not read: {error}")))?;
    let deletion = Deletion {
        grace: given.grace_period_seconds.or(query.grace_period_seconds),
        uid: given.preconditions.and_then(|preconditions| preconditions.uid),
    };
    let object = app.objects.delete(&key, &deletion)?;
    if key.kind == Kind::Pod {
        return Ok(Json(object).into_response());
    }
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": key.name, "kind": key.kind.plural(), "uid": object["metadata"]["uid"]},
    });
    Ok(Json(status).into_response())
}

async fn replace(State(app): AppState, Named { key, status }: Named, body: Bytes) -> Answer {
    let mut after = parse(&body)?;
    let object = app.objects.edit(&key, |object| {
        admission::updated(&key, object, &mut after, status)?;
        *object = after;
        Ok(())
    })?;
    Ok(Json(object).into_response())
}

async fn patch(
    State(app): AppState,
    Named { key, status }: Named,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let given = header(&headers, &CONTENT_TYPE);
    if !given.ends_with("merge-patch+json") {
        return Err(Refusal::unsupported_media_type(given));
    }
    let patch = parse(&body)?;
    let object = app.objects.edit(&key, |object| {
        let mut after = object.clone();
        admission::merge(&mut after, &patch);
        admission::updated(&key, object, &mut after, status)?;
        *object = after;
        Ok(())
    })?;
    Ok(Json(object).into_response())
}

fn created(app: &App, kind: Kind, namespace: &str, body: &[u8]) -> Answer {
    let object = app.objects.create(kind, namespace, parse(body)?)?;
    Ok((StatusCode::CREATED, Json(object)).into_response())
}

fn list_or_watch(
    app: &Arc<App>,
    kind: Kind,
    namespace: Option<String>,
    options: &ListOptions,
    headers: &HeaderMap,
) -> Answer {
    let fields = options.field_selector.as_deref();
    let view = View::new(header(headers, &ACCEPT), fields, options.label_selector.as_deref())?;
    if flag(options.watch.as_ref()) {
        let marks_initial = flag(options.send_initial_events.as_ref());
        let since = options.resource_version.as_deref().filter(|version| !version.is_empty());
        let since = since.map(str::parse).transpose().map_err(|_| {
            Refusal::bad_request("Invalid value: resourceVersion: not a version of this server")
        })?;
        let watch = Watch {
            kind,
            namespace,
            since: since.filter(|_| !marks_initial),
            bookmarks: flag(options.allow_watch_bookmarks.as_ref()),
            marks_initial,
            timeout: options.timeout_seconds.map(Duration::from_secs),
            view,
        };
        let body = watch_stream::body(app.clone(), watch);
        return Ok(([(CONTENT_TYPE, "application/json")], body).into_response());
    }
    let (version, objects) = app.objects.list(kind, namespace.as_deref());
    let objects = objects.iter().filter(|object| view.selects(object));
    let items: Vec<Value> = objects.map(|object| item(&view, object.as_ref().clone())).collect();
    let (list, api_version) = if view.metadata_only {
        ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1")
    } else {
        (format!("{}List", kind.name()), kind.api_version())
    };
    let metadata = json!({"resourceVersion": version.to_string()});
    let list = json!({"kind": list, "apiVersion": api_version, "metadata": metadata, "items": items});
    Ok(Json(list).into_response())
}

/// An item of a list, which does not repeat what it is.
fn item(view: &View, object: Value) -> Value {
    let mut object = view.of(object);
    if let Value::Object(fields) = &mut object {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    object
}

impl FromRequestParts<Arc<App>> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, app).await;
        let Path(path) = path.map_err(|_| Refusal::no_such_path())?;
        let part = |part: &str| path.get(part).map(String::as_str);
        let name = part("name").ok_or_else(Refusal::no_such_path)?;
        Ok(match (part("namespace"), part("plural")) {
            (None, _) => Self { key: Key::namespace(name), status: false },
            (Some(namespace), None) => Self { key: Key::pod(namespace, name), status: true },
            (Some(namespace), Some(plural)) => {
                let kind = namespaced(&parts.uri, plural)?;
                Self { key: Key::of(kind, namespace, name), status: false }
            }
        })
    }
}

fn kind(uri: &Uri, plural: &str) -> Result<Kind, Refusal> {
    Kind::of_plural(uri.path(), plural).ok_or_else(Refusal::no_such_path)
}

fn namespaced(uri: &Uri, plural: &str) -> Result<Kind, Refusal> {
    kind(uri, plural).and_then(|kind| if kind.namespaced() { Ok(kind) } else { Err(Refusal::no_such_path()) })
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A boolean of a query, as Go's clients write it.
fn flag(value: Option<&String>) -> bool {
    value.is_some_and(|value| matches!(value.as_str(), "1" | "true"))
}
