//! Namespaces that no Owner answers for: what is asked for there in vain, and who may know whose they are.

use std::collections::{BTreeMap, BTreeSet};

use dayfly_core::ids::{ClusterName, Namespace, OwnerName};
use dayfly_core::ports::{Cluster, NamespaceFacts};
use dayfly_core::provenance::Labels;
use dayfly_core::time::Timestamp;
use dayfly_policy::{Ownership, PolicySet};

use crate::attest::not_ready;
use crate::authenticate::Bearer;
use crate::list::page_size;
use crate::operator::Verb;
use crate::reads::Read;
use crate::{Broker, Error};

/// Namespaces of one cluster that are looked at.
pub const NAMESPACES: usize = 50_000;
/// Owners told of for one namespace.
pub const RELATED: usize = 8;

/// How to find out who may change that.
pub const WHO_MAY_CHANGE: &str = "Kubernetes says whether someone may do a thing, not who may. `kubectl auth can-i update \
     owners.dayfly.dev --as=USER` says it of one user, and the kubectl plugin who-can of all that RBAC names: `kubectl \
     who-can update owners.dayfly.dev`. Where policy is read from a folder, it is whoever may write that folder.";

/// A namespace that no Owner answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnownedNamespace {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its name.
    pub namespace: Namespace,
    /// Whether several Owners claim it, or an invalid one does; else none does.
    pub contested: bool,
    /// How often its workloads were denied for that since the start, and when last.
    pub denied: Option<(u64, Timestamp)>,
    /// Whether the cluster has it now.
    pub exists: bool,
    /// The keys of its labels by which `related` were found.
    pub label_keys: Vec<String>,
    /// Owners whose namespaces have some of these keys, those that share most first.
    pub related: Vec<OwnerName>,
}

impl Broker {
    /// The namespaces without Owner, by cluster and name, those above `after`: verb `list` on all owners.
    ///
    /// # Errors
    /// When the operator may not list all owners, or something needed does not answer.
    pub async fn list_unowned(
        &self,
        bearer: Bearer<'_>,
        after: Option<&(ClusterName, Namespace)>,
        limit: Option<usize>,
    ) -> Result<Vec<UnownedNamespace>, Error> {
        let operator = self.operator(bearer).await?;
        let limit = page_size(limit)?;
        let may = operator.may(Verb::List, None).await?;
        let allowed = if may { Ok(()) } else { Err(operator.refusal(Verb::List, None)) };
        self.noted(&operator, allowed)?;
        self.note_read(&operator, Read::of("ListUnowned", ""));
        let mut found = Vec::new();
        let reached = self.clusters.values().filter(|cluster| operator.reaches(&cluster.name));
        for cluster in reached.filter(|cluster| after.is_none_or(|(at, _)| cluster.name >= *at)) {
            if found.len() == limit {
                break;
            }
            let above = after.filter(|(at, _)| *at == cluster.name).map(|(_, namespace)| namespace);
            found.extend(self.unowned_of(cluster, above, limit - found.len())?);
        }
        Ok(found)
    }

    fn unowned_of(
        &self,
        cluster: &Cluster,
        after: Option<&Namespace>,
        limit: usize,
    ) -> Result<Vec<UnownedNamespace>, Error> {
        if !cluster.directory.ready() {
            return Err(not_ready());
        }
        let policy = self.policies.current(&cluster.name, self.clock.monotonic())?;
        let there: BTreeMap<Namespace, NamespaceFacts> =
            cluster.directory.namespaces(NAMESPACES).into_iter().collect();
        let kin = Kin::of(&policy, &there);
        let denied = self.unowned.of(&cluster.name);
        let names: BTreeSet<&Namespace> = there.keys().chain(denied.keys()).collect();
        let none = Labels::new();
        let unowned = names.into_iter().filter(|name| after.is_none_or(|after| *name > after));
        let unowned = unowned.filter_map(|name| {
            let labels = there.get(name).map_or(&none, |facts| facts.labels.as_ref());
            let contested = match policy.owner_of(name, labels) {
                Ownership::Owned(_) => return None,
                Ownership::Unowned => false,
                Ownership::Ambiguous => true,
            };
            let (label_keys, related) = kin.like(labels);
            Some(UnownedNamespace {
                cluster: cluster.name.clone(),
                namespace: name.clone(),
                contested,
                denied: denied.get(name).copied(),
                exists: there.contains_key(name),
                label_keys,
                related,
            })
        });
        Ok(unowned.take(limit).collect())
    }
}

/// Which Owners have namespaces with a label's key, or claim by it.
struct Kin<'a>(BTreeMap<&'a str, BTreeSet<&'a OwnerName>>);

impl<'a> Kin<'a> {
    fn of(policy: &'a PolicySet, there: &'a BTreeMap<Namespace, NamespaceFacts>) -> Self {
        let mut kin: BTreeMap<&str, BTreeSet<&OwnerName>> = BTreeMap::new();
        for owner in policy.owners() {
            for key in owner.spec.namespaces.labels.iter().flat_map(Labels::keys) {
                kin.entry(key).or_default().insert(&owner.name);
            }
        }
        for (name, facts) in there {
            let Ownership::Owned(owners) = policy.owner_of(name, &facts.labels) else { continue };
            let Some(owner) = policy.owner(&owners.namespace) else { continue };
            for key in facts.labels.keys().filter(|key| tells(key)) {
                kin.entry(key).or_default().insert(&owner.name);
            }
        }
        Self(kin)
    }

    /// The keys among these labels that some Owner's namespaces have, and those Owners.
    fn like(&self, labels: &Labels) -> (Vec<String>, Vec<OwnerName>) {
        let (mut keys, mut shared) = (Vec::new(), BTreeMap::<&OwnerName, usize>::new());
        for key in labels.keys().filter(|key| tells(key)) {
            let Some(owners) = self.0.get(key.as_str()) else { continue };
            keys.push(key.clone());
            for owner in owners {
                *shared.entry(owner).or_default() += 1;
            }
        }
        let mut related: Vec<_> = shared.into_iter().collect();
        related.sort_by_key(|(_, shared)| std::cmp::Reverse(*shared));
        (keys, related.into_iter().take(RELATED).map(|(owner, _)| owner.clone()).collect())
    }
}

/// Whether a label's key can tell teams apart: those of Kubernetes itself are on every namespace.
fn tells(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let of = |name: &str| domain == name || domain.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    !of("kubernetes.io") && !of("k8s.io")
}
