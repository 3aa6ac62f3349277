//! A policy: the valid objects of one cluster, indexed, never changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dayfly_core::digest::Digest;
use dayfly_core::ids::{ClusterName, GrantRef, Namespace, OwnerName, ServiceAccountName, TargetName};
use dayfly_core::provenance::Labels;

use crate::claimed::ClaimedByFile;
use crate::owners::{Claims, Contested};
use crate::parts::{any_matches, label_text};
use crate::spec::{GrantSpec, Mode, OwnerSpec, TargetSpec};

/// An `Owner` object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub name: OwnerName,
    /// What it says.
    pub spec: OwnerSpec,
    /// The first 16 hexadecimal digits of the digest of its content.
    pub generation: String,
}

/// A `Target` object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: TargetName,
    /// What it says.
    pub spec: TargetSpec,
    /// The first 16 hexadecimal digits of the digest of its content.
    pub generation: String,
}

/// A `Grant` object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its namespace and name.
    pub name: GrantRef,
    /// What it says.
    pub spec: GrantSpec,
    /// The first 16 hexadecimal digits of the digest of its content.
    pub generation: String,
}

impl Grant {
    /// Whether it is for this service account of its namespace, by name or by label.
    pub fn is_for(&self, service_account: &ServiceAccountName, labels: &Labels) -> bool {
        self.spec.service_accounts.contains(service_account)
            || any_matches(&self.spec.service_account_labels, labels)
    }
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

/// The valid objects of one cluster's policy. A value: a reload makes another.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {
    owners: BTreeMap<OwnerName, Arc<Owner>>,
    targets: BTreeMap<TargetName, Arc<Target>>,
    grants: BTreeMap<GrantRef, Arc<Grant>>,
    pub(crate) claims: Claims,
    by_namespace: HashMap<Namespace, Vec<Arc<Grant>>>,
    audits: HashMap<Namespace, Vec<Arc<Grant>>>,
    generation: Option<Digest>,
    /// For the next reading of its source; decides nothing by itself.
    pub(crate) claimed: ClaimedByFile,
}

impl PolicySet {
    /// The set of these objects. `contested` namespaces are owned by nobody, whatever else claims them by the same
    /// rank; `digests` are over each object's content.
    pub(crate) fn new(
        owners: BTreeMap<OwnerName, Arc<Owner>>,
        targets: BTreeMap<TargetName, Arc<Target>>,
        grants: BTreeMap<GrantRef, Arc<Grant>>,
        contested: &Contested,
        mut digests: Vec<Digest>,
    ) -> Self {
        let by_name = contested.names.iter().map(|name| vec![b"contested\0".to_vec(), name.as_str().into()]);
        let by_label =
            contested.labels.iter().map(|set| vec![b"contested\0\0".to_vec(), label_text(set).into()]);
        digests.extend(
            by_name
                .chain(by_label)
                .map(|parts| Digest::of_parts(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())),
        );
        let claims = Claims::new(owners.values(), contested);
        let mut by_namespace: HashMap<Namespace, Vec<Arc<Grant>>> = HashMap::new();
        let mut audits: HashMap<Namespace, Vec<Arc<Grant>>> = HashMap::new();
        for grant in grants.values() {
            let of_mode = match grant.spec.mode {
                Mode::Enforce => &mut by_namespace,
                Mode::Audit => &mut audits,
            };
            of_mode.entry(grant.name.namespace.clone()).or_default().push(Arc::clone(grant));
        }
        digests.sort_unstable_by_key(|digest| *digest.as_bytes());
        let parts: Vec<&[u8]> = digests.iter().map(|digest| digest.as_bytes().as_slice()).collect();
        let generation = Some(Digest::of_parts(&parts));
        Self {
            owners,
            targets,
            grants,
            claims,
            by_namespace,
            audits,
            generation,
            claimed: ClaimedByFile::new(),
        }
    }

    /// A digest over everything in it that counts: equal generations decide alike.
    pub fn generation(&self) -> Digest {
        self.generation.unwrap_or_else(|| Digest::of_parts(&[]))
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

    /// A namespace's Grants that decide, by name.
    pub fn grants_in(&self, namespace: &Namespace) -> impl Iterator<Item = &Arc<Grant>> {
        self.by_namespace.get(namespace).into_iter().flatten()
    }

    /// A namespace's Grants of mode Audit, by name: they grant nothing.
    pub fn audits_in(&self, namespace: &Namespace) -> impl Iterator<Item = &Arc<Grant>> {
        self.audits.get(namespace).into_iter().flatten()
    }
}
