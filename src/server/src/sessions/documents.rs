//! Discovery and `OpenAPI` of `sessions.dayfly.dev`, as aggregated APIs have them.

use serde_json::{Value, json};

pub(super) const GROUP: &str = "sessions.dayfly.dev";
pub(super) const API_VERSION: &str = "sessions.dayfly.dev/v1alpha1";
pub(super) const KIND: &str = "OperatorSession";
/// Where sessions are created.
pub(super) const RESOURCE: &str = "/apis/sessions.dayfly.dev/v1alpha1/operatorsessions";

const SCHEMA: &str = "dev.dayfly.sessions.v1alpha1.OperatorSession";
const OPENAPI_3: &str = "/openapi/v3/apis/sessions.dayfly.dev/v1alpha1";

/// Each document's path, and the document.
pub(super) fn all() -> [(&'static str, Value); 6] {
    let version = json!({ "groupVersion": API_VERSION, "version": "v1alpha1" });
    let group = json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version,
    });
    let resource = json!({
        "name": "operatorsessions", "singularName": "operatorsession", "namespaced": false, "kind": KIND,
        "verbs": ["create"],
    });
    let resources = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": [resource],
    });
    let index = json!({ "paths": { OPENAPI_3.trim_start_matches("/openapi/v3/"): { "serverRelativeURL": OPENAPI_3 } } });
    [
        ("/apis", json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [group] })),
        ("/apis/sessions.dayfly.dev", group),
        ("/apis/sessions.dayfly.dev/v1alpha1", resources),
        ("/openapi/v3", index),
        (OPENAPI_3, openapi_3()),
        ("/openapi/v2", openapi_2()),
    ]
}

fn openapi_3() -> Value {
    let reference =
        json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{SCHEMA}") } } });
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": { RESOURCE: { "post": {
            "operationId": OPERATION,
            "x-kubernetes-action": "post",
            "x-kubernetes-group-version-kind": kind(),
            "requestBody": { "required": true, "content": reference },
            "responses": { "201": { "description": "Created", "content": reference } },
        } }, format!("{RESOURCE}/{{name}}"): { "patch": refused_patch() } },
        "components": { "schemas": { SCHEMA: schema() } },
    })
}

/// kubectl asks a kind's PATCH whether the server itself validates fields and runs dry. Where there is none it would have to
/// list the cluster's custom resource definitions, which people on call may not.
fn refused_patch() -> Value {
    let parameter = |name: &str, place: &str| json!({ "name": name, "in": place, "required": place == "path", "schema": { "type": "string" } });
    json!({
        "operationId": "patchSessionsDayflyDevV1alpha1OperatorSession",
        "description": "Refused. It says that `fieldValidation` and `dryRun` are understood, which kubectl looks for here.",
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": kind(),
        "parameters": [parameter("name", "path"), parameter("fieldValidation", "query"), parameter("dryRun", "query")],
        "responses": { "405": { "description": "Sessions are not kept." } },
    })
}

fn openapi_2() -> Value {
    let reference = json!({ "$ref": format!("#/definitions/{SCHEMA}") });
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": { RESOURCE: { "post": {
            "operationId": OPERATION,
            "consumes": ["application/json"],
            "produces": ["application/json"],
            "x-kubernetes-action": "post",
            "x-kubernetes-group-version-kind": kind(),
            "parameters": [{ "name": "body", "in": "body", "required": true, "schema": reference }],
            "responses": { "201": { "description": "Created", "schema": reference } },
        } } },
        "definitions": { SCHEMA: schema() },
    })
}

const OPERATION: &str = "createSessionsDayflyDevV1alpha1OperatorSession";

fn info() -> Value {
    json!({ "title": GROUP, "version": "v1alpha1" })
}

fn kind() -> Value {
    json!({ "group": GROUP, "version": "v1alpha1", "kind": KIND })
}

fn schema() -> Value {
    let text = |what: &str| json!({ "type": "string", "description": what });
    json!({
        "description": "A session of ten minutes with Dayfly, for whoever creates it. It is not kept: nothing is listed.",
        "type": "object",
        "properties": {
            "apiVersion": text("sessions.dayfly.dev/v1alpha1"),
            "kind": text("OperatorSession"),
            "metadata": { "type": "object", "description": "Its name is the session's id." },
            "spec": { "type": "object", "description": "There is nothing to choose." },
            "status": { "type": "object", "description": "The session.", "properties": {
                "token": text("The token: `authorization: Bearer TOKEN` of an operator's call. A secret."),
                "expirationTimestamp": { "type": "string", "format": "date-time", "description": "Until when it is good." },
            } },
        },
        "x-kubernetes-group-version-kind": [kind()],
    })
}
