//! A sealed backup, checked against what was published of the log.

use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::world::{World, owned_by};

use super::tools::{audit, checkpoint, file, key, size};

#[test]
fn a_backup_is_checked_against_earlier_checkpoints() {
    dayfly_e2e::run::run(async {
        let world = World::with_own_broker(Kind::StandIn, Options::default()).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let pod = world.pod(&team.namespace, "api").await.unwrap();
        let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
        let issue = async || {
            for _ in 0..5 {
                pod.issue(&team.target).await.unwrap();
            }
            // Which makes a checkpoint.
            operator.revoke(owned_by(&team.owner)).await.unwrap();
            checkpoint(&world).await
        };
        let (key, first) = (key(&world).await, issue().await);
        file(world.broker(), "first", &first);
        let keeper = world.operator_on("backups", &["create"], None).await.unwrap();
        let (backup, info) = keeper.backup().await.unwrap();
        let after = issue().await;
        assert!(size(&first) <= info.position && info.position < size(&after), "{first}{after}");
        let written =
            |name: &str, bytes: &[u8]| std::fs::write(world.broker().dir().join(name), bytes).unwrap();
        written("backup", &backup);
        let verify = async |backup: &str, more: &[&str]| {
            let arguments = ["verify", "--backup", backup, "--config", "dayfly.toml"];
            audit(&world, &[&arguments, more].concat()).await
        };

        // The broker goes on meanwhile.
        let (code, said) = verify("backup", &["--since", "first", "--key", &key]).await;
        let up_to = format!("up to event {}, against checkpoints", size(&first));
        assert!(code == 0 && said.contains(&up_to) && said.ends_with("whole\n"), "{said}");
        assert!(!said.contains("warning") && said.contains(&info.position.to_string()), "{said}");
        let (code, said) = verify("backup", &[]).await;
        assert!(code == 0 && said.contains("warning: a backup that was written anew"), "{said}");
        let (code, said) = verify("backup", &["--since", "first"]).await;
        assert!(code == 2 && said.contains("--key"), "{said}");

        // A checkpoint that nobody signed so, and one of events that the backup has not.
        let forged = first.replacen(&size(&first).to_string(), &(size(&first) - 1).to_string(), 1);
        file(world.broker(), "forged", &forged);
        let (code, said) = verify("backup", &["--since", "forged", "--key", &key]).await;
        assert!(code == 1 && said.contains("the text or the signature was changed"), "{said}");
        file(world.broker(), "after", &after);
        let (code, said) = verify("backup", &["--since", "after", "--key", &key]).await;
        let missing = format!("events {} to {} are missing", info.position + 1, size(&after));
        assert!(code == 1 && said.contains(&missing), "{said}");

        // A backup that was changed, one that was cut off, and what is none.
        let mut changed = backup.clone();
        *changed.last_mut().unwrap() ^= 1;
        written("changed", &changed);
        written("cut", &backup[..backup.len() / 2]);
        for (name, why) in [("changed", "was changed"), ("cut", "part ")] {
            let (code, said) = verify(name, &["--since", "first", "--key", &key]).await;
            assert!(
                code == 1 && said.contains(&format!("the backup {name}")) && said.contains(why),
                "{said}"
            );
        }
        let (code, said) = verify("first", &[]).await;
        assert!(code == 2 && said.contains("no backup of Dayfly"), "{said}");
        let (code, said) = verify("nothing", &[]).await;
        assert!(code == 2 && said.contains("cannot open nothing"), "{said}");
        let left = std::fs::read_dir(world.broker().dir()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!left.into_iter().any(|name| name.to_string_lossy().contains(".verify")), "nothing is left");
    });
}
