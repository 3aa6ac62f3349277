//! The objects themselves, in memory, with what list and watch need: one version counter and a bounded history.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dayfly_core::clock::SystemRng;
use dayfly_core::ports::{Clock, Rng};
use dayfly_core::time::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::admission;
use crate::kind::{Key, Kind};
use crate::refusal::Refusal;

/// How many events a watch can look back on; further back, it is told 410 Gone.
pub(crate) const HISTORY: usize = 1024;

/// What happened to an object, in a watch's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    Added,
    Modified,
    Deleted,
}

impl Happening {
    /// As `type` has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    version: u64,
    key: Key,
    pub(crate) happening: Happening,
    pub(crate) object: Arc<Value>,
}

/// What a deletion asks for (`metav1.DeleteOptions`).
#[derive(Debug, Clone, Default)]
pub(crate) struct Deletion {
    /// Seconds; 0 removes at once. Only pods have one.
    pub(crate) grace: Option<u64>,
    /// The uid that the object must have.
    pub(crate) uid: Option<String>,
}

/// All objects.
pub(crate) struct Objects {
    clock: Arc<dyn Clock>,
    rng: SystemRng,
    node_uid: String,
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

struct State {
    version: u64,
    /// The version up to which history has been forgotten.
    forgotten: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Event>,
}

impl Objects {
    /// None yet. Versions begin at the time, in milliseconds, so that a watch that resumes from an earlier stand-in's
    /// version is told 410 Gone.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Result<Self, Refusal> {
        let start = clock.now().as_millis();
        let state =
            State { version: start, forgotten: start, objects: BTreeMap::new(), history: VecDeque::new() };
        let rng = SystemRng::new();
        let node_uid = uid(&rng)?;
        Ok(Self { clock, rng, node_uid, state: Mutex::new(state), version: watch::channel(start).0 })
    }

    /// The object of this name.
    pub(crate) fn get(&self, key: &Key) -> Result<Arc<Value>, Refusal> {
        self.lock().get(key)
    }

    /// All objects of a kind, in a namespace or everywhere, and the version they are of.
    pub(crate) fn list(&self, kind: Kind, namespace: Option<&str>) -> (u64, Vec<Arc<Value>>) {
        let state = self.lock();
        let within = |key: &Key| key.kind == kind && namespace.is_none_or(|it| it == key.namespace);
        let objects = state.objects.iter().filter(|(key, _)| within(key)).map(|(_, object)| object.clone());
        (state.version, objects.collect())
    }

    /// What happened to a kind's objects after version `since`, and the version that is up to.
    pub(crate) fn events(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        since: u64,
    ) -> Result<(u64, Vec<Event>), Refusal> {
        let state = self.lock();
        if since < state.forgotten || since > state.version {
            return Err(Refusal::expired(since, state.forgotten));
        }
        let wanted = |event: &&Event| {
            event.version > since
                && event.key.kind == kind
                && namespace.is_none_or(|it| it == event.key.namespace)
        };
        Ok((state.version, state.history.iter().filter(wanted).cloned().collect()))
    }

    /// Tells when there is something new; holds the version.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Adds an object, as `POST` does. A namespace comes with its `default` service account.
    pub(crate) fn create(
        &self,
        kind: Kind,
        namespace: &str,
        mut object: Value,
    ) -> Result<Arc<Value>, Refusal> {
        let suffix = self.uid()?.split_off(31);
        let key = admission::named(kind, namespace, &suffix, &mut object)?;
        let mut state = self.lock();
        if state.objects.contains_key(&key) {
            return Err(Refusal::already_exists(&key));
        }
        if kind.namespaced() {
            state.get(&Key::namespace(namespace))?;
        }
        admission::complete(&key, &mut object, &|wanted| state.objects.contains_key(wanted))?;
        let added = self.add(&mut state, &key, object)?;
        if kind == Kind::Namespace {
            let account = Key::service_account(&key.name, "default");
            let object = json!({"metadata": {"name": "default", "namespace": key.name}});
            self.add(&mut state, &account, object)?;
        }
        Ok(added)
    }

    /// Changes an object in place. `edit` leaves it alone when it refuses.
    pub(crate) fn edit(
        &self,
        key: &Key,
        edit: impl FnOnce(&mut Value) -> Result<(), Refusal>,
    ) -> Result<Arc<Value>, Refusal> {
        let mut state = self.lock();
        let mut object = state.get(key)?.as_ref().clone();
        edit(&mut object)?;
        Ok(self.put(&mut state, key, Happening::Modified, object))
    }

    /// Deletes an object, as `DELETE` does: what a namespace holds goes with it, and a pod that has a grace period is only
    /// marked, for whoever plays its kubelet to finish. Gives the object as it was last.
    pub(crate) fn delete(&self, key: &Key, deletion: &Deletion) -> Result<Arc<Value>, Refusal> {
        let mut state = self.lock();
        let object = state.get(key)?;
        if let Some(uid) = &deletion.uid
            && uid != text(&object, "/metadata/uid")
        {
            return Err(Refusal::conflict(key, "Precondition failed: UID in precondition does not match"));
        }
        if key.kind == Kind::Pod {
            let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64);
            let grace = deletion.grace.or(own).unwrap_or(30);
            if grace > 0 {
                return Ok(self.mark(&mut state, key, &object, grace));
            }
        }
        if key.kind == Kind::Namespace {
            let held: Vec<Key> =
                state.objects.keys().filter(|held| held.namespace == key.name).cloned().collect();
            for held in held {
                let object = state.get(&held)?.as_ref().clone();
                self.put(&mut state, &held, Happening::Deleted, object);
            }
        }
        Ok(self.put(&mut state, key, Happening::Deleted, object.as_ref().clone()))
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A fresh random UUID.
    pub(crate) fn uid(&self) -> Result<String, Refusal> {
        uid(&self.rng)
    }

    /// The uid of the one node that all pods run on.
    pub(crate) fn node_uid(&self) -> &str {
        &self.node_uid
    }

    fn mark(&self, state: &mut State, key: &Key, object: &Arc<Value>, grace: u64) -> Arc<Value> {
        let end = self.now().plus(Duration::from_secs(grace));
        let already = deletion_time(object);
        if already.is_some_and(|already| already <= end) {
            return object.clone();
        }
        let mut object = object.as_ref().clone();
        object["metadata"]["deletionTimestamp"] = rfc3339(end).into();
        object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        self.put(state, key, Happening::Modified, object)
    }

    fn add(&self, state: &mut State, key: &Key, mut object: Value) -> Result<Arc<Value>, Refusal> {
        object["apiVersion"] = key.kind.api_version().into();
        object["kind"] = key.kind.name().into();
        object["metadata"]["uid"] = self.uid()?.into();
        object["metadata"]["creationTimestamp"] = rfc3339(self.now()).into();
        Ok(self.put(state, key, Happening::Added, object))
    }

    fn put(&self, state: &mut State, key: &Key, happening: Happening, mut object: Value) -> Arc<Value> {
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        let object = Arc::new(object);
        if happening == Happening::Deleted {
            state.objects.remove(key);
        } else {
            state.objects.insert(key.clone(), object.clone());
        }
        if state.history.len() == HISTORY
            && let Some(oldest) = state.history.pop_front()
        {
            state.forgotten = oldest.version;
        }
        let version = state.version;
        state.history.push_back(Event { version, key: key.clone(), happening, object: object.clone() });
        self.version.send_replace(version);
        object
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn get(&self, key: &Key) -> Result<Arc<Value>, Refusal> {
        self.objects.get(key).cloned().ok_or_else(|| Refusal::not_found(key))
    }
}

/// The text at a JSON pointer (RFC 6901); empty if there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// When an object that is being deleted is due to be gone.
pub(crate) fn deletion_time(object: &Value) -> Option<Timestamp> {
    text(object, "/metadata/deletionTimestamp").parse().ok()
}

/// A `metav1.Time`: RFC 3339 in whole seconds.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    time.floor_secs().to_string().replace(".000Z", "Z")
}

fn uid(rng: &SystemRng) -> Result<String, Refusal> {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes).map_err(|failed| Refusal::internal(failed.to_string()))?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
}
