//! What is opened, what is made, and what is refused.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::audit::EventKind;
use dayfly_core::change::Outcome;
use dayfly_core::ids::{Incarnation, Position};
use dayfly_core::ports::{LeaseStore, Witness};
use dayfly_core::rule::{After, Selector};
use dayfly_store::contract::{drawn, issue, owner, revocation, revoke};
use dayfly_store::{FileWitness, OpenError, SledStore, verify};

use crate::elf;
use crate::fixture::{Fixture, copy};

#[test]
fn a_second_opening_is_refused_and_harms_nothing() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let refused = fixture.try_open().err().unwrap();
    assert!(matches!(refused, OpenError::InUse { .. }));
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    assert!(matches!(verify(&fixture.dir()), Err(OpenError::InUse { .. })));
    store.close();
    fixture.open();
}

#[test]
fn an_empty_folder_becomes_a_store_and_leftovers_of_a_creation_go() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.dir()).unwrap();
    let leftover = fixture.folder.path().join("store.new-0123");
    fs::create_dir_all(leftover.join("blobs")).unwrap();
    fs::write(leftover.join("db"), "half of something").unwrap();
    fixture.open().close();
    assert!(!leftover.exists());
    let names: Vec<_> =
        fs::read_dir(fixture.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["store"]);
    assert!(verify(&fixture.dir()).unwrap().problems.is_empty());
}

#[tokio::test]
async fn a_store_without_its_header_is_lost_and_not_new() {
    for lose in ["header", "db", "conf", "content"] {
        let fixture = Fixture::new();
        let store = fixture.open();
        issue(&*store, drawn(&*store)).await;
        store.close();
        drop(store);
        match lose {
            "header" => {
                let config = sled::Config::new().path(fixture.dir()).segment_size(8 << 20);
                let database = config.open().unwrap();
                database.remove("H").unwrap();
                database.flush().unwrap();
                drop(database);
                fixture.wait_for_lock();
            }
            "content" => {
                fs::write(fixture.dir().join("db"), "").unwrap();
                for entry in fs::read_dir(fixture.dir()).unwrap() {
                    let path = entry.unwrap().path();
                    if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
                        fs::remove_file(path).unwrap();
                    }
                }
            }
            file => fs::remove_file(fixture.dir().join(file)).unwrap(),
        }
        let refused = fixture.try_open().err().unwrap();
        assert!(matches!(refused, OpenError::Lost { .. }), "{lose}: {refused}");
        let again = fixture.try_open().err().unwrap();
        assert!(matches!(again, OpenError::Lost { .. }), "{lose}, again: {again}");
    }
}

#[test]
fn a_newer_format_and_blob_files_are_refused() {
    let fixture = Fixture::new();
    fixture.open().close();
    fs::write(fixture.dir().join("blobs/1"), "x").unwrap();
    assert!(matches!(fixture.try_open(), Err(OpenError::Damaged { .. })));
    fs::remove_file(fixture.dir().join("blobs/1")).unwrap();
    fixture.wait_for_lock();
    let database = sled::Config::new().path(fixture.dir()).segment_size(8 << 20).open().unwrap();
    // Field 1, the format: 99.
    database.insert("H", b"\x08\x63").unwrap();
    drop(database);
    fixture.wait_for_lock();
    let refused = fixture.try_open().err().unwrap();
    assert!(matches!(refused, OpenError::Format { found: 99, known: 1, .. }), "{refused}");
}

#[tokio::test]
async fn an_older_copy_is_refused_until_told_and_then_everything_before_is_revoked() {
    let mut fixture = Fixture::new();
    let store = fixture.open();
    let old = drawn(&*store);
    let (old_id, copied) = (old.lease.id, fixture.folder.path().join("copy"));
    issue(&*store, old).await;
    store.close();
    copy(&fixture.dir(), &copied);
    let store = fixture.open();
    fixture.clock.advance(Duration::from_secs(5));
    // Issued after the copy was made: the copy does not know it, but it must not live on.
    let unknown = drawn(&*store);
    issue(&*store, unknown.clone()).await;
    let witness = store.mark();
    store.close();

    // The store itself is not behind, one position more or the same.
    fixture.options.expected = Some(witness);
    fixture.open().close();

    fs::rename(fixture.dir(), fixture.folder.path().join("moved away")).unwrap();
    let refused = fixture.try_open().err().unwrap();
    assert!(matches!(refused, OpenError::Behind { store: None, .. }), "a new one in its place: {refused}");
    assert!(!fixture.dir().exists());
    copy(&copied, &fixture.dir());
    let refused = fixture.try_open().err().unwrap();
    assert!(matches!(refused, OpenError::Behind { store: Some(_), .. }));
    assert!(refused.to_string().contains("--accept-rollback"), "{refused}");

    fixture.options.accept_rollback = true;
    let store = fixture.open();
    assert!(store.mark().incarnation > Incarnation(1));
    assert!(store.mark().highest > witness.highest);
    let rules = store.rules();
    let rule = rules.iter().next().unwrap();
    assert_eq!((rules.len(), &rule.selector, rule.after), (1, &Selector::All, After::Reissue));
    assert!(rule.covers(&unknown.lease) && rule.until >= unknown.lease.expires_at);
    let lease = store.lease(old_id).await.unwrap().unwrap();
    assert_eq!(lease.state(&rules, store.draw().unwrap().now).name(), "revoked");
    let events = store.events(Position::new(1), 100).await.unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.read().unwrap().kind).collect();
    assert!(kinds.ends_with(&[EventKind::Revoked, EventKind::RollbackAccepted, EventKind::Started]));
    let fresh = issue(&*store, drawn(&*store)).await;
    assert!(matches!(fresh, Outcome::Committed(_)));
    let adopted = store.mark();
    store.close();

    // It is accepted once: from then on the witness follows it, and nothing more is revoked.
    fixture.options.expected = Some(adopted);
    assert_eq!(fixture.open().rules().len(), 1);
    fixture.options.accept_rollback = false;
    fixture.options.expected = Some(witness);
    let incarnation = fixture.open().mark().incarnation;
    assert_eq!(incarnation, adopted.incarnation, "ahead of a witness that was not written yet");
    assert!(verify(&fixture.dir()).unwrap().problems.is_empty());
}

#[tokio::test]
async fn another_store_in_its_place_is_refused_and_a_new_one_can_be_accepted() {
    let other = Fixture::new();
    let mark = other.open().mark();
    let mut fixture = Fixture::new();
    fixture.open().close();
    fixture.options.expected = Some(mark);
    assert!(matches!(fixture.try_open(), Err(OpenError::Behind { .. })));
    let mut fixture = Fixture::new();
    (fixture.options.expected, fixture.options.accept_rollback) = (Some(mark), true);
    let store = fixture.open();
    assert_eq!(store.rules().len(), 1);
    assert!(store.mark().incarnation > mark.incarnation);
}

#[tokio::test]
async fn each_start_says_how_the_last_one_ended() {
    let fixture = Fixture::new();
    fixture.open().close();
    drop(fixture.open());
    let store = fixture.open();
    let events = store.events(Position::new(1), 100).await.unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|event| event.read().unwrap())
        .map(|event| (event.kind, event.detail.unwrap().note))
        .collect();
    let started = |note: &str| (EventKind::Started, note.to_owned());
    let expected = [
        started("the first start"),
        (EventKind::Stopped, String::new()),
        started("the earlier stop was clean"),
        (EventKind::StartedUnclean, "the earlier stop was not clean".to_owned()),
    ];
    assert_eq!(told, expected);
    assert_eq!(store.status().start.0, 3);
}

#[tokio::test]
async fn leases_that_are_old_or_too_many_are_pruned_and_their_events_stay() {
    let fixture = Fixture::new().with(|options| {
        options.retention = Duration::from_secs(3600);
        options.max_leases = 150;
    });
    let store = fixture.open();
    let mut ids = Vec::new();
    for _ in 0..200 {
        let new = drawn(&*store);
        ids.push(new.lease.id);
        issue(&*store, new).await;
    }
    assert_eq!(store.leases_kept(), 200, "live ones are kept, however many");
    fixture.clock.advance(Duration::from_secs(301));
    revoke(&*store, revocation(owner("payments"))).await;
    let last = drawn(&*store);
    issue(&*store, last.clone()).await;
    fixture.until(|| store.leases_kept() == 150).await;
    assert_eq!(store.lease(ids[0]).await.unwrap(), None);
    assert!(store.lease(ids[199]).await.unwrap().is_some());
    let low = dayfly_core::change::Issue {
        lease: dayfly_core::lease::Lease { id: ids[0], ..last.lease },
        decided_under: store.mark().position,
        caps: last.caps,
    };
    let taken = issue(&*store, low).await;
    assert!(matches!(taken, Outcome::Conflict(dayfly_core::change::Conflict::IdTaken)), "{taken:?}");
    fixture.clock.advance(Duration::from_secs(3600 + 60));
    issue(&*store, drawn(&*store)).await;
    fixture.until(|| store.leases_kept() == 1).await;
    store.close();
    drop(store);
    let report = verify(&fixture.dir()).unwrap();
    assert_eq!((report.leases, report.problems), (1, Vec::new()));
    assert!(report.events > 203);
}

#[tokio::test]
async fn the_witness_is_on_another_disk_and_keeps_the_last_mark() {
    let fixture = Fixture::new();
    let beside = fixture.folder.path().join("witness.json");
    let refused = FileWitness::new(&beside, &fixture.dir(), false).err().unwrap();
    assert!(refused.to_string().contains("danger_witness_beside_store"), "{refused}");
    assert!(FileWitness::new("/dev/shm/dayfly/witness.json", &fixture.dir(), false).is_ok());
    let witness = FileWitness::new(&beside, &fixture.dir(), true).unwrap();
    assert_eq!(witness.read().await.unwrap(), None);
    let store: Arc<SledStore> = fixture.open();
    for _ in 0..2 {
        issue(&*store, drawn(&*store)).await;
        witness.write(store.mark()).await.unwrap();
        assert_eq!(witness.read().await.unwrap(), Some(store.mark()));
    }
    fs::write(&beside, "{}").unwrap();
    assert!(witness.read().await.is_err(), "a witness that says nothing is not one that has seen nothing");
}

/// What the start-up check is for: sled's syncs go another way than through ours. They do in a copy of this program
/// whose `sync_file_range` returns 0 at once and counts nothing, as the kernel's does.
#[test]
fn a_store_whose_syncs_go_another_way_is_refused() {
    let Some(return_zero) = elf::RETURN_ZERO else {
        println!("skipped: no machine code of {} for a function that returns 0", std::env::consts::ARCH);
        return;
    };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let opening = |store: &str| {
        let output = run(&program, &folder.path().join(store));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    let said = opening("store");
    assert!(said.contains("opening it gave Ok(())\n"), "the same program, unchanged: {said}");
    elf::overwrite(&program, "sync_file_range", return_zero);
    for store in ["new", "store"] {
        let said = opening(store);
        assert!(said.contains("opening it gave Err(NotDurable)\n"), "{store}: {said}");
    }
}

/// Runs the helper below in another process, by this program.
fn run(program: &Path, dir: &Path) -> Output {
    loop {
        let output = Command::new(program)
            .args(["--exact", "opening::opening_workload", "--nocapture", "--test-threads=1"])
            .env("DAYFLY_OPENING_DIR", dir)
            .output();
        // A process that another test was starting meanwhile holds the file as it was being written, until it runs.
        if !output.as_ref().is_err_and(|error| error.kind() == ErrorKind::ExecutableFileBusy) {
            return output.unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What that process does; nothing when run as a test.
#[test]
fn opening_workload() {
    let Ok(dir) = std::env::var("DAYFLY_OPENING_DIR") else { return };
    let fixture = Fixture::new().with(|options| options.dir = dir.into());
    println!("opening it gave {:?}", fixture.try_open().map(|store| store.close()));
}
