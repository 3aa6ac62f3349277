//! The store: full, in use, older than it should be.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use dayfly_api::v1;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{World, asking_for, owned_by, reason, retry_after};

on_both!(a_full_disk_stops_issuing_and_not_revoking);

#[test]
fn a_store_in_use_is_not_opened_twice() {
    dayfly_e2e::run::run(async {
        let world = World::with_own_broker(Kind::StandIn, Options::default()).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let (status, log) = world.broker().refuses_to_start(&[]).await.unwrap();
        assert!(!status.success(), "{log}");
        assert!(log.contains("in use"), "it says why: {log}");
        assert!(log.contains(&world.broker().store_dir().display().to_string()), "it says which: {log}");
        // The first one did not notice.
        let issued = world.pod(&team.namespace, "api").await.unwrap().issue(&team.target).await.unwrap();
        world.broker().restart().await.unwrap();
        let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
        assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
    });
}

#[test]
fn an_older_copy_of_the_store_is_refused_until_told() {
    dayfly_e2e::run::run(async {
        let world = World::with_own_broker(Kind::StandIn, Options::default()).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let pod = world.pod(&team.namespace, "api").await.unwrap();
        let broker = world.broker();
        let before = pod.issue(&team.target).await.unwrap();
        let admin = world.admin().await.unwrap();
        let paged = v1::ListLeasesRequest { page_size: 1, ..v1::ListLeasesRequest::default() };
        pod.issue(&team.target).await.unwrap();
        let old_page = admin.leases(paged.clone()).await.unwrap().next_page_token;
        broker.stop().await.unwrap();
        let (store, copy) = (broker.store_dir(), broker.dir().join("copy"));
        copy_folder(&store, &copy);

        broker.launch().await.unwrap();
        let lost = pod.issue(&team.target).await.unwrap();
        let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
        let lease = v1::Selector { lease: before.lease.clone().unwrap().id, ..v1::Selector::default() };
        admin.revoke(lease).await.unwrap();
        broker.stop().await.unwrap();
        std::fs::remove_dir_all(&store).unwrap();
        copy_folder(&copy, &store);

        // In this copy the revoked lease is active and the later one does not exist.
        for _ in 0..2 {
            let (status, log) = broker.refuses_to_start(&[]).await.unwrap();
            assert!(!status.success(), "{log}");
            assert!(log.contains("--accept-rollback"), "it says what to do: {log}");
        }
        broker.launch_with(&["--accept-rollback"]).await.unwrap();
        assert_eq!(verifier.state(&before.credential).await.unwrap(), v1::LeaseState::Revoked);
        assert!(!verifier.introspect(&lost.credential).await.unwrap().active);
        let page_token = v1::ListLeasesRequest { page_token: old_page, ..paged };
        assert_eq!(reason(&admin.leases(page_token).await.unwrap_err()), "PAGE_TOKEN");
        let again = pod.issue(&team.target).await.unwrap();
        assert_eq!(verifier.state(&again.credential).await.unwrap(), v1::LeaseState::Active);
        assert!(again.lease.unwrap().id > lost.lease.unwrap().id, "ids go on above what was lost");
        // Said once.
        broker.restart().await.unwrap();
        assert_eq!(verifier.state(&again.credential).await.unwrap(), v1::LeaseState::Active);
        assert_eq!(verifier.state(&before.credential).await.unwrap(), v1::LeaseState::Revoked);
    });
}

#[test]
fn a_store_that_is_gone_is_not_made_anew() {
    dayfly_e2e::run::run(async {
        let world = World::with_own_broker(Kind::StandIn, Options::default()).await.unwrap();
        let broker = world.broker();
        broker.stop().await.unwrap();
        let (store, aside) = (broker.store_dir(), broker.dir().join("aside"));
        std::fs::rename(&store, &aside).unwrap();
        let (status, log) = broker.refuses_to_start(&[]).await.unwrap();
        assert!(!status.success() && log.contains("witness"), "{log}");
        let _ = std::fs::remove_dir_all(&store);
        std::fs::rename(&aside, &store).unwrap();
        broker.launch().await.unwrap();
    });
}

#[test]
fn signing_keys_need_their_key_encryption_key() {
    dayfly_e2e::run::run(async {
        let world = World::with_own_broker(Kind::StandIn, Options::default()).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let broker = world.broker();
        let kek = broker.dir().join("kek");
        let issued = world.pod(&team.namespace, "api").await.unwrap().issue(&team.target).await.unwrap();
        broker.stop().await.unwrap();
        let right = std::fs::read(&kek).unwrap();
        for (what, wrong) in [("another", Some(vec![7; 32])), ("a short", Some(vec![7; 16])), ("no", None)] {
            match wrong {
                Some(wrong) => std::fs::write(&kek, wrong).unwrap(),
                None => std::fs::remove_file(&kek).unwrap(),
            }
            let (status, log) = broker.refuses_to_start(&[]).await.unwrap();
            assert!(!status.success() && log.contains("key"), "with {what} key: {log}");
        }
        std::fs::write(&kek, right).unwrap();
        std::fs::set_permissions(&kek, std::fs::Permissions::from_mode(0o600)).unwrap();
        broker.launch().await.unwrap();
        let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
        assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
    });
}

#[test]
fn a_running_brokers_store_is_not_verified_beside_it() {
    dayfly_e2e::run::run(async {
        let world = World::with_own_broker(Kind::StandIn, Options::default()).await.unwrap();
        let store = world.broker().store_dir().display().to_string();
        let (status, said) = world.broker().command(&["store", "verify", &store]).await.unwrap();
        assert!(!status.success() && said.contains("in use"), "{said}");
        world.broker().stop().await.unwrap();
        let (status, said) = world.broker().command(&["store", "verify", &store]).await.unwrap();
        assert!(status.success(), "{said}");
    });
}

/// On a disk of its own kind (a tmpfs), where a file makes it full.
async fn a_full_disk_stops_issuing_and_not_revoking(kind: Kind) {
    const MIB: u64 = 1 << 20;
    // Both worlds are on the one disk.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _alone = ALONE.lock().await;
    let disk = tempfile::Builder::new().prefix("dayfly-store-").tempdir_in("/dev/shm").unwrap();
    // Of whatever is free now, all but this much is the reserve.
    let free = free_bytes(disk.path());
    let room = (64 * MIB).min(free / 2);
    let options = Options {
        store_dir: Some(disk.path().join("store")),
        reserve_bytes: Some(free - room),
        ..Options::default()
    };
    let world = World::with_own_broker(kind, options).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let issued = pod.issue(&team.target).await.unwrap();
    let ballast = disk.path().join("ballast");
    fill(&ballast, room + 4 * MIB);

    until(async || Ok(pod.ask(asking_for(&team.target)).await?.is_err())).await.unwrap();
    let denied = pod.is_denied(&team.target).await.unwrap();
    assert_eq!((reason(&denied).as_str(), denied.code()), ("STORE_FULL", tonic::Code::Unavailable));
    assert!(retry_after(&denied).is_some(), "{denied:?}");
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
    let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    operator.revoke(owned_by(&team.owner)).await.unwrap();
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Revoked);
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "STORE_FULL");

    std::fs::remove_file(ballast).unwrap();
    until(async || Ok(pod.ask(asking_for(&team.target)).await?.is_ok())).await.unwrap();
    world.broker().restart().await.unwrap();
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Revoked);
}

fn free_bytes(path: &Path) -> u64 {
    let disk = rustix::fs::statvfs(path).unwrap();
    disk.f_bavail * disk.f_frsize
}

fn fill(path: &Path, bytes: u64) {
    let mut file = std::fs::File::create(path).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(7), bytes), &mut file).unwrap();
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}
