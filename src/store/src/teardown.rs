//! How far the teardowns of what rules cover have come, and what was spelled out. A rule in force without a record is one
//! whose teardown has not begun; what there is goes when the rule is folded away.

use std::sync::Arc;

use dayfly_core::audit::Draft;
use dayfly_core::change::{Conflict, Outcome};
use dayfly_core::encoding;
use dayfly_core::ids::{LeaseId, Position};
use dayfly_core::limits::STORED_VALUE_BYTES;
use dayfly_core::ports::StoreError;
use dayfly_core::rules::RuleSet;
use dayfly_core::teardown::{SpelledLease, Step, Teardown, TeardownChange, Teardowns};

use crate::engine::{Engine, damaged};
use crate::group::{Group, committed, sized};
use crate::layout;

/// What is recorded of rules that count, and the positions of those folded away whose records are still there.
pub(crate) fn load(engine: &Engine, rules: &RuleSet) -> Result<(Teardowns, Vec<Position>), StoreError> {
    let (mut teardowns, mut gone) = (Teardowns::default(), Vec::new());
    for entry in engine.scan(&[layout::TEARDOWNS], &[layout::TEARDOWNS]) {
        let (key, value) = entry?;
        let teardown = read(&key, &value)?;
        if rules.counting(teardown.rule).is_some() {
            teardowns.put(Arc::new(teardown));
        } else {
            gone.push(teardown.position);
        }
    }
    Ok((teardowns, gone))
}

/// A teardown's record.
pub(crate) fn read(key: &[u8], value: &[u8]) -> Result<Teardown, StoreError> {
    encoding::decode_teardown(value).map_err(|error| damaged(key, &error))
}

/// The next leases above `after` that were spelled out of the rule with this position.
pub(crate) fn spelled(
    engine: &Engine,
    rule: Position,
    after: Option<LeaseId>,
) -> Result<Vec<SpelledLease>, StoreError> {
    let from = after.map_or(0, |after| after.as_u128().saturating_add(1));
    let prefix = layout::spelled_prefix(rule);
    let from = layout::with_id(prefix.clone(), LeaseId::from_u128(from));
    let Some(entry) = engine.scan(&prefix, &from).next() else { return Ok(Vec::new()) };
    let (key, value) = entry?;
    encoding::decode_spelled(&value).map_err(|error| damaged(&key, &error))
}

/// Removes the records of rules that are folded away, as far as the commit has room.
pub(crate) fn forget(group: &mut Group<'_>, operations: usize) -> Result<(), StoreError> {
    let engine = group.engine;
    while let Some(position) = group.tip.folded_teardowns.last().copied() {
        let prefix = layout::spelled_prefix(position);
        for entry in engine.scan(&prefix, &prefix) {
            if group.operations() >= operations {
                return Ok(());
            }
            group.remove(entry?.0.to_vec());
        }
        if group.operations() >= operations {
            return Ok(());
        }
        group.remove(layout::teardown(position));
        group.tip.folded_teardowns.pop();
    }
    Ok(())
}

impl Group<'_> {
    /// Records how far a step has come: from where it is, and never back.
    pub(crate) fn tear_down(&mut self, change: &TeardownChange) -> Result<Outcome, StoreError> {
        let Some(rule) = self.tip.rules.counting(change.rule).cloned() else {
            return Ok(Outcome::Conflict(Conflict::NoSuchRule));
        };
        let known = self.tip.teardowns.get(rule.id).map(|known| Teardown::clone(known));
        let mut teardown = known.unwrap_or_else(|| Teardown::new(rule.id, rule.position));
        let progress = &change.progress;
        let known = teardown.step(progress.step);
        if known.after != change.from || !progress.follows(&known) || !fits(change) {
            return Ok(Outcome::Conflict(Conflict::TeardownMoved));
        }
        teardown.put(progress.clone());
        let record = sized(encoding::encode_teardown(&teardown))?;
        let spelled = encoding::encode_spelled(&change.spelled);
        if spelled.len() > STORED_VALUE_BYTES {
            return Err(StoreError::TooLarge(spelled.len()));
        }
        let position = if progress.complete && progress.done > 0 {
            self.append(&Draft::torn_down(&rule, progress))?
        } else {
            self.tip.position
        };
        self.insert(layout::teardown(rule.position), record);
        if let Some(first) = change.spelled.first() {
            self.insert(layout::with_id(layout::spelled_prefix(rule.position), first.lease), spelled);
        }
        Arc::make_mut(&mut self.tip.teardowns).put(Arc::new(teardown));
        Ok(committed(position))
    }
}

/// Whether what is spelled out by a change is what it goes on by.
fn fits(TeardownChange { from, progress, spelled, .. }: &TeardownChange) -> bool {
    let ids = || spelled.iter().map(|spelled| spelled.lease);
    ids().is_sorted_by(|one, next| one < next)
        && ids().next().is_none_or(|first| progress.step == Step::SpellingOut && Some(first) > *from)
        && ids().next_back().is_none_or(|last| Some(last) <= progress.after)
}
