//! The lives of the signing keys: rotation by schedule and by command, revoked keys, imported keys, and the key-encryption
//! key's successors.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use dayfly_api::v1;
use dayfly_api::v1::KeyStage::{Active, Next, Retired, Retiring, Revoked};
use dayfly_e2e::broker::{Options, TRUST_DOMAIN};
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::jwt;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{Operator, World, reason};
use serde_json::{Value, json};

on_both!(
    a_next_key_is_published_before_it_signs_and_the_earlier_one_still_verifies,
    keys_rotate_by_schedule_and_retire_after_their_last_token,
    a_revoked_key_is_gone_within_the_answer_and_all_that_it_signed,
    an_imported_key_is_the_next_one_of_its_target,
    the_key_encryption_key_is_replaced_while_the_broker_runs,
);

const ACCESS: &str = "access-token";
const DAY: i64 = 24 * 3600;

/// Next keys are published for so many seconds.
fn published_for(secs: u64) -> Options {
    Options { keys: BTreeMap::from([("publish_before_secs", secs)]), ..Options::default() }
}

/// The ids in a JWK Set or bundle.
fn kids(set: &str) -> Vec<String> {
    let set: Value = serde_json::from_str(set).unwrap();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// The JWK Set over HTTPS, the same as over gRPC.
async fn jwks(world: &World) -> String {
    let served = world.fetch("/.well-known/jwks.json").await.unwrap().unwrap();
    assert_eq!(served, world.keys().await.unwrap().jwks);
    served
}

fn kid(credential: &str) -> String {
    jwt::read(credential).unwrap().header["kid"].as_str().unwrap().to_owned()
}

/// The stages of a purpose's keys, oldest first.
async fn stages(keeper: &Operator, purpose: &str) -> Vec<v1::KeyStage> {
    let keys = keeper.signing_keys().await.unwrap();
    keys.iter().filter(|key| key.purpose == purpose).map(v1::KeyInfo::stage).collect()
}

async fn keeper(world: &World) -> Operator {
    world.key_operator(&["list", "rotate", "revoke"], None).await.unwrap()
}

async fn is_whole(world: &World) {
    let store = world.broker().store_dir().display().to_string();
    let (status, said) = world.broker().command(&["store", "verify", &store]).await.unwrap();
    assert!(status.success() && said.contains("whole"), "{said}");
}

async fn a_next_key_is_published_before_it_signs_and_the_earlier_one_still_verifies(kind: Kind) {
    let world = World::with_own_broker(kind, published_for(4)).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let before = pod.issue(&team.target).await.unwrap().credential;
    let (first, keeper) = (kid(&before), keeper(&world).await);

    let rotated = keeper.rotate_key(ACCESS, false).await.unwrap();
    let next = rotated.key.unwrap();
    assert_eq!((next.stage(), rotated.refresh_secs), (Next, 2));
    let published = jwks(&world).await;
    assert!(kids(&published).contains(&next.id) && kids(&published).contains(&first));
    let again = keeper.rotate_key(ACCESS, false).await.unwrap().key.unwrap();
    assert_eq!(again.id, next.id, "one next key is enough");
    assert_eq!(kid(&pod.issue(&team.target).await.unwrap().credential), first);

    // A crash does not lose it, and it is published anew for as long.
    world.broker().kill9().await.unwrap();
    world.broker().launch().await.unwrap();
    assert_eq!(stages(&keeper, ACCESS).await, [Active, Next]);
    assert_eq!(kids(&jwks(&world).await), kids(&published), "the same set in the same order");
    assert_eq!(kid(&pod.issue(&team.target).await.unwrap().credential), first);
    until(async || Ok(stages(&keeper, ACCESS).await == [Retiring, Active])).await.unwrap();
    // Whoever asked once while it was next verifies what it signs, and all verify what the first one signed.
    let after = pod.issue(&team.target).await.unwrap().credential;
    assert_eq!(kid(&after), next.id);
    jwt::verify(&after, &published).unwrap();
    for token in [&before, &after] {
        jwt::verify(token, &jwks(&world).await).unwrap();
        let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
        assert_eq!(verifier.state(token).await.unwrap(), v1::LeaseState::Active);
    }
    world.broker().kill9().await.unwrap();
    world.broker().launch().await.unwrap();
    assert_eq!(stages(&keeper, ACCESS).await, [Retiring, Active]);

    // At once, for those who say so; a bundle's sequence grows.
    let path = format!("/spiffe/{TRUST_DOMAIN}/bundle.json");
    let bundle =
        async || -> Value { serde_json::from_str(&world.fetch(&path).await.unwrap().unwrap()).unwrap() };
    let earlier = bundle().await;
    assert_eq!(earlier["spiffe_refresh_hint"], 2);
    let svid = keeper.rotate_key(&format!("svid/{TRUST_DOMAIN}"), true).await.unwrap().key.unwrap();
    assert_eq!(svid.stage(), Active);
    let later = bundle().await;
    assert!(later["spiffe_sequence"].as_u64() > earlier["spiffe_sequence"].as_u64());
    assert_eq!(later["keys"].as_array().unwrap().len(), 2);
    // Other purposes are as they were.
    assert_eq!(stages(&keeper, "access-token/EdDSA").await, [Active]);

    // What one may not: without the right, of another purpose, or what there is not.
    let reader = world.key_operator(&["list"], None).await.unwrap();
    let other = world.key_operator(&["rotate"], Some("access-token/EdDSA")).await.unwrap();
    let denied = [
        reader.rotate_key(ACCESS, false).await.err(),
        reader.revoke_key(&first, "why").await.err(),
        other.rotate_key(ACCESS, false).await.err(),
        other.signing_keys().await.err(),
        world.admin().await.unwrap().signing_keys().await.err(),
    ];
    assert!(denied.iter().all(|it| it.as_ref().is_some_and(|it| reason(it) == "NOT_ALLOWED")), "{denied:?}");
    let unknown = keeper.rotate_key("access-token/RS256/east/nothing", false).await.unwrap_err();
    assert_eq!(reason(&unknown), "NOT_FOUND");
    assert_eq!(reason(&keeper.rotate_key("HS256", false).await.unwrap_err()), "INVALID_FIELD");
    is_whole_when_stopped(&world).await;
}

async fn is_whole_when_stopped(world: &World) {
    world.broker().stop().await.unwrap();
    is_whole(world).await;
}

async fn keys_rotate_by_schedule_and_retire_after_their_last_token(kind: Kind) {
    let world =
        World::with_own_broker(kind, Options { clock_ahead: Some(0), ..published_for(2) }).await.unwrap();
    let first = kids(&jwks(&world).await);
    let at = async |ahead: i64| {
        world.broker().stop().await.unwrap();
        world.broker().set_clock(ahead).unwrap();
        world.broker().launch().await.unwrap();
    };
    at(29 * DAY).await;
    assert_eq!(kids(&jwks(&world).await), first, "not before it is due");
    // The next of each algorithm is published.
    at(30 * DAY + 60).await;
    let both = kids(&jwks(&world).await);
    assert_eq!(both.len(), 4);
    assert!(first.iter().all(|kid| both.contains(kid)));
    let svid = format!("svid/{TRUST_DOMAIN}");
    let activated = async || {
        let log = world.broker().log();
        let twice = |purpose: &str| log.matches(&format!("purpose={purpose} stage=active")).count() >= 2;
        Ok([ACCESS, "access-token/EdDSA", &svid].into_iter().all(twice))
    };
    until(activated).await.unwrap();
    // A day later a token of the longest life may be alive, an hour after that none is.
    at(31 * DAY).await;
    assert_eq!(kids(&jwks(&world).await), both);
    let sequence = async || {
        let bundle = world.fetch(&format!("/spiffe/{TRUST_DOMAIN}/bundle.json")).await.unwrap().unwrap();
        serde_json::from_str::<Value>(&bundle).unwrap()["spiffe_sequence"].as_u64().unwrap()
    };
    let before = sequence().await;
    at(31 * DAY + 2 * 3600).await;
    let left = kids(&jwks(&world).await);
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|kid| !first.contains(kid)));
    assert!(sequence().await > before, "a key that retires is a change of the bundle");
    is_whole_when_stopped(&world).await;
}

async fn a_revoked_key_is_gone_within_the_answer_and_all_that_it_signed(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let leaked = pod.issue(&team.target).await.unwrap().credential;
    let key = kid(&leaked);
    let named = world.key_operator(&["revoke"], Some(&key)).await.unwrap();
    let keeper = keeper(&world).await;

    // By the command line, with the right on this key alone.
    let token = world.broker().dir().join("operator.token");
    std::fs::write(&token, named.token()).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let server = format!("https://127.0.0.1:{}", world.broker().port());
    let token = token.display().to_string();
    let dayfly = async |arguments: &[&str]| {
        let connection = ["--server", &server, "--ca-file", "ca.crt", "--token-file", &token];
        world.broker().command(&[arguments, &connection].concat()).await.unwrap()
    };
    let (status, said) = dayfly(&["keys", "list"]).await;
    assert_eq!(status.code(), Some(3), "{said}");
    let (status, said) = dayfly(&["keys", "revoke", &key, "--reason", "it was in a backup"]).await;
    assert!(status.success() && said.contains("from now on") && said.contains("300 s"), "{said}");

    assert!(!kids(&jwks(&world).await).contains(&key));
    assert!(jwt::verify(&leaked, &jwks(&world).await).is_err());
    assert_eq!(verifier.state(&leaked).await.unwrap(), v1::LeaseState::Revoked);
    let fresh = pod.issue(&team.target).await.unwrap().credential;
    assert_ne!(kid(&fresh), key);
    jwt::verify(&fresh, &jwks(&world).await).unwrap();
    assert_eq!(verifier.state(&fresh).await.unwrap(), v1::LeaseState::Active);
    assert_eq!(stages(&keeper, ACCESS).await, [Revoked, Active]);
    let lease = jwt::read(&leaked).unwrap().claims["jti"].as_str().unwrap().to_owned();
    let admin = world.admin().await.unwrap();
    let rule = admin.revocation(&admin.lease(&lease).await.unwrap().revoked_by).await.unwrap();
    assert_eq!((rule.selector.unwrap().key_id, &*rule.reason), (key.clone(), "it was in a backup"));
    let again = keeper.revoke_key(&key, "again").await.unwrap_err();
    assert_eq!(reason(&again), "KEY_STAGE");
    assert_eq!(reason(&keeper.revoke_key("unknown", "why").await.unwrap_err()), "NOT_FOUND");

    world.broker().kill9().await.unwrap();
    world.broker().launch().await.unwrap();
    assert!(!kids(&jwks(&world).await).contains(&key));
    assert_eq!(verifier.state(&leaked).await.unwrap(), v1::LeaseState::Revoked);
    assert_eq!(kid(&pod.issue(&team.target).await.unwrap().credential), kid(&fresh));
    is_whole_when_stopped(&world).await;
}

/// Imports one of the keys of the tests while the broker is stopped.
async fn import(world: &World, file: &str, target: &str) -> (std::process::ExitStatus, String) {
    const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/jose/src/import/keys_of_tests");
    let pem = world.broker().dir().join(file);
    std::fs::copy(format!("{KEYS}/{file}.pem"), &pem).unwrap();
    std::fs::set_permissions(&pem, std::fs::Permissions::from_mode(0o600)).unwrap();
    let pem = pem.display().to_string();
    let arguments = ["keys", "import", &pem, "--target", target, "--config", "dayfly.toml"];
    world.broker().command(&arguments).await.unwrap()
}

async fn an_imported_key_is_the_next_one_of_its_target(kind: Kind) {
    let world = World::with_own_broker(kind, published_for(4)).await.unwrap();
    let mut team = world.unsettled_team("orders").await.unwrap();
    team.target_object["spec"]["jwt"]["signingAlgorithm"] = json!("RS256");
    world.put(&[&team.owner_object, &team.target_object, &team.grant_object]).await.unwrap();
    let (pod, keeper) = (world.pod(&team.namespace, "api").await.unwrap(), keeper(&world).await);
    let purpose = format!("access-token/RS256/east/{}", team.target);

    world.broker().stop().await.unwrap();
    let (status, said) = import(&world, "rsa2048", &team.target).await;
    assert!(status.success() && said.contains("active"), "{said}");
    world.broker().launch().await.unwrap();
    let before = pod.issue(&team.target).await.unwrap().credential;
    let none = keeper.rotate_key(&purpose, true).await.unwrap_err();
    assert_eq!(reason(&none), "KEY_STAGE");
    assert!(none.message().contains("dayfly keys import FILE"), "{}", none.message());

    world.broker().stop().await.unwrap();
    let (status, said) = import(&world, "rsa3072", &team.target).await;
    assert!(status.success() && said.contains("next"), "{said}");
    let (status, said) = import(&world, "rsa4096", &team.target).await;
    assert!(!status.success() && said.contains("is the next key"), "{said}");
    world.broker().launch().await.unwrap();
    let published = jwks(&world).await;
    assert_eq!(stages(&keeper, &purpose).await, [Active, Next]);
    assert_eq!(kid(&pod.issue(&team.target).await.unwrap().credential), kid(&before));
    until(async || Ok(stages(&keeper, &purpose).await == [Retiring, Active])).await.unwrap();
    let after = pod.issue(&team.target).await.unwrap().credential;
    for token in [&before, &after] {
        assert_eq!(jwt::verify(token, &published).unwrap().header["alg"], "RS256");
    }
    assert_ne!(kid(&after), kid(&before));

    // Nothing takes the place of a revoked one by itself, and it does not come back.
    let revoked = keeper.revoke_key(&kid(&after), "it leaked").await.unwrap();
    assert!(revoked.was_active && revoked.instead.is_none(), "{revoked:?}");
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "SIGNING_KEY_MISSING");
    world.broker().stop().await.unwrap();
    let (status, said) = import(&world, "rsa3072", &team.target).await;
    assert!(!status.success() && said.contains("revoked"), "{said}");
    let (status, said) = import(&world, "rsa4096", &team.target).await;
    assert!(status.success(), "{said}");
    world.broker().launch().await.unwrap();
    pod.issue(&team.target).await.unwrap();
    assert_eq!(stages(&keeper, &purpose).await, [Retiring, Revoked, Active]);
    assert!(!stages(&keeper, &purpose).await.contains(&Retired));
}

async fn the_key_encryption_key_is_replaced_while_the_broker_runs(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let keeper = keeper(&world).await;
    let before = pod.issue(&team.target).await.unwrap().credential;
    let file = |name: &str| world.broker().dir().join(name);
    // Half a key is none: what is there goes on.
    std::fs::write(file("new"), [7; 16]).unwrap();
    std::fs::set_permissions(file("new"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(file("new"), file("kek.2")).unwrap();
    until(async || Ok(world.broker().log().contains("must hold 32 random bytes"))).await.unwrap();
    std::fs::write(file("new"), [7; 32]).unwrap();
    std::fs::set_permissions(file("new"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(file("new"), file("kek.2")).unwrap();
    let resealed = async || {
        let keys = keeper.signing_keys().await?;
        Ok(keys.iter().all(|key| key.kek_generation == 2))
    };
    until(resealed).await.unwrap();
    assert_eq!(kid(&pod.issue(&team.target).await.unwrap().credential), kid(&before));

    std::fs::remove_file(file("kek")).unwrap();
    world.broker().kill9().await.unwrap();
    world.broker().launch().await.unwrap();
    assert!(!file("kek").exists());
    assert_eq!(kid(&pod.issue(&team.target).await.unwrap().credential), kid(&before));
    // Without the successor it does not start, and says which keys need it.
    world.broker().stop().await.unwrap();
    std::fs::rename(file("kek.2"), file("kek.3")).unwrap();
    let (status, said) = world.broker().refuses_to_start(&[]).await.unwrap();
    assert!(!status.success() && said.contains("generation 2"), "{said}");
    assert!(said.contains(&kid(&before)), "{said}");
    is_whole(&world).await;
}
