use std::time::Duration;

use dayfly_broker::{Error, Reason};
use dayfly_core::rule::After;

use crate::issue::revoke_payments;
use crate::support::{POLICY, World, api, bearer, orders, other_pod, web};

/// Why the next one is refused, and when to ask again.
async fn at_cap(world: &World) -> (String, Duration) {
    match world.refusal(&orders()).await {
        Error::LiveLeases { message, retry_after } => (message, retry_after),
        other => panic!("{other:?}"),
    }
}

fn with(policy: &str, live: &str) -> String {
    policy.replacen("  maxTtl: 1h\n", &format!("  maxTtl: 1h\n  liveLeases: {live}\n"), 1)
}

#[tokio::test]
async fn a_crash_looping_pod_does_not_eat_its_neighbours_share() {
    let world = World::new();
    world.policy(&with(POLICY, "{perPod: 8}"));
    for _ in 0..8 {
        world.issued().await;
    }
    world.clock.advance(Duration::from_secs(60));
    let error = world.refusal(&orders()).await;
    assert_eq!(error.reason(), Reason::LiveLeases);
    let (message, retry_after) = at_cap(&world).await;
    assert!(message.contains("pod payments/api-0 has") && message.contains("at once: 8"), "{message}");
    assert_eq!(retry_after.as_secs(), 239, "the first of them ends then");
    for neighbour in [other_pod(), web()] {
        assert!(world.issue(&neighbour, &orders()).await.is_ok());
    }
    world.clock.advance(retry_after + Duration::from_secs(1));
    world.issued().await;
}

#[tokio::test]
async fn what_is_released_revoked_or_renewed_leaves_room() {
    let world = World::new();
    world.policy(&with(POLICY, "{perPod: 1}"));
    let lease = world.issued().await.lease;
    let renewed = world.renewed(lease.id).await.issued.lease;
    assert!(at_cap(&world).await.0.contains("at once: 1"), "the number is told");
    world.broker.release(bearer(&api()), renewed.id).await.unwrap();
    let lease = world.issued().await.lease;
    at_cap(&world).await;
    revoke_payments(&world.store, After::Reissue);
    assert!(world.issued().await.lease.id > lease.id);
}

#[tokio::test]
async fn it_is_told_whose_leases_are_too_many() {
    let cases = [
        ("{perWorkload: 1}", "service account payments/api has"),
        ("{perGrant: 1}", "by Grant payments/orders there are"),
        ("{total: 1}", "there are as many live leases for Target orders"),
    ];
    for (live, whose) in cases {
        let world = World::new();
        world.policy(&with(POLICY, live));
        world.issued().await;
        let message = at_cap(&world).await.0;
        assert!(message.starts_with(whose), "{message}");
        let of_another = world.issue(&web(), &orders()).await;
        assert_eq!(of_another.is_ok(), !live.contains("total"), "{live}");
    }
}
