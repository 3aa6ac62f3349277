//! Rules by an image's digest.

use std::sync::Arc;

use dayfly_broker::{Error, Reason, RevokeRequest, Revoked, Which};
use dayfly_core::ports::PodFacts;
use dayfly_core::provenance::Image;
use dayfly_core::rule::{After, Fields};

use crate::support::{World, api, bearer, operator, orders, refused};

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

fn runs(letters: &str, known: bool) -> impl FnOnce(PodFacts) -> Option<PodFacts> {
    let image = |letter: char| Image { container: letter.to_string(), digest: digest(letter) };
    let images: Arc<[Image]> = letters.chars().map(image).collect();
    move |pod| Some(PodFacts { images, images_known: known, ..pod })
}

fn of_image(letter: char, owner: Option<&str>, after: After) -> RevokeRequest {
    let owner = owner.map(|owner| owner.parse().unwrap());
    RevokeRequest {
        which: Which::fields(Fields { image: digest(letter).parse().ok(), owner, ..Fields::default() }),
        after,
        reason: "a bad image".to_owned(),
        dry_run: false,
        idempotency_key: None,
    }
}

async fn revoke(world: &World, request: &RevokeRequest) -> Result<Revoked, Error> {
    world.broker.revoke(bearer(&operator("alice")), request).await
}

fn warnings(revoked: Revoked) -> Vec<String> {
    match revoked {
        Revoked::Written { warnings, .. } | Revoked::DryRun { warnings, .. } => warnings,
    }
}

#[tokio::test]
async fn without_an_owner_it_takes_the_right_over_all() {
    let world = World::new();
    world.east().allow("alice", "revoke", Some("payments"));
    let refusal = refused(revoke(&world, &of_image('a', None, After::Reissue)).await);
    assert_eq!(refusal.reason(), Reason::NotAllowed);
    revoke(&world, &of_image('a', Some("payments"), After::Reissue)).await.unwrap();
    world.east().allow("alice", "revoke", None);
    revoke(&world, &of_image('a', None, After::Reissue)).await.unwrap();
}

#[tokio::test]
async fn a_hold_refuses_what_runs_the_image_and_what_may() {
    let world = World::new();
    world.east().allow("alice", "revoke", None);
    world.east().pod("api-0", runs("bc", true));
    let issued = world.issued().await.lease;
    let Revoked::Written { rule, warnings, .. } =
        revoke(&world, &of_image('a', None, After::Hold)).await.unwrap()
    else {
        panic!("it was written")
    };
    assert!(!rule.covers(&issued) && warnings.len() == 1, "{warnings:?}");
    world.issued().await;

    world.east().pod("api-0", runs("ba", true));
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::Held);
    // Of two containers one is not known yet.
    for known in ["b", ""] {
        world.east().pod("api-0", runs(known, false));
        let refusal = world.refusal(&orders()).await;
        assert_eq!(refusal.reason(), Reason::ImageUnknown);
        assert!(matches!(refusal, Error::Unavailable { .. }), "{refusal:?}");
    }
    // One that is known to run it is held, whatever the others do.
    world.east().pod("api-0", runs("a", false));
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::Held);
}

#[tokio::test]
async fn a_hold_of_another_owners_image_is_no_reason_to_wait() {
    let world = World::new();
    world.east().allow("alice", "revoke", None);
    world.east().pod("api-0", runs("", false));
    revoke(&world, &of_image('a', Some("checkout"), After::Hold)).await.unwrap();
    revoke(&world, &of_image('a', None, After::Reissue)).await.unwrap();
    world.issued().await;
    revoke(&world, &of_image('a', Some("payments"), After::Hold)).await.unwrap();
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::ImageUnknown);
}

#[tokio::test]
async fn a_dry_run_says_of_how_many_the_images_are_not_known() {
    let world = World::new();
    world.east().allow("alice", "revoke", None);
    for (letters, known) in [("a", true), ("b", true), ("b", false), ("", false)] {
        world.east().pod("api-0", runs(letters, known));
        world.issue(&api(), &orders()).await.ok().unwrap();
    }
    let dry = RevokeRequest { dry_run: true, ..of_image('a', None, After::Reissue) };
    let dry = revoke(&world, &dry).await.unwrap();
    assert!(matches!(dry, Revoked::DryRun { leases: 1, .. }), "{dry:?}");
    let told = warnings(dry);
    assert!(told.len() == 1 && told[0].starts_with("2 more live leases"), "{told:?}");
}
