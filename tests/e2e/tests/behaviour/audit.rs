//! The audit log as outsiders read it: checkpoints, tiles and proofs over HTTPS, checked by what others wrote.

mod backups;
mod forks;
mod tools;

use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{World, owned_by};
use serde_json::{Value, json};

use tools::{audit, busy_world, checkpoint, export, file, key, outsider, python, size};

on_both!(
    another_implementation_reads_the_log_and_its_proofs,
    an_outsider_needs_nothing_of_ours,
    the_command_line_says_what_was_changed,
    a_checkpoint_key_is_replaced_and_a_revoked_one_signs_no_more,
    a_sink_that_is_down_keeps_nothing_from_being_revoked,
    a_log_that_does_not_follow_from_its_last_checkpoint_is_not_served,
    what_the_log_does_not_have_is_refused,
);

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
    let (size_of_first, another) = (size(&first).to_string(), (size(&first) + 1).to_string());
    let changed = file(world.broker(), "changed", &first.replacen(&size_of_first, &another, 1));
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

async fn an_outsider_needs_nothing_of_ours(kind: Kind) {
    let (world, team) = busy_world(kind, Options::default()).await;
    let first = file(world.broker(), "first", &checkpoint(&world).await);
    world
        .operator(&["revoke"], Some(&team.owner))
        .await
        .unwrap()
        .revoke(owned_by(&team.owner))
        .await
        .unwrap();
    let now = checkpoint(&world).await;
    let (key, dir) = (key(&world).await, world.broker().dir().to_owned());
    let path = |name: &str| dir.join(name).display().to_string();
    let url = format!("https://127.0.0.1:{}/log", world.broker().port());

    // What the broker serves.
    let first = first.display().to_string();
    let said = python(&[&key, "log", &url, &path("ca.crt"), &first]).await.unwrap();
    assert!(said.contains("and 1 earlier checkpoints"), "{said}");
    let forged = std::fs::read_to_string(&first).unwrap().replacen("\nincarnation 1", "\nincarnation 2", 1);
    file(world.broker(), "forged", &forged);
    let said = python(&[&key, "log", &url, &path("ca.crt"), &path("forged")]).await.unwrap_err();
    assert!(said.contains("signature is not of its text"), "{said}");

    // One event, and nothing of any other.
    world.broker().stop().await.unwrap();
    let lines = export(&world, &now).await;
    world.broker().launch().await.unwrap();
    file(world.broker(), "export", &lines.join("\n"));
    let (code, proof) =
        audit(&world, &["prove", "17", "--event", "export", "--key", &key, "-o", "json"]).await;
    assert_eq!(code, 0, "{proof}");
    file(world.broker(), "proof", &proof);
    python(&[&key, "proof", &path("proof")]).await.unwrap();
    let mut changed: Value = serde_json::from_str(&proof).unwrap();
    for field in ["leaf", "salt", "detail", "leaf_hash"] {
        let mut changed = changed.clone();
        let mut bytes = STANDARD.decode(changed[field].as_str().unwrap()).unwrap();
        bytes[5] ^= 1;
        changed[field] = json!(STANDARD.encode(bytes));
        file(world.broker(), "changed", &changed.to_string());
        let said = python(&[&key, "proof", &path("changed")]).await.unwrap_err();
        assert!(said.contains("event 17 was changed"), "{field}: {said}");
    }
    changed["position"] = json!(18);
    for field in ["leaf", "salt", "detail"] {
        changed.as_object_mut().unwrap().remove(field);
    }
    file(world.broker(), "changed", &changed.to_string());
    let said = python(&[&key, "proof", &path("changed")]).await.unwrap_err();
    assert!(said.contains("event 18 is not in the log"), "{said}");

    // All of it, without the broker.
    let said = python(&[&key, "export", &path("export"), &first]).await.unwrap();
    assert!(said.contains("by 2 checkpoints"), "{said}");
    let without = |n: usize| [&lines[..n], &lines[n + 1..]].concat().join("\n");
    for (text, why) in [
        (without(16), "event 18 stands where event 17 belongs"),
        (without(0), "event 2 stands where event 1 belongs"),
        (lines[lines.len() - 20..].join("\n"), "belongs"),
        ([&lines[..200], &lines[lines.len() - 1..]].concat().join("\n"), "events 201 to"),
    ] {
        file(world.broker(), "tampered", &text);
        let said = python(&[&key, "export", &path("tampered")]).await.unwrap_err();
        assert!(said.contains(why), "{why:?} is not in {said}");
    }
}

async fn the_command_line_says_what_was_changed(kind: Kind) {
    let (world, team) = busy_world(kind, Options::default()).await;
    let (first, key) = (checkpoint(&world).await, key(&world).await);
    file(world.broker(), "first", &first);
    world
        .operator(&["revoke"], Some(&team.owner))
        .await
        .unwrap()
        .revoke(owned_by(&team.owner))
        .await
        .unwrap();

    // Of a broker that runs.
    let (code, said) = audit(&world, &["verify", "--since", "first", "--key", &key]).await;
    assert!(code == 0 && said.ends_with("whole\n") && !said.contains("warning"), "{said}");
    let (code, said) = audit(&world, &["verify"]).await;
    assert!(code == 0 && said.contains("warning: the broker's own word"), "{said}");
    let changed = first.replacen(&size(&first).to_string(), &(size(&first) + 1).to_string(), 1);
    file(world.broker(), "changed", &changed);
    let (code, said) = audit(&world, &["verify", "--since", "changed", "--key", &key]).await;
    assert!(code == 1 && said.contains("the text or the signature was changed"), "{said}");
    let (code, said) = audit(&world, &["verify", "--since", "nothing"]).await;
    assert!(code == 2 && said.contains("cannot read nothing"), "{said}");

    // On demand, for those who may.
    let token = |token: &str| {
        let path = file(world.broker(), "operator.token", token);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    token(world.admin().await.unwrap().token());
    let (code, said) = audit(&world, &["checkpoint", "--now", "--token-file", "operator.token"]).await;
    assert!(code == 3 && said.contains("`create` on `checkpoints.dayfly.dev`"), "{said}");
    token(world.operator_on("checkpoints", &["create"], None).await.unwrap().token());
    let (code, now) = audit(&world, &["checkpoint", "--now", "--token-file", "operator.token"]).await;
    assert!(code == 0 && size(&now) > size(&first), "{now}");
    let (code, newest) = audit(&world, &["checkpoint"]).await;
    assert!(code == 0 && size(&newest) >= size(&now), "{newest}");
    file(world.broker(), "now", &now);
    let (code, said) = audit(&world, &["prove", "1000000"]).await;
    assert!(code == 2 && said.contains("the checkpoint is of"), "{said}");
    let (code, said) = audit(&world, &["prove", "5", "--checkpoint", "first", "--key", &key]).await;
    assert!(code == 0 && said.contains(&format!("{} events", size(&first))), "{said}");

    // Of an export.
    world.broker().stop().await.unwrap();
    let lines = export(&world, &now).await;
    let verify = async |lines: &[String]| {
        file(world.broker(), "export", &lines.join("\n"));
        audit(&world, &["verify", "--export", "export", "--key", &key, "--since", "first"]).await
    };
    let (code, said) = verify(&lines).await;
    assert!(code == 0 && said.contains("against checkpoints"), "{said}");
    let (code, said) = audit(&world, &["verify", "--export", "export"]).await;
    assert!(code == 2 && said.contains("say which key"), "{said}");
    let mut swapped = lines.clone();
    swapped.swap(99, 100);
    let mut dropped = lines.clone();
    dropped.remove(49);
    let mut renamed = lines.clone();
    renamed[29] = renamed[29].replace("\"salt\":\"", "\"salt\":\"AAAA");
    for (lines, why) in [
        (swapped, "event 100 is out of order: it stands after event 101"),
        (dropped, "event 50 is missing"),
        (renamed, "event 30 was changed"),
        (lines[2..].to_vec(), "events 1 to 2 are missing: cut off at the beginning"),
        ([&lines[..150], &lines[lines.len() - 1..]].concat(), "cut off at the end"),
    ] {
        let (code, said) = verify(&lines).await;
        assert!(code == 1 && said.contains(why), "{why:?} is not in {said}");
    }

    // Of the store, and of an older copy of it.
    let store = world.broker().store_dir().display().to_string();
    let of_store = async |store: &str| {
        audit(&world, &["verify", "--store", store, "--key", &key, "--since", "first", "--since", "now"])
            .await
    };
    let (code, said) = of_store(&store).await;
    assert!(code == 0 && said.contains("against checkpoints"), "{said}");
    world.broker().launch().await.unwrap();
    world.broker().stop().await.unwrap();
    let after = std::fs::read_to_string(world.broker().dir().join("witness.json.checkpoint")).unwrap();
    file(world.broker(), "now", &after);
    let (code, said) = of_store("copied").await;
    // Its opening was an event of its own, in the place of what came after.
    assert!(code == 1 && (said.contains("cut off") || said.contains("were changed")), "{said}");
    let (code, said) = audit(&world, &["verify", "--since", "first"]).await;
    assert!(code == 2 && said.contains("cannot reach the broker"), "{said}");
}

async fn a_checkpoint_key_is_replaced_and_a_revoked_one_signs_no_more(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let keeper = world.key_operator(&["list", "rotate", "revoke"], None).await.unwrap();
    let keys = async || world.fetch("/log/keys").await.unwrap().unwrap();
    let signatures = |checkpoint: &str| checkpoint.matches('\u{2014}').count();
    let (first, before) = (key(&world).await, checkpoint(&world).await);
    file(world.broker(), "before", &before);
    assert_eq!(signatures(&before), 1);
    keeper.rotate_key("checkpoint/EdDSA", true).await.unwrap();
    let second = key(&world).await;
    assert!(second != first && keys().await.lines().count() == 2);
    // Whoever knows either has a checkpoint for it.
    assert_eq!(signatures(&checkpoint(&world).await), 2);
    for key in [&first, &second] {
        outsider(&world, key, &[]).await.unwrap();
    }
    let both = ["verify", "--since", "before", "--key", &first, "--key", &second];
    assert_eq!(audit(&world, &both).await.0, 0);
    // It verifies no token, and no token's key verifies it.
    let listed = keeper.signing_keys().await.unwrap();
    let of_checkpoints: Vec<_> = listed.iter().filter(|key| key.purpose == "checkpoint/EdDSA").collect();
    let jwks = world.fetch("/.well-known/jwks.json").await.unwrap().unwrap();
    assert!(of_checkpoints.len() == 2 && of_checkpoints.iter().all(|key| !jwks.contains(&key.id)));

    let leaked = of_checkpoints.last().unwrap();
    keeper.revoke_key(&leaked.id, "it leaked").await.unwrap();
    let third = key(&world).await;
    assert!(!keys().await.contains(&second) && keys().await.contains(&first));
    outsider(&world, &third, &[]).await.unwrap();
    assert!(outsider(&world, &second, &[]).await.is_err());
    world.broker().kill9().await.unwrap();
    world.broker().launch().await.unwrap();
    assert_eq!(key(&world).await, third);
    outsider(&world, &third, &[]).await.unwrap();
}

async fn a_sink_that_is_down_keeps_nothing_from_being_revoked(kind: Kind) {
    let log = vec!["checkpoint_file = \"sink/log\"", "checkpoint_stdout = true", "checkpoint_secs = 3600"];
    let world = World::with_own_broker(kind, Options { log, ..Options::default() }).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    let rule = operator.revoke(owned_by(&team.owner)).await.unwrap();
    assert!(size(&checkpoint(&world).await) >= rule.position);
    assert!(world.broker().log().contains("a checkpoint is not taken: it is tried again"));
    std::fs::create_dir(world.broker().dir().join("sink")).unwrap();
    let sink = world.broker().dir().join("sink/log");
    let written = async || Ok(std::fs::read_to_string(&sink).unwrap_or_default().contains("incarnation 1"));
    until(written).await.unwrap();
    // From then on each is there when the answer is, and one after another.
    let rule = operator.revoke(owned_by(&team.owner)).await.unwrap();
    let text = std::fs::read_to_string(&sink).unwrap();
    let last = text.rsplit("dayfly.example.org/log\n").next().unwrap();
    assert!(last.lines().next().unwrap().parse::<u64>().unwrap() >= rule.position, "{text}");
    let (code, said) = audit(&world, &["verify", "--since", "sink/log", "--key", &key(&world).await]).await;
    assert_eq!(code, 0, "{said}");
    // Standard output has the same one.
    assert!(world.broker().log().contains(last.trim()), "{last}");
}

async fn a_log_that_does_not_follow_from_its_last_checkpoint_is_not_served(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    world.broker().stop().await.unwrap();
    let kept = world.broker().dir().join("witness.json.checkpoint");
    let text = std::fs::read_to_string(&kept).unwrap();
    let root = text.lines().nth(2).unwrap();
    for (published, why) in [
        (text.replacen(root, &STANDARD.encode([7; 32]), 1), "does not begin with those"),
        (text.replacen(&format!("\n{}\n", size(&text)), "\n100000\n", 1), "of 100000 events"),
        ("cut".to_owned(), "holds no checkpoint"),
    ] {
        std::fs::write(&kept, published).unwrap();
        let (status, said) = world.broker().refuses_to_start(&[]).await.unwrap();
        assert!(!status.success() && said.contains(why), "{said}");
    }
    std::fs::write(&kept, text).unwrap();
    world.broker().launch().await.unwrap();
}

async fn what_the_log_does_not_have_is_refused(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let newest = size(&checkpoint(&world).await);
    for (path, status) in [
        ("proof/inclusion", 400),
        ("proof/inclusion?position=x", 400),
        ("proof/inclusion?position=1&position=1", 400),
        ("proof/inclusion?position=1&lease=1", 400),
        ("proof/inclusion?position=0", 404),
        ("proof/inclusion?position=3&size=2", 404),
        ("proof/inclusion?position=1&size=1000000000", 404),
        ("proof/consistency?from=0", 400),
        ("proof/consistency?from=2&to=1", 400),
        ("proof/consistency?from=1&to=1000000000", 404),
        ("tile/0/000.p/0", 404),
        ("tile/0/900", 404),
        ("tile/9/000", 404),
        ("tile/0/x000/../000", 404),
        ("tile/entries/000", 404),
        ("nothing", 404),
    ] {
        assert_eq!(world.fetch(&format!("/log/{path}")).await.unwrap(), Err(status), "{path}");
    }
    // Without a size, they are of the newest checkpoint.
    let proof: Value =
        serde_json::from_str(&world.fetch("/log/proof/inclusion?position=1").await.unwrap().unwrap())
            .unwrap();
    assert!(proof["size"].as_u64().unwrap() >= newest, "{proof}");
}
