//! Tokens that another library made (vectors/make.py), each with what a verifier must say to it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_core::digest::Digest;
use dayfly_core::ports::TestClock;
use dayfly_core::time::Timestamp;
use dayfly_verify::{Profile, Proof, Verifier};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct File {
    maker_sha256: String,
    now: u64,
    issuer: String,
    trust_domain: String,
    audience: String,
    scope: String,
    jwks: Value,
    bundle: Value,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    profile: String,
    token: String,
    expect: String,
    proof: Option<Proven>,
}

#[derive(Deserialize)]
struct Proven {
    jkt: Option<String>,
    certificate: Option<String>,
}

impl Vector {
    fn proof(&self) -> Proof {
        match &self.proof {
            None => Proof::Nothing,
            Some(Proven { jkt: Some(jkt), .. }) => Proof::jwk_thumbprint(jkt).unwrap(),
            Some(Proven { certificate, .. }) => {
                Proof::certificate(&STANDARD.decode(certificate.as_ref().unwrap()).unwrap())
            }
        }
    }
}

fn vectors() -> File {
    serde_json::from_str(include_str!("vectors/vectors.json")).unwrap()
}

fn verifier(vectors: &File, profile: &str) -> Verifier {
    let (profile, keys) = if profile == "svid" {
        (Profile::Svid { trust_domain: vectors.trust_domain.parse().unwrap() }, &vectors.bundle)
    } else {
        (Profile::AccessToken { issuer: vectors.issuer.clone() }, &vectors.jwks)
    };
    Verifier::builder(profile)
        .audience("https://another.example")
        .audience(&vectors.audience)
        .scope(&vectors.scope)
        .danger_without_broker(keys.to_string())
        .clock(Arc::new(TestClock::at(Timestamp::from_secs(vectors.now))))
        .build()
        .unwrap()
}

#[test]
fn every_token_gets_what_it_must() {
    let vectors = vectors();
    assert!(vectors.vectors.len() > 120, "only {} vectors", vectors.vectors.len());
    let (access, svid) = (verifier(&vectors, "access-token"), verifier(&vectors, "svid"));
    let mut wrong = Vec::new();
    for vector in &vectors.vectors {
        let verifier = if vector.profile == "svid" { &svid } else { &access };
        let said = match verifier.verify(&vector.token, vector.proof()) {
            Ok(_) => "OK",
            Err(refused) => refused.name(),
        };
        if said != vector.expect {
            wrong.push(format!("{}: {said}, and it must be {}", vector.name, vector.expect));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_refusal_says_anything_of_the_token() {
    let vectors = vectors();
    let (access, svid) = (verifier(&vectors, "access-token"), verifier(&vectors, "svid"));
    for vector in &vectors.vectors {
        let verifier = if vector.profile == "svid" { &svid } else { &access };
        let Err(refused) = verifier.verify(&vector.token, vector.proof()) else { continue };
        let said = format!("{refused} {refused:?}");
        for secret in
            vector.token.split('.').filter(|part| part.len() > 8).chain(["evil", "payments", "east"])
        {
            assert!(!said.contains(secret), "{}: {said}", vector.name);
        }
    }
}

#[test]
fn what_a_good_token_says_is_given_with_its_types() {
    let vectors = vectors();
    let token = |name: &str| vectors.vectors.iter().find(|it| it.name == name).unwrap();
    let verifier = verifier(&vectors, "access-token");
    let verified = verifier.verify(&token("with claims of a Grant").token, Proof::Nothing).unwrap();
    assert_eq!(verified.subject(), "east:payments:api");
    assert_eq!(verified.lease().to_string(), "01a207bf-a800-7000-8000-000000000001");
    assert_eq!(verified.owner().as_str(), "payments-batch");
    let origin = verified.origin();
    assert_eq!(origin.namespace_owner.as_ref().unwrap().as_str(), "payments");
    assert_eq!(origin.grant.to_string(), "payments/orders");
    assert_eq!(origin.pod.as_ref().unwrap().as_str(), "api-0");
    assert_eq!(verified.audience().as_str(), vectors.audience);
    assert_eq!(verified.scope().collect::<Vec<_>>(), ["orders:read", "orders:write"]);
    assert!(verified.has_scope("orders:write") && !verified.has_scope("orders"));
    assert_eq!(verified.require_scope("admin").unwrap_err().name(), "SCOPE_MISSING");
    assert_eq!(verified.issued_at().as_secs(), vectors.now);
    assert_eq!(verified.expires_at().as_secs(), vectors.now + 300);
    assert_eq!(verified.claim("tenant").unwrap()[1], "b");
    assert_eq!((verified.confirmation(), verified.spiffe_id()), (None, None));

    let svid = self::verifier(&vectors, "svid");
    let bound = token("SVID bound to a certificate");
    let verified = svid.verify(&bound.token, bound.proof()).unwrap();
    assert_eq!(verified.spiffe_id().unwrap().as_str(), verified.subject());
    assert!(verified.confirmation().is_some());
}

#[test]
fn the_vectors_are_those_that_the_script_makes() {
    let maker = Digest::of(include_bytes!("vectors/make.py"));
    assert_eq!(vectors().maker_sha256, maker.to_string(), "make.py has changed since: run `just vectors`");
}
