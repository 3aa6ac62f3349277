use dayfly_api::revocation_rule;
use dayfly_core::ids::Position;
use dayfly_core::lease::Lease;
use dayfly_core::ports::Order;
use dayfly_core::rule::{Fields as CoreFields, Rule, Selector};
use dayfly_core::workload::{Node, Pod};
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::origin::Origin;

const NOW: Timestamp = Timestamp::from_secs(1_795_435_200);

/// The facts of the token that is minted for this lease.
fn facts(lease: &Lease) -> Facts {
    let order = Order { lease, issuer: "https://dayfly.example" };
    let claims: Value = if lease.spiffe_id.is_some() {
        serde_json::to_value(dayfly_mint::svid::claims(&order).unwrap()).unwrap()
    } else {
        serde_json::to_value(dayfly_mint::jwt::claims(&order)).unwrap()
    };
    let origin: Origin = serde_json::from_value(claims["dayfly"].clone()).unwrap();
    Facts::of(&origin, &lease.key_id, claims["jti"].as_str().unwrap().parse().unwrap())
}

fn told(rules: &[Rule]) -> v1::WatchRevocationsResponse {
    v1::WatchRevocationsResponse {
        rules: rules.iter().map(revocation_rule).collect(),
        ..v1::WatchRevocationsResponse::default()
    }
}

fn of(rules: &[Rule]) -> Revocations {
    let mut set = Revocations::default();
    set.take(&told(rules), NOW).unwrap();
    set
}

/// One of few, so that leases and selectors meet often.
fn few<T: std::str::FromStr<Err: std::fmt::Debug> + Clone + std::fmt::Debug>(
    names: &'static [&'static str],
) -> impl Strategy<Value = T> {
    prop::sample::select(names).prop_map(|name| name.parse().unwrap())
}

fn uid() -> impl Strategy<Value = Uid> {
    (1_u128..4).prop_map(Uid::from_u128)
}

const CLUSTERS: &[&str] = &["east", "west"];
const OWNERS: &[&str] = &["payments", "batch", "orders"];
const NAMESPACES: &[&str] = &["payments", "batch"];
const GRANTS: &[&str] = &["payments/orders", "payments/ledger", "batch/orders"];
const TARGETS: &[&str] = &["orders", "ledger"];
const KEYS: &[&str] = &["key-1", "key-2"];
const CREDENTIALS: &[&str] = &["JTI=1", "JTI=2"];
const IMAGES: &[&str] = &[
    "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
];
const SPIFFE_IDS: &[&str] = &["spiffe://prod.example/ns/payments/sa/api"];

prop_compose! {
    fn a_lease()(
        id in 1_u128..6,
        cluster in few(CLUSTERS),
        (owner, narrowed) in (few(OWNERS), option::of(few(OWNERS))),
        namespace in few(NAMESPACES),
        (account, pod, node) in (uid(), option::of(uid()), option::of(option::of(uid()))),
        (grant, target, key) in (few(GRANTS), few(TARGETS), few(KEYS)),
        credential in option::of(few(CREDENTIALS)),
        spiffe_id in option::of(few(SPIFFE_IDS)),
        image in option::of(prop::sample::select(IMAGES)),
    ) -> Lease {
        let images: Vec<_> = image.into_iter().map(|image| ("api", image)).collect();
        let mut lease = Lease::test(id).running(&images);
        lease.workload.cluster = cluster;
        lease.workload.service_account.namespace = namespace;
        lease.workload.service_account.uid = account;
        lease.workload.pod = pod.map(|uid| Pod { name: "api-0".parse().unwrap(), uid });
        lease.workload.node = node.map(|uid| Node { name: "node-1".parse().unwrap(), uid });
        lease.workload.credential_id = credential;
        (lease.owners.namespace, lease.owners.narrowed) = (owner, narrowed);
        (lease.grant, lease.target, lease.key_id) = (grant, target, key);
        lease.spiffe_id = spiffe_id;
        lease
    }
}

prop_compose! {
    fn fields_of_a_selector()(
        cluster in option::weighted(0.3, few(CLUSTERS)),
        owner in option::weighted(0.4, few(OWNERS)),
        namespace in option::weighted(0.2, few(NAMESPACES)),
        service_account in option::weighted(0.2, uid()),
        (pod, node) in (option::weighted(0.2, uid()), option::weighted(0.2, uid())),
        grant in option::weighted(0.2, few(GRANTS)),
        (target, key) in (option::weighted(0.2, few(TARGETS)), option::weighted(0.2, few(KEYS))),
        credential_id in option::weighted(0.1, few(CREDENTIALS)),
        lease in option::weighted(0.1, (1_u128..6).prop_map(LeaseId::from_u128)),
        image in option::weighted(0.1, few(IMAGES)),
    ) -> CoreFields {
        CoreFields {
            cluster, owner, namespace, service_account, pod, node, grant, target, key, credential_id, lease, image,
        }
    }
}

fn a_rule() -> impl Strategy<Value = Rule> {
    (fields_of_a_selector(), 1_u128..6, any::<bool>()).prop_map(|(fields, cut_off, hold)| {
        let selector = Selector::fields(fields).unwrap_or(Selector::All);
        let rule = Rule::test(1, selector, cut_off);
        if hold { rule.holding() } else { rule }
    })
}

fn is_spelled_out(rule: &Rule) -> bool {
    matches!(&rule.selector, Selector::Where(fields) if fields.credential_id.is_some() || fields.image.is_some())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// What core says of a lease, this says of its token.
    #[test]
    fn rules_match_claims_as_they_match_leases(
        lease in a_lease(),
        rules in prop::collection::vec(a_rule(), 0..6),
    ) {
        let by_core = rules.iter().any(|rule| !is_spelled_out(rule) && rule.covers(&lease));
        prop_assert_eq!(of(&rules).cover(&facts(&lease)), by_core, "{:?}\n{:?}", lease, rules);
        for rule in &rules {
            let by_core = !is_spelled_out(rule) && rule.covers(&lease);
            prop_assert_eq!(of(std::slice::from_ref(rule)).cover(&facts(&lease)), by_core, "{:?}\n{:?}", lease, rule);
        }
    }
}

#[test]
fn of_one_selector_the_highest_cut_off_counts() {
    let rule = |cut_off| Rule::test(1, Selector::owner("payments".parse().unwrap()), cut_off);
    let set = of(&[rule(5), rule(7), rule(3)]);
    assert_eq!(set.rules, 1);
    assert!(set.cover(&facts(&Lease::test(7))));
    assert!(!set.cover(&facts(&Lease::test(8))));
}

#[test]
fn names_that_run_together_are_not_taken_for_each_other() {
    let fields = |cluster: &str, namespace: &str| CoreFields {
        cluster: cluster.parse().ok(),
        namespace: namespace.parse().ok(),
        ..CoreFields::default()
    };
    let set = of(&[Rule::test(1, Selector::fields(fields("eastp", "ayments")).unwrap(), 9)]);
    assert!(!set.cover(&facts(&Lease::test(1))));
}

#[test]
fn rules_without_claims_revoke_what_is_spelled_out_alone() {
    let credential = CoreFields { credential_id: "JTI=1".parse().ok(), ..CoreFields::default() };
    let rule = Rule::test(1, Selector::fields(credential).unwrap(), 9);
    let mut lease = Lease::test(1);
    lease.workload.credential_id = "JTI=1".parse().ok();
    let mut message = told(std::slice::from_ref(&rule));
    // One with an image, and one of which the image is but a part.
    let image = v1::Selector { image_digest: "sha256:x".to_owned(), ..v1::Selector::default() };
    for selector in [image.clone(), v1::Selector { owner: "payments".to_owned(), ..image }] {
        message.rules.push(v1::RevocationRule { selector: Some(selector), ..message.rules[0].clone() });
    }
    let mut set = Revocations::default();
    set.take(&message, NOW).unwrap();
    assert!(!set.cover(&facts(&lease)));
    let covered =
        v1::CoveredLeases { rule: rule.id.to_string(), leases: vec![lease.id.to_string()], complete: true };
    let message =
        v1::WatchRevocationsResponse { covered: vec![covered], ..v1::WatchRevocationsResponse::default() };
    set.take(&message, NOW).unwrap();
    assert!(set.cover(&facts(&lease)));
    assert!(!set.cover(&facts(&Lease::test(2))));
}

#[test]
fn what_is_out_of_date_is_dropped_and_what_is_spelled_out_with_its_rule() {
    let until = |rule: Rule, secs| Rule { until: NOW.plus(Duration::from_secs(secs)), ..rule };
    let lease = LeaseId::first_at(NOW);
    let all = until(Rule::test(1, Selector::All, 9).holding(), 100);
    let mut spelled = Rule::test(2, Selector::All, lease.as_u128());
    spelled.selector =
        Selector::fields(CoreFields { credential_id: "JTI=1".parse().ok(), ..CoreFields::default() })
            .unwrap();
    let spelled = until(spelled, 300);
    let covered = |rule: &Rule, lease: LeaseId| v1::CoveredLeases {
        rule: rule.id.to_string(),
        leases: vec![lease.to_string()],
        complete: false,
    };
    let unknown = LeaseId::from_u128(lease.as_u128() + 1);
    let mut message = told(&[all.clone(), spelled.clone()]);
    message.covered = vec![covered(&spelled, lease), covered(&all, unknown)];
    let mut set = Revocations::default();
    set.take(&message, NOW).unwrap();
    let heartbeat = v1::WatchRevocationsResponse::default();
    let sizes = |set: &Revocations| (set.rules, set.spelled.len(), set.covered.len());
    for (secs, left) in
        [(100, (1, 1, 2)), (161, (0, 1, 2)), (222, (0, 1, 2)), (302, (0, 0, 1)), (25 * 3600, (0, 0, 0))]
    {
        set.take(&heartbeat, NOW.plus(Duration::from_secs(secs))).unwrap();
        assert_eq!(sizes(&set), left, "{secs}");
    }
    assert_eq!(set.swept_at(), NOW.plus(Duration::from_secs(25 * 3600)));
}

#[test]
fn what_cannot_be_read_is_not_passed_over() {
    let rule = revocation_rule(&Rule::test(1, Selector::lease(LeaseId::from_u128(1)), 9));
    let selector = rule.selector.clone().unwrap();
    let broken = [
        v1::RevocationRule { cut_off: "9".to_owned(), ..rule.clone() },
        v1::RevocationRule { selector: None, ..rule.clone() },
        v1::RevocationRule {
            selector: Some(v1::Selector { lease: "x".to_owned(), ..selector.clone() }),
            ..rule.clone()
        },
        v1::RevocationRule {
            selector: Some(v1::Selector { pod: "api-0".to_owned(), ..selector.clone() }),
            ..rule.clone()
        },
        v1::RevocationRule {
            selector: Some(v1::Selector { grant: "x".to_owned(), ..selector }),
            ..rule.clone()
        },
    ];
    for broken in broken {
        let message = v1::WatchRevocationsResponse {
            rules: vec![broken.clone()],
            ..v1::WatchRevocationsResponse::default()
        };
        assert!(Revocations::default().take(&message, NOW).is_err(), "{broken:?}");
    }
    // A selector of which nothing is known here is about everything; a rule without an end has none.
    let newer = v1::RevocationRule { selector: Some(v1::Selector::default()), until: None, ..rule };
    let message =
        v1::WatchRevocationsResponse { rules: vec![newer], ..v1::WatchRevocationsResponse::default() };
    let mut set = Revocations::default();
    set.take(&message, NOW).unwrap();
    set.sweep(NOW.plus(Duration::from_secs(1_000_000_000)));
    assert!(set.cover(&facts(&Lease::test(9))));
    assert!(!set.cover(&facts(&Lease::test(10))));
}

#[test]
fn a_check_costs_the_same_with_few_rules_and_with_many() {
    let of_pods = |rules: u64| {
        let rules: Vec<_> = (0..rules)
            .map(|number| {
                let pod = Some(Uid::from_u128(1_000 + u128::from(number)));
                let selector = Selector::fields(CoreFields { pod, ..CoreFields::default() }).unwrap();
                Rule { position: Position::new(number), ..Rule::test(1, selector, 9) }
            })
            .collect();
        of(&rules)
    };
    let (few, many) = (of_pods(10), of_pods(100_000));
    assert_eq!((few.by_shape.len(), many.by_shape.len(), many.rules), (1, 1, 100_000));
    assert!(many.cover(&facts(&Lease::test(1).of_pod(100_999))));
    assert!(!many.cover(&facts(&Lease::test(1).of_pod(101_000))));
}
