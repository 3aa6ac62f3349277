//! How many leases may be live at once: each has a share of its own.

use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::world::{Pod, World, asking_for, owned_by, reason, retry_after};
use serde_json::json;
use tonic::{Code, Status};

on_both!(
    a_crash_looping_pod_does_not_eat_its_neighbours_share,
    live_leases_are_counted_across_a_restart_and_what_ended_leaves_room,
);

fn is_at_cap((issued, status): &(usize, Status), expected: usize, whose: &str) {
    assert_eq!(*issued, expected, "{status:?}");
    assert_eq!((status.code(), reason(status).as_str()), (Code::ResourceExhausted, "LIVE_LEASES"));
    assert!(status.message().contains(whose), "{status:?}");
    assert!(retry_after(status).is_some_and(|after| after.as_secs() > 0), "{status:?}");
}

/// How many it gets before it is refused.
async fn crash_loop(pod: &Pod<'_>, target: &str) -> (usize, Status) {
    for issued in 0..200 {
        if let Err(status) = pod.ask(asking_for(target)).await.unwrap() {
            return (issued, status);
        }
    }
    panic!("it is never refused");
}

async fn a_crash_looping_pod_does_not_eat_its_neighbours_share(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let looping = world.pod(&team.namespace, "api").await.unwrap();
    let neighbour = world.pod(&team.namespace, "api").await.unwrap();
    is_at_cap(&crash_loop(&looping, &team.target).await, 64, "pod ");
    neighbour.issue(&team.target).await.unwrap();
}

async fn live_leases_are_counted_across_a_restart_and_what_ended_leaves_room(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let mut target = team.target_object.clone();
    target["spec"]["liveLeases"] = json!({"perPod": 2, "total": 3});
    world.put(&[&target]).await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let first = pod.issue(&team.target).await.unwrap().lease.unwrap();
    pod.issue(&team.target).await.unwrap();
    is_at_cap(&crash_loop(&pod, &team.target).await, 0, "pod ");
    // A renewal has the place of the earlier lease.
    let renewed = pod.renew(&first.id).await.unwrap().lease.unwrap();

    world.broker().restart().await.unwrap();
    is_at_cap(&crash_loop(&pod, &team.target).await, 0, "pod ");
    let neighbour = world.pod(&team.namespace, "api").await.unwrap();
    is_at_cap(&crash_loop(&neighbour, &team.target).await, 1, "for Target");

    pod.release(&renewed.id).await.unwrap().unwrap();
    is_at_cap(&crash_loop(&pod, &team.target).await, 1, "pod ");
    let admin = world.admin().await.unwrap();
    admin.revoke(owned_by(&team.owner)).await.unwrap();
    is_at_cap(&crash_loop(&pod, &team.target).await, 2, "pod ");
    is_at_cap(&crash_loop(&neighbour, &team.target).await, 1, "for Target");
}
