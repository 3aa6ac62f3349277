//! List, then watch, of one kind: what a cluster has of it, and when the API server last said anything about it.
//!
//! The loop is our own because kube-runtime's watcher keeps bookmarks to itself, and they are what tells a quiet cluster
//! from a dead connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use dayfly_core::ids::Namespace;
use dayfly_core::ports::Affected;
use futures_util::StreamExt;
use kube::api::{ListParams, WatchParams};
use kube::core::{Request, WatchEvent};

use crate::api::{ApiServer, CallError, parse};
use crate::objects::{Kind, Object, Page};
use crate::sharing::Sharing;

const PAGE: u32 = 500;
/// How long one page of a list, or the head of a watch, may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a watch is asked to last, in seconds; kube takes less than 295.
const WATCH_SECS: u32 = 290;
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// Short, since until it hears again a cluster's deletions are not known here: two requests in this time are little.
const BACKOFF_LAST: Duration = Duration::from_secs(2);

/// By namespace, then name.
type Held<K> = HashMap<Namespace, HashMap<<K as Kind>::Name, <K as Kind>::Facts>>;

/// What is known of one kind.
pub(crate) struct Store<K: Kind> {
    held: RwLock<Held<K>>,
    sharing: Mutex<Sharing>,
    listed: AtomicBool,
    heard: AtomicU64,
}

impl<K: Kind> Store<K> {
    pub(crate) fn new() -> Self {
        Self {
            held: RwLock::default(),
            sharing: Mutex::default(),
            listed: AtomicBool::new(false),
            heard: AtomicU64::new(0),
        }
    }

    /// Whether the first list has arrived.
    pub(crate) fn listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// Whether it was listed, and anything was heard within `silence` before `now`, the monotonic clock.
    pub(crate) fn fresh(&self, now: Duration, silence: Duration) -> bool {
        let heard = Duration::from_millis(self.heard.load(Ordering::Acquire));
        self.listed() && now.saturating_sub(heard) < silence
    }

    pub(crate) fn get(&self, namespace: &Namespace, name: &K::Name) -> Option<K::Facts> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(namespace)?.get(name).cloned()
    }

    /// What it holds, in no order: at most `limit` of it.
    pub(crate) fn some(&self, limit: usize) -> Vec<(K::Name, K::Facts)> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let all = held.values().flatten().take(limit);
        all.map(|(name, facts)| (name.clone(), facts.clone())).collect()
    }

    fn heard(&self, now: Duration) {
        self.heard.fetch_max(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    /// Puts a whole list in place; gives what went, has ended, or has other labels.
    fn replace(&self, list: Held<K>) -> Vec<Affected> {
        let old = std::mem::replace(&mut *self.held.write().unwrap_or_else(PoisonError::into_inner), list);
        self.listed.store(true, Ordering::Release);
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let now = |namespace, name| held.get(namespace).and_then(|names| names.get(name));
        let each = old.iter().flat_map(|(namespace, names)| names.iter().map(move |n| (namespace, n)));
        each.filter(|(namespace, (name, facts))| is_affected::<K>(facts, now(*namespace, *name)))
            .map(|(namespace, (_, facts))| Affected { namespace: namespace.clone(), uid: K::uid(facts) })
            .collect()
    }

    /// What is kept of an object, sharing what others have alike.
    fn read(&self, object: &Object) -> Option<(Namespace, K::Name, K::Facts)> {
        let (namespace, name, mut facts) = object.read::<K>()?;
        K::share(&mut facts, &mut self.sharing.lock().unwrap_or_else(PoisonError::into_inner));
        Some((namespace, name, facts))
    }

    /// Takes what an object is now; gives it as it was before, if that matters: see [`is_affected`].
    fn apply(&self, object: &Object) -> Option<Affected> {
        let (namespace, name, facts) = self.read(object)?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let names = held.entry(namespace.clone()).or_default();
        let before = names.get(&name).filter(|before| is_affected::<K>(before, Some(&facts))).map(K::uid);
        names.insert(name, facts);
        before.map(|uid| Affected { namespace, uid })
    }

    /// Drops an object; gives it.
    fn delete(&self, object: &Object) -> Option<Affected> {
        let (namespace, name, facts) = object.read::<K>()?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let names = held.get_mut(&namespace)?;
        if names.get(&name).is_some_and(|held| K::uid(held) == K::uid(&facts)) {
            names.remove(&name);
        }
        if names.is_empty() {
            held.remove(&namespace);
        }
        Some(Affected { namespace, uid: K::uid(&facts) })
    }
}

/// Whether what was there has gone, has ended since, or has other labels.
fn is_affected<K: Kind>(before: &K::Facts, now: Option<&K::Facts>) -> bool {
    now.is_none_or(|now| {
        K::uid(now) != K::uid(before)
            || (K::has_ended(now) && !K::has_ended(before))
            || K::labels(now) != K::labels(before)
    })
}

/// Keeps a [`Store`] up to date, for as long as it runs.
pub(crate) struct Informer<K: Kind> {
    pub(crate) api: Arc<ApiServer>,
    pub(crate) store: Arc<Store<K>>,
    /// How long a watch may say nothing before it is taken for dead and begun anew: less than the silence after which
    /// its store is not trusted.
    pub(crate) idle: Duration,
    /// Told of each object that goes, ends, or has other labels.
    pub(crate) affected: Box<dyn Fn(Affected) + Send + Sync>,
}

impl<K: Kind> Informer<K> {
    /// Lists and watches for ever. On an error the last state stays.
    pub(crate) async fn run(self) {
        let mut backoff = BACKOFF_FIRST;
        let mut version: Option<String> = None;
        loop {
            // What nothing was heard of for so long is not watched on in silence: it is listed.
            let fresh = self.store.fresh(self.api.clock.monotonic(), self.idle);
            let outcome = match version.take().filter(|_| fresh) {
                None => match self.list().await {
                    Ok(listed) => {
                        version = Some(listed);
                        continue;
                    }
                    Err(error) => Err(error),
                },
                Some(from) => {
                    let mut at = from.clone();
                    let outcome = self.watch(&mut at).await;
                    // Only a watch that told something is a reason to hurry again.
                    if at != from {
                        backoff = BACKOFF_FIRST;
                    }
                    version = outcome.as_ref().err().is_none_or(goes_on).then_some(at);
                    outcome
                }
            };
            if let Err(error) = outcome {
                self.tell(&error);
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_LAST);
        }
    }

    /// Reads everything there is, consistently, and puts it in place; the version to watch from.
    async fn list(&self) -> Result<String, CallError> {
        let mut list = Held::<K>::new();
        // All pages are of the moment of the first.
        let asked = self.api.clock.monotonic();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let request = Request::new(path::<K>()).list(&params).map_err(|error| unusable(&error))?;
            let page: Page = parse(&self.api.send(K::LIST, Ok(request), ANSWER).await?)?;
            for (namespace, name, facts) in page.items.iter().filter_map(|item| self.store.read(item)) {
                list.entry(namespace).or_default().insert(name, facts);
            }
            if page.metadata.more.is_empty() {
                self.store.heard(asked);
                self.store.replace(list).into_iter().for_each(&self.affected);
                return Ok(page.metadata.resource_version);
            }
            params = params.continue_token(&page.metadata.more);
        }
    }

    /// Follows what changes after `from`, which moves along, until the watch ends.
    async fn watch(&self, from: &mut String) -> Result<(), CallError> {
        let params = WatchParams::default().timeout(WATCH_SECS);
        let request = Request::new(path::<K>()).watch(&params, from).map_err(|error| unusable(&error))?;
        let failed = |error: &kube::Error| {
            let error = CallError::from_kube(error, K::WATCH);
            self.api.tell_of_own_credentials(&error, K::WATCH);
            error
        };
        let begun = tokio::time::timeout(ANSWER, self.api.client.request_events::<Object>(request)).await;
        let events = begun.map_err(|_| CallError::Timeout(ANSWER))?.map_err(|error| failed(&error))?;
        let mut events = std::pin::pin!(events);
        loop {
            let event = tokio::time::timeout(self.idle, events.next()).await;
            let Some(event) = event.map_err(|_| CallError::Timeout(self.idle))? else { return Ok(()) };
            let (affected, version) = match event.map_err(|error| failed(&error))? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    (self.store.apply(&object), object.metadata.resource_version)
                }
                WatchEvent::Deleted(object) => (self.store.delete(&object), object.metadata.resource_version),
                WatchEvent::Bookmark(bookmark) => (None, bookmark.metadata.resource_version),
                WatchEvent::Error(status) => return Err(failed(&kube::Error::Api(status))),
            };
            self.store.heard(self.api.clock.monotonic());
            affected.into_iter().for_each(&self.affected);
            if !version.is_empty() {
                *from = version;
            }
        }
    }

    fn tell(&self, error: &CallError) {
        let own = matches!(error, CallError::Unauthenticated | CallError::Forbidden(_));
        if *error == CallError::Gone {
            tracing::info!(cluster = %self.api.cluster, kind = K::PLURAL, "the watch fell behind: listing again");
        } else if !own && self.api.sparing.now_about(K::PLURAL, self.api.clock.monotonic()) {
            tracing::warn!(cluster = %self.api.cluster, kind = K::PLURAL, %error, "not hearing from the API server: trying again");
        }
    }
}

/// Whether a watch that ended with this goes on where it was. If not, what was missed cannot be had, or the API server does
/// not know the version (after a restore of its etcd): everything is listed again.
fn goes_on(error: &CallError) -> bool {
    !matches!(
        error,
        CallError::Gone | CallError::NotFound | CallError::Unreadable { .. } | CallError::Failed(..=502 | 504.., _)
    )
}

fn path<K: Kind>() -> String {
    format!("/api/v1/{}", K::PLURAL)
}

fn unusable(error: &kube::core::request::Error) -> CallError {
    CallError::Unreachable(error.to_string())
}

#[cfg(test)]
mod tests;
