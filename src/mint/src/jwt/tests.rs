use std::task::{Context, Poll, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dayfly_core::claims::ClaimValue;
use dayfly_core::digest::Digest;
use dayfly_core::ids::{KeyId, TrustDomain, Uid};
use dayfly_core::lease::{Confirmation, Lease};
use dayfly_core::ports::{SigningAlgorithm, TargetRef};
use dayfly_core::secret::Secret;
use dayfly_core::workload::Node;
use dayfly_jose::{KeySet, Policy, Times, verify};
use proptest::prelude::*;

use super::*;
use crate::signed::MAX_BYTES;

const ISSUER: &str = "https://dayfly.example";

/// A signer of one key.
pub(crate) struct OneKey(dayfly_jose::SigningKey);

impl OneKey {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(dayfly_jose::SigningKey::generate().unwrap()))
    }

    pub(crate) fn key_set(&self) -> KeySet {
        KeySet::new(vec![self.0.public_jwk().into()])
    }
}

impl Signer for OneKey {
    fn current(&self, _: &KeyFor) -> Result<SigningKey, SignError> {
        Ok(SigningKey { id: self.0.key_id().clone(), not_after: None })
    }

    fn sign(
        &self,
        key: &KeyId,
        key_use: &KeyUse,
        target: &TargetRef,
        payload: &[u8],
    ) -> Result<Secret, SignError> {
        assert_eq!(target.to_string(), "east/orders");
        if key != self.0.key_id() {
            return Err(SignError::NoKey);
        }
        self.0.sign_jws(key_use.typ(), payload).map_err(|_| SignError::Failed)
    }

    fn jwks(&self, _: &KeyUse) -> Option<Arc<str>> {
        None
    }

    fn trust_domains(&self) -> Vec<TrustDomain> {
        Vec::new()
    }
}

fn json(lease: &Lease) -> String {
    serde_json::to_string(&claims(&Order { lease, issuer: ISSUER })).unwrap()
}

pub(crate) fn wanted(lease: &Lease) -> KeyFor {
    KeyFor { key_use: lease.key_use(), algorithm: SigningAlgorithm::Es256, target: lease.target_ref() }
}

fn mint(signer: &Arc<OneKey>, mut lease: Lease) -> Result<Minted, MintError> {
    let engine = JwtEngine::new(Arc::clone(signer) as Arc<dyn Signer>);
    lease.key_id = engine.prepare(&wanted(&lease)).unwrap().id;
    mint_as_is(&engine, &lease)
}

pub(crate) fn mint_as_is(engine: &dyn Engine, lease: &Lease) -> Result<Minted, MintError> {
    let order = Order { lease, issuer: ISSUER };
    let mut minting = engine.mint(&order);
    match minting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(minted) => minted,
        Poll::Pending => panic!("a signed token is made at once"),
    }
}

pub(crate) fn full() -> Lease {
    let mut lease = Lease::test(0x0192_f0c1_5d0e_7a39_8b1d_2f6a_1c9e_4b70).narrowed_to("payments-api");
    lease.workload.node = Some(Node { name: "node-1".parse().unwrap(), uid: Some(Uid::from_u128(3)) });
    lease.scope.push("orders:write".parse().unwrap());
    lease.confirmation = Some(Confirmation::Jwk(Digest::of(b"jwk")));
    lease
}

#[test]
fn the_claims_are_these() {
    let expected = concat!(
        r#"{"iss":"https://dayfly.example","sub":"east:payments:api","aud":"https://orders.example","#,
        r#""exp":1795435500,"nbf":1795435200,"iat":1795435200,"jti":"0192f0c1-5d0e-7a39-8b1d-2f6a1c9e4b70","#,
        r#""client_id":"east:payments:api","scope":"orders:read orders:write","#,
        r#""cnf":{"jkt":"yz66DcoKk8XZryNfEJX2ws4F-Xp2RbcFvsFRs22rxNg"},"#,
        r#""dayfly":{"cluster":"east","owner":"payments-api","namespace_owner":"payments","#,
        r#""namespace":"payments","service_account":"api","#,
        r#""service_account_uid":"00000000-0000-0000-0000-000000000001","#,
        r#""pod":"api-0","pod_uid":"00000000-0000-0000-0000-000000000002","#,
        r#""node":"node-1","node_uid":"00000000-0000-0000-0000-000000000003","#,
        r#""grant":"payments/orders","target":"orders"}}"#,
    );
    assert_eq!(json(&full()), expected);
}

#[test]
fn what_is_not_there_is_not_said() {
    let mut lease = Lease::test(1);
    lease.workload.pod = None;
    lease.scope.clear();
    let expected = concat!(
        r#"{"iss":"https://dayfly.example","sub":"east:payments:api","aud":"https://orders.example","#,
        r#""exp":1795435500,"nbf":1795435200,"iat":1795435200,"jti":"00000000-0000-0000-0000-000000000001","#,
        r#""client_id":"east:payments:api","#,
        r#""dayfly":{"cluster":"east","owner":"payments","namespace":"payments","service_account":"api","#,
        r#""service_account_uid":"00000000-0000-0000-0000-000000000001","#,
        r#""grant":"payments/orders","target":"orders"}}"#,
    );
    assert_eq!(json(&lease), expected);
}

#[test]
fn a_grants_claims_come_last_and_no_grant_may_set_one_of_ours() {
    let own: serde_json::Value = serde_json::from_str(&json(&full())).unwrap();
    let settable = own.as_object().unwrap().keys().find(|name| !dayfly_core::claims::is_reserved(name));
    assert_eq!(settable, None);
    let mut lease = Lease::test(1);
    lease.claims = [
        ("tier".to_owned(), ClaimValue::One("gold".to_owned())),
        ("areas".to_owned(), ClaimValue::Many(vec!["eu".to_owned(), "us".to_owned()])),
    ]
    .into();
    let json = json(&lease);
    assert!(json.ends_with(r#""target":"orders"},"areas":["eu","us"],"tier":"gold"}"#), "{json}");
}

#[test]
fn a_certificate_is_confirmed_by_its_digest() {
    let mut lease = Lease::test(1);
    lease.confirmation = Some(Confirmation::Certificate(Digest::of(b"der")));
    assert!(json(&lease).contains(r#""cnf":{"x5t#S256":""#));
}

#[test]
fn a_minted_token_verifies() {
    let signer = OneKey::new();
    let minted = mint(&signer, full()).unwrap();
    assert_eq!(minted.digest, Digest::of(minted.credential.expose()));
    let token = minted.credential.expose_text().unwrap();
    let verified = verify(token, &signer.key_set(), Policy::exactly(KeyUse::AccessToken.typ())).unwrap();
    assert!(verified.claims.is_only_for("https://orders.example"));
    assert_eq!(verified.claims.id, Some(full().id.to_string()));
    assert_eq!(verified.header.kid.as_deref(), Some(signer.0.key_id().as_str()));
    let times = Times { leeway: std::time::Duration::ZERO };
    assert!(times.check(&verified.claims, full().issued_at).is_ok());
    assert!(times.check(&verified.claims, full().expires_at).is_err());
}

/// A token of ours that joserfc 1.8.0 (Python) verified, with its key: a change that would break other verifiers shows.
#[test]
fn a_token_that_another_library_verified_still_is_ours() {
    let jwk = r#"{"kty":"EC","crv":"P-256","x":"3zf2mYiciPYcXG4aF05j5q2r6fGKiGBj9fTcZ59Qdmg","y":"w_p-rqw0MenJdZshJkFLFX-mwvrQ-ETLtuJQ5sGw5b4","kid":"EmFXXh1WV7BhcRJlVaTL7YEYF3sxdo-AnEhTyGd5vbg","alg":"ES256","use":"sig"}"#;
    let signature = "fmtktkTzBT-WQ5_2_8n0bydJ_Uz7INXTxqHU3XFRbS-bbSs56uLE57a-sVcYafIVTtX9pJ6Bl8LicJDGnFI8vA";
    let header = r#"{"alg":"ES256","kid":"EmFXXh1WV7BhcRJlVaTL7YEYF3sxdo-AnEhTyGd5vbg","typ":"at+jwt"}"#;
    let token =
        format!("{}.{}.{signature}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(json(&full())));
    let keys = KeySet::parse(format!(r#"{{"keys":[{jwk}]}}"#).as_bytes()).unwrap();
    assert!(verify(&token, &keys, Policy::exactly(KeyUse::AccessToken.typ())).is_ok());
}

#[test]
fn signing_again_gives_the_same_claims() {
    let signer = OneKey::new();
    let payload = || {
        let minted = mint(&signer, full()).unwrap();
        minted.credential.expose_text().unwrap().split('.').nth(1).unwrap().to_owned()
    };
    assert_eq!(payload(), payload());
}

#[test]
fn a_key_that_is_gone_signs_nothing() {
    let engine = JwtEngine::new(OneKey::new());
    assert_eq!(mint_as_is(&engine, &full()).err(), Some(MintError::Sign(SignError::NoKey)));
}

#[test]
fn a_token_that_no_one_could_present_is_not_minted() {
    let signer = OneKey::new();
    let scopes = |count: usize| -> Lease {
        let scope = (0..count).map(|n| format!("{n:0>100}").parse().unwrap()).collect();
        Lease { scope, ..Lease::test(1) }
    };
    let minted = mint(&signer, scopes(50)).unwrap();
    assert!(minted.credential.len() <= MAX_BYTES);
    assert!(matches!(mint(&signer, scopes(64)).err(), Some(MintError::TooLarge(bytes)) if bytes > MAX_BYTES));
    assert!(matches!(mint(&signer, scopes(100)).err(), Some(MintError::TooLarge(_))));
}

proptest! {
    #[test]
    fn whatever_a_lease_says_is_one_claim(audience in "[!-~]{1,60}", scopes in prop::collection::vec("[!#-\\[\\]-~]{1,20}", 0..5)) {
        let mut lease = Lease::test(1);
        lease.audience = audience.parse().unwrap();
        lease.scope = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
        let claims = dayfly_jose::Claims::parse(json(&lease).as_bytes()).unwrap();
        prop_assert!(claims.is_only_for(&audience));
        let said: Vec<&str> = claims.all.get("scope").and_then(|scope| scope.as_str()).map(|scope| scope.split(' ').collect()).unwrap_or_default();
        prop_assert_eq!(said, scopes);
        prop_assert_eq!(claims.subject.as_deref(), Some("east:payments:api"));
    }
}
