use dayfly_broker::{By, LiftRequest, Reason, Revoked};
use dayfly_core::ports::LeaseStore as _;

use crate::revoke::hold_owner;
use crate::support::{World, bearer, operator, refused};

/// What an operator did is covered before it is answered, and answered where no checkpoint can be made.
#[tokio::test]
async fn what_operators_do_is_covered_before_it_is_answered() {
    let world = World::new();
    for verb in ["revoke", "lift"] {
        world.east().allow("root", verb, None);
    }
    world.east().allow_on("keys", "root", "rotate", None);
    let covered = || world.checkpoints.covered() == world.store.mark().position;
    world.issued().await;
    assert!(!covered(), "issuing waits for none");
    world
        .broker
        .rotate_key(bearer(&operator("root")), &"access-token".parse().unwrap(), false)
        .await
        .unwrap();
    assert!(covered());
    world.issued().await;
    assert!(!covered());
    let held = hold_owner(&world, &operator("root"), "payments").await;
    let Ok(Revoked::Written { rule, .. }) = held else { panic!("{held:?}") };
    assert!(covered());
    let lift = LiftRequest { rule: rule.id, reason: "it is over".to_owned() };
    world.broker.lift(bearer(&operator("root")), &lift).await.unwrap();
    assert!(covered());
    for (on, right) in [("keys", "revoke"), ("stores", "adopt")] {
        world.east().allow_on(on, "root", right, None);
    }
    world.issued().await;
    assert!(!covered());
    let key = "key-1".parse().unwrap();
    world.broker.revoke_key(bearer(&operator("root")), &key, "it leaked").await.unwrap();
    assert!(covered());
    world.store.restored();
    assert!(!world.broker.adopt_store(bearer(&operator("root"))).await.unwrap().already);
    assert!(covered());

    let held = hold_owner(&world, &operator("root"), "payments").await;
    let Ok(Revoked::Written { rule, .. }) = held else { panic!("{held:?}") };
    *world.checkpoints.failing.lock().unwrap() = true;
    let lift = LiftRequest { rule: rule.id, reason: "it is over".to_owned() };
    world.broker.lift(bearer(&operator("root")), &lift).await.unwrap();
    assert!(!covered());
    let none = world.broker.make_checkpoint(By::Socket { uid: 0 }).await;
    assert_eq!(refused(none).reason(), Reason::CheckpointUnavailable);

    *world.checkpoints.failing.lock().unwrap() = false;
    assert_eq!(
        refused(world.broker.make_checkpoint(bearer(&operator("root"))).await).to_string(),
        "needs verb create on all checkpoints.dayfly.dev (no resourceNames) in cluster east"
    );
    world.east().allow_on("checkpoints", "root", "create", None);
    world.broker.make_checkpoint(bearer(&operator("root"))).await.unwrap();
    assert!(covered());
}
