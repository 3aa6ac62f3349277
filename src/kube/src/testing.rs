//! A small API server for tests: it keeps objects, counts what it is asked, and misbehaves when told.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dayfly_core::ids::{Audience, Uid};
use dayfly_core::limits::Limits;
use dayfly_core::ports::TestClock;
use dayfly_core::secret::Secret;
use dayfly_core::time::Timestamp;
use dayfly_core::workload::Identity;
use dayfly_jose::SigningKey;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{Access, Audiences, ClusterConfig, RunningCluster, connect};

pub(crate) const ISSUER: &str = "https://kubernetes.default.svc";
pub(crate) const NOW: u64 = 1_795_435_200;

/// How it answers, where not as it should.
#[derive(Clone)]
pub(crate) enum Answer {
    /// With this status and `Retry-After`.
    Status(u16, Option<u64>),
    /// With this body.
    Body(String),
    /// Rightly, but late.
    Slow(Duration),
    /// Never.
    Hang,
}

type Key = (String, String, String);

pub(crate) struct Fake {
    pub(crate) url: String,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) key: Mutex<Arc<SigningKey>>,
    answers: Mutex<HashMap<String, Answer>>,
    counts: Mutex<HashMap<String, usize>>,
    posted: Mutex<Vec<Value>>,
    objects: Mutex<(u64, BTreeMap<Key, Value>)>,
    watchers: Mutex<Vec<(String, mpsc::UnboundedSender<Bytes>)>>,
    kinds: Mutex<BTreeMap<String, Vec<Value>>>,
    headers: Mutex<Vec<HeaderMap>>,
}

impl Fake {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Arc::new(Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            clock: Arc::new(TestClock::at(Timestamp::from_secs(NOW))),
            key: Mutex::new(Arc::new(SigningKey::generate().unwrap())),
            answers: Mutex::default(),
            counts: Mutex::default(),
            posted: Mutex::default(),
            objects: Mutex::default(),
            watchers: Mutex::default(),
            kinds: Mutex::default(),
            headers: Mutex::default(),
        });
        let routes = Router::new()
            .route("/openid/v1/jwks", get(jwks))
            .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review_token))
            .route("/apis/authorization.k8s.io/v1/subjectaccessreviews", post(review_access))
            .route("/api/v1/{plural}", get(list_or_watch))
            .route("/api/v1/namespaces/{name}", get(get_namespace))
            .route("/api/v1/namespaces/{namespace}/{plural}/{name}", get(get_one))
            .route("/api/v1", get(discover_core))
            .route("/apis/{group}/{version}", get(discover))
            .route("/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}", get(get_partial))
            .with_state(Arc::clone(&fake));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        fake
    }

    /// Connects to it.
    pub(crate) async fn connect(&self, change: impl FnOnce(&mut ClusterConfig)) -> RunningCluster {
        let mut config = config(&self.url);
        config.clock = self.clock.clone();
        change(&mut config);
        connect(config).await.unwrap()
    }

    /// Connects to it and waits for the first lists.
    pub(crate) async fn ready(&self, change: impl FnOnce(&mut ClusterConfig)) -> RunningCluster {
        let running = self.connect(change).await;
        until("it is ready", || running.cluster().directory.ready()).await;
        let watched = ["watch pods", "watch serviceaccounts", "watch namespaces"];
        until("it watches", || watched.iter().all(|watch| self.count(watch) > 0)).await;
        running
    }

    /// From now on it answers this way.
    pub(crate) fn answer(&self, what: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(what.to_owned(), answer);
    }

    /// It answers rightly again.
    pub(crate) fn recover(&self, what: &str) {
        self.answers.lock().unwrap().remove(what);
    }

    /// How often it was asked.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.counts.lock().unwrap().get(what).copied().unwrap_or_default()
    }

    /// What was posted last.
    pub(crate) fn posted(&self) -> Value {
        self.posted.lock().unwrap().last().cloned().unwrap_or_default()
    }

    /// The `authorization` it was asked with last.
    pub(crate) fn authorization(&self) -> String {
        let headers = self.headers.lock().unwrap();
        let header = headers.last().and_then(|headers| headers.get("authorization"));
        header.map(|header| header.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// A good token of pod `api-0`, changed.
    pub(crate) fn token(&self, audience: &str, change: impl FnOnce(&mut Value)) -> Secret {
        let mut claims = json!({
            "iss": ISSUER, "aud": [audience], "exp": NOW + 3600, "nbf": NOW, "iat": NOW,
            "sub": "system:serviceaccount:payments:api", "jti": "2c1f8f8e-9f0e-4f0e-8f0e-0c1f8f8e9f0e",
        });
        change(&mut claims);
        let key = self.key.lock().unwrap().clone();
        key.sign_jws("JWT", claims.to_string().as_bytes()).unwrap()
    }

    /// Serves a kind, by discovery.
    pub(crate) fn serve(&self, api_version: &str, kind: &str, plural: &str, namespaced: bool) {
        let resource = json!({"kind": kind, "name": plural, "namespaced": namespaced, "verbs": ["get"]});
        self.kinds.lock().unwrap().entry(api_version.to_owned()).or_default().push(resource);
    }

    /// Puts an object there, and tells those who watch.
    pub(crate) fn put(&self, plural: &str, object: Value) {
        let (kind, object) = self.store(plural, object);
        self.tell(plural, kind, &object);
    }

    /// Puts an object there and tells nobody.
    pub(crate) fn store(&self, plural: &str, mut object: Value) -> (&'static str, Value) {
        let mut objects = self.objects.lock().unwrap();
        objects.0 += 1;
        object["metadata"]["resourceVersion"] = objects.0.to_string().into();
        let old = objects.1.insert(key(plural, &object), object.clone());
        (if old.is_some() { "MODIFIED" } else { "ADDED" }, object)
    }

    /// Deletes an object, and tells those who watch.
    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        if let Some(object) = self.forget(plural, namespace, name) {
            self.tell(plural, "DELETED", &object);
        }
    }

    /// Deletes an object and tells nobody.
    pub(crate) fn forget(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let mut objects = self.objects.lock().unwrap();
        objects.0 += 1;
        let version = objects.0.to_string();
        let mut object = objects.1.remove(&(plural.to_owned(), namespace.to_owned(), name.to_owned()))?;
        object["metadata"]["resourceVersion"] = version.into();
        Some(object)
    }

    /// Sends an event to those who watch.
    pub(crate) fn tell(&self, plural: &str, kind: &str, object: &Value) {
        let line = Bytes::from(json!({"type": kind, "object": object}).to_string() + "\n");
        let mut watchers = self.watchers.lock().unwrap();
        watchers.retain(|(watched, to)| watched != plural || to.send(line.clone()).is_ok());
    }

    /// A bookmark.
    pub(crate) fn bookmark(&self, plural: &str) {
        let version = {
            let mut objects = self.objects.lock().unwrap();
            objects.0 += 1;
            objects.0.to_string()
        };
        let bookmark = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": version}});
        self.tell(plural, "BOOKMARK", &bookmark);
    }

    /// Whether anyone watches.
    pub(crate) fn watching(&self, plural: &str) -> bool {
        self.watchers.lock().unwrap().iter().any(|(watched, to)| watched == plural && !to.is_closed())
    }

    /// Ends all watches.
    pub(crate) fn hang_up(&self) {
        self.watchers.lock().unwrap().clear();
    }

    /// Counts, and misbehaves if told to.
    async fn enter(&self, what: &str, headers: HeaderMap) -> Option<Response> {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += 1;
        self.headers.lock().unwrap().push(headers);
        let answer = self.answers.lock().unwrap().get(what).cloned();
        match answer? {
            Answer::Status(code, retry_after) => {
                let body = json!({"kind": "Status", "status": "Failure", "code": code}).to_string();
                let mut answer = (StatusCode::from_u16(code).unwrap(), body).into_response();
                if let Some(secs) = retry_after {
                    answer.headers_mut().insert("retry-after", secs.into());
                }
                Some(answer)
            }
            Answer::Body(body) => Some(body.into_response()),
            Answer::Slow(duration) => {
                tokio::time::sleep(duration).await;
                None
            }
            Answer::Hang => std::future::pending().await,
        }
    }
}

async fn jwks(State(fake): State<Arc<Fake>>, headers: HeaderMap) -> Response {
    if let Some(answer) = fake.enter("jwks", headers).await {
        return answer;
    }
    let jwk = fake.key.lock().unwrap().public_jwk().to_json();
    format!(r#"{{"keys":[{jwk}]}}"#).into_response()
}

async fn review_token(State(fake): State<Arc<Fake>>, headers: HeaderMap, body: String) -> Response {
    let asked: Value = serde_json::from_str(&body).unwrap();
    fake.posted.lock().unwrap().push(asked.clone());
    if let Some(answer) = fake.enter("tokenreviews", headers).await {
        return answer;
    }
    let user = json!({
        "username": "system:serviceaccount:payments:api", "uid": Uid::from_u128(2),
        "groups": ["system:serviceaccounts"],
        "extra": {"authentication.kubernetes.io/pod-name": ["api-0"],
                  "authentication.kubernetes.io/pod-uid": [Uid::from_u128(1)]},
    });
    let status = json!({"authenticated": true, "audiences": asked["spec"]["audiences"], "user": user});
    (StatusCode::CREATED, json!({"spec": asked["spec"], "status": status}).to_string()).into_response()
}

async fn review_access(State(fake): State<Arc<Fake>>, headers: HeaderMap, body: String) -> Response {
    let asked: Value = serde_json::from_str(&body).unwrap();
    fake.posted.lock().unwrap().push(asked.clone());
    if let Some(answer) = fake.enter("subjectaccessreviews", headers).await {
        return answer;
    }
    let allowed = asked["spec"]["user"] == "ada";
    (StatusCode::CREATED, json!({"spec": asked["spec"], "status": {"allowed": allowed}}).to_string())
        .into_response()
}

async fn list_or_watch(
    State(fake): State<Arc<Fake>>,
    Path(plural): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let watch = query.get("watch").is_some_and(|watch| watch == "true");
    if watch {
        assert_eq!(query.get("allowWatchBookmarks").map(String::as_str), Some("true"));
    }
    let verb = if watch { "watch" } else { "list" };
    if let Some(answer) = fake.enter(&format!("{verb} {plural}"), headers).await {
        return answer;
    }
    if watch { fake.watch(plural, &query["resourceVersion"]) } else { fake.list(&plural, &query) }
}

impl Fake {
    fn list(&self, plural: &str, query: &HashMap<String, String>) -> Response {
        let objects = self.objects.lock().unwrap();
        // Pages of two, so that a few objects are several pages.
        assert_eq!(query.get("limit").map(String::as_str), Some("500"));
        let from: usize =
            query.get("continue").map_or(0, |token| token.trim_start_matches("a+b/").parse().unwrap());
        let all: Vec<&Value> =
            objects.1.iter().filter(|(key, _)| key.0 == plural).map(|(_, value)| value).collect();
        let more = if all.len() > from + 2 { format!("a+b/{}", from + 2) } else { String::new() };
        let items: Vec<&&Value> = all.iter().skip(from).take(2).collect();
        let metadata = json!({"resourceVersion": objects.0.to_string(), "continue": more});
        json!({"metadata": metadata, "items": items}).to_string().into_response()
    }

    /// What changed since a version, then what changes.
    fn watch(&self, plural: String, version: &str) -> Response {
        let (to, from) = mpsc::unbounded_channel();
        let objects = self.objects.lock().unwrap();
        let since: u64 = version.parse().unwrap();
        for (_, object) in objects.1.iter().filter(|(key, _)| key.0 == plural) {
            let changed: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            if changed > since {
                let line = json!({"type": "ADDED", "object": object}).to_string() + "\n";
                to.send(Bytes::from(line)).unwrap();
            }
        }
        self.watchers.lock().unwrap().push((plural, to));
        let lines = futures_util::stream::unfold(from, |mut from| async {
            from.recv().await.map(|line| (Ok::<_, Infallible>(line), from))
        });
        Body::from_stream(lines).into_response()
    }
}

async fn get_one(
    State(fake): State<Arc<Fake>>,
    Path((namespace, plural, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Some(answer) = fake.enter(&format!("get {plural}"), headers).await {
        return answer;
    }
    let found = fake.objects.lock().unwrap().1.get(&(plural, namespace, name)).map(Value::to_string);
    let none = || {
        let status = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
        (StatusCode::NOT_FOUND, status.to_string()).into_response()
    };
    found.map_or_else(none, IntoResponse::into_response)
}

async fn get_namespace(fake: State<Arc<Fake>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    get_one(fake, Path((String::new(), "namespaces".to_owned(), name)), headers).await
}

async fn get_partial(
    fake: State<Arc<Fake>>,
    Path((_, _, namespace, plural, name)): Path<(String, String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let accept = headers["accept"].to_str().unwrap();
    assert!(accept.starts_with("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"), "{accept}");
    get_one(fake, Path((namespace, plural, name)), headers).await
}

async fn discover_core(fake: State<Arc<Fake>>, headers: HeaderMap) -> Response {
    discovered(&fake, "v1".to_owned(), headers).await
}

async fn discover(
    fake: State<Arc<Fake>>,
    Path((group, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    discovered(&fake, format!("{group}/{version}"), headers).await
}

async fn discovered(fake: &Fake, api_version: String, headers: HeaderMap) -> Response {
    if let Some(answer) = fake.enter(&format!("discover {api_version}"), headers).await {
        return answer;
    }
    match fake.kinds.lock().unwrap().get(&api_version) {
        Some(resources) => {
            json!({"kind": "APIResourceList", "groupVersion": api_version, "resources": resources})
                .to_string()
                .into_response()
        }
        None => (StatusCode::NOT_FOUND, "404 page not found").into_response(),
    }
}

fn key(plural: &str, object: &Value) -> Key {
    let of = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (plural.to_owned(), of("namespace"), of("name"))
}

/// A running pod of service account `api` on `node-1`.
pub(crate) fn pod(namespace: &str, name: &str, uid: u128) -> Value {
    json!({
        "metadata": {"namespace": namespace, "name": name, "uid": Uid::from_u128(uid)},
        "spec": {"serviceAccountName": "api", "nodeName": "node-1"}, "status": {"phase": "Running"},
    })
}

/// A service account.
pub(crate) fn service_account(namespace: &str, name: &str, uid: u128) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name, "uid": Uid::from_u128(uid)}})
}

/// A namespace.
pub(crate) fn namespace(name: &str, uid: u128) -> Value {
    json!({"metadata": {"name": name, "uid": Uid::from_u128(uid), "labels": {"kubernetes.io/metadata.name": name}}})
}

/// An object of any kind, in namespace `payments`, controlled by others as these references say.
pub(crate) fn controlled(name: &str, uid: u128, references: &[Value]) -> Value {
    json!({"metadata": {
        "namespace": "payments", "name": name, "uid": Uid::from_u128(uid), "ownerReferences": references,
    }})
}

/// A reference to a controller: `apps/v1 ReplicaSet api-7d`.
pub(crate) fn reference(what: &str, uid: u128) -> Value {
    let parts: Vec<&str> = what.split(' ').collect();
    json!({
        "apiVersion": parts[0], "kind": parts[1], "name": parts[2], "uid": Uid::from_u128(uid),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// Who a token of that pod and service account is.
pub(crate) fn identity(pod: u128, service_account: u128) -> Identity {
    let extra = |key: &str, value: String| (format!("authentication.kubernetes.io/{key}"), vec![value]);
    Identity {
        cluster: "east".parse().unwrap(),
        username: "system:serviceaccount:payments:api".to_owned(),
        uid: Uid::from_u128(service_account).to_string(),
        groups: vec!["system:serviceaccounts".to_owned()],
        extra: BTreeMap::from([
            extra("pod-name", "api-0".to_owned()),
            extra("pod-uid", Uid::from_u128(pod).to_string()),
        ]),
        of_secret: false,
    }
}

pub(crate) fn audience(name: &str) -> Audience {
    name.parse().unwrap()
}

/// A configuration for the API server at `url`.
pub(crate) fn config(url: &str) -> ClusterConfig {
    ClusterConfig {
        name: "east".parse().unwrap(),
        issuer: ISSUER.to_owned(),
        audiences: Audiences {
            workload: audience("dayfly"),
            operator: audience("dayfly-operator"),
            verifier: audience("dayfly-verifier"),
        },
        api_audiences: vec![ISSUER.to_owned()],
        access: Access::Url { server: url.to_owned(), ca_file: None, token_file: None },
        jwks: None,
        local_check: true,
        limits: Limits::default(),
        clock: Arc::new(TestClock::at(Timestamp::from_secs(NOW))),
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain until {what}");
}
