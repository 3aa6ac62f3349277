//! What the broker itself cannot notice, and whoever has an earlier checkpoint does; and the log as it is really exported.

use std::os::unix::fs::PermissionsExt as _;

use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::world::{Team, World, owned_by};

use super::tools::{audit, checkpoint, file, key, python, size};
use crate::store::copy_folder;

async fn world() -> (World, Team) {
    let world = World::with_own_broker(Kind::StandIn, Options::default()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    (world, team)
}

/// Some leases, and a revocation of them, which a checkpoint covers.
async fn busy(world: &World, team: &Team, leases: usize) -> String {
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    for _ in 0..leases {
        pod.issue(&team.target).await.unwrap();
    }
    world.admin().await.unwrap().revoke(owned_by(&team.owner)).await.unwrap();
    checkpoint(world).await
}

#[test]
fn a_log_that_was_taken_back_is_caught_by_whoever_has_a_checkpoint() {
    dayfly_e2e::run::run(async {
        let (world, team) = world().await;
        let before = busy(&world, &team, 2).await;
        let dir = world.broker().dir().to_owned();
        // All of what the broker knows it by: its store, its witness, its own last checkpoint.
        let own = ["witness.json", "witness.json.checkpoint"];
        world.broker().stop().await.unwrap();
        copy_folder(&dir.join("store"), &dir.join("copy"));
        for name in own {
            std::fs::copy(dir.join(name), dir.join(format!("{name}.copy"))).unwrap();
        }
        world.broker().launch().await.unwrap();
        let after = busy(&world, &team, 20).await;
        world.broker().stop().await.unwrap();
        std::fs::remove_dir_all(dir.join("store")).unwrap();
        copy_folder(&dir.join("copy"), &dir.join("store"));
        for name in own {
            std::fs::copy(dir.join(format!("{name}.copy")), dir.join(name)).unwrap();
        }
        world.broker().launch().await.unwrap();

        for (name, text) in [("before", &before), ("after", &after)] {
            file(world.broker(), name, text);
        }
        let key = key(&world).await;
        let verify = async |since: &str| audit(&world, &["verify", "--since", since, "--key", &key]).await;
        let (code, said) = verify("before").await;
        assert_eq!(code, 0, "{said}");
        let (code, said) = verify("after").await;
        let cut = format!("to {} are missing", size(&after));
        assert!(code == 1 && said.contains(&cut) && said.contains("cut off"), "{said}");
        // Longer than the one that was published, and another.
        let longer = busy(&world, &team, 40).await;
        assert!(size(&longer) > size(&after), "{longer}");
        let (code, said) = verify("after").await;
        let changed =
            format!("cannot prove that its log of {} events is the one of {}", size(&longer), size(&after));
        assert!(code == 1 && said.contains(&changed), "{said}");
        let (code, said) = verify("before").await;
        assert_eq!(code, 0, "{said}");
    });
}

#[test]
fn what_is_exported_is_verified_by_ours_and_by_others() {
    dayfly_e2e::run::run(async {
        let (world, team) = world().await;
        let first = busy(&world, &team, 3).await;
        file(world.broker(), "first", &first);
        let auditor = world.auditor(None).await.unwrap();
        let token = file(world.broker(), "auditor.token", auditor.token());
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let server = format!("https://127.0.0.1:{}", world.broker().port());
        for format in ["jsonl", "ocsf"] {
            let name = format!("log.{format}");
            let arguments = ["events", "export", "--format", format, "--out", &name, "--server", &server];
            let caller = ["--ca-file", "ca.crt", "--token-file", "auditor.token"];
            let (status, said) = world.broker().command(&[&arguments[..], &caller].concat()).await.unwrap();
            assert!(status.success(), "{said}");
            let key = key(&world).await;
            let (code, said) =
                audit(&world, &["verify", "--export", &name, "--since", "first", "--key", &key]).await;
            assert_eq!(code, 0, "{format}: {said}");
            let path = world.broker().dir().join(&name).display().to_string();
            let published = world.broker().dir().join("first").display().to_string();
            let said = python(&[&key, "export", &path, &published]).await.unwrap();
            assert!(said.contains("by 1 checkpoints"), "{format}: {said}");
            // One event less, and both name it.
            let text = std::fs::read_to_string(&path).unwrap();
            let without: Vec<_> =
                text.lines().enumerate().filter(|(n, _)| *n != 4).map(|(_, line)| line).collect();
            file(world.broker(), "tampered", &without.join("\n"));
            let (code, said) =
                audit(&world, &["verify", "--export", "tampered", "--since", "first", "--key", &key]).await;
            assert!(code == 1 && said.contains('5'), "{format}: {said}");
            let tampered = world.broker().dir().join("tampered").display().to_string();
            let said = python(&[&key, "export", &tampered, &published]).await.unwrap_err();
            assert!(said.contains("event 6 stands where event 5 belongs"), "{format}: {said}");
        }
    });
}
