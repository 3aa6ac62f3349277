//! A store that cannot write: what is revoked then is in effect at once, nothing is issued, and it is written when it can be.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use dayfly_api::v1;
use dayfly_e2e::broker::{Broker, Options};
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{
    Operator, Pod, Team, Verifier, World, asking_for, owned_by, reason, retry_after, revocation,
};
use dayfly_verify::{Proof, Refused};
use tonic::Code;

use crate::images::offline;

on_both!(
    what_is_revoked_on_a_full_disk_is_in_effect_and_written_when_there_is_room,
    what_is_revoked_while_writes_fail_is_in_effect_and_written_when_they_do_not,
    what_is_revoked_while_syncs_fail_is_in_effect_and_written_when_they_do_not
);

/// A file system of its own, in memory.
struct Disk(PathBuf);

impl Disk {
    fn new(mebibytes: u32) -> Self {
        let folder = tempfile::Builder::new().prefix("dayfly-disk-").tempdir().unwrap().keep();
        let disk = Self(folder);
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(&disk.0)
            .status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "a disk that can be filled takes root: mount(8)"
        );
        disk
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Until it takes no byte more.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        let block = vec![7; 1 << 16];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&[7]).is_ok() {}
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The broker may have it for a moment longer.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn on(disk: &Path) -> Options {
    Options { store_dir: Some(disk.join("store")), reserve_bytes: Some(8 << 20), ..Options::default() }
}

/// Revokes what the team has, which cannot be written, and sees that it is in effect. Gives the rule.
async fn revoked_in_memory(
    team: &Team,
    pod: &Pod<'_>,
    operator: &Operator,
    gate: &Verifier,
    credential: &str,
) -> v1::Rule {
    let answer = operator.ask(revocation(owned_by(&team.owner), v1::After::Reissue)).await.unwrap();
    let rule = answer.rule.clone().unwrap();
    assert!(rule.in_memory_only && rule.position == 0 && !answer.can_reissue, "{answer:?}");
    assert!(answer.warnings.iter().any(|warning| warning.contains("NOT ON DISK")), "{answer:?}");
    assert_eq!(gate.state(credential).await.unwrap(), v1::LeaseState::Revoked);
    let refused = pod.is_denied(&team.target).await.unwrap();
    assert_eq!((reason(&refused).as_str(), refused.code()), ("STORE_UNAVAILABLE", Code::Unavailable));
    assert!(retry_after(&refused).is_some(), "{refused:?}");
    assert_eq!(operator.revocation(&rule.id).await.unwrap(), rule);
    rule
}

/// Waits until the rule is on disk, by what was told; then that it survives a crash, and new credentials do.
async fn is_written(world: &World, team: &Team, operator: &Operator, rule: &v1::Rule, credential: &str) {
    let mut written = v1::Rule::default();
    until(async || {
        written = operator.revocation(&rule.id).await?;
        Ok(!written.in_memory_only)
    })
    .await
    .unwrap();
    assert!(written.position > 0);
    assert_eq!(v1::Rule { position: 0, in_memory_only: true, ..written.clone() }, *rule);
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    until(async || Ok(pod.ask(asking_for(&team.target)).await?.is_ok())).await.unwrap();
    let again = pod.issue(&team.target).await.unwrap();
    assert!(again.lease.clone().unwrap().id > rule.cut_off);

    world.broker().kill9().await.unwrap();
    world.broker().launch().await.unwrap();
    let gate = world.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(gate.state(credential).await.unwrap(), v1::LeaseState::Revoked);
    assert_eq!(gate.state(&again.credential).await.unwrap(), v1::LeaseState::Active);
    assert_eq!(operator.revocation(&rule.id).await.unwrap(), written);
}

async fn what_is_revoked_on_a_full_disk_is_in_effect_and_written_when_there_is_room(kind: Kind) {
    let disk = Disk::new(96);
    let world = World::with_own_broker(kind, on(&disk.0)).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let issued = pod.issue(&team.target).await.unwrap();
    let gate = world.verifier(&team.namespace, "gate").await.unwrap();
    let offline = offline(&world, &team).await;
    assert!(offline.verify(&issued.credential, Proof::Nothing).is_ok());
    let operator = world.operator(&["revoke", "get", "lift"], Some(&team.owner)).await.unwrap();
    disk.fill();
    let rule = revoked_in_memory(&team, &pod, &operator, &gate, &issued.credential).await;
    let says = async || Ok(offline.verify(&issued.credential, Proof::Nothing) == Err(Refused::Revoked));
    until(says).await.unwrap();
    // A hold that is not on disk cannot be lifted, and is one.
    let hold = operator.hold(owned_by(&team.owner)).await.unwrap();
    assert!(hold.in_memory_only);
    assert_eq!(operator.lift(&hold.id).await.unwrap_err().code(), Code::Unavailable);

    std::fs::remove_file(disk.ballast()).unwrap();
    until(async || Ok(!operator.revocation(&hold.id).await?.in_memory_only)).await.unwrap();
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "HELD");
    operator.lift(&hold.id).await.unwrap();
    is_written(&world, &team, &operator, &rule, &issued.credential).await;
    until(says).await.unwrap();
}

async fn what_is_revoked_while_writes_fail_is_in_effect_and_written_when_they_do_not(kind: Kind) {
    revoked_while_it_fails(kind, |broker| (broker.failing(), "")).await;
}

/// sled takes this failure for none: only what counts them sees it.
async fn what_is_revoked_while_syncs_fail_is_in_effect_and_written_when_they_do_not(kind: Kind) {
    let log = revoked_while_it_fails(kind, |broker| (broker.unsynced(), "unseen by sled")).await;
    assert!(log.contains("a sync of its log failed"), "{log}");
}

/// While this file, with this in it, makes its disk fail. Gives the broker's log.
async fn revoked_while_it_fails(kind: Kind, how: fn(&Broker) -> (PathBuf, &'static str)) -> String {
    let options = Options { failing_disk: true, ..Options::default() };
    let world = World::with_own_broker(kind, options).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let issued = pod.issue(&team.target).await.unwrap();
    let gate = world.verifier(&team.namespace, "gate").await.unwrap();
    let operator = world.operator(&["revoke", "get"], Some(&team.owner)).await.unwrap();
    let (failing, with) = how(world.broker());
    std::fs::write(&failing, with).unwrap();
    let rule = revoked_in_memory(&team, &pod, &operator, &gate, &issued.credential).await;
    until(async || Ok(!world.broker().serves().await)).await.unwrap();
    std::fs::remove_file(&failing).unwrap();
    is_written(&world, &team, &operator, &rule, &issued.credential).await;
    world.broker().log()
}

/// What the answer says is so: what is not on disk when the broker ends is lost.
#[test]
fn what_is_revoked_in_memory_is_lost_with_the_broker() {
    dayfly_e2e::run::run(async {
        let disk = Disk::new(96);
        let world = World::with_own_broker(Kind::StandIn, on(&disk.0)).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let pod = world.pod(&team.namespace, "api").await.unwrap();
        let issued = pod.issue(&team.target).await.unwrap();
        let gate = world.verifier(&team.namespace, "gate").await.unwrap();
        let operator = world.operator(&["revoke", "get"], Some(&team.owner)).await.unwrap();
        disk.fill();
        let rule = revoked_in_memory(&team, &pod, &operator, &gate, &issued.credential).await;
        world.broker().kill9().await.unwrap();
        std::fs::remove_file(disk.ballast()).unwrap();
        world.broker().launch().await.unwrap();
        assert_eq!(gate.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
        assert_eq!(reason(&operator.revocation(&rule.id).await.unwrap_err()), "NOT_FOUND");
        operator.revoke(owned_by(&team.owner)).await.unwrap();
        assert_eq!(gate.state(&issued.credential).await.unwrap(), v1::LeaseState::Revoked);
    });
}
