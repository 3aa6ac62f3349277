//! Stores that are made from backups, and older copies that were accepted.

use std::fs;
use std::path::Path;

use dayfly_core::audit::EventKind;
use dayfly_core::change::{Change, Conflict, Mark, Outcome};
use dayfly_core::ids::{Incarnation, InstanceId, Position};
use dayfly_core::lease::LeaseState;
use dayfly_core::ports::{Clock as _, LeaseStore};
use dayfly_core::rule::Actor;
use dayfly_store::contract::{drawn, issue};
use dayfly_store::{Options, RestoreError, SledStore, verify};

use crate::backup::{restored, some, taken};
use crate::fixture::Fixture;

#[tokio::test]
async fn a_restored_store_is_a_new_incarnation_with_a_rule_over_all_and_not_adopted() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let before = some(&store, 5).await;
    let (bytes, point) = taken(&store).await;
    let after = some(&store, 3).await;
    let witness = store.mark();
    assert!(store.status().is_adopted());

    let other = Fixture::new().with(|options| options.expected = Some(witness));
    let made = restored(&other, &bytes, Some(witness)).unwrap();
    assert!(made.mark.incarnation > witness.incarnation && made.mark.highest > witness.highest);
    let second = Fixture::new();
    let twin = restored(&second, &bytes, None).unwrap();
    assert_ne!(twin.mark.incarnation, made.mark.incarnation, "two copies of one backup differ");

    // It starts with the witness of the store that it replaces, and again.
    for _ in 0..2 {
        let copy = other.open();
        assert_eq!(copy.status().instance, point.mark.instance);
        assert!(!copy.status().is_adopted());
        let now = other.clock.now();
        for id in &before {
            let lease = copy.lease(*id).await.unwrap().unwrap();
            assert!(matches!(lease.state(&copy.rules(), now), LeaseState::Revoked { .. }));
        }
        for id in &after {
            assert_eq!(copy.lease(*id).await.unwrap(), None);
        }
        let lease = drawn(&*copy);
        assert!(lease.lease.id > *after.last().unwrap());
        assert!(matches!(issue(&*copy, lease).await, Outcome::Committed(_)));
        copy.close();
    }
    let copy = other.open();
    let events = copy.events(point.mark.position.next(), 10).await.unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.read().unwrap().kind).collect();
    assert_eq!(kinds[..2], [EventKind::Revoked, EventKind::Restored]);
    let note = events[1].read().unwrap().detail.unwrap().note;
    assert!(note.contains(&format!("position {}", point.mark.position)), "{note}");

    let by = Actor::dayfly();
    let adopted = copy.commit(Change::Adopt { by: by.clone() }).await.unwrap();
    assert!(matches!(adopted, Outcome::Committed(_)), "{adopted:?}");
    assert!(copy.status().is_adopted());
    let again = copy.commit(Change::Adopt { by }).await.unwrap();
    assert!(matches!(again, Outcome::Conflict(Conflict::Adopted)));
    copy.close();
    assert!(verify(&other.dir()).unwrap().adopted);
    let copy = other.open();
    assert!(copy.status().is_adopted());
    copy.close();
    store.close();
}

#[tokio::test]
async fn a_store_that_was_behind_its_witness_is_not_adopted_either() {
    let fixture = Fixture::new();
    let store = fixture.open();
    some(&store, 1).await;
    let witness = Mark { position: Position::new(1000), ..store.mark() };
    store.close();
    drop(store);
    let accepted = Options { expected: Some(witness), accept_rollback: true, ..fixture.options.clone() };
    let store = SledStore::open(accepted).unwrap();
    assert!(!store.status().is_adopted());
    assert!(store.mark().incarnation > Incarnation(1));
    store.close();
    assert!(!verify(&fixture.dir()).unwrap().adopted);
}

#[tokio::test]
async fn nothing_is_restored_over_a_store_or_of_half_a_backup() {
    let fixture = Fixture::new();
    let store = fixture.open();
    some(&store, 40).await;
    let (bytes, _) = taken(&store).await;
    let taken = restored(&fixture, &bytes, None).unwrap_err();
    assert!(matches!(taken, RestoreError::Taken(_)), "{taken}");

    let other = Fixture::new();
    let refused = |bytes: &[u8]| {
        let refused = restored(&other, bytes, None).unwrap_err().to_string();
        assert_eq!(entries(other.folder.path()), 0, "nothing is left");
        refused
    };
    assert!(refused(&bytes[..bytes.len() - 1]).contains("no end"));
    assert!(refused(&[&bytes[..], b"+"].concat()).contains("no end"));
    assert!(refused(&[&bytes[..], &bytes[..]].concat()).contains("after its end"));
    assert!(refused(&[&b"x"[..], &bytes].concat()).contains("unknown kind"));
    // The last record of the first kind is left out.
    let mut cut = bytes.clone();
    let value = cut.windows(8).rposition(|window| window == b"payments").unwrap();
    cut[value] = b'q';
    refused(&cut);

    let stranger = Mark { instance: InstanceId::from_bytes([3; 16]), ..store.mark() };
    let strange = restored(&other, &bytes, Some(stranger)).unwrap_err();
    assert!(matches!(strange, RestoreError::AnotherStore { .. }), "{strange}");
    assert_eq!(entries(other.folder.path()), 0);
    restored(&other, &bytes, None).unwrap();
    store.close();
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}
