//! A workload that presents no token, as an operator describes it and as its cluster knows it.

use std::sync::Arc;

use dayfly_core::ids::{ClusterName, Namespace, PodName, ServiceAccountName, Uid};
use dayfly_core::lease::Lease;
use dayfly_core::ports::{ChainEnd, Cluster};
use dayfly_core::provenance::{LABELS, Labels, ObjectRef, Provenance};
use dayfly_core::workload::{Binding, Node, Pod, ServiceAccount, Workload};
use dayfly_policy::Verdict;

use crate::Error;
use crate::attest::{Attested, controllers, not_ready, provenance};

/// A workload, as an operator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its cluster; needed only where several are served.
    pub cluster: Option<ClusterName>,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its service account.
    pub service_account: ServiceAccountName,
    /// Its pod.
    pub pod: Option<PodName>,
    /// The labels of its pod, where the cluster does not say.
    pub pod_labels: Labels,
    /// The top controller of its pod, where the cluster does not say.
    pub controller: Option<ObjectRef>,
    /// Its token is bound to no pod.
    pub unbound: bool,
}

/// The workload of a lease.
pub(crate) fn described(lease: &Lease) -> Described {
    let workload = &lease.workload;
    Described {
        cluster: Some(workload.cluster.clone()),
        namespace: workload.service_account.namespace.clone(),
        service_account: workload.service_account.name.clone(),
        pod: workload.pod.as_ref().map(|pod| pod.name.clone()),
        pod_labels: Labels::new(),
        controller: lease.provenance.top().cloned(),
        unbound: workload.pod.is_none(),
    }
}

/// A check, what came of it, and in words.
pub(crate) type Step = (&'static str, Verdict, String);

/// What a cluster has of a workload that presents no token.
pub(crate) struct Seen {
    /// The workload, as if its token were good.
    pub(crate) attested: Attested,
    /// What was looked up.
    pub(crate) steps: Vec<Step>,
}

/// Looks a described workload up. `known` is who it was: another by uid now is not it any more.
pub(crate) async fn seen(
    cluster: &Cluster,
    who: &Described,
    known: Option<&Workload>,
) -> Result<Seen, Error> {
    if !cluster.directory.ready() {
        return Err(not_ready());
    }
    let directory = &cluster.directory;
    let mut steps: Vec<Step> = Vec::new();
    let mut step = |there: bool, text: String| {
        let verdict = if there { Verdict::Passed } else { Verdict::PassedOver };
        steps.push(("workload", verdict, text));
    };
    let namespace = directory.namespace(&who.namespace).await?;
    step(namespace.is_some(), format!("namespace {} {}", who.namespace, is_there(namespace.is_some())));
    let expected = known.map(|known| known.service_account.uid);
    let account = directory.service_account(&who.namespace, &who.service_account, expected).await?;
    let same = account.as_ref().is_some_and(|facts| expected.is_none_or(|uid| uid == facts.uid));
    step(same, format!("service account {} {}", who.service_account, is_there(same)));
    let account = account.filter(|_| same);
    let expected = known.and_then(|known| known.pod.as_ref()).map(|pod| pod.uid);
    let mut pod = None;
    if let Some(name) = &who.pod {
        let facts = directory.pod(&who.namespace, name, expected).await?;
        pod = facts.filter(|facts| {
            facts.service_account == who.service_account && expected.is_none_or(|uid| uid == facts.uid)
        });
        step(pod.is_some(), format!("pod {name} of this service account {}", is_there(pod.is_some())));
        if known.is_some() && pod.is_none() {
            // Whether the chain up to it was whole, a lease does not say.
            let top = who.controller.as_ref().map(|top| format!("{} {}", top.kind, top.name));
            let top = top.unwrap_or_else(|| "none".to_owned());
            step(
                false,
                format!(
                    "its labels are not known any more; its top controller is taken from the lease: {top}"
                ),
            );
        }
    } else if !who.unbound {
        step(false, "no pod is named: what is not said of it is taken for none".to_owned());
    }
    let service_account = ServiceAccount {
        namespace: who.namespace.clone(),
        name: who.service_account.clone(),
        uid: account.as_ref().map_or(NOBODY, |facts| facts.uid),
    };
    // One that is not named is one all the same: the token is bound to it.
    let name = who.pod.clone().or_else(|| "unnamed".parse().ok()).filter(|_| !who.unbound);
    let mut workload = Workload {
        cluster: cluster.name.clone(),
        service_account,
        pod: name.map(|name| Pod { name, uid: pod.as_ref().map_or(NOBODY, |facts| facts.uid) }),
        node: None,
        credential_id: None,
    };
    let (mut came_from, mut end) = (Provenance::default(), ChainEnd::Top);
    if let Some(facts) = &pod {
        workload.node = facts.node.clone().map(|name| Node { name, uid: None });
        let chain = controllers(cluster, &workload, Some(facts)).await;
        end = chain.end;
        came_from = provenance(Some(facts), chain);
    } else {
        came_from.controllers.extend(who.controller.clone());
    }
    let attested = Attested {
        workload,
        binding: if who.unbound { Binding::Nothing } else { Binding::Pod },
        provenance: came_from,
        controllers_end: end,
        pod_labels: pod.map_or_else(|| Arc::new(who.pod_labels.clone()), |facts| facts.labels),
        service_account_labels: account.map(|facts| facts.labels).unwrap_or_default(),
        namespace_labels: namespace.map(|facts| facts.labels).unwrap_or_default(),
        terminating_until: None,
    };
    Ok(Seen { attested, steps })
}

/// The uid of what is not there: no rule names it.
pub(crate) const NOBODY: Uid = Uid::from_bytes([0; 16]);

fn is_there(there: bool) -> &'static str {
    if there { "is there" } else { "is not there: explained as if it were" }
}

pub(crate) fn check_described(who: &Described) -> Result<(), Error> {
    if who.pod_labels.len() > LABELS {
        return Err(Error::invalid("workload.pod_labels", format!("at most {LABELS}")));
    }
    if who.unbound && (who.pod.is_some() || !who.pod_labels.is_empty() || who.controller.is_some()) {
        return Err(Error::invalid(
            "workload.unbound",
            "say nothing of a pod where the token is bound to none",
        ));
    }
    Ok(())
}
