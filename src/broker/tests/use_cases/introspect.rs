use std::time::Duration;

use dayfly_broker::{Introspection, IssueRequest, Reason};
use dayfly_core::secret::Secret;

use crate::support::{POLICY, World, api, bearer, gate, operator, orders, refused, secret};

async fn introspect(world: &World, verifier: &Secret, presented: &Secret) -> Introspection {
    world.broker.introspect(bearer(verifier), presented).await.unwrap()
}

fn state(answer: &Introspection) -> &'static str {
    answer.known.as_ref().map_or("unknown", |view| view.state.name())
}

#[tokio::test]
async fn tells_a_listed_verifier_the_state() {
    let world = World::new();
    let issued = world.issued().await;
    let answer = introspect(&world, &gate(), &issued.credential).await;
    assert!(answer.active());
    assert_eq!(answer.known.as_ref().unwrap().lease.id, issued.lease.id);
    assert_eq!(answer.position.number(), 1);

    world.clock.advance(Duration::from_secs(10));
    world.east().allow("alice", "revoke", Some("payments"));
    crate::revoke::revoke_owner(&world, &operator("alice"), "payments").await.unwrap();
    let answer = introspect(&world, &gate(), &issued.credential).await;
    assert_eq!((answer.active(), state(&answer)), (false, "revoked"));

    let next = world.issued().await;
    assert!(introspect(&world, &gate(), &next.credential).await.active(), "what came after is not touched");
    world.clock.advance(Duration::from_secs(300));
    assert_eq!(state(&introspect(&world, &gate(), &next.credential).await), "expired");
}

#[tokio::test]
async fn tells_of_another_targets_credential_only_that_it_is_not_active() {
    let world = World::new();
    world.policy(&format!(
        "{POLICY}---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {{name: ledger, namespace: payments}}
spec: {{serviceAccounts: [api], target: ledger, scope: [read], defaultTtl: 5m, maxTtl: 15m}}
"
    ));
    let ledger = IssueRequest { target: "ledger".parse().unwrap(), ..orders() };
    let of_ledger = world.issue(&api(), &ledger).await.unwrap_or_else(|error| panic!("{error}"));
    let of_orders = world.issued().await;
    let elsewhere = secret("east/dayfly-verifier/system:serviceaccount:elsewhere:gate/gate-0");
    let person = secret("east/dayfly-verifier/alice");
    let forged = secret(&format!("credential/{}/99", of_orders.lease.id));
    let unknown = secret("credential/0192f0c1-5d0e-7a39-8b1d-2f6a1c9e4b70/0");
    let huge = secret(&format!("credential/{}/{}", of_orders.lease.id, "0".repeat(9000)));
    let cases = [
        (&gate(), &of_ledger.credential),
        (&elsewhere, &of_orders.credential),
        (&person, &of_orders.credential),
        (&gate(), &forged),
        (&gate(), &unknown),
        (&gate(), &huge),
        (&gate(), &secret("garbage")),
        (&gate(), &secret("")),
    ];
    for (verifier, presented) in cases {
        let answer = introspect(&world, verifier, presented).await;
        assert_eq!((answer.active(), answer.known), (false, None));
    }
}

#[tokio::test]
async fn a_target_that_no_longer_lists_the_verifier_tells_nothing() {
    let world = World::new();
    let issued = world.issued().await;
    world.policy(&POLICY.replace("serviceAccount: gate", "serviceAccount: other"));
    assert_eq!(introspect(&world, &gate(), &issued.credential).await.known, None);
}

#[tokio::test]
async fn takes_only_verifiers_tokens() {
    let world = World::new();
    let issued = world.issued().await;
    for token in [api(), operator("alice"), secret("")] {
        let error = refused(world.broker.introspect(bearer(&token), &issued.credential).await);
        assert!(matches!(error.reason(), Reason::TokenAudience | Reason::TokenMalformed), "{error}");
    }
}

/// The same name in another cluster is another verifier.
#[tokio::test]
async fn a_verifier_is_listed_with_its_cluster() {
    let world = World::of(&["east", "west"], None).unwrap();
    let issued = world.issued().await;
    let of_west = secret("west/dayfly-verifier/system:serviceaccount:orders:gate/gate-0");
    assert_eq!(introspect(&world, &of_west, &issued.credential).await.known, None);
    world.policy(&POLICY.replace("{namespace: orders, serv", "{cluster: west, namespace: orders, serv"));
    assert!(introspect(&world, &of_west, &issued.credential).await.active());
    assert_eq!(introspect(&world, &gate(), &issued.credential).await.known, None);
}
