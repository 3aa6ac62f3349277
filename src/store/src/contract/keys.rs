//! Signing keys, and the steps of their lives.

use std::time::Duration;

use dayfly_core::audit::{Detail, EventKind};
use dayfly_core::change::{Change, Conflict, KeyChange, KeyStep, Outcome, Receipt, SealedKey};
use dayfly_core::lease::LeaseState;
use dayfly_core::ports::{Clock as _, LeaseStore, StoreError};
use dayfly_core::rule::{Actor, After, Fields, Selector};
use dayfly_core::signing::KeyStage;
use dayfly_core::time::Timestamp;

use super::{Harness, conflict, drawn, issue, position};

const ACCESS: &str = "access-token";

/// A key's first record.
fn key(id: &str, purpose: &str, stage: KeyStage, at: u64) -> SealedKey {
    SealedKey {
        id: id.parse().unwrap(),
        purpose: purpose.to_owned(),
        generation: 1,
        created_at: Timestamp::from_secs(at),
        public_jwk: "{}".to_owned(),
        sealed: vec![1, 2, 3],
        stage,
        since: Timestamp::from_secs(at),
        version: 1,
    }
}

/// The same key, one step on.
fn then(key: &SealedKey, stage: KeyStage) -> SealedKey {
    let sealed = if stage.is_published() { vec![4, 5, 6] } else { Vec::new() };
    let since = key.since.plus(Duration::from_secs(1));
    SealedKey { stage, since, sealed, version: key.version + 1, ..key.clone() }
}

async fn take(store: &dyn LeaseStore, step: KeyStep) -> Outcome {
    store.commit(Change::Key(Box::new(KeyChange { step, by: Actor::dayfly() }))).await.unwrap()
}

/// Takes it, and gives its event.
async fn taken(store: &dyn LeaseStore, step: KeyStep) -> (EventKind, Detail) {
    let at = position(&take(store, step).await);
    let event = store.events(at, 1).await.unwrap().remove(0).read().unwrap();
    assert_eq!(event.position, at);
    (event.kind, event.detail.unwrap())
}

async fn refused(store: &dyn LeaseStore, step: KeyStep) -> Conflict {
    let before = store.mark().position;
    let conflict = conflict(&take(store, step).await);
    assert_eq!(store.mark().position, before, "it left nothing");
    conflict
}

pub(super) async fn a_key_is_added_once_and_keys_come_oldest_first(harness: &dyn Harness) {
    let store = harness.store();
    let (young, old) = (key("a", ACCESS, KeyStage::Active, 9), key("b", "svid/a", KeyStage::Active, 1));
    taken(&*store, KeyStep::Add(young.clone())).await;
    taken(&*store, KeyStep::Add(old.clone())).await;
    assert_eq!(refused(&*store, KeyStep::Add(old.clone())).await, Conflict::KeyExists);
    let imported = key("c", "access-token/RS256/east/orders", KeyStage::Active, 12);
    let (kind, detail) = taken(&*store, KeyStep::Add(imported.clone())).await;
    assert_eq!((kind, &*detail.key_id, &*detail.target), (EventKind::KeyCreated, "c", "orders"));
    assert!(detail.note.ends_with(", imported"), "{}", detail.note);
    drop(store);
    assert_eq!(harness.reopen().keys().await.unwrap(), [old, young, imported]);
}

pub(super) async fn a_key_goes_on_one_stage_at_a_time(harness: &dyn Harness) {
    let store = harness.store();
    let first = key("first", ACCESS, KeyStage::Active, 1);
    let next = key("next", ACCESS, KeyStage::Next, 2);
    taken(&*store, KeyStep::Add(first.clone())).await;
    for stage in [KeyStage::Active, KeyStage::Retiring, KeyStage::Retired, KeyStage::Revoked] {
        let another = key("another", ACCESS, stage, 3);
        assert_eq!(refused(&*store, KeyStep::Add(another)).await, Conflict::KeyStage, "{stage}");
    }
    taken(&*store, KeyStep::Add(next.clone())).await;
    let another = KeyStep::Add(key("another", ACCESS, KeyStage::Next, 3));
    assert_eq!(refused(&*store, another).await, Conflict::KeyStage, "one next key is enough");
    let alone = KeyStep::Activate { key: then(&next, KeyStage::Active), retiring: None };
    assert_eq!(refused(&*store, alone).await, Conflict::KeyStage, "the active one has to retire");

    let (active, retiring) = (then(&next, KeyStage::Active), then(&first, KeyStage::Retiring));
    let step = KeyStep::Activate { key: active.clone(), retiring: Some(retiring.clone()) };
    let (kind, detail) = taken(&*store, step.clone()).await;
    assert_eq!((kind, &*detail.key_id), (EventKind::KeyActivated, "next"));
    assert!(detail.note.contains("first retires"), "{}", detail.note);
    assert_eq!(refused(&*store, step).await, Conflict::KeyStage, "a step is taken once");
    let back = KeyStep::Activate { key: then(&retiring, KeyStage::Active), retiring: None };
    assert_eq!(refused(&*store, back).await, Conflict::KeyStage, "no key goes back");

    // What is to be gone is gone, what is to be kept is not, and nothing else of a key changes.
    let retired = then(&retiring, KeyStage::Retired);
    for bad in [
        SealedKey { sealed: vec![1], ..retired.clone() },
        SealedKey { public_jwk: "{\"kty\":1}".to_owned(), ..retired.clone() },
        SealedKey { since: retiring.since, ..retired.clone() },
        SealedKey { version: retired.version + 1, ..retired.clone() },
        then(&retiring, KeyStage::Revoked),
    ] {
        assert_eq!(refused(&*store, KeyStep::Retire(bad)).await, Conflict::KeyStage);
    }
    let resealed = SealedKey { generation: 2, ..then(&active, KeyStage::Active) };
    let unsealed = SealedKey { sealed: Vec::new(), ..resealed.clone() };
    assert_eq!(refused(&*store, KeyStep::Reseal(unsealed)).await, Conflict::KeyStage);
    assert_eq!(taken(&*store, KeyStep::Retire(retired.clone())).await.0, EventKind::KeyRetired);
    assert_eq!(taken(&*store, KeyStep::Reseal(resealed.clone())).await.0, EventKind::KeyResealed);
    drop(store);
    assert_eq!(harness.reopen().keys().await.unwrap(), [retired, resealed]);
}

pub(super) async fn of_two_steps_of_a_key_one_is_taken(harness: &dyn Harness) {
    let store = harness.store();
    let first = key("first", ACCESS, KeyStage::Active, 1);
    let next = |id: &str| KeyStep::Add(key(id, ACCESS, KeyStage::Next, 2));
    // All of one commit, most likely.
    let added = take(&*store, KeyStep::Add(first.clone()));
    let (added, one, other) = tokio::join!(added, take(&*store, next("one")), take(&*store, next("other")));
    position(&added);
    position(&one);
    assert_eq!(conflict(&other), Conflict::KeyStage);
    let reseal = || SealedKey { generation: 2, ..then(&first, KeyStage::Active) };
    let (one, other) =
        tokio::join!(take(&*store, KeyStep::Reseal(reseal())), take(&*store, KeyStep::Reseal(reseal())));
    position(&one);
    assert_eq!(conflict(&other), Conflict::KeyStage);
    assert_eq!(store.keys().await.unwrap().len(), 2);
}

pub(super) async fn a_revoked_keys_leases_are_revoked_with_it(harness: &dyn Harness) {
    let store = harness.store();
    let signed = drawn(&*store);
    let (id, signer) = (signed.lease.id, signed.lease.key_id.clone());
    position(&issue(&*store, signed).await);
    let under_way = drawn(&*store);
    let first = SealedKey { id: signer.clone(), ..key("first", ACCESS, KeyStage::Active, 1) };
    taken(&*store, KeyStep::Add(first.clone())).await;

    let revoke = |instead| KeyStep::Revoke {
        key: then(&first, KeyStage::Revoked),
        instead,
        reason: "it was in a backup".to_owned(),
    };
    let passive = key("instead", ACCESS, KeyStage::Next, 3);
    assert_eq!(
        refused(&*store, KeyStep::Retire(then(&first, KeyStage::Revoked))).await,
        Conflict::KeyStage,
        "what is revoked is revoked with a rule"
    );
    let instead = SealedKey { stage: KeyStage::Active, ..passive };
    let outcome = take(&*store, revoke(Some(instead.clone()))).await;
    let Outcome::Committed(Receipt { position: at, rule: Some(rule) }) = outcome else {
        panic!("{outcome:?}")
    };
    let fields = Fields { key: Some(signer.clone()), ..Fields::default() };
    assert_eq!((&rule.selector, rule.after), (&Selector::fields(fields).unwrap(), After::Reissue));
    let event = store.events(at, 1).await.unwrap().remove(0).read().unwrap();
    assert_eq!((event.kind, event.rule()), (EventKind::KeyRevoked, Some(rule.id)));
    let detail = event.detail.unwrap();
    assert_eq!((&*detail.reason, &*detail.key_id), ("it was in a backup", signer.as_str()));
    assert_eq!(refused(&*store, revoke(Some(instead.clone()))).await, Conflict::KeyStage);
    assert_eq!(refused(&*store, revoke(None)).await, Conflict::KeyStage, "it was revoked before");
    // What was being decided meanwhile is decided again.
    assert!(matches!(issue(&*store, under_way).await, Outcome::Covered(_)));
    drop(store);
    let store = harness.reopen();
    let lease = store.lease(id).await.unwrap().unwrap();
    let state = lease.state(&store.rules(), harness.clock().now());
    assert!(matches!(state, LeaseState::Revoked { .. }), "{state}");
    assert_eq!(store.keys().await.unwrap(), [then(&first, KeyStage::Revoked), instead]);
}

pub(super) async fn a_jumped_clock_lets_a_key_only_be_revoked(harness: &dyn Harness) {
    let store = harness.store();
    let first = key("first", ACCESS, KeyStage::Active, 1);
    taken(&*store, KeyStep::Add(first.clone())).await;
    harness.clock().jump(3600);
    let next = KeyStep::Add(key("next", ACCESS, KeyStage::Next, 2));
    let next = Change::Key(Box::new(KeyChange { step: next, by: Actor::dayfly() }));
    assert!(matches!(store.commit(next).await, Err(StoreError::ClockJumped(_))));
    let key = then(&first, KeyStage::Revoked);
    taken(&*store, KeyStep::Revoke { key, instead: None, reason: "now".to_owned() }).await;
}
