//! WhoAmI: what Dayfly sees of a workload, and which Grants of its own namespace name it.

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::claims::Claims;
use dayfly_core::ids::{Audience, ClusterName, GrantName, LeaseId, OwnerName, RuleId, Scope, TargetName};
use dayfly_core::lease::{Grounds, Lease, Owners, Phase};
use dayfly_core::provenance::{Labels, Provenance};
use dayfly_core::workload::Workload;
use dayfly_policy::{Grant, Ownership, PolicySet, TopController, Who};

use crate::attest::{Attested, Purpose, attest_workload, workload_of};
use crate::authenticate::{Bearer, Caller};
use crate::credential::Credential;
use crate::{Broker, Error};

/// What Dayfly sees of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhoAmI {
    /// The workload.
    pub workload: Workload,
    /// Why it gets nothing now although its token is good: its pod or service account is gone, ...
    pub trouble: Option<Error>,
    /// Who answers for it.
    pub ownership: Ownership,
    /// The Grants of its namespace that name it.
    pub grants: Vec<Available>,
}

/// A Grant, as the workload it names may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Available {
    /// Its name.
    pub name: GrantName,
    /// Its target.
    pub target: TargetName,
    /// What it gives.
    pub scope: Vec<Scope>,
    /// The audience it gives, where it names one.
    pub audience: Option<Audience>,
    /// The longest life it gives.
    pub max_ttl: Duration,
    /// The revocation that holds it: until that is lifted it gives nothing.
    pub held_by: Option<RuleId>,
}

impl Broker {
    /// What Dayfly sees of the caller.
    ///
    /// # Errors
    /// When its token is not good, or the cluster or its policy cannot be read.
    pub async fn who_am_i(&self, bearer: Bearer<'_>) -> Result<WhoAmI, Error> {
        let (cluster, identity) = self.authenticate(bearer, Caller::Workload).await?;
        let workload = workload_of(cluster, &identity)?;
        let attested =
            attest_workload(cluster, workload.clone(), identity.binding(), Purpose::New, self.now()).await;
        let (attested, trouble) = match attested {
            Ok(attested) => (Some(attested), None),
            Err(error @ Error::Denied { .. }) => (None, Some(error)),
            Err(error) => return Err(error),
        };
        let workload = attested.as_ref().map_or(workload, |attested| attested.workload.clone());
        let none = Arc::new(Labels::new());
        let labels = |of: fn(&Attested) -> &Arc<Labels>| Arc::clone(attested.as_ref().map_or(&none, of));
        let account_labels = labels(|attested| &attested.service_account_labels);
        let namespace_labels = labels(|attested| &attested.namespace_labels);
        let pod_labels = labels(|attested| &attested.pod_labels);
        let policy = self.policies.current(&cluster.name, self.clock.monotonic())?;
        let account = &workload.service_account;
        let grants = policy.grants_in(&account.namespace);
        let grants = grants.filter(|grant| grant.is_for(&account.name, &account_labels));
        let who = Who {
            namespace: &account.namespace,
            namespace_labels: &namespace_labels,
            service_account: &account.name,
            pod_labels: &pod_labels,
            controller: attested.as_ref().map_or(TopController::Unknown, Attested::top_controller),
        };
        let ownership = self.ownership(&policy, &cluster.name, &who);
        let provenance = attested.map(|attested| attested.provenance).unwrap_or_default();
        let available =
            |grant: &Arc<Grant>| self.available(&policy, grant, &workload, &ownership, &provenance);
        let grants = grants.map(available).collect();
        Ok(WhoAmI { workload, trouble, ownership, grants })
    }

    /// Who answers for a workload now, by the configuration's grace too.
    pub(crate) fn ownership(&self, policy: &PolicySet, cluster: &ClusterName, who: &Who<'_>) -> Ownership {
        policy.owners_of(who, self.policies.grace(cluster), self.now())
    }

    /// By whose rights a workload's things may be read: its owners, or where it is not clear which narrower one, its
    /// namespace's; nobody's where that is not clear either.
    pub(crate) fn answering(
        &self,
        policy: &PolicySet,
        cluster: &ClusterName,
        who: &Who<'_>,
    ) -> Vec<OwnerName> {
        match self.ownership(policy, cluster, who) {
            Ownership::Owned(owners) => owners.iter().cloned().collect(),
            Ownership::Unowned | Ownership::Ambiguous => {
                match policy.owner_of(who.namespace, who.namespace_labels) {
                    Ownership::Owned(owners) => vec![owners.namespace],
                    Ownership::Unowned | Ownership::Ambiguous => Vec::new(),
                }
            }
        }
    }

    fn available(
        &self,
        policy: &PolicySet,
        grant: &Grant,
        workload: &Workload,
        ownership: &Ownership,
        provenance: &Provenance,
    ) -> Available {
        let held_by = match ownership {
            Ownership::Owned(owners) => self.held_by(policy, grant, workload, owners, provenance),
            Ownership::Unowned | Ownership::Ambiguous => None,
        };
        Available {
            name: grant.name.name.clone(),
            target: grant.spec.target.clone(),
            scope: grant.spec.scope.clone(),
            audience: grant.spec.audience.clone(),
            max_ttl: grant.spec.max_ttl.duration(),
            held_by,
        }
    }
    /// The revocation that would keep this grant from giving anything now.
    fn held_by(
        &self,
        policy: &PolicySet,
        grant: &Grant,
        workload: &Workload,
        owners: &Owners,
        provenance: &Provenance,
    ) -> Option<RuleId> {
        let Credential { key, spiffe_id, .. } = self.credential(policy, workload, &grant.spec.target).ok()?;
        let now = self.now();
        // A lease as it would be, as far as a rule looks at it.
        let lease = Lease {
            id: LeaseId::first_at(now),
            workload: workload.clone(),
            owners: owners.clone(),
            target: grant.spec.target.clone(),
            grant: grant.name.clone(),
            audience: self.audiences.workload.clone(),
            scope: Vec::new(),
            claims: Claims::new(),
            issued_at: now,
            expires_at: now,
            key_id: key.id,
            digests: Vec::new(),
            status: None,
            confirmation: None,
            spiffe_id,
            idempotency: None,
            renews: None,
            provenance: provenance.clone(),
            grounds: Grounds::default(),
            phase: Phase::Active,
        };
        self.store.rules().holding(&lease).map(|rule| rule.id)
    }
}
