//! A policy: the valid objects of one cluster, indexed, never changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dayfly_core::digest::Digest;
use dayfly_core::ids::{ClusterName, GrantRef, Namespace, OwnerName, ServiceAccountName, TargetName};
use dayfly_core::lease::Owners;

use crate::ceiling::Ceiling;
use crate::spec::{Fault, GrantSpec, OwnerSpec, Step, TargetSpec};

/// An `Owner` object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub name: OwnerName,
    /// What it says.
    pub spec: OwnerSpec,
}

/// A `Target` object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: TargetName,
    /// What it says.
    pub spec: TargetSpec,
}

/// A `Grant` object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its namespace and name.
    pub name: GrantRef,
    /// What it says.
    pub spec: GrantSpec,
}

impl Target {
    /// Whether it lists this service account among its verifiers. `home` is the cluster that this policy applies to,
    /// which a verifier that names no cluster is of.
    pub fn accepts_verifier(
        &self,
        home: &ClusterName,
        cluster: &ClusterName,
        namespace: &Namespace,
        service_account: &ServiceAccountName,
    ) -> bool {
        self.spec.verifiers.iter().any(|verifier| {
            verifier.cluster.as_ref().unwrap_or(home) == cluster
                && verifier.namespace == *namespace
                && verifier.service_account == *service_account
        })
    }
}

/// Who answers for a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody: its workloads get nothing.
    Unowned,
    /// These.
    Owned(Owners),
    /// Several owners of equal rank, so nobody: its workloads get nothing.
    Ambiguous,
}

/// The valid objects of one cluster's policy. A value: a reload makes another.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {
    owners: BTreeMap<OwnerName, Arc<Owner>>,
    targets: BTreeMap<TargetName, Arc<Target>>,
    grants: BTreeMap<GrantRef, Arc<Grant>>,
    ownership: HashMap<Namespace, Ownership>,
    by_namespace: HashMap<Namespace, Vec<Arc<Grant>>>,
    generation: Option<Digest>,
}

impl PolicySet {
    /// The set of these objects. `contested` namespaces are owned by nobody, whatever else names them; `digests` are
    /// over each object's content.
    pub(crate) fn new(
        owners: BTreeMap<OwnerName, Arc<Owner>>,
        targets: BTreeMap<TargetName, Arc<Target>>,
        grants: BTreeMap<GrantRef, Arc<Grant>>,
        contested: &BTreeSet<Namespace>,
        mut digests: Vec<Digest>,
    ) -> Self {
        let mut ownership: HashMap<Namespace, Ownership> =
            contested.iter().map(|namespace| (namespace.clone(), Ownership::Ambiguous)).collect();
        let contested = contested
            .iter()
            .map(|namespace| Digest::of_parts(&[b"contested\0", namespace.as_str().as_bytes()]));
        digests.extend(contested);
        for owner in owners.values() {
            for namespace in &owner.spec.namespaces.names {
                let one = Owners::of(owner.name.clone());
                let known = ownership.entry(namespace.clone()).or_insert(Ownership::Unowned);
                *known = match known {
                    Ownership::Unowned => Ownership::Owned(one),
                    Ownership::Owned(_) | Ownership::Ambiguous => Ownership::Ambiguous,
                };
            }
        }
        let mut by_namespace: HashMap<Namespace, Vec<Arc<Grant>>> = HashMap::new();
        for grant in grants.values() {
            by_namespace.entry(grant.name.namespace.clone()).or_default().push(Arc::clone(grant));
        }
        digests.sort_unstable_by_key(|digest| *digest.as_bytes());
        let parts: Vec<&[u8]> = digests.iter().map(|digest| digest.as_bytes().as_slice()).collect();
        let generation = Some(Digest::of_parts(&parts));
        Self { owners, targets, grants, ownership, by_namespace, generation }
    }

    /// A digest over everything in it that counts: equal generations decide alike.
    pub fn generation(&self) -> Digest {
        self.generation.unwrap_or_else(|| Digest::of_parts(&[]))
    }

    /// Who answers for a namespace.
    pub fn owner_of(&self, namespace: &Namespace) -> &Ownership {
        self.ownership.get(namespace).unwrap_or(&Ownership::Unowned)
    }

    /// The Owner of this name.
    pub fn owner(&self, name: &OwnerName) -> Option<&Arc<Owner>> {
        self.owners.get(name)
    }

    /// The Target of this name.
    pub fn target(&self, name: &TargetName) -> Option<&Arc<Target>> {
        self.targets.get(name)
    }

    /// The Grant of this namespace and name.
    pub fn grant(&self, name: &GrantRef) -> Option<&Arc<Grant>> {
        self.grants.get(name)
    }

    /// Every Owner, by name.
    pub fn owners(&self) -> impl Iterator<Item = &Arc<Owner>> {
        self.owners.values()
    }

    /// The Owners whose names are above `after`, by name.
    pub fn owners_after(&self, after: Option<&OwnerName>) -> impl Iterator<Item = &Arc<Owner>> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.owners.range::<OwnerName, _>((after.map_or(Unbounded, Excluded), Unbounded)).map(|(_, o)| o)
    }

    /// Every Target, by name.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.targets.values()
    }

    /// Every Grant, by namespace and name.
    pub fn grants(&self) -> impl Iterator<Item = &Arc<Grant>> {
        self.grants.values()
    }

    /// A namespace's Grants, by name.
    pub fn grants_in(&self, namespace: &Namespace) -> impl Iterator<Item = &Arc<Grant>> {
        self.by_namespace.get(namespace).into_iter().flatten()
    }

    /// What a Grant says and can never give.
    pub(crate) fn beyond(&self, grant: &Grant) -> Vec<Fault> {
        let spec = &grant.spec;
        let fault = |field, message| Fault { path: vec![Step::Key("spec"), Step::Key(field)], message };
        let Some(target) = self.target(&spec.target) else {
            return vec![fault("target", format!("there is no valid Target {}", spec.target))];
        };
        let mut faults = Vec::new();
        let audiences = match &spec.audience {
            Some(audience) if !target.spec.audiences().contains(audience) => {
                faults.push(fault("audience", format!("{audience} is not one of the target's")));
                return faults;
            }
            Some(audience) => std::slice::from_ref(audience),
            None => target.spec.audiences(),
        };
        let owners = match self.owner_of(&grant.name.namespace) {
            Ownership::Owned(owners) => Some(owners),
            Ownership::Unowned | Ownership::Ambiguous => None,
        };
        let ceiling = Ceiling::of(&target.spec, &grant.name.namespace, owners);
        for (index, scope) in spec.scope.iter().enumerate() {
            if !audiences.iter().any(|audience| ceiling.allows(audience, scope)) {
                let message = format!("{scope} is above the target's ceiling: requests for it are denied");
                let path = vec![Step::Key("spec"), Step::Key("scope"), Step::Index(index)];
                faults.push(Fault { path, message });
            }
        }
        let bounds = [Some(target.spec.max_ttl.duration()), ceiling.max_ttl()];
        if let Some(bound) = bounds.into_iter().flatten().min().filter(|b| spec.max_ttl.duration() > *b) {
            faults.push(fault("maxTtl", format!("is cut to the target's {} s", bound.as_secs())));
        }
        faults
    }
}
