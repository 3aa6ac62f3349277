//! Revoking by an image's digest: what ran it is ended and held, and nothing else; what may run it gets nothing new.

use std::time::Duration;

use dayfly_api::v1;
use dayfly_e2e::broker::{ISSUER, Options};
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::control_plane;
use dayfly_e2e::policy;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{Pod, Team, VERIFIER, World, asking_for, reason, retry_after};
use dayfly_verify::{Profile, Proof, Refused, Verifier};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

on_both!(
    an_image_is_ended_by_its_digest_and_nothing_else,
    an_image_is_held_and_lifted,
    whoever_has_a_right_on_an_owner_ends_that_owners_alone
);

/// A running pod of service account `api` whose one container runs this image.
async fn running<'w>(world: &'w World, team: &Team, name: &str, image: &str) -> Pod<'w> {
    let pods: Api<core::Pod> = Api::namespaced(world.cluster().client(), &team.namespace);
    let mut spec = json!({ "serviceAccountName": "api", "containers": [{ "name": "main", "image": image }] });
    if world.is_real() {
        spec["nodeName"] = control_plane::NODE.into();
    }
    let pod = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap();
    let created: core::Pod = pods.create(&PostParams::default(), &pod).await.unwrap();
    world.cluster().set_pod_phase(&team.namespace, name, "Running").await.unwrap();
    world.pod_that_is(&team.namespace, "api", name, &created.metadata.uid.unwrap())
}

/// The same, as its kubelet tells of it: by the digest that is made of `letter`. The stand-in has digests of its own.
async fn reported<'w>(world: &'w World, team: &Team, name: &str, letter: char) -> (Pod<'w>, String) {
    let pod = running(world, team, name, &format!("registry.invalid/{letter}:1")).await;
    if world.is_real() {
        report(world, team, name, letter).await;
    }
    let mut digest = String::new();
    until(async || {
        let lease = lease_of(world, &pod, team).await;
        let images = lease.provenance.unwrap_or_default();
        digest = images.images.first().map(|image| image.digest.clone()).unwrap_or_default();
        Ok(images.images_known)
    })
    .await
    .unwrap();
    (pod, digest)
}

async fn report(world: &World, team: &Team, name: &str, letter: char) {
    let pods: Api<core::Pod> = Api::namespaced(world.cluster().client(), &team.namespace);
    let image = format!("registry.invalid/{letter}");
    let digest = format!("{image}@sha256:{}", letter.to_string().repeat(64));
    let status: Value = json!({ "status": { "phase": "Running", "containerStatuses": [{
        "name": "main", "image": image, "ready": true, "restartCount": 0, "imageID": digest,
    }]}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

async fn lease_of(world: &World, pod: &Pod<'_>, team: &Team) -> v1::Lease {
    let issued = pod.issue(&team.target).await.unwrap();
    world.admin().await.unwrap().lease(&issued.lease.unwrap().id).await.unwrap()
}

fn of_image(digest: &str) -> v1::Selector {
    v1::Selector { image_digest: digest.to_owned(), ..v1::Selector::default() }
}

fn of_image_of(owner: &str, digest: &str) -> v1::Selector {
    v1::Selector { owner: owner.to_owned(), ..of_image(digest) }
}

/// A verifier that applies rules to claims by itself.
pub(crate) async fn offline(world: &World, team: &Team) -> Verifier {
    let gate = world.pod(&team.namespace, "gate").await.unwrap();
    let token = world.broker().dir().join(format!("{}.token", gate.name));
    std::fs::write(&token, gate.token_for(VERIFIER).await.unwrap()).unwrap();
    let verifier = Verifier::builder(Profile::AccessToken { issuer: ISSUER.to_owned() })
        .audience(policy::audience(&team.target))
        .broker(
            format!("https://127.0.0.1:{}", world.broker().port()),
            world.broker().dir().join("ca.crt"),
            token,
        )
        .build()
        .unwrap();
    tokio::time::timeout(Duration::from_secs(30), verifier.ready()).await.unwrap();
    verifier
}

async fn an_image_is_ended_by_its_digest_and_nothing_else(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let (bad_pod, bad) = reported(&world, &team, "bad", 'b').await;
    let (good_pod, good) = reported(&world, &team, "good", 'c').await;
    assert_ne!(bad, good);
    let (ended, kept) =
        (bad_pod.issue(&team.target).await.unwrap(), good_pod.issue(&team.target).await.unwrap());
    let (verifier, offline) =
        (world.verifier(&team.namespace, "gate").await.unwrap(), offline(&world, &team).await);
    assert!(offline.verify(&ended.credential, Proof::Nothing).is_ok());

    let admin = world.admin().await.unwrap();
    // The shared broker has other tests' pods of the same image.
    let which = v1::Selector { namespace: team.namespace.clone(), ..of_image(&bad) };
    let mut dry = dayfly_e2e::world::revocation(which.clone(), v1::After::Reissue);
    dry.dry_run = true;
    let would = admin.ask(dry).await.unwrap();
    // Those that `reported` asked for are among them.
    assert!(would.would_cover >= 2 && would.rule.is_none(), "{would:?}");
    let rule = admin.revoke(which.clone()).await.unwrap();
    assert_eq!(rule.selector.clone().unwrap(), which);
    assert_eq!(verifier.state(&ended.credential).await.unwrap(), v1::LeaseState::Revoked);
    assert_eq!(verifier.state(&kept.credential).await.unwrap(), v1::LeaseState::Active);
    let says = async || Ok(offline.verify(&ended.credential, Proof::Nothing) == Err(Refused::Revoked));
    until(says).await.unwrap();
    assert!(offline.verify(&kept.credential, Proof::Nothing).is_ok());
    let mut told = v1::GetRevocationResponse::default();
    until(async || {
        told = admin.revocation_and_counts(&rule.id).await?;
        Ok(told.spelled_out.is_some_and(|spelled| spelled.complete)
            && told.counts.as_ref().is_some_and(|counts| counts.state() == v1::CountState::Counted))
    })
    .await
    .unwrap();
    assert_eq!(told.counts.unwrap().leases, would.would_cover);
    // It may ask again, and what it gets is above the cut-off.
    let again = bad_pod.issue(&team.target).await.unwrap();
    assert_eq!(verifier.state(&again.credential).await.unwrap(), v1::LeaseState::Active);
}

async fn an_image_is_held_and_lifted(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let (bad_pod, bad) = reported(&world, &team, "bad", 'b').await;
    let (good_pod, _) = reported(&world, &team, "good", 'c').await;
    let operator = world.operator(&["revoke", "lift", "get"], Some(&team.owner)).await.unwrap();
    let hold = operator.hold(of_image_of(&team.owner, &bad)).await.unwrap();
    assert_eq!(reason(&bad_pod.is_denied(&team.target).await.unwrap()), "HELD");
    good_pod.issue(&team.target).await.unwrap();
    operator.lift(&hold.id).await.unwrap();
    bad_pod.issue(&team.target).await.unwrap();
}

async fn whoever_has_a_right_on_an_owner_ends_that_owners_alone(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (ours, theirs) = (world.team("payments").await.unwrap(), world.team("checkout").await.unwrap());
    let (our_pod, bad) = reported(&world, &ours, "ours", 'd').await;
    let (their_pod, same) = reported(&world, &theirs, "theirs", 'd').await;
    assert_eq!(bad, same);
    let (our, their) =
        (our_pod.issue(&ours.target).await.unwrap(), their_pod.issue(&theirs.target).await.unwrap());
    let operator = world.operator(&["revoke"], Some(&ours.owner)).await.unwrap();
    assert_eq!(reason(&operator.revoke(of_image(&bad)).await.unwrap_err()), "NOT_ALLOWED");
    operator.revoke(of_image_of(&ours.owner, &bad)).await.unwrap();
    let of = async |team: &Team, credential: &str| {
        let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
        verifier.state(credential).await.unwrap()
    };
    assert_eq!(of(&ours, &our.credential).await, v1::LeaseState::Revoked);
    assert_eq!(of(&theirs, &their.credential).await, v1::LeaseState::Active);
}

/// Before its kubelet has reported, nobody knows what a pod runs: then it may be what is held.
#[test]
fn a_pod_of_unknown_image_gets_nothing_while_an_image_is_held() {
    dayfly_e2e::run::run(async {
        let world = World::with_own_broker(Kind::Real, Options::default()).await.unwrap();
        let team = world.team("payments").await.unwrap();
        let pod = running(&world, &team, "new", "registry.invalid/e:1").await;
        let before = lease_of(&world, &pod, &team).await;
        assert!(!before.provenance.clone().unwrap_or_default().images_known, "{before:?}");
        let bad = format!("sha256:{}", "f".repeat(64));
        let admin = world.admin().await.unwrap();
        let mut dry = dayfly_e2e::world::revocation(of_image(&bad), v1::After::Hold);
        dry.dry_run = true;
        let would = admin.ask(dry).await.unwrap();
        assert_eq!(would.would_cover, 0);
        assert!(would.warnings.iter().any(|warning| warning.contains("1 more live leases")), "{would:?}");

        let hold = admin.hold(of_image(&bad)).await.unwrap();
        let refused = pod.is_denied(&team.target).await.unwrap();
        assert_eq!((reason(&refused).as_str(), refused.code()), ("IMAGE_UNKNOWN", tonic::Code::Unavailable));
        assert!(retry_after(&refused).is_some() && refused.message().contains(&hold.id), "{refused:?}");
        // One that is named by another digest is known before anybody reports it.
        let pinned = format!("registry.invalid/e@sha256:{}", "e".repeat(64));
        running(&world, &team, "pinned", &pinned).await.issue(&team.target).await.unwrap();

        report(&world, &team, "new", 'e').await;
        until(async || Ok(pod.ask(asking_for(&team.target)).await?.is_ok())).await.unwrap();
        report(&world, &team, "new", 'f').await;
        until(async || Ok(pod.ask(asking_for(&team.target)).await?.is_err())).await.unwrap();
        assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "HELD");
        let lifter = world.operator(&["lift"], None).await.unwrap();
        lifter.lift(&hold.id).await.unwrap();
        pod.issue(&team.target).await.unwrap();
    });
}
