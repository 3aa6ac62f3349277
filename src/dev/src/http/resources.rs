//! Namespaces, service accounts and pods: get, list, watch, create, replace, patch, delete.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
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
use crate::watch::{self, Watch};

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

pub(super) fn namespace_methods() -> MethodRouter<Arc<App>> {
    get(get_namespace).delete(delete_namespace).put(replace_namespace).patch(patch_namespace)
}

pub(super) fn object_methods() -> MethodRouter<Arc<App>> {
    get(get_object).delete(delete_object).put(replace_object).patch(patch_object)
}

pub(super) fn status_methods() -> MethodRouter<Arc<App>> {
    get(get_status).put(replace_status).patch(patch_status)
}

pub(super) async fn list_all(
    State(app): AppState,
    Path(plural): Path<String>,
    Query(options): Query<ListOptions>,
    headers: HeaderMap,
) -> Answer {
    list_or_watch(&app, kind(&plural)?, None, &options, &headers)
}

pub(super) async fn list(
    State(app): AppState,
    Path((namespace, plural)): Path<(String, String)>,
    Query(options): Query<ListOptions>,
    headers: HeaderMap,
) -> Answer {
    list_or_watch(&app, namespaced(&plural)?, Some(namespace), &options, &headers)
}

pub(super) async fn create_namespace(
    State(app): AppState,
    Path(plural): Path<String>,
    body: Bytes,
) -> Answer {
    if kind(&plural)? != Kind::Namespace {
        return Err(Refusal::method_not_allowed());
    }
    created(&app, Kind::Namespace, "", &body)
}

pub(super) async fn create(
    State(app): AppState,
    Path((namespace, plural)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    created(&app, namespaced(&plural)?, &namespace, &body)
}

async fn get_namespace(State(app): AppState, Path(name): Path<String>, headers: HeaderMap) -> Answer {
    shown(&app, &Key::namespace(&name), &headers)
}

async fn get_object(State(app): AppState, Path(path): Path<(String, String, String)>, headers: HeaderMap) -> Answer {
    shown(&app, &key(path)?, &headers)
}

async fn get_status(
    State(app): AppState,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    shown(&app, &Key::pod(&namespace, &name), &headers)
}

async fn delete_namespace(
    State(app): AppState,
    Path(name): Path<String>,
    Query(options): Query<DeleteOptions>,
    body: Bytes,
) -> Answer {
    deleted(&app, &Key::namespace(&name), options, &body)
}

async fn delete_object(
    State(app): AppState,
    Path(path): Path<(String, String, String)>,
    Query(options): Query<DeleteOptions>,
    body: Bytes,
) -> Answer {
    deleted(&app, &key(path)?, options, &body)
}

async fn replace_namespace(State(app): AppState, Path(name): Path<String>, body: Bytes) -> Answer {
    replaced(&app, &Key::namespace(&name), &body, false)
}

async fn replace_object(
    State(app): AppState,
    Path(path): Path<(String, String, String)>,
    body: Bytes,
) -> Answer {
    replaced(&app, &key(path)?, &body, false)
}

async fn replace_status(
    State(app): AppState,
    Path((namespace, name)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    replaced(&app, &Key::pod(&namespace, &name), &body, true)
}

async fn patch_namespace(
    State(app): AppState,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    patched(&app, &Key::namespace(&name), &headers, &body, false)
}

async fn patch_object(
    State(app): AppState,
    Path(path): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    patched(&app, &key(path)?, &headers, &body, false)
}

async fn patch_status(
    State(app): AppState,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    patched(&app, &Key::pod(&namespace, &name), &headers, &body, true)
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
        let body: Body = watch::body(app.clone(), watch);
        return Ok(([(CONTENT_TYPE, "application/json")], body).into_response());
    }
    let (version, objects) = app.objects.list(kind, namespace.as_deref());
    let objects = objects.iter().filter(|object| view.selects(object));
    let items: Vec<Value> = objects.map(|object| item(&view, object.as_ref().clone())).collect();
    let (list, api_version) = if view.metadata_only {
        ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1")
    } else {
        (format!("{}List", kind.name()), "v1")
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

fn shown(app: &App, key: &Key, headers: &HeaderMap) -> Answer {
    let view = View::new(header(headers, &ACCEPT), None, None)?;
    let object = app.objects.get(key)?;
    Ok(Json(view.of(object.as_ref().clone())).into_response())
}

fn created(app: &App, kind: Kind, namespace: &str, body: &[u8]) -> Answer {
    let object = app.objects.create(kind, namespace, parse(body)?)?;
    Ok((StatusCode::CREATED, Json(object)).into_response())
}

/// A pod is answered with, other kinds with a `metav1.Status`.
fn deleted(app: &App, key: &Key, query: DeleteOptions, body: &[u8]) -> Answer {
    let given: DeleteOptions = if body.is_empty() {
        DeleteOptions::default()
    } else {
        let options = parse(body)?;
        serde_json::from_value(options)
            .map_err(|error| Refusal::bad_request(format!("the DeleteOptions do not read: {error}")))?
    };
    let deletion = Deletion {
        grace: given.grace_period_seconds.or(query.grace_period_seconds),
        uid: given.preconditions.and_then(|preconditions| preconditions.uid),
    };
    let object = app.objects.delete(key, &deletion)?;
    if key.kind == Kind::Pod {
        return Ok(Json(object).into_response());
    }
    let details = json!({"name": key.name, "kind": key.kind.plural(), "uid": object["metadata"]["uid"]});
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    });
    Ok(Json(status).into_response())
}

fn replaced(app: &App, key: &Key, body: &[u8], status: bool) -> Answer {
    let mut after = parse(body)?;
    let object = app.objects.edit(key, |object| {
        admission::updated(key, object, &mut after, status)?;
        *object = after;
        Ok(())
    })?;
    Ok(Json(object).into_response())
}

fn patched(app: &App, key: &Key, headers: &HeaderMap, body: &[u8], status: bool) -> Answer {
    let given = header(headers, &CONTENT_TYPE);
    if !given.ends_with("merge-patch+json") {
        return Err(Refusal::unsupported_media_type(given));
    }
    let patch = parse(body)?;
    let object = app.objects.edit(key, |object| {
        let mut after = object.clone();
        admission::merge(&mut after, &patch);
        admission::updated(key, object, &mut after, status)?;
        *object = after;
        Ok(())
    })?;
    Ok(Json(object).into_response())
}

fn kind(plural: &str) -> Result<Kind, Refusal> {
    Kind::of_plural(plural).ok_or_else(Refusal::no_such_path)
}

fn namespaced(plural: &str) -> Result<Kind, Refusal> {
    kind(plural).and_then(|kind| if kind.namespaced() { Ok(kind) } else { Err(Refusal::no_such_path()) })
}

fn key((namespace, plural, name): (String, String, String)) -> Result<Key, Refusal> {
    Ok(Key { kind: namespaced(&plural)?, namespace, name })
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A boolean of a query, as Go's clients write it.
fn flag(value: Option<&String>) -> bool {
    value.is_some_and(|value| matches!(value.as_str(), "1" | "true"))
}
