//! Who answers for a workload: the Owner of its namespace, narrowed where that Owner delegates.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use dayfly_core::ids::{Namespace, OwnerName, ServiceAccountName};
use dayfly_core::lease::Owners;
use dayfly_core::provenance::{Asserted, Labels, ObjectRef};
use dayfly_core::time::Timestamp;

use crate::decide::{Denial, UnownedGrace};
use crate::parts::{has_all, label_text};
use crate::set::{Owner, PolicySet};
use crate::spec::{DelegateSpec, NamespacesSpec};
use crate::trace::Silent;

/// A workload, as far as ownership looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// Its namespace.
    pub namespace: &'a Namespace,
    /// That namespace's labels.
    pub namespace_labels: &'a Labels,
    /// Its service account.
    pub service_account: &'a ServiceAccountName,
    /// Its pod's labels; empty where its token is bound to none.
    pub pod_labels: &'a Labels,
    /// Its pod's top controller.
    pub controller: TopController<&'a ObjectRef>,
}

/// What controls a workload's pod, at the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TopController<T> {
    /// Nothing, or what cannot be followed up to a top.
    #[default]
    None,
    /// This.
    Is(T),
    /// It cannot be read now. Where a delegate is chosen by it, nobody answers for the workload.
    Unknown,
}

impl<T> TopController<T> {
    /// It, borrowed.
    pub const fn as_ref(&self) -> TopController<&T> {
        match self {
            Self::None => TopController::None,
            Self::Is(controller) => TopController::Is(controller),
            Self::Unknown => TopController::Unknown,
        }
    }
}

impl<T> From<Option<T>> for TopController<T> {
    fn from(known: Option<T>) -> Self {
        known.map_or(Self::None, Self::Is)
    }
}

impl<T: Clone> TopController<&T> {
    /// It, its own.
    pub fn cloned(self) -> TopController<T> {
        match self {
            Self::None => TopController::None,
            Self::Is(controller) => TopController::Is(controller.clone()),
            Self::Unknown => TopController::Unknown,
        }
    }
}

/// Who answers for a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody: it gets nothing.
    Unowned,
    /// These.
    Owned(Owners),
    /// Several Owners of equal rank, or what one is chosen by cannot be read: so nobody, and it gets nothing.
    Ambiguous,
}

/// What an Owner claims a namespace by. A name ranks above labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank<'a> {
    Name,
    Label(&'a Labels),
}

/// Who claims a namespace, of the highest rank at which anyone does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed<'a> {
    Nobody,
    By(&'a Owner, Rank<'a>),
    Contested,
}

/// Namespaces that invalid Owners say are theirs: nobody's until that is put right, so that a broken object never hands
/// a namespace to a rival.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contested {
    pub(crate) names: BTreeSet<Namespace>,
    pub(crate) labels: BTreeSet<Labels>,
}

impl Contested {
    pub(crate) fn extend(&mut self, claimed: impl IntoIterator<Item = NamespacesSpec>) {
        for namespaces in claimed {
            self.names.extend(namespaces.names);
            self.labels.extend(namespaces.labels);
        }
    }
}

/// The Owners' claims, indexed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims {
    /// None where several claim it, or an invalid object does.
    by_name: HashMap<Namespace, Option<Arc<Owner>>>,
    /// By the first key and value of each set of labels.
    by_label: HashMap<String, HashMap<String, Vec<LabelClaim>>>,
}

#[derive(Debug, Clone)]
struct LabelClaim {
    set: Labels,
    /// None for one of an invalid object.
    owner: Option<Arc<Owner>>,
}

impl Claims {
    pub(crate) fn new<'a>(owners: impl Iterator<Item = &'a Arc<Owner>>, contested: &Contested) -> Self {
        let mut claims = Self::default();
        for namespace in &contested.names {
            claims.by_name.insert(namespace.clone(), None);
        }
        for set in &contested.labels {
            claims.add_labels(set, None);
        }
        for owner in owners {
            for namespace in &owner.spec.namespaces.names {
                let claim = claims.by_name.entry(namespace.clone());
                claim.and_modify(|known| *known = None).or_insert_with(|| Some(Arc::clone(owner)));
            }
            for set in &owner.spec.namespaces.labels {
                claims.add_labels(set, Some(owner));
            }
        }
        claims
    }

    fn add_labels(&mut self, set: &Labels, owner: Option<&Arc<Owner>>) {
        if let Some((key, value)) = set.first_key_value() {
            let values = self.by_label.entry(key.clone()).or_default();
            let claim = LabelClaim { set: set.clone(), owner: owner.cloned() };
            values.entry(value.clone()).or_default().push(claim);
        }
    }

    /// Who claims a namespace that has these labels.
    pub(crate) fn of(&self, namespace: &Namespace, labels: &Labels) -> Claimed<'_> {
        match self.by_name.get(namespace) {
            Some(Some(owner)) => return Claimed::By(owner, Rank::Name),
            Some(None) => return Claimed::Contested,
            None => {}
        }
        let mut found = Claimed::Nobody;
        for claim in self.by_labels(labels) {
            found = match (found, &claim.owner) {
                (_, None) => return Claimed::Contested,
                (Claimed::Nobody, Some(owner)) => Claimed::By(owner, Rank::Label(&claim.set)),
                (Claimed::By(one, _), Some(other)) if one.name != other.name => return Claimed::Contested,
                (found, Some(_)) => found,
            };
        }
        found
    }

    fn by_labels<'s, 'l>(&'s self, labels: &'l Labels) -> impl Iterator<Item = &'s LabelClaim> + use<'s, 'l> {
        let candidates = labels.iter().filter_map(|(key, value)| self.by_label.get(key)?.get(value));
        candidates.flatten().filter(move |claim| has_all(labels, &claim.set))
    }
}

/// Which other Owner answers for a workload, by its namespace's Owner's delegates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Narrowing<'a> {
    /// None: no delegate matches.
    None,
    /// This one, and what it was chosen by.
    To(&'a OwnerName, Asserted),
    /// Delegates that match name different Owners.
    Ambiguous(Vec<&'a OwnerName>),
    /// A delegate may match, by a controller that cannot be read now.
    Unknown,
}

impl Owner {
    pub(crate) fn narrowing(&self, who: &Who<'_>) -> Narrowing<'_> {
        let mut found = Narrowing::None;
        let mut may_be = false;
        for delegate in &self.spec.delegates {
            let Some(by) = delegate.matches(who) else {
                may_be |= !delegate.controllers.is_empty();
                continue;
            };
            found = match found {
                Narrowing::None => Narrowing::To(&delegate.owner, by),
                Narrowing::To(one, _) if *one != delegate.owner => {
                    Narrowing::Ambiguous(vec![one, &delegate.owner])
                }
                Narrowing::Ambiguous(mut several) if !several.contains(&&delegate.owner) => {
                    several.push(&delegate.owner);
                    Narrowing::Ambiguous(several)
                }
                found => found,
            };
        }
        if may_be && who.controller == TopController::Unknown { Narrowing::Unknown } else { found }
    }
}

impl DelegateSpec {
    /// What of a workload it matches by.
    fn matches(&self, who: &Who<'_>) -> Option<Asserted> {
        let set = self.labels.iter().find(|set| has_all(who.pod_labels, set));
        if let Some((key, value)) = set.and_then(Labels::first_key_value) {
            return Some(Asserted::Label { key: key.clone(), value: value.clone() });
        }
        if self.service_accounts.contains(who.service_account) {
            return Some(Asserted::ServiceAccount(who.service_account.clone()));
        }
        let TopController::Is(object) = who.controller else { return None };
        self.controllers
            .iter()
            .any(|controller| controller.is(object))
            .then(|| Asserted::Controller(object.clone()))
    }
}

impl Rank<'_> {
    /// In words.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Name => "by name".to_owned(),
            Self::Label(set) => format!("by label {}", label_text(set)),
        }
    }
}

impl PolicySet {
    /// Who answers for a namespace that has these labels.
    pub fn owner_of(&self, namespace: &Namespace, labels: &Labels) -> Ownership {
        match self.claims.of(namespace, labels) {
            Claimed::Nobody => Ownership::Unowned,
            Claimed::By(owner, _) => Ownership::Owned(Owners::of(owner.name.clone())),
            Claimed::Contested => Ownership::Ambiguous,
        }
    }

    /// Who answers for a workload at this moment: its namespace's owner, and the narrower one where that one delegates; or
    /// by the configuration's grace, where there is one, the reserved one.
    pub fn owners_of(&self, who: &Who<'_>, unowned: Option<UnownedGrace>, now: Timestamp) -> Ownership {
        match self.own(who, unowned, now, &mut Silent) {
            Ok(owners) => Ownership::Owned(owners),
            Err(Denial::OwnerAmbiguous(_) | Denial::NarrowingAmbiguous(_) | Denial::ControllerUnknown(_)) => {
                Ownership::Ambiguous
            }
            Err(_) => Ownership::Unowned,
        }
    }

    /// The Owners that claim a namespace at the rank at which it is contested.
    pub(crate) fn rivals(&self, namespace: &Namespace, labels: &Labels) -> Vec<&OwnerName> {
        let named = |owner: &&Arc<Owner>| owner.spec.namespaces.names.contains(namespace);
        let by_name: Vec<_> = self.owners().filter(named).map(|owner| &owner.name).collect();
        if !by_name.is_empty() {
            return by_name;
        }
        let labelled: BTreeSet<_> =
            self.claims.by_labels(labels).filter_map(|claim| Some(&claim.owner.as_ref()?.name)).collect();
        labelled.into_iter().collect()
    }
}
