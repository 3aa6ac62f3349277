//! What reads the log, and what the tests of it share.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_core::clock::{SystemClock, SystemRng};
use dayfly_core::ids::Position;
use dayfly_core::ports::LeaseStore as _;
use dayfly_e2e::broker::{Broker, Options};
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::world::{Team, World};
use dayfly_store::SledStore;
use serde_json::json;

/// A world whose log has more than a tile of events, and the team that made them.
pub(super) async fn busy_world(kind: Kind, options: Options) -> (World, Team) {
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
pub(super) async fn key(world: &World) -> String {
    let keys = world.fetch("/log/keys").await.unwrap().unwrap();
    keys.lines().next().unwrap().to_owned()
}

pub(super) async fn checkpoint(world: &World) -> String {
    world.fetch("/log/checkpoint").await.unwrap().unwrap()
}

pub(super) fn size(checkpoint: &str) -> u64 {
    checkpoint.lines().nth(1).unwrap().parse().unwrap()
}

/// A file of the broker's folder with this content.
pub(super) fn file(broker: &Broker, name: &str, content: &str) -> PathBuf {
    let path = broker.dir().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// What `tests/audit` says, as Go's note and tlog have it; an error where they do not agree with us.
pub(super) async fn outsider(world: &World, key: &str, earlier: &[&Path]) -> Result<String, String> {
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

/// What `tests/audit/verify.py` says; an error where something is wrong.
pub(super) async fn python(arguments: &[&str]) -> Result<String, String> {
    const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../audit/verify.py");
    let run = tokio::process::Command::new("python3").arg(PROGRAM).args(arguments).output().await.unwrap();
    let said = |text: Vec<u8>| String::from_utf8(text).unwrap();
    if run.status.success() { Ok(said(run.stdout)) } else { Err(said(run.stderr)) }
}

/// `dayfly audit` against the broker: its exit code, and what it said.
pub(super) async fn audit(world: &World, arguments: &[&str]) -> (i32, String) {
    let server = format!("https://127.0.0.1:{}", world.broker().port());
    let connection = ["--server", &server, "--ca-file", "ca.crt"];
    let (status, said) =
        world.broker().command(&[&["audit"], arguments, &connection].concat()).await.unwrap();
    (status.code().unwrap(), said)
}

/// All events of the stopped broker's store, a line each, as `dayfly events export` writes them; and a checkpoint.
pub(super) async fn export(world: &World, checkpoint: &str) -> Vec<String> {
    let (clock, rng) = (Arc::new(SystemClock::new()), Arc::new(SystemRng::new()));
    // A copy: opening it is an event, too.
    let copy = world.broker().dir().join("copied");
    let copied = tokio::process::Command::new("cp")
        .arg("-r")
        .args([&world.broker().store_dir(), &copy])
        .status()
        .await
        .unwrap();
    assert!(copied.success());
    let store = SledStore::open(dayfly_store::Options::new(&copy, clock, rng)).unwrap();
    let mut lines = Vec::new();
    let encoded = |bytes: &[u8]| STANDARD.encode(bytes);
    loop {
        let next = Position::new(lines.len() as u64 + 1);
        let events = store.events(next, 500).await.unwrap();
        if events.is_empty() {
            break;
        }
        for event in events {
            let position = lines.len() + 1;
            let leaf_hash = encoded(&event.read().unwrap().leaf_hash);
            let record = json!({
                "position": position, "leaf_hash": leaf_hash, "leaf": encoded(&event.leaf),
                "salt": encoded(&event.salt), "detail": encoded(&event.detail),
            });
            let line = match position % 2 {
                0 => json!({ "record": record }),
                _ => json!({ "unmapped": { "dayfly": { "record": record } } }),
            };
            lines.push(line.to_string());
        }
    }
    store.close();
    lines.push(json!({ "checkpoint": checkpoint }).to_string());
    lines
}
