//! Step 2: which workload an identity is, that its pod, service account and namespace are there now, and where it came
//! from.

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ports::{
    ChainEnd, Cluster, ControllerChain, NamespaceFacts, PodFacts, PodPhase, ServiceAccountFacts,
};
use dayfly_core::provenance::{Labels, ObjectRef, Provenance};
use dayfly_core::time::Timestamp;
use dayfly_core::workload::{Binding, Identity, Node, Pod, ServiceAccount, Workload};
use dayfly_policy::{Denial, TopController, Who};

use crate::authenticate::{Bearer, Caller};
use crate::{Broker, Error, Reason};

/// A workload that is there now, and what is known of it.
///
/// Labels and controllers are asserted: whoever can create the pod can write them. They count where the namespace's
/// owner delegates that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// The workload.
    pub workload: Workload,
    /// What its token is bound to.
    pub binding: Binding,
    /// Where it came from.
    pub provenance: Provenance,
    /// What is above the last of its controllers.
    pub controllers_end: ChainEnd,
    /// The labels of its pod; none where it has none.
    pub pod_labels: Arc<Labels>,
    /// The labels of its service account.
    pub service_account_labels: Arc<Labels>,
    /// The labels of its namespace.
    pub namespace_labels: Arc<Labels>,
    /// Until when its pod's grace period runs, where that is being deleted: only for a [`Purpose::Renewal`].
    pub terminating_until: Option<Timestamp>,
}

/// What a workload is attested for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A new credential: a pod or namespace that is being deleted gets none.
    New,
    /// The renewal of one: a pod may finish its work, until its grace period ends.
    Renewal,
}

impl Attested {
    /// Its top controller.
    pub fn top_controller(&self) -> TopController<&ObjectRef> {
        match (self.controllers_end, self.provenance.top()) {
            (ChainEnd::Top, Some(top)) => TopController::Is(top),
            (ChainEnd::Top, None) | (ChainEnd::Broken, _) => TopController::None,
            (ChainEnd::Unknown, _) => TopController::Unknown,
        }
    }

    /// It, as far as ownership looks at it.
    pub(crate) fn who(&self) -> Who<'_> {
        let account = &self.workload.service_account;
        Who {
            namespace: &account.namespace,
            namespace_labels: &self.namespace_labels,
            service_account: &account.name,
            pod_labels: &self.pod_labels,
            controller: self.top_controller(),
        }
    }

    /// A denial, in words that fit its token.
    pub(crate) fn denied(&self, denial: Denial) -> Error {
        let bound_to = match (&denial, self.binding) {
            (Denial::TokenUnbound, Binding::Node) => "a node, and to no pod",
            (Denial::TokenUnbound, Binding::Secret) => "a Secret, and to no pod",
            _ => return denial.into(),
        };
        let message = format!("the token is bound to {bound_to}: use a projected serviceAccountToken volume");
        Error::denied(Reason::TokenUnbound, message)
    }
}

impl Broker {
    /// What is known of the workload that presents this token.
    ///
    /// # Errors
    /// When its token is not good, it gets nothing of this kind now, or the cluster does not answer.
    pub async fn attested(&self, bearer: Bearer<'_>, purpose: Purpose) -> Result<Attested, Error> {
        let (cluster, identity) = self.authenticate(bearer, Caller::Workload).await?;
        self.attest(cluster, &identity, purpose).await
    }

    /// The workload, live. TokenReview says yes to a pod that is being deleted or has ended; this does not.
    pub(crate) async fn attest(
        &self,
        cluster: &Cluster,
        identity: &Identity,
        purpose: Purpose,
    ) -> Result<Attested, Error> {
        let workload = workload_of(cluster, identity)?;
        attest_workload(cluster, workload, identity.binding(), purpose, self.now()).await
    }
}

/// This workload, live.
pub(crate) async fn attest_workload(
    cluster: &Cluster,
    mut workload: Workload,
    binding: Binding,
    purpose: Purpose,
    now: Timestamp,
) -> Result<Attested, Error> {
    let live = check_live(cluster, &workload, purpose, now).await?;
    workload.node = workload.node.or(live.node());
    let chain = controllers(cluster, &workload, live.pod.as_ref()).await;
    Ok(live.attested(workload, binding, chain))
}

/// The workload that an identity says it is.
pub(crate) fn workload_of(cluster: &Cluster, identity: &Identity) -> Result<Workload, Error> {
    let message = "the caller is no service account: send a pod's projected service-account token";
    let service_account =
        identity.service_account().ok_or_else(|| Error::denied(Reason::NotAWorkload, message))?;
    Ok(Workload {
        cluster: cluster.name.clone(),
        service_account,
        pod: pod_of(identity)?,
        node: identity.node(),
        credential_id: identity.credential_id(),
    })
}

/// A workload's objects as they are now.
pub(crate) struct Live {
    namespace: NamespaceFacts,
    service_account: ServiceAccountFacts,
    pod: Option<PodFacts>,
}

impl Live {
    /// The node that its pod is on.
    pub(crate) fn node(&self) -> Option<Node> {
        let name = self.pod.as_ref()?.node.clone()?;
        Some(Node { name, uid: None })
    }

    fn attested(self, workload: Workload, binding: Binding, chain: ControllerChain) -> Attested {
        let Self { namespace, service_account, pod } = self;
        let controllers_end = chain.end;
        Attested {
            workload,
            binding,
            provenance: provenance(pod.as_ref(), chain),
            controllers_end,
            terminating_until: pod.as_ref().and_then(|pod| pod.deleting),
            pod_labels: pod.map(|pod| pod.labels).unwrap_or_default(),
            service_account_labels: service_account.labels,
            namespace_labels: namespace.labels,
        }
    }
}

/// Checks that a workload's namespace, service account and pod are there now, and may have what is asked for.
pub(crate) async fn check_live(
    cluster: &Cluster,
    workload: &Workload,
    purpose: Purpose,
    now: Timestamp,
) -> Result<Live, Error> {
    if !cluster.directory.ready() {
        return Err(not_ready());
    }
    let service_account = check_service_account(cluster, &workload.service_account).await?;
    let pod = match &workload.pod {
        Some(pod) => Some(check_pod(cluster, &workload.service_account, pod, purpose, now).await?),
        None => None,
    };
    let namespace = check_namespace(cluster, workload, purpose).await?;
    Ok(Live { namespace, service_account, pod })
}

/// What controls a pod. That it cannot be read is a reason to refuse only where ownership depends on it.
pub(crate) async fn controllers(
    cluster: &Cluster,
    workload: &Workload,
    pod: Option<&PodFacts>,
) -> ControllerChain {
    match pod.and_then(|pod| pod.controller.as_ref()) {
        Some(first) => cluster.directory.controllers(&workload.service_account.namespace, first).await,
        None => ControllerChain { end: ChainEnd::Top, ..ControllerChain::default() },
    }
}

/// Where a pod came from.
pub(crate) fn provenance(pod: Option<&PodFacts>, chain: ControllerChain) -> Provenance {
    let of_pod = || pod.and_then(|pod| pod.applied_by.as_deref().cloned());
    Provenance {
        applied_by: chain.applied_by.or_else(of_pod),
        controllers: chain.controllers,
        images: pod.map(|pod| pod.images.to_vec()).unwrap_or_default(),
        images_known: pod.is_some_and(|pod| pod.images_known),
    }
}

/// The pod that an identity is bound to. One that is named in a way that cannot be read is not taken for none.
fn pod_of(identity: &Identity) -> Result<Option<Pod>, Error> {
    let pod = identity.pod();
    if pod.is_none() && identity.binding() == Binding::Pod {
        return Err(Error::denied(Reason::PodGone, "the pod that the token is bound to cannot be made out"));
    }
    Ok(pod)
}

pub(crate) fn not_ready() -> Error {
    Error::Unavailable {
        reason: Reason::NotReady,
        message: "the cluster's pods, service accounts and namespaces have not been read yet: ask again"
            .to_owned(),
        cause: "the directory is not ready".to_owned(),
        retry_after: Duration::from_secs(1),
    }
}

async fn check_namespace(
    cluster: &Cluster,
    workload: &Workload,
    purpose: Purpose,
) -> Result<NamespaceFacts, Error> {
    let name = &workload.service_account.namespace;
    let denied =
        |what: &str| Err(Error::denied(Reason::NamespaceTerminating, format!("namespace {name} {what}")));
    match cluster.directory.namespace(name).await? {
        None => denied("does not exist any more"),
        Some(now) if now.deleting && purpose == Purpose::New => {
            denied("is being deleted: nothing in it gets anything new")
        }
        Some(now) => Ok(now),
    }
}

async fn check_service_account(
    cluster: &Cluster,
    account: &ServiceAccount,
) -> Result<ServiceAccountFacts, Error> {
    let gone = |what: &str| {
        let message = format!("service account {}/{} {what}", account.namespace, account.name);
        Err(Error::denied(Reason::ServiceAccountGone, message))
    };
    let now = cluster.directory.service_account(&account.namespace, &account.name, Some(account.uid)).await?;
    match now {
        None => gone("does not exist any more"),
        Some(now) if now.uid != account.uid => {
            gone("was recreated since the token was made: restart the pod")
        }
        Some(now) if now.deleting => gone("is being deleted"),
        Some(now) => Ok(now),
    }
}

async fn check_pod(
    cluster: &Cluster,
    account: &ServiceAccount,
    pod: &Pod,
    purpose: Purpose,
    now: Timestamp,
) -> Result<PodFacts, Error> {
    let denied = |reason, what: &str| {
        Err(Error::denied(reason, format!("pod {}/{} {what}", account.namespace, pod.name)))
    };
    let Some(facts) = cluster.directory.pod(&account.namespace, &pod.name, Some(pod.uid)).await? else {
        return denied(Reason::PodGone, "does not exist any more");
    };
    if facts.uid != pod.uid {
        return denied(Reason::PodGone, "is another one by now: read the token file again");
    }
    if facts.service_account != account.name {
        return denied(Reason::PodGone, "does not run as this service account");
    }
    if let Err(what) = may_have(purpose, facts.deleting, now) {
        return denied(Reason::PodTerminating, what);
    }
    match facts.phase {
        PodPhase::Succeeded | PodPhase::Failed => {
            denied(Reason::PodFinished, "has ended: it gets nothing new")
        }
        PodPhase::Pending | PodPhase::Running | PodPhase::Unknown => Ok(facts),
    }
}

/// Whether a pod may have this, of which `until` says when its grace period ends, where it is being deleted: nothing new
/// at once, and no renewal once that has ended. Otherwise why not.
pub(crate) fn may_have(
    purpose: Purpose,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), &'static str> {
    match (until, purpose) {
        (None, _) => Ok(()),
        (Some(_), Purpose::New) => Err("is being deleted: it gets nothing new"),
        (Some(until), Purpose::Renewal) if now < until => Ok(()),
        (Some(_), Purpose::Renewal) => {
            Err("is being deleted, and its grace period has ended: it renews nothing")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminating_pod_renews_until_its_grace_period_ends_and_gets_nothing_new() {
        let end = Timestamp::from_secs(1_795_435_200);
        let (before, after) = (end.minus(Duration::from_millis(1)), end.plus(Duration::from_millis(1)));
        for now in [before, end, after] {
            for purpose in [Purpose::New, Purpose::Renewal] {
                assert!(may_have(purpose, None, now).is_ok());
            }
            assert!(may_have(Purpose::New, Some(end), now).is_err());
            assert_eq!(may_have(Purpose::Renewal, Some(end), now).is_ok(), now == before, "{now}");
        }
        // What the time of did not read.
        assert!(may_have(Purpose::Renewal, Some(Timestamp::default()), before).is_err());
    }
}
