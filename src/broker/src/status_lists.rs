//! Token Status Lists: for each target that asks for them, lists in which each of its tokens has a bit. Setting them is a
//! step of the [teardown](crate::teardown).
//!
//! The bits are not stored: they follow from rules and leases. Each start fills lists of its own, and reads those of
//! earlier starts back from the leases that may still be accepted ([`Broker::rebuild_status_lists`]); a list is not
//! served before its bits are whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dayfly_core::change::LeaseFilter;
use dayfly_core::ids::{LeaseId, Position};
use dayfly_core::lease::{Lease, LeaseState};
use dayfly_core::limits::{PAGE, TTL_MAX};
use dayfly_core::ports::{BoxFuture, Rng, RngFailed, StoreError, TargetRef};
use dayfly_core::rule::{Authority, Rule, Selector};
use dayfly_core::rules::RuleSet;
use dayfly_core::status::{PLACES, StatusEntry, StatusListId};
use dayfly_core::teardown::Step;
use dayfly_core::time::Timestamp;

use crate::Broker;
use crate::teardown::{Taken, TeardownStep};

/// How much longer than its tokens a list is kept: verifiers' leeway and clocks.
const KEPT: Duration = Duration::from_secs(3600);
/// How much earlier than its own time a lease's id may be.
const SKEW: Duration = Duration::from_secs(3600);
/// How long to wait after the store did not answer.
const AGAIN: Duration = Duration::from_secs(1);

const BYTES: usize = (PLACES / 8) as usize;

/// A status list as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusList {
    /// One bit for each place, the least significant first (section 4.1 of the draft).
    Bits {
        /// The bits.
        bits: Vec<u8>,
        /// Another number for other bits.
        version: u64,
    },
    /// It is of an earlier start, whose lists are not read back yet.
    NotYet,
}

/// Every list of which a token may still be accepted.
pub(crate) struct StatusLists {
    /// Rules from after this are of this start, whose lists are whole from the beginning.
    began: Position,
    /// Those of earlier starts are whole too.
    whole: AtomicBool,
    targets: Mutex<HashMap<TargetRef, OfTarget>>,
}

#[derive(Default)]
struct OfTarget {
    /// The one that is being filled.
    open: Option<Open>,
    lists: BTreeMap<StatusListId, List>,
}

struct Open {
    id: StatusListId,
    /// Places that are given out.
    taken: Vec<u8>,
    given: u32,
}

struct List {
    bits: Vec<u8>,
    version: u64,
    /// Of this start.
    own: bool,
    /// The latest end of its tokens.
    until: Timestamp,
}

impl List {
    fn new(own: bool) -> Self {
        Self { bits: vec![0; BYTES], version: 0, own, until: Timestamp::default() }
    }
}

impl StatusLists {
    /// For a start that begins at this position.
    pub(crate) fn new(began: Position) -> Self {
        Self { began, whole: AtomicBool::new(false), targets: Mutex::default() }
    }

    /// A place for a token that lives until then: nobody can guess from it how many there are.
    pub(crate) fn allot(
        &self,
        target: &TargetRef,
        until: Timestamp,
        rng: &dyn Rng,
    ) -> Result<StatusEntry, RngFailed> {
        let mut targets = self.lock();
        let of_target = targets.entry(target.clone()).or_default();
        if of_target.open.as_ref().is_none_or(|open| open.given >= PLACES / 2) {
            let mut id = [0; 8];
            rng.fill(&mut id)?;
            let id = StatusListId(u64::from_le_bytes(id));
            // One that is there would be another's: the next is not.
            if of_target.lists.insert(id, List::new(true)).is_some() {
                return Err(RngFailed);
            }
            of_target.open = Some(Open { id, taken: vec![0; BYTES], given: 0 });
        }
        let Some(open) = &mut of_target.open else { return Err(RngFailed) };
        let index = open.place(rng)?;
        if let Some(list) = of_target.lists.get_mut(&open.id) {
            list.until = list.until.max(until);
        }
        Ok(StatusEntry { list: open.id, index })
    }

    /// The list of this id, as it is now.
    pub(crate) fn get(&self, target: &TargetRef, id: StatusListId) -> Option<StatusList> {
        let whole = self.whole.load(Ordering::Acquire);
        let targets = self.lock();
        let list = targets.get(target).and_then(|of_target| of_target.lists.get(&id));
        match list {
            Some(list) if list.own || whole => {
                Some(StatusList::Bits { bits: list.bits.clone(), version: list.version })
            }
            Some(_) => Some(StatusList::NotYet),
            None => (!whole).then_some(StatusList::NotYet),
        }
    }

    /// Sets the bit of a lease that is not good any more; says whether it has one.
    pub(crate) fn end(&self, lease: &Lease) -> bool {
        self.note(lease, true)
    }

    fn note(&self, lease: &Lease, ended: bool) -> bool {
        let Some(StatusEntry { list, index }) = lease.status else { return false };
        let mut targets = self.lock();
        let lists = &mut targets.entry(lease.target_ref()).or_default().lists;
        let list = lists.entry(list).or_insert_with(|| List::new(false));
        list.until = list.until.max(lease.expires_at);
        let byte = usize::try_from(index / 8).ok().and_then(|byte| list.bits.get_mut(byte));
        if let (Some(byte), true) = (byte, ended) {
            let before = *byte;
            *byte |= 1 << (index % 8);
            list.version += u64::from(*byte != before);
        }
        true
    }

    /// Sets every bit of a lease's list: of the tokens in it, not all are known, and none is good.
    fn void(&self, lease: &Lease) {
        let Some(StatusEntry { list, .. }) = lease.status else { return };
        let mut targets = self.lock();
        let lists = targets.get_mut(&lease.target_ref()).map(|of_target| &mut of_target.lists);
        if let Some(list) = lists.and_then(|lists| lists.get_mut(&list)).filter(|list| !list.own) {
            list.bits.fill(u8::MAX);
            list.version += 1;
        }
    }

    /// Forgets lists whose tokens have all expired.
    pub(crate) fn forget(&self, now: Timestamp) {
        let mut targets = self.lock();
        for of_target in targets.values_mut() {
            let OfTarget { open, lists } = of_target;
            let is_open = |id: &StatusListId| open.as_ref().is_some_and(|open| open.id == *id);
            lists.retain(|id, list| is_open(id) || list.until.plus(KEPT) > now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TargetRef, OfTarget>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// A place that is free, any of them alike. At least half are, so that it takes two tries on average.
    fn place(&mut self, rng: &dyn Rng) -> Result<u32, RngFailed> {
        loop {
            let mut draws = [0; 16];
            rng.fill(&mut draws)?;
            let (draws, _) = draws.as_chunks::<4>();
            for index in draws.iter().map(|draw| u32::from_le_bytes(*draw) % PLACES) {
                let byte = usize::try_from(index / 8).ok().and_then(|byte| self.taken.get_mut(byte));
                if let Some(byte) = byte.filter(|byte| **byte & (1 << (index % 8)) == 0) {
                    *byte |= 1 << (index % 8);
                    self.given += 1;
                    return Ok(index);
                }
            }
        }
    }
}

impl TeardownStep for StatusLists {
    fn step(&self) -> Step {
        Step::StatusList
    }

    /// Where there is a list for what the rule is about. What was given out before this start is known once its lists are
    /// read back, which themselves have the bits of every rule from before.
    fn concerns(&self, rule: &Rule) -> Option<bool> {
        let whole = self.whole.load(Ordering::Acquire);
        let fields = rule.selector.named();
        let is_about = |target: &TargetRef| {
            fields.target.as_ref().is_none_or(|named| *named == target.target)
                && fields.cluster.as_ref().is_none_or(|named| *named == target.cluster)
        };
        let targets = self.lock();
        let any = targets.iter().any(|(target, of)| !of.lists.is_empty() && is_about(target));
        drop(targets);
        // A rule that is in memory alone has no position yet.
        let of_this_start = rule.position > self.began || rule.position == Position::ZERO;
        if whole || of_this_start { Some(any || !whole) } else { None }
    }

    fn take<'a>(
        &'a self,
        _: &'a Arc<Rule>,
        leases: &'a [Arc<Lease>],
    ) -> BoxFuture<'a, Result<Taken, String>> {
        let done = leases.iter().filter(|lease| self.end(lease)).count();
        Box::pin(std::future::ready(Ok(Taken { done: done as u64, spelled: Vec::new() })))
    }

    fn completed(&self, _: &Arc<Rule>) {}
}

/// The last lease from before the store was restored, or accepted behind its witness. All of its list is from before that, and the
/// store that this one is a copy of may have given out places of it that are not known here.
fn last_before_restore(rules: &RuleSet) -> Option<LeaseId> {
    let anew = |rule: &&Arc<Rule>| rule.selector == Selector::All && rule.authority == Authority::Dayfly;
    rules.iter().filter(anew).map(|rule| rule.cut_off).max()
}

impl Broker {
    /// A target's list; none where there is none of this id, or all its tokens have expired.
    pub fn status_list(&self, target: &TargetRef, id: StatusListId) -> Option<StatusList> {
        self.status_lists.get(target, id)
    }

    /// Reads back the lists of earlier starts, from every lease that may still be accepted. Ends when that is done, or
    /// the store closes.
    pub async fn rebuild_status_lists(&self) {
        // What is committed later is in lists of this start.
        let last = self.store.mark().highest;
        let oldest = self.not_ahead().minus(TTL_MAX).minus(SKEW);
        let mut next = Some(LeaseId::first_at(oldest));
        while let Some(after) = next.filter(|after| *after < last) {
            match self.store.leases(LeaseFilter::default(), Some(after), PAGE).await {
                Ok(page) => {
                    // The rules after the leases: a rule that is not among these comes by its own teardown.
                    let (rules, now, earliest) = (self.store.rules(), self.now(), self.not_ahead());
                    let before = last_before_restore(&rules);
                    let kept = |lease: &&Arc<Lease>| lease.expires_at.plus(KEPT) > earliest;
                    for lease in page.leases.iter().filter(kept) {
                        let ended = lease.state(&rules, now) != LeaseState::Active;
                        self.status_lists.note(lease, ended);
                        if Some(lease.id) <= before {
                            self.status_lists.void(lease);
                        }
                    }
                    next = page.next;
                }
                Err(StoreError::Closing) => return,
                // The store says itself what is wrong with it.
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
        self.status_lists.whole.store(true, Ordering::Release);
        self.teardown.ring();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use dayfly_core::ports::TestRng;

    fn target(name: &str) -> TargetRef {
        TargetRef { cluster: "east".parse().unwrap(), target: name.parse().unwrap() }
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn places_are_given_once_and_tell_nothing_of_their_order() {
        let (lists, rng) = (StatusLists::new(Position::ZERO), TestRng::new(1));
        let mut seen = BTreeSet::new();
        let mut indexes = Vec::new();
        for _ in 0..PLACES / 2 {
            let StatusEntry { list, index } = lists.allot(&target("orders"), at(1), &rng).unwrap();
            assert!(index < PLACES && seen.insert((list, index)));
            indexes.push(index);
        }
        assert_eq!(seen.iter().map(|(list, _)| *list).collect::<BTreeSet<_>>().len(), 1, "one list");
        let ascending = indexes.windows(2).filter(|two| two[0] < two[1]).count();
        assert!((30_000..36_000).contains(&ascending), "{ascending} of 65535 are above the one before");
        let first = seen.iter().next().unwrap().0;
        assert_ne!(lists.allot(&target("orders"), at(1), &rng).unwrap().list, first, "it is full");
        assert_ne!(lists.allot(&target("ledger"), at(1), &rng).unwrap().list, first);
    }

    #[test]
    fn a_list_of_an_earlier_start_is_not_served_before_it_is_whole() {
        let (lists, rng) = (StatusLists::new(Position::new(5)), TestRng::new(1));
        let own = lists.allot(&target("orders"), at(1), &rng).unwrap();
        assert!(matches!(lists.get(&target("orders"), own.list), Some(StatusList::Bits { version: 0, .. })));
        let earlier = StatusEntry { list: StatusListId(7), index: 9 };
        let lease = Lease { status: Some(earlier), ..Lease::test(1).for_target("orders") };
        assert_eq!(lists.get(&target("orders"), earlier.list), Some(StatusList::NotYet));
        assert!(lists.end(&lease) && lists.end(&lease));
        assert_eq!(lists.get(&target("orders"), earlier.list), Some(StatusList::NotYet));
        let rule = |position| Rule::test(position, Selector::owner("payments".parse().unwrap()), 9);
        assert_eq!((lists.concerns(&rule(5)), lists.concerns(&rule(6))), (None, Some(true)));
        lists.whole.store(true, Ordering::Release);
        let Some(StatusList::Bits { bits, version: 1 }) = lists.get(&target("orders"), earlier.list) else {
            panic!("it is whole");
        };
        assert_eq!((bits.len(), bits[1], bits.iter().map(|b| b.count_ones()).sum::<u32>()), (BYTES, 2, 1));
        assert_eq!(lists.get(&target("orders"), StatusListId(8)), None);
        assert_eq!(lists.concerns(&rule(5)), Some(true));
        let elsewhere = Selector::fields(dayfly_core::rule::Fields {
            target: "ledger".parse().ok(),
            ..dayfly_core::rule::Fields::default()
        });
        assert_eq!(lists.concerns(&Rule::test(6, elsewhere.unwrap(), 9)), Some(false));

        lists.forget(lease.expires_at);
        assert!(lists.get(&target("orders"), earlier.list).is_some());
        lists.forget(lease.expires_at.plus(KEPT));
        assert_eq!(lists.get(&target("orders"), earlier.list), None, "its tokens have expired");
        assert!(lists.get(&target("orders"), own.list).is_some(), "it is being filled");
    }
}
