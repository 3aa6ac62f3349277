use std::time::Duration;

use dayfly_broker::{Error, LeaseView, Reason};
use dayfly_core::ids::LeaseId;
use dayfly_core::lease::LeaseState;
use dayfly_core::ports::Clock as _;
use dayfly_core::rule::After;
use dayfly_core::secret::Secret;

use crate::issue::revoke_payments;
use crate::support::{World, api, bearer, other_pod, refused, web};

async fn release(world: &World, token: &Secret, lease: LeaseId) -> Result<LeaseView, Error> {
    world.broker.release(bearer(token), lease).await
}

#[tokio::test]
async fn a_workload_gives_its_own_back_once() {
    let world = World::new();
    let lease = world.issued().await.lease;
    let at = world.clock.now();
    let released = release(&world, &api(), lease.id).await.unwrap();
    assert_eq!(released.state, LeaseState::Released { at });
    world.clock.advance(Duration::from_secs(9));
    let again = release(&world, &api(), lease.id).await.unwrap();
    assert_eq!(again.state, LeaseState::Released { at }, "as it was");

    let renewed = world.renewed(world.issued().await.lease.id).await;
    let (earlier, new) = (renewed.earlier.unwrap().lease.id, renewed.issued.lease.id);
    let released = release(&world, &api(), earlier).await.unwrap();
    assert_eq!(released.state.name(), "released", "before the overlap ends");
    assert_eq!(released.lease.phase.renewed_by(), Some(new));
}

#[tokio::test]
async fn what_has_ended_stays_as_it_ended() {
    let world = World::new();
    let (revoked, expired) = (world.issued().await.lease, world.issued().await.lease);
    revoke_payments(&world.store, After::Reissue);
    assert_eq!(release(&world, &api(), revoked.id).await.unwrap().state.name(), "revoked");
    let world = World::new();
    let lease = world.issued().await.lease;
    world.clock.advance(Duration::from_secs(300));
    assert_eq!(release(&world, &api(), lease.id).await.unwrap().state.name(), "expired");
    assert_ne!(expired.id, lease.id);
}

#[tokio::test]
async fn nobody_elses_lease_is_given_back() {
    let world = World::new();
    let lease = world.issued().await.lease;
    for token in [other_pod(), web()] {
        assert_eq!(refused(release(&world, &token, lease.id).await).reason(), Reason::NotFound);
    }
    let error = refused(release(&world, &api(), LeaseId::from_u128(5)).await);
    assert_eq!(error.reason(), Reason::NotFound);
    assert_eq!(release(&world, &api(), lease.id).await.unwrap().state.name(), "released", "by its own pod");

    // Who tries others' leases is in the audit log.
    world.broker.flush_denials().await.unwrap();
    let notes = world.store.notes();
    let tried: u64 =
        notes.iter().filter(|note| note.detail.reason == "NOT_FOUND").map(|note| note.detail.count).sum();
    assert_eq!(tried, 3);
}
