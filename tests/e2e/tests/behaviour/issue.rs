//! Issue: what a workload gets, and what it is denied.

use dayfly_api::v1;
use dayfly_e2e::broker::{CLUSTER, ISSUER};
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::world::{World, asking_for, reason};
use dayfly_e2e::{jwt, policy};
use serde_json::json;

on_both!(
    a_workload_gets_a_token_that_the_published_keys_verify,
    a_workload_is_told_who_it_is,
    a_workload_without_a_grant_is_denied,
    a_namespace_without_an_owner_gets_nothing,
    one_of_several_grants_is_named,
    scopes_are_never_silently_reduced,
    the_least_life_counts,
    one_of_several_audiences_is_named,
    a_repeated_request_gets_the_same_lease,
    requests_of_one_key_at_once_get_one_lease,
    a_confirmation_binds_lease_and_token,
    fields_that_are_wrong_are_named,
);

async fn a_workload_gets_a_token_that_the_published_keys_verify(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let issued = pod.issue(&team.target).await.unwrap();
    let lease = issued.lease.unwrap();

    let keys = world.verifiers().get_keys(v1::GetKeysRequest {}).await.unwrap().into_inner();
    assert_eq!(keys.issuer, ISSUER);
    let token = jwt::verify(&issued.credential, &keys.jwks).unwrap();
    assert_eq!(token.header, json!({ "typ": "at+jwt", "alg": "ES256", "kid": lease.key_id }));

    let presented = jwt::read(&pod.token().await.unwrap()).unwrap().claims;
    let kubernetes = &presented["kubernetes.io"];
    let account_uid = kubernetes["serviceaccount"]["uid"].as_str().unwrap();
    let subject = token.claims["sub"].as_str().unwrap();
    for part in [CLUSTER, &team.namespace, "api"] {
        assert!(subject.split(['/', ':']).any(|segment| segment == part), "{part} in sub {subject}");
    }
    let claims = &token.claims;
    let mut names: Vec<_> = claims.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["aud", "client_id", "dayfly", "exp", "iat", "iss", "jti", "nbf", "scope", "sub"]);
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(claims["aud"], policy::audience(&team.target));
    assert_eq!(claims["jti"], lease.id);
    assert_eq!(claims["scope"], "read write");
    assert_eq!(claims["nbf"], claims["iat"]);
    let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    assert_eq!(exp - iat, 300);
    assert_eq!((lease.issued_at.unwrap().seconds, lease.expires_at.unwrap().seconds), (iat, exp));
    let dayfly = &claims["dayfly"];
    let told = |name: &str| dayfly[name].as_str().map(str::to_owned);
    assert_eq!(told("cluster").as_deref(), Some(CLUSTER), "{dayfly}");
    let all = dayfly.to_string();
    for needed in [&team.owner, &team.namespace, account_uid, &pod.uid, &team.target] {
        assert!(all.contains(&format!("\"{needed}\"")), "a verifier needs {needed} in {all}");
    }
    assert!(all.contains("api-ledger"), "a verifier needs the grant in {all}");
    assert!(
        all.contains(kubernetes["node"]["uid"].as_str().unwrap()),
        "a verifier needs the node's uid in {all}"
    );

    let workload = lease.workload.clone().unwrap();
    assert_eq!(
        [
            &*workload.cluster,
            &*workload.namespace,
            &*workload.service_account,
            &*workload.service_account_uid
        ],
        [CLUSTER, &team.namespace, "api", account_uid]
    );
    assert_eq!((&*workload.pod, &*workload.pod_uid), (&*pod.name, &*pod.uid));
    assert!(workload.credential_id.contains(presented["jti"].as_str().unwrap()));
    assert_eq!(lease.state(), v1::LeaseState::Active);
    assert_eq!((&*lease.owner, &*lease.target), (&*team.owner, &*team.target));
    assert_eq!(lease.grant, format!("{}/api-ledger", team.namespace));
    assert_eq!(lease.scope, ["read", "write"]);
    assert_eq!(issued.renew_after.unwrap().seconds, 210, "70 % of its life");
}

async fn a_workload_is_told_who_it_is(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let told = world.pod(&team.namespace, "api").await.unwrap().who_am_i().await.unwrap();
    assert_eq!(told.owner, team.owner);
    let [grant] = told.grants.as_slice() else { panic!("{:?}", told.grants) };
    assert_eq!((&*grant.name, &*grant.target), ("api-ledger", &*team.target));
    assert_eq!(grant.max_ttl.unwrap().seconds, 600);

    let other = world.pod(&team.namespace, "gate").await.unwrap().who_am_i().await.unwrap();
    assert_eq!(other.workload.unwrap().service_account, "gate");
    assert_eq!(other.grants, []);
}

async fn a_workload_without_a_grant_is_denied(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let granted = world.pod(&team.namespace, "api").await.unwrap();
    let denied = world.pod(&team.namespace, "gate").await.unwrap().is_denied(&team.target).await.unwrap();
    assert_eq!((reason(&denied), denied.code()), ("GRANT_MISSING".to_owned(), tonic::Code::PermissionDenied));
    // Of another team's target it is told no more than of one that is not there: that it has no Grant.
    // Whether there is a target, only those who have a Grant for it are told.
    let other = world.team("orders").await.unwrap();
    let nowhere = world.named("nowhere");
    let mut told = Vec::new();
    for target in [&other.target, &nowhere] {
        let denied = granted.is_denied(target).await.unwrap();
        assert_eq!(reason(&denied), "GRANT_MISSING", "{target}");
        told.push(denied.message().replace(target.as_str(), "it"));
    }
    assert_eq!(told[0], told[1]);
    let to_nowhere = policy::grant(&team.namespace, "api-nowhere", "api", &nowhere, &["read"]);
    world.put(&[&to_nowhere]).await.unwrap();
    assert_eq!(reason(&granted.is_denied(&nowhere).await.unwrap()), "TARGET_UNKNOWN");
}

async fn a_namespace_without_an_owner_gets_nothing(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.unsettled_team("payments").await.unwrap();
    world.put(&[&team.target_object, &team.grant_object]).await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "UNOWNED");
    assert_eq!(pod.who_am_i().await.unwrap().owner, "");
}

async fn one_of_several_grants_is_named(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let second = policy::grant(&team.namespace, "api-list", "api", &team.target, &["list"]);
    world.put(&[&second]).await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let denied = pod.is_denied(&team.target).await.unwrap();
    assert_eq!(reason(&denied), "GRANT_AMBIGUOUS");
    assert!(denied.message().contains("api-ledger") && denied.message().contains("api-list"), "{denied:?}");

    let naming = |grant: &str| v1::IssueRequest { grant: grant.to_owned(), ..asking_for(&team.target) };
    let issued = pod.ask(naming("api-list")).await.unwrap().unwrap();
    assert_eq!(issued.lease.unwrap().scope, ["list"]);
    let unknown = pod.ask(naming("api-other")).await.unwrap().unwrap_err();
    assert_eq!(reason(&unknown), "GRANT_UNKNOWN");
}

async fn scopes_are_never_silently_reduced(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let greedy = policy::grant(&team.namespace, "gate-greedy", "gate", &team.target, &["read", "drop"]);
    world.put(&[&greedy]).await.unwrap();
    let asking = |scope: &[&str]| v1::IssueRequest {
        scope: scope.iter().map(|&scope| scope.to_owned()).collect(),
        ..asking_for(&team.target)
    };

    let api = world.pod(&team.namespace, "api").await.unwrap();
    let issued = api.ask(asking(&["write"])).await.unwrap().unwrap();
    assert_eq!(issued.lease.unwrap().scope, ["write"]);
    assert_eq!(jwt::read(&issued.credential).unwrap().claims["scope"], "write");
    let denied = api.ask(asking(&["read", "list"])).await.unwrap().unwrap_err();
    assert_eq!(reason(&denied), "SCOPE_NOT_GRANTED");
    assert!(denied.message().contains("list") && !denied.message().contains("read"), "{denied:?}");

    let gate = world.pod(&team.namespace, "gate").await.unwrap();
    for scope in [&["read", "drop"][..], &[]] {
        let denied = gate.ask(asking(scope)).await.unwrap().unwrap_err();
        assert_eq!(reason(&denied), "SCOPE_ABOVE_CEILING", "asked for {scope:?}");
        assert!(denied.message().contains("drop"), "{denied:?}");
    }
    assert_eq!(gate.ask(asking(&["read"])).await.unwrap().unwrap().lease.unwrap().scope, ["read"]);
}

async fn the_least_life_counts(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let mut team = world.unsettled_team("payments").await.unwrap();
    team.target_object["spec"]["maxTtl"] = "8m".into();
    let mut bounded = team.target_object.clone();
    bounded["metadata"]["name"] = format!("{}-low", team.target).into();
    bounded["spec"]["ceiling"][0]["maxTtl"] = "2m".into();
    let mut of_bounded = team.grant_object.clone();
    of_bounded["metadata"]["name"] = "api-low".into();
    of_bounded["spec"]["target"] = bounded["metadata"]["name"].clone();
    world
        .put(&[&team.owner_object, &team.target_object, &team.grant_object, &bounded, &of_bounded])
        .await
        .unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let low = format!("{}-low", team.target);
    let asks = [
        ("the Grant's default", &team.target, None, 300),
        ("what is asked", &team.target, Some(60), 60),
        ("the Target's", &team.target, Some(3600), 480),
        ("the ceiling's", &low, None, 120),
    ];
    for (which, target, seconds, expected) in asks {
        let ttl = seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let issued = pod.ask(v1::IssueRequest { ttl, ..asking_for(target) }).await.unwrap().unwrap();
        let claims = jwt::read(&issued.credential).unwrap().claims;
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), expected, "{which}");
    }
}

async fn one_of_several_audiences_is_named(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let mut team = world.unsettled_team("payments").await.unwrap();
    team.target_object["spec"]["jwt"]["audiences"] = json!(["https://a.example", "https://b.example"]);
    world.put(&[&team.owner_object, &team.target_object, &team.grant_object]).await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "AUDIENCE_AMBIGUOUS");
    let naming =
        |audience: &str| v1::IssueRequest { audience: audience.to_owned(), ..asking_for(&team.target) };
    let issued = pod.ask(naming("https://b.example")).await.unwrap().unwrap();
    assert_eq!(jwt::read(&issued.credential).unwrap().claims["aud"], "https://b.example");
    let denied = pod.ask(naming("https://c.example")).await.unwrap().unwrap_err();
    assert_eq!(reason(&denied), "AUDIENCE_NOT_GRANTED");
}

async fn a_repeated_request_gets_the_same_lease(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let request = v1::IssueRequest { idempotency_key: "first".to_owned(), ..asking_for(&team.target) };
    let first = pod.ask(request.clone()).await.unwrap().unwrap();
    let again = pod.ask(request.clone()).await.unwrap().unwrap();
    assert_eq!(first.lease, again.lease);
    let claims = [&first, &again].map(|issued| jwt::read(&issued.credential).unwrap().claims);
    assert_eq!(claims[0], claims[1]);
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    for issued in [&first, &again] {
        assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
    }

    let changed = v1::IssueRequest { scope: vec!["read".to_owned()], ..request.clone() };
    let refused = pod.ask(changed).await.unwrap().unwrap_err();
    assert_eq!(reason(&refused), "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);

    // The key is the pod's own.
    let other = world.pod(&team.namespace, "api").await.unwrap().ask(request.clone()).await.unwrap().unwrap();
    assert_ne!(other.lease.unwrap().id, first.lease.clone().unwrap().id);

    // A repeat is decided afresh, and a revoked lease is not given again.
    let mut narrower = team.grant_object.clone();
    narrower["spec"]["scope"] = json!(["read"]);
    world.put(&[&narrower]).await.unwrap();
    let refused = reason(&pod.ask(request.clone()).await.unwrap().unwrap_err());
    // Dayfly itself may have ended it by now, since its Grant is narrower than it.
    assert!(["DECISION_CHANGED", "LEASE_ENDED"].contains(&refused.as_str()), "{refused}");
    world.put(&[&team.grant_object]).await.unwrap();
    let lease = v1::Selector { lease: first.lease.unwrap().id, ..v1::Selector::default() };
    world.admin().await.unwrap().revoke(lease).await.unwrap();
    assert_eq!(reason(&pod.ask(request).await.unwrap().unwrap_err()), "LEASE_ENDED");
}

async fn requests_of_one_key_at_once_get_one_lease(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let admin = world.admin().await.unwrap();
    for round in 0..5 {
        let request =
            v1::IssueRequest { idempotency_key: format!("round-{round}"), ..asking_for(&team.target) };
        let answers = futures_util::future::join_all((0..8).map(|_| pod.ask(request.clone()))).await;
        let leases: Vec<_> =
            answers.into_iter().map(|answer| answer.unwrap().unwrap().lease.unwrap().id).collect();
        assert!(leases.iter().all(|id| *id == leases[0]), "{leases:?}");
    }
    let listed = admin.all_leases(dayfly_e2e::world::leases_of(&team.owner)).await.unwrap();
    assert_eq!(listed.len(), 5);
}

async fn a_confirmation_binds_lease_and_token(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    // The example of RFC 7638, section 3.1.
    let thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs".to_owned();
    let bound_to = |kind| {
        let confirmation = Some(v1::Confirmation { kind: Some(kind) });
        pod.ask(v1::IssueRequest { confirmation, ..asking_for(&team.target) })
    };
    let jwk = bound_to(v1::confirmation::Kind::JwkThumbprint(thumbprint.clone())).await.unwrap().unwrap();
    assert_eq!(jwt::read(&jwk.credential).unwrap().claims["cnf"], json!({ "jkt": thumbprint }));
    let kind = jwk.lease.unwrap().confirmation.unwrap().kind;
    assert_eq!(kind, Some(v1::confirmation::Kind::JwkThumbprint(thumbprint.clone())));
    let x5t =
        bound_to(v1::confirmation::Kind::CertificateThumbprint(thumbprint.clone())).await.unwrap().unwrap();
    assert_eq!(jwt::read(&x5t.credential).unwrap().claims["cnf"], json!({ "x5t#S256": thumbprint }));
}

async fn fields_that_are_wrong_are_named(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let good = asking_for(&team.target);
    let ttl = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let short = v1::confirmation::Kind::JwkThumbprint("short".to_owned());
    let wrong = [
        ("target", asking_for("")),
        ("target", asking_for("No_Such Name")),
        ("grant", v1::IssueRequest { grant: "Wrong/Name".to_owned(), ..good.clone() }),
        ("scope", v1::IssueRequest { scope: vec!["a b".to_owned()], ..good.clone() }),
        ("scope", v1::IssueRequest { scope: vec!["x".repeat(129)], ..good.clone() }),
        ("scope", v1::IssueRequest { scope: (0..65).map(|n| format!("s{n}")).collect(), ..good.clone() }),
        ("audience", v1::IssueRequest { audience: "a".repeat(256), ..good.clone() }),
        ("ttl", v1::IssueRequest { ttl: ttl(-1, 0), ..good.clone() }),
        ("ttl", v1::IssueRequest { ttl: ttl(29, 0), ..good.clone() }),
        ("ttl", v1::IssueRequest { ttl: ttl(60, 1), ..good.clone() }),
        ("ttl", v1::IssueRequest { ttl: ttl(24 * 3600 + 1, 0), ..good.clone() }),
        ("ttl", v1::IssueRequest { ttl: ttl(i64::MAX, i32::MAX), ..good.clone() }),
        (
            "confirmation",
            v1::IssueRequest { confirmation: Some(v1::Confirmation { kind: None }), ..good.clone() },
        ),
        (
            "confirmation",
            v1::IssueRequest { confirmation: Some(v1::Confirmation { kind: Some(short) }), ..good.clone() },
        ),
        ("idempotency_key", v1::IssueRequest { idempotency_key: "k".repeat(65), ..good.clone() }),
    ];
    for (field, request) in wrong {
        let what = format!("{field} of {request:?}");
        let refused = pod.ask(request).await.unwrap().unwrap_err();
        assert_eq!(reason(&refused), "INVALID_FIELD", "{what}");
        let named =
            tonic_types::StatusExt::get_details_error_info(&refused).unwrap().metadata["field"].clone();
        assert!(named.starts_with(field), "{what} is called {named}");
    }
}
