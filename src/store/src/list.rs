//! Pages of leases: by the narrowest index that the filter allows, else over the range of ids.

use std::iter::Peekable;
use std::sync::Arc;

use dayfly_core::change::{LeaseFilter, LeasePage};
use dayfly_core::ids::{LeaseId, OwnerName};
use dayfly_core::lease::{Lease, LeaseState};
use dayfly_core::limits::{PAGE, TTL_MAX};
use dayfly_core::ports::StoreError;
use dayfly_core::rule::{Fields, Selector};
use dayfly_core::rules::RuleSet;
use dayfly_core::time::Timestamp;
use sled::IVec;

use crate::engine::{Engine, Scan, damaged};
use crate::layout::{self, Entry, Wanted};
use crate::runs::{self, Record, Records};
use crate::shared::Shared;

/// What may be looked at for one page, which may be short then, and says where the next begins: a record read counts
/// [`READ`], one that its index entry passes by counts one.
const LOOKED_AT: usize = 200_000;
const READ: usize = 10;
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
    let mut looked_at = 0;
    for candidate in candidates(engine, filter, LeaseId::from_u128(from))? {
        if page.leases.len() == limit || looked_at >= LOOKED_AT {
            page.next = last;
            break;
        }
        let candidate = candidate?;
        // A run that is split while it is read may come twice.
        if last >= Some(candidate.id) {
            continue;
        }
        last = Some(candidate.id);
        looked_at += if candidate.passed_by { 1 } else { READ };
        let lease = candidate.lease(shared, engine)?;
        page.leases.extend(lease.filter(|lease| passes(filter, lease, &rules, now)));
    }
    Ok(page)
}

fn passes(filter: &LeaseFilter, lease: &Arc<Lease>, rules: &RuleSet, now: Timestamp) -> bool {
    filter.selector.as_ref().is_none_or(|selector| selector.matches(lease))
        && (!filter.active_only || lease.state(rules, now) == LeaseState::Active)
        && filter.owners.as_ref().is_none_or(|owners| lease.owners.iter().any(|owner| owners.contains(owner)))
}

/// A lease that may pass.
struct Candidate {
    id: LeaseId,
    /// Its index entry says that it does not.
    passed_by: bool,
    /// Where it was read already.
    record: Option<Record>,
}

impl Candidate {
    fn lease(self, shared: &Shared, engine: &Engine) -> Result<Option<Arc<Lease>>, StoreError> {
        if self.passed_by {
            return Ok(None);
        }
        match shared.recent.record(self.id).or(self.record) {
            Some(record) => shared.bases.lease(engine, runs::own(self.id, &record)?),
            None => shared.lease(engine, self.id),
        }
    }
}

type Candidates<'a> = Box<dyn Iterator<Item = Result<Candidate, StoreError>> + 'a>;

/// Every lease from an id on that may pass the filter, ascending.
fn candidates<'a>(
    engine: &'a Engine,
    filter: &LeaseFilter,
    from: LeaseId,
) -> Result<Candidates<'a>, StoreError> {
    let none = Fields::default();
    let fields = match &filter.selector {
        Some(Selector::Where(fields)) => fields.as_ref(),
        Some(Selector::All) | None => &none,
    };
    if let Some(id) = fields.lease {
        let candidate = Candidate { id, passed_by: false, record: None };
        return Ok(Box::new((id >= from).then_some(Ok(candidate)).into_iter()));
    }
    let owners = match &fields.owner {
        Some(owner) => Some(vec![owner.clone()]),
        None => match owners_of_namespace(engine, fields)? {
            Some(owners) => Some(owners),
            None => filter.owners.clone(),
        },
    };
    if let Some(owners) = owners.filter(|owners| owners.len() <= MERGED_OWNERS) {
        let wanted = Wanted::by(fields);
        let range = |owner| Range::new(engine, layout::owner_prefix(owner), from, wanted).peekable();
        return Ok(Box::new(Merged(owners.iter().map(range).collect())));
    }
    let all = runs::from(engine, from)?.flat_map(move |run| {
        let (run, error) = match run {
            Ok((_, run)) => (run, None),
            Err(error) => (Records::new(), Some(Err(error))),
        };
        let candidate = |(id, record)| Ok(Candidate { id, passed_by: false, record: Some(record) });
        run.into_iter().filter(move |(id, _)| *id >= from).map(candidate).chain(error)
    });
    Ok(Box::new(all))
}

/// All the owners that the namespace had which the filter names; none where it names none.
fn owners_of_namespace(engine: &Engine, fields: &Fields) -> Result<Option<Vec<OwnerName>>, StoreError> {
    let (Some(cluster), Some(namespace)) = (&fields.cluster, &fields.namespace) else { return Ok(None) };
    let prefix = layout::namespace_prefix(cluster, namespace);
    let owner = |entry: Result<(IVec, IVec), StoreError>| layout::owner_at_end(&entry?.0, &prefix);
    engine.scan(&prefix, &prefix).map(owner).collect::<Result<_, _>>().map(Some)
}

/// An owner's leases.
struct Range<'a> {
    engine: &'a Engine,
    prefix: Vec<u8>,
    wanted: Wanted,
    next: Option<LeaseId>,
    read: std::vec::IntoIter<Candidate>,
}

impl<'a> Range<'a> {
    const READ_AT_ONCE: usize = 256;

    fn new(engine: &'a Engine, prefix: Vec<u8>, from: LeaseId, wanted: Wanted) -> Self {
        Self { engine, prefix, wanted, next: Some(from), read: Vec::new().into_iter() }
    }

    fn read_more(&mut self) -> Result<(), StoreError> {
        let Some(from) = self.next.take() else { return Ok(()) };
        let scan: Scan<'_> = self.engine.scan(&self.prefix, &layout::with_id(self.prefix.clone(), from));
        let mut read = Vec::new();
        for entry in scan.take(Self::READ_AT_ONCE) {
            let (key, value) = entry?;
            let entry = Entry::decode(&key, &value)?;
            let id = layout::id_at_end(&key).ok_or_else(|| damaged(&key, &"it has no id"))?;
            read.push(Candidate { id, passed_by: !self.wanted.may_be(&entry), record: None });
        }
        if read.len() == Self::READ_AT_ONCE {
            let last = read.last().and_then(|last| last.id.as_u128().checked_add(1));
            self.next = last.map(LeaseId::from_u128);
        }
        self.read = read.into_iter();
        Ok(())
    }
}

impl Iterator for Range<'_> {
    type Item = Result<Candidate, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read.len() == 0
            && let Err(error) = self.read_more()
        {
            return Some(Err(error));
        }
        self.read.next().map(Ok)
    }
}

/// Several owners' leases as one range, each lease once.
struct Merged<'a>(Vec<Peekable<Range<'a>>>);

impl Iterator for Merged<'_> {
    type Item = Result<Candidate, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut least: Option<LeaseId> = None;
        for range in &mut self.0 {
            match range.peek() {
                Some(Ok(next)) => least = Some(least.map_or(next.id, |least| least.min(next.id))),
                Some(Err(_)) => return range.next(),
                None => {}
            }
        }
        let mut found = None;
        for range in &mut self.0 {
            found = range.next_if(|next| next.as_ref().is_ok_and(|next| Some(next.id) == least)).or(found);
        }
        found
    }
}
