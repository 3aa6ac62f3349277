//! The roles in `deploy/`, applied to a real API server: each allows exactly what it says, RPC by RPC.

use std::collections::BTreeSet;

use dayfly_api::v1;
use dayfly_api::v1::operator_service_client::OperatorServiceClient;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::run;
use dayfly_e2e::world::{Operator, Team, World, bearing, owned_by, reason, revocation};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, PostParams};
use serde_json::json;
use tonic::Status;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const READS: [(&str, &str); 2] = [("get", "owners"), ("list", "owners")];

/// RPC, verb and resource of each row of the table in `operator.proto`.
fn table() -> Vec<(String, String, String)> {
    let proto = std::fs::read_to_string(format!("{ROOT}/proto/dayfly/v1/operator.proto")).unwrap();
    let rows = proto.lines().filter_map(|line| line.strip_prefix("// | "));
    let cells = rows.map(|row| row.split(" | ").map(str::to_owned).collect::<Vec<_>>());
    let rows = cells.filter(|cells| cells[0] != "RPC");
    rows.map(|cells| (cells[0].clone(), cells[1].clone(), cells[2].clone())).collect()
}

/// What is there to be read, ended and lifted.
struct Things {
    team: Team,
    lease: String,
    hold: String,
}

async fn things(world: &World, name: &str) -> Things {
    let team = world.team(name).await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let lease = pod.issue(&team.target).await.unwrap().lease.unwrap().id;
    // By the right on this owner alone, so that the same right lifts it.
    let writer = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    let hold = writer.hold(owned_by(&team.owner)).await.unwrap().id;
    Things { team, lease, hold }
}

/// Whether this operator is let do what the RPC does, to these things.
async fn may(world: &World, rpc: &str, operator: &Operator, things: &Things) -> bool {
    let Things { team, lease, hold } = things;
    let mut client = OperatorServiceClient::new(world.broker().channel());
    let nothing_such = |status: &Status| reason(status) == "NOT_FOUND";
    let of_team = || v1::EventFilter { owner: team.owner.clone(), ..Default::default() };
    let refused = match rpc {
        "ListLeases" => {
            let leases = operator.all_leases(dayfly_e2e::world::leases_of(&team.owner)).await;
            leases.map(|leases| assert!(leases.iter().any(|it| it.id == *lease))).err()
        }
        "GetLease" => operator.lease(lease).await.err(),
        "Revoke" => operator.ask(revocation(owned_by(&team.owner), v1::After::Reissue)).await.err(),
        "GetRevocation" => operator.revocation(hold).await.err(),
        "ListRevocations" => {
            let request = v1::ListRevocationsRequest { owner: team.owner.clone(), ..Default::default() };
            operator.revocations(request).await.map(|page| assert!(!page.rules.is_empty())).err()
        }
        "LiftRevocation" => operator.lift(hold).await.err(),
        // It is filtered: whose none are theirs may be told so, or get an empty list.
        "ListOwners" => match operator.all_owners().await {
            Ok(owners) => return owners.iter().any(|owner| owner.name == team.owner),
            Err(status) => Some(status),
        },
        "ListUnowned" => operator.all_unowned().await.err(),
        "Explain" => {
            let about = v1::explain_request::About::Lease(lease.clone());
            operator.explain(v1::ExplainRequest { about: Some(about), ..Default::default() }).await.err()
        }
        "ListKeys" => operator.signing_keys().await.err(),
        // Of things that are not there: who may is told that, and nothing is changed.
        "RotateKey" => {
            let request = v1::RotateKeyRequest { purpose: "svid/no.such.example".to_owned(), now: false };
            let answer = client.rotate_key(bearing(operator.token(), request)).await;
            answer.err().filter(|status| !nothing_such(status))
        }
        "RevokeKey" => {
            let request =
                v1::RevokeKeyRequest { key_id: "no-such-key".to_owned(), reason: "a test".to_owned() };
            let answer = client.revoke_key(bearing(operator.token(), request)).await;
            answer.err().filter(|status| !nothing_such(status))
        }
        "CreateBackup" => operator.backup().await.err(),
        // A store that was never restored has nothing to adopt: that is told, and nothing changed.
        "AdoptStore" => operator.adopt_store().await.map(|answer| assert!(answer.already)).err(),
        "MakeCheckpoint" => {
            client.make_checkpoint(bearing(operator.token(), v1::MakeCheckpointRequest {})).await.err()
        }
        // It is filtered, as owners are.
        "ListEvents" => match operator.events(of_team()).await {
            Ok(events) => return events.iter().any(|event| event.subject == *lease),
            Err(status) => Some(status),
        },
        "WatchEvents" => {
            let request = v1::WatchEventsRequest { filter: Some(of_team()), ..Default::default() };
            operator.watch_events(request).await.err()
        }
        "ExportEvents" => match operator.export_events(1).await {
            Ok(mut records) => records.message().await.err(),
            Err(status) => Some(status),
        },
        other => panic!("{other} has a row in operator.proto and no call here: say how it is called"),
    };
    if let Some(status) = &refused {
        assert!(["NOT_ALLOWED", "NOT_FOUND"].contains(&reason(status).as_str()), "{rpc}: {status}");
    }
    refused.is_none()
}

async fn apply(world: &World, manifests: &str) {
    world.cluster().control_plane().await.unwrap().apply_yaml(manifests).await.unwrap();
}

/// A service account that is bound to this ClusterRole and to nothing else.
async fn bound_to(world: &World, role: &str) -> Operator {
    let namespace = world.namespace(&format!("of-{role}")).await.unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": { "name": format!("{namespace}-{role}") },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "kind": "ServiceAccount", "namespace": namespace, "name": "api" }],
    }))
    .unwrap();
    Api::all(world.cluster().client()).create(&PostParams::default(), &binding).await.unwrap();
    let token = world.unbound_token(&namespace, "api", dayfly_e2e::world::OPERATOR).await.unwrap();
    let operator = world.operator_with(token);
    // The API server's authorizer has heard of the binding.
    dayfly_e2e::run::until(async || {
        Ok(operator.all_owners().await.is_ok()
            || operator.signing_keys().await.is_ok()
            || operator.adopt_store().await.is_ok())
    })
    .await
    .unwrap();
    operator
}

#[test]
fn each_role_allows_exactly_what_it_says() {
    run(async {
        let world = World::shared(Kind::Real).await.unwrap();
        let manifest = |name: &str| std::fs::read_to_string(format!("{ROOT}/deploy/{name}.yaml")).unwrap();
        for name in ["roles", "keys"] {
            apply(&world, &manifest(name)).await;
        }
        let changes = [("revoke", "owners"), ("lift", "owners")];
        let audits = [("list", "events"), ("list", "keys"), ("create", "checkpoints")];
        let keys = [("list", "keys"), ("rotate", "keys"), ("revoke", "keys")];
        let roles = [
            ("dayfly-viewer", READS.to_vec()),
            ("dayfly-operator", [READS, changes].concat()),
            ("dayfly-auditor", [&READS[..], &audits].concat()),
            ("dayfly-keeper", vec![("create", "backups"), ("adopt", "stores")]),
            ("dayfly-keys", keys.to_vec()),
            ("dayfly-keys-viewer", keys[..1].to_vec()),
        ];
        for (role, rights) in roles {
            let things = things(&world, role).await;
            let operator = bound_to(&world, role).await;
            for (rpc, verb, resource) in table() {
                let expected = rights.contains(&(&*verb, &*resource));
                assert_eq!(may(&world, &rpc, &operator, &things).await, expected, "{role}: {rpc}");
            }
        }
    });
}

#[test]
fn a_team_may_do_all_to_its_own_and_nothing_to_others() {
    run(async {
        let world = World::with_own_broker(Kind::Real, Options::default()).await.unwrap();
        let (own, others) = (things(&world, "payments").await, things(&world, "checkout").await);
        let manifest = std::fs::read_to_string(format!("{ROOT}/deploy/one-team.yaml")).unwrap();
        let (role, binding) = manifest.split_once("\n---\n").unwrap();
        assert!(binding.contains("kind: Group") && binding.contains("name: dayfly-team-payments"));
        apply(&world, &role.replace("payments", &own.team.owner)).await;
        let operator = bound_to(&world, &format!("dayfly-team-{}", own.team.owner)).await;
        // What is nobody's, keys, and the log as a whole are not in it.
        let not: BTreeSet<_> = ["ListUnowned", "ExportEvents"].into();
        for (rpc, _, resource) in table() {
            let expected = ["owners", "events"].contains(&&*resource) && !not.contains(&*rpc);
            assert_eq!(may(&world, &rpc, &operator, &own).await, expected, "{rpc} on its own");
            assert!(!may(&world, &rpc, &operator, &others).await, "{rpc} on another's");
        }
    });
}
