//! Lists: leases and owners, as far as the operator may read them.

use std::collections::BTreeSet;
use std::sync::Arc;

use dayfly_core::change::LeaseFilter;
use dayfly_core::ids::{ClusterName, LeaseId, OwnerName};
use dayfly_core::lease::Lease;
use dayfly_core::limits;
use dayfly_core::rule::{Fields, Selector};
use dayfly_policy::Owner;
use dayfly_policy::parts::UNOWNED;
use futures_util::future::join_all;

use crate::authenticate::Bearer;
use crate::operator::{OWNERS, Operator, Verb};
use crate::reads::{Read, in_words};
use crate::selector::Which;
use crate::{Broker, Error, LeaseView};

/// Owners that are asked about one by one at most, where the operator may not list all.
pub const OWNERS_ASKED: usize = 64;
/// Questions under way at once for one call.
const AT_ONCE: usize = 4;

/// Which leases to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListLeases {
    /// Those that this is about; none means all that the operator may list.
    pub which: Option<Which>,
    /// Only those whose credential is good now.
    pub active_only: bool,
    /// Only those of higher ids: `next` of the page before.
    pub after: Option<LeaseId>,
    /// At most this many, 1 to 1000; none is 100.
    pub limit: Option<usize>,
}

/// A page of leases, by ascending id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseViews {
    /// The leases with their states. A page may be shorter than asked although more follow.
    pub leases: Vec<LeaseView>,
    /// Where the next page begins; none at the end.
    pub next: Option<LeaseId>,
}

/// An owner, and the cluster whose policy declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerView {
    /// The cluster.
    pub cluster: ClusterName,
    /// The owner.
    pub owner: Arc<Owner>,
}

impl ListLeases {
    /// The filter in words.
    fn text(&self) -> String {
        let selector = self.which.as_ref().map(Which::as_named).unwrap_or_default();
        let active = if self.active_only { "true" } else { "" };
        in_words(&[("selector", selector), ("active_only", active.to_owned())])
    }
}

impl Broker {
    /// A page of the leases that the operator may list: verb `list` on all owners, or on those of each lease.
    ///
    /// # Errors
    /// When the operator may list nothing, or something needed does not answer.
    pub async fn list_leases(&self, bearer: Bearer<'_>, request: &ListLeases) -> Result<LeaseViews, Error> {
        let operator = self.operator(bearer).await?;
        let limit = page_size(request.limit)?;
        let named = request.which.as_ref().and_then(Which::by_value).and_then(|fields| fields.owner.as_ref());
        let owners = self.noted(&operator, self.listable(&operator, named).await)?;
        self.note_read(&operator, Read::of("ListLeases", &request.text()).about(named));
        let selector = match &request.which {
            None => None,
            Some(which) => match self.resolve(&operator, which).await {
                Ok(selector) => Some(selector),
                // Whether a pod of another team is there is not for everyone to find out.
                Err(Error::NotFound { .. }) if owners.is_some() => return Ok(LeaseViews::default()),
                Err(error) => return Err(error),
            },
        };
        let filter = LeaseFilter {
            selector: within(operator.bounds, selector)?,
            active_only: request.active_only,
            owners: owners.map(|owners| owners.into_iter().collect()),
        };
        let page = self.store.leases(filter, request.after, limit).await?;
        Ok(LeaseViews {
            leases: page.leases.into_iter().map(|lease| self.view(lease)).collect(),
            next: page.next,
        })
    }

    /// One lease: verb `get` on one of its owners.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, or the operator may not read it.
    pub async fn get_lease(&self, bearer: Bearer<'_>, id: LeaseId) -> Result<LeaseView, Error> {
        let operator = self.operator(bearer).await?;
        let lease = self.noted(&operator, self.lease_for(&operator, id).await)?;
        let read = Read::of("GetLease", &in_words(&[("lease", id.to_string())]));
        self.note_read(&operator, read.about(lease.owners.iter()));
        Ok(self.view(lease))
    }

    async fn lease_for(&self, operator: &Operator<'_>, id: LeaseId) -> Result<Arc<Lease>, Error> {
        let not_found = || Error::NotFound { message: format!("there is no lease {id} that you may read") };
        let lease = self.store.lease(id).await?.filter(|lease| operator.reaches(&lease.workload.cluster));
        let lease = lease.ok_or_else(not_found)?;
        for owner in lease.owners.iter() {
            if operator.may(Verb::Get, Some(owner)).await? {
                return Ok(Arc::clone(&lease));
            }
        }
        Err(not_found())
    }

    /// The owners that the operator may list, by cluster and name, those above `after`.
    ///
    /// # Errors
    /// When the operator may list none, or something needed does not answer.
    pub async fn list_owners(
        &self,
        bearer: Bearer<'_>,
        after: Option<&(ClusterName, OwnerName)>,
        limit: Option<usize>,
    ) -> Result<Vec<OwnerView>, Error> {
        let operator = self.operator(bearer).await?;
        let limit = page_size(limit)?;
        let listable = self.noted(&operator, self.listable(&operator, None).await)?;
        self.note_read(&operator, Read::of("ListOwners", ""));
        let mut found = Vec::new();
        for cluster in self.reached(&operator).filter(|cluster| after.is_none_or(|(at, _)| *cluster >= at)) {
            let Some(policy) = self.policies.last(cluster) else { continue };
            let above = after.filter(|(at, _)| at == cluster).map(|(_, owner)| owner);
            let may = |owner: &&Arc<Owner>| listable.as_ref().is_none_or(|names| names.contains(&owner.name));
            let owners = policy.owners_after(above).filter(may).take(limit - found.len());
            found
                .extend(owners.map(|owner| OwnerView { cluster: cluster.clone(), owner: Arc::clone(owner) }));
        }
        Ok(found)
    }

    /// The owners that an operator may list; none means all of them.
    pub(crate) async fn listable(
        &self,
        operator: &Operator<'_>,
        named: Option<&OwnerName>,
    ) -> Result<Option<BTreeSet<OwnerName>>, Error> {
        self.owners_for(operator, Verb::List, named).await
    }

    /// The owners that an operator may do this to; none means all of them. An owner that the request names is the only one
    /// that is asked about. Only owners that a policy declares now are found without being named, and the reserved one, of
    /// which there may be leases from a grace that is over.
    pub(crate) async fn owners_for(
        &self,
        operator: &Operator<'_>,
        verb: Verb,
        named: Option<&OwnerName>,
    ) -> Result<Option<BTreeSet<OwnerName>>, Error> {
        self.owners_on(operator, verb, OWNERS, named).await
    }

    /// The same, of rights on another resource.
    pub(crate) async fn owners_on(
        &self,
        operator: &Operator<'_>,
        verb: Verb,
        resource: &'static str,
        named: Option<&OwnerName>,
    ) -> Result<Option<BTreeSet<OwnerName>>, Error> {
        if let Some(owner) = named {
            let may = operator.may_on(resource, verb, Some(owner)).await?;
            return if may {
                Ok(Some([owner.clone()].into()))
            } else {
                Err(operator.refusal_on(resource, verb, Some(owner)))
            };
        }
        if operator.may_on(resource, verb, None).await? {
            return Ok(None);
        }
        let declared: BTreeSet<OwnerName> = self
            .reached(operator)
            .filter_map(|cluster| self.policies.last(cluster))
            .flat_map(|policy| policy.owners().map(|owner| owner.name.clone()).collect::<Vec<_>>())
            .collect();
        if declared.len() > OWNERS_ASKED {
            return Err(operator.refusal_on(resource, verb, None));
        }
        let declared: Vec<_> = declared.into_iter().chain(UNOWNED.parse().ok()).collect();
        let mut allowed = BTreeSet::new();
        for some in declared.chunks(AT_ONCE) {
            let answers =
                join_all(some.iter().map(|owner| operator.may_on(resource, verb, Some(owner)))).await;
            for (owner, may) in some.iter().zip(answers) {
                if may? {
                    allowed.insert(owner.clone());
                }
            }
        }
        if allowed.is_empty() { Err(operator.refusal_on(resource, verb, None)) } else { Ok(Some(allowed)) }
    }

    fn reached<'a>(&'a self, operator: &'a Operator<'_>) -> impl Iterator<Item = &'a ClusterName> {
        self.clusters.keys().filter(|cluster| operator.reaches(cluster))
    }
}

/// The selector, narrowed to the one cluster that the operator reaches.
fn within(bounds: Option<&ClusterName>, selector: Option<Selector>) -> Result<Option<Selector>, Error> {
    let Some(own) = bounds else { return Ok(selector) };
    let mut fields = match selector {
        None | Some(Selector::All) => Fields::default(),
        Some(Selector::Where(fields)) => *fields,
    };
    if fields.cluster.as_ref().is_some_and(|cluster| cluster != own) {
        return Err(Error::invalid("selector.cluster", format!("your rights are those of cluster {own}")));
    }
    fields.cluster = Some(own.clone());
    Ok(Some(Selector::Where(Box::new(fields))))
}

pub(crate) fn page_size(limit: Option<usize>) -> Result<usize, Error> {
    match limit {
        None => Ok(limits::PAGE_DEFAULT),
        Some(limit) if (1..=limits::PAGE).contains(&limit) => Ok(limit),
        Some(_) => Err(Error::invalid("page_size", format!("1 to {}", limits::PAGE))),
    }
}
