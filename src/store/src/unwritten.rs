//! Rules that are in effect in memory alone, since the store cannot commit: what readers see has them, and the next commit
//! that there is begins with them. Until then nothing is issued.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dayfly_core::change::{Conflict, Earlier, Outcome, Revocation};
use dayfly_core::ids::{LeaseId, Position, RuleId};
use dayfly_core::ports::StoreError;
use dayfly_core::rule::{Authority, Rule};
use dayfly_core::rules::RuleSet;
use dayfly_core::time::Timestamp;

use crate::group::sized;
use crate::shared::Shared;
use crate::tip::Tip;

/// As many at most: one commit takes them all.
const MOST: usize = 128;
/// Of those, what may be by rights on single owners: there is room for who may revoke all.
const MOST_OF_OWNERS: usize = 64;

/// Rules that wait to be written, by ascending id. Only the writer changes it.
#[derive(Default)]
pub(crate) struct Unwritten {
    rules: Mutex<Vec<Arc<Rule>>>,
    any: AtomicBool,
}

impl Unwritten {
    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Rule>> {
        if self.any() { self.lock().clone() } else { Vec::new() }
    }

    /// What is durable, and these.
    pub(crate) fn over(&self, durable: &Arc<RuleSet>) -> Arc<RuleSet> {
        if !self.any() {
            return Arc::clone(durable);
        }
        let mut rules = RuleSet::clone(durable);
        self.lock().iter().for_each(|rule| rules.add(Arc::clone(rule)));
        Arc::new(rules)
    }

    /// Those that are durable are no more of these.
    pub(crate) fn settle(&self, durable: &RuleSet) {
        if self.any() {
            let mut rules = self.lock();
            rules.retain(|rule| durable.get(rule.id).is_none());
            self.any.store(!rules.is_empty(), Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Rule>>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Puts a revocation in effect that was not committed, for `why`: by the rule that a failed commit had `made` of it, which
    /// may be on disk or not, or by one above every id given out. Only the writer calls this.
    ///
    /// # Errors
    /// `why`, where there are too many already; or what keeps any rule from being made.
    pub(crate) fn apply_unwritten(
        &self,
        tip: &Tip,
        revocation: Revocation,
        made: Option<Arc<Rule>>,
        why: &StoreError,
    ) -> Result<Outcome, StoreError> {
        let rules = self.rules.load_full();
        if let Some(asked) = revocation.idempotency
            && let Some(earlier) = rules.by_idempotency(asked.key)
        {
            return Ok(match earlier.idempotency {
                Some(used) if used.request == asked.request => {
                    Outcome::Replayed(Earlier::Rule(Arc::clone(earlier)))
                }
                _ => Outcome::Conflict(Conflict::IdempotencyKeyReused),
            });
        }
        let waiting = self.unwritten.lock();
        // What may be on disk is to be known by its id before any later one.
        let most = match revocation.authority {
            _ if made.is_some() => usize::MAX,
            // What has lost its ground is looked at again; pods that come and go leave room to people.
            Authority::Dayfly => 0,
            Authority::Owners => MOST_OF_OWNERS,
            Authority::Unrecorded | Authority::ClusterWide | Authority::Socket => MOST,
        };
        if waiting.len() >= most {
            return Err(why.clone());
        }
        let rule = if let Some(made) = made {
            Rule::clone(&made)
        } else {
            let now = self.cautious_now();
            let (cut_off, id) = self.cut_off(tip.highest, now)?;
            let until = tip.latest_expiry.max(now).plus(self.options.limits.leeway);
            revocation.rule(id, Position::unwritten(0), cut_off, now, until)
        };
        sized(dayfly_core::encoding::encode_rule(&rule))?;
        tracing::error!(
            rule = %rule.id, selector = %rule.selector, %why,
            "a revocation is in effect in memory alone, and lost if the broker ends before it is on disk"
        );
        Ok(Outcome::InMemory(self.put_unwritten(&rules, waiting, rule)))
    }

    /// A rule waits to be written, after those that do, and is in effect.
    fn put_unwritten(
        &self,
        rules: &RuleSet,
        mut waiting: MutexGuard<'_, Vec<Arc<Rule>>>,
        rule: Rule,
    ) -> Arc<Rule> {
        let position = match waiting.last() {
            Some(last) => last.position.next(),
            None => Position::unwritten(0),
        };
        let rule = Arc::new(Rule { position, ..rule });
        waiting.push(Arc::clone(&rule));
        self.unwritten.any.store(true, Ordering::Release);
        drop(waiting);
        self.rules.store(Arc::new(rules.with(Arc::clone(&rule))));
        rule
    }

    /// Puts a rule in effect that a failed commit had made beside something else, such as a key's step, and that may be on
    /// disk or not: it covers nothing that was not to be ended. Only the writer calls this.
    pub(crate) fn keep_made(&self, made: &Rule) {
        let rules = self.rules.load_full();
        if rules.get(made.id).is_none() {
            self.put_unwritten(&rules, self.unwritten.lock(), made.clone());
        }
    }

    /// A cut-off above every id given out, and a rule's id right above it.
    pub(crate) fn cut_off(&self, highest: LeaseId, now: Timestamp) -> Result<(LeaseId, RuleId), StoreError> {
        let mut generator = self.generator.lock().unwrap_or_else(PoisonError::into_inner);
        if generator.highest() < highest {
            *generator = dayfly_core::generator::IdGenerator::above(highest);
        }
        let cut_off = generator.next(now, self.options.rng.as_ref())?;
        let id = generator.next(now, self.options.rng.as_ref())?;
        Ok((cut_off, RuleId::from_bytes(id.to_bytes())))
    }
}
