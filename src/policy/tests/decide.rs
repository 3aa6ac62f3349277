//! Each reason to say no, and what yes gives.

use std::time::Duration;

use dayfly_core::claims::{ClaimValue, Claims};
use dayfly_core::provenance::{Asserted, Labels, ObjectRef};
use dayfly_core::time::Timestamp;
use dayfly_policy::{
    Decision, Denial, File, LiveCaps, PolicySet, Question, Reserved, UnownedGrace, Verdict, load,
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

struct Ask(Question);

#[expect(clippy::unwrap_used, reason = "fixtures of tests")]
impl Ask {
    fn by(namespace: &str, service_account: &str) -> Self {
        Self(Question {
            cluster: "east".parse().unwrap(),
            namespace: namespace.parse().unwrap(),
            namespace_labels: Labels::new(),
            service_account: service_account.parse().unwrap(),
            service_account_labels: Labels::new(),
            pod_labels: Labels::new(),
            controller: None,
            bound: true,
            target: "orders".parse().unwrap(),
            grant: None,
            scope: Vec::new(),
            audience: None,
            ttl: None,
            key_ends_in: None,
            now: Timestamp::from_secs(1_795_435_200),
            unowned: None,
        })
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
        policy().decide(&self.0)
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
