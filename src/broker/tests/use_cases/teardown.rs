use std::sync::Arc;
use std::time::Duration;

use dayfly_broker::StatusList;
use dayfly_core::change::{Change, Outcome, Receipt, Revocation};
use dayfly_core::lease::Lease;
use dayfly_core::ports::{LeaseStore as _, StoreError};
use dayfly_core::rule::{Actor, After, Authority, Fields, Rule, Selector};
use dayfly_core::teardown::{Step, StepProgress};
use tokio::task::JoinHandle;

use crate::support::{POLICY, World, api, bearer};

/// 251 leases, and a rule by what no claim says.
async fn revoked(world: &World) -> Arc<Rule> {
    for _ in 0..250 {
        world.issued().await;
    }
    let credential_id = world.issued().await.lease.workload.credential_id.clone();
    let selector = Selector::fields(Fields { credential_id, ..Fields::default() }).unwrap();
    write(world, selector)
}

fn write(world: &World, selector: Selector) -> Arc<Rule> {
    let revocation = Revocation {
        selector,
        after: After::Reissue,
        by: Actor::dayfly(),
        authority: Authority::Dayfly,
        reason: "a test".to_owned(),
        idempotency: None,
        owners: Vec::new(),
    };
    match world.store.commit_now(Change::Revoke(Box::new(revocation))).unwrap() {
        Outcome::Committed(Receipt { rule: Some(rule), .. }) => rule,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn tear_down(world: &World) -> JoinHandle<()> {
    let broker = Arc::clone(&world.broker);
    tokio::spawn(async move { broker.tear_down().await })
}

fn progress(world: &World, rule: &Rule) -> Option<StepProgress> {
    let steps = world.broker.teardown_of(rule);
    steps.into_iter().find(|progress| progress.step == Step::SpellingOut)
}

async fn until(world: &World, rule: &Rule, reached: impl Fn(&StepProgress) -> bool) -> StepProgress {
    for _ in 0..5000 {
        match progress(world, rule).filter(&reached) {
            Some(progress) => return progress,
            None => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
    panic!("it is at {:?}", progress(world, rule));
}

#[tokio::test]
async fn goes_on_after_a_restart_from_where_it_was() {
    let world = World::new();
    let rule = revoked(&world).await;
    let teardown = tear_down(&world);
    let half = until(&world, &rule, |progress| progress.done > 0).await;
    assert_eq!((half.done, half.complete), (100, false), "a tenth of a second's at once");
    teardown.abort();
    let recorded = world.store.teardowns().get(rule.id).unwrap().step(Step::SpellingOut);
    assert_eq!(recorded, half, "what is told is durable");

    let world = world.restarted();
    assert_eq!(progress(&world, &rule), Some(half), "before anything goes on");
    let gone_through = world.store.all().first().map(|lease| lease.id).unwrap();
    // Whoever began anew would miss this one.
    world.store.forget(gone_through);
    let teardown = tear_down(&world);
    let whole = until(&world, &rule, |progress| progress.complete).await;
    assert_eq!(whole.done, 251);
    let spelled = world.broker.spelled_out(&rule).unwrap();
    assert_eq!((spelled.leases, spelled.complete), (251, true), "those from before the restart too");
    teardown.abort();

    let world = world.restarted();
    world.store.hide(Some(StoreError::Busy));
    let teardown = tear_down(&world);
    while !world.broker.spelled_out(&rule).unwrap().complete {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.broker.spelled_out(&rule).unwrap().leases, 251, "nothing is looked for again");
    teardown.abort();
}

#[tokio::test]
async fn what_fails_is_tried_again_later_and_later() {
    let world = World::new();
    let rule = revoked(&world).await;
    world.store.hide(Some(StoreError::Damaged("a lease".to_owned())));
    let teardown = tear_down(&world);
    let mut last = tokio::time::Instant::now();
    for (tries, most) in [(1, 0), (2, 1), (3, 2)] {
        let failed = until(&world, &rule, |progress| progress.tries == tries).await;
        assert!(failed.last_error.contains("damaged"), "{failed:?}");
        assert!(failed.next_try.is_some() && failed.done == 0 && !failed.complete);
        let recorded = world.store.teardowns().get(rule.id).unwrap().step(Step::SpellingOut);
        assert_eq!(recorded, failed);
        let waited = last.elapsed();
        let most = Duration::from_secs(most);
        let slack = Duration::from_millis(200);
        assert!(waited >= (most / 2).saturating_sub(slack), "{waited:?} before try {tries}");
        assert!(waited <= most + 2 * slack, "{waited:?} before try {tries}");
        last = tokio::time::Instant::now();
    }
    // Another rule's is not kept waiting.
    world.store.hide(None);
    let lease = world.issued().await.lease;
    let credential_id = lease.workload.credential_id.clone();
    let other = Fields { credential_id, lease: Some(lease.id), ..Fields::default() };
    let other = write(&world, Selector::fields(other).unwrap());
    assert_eq!(until(&world, &other, |progress| progress.complete).await.done, 1);
    assert!(!progress(&world, &rule).unwrap().complete);
    let whole = until(&world, &rule, |progress| progress.complete).await;
    assert_eq!((whole.done, whole.tries, whole.last_error.as_str()), (251, 0, ""));
    teardown.abort();
}

#[tokio::test]
async fn what_cannot_be_recorded_is_done_all_the_same() {
    let world = World::new();
    let rule = revoked(&world).await;
    world.store.fail(Some(StoreError::Full));
    let teardown = tear_down(&world);
    let failed = until(&world, &rule, |progress| progress.tries == 1).await;
    assert!(!failed.complete && failed.last_error.contains("cannot be recorded"), "{failed:?}");
    assert_eq!(world.broker.spelled_out(&rule).unwrap().leases, 251, "verifiers are told");
    world.store.fail(None);
    assert_eq!(until(&world, &rule, |progress| progress.complete).await.done, 251);
    let spelled = world.broker.spelled_out(&rule).unwrap();
    assert_eq!((spelled.leases, spelled.complete), (251, true), "each once");
    assert_eq!(world.store.spelled(rule.position, None).await.unwrap().len(), 2, "and kept");
    teardown.abort();
}

#[tokio::test]
async fn a_small_one_does_not_wait_for_a_large_one() {
    let world = World::new();
    let rule = revoked(&world).await;
    let lease = world.issued().await.lease;
    let credential_id = lease.workload.credential_id.clone();
    let small = Fields { credential_id, lease: Some(lease.id), ..Fields::default() };
    let small = write(&world, Selector::fields(small).unwrap());
    let teardown = tear_down(&world);
    until(&world, &small, |progress| progress.complete).await;
    assert!(!progress(&world, &rule).unwrap().complete);
    until(&world, &rule, |progress| progress.complete).await;
    world.broker.rebuild_status_lists().await;
    let by_claims = write(&world, Selector::owner("payments".parse().unwrap()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.broker.teardown_of(&by_claims), [], "nothing is to be done about it");
    assert!(world.store.teardowns().get(by_claims.id).is_none());
    teardown.abort();
}

/// A world whose target `orders` has status lists.
fn with_lists() -> World {
    let world = World::new();
    world.policy(&listed());
    world
}

fn listed() -> String {
    let listed = POLICY.replace("jwt: {audiences", "jwt: {statusList: true, audiences");
    assert_ne!(listed, POLICY);
    listed
}

/// Whether the lease's bit is set; none while its list is not served.
fn bit(world: &World, lease: &Lease) -> Option<bool> {
    let status = lease.status.unwrap();
    match world.broker.status_list(&lease.target_ref(), status.list) {
        Some(StatusList::Bits { bits, .. }) => {
            let byte = bits[usize::try_from(status.index / 8).unwrap()];
            Some(byte & (1 << (status.index % 8)) != 0)
        }
        Some(StatusList::NotYet) => None,
        None => panic!("there is no such list"),
    }
}

async fn until_bit(world: &World, lease: &Lease, expected: bool) {
    for _ in 0..5000 {
        if bit(world, lease) == Some(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the bit is {:?}", bit(world, lease));
}

fn rebuild(world: &World) -> JoinHandle<()> {
    let broker = Arc::clone(&world.broker);
    tokio::spawn(async move { broker.rebuild_status_lists().await })
}

#[tokio::test]
async fn bits_are_read_back_before_a_list_is_served_again() {
    let world = with_lists();
    let [live, revoked, released] =
        [world.issued().await.lease, world.issued().await.lease, world.issued().await.lease];
    world.broker.release(bearer(&api()), released.id).await.unwrap();
    assert_eq!(bit(&world, &released), Some(true), "at once");
    let rule = write(&world, Selector::lease(revoked.id));
    assert_eq!(bit(&world, &revoked), Some(false), "before the teardown");
    let teardown = tear_down(&world);
    until_bit(&world, &revoked, true).await;
    assert_eq!(bit(&world, &live), Some(false));
    teardown.abort();
    assert_eq!(world.store.teardowns().get(rule.id).unwrap().step(Step::StatusList).done, 1);
    let late = write(&world, Selector::owner("payments".parse().unwrap()));

    let world = world.restarted();
    world.policy(&listed());
    world.store.hide(Some(StoreError::Busy));
    let (rebuild, teardown) = (rebuild(&world), tear_down(&world));
    let fresh = world.issued().await.lease;
    assert_ne!(fresh.status.unwrap().list, live.status.unwrap().list);
    assert_eq!(bit(&world, &fresh), Some(false), "issuing waits for nothing");
    for lease in [&live, &revoked, &released] {
        assert_eq!(bit(&world, lease), None);
    }
    world.store.hide(None);
    for lease in [&live, &revoked, &released] {
        until_bit(&world, lease, true).await;
    }
    assert_eq!(bit(&world, &fresh), Some(false), "it came after the rule");
    rebuild.await.unwrap();
    for _ in 0..5000 {
        let recorded = world.store.teardowns().get(late.id).map(|late| late.step(Step::StatusList));
        if recorded.is_some_and(|step| step.complete && step.done == 3) {
            teardown.abort();
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the rule from before the restart is not torn down");
}
