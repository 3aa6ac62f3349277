use dayfly_core::lease::Lease;
use dayfly_jose::{KeySet, Policy, Times, verify};

use super::*;
use crate::jwt::JwtEngine;
use crate::jwt::tests::{OneKey, full, mint_as_is, wanted};
use crate::signed::SignedEngines;

fn svid() -> Lease {
    Lease { spiffe_id: "spiffe://prod.example/cluster/east/ns/payments/sa/api".parse().ok(), ..full() }
}

fn json(lease: &Lease) -> String {
    serde_json::to_string(&claims(&Order { lease, issuer: "https://dayfly.example" }).unwrap()).unwrap()
}

#[test]
fn the_claims_are_these() {
    let expected = concat!(
        r#"{"sub":"spiffe://prod.example/cluster/east/ns/payments/sa/api","aud":["https://orders.example"],"#,
        r#""exp":1795435500,"iat":1795435200,"jti":"0192f0c1-5d0e-7a39-8b1d-2f6a1c9e4b70","#,
        r#""scope":"orders:read orders:write","#,
        r#""cnf":{"jkt":"yz66DcoKk8XZryNfEJX2ws4F-Xp2RbcFvsFRs22rxNg"},"#,
        r#""dayfly":{"cluster":"east","owner":"payments-api","namespace_owner":"payments","#,
        r#""namespace":"payments","service_account":"api","#,
        r#""service_account_uid":"00000000-0000-0000-0000-000000000001","#,
        r#""pod":"api-0","pod_uid":"00000000-0000-0000-0000-000000000002","#,
        r#""node":"node-1","node_uid":"00000000-0000-0000-0000-000000000003","#,
        r#""grant":"payments/orders","target":"orders"}}"#,
    );
    assert_eq!(json(&svid()), expected);
}

#[test]
fn a_minted_svid_verifies_as_one_and_as_nothing_else() {
    let signer = OneKey::new();
    let engine = SvidEngine::new(Arc::clone(&signer) as Arc<dyn Signer>);
    let mut lease = svid();
    lease.key_id = engine.prepare(&wanted(&lease)).unwrap().id;
    let minted = mint_as_is(&engine, &lease).unwrap();
    let token = minted.credential.expose_text().unwrap();
    let keys: KeySet = signer.key_set();
    let verified = verify(token, &keys, Policy::exactly("JWT")).unwrap();
    assert_eq!(verified.claims.subject.as_deref(), Some(lease.spiffe_id.as_ref().unwrap().as_str()));
    assert!(verified.claims.is_only_for("https://orders.example"));
    assert_eq!(verified.claims.issuer, None);
    assert!(Times { leeway: std::time::Duration::ZERO }.check(&verified.claims, lease.issued_at).is_ok());
    // Even with the very key in a set for access tokens.
    assert!(verify(token, &keys, Policy::exactly("at+jwt")).is_err());
}

#[test]
fn each_engine_mints_its_own_kind_alone() {
    let signer = OneKey::new();
    let port = Arc::clone(&signer) as Arc<dyn Signer>;
    let (jwt, svids) = (JwtEngine::new(Arc::clone(&port)), SvidEngine::new(Arc::clone(&port)));
    let both = SignedEngines::new(&port);
    for (lease, typ, engine, other) in
        [(full(), "at+jwt", &jwt as &dyn Engine, &svids as &dyn Engine), (svid(), "JWT", &svids, &jwt)]
    {
        let lease = Lease { key_id: both.prepare(&wanted(&lease)).unwrap().id, ..lease };
        assert!(mint_as_is(other, &lease).is_err(), "{typ}");
        for engine in [engine, &both] {
            let minted = mint_as_is(engine, &lease).unwrap();
            let header = dayfly_jose::peek(minted.credential.expose_text().unwrap()).unwrap().header;
            assert_eq!(header.typ.as_deref(), Some(typ));
        }
    }
}
