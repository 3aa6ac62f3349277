//! Spelling out: of a rule that no claim can be matched by (the credential id of the presented token, an image), verifiers are told
//! the leases it covers, one by one. They are looked for in the background, from the start after each start, and kept in
//! memory while the rule is in force.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dayfly_core::change::LeaseFilter;
use dayfly_core::ids::{ClusterName, LeaseId, Position, RuleId, TargetName};
use dayfly_core::lease::Lease;
use dayfly_core::limits::{PAGE, TTL_MAX};
use dayfly_core::ports::StoreError;
use dayfly_core::rule::Rule;
use tokio::sync::watch;

use crate::Broker;

/// How long to wait after the store did not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// How far a rule is spelled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpelledOut {
    /// Leases that have been found, and told.
    pub leases: usize,
    /// These are all.
    pub complete: bool,
}

/// The rules that are spelled out.
#[derive(Default)]
pub(crate) struct Spelling {
    rules: RwLock<BTreeMap<RuleId, Spelled>>,
    /// Rings when there is more of any.
    bell: watch::Sender<()>,
}

/// What is known of one of them. It only grows.
#[derive(Clone)]
pub(crate) struct Spelled {
    pub(crate) rule: Arc<Rule>,
    /// The leases, in parts that are told one at a time.
    pub(crate) parts: Vec<Arc<[Covered]>>,
    pub(crate) complete: bool,
}

/// A lease that the rule covers, and whose verifiers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Covered {
    pub(crate) lease: LeaseId,
    pub(crate) cluster: ClusterName,
    pub(crate) target: TargetName,
}

impl Covered {
    fn of(lease: &Lease) -> Self {
        let (cluster, target) = (lease.workload.cluster.clone(), lease.target.clone());
        Self { lease: lease.id, cluster, target }
    }
}

impl Spelling {
    /// Rings from now on.
    pub(crate) fn bell(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }

    /// Those of rules up to `position`, by the rules' ids.
    pub(crate) fn up_to(&self, position: Position) -> Vec<Spelled> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.values().filter(|spelled| spelled.rule.position <= position).cloned().collect()
    }

    fn is_known(&self, rule: RuleId) -> bool {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).contains_key(&rule)
    }

    fn progress(&self, rule: RuleId) -> SpelledOut {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.get(&rule).map_or(SpelledOut { leases: 0, complete: false }, |spelled| SpelledOut {
            leases: spelled.parts.iter().map(|part| part.len()).sum(),
            complete: spelled.complete,
        })
    }

    /// Adds what was found of a rule.
    fn add(&self, rule: &Arc<Rule>, part: Vec<Covered>, complete: bool) {
        {
            let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Spelled { rule: Arc::clone(rule), parts: Vec::new(), complete: false };
            let spelled = rules.entry(rule.id).or_insert_with(fresh);
            if !part.is_empty() {
                spelled.parts.push(part.into());
            }
            spelled.complete |= complete;
        }
        self.bell.send_replace(());
    }

    fn retain(&self, keep: impl Fn(RuleId) -> bool) {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        rules.retain(|id, _| keep(*id));
    }
}

impl Broker {
    /// Spells out what there is, and each rule as it comes. Ends when the store closes.
    pub async fn spell_out(&self) {
        let (mut heard, mut last) = (Position::ZERO, None);
        while let Ok(ruled) = self.store.ruled(heard).await {
            let (rules, now) = (self.store.rules(), self.not_ahead());
            // As it is now: a hold may have been lifted.
            self.spelling.retain(|id| rules.get(id).is_some_and(|rule| rule.in_force(now)));
            let wanted = |rule: &&Arc<Rule>| {
                let due = rule.in_force(now) && rule.is_durable();
                due && !rule.selector.is_in_claims() && !self.spelling.is_known(rule.id)
            };
            for rule in rules.after(last).filter(wanted) {
                if self.spell(rule).await == Err(StoreError::Closing) {
                    return;
                }
            }
            heard = ruled.max(rules.position());
            last = last.max(rules.iter().rev().find(|rule| rule.is_durable()).map(|rule| rule.id));
        }
    }

    /// How far this rule is spelled out; none for one whose every field is in the claims.
    pub fn spelled_out(&self, rule: &Rule) -> Option<SpelledOut> {
        let progress = self.spelling.progress(rule.id);
        // Of one that is not in force, nothing is left to be told.
        let complete = progress.complete || !rule.in_force(self.not_ahead());
        (!rule.selector.is_in_claims()).then_some(SpelledOut { complete, ..progress })
    }

    /// Finds every lease that the rule covers and that may still be accepted somewhere. No new one can come: whatever is
    /// committed after the rule is above its cut-off.
    async fn spell(&self, rule: &Arc<Rule>) -> Result<(), StoreError> {
        let filter = LeaseFilter { selector: Some(rule.selector.clone()), active_only: false, owners: None };
        // A lease's id may be off from its time, and a verifier's clock: twice the longest life is more than both.
        let oldest = self.not_ahead().minus(TTL_MAX * 2);
        let mut after = Some(LeaseId::first_at(oldest));
        loop {
            let page = match self.store.leases(filter.clone(), after, PAGE).await {
                Ok(page) => page,
                Err(StoreError::Closing) => return Err(StoreError::Closing),
                // The store says itself what is wrong with it.
                Err(_) => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            let covered = page.leases.iter().filter(|lease| rule.covers(lease));
            let covered = covered.map(|lease| Covered::of(lease)).collect();
            self.spelling.add(rule, covered, page.next.is_none());
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}
