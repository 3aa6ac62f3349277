//! What verified callers are refused, counted per minute, caller, target and reason, and written to the audit log; and so what
//! Grants of mode Audit would have decided.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use dayfly_core::audit::{Detail, Draft, EventKind};
use dayfly_core::change::Change;
use dayfly_core::ids::{ClusterName, GrantRef, Namespace, TargetName};
use dayfly_core::ports::{Cluster, StoreError};
use dayfly_core::rule::Actor;
use dayfly_core::time::Timestamp;
use dayfly_core::workload::{Identity, Workload};
use dayfly_policy::explain::shortened;
use dayfly_policy::{PolicySet, Told};
use futures_util::future::join_all;

use crate::attest::{Attested, workload_of};
use crate::{Broker, Error, IssueRequest, Reason};

/// Counts kept at once; what is beyond is counted by reason only.
pub const ENTRIES: usize = 10_000;
/// Events written at once, so that the store commits them as groups.
const AT_ONCE: usize = 64;
/// The most bytes that are told of what would have been decided.
const TEXT_BYTES: usize = 512;

/// What is counted since the last flush.
#[derive(Default)]
pub(crate) struct Denials(Mutex<HashMap<Key, Tally>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    minute: u64,
    /// `CLUSTER:NAMESPACE:SERVICE-ACCOUNT`, or empty.
    workload: String,
    service_account_uid: String,
    /// The cluster that authenticated the caller; none for what is counted without a name.
    cluster: Option<ClusterName>,
    /// `USERNAME@CLUSTER` of a caller that is no workload, or empty.
    actor: String,
    target: Option<TargetName>,
    what: What,
}

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum What {
    /// A denial.
    Denied(Reason),
    /// What a Grant of mode Audit would have decided: a denial for this reason, or a credential.
    Audited { grant: Option<GrantRef>, refused: Option<Reason> },
}

#[derive(Debug, Clone)]
struct Tally {
    count: u64,
    first: Timestamp,
    last: Timestamp,
    /// What was decided the last time, in words, where that is told.
    text: String,
    /// Whether it was not always that.
    varied: bool,
}

/// Namespaces without Owner whose denials are counted.
pub const UNOWNED_NAMESPACES: usize = 10_000;

/// Denials for want of an Owner since the start, by namespace.
#[derive(Default)]
pub(crate) struct UnownedDenials(Mutex<HashMap<(ClusterName, Namespace), (u64, Timestamp)>>);

impl UnownedDenials {
    fn note(&self, cluster: &ClusterName, namespace: &Namespace, now: Timestamp) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (cluster.clone(), namespace.clone());
        if counts.len() >= UNOWNED_NAMESPACES && !counts.contains_key(&key) {
            return;
        }
        let (count, last) = counts.entry(key).or_insert((0, now));
        *count += 1;
        *last = now.max(*last);
    }

    /// Each namespace of this cluster: how often, and when last.
    pub(crate) fn of(&self, cluster: &ClusterName) -> BTreeMap<Namespace, (u64, Timestamp)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.iter().filter(|((of, _), _)| of == cluster);
        own.map(|((_, namespace), tally)| (namespace.clone(), *tally)).collect()
    }
}

/// Denials of one minute, workload, target and reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenialCount {
    /// `CLUSTER:NAMESPACE:SERVICE-ACCOUNT`.
    pub workload: String,
    /// The target, where a policy knew it.
    pub target: String,
    /// The stable reason.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Timestamp,
    /// The last of them.
    pub last: Timestamp,
}

impl Broker {
    /// A refusal of a workload's request, counted. A denial is kept with its explanation, by whose id the caller can have
    /// it explained.
    pub(crate) fn noted_denial(
        &self,
        cluster: &Cluster,
        identity: &Identity,
        asked: &IssueRequest,
        error: Error,
    ) -> Error {
        self.note_refused(cluster, identity, Some(&asked.target), &error);
        let Error::Denied { reason, message, denial } = error else { return error };
        let denial = denial.or_else(|| {
            let workload = workload_of(cluster, identity).ok()?;
            let told = Told::refused(check_of(reason), reason.name(), message.clone(), change_of(reason));
            Some(self.kept.keep(self.clock.now(), workload, Vec::new(), &asked.text(), told))
        });
        Error::Denied { reason, message, denial }
    }

    /// A denial by policy, kept with its explanation.
    pub(crate) fn keep_denial(
        &self,
        policy: &PolicySet,
        attested: &Attested,
        asked: &IssueRequest,
        told: Told,
        error: Error,
    ) -> Error {
        let Error::Denied { reason, message, denial: None } = error else { return error };
        let workload = attested.workload.clone();
        let owners = self.answering(policy, &workload.cluster, &attested.who());
        let denial = self.kept.keep(self.clock.now(), workload, owners, &asked.text(), told);
        Error::Denied { reason, message, denial: Some(denial) }
    }

    /// Counts what a workload is refused. A target that no policy knows is not recorded by its name: callers
    /// choose names freely, and could fill the counts with them.
    pub(crate) fn note_refused(
        &self,
        cluster: &Cluster,
        identity: &Identity,
        target: Option<&TargetName>,
        error: &Error,
    ) {
        if !error.is_refusal() {
            return;
        }
        let reason = error.reason();
        let policy = self.policies.last(&cluster.name);
        let known = |target: &&TargetName| policy.as_ref().is_some_and(|p| p.target(target).is_some());
        let target = target.filter(known).cloned();
        match workload_of(cluster, identity) {
            Ok(workload) => {
                if matches!(reason, Reason::Unowned | Reason::OwnerAmbiguous) {
                    let namespace = &workload.service_account.namespace;
                    self.unowned.note(&cluster.name, namespace, self.clock.now());
                }
                let key = Key {
                    minute: self.minute(),
                    workload: workload.to_string(),
                    service_account_uid: workload.service_account.uid.to_string(),
                    cluster: Some(cluster.name.clone()),
                    actor: String::new(),
                    target,
                    what: What::Denied(reason),
                };
                self.denials.note(key, self.clock.now());
            }
            Err(_) => self.note_denied_actor(&crate::operator::actor_of(identity), error),
        }
    }

    /// Counts a denied request of a caller that is no workload.
    pub(crate) fn note_denied_actor(&self, actor: &Actor, error: &Error) {
        let key = Key {
            minute: self.minute(),
            workload: String::new(),
            service_account_uid: String::new(),
            cluster: actor.cluster.clone(),
            actor: actor.to_string(),
            target: None,
            what: What::Denied(error.reason()),
        };
        self.denials.note_with(key, self.clock.now(), shortened(&error.to_string(), TEXT_BYTES));
    }

    /// Counts what a Grant of mode Audit would have decided: a refusal, or a credential, in words.
    pub(crate) fn note_audited_grant(
        &self,
        workload: &Workload,
        target: &TargetName,
        grant: GrantRef,
        would: Result<String, Error>,
    ) {
        let refused = would.as_ref().err().map(Error::reason);
        let key = Key {
            minute: self.minute(),
            workload: workload.to_string(),
            service_account_uid: workload.service_account.uid.to_string(),
            cluster: Some(workload.cluster.clone()),
            actor: String::new(),
            target: Some(target.clone()),
            what: What::Audited { grant: Some(grant), refused },
        };
        let (Ok(text) | Err(text)) = would.map_err(|error| error.to_string());
        self.denials.note_with(key, self.clock.now(), shortened(&text, TEXT_BYTES));
    }

    fn minute(&self) -> u64 {
        self.clock.now().as_secs() / 60
    }

    /// Writes what was counted to the audit log, one event each, and says how many. The server calls it each minute,
    /// and when it stops.
    ///
    /// # Errors
    /// When the store cannot commit: what was not written is kept for the next time.
    pub async fn flush_denials(&self) -> Result<usize, StoreError> {
        let mut written = 0;
        let owners = self.owners_of_denied().await;
        let mut left = self.denials.len();
        while left > 0 {
            let batch = self.denials.take(AT_ONCE.min(left));
            if batch.is_empty() {
                break;
            }
            left = left.saturating_sub(batch.len());
            let drafts = batch.iter().map(|(key, tally)| {
                let mut draft = draft(key, tally);
                draft.detail.owners =
                    key.namespace().and_then(|of| owners.get(&of).cloned()).unwrap_or_default();
                draft
            });
            let commits = drafts.map(|draft| self.store.commit(Change::Note(Box::new(draft))));
            let outcomes = join_all(commits).await;
            let mut failed = None;
            for ((key, tally), outcome) in batch.into_iter().zip(outcomes) {
                match outcome {
                    Ok(_) => written += 1,
                    Err(error) => {
                        self.denials.put_back(key, tally);
                        failed = Some(error);
                    }
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(written)
    }

    /// Who answers now for the namespaces of what is counted, so far as that can be told: whose workloads were denied is
    /// theirs to see. A cluster that does not answer is asked no more.
    async fn owners_of_denied(&self) -> HashMap<(ClusterName, Namespace), Vec<String>> {
        let (mut owners, mut silent) = (HashMap::new(), BTreeSet::new());
        for (name, namespace) in self.denials.namespaces() {
            let Some(cluster) = self.clusters.get(&name).filter(|_| !silent.contains(&name)) else {
                continue;
            };
            match self.namespace_owner(cluster, &namespace).await {
                Ok(found) => {
                    let found = found.iter().map(ToString::to_string).collect();
                    owners.insert((name, namespace), found);
                }
                Err(_) => {
                    silent.insert(name);
                }
            }
        }
        owners
    }
}

impl Denials {
    /// The namespaces of the workloads that are counted.
    fn namespaces(&self) -> BTreeSet<(ClusterName, Namespace)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.keys().filter_map(Key::namespace).collect()
    }

    fn note(&self, key: Key, now: Timestamp) {
        self.note_with(key, now, String::new());
    }

    fn note_with(&self, key: Key, now: Timestamp, text: String) {
        self.put_back(key, Tally { count: 1, first: now, last: now, text, varied: false });
    }

    fn put_back(&self, key: Key, tally: Tally) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = counts.len() >= ENTRIES && !counts.contains_key(&key);
        let (key, text) = if full { (Key::other(key.what), String::new()) } else { (key, tally.text) };
        let new = || Tally { count: 0, text: text.clone(), ..tally };
        let kept = counts.entry(key).or_insert_with(new);
        kept.count += tally.count;
        kept.first = kept.first.min(tally.first);
        kept.varied |= tally.varied || kept.text != text;
        if tally.last >= kept.last {
            (kept.last, kept.text) = (tally.last, text);
        }
    }

    /// What is counted, and not written yet, of the workloads denied at this moment.
    pub(crate) fn at(&self, at: Timestamp) -> Vec<DenialCount> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let then = counts
            .iter()
            .filter(|(key, tally)| key.minute == at.as_secs() / 60 && tally.first <= at && at <= tally.last);
        then.filter_map(|(key, tally)| count_of(&draft(key, tally))).collect()
    }

    fn take(&self, most: usize) -> Vec<(Key, Tally)> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<_> = counts.keys().take(most).cloned().collect();
        keys.into_iter().filter_map(|key| counts.remove_entry(&key)).collect()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Key {
    /// The workload's namespace.
    fn namespace(&self) -> Option<(ClusterName, Namespace)> {
        let mut parts = self.workload.split(':');
        let (cluster, namespace) = (parts.next()?, parts.next()?);
        Some((cluster.parse().ok()?, namespace.parse().ok()?))
    }

    /// Where a denial is counted when there are too many different ones.
    fn other(what: What) -> Self {
        let what = match what {
            What::Denied(_) => what,
            What::Audited { refused, .. } => What::Audited { grant: None, refused },
        };
        Self {
            minute: 0,
            workload: "other".to_owned(),
            service_account_uid: String::new(),
            cluster: None,
            actor: String::new(),
            target: None,
            what,
        }
    }
}

/// What an event counts, if it is of denials of a workload.
pub(crate) fn count_of(event: &Draft) -> Option<DenialCount> {
    let Draft { kind: EventKind::Denied, detail, .. } = event else { return None };
    (!detail.workload.is_empty()).then(|| DenialCount {
        workload: detail.workload.clone(),
        target: detail.target.clone(),
        reason: detail.reason.clone(),
        count: detail.count,
        first: Timestamp::from_millis(detail.first_millis),
        last: Timestamp::from_millis(detail.last_millis),
    })
}

/// The check that refuses for this reason, where policy was not asked.
pub(crate) const fn check_of(reason: Reason) -> &'static str {
    match reason {
        Reason::ScopeNotGranted => "scope",
        Reason::Held | Reason::ImageUnknown => "hold",
        Reason::SigningKeyMissing => "key",
        _ => "workload",
    }
}

/// What would have to change first, where policy was not asked.
pub(crate) const fn change_of(reason: Reason) -> &'static str {
    match reason {
        Reason::NotAWorkload | Reason::TokenUnbound => "use a projected serviceAccountToken volume of a pod",
        Reason::PodGone => "let the pod read its token file again; a pod that is gone gets nothing",
        Reason::PodTerminating | Reason::PodFinished => "ask from a pod that runs",
        Reason::ServiceAccountGone => {
            "restart the pod, so that its token is of the service account that there is"
        }
        Reason::NamespaceTerminating => "ask from a namespace that is not being deleted",
        Reason::ScopeNotGranted => "ask for less, or by Issue instead of Renew",
        Reason::Held => "wait until that revocation's hold is lifted",
        Reason::ImageUnknown => "wait until the pod's images are reported, or name them by digest",
        Reason::SigningKeyMissing => "import a signing key for this target",
        _ => "what the message says",
    }
}

fn draft(key: &Key, tally: &Tally) -> Draft {
    let (kind, grant, reason) = match &key.what {
        What::Denied(reason) => (EventKind::Denied, None, Some(*reason)),
        What::Audited { grant, refused } => (EventKind::Audited, grant.as_ref(), *refused),
    };
    let would = match (kind, reason) {
        (EventKind::Audited, None) => "would have been granted",
        (EventKind::Audited, Some(Reason::Held)) => "would have been held",
        (EventKind::Audited, Some(_)) => "would have been denied",
        _ => "",
    };
    let note = match tally {
        Tally { text, .. } if text.is_empty() => would.to_owned(),
        Tally { text, varied: true, .. } if would.is_empty() => format!("not always the same, last: {text}"),
        Tally { text, .. } if would.is_empty() => text.clone(),
        Tally { text, varied: true, .. } => format!("{would}, not always the same, last: {text}"),
        Tally { text, .. } => format!("{would}: {text}"),
    };
    let detail = Detail {
        workload: key.workload.clone(),
        service_account_uid: key.service_account_uid.clone(),
        actor: key.actor.clone(),
        cluster: key.cluster.as_ref().map(ToString::to_string).unwrap_or_default(),
        target: key.target.as_ref().map(ToString::to_string).unwrap_or_default(),
        grant: grant.map(ToString::to_string).unwrap_or_default(),
        reason: reason.map(|reason| reason.name().to_owned()).unwrap_or_default(),
        note,
        count: tally.count,
        first_millis: tally.first.as_millis(),
        last_millis: tally.last.as_millis(),
        ..Detail::default()
    };
    Draft { kind, subject: None, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_bounded_and_none_is_lost() {
        let denials = Denials::default();
        let now = Timestamp::from_secs(60);
        for n in 0..(ENTRIES as u64 + 500) {
            let key = Key { minute: n, workload: n.to_string(), ..Key::other(What::Denied(Reason::PodGone)) };
            denials.note(key, now);
        }
        assert_eq!(denials.len(), ENTRIES + 1);
        let total: u64 = denials.take(usize::MAX).iter().map(|(_, tally)| tally.count).sum();
        assert_eq!(total, ENTRIES as u64 + 500);
    }
}
