//! Details of old events are forgotten, a few with each commit; the log stays whole.

use std::time::Duration;

use dayfly_core::audit::{Draft, Event, EventKind};
use dayfly_core::change::Change;
use dayfly_core::ids::Position;
use dayfly_core::merkle;
use dayfly_core::ports::LeaseStore;
use dayfly_core::rule::Actor;
use dayfly_store::{SledStore, verify};

use crate::fixture::Fixture;

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn note(store: &SledStore, text: &str) {
    let draft = Draft::note(EventKind::PolicyChanged, &Actor::dayfly(), text.to_owned());
    store.commit(Change::Note(Box::new(draft))).await.unwrap();
}

async fn events(store: &SledStore) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while (events.len() as u64) < store.mark().position.number() {
        let next = Position::new(events.len() as u64 + 1);
        events.extend(store.events(next, 1000).await.unwrap().iter().map(|record| record.read().unwrap()));
    }
    events
}

fn remembered(events: &[Event]) -> usize {
    events.iter().filter(|event| event.detail.is_some()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn details_of_old_events_are_forgotten_and_nothing_else() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let text = "x".repeat(8000);
    for _ in 0..300 {
        note(&store, &text).await;
    }
    let before = (store.log_head(), events(&store).await);
    assert_eq!(remembered(&before.1), 301);
    fixture.clock.advance(399 * DAY);
    note(&store, "young").await;
    assert_eq!(remembered(&events(&store).await), 302, "nothing is old enough");

    fixture.clock.advance(2 * DAY);
    note(&store, "newest").await;
    let some = remembered(&events(&store).await);
    assert!(some > 3, "one commit forgets a few: {some} are left");
    for _ in 0..1000 {
        if remembered(&events(&store).await) == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = events(&store).await;
    let young: Vec<_> = after.iter().filter_map(|it| it.detail.as_ref()).map(|it| it.note.as_str()).collect();
    assert_eq!(young, ["young", "newest"]);
    let leaves: Vec<_> = after.iter().map(|event| event.leaf_hash).collect();
    assert_eq!(merkle::root_of(&leaves), store.log_head().root);
    assert_eq!(merkle::root_of(&leaves[..301]), before.0.root, "what was proved before is proved now");
    for (was, is) in before.1.iter().zip(&after) {
        assert_eq!((was.kind, was.at, was.leaf_hash), (is.kind, is.at, is.leaf_hash));
    }

    store.close();
    drop(store);
    let report = verify(&fixture.dir()).unwrap();
    assert_eq!((report.problems.len(), report.forgotten), (0, 301), "{:?}", report.problems);
    let store = fixture.open();
    assert_eq!(remembered(&events(&store).await), 4, "the same after a start");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_between_leaves_a_whole_log() {
    let fixture = Fixture::new();
    let text = "x".repeat(8000);
    let store = fixture.open();
    for _ in 0..300 {
        note(&store, &text).await;
    }
    fixture.clock.advance(401 * DAY);
    note(&store, "newest").await;
    drop(store);
    fixture.wait_for_lock();
    let report = verify(&fixture.dir()).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(report.forgotten > 0 && report.events == 302, "{report:?}");
    fixture.take();
}
