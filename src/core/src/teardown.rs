//! The teardown of what a rule covers: what is done, lease by lease, after the rule is in effect, and how far it has come.
//!
//! Every rule in force is in the queue, by being there: one of which nothing is recorded here is one whose teardown has
//! not begun. So nothing can be lost between the rule and its teardown, and a step that a later version adds is taken for
//! the rules that are there.

use std::fmt;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::audit::{Detail, Draft, EventKind, of_selector};
use crate::ids::{ClusterName, LeaseId, Position, RuleId, TargetName};
use crate::lease::Lease;
use crate::rule::{Actor, Rule};
use crate::time::Timestamp;

/// An error of a step as it is kept, in bytes.
pub const ERROR_BYTES: usize = 256;
/// Leases that are gone through at once, at most.
pub const TURN: usize = 500;

/// A step of the teardown. Each goes through the leases by itself, so that one that fails keeps no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Verifiers that match a token's claims by themselves are told the leases that no claim can be matched by.
    SpellingOut,
    /// The bits of their target's status list are set.
    StatusList,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 2] = [Self::SpellingOut, Self::StatusList];

    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SpellingOut => "spelling-out",
            Self::StatusList => "status-list",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far a step has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepProgress {
    /// Which.
    pub step: Step,
    /// It has been taken for every covered lease up to this id; none before the first.
    pub after: Option<LeaseId>,
    /// For how many leases there was something to do, and it was done.
    pub done: u64,
    /// It has been taken for all that the rule covers.
    pub complete: bool,
    /// How often it has failed since it last went on.
    pub tries: u32,
    /// Why, the last time: at most [`ERROR_BYTES`]; empty where it has not.
    pub last_error: String,
    /// When it is tried again, where it has failed.
    pub next_try: Option<Timestamp>,
}

impl StepProgress {
    /// A step that has not begun.
    pub const fn new(step: Step) -> Self {
        Self {
            step,
            after: None,
            done: 0,
            complete: false,
            tries: 0,
            last_error: String::new(),
            next_try: None,
        }
    }

    /// Whether it may be so after it was `before`: it never goes back, and what is complete stays as it is.
    pub fn follows(&self, before: &Self) -> bool {
        self.step == before.step
            && !before.complete
            && self.after >= before.after
            && self.done >= before.done
            && self.last_error.len() <= ERROR_BYTES
    }
}

/// The teardown of what one rule covers, as far as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Teardown {
    /// The rule.
    pub rule: RuleId,
    /// Its place in the order of all changes.
    pub position: Position,
    /// The steps that have begun, in order.
    pub steps: Vec<StepProgress>,
}

impl Teardown {
    /// Of this rule, before anything was done.
    pub const fn new(rule: RuleId, position: Position) -> Self {
        Self { rule, position, steps: Vec::new() }
    }

    /// How far this step has come.
    pub fn step(&self, step: Step) -> StepProgress {
        self.steps.iter().find(|known| known.step == step).cloned().unwrap_or_else(|| StepProgress::new(step))
    }

    /// A step is as far as this.
    pub fn put(&mut self, progress: StepProgress) {
        self.steps.retain(|known| known.step != progress.step);
        self.steps.push(progress);
        self.steps.sort_by_key(|known| known.step);
    }
}

/// A step has gone on, or failed. It is committed without an event, and takes no position, but where it is complete and
/// there was something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeardownChange {
    /// Whose teardown.
    pub rule: RuleId,
    /// Where it goes on from: where the store has it.
    pub from: Option<LeaseId>,
    /// How far it is then.
    pub progress: StepProgress,
    /// The leases that are spelled out by it, ascending: above `from`, and not above where it is then.
    pub spelled: Vec<SpelledLease>,
}

/// A lease that a rule covers which no claim can be matched by, and whose target's verifiers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpelledLease {
    /// The lease.
    pub lease: LeaseId,
    /// Its workload's cluster, whose policy has the target.
    pub cluster: ClusterName,
    /// Its target.
    pub target: TargetName,
}

impl SpelledLease {
    /// This lease.
    pub fn of(lease: &Lease) -> Self {
        let (cluster, target) = (lease.workload.cluster.clone(), lease.target.clone());
        Self { lease: lease.id, cluster, target }
    }
}

impl Draft {
    /// A step of a teardown is complete.
    pub fn torn_down(rule: &Rule, progress: &StepProgress) -> Self {
        let detail = Detail {
            actor: Actor::dayfly().to_string(),
            selector: rule.selector.to_string(),
            count: progress.done,
            note: progress.step.to_string(),
            ..of_selector(rule)
        };
        Self { kind: EventKind::TornDown, subject: Some(rule.id.to_bytes()), detail }
    }
}

/// What is recorded of the teardowns of rules that are not folded away. A value, as [`crate::rules::RuleSet`] is.
#[derive(Debug, Clone, Default)]
pub struct Teardowns(RedBlackTreeMapSync<RuleId, Arc<Teardown>>);

impl Teardowns {
    /// What is recorded of this rule's; none where it has not begun, or the rule is folded away.
    pub fn get(&self, rule: RuleId) -> Option<&Arc<Teardown>> {
        self.0.get(&rule)
    }

    /// Records one, in the place of what was recorded of it.
    pub fn put(&mut self, teardown: Arc<Teardown>) {
        self.0.insert_mut(teardown.rule, teardown);
    }

    /// Forgets one; says whether there was any.
    pub fn remove(&mut self, rule: RuleId) -> bool {
        self.0.remove_mut(&rule)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.size()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_never_goes_back() {
        let at = |after: u128, done| StepProgress {
            after: Some(LeaseId::from_u128(after)),
            done,
            ..StepProgress::new(Step::StatusList)
        };
        let new = StepProgress::new(Step::StatusList);
        assert!(at(5, 2).follows(&new) && at(5, 2).follows(&at(5, 2)) && at(6, 2).follows(&at(5, 2)));
        assert!(!at(4, 2).follows(&at(5, 2)) && !at(6, 1).follows(&at(5, 2)) && !new.follows(&at(5, 2)));
        let complete = StepProgress { complete: true, ..at(5, 2) };
        assert!(complete.follows(&at(5, 2)) && !at(6, 2).follows(&complete));
        assert!(!at(5, 2).follows(&StepProgress::new(Step::SpellingOut)));
        let long = StepProgress { last_error: "x".repeat(ERROR_BYTES + 1), ..at(5, 2) };
        assert!(!long.follows(&new));
    }
}
