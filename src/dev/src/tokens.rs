//! Service-account tokens: TokenRequest makes them, TokenReview checks them. Unlike the real API server, which remembers a
//! good review for 10 s, this one looks each time.

use std::time::Duration;

use dayfly_core::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::admission::NODE;
use crate::keys::Keys;
use crate::kind::{Key, Kind};
use crate::objects::{Objects, deletion_time, rfc3339, text};
use crate::refusal::Refusal;

/// The shortest life that may be asked for, in seconds.
const SHORTEST_SECS: u64 = 600;
/// The life of a token that asks for none, in seconds.
const DEFAULT_SECS: u64 = 3600;
/// What is being deleted keeps its tokens for so long after its `deletionTimestamp`.
const DELETION_LEEWAY: Duration = Duration::from_secs(60);

/// `authentication.k8s.io/v1` `TokenRequest.spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TokenRequestSpec {
    pub(crate) audiences: Vec<String>,
    pub(crate) expiration_seconds: Option<u64>,
    pub(crate) bound_object_ref: Option<BoundObject>,
}

/// `BoundObjectReference`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BoundObject {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// `authentication.k8s.io/v1` `TokenReview.spec`.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TokenReviewSpec {
    token: String,
    audiences: Vec<String>,
}

/// The cluster's issuer of service-account tokens.
pub(crate) struct Issuer {
    pub(crate) name: String,
    pub(crate) keys: Keys,
}

/// A token that was made.
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) expires: Timestamp,
    pub(crate) audiences: Vec<String>,
    pub(crate) secs: u64,
}

impl Issuer {
    /// Makes a token of a service account, as its subresource `token` does.
    pub(crate) fn issue(
        &self,
        objects: &Objects,
        account: &Key,
        spec: &TokenRequestSpec,
    ) -> Result<Issued, Refusal> {
        let secs = spec.expiration_seconds.unwrap_or(DEFAULT_SECS);
        if !(SHORTEST_SECS..=1 << 32).contains(&secs) {
            let why = format!("Invalid value: {secs}: may not specify a duration less than 10 minutes");
            return Err(Refusal::invalid("TokenRequest", "", "spec.expirationSeconds", &why));
        }
        let found = objects.get(account)?;
        let now = objects.now().floor_secs();
        let expires = now.plus(Duration::from_secs(secs));
        let audiences =
            if spec.audiences.is_empty() { vec![self.name.clone()] } else { spec.audiences.clone() };

        let mut private = Map::new();
        private.insert("namespace".to_owned(), account.namespace.clone().into());
        let uid = text(&found, "/metadata/uid");
        private.insert("serviceaccount".to_owned(), json!({"name": account.name, "uid": uid}));
        if let Some(bound) = &spec.bound_object_ref {
            bind(objects, account, bound, &mut private)?;
        }
        let claims = json!({
            "aud": audiences,
            "exp": expires.as_secs(),
            "iat": now.as_secs(),
            "iss": self.name,
            "jti": objects.uid()?,
            "kubernetes.io": private,
            "nbf": now.as_secs(),
            "sub": username(&account.namespace, &account.name),
        });
        Ok(Issued { token: self.keys.sign(&claims)?, expires, audiences, secs })
    }

    /// The claims of a legacy token, as they once lay in Secrets: without an end, without an audience.
    pub(crate) fn legacy_claims(objects: &Objects, account: &Key) -> Result<Value, Refusal> {
        let found = objects.get(account)?;
        Ok(json!({
            "iss": "kubernetes/serviceaccount",
            "kubernetes.io/serviceaccount/namespace": account.namespace,
            "kubernetes.io/serviceaccount/secret.name": format!("{}-token", account.name),
            "kubernetes.io/serviceaccount/service-account.name": account.name,
            "kubernetes.io/serviceaccount/service-account.uid": text(&found, "/metadata/uid"),
            "sub": username(&account.namespace, &account.name),
        }))
    }

    /// The status of a `TokenReview`.
    pub(crate) fn review(&self, objects: &Objects, spec: &TokenReviewSpec) -> Value {
        match self.check(objects, spec) {
            Ok((audiences, user)) => json!({"authenticated": true, "audiences": audiences, "user": user}),
            Err(why) => json!({
                "authenticated": false,
                "user": {},
                "error": format!("[invalid bearer token, {why}]"),
            }),
        }
    }

    fn check(&self, objects: &Objects, spec: &TokenReviewSpec) -> Result<(Vec<String>, Value), String> {
        let claims =
            self.keys.verify(&spec.token).ok_or("square/go-jose: error in cryptographic primitive")?;
        if text(&claims, "/iss") != self.name {
            return Err(format!("unknown issuer {:?}", text(&claims, "/iss")));
        }
        let now = objects.now().as_secs();
        if claims["exp"].as_u64().is_none_or(|end| now >= end) {
            return Err("service account token has expired".to_owned());
        }
        if claims["nbf"].as_u64().is_some_and(|start| now < start) {
            return Err("service account token is not valid yet".to_owned());
        }
        let asked = if spec.audiences.is_empty() { vec![self.name.clone()] } else { spec.audiences.clone() };
        let given: Vec<&str> =
            claims["aud"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let shared: Vec<String> = asked.iter().filter(|it| given.contains(&it.as_str())).cloned().collect();
        if shared.is_empty() {
            return Err(format!("token audiences {given:?} is invalid for the target audiences {asked:?}"));
        }
        Ok((shared, live_user(objects, &claims)?))
    }
}

/// Says in a token's claims what a TokenRequest binds it to.
fn bind(
    objects: &Objects,
    account: &Key,
    bound: &BoundObject,
    claims: &mut Map<String, Value>,
) -> Result<(), Refusal> {
    let mut node = || claims.insert("node".to_owned(), json!({"name": NODE, "uid": objects.node_uid()}));
    match bound.kind.as_str() {
        "Pod" => {
            node();
            let pod = bound_pod(objects, account, bound)?;
            let uid = text(&pod, "/metadata/uid");
            claims.insert("pod".to_owned(), json!({"name": bound.name, "uid": uid}));
        }
        "Node" if bound.name == NODE && [objects.node_uid(), ""].contains(&bound.uid.as_str()) => {
            node();
        }
        // It keeps no Secrets: any is taken to be there.
        "Secret" => {
            claims.insert("secret".to_owned(), json!({"name": bound.name, "uid": bound.uid}));
        }
        kind => {
            let why = format!("cannot bind token to {kind} {}: the stand-in has no such object", bound.name);
            return Err(Refusal::bad_request(why));
        }
    }
    Ok(())
}

/// The pod that a TokenRequest names, if it is that service account's.
fn bound_pod(
    objects: &Objects,
    account: &Key,
    bound: &BoundObject,
) -> Result<std::sync::Arc<Value>, Refusal> {
    let key = Key::pod(&account.namespace, &bound.name);
    let pod = objects.get(&key)?;
    let uid = text(&pod, "/metadata/uid");
    if !bound.uid.is_empty() && bound.uid != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
             deleted and then recreated",
            bound.uid
        );
        return Err(Refusal::conflict(&key, &why));
    }
    if text(&pod, "/spec/serviceAccountName") != account.name {
        let why = format!(
            "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
            account.name
        );
        return Err(Refusal::forbidden(Kind::Pod, &bound.name, &why));
    }
    Ok(pod)
}

/// The user of good claims, if the service account and the pod they name are still the same and there.
fn live_user(objects: &Objects, claims: &Value) -> Result<Value, String> {
    let private = &claims["kubernetes.io"];
    let namespace = text(private, "/namespace");
    let account = Key::service_account(namespace, text(private, "/serviceaccount/name"));
    let found = objects.get(&account).map_err(|refusal| refusal.message().to_owned())?;
    let (uid, claimed) = (text(&found, "/metadata/uid"), text(private, "/serviceaccount/uid"));
    if uid != claimed {
        return Err(format!("service account UID ({uid}) does not match claim ({claimed})"));
    }
    let mut extra = Map::new();
    let mut tell = |name: &str, value: &str| {
        extra.insert(format!("authentication.kubernetes.io/{name}"), json!([value]));
    };
    tell("credential-id", &format!("JTI={}", text(claims, "/jti")));
    if let Some(pod) = private.get("pod") {
        let (name, uid) = (text(pod, "/name"), text(pod, "/uid"));
        let live = objects.get(&Key::pod(namespace, name)).ok().filter(|found| {
            let gone = deletion_time(found).is_some_and(|due| due.plus(DELETION_LEEWAY) < objects.now());
            text(found, "/metadata/uid") == uid && !gone
        });
        live.ok_or("service account token has been invalidated")?;
        tell("pod-name", name);
        tell("pod-uid", uid);
    }
    if let Some(node) = private.get("node") {
        tell("node-name", text(node, "/name"));
        tell("node-uid", text(node, "/uid"));
    }
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        "system:authenticated".to_owned(),
    ];
    Ok(json!({
        "username": username(namespace, &account.name),
        "uid": uid,
        "groups": groups,
        "extra": extra,
    }))
}

/// The answer to a TokenRequest.
pub(crate) fn answer(account: &Key, request: &Value, issued: &Issued, now: Timestamp) -> Value {
    let bound = request.pointer("/spec/boundObjectRef").cloned().unwrap_or(Value::Null);
    json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": account.name,
            "namespace": account.namespace,
            "creationTimestamp": rfc3339(now),
        },
        "spec": {"audiences": issued.audiences, "expirationSeconds": issued.secs, "boundObjectRef": bound},
        "status": {"token": issued.token, "expirationTimestamp": rfc3339(issued.expires)},
    })
}

fn username(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}
