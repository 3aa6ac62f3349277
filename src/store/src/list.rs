//! Pages of leases: by the narrowest index that the filter allows, else over the range of ids.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::sync::Arc;

use dayfly_core::change::{LeaseFilter, LeasePage};
use dayfly_core::ids::{LeaseId, OwnerName, Uid};
use dayfly_core::lease::{Lease, LeaseState};
use dayfly_core::limits::{PAGE, TTL_MAX};
use dayfly_core::ports::StoreError;
use dayfly_core::rule::{Fields, RuleSet, Selector};
use dayfly_core::time::Timestamp;

use crate::engine::{Engine, Scan};
use crate::group::read_lease;
use crate::layout;
use crate::shared::Shared;

/// Records looked at for one page: a page may be short, and say where the next begins.
const LOOKED_AT: usize = 20_000;
/// Owners whose ranges are merged; with more, all leases are looked at.
const MERGED_OWNERS: usize = 64;

/// The page of leases above `after` that pass `filter`.
pub(crate) fn page(
    shared: &Shared,
    engine: &Engine,
    filter: &LeaseFilter,
    after: Option<LeaseId>,
    limit: usize,
) -> Result<LeasePage, StoreError> {
    let limit = limit.clamp(1, PAGE);
    let now = shared.options.clock.now();
    let rules = shared.rules.load_full();
    let mut from = after.map_or(0, |after| after.as_u128().saturating_add(1));
    if filter.active_only {
        // An id's time may be off from the lease's by as much as the clock may jump.
        let oldest = now.minus(TTL_MAX).minus(shared.options.limits.clock_jump);
        from = from.max(LeaseId::first_at(oldest).as_u128());
    }
    let mut page = LeasePage::default();
    let mut last = None;
    for (looked_at, id) in candidates(engine, filter, LeaseId::from_u128(from))?.enumerate() {
        if page.leases.len() == limit || looked_at == LOOKED_AT {
            page.next = last;
            break;
        }
        let id = id?;
        last = Some(id);
        let lease = match shared.recent.get(id) {
            Some(lease) => Some(lease),
            None => read_lease(engine, id)?,
        };
        page.leases.extend(lease.filter(|lease| passes(filter, lease, &rules, now)));
    }
    Ok(page)
}

fn passes(filter: &LeaseFilter, lease: &Arc<Lease>, rules: &RuleSet, now: Timestamp) -> bool {
    filter.selector.as_ref().is_none_or(|selector| selector.matches(lease))
        && (!filter.active_only || lease.state(rules, now) == LeaseState::Active)
        && filter.owners.as_ref().is_none_or(|owners| lease.owners.iter().any(|owner| owners.contains(owner)))
}

type Ids<'a> = Box<dyn Iterator<Item = Result<LeaseId, StoreError>> + 'a>;

/// Every id from `from` on that may pass the filter, ascending.
fn candidates<'a>(engine: &'a Engine, filter: &LeaseFilter, from: LeaseId) -> Result<Ids<'a>, StoreError> {
    let none = Fields::default();
    let fields = match &filter.selector {
        Some(Selector::Where(fields)) => fields.as_ref(),
        Some(Selector::All) | None => &none,
    };
    if let Some(lease) = fields.lease {
        return Ok(Box::new((lease >= from).then_some(Ok(lease)).into_iter()));
    }
    if let Some(owner) = &fields.owner {
        return Ok(Box::new(Range::new(engine, layout::owner_prefix(owner.as_str()), from)));
    }
    if let Some(ids) = of_namespace(engine, fields, from)? {
        return Ok(Box::new(ids.into_iter().map(Ok)));
    }
    if let Some(owners) = filter.owners.as_ref().filter(|owners| owners.len() <= MERGED_OWNERS) {
        let range =
            |owner: &OwnerName| Range::new(engine, layout::owner_prefix(owner.as_str()), from).peekable();
        return Ok(Box::new(Merged(owners.iter().map(range).collect())));
    }
    Ok(Box::new(Range::new(engine, vec![layout::LEASES], from)))
}

/// The ids of one namespace, or of a service account or pod in it; none where the filter names no namespace, or it has
/// too many for one page.
fn of_namespace(
    engine: &Engine,
    fields: &Fields,
    from: LeaseId,
) -> Result<Option<BTreeSet<LeaseId>>, StoreError> {
    let (Some(cluster), Some(namespace)) = (&fields.cluster, &fields.namespace) else { return Ok(None) };
    let mut prefix = layout::namespace_prefix(cluster.as_str(), namespace.as_str());
    if let Some(account) = fields.service_account {
        prefix.extend_from_slice(&account.to_bytes());
        prefix.extend(fields.pod.map(Uid::to_bytes).into_iter().flatten());
    }
    let mut ids = BTreeSet::new();
    for (looked_at, entry) in engine.scan(&prefix, &prefix).enumerate() {
        if looked_at == LOOKED_AT {
            return Ok(None);
        }
        ids.extend(layout::id_at_end(&entry?.0).filter(|id| *id >= from));
    }
    Ok(Some(ids))
}

/// The ids at the end of the keys under a prefix.
struct Range<'a> {
    engine: &'a Engine,
    prefix: Vec<u8>,
    next: Option<LeaseId>,
    read: std::vec::IntoIter<LeaseId>,
}

impl<'a> Range<'a> {
    const READ_AT_ONCE: usize = 256;

    fn new(engine: &'a Engine, prefix: Vec<u8>, from: LeaseId) -> Self {
        Self { engine, prefix, next: Some(from), read: Vec::new().into_iter() }
    }

    fn read_more(&mut self) -> Result<(), StoreError> {
        let Some(from) = self.next.take() else { return Ok(()) };
        let scan: Scan<'_> = self.engine.scan(&self.prefix, &layout::with_id(self.prefix.clone(), from));
        let ids: Vec<LeaseId> = scan
            .take(Self::READ_AT_ONCE)
            .filter_map(|entry| entry.map(|(key, _)| layout::id_at_end(&key)).transpose())
            .collect::<Result<_, _>>()?;
        if ids.len() == Self::READ_AT_ONCE {
            self.next = ids.last().and_then(|id| id.as_u128().checked_add(1)).map(LeaseId::from_u128);
        }
        self.read = ids.into_iter();
        Ok(())
    }
}

impl Iterator for Range<'_> {
    type Item = Result<LeaseId, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read.len() == 0
            && let Err(error) = self.read_more()
        {
            return Some(Err(error));
        }
        self.read.next().map(Ok)
    }
}

/// Several ascending ranges as one, each id once.
struct Merged<'a>(Vec<Peekable<Range<'a>>>);

impl Iterator for Merged<'_> {
    type Item = Result<LeaseId, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut least: Option<LeaseId> = None;
        for range in &mut self.0 {
            match range.peek() {
                Some(Ok(id)) => least = Some(least.map_or(*id, |least| least.min(*id))),
                Some(Err(_)) => return range.next(),
                None => {}
            }
        }
        for range in &mut self.0 {
            range.next_if(|id| id.as_ref().is_ok_and(|id| Some(*id) == least));
        }
        least.map(Ok)
    }
}
