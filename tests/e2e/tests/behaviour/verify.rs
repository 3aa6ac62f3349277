//! Introspection: what a verifier is told, and what it is not.

use dayfly_api::v1;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::jwt;
use dayfly_e2e::world::{Team, World, as_others_see, asking_for, owned_by};

on_both!(
    a_credential_is_active_until_its_owner_revokes_it_and_may_be_asked_for_again,
    a_verifier_that_the_target_does_not_list_learns_nothing,
    what_was_never_issued_is_not_active,
    a_removed_verifier_learns_nothing_more,
    introspection_over_https_is_rfc_7662,
    others_discover_what_they_need,
);

async fn issued(world: &World) -> (Team, v1::IssueResponse) {
    let team = world.team("payments").await.unwrap();
    let issued = world.pod(&team.namespace, "api").await.unwrap().issue(&team.target).await.unwrap();
    (team, issued)
}

async fn a_credential_is_active_until_its_owner_revokes_it_and_may_be_asked_for_again(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let issued = pod.issue(&team.target).await.unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let before = verifier.introspect(&issued.credential).await.unwrap();
    assert!(before.active);
    assert_eq!(before.lease, issued.lease);

    let operator = world.operator(&["revoke", "get"], Some(&team.owner)).await.unwrap();
    let answer =
        operator.ask(dayfly_e2e::world::revocation(owned_by(&team.owner), v1::After::Reissue)).await.unwrap();
    assert!(answer.can_reissue && !answer.repeated, "{answer:?}");
    assert!(answer.resolved.contains(&team.owner), "{answer:?}");
    let rule = answer.rule.unwrap();
    assert_eq!(rule.selector.clone().unwrap(), owned_by(&team.owner));
    assert_eq!((rule.after(), &*rule.reason), (v1::After::Reissue, "a test says so"));
    assert!(
        rule.by.starts_with("system:serviceaccount:operators:") && rule.by.ends_with("@east"),
        "{rule:?}"
    );
    let lease = issued.lease.clone().unwrap();
    assert!(rule.cut_off >= lease.id, "{rule:?}");
    assert!(rule.until.unwrap().seconds >= lease.expires_at.unwrap().seconds, "{rule:?}");
    assert_eq!(operator.revocation(&rule.id).await.unwrap(), rule);

    let after = verifier.introspect(&issued.credential).await.unwrap();
    assert!(!after.active);
    assert!(after.position >= rule.position && after.position > before.position, "{after:?}");
    let revoked = after.lease.unwrap();
    assert_eq!((revoked.state(), &revoked.revoked_by), (v1::LeaseState::Revoked, &rule.id));
    assert_eq!(revoked.ended_at, rule.written_at);
    assert_eq!(as_others_see([operator.lease(&lease.id).await.unwrap()]), [revoked]);

    let again = pod.issue(&team.target).await.unwrap();
    assert!(again.lease.clone().unwrap().id > rule.cut_off);
    assert_eq!(verifier.state(&again.credential).await.unwrap(), v1::LeaseState::Active);
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Revoked);
}

async fn a_verifier_that_the_target_does_not_list_learns_nothing(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, issued) = issued(&world).await;
    let other = world.team("orders").await.unwrap();
    for (namespace, account) in [(&other.namespace, "gate"), (&team.namespace, "api")] {
        let verifier = world.verifier(namespace, account).await.unwrap();
        let answer = verifier.introspect(&issued.credential).await.unwrap();
        assert_eq!((answer.active, answer.lease), (false, None), "{namespace}/{account}");
    }
}

async fn what_was_never_issued_is_not_active(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, issued) = issued(&world).await;
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let wider = |claims: &mut serde_json::Value| claims["scope"] = "read write list".into();
    let unknown =
        |claims: &mut serde_json::Value| claims["jti"] = "01890a5d-ac96-774b-bcce-b302099a8057".into();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let never_issued = [
        ("tampered", jwt::tampered(&issued.credential).unwrap()),
        ("of wider scope", jwt::with_claims(&issued.credential, wider).unwrap()),
        ("of an unknown id", jwt::with_claims(&issued.credential, unknown).unwrap()),
        ("unsigned", jwt::unsigned(&issued.credential).unwrap()),
        ("no JWT", "sesame".to_owned()),
        ("a lease's id", issued.lease.unwrap().id),
        ("empty", String::new()),
        ("oversized", format!("{}{}", issued.credential, "A".repeat(8 * 1024))),
        ("a projected token", pod.token().await.unwrap()),
        ("padded", format!("{} ", issued.credential)),
    ];
    for (what, credential) in never_issued {
        match verifier.introspect(&credential).await {
            Ok(answer) => assert_eq!((answer.active, answer.lease), (false, None), "{what}"),
            // Empty or too large may be called wrong instead.
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::InvalidArgument, "{what}: {status:?}");
                assert!(["empty", "oversized"].contains(&what), "{what}: {status:?}");
            }
        }
    }
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
}

async fn a_removed_verifier_learns_nothing_more(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let mut team = world.team("payments").await.unwrap();
    let issued = world
        .pod(&team.namespace, "api")
        .await
        .unwrap()
        .ask(asking_for(&team.target))
        .await
        .unwrap()
        .unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Active);
    team.target_object["spec"]["verifiers"] = serde_json::json!([]);
    world.put(&[&team.target_object]).await.unwrap();
    let answer = verifier.introspect(&issued.credential).await.unwrap();
    assert_eq!((answer.active, answer.lease), (false, None));
}

/// What `POST /introspect` answers.
async fn asked(world: &World, bearer: Option<&str>, form: &[&str]) -> (u16, String) {
    let authorization = bearer.map(|token| format!("authorization: Bearer {token}"));
    let mut arguments = vec!["--include", "--request", "POST"];
    if let Some(header) = &authorization {
        arguments.extend(["--header", header]);
    }
    for field in form {
        arguments.extend(["--data-urlencode", field]);
    }
    world.curl("/introspect", &arguments).await.unwrap()
}

async fn introspection_over_https_is_rfc_7662(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let (team, issued) = issued(&world).await;
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    let other = world.team("orders").await.unwrap();
    let stranger = world.verifier(&other.namespace, "gate").await.unwrap();
    let token = format!("token={}", issued.credential);

    let (status, answer) =
        asked(&world, Some(verifier.token()), &[&token, "token_type_hint=access_token"]).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.to_lowercase().contains("cache-control: no-store"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(answer.rsplit("\r\n").next().unwrap()).unwrap();
    // What the token says, and that it is good.
    let mut expected = jwt::read(&issued.credential).unwrap().claims;
    expected["active"] = true.into();
    expected["token_type"] = "Bearer".into();
    assert_eq!(body, expected);

    let inactive = |(status, answer): (u16, String)| {
        assert_eq!(status, 200, "{answer}");
        assert!(answer.ends_with("\r\n{\"active\":false}"), "nothing else is said: {answer}");
    };
    inactive(asked(&world, Some(stranger.token()), &[&token]).await);
    inactive(asked(&world, Some(verifier.token()), &["token=nothing"]).await);
    world.admin().await.unwrap().revoke(owned_by(&team.owner)).await.unwrap();
    inactive(asked(&world, Some(verifier.token()), &[&token]).await);

    let (status, answer) = asked(&world, None, &[&token]).await;
    assert!(status == 401 && answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
    // A workload's token is no verifier's, nor is a credential.
    let pod = world.pod(&team.namespace, "gate").await.unwrap();
    assert_eq!(asked(&world, Some(&pod.token().await.unwrap()), &[&token]).await.0, 401);
    assert_eq!(asked(&world, Some(&issued.credential), &[&token]).await.0, 401);
    for form in [&["token_type_hint=access_token"][..], &["token=a", "token=b"], &["token="], &[]] {
        let (status, answer) = asked(&world, Some(verifier.token()), form).await;
        assert!(status == 400 && answer.contains("invalid_request"), "{form:?}: {answer}");
    }
    let large = format!("token={}", "a".repeat(40_000));
    assert_eq!(asked(&world, Some(verifier.token()), &[&large]).await.0, 400);
    assert_eq!(world.fetch("/introspect").await.unwrap().unwrap_err(), 401, "and GET is no way to ask");
}

async fn others_discover_what_they_need(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let fetched = async |path: &str| -> serde_json::Value {
        serde_json::from_str(&world.fetch(path).await.unwrap().unwrap()).unwrap()
    };
    let oauth = fetched("/.well-known/oauth-authorization-server").await;
    let openid = fetched("/.well-known/openid-configuration").await;
    let issuer = world.keys().await.unwrap().issuer;
    assert_eq!((&oauth["issuer"], &openid["issuer"]), (&issuer.as_str().into(), &issuer.as_str().into()));
    assert_eq!(oauth["introspection_endpoint"], format!("{issuer}/introspect"));
    assert_eq!(oauth["jwks_uri"], openid["jwks_uri"]);
    for (document, member) in [
        (&oauth, "response_types_supported"),
        (&openid, "response_types_supported"),
        (&openid, "subject_types_supported"),
    ] {
        assert!(document[member].is_array(), "{member} is required: {document}");
    }
    let path = openid["jwks_uri"].as_str().unwrap().strip_prefix(&issuer).unwrap();
    let keys = fetched(path).await;
    let algorithms = openid["id_token_signing_alg_values_supported"].as_array().unwrap();
    for key in keys["keys"].as_array().unwrap() {
        assert!(algorithms.contains(&key["alg"]), "{key}");
    }
}
