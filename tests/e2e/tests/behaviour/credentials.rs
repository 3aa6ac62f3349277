//! What a credential is: how it is signed, SVIDs, and what it is bound to.

use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use dayfly_api::v1;
use dayfly_e2e::broker::{Options, TRUST_DOMAIN};
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::jwt;
use dayfly_e2e::policy;
use dayfly_e2e::world::{OPERATOR, Pod, Team, World, asking_for, owned_by, reason};
use serde_json::{Value, json};

on_both!(
    each_algorithm_is_verified_with_the_published_keys,
    a_target_that_signs_by_rs256_needs_a_key_of_its_own,
    an_svid_is_verified_with_its_trust_domains_bundle,
    an_svid_is_no_access_token_and_the_reverse,
    a_token_of_another_algorithm_or_key_was_never_issued,
    a_request_may_bring_the_jwk_or_certificate_itself,
);

/// A team whose target is changed like this.
async fn team(world: &World, name: &str, change: impl FnOnce(&mut Value)) -> Team {
    let mut team = world.unsettled_team(name).await.unwrap();
    change(&mut team.target_object);
    world.put(&[&team.owner_object, &team.target_object, &team.grant_object]).await.unwrap();
    team
}

fn signed_by(algorithm: &str) -> impl FnOnce(&mut Value) {
    move |target| target["spec"]["jwt"]["signingAlgorithm"] = json!(algorithm)
}

fn svid(target: &mut Value) {
    policy::to_svid(target, TRUST_DOMAIN);
}

async fn pod_of<'w>(world: &'w World, team: &Team) -> Pod<'w> {
    world.pod(&team.namespace, "api").await.unwrap()
}

async fn bundle(world: &World) -> String {
    world.fetch(&format!("/spiffe/{TRUST_DOMAIN}/bundle.json")).await.unwrap().unwrap()
}

async fn each_algorithm_is_verified_with_the_published_keys(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let before = world.fetch("/.well-known/jwks.json").await.unwrap().unwrap();
    for algorithm in ["ES256", "EdDSA"] {
        let team = team(&world, &algorithm.to_lowercase(), signed_by(algorithm)).await;
        let issued = pod_of(&world, &team).await.issue(&team.target).await.unwrap();
        // With the keys as they were published before the target was there.
        let token = jwt::verify(&issued.credential, &before).unwrap();
        assert_eq!(token.header["alg"], algorithm);
        assert_eq!(token.claims["aud"], policy::audience(&team.target));
        jwt::verify(&issued.credential, &world.keys().await.unwrap().jwks).unwrap();
        assert_eq!(issued.lease.unwrap().key_id, token.header["kid"]);
    }
}

async fn a_target_that_signs_by_rs256_needs_a_key_of_its_own(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let (orders, other) =
        (team(&world, "orders", signed_by("RS256")).await, team(&world, "other", signed_by("RS256")).await);
    let plain = world.team("plain").await.unwrap();
    let pod = pod_of(&world, &orders).await;
    let denied = pod.is_denied(&orders.target).await.unwrap();
    assert_eq!(reason(&denied), "SIGNING_KEY_MISSING");
    let command = format!("dayfly keys import FILE --target east/{}", orders.target);
    assert!(denied.message().contains(&command), "{}", denied.message());
    assert!(world.broker().log().contains(&command), "the log says so too");
    // Who has no Grant is told that, and nothing of keys.
    let gate = world.pod(&orders.namespace, "gate").await.unwrap();
    assert_eq!(reason(&gate.is_denied(&orders.target).await.unwrap()), "GRANT_MISSING");

    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/jose/src/import/keys_of_tests");
    let import = async |file: &str, target: &str| {
        // A clone's files may be read by all, a key's file by its owner alone.
        let (from, file) =
            (format!("{keys}/{file}.pem"), world.broker().dir().join(file).display().to_string());
        if let Ok(pem) = std::fs::read(from) {
            std::fs::write(&file, pem).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let arguments = ["keys", "import", &file, "--target", target, "--config", "dayfly.toml"];
        world.broker().command(&arguments).await.unwrap()
    };
    let (status, said) = import("rsa2048", &orders.target).await;
    assert!(!status.success() && said.contains("while the broker is stopped"), "{said}");
    world.broker().stop().await.unwrap();
    for (file, why) in [
        ("rsa1024", "1024 bits"),
        ("rsa5120", "5120 bits"),
        ("exponent3", "not 65537"),
        ("encrypted", "openssl pkey -in FILE"),
        ("p256", "not RSA"),
        ("ed25519", "not RSA"),
        ("public", "a private key is needed"),
        ("nothing", "cannot read"),
    ] {
        let (status, said) = import(file, &orders.target).await;
        assert!(!status.success() && said.contains(why), "{file}: {said}");
    }
    let (status, said) = import("rsa2048", &format!("west/{}", orders.target)).await;
    assert!(!status.success() && said.contains("no cluster west"), "{said}");
    let (status, said) = import("rsa2048", &orders.target).await;
    assert!(status.success() && said.contains("RS256") && !said.contains("warning"), "{said}");
    // One key, one target.
    for target in [&orders.target, &other.target] {
        let (status, said) = import("rsa2048_pkcs1", target).await;
        assert!(!status.success() && said.contains("each target needs a key of its own"), "{said}");
    }
    let (status, said) = import("rsa3072", &plain.target).await;
    assert!(status.success() && said.contains("does not sign with RS256"), "{said}");
    assert!(!said.contains("could read the file"), "{said}");
    let exposed = world.broker().dir().join("exposed");
    std::fs::copy(format!("{keys}/rsa4096.pem"), &exposed).unwrap();
    std::fs::set_permissions(&exposed, std::fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = exposed.display().to_string();
    let arguments = ["keys", "import", &exposed, "--target", &plain.target, "--config", "dayfly.toml"];
    let (status, said) = world.broker().command(&arguments).await.unwrap();
    assert!(status.success() && said.contains("could read the file"), "{said}");

    let store = world.broker().store_dir();
    let (status, said) =
        world.broker().command(&["store", "verify", &store.display().to_string()]).await.unwrap();
    assert!(status.success() && said.contains("whole"), "{said}");
    let pem = std::fs::read_to_string(format!("{keys}/rsa2048.pem")).unwrap();
    let inner: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(&inner).unwrap();
    assert!(!holds(&store, &der[200..264]), "the private key is in the store, unsealed");

    world.broker().launch().await.unwrap();
    let issued = pod.issue(&orders.target).await.unwrap();
    let jwks = world.fetch("/.well-known/jwks.json").await.unwrap().unwrap();
    let token = jwt::verify(&issued.credential, &jwks).unwrap();
    assert_eq!((&token.header["alg"], &token.header["typ"]), (&json!("RS256"), &json!("at+jwt")));
    let verifier = world.verifier(&orders.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
    // A public key is no secret: neither this nor any other forgery was issued.
    let published: Value = serde_json::from_str(&jwks).unwrap();
    let of_kid = published["keys"].as_array().unwrap().iter().find(|key| key["kid"] == token.header["kid"]);
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(of_kid.unwrap()["n"].as_str().unwrap()).unwrap();
    for secret in [modulus.as_slice(), of_kid.unwrap().to_string().as_bytes()] {
        let forged = jwt::by_hs256(&issued.credential, secret).unwrap();
        assert!(!verifier.introspect(&forged).await.unwrap().active);
        assert!(jwt::verify(&forged, &jwks).is_err());
    }
    let not_imported = pod_of(&world, &other).await.is_denied(&other.target).await.unwrap();
    assert_eq!(reason(&not_imported), "SIGNING_KEY_MISSING");
    let plain = pod_of(&world, &plain).await.issue(&plain.target).await.unwrap();
    assert_eq!(jwt::verify(&plain.credential, &jwks).unwrap().header["alg"], "ES256");
    assert!(!world.broker().log().contains(inner.get(200..240).unwrap()), "the key is in the log");
}

/// Whether a file of this folder holds these bytes.
fn holds(folder: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return holds(&path, bytes);
        }
        std::fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes)
    })
}

async fn an_svid_is_verified_with_its_trust_domains_bundle(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = team(&world, "payments", svid).await;
    let pod = pod_of(&world, &team).await;
    let issued = pod.issue(&team.target).await.unwrap();
    let served = bundle(&world).await;
    let token = jwt::verify_svid(&issued.credential, &served).unwrap();
    let id = format!("spiffe://{TRUST_DOMAIN}/cluster/east/ns/{}/sa/api", team.namespace);
    let lease = issued.lease.unwrap();
    assert_eq!(token.claims["sub"], id);
    assert_eq!(lease.spiffe_id, id);
    assert_eq!(token.claims["aud"], json!([policy::audience(&team.target)]));
    assert_eq!(token.claims["jti"], lease.id);
    assert_eq!(token.claims["exp"], lease.expires_at.unwrap().seconds);
    assert_eq!(token.claims["iat"], lease.issued_at.unwrap().seconds);
    assert_eq!(token.claims["dayfly"]["owner"], team.owner);
    assert!(token.claims.get("iss").is_none(), "{}", token.claims);

    // The bundle is the same over gRPC, and nobody else's.
    let told = world.keys().await.unwrap().bundles;
    let [told] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(told.trust_domain, TRUST_DOMAIN);
    let [told, served] = [&told.bundle, &served].map(|text| serde_json::from_str::<Value>(text).unwrap());
    assert_eq!(told, served);
    assert_eq!(served["spiffe_refresh_hint"], 300);
    assert!(served["spiffe_sequence"].as_u64().is_some_and(|sequence| sequence > 0), "{served}");
    for other in ["other.example.org", "..", "%00", "PROD.example.org"] {
        let answer = world.fetch(&format!("/spiffe/{other}/bundle.json")).await.unwrap();
        assert_eq!(answer, Err(404), "{other}");
    }

    // Introspection and revocation work on it as on any credential.
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
    world.admin().await.unwrap().revoke(owned_by(&team.owner)).await.unwrap();
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Revoked);

    // A trust domain that the configuration does not give to the cluster is not the target's to choose.
    let mut elsewhere = team.target_object.clone();
    elsewhere["spec"]["svid"]["trustDomain"] = json!("other.example.org");
    world.put(&[&elsewhere]).await.unwrap();
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "TARGET_UNKNOWN");
}

async fn an_svid_is_no_access_token_and_the_reverse(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (svids, tokens) = (team(&world, "svids", svid).await, team(&world, "tokens", |_| ()).await);
    let pod = pod_of(&world, &svids).await;
    let svid = pod.issue(&svids.target).await.unwrap().credential;
    let token = pod_of(&world, &tokens).await.issue(&tokens.target).await.unwrap().credential;
    let (jwks, bundle) = (world.keys().await.unwrap().jwks, bundle(&world).await);
    assert!(jwt::verify(&token, &jwks).is_ok() && jwt::verify_svid(&svid, &bundle).is_ok());
    assert!(jwt::verify(&svid, &jwks).is_err() && jwt::verify_svid(&token, &bundle).is_err());
    // No key is in both.
    let kids = |text: &str| -> Vec<String> {
        let set: Value = serde_json::from_str(text).unwrap();
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    assert!(kids(&jwks).iter().all(|kid| !kids(&bundle).contains(kid)));
    // With the other's typ it is nobody's.
    let retyped = jwt::with_header(&svid, |header| header["typ"] = json!("at+jwt")).unwrap();
    assert!(jwt::verify(&retyped, &jwks).is_err());

    // Nor does Dayfly take either for a token of its callers.
    for credential in [&svid, &token] {
        let refused = world.issue_with(credential, asking_for(&svids.target)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused:?}");
        let request = dayfly_e2e::world::bearing(credential, v1::IntrospectRequest::default());
        let refused = world.verifiers().introspect(request).await.unwrap_err();
        assert_ne!(refused.code(), tonic::Code::Ok, "{refused:?}");
    }
    // And an operator's token is no credential.
    let operator = world.unbound_token(&svids.namespace, "api", OPERATOR).await.unwrap();
    let verifier = world.verifier(&svids.namespace, "gate").await.unwrap();
    assert!(!verifier.introspect(&operator).await.unwrap().active);
}

async fn a_token_of_another_algorithm_or_key_was_never_issued(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let keys = world.keys().await.unwrap();
    let jwks: Value = serde_json::from_str(&keys.jwks).unwrap();
    let kid_of = |set: &Value, algorithm: &str| {
        let keys = set["keys"].as_array().unwrap();
        keys.iter().find(|key| key["alg"] == algorithm).unwrap()["kid"].clone()
    };
    let bundle: Value = serde_json::from_str(&bundle(&world).await).unwrap();
    let team = team(&world, "payments", signed_by("EdDSA")).await;
    let token = pod_of(&world, &team).await.issue(&team.target).await.unwrap().credential;
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let public = jwks["keys"].as_array().unwrap().iter().find(|key| key["alg"] == "EdDSA").unwrap();
    let point = BASE64_URL_SAFE_NO_PAD.decode(public["x"].as_str().unwrap()).unwrap();
    let header =
        |name: &'static str, value: Value| jwt::with_header(&token, |header| header[name] = value).unwrap();
    let forged = [
        ("HS256 by the public key", jwt::by_hs256(&token, &point).unwrap()),
        ("HS256 by the public JWK", jwt::by_hs256(&token, public.to_string().as_bytes()).unwrap()),
        ("no signature", jwt::unsigned(&token).unwrap()),
        ("kid of the ES256 key", header("kid", kid_of(&jwks, "ES256"))),
        ("kid of the SVID key", header("kid", kid_of(&bundle, "ES256"))),
        ("kid that is a path", header("kid", json!("../../keys/1"))),
        ("alg ES256", header("alg", json!("ES256"))),
        ("typ of an SVID", header("typ", json!("JWT"))),
        ("a jwk in the header", header("jwk", public.clone())),
        ("crit", header("crit", json!(["exp"]))),
    ];
    for (what, forged) in forged {
        assert!(jwt::verify(&forged, &keys.jwks).is_err(), "{what}");
        let answer = verifier.introspect(&forged).await.unwrap();
        assert_eq!((answer.active, answer.lease), (false, None), "{what}");
    }
    assert_eq!(verifier.state(&token).await.unwrap(), v1::LeaseState::Active);
}

async fn a_request_may_bring_the_jwk_or_certificate_itself(kind: Kind) {
    use v1::confirmation::Kind as Bound;
    /// RFC 8037, appendix A.2 and A.3: a public JWK and its thumbprint.
    const JWK: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const JKT: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = pod_of(&world, &team).await;
    let ask = async |kind: Bound| {
        let confirmation = Some(v1::Confirmation { kind: Some(kind) });
        pod.ask(v1::IssueRequest { confirmation, ..asking_for(&team.target) }).await.unwrap()
    };
    let issued = ask(Bound::Jwk(JWK.to_owned())).await.unwrap();
    assert_eq!(jwt::read(&issued.credential).unwrap().claims["cnf"], json!({ "jkt": JKT }));
    let told = issued.lease.unwrap().confirmation.unwrap().kind;
    assert_eq!(told, Some(Bound::JwkThumbprint(JKT.to_owned())));

    let certificate = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate.cert.der());
    let x5t = BASE64_URL_SAFE_NO_PAD.encode(digest);
    for content in [certificate.cert.pem().into_bytes(), certificate.cert.der().to_vec()] {
        let issued = ask(Bound::Certificate(content)).await.unwrap();
        assert_eq!(jwt::read(&issued.credential).unwrap().claims["cnf"], json!({ "x5t#S256": x5t }));
    }

    let key = certificate.signing_key.serialize_pem();
    let private = JWK.replace(r#""x""#, r#""d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x""#);
    world.broker().keep_secret("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
    let refused = [
        (Bound::Jwk(private), "private key"),
        (Bound::Jwk(r#"{"kty":"oct","k":"AQAB"}"#.to_owned()), "private key"),
        (Bound::Jwk("{}".to_owned()), "not a JWK"),
        (Bound::Jwk(" ".repeat(8 * 1024 + 1)), "at most 8192 bytes"),
        (Bound::Jwk(JWK.replace("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", &"A".repeat(43))), "weak"),
        (Bound::Certificate(key.clone().into_bytes()), "private key"),
        (Bound::Certificate((certificate.cert.pem() + &key).into_bytes()), "private key"),
        (Bound::Certificate(b"certificate".to_vec()), "not an X.509 certificate"),
        (Bound::Certificate(vec![0; 16 * 1024 + 1]), "at most 16384 bytes"),
    ];
    for (kind, why) in refused {
        let refused = ask(kind).await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_FIELD", "{why}");
        assert!(refused.message().contains(why), "{why}: {}", refused.message());
        assert!(!refused.message().contains("nWGx"), "{}", refused.message());
    }
}
