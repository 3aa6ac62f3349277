//! Spelling out, a step of the [teardown](crate::teardown): of a rule that no claim can be matched by (the credential id of
//! the presented token, an image), verifiers are told the leases it covers, one by one. What was found is durable, and kept in memory
//! while the rule is in force.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use dayfly_core::ids::RuleId;
use dayfly_core::lease::Lease;
use dayfly_core::ports::{BoxFuture, StoreError};
use dayfly_core::rule::Rule;
use dayfly_core::teardown::{SpelledLease, Step};
use tokio::sync::watch;

use crate::Broker;
use crate::teardown::{Taken, TeardownStep};

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
    pub(crate) parts: Vec<Arc<[SpelledLease]>>,
    pub(crate) complete: bool,
}

impl Spelling {
    /// Rings from now on.
    pub(crate) fn bell(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }

    /// Those of rules up to `last`, by the rules' ids: a rule keeps its id when one that was in memory alone is written.
    pub(crate) fn up_to(&self, last: Option<RuleId>) -> Vec<Spelled> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.values().filter(|spelled| Some(spelled.rule.id) <= last).cloned().collect()
    }

    fn progress(&self, rule: RuleId) -> SpelledOut {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.get(&rule).map_or(SpelledOut { leases: 0, complete: false }, |spelled| SpelledOut {
            leases: spelled.parts.iter().map(|part| part.len()).sum(),
            complete: spelled.complete,
        })
    }

    /// Adds leases that a rule covers, of which only those above the ones that are known are news.
    fn add(&self, rule: &Arc<Rule>, mut part: Vec<SpelledLease>) {
        self.change(rule, |spelled| {
            let last = spelled.parts.last().and_then(|part| part.last()).map(|last| last.lease);
            part.retain(|one| Some(one.lease) > last);
            if !part.is_empty() {
                spelled.parts.push(part.into());
            }
        });
    }

    /// There are no others.
    fn complete(&self, rule: &Arc<Rule>) {
        if !rule.selector.is_in_claims() {
            self.change(rule, |spelled| spelled.complete = true);
        }
    }

    fn change(&self, rule: &Arc<Rule>, change: impl FnOnce(&mut Spelled)) {
        {
            let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Spelled { rule: Arc::clone(rule), parts: Vec::new(), complete: false };
            change(rules.entry(rule.id).or_insert_with(fresh));
        }
        self.bell.send_replace(());
    }

    pub(crate) fn retain(&self, keep: impl Fn(RuleId) -> bool) {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        rules.retain(|id, _| keep(*id));
    }
}

impl TeardownStep for Spelling {
    fn step(&self) -> Step {
        Step::SpellingOut
    }

    fn concerns(&self, rule: &Rule) -> Option<bool> {
        Some(!rule.selector.is_in_claims())
    }

    /// Streams are told at once, before it is durable: to be told again does no harm, to be told late may.
    fn take<'a>(
        &'a self,
        rule: &'a Arc<Rule>,
        leases: &'a [Arc<Lease>],
    ) -> BoxFuture<'a, Result<Taken, String>> {
        let spelled: Vec<_> = leases.iter().map(|lease| SpelledLease::of(lease)).collect();
        self.add(rule, spelled.clone());
        Box::pin(std::future::ready(Ok(Taken { done: spelled.len() as u64, spelled })))
    }

    fn completed(&self, rule: &Arc<Rule>) {
        self.complete(rule);
    }
}

impl Broker {
    /// How far this rule is spelled out; none for one whose every field is in the claims.
    pub fn spelled_out(&self, rule: &Rule) -> Option<SpelledOut> {
        let progress = self.spelling.progress(rule.id);
        // Of one that is not in force, nothing is left to be told.
        let complete = progress.complete || !rule.in_force(self.not_ahead());
        (!rule.selector.is_in_claims()).then_some(SpelledOut { complete, ..progress })
    }

    /// After a start, what was spelled out before is told again, as it was kept.
    pub(crate) async fn recall_spelled(&self) -> Result<(), StoreError> {
        let (rules, now) = (self.store.rules(), self.not_ahead());
        for rule in rules.in_force(now).filter(|rule| !rule.selector.is_in_claims()) {
            let mut last = None;
            loop {
                let spelled = self.store.spelled(rule.position, last).await?;
                let Some(next) = spelled.last() else { break };
                last = Some(next.lease);
                self.spelling.add(rule, spelled);
            }
        }
        Ok(())
    }
}
