//! A backup of a broker that goes on, restored beside it, and adopted.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dayfly_api::v1;
use dayfly_core::digest::Digest;
use dayfly_e2e::broker::{Broker, Options};
use dayfly_e2e::cluster::{Cluster, Kind};
use dayfly_e2e::world::{Pod, World, lease_of, leases_of, reason};
use serde_json::Value;

use crate::commands::{fails, json, with_socket};

on_both!(an_old_backup_restored_beside_the_running_broker_is_another_and_says_so_until_adopted);

/// A broker that has the other's policy and key-encryption key, and nothing else of it.
async fn another_place(cluster: &Cluster, original: &Broker) -> Broker {
    let broker = Broker::prepare(cluster.access().await.unwrap(), with_socket()).unwrap();
    for entry in std::fs::read_dir(original.policy()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), broker.policy().join(entry.file_name())).unwrap();
    }
    std::fs::copy(original.dir().join("kek"), broker.dir().join("kek")).unwrap();
    broker
}

/// Issues until told to stop, and gives the credentials with their leases.
async fn issue_until(pod: &Pod<'_>, target: &str, over: &AtomicBool) -> Vec<v1::IssueResponse> {
    let mut issued = Vec::new();
    while !over.load(Ordering::SeqCst) {
        issued.push(pod.issue(target).await.unwrap());
    }
    issued
}

fn id(issued: &v1::IssueResponse) -> &str {
    &issued.lease.as_ref().unwrap().id
}

async fn an_old_backup_restored_beside_the_running_broker_is_another_and_says_so_until_adopted(kind: Kind) {
    let cluster = Cluster::shared(kind).await.unwrap();
    let world = World::on(Arc::clone(&cluster), with_socket()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let admin = world.admin().await.unwrap();
    let before = pod.issue(&team.target).await.unwrap();
    pod.issue(&team.target).await.unwrap();
    let paged = v1::ListLeasesRequest { page_size: 1, ..leases_of(&team.owner) };
    let page = admin.leases(paged.clone()).await.unwrap().next_page_token;
    let resume = verifier.watch("").await.unwrap().message().await.unwrap().unwrap().resume;

    // While it issues.
    let over = AtomicBool::new(false);
    let keeper = world.operator_on("backups", &["create"], None).await.unwrap();
    let (during, (file, info)) = tokio::join!(issue_until(&pod, &team.target, &over), async {
        let taken = keeper.backup().await.unwrap();
        over.store(true, Ordering::SeqCst);
        taken
    });
    let after = pod.issue(&team.target).await.unwrap();
    let ended = pod.issue(&team.target).await.unwrap();
    admin.revoke(lease_of(id(&ended))).await.unwrap();

    let place = another_place(&cluster, world.broker()).await;
    std::fs::write(place.dir().join("backup"), &file).unwrap();
    let verify = ["store", "verify", "--backup", "backup", "--config", "dayfly.toml"];
    let verified = json(&place, &verify).await;
    assert_eq!((&verified["position"], &verified["leases"]), (&info.position.into(), &info.leases.into()));
    let restore = ["store", "restore", "--config", "dayfly.toml", "--from", "backup"];
    let restored = json(&place, &restore).await;
    assert_eq!(
        (&restored["position"], &restored["instance"]),
        (&info.position.into(), &info.instance.into())
    );
    assert!(restored["incarnation"].as_u64().unwrap() > info.incarnation.into());
    assert!(fails(&place, &restore).await.contains("never over a store"));
    place.launch().await.unwrap();
    let copy = World::of(Arc::clone(&cluster), Arc::new(place));

    // Of all that was issued before, nothing is good there; and nothing changed where it came from.
    let elsewhere = copy.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(elsewhere.state(&before.credential).await.unwrap(), v1::LeaseState::Revoked);
    for issued in during.iter().chain([&after, &ended]) {
        assert!(!elsewhere.introspect(&issued.credential).await.unwrap().active);
    }
    for issued in during.iter().chain([&before, &after]) {
        assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
    }
    assert_eq!(verifier.state(&ended.credential).await.unwrap(), v1::LeaseState::Revoked);

    // It issues, and neither knows what the other issued.
    let new_pod = copy.pod(&team.namespace, "api").await.unwrap();
    let there = new_pod.issue(&team.target).await.unwrap();
    let here = pod.issue(&team.target).await.unwrap();
    assert_eq!(elsewhere.state(&there.credential).await.unwrap(), v1::LeaseState::Active);
    assert!(!verifier.introspect(&there.credential).await.unwrap().active);
    assert!(!elsewhere.introspect(&here.credential).await.unwrap().active);

    // Nor takes the other's tokens.
    let far_admin = copy.admin().await.unwrap();
    let with_page = |page_token| v1::ListLeasesRequest { page_token, ..paged.clone() };
    assert_eq!(reason(&far_admin.leases(with_page(page)).await.unwrap_err()), "PAGE_TOKEN");
    let far_page = far_admin.leases(paged.clone()).await.unwrap().next_page_token;
    assert_eq!(reason(&admin.leases(with_page(far_page)).await.unwrap_err()), "PAGE_TOKEN");
    let cut = match elsewhere.watch(&resume).await {
        Err(status) => status,
        Ok(mut watch) => watch.message().await.unwrap_err(),
    };
    assert_eq!(reason(&cut), "RESUME_OUT_OF_RANGE");

    // It says what it is, until it is adopted, also after a crash.
    let ready = copy.fetch("/readyz").await.unwrap().unwrap();
    assert!(ready.contains("not adopted") && ready.contains("dayfly store adopt"), "{ready}");
    assert_eq!(world.fetch("/readyz").await.unwrap().unwrap(), "ok\n");
    assert!(copy.broker().log().contains("the store was restored and is not adopted"));
    copy.broker().kill9().await.unwrap();
    copy.broker().launch().await.unwrap();
    assert!(copy.fetch("/readyz").await.unwrap().unwrap().contains("not adopted"));
    let stranger = copy.operator_on("backups", &["create", "adopt"], None).await.unwrap();
    assert_eq!(reason(&stranger.adopt_store().await.unwrap_err()), "NOT_ALLOWED");
    let adopter = copy.operator_on("stores", &["adopt"], None).await.unwrap();
    assert_eq!(reason(&adopter.backup().await.unwrap_err()), "NOT_ALLOWED");
    assert!(!adopter.adopt_store().await.unwrap().already);
    assert_eq!(copy.fetch("/readyz").await.unwrap().unwrap(), "ok\n");
    let again = json(copy.broker(), &["store", "adopt", "--socket", "dayfly.sock"]).await;
    assert_eq!(again["already"], Value::Bool(true));
    copy.broker().kill9().await.unwrap();
    copy.broker().launch().await.unwrap();
    assert_eq!(copy.fetch("/readyz").await.unwrap().unwrap(), "ok\n");
    assert_eq!(elsewhere.state(&before.credential).await.unwrap(), v1::LeaseState::Revoked);
    assert_eq!(elsewhere.state(&there.credential).await.unwrap(), v1::LeaseState::Active);

    // Both logs add up, and say what happened.
    let digest = Digest::from_bytes(info.digest.try_into().unwrap());
    let (taken, restored) = (format!("backup {digest}"), format!("restored position {}", info.position));
    for (world, said) in [(&world, taken), (&copy, restored)] {
        world.broker().stop().await.unwrap();
        let store = json(world.broker(), &["store", "verify", "store"]).await;
        assert_eq!(store["adopted"], Value::Bool(true));
        let log = std::fs::read(world.broker().store_dir().join("db")).unwrap();
        assert!(log.windows(said.len()).any(|window| window == said.as_bytes()), "{said}");
    }
}

#[test]
fn a_stopped_brokers_store_is_backed_up_and_adopted_by_its_configuration() {
    dayfly_e2e::run::run(async {
        let world = World::with_own_broker(Kind::StandIn, with_socket()).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let issued = world.pod(&team.namespace, "api").await.unwrap().issue(&team.target).await.unwrap();
        let broker = world.broker();
        let offline = ["store", "backup", "--store", "dayfly.toml", "--out", "backup"];
        assert!(fails(broker, &offline).await.contains("for a broker that is stopped"));
        let by_socket = ["store", "backup", "--socket", "dayfly.sock", "--out"];
        json(broker, &[&by_socket[..], &["online"]].concat()).await;
        assert!(fails(broker, &[&by_socket[..], &["online"]].concat()).await.contains("there already"));
        broker.stop().await.unwrap();
        let taken = json(broker, &offline).await;
        let mode = std::fs::metadata(broker.dir().join("backup")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let whole = std::fs::read(broker.dir().join("backup")).unwrap();
        let part = issued.credential.rsplit('.').next().unwrap().as_bytes();
        for unsealed in [part, b"payments", b"api-ledger"] {
            assert!(!whole.windows(unsealed.len()).any(|window| window == unsealed), "it is sealed");
        }

        // Changed, cut, or without its key, it is no backup, and no store comes of it.
        std::fs::rename(broker.store_dir(), broker.dir().join("lost")).unwrap();
        let restore = ["store", "restore", "--config", "dayfly.toml", "--from", "bad"];
        let mut changed = whole.clone();
        *changed.last_mut().unwrap() ^= 1;
        for (bad, said) in [(changed, "was changed"), (whole[..whole.len() / 2].to_vec(), "part")] {
            std::fs::write(broker.dir().join("bad"), bad).unwrap();
            assert!(fails(broker, &restore).await.contains(said));
            assert!(!broker.store_dir().exists());
        }
        let (kek, right) = (broker.dir().join("kek"), std::fs::read(broker.dir().join("kek")).unwrap());
        std::fs::write(&kek, [7; 32]).unwrap();
        let restore = ["store", "restore", "--config", "dayfly.toml", "--from", "backup"];
        assert!(fails(broker, &restore).await.contains("key-encryption key"));
        std::fs::write(&kek, right).unwrap();
        assert_eq!(names(broker.dir(), "store.").len() + names(broker.dir(), "bad.").len(), 0);

        // In the place of the store that is lost, beside its witness, which has seen more.
        let restored = json(broker, &restore).await;
        assert_eq!(restored["position"], taken["position"]);
        broker.launch().await.unwrap();
        let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
        assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Revoked);
        assert!(world.fetch("/readyz").await.unwrap().unwrap().contains("not adopted"));
        broker.stop().await.unwrap();
        let adopt = ["store", "adopt", "--store", "dayfly.toml"];
        assert_eq!(json(broker, &adopt).await["already"], Value::Bool(false));
        assert_eq!(json(broker, &adopt).await["already"], Value::Bool(true));

        // The witness knows the new one: what was lost does not come back in its place.
        let aside = broker.dir().join("aside");
        std::fs::rename(broker.store_dir(), &aside).unwrap();
        std::fs::rename(broker.dir().join("lost"), broker.store_dir()).unwrap();
        let (status, log) = broker.refuses_to_start(&[]).await.unwrap();
        assert!(!status.success() && log.contains("--accept-rollback"), "{log}");
        std::fs::rename(broker.store_dir(), broker.dir().join("lost")).unwrap();
        std::fs::rename(&aside, broker.store_dir()).unwrap();
        broker.launch().await.unwrap();
        assert_eq!(world.fetch("/readyz").await.unwrap().unwrap(), "ok\n");
    });
}

/// Files and folders whose names begin so.
fn names(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let begins = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(prefix);
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(begins).collect()
}

#[test]
fn a_crash_while_it_is_backed_up_or_restored_leaves_nothing_half() {
    const LEASES: usize = 1500;
    const ROUNDS: u64 = 6;
    dayfly_e2e::run::run_for(Duration::from_secs(180), async {
        let limits = [("live_leases_per_pod", 1_000_000), ("live_leases_per_workload", 1_000_000)];
        let options = Options { limits: limits.into_iter().collect(), ..with_socket() };
        let cluster = Cluster::shared(Kind::StandIn).await.unwrap();
        let world = World::on(Arc::clone(&cluster), options).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let pod = world.pod(&team.namespace, "api").await.unwrap();
        for _ in 0..LEASES / 50 {
            futures_util::future::try_join_all((0..50).map(|_| pod.issue(&team.target))).await.unwrap();
        }
        let broker = world.broker();

        let mut cut = 0;
        for round in 0..ROUNDS {
            let out = format!("backup-{round}");
            let arguments = ["store", "backup", "--socket", "dayfly.sock", "--out", &out];
            let begun = async || {
                let parts = names(broker.dir(), &format!("{out}.part-"));
                parts.iter().any(|part| part.metadata().is_ok_and(|part| part.len() > round * 100_000))
            };
            let crash = async {
                while !begun().await
                    && names(broker.dir(), &out).iter().all(|path| path.extension().is_some())
                {
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
                broker.kill9().await.unwrap();
            };
            let ((status, said), ()) =
                tokio::join!(async { broker.command(&arguments).await.unwrap() }, crash);
            assert_eq!(status.success(), broker.dir().join(&out).exists(), "{said}");
            assert_eq!(names(broker.dir(), &format!("{out}.")), Vec::<PathBuf>::new());
            cut += u64::from(!status.success());
            broker.launch().await.unwrap();
        }
        assert!(cut > 0, "no crash came while a backup was taken");

        json(broker, &["store", "backup", "--socket", "dayfly.sock", "--out", "whole"]).await;
        let place = another_place(&cluster, broker).await;
        let restore =
            ["store", "restore", "--config", "dayfly.toml", "--from"].map(str::to_owned).into_iter();
        let from = broker.dir().join("whole").display().to_string();
        let restore: Vec<_> = restore.chain([from]).collect();
        let restore: Vec<_> = restore.iter().map(String::as_str).collect();
        let mut killed = 0;
        for round in 0..ROUNDS {
            let begun = async || {
                let begun = !names(place.dir(), "store.new-").is_empty();
                if begun {
                    tokio::time::sleep(Duration::from_millis(round * 60)).await;
                }
                begun
            };
            if place.command_killed(&restore, begun).await.unwrap().is_some() {
                break;
            }
            // The crash came when it had its name: then it is whole, as is seen below.
            if place.store_dir().exists() {
                break;
            }
            killed += 1;
        }
        assert!(killed > 0, "no crash came while it was restored");
        if !place.store_dir().exists() {
            json(&place, &restore).await;
        }
        assert_eq!(names(place.dir(), "store.new-"), Vec::<PathBuf>::new(), "what was left is removed");
        let store = json(&place, &["store", "verify", "store"]).await;
        assert!(store["leases"].as_u64().unwrap() >= LEASES as u64);
        assert_eq!(store["adopted"], Value::Bool(false));
        place.launch().await.unwrap();
    });
}
