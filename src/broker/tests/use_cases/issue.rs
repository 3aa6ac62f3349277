use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dayfly_broker::{BadParts, Bearer, IssueRequest, ListLeases, Reason, RenewRequest};
use dayfly_core::audit::EventKind;
use dayfly_core::change::{Change, Revocation};
use dayfly_core::claims::ClaimValue;
use dayfly_core::digest::Digest;
use dayfly_core::lease::{Confirmation, Phase};
use dayfly_core::ports::{LeaseStore as _, PodFacts, PodPhase, ServiceAccountFacts, StoreError};
use dayfly_core::provenance::Asserted;
use dayfly_core::rule::{Actor, After, Selector};
use dayfly_core::time::Timestamp;
use dayfly_policy::Ownership;

use crate::support::{
    FakeStore, POLICY, World, api, bearer, loaded, operator, orders, refused, secret, uid_of, web,
};

#[tokio::test]
async fn issues_what_policy_gives_and_records_it_first() {
    let world = World::new();
    let request = IssueRequest {
        scope: vec!["read".parse().unwrap()],
        ttl: Some(Duration::from_secs(120)),
        confirmation: Some(Confirmation::Jwk(Digest::of(b"jwk"))),
        ..orders()
    };
    let issued = world.issue(&api(), &request).await.unwrap_or_else(|error| panic!("{error}"));
    let lease = world.store.all().pop().unwrap();
    assert_eq!(lease, issued.lease);
    assert_eq!(lease.digests, [Digest::of(issued.credential.expose())]);
    assert_eq!(lease.workload.to_string(), "east:payments:api");
    assert_eq!(lease.workload.pod.as_ref().unwrap().uid, uid_of("api-0"));
    assert_eq!(lease.workload.node.as_ref().unwrap().name.as_str(), "node-1");
    assert_eq!(lease.owners.narrowest().as_str(), "payments");
    assert_eq!(lease.grant.to_string(), "payments/orders");
    assert_eq!(lease.audience.as_str(), "https://orders.example");
    assert_eq!(lease.scope, request.scope);
    assert_eq!(lease.issued_at.as_millis(), 1_795_435_200_000, "to the second");
    assert_eq!(lease.expires_at.since(lease.issued_at), Duration::from_secs(120));
    assert_eq!(lease.confirmation, request.confirmation);
    assert_eq!(lease.phase, Phase::Active);
}

#[tokio::test]
async fn refuses_tokens_by_what_is_wrong_with_them() {
    let world = World::new();
    let long = "x".repeat(8 * 1024 + 1);
    let cases = [
        ("", Reason::TokenMalformed),
        ("no-jwt", Reason::TokenMalformed),
        (long.as_str(), Reason::TokenMalformed),
        ("west/dayfly/system:serviceaccount:payments:api/api-0", Reason::TokenIssuerUnknown),
        ("east/dayfly-operator/alice", Reason::TokenAudience),
        ("east/dayfly/alice", Reason::NotAWorkload),
        ("east/dayfly/system:serviceaccount:payments:api", Reason::TokenUnbound),
        // A pod that cannot be made out is not taken for none.
        ("east/dayfly/system:serviceaccount:payments:api/API_0", Reason::PodGone),
    ];
    for (token, reason) in cases {
        assert_eq!(refused(world.issue(&secret(token), &orders()).await).reason(), reason, "{token:.60}");
    }
    let named = Bearer { token: &api(), cluster: Some(&"west".parse().unwrap()), verified: None };
    assert_eq!(refused(world.broker.issue(named, &orders()).await).reason(), Reason::TokenIssuerUnknown);
    assert_eq!(world.store.all(), []);
}

#[tokio::test]
async fn an_unbound_token_is_taken_where_target_and_grant_say_so() {
    let world = World::new();
    let unbound = secret("east/dayfly/system:serviceaccount:payments:api");
    let target =
        POLICY.replace("  maxTtl: 1h\n  verifiers", "  maxTtl: 1h\n  unboundTokens: true\n  verifiers");
    world.policy(&target);
    assert_eq!(refused(world.issue(&unbound, &orders()).await).reason(), Reason::TokenUnbound);
    world.policy(&target.replace("scope: [read, write],", "scope: [read, write], unboundTokens: true,"));
    let issued = world.issue(&unbound, &orders()).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(issued.lease.workload.pod, None);
}

fn account(uid: &str, deleting: bool) -> ServiceAccountFacts {
    ServiceAccountFacts { uid: uid_of(uid), deleting, labels: Arc::default() }
}

/// Within any test.
fn soon() -> Timestamp {
    Timestamp::from_secs(1_795_435_230)
}

#[tokio::test]
async fn refuses_pods_and_service_accounts_that_are_not_there_as_they_were() {
    let world = World::new();
    let case = |change: fn(PodFacts) -> Option<PodFacts>| world.east().pod("api-0", change);
    case(|_| None);
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::PodGone);
    case(|pod| Some(PodFacts { uid: uid_of("another"), ..pod }));
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::PodGone);
    case(|pod| Some(PodFacts { service_account: "web".parse().unwrap(), ..pod }));
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::PodGone);
    case(|pod| Some(PodFacts { deleting: Some(soon()), ..pod }));
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::PodTerminating);
    for phase in [PodPhase::Succeeded, PodPhase::Failed] {
        world.east().pod("api-0", |pod| Some(PodFacts { phase, ..pod }));
        assert_eq!(world.refusal(&orders()).await.reason(), Reason::PodFinished);
    }
    case(Some);
    for facts in [None, Some(account("recreated", false)), Some(account("api", true))] {
        world.east().account("api", facts);
        assert_eq!(world.refusal(&orders()).await.reason(), Reason::ServiceAccountGone);
    }
    assert_eq!(world.store.all(), []);
}

#[tokio::test]
async fn what_does_not_answer_is_unavailable_and_never_a_credential() {
    let world = World::new();
    world.east().ready.store(false, Ordering::SeqCst);
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::NotReady);
    world.east().ready.store(true, Ordering::SeqCst);
    world.east().down.store(true, Ordering::SeqCst);
    let error = world.refusal(&orders()).await;
    assert_eq!((error.reason(), error.cause()), (Reason::ClusterUnavailable, Some("connection refused")));
    assert!(!error.to_string().contains("refused"), "the cause is for the log: {error}");
    world.east().down.store(false, Ordering::SeqCst);

    for (failure, reason) in [
        (StoreError::Full, Reason::StoreFull),
        (StoreError::Poisoned("fsync: EIO".to_owned()), Reason::StoreUnavailable),
        (StoreError::Busy, Reason::Overloaded),
    ] {
        world.store.fail(Some(failure));
        let error = world.refusal(&orders()).await;
        assert_eq!(error.reason(), reason);
        assert!(!error.to_string().contains("EIO"), "{error}");
    }
    world.store.fail(None);
    world.clock.advance(Duration::from_secs(600));
    world.issued().await;
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::PolicyUnavailable);
}

#[tokio::test]
async fn policy_denies_with_its_reason() {
    let world = World::new();
    let unknown = IssueRequest { target: "nothing".parse().unwrap(), ..orders() };
    assert_eq!(
        world.refusal(&unknown).await.reason(),
        Reason::GrantMissing,
        "whether it is there is not told"
    );
    let ledger = IssueRequest { target: "ledger".parse().unwrap(), ..orders() };
    assert_eq!(world.refusal(&ledger).await.reason(), Reason::GrantMissing);
    let admin = IssueRequest { scope: vec!["admin".parse().unwrap()], ..orders() };
    assert_eq!(world.refusal(&admin).await.reason(), Reason::ScopeNotGranted);
    let short = IssueRequest { ttl: Some(Duration::from_secs(5)), ..orders() };
    assert_eq!(world.refusal(&short).await.reason(), Reason::TtlTooShort);
    let stranger = secret("east/dayfly/system:serviceaccount:nobodys:api/api-0");
    assert_eq!(refused(world.issue(&stranger, &orders()).await).reason(), Reason::Unowned);
}

#[tokio::test]
async fn fields_that_are_too_large_are_named() {
    let world = World::new();
    let scope: Vec<_> = (0..65).map(|n| format!("s{n}").parse().unwrap()).collect();
    let cases = [
        IssueRequest { scope, ..orders() },
        IssueRequest { scope: vec!["read".parse().unwrap(); 2], ..orders() },
        IssueRequest { idempotency_key: Some(String::new()), ..orders() },
        IssueRequest { idempotency_key: Some("k".repeat(65)), ..orders() },
    ];
    for request in cases {
        assert_eq!(world.refusal(&request).await.reason(), Reason::InvalidField, "{request:?}");
    }
}

#[tokio::test]
async fn a_credential_ends_with_its_signing_key() {
    let world = World::new();
    let now = dayfly_core::ports::Clock::now(&*world.clock).floor_secs();
    *world.engine.not_after.lock().unwrap() = Some(now.plus(Duration::from_secs(100)));
    let lease = world.issued().await.lease;
    assert_eq!(lease.expires_at, now.plus(Duration::from_secs(100)));
    *world.engine.not_after.lock().unwrap() = Some(now.plus(Duration::from_secs(10)));
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::TtlTooShort);
}

pub(crate) fn revoke_payments(store: &FakeStore, after: After) {
    let revocation = Revocation {
        selector: Selector::owner("payments".parse().unwrap()),
        after,
        by: Actor { cluster: None, username: "test".to_owned(), uid: String::new() },
        authority: dayfly_core::rule::Authority::ClusterWide,
        reason: "incident 12".to_owned(),
        idempotency: None,
        owners: Vec::new(),
    };
    store.commit_now(Change::Revoke(Box::new(revocation))).unwrap();
}

#[tokio::test]
async fn a_revocation_during_the_decision_leads_to_a_second_one() {
    let world = World::new();
    let store = Arc::clone(&world.store);
    world.engine.meanwhile(move || revoke_payments(&store, After::Reissue));
    let lease = world.issued().await.lease;
    assert_eq!(world.engine.mints(), 2);
    let rules = dayfly_core::ports::LeaseStore::rules(&*world.store);
    let rule = rules.iter().next().unwrap();
    assert!(lease.id > rule.cut_off, "decided again with a new id, above the cut-off");
    assert_eq!(world.store.all().len(), 1);
}

#[tokio::test]
async fn a_hold_during_the_decision_denies() {
    let world = World::new();
    let store = Arc::clone(&world.store);
    world.engine.meanwhile(move || revoke_payments(&store, After::Hold));
    let error = world.refusal(&orders()).await;
    assert_eq!(error.reason(), Reason::Held);
    assert!(error.to_string().contains("incident 12"), "{error}");
    assert_eq!(world.store.all(), []);
    assert!(world.issue(&web(), &orders()).await.is_ok(), "another owner's workload is not touched");
}

#[tokio::test]
async fn a_policy_change_during_the_decision_leads_to_a_second_one() {
    let world = World::new();
    let policies = Arc::clone(&world.policies);
    let narrower = POLICY.replace("target: orders, scope: [read, write]", "target: orders, scope: [read]");
    world.engine.meanwhile(move || {
        policies.replace(&"east".parse().unwrap(), loaded(&narrower), Duration::from_secs(1)).unwrap();
    });
    assert_eq!(world.issued().await.lease.scope, ["read".parse().unwrap()]);
}

#[tokio::test]
async fn a_decision_that_is_outrun_three_times_is_given_up() {
    let world = World::new();
    for _ in 0..3 {
        let store = Arc::clone(&world.store);
        world.engine.meanwhile(move || revoke_payments(&store, After::Reissue));
    }
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::DecisionOutrun);
    assert_eq!((world.engine.mints(), world.store.all().len()), (3, 0));
}

#[tokio::test]
async fn denials_of_verified_callers_are_counted_and_written() {
    let world = World::new();
    let ledger = IssueRequest { target: "ledger".parse().unwrap(), ..orders() };
    for _ in 0..3 {
        world.refusal(&ledger).await;
        world.clock.advance(Duration::from_secs(1));
    }
    for n in 0..5 {
        let unknown = IssueRequest { target: format!("guess-{n}").parse().unwrap(), ..orders() };
        world.refusal(&unknown).await;
    }
    refused(world.issue(&secret("east/dayfly/alice"), &orders()).await);
    refused(world.issue(&secret("west/dayfly/alice"), &orders()).await);
    refused(world.issue(&operator("alice"), &orders()).await);

    world.store.fail(Some(StoreError::Busy));
    assert!(world.broker.flush_denials().await.is_err());
    world.store.fail(None);
    assert_eq!(world.broker.flush_denials().await, Ok(3), "what could not be written is kept");
    assert_eq!(world.broker.flush_denials().await, Ok(0));
    let mut notes = world.store.notes();
    notes.sort_by_key(|note| (note.detail.reason.clone(), note.detail.target.clone()));
    assert!(notes.iter().all(|note| note.kind == EventKind::Denied));
    let [unknown, missing, person] = notes.as_slice() else { panic!("{notes:?}") };
    let detail = &missing.detail;
    assert_eq!(
        (detail.reason.as_str(), detail.target.as_str(), detail.count),
        ("GRANT_MISSING", "ledger", 3)
    );
    assert_eq!(
        (detail.workload.as_str(), detail.last_millis - detail.first_millis),
        ("east:payments:api", 2000)
    );
    assert_eq!(
        (person.detail.actor.as_str(), person.detail.reason.as_str()),
        ("alice@east", "NOT_A_WORKLOAD")
    );
    assert_eq!((unknown.detail.count, unknown.detail.target.as_str()), (5, ""), "names that callers make up");
}

#[tokio::test]
async fn a_lease_keeps_the_grounds_it_was_given_on_and_its_grants_claims() {
    let world = World::new();
    let claims = POLICY
        .replace("scopes: [read, write]}]", "scopes: [read, write], claims: {tier: [gold, tin]}}]")
        .replace(
            "target: orders, scope: [read, write],",
            "target: orders, scope: [read, write], claims: {tier: gold},",
        );
    world.policy(&claims);
    let lease = world.issued().await.lease;
    assert_eq!(lease.claims.get("tier"), Some(&ClaimValue::One("gold".to_owned())));
    let objects: Vec<_> =
        lease.grounds.objects.iter().map(|object| format!("{} {}", object.kind, object.name)).collect();
    assert_eq!(objects, ["Owner payments", "Grant payments/orders", "Target orders"]);
    assert!(lease.grounds.objects.iter().all(|object| object.generation.len() == 16));
    let checks: Vec<_> = lease.grounds.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(checks, ["owner", "grant", "target", "bound", "audience", "scope", "claims", "ttl"]);
}

#[tokio::test]
async fn a_workload_is_narrowed_by_its_pods_labels_where_its_owner_delegates_that() {
    let world = World::new();
    let labels = Arc::new([("team".to_owned(), "checkout".to_owned())].into());
    world.east().pod("api-0", |pod| Some(PodFacts { labels: Arc::clone(&labels), ..pod }));
    assert_eq!(world.issued().await.lease.owners.narrowed, None, "nobody delegates it");
    let delegating = POLICY.replace(
        "namespaces: {names: [payments]}}",
        "namespaces: {names: [payments]}, delegates: [{owner: checkout, labels: [{team: checkout}]}]}",
    );
    world.policy(&delegating);
    let owners = world.issued().await.lease.owners.clone();
    assert_eq!((owners.namespace.as_str(), owners.narrowest().as_str()), ("payments", "checkout"));
    let by = Asserted::Label { key: "team".to_owned(), value: "checkout".to_owned() };
    assert_eq!(owners.narrowed_by, Some(by));
    let seen = world.broker.who_am_i(bearer(&api())).await.unwrap();
    assert_eq!(seen.ownership, Ownership::Owned(owners));
}

#[tokio::test]
async fn a_grant_of_mode_audit_grants_nothing_and_what_it_would_have_done_is_counted() {
    let world = World::new();
    let audited = POLICY.replace(
        "{serviceAccounts: [api], target: orders",
        "{mode: Audit, serviceAccounts: [api], target: orders",
    );
    assert_ne!(audited, POLICY);
    world.policy(&audited);
    let admin = IssueRequest { scope: vec!["admin".parse().unwrap()], ..orders() };
    let read = IssueRequest { scope: vec!["read".parse().unwrap()], ..orders() };
    for request in [&orders(), &read, &admin] {
        assert_eq!(world.refusal(request).await.reason(), Reason::GrantMissing);
    }
    revoke_payments(&world.store, After::Hold);
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::GrantMissing);
    assert_eq!(world.broker.flush_denials().await, Ok(4));
    let mut notes = world.store.notes();
    notes.retain(|note| note.kind == EventKind::Audited);
    notes.sort_by_key(|note| note.detail.reason.clone());
    let hold = world.store.rules().iter().next().unwrap().id;
    let held = format!("would have been held: revocation {hold} holds this until it is lifted: incident 12");
    let told: Vec<_> = notes
        .iter()
        .map(|note| {
            let detail = &note.detail;
            (detail.note.as_str(), detail.reason.as_str(), detail.grant.as_str(), detail.count)
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                "would have been granted, not always the same, last: owner payments, Grant payments/orders, scope read, \
                 audience https://orders.example, 300 s",
                "",
                "payments/orders",
                2
            ),
            (held.as_str(), "HELD", "payments/orders", 1),
            (
                "would have been denied: Grant payments/orders does not have scope admin",
                "SCOPE_NOT_GRANTED",
                "payments/orders",
                1
            )
        ]
    );
}

/// Its Grant is of mode Audit by now: what it would have given is counted for a renewal too.
#[tokio::test]
async fn a_renewal_by_a_grant_of_mode_audit_is_denied_and_counted() {
    let world = World::new();
    let lease = world.issued().await.lease.id;
    let audited = POLICY.replace(
        "{serviceAccounts: [api], target: orders",
        "{mode: Audit, serviceAccounts: [api], target: orders",
    );
    world.policy(&audited);
    let request =
        RenewRequest { lease, scope: Vec::new(), ttl: None, confirmation: None, idempotency_key: None };
    let renewed = world.broker.renew(bearer(&api()), &request).await;
    assert_eq!(refused(renewed).reason(), Reason::GrantUnknown);
    world.broker.flush_denials().await.unwrap();
    let notes = world.store.notes();
    let note = notes.iter().find(|note| note.kind == EventKind::Audited).unwrap();
    assert!(note.detail.note.starts_with("would have been granted: owner payments, Grant payments/orders"));
}

#[tokio::test]
async fn a_namespace_without_an_owner_is_decided_until_the_grace_ends() {
    let policy = format!(
        "{}---\n{}",
        POLICY.replace(
            "{namespaces: [payments, checkout], scopes: [read, write]}",
            "{owners: [unowned], scopes: [read]}"
        ),
        "apiVersion: dayfly.dev/v1alpha1\nkind: Grant\nmetadata: {name: orders, namespace: nobodys}\nspec: \
         {serviceAccounts: [api], target: orders, scope: [read], defaultTtl: 5m, maxTtl: 15m}\n"
    );
    let stranger = secret("east/dayfly/system:serviceaccount:nobodys:api/api-0");
    let until = Timestamp::from_millis(1_795_435_200_250 + 100_000);
    let world = World::with_grace(until);
    world.policy_with_warnings(&policy);
    let issued = world.issue(&stranger, &orders()).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(issued.lease.owners.narrowest().as_str(), "unowned");
    assert!(issued.lease.expires_at <= until);
    // Listed for whoever may list that owner alone, as any other's.
    world.east().allow("sweeper", "list", Some("unowned"));
    let listed =
        world.broker.list_leases(bearer(&operator("sweeper")), &ListLeases::default()).await.unwrap();
    assert_eq!(listed.leases.len(), 1);
    world.clock.advance(Duration::from_secs(101));
    assert_eq!(refused(world.issue(&stranger, &orders()).await).reason(), Reason::Unowned);
}

#[tokio::test]
async fn who_am_i_tells_a_workload_of_itself_only() {
    let world = World::new();
    let seen = world.broker.who_am_i(bearer(&api())).await.unwrap();
    assert_eq!(seen.workload.to_string(), "east:payments:api");
    assert_eq!(seen.trouble, None);
    let grants: Vec<_> =
        seen.grants.iter().map(|grant| (grant.name.as_str(), grant.target.as_str())).collect();
    assert_eq!(grants, [("orders", "orders")]);
    world.east().pod("api-0", |pod| Some(PodFacts { deleting: Some(soon()), ..pod }));
    let seen = world.broker.who_am_i(bearer(&api())).await.unwrap();
    assert_eq!(seen.trouble.unwrap().reason(), Reason::PodTerminating);
}

#[test]
fn clusters_must_differ_and_the_home_be_one_of_them() {
    assert!(matches!(World::of(&["east", "east"], None).map(drop), Err(BadParts::ClusterTwice(_))));
    assert!(matches!(World::of(&["east"], Some("west")).map(drop), Err(BadParts::UnknownHome(_))));
    assert!(World::of(&["east", "west"], Some("west")).is_ok());
}
