//! The audit log, read by operators: who sees what, following it, and an export that anyone can check.

mod kinds;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_api::v1;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{Operator, World, leases_of, owned_by, reason};
use serde_json::Value;

on_both!(
    events_are_told_to_those_whom_they_concern,
    a_tail_over_a_crash_misses_nothing_and_doubles_nothing,
    an_export_is_checked_by_its_reader_also_when_details_are_forgotten,
);

const DAY: i64 = 24 * 3600;

fn options() -> Options {
    Options { log: vec!["flush_secs = 1", "detail_retention_days = 1"], ..Options::default() }
}

fn of_kind(kinds: &[&str]) -> v1::EventFilter {
    v1::EventFilter { kinds: kinds.iter().map(ToString::to_string).collect(), ..v1::EventFilter::default() }
}

async fn kinds(operator: &Operator, filter: v1::EventFilter) -> Vec<String> {
    let mut kinds: Vec<_> =
        operator.events(filter).await.unwrap().into_iter().map(|event| event.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// What `dayfly` says to these arguments, called with this operator's token.
async fn dayfly(world: &World, operator: &Operator, arguments: &[&str]) -> (Option<i32>, String) {
    let token = world.broker().dir().join("operator.token");
    std::fs::write(&token, operator.token()).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let server = format!("https://127.0.0.1:{}", world.broker().port());
    let token = token.display().to_string();
    let connection = ["--server", &server, "--ca-file", "ca.crt", "--token-file", &token];
    let (status, said) = world.broker().command(&[arguments, &connection].concat()).await.unwrap();
    (status.code(), said)
}

async fn events_are_told_to_those_whom_they_concern(kind: Kind) {
    let world = World::with_own_broker(kind, options()).await.unwrap();
    let (mine, theirs) = (world.team("payments").await.unwrap(), world.team("orders").await.unwrap());
    let pod = world.pod(&mine.namespace, "api").await.unwrap();
    let operator = world.operator(&["list", "revoke", "lift"], Some(&mine.owner)).await.unwrap();
    let [all, of_mine, of_theirs] =
        [None, Some(&*mine.owner), Some(&*theirs.owner)].map(|owner| world.auditor(owner));
    let (all, of_mine, of_theirs) = (all.await.unwrap(), of_mine.await.unwrap(), of_theirs.await.unwrap());

    let lease = pod.issue(&mine.target).await.unwrap().lease.unwrap();
    pod.renew(&lease.id).await.unwrap();
    assert_eq!(reason(&pod.is_denied(&theirs.target).await.unwrap()), "GRANT_MISSING");
    operator.leases(leases_of(&mine.owner)).await.unwrap();
    let rule = operator.hold(owned_by(&mine.owner)).await.unwrap();
    operator.lift(&rule.id).await.unwrap();
    assert_eq!(reason(&operator.hold(owned_by(&theirs.owner)).await.unwrap_err()), "NOT_ALLOWED");

    let expected = ["denied", "issued", "lifted", "read", "renewed", "revoked"];
    let owned = v1::EventFilter { owner: mine.owner.clone(), ..v1::EventFilter::default() };
    until(async || Ok(kinds(&of_mine, v1::EventFilter::default()).await == expected)).await.unwrap();
    assert_eq!(kinds(&all, owned.clone()).await, expected);
    // Nothing of one team is told to the other, by whatever filter.
    let about_lease = v1::EventFilter { subject: lease.id.clone(), ..v1::EventFilter::default() };
    assert_eq!(kinds(&of_mine, about_lease.clone()).await, ["issued", "renewed"]);
    for filter in [v1::EventFilter::default(), about_lease.clone(), of_kind(&expected)] {
        let seen = of_theirs.events(filter).await.unwrap();
        assert!(
            seen.iter().all(|it| it.detail.as_ref().unwrap().owners == [theirs.owner.clone()]),
            "{seen:?}"
        );
    }
    assert_eq!(reason(&of_theirs.events(owned.clone()).await.unwrap_err()), "NOT_ALLOWED");
    assert_eq!(
        reason(&operator.events(owned).await.unwrap_err()),
        "NOT_ALLOWED",
        "it takes a right of its own"
    );
    // What the reconciler ends is theirs too whose it was.
    let (ended, of_other) =
        (kinds(&of_theirs, of_kind(&["revoked"])).await, world.pod(&theirs.namespace, "api"));
    assert_eq!(ended, Vec::<String>::new());
    let of_other = of_other.await.unwrap();
    of_other.issue(&theirs.target).await.unwrap();
    world.cluster().delete_pod(&of_other.namespace, &of_other.name, true).await.unwrap();
    until(async || Ok(kinds(&of_theirs, of_kind(&["revoked"])).await == ["revoked"])).await.unwrap();

    // What is nobody's is for those who see all.
    let everything = kinds(&all, v1::EventFilter::default()).await;
    for kind in ["started", "key-created", "policy-changed"] {
        assert!(everything.iter().any(|known| known == kind), "{kind}: {everything:?}");
    }
    let policy = all.events(of_kind(&["policy-changed"])).await.unwrap();
    let objects: Vec<_> = policy.iter().flat_map(|it| it.detail.clone().unwrap().objects).collect();
    let added = format!("added Owner {} ", mine.owner);
    assert!(objects.iter().any(|object| object.starts_with(&added)), "{objects:?}");
    let denied = all.events(of_kind(&["denied"])).await.unwrap();
    let said: Vec<_> = denied.into_iter().filter_map(|it| it.detail).map(|it| (it.reason, it.note)).collect();
    let refused = said.iter().any(|(reason, note)| reason == "NOT_ALLOWED" && note.contains(&theirs.owner));
    assert!(refused, "who was refused what: {said:?}");

    // And so by the command line.
    let (code, said) = dayfly(&world, &of_mine, &["events", "list", "--subject", &lease.id]).await;
    let lines: Vec<_> = said.lines().collect();
    assert_eq!((code, lines.len()), (Some(0), 3), "{said}");
    assert!(lines[0].starts_with("POSITION") && lines[1].contains(&mine.owner), "{said}");
    let (code, said) = dayfly(&world, &of_mine, &["events", "export"]).await;
    assert!(code == Some(3) && said.contains("`list` on `events.dayfly.dev`, without a name"), "{said}");
    let (code, said) = dayfly(&world, &all, &["events", "list", "--kind", "invented"]).await;
    assert!(code == Some(1) && said.contains("INVALID_FIELD"), "{said}");
}

async fn a_tail_over_a_crash_misses_nothing_and_doubles_nothing(kind: Kind) {
    let world = World::with_own_broker(kind, options()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let auditor = world.auditor(Some(&team.owner)).await.unwrap();
    let issue = async |n: usize| {
        for _ in 0..n {
            pod.issue(&team.target).await.unwrap();
        }
    };
    issue(5).await;
    let arguments = ["events", "tail", "--from", "1", "--kind", "issued", "--count", "20", "-o", "json"];
    let tail = dayfly(&world, &auditor, &arguments);
    let events = async {
        issue(5).await;
        world.broker().kill9().await.unwrap();
        world.broker().launch().await.unwrap();
        issue(5).await;
        world.broker().restart().await.unwrap();
        issue(5).await;
    };
    let ((code, said), ()) = tokio::join!(tail, events);
    assert_eq!(code, Some(0), "{said}");
    let told: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = told.iter().map(|event| event["position"].as_u64().unwrap()).collect();
    let issued = auditor.events(of_kind(&["issued"])).await.unwrap();
    assert_eq!(told, issued.iter().map(|event| event.position).collect::<Vec<_>>());
    let all = world.auditor(None).await.unwrap();
    assert_eq!(kinds(&all, of_kind(&["started", "started-unclean"])).await, ["started", "started-unclean"]);
    assert_eq!(all.events(of_kind(&["started-unclean"])).await.unwrap().len(), 1);
}

/// SHA-256.
fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

/// RFC 6962, section 2.1: the hash of a list of leaves, by its definition.
fn tree_hash(leaves: &[Vec<u8>]) -> Vec<u8> {
    match leaves {
        [] => sha256(&[]),
        [leaf] => sha256(&[&[0], leaf]),
        leaves => {
            let k = leaves.len().next_power_of_two() / 2;
            sha256(&[&[1], &tree_hash(&leaves[..k]), &tree_hash(&leaves[k..])])
        }
    }
}

/// The leaves of an export, each checked, and how many details it has.
fn leaves(text: &str, pointer: &str) -> (Vec<Vec<u8>>, usize) {
    assert!(text.ends_with('\n'));
    let (mut leaves, mut details) = (Vec::new(), 0);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let record = line.pointer(pointer).unwrap();
        let bytes = |name: &str| record.get(name).map(|it| STANDARD.decode(it.as_str().unwrap()).unwrap());
        let leaf = bytes("leaf").unwrap();
        assert_eq!(record["position"], leaves.len() + 1);
        assert_eq!(bytes("leaf_hash").unwrap(), sha256(&[&[0], &leaf]));
        assert_eq!(bytes("salt").is_some(), bytes("detail").is_some());
        if let (Some(salt), Some(detail)) = (bytes("salt"), bytes("detail")) {
            let digest = sha256(&[&salt, &detail]);
            assert!(leaf.windows(32).any(|part| part == digest), "the leaf binds its detail");
            details += 1;
        }
        leaves.push(leaf);
    }
    (leaves, details)
}

/// What `dayfly store verify` says of the broker's store: its size, its root, and how many details are forgotten.
async fn verified(world: &World) -> (usize, Vec<u8>, u64) {
    let store = world.broker().store_dir().display().to_string();
    let (status, said) = world.broker().command(&["store", "verify", &store, "-o", "json"]).await.unwrap();
    assert!(status.success(), "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    let root = said["root"].as_str().unwrap();
    let root = (0..32).map(|n| u8::from_str_radix(&root[2 * n..2 * n + 2], 16).unwrap()).collect();
    let size = usize::try_from(said["position"].as_u64().unwrap()).unwrap();
    (size, root, said["forgotten"].as_u64().unwrap())
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

async fn an_export_is_checked_by_its_reader_also_when_details_are_forgotten(kind: Kind) {
    let world = World::with_own_broker(kind, Options { clock_ahead: Some(0), ..options() }).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let all = world.auditor(None).await.unwrap();
    for _ in 0..5 {
        pod.issue(&team.target).await.unwrap();
    }
    let [log, ocsf] = ["log.jsonl", "log.ocsf"].map(|name| world.broker().dir().join(name));
    let export = async |arguments: &[&str]| {
        let (code, said) = dayfly(&world, &all, &[&["events", "export"], arguments].concat()).await;
        (code, said)
    };
    let (code, said) = export(&["--out", "log.jsonl"]).await;
    assert!(code == Some(0) && said.contains("records written"), "{said}");
    assert_eq!(std::fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    let (first, details) = leaves(&read(&log), "/record");
    assert_eq!(details, first.len());
    let last: Value = serde_json::from_str(read(&log).lines().last().unwrap()).unwrap();
    assert_eq!(last["kind"], "exported", "that it was exported is the last in it");
    let (code, said) = export(&["--out", "log.jsonl"]).await;
    assert!(code == Some(2) && said.contains("--resume"), "{said}");

    // An export that was interrupted goes on after its last whole line, and one of another log does not.
    pod.issue(&team.target).await.unwrap();
    let text = read(&log);
    std::fs::rename(&log, log.with_extension("jsonl.partial")).unwrap();
    std::fs::write(log.with_extension("jsonl.partial"), &text[..text.len() - 40]).unwrap();
    let (code, said) = export(&["--resume", "log.jsonl"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (resumed, _) = leaves(&read(&log), "/record");
    assert!(resumed.len() > first.len() && resumed[..first.len()] == first);
    let line: Value = serde_json::from_str(text.lines().nth(2).unwrap()).unwrap();
    let mut other = line.clone();
    other["record"]["leaf"] = Value::String(STANDARD.encode(b"other"));
    other["record"]["leaf_hash"] = Value::String(STANDARD.encode(sha256(&[&[0], b"other"])));
    std::fs::write(world.broker().dir().join("other"), format!("{other}\n")).unwrap();
    let (code, said) = export(&["--resume", "other"]).await;
    assert!(code == Some(1) && said.contains("not of this log"), "{said}");

    // Its root is the store's.
    world.broker().kill9().await.unwrap();
    let (size, root, forgotten) = verified(&world).await;
    assert!(size >= resumed.len() && forgotten == 0);
    world.broker().launch().await.unwrap();
    let (code, said) = export(&["--format", "ocsf", "--out", "log.ocsf"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (before, details) = leaves(&read(&ocsf), "/unmapped/dayfly/record");
    assert_eq!(details, before.len());
    assert_eq!(tree_hash(&before[..size]), root);

    // Two days later all of that is forgotten, and still the same log.
    world.broker().stop().await.unwrap();
    world.broker().set_clock(2 * DAY).unwrap();
    world.broker().launch_unready().await.unwrap();
    world.broker().stop().await.unwrap();
    let (later, later_root, forgotten) = verified(&world).await;
    assert!(
        usize::try_from(forgotten).unwrap() >= before.len(),
        "{forgotten} of {} are forgotten",
        before.len()
    );
    world.broker().set_clock(0).unwrap();
    world.broker().launch_unready().await.unwrap();
    let mut stream = all.export_events(1).await.unwrap();
    let mut records = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        records.extend(message.records);
    }
    std::fs::remove_file(&log).unwrap();
    let (code, said) = export(&["--out", "log.jsonl"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (after, details) = leaves(&read(&log), "/record");
    assert_eq!(after[..records.len()], records.iter().map(|it| it.leaf.clone()).collect::<Vec<_>>());
    assert_eq!(after.len() - details, usize::try_from(forgotten).unwrap());
    assert_eq!(after[..before.len()], before, "what was exported before is what is exported now");
    assert_eq!((tree_hash(&after[..size]), tree_hash(&after[..later])), (root, later_root));
    let old = all.events(v1::EventFilter { to: 3, ..v1::EventFilter::default() }).await.unwrap();
    assert!(old.len() == 3 && old.iter().all(|event| event.detail.is_none()), "{old:?}");
}
