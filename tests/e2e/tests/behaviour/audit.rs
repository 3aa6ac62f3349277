//! The audit log as outsiders read it: checkpoints, tiles and proofs over HTTPS, checked by what others wrote.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use dayfly_e2e::broker::{Broker, Options};
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{Team, World, owned_by};

on_both!(another_implementation_reads_the_log_and_its_proofs);

/// A world whose log has more than a tile of events, and the team that made them.
async fn busy_world(kind: Kind, options: Options) -> (World, Team) {
    let world = World::with_own_broker(kind, options).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let mut lease = pod.issue(&team.target).await.unwrap().lease.unwrap().id;
    for _ in 0..280 {
        let renewed = pod.renew(&lease).await.unwrap();
        lease = renewed.lease.unwrap().id;
    }
    (world, team)
}

/// The first of the published verifier keys.
async fn key(world: &World) -> String {
    let keys = world.fetch("/log/keys").await.unwrap().unwrap();
    keys.lines().next().unwrap().to_owned()
}

async fn checkpoint(world: &World) -> String {
    world.fetch("/log/checkpoint").await.unwrap().unwrap()
}

fn size(checkpoint: &str) -> u64 {
    checkpoint.lines().nth(1).unwrap().parse().unwrap()
}

/// A file of the broker's folder with this content.
fn file(broker: &Broker, name: &str, content: &str) -> PathBuf {
    let path = broker.dir().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// What `tests/audit` says, as Go's note and tlog have it; an error where they do not agree with us.
async fn outsider(world: &World, key: &str, earlier: &[&Path]) -> Result<String, String> {
    const BUILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../audit/build");
    let built = tokio::process::Command::new(BUILD).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(built.status.success());
    let program = String::from_utf8(built.stdout).unwrap();
    let run = tokio::process::Command::new(program.lines().last().unwrap())
        .arg(format!("https://127.0.0.1:{}/log", world.broker().port()))
        .arg(world.broker().dir().join("ca.crt"))
        .arg(key)
        .args(earlier)
        .output()
        .await
        .unwrap();
    let said = |text: Vec<u8>| String::from_utf8(text).unwrap();
    if run.status.success() { Ok(said(run.stdout)) } else { Err(said(run.stderr)) }
}

async fn another_implementation_reads_the_log_and_its_proofs(kind: Kind) {
    let (world, team) = busy_world(kind, Options::default()).await;
    let first = checkpoint(&world).await;
    let earlier = file(world.broker(), "earlier", &first);
    // A revocation is covered when it is answered; nothing else has made a checkpoint since the start.
    let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    let rule = operator.revoke(owned_by(&team.owner)).await.unwrap();
    let now = checkpoint(&world).await;
    assert!(size(&now) >= rule.position && size(&first) < 280 && rule.position > 280, "{first}{now}");
    assert!(now.starts_with("dayfly.example.org/log\n"), "{now}");

    let key = key(&world).await;
    let said = outsider(&world, &key, &[&earlier]).await.unwrap();
    assert!(said.starts_with(&format!("{} events", size(&now))), "{said}");

    // Of a checkpoint that says something else, it says so.
    let changed = file(world.broker(), "changed", &first.replacen(&size(&first).to_string(), "7", 1));
    let said = outsider(&world, &key, &[&changed]).await.unwrap_err();
    assert!(said.contains("invalid signature"), "{said}");
    let other = key.replace("dayfly.example.org", "other.example.org");
    assert!(outsider(&world, &other, &[]).await.is_err());

    // A restart goes on with the same log and key.
    world.broker().kill9().await.unwrap();
    world.broker().launch().await.unwrap();
    let again = file(world.broker(), "again", &now);
    until(async || Ok(size(&checkpoint(&world).await) > size(&now))).await.unwrap();
    outsider(&world, &key, &[&earlier, &again]).await.unwrap();
}
