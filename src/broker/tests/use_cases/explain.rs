use std::sync::Arc;
use std::sync::atomic::Ordering;

use dayfly_broker::{About, DenialId, Described, Error, Explained, Reason};
use dayfly_core::ids::LeaseId;
use dayfly_core::ports::NamespaceFacts;
use dayfly_core::provenance::Labels;
use dayfly_policy::{Answer, Told, Verdict};

use crate::support::{POLICY, World, api, bearer, operator, orders, refused, secret, uid_of, web};

fn payments_api() -> Described {
    Described {
        cluster: None,
        namespace: "payments".parse().unwrap(),
        service_account: "api".parse().unwrap(),
        pod: "api-0".parse().ok(),
        pod_labels: Labels::new(),
        controller: None,
        unbound: false,
    }
}

async fn explain(world: &World, user: &str, about: About) -> Result<Explained, Error> {
    world.broker.explain(bearer(&operator(user)), &about).await
}

/// `alice` may get `payments`, `bob` `checkout`, `root` all.
fn world() -> World {
    let world = World::new();
    world.east().allow("alice", "get", Some("payments"));
    world.east().allow("bob", "get", Some("checkout"));
    world.east().allow("root", "get", None);
    world
}

fn denial_of(error: &Error) -> DenialId {
    match error {
        Error::Denied { denial: Some(id), .. } => *id,
        other => panic!("no denial with an id: {other:?}"),
    }
}

fn denied(told: &Told) -> &str {
    match &told.answer {
        Answer::Denied { reason, .. } => reason,
        Answer::Granted(what) => panic!("granted: {what}"),
    }
}

fn step<'a>(told: &'a Told, check: &str) -> (Verdict, &'a str) {
    let found = told.checks.iter().rev().find(|checked| checked.check == check);
    found.map(|checked| (checked.verdict, checked.outcome.as_str())).unwrap()
}

#[tokio::test]
async fn a_token_is_explained_step_by_step_and_issues_nothing() {
    let world = world();
    let told = explain(&world, "alice", About::Token(api(), None, orders())).await.unwrap().told.unwrap();
    assert!(told.is_granted(), "{told}");
    let order: Vec<_> = told.checks.iter().map(|checked| checked.check.as_ref()).collect();
    assert_eq!(
        order,
        ["token", "workload", "owner", "grant", "target", "bound", "audience", "scope", "ttl", "key", "hold"]
    );
    assert!(!told.to_string().contains("dayfly/system"), "no token is shown");
    assert_eq!((world.store.all().len(), world.engine.mints()), (0, 0));

    world.east().pod("api-0", |_| None);
    let gone = explain(&world, "alice", About::Token(api(), None, orders())).await.unwrap();
    let told = gone.told.unwrap();
    assert_eq!((denied(&told), step(&told, "workload").0), ("POD_GONE", Verdict::Refused));
    assert!(told.change.is_some());
    assert_eq!(gone.workload, "east:payments:api pod api-0");

    let not_of_a_workload = About::Token(operator("alice"), None, orders());
    let told = explain(&world, "alice", not_of_a_workload).await.unwrap().told.unwrap();
    assert_eq!((denied(&told), step(&told, "token").0), ("TOKEN_AUDIENCE", Verdict::Refused));
}

#[tokio::test]
async fn a_described_workload_is_looked_up_where_it_is_there() {
    let world = world();
    let about = About::Described(payments_api(), orders());
    let told = explain(&world, "alice", about).await.unwrap().told.unwrap();
    assert!(told.is_granted(), "{told}");
    let not_there = "
apiVersion: dayfly.dev/v1alpha1
kind: Owner
metadata: {name: api-team}
spec: {displayName: API, contacts: [a@example.com], namespaces: {names: [elsewhere]}}
";
    let delegating = POLICY.replace(
        "namespaces: {names: [payments]}}",
        "namespaces: {names: [payments]}, delegates: [{owner: api-team, labels: [{app: api}]}]}",
    );
    world.policy(&format!("{delegating}---{not_there}"));
    let labelled =
        || Described { pod_labels: [("app".to_owned(), "api".to_owned())].into(), ..payments_api() };
    let now = explain(&world, "alice", About::Described(labelled(), orders())).await.unwrap().told.unwrap();
    assert!(!now.to_string().contains("narrowed"), "the pod that is there has no such label: {now}");
    world.east().pod("api-9", |_| None);
    let absent = Described { pod: "api-9".parse().ok(), ..labelled() };
    let told = explain(&world, "alice", About::Described(absent, orders())).await.unwrap().told.unwrap();
    assert!(told.to_string().contains("narrowed to api-team"), "{told}");
    assert!(told.to_string().contains("pod api-9 of this service account is not there"), "{told}");

    let unbound = Described { pod: None, unbound: true, ..payments_api() };
    let told = explain(&world, "alice", About::Described(unbound, orders())).await.unwrap().told.unwrap();
    assert_eq!(denied(&told), "TOKEN_UNBOUND");
    let both = Described { unbound: true, ..payments_api() };
    let wrong = refused(explain(&world, "alice", About::Described(both, orders())).await);
    assert_eq!(wrong.reason(), Reason::InvalidField);
}

#[tokio::test]
async fn nothing_is_learnt_of_what_one_may_not_read() {
    let world = world();
    let lease = world.issued().await.lease.id;
    let wrong = dayfly_broker::IssueRequest { scope: vec!["admin".parse().unwrap()], ..orders() };
    let denial = denial_of(&world.refusal(&wrong).await);
    let known = [
        (About::Token(api(), None, orders()), "token"),
        (About::Described(payments_api(), orders()), "described"),
        (About::Lease(lease), "lease"),
        (About::Denial(denial), "denial"),
    ];
    for (about, what) in &known {
        for user in ["bob", "nobody"] {
            let hidden = world.broker.explain(bearer(&operator(user)), about).await;
            assert_eq!(refused(hidden).reason(), Reason::NotFound, "{what} for {user}");
        }
        for user in ["alice", "root"] {
            assert!(world.broker.explain(bearer(&operator(user)), about).await.is_ok(), "{what} for {user}");
        }
    }
    // As if it were not there.
    let nowhere = Described { namespace: "nowhere".parse().unwrap(), ..payments_api() };
    world.east().namespace("nowhere", None);
    let hidden =
        refused(explain(&world, "bob", About::Described(payments_api(), orders())).await).to_string();
    let absent = refused(explain(&world, "bob", About::Described(nowhere, orders())).await).to_string();
    assert_eq!(hidden.replace("payments", "nowhere"), absent);
    let unknown = LeaseId::from_u128(7);
    let none = refused(explain(&world, "alice", About::Lease(unknown)).await).to_string();
    let theirs = refused(explain(&world, "bob", About::Lease(lease)).await).to_string();
    assert_eq!(none.replace(&unknown.to_string(), ""), theirs.replace(&lease.to_string(), ""));
}

#[tokio::test]
async fn what_nobody_owns_is_explained_to_those_who_may_read_all() {
    let world = world();
    let token = || secret("east/dayfly/system:serviceaccount:billing:api/api-0");
    let error = refused(world.issue(&token(), &orders()).await);
    assert_eq!(error.reason(), Reason::Unowned);
    let denial = denial_of(&error);
    for about in [About::Token(token(), None, orders()), About::Denial(denial)] {
        let hidden = world.broker.explain(bearer(&operator("alice")), &about).await;
        assert_eq!(refused(hidden).reason(), Reason::NotFound);
        let told = world.broker.explain(bearer(&operator("root")), &about).await.unwrap().told.unwrap();
        assert_eq!(denied(&told), "UNOWNED");
        assert!(told.change.unwrap().contains("billing"));
    }
}

#[tokio::test]
async fn a_workload_is_told_its_own_reason_and_nothing_else() {
    let world = world();
    let told = world.broker.explain_own(bearer(&api()), &orders()).await.unwrap();
    assert!(told.is_granted());
    assert_eq!((told.checks.len(), told.objects.len(), told.change.is_some()), (0, 0, false));
    let contested = POLICY.replace("names: [checkout]", "names: [checkout, payments]");
    let file = dayfly_policy::File { name: "p.yaml".to_owned(), text: contested };
    let loaded = dayfly_policy::load(&[file], &dayfly_policy::Reserved::default());
    let now = dayfly_core::ports::Clock::monotonic(&*world.clock);
    world.policies.replace(&"east".parse().unwrap(), loaded, now).unwrap();
    let told = world.broker.explain_own(bearer(&api()), &orders()).await.unwrap();
    let issued = refused(world.issue(&api(), &orders()).await);
    assert_eq!(told.to_string(), format!("denied: {}: {issued}\n", issued.reason().name()));
    assert!(!told.to_string().contains("checkout"), "{told}");
    assert_eq!(
        refused(world.broker.explain_own(bearer(&operator("root")), &orders()).await).reason(),
        Reason::TokenAudience
    );
}

#[tokio::test]
async fn a_lease_tells_why_it_was_given_and_what_has_moved_on() {
    let world = world();
    let lease = world.issued().await.lease;
    let same = explain(&world, "alice", About::Lease(lease.id)).await.unwrap();
    let then = same.told.unwrap();
    assert_eq!((same.moved_on.len(), same.at), (0, lease.issued_at));
    assert_eq!(then.objects, lease.grounds.objects);
    assert_eq!(then.checks.len(), lease.grounds.checks.len());
    assert!(same.now.unwrap().is_granted());
    // What is taken from the lease, because the pod is gone, is said.
    world.east().pod("api-0", |_| None);
    let without_pod = explain(&world, "alice", About::Lease(lease.id)).await.unwrap().now.unwrap();
    assert!(without_pod.to_string().contains("its top controller is taken from the lease"), "{without_pod}");

    world.policy(&POLICY.replace("scope: [read, write], defaultTtl: 5m", "scope: [read], defaultTtl: 5m"));
    let moved = explain(&world, "alice", About::Lease(lease.id)).await.unwrap();
    assert!(moved.moved_on[0].starts_with("Grant payments/orders is another: "), "{:?}", moved.moved_on);
    assert!(moved.moved_on[1].starts_with("now it would be denied: SCOPE_NOT_GRANTED"));
    assert!(moved.told.unwrap().is_granted(), "as it was");
    assert_eq!(denied(&moved.now.unwrap()), "SCOPE_NOT_GRANTED");

    // Another owner's policy is not for the one that the lease has.
    let handed_over = POLICY.replace("names: [payments]}}", "names: [other]}}");
    world.policy(&handed_over.replace("names: [checkout]", "names: [checkout, payments]"));
    let moved = explain(&world, "alice", About::Lease(lease.id)).await.unwrap();
    assert!(moved.now.is_none());
    assert_eq!(moved.moved_on, ["another owner answers for this workload now, or none"]);
    assert!(explain(&world, "root", About::Lease(lease.id)).await.unwrap().now.is_some());
}

#[tokio::test]
async fn a_denial_is_explained_by_its_id_as_it_was() {
    let world = world();
    let wrong = dayfly_broker::IssueRequest { scope: vec!["admin".parse().unwrap()], ..orders() };
    let error = world.refusal(&wrong).await;
    let denial = denial_of(&error);
    world.policy_with_warnings(
        &POLICY.replace("scope: [read, write], defaultTtl", "scope: [read, admin], defaultTtl"),
    );
    let explained = explain(&world, "alice", About::Denial(denial)).await.unwrap();
    let told = explained.told.unwrap();
    assert_eq!((denied(&told), step(&told, "scope").0), ("SCOPE_NOT_GRANTED", Verdict::Refused));
    assert!(
        told.to_string().starts_with(&format!("denied: SCOPE_NOT_GRANTED: {error}\n")),
        "the denial's own text"
    );
    assert_eq!(explained.asked, "target orders, scope admin");

    world.policy(POLICY);
    world.east().allow("root", "revoke", None);
    crate::revoke::hold_owner(&world, &operator("root"), "payments").await.unwrap();
    let held = denial_of(&world.refusal(&orders()).await);
    let told = explain(&world, "alice", About::Denial(held)).await.unwrap().told.unwrap();
    assert_eq!((denied(&told), step(&told, "hold").0), ("HELD", Verdict::Refused));
    let token = explain(&world, "alice", About::Token(api(), None, orders())).await.unwrap().told.unwrap();
    assert_eq!(denied(&token), "HELD");

    world.east().pod("web-0", |_| None);
    let gone = denial_of(&refused(world.issue(&web(), &orders()).await));
    assert_eq!(denied(&explain(&world, "bob", About::Denial(gone)).await.unwrap().told.unwrap()), "POD_GONE");
}

#[tokio::test]
async fn a_denial_that_is_not_kept_any_more_has_its_counts() {
    let world = world();
    let wrong = dayfly_broker::IssueRequest { scope: vec!["admin".parse().unwrap()], ..orders() };
    let first = denial_of(&world.refusal(&wrong).await);
    for _ in 0..dayfly_broker::kept::KEPT {
        world.refusal(&wrong).await;
    }
    let explained = explain(&world, "alice", About::Denial(first)).await.unwrap();
    assert!(explained.told.is_none());
    let [count] = explained.counts.try_into().unwrap();
    assert_eq!((count.reason.as_str(), count.target.as_str()), ("SCOPE_NOT_GRANTED", "orders"));
    assert!(count.count > dayfly_broker::kept::KEPT as u64);
    assert_eq!(refused(explain(&world, "bob", About::Denial(first)).await).reason(), Reason::NotFound);
}

#[tokio::test]
async fn nobody_without_rights_has_the_log_searched_for_a_made_up_denial() {
    let world = world();
    world.issued().await;
    let made_up: DenialId = "01a0b1c2d3e4-7".parse().unwrap();
    for (user, reads) in [("mallory", 0), ("alice", 1), ("root", 2)] {
        let error = refused(explain(&world, user, About::Denial(made_up)).await);
        assert_eq!(error.reason(), Reason::NotFound);
        assert_eq!(world.store.log_read.load(Ordering::Relaxed), reads, "{user}");
    }
}

#[tokio::test]
async fn unowned_namespaces_are_listed_with_who_may_know_whose_they_are() {
    let world = world();
    let labelled = |name: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let facts = NamespaceFacts { uid: uid_of(name), labels: Arc::new(labels), deleting: false };
        world.east().namespace(name, Some(facts));
    };
    labelled(
        "payments",
        &[("team", "payments"), ("tier", "gold"), ("kubernetes.io/metadata.name", "payments")],
    );
    labelled("checkout", &[("team", "checkout")]);
    labelled("billing", &[("team", "x"), ("tier", "gold"), ("kubernetes.io/metadata.name", "billing")]);
    labelled("plain", &[("kubernetes.io/metadata.name", "plain")]);
    let asking = secret("east/dayfly/system:serviceaccount:ghost:api/api-0");
    for _ in 0..3 {
        world.issue(&asking, &orders()).await.err().unwrap();
    }
    world.east().allow("root", "list", None);
    world.east().allow("alice", "list", Some("payments"));
    let list = async |user: &str, after: Option<&str>, limit| {
        let after = after.map(|name| ("east".parse().unwrap(), name.parse().unwrap()));
        world.broker.list_unowned(bearer(&operator(user)), after.as_ref(), limit).await
    };
    assert_eq!(refused(list("alice", None, None).await).reason(), Reason::NotAllowed);
    let all = list("root", None, None).await.unwrap();
    let names: Vec<_> = all.iter().map(|found| found.namespace.as_str()).collect();
    assert_eq!(names, ["billing", "ghost", "plain"]);
    let related: Vec<_> = all[0].related.iter().map(ToString::to_string).collect();
    assert_eq!(
        (related, &all[0].label_keys[..]),
        (vec!["payments".to_owned(), "checkout".to_owned()], &["team".to_owned(), "tier".to_owned()][..])
    );
    assert_eq!((all[1].denied.unwrap().0, all[1].exists, all[2].related.len()), (3, false, 0));
    let rest = list("root", Some("billing"), Some(1)).await.unwrap();
    assert_eq!(rest[0].namespace.as_str(), "ghost");
}

#[tokio::test]
async fn an_operator_of_another_cluster_learns_nothing() {
    let world = World::of(&["east", "west"], Some("west")).unwrap();
    for cluster in &world.clusters {
        cluster.allow("root", "get", None);
    }
    let of_west = || secret("west/dayfly/system:serviceaccount:payments:api/api-0");
    let hidden = refused(explain(&world, "root", About::Token(of_west(), None, orders())).await);
    assert_eq!(hidden.reason(), Reason::NotFound);
    let of = |cluster: &str| Described { cluster: cluster.parse().ok(), ..payments_api() };
    assert!(explain(&world, "root", About::Described(of("west"), orders())).await.is_err());
    assert!(explain(&world, "root", About::Described(of("east"), orders())).await.is_ok());
    let unsaid = refused(explain(&world, "root", About::Described(payments_api(), orders())).await);
    assert_eq!(unsaid.reason(), Reason::InvalidField);
    let home = secret("west/dayfly-operator/root");
    assert!(world.broker.explain(bearer(&home), &About::Token(of_west(), None, orders())).await.is_ok());
}
