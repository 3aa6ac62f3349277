//! What the table in `operator.proto` says is what the use cases ask for, and nothing else is enough.

use std::sync::Arc;

use dayfly_broker::{About, Error, LiftRequest, ListLeases, ListRevocations, RevokeRequest, Revoked, Which};
use dayfly_core::ids::{LeaseId, RuleId};
use dayfly_core::rule::{After, Fields};

use crate::support::{World, bearer, operator};

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
    assert_eq!(table.len(), 9);
    for (rpc, verb, resource) in table {
        assert_eq!(resource, "owners", "{rpc}: the cluster of these tests refuses every other");
        for right in ["get", "list", "revoke", "lift"] {
            let user = format!("{rpc}-{right}");
            // What nobody owns is for those who may list all.
            let owner = (rpc != "ListUnowned").then_some("payments");
            world.east().allow(&user, right, owner);
            let allowed = call(&world, &rpc, &user, lease.id, rule.id).await.is_ok();
            assert_eq!(allowed, right == verb, "{rpc} with {right}");
        }
        let elsewhere = format!("{rpc}-elsewhere");
        for right in ["get", "list", "revoke", "lift"] {
            world.east().allow(&elsewhere, right, Some("checkout"));
        }
        let refused = call(&world, &rpc, &elsewhere, lease.id, rule.id).await;
        assert!(refused.is_err() || rpc == "ListOwners", "{rpc} with rights on another owner");
    }
}
