//! How far the teardowns of what rules cover have come.

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::audit::EventKind;
use dayfly_core::change::{Change, Conflict, Outcome};
use dayfly_core::ids::{LeaseId, RuleId};
use dayfly_core::ports::{LeaseStore, StoreError};
use dayfly_core::rule::Rule;
use dayfly_core::teardown::{ERROR_BYTES, SpelledLease, Step, StepProgress, TeardownChange};
use tokio::time::timeout;

use super::{Harness, conflict, drawn, issue, owner, position, revocation, revoke};

fn at(after: u128, done: u64) -> StepProgress {
    StepProgress { after: Some(LeaseId::from_u128(after)), done, ..StepProgress::new(Step::StatusList) }
}

fn change(rule: &Rule, from: Option<u128>, progress: StepProgress) -> TeardownChange {
    let from = from.map(LeaseId::from_u128);
    TeardownChange { rule: rule.id, from, progress, spelled: Vec::new() }
}

async fn commit(store: &dyn LeaseStore, change: TeardownChange) -> Outcome {
    store.commit(Change::Teardown(Box::new(change))).await.unwrap()
}

fn recorded(store: &dyn LeaseStore, rule: &Rule, step: Step) -> Option<StepProgress> {
    store.teardowns().get(rule.id).map(|teardown| teardown.step(step))
}

fn spelled(ids: impl IntoIterator<Item = u128>) -> Vec<SpelledLease> {
    let of = |id| SpelledLease {
        lease: LeaseId::from_u128(id),
        cluster: "east".parse().unwrap(),
        target: "orders".parse().unwrap(),
    };
    ids.into_iter().map(of).collect()
}

pub(super) async fn a_teardown_goes_on_from_where_it_was_and_never_back(harness: &dyn Harness) {
    let store = harness.store();
    let rule = revoke(&*store, revocation(owner("payments"))).await;
    assert!(store.teardowns().get(rule.id).is_none(), "one that has not begun is the rule itself");
    let before = store.mark().position;
    assert_eq!(position(&commit(&*store, change(&rule, None, at(5, 2))).await), before, "without an event");
    assert_eq!(recorded(&*store, &rule, Step::StatusList), Some(at(5, 2)));
    assert_eq!(recorded(&*store, &rule, Step::SpellingOut), Some(StepProgress::new(Step::SpellingOut)));

    let failed = StepProgress {
        tries: 3,
        last_error: "the target does not answer".to_owned(),
        next_try: Some(rule.written_at),
        ..at(5, 2)
    };
    commit(&*store, change(&rule, Some(5), failed.clone())).await;
    let other = StepProgress { step: Step::SpellingOut, ..at(3, 0) };
    commit(&*store, change(&rule, None, other.clone())).await;
    drop(store);
    let store = harness.reopen();
    assert_eq!(recorded(&*store, &rule, Step::StatusList), Some(failed));
    assert_eq!(recorded(&*store, &rule, Step::SpellingOut), Some(other));

    let long = StepProgress { last_error: "x".repeat(ERROR_BYTES + 1), ..at(6, 2) };
    let wrong =
        [(None, at(6, 3)), (Some(4), at(6, 3)), (Some(5), at(4, 3)), (Some(5), at(6, 1)), (Some(5), long)];
    for (from, progress) in wrong {
        let outcome = commit(&*store, change(&rule, from, progress.clone())).await;
        assert_eq!(conflict(&outcome), Conflict::TeardownMoved, "{from:?} {progress:?}");
    }
    let nobodys = Rule { id: RuleId::from_u128(1), ..Rule::clone(&rule) };
    assert_eq!(conflict(&commit(&*store, change(&nobodys, None, at(6, 3))).await), Conflict::NoSuchRule);

    let complete = StepProgress { complete: true, ..at(9, 4) };
    let told = position(&commit(&*store, change(&rule, Some(5), complete.clone())).await);
    let event = store.events(told, 1).await.unwrap().remove(0).read().unwrap();
    assert_eq!((event.kind, event.subject), (EventKind::TornDown, Some(rule.id.to_bytes())));
    let detail = event.detail.unwrap();
    assert_eq!((detail.count, &*detail.note), (4, "status-list"));
    let again = commit(&*store, change(&rule, Some(9), complete)).await;
    assert_eq!(conflict(&again), Conflict::TeardownMoved, "what is complete stays so");
    let nothing = StepProgress { step: Step::SpellingOut, complete: true, ..at(9, 0) };
    let before = store.mark().position;
    assert_eq!(position(&commit(&*store, change(&rule, Some(3), nothing)).await), before, "nothing was done");
}

pub(super) async fn what_is_spelled_out_is_kept_with_how_far_it_is(harness: &dyn Harness) {
    let store = harness.store();
    let rule = revoke(&*store, revocation(owner("payments"))).await;
    let to = |after, done| StepProgress { step: Step::SpellingOut, ..at(after, done) };
    let with = |from, progress, ids: &[u128]| {
        let spelled = spelled(ids.iter().copied());
        TeardownChange { spelled, ..change(&rule, from, progress) }
    };
    commit(&*store, with(None, to(5, 2), &[2, 4])).await;
    commit(&*store, with(Some(5), to(8, 2), &[])).await;
    let misfits: [&[u128]; 4] = [&[10, 9], &[9, 9], &[8], &[13]];
    for ids in misfits {
        let outcome = commit(&*store, with(Some(8), to(12, 4), ids)).await;
        assert_eq!(conflict(&outcome), Conflict::TeardownMoved, "{ids:?}");
    }
    let other = TeardownChange { progress: at(12, 1), ..with(None, to(12, 1), &[9]) };
    assert_eq!(conflict(&commit(&*store, other).await), Conflict::TeardownMoved, "of another step");
    let many = StepProgress { complete: true, ..to(10_000, 2 + 5000) };
    let too_many: Vec<u128> = (1000..6000).collect();
    let outcome = store.commit(Change::Teardown(Box::new(with(Some(8), many, &too_many)))).await;
    assert!(matches!(outcome, Err(StoreError::TooLarge(_))), "{outcome:?}");
    commit(&*store, with(Some(8), to(20, 4), &[11, 20])).await;
    drop(store);

    let store = harness.reopen();
    let mut read = Vec::new();
    loop {
        let next =
            store.spelled(rule.position, read.last().map(|one: &SpelledLease| one.lease)).await.unwrap();
        if next.is_empty() {
            break;
        }
        read.extend(next);
    }
    assert_eq!(read, spelled([2, 4, 11, 20]));
    let next = rule.position.next();
    assert_eq!(store.spelled(next, None).await.unwrap(), [], "of no other rule");
}

pub(super) async fn a_teardown_goes_with_its_rule(harness: &dyn Harness) {
    let store = harness.store();
    issue(&*store, drawn(&*store)).await;
    let rule = revoke(&*store, revocation(owner("payments"))).await;
    let progress = StepProgress { step: Step::SpellingOut, ..at(5, 1) };
    commit(&*store, TeardownChange { spelled: spelled([3]), ..change(&rule, None, progress) }).await;
    harness.clock().advance(rule.until.since(rule.written_at) + Duration::from_secs(1));
    let gone = async |store: &Arc<dyn LeaseStore>| {
        let patience = Duration::from_secs(20);
        let looked = timeout(patience, async {
            while !store.teardowns().is_empty()
                || !store.spelled(rule.position, None).await.unwrap().is_empty()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        looked.await.unwrap();
    };
    // Whatever comes takes the rule with it, and what is left of the teardown.
    issue(&*store, drawn(&*store)).await;
    gone(&store).await;
    let outcome = commit(&*store, change(&rule, None, at(6, 1))).await;
    assert_eq!(conflict(&outcome), Conflict::NoSuchRule);
    drop(store);
    gone(&harness.reopen()).await;
}
