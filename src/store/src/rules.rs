//! Rules on disk: those that count, and those that are folded away. Folding moves a record, so that a start reads no more
//! of what is folded away than it keeps.

use std::sync::Arc;

use dayfly_core::encoding;
use dayfly_core::ids::{Position, RuleId};
use dayfly_core::limits::FOLDED_RULES;
use dayfly_core::ports::StoreError;
use dayfly_core::rule::Rule;
use dayfly_core::rules::RuleSet;

use crate::engine::{Engine, damaged};
use crate::group::Group;
use crate::layout;

/// Rules that one commit folds away: each takes two keys.
const FOLDED_AT_ONCE: usize = 32;

/// All that count, and the newest of those folded away.
pub(crate) fn load(engine: &Engine) -> Result<RuleSet, StoreError> {
    let mut rules = RuleSet::default();
    for entry in engine.scan_back(&[layout::FOLDED]).take(FOLDED_RULES) {
        let (key, value) = entry?;
        rules.remember(Arc::new(read(&key, &value)?));
    }
    let mut last = Position::ZERO;
    for entry in engine.scan(&[layout::RULES], &[layout::RULES]) {
        let (key, value) = entry?;
        let rule = read(&key, &value)?;
        if last >= rule.position {
            return Err(damaged(&key, &"it is out of order"));
        }
        last = rule.position;
        rules.add(Arc::new(rule));
    }
    Ok(rules)
}

/// A rule's record.
pub(crate) fn read(key: &[u8], value: &[u8]) -> Result<Rule, StoreError> {
    encoding::decode_rule(value).map_err(|error| damaged(key, &error))
}

/// A rule that is folded away and not in memory any more. Ids grow with positions, so it is searched for by halves.
pub(crate) fn find_folded(
    engine: &Engine,
    id: RuleId,
    newest: Position,
) -> Result<Option<Arc<Rule>>, StoreError> {
    let (mut from, mut end) = (0, newest.number() + 1);
    while from < end {
        let middle = from + (end - from) / 2;
        let place = layout::folded(Position::new(middle));
        let Some(entry) = engine.scan(&[layout::FOLDED], &place).next() else {
            end = middle;
            continue;
        };
        let (key, value) = entry?;
        let rule = read(&key, &value)?;
        match rule.id.cmp(&id) {
            std::cmp::Ordering::Equal => return Ok(Some(Arc::new(rule))),
            std::cmp::Ordering::Less => from = rule.position.number() + 1,
            std::cmp::Ordering::Greater => end = middle,
        }
    }
    Ok(None)
}

/// Folds some rules away, where there are such; gives them.
pub(crate) fn fold(group: &mut Group<'_>) -> Vec<Arc<Rule>> {
    let now = group.now();
    if !group.tip.rules.folds(now) {
        return Vec::new();
    }
    let folded = Arc::make_mut(&mut group.tip.rules).fold(now, FOLDED_AT_ONCE);
    for rule in &folded {
        group.remove(layout::rule(rule.position));
        group.insert(layout::folded(rule.position), encoding::encode_rule(rule));
        if group.tip.teardowns.get(rule.id).is_some() {
            Arc::make_mut(&mut group.tip.teardowns).remove(rule.id);
            group.tip.folded_teardowns.push(rule.position);
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use dayfly_core::rule::Selector;

    use super::*;

    #[test]
    fn what_is_folded_away_is_found_among_gaps() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let engine = Engine::open(&dir.path().join("store"), 1 << 20).unwrap();
        let rules: Vec<_> =
            (1..40u64).map(|n| Rule::test(n * n + n % 3, Selector::All, u128::from(n) * 10)).collect();
        let mut batch = sled::Batch::default();
        for rule in &rules {
            batch.insert(layout::folded(rule.position), encoding::encode_rule(rule));
        }
        engine.commit(batch).unwrap();
        let find = |id| find_folded(&engine, id, Position::new(2000)).unwrap();
        for rule in &rules {
            assert_eq!(find(rule.id).as_deref(), Some(rule));
        }
        for between in [0, 12, 25, 5000] {
            assert_eq!(find(RuleId::from_u128(between)), None);
        }
        assert_eq!(load(&engine).unwrap().before(None).count(), rules.len());
        engine.close();
    }
}
