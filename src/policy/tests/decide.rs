//! Each reason to say no, and what yes gives.

use std::time::Duration;

use dayfly_core::claims::{ClaimValue, Claims};
use dayfly_core::live::LiveCaps;
use dayfly_core::provenance::{Asserted, Labels, ObjectRef};
use dayfly_core::time::Timestamp;
use dayfly_policy::{
    Decision, Denial, File, PolicySet, Question, Reserved, TopController, UnownedGrace, Verdict, load,
};

const POLICY: &str = "
apiVersion: dayfly.dev/v1alpha1
kind: Owner
metadata: {name: payments-team}
spec: {displayName: Payments, contacts: [a@example.com], namespaces: {names: [payments, contested]}}
---
apiVersion: dayfly.dev/v1alpha1
kind: Owner
metadata: {name: checkout-team}
spec: {displayName: Checkout, contacts: [a@example.com], namespaces: {names: [contested]}}
---
apiVersion: dayfly.dev/v1alpha1
kind: Target
metadata: {name: orders}
spec:
  jwt: {audiences: ['https://orders.example', 'https://orders.internal']}
  maxTtl: 30m
  unboundTokens: true
  ceiling:
    - {namespaces: [payments], scopes: [read, write], audiences: ['https://orders.example'], maxTtl: 20m}
    - {owners: [payments-team], scopes: [export], audiences: ['https://orders.internal']}
---
apiVersion: dayfly.dev/v1alpha1
kind: Target
metadata: {name: ledger}
spec: {jwt: {audiences: ['https://ledger.example']}, maxTtl: 1h, ceiling: [{owners: [payments-team], scopes: [read]}]}
---
apiVersion: dayfly.dev/v1alpha1
kind: Target
metadata: {name: closed}
spec: {jwt: {audiences: ['https://closed.example']}, maxTtl: 1h}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {namespace: payments, name: gone}
spec: {serviceAccounts: [api], target: gone, scope: [read], defaultTtl: 5m, maxTtl: 10m}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: orders, namespace: payments}
spec: {serviceAccounts: [api, job], target: orders, scope: [read, write, export], defaultTtl: 5m, maxTtl: 25m}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: orders-job, namespace: payments}
spec:
  {serviceAccounts: [job], target: orders, scope: [read], audience: 'https://orders.example', defaultTtl: 5m,
    maxTtl: 10m, unboundTokens: true}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: ledger, namespace: payments}
spec: {serviceAccounts: [api], target: ledger, scope: [read], defaultTtl: 5m, maxTtl: 2h}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: closed, namespace: payments}
spec: {serviceAccounts: [api], target: closed, scope: [read], defaultTtl: 5m, maxTtl: 1h}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: ledger, namespace: other}
spec: {serviceAccounts: [api], target: ledger, scope: [read], defaultTtl: 5m, maxTtl: 1h}
";

fn policy() -> PolicySet {
    load(&[File { name: "p.yaml".to_owned(), text: POLICY.to_owned() }], &Reserved::default()).set
}

struct Ask(Question, &'static str);

#[expect(clippy::unwrap_used, reason = "fixtures of tests")]
impl Ask {
    fn by(namespace: &str, service_account: &str) -> Self {
        let question = Question {
            cluster: "east".parse().unwrap(),
            namespace: namespace.parse().unwrap(),
            namespace_labels: Labels::new(),
            service_account: service_account.parse().unwrap(),
            service_account_labels: Labels::new(),
            pod_labels: Labels::new(),
            controller: TopController::None,
            bound: true,
            target: "orders".parse().unwrap(),
            grant: None,
            scope: Vec::new(),
            audience: None,
            ttl: None,
            key_ends_in: None,
            now: Timestamp::from_secs(1_795_435_200),
            unowned: None,
        };
        Self(question, POLICY)
    }
    /// Of another policy.
    fn of(mut self, policy: &'static str) -> Self {
        self.1 = policy;
        self
    }
    fn in_labelled(mut self, labels: &[(&str, &str)]) -> Self {
        self.0.namespace_labels = labels_of(labels);
        self
    }
    fn account_labels(mut self, labels: &[(&str, &str)]) -> Self {
        self.0.service_account_labels = labels_of(labels);
        self
    }
    fn pod_labels(mut self, labels: &[(&str, &str)]) -> Self {
        self.0.pod_labels = labels_of(labels);
        self
    }
    fn controlled_by(mut self, kind: &str, name: &str) -> Self {
        self.0.controller = TopController::Is(controller(kind, name));
        self
    }
    fn grace_for(mut self, secs: u64) -> Self {
        self.0.unowned = Some(UnownedGrace { until: self.0.now.plus(Duration::from_secs(secs)) });
        self
    }
    fn target(mut self, target: &str) -> Self {
        self.0.target = target.parse().unwrap();
        self
    }
    fn grant(mut self, grant: &str) -> Self {
        self.0.grant = Some(grant.parse().unwrap());
        self
    }
    fn scope(mut self, scope: &[&str]) -> Self {
        self.0.scope = scope.iter().map(|scope| scope.parse().unwrap()).collect();
        self
    }
    fn audience(mut self, audience: &str) -> Self {
        self.0.audience = Some(audience.parse().unwrap());
        self
    }
    fn ttl(mut self, secs: u64) -> Self {
        self.0.ttl = Some(Duration::from_secs(secs));
        self
    }
    fn key_ends_in(mut self, secs: u64) -> Self {
        self.0.key_ends_in = Some(Duration::from_secs(secs));
        self
    }
    fn unbound(mut self) -> Self {
        self.0.bound = false;
        self
    }
    fn answer(&self) -> Result<Decision, Denial> {
        self.set().decide(&self.0)
    }
    fn set(&self) -> PolicySet {
        let file = File { name: "p.yaml".to_owned(), text: self.1.to_owned() };
        load(&[file], &Reserved::default()).set
    }
}

fn api() -> Ask {
    Ask::by("payments", "api")
}

const EXAMPLE: &str = "https://orders.example";
const INTERNAL: &str = "https://orders.internal";

#[test]
fn every_denial_has_its_reason_and_says_what_to_change() {
    let cases = [
        (Ask::by("nowhere", "api"), "UNOWNED", "namespace nowhere has no Owner"),
        (Ask::by("contested", "api"), "OWNER_AMBIGUOUS", "several Owners name namespace contested"),
        (Ask::by("other", "api").target("ledger"), "UNOWNED", "namespace other"),
        (api().target("nothing"), "GRANT_MISSING", "service account api target nothing"),
        (api().target("gone"), "TARGET_UNKNOWN", "no valid Target gone"),
        (Ask::by("payments", "web"), "GRANT_MISSING", "service account web target orders"),
        (Ask::by("payments", "job").target("ledger"), "GRANT_MISSING", "service account job target ledger"),
        (Ask::by("payments", "job"), "GRANT_AMBIGUOUS", "orders, orders-job"),
        (api().grant("nothing"), "GRANT_UNKNOWN", "payments/nothing does not exist"),
        (api().grant("ledger"), "GRANT_UNKNOWN", "is for Target ledger"),
        (api().grant("orders-job"), "GRANT_UNKNOWN", "does not list service account api"),
        (api().audience(EXAMPLE).scope(&["read", "admin"]), "SCOPE_NOT_GRANTED", "scope admin"),
        (api().audience(EXAMPLE).scope(&["read", "export"]), "SCOPE_ABOVE_CEILING", "scope export is above"),
        (api().audience(INTERNAL).scope(&["read"]), "SCOPE_ABOVE_CEILING", "scope read is above"),
        (api().audience(EXAMPLE), "SCOPE_ABOVE_CEILING", "scope export is above"),
        (api().target("closed"), "SCOPE_ABOVE_CEILING", "scope read is above"),
        (api(), "AUDIENCE_AMBIGUOUS", "name one"),
        (api().audience("https://evil.example"), "AUDIENCE_NOT_GRANTED", "https://evil.example"),
        (
            Ask::by("payments", "job").grant("orders-job").audience(INTERNAL),
            "AUDIENCE_NOT_GRANTED",
            "orders-job",
        ),
        (api().target("ledger").unbound(), "TOKEN_UNBOUND", "bound to no pod"),
        (api().audience(INTERNAL).scope(&["export"]).unbound(), "TOKEN_UNBOUND", "bound to no pod"),
        (api().target("ledger").ttl(29), "TTL_TOO_SHORT", "29 s is too short"),
        (api().target("ledger").ttl(0), "TTL_TOO_SHORT", "0 s is too short"),
        (api().target("ledger").key_ends_in(29), "TTL_TOO_SHORT", "no more can be given"),
    ];
    for (ask, reason, part) in cases {
        let denial = ask.answer().unwrap_err();
        assert_eq!(denial.reason(), reason, "{denial}");
        assert!(denial.to_string().contains(part), "{denial}");
    }
}

/// A denial tells nothing of other namespaces: their objects, their owners, the target's lists.
#[test]
fn a_denial_tells_nothing_of_others() {
    let asks = [
        Ask::by("contested", "api"),
        Ask::by("nowhere", "api").target("ledger"),
        Ask::by("payments", "web").target("ledger"),
        api(),
        api().audience("https://evil.example"),
        api().audience(INTERNAL).scope(&["read"]),
    ];
    for ask in asks {
        let text = ask.answer().unwrap_err().to_string();
        for word in ["team", "other", "orders.example", "checkout"] {
            assert!(!text.contains(word), "{text}");
        }
    }
}

#[test]
fn one_grant_decides_and_its_scope_is_the_default() {
    let decision = Ask::by("payments", "job").grant("orders-job").unbound().answer().unwrap();
    assert_eq!(decision.grant.to_string(), "payments/orders-job");
    assert_eq!(decision.audience.as_str(), EXAMPLE);
    assert_eq!(decision.scope, ["read".parse().unwrap()]);
    assert_eq!(decision.owners.namespace.as_str(), "payments-team");
    assert_eq!(decision.ttl, Duration::from_secs(300));
    let asked = api().audience(EXAMPLE).scope(&["write", "read"]).answer().unwrap();
    assert_eq!(asked.scope, ["write".parse().unwrap(), "read".parse().unwrap()]);
    assert!(api().audience(INTERNAL).scope(&["export"]).answer().is_ok());
}

#[test]
fn life_is_the_least_of_all_bounds() {
    let orders = || api().audience(EXAMPLE).scope(&["read"]);
    let ttl = |ask: Ask| ask.answer().unwrap().ttl.as_secs();
    assert_eq!(ttl(orders()), 300);
    assert_eq!(ttl(orders().ttl(600)), 600);
    assert_eq!(ttl(orders().ttl(99_999)), 20 * 60, "the ceiling's");
    assert_eq!(
        ttl(api().audience(INTERNAL).scope(&["export"]).ttl(99_999)),
        20 * 60,
        "of any entry that matches"
    );
    assert_eq!(ttl(Ask::by("payments", "job").grant("orders-job").ttl(99_999)), 10 * 60, "the grant's");
    assert_eq!(ttl(api().target("ledger").ttl(99_999)), 3600, "the target's");
    assert_eq!(ttl(api().target("ledger").key_ends_in(100)), 100, "the key's end");
    let halves = Question { ttl: Some(Duration::from_millis(90_900)), ..orders().0 };
    assert_eq!(policy().decide(&halves).unwrap().ttl, Duration::from_secs(90));
}

#[test]
fn verifiers_are_of_the_policys_cluster_unless_they_say() {
    let text = POLICY.replace(
        "  maxTtl: 30m",
        "  maxTtl: 30m\n  verifiers: [{namespace: orders, serviceAccount: api}, {cluster: west, namespace: orders, serviceAccount: edge}]",
    );
    let set = load(&[File { name: "p.yaml".to_owned(), text }], &Reserved::default()).set;
    let target = set.target(&"orders".parse().unwrap()).unwrap();
    let accepts = |cluster: &str, name: &str| {
        target.accepts_verifier(
            &"east".parse().unwrap(),
            &cluster.parse().unwrap(),
            &"orders".parse().unwrap(),
            &name.parse().unwrap(),
        )
    };
    assert!(accepts("east", "api") && accepts("west", "edge"));
    assert!(!accepts("west", "api") && !accepts("east", "edge"));
}

#[expect(clippy::unwrap_used, reason = "fixtures of tests")]
fn controller(kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        api_version: "apps/v1".to_owned(),
        kind: kind.to_owned(),
        namespace: Some("shared".parse().unwrap()),
        name: name.to_owned(),
        uid: None,
    }
}

fn labels_of(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Namespace `shared` is platform's, by name; those labelled `team: red` are red's, `team: blue` both blue's and green's.
const OWNERS: &str = "
apiVersion: dayfly.dev/v1alpha1
kind: Owner
metadata: {name: platform}
spec:
  displayName: Platform
  contacts: [a]
  namespaces: {names: [shared]}
  delegates:
    - {owner: red, labels: [{app: r, tier: web}, {app: red}]}
    - {owner: blue, serviceAccounts: [blue]}
    - {owner: green, controllers: [{apiVersion: apps/v1, kind: Deployment, name: g}]}
    - {owner: gone, serviceAccounts: [gone]}
---
apiVersion: dayfly.dev/v1alpha1
kind: Owner
metadata: {name: red}
spec: {displayName: R, contacts: [a], namespaces: {labels: [{team: red}, {team: purple, half: red}]}}
---
apiVersion: dayfly.dev/v1alpha1
kind: Owner
metadata: {name: blue}
spec: {displayName: B, contacts: [a], namespaces: {labels: [{team: blue}]}}
---
apiVersion: dayfly.dev/v1alpha1
kind: Owner
metadata: {name: green}
spec: {displayName: G, contacts: [a], namespaces: {labels: [{team: blue}]}}
---
apiVersion: dayfly.dev/v1alpha1
kind: Target
metadata: {name: orders}
spec:
  jwt: {audiences: ['https://orders.example']}
  maxTtl: 1h
  unboundTokens: true
  liveLeases: {perPod: 9, total: 1000}
  ceiling:
    - {owners: [platform, unowned], scopes: [read], claims: {tier: [gold, tin]}, liveLeases: {perPod: 3, total: 50}}
    - {owners: [red], scopes: [read, write], maxTtl: 2m, liveLeases: {perPod: 2, perGrant: 7}}
    - {owners: [blue], scopes: [read], serviceAccounts: [api], unboundTokens: false}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: orders, namespace: shared}
spec:
  {serviceAccounts: [api, blue, gone], serviceAccountLabels: [{role: worker}], target: orders, scope: [read],
    claims: {tier: [tin, gold]}, defaultTtl: 5m, maxTtl: 10m}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: write, namespace: shared}
spec: {serviceAccounts: [writer], target: orders, scope: [read, write], defaultTtl: 5m, maxTtl: 10m}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: claims, namespace: shared}
spec: {serviceAccounts: [claimer], target: orders, scope: [read], claims: {tier: lead}, defaultTtl: 5m, maxTtl: 10m}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: next, namespace: shared}
spec: {mode: Audit, serviceAccounts: [api, next], target: orders, scope: [read, write], defaultTtl: 5m, maxTtl: 10m}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {name: orders, namespace: elsewhere}
spec:
  {serviceAccounts: [api, other], target: orders, scope: [read], unboundTokens: true, defaultTtl: 5m, maxTtl: 10m}
";

fn shared(account: &str) -> Ask {
    Ask::by("shared", account).of(OWNERS)
}

fn elsewhere(account: &str) -> Ask {
    Ask::by("elsewhere", account).of(OWNERS)
}

#[test]
fn a_namespace_is_owned_by_name_before_label() {
    let owner = |ask: Ask| ask.answer().map(|decision| decision.owners.namespace.to_string());
    assert_eq!(owner(shared("api").in_labelled(&[("team", "red")])), Ok("platform".to_owned()));
    assert_eq!(owner(elsewhere("api").in_labelled(&[("team", "red"), ("a", "b")])), Ok("red".to_owned()));
    let both = [("team", "purple"), ("half", "red")];
    assert_eq!(owner(elsewhere("api").in_labelled(&both)), Ok("red".to_owned()));
    let reason = |labels: &[(&str, &str)]| {
        elsewhere("api").in_labelled(labels).grace_for(0).answer().unwrap_err().reason()
    };
    assert_eq!(reason(&both[..1]), "UNOWNED");
    assert_eq!(reason(&[("team", "blue")]), "OWNER_AMBIGUOUS");
}

#[test]
fn an_owner_narrows_only_by_what_it_delegates() {
    let owners = |ask: Ask| ask.answer().unwrap().owners;
    let narrowed = |ask: Ask| {
        let owners = owners(ask);
        assert_eq!(owners.namespace.as_str(), "platform");
        owners.narrowed.map(|narrowed| (narrowed.to_string(), owners.narrowed_by.unwrap()))
    };
    let label = |key: &str, value: &str| Asserted::Label { key: key.to_owned(), value: value.to_owned() };
    assert_eq!(narrowed(shared("api")), None);
    assert_eq!(narrowed(shared("api").pod_labels(&[("app", "r")])), None, "a part of a set");
    let both = [("app", "r"), ("tier", "web"), ("x", "y")];
    assert_eq!(narrowed(shared("api").pod_labels(&both)), Some(("red".to_owned(), label("app", "r"))));
    let by_account = Asserted::ServiceAccount("blue".parse().unwrap());
    assert_eq!(narrowed(shared("blue")), Some(("blue".to_owned(), by_account)));
    let by_controller = Asserted::Controller(controller("Deployment", "g"));
    assert_eq!(
        narrowed(shared("api").controlled_by("Deployment", "g")),
        Some(("green".to_owned(), by_controller))
    );
    assert_eq!(narrowed(shared("api").controlled_by("StatefulSet", "g")), None);
    // Another namespace's Owner delegates nothing.
    let other = owners(elsewhere("api").in_labelled(&[("team", "red")]).pod_labels(&both));
    assert_eq!((other.namespace.as_str(), other.narrowed), ("red", None));

    let two = shared("blue").pod_labels(&[("app", "red")]).answer().unwrap_err();
    assert_eq!((two.reason(), two.check()), ("OWNER_AMBIGUOUS", "narrowing"));
    let gone = shared("gone").grace_for(100).answer().unwrap_err();
    assert_eq!((gone.reason(), gone.check()), ("UNOWNED", "narrowing"));
    for text in [two.to_string(), gone.to_string()] {
        assert!(["green", "blue", "platform"].iter().all(|name| !text.contains(name)), "{text}");
    }
}

/// Whoever makes a pod can write its labels: with another team's it gets that team's bounds, and nothing more.
#[test]
fn a_pod_that_wears_another_teams_label_is_bounded_and_gets_nothing_more() {
    let plain = shared("writer").scope(&["read"]).answer().unwrap();
    assert_eq!(plain.ttl, Duration::from_secs(300));
    let red = || shared("writer").pod_labels(&[("app", "red")]);
    assert_eq!(red().answer().unwrap_err().reason(), "SCOPE_ABOVE_CEILING");
    let decision = red().scope(&["read"]).answer().unwrap();
    assert_eq!(decision.ttl, Duration::from_secs(120));
    assert_eq!((decision.live.per_pod, decision.live.per_grant), (Some(2), Some(7)));
}

#[test]
fn until_a_date_namespaces_without_an_owner_are_decided_as_unowned() {
    let asked = || elsewhere("api").ttl(600);
    assert_eq!(asked().answer().unwrap_err().reason(), "UNOWNED");
    let decision = asked().grace_for(1000).answer().unwrap();
    assert_eq!((decision.owners.namespace.as_str(), decision.ttl.as_secs()), ("unowned", 600));
    assert_eq!(asked().grace_for(100).answer().unwrap().ttl.as_secs(), 100, "no longer than the grace");
    assert_eq!(asked().grace_for(20).answer().unwrap_err().reason(), "TTL_TOO_SHORT");
    assert_eq!(asked().grace_for(0).answer().unwrap_err().reason(), "UNOWNED");
    let contested = asked().in_labelled(&[("team", "blue")]).grace_for(1000);
    assert_eq!(contested.answer().unwrap_err().reason(), "OWNER_AMBIGUOUS");
    let owned = asked().in_labelled(&[("team", "red")]).grace_for(100).answer().unwrap();
    assert_eq!((owned.owners.namespace.as_str(), owned.ttl.as_secs()), ("red", 120), "not cut by the grace");
}

#[test]
fn grants_choose_service_accounts_by_label_too() {
    let worker = || shared("any").account_labels(&[("role", "worker")]);
    assert_eq!(worker().answer().unwrap().grant.to_string(), "shared/orders");
    assert_eq!(
        shared("any").account_labels(&[("role", "x")]).answer().unwrap_err().reason(),
        "GRANT_MISSING"
    );
    let pod = shared("any").pod_labels(&[("role", "worker")]);
    assert_eq!(pod.answer().unwrap_err().reason(), "GRANT_MISSING", "a pod's labels are not its account's");
}

#[test]
fn claims_are_the_grants_and_under_the_ceiling() {
    let many = ClaimValue::Many(vec!["tin".to_owned(), "gold".to_owned()]);
    assert_eq!(shared("api").answer().unwrap().claims, Claims::from([("tier".to_owned(), many)]));
    let above = shared("claimer").answer().unwrap_err();
    assert!(matches!(&above, Denial::ClaimAboveCeiling { claims, .. } if claims == &["tier"]), "{above}");
    assert_eq!((above.reason(), above.check()), ("CLAIM_ABOVE_CEILING", "claims"));
}

#[test]
fn a_ceiling_bounds_service_accounts_unbound_tokens_and_live_leases() {
    let documents = OWNERS.split("---\n").filter(|document| !document.contains("metadata: {name: green}"));
    let only_blue: &'static str = Box::leak(documents.collect::<Vec<_>>().join("---\n").into_boxed_str());
    let blue = |account| elsewhere(account).of(only_blue).in_labelled(&[("team", "blue")]);
    assert!(blue("api").answer().is_ok());
    assert_eq!(blue("other").answer().unwrap_err().reason(), "SCOPE_ABOVE_CEILING");
    assert_eq!(blue("api").unbound().answer().unwrap_err().reason(), "TOKEN_UNBOUND");
    let red = elsewhere("api").in_labelled(&[("team", "red")]);
    assert!(red.unbound().answer().is_ok());
    let expected =
        LiveCaps { per_pod: Some(3), per_namespace: Some(50), total: Some(1000), ..LiveCaps::default() };
    assert_eq!(shared("api").answer().unwrap().live, expected);
}

#[test]
fn a_grant_of_mode_audit_grants_nothing_and_says_what_it_would_have() {
    let next = shared("next");
    assert_eq!(next.answer().unwrap_err().reason(), "GRANT_MISSING");
    let named = shared("next").grant("next").answer().unwrap_err();
    assert!(named.to_string().contains("is of mode Audit"), "{named}");
    let would = |ask: &Ask| {
        ask.set().audit(&ask.0).into_iter().map(|a| (a.grant.to_string(), a.would)).collect::<Vec<_>>()
    };
    let told = would(&next);
    let [(grant, Err(denial))] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((grant.as_str(), denial.reason()), ("shared/next", "SCOPE_ABOVE_CEILING"));
    let told = would(&shared("next").scope(&["read"]));
    let [(_, Ok(decision))] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(decision.ttl.as_secs(), 300);
    // It makes nothing ambiguous, and a request that names another Grant is not its matter.
    assert!(shared("api").answer().is_ok());
    assert_eq!(would(&shared("api")).len(), 1);
    assert_eq!(would(&shared("api").grant("orders")), []);
    let change = next.set().explain(&next.0).change.unwrap();
    assert!(change.contains("set spec.mode of Grant shared/next to Enforce"), "{change}");
}

#[test]
fn an_explanation_tells_each_check_in_order_and_what_would_have_to_change() {
    let ask = shared("blue").scope(&["read"]).grace_for(9);
    let explanation = ask.set().explain(&ask.0);
    let text = explanation.to_string();
    let without_generations = text.lines().map(|line| match line.strip_prefix("  by  ") {
        Some(object) => format!("  by  {}", object.rsplit_once(' ').unwrap().0),
        None => line.to_owned(),
    });
    let expected = "\
granted: owner platform narrowed to blue, Grant shared/orders, scope read, audience https://orders.example, claims tier, 300 s
  ok  owner      namespace shared belongs to Owner platform, by name
  ok  narrowing  that Owner delegates to Owner blue by service account blue
  -   grant      shared/claims does not list service account blue
  -   grant      shared/write does not list service account blue
  ok  grant      shared/orders is the only one that matches
  ok  target     Target orders is there; for this namespace and owner: ceiling[0], ceiling[2]
  ok  bound      the token is bound to a pod
  ok  audience   https://orders.example is allowed by Target and Grant
  ok  scope      read (asked) is in the Grant and under the ceiling
  ok  claims     tier under the ceiling
  ok  ttl        300 s, the least of the Grant's default 300 s, Grant 600 s, Target 3600 s, any credential 86400 s
  ok  live       at most, live at once: pod 3, workload -, grant -, namespace 50, total 1000
  by  Owner platform
  by  Owner blue
  by  Grant shared/orders
  by  Target orders";
    assert_eq!(without_generations.collect::<Vec<_>>().join("\n"), expected);

    let ask = api().audience(EXAMPLE).scope(&["read", "export"]);
    let denied = ask.set().explain(&ask.0);
    let last = denied.checks.last().unwrap();
    assert_eq!((&*last.check, last.verdict), ("scope", Verdict::Refused));
    let text = denied.to_string();
    assert!(text.starts_with("denied: SCOPE_ABOVE_CEILING: scope export is above"), "{text}");
    assert!(
        text.contains("to change: ask for less, or let an entry of spec.ceiling of Target orders"),
        "{text}"
    );
}

/// For each denial, an operator is told something to change.
#[test]
fn every_denial_names_what_would_have_to_change() {
    let contested = elsewhere("api").in_labelled(&[("team", "blue")]);
    let cases = [
        (elsewhere("api"), "add namespace elsewhere to spec.namespaces of one Owner"),
        (contested, "it is claimed by blue, green"),
        (Ask::by("contested", "api"), "it is claimed by checkout-team, payments-team"),
        (
            shared("blue").pod_labels(&[("app", "red")]),
            "of Owner platform give this workload to one of red, blue",
        ),
        (shared("gone"), "create Owner gone, to which Owner platform delegates service account gone"),
        (api().target("gone"), "create Target gone"),
        (Ask::by("payments", "web"), "add a Grant in namespace payments"),
        (Ask::by("payments", "job"), "name one of these Grants"),
        (api().grant("ledger"), "name another Grant than payments/ledger"),
        (api().audience(EXAMPLE).scope(&["admin"]), "add admin to spec.scope of Grant payments/orders"),
        (shared("claimer"), "remove tier from spec.claims of Grant shared/claims"),
        (api().audience("https://evil.example"), "ask for another audience"),
        (api(), "name an audience"),
        (api().target("ledger").unbound(), "use a projected serviceAccountToken volume"),
        (api().target("ledger").ttl(1), "ask for 30 s or longer"),
        (api().target("ledger").key_ends_in(1), "wait until"),
    ];
    for (ask, part) in cases {
        let change = ask.set().explain(&ask.0).change.unwrap();
        assert!(change.contains(part), "{part}: {change}");
    }
}
