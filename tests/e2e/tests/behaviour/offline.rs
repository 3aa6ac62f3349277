//! Resource servers that check credentials offline: the example of `docs/how-to/verify.md`, beside the real broker.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dayfly_api::v1;
use dayfly_e2e::broker::{ISSUER, Options, TRUST_DOMAIN};
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::policy;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{Team, VERIFIER, World, owned_by};
use dayfly_verify::{Profile, Proof, Refused, Verifier};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

/// What the page shows, as it is.
#[expect(dead_code, unreachable_pub, reason = "a program of its own, whose main is not called here")]
#[path = "../../../../docs/examples/orders.rs"]
mod orders;

on_both!(
    the_example_stops_to_take_a_token_within_a_second_of_dayfly_revoke,
    a_verifier_goes_on_after_a_crash_of_the_broker_and_hears_what_it_missed,
    a_verifier_of_svids_takes_them_alone,
    what_no_claim_says_is_refused_once_it_is_spelled_out,
    who_is_no_verifier_accepts_nothing,
);

/// Longer than a broker takes to start, and a verifier to try again.
const PATIENCE: Duration = Duration::from_secs(30);
const SCOPES: [&str; 2] = ["orders:read", "orders:write"];

/// A team whose target has the scopes of the example; its Grant has only the first.
async fn team(world: &World, name: &str, svid: bool) -> Team {
    let mut team = world.unsettled_team(name).await.unwrap();
    team.target_object["spec"]["ceiling"][0]["scopes"] = json!(SCOPES);
    if svid {
        policy::to_svid(&mut team.target_object, TRUST_DOMAIN);
    }
    team.grant_object["spec"]["scope"] = json!(SCOPES[..1]);
    world.put(&[&team.owner_object, &team.target_object, &team.grant_object]).await.unwrap();
    team
}

/// The verifier's own token, in a file.
async fn token_file(world: &World, namespace: &str, account: &str) -> PathBuf {
    let pod = world.pod(namespace, account).await.unwrap();
    let file = world.broker().dir().join(format!("{}.token", pod.name));
    std::fs::write(&file, pod.token_for(VERIFIER).await.unwrap()).unwrap();
    file
}

async fn verifier(world: &World, team: &Team, profile: Profile) -> Verifier {
    let verifier = Verifier::builder(profile)
        .audience(policy::audience(&team.target))
        .scope("orders:read")
        .broker(
            format!("https://127.0.0.1:{}", world.broker().port()),
            world.broker().dir().join("ca.crt"),
            token_file(world, &team.namespace, "gate").await,
        )
        .build()
        .unwrap();
    timeout(PATIENCE, verifier.ready()).await.unwrap();
    verifier
}

fn access_tokens() -> Profile {
    Profile::AccessToken { issuer: ISSUER.to_owned() }
}

async fn credential(world: &World, team: &Team) -> v1::IssueResponse {
    world.pod(&team.namespace, "api").await.unwrap().issue(&team.target).await.unwrap()
}

/// The status, the challenge and the body that a request gets.
async fn ask(at: SocketAddr, method: &str, path: &str, token: Option<&str>) -> (u16, String, String) {
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--request", method]);
    curl.args(["--write-out", "\n%header{www-authenticate}\n%{http_code}"]);
    if let Some(token) = token {
        curl.args(["--header", &format!("authorization: Bearer {token}")]);
    }
    let output = curl.arg(format!("http://{at}{path}")).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (rest, status) = text.rsplit_once('\n').unwrap();
    let (body, challenge) = rest.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), challenge.to_owned(), body.to_owned())
}

async fn the_example_stops_to_take_a_token_within_a_second_of_dayfly_revoke(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = team(&world, "payments", false).await;
    let file = token_file(&world, &team.namespace, "gate").await;
    let server = format!("https://127.0.0.1:{}", world.broker().port());
    let verifier = orders::verifier(|name| {
        Ok(match name {
            "DAYFLY_ISSUER" => ISSUER.to_owned(),
            "ORDERS_AUDIENCE" => policy::audience(&team.target),
            "DAYFLY_BROKER" => server.clone(),
            "DAYFLY_CA_FILE" => world.broker().dir().join("ca.crt").display().to_string(),
            "DAYFLY_TOKEN_FILE" => file.display().to_string(),
            _ => return Err(format!("{name} is not set")),
        })
    })
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, orders::app(verifier)).await });
    until(async || Ok(ask(at, "GET", "/ready", None).await.0 == 200)).await.unwrap();

    let issued = credential(&world, &team).await;
    let token = issued.credential.as_str();
    let (status, challenge, body) = ask(at, "GET", "/orders", Some(token)).await;
    assert_eq!((status, &*challenge), (200, ""), "{body}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["for"], format!("east:{}:api", team.namespace));
    assert_eq!(body["owner"], team.owner);
    assert_eq!(ask(at, "GET", "/orders", None).await, (401, "Bearer".to_owned(), String::new()));
    let (status, challenge, _) = ask(at, "POST", "/orders", Some(token)).await;
    assert!(status == 403 && challenge.contains(r#"error="insufficient_scope""#), "{status} {challenge}");

    let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    let operators = world.broker().dir().join(format!("{}.operator", team.owner));
    std::fs::write(&operators, operator.token()).unwrap();
    let (status, said) = world
        .broker()
        .command(&[
            "revoke",
            "--owner",
            &team.owner,
            "--after=reissue",
            "--reason=a test says so",
            "--server",
            &server,
            "--ca-file=ca.crt",
            "--token-file",
            operators.to_str().unwrap(),
        ])
        .await
        .unwrap();
    let revoked = Instant::now();
    assert!(status.success(), "{said}");
    let (status, challenge, _) = loop {
        let answer = ask(at, "GET", "/orders", Some(token)).await;
        if answer.0 != 200 {
            break answer;
        }
        assert!(revoked.elapsed() < Duration::from_secs(1), "it is taken {:?} later", revoked.elapsed());
    };
    assert!(revoked.elapsed() < Duration::from_secs(1), "{:?}", revoked.elapsed());
    assert_eq!(status, 401);
    assert_eq!(challenge, r#"Bearer error="invalid_token", error_description="the token was revoked""#);
    let again = credential(&world, &team).await;
    assert_eq!(ask(at, "GET", "/orders", Some(&again.credential)).await.0, 200, "it was for reissue");
}

async fn a_verifier_goes_on_after_a_crash_of_the_broker_and_hears_what_it_missed(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = team(&world, "payments", false).await;
    let verifier = verifier(&world, &team, access_tokens()).await;
    let issued = credential(&world, &team).await;
    let says = |verifier: &Verifier| verifier.verify(&issued.credential, Proof::Nothing).map(drop);
    assert_eq!(says(&verifier), Ok(()));

    world.broker().kill9().await.unwrap();
    assert_eq!(says(&verifier), Ok(()), "the broker was heard a moment ago");
    until(async || Ok(says(&verifier) == Err(Refused::RevocationsUnknown))).await.unwrap();
    assert!(!verifier.is_ready());
    world.broker().launch().await.unwrap();
    until(async || Ok(says(&verifier) == Ok(()))).await.unwrap();

    // Written while nobody listens, or before the stream is there again: told first, or not accepted.
    world.broker().restart().await.unwrap();
    let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    operator.revoke(owned_by(&team.owner)).await.unwrap();
    until(async || Ok(says(&verifier) == Err(Refused::Revoked))).await.unwrap();
    let fresh = self::verifier(&world, &team, access_tokens()).await;
    assert_eq!(says(&fresh), Err(Refused::Revoked), "it is in the first list");
}

async fn a_verifier_of_svids_takes_them_alone(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (svids, tokens) = (team(&world, "billing", true).await, team(&world, "payments", false).await);
    let svid = credential(&world, &svids).await;
    let token = credential(&world, &tokens).await;
    let profile = Profile::Svid { trust_domain: TRUST_DOMAIN.parse().unwrap() };
    let of_svids = verifier(&world, &svids, profile).await;
    let of_tokens = verifier(&world, &tokens, access_tokens()).await;
    let verified = of_svids.verify(&svid.credential, Proof::Nothing).unwrap();
    assert_eq!(verified.owner().as_str(), svids.owner);
    assert_eq!(verified.lease().to_string(), svid.lease.unwrap().id);
    assert_eq!(of_svids.verify(&token.credential, Proof::Nothing), Err(Refused::Typ));
    assert_eq!(of_tokens.verify(&svid.credential, Proof::Nothing), Err(Refused::Typ));
    assert!(of_tokens.verify(&token.credential, Proof::Nothing).is_ok());
    let operator = world.operator(&["revoke"], Some(&svids.owner)).await.unwrap();
    operator.revoke(owned_by(&svids.owner)).await.unwrap();
    let says = async || Ok(of_svids.verify(&svid.credential, Proof::Nothing) == Err(Refused::Revoked));
    until(says).await.unwrap();
    assert!(of_tokens.verify(&token.credential, Proof::Nothing).is_ok(), "another owner's");
}

async fn what_no_claim_says_is_refused_once_it_is_spelled_out(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = team(&world, "payments", false).await;
    let verifier = verifier(&world, &team, access_tokens()).await;
    let (issued, other) = (credential(&world, &team).await, credential(&world, &team).await);
    let admin = world.admin().await.unwrap();
    let lease = admin.lease(&issued.lease.unwrap().id).await.unwrap();
    let credential_id = lease.workload.unwrap().credential_id;
    assert!(verifier.verify(&issued.credential, Proof::Nothing).is_ok());
    admin.revoke(v1::Selector { credential_id, ..v1::Selector::default() }).await.unwrap();
    let says = async || Ok(verifier.verify(&issued.credential, Proof::Nothing) == Err(Refused::Revoked));
    until(says).await.unwrap();
    assert!(verifier.verify(&other.credential, Proof::Nothing).is_ok(), "got with another token");
    let fresh = self::verifier(&world, &team, access_tokens()).await;
    let says = async || Ok(fresh.verify(&issued.credential, Proof::Nothing) == Err(Refused::Revoked));
    until(says).await.unwrap();
}

async fn who_is_no_verifier_accepts_nothing(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = team(&world, "payments", false).await;
    let issued = credential(&world, &team).await;
    let verifier = Verifier::builder(access_tokens())
        .audience(policy::audience(&team.target))
        .broker(
            format!("https://127.0.0.1:{}", world.broker().port()),
            world.broker().dir().join("ca.crt"),
            token_file(&world, &team.namespace, "api").await,
        )
        .build()
        .unwrap();
    let says = || verifier.verify(&issued.credential, Proof::Nothing).map(drop);
    until(async || Ok(says() == Err(Refused::RevocationsUnknown))).await.unwrap();
    assert!(timeout(Duration::from_secs(3), verifier.ready()).await.is_err());
    assert_eq!(says(), Err(Refused::RevocationsUnknown));
}
