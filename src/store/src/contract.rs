//! What every engine of [`LeaseStore`] does: run [`CASES`] over a harness of your engine, each on a new store.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test suite")]

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::audit::{Draft, EventKind};
use dayfly_core::change::{
    Change, Conflict, Earlier, Issue, LeaseFilter, Lift, Outcome, Receipt, Revocation,
};
use dayfly_core::digest::Digest;
use dayfly_core::ids::{LeaseId, Position, RuleId, Uid};
use dayfly_core::lease::{Lease, LeaseState, Phase};
use dayfly_core::live::{AtCap, LiveCaps, LiveOf};
use dayfly_core::merkle;
use dayfly_core::ports::{BoxFuture, Clock as _, LeaseStore, StoreError, TestClock};
use dayfly_core::rule::{Actor, After, Authority, Fields, Rule, Selector};
use tokio::time::timeout;

mod images;
mod keys;
mod teardown;

use images::a_hold_of_an_image_outruns_what_may_run_it;
use keys::{
    a_jumped_clock_lets_a_key_only_be_revoked, a_key_goes_on_one_stage_at_a_time,
    a_key_is_added_once_and_keys_come_oldest_first, a_revoked_keys_leases_are_revoked_with_it,
    of_two_steps_of_a_key_one_is_taken,
};
use teardown::{
    a_teardown_goes_on_from_where_it_was_and_never_back, a_teardown_goes_with_its_rule,
    what_is_spelled_out_is_kept_with_how_far_it_is,
};

/// One store and its clock.
pub trait Harness: Send + Sync {
    /// The store, open.
    fn store(&self) -> Arc<dyn LeaseStore>;
    /// Closes the store and opens it again.
    fn reopen(&self) -> Arc<dyn LeaseStore>;
    /// The store's clock.
    fn clock(&self) -> &TestClock;
}

/// A case: panics unless the engine does as it says.
pub type Case = for<'a> fn(&'a dyn Harness) -> BoxFuture<'a, ()>;

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        /// Every case, by name.
        pub const CASES: &[(&str, Case)] = &[$((stringify!($case), |harness| Box::pin($case(harness)))),*];
    };
}

cases![
    a_committed_lease_is_read_back_and_survives,
    draws_rise_above_every_id_and_cut_off,
    every_change_has_one_position_and_one_event,
    an_id_is_taken_once,
    a_repeated_key_gives_the_earlier_lease,
    a_rule_sends_back_what_was_decided_before_it,
    a_rule_covers_what_it_selects_up_to_its_cut_off,
    a_repeated_revocation_gives_the_earlier_rule,
    a_rule_lasts_as_long_as_what_was_given_out,
    a_release_is_once_and_a_reissue_adds_a_digest,
    a_key_is_added_once_and_keys_come_oldest_first,
    a_key_goes_on_one_stage_at_a_time,
    of_two_steps_of_a_key_one_is_taken,
    a_revoked_keys_leases_are_revoked_with_it,
    a_jumped_clock_lets_a_key_only_be_revoked,
    pages_follow_filters_and_each_other,
    a_jumped_clock_stops_issuing_and_not_revoking,
    a_record_has_a_limit,
    changes_at_once_keep_their_order,
    ids_come_in_any_order,
    a_renewal_ends_the_earlier_lease_after_the_overlap,
    a_lease_is_renewed_once_by_its_own_pod_while_it_is_good,
    of_two_renewals_at_once_one_wins,
    a_repeated_renewal_gives_the_earlier_one,
    news_tell_a_caller_of_its_leases_and_everyone_of_rules,
    rules_are_waited_for_and_leases_wake_nobody,
    live_leases_are_bounded_and_one_pod_leaves_the_others_their_share,
    what_ends_makes_room_for_another,
    live_leases_are_counted_again_after_a_start,
    a_renewal_takes_the_place_of_the_earlier_lease,
    a_hold_is_lifted_once_and_what_it_covered_stays_revoked,
    a_rule_past_its_until_is_folded_away_and_still_found,
    a_hold_of_an_image_outruns_what_may_run_it,
    a_store_that_is_no_copy_has_nothing_to_adopt,
    a_teardown_goes_on_from_where_it_was_and_never_back,
    what_is_spelled_out_is_kept_with_how_far_it_is,
    a_teardown_goes_with_its_rule,
];

/// A lease with a fresh id, to be changed and issued.
pub fn drawn(store: &dyn LeaseStore) -> Issue {
    let draw = store.draw().unwrap();
    let ttl = Duration::from_secs(300);
    let lease = Lease { id: draw.id, ..Lease::test(0) }.issued_at(draw.now.floor_secs(), ttl);
    Issue { lease, decided_under: draw.position, caps: LiveCaps::default() }
}

/// Issues this.
pub async fn issue(store: &dyn LeaseStore, issue: Issue) -> Outcome {
    store.commit(Change::Issue(Box::new(issue))).await.unwrap()
}

/// A revocation of this, by nobody in particular.
pub fn revocation(selector: Selector) -> Revocation {
    let by = Actor { cluster: None, username: "alice".to_owned(), uid: String::new() };
    Revocation {
        selector,
        after: After::Reissue,
        by,
        authority: Authority::Owners,
        reason: "a drill".to_owned(),
        idempotency: None,
        owners: Vec::new(),
    }
}

/// Writes a rule.
pub async fn revoke(store: &dyn LeaseStore, revocation: Revocation) -> Arc<Rule> {
    match store.commit(Change::Revoke(Box::new(revocation))).await.unwrap() {
        Outcome::Committed(Receipt { rule: Some(rule), .. }) => rule,
        other => panic!("{other:?}"),
    }
}

/// The end of this rule's hold, by nobody in particular.
pub fn lift(rule: &Rule) -> Change {
    let by = Actor { cluster: None, username: "bob".to_owned(), uid: String::new() };
    Change::Lift(Box::new(Lift { rule: rule.id, by, reason: "over".to_owned() }))
}

/// Of an owner.
pub fn owner(name: &str) -> Selector {
    Selector::owner(name.parse().unwrap())
}

fn position(outcome: &Outcome) -> Position {
    match outcome {
        Outcome::Committed(receipt) => receipt.position,
        other => panic!("{other:?}"),
    }
}

fn conflict(outcome: &Outcome) -> Conflict {
    match outcome {
        Outcome::Conflict(conflict) => *conflict,
        other => panic!("{other:?}"),
    }
}

async fn a_committed_lease_is_read_back_and_survives(harness: &dyn Harness) {
    let store = harness.store();
    let new = drawn(&*store);
    let lease = new.lease.clone().narrowed_to("api-team").with_key("k", "r");
    position(&issue(&*store, Issue { lease: lease.clone(), ..new }).await);
    assert_eq!(store.lease(lease.id).await.unwrap().as_deref(), Some(&lease));
    assert_eq!(store.lease(LeaseId::from_u128(1)).await.unwrap(), None);
    let (mark, head) = (store.mark(), store.log_head());
    assert_eq!(head.size, mark.position.number());
    drop(store);
    let store = harness.reopen();
    assert_eq!(store.lease(lease.id).await.unwrap().as_deref(), Some(&lease));
    assert_eq!((store.mark().instance, store.mark().incarnation), (mark.instance, mark.incarnation));
    assert!(store.mark().position > mark.position, "each start is an event");
    assert_eq!(store.status().start.0, 2);
    assert_eq!(store.status().trouble, None);
}

async fn draws_rise_above_every_id_and_cut_off(harness: &dyn Harness) {
    let mut store = harness.store();
    let mut last = LeaseId::from_u128(0);
    for round in 0..4 {
        let new = drawn(&*store);
        assert!(new.lease.id > last);
        let id = new.lease.id;
        position(&issue(&*store, new).await);
        let rule = revoke(&*store, revocation(owner("payments"))).await;
        assert!(rule.cut_off > id && rule.id.to_bytes() > rule.cut_off.to_bytes());
        last = store.draw().unwrap().id;
        assert!(last.to_bytes() > rule.id.to_bytes());
        assert!(store.mark().highest.to_bytes() >= rule.id.to_bytes());
        match round {
            0 => harness.clock().advance(Duration::from_secs(60)),
            // Back, but not past the limit: ids do not follow it.
            1 => harness.clock().jump(-60),
            _ => {
                last = LeaseId::from_bytes(rule.id.to_bytes());
                drop(store);
                store = harness.reopen();
            }
        }
    }
}

async fn every_change_has_one_position_and_one_event(harness: &dyn Harness) {
    let store = harness.store();
    let mut expected = store.mark().position;
    let mut kinds = Vec::new();
    for n in 0..300u32 {
        let outcome = match n % 3 {
            0 => {
                kinds.push(EventKind::Issued);
                issue(&*store, drawn(&*store)).await
            }
            1 => {
                kinds.push(EventKind::PolicyChanged);
                let note =
                    Draft::note(EventKind::PolicyChanged, &revocation(Selector::All).by, n.to_string());
                store.commit(Change::Note(Box::new(note))).await.unwrap()
            }
            _ => {
                kinds.push(EventKind::Revoked);
                store.commit(Change::Revoke(Box::new(revocation(Selector::All)))).await.unwrap()
            }
        };
        expected = expected.next();
        assert_eq!(position(&outcome), expected);
    }
    let first = Position::new(expected.number() - 299);
    let events = store.events(first, 1000).await.unwrap();
    let read: Vec<_> = events.iter().map(|event| event.read().unwrap()).collect();
    assert_eq!(read.iter().map(|event| event.kind).collect::<Vec<_>>(), kinds);
    assert!(read.iter().zip(first.number()..).all(|(event, position)| event.position.number() == position));
    let some = store.events(Position::new(first.number() + 100), 7).await.unwrap();
    assert_eq!(some, events[100..107]);
    assert!(store.events(expected.next(), 10).await.unwrap().is_empty());
    log_adds_up(&*store).await;
    drop(store);
    log_adds_up(&*harness.reopen()).await;
}

/// Head and events agree.
pub async fn log_adds_up(store: &dyn LeaseStore) {
    let (head, mut leaves) = (store.log_head(), Vec::new());
    while (leaves.len() as u64) < head.size {
        let events = store.events(Position::new(leaves.len() as u64 + 1), 100).await.unwrap();
        assert!(!events.is_empty());
        leaves.extend(events.iter().map(|event| event.read().unwrap().leaf_hash));
    }
    leaves.truncate(usize::try_from(head.size).unwrap());
    assert_eq!(merkle::root_of(&leaves), head.root);
}

async fn an_id_is_taken_once(harness: &dyn Harness) {
    let store = harness.store();
    let new = drawn(&*store);
    position(&issue(&*store, new.clone()).await);
    let before = store.mark();
    assert_eq!(conflict(&issue(&*store, new.clone()).await), Conflict::IdTaken);
    assert_eq!(store.mark(), before, "a conflict changes nothing");
    drop(store);
    assert_eq!(conflict(&issue(&*harness.reopen(), new).await), Conflict::IdTaken);
}

async fn a_repeated_key_gives_the_earlier_lease(harness: &dyn Harness) {
    let mut store = harness.store();
    let with = |store: &dyn LeaseStore, key: &str, request: &str| {
        let new = drawn(store);
        Issue { lease: new.lease.clone().with_key(key, request), ..new }
    };
    let first = with(&*store, "key", "request");
    let id = first.lease.id;
    position(&issue(&*store, first).await);
    for _ in 0..2 {
        match issue(&*store, with(&*store, "key", "request")).await {
            Outcome::Replayed(Earlier::Lease(lease)) => assert_eq!(lease.id, id),
            other => panic!("{other:?}"),
        }
        let other = issue(&*store, with(&*store, "key", "another request")).await;
        assert_eq!(conflict(&other), Conflict::IdempotencyKeyReused);
        drop(store);
        store = harness.reopen();
    }
    position(&issue(&*store, with(&*store, "another key", "request")).await);
    harness.clock().advance(Duration::from_secs(601));
    position(&issue(&*store, with(&*store, "key", "another request")).await);
}

async fn a_rule_sends_back_what_was_decided_before_it(harness: &dyn Harness) {
    let store = harness.store();
    let (before, other) = (drawn(&*store), drawn(&*store));
    let rule = revoke(&*store, revocation(owner("payments"))).await;
    let late = Issue { decided_under: before.decided_under, ..drawn(&*store) };
    for stale in [before, late] {
        match issue(&*store, stale).await {
            Outcome::Covered(by) => assert_eq!(by.id, rule.id),
            outcome => panic!("{outcome:?}"),
        }
    }
    position(&issue(&*store, Issue { lease: other.lease.clone().owned_by("checkout"), ..other }).await);
    let fresh = drawn(&*store);
    assert!(fresh.decided_under >= rule.position, "a draw sees every rule committed");
    position(&issue(&*store, fresh).await);
}

async fn a_rule_covers_what_it_selects_up_to_its_cut_off(harness: &dyn Harness) {
    let store = harness.store();
    let (mine, other) = (drawn(&*store), drawn(&*store));
    let other = Issue { lease: other.lease.clone().owned_by("platform").narrowed_to("checkout"), ..other };
    let (mine_id, other_id) = (mine.lease.id, other.lease.id);
    position(&issue(&*store, mine).await);
    position(&issue(&*store, other).await);
    harness.clock().advance(Duration::from_secs(1));
    let rule = revoke(&*store, Revocation { after: After::Hold, ..revocation(owner("payments")) }).await;
    let after = drawn(&*store);
    let after_id = after.lease.id;
    position(&issue(&*store, after).await);
    drop(store);
    let store = harness.reopen();
    let rules = store.rules();
    assert_eq!(rules.iter().map(AsRef::as_ref).collect::<Vec<_>>(), [rule.as_ref()]);
    for (id, state) in [(mine_id, "revoked"), (other_id, "active"), (after_id, "active")] {
        let lease = store.lease(id).await.unwrap().unwrap();
        assert_eq!(lease.state(&rules, store.draw().unwrap().now).name(), state);
    }
}

async fn a_repeated_revocation_gives_the_earlier_rule(harness: &dyn Harness) {
    let mut store = harness.store();
    let with = |request: &str| Revocation {
        idempotency: Lease::test(0).with_key("key", request).idempotency,
        ..revocation(Selector::All)
    };
    let rule = revoke(&*store, with("request")).await;
    for _ in 0..2 {
        match store.commit(Change::Revoke(Box::new(with("request")))).await.unwrap() {
            Outcome::Replayed(Earlier::Rule(earlier)) => assert_eq!(earlier, rule),
            other => panic!("{other:?}"),
        }
        let other = store.commit(Change::Revoke(Box::new(with("another")))).await.unwrap();
        assert_eq!(conflict(&other), Conflict::IdempotencyKeyReused);
        drop(store);
        store = harness.reopen();
    }
    assert_eq!(store.rules().len(), 1);
}

async fn a_rule_lasts_as_long_as_what_was_given_out(harness: &dyn Harness) {
    let store = harness.store();
    let long = drawn(&*store);
    let lease = long.lease.clone().issued_at(long.lease.issued_at, Duration::from_secs(3600));
    let end = lease.expires_at;
    position(&issue(&*store, Issue { lease, ..long }).await);
    position(&issue(&*store, drawn(&*store)).await);
    drop(store);
    let store = harness.reopen();
    let rule = revoke(&*store, revocation(Selector::All)).await;
    assert!(rule.until >= end.plus(Duration::from_secs(30)), "the latest expiry and the leeway");
}

async fn a_release_is_once_and_a_reissue_adds_a_digest(harness: &dyn Harness) {
    let store = harness.store();
    let new = drawn(&*store);
    let lease = new.lease.id;
    position(&issue(&*store, new).await);
    let digest = Digest::of(b"again");
    position(&store.commit(Change::Reissue { lease, digest }).await.unwrap());
    for n in 0..14u8 {
        position(&store.commit(Change::Reissue { lease, digest: Digest::of(&[n]) }).await.unwrap());
    }
    let one_more = store.commit(Change::Reissue { lease, digest: Digest::of(b"more") }).await.unwrap();
    assert_eq!(conflict(&one_more), Conflict::Phase, "the forms of a credential are bounded");
    position(&store.commit(Change::Release { lease }).await.unwrap());
    drop(store);
    let store = harness.reopen();
    assert_eq!(conflict(&store.commit(Change::Release { lease }).await.unwrap()), Conflict::Phase);
    let reissued = store.commit(Change::Reissue { lease, digest }).await.unwrap();
    assert_eq!(conflict(&reissued), Conflict::Phase, "what was given back is not signed again");
    let kept = store.lease(lease).await.unwrap().unwrap();
    assert!(matches!(kept.phase, Phase::Released { .. }));
    assert_eq!((kept.digests.len(), kept.digests[1]), (16, digest));
    let none = LeaseId::from_u128(5);
    let unknown = store.commit(Change::Release { lease: none }).await.unwrap();
    assert_eq!(conflict(&unknown), Conflict::NoSuchLease);
    let unknown = store.commit(Change::Reissue { lease: none, digest }).await.unwrap();
    assert_eq!(conflict(&unknown), Conflict::NoSuchLease);

    let revoked = drawn(&*store);
    let lease = revoked.lease.id;
    position(&issue(&*store, revoked).await);
    revoke(&*store, revocation(Selector::All)).await;
    let covered = store.commit(Change::Reissue { lease, digest }).await.unwrap();
    assert!(matches!(covered, Outcome::Covered(_)), "what was revoked is not signed again");
}

async fn pages_follow_filters_and_each_other(harness: &dyn Harness) {
    let store = harness.store();
    let mut all = Vec::new();
    let [image, other] = ["a", "b"].map(|letter| format!("sha256:{}", letter.repeat(64)));
    for n in 0..40u128 {
        let new = drawn(&*store);
        let lease = new.lease.clone().of_pod(n % 4);
        let lease = if n % 2 == 0 { lease.owned_by("checkout") } else { lease };
        let lease = if n % 5 == 0 { lease.narrowed_to("api-team") } else { lease };
        let lease = if n % 7 == 0 { lease.running(&[("api", &image), ("log", &other)]) } else { lease };
        let mut lease = if n % 8 == 0 { lease.for_target("ledger") } else { lease };
        if n % 3 == 0 {
            // Of the same names and uids in another cluster.
            lease.workload.cluster = "west".parse().unwrap();
        }
        all.push(lease.clone());
        position(&issue(&*store, Issue { lease, ..new }).await);
    }
    position(&store.commit(Change::Release { lease: all[7].id }).await.unwrap());
    revoke(&*store, revocation(Selector::lease(all[9].id))).await;
    drop(store);
    let store = harness.reopen();
    let uid = Uid::from_u128;
    let namespace =
        Fields { cluster: "east".parse().ok(), namespace: "payments".parse().ok(), ..Fields::default() };
    let selectors = [
        None,
        Some(Selector::All),
        Some(owner("checkout")),
        Some(owner("api-team")),
        Some(owner("nobody")),
        Some(Selector::lease(all[3].id)),
        Some(Selector::fields(Fields { target: "ledger".parse().ok(), ..Fields::default() }).unwrap()),
        Some(Selector::fields(Fields { pod: Some(uid(2)), ..Fields::default() }).unwrap()),
        Some(Selector::fields(Fields { image: image.parse().ok(), ..Fields::default() }).unwrap()),
        Some(
            Selector::fields(Fields {
                image: image.parse().ok(),
                owner: "checkout".parse().ok(),
                ..Fields::default()
            })
            .unwrap(),
        ),
        Some(Selector::fields(namespace.clone()).unwrap()),
        Some(Selector::fields(Fields { cluster: "west".parse().ok(), ..namespace.clone() }).unwrap()),
        Some(Selector::fields(Fields { cluster: None, ..namespace.clone() }).unwrap()),
        Some(Selector::fields(Fields { cluster: "west".parse().ok(), ..Fields::default() }).unwrap()),
        Some(Selector::fields(Fields { service_account: Some(uid(1)), ..namespace.clone() }).unwrap()),
        Some(
            Selector::fields(Fields { service_account: Some(uid(1)), pod: Some(uid(3)), ..namespace })
                .unwrap(),
        ),
    ];
    for selector in selectors {
        for active_only in [false, true] {
            for owners in [None, Some(vec!["payments"]), Some(vec!["api-team", "checkout"]), Some(vec![])] {
                let owners = owners
                    .map(|names| names.into_iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>());
                let filter = LeaseFilter { selector: selector.clone(), active_only, owners };
                let expected: Vec<_> = (0..)
                    .zip(&all)
                    .filter(|(n, lease)| {
                        filter.selector.as_ref().is_none_or(|selector| selector.matches(lease))
                            && !(active_only && (*n == 7 || *n == 9))
                            && filter
                                .owners
                                .as_ref()
                                .is_none_or(|owners| lease.owners.iter().any(|o| owners.contains(o)))
                    })
                    .map(|(_, lease)| lease.id)
                    .collect();
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let page = store.leases(filter.clone(), after, 7).await.unwrap();
                    assert!(page.leases.len() <= 7);
                    found.extend(page.leases.iter().map(|lease| lease.id));
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!(found, expected, "{filter:?}");
            }
        }
    }
    harness.clock().advance(Duration::from_secs(3600));
    let filter = LeaseFilter { active_only: true, ..LeaseFilter::default() };
    assert!(store.leases(filter, None, 100).await.unwrap().leases.is_empty(), "they have expired");
}

async fn a_jumped_clock_stops_issuing_and_not_revoking(harness: &dyn Harness) {
    let store = harness.store();
    let drawn_before = drawn(&*store);
    let lease = drawn(&*store);
    let id = lease.lease.id;
    position(&issue(&*store, lease).await);
    harness.clock().jump(301);
    assert!(matches!(store.draw(), Err(StoreError::ClockJumped(_))));
    let refused = store.commit(Change::Issue(Box::new(drawn_before))).await;
    assert!(matches!(refused, Err(StoreError::ClockJumped(_))));
    harness.clock().jump(1_000_000);
    let rule = revoke(&*store, revocation(owner("payments"))).await;
    harness.clock().jump(-1_000_301);
    harness.clock().advance(Duration::from_secs(1));
    let lease = store.lease(id).await.unwrap().unwrap();
    let state = lease.state(&store.rules(), store.draw().unwrap().now);
    assert!(matches!(state, LeaseState::Revoked { by, .. } if by == rule.id), "it holds: {state}");
    assert!(rule.cut_off.time() <= store.draw().unwrap().now, "the jump did not drag ids along");
    position(&issue(&*store, drawn(&*store)).await);
}

async fn a_record_has_a_limit(harness: &dyn Harness) {
    let store = harness.store();
    let reason = "x".repeat(20_000);
    let refused =
        store.commit(Change::Revoke(Box::new(Revocation { reason, ..revocation(Selector::All) }))).await;
    assert!(matches!(refused, Err(StoreError::TooLarge(_))), "{refused:?}");
    assert!(store.rules().is_empty());
    let mut large = drawn(&*store);
    large.lease.scope = (0..200).map(|n| format!("{n:0>120}").parse().unwrap()).collect();
    let refused = store.commit(Change::Issue(Box::new(large))).await;
    assert!(matches!(refused, Err(StoreError::TooLarge(_))), "{refused:?}");
    position(&issue(&*store, drawn(&*store)).await);
    log_adds_up(&*store).await;
}

async fn ids_come_in_any_order(harness: &dyn Harness) {
    let store = harness.store();
    let mut issues: Vec<Issue> = (0..90).map(|_| drawn(&*store)).collect();
    let mut expected: Vec<Lease> = issues.iter().map(|issue| issue.lease.clone()).collect();
    // Every seventh, then what is left of every seventh, ...: groups of many sizes, each among what is there already.
    while !issues.is_empty() {
        let mut n = 0;
        let (now, later) = issues.into_iter().partition(|_| {
            n += 1;
            n % 7 == 1
        });
        issues = later;
        let now: Vec<Issue> = now;
        let changes = now.into_iter().rev().map(|issue| Change::Issue(Box::new(issue)));
        let answers: Vec<_> = changes.map(|change| store.commit(change)).collect();
        for answer in answers {
            position(&answer.await.unwrap());
        }
    }
    let at = harness.clock().now();
    for lease in expected.iter_mut().step_by(3) {
        position(&store.commit(Change::Release { lease: lease.id }).await.unwrap());
        lease.phase = Phase::Released { at, renewed_by: None };
    }
    drop(store);
    let store = harness.reopen();
    let page = store.leases(LeaseFilter::default(), None, 1000).await.unwrap();
    let found: Vec<Lease> = page.leases.iter().map(|lease| lease.as_ref().clone()).collect();
    assert_eq!((found, page.next), (expected.clone(), None));
    for lease in &expected {
        assert_eq!(store.lease(lease.id).await.unwrap().as_deref(), Some(lease));
    }
}

async fn changes_at_once_keep_their_order(harness: &dyn Harness) {
    let store = harness.store();
    for round in 0..8 {
        let (mut expected, mut pending, mut covered) = (store.mark().position, Vec::new(), 0);
        for n in 0..100 {
            pending.push(if n == 50 && round % 2 == 1 {
                covered = 49;
                store.commit(Change::Revoke(Box::new(revocation(Selector::All))))
            } else {
                store.commit(Change::Issue(Box::new(drawn(&*store))))
            });
        }
        let mut sent_back = 0;
        for answer in pending {
            match answer.await.unwrap() {
                Outcome::Committed(receipt) => {
                    assert_eq!(receipt.position, expected.next());
                    expected = receipt.position;
                }
                Outcome::Covered(_) => sent_back += 1,
                other => panic!("{other:?}"),
            }
        }
        // Those decided under a position before the rule, which is all but those drawn after it was published.
        assert!(sent_back <= covered);
    }
    log_adds_up(&*store).await;
}

/// A lease that renews this one, to be changed and issued.
pub fn renewing(store: &dyn LeaseStore, earlier: LeaseId) -> Issue {
    let new = drawn(store);
    Issue { lease: new.lease.clone().renewing(earlier), ..new }
}

/// Issues a lease, and gives it.
async fn issued(store: &dyn LeaseStore, new: Issue) -> Lease {
    let lease = new.lease.clone();
    position(&issue(store, new).await);
    lease
}

async fn read(store: &dyn LeaseStore, id: LeaseId) -> Arc<Lease> {
    store.lease(id).await.unwrap().unwrap()
}

async fn a_renewal_ends_the_earlier_lease_after_the_overlap(harness: &dyn Harness) {
    let store = harness.store();
    let earlier = issued(&*store, drawn(&*store)).await;
    harness.clock().advance(Duration::from_secs(100));
    let before = store.mark().position;
    let new = issued(&*store, renewing(&*store, earlier.id)).await;
    assert_eq!(store.mark().position, before.next(), "one change, one position");
    let event = store.events(before.next(), 1).await.unwrap().remove(0).read().unwrap();
    assert_eq!((event.kind, event.issued()), (EventKind::Renewed, Some(new.id)));
    assert_eq!(event.detail.unwrap().renews, earlier.id.to_string());

    // The second one is renewed with less than the overlap left: its own end comes first.
    harness.clock().advance(Duration::from_secs(280));
    let last = issued(&*store, renewing(&*store, new.id)).await;
    drop(store);
    let store = harness.reopen();
    let now = harness.clock().now();
    let ends_at = now.minus(Duration::from_secs(280)).plus(Duration::from_secs(60));
    let kept = read(&*store, earlier.id).await;
    assert_eq!(kept.phase, Phase::Renewed { by: new.id, ends_at });
    assert_eq!(kept.state(&store.rules(), ends_at.minus(Duration::from_millis(1))).name(), "active");
    assert_eq!(kept.state(&store.rules(), now), LeaseState::Expired { at: ends_at });
    let kept = read(&*store, new.id).await;
    assert_eq!(kept.phase, Phase::Renewed { by: last.id, ends_at: new.expires_at });
    assert_eq!((kept.renews, read(&*store, last.id).await.renews), (Some(earlier.id), Some(new.id)));
    position(&store.commit(Change::Release { lease: new.id }).await.unwrap());
    let phase = Phase::Released { at: now, renewed_by: Some(last.id) };
    assert_eq!(read(&*store, new.id).await.phase, phase, "the link stays");
    let active = LeaseFilter { active_only: true, ..LeaseFilter::default() };
    let active: Vec<_> = store.leases(active, None, 10).await.unwrap().leases;
    assert_eq!(active.iter().map(|lease| lease.id).collect::<Vec<_>>(), [last.id]);
    log_adds_up(&*store).await;
}

async fn a_lease_is_renewed_once_by_its_own_pod_while_it_is_good(harness: &dyn Harness) {
    let store = harness.store();
    let refused = async |new: Issue| {
        let before = store.mark();
        let conflict = conflict(&issue(&*store, new.clone()).await);
        assert_eq!((store.mark(), store.lease(new.lease.id).await), (before, Ok(None)));
        conflict
    };
    let lease = issued(&*store, drawn(&*store)).await;
    assert_eq!(refused(renewing(&*store, LeaseId::from_u128(5))).await, Conflict::NoSuchEarlier);
    let another = renewing(&*store, lease.id);
    let pod = Issue { lease: another.lease.clone().of_pod(77), ..another.clone() };
    assert_eq!(refused(pod).await, Conflict::NoSuchEarlier, "another pod");
    let mut account = another.clone();
    account.lease.workload.service_account.uid = Uid::from_u128(77);
    assert_eq!(refused(account).await, Conflict::NoSuchEarlier, "another service account");
    let mut cluster = another;
    cluster.lease.workload.cluster = "west".parse().unwrap();
    assert_eq!(refused(cluster).await, Conflict::NoSuchEarlier, "another cluster");

    let new = issued(&*store, renewing(&*store, lease.id)).await;
    assert_eq!(refused(renewing(&*store, lease.id)).await, Conflict::EarlierRenewed);
    position(&store.commit(Change::Release { lease: new.id }).await.unwrap());
    assert_eq!(refused(renewing(&*store, new.id)).await, Conflict::EarlierEnded, "given back");
    let expired = issued(&*store, drawn(&*store)).await;
    harness.clock().advance(Duration::from_secs(301));
    assert_eq!(refused(renewing(&*store, expired.id)).await, Conflict::EarlierEnded, "expired");
    let revoked = issued(&*store, drawn(&*store)).await;
    revoke(&*store, revocation(Selector::lease(revoked.id))).await;
    assert_eq!(refused(renewing(&*store, revoked.id)).await, Conflict::EarlierEnded, "revoked");
}

async fn of_two_renewals_at_once_one_wins(harness: &dyn Harness) {
    let store = harness.store();
    let lease = issued(&*store, drawn(&*store)).await;
    let (one, other) = (renewing(&*store, lease.id), renewing(&*store, lease.id));
    let first = one.lease.id;
    // In one group, and in the reverse order of their ids; and a renewal of the renewal with them.
    let third = renewing(&*store, first);
    let [one, other, third] = [one, other, third].map(|new| Change::Issue(Box::new(new)));
    let (one, other, third) = (store.commit(one), store.commit(other), store.commit(third));
    position(&one.await.unwrap());
    assert_eq!(conflict(&other.await.unwrap()), Conflict::EarlierRenewed);
    position(&third.await.unwrap());
    drop(store);
    assert_eq!(read(&*harness.reopen(), lease.id).await.phase.renewed_by(), Some(first));
}

async fn a_repeated_renewal_gives_the_earlier_one(harness: &dyn Harness) {
    let mut store = harness.store();
    let lease = issued(&*store, drawn(&*store)).await;
    let keyed = |store: &dyn LeaseStore, request: &str| {
        let new = renewing(store, lease.id);
        Issue { lease: new.lease.clone().with_key("key", request), ..new }
    };
    let first = issued(&*store, keyed(&*store, "request")).await;
    // The earlier one has ended by then: it is the same request all the same.
    harness.clock().advance(Duration::from_secs(90));
    for _ in 0..2 {
        match issue(&*store, keyed(&*store, "request")).await {
            Outcome::Replayed(Earlier::Lease(again)) => assert_eq!(again.id, first.id),
            other => panic!("{other:?}"),
        }
        let changed = issue(&*store, keyed(&*store, "changed")).await;
        assert_eq!(conflict(&changed), Conflict::IdempotencyKeyReused);
        drop(store);
        store = harness.reopen();
    }
}

async fn news_tell_a_caller_of_its_leases_and_everyone_of_rules(harness: &dyn Harness) {
    let store = harness.store();
    let mine = drawn(&*store);
    let caller = mine.lease.workload.caller();
    let other = drawn(&*store);
    let other = Issue { lease: other.lease.clone().of_pod(9), ..other };
    let start = store.mark().position;
    let waiting = store.news(caller, start);
    let mine = issued(&*store, mine).await;
    let news = waiting.await.unwrap();
    assert_eq!((news.position, news.leases), (start.next(), Some(vec![mine.id])));

    issued(&*store, other).await;
    let heard = store.news(caller, news.position).await.unwrap();
    assert_eq!(heard.leases, Some(vec![]), "of another pod's leases it hears nothing");
    let new = issued(&*store, renewing(&*store, mine.id)).await;
    position(&store.commit(Change::Release { lease: mine.id }).await.unwrap());
    let rule = revoke(&*store, revocation(owner("payments"))).await;
    let mut heard = store.news(caller, heard.position).await.unwrap();
    let mut changed = heard.leases.clone().unwrap();
    while heard.position < rule.position {
        heard = store.news(caller, heard.position).await.unwrap();
        changed.extend(heard.leases.clone().unwrap());
    }
    changed.sort();
    changed.dedup();
    assert_eq!(changed, [mine.id, new.id]);
    assert!(store.rules().get(rule.id).is_some(), "who is told of a position has every rule up to it");
    assert_eq!(read(&*store, mine.id).await.phase.renewed_by(), Some(new.id), "and every lease");

    // Before this start nothing is remembered: list anew.
    let before = heard.position;
    drop(store);
    let store = harness.reopen();
    assert_eq!(store.news(caller, before).await.unwrap().leases, None);
}

async fn rules_are_waited_for_and_leases_wake_nobody(harness: &dyn Harness) {
    let store = harness.store();
    let mut waiting = store.ruled(Position::ZERO);
    issued(&*store, drawn(&*store)).await;
    assert!(timeout(Duration::from_millis(50), &mut waiting).await.is_err(), "there is no rule yet");
    let one = revoke(&*store, revocation(owner("payments"))).await;
    assert_eq!(waiting.await, Ok(one.position));
    let two = revoke(&*store, revocation(owner("checkout"))).await;
    assert_eq!(store.ruled(Position::ZERO).await, Ok(two.position), "the newest");
    assert_eq!(store.ruled(one.position).await, Ok(two.position));
    issued(&*store, drawn(&*store)).await;
    let none = timeout(Duration::from_millis(50), store.ruled(two.position)).await;
    assert!(none.is_err(), "a lease is no rule");

    drop(store);
    let store = harness.reopen();
    assert_eq!(store.ruled(one.position).await, Ok(two.position), "also those of before the start");
    let told = async {
        let position = store.ruled(two.position).await?;
        Ok::<_, StoreError>((position, store.rules().position()))
    };
    let (told, three) = tokio::join!(told, revoke(&*store, revocation(owner("payments"))));
    assert_eq!(told, Ok((three.position, three.position)), "whoever is told finds it");

    let hold = Revocation { after: After::Hold, ..revocation(owner("payments")) };
    let hold = revoke(&*store, hold).await;
    let (told, lifted) = tokio::join!(store.ruled(hold.position), store.commit(lift(&hold)));
    assert_eq!(told, Ok(position(&lifted.unwrap())), "a lift is told like a rule");
    let ids: Vec<_> = store.rules().lifted(hold.position, told.unwrap()).map(|rule| rule.id).collect();
    assert_eq!(ids, [hold.id]);
}

/// Issues a lease of this pod under these caps.
async fn capped(store: &dyn LeaseStore, pod: u128, caps: LiveCaps) -> Outcome {
    let new = drawn(store);
    issue(store, Issue { lease: new.lease.clone().of_pod(pod), caps, ..new }).await
}

fn at_cap(outcome: &Outcome) -> (LiveOf, u32) {
    match conflict(outcome) {
        Conflict::AtCap(AtCap { of, most, .. }) => (of, most),
        other => panic!("{other:?}"),
    }
}

/// Waits until a store that was opened has counted what is live.
pub fn until_counted(store: &dyn LeaseStore) {
    for _ in 0..10_000 {
        if store.status().live_counted {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("live leases are never counted");
}

async fn live_leases_are_bounded_and_one_pod_leaves_the_others_their_share(harness: &dyn Harness) {
    let store = harness.store();
    let pods = LiveCaps { per_pod: Some(2), ..LiveCaps::default() };
    for _ in 0..2 {
        position(&capped(&*store, 1, pods).await);
    }
    let before = store.mark();
    let end = drawn(&*store).lease.expires_at;
    let full = conflict(&capped(&*store, 1, pods).await);
    assert_eq!(full, Conflict::AtCap(AtCap { of: LiveOf::Pod, most: 2, until: Some(end) }));
    assert_eq!(store.mark(), before, "nothing was written");
    position(&capped(&*store, 2, pods).await);
    position(&capped(&*store, 1, LiveCaps::default()).await);

    // Four now, of one workload, Grant, namespace and target.
    let none = LiveCaps::default();
    let caps = [
        (LiveOf::Workload, LiveCaps { per_workload: Some(4), ..none }),
        (LiveOf::Grant, LiveCaps { per_grant: Some(4), ..none }),
        (LiveOf::Namespace, LiveCaps { per_namespace: Some(4), ..none }),
        (LiveOf::Target, LiveCaps { total: Some(4), ..none }),
    ];
    for (of, caps) in caps {
        assert_eq!(at_cap(&capped(&*store, 3, caps).await), (of, 4));
        let other = drawn(&*store);
        let mut lease = other.lease.clone().of_pod(3);
        match of {
            LiveOf::Workload => lease.workload.service_account.uid = Uid::from_u128(99),
            LiveOf::Grant => lease.grant.name = "another".parse().unwrap(),
            LiveOf::Namespace => lease.workload.service_account.namespace = "search".parse().unwrap(),
            _ => lease.target = "ledger".parse().unwrap(),
        }
        position(&issue(&*store, Issue { lease, caps, ..other }).await);
    }
    // The narrowest is told, and tokens of no pod have no share of one.
    let both = LiveCaps { per_pod: Some(2), total: Some(2), ..none };
    assert_eq!(at_cap(&capped(&*store, 1, both).await), (LiveOf::Pod, 2));
    let unbound = drawn(&*store);
    let mut lease = unbound.lease.clone();
    lease.workload.pod = None;
    position(&issue(&*store, Issue { lease, caps: LiveCaps { per_pod: Some(1), ..none }, ..unbound }).await);
    let unbound = drawn(&*store);
    let mut lease = unbound.lease.clone();
    lease.workload.pod = None;
    position(&issue(&*store, Issue { lease, caps: LiveCaps { per_pod: Some(1), ..none }, ..unbound }).await);
}

async fn what_ends_makes_room_for_another(harness: &dyn Harness) {
    let store = harness.store();
    let caps = LiveCaps { per_pod: Some(1), per_grant: Some(2), total: Some(2), ..LiveCaps::default() };
    let new = drawn(&*store);
    let first = new.lease.id;
    position(&issue(&*store, Issue { lease: new.lease.clone().of_pod(1), caps, ..new }).await);
    assert_eq!(at_cap(&capped(&*store, 1, caps).await), (LiveOf::Pod, 1));

    position(&store.commit(Change::Release { lease: first }).await.unwrap());
    position(&capped(&*store, 1, caps).await);
    position(&capped(&*store, 2, caps).await);
    assert_eq!(at_cap(&capped(&*store, 1, caps).await), (LiveOf::Pod, 1));
    assert_eq!(at_cap(&capped(&*store, 3, caps).await), (LiveOf::Grant, 2));

    // A rule over one of them, then one over all.
    let pod = Fields { pod: Some(Uid::from_u128(2)), ..Fields::default() };
    revoke(&*store, revocation(Selector::fields(pod).unwrap())).await;
    assert_eq!(at_cap(&capped(&*store, 1, caps).await), (LiveOf::Pod, 1), "its own is as it was");
    position(&capped(&*store, 3, caps).await);
    assert_eq!(at_cap(&capped(&*store, 2, caps).await), (LiveOf::Grant, 2), "there was one place");
    revoke(&*store, revocation(Selector::All)).await;
    for pod in [1, 2] {
        position(&capped(&*store, pod, caps).await);
    }
    assert_eq!(at_cap(&capped(&*store, 3, caps).await), (LiveOf::Grant, 2));

    harness.clock().advance(Duration::from_secs(299));
    assert_eq!(at_cap(&capped(&*store, 1, caps).await), (LiveOf::Pod, 1));
    harness.clock().advance(Duration::from_secs(1));
    for pod in [1, 2] {
        position(&capped(&*store, pod, caps).await);
    }
}

async fn live_leases_are_counted_again_after_a_start(harness: &dyn Harness) {
    let store = harness.store();
    let caps = LiveCaps { per_pod: Some(1), total: Some(3), ..LiveCaps::default() };
    position(&capped(&*store, 1, caps).await);
    harness.clock().advance(Duration::from_secs(100));
    let mut ids = Vec::new();
    for pod in [2, 3] {
        let new = drawn(&*store);
        ids.push(new.lease.id);
        position(&issue(&*store, Issue { lease: new.lease.clone().of_pod(pod), caps, ..new }).await);
    }
    drop(store);
    let store = harness.reopen();
    until_counted(&*store);
    assert_eq!(at_cap(&capped(&*store, 2, caps).await), (LiveOf::Pod, 1));
    assert_eq!(at_cap(&capped(&*store, 4, caps).await), (LiveOf::Target, 3));
    position(&store.commit(Change::Release { lease: ids[0] }).await.unwrap());
    position(&capped(&*store, 4, caps).await);
    revoke(&*store, revocation(Selector::lease(ids[1]))).await;
    drop(store);
    // What was released or revoked is not counted then.
    let store = harness.reopen();
    until_counted(&*store);
    position(&capped(&*store, 3, caps).await);
    assert_eq!(at_cap(&capped(&*store, 5, caps).await), (LiveOf::Target, 3));
    harness.clock().advance(Duration::from_secs(200));
    position(&capped(&*store, 1, caps).await);
    assert_eq!(at_cap(&capped(&*store, 5, caps).await), (LiveOf::Target, 3));
}

async fn a_renewal_takes_the_place_of_the_earlier_lease(harness: &dyn Harness) {
    let store = harness.store();
    let caps = LiveCaps { per_pod: Some(1), total: Some(1), ..LiveCaps::default() };
    let first = drawn(&*store);
    let mut last = first.lease.id;
    position(&issue(&*store, Issue { caps, ..first }).await);
    for _ in 0..3 {
        let next = renewing(&*store, last);
        last = next.lease.id;
        position(&issue(&*store, Issue { caps, ..next }).await);
        let another = drawn(&*store);
        assert_eq!(at_cap(&issue(&*store, Issue { caps, ..another }).await), (LiveOf::Pod, 1));
    }
    // One in place of another adds nothing, even where there are more than may be by now.
    let another = drawn(&*store);
    position(&issue(&*store, another).await);
    let next = renewing(&*store, last);
    position(&issue(&*store, Issue { caps, ..next }).await);
    // What was renewed is not counted again after a start.
    drop(store);
    let store = harness.reopen();
    until_counted(&*store);
    let two = LiveCaps { total: Some(3), ..LiveCaps::default() };
    position(&capped(&*store, 7, two).await);
    assert_eq!(at_cap(&capped(&*store, 7, two).await), (LiveOf::Target, 3));
}

async fn a_hold_is_lifted_once_and_what_it_covered_stays_revoked(harness: &dyn Harness) {
    let store = harness.store();
    let covered = drawn(&*store);
    let id = covered.lease.id;
    position(&issue(&*store, covered).await);
    harness.clock().advance(Duration::from_secs(1));
    let late = drawn(&*store);
    let reissue = revoke(&*store, revocation(owner("payments"))).await;
    let held = Revocation { after: After::Hold, ..revocation(owner("payments")) };
    let hold = revoke(&*store, Revocation { authority: Authority::ClusterWide, ..held }).await;
    let conflicts =
        [(lift(&reissue), Conflict::NotHold), (lift(&Rule::test(1, Selector::All, 3)), Conflict::NoSuchRule)];
    for (change, expected) in conflicts {
        assert_eq!(conflict(&store.commit(change).await.unwrap()), expected);
    }
    let again = drawn(&*store).lease;
    assert_eq!(store.rules().holding(&again).map(|rule| rule.id), Some(hold.id));
    harness.clock().advance(Duration::from_secs(1));
    let lifted = match store.commit(lift(&hold)).await.unwrap() {
        Outcome::Committed(Receipt { position, rule: Some(rule) }) => {
            assert_eq!(rule.lifted.as_ref().map(|lifted| lifted.position), Some(position));
            assert_eq!(store.rules().position(), position, "whoever waits for news of rules is told");
            rule
        }
        other => panic!("{other:?}"),
    };
    let by = lifted.lifted.clone().unwrap();
    assert_eq!((by.by.username.as_str(), by.reason.as_str()), ("bob", "over"));
    assert!(by.at > hold.written_at && lifted.authority == Authority::ClusterWide);
    assert_eq!(
        *lifted,
        Rule { lifted: lifted.lifted.clone(), ..Rule::clone(&hold) },
        "nothing else of it changes"
    );
    let event = store.events(by.position, 1).await.unwrap().remove(0).read().unwrap();
    assert_eq!((event.kind, event.lifted()), (EventKind::Lifted, Some(hold.id)));
    let mut store = store;
    for _ in 0..2 {
        let before = store.mark();
        match store.commit(lift(&hold)).await.unwrap() {
            Outcome::Replayed(Earlier::Rule(rule)) => assert_eq!(rule, lifted),
            other => panic!("{other:?}"),
        }
        assert_eq!(store.mark(), before);
        let rules = store.rules();
        assert!(rules.holding(&again).is_none() && rules.holds().next().is_none());
        let lease = store.lease(id).await.unwrap().unwrap();
        assert_eq!(lease.state(&rules, harness.clock().now()).name(), "revoked");
        drop(store);
        store = harness.reopen();
    }
    let outcome = issue(&*store, late).await;
    assert!(matches!(outcome, Outcome::Covered(_)), "decided before the hold: {outcome:?}");
    position(&issue(&*store, drawn(&*store)).await);
}

async fn a_rule_past_its_until_is_folded_away_and_still_found(harness: &dyn Harness) {
    let mut store = harness.store();
    let (covered, late) = (drawn(&*store), drawn(&*store));
    let id = covered.lease.id;
    position(&issue(&*store, covered).await);
    harness.clock().advance(Duration::from_secs(1));
    let keyed = Lease::test(0).with_key("key", "request").idempotency;
    let rule = revoke(&*store, Revocation { idempotency: keyed, ..revocation(Selector::All) }).await;
    let hold = revoke(&*store, Revocation { after: After::Hold, ..revocation(owner("payments")) }).await;
    let lifted = revoke(&*store, Revocation { after: After::Hold, ..revocation(owner("checkout")) }).await;
    position(&store.commit(lift(&lifted)).await.unwrap());
    // Those told to verifiers, and how many there are.
    let told = |store: &dyn LeaseStore| {
        let rules = store.rules();
        (
            rules.in_force(harness.clock().now()).map(|rule| rule.id).collect::<Vec<_>>(),
            rules.before(None).count(),
        )
    };
    assert_eq!(told(&*store), (vec![rule.id, hold.id, lifted.id], 3));
    harness.clock().advance(rule.until.since(harness.clock().now()) + Duration::from_millis(1));
    for _ in 0..3 {
        let outcome = issue(&*store, late.clone()).await;
        assert!(
            matches!(outcome, Outcome::Covered(_)),
            "what was decided before it is out of date: {outcome:?}"
        );
        let note = Draft::note(EventKind::PolicyChanged, &rule.by, "time to tidy up".to_owned());
        position(&store.commit(Change::Note(Box::new(note))).await.unwrap());
        assert_eq!(told(&*store), (vec![hold.id], 3));
        let rules = store.rules();
        let lease = store.lease(id).await.unwrap().unwrap();
        let LeaseState::Revoked { by, at } = lease.state(&rules, harness.clock().now()) else {
            panic!("what was revoked before its end is revoked")
        };
        assert_eq!((by, at), (rule.id, rule.written_at));
        assert_eq!(store.rule(rule.id).await.unwrap().as_ref(), Some(&rule));
        assert_eq!(store.rule(RuleId::from_u128(7)).await.unwrap(), None);
        let again = Revocation { idempotency: keyed, ..revocation(Selector::All) };
        let repeated = store.commit(Change::Revoke(Box::new(again))).await.unwrap();
        assert!(matches!(repeated, Outcome::Replayed(Earlier::Rule(earlier)) if earlier == rule));
        let relifted = store.commit(lift(&lifted)).await.unwrap();
        assert!(matches!(relifted, Outcome::Replayed(Earlier::Rule(_))));
        let none = store.commit(lift(&rule)).await.unwrap();
        assert_eq!(conflict(&none), Conflict::NotHold);
        drop(store);
        store = harness.reopen();
    }
    // The hold is folded when it is lifted.
    position(&store.commit(lift(&hold)).await.unwrap());
    position(&issue(&*store, drawn(&*store)).await);
    assert_eq!(told(&*store), (Vec::new(), 3));
}

async fn a_store_that_is_no_copy_has_nothing_to_adopt(harness: &dyn Harness) {
    let store = harness.store();
    let before = store.mark();
    assert!(store.status().is_adopted());
    let adopted = store.commit(Change::Adopt { by: Actor::dayfly() }).await.unwrap();
    assert_eq!(conflict(&adopted), Conflict::Adopted);
    assert_eq!(store.mark(), before);
}
