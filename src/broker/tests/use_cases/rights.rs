//! What the table in `operator.proto` says is what the use cases ask for, and nothing else is enough.

use std::sync::Arc;

use dayfly_broker::{
    About, Error, EventFilter, LiftRequest, ListEvents, ListLeases, ListRevocations, Reason, RevokeRequest,
    Revoked, Which,
};
use dayfly_core::ids::{LeaseId, RuleId};
use dayfly_core::rule::{After, Fields};

use crate::support::{World, bearer, operator, secret};

/// RPC, verb and resource of each row.
fn table() -> Vec<(String, String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/dayfly/v1/operator.proto");
    let proto = std::fs::read_to_string(path).unwrap();
    let rows = proto.lines().filter_map(|line| line.strip_prefix("// | "));
    let cells = rows.map(|row| row.split(" | ").map(str::to_owned).collect::<Vec<_>>());
    let rows = cells.filter(|cells| cells[0] != "RPC" && cells.len() >= 4);
    rows.map(|cells| (cells[0].clone(), cells[1].clone(), cells[2].clone())).collect()
}

fn payments() -> Which {
    Which::fields(Fields { owner: "payments".parse().ok(), ..Fields::default() })
}

fn revoke() -> RevokeRequest {
    RevokeRequest {
        which: payments(),
        after: After::Hold,
        reason: "a test".to_owned(),
        dry_run: false,
        idempotency_key: None,
    }
}

const RESOURCES: [&str; 3] = ["owners", "keys", "events"];
const RIGHTS: [&str; 5] = ["get", "list", "revoke", "lift", "rotate"];

async fn call(world: &World, rpc: &str, user: &str, lease: LeaseId, rule: RuleId) -> Result<(), Error> {
    let token = operator(user);
    let (broker, caller) = (&world.broker, bearer(&token));
    match rpc {
        "ListLeases" => {
            let request = ListLeases { which: Some(payments()), ..ListLeases::default() };
            broker.list_leases(caller, &request).await.map(drop)
        }
        "GetLease" => broker.get_lease(caller, lease).await.map(drop),
        "Revoke" => broker.revoke(caller, &revoke()).await.map(drop),
        "GetRevocation" => broker.get_revocation(caller, rule).await.map(drop),
        "ListRevocations" => {
            let request = ListRevocations { owner: "payments".parse().ok(), ..ListRevocations::default() };
            broker.list_revocations(caller, &request).await.map(drop)
        }
        "LiftRevocation" => {
            let request = LiftRequest { rule, reason: "a test".to_owned() };
            broker.lift(caller, &request).await.map(drop)
        }
        "ListOwners" => broker.list_owners(caller, None, None).await.map(drop),
        "ListUnowned" => broker.list_unowned(caller, None, None).await.map(drop),
        "Explain" => broker.explain(caller, &About::Lease(lease)).await.map(drop),
        "ListKeys" => broker.list_keys(caller, false).await.map(drop),
        "RotateKey" => broker.rotate_key(caller, &"access-token".parse().unwrap(), true).await.map(drop),
        "RevokeKey" => broker.revoke_key(caller, &"key-1".parse().unwrap(), "a test").await.map(drop),
        "ListEvents" => {
            let filter = EventFilter { owner: "payments".parse().ok(), ..EventFilter::default() };
            broker.list_events(caller, &ListEvents { filter, ..ListEvents::default() }).await.map(drop)
        }
        "WatchEvents" => {
            let filter = EventFilter { owner: "payments".parse().ok(), ..EventFilter::default() };
            broker.watch_events(caller, filter, None).await.map(drop)
        }
        "ExportEvents" => broker.export_events(caller, None).await.map(drop),
        other => panic!("no call of {other} here"),
    }
}

#[tokio::test]
async fn each_rpc_takes_the_right_that_its_row_names() {
    let world = World::new();
    world.issued().await;
    world.east().allow("team", "revoke", Some("payments"));
    let Ok(Revoked::Written { rule, .. }) = world.broker.revoke(bearer(&operator("team")), &revoke()).await
    else {
        panic!("a team may revoke its own")
    };
    let [lease] = world.store.all().try_into().map(|all: [Arc<_>; 1]| all).unwrap();
    let table = table();
    assert_eq!(table.len(), 15);
    for (rpc, verb, resource) in table {
        for (on, right) in RESOURCES.into_iter().flat_map(|on| RIGHTS.map(|right| (on, right))) {
            let user = format!("{rpc}-{right}-{on}");
            let name = match (&*rpc, on) {
                // What nobody owns is for those who may list all, and all keys are listed.
                ("ListUnowned" | "ListKeys" | "ExportEvents", _) => None,
                ("RotateKey", "keys") => Some("access-token"),
                ("RevokeKey", "keys") => Some("key-1"),
                _ => Some("payments"),
            };
            world.east().allow_on(on, &user, right, name);
            let allowed = call(&world, &rpc, &user, lease.id, rule.id).await.is_ok();
            // Whose owners are none of theirs get an empty list.
            let empty = rpc == "ListOwners";
            assert_eq!(allowed || empty, (right == verb && on == resource) || empty, "{rpc}: {right} {on}");
        }
        let elsewhere = format!("{rpc}-elsewhere");
        for (on, right) in RESOURCES.into_iter().flat_map(|on| RIGHTS.map(|right| (on, right))) {
            world.east().allow_on(on, &elsewhere, right, Some("checkout"));
        }
        let refused = call(&world, &rpc, &elsewhere, lease.id, rule.id).await;
        assert!(refused.is_err() || rpc == "ListOwners", "{rpc} with rights on another owner");
    }
}

#[tokio::test]
async fn keys_are_for_operators_of_the_home_cluster() {
    let world = World::of(&["east", "west"], Some("east")).unwrap();
    for (cluster, right) in world.clusters.iter().flat_map(|it| RIGHTS.map(|right| (it, right))) {
        cluster.allow_on("keys", "root", right, None);
    }
    let purpose = "access-token".parse().unwrap();
    let here = operator("root");
    let keys = world.broker.list_keys(bearer(&here), false).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), ["key-1"]);
    assert_eq!(world.broker.list_keys(bearer(&here), true).await.unwrap().len(), 2);
    world.broker.rotate_key(bearer(&here), &purpose, false).await.unwrap();
    let key = "key-1".parse().unwrap();
    world.broker.revoke_key(bearer(&here), &key, "it leaked").await.unwrap();
    let asked = ["rotate access-token false root@east", "revoke key-1 root@east it leaked"];
    assert_eq!(*world.keeper.asked.lock().unwrap(), asked);

    let elsewhere = secret("west/dayfly-operator/root");
    let refused = [
        world.broker.list_keys(bearer(&elsewhere), false).await.map(drop),
        world.broker.rotate_key(bearer(&elsewhere), &purpose, true).await.map(drop),
        world.broker.revoke_key(bearer(&elsewhere), &key, "it leaked").await.map(drop),
    ];
    for refused in refused {
        let refused = refused.unwrap_err();
        assert_eq!(refused.reason(), Reason::NotAllowed);
        assert!(refused.to_string().contains("the home cluster"), "{refused}");
    }
    // A reason is always said, and what is not there is told to those who may.
    let unsaid = world.broker.revoke_key(bearer(&here), &key, " ").await.unwrap_err();
    assert_eq!(unsaid.reason(), Reason::InvalidField);
    let unknown = world.broker.revoke_key(bearer(&here), &"key-9".parse().unwrap(), "why").await;
    assert_eq!(unknown.unwrap_err().reason(), Reason::NotFound);
    assert_eq!(world.keeper.asked.lock().unwrap().len(), 3);
}
