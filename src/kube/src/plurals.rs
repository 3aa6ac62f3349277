//! How URLs name the objects of a kind: known for Kubernetes' own controllers, discovered for others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dayfly_core::digest::Digest;
use http::{Request, header};
use serde::Deserialize;

use crate::api::{ApiServer, CallError, parse};
use crate::cache::Aged;

/// Group versions whose kinds are remembered.
const GROUP_VERSIONS: usize = 256;
/// Kinds of one group version that are remembered.
const KINDS: usize = 512;
/// How long they are remembered.
const KEPT: Duration = Duration::from_secs(300);

const KNOWN: &[(&str, &str, &str)] = &[
    ("apps/v1", "ReplicaSet", "replicasets"),
    ("apps/v1", "Deployment", "deployments"),
    ("apps/v1", "StatefulSet", "statefulsets"),
    ("apps/v1", "DaemonSet", "daemonsets"),
    ("batch/v1", "Job", "jobs"),
    ("batch/v1", "CronJob", "cronjobs"),
    ("v1", "ReplicationController", "replicationcontrollers"),
];

/// Kinds of a group version that live in namespaces, and their plurals.
type Kinds = HashMap<String, String>;

/// The plurals of one cluster's kinds.
pub(crate) struct Plurals {
    api: Arc<ApiServer>,
    discovered: Mutex<Aged<Digest, (Duration, Arc<Kinds>)>>,
}

impl Plurals {
    pub(crate) fn new(api: Arc<ApiServer>) -> Self {
        Self { api, discovered: Mutex::new(Aged::new(GROUP_VERSIONS)) }
    }

    /// The plural of a kind whose objects live in namespaces; none if the API server has none such.
    pub(crate) async fn of(
        &self,
        api_version: &str,
        kind: &str,
        timeout: Duration,
    ) -> Result<Option<String>, CallError> {
        if let Some((_, _, plural)) = KNOWN.iter().find(|known| (known.0, known.1) == (api_version, kind)) {
            return Ok(Some((*plural).to_owned()));
        }
        Ok(self.kinds(api_version, timeout).await?.get(kind).cloned())
    }

    async fn kinds(&self, api_version: &str, timeout: Duration) -> Result<Arc<Kinds>, CallError> {
        let key = Digest::of(api_version.as_bytes());
        let now = self.api.clock.monotonic();
        let known = self.discovered.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((_, kinds)) = known.filter(|(until, _)| now < *until) {
            return Ok(kinds);
        }
        let request =
            Request::get(root(api_version)).header(header::ACCEPT, "application/json").body(Vec::new());
        let kinds = match self.api.ask("discover kinds", request, timeout).await {
            Ok(body) => Arc::new(parse::<ResourceList>(&body)?.kinds()),
            // There is no such group version, or its own server does not say.
            Err(CallError::NotFound | CallError::Failed(404, _)) => Arc::default(),
            Err(error) => return Err(error),
        };
        let mut discovered = self.discovered.lock().unwrap_or_else(PoisonError::into_inner);
        discovered.put(key, (now + KEPT, Arc::clone(&kinds)), now);
        Ok(kinds)
    }
}

/// Where a group version is in URLs. It is checked: nothing in it needs escaping.
pub(crate) fn root(api_version: &str) -> String {
    if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") }
}

/// `metav1.APIResourceList`.
#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    namespaced: bool,
}

impl ResourceList {
    /// Without subresources, whose names have a `/`, and what could not be a segment of a path.
    fn kinds(self) -> Kinds {
        let plain = |name: &str| {
            (1..=63).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let usable = self.resources.into_iter().filter(|it| it.namespaced && plain(&it.name));
        usable.take(KINDS).map(|resource| (resource.kind, resource.name)).collect()
    }
}
