//! What a Target's credentials are: exactly one kind, with settings that fit.

use dayfly_core::ports::{KeyUse, SigningAlgorithm};
use dayfly_policy::{File, Kind, Loaded, Reserved, load};

fn target(kind: &str, reserved: &Reserved) -> Loaded {
    let text = format!(
        "apiVersion: dayfly.dev/v1alpha1\nkind: Target\nmetadata: {{name: orders}}\nspec:\n{kind}\n  maxTtl: 1h\n"
    );
    load(&[File { name: "t.yaml".to_owned(), text }], reserved)
}

#[expect(clippy::unwrap_used, reason = "a test's target is there")]
fn signed_by(kind: &str) -> (KeyUse, SigningAlgorithm) {
    let loaded = target(kind, &Reserved::default());
    assert_eq!(loaded.problems, []);
    let target = loaded.set.target(&"orders".parse().unwrap()).unwrap();
    target.spec.kind().map(Kind::signed_by).unwrap()
}

fn problem(kind: &str, reserved: &Reserved) -> String {
    let loaded = target(kind, reserved);
    assert_eq!(loaded.set.targets().count(), 0, "an invalid target is none: {kind}");
    loaded.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn each_kind_says_what_signs_it() {
    let jwt = |algorithm: &str| signed_by(&format!("  jwt: {{audiences: [a]{algorithm}}}"));
    assert_eq!(jwt(""), (KeyUse::AccessToken, SigningAlgorithm::Es256));
    assert_eq!(jwt(", signingAlgorithm: ES256"), (KeyUse::AccessToken, SigningAlgorithm::Es256));
    assert_eq!(jwt(", signingAlgorithm: EdDSA"), (KeyUse::AccessToken, SigningAlgorithm::EdDsa));
    assert_eq!(jwt(", signingAlgorithm: RS256"), (KeyUse::AccessToken, SigningAlgorithm::Rs256));
    let svid = signed_by("  svid: {trustDomain: prod.example, audiences: [a]}");
    assert_eq!(svid, (KeyUse::Svid("prod.example".parse().unwrap()), SigningAlgorithm::Es256));
}

#[test]
fn what_is_wrong_with_a_kind_is_said_where_it_is() {
    let none = Reserved::default();
    for (kind, said) in [
        ("  verifiers: []", "needs exactly one kind: jwt or svid"),
        (
            "  jwt: {audiences: [a]}\n  svid: {trustDomain: t, audiences: [a]}",
            "needs exactly one kind: jwt or svid",
        ),
        ("  jwt: {audiences: []}", "spec.jwt.audiences:"),
        ("  svid: {trustDomain: t, audiences: []}", "spec.svid.audiences:"),
        ("  svid: {audiences: [a]}", "trustDomain"),
        ("  svid: {trustDomain: 'spiffe://t', audiences: [a]}", "trust domain"),
        ("  svid: {trustDomain: t, audiences: [a], signingAlgorithm: RS256}", "signingAlgorithm"),
        ("  jwt: {audiences: [a], signingAlgorithm: HS256}", "HS256"),
        ("  jwt: {audiences: [a], signingAlgorithm: none}", "none"),
        ("  jwt: {audiences: [a], signingAlgorithm: es256}", "es256"),
    ] {
        let problem = problem(kind, &none);
        assert!(problem.contains(said), "{kind}: {problem}");
    }
}

#[test]
fn reserved_audiences_and_unknown_trust_domains_are_refused() {
    let reserved = Reserved {
        audiences: ["https://api".parse().unwrap()].into(),
        trust_domains: Some(["prod.example".parse().unwrap()].into()),
    };
    let svid = |domain: &str, audience: &str| {
        format!("  svid: {{trustDomain: {domain}, audiences: ['{audience}']}}")
    };
    assert_eq!(target(&svid("prod.example", "a"), &reserved).problems, []);
    assert!(problem(&svid("prod.example", "https://api"), &reserved).contains("spec.svid.audiences[0]:"));
    let other = problem(&svid("other.example", "a"), &reserved);
    assert!(other.contains("spec.svid.trustDomain:") && other.contains("[[trust_domain]]"), "{other}");
}
