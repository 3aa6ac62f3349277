use dayfly_broker::{IssueRequest, Reason};
use dayfly_core::ports::KeyUse;

use crate::support::{POLICY, World, api, orders, refused, web};

const JWT: &str = "jwt: {audiences: ['https://orders.example']}";
const RS256: &str = "jwt: {audiences: ['https://orders.example'], signingAlgorithm: RS256}";
const SVID: &str = "svid: {trustDomain: prod.example, audiences: ['https://orders.example']}";

fn with(kind: &str) -> String {
    let policy = POLICY.replace(JWT, kind);
    assert_ne!(policy, POLICY);
    policy
}

#[tokio::test]
async fn a_target_without_its_key_says_what_to_do_to_those_that_it_is_for() {
    let world = World::new();
    world.policy(&with(RS256));
    let error = world.refusal(&orders()).await;
    assert_eq!(error.reason(), Reason::SigningKeyMissing);
    assert!(error.to_string().contains("dayfly keys import FILE --target east/orders"), "{error}");
    // Who has no Grant, or may not have the scope, is told that, and nothing of keys.
    let none = with(RS256).replace("serviceAccounts: [web]", "serviceAccounts: [other]");
    world.policy(&none);
    assert_eq!(refused(world.issue(&web(), &orders()).await).reason(), Reason::GrantMissing);
    let admin = IssueRequest { scope: vec!["admin".parse().unwrap()], ..orders() };
    assert_eq!(world.refusal(&admin).await.reason(), Reason::ScopeNotGranted);
    assert_eq!(world.store.all(), []);
}

#[tokio::test]
async fn an_svid_says_who_its_holder_is() {
    let world = World::new();
    world.policy(&with(SVID));
    let lease = world.issued().await.lease;
    assert_eq!(lease.spiffe_id.as_ref().unwrap().as_str(), "spiffe://prod.example/ns/payments/sa/api");
    assert_eq!(lease.key_use(), KeyUse::Svid("prod.example".parse().unwrap()));

    // The trust domain serves two clusters: equal names in them are two identities.
    let world = World::of(&["east", "west"], None).unwrap();
    world.policy(&with(SVID));
    let lease = world.issued().await.lease;
    assert_eq!(
        lease.spiffe_id.as_ref().unwrap().as_str(),
        "spiffe://prod.example/cluster/east/ns/payments/sa/api"
    );
}

#[tokio::test]
async fn a_repeat_is_refused_when_the_target_has_become_another_kind() {
    let world = World::new();
    let keyed = IssueRequest { idempotency_key: Some("k".to_owned()), ..orders() };
    world.issue(&api(), &keyed).await.unwrap_or_else(|error| panic!("{error}"));
    world.policy(&with(SVID));
    assert_eq!(world.refusal(&keyed).await.reason(), Reason::DecisionChanged);
}
