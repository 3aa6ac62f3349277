//! TokenRequest, TokenReview and SubjectAccessReview: all are posted, and answered with what was posted and a status.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{App, parse};
use crate::kind::Key;
use crate::refusal::Refusal;
use crate::tokens;

type Created = Result<(StatusCode, Json<Value>), Refusal>;

pub(super) async fn token_request(
    State(app): State<Arc<App>>,
    Path((namespace, name)): Path<(String, String)>,
    body: Bytes,
) -> Created {
    let request = parse(&body)?;
    let account = Key::service_account(&namespace, &name);
    let issued = app.issuer.issue(&app.objects, &account, &spec(&request)?)?;
    let answer = tokens::answer(&account, &request, &issued, app.objects.now());
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) async fn token_review(State(app): State<Arc<App>>, body: Bytes) -> Created {
    let request = parse(&body)?;
    let status = app.issuer.review(&app.objects, &spec(&request)?);
    Ok(answer("authentication.k8s.io/v1", "TokenReview", &request, &status))
}

pub(super) async fn subject_access_review(State(app): State<Arc<App>>, body: Bytes) -> Created {
    let request = parse(&body)?;
    let status = app.access.review(&spec(&request)?);
    Ok(answer("authorization.k8s.io/v1", "SubjectAccessReview", &request, &status))
}

fn answer(version: &str, kind: &str, request: &Value, status: &Value) -> (StatusCode, Json<Value>) {
    let answer = json!({
        "kind": kind,
        "apiVersion": version,
        "metadata": {"creationTimestamp": null},
        "spec": request["spec"],
        "status": status,
    });
    (StatusCode::CREATED, Json(answer))
}

fn spec<T: DeserializeOwned + Default>(request: &Value) -> Result<T, Refusal> {
    let spec = match &request["spec"] {
        Value::Null => return Ok(T::default()),
        // The JSON of Go's clients says null where it means absent.
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone())),
        _ => return Err(Refusal::bad_request("spec is not an object")),
    };
    serde_json::from_value(Value::Object(spec.collect()))
        .map_err(|error| Refusal::bad_request(format!("the spec does not read: {error}")))
}
