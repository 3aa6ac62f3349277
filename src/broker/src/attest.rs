//! Step 2: which workload an identity is, and that its pod and service account are there now.

use std::time::Duration;

use dayfly_core::ports::{Cluster, PodFacts, PodPhase};
use dayfly_core::time::Timestamp;
use dayfly_core::workload::{Identity, Node, Pod, ServiceAccount, Workload};

use crate::{Broker, Error, Reason};

impl Broker {
    /// The workload, live. TokenReview says yes to a pod that is being deleted or has ended; this does not.
    pub(crate) async fn attest(
        &self,
        cluster: &Cluster,
        identity: &Identity,
        purpose: Purpose,
    ) -> Result<Workload, Error> {
        let mut workload = workload_of(cluster, identity)?;
        let on = check_live(cluster, &workload, purpose, self.now()).await?;
        workload.node = workload.node.or(on);
        Ok(workload)
    }
}

/// What a workload is attested for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A new credential: a pod that is being deleted gets none.
    New,
    /// The renewal of one, or to go on with it: a pod may finish its work, until its grace period ends.
    Renewal,
}

/// Whether a pod that is being deleted may still renew what it has: until its grace period ends.
// Until the directory tells when that is, as long as the pod is there: the API server removes it after its grace period,
// and accepts no token of it from then on.
const fn may_renew(_terminating: &PodFacts, _now: Timestamp) -> bool {
    true
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

/// Checks that a workload's service account and pod are there now, and says which node the pod is on.
pub(crate) async fn check_live(
    cluster: &Cluster,
    workload: &Workload,
    purpose: Purpose,
    now: Timestamp,
) -> Result<Option<Node>, Error> {
    if !cluster.directory.ready() {
        return Err(not_ready());
    }
    check_service_account(cluster, &workload.service_account).await?;
    match &workload.pod {
        Some(pod) => check_pod(cluster, &workload.service_account, pod, purpose, now).await,
        None => Ok(None),
    }
}

/// The pod that an identity is bound to. One that is named in a way that cannot be read is not taken for none.
fn pod_of(identity: &Identity) -> Result<Option<Pod>, Error> {
    let pod = identity.pod();
    let names_one = ["pod-name", "pod-uid"]
        .iter()
        .any(|key| identity.extra.contains_key(&format!("authentication.kubernetes.io/{key}")));
    if pod.is_none() && names_one {
        return Err(Error::denied(Reason::PodGone, "the pod that the token is bound to cannot be made out"));
    }
    Ok(pod)
}

pub(crate) fn not_ready() -> Error {
    Error::Unavailable {
        reason: Reason::NotReady,
        message: "the cluster's pods and service accounts have not been read yet: ask again".to_owned(),
        cause: "the directory is not ready".to_owned(),
        retry_after: Duration::from_secs(1),
    }
}

async fn check_service_account(cluster: &Cluster, account: &ServiceAccount) -> Result<(), Error> {
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
        Some(_) => Ok(()),
    }
}

/// Checks a pod, and says which node it is on.
async fn check_pod(
    cluster: &Cluster,
    account: &ServiceAccount,
    pod: &Pod,
    purpose: Purpose,
    now: Timestamp,
) -> Result<Option<Node>, Error> {
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
    if facts.deleting {
        match purpose {
            Purpose::Renewal if may_renew(&facts, now) => {}
            Purpose::Renewal => {
                return denied(Reason::PodTerminating, "is being deleted: its grace period is over");
            }
            Purpose::New => return denied(Reason::PodTerminating, "is being deleted: it gets nothing new"),
        }
    }
    match facts.phase {
        PodPhase::Succeeded | PodPhase::Failed => {
            denied(Reason::PodFinished, "has ended: it gets nothing new")
        }
        PodPhase::Pending | PodPhase::Running | PodPhase::Unknown => {
            Ok(facts.node.map(|name| Node { name, uid: None }))
        }
    }
}
