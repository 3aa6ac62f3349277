//! Revoking when nothing else works: by the broker's own socket, without any API server, and in the store of a broker that
//! is stopped.

use std::os::unix::fs::PermissionsExt as _;

use dayfly_api::v1;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::{Cluster, Kind};
use dayfly_e2e::control_plane;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{World, asking_for, owned_by, reason};

use crate::commands::{fails, json, with_socket};

on_both!(
    the_socket_serves_what_ends_things_and_nothing_else,
    a_stopped_brokers_store_takes_a_revocation_and_a_running_ones_does_not,
);

fn hold(owner: &str) -> [&str; 7] {
    ["revoke", "--owner", owner, "--after", "hold", "--reason", "break the glass"]
}

#[test]
fn the_socket_works_while_the_api_server_is_gone_also_after_a_restart() {
    dayfly_e2e::run::run(async {
        let cluster = Cluster::start_real(control_plane::Options::default()).await.unwrap();
        let world = World::on(cluster, with_socket()).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let pod = world.pod(&team.namespace, "api").await.unwrap();
        let issued = pod.issue(&team.target).await.unwrap();
        let (operator, token) =
            (world.operator(&["revoke"], None).await.unwrap(), pod.token().await.unwrap());
        let broker = world.broker();
        world.cluster().kill_api_server().await.unwrap();
        assert_eq!(reason(&operator.revoke(owned_by(&team.owner)).await.unwrap_err()), "CLUSTER_UNAVAILABLE");

        let by_socket = |arguments: &[&'static str]| [&["--socket", "dayfly.sock"], arguments].concat();
        let first = json(broker, &[&hold(&team.owner)[..], &by_socket(&[])].concat()).await;
        assert_eq!((&first["rule"]["authority"], &first["can_reissue"]), (&"socket".into(), &false.into()));
        // A broker that starts now has never heard its cluster, and takes it all the same.
        broker.stop().await.unwrap();
        broker.launch_unready().await.unwrap();
        let listed = json(broker, &by_socket(&["revocations", "list", "--holds"])).await;
        assert_eq!(listed["rules"][0]["id"], first["rule"]["id"]);
        let all = by_socket(&["revoke", "--all", "--yes", "--after", "reissue", "--reason", "everything"]);
        let all = json(broker, &all).await;
        assert!(all["rule"]["by"].as_str().unwrap().starts_with("socket:uid="), "{all}");
        let id = first["rule"]["id"].as_str().unwrap();
        let got = json(broker, &[&["revocations", "get", id], &by_socket(&[])[..]].concat()).await;
        assert_eq!(got["reason"], "break the glass");

        world.cluster().restart_api_server().await.unwrap();
        until(async || Ok(broker.serves().await)).await.unwrap();
        let held = world.issue_with(&token, asking_for(&team.target)).await.unwrap_err();
        assert_eq!(reason(&held), "HELD");
        let lift = [&["revocations", "lift", id, "--reason", "over"], &by_socket(&[])[..]].concat();
        assert_eq!(json(broker, &lift).await["can_reissue"], true);
        pod.issue(&team.target).await.unwrap();
        let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
        assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Revoked);
    });
}

async fn the_socket_serves_what_ends_things_and_nothing_else(kind: Kind) {
    let world = World::with_own_broker(kind, with_socket()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let broker = world.broker();
    let socket = broker.dir().join("dayfly.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    for other in [&["leases", "list"][..], &["owners", "list"], &["whoami"]] {
        let said = fails(broker, &[other, &["--socket", "dayfly.sock"]].concat()).await;
        assert!(said.contains("METHOD_UNKNOWN"), "{other:?}: {said}");
    }
    let hold = [&hold(&team.owner)[..], &["--socket", "dayfly.sock"]].concat();
    let rule = json(broker, &hold).await["rule"].clone();
    // Such a hold takes the right over all to lift.
    let own = world.operator(&["get", "lift"], Some(&team.owner)).await.unwrap();
    assert_eq!(reason(&own.lift(rule["id"].as_str().unwrap()).await.unwrap_err()), "NOT_ALLOWED");
    let dry = [&hold[..], &["--dry-run"]].concat();
    assert_eq!(json(broker, &dry).await["would_cover"], 0);
    // After a crash the old file is in the way of nobody, and a stop takes it away.
    broker.kill9().await.unwrap();
    assert!(socket.exists());
    broker.launch().await.unwrap();
    json(broker, &hold).await;
    broker.stop().await.unwrap();
    assert!(!socket.exists());
}

async fn a_stopped_brokers_store_takes_a_revocation_and_a_running_ones_does_not(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let issued = pod.issue(&team.target).await.unwrap();
    let broker = world.broker();
    let revoke = [&hold(&team.owner)[..], &["--store", "dayfly.toml"]].concat();
    let said = fails(broker, &revoke).await;
    assert!(said.contains("for a broker that is stopped"), "{said}");
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);

    broker.stop().await.unwrap();
    let by_name = ["revoke", "--pod", "payments/api-0", "--after", "reissue", "--reason", "x"];
    let said = fails(broker, &[&by_name[..], &["--store", "dayfly.toml"]].concat()).await;
    assert!(said.contains("give the uid"), "{said}");
    let answer = json(broker, &revoke).await;
    assert_eq!((&answer["rule"]["authority"], &answer["can_reissue"]), (&"socket".into(), &false.into()));
    let verified = broker.command(&["store", "verify", "store"]).await.unwrap();
    assert!(verified.0.success(), "{}", verified.1);

    broker.launch().await.unwrap();
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Revoked);
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "HELD");
    let admin = world.operator(&["lift", "get"], None).await.unwrap();
    let rule = admin.revocation(answer["rule"]["id"].as_str().unwrap()).await.unwrap();
    assert_eq!(rule.authority(), v1::Authority::Socket);
    admin.lift(&rule.id).await.unwrap();
    pod.issue(&team.target).await.unwrap();
}
