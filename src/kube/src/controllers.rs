//! Who controls an object: `ownerReferences` with `controller: true`, followed up to the top.
//!
//! A pod's author writes its first reference, so a controller is believed only where it is there, in the pod's own
//! namespace, under the uid by which it is referred to. What is found is kept for a minute (and ten where the API server
//! cannot say any more), under the whole reference: by
//! the uid alone, whoever learned another team's uid could have it vouched for by a warm cache.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dayfly_core::digest::Digest;
use dayfly_core::ids::{Namespace, Uid};
use dayfly_core::ports::{ChainEnd, ControllerChain};
use dayfly_core::provenance::{CONTROLLERS, ObjectRef};
use http::{Request, header};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::api::{ApiServer, CallError, parse};
use crate::cache::Aged;
use crate::coalesce::Coalesce;
use crate::metadata::{OwnerReference, applied_by, controller};
use crate::objects::Metadata;
use crate::plurals::{Plurals, root};

/// Controllers kept, for one cluster.
const ENTRIES: usize = 20_000;
/// How long what is there is believed: controllers and labels of a controller change rarely.
const KEPT: Duration = Duration::from_secs(60);
/// How long it is believed where the API server cannot say now: a team's workloads are not to lose their owner, nor what
/// holds them, whenever it is overloaded.
const STALE: Duration = Duration::from_secs(600);
/// How long what could not be read is not asked for again.
const UNREAD: Duration = Duration::from_secs(5);
/// How long one of them may take.
const ANSWER: Duration = Duration::from_secs(1);
/// Reads under way at once.
const READS_AT_ONCE: usize = 16;
const WHAT: &str = "get controllers";
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// Finds the controllers of one cluster's objects.
pub(crate) struct Controllers {
    reader: Arc<Reader>,
    reads: Coalesce<Digest, Found>,
    timeout: Duration,
}

struct Reader {
    api: Arc<ApiServer>,
    plurals: Plurals,
    permits: Semaphore,
    held: Mutex<Aged<Digest, Known>>,
}

/// What came of a read.
#[derive(Clone)]
struct Known {
    /// When the API server said so.
    said: Duration,
    /// Until when it is not asked again.
    until: Duration,
    link: Found,
}

/// What is found where a reference points.
#[derive(Clone)]
enum Found {
    /// It.
    There(Arc<Link>),
    /// Nothing, or another.
    Not,
    /// It could not be read.
    Unread,
}

/// What a controller that is there says of itself.
struct Link {
    controller: Option<ObjectRef>,
    /// It refers to a controller in a way that cannot be followed.
    unfollowable: bool,
    applied_by: Option<ObjectRef>,
}

impl Controllers {
    pub(crate) fn new(api: Arc<ApiServer>, timeout: Duration) -> Self {
        let reader = Reader {
            plurals: Plurals::new(Arc::clone(&api)),
            api,
            permits: Semaphore::new(READS_AT_ONCE),
            held: Mutex::new(Aged::new(ENTRIES)),
        };
        Self { reader: Arc::new(reader), reads: Coalesce::new(), timeout }
    }

    /// The chain from `first` up. What is found in time is told.
    pub(crate) async fn chain(&self, namespace: &Namespace, first: &ObjectRef) -> ControllerChain {
        let mut chain = ControllerChain::default();
        let walk = self.walk(namespace, first, &mut chain);
        // Too late: what is above is not known.
        drop(tokio::time::timeout(self.timeout, walk).await);
        chain
    }

    async fn walk(&self, namespace: &Namespace, first: &ObjectRef, chain: &mut ControllerChain) {
        let mut seen = HashSet::<Uid>::new();
        let mut next = ObjectRef { namespace: Some(namespace.clone()), ..first.clone() };
        while chain.controllers.len() < CONTROLLERS {
            if !next.uid.is_some_and(|uid| seen.insert(uid)) {
                break;
            }
            let link = match self.link(&next).await {
                Found::There(link) => link,
                Found::Not => break,
                Found::Unread => return,
            };
            chain.controllers.push(next);
            chain.applied_by.clone_from(&link.applied_by);
            next = match &link.controller {
                Some(controller) => controller.clone(),
                None if link.unfollowable => break,
                None => {
                    chain.end = ChainEnd::Top;
                    return;
                }
            };
        }
        chain.end = ChainEnd::Broken;
    }

    async fn link(&self, reference: &ObjectRef) -> Found {
        let key = key(reference);
        if let Some(known) = self.reader.held(&key) {
            return known.link;
        }
        let read = self.reads.join_or(key, || {
            let (reader, reference) = (Arc::clone(&self.reader), reference.clone());
            Some(Box::pin(async move { reader.read(key, &reference).await }))
        });
        match read {
            Some(read) => read.await,
            None => Found::Unread,
        }
    }
}

impl Reader {
    fn held(&self, key: &Digest) -> Option<Known> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(key).filter(|known| self.api.clock.monotonic() < known.until).cloned()
    }

    /// Reads, and keeps what comes of it.
    async fn read(&self, key: Digest, reference: &ObjectRef) -> Found {
        let asked = self.api.clock.monotonic();
        let read = tokio::time::timeout(ANSWER, self.ask(reference)).await;
        let read = read.unwrap_or(Err(CallError::Timeout(ANSWER)));
        if let Err(error) = &read {
            self.tell(error);
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let said_before = held.get(&key).filter(|known| asked.saturating_sub(known.said) < STALE);
        let known = match (read, said_before) {
            (Ok(link), _) => {
                let link = link.map_or(Found::Not, |link| Found::There(Arc::new(link)));
                Known { said: asked, until: asked + KEPT, link }
            }
            (Err(error), before) => {
                // A right that is missing is not given within seconds.
                let kept = if matches!(error, CallError::Forbidden(_)) { KEPT } else { UNREAD };
                let unread = Known { said: asked, until: asked, link: Found::Unread };
                Known { until: asked + kept, ..before.cloned().unwrap_or(unread) }
            }
        };
        let link = known.link.clone();
        held.forget_before(asked.saturating_sub(STALE));
        held.put(key, known, asked);
        link
    }

    async fn ask(&self, reference: &ObjectRef) -> Result<Option<Link>, CallError> {
        let _permit = self.permits.acquire().await.map_err(|_| CallError::Busy)?;
        let Some(namespace) = &reference.namespace else { return Ok(None) };
        let ObjectRef { api_version, kind, name, .. } = reference;
        let Some(plural) = self.plurals.of(api_version, kind, ANSWER).await? else { return Ok(None) };
        // All of it is checked: nothing in it needs escaping in a path.
        let path = format!("{}/namespaces/{namespace}/{plural}/{name}", root(api_version));
        let request = Request::get(path).header(header::ACCEPT, METADATA_ONLY).body(Vec::new());
        match self.api.ask(WHAT, request, ANSWER).await {
            Ok(body) => Ok(link(reference, namespace, &parse::<Partial>(&body)?.metadata)),
            Err(CallError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn tell(&self, error: &CallError) {
        if self.api.sparing.now_about(WHAT, self.api.clock.monotonic()) {
            tracing::info!(cluster = %self.api.cluster, %error, "the controllers of some pods are not known");
        }
    }
}

/// `metav1.PartialObjectMetadata`.
#[derive(Deserialize)]
struct Partial {
    metadata: Metadata,
}

/// What the object says of itself, if it is the one that is meant.
fn link(reference: &ObjectRef, namespace: &Namespace, metadata: &Metadata) -> Option<Link> {
    let is_it = metadata.uid.parse().ok() == reference.uid
        && metadata.name == reference.name
        && metadata.namespace == namespace.as_str();
    let group = reference.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let controller = controller(&metadata.owner_references, Some(namespace));
    is_it.then(|| Link {
        unfollowable: controller.is_none() && metadata.owner_references.iter().any(OwnerReference::controls),
        controller,
        applied_by: applied_by(&metadata.labels, &metadata.annotations, |tracked| {
            tracked.is(group, &reference.kind, namespace.as_str(), &reference.name)
        }),
    })
}

/// A reference, all of it.
fn key(reference: &ObjectRef) -> Digest {
    let ObjectRef { api_version, kind, namespace, name, uid } = reference;
    let namespace = namespace.as_ref().map(Namespace::as_str).unwrap_or_default();
    let uid = uid.map(Uid::to_bytes).unwrap_or_default();
    // None of these holds a NUL.
    Digest::of_parts(&[
        api_version.as_bytes(),
        &[0],
        kind.as_bytes(),
        &[0],
        namespace.as_bytes(),
        &[0],
        name.as_bytes(),
        &[0],
        &uid,
    ])
}

#[cfg(test)]
mod tests;
