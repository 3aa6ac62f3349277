//! How many live leases a rule ended: counted after the rule is in effect and answered, since no scan stands between a
//! revocation and its effect.
//!
//! Counts are kept in memory, of the newest [`KEPT`] rules that were counted. They survive no start: whoever asks for one
//! that is not there has it counted anew, from the leases that were live when the rule was written and that it was the
//! first to cover. As long as those are kept, the count is the same.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dayfly_core::change::LeaseFilter;
use dayfly_core::ids::{LeaseId, OwnerName, RuleId, TargetName};
use dayfly_core::lease::{Lease, LeaseState};
use dayfly_core::limits::{PAGE, TTL_MAX};
use dayfly_core::ports::StoreError;
use dayfly_core::rule::Rule;
use tokio::sync::Notify;

use crate::Broker;

/// Rules whose counts are kept, and those that may wait to be counted.
const KEPT: usize = 1000;
/// Owners and targets that are told apart in one count; the largest [`TOLD`] are told.
const TOLD_APART: usize = 10_000;
const TOLD: usize = 1000;
/// How much earlier than its own time a lease's id may be.
const SKEW: Duration = Duration::from_secs(3600);

/// The leases that were live when a rule was written, and that it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveCounts {
    /// All are counted: the numbers are final.
    pub counted: bool,
    /// How many leases.
    pub leases: u64,
    /// The same by owner and target, the largest first, at most 1000: empty before all are counted.
    pub by_owner_and_target: Vec<LiveCount>,
}

/// How many leases of one owner for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveCount {
    /// The owner of their workloads' namespaces.
    pub owner: OwnerName,
    /// The narrower owner within it.
    pub narrowed_owner: Option<OwnerName>,
    /// The target.
    pub target: TargetName,
    /// How many.
    pub leases: u64,
}

#[derive(Default)]
pub(crate) struct Counts {
    state: Mutex<State>,
    added: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Rule>>,
    known: HashMap<RuleId, LiveCounts>,
    /// Those of `known`, as they came.
    order: VecDeque<RuleId>,
}

impl Counts {
    /// A rule to be counted, unless it is or will be.
    pub(crate) fn add(&self, rule: &Arc<Rule>) {
        let mut state = self.lock();
        if state.known.contains_key(&rule.id) {
            return;
        }
        state.known.insert(rule.id, LiveCounts::default());
        state.order.push_back(rule.id);
        state.waiting.push_back(Arc::clone(rule));
        if state.order.len() > KEPT
            && let Some(oldest) = state.order.pop_front()
        {
            state.known.remove(&oldest);
            state.waiting.retain(|waiting| waiting.id != oldest);
        }
        drop(state);
        self.added.notify_one();
    }

    /// What is counted of a rule so far. One that is not known is to be counted then.
    pub(crate) fn of(&self, rule: &Arc<Rule>) -> LiveCounts {
        self.add(rule);
        self.lock().known.get(&rule.id).cloned().unwrap_or_default()
    }

    async fn next(&self) -> Arc<Rule> {
        loop {
            let added = self.added.notified();
            if let Some(rule) = self.lock().waiting.pop_front() {
                return rule;
            }
            added.await;
        }
    }

    fn tell(&self, id: RuleId, counts: LiveCounts) {
        if let Some(known) = self.lock().known.get_mut(&id) {
            *known = counts;
        }
    }

    /// It could not be counted: whoever asks again has it counted anew.
    fn forget(&self, id: RuleId) {
        let mut state = self.lock();
        state.known.remove(&id);
        state.order.retain(|known| *known != id);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Waits for a revocation whose live leases are to be counted, and counts them.
    ///
    /// # Errors
    /// When the store does not read; whoever asks for that count again has it counted anew.
    pub async fn count_a_revocation(&self) -> Result<(), StoreError> {
        let rule = self.counts.next().await;
        let counted = self.count_live(&rule).await;
        if counted.is_err() {
            self.counts.forget(rule.id);
        }
        counted
    }

    /// Counts by pages over the ids that were live, those of the selector's owner or namespace alone where it names one.
    async fn count_live(&self, rule: &Rule) -> Result<(), StoreError> {
        let filter = LeaseFilter { selector: Some(rule.selector.clone()), ..LeaseFilter::default() };
        let mut next = Some(LeaseId::first_at(rule.written_at.minus(TTL_MAX).minus(SKEW)));
        let mut tally: HashMap<(OwnerName, Option<OwnerName>, TargetName), u64> = HashMap::new();
        let mut counts = LiveCounts::default();
        while let Some(after) = next {
            let page = self.store.leases(filter.clone(), Some(after), PAGE).await?;
            next = page.next.filter(|next| *next < rule.cut_off);
            let (rules, now) = (self.store.rules(), self.now());
            let ended = |lease: &&Arc<Lease>| {
                let state = lease.state(&rules, now);
                matches!(state, LeaseState::Revoked { by, .. } if by == rule.id)
            };
            for lease in page.leases.iter().filter(ended) {
                counts.leases += 1;
                let key =
                    (lease.owners.namespace.clone(), lease.owners.narrowed.clone(), lease.target.clone());
                if tally.len() < TOLD_APART || tally.contains_key(&key) {
                    *tally.entry(key).or_default() += 1;
                }
            }
            self.counts.tell(rule.id, counts.clone());
        }
        let largest_first =
            |one: &LiveCount| (std::cmp::Reverse(one.leases), one.owner.clone(), one.target.clone());
        let told = tally.into_iter().map(|((owner, narrowed_owner, target), leases)| LiveCount {
            owner,
            narrowed_owner,
            target,
            leases,
        });
        counts.by_owner_and_target = told.collect();
        counts.by_owner_and_target.sort_by_cached_key(largest_first);
        counts.by_owner_and_target.truncate(TOLD);
        counts.counted = true;
        self.counts.tell(rule.id, counts);
        Ok(())
    }
}
