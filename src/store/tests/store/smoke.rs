use std::sync::Arc;
use dayfly_core::change::*;
use dayfly_core::ids::*;
use dayfly_core::lease::Lease;
use dayfly_core::ports::*;
use dayfly_core::time::Timestamp;
use dayfly_store::{Options, SledStore};

#[tokio::test]
async fn smoke() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::at(Timestamp::from_secs(1_795_435_200)));
    let options = Options::new(dir.path().join("a/b/store"), clock.clone(), Arc::new(TestRng::new(1)));
    let store = SledStore::open(options.clone()).unwrap();
    let draw = store.draw().unwrap();
    let lease = Lease { id: draw.id, ..Lease::test(1) };
    let out = store.commit(Change::Issue(Box::new(Issue { lease: lease.clone(), decided_under: draw.position }))).await.unwrap();
    assert!(matches!(out, Outcome::Committed(ref r) if r.position == Position::new(2)), "{out:?}");
    assert_eq!(store.lease(draw.id).await.unwrap().unwrap().id, lease.id);
    store.close();
    drop(store);
    let store = SledStore::open(options).unwrap();
    assert_eq!(*store.lease(draw.id).await.unwrap().unwrap(), lease);
    for event in store.events(Position::new(1), 10).await.unwrap() { println!("{:?}", event.read().unwrap()); }
    println!("{:?}", store.status());
}
