//! What verifying says of a log that somebody changed who can write the store's files.

use dayfly_core::audit::{Draft, EventKind, EventRecord};
use dayfly_core::change::{Change, LogHead};
use dayfly_core::ids::Position;
use dayfly_core::ports::LeaseStore;
use dayfly_core::rule::Actor;
use dayfly_core::time::Timestamp;
use dayfly_store::{VerifyReport, verify, verify_against};
use prost::Message;

use crate::fixture::Fixture;

/// The events of one commit, as the store has them.
#[derive(Clone, PartialEq, Message)]
struct Group {
    #[prost(message, repeated, tag = "1")]
    events: Vec<EventRecord>,
}

/// A store of 300 events and more, each of a commit of its own, closed; and its heads after 100 and after 300.
async fn closed() -> (Fixture, [LogHead; 2]) {
    let fixture = Fixture::new();
    let store = fixture.open();
    let mut heads = Vec::new();
    while heads.len() < 2 {
        let draft = Draft::note(EventKind::PolicyChanged, &Actor::dayfly(), "a test".to_owned());
        store.commit(Change::Note(Box::new(draft))).await.unwrap();
        if [100, 300].contains(&store.log_head().size) {
            heads.push(store.log_head());
        }
    }
    store.close();
    drop(store);
    (fixture, heads.try_into().unwrap())
}

fn change(fixture: &Fixture, change: impl FnOnce(&sled::Db)) {
    fixture.wait_for_lock();
    let database = sled::Config::new().path(fixture.dir()).segment_size(8 << 20).open().unwrap();
    change(&database);
    database.flush().unwrap();
    drop(database);
    fixture.wait_for_lock();
}

fn key(position: u64) -> Vec<u8> {
    [b"e".as_slice(), &position.to_be_bytes()].concat()
}

/// Changes the event at a position.
fn change_event(database: &sled::Db, position: u64, change: impl FnOnce(&mut EventRecord)) {
    let mut group = Group::decode(database.get(key(position)).unwrap().unwrap().as_ref()).unwrap();
    change(&mut group.events[0]);
    database.insert(key(position), group.encode_to_vec()).unwrap();
}

fn says(report: &VerifyReport, what: &str) -> bool {
    report.problems.iter().any(|problem| problem.contains(what))
}

#[tokio::test]
async fn what_was_changed_is_named_with_its_position() {
    type Tamper = fn(&sled::Db);
    let cases: [(Tamper, &str); 6] = [
        (
            |db| change_event(db, 17, |event| event.detail[3] ^= 1),
            "event 17: the event's detail is not the one",
        ),
        (
            |db| change_event(db, 18, |event| event.salt[0] ^= 1),
            "event 18: the event's detail is not the one",
        ),
        (|db| change_event(db, 19, |event| *event.leaf.last_mut().unwrap() ^= 1), "event 19"),
        (
            |db| {
                // Whole in itself: only the tree tells.
                let other = Draft::note(EventKind::Stopped, &Actor::dayfly(), "forged".to_owned());
                change_event(db, 20, |event| {
                    *event = other.place(Position::new(20), Timestamp::default(), [7; 16]).0;
                });
            },
            "event 20 was changed",
        ),
        (|db| drop(db.remove(key(21)).unwrap()), "events 21 to 21 are missing"),
        (
            |db| {
                let [one, other] = [22, 23].map(|position| db.get(key(position)).unwrap().unwrap());
                db.insert(key(22), other).unwrap();
                db.insert(key(23), one).unwrap();
            },
            "event 23 stands at position 22",
        ),
    ];
    for (tamper, expected) in cases {
        let (fixture, heads) = closed().await;
        assert!(verify_against(&fixture.dir(), &heads).unwrap().problems.is_empty());
        change(&fixture, tamper);
        let report = verify_against(&fixture.dir(), &heads).unwrap();
        assert!(says(&report, expected), "{expected:?} is not in {:?}", report.problems);
    }
}

/// Another log in its place, whole in itself: only what was published before tells.
#[tokio::test]
async fn a_log_that_was_written_anew_is_not_the_published_one() {
    let (_, [early, late]) = closed().await;
    let (fixture, own) = closed().await;
    assert!(verify(&fixture.dir()).unwrap().problems.is_empty());
    assert!(verify_against(&fixture.dir(), &own).unwrap().problems.is_empty());
    let report = verify_against(&fixture.dir(), &[own[0], late]).unwrap();
    assert!(says(&report, "the first 300 events are not those") && !says(&report, "the first 100"));
    assert!(says(&verify_against(&fixture.dir(), &[early]).unwrap(), "the first 100 events are not those"));
    let longer = LogHead { size: 1000, ..late };
    let report = verify_against(&fixture.dir(), &[longer]).unwrap();
    assert!(says(&report, "to 1000 are missing") && says(&report, "cut off"), "{:?}", report.problems);
}
