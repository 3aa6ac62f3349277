use std::time::Duration;

use dayfly_core::ids::Uid;
use dayfly_core::ports::{InvalidToken, ReviewError};
use dayfly_core::secret::Secret;
use serde_json::{Value, json};

use crate::testing::{Answer, Fake, ISSUER, NOW, audience, pod, service_account, until};
use crate::{ClusterConfig, RunningCluster};

type Reviewed = Result<std::sync::Arc<dayfly_core::workload::Identity>, ReviewError>;

async fn review(running: &RunningCluster, token: &Secret) -> Reviewed {
    running.cluster().reviewer.review(token, &audience("dayfly")).await
}

fn kind(reviewed: Reviewed) -> InvalidToken {
    match reviewed {
        Err(ReviewError::Invalid { kind, .. }) => kind,
        other => panic!("{other:?}"),
    }
}

fn message(reviewed: Reviewed) -> String {
    reviewed.unwrap_err().to_string()
}

fn unavailable(reviewed: Reviewed) -> (String, u64) {
    match reviewed {
        Err(ReviewError::Unavailable { why, retry_after }) => (why, retry_after.as_secs()),
        other => panic!("{other:?}"),
    }
}

fn no_change(_: &mut ClusterConfig) {}

#[tokio::test]
async fn a_good_review_is_kept_for_ten_seconds() {
    let fake = Fake::start().await;
    let running = fake.connect(no_change).await;
    let token = fake.token("dayfly", |_| {});
    let identity = review(&running, &token).await.unwrap();
    assert_eq!(identity.service_account().unwrap().name.as_str(), "api");
    assert_eq!(identity.cluster.as_str(), "east");
    assert_eq!(fake.posted()["spec"]["audiences"], json!(["dayfly"]));
    fake.clock.advance(Duration::from_secs(9));
    review(&running, &token).await.unwrap();
    assert_eq!(fake.count("tokenreviews"), 1);
    fake.clock.advance(Duration::from_secs(1));
    review(&running, &token).await.unwrap();
    assert_eq!(fake.count("tokenreviews"), 2);
    // Under another audience the same token is another question.
    let operator = running.cluster().reviewer.review(&token, &audience("dayfly-operator")).await;
    assert_eq!(kind(operator), InvalidToken::WrongAudience);
}

#[tokio::test]
async fn a_review_is_not_kept_beyond_the_tokens_end() {
    let fake = Fake::start().await;
    let running = fake.connect(no_change).await;
    let token = fake.token("dayfly", |claims| claims["exp"] = (NOW + 4).into());
    review(&running, &token).await.unwrap();
    fake.clock.advance(Duration::from_secs(3));
    review(&running, &token).await.unwrap();
    assert_eq!(fake.count("tokenreviews"), 1);
    fake.clock.advance(Duration::from_secs(1));
    review(&running, &token).await.unwrap();
    assert_eq!(fake.count("tokenreviews"), 2, "within the leeway, but the API server is asked each time");
}

#[tokio::test]
async fn a_hundred_callers_make_one_review() {
    let fake = Fake::start().await;
    let running = fake.connect(no_change).await;
    fake.answer("tokenreviews", Answer::Slow(Duration::from_millis(200)));
    let token = fake.token("dayfly", |_| {});
    let reviews = (0..100).map(|_| review(&running, &token));
    let reviews = futures_util::future::join_all(reviews).await;
    assert!(reviews.iter().all(Result::is_ok));
    assert_eq!((fake.count("tokenreviews"), fake.count("jwks")), (1, 1));
}

#[tokio::test]
async fn a_token_is_for_exactly_the_one_audience() {
    let fake = Fake::start().await;
    let running = fake.connect(no_change).await;
    for (audiences, says) in [
        (json!([ISSUER]), "good for the API server itself"),
        (json!(["dayfly", ISSUER]), "good for the API server itself"),
        (json!("dayfly-operator"), "Dayfly's audience dayfly-operator"),
        (json!(["dayfly", "dayfly-verifier"]), "Dayfly's audience dayfly-verifier"),
        (json!(["dayfly", "vault"]), "other audiences too"),
        (json!(["dayfly", "dayfly"]), "other audiences too"),
        (json!(["Dayfly"]), "another audience"),
    ] {
        let token = fake.token("dayfly", |claims| claims["aud"] = audiences.clone());
        let reviewed = review(&running, &token).await;
        assert_eq!(kind(reviewed.clone()), InvalidToken::WrongAudience, "{audiences}");
        assert!(message(reviewed.clone()).contains(says), "{audiences}: {reviewed:?}");
    }
    assert_eq!(fake.count("tokenreviews"), 0);
}

#[tokio::test]
async fn what_cannot_be_good_never_reaches_the_api_server() {
    let fake = Fake::start().await;
    let running = fake.connect(no_change).await;
    let with = |change: &dyn Fn(&mut Value)| fake.token("dayfly", |claims| change(claims));
    let without = |claim: &'static str| with(&|claims| drop(claims.as_object_mut().unwrap().remove(claim)));
    let good = with(&|_| {}).expose_text().unwrap().to_owned();
    let (signed, _) = good.rsplit_once('.').unwrap();
    let other_signature = with(&|claims| claims["jti"] = "x".into());
    let spliced = format!("{signed}.{}", other_signature.expose_text().unwrap().rsplit_once('.').unwrap().1);
    let cases = [
        (Secret::from("x".repeat(8 * 1024 + 1)), InvalidToken::Malformed),
        (Secret::from(vec![0xff]), InvalidToken::Malformed),
        (Secret::from("not.a.token".to_owned()), InvalidToken::Malformed),
        (Secret::from(spliced), InvalidToken::BadSignature),
        (with(&|claims| claims["exp"] = (NOW - 30).into()), InvalidToken::Expired),
        (with(&|claims| claims["nbf"] = (NOW + 31).into()), InvalidToken::NotYetValid),
        (with(&|claims| claims["iss"] = "https://elsewhere".into()), InvalidToken::UnknownIssuer),
        (without("iss"), InvalidToken::UnknownIssuer),
        (with(&|claims| claims["iss"] = "kubernetes/serviceaccount".into()), InvalidToken::Legacy),
        (
            with(&|claims| claims["kubernetes.io/serviceaccount/secret.name"] = "s".into()),
            InvalidToken::Legacy,
        ),
        (without("exp"), InvalidToken::Legacy),
        (without("aud"), InvalidToken::Legacy),
    ];
    for (n, (token, expected)) in cases.into_iter().enumerate() {
        let reviewed = review(&running, &token).await;
        assert_eq!(kind(reviewed.clone()), expected, "case {n}");
        if expected == InvalidToken::Legacy {
            assert!(message(reviewed).contains("serviceAccountToken with audience: dayfly"));
        }
    }
    assert_eq!(fake.count("tokenreviews"), 0);
}

#[tokio::test]
async fn a_yes_has_to_be_whole_and_a_no_is_kept_for_two_seconds() {
    let fake = Fake::start().await;
    let running = fake.connect(no_change).await;
    let token = fake.token("dayfly", |_| {});
    let user = json!({"username": "u", "uid": "1"});
    let no = json!({"authenticated": false, "error": "about someone else"});
    for (status, expected) in [
        (no, InvalidToken::Refused),
        (json!({"user": user, "audiences": ["dayfly"]}), InvalidToken::Refused),
        (json!({"authenticated": true, "user": user}), InvalidToken::WrongAudience),
        (json!({"authenticated": true, "user": user, "audiences": []}), InvalidToken::WrongAudience),
        (
            json!({"authenticated": true, "user": user, "audiences": ["dayfly", "x"]}),
            InvalidToken::WrongAudience,
        ),
        (json!({"authenticated": true, "user": user, "audiences": ["x"]}), InvalidToken::WrongAudience),
        (json!({"authenticated": true, "audiences": ["dayfly"]}), InvalidToken::Refused),
        (
            json!({"authenticated": true, "user": {"username": "u"}, "audiences": ["dayfly"]}),
            InvalidToken::Refused,
        ),
        (
            json!({"authenticated": true, "user": {"username": "", "uid": "1"}, "audiences": ["dayfly"]}),
            InvalidToken::Refused,
        ),
    ] {
        fake.answer("tokenreviews", Answer::Body(json!({ "status": status }).to_string()));
        let reviewed = review(&running, &token).await;
        assert_eq!(kind(reviewed.clone()), expected, "{status}");
        assert!(!message(reviewed).contains("someone else"));
        let asked = fake.count("tokenreviews");
        fake.clock.advance(Duration::from_secs(1));
        assert_eq!(kind(review(&running, &token).await), expected, "{status}");
        assert_eq!(fake.count("tokenreviews"), asked, "it is not asked for again");
        fake.clock.advance(Duration::from_secs(1));
    }
    fake.recover("tokenreviews");
    review(&running, &token).await.unwrap();
    assert_eq!(fake.count("tokenreviews"), 10);
}

#[tokio::test]
async fn what_is_kept_is_known_without_asking() {
    let fake = Fake::start().await;
    let running = fake.connect(no_change).await;
    let reviewer = running.cluster().reviewer;
    let (good, bad) =
        (fake.token("dayfly", |_| {}), fake.token("dayfly", |claims| claims["jti"] = "x".into()));
    let known = |token| reviewer.known(token, &audience("dayfly"));
    assert!(known(&good).is_none());
    review(&running, &good).await.unwrap();
    fake.answer("tokenreviews", Answer::Body(json!({"status": {}}).to_string()));
    review(&running, &bad).await.unwrap_err();
    assert!(known(&good).unwrap().is_ok());
    assert_eq!(kind(known(&bad).unwrap()), InvalidToken::Refused);
    assert!(reviewer.known(&good, &audience("dayfly-operator")).is_none());
    fake.clock.advance(Duration::from_secs(10));
    assert!(known(&good).is_none() && known(&bad).is_none());
}

#[tokio::test]
async fn only_the_api_servers_own_no_is_kept() {
    let fake = Fake::start().await;
    let running = fake.connect(|config| config.limits.review_timeout = Duration::from_millis(300)).await;
    let token = fake.token("dayfly", |_| {});
    for answer in [Answer::Status(500, None), Answer::Body("{}".to_owned()), Answer::Hang] {
        fake.answer("tokenreviews", answer);
        unavailable(review(&running, &token).await);
    }
    fake.recover("tokenreviews");
    review(&running, &token).await.unwrap();
    // Nor is what the local check said: a token becomes valid, a key is published.
    let early = fake.token("dayfly", |claims| claims["nbf"] = (NOW + 31).into());
    assert_eq!(kind(review(&running, &early).await), InvalidToken::NotYetValid);
    fake.clock.advance(Duration::from_secs(1));
    review(&running, &early).await.unwrap();
}

#[tokio::test]
async fn an_api_server_that_cannot_answer_is_unavailable_and_never_a_yes() {
    let fake = Fake::start().await;
    let running = fake.connect(|config| config.limits.review_timeout = Duration::from_millis(300)).await;
    let token = fake.token("dayfly", |_| {});
    for (answer, after, says) in [
        (Answer::Status(429, Some(7)), 7, "overloaded"),
        (Answer::Status(429, Some(86_400)), 60, "overloaded"),
        (Answer::Status(429, None), 1, "overloaded"),
        (Answer::Status(500, None), 2, "failed (500)"),
        (Answer::Status(503, Some(3)), 3, "failed (503)"),
        (Answer::Status(404, None), 2, "failed (404)"),
        (Answer::Status(401, None), 5, "broker's own credentials (401)"),
        (Answer::Status(403, None), 5, "may not create tokenreviews.authentication.k8s.io (403)"),
        (Answer::Body("<html>".to_owned()), 5, "cannot be read"),
        (Answer::Hang, 1, "did not answer within 300ms"),
    ] {
        fake.answer("tokenreviews", answer);
        let (why, retry_after) = unavailable(review(&running, &token).await);
        assert!(why.contains(says), "{why}");
        assert_eq!(retry_after, after, "{why}");
    }
    fake.recover("tokenreviews");
    review(&running, &token).await.unwrap();
}

#[tokio::test]
async fn no_answer_repeats_a_token() {
    let fake = Fake::start().await;
    let running = fake.connect(no_change).await;
    let token = fake.token("dayfly", |_| {});
    let text = token.expose_text().unwrap();
    fake.answer("tokenreviews", Answer::Body(json!({"spec": {"token": text}, "status": text}).to_string()));
    let (why, _) = unavailable(review(&running, &token).await);
    assert!(why.contains("cannot be read") && !why.contains(&text[..20]), "{why}");
}

#[tokio::test]
async fn an_api_server_that_is_down_is_unavailable() {
    let fake = Fake::start().await;
    let token = fake.token("dayfly", |_| {});
    let running = fake
        .connect(|config| {
            let nobody = "http://127.0.0.1:9".to_owned();
            config.access = crate::Access::Url { server: nobody, ca_file: None, token_file: None };
        })
        .await;
    let (why, _) = unavailable(review(&running, &token).await);
    assert!(why.contains("cannot be reached") && why.contains("refused"), "{why}");
    assert!(!running.cluster().directory.ready());
}

#[tokio::test]
async fn a_review_goes_with_its_pod_and_its_service_account() {
    let fake = Fake::start().await;
    fake.put("pods", pod("payments", "api-0", 1));
    fake.put("serviceaccounts", service_account("payments", "api", 2));
    let running = fake.ready(no_change).await;
    let token = fake.token("dayfly", |_| {});
    let directory = running.cluster().directory;
    let (namespace, name) = ("payments".parse().unwrap(), "api-0".parse().unwrap());
    review(&running, &token).await.unwrap();
    review(&running, &token).await.unwrap();
    assert_eq!(fake.count("tokenreviews"), 1);
    fake.delete("pods", "payments", "api-0");
    for _ in 0..1000 {
        if directory.pod(&namespace, &name, None).await.unwrap().is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    review(&running, &token).await.unwrap();
    review(&running, &token).await.unwrap();
    assert_eq!(fake.count("tokenreviews"), 3, "the API server may still say yes: it is asked each time");
}

#[tokio::test]
async fn unknown_keys_make_one_fetch_in_ten_seconds() {
    let fake = Fake::start().await;
    let running = fake.connect(no_change).await;
    review(&running, &fake.token("dayfly", |_| {})).await.unwrap();
    assert_eq!(fake.count("jwks"), 1);
    // Someone else's keys.
    let stranger = Fake::start().await;
    for _ in 0..20 {
        *stranger.key.lock().unwrap() = std::sync::Arc::new(dayfly_jose::SigningKey::generate().unwrap());
        assert_eq!(
            kind(review(&running, &stranger.token("dayfly", |_| {})).await),
            InvalidToken::BadSignature
        );
    }
    assert_eq!(fake.count("jwks"), 1);
    fake.clock.advance(Duration::from_secs(10));
    for _ in 0..20 {
        assert_eq!(
            kind(review(&running, &stranger.token("dayfly", |_| {})).await),
            InvalidToken::BadSignature
        );
    }
    assert_eq!(fake.count("jwks"), 2);
    // The cluster's own new key.
    *fake.key.lock().unwrap() = std::sync::Arc::new(dayfly_jose::SigningKey::generate().unwrap());
    fake.clock.advance(Duration::from_secs(10));
    review(&running, &fake.token("dayfly", |_| {})).await.unwrap();
    assert_eq!((fake.count("jwks"), fake.count("tokenreviews")), (3, 2));
}

/// Where the API server does not publish its keys itself.
#[tokio::test]
async fn keys_are_read_from_the_place_that_is_configured() {
    let (fake, place) = (Fake::start().await, Fake::start().await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "broker-token").unwrap();
    *place.key.lock().unwrap() = fake.key.lock().unwrap().clone();
    let (server, url) = (fake.url.clone(), format!("{}/openid/v1/jwks", place.url));
    let running = fake
        .connect(|config| {
            config.access = crate::Access::Url { server, ca_file: None, token_file: Some(path.clone()) };
            config.jwks = Some(crate::Jwks { url, ca_file: None });
        })
        .await;
    review(&running, &fake.token("dayfly", |_| {})).await.unwrap();
    assert_eq!((fake.count("jwks"), place.count("jwks")), (0, 1));
    assert_eq!(place.authorization(), "", "it is not given the broker's token");
    *place.key.lock().unwrap() = std::sync::Arc::new(dayfly_jose::SigningKey::generate().unwrap());
    let other = place.token("dayfly", |_| {});
    assert_eq!(kind(review(&running, &other).await), InvalidToken::BadSignature, "not yet");
    fake.clock.advance(Duration::from_secs(10));
    review(&running, &other).await.unwrap();
}

#[tokio::test]
async fn keys_that_cannot_be_read_are_no_reason_to_refuse() {
    let fake = Fake::start().await;
    fake.answer("jwks", Answer::Status(403, None));
    let running = fake.connect(no_change).await;
    until("they were asked for", || fake.count("jwks") == 1).await;
    let token = fake.token("dayfly", |_| {});
    for _ in 0..10 {
        let (why, _) = unavailable(review(&running, &token).await);
        assert!(why.contains("system:service-account-issuer-discovery"), "{why}");
    }
    assert_eq!(fake.count("jwks"), 1, "not before a second has passed");
    fake.recover("jwks");
    fake.clock.advance(Duration::from_secs(1));
    review(&running, &token).await.unwrap();
}

#[tokio::test]
async fn hidden_keys_leave_signatures_to_the_api_server_and_nothing_else() {
    let fake = Fake::start().await;
    let running = fake.connect(|config| config.local_check = false).await;
    review(&running, &Fake::start().await.token("dayfly", |_| {})).await.unwrap();
    assert_eq!((fake.count("jwks"), fake.count("tokenreviews")), (0, 1));
    let token = fake.token("dayfly", |claims| claims["aud"] = json!(["dayfly", ISSUER]));
    assert_eq!(kind(review(&running, &token).await), InvalidToken::WrongAudience);
    assert_eq!(fake.count("tokenreviews"), 1);
}

#[tokio::test]
async fn operators_are_reviewed_when_workloads_have_taken_all_there_is() {
    let fake = Fake::start().await;
    let running = fake.connect(|config| config.limits.reviews_at_once = 2).await;
    let reviewer = running.cluster().reviewer;
    let (workload, operator) = (audience("dayfly"), audience("dayfly-operator"));
    fake.answer("tokenreviews", Answer::Hang);
    let (first, second, third) = (
        fake.token("dayfly", |claims| claims["jti"] = "1".into()),
        fake.token("dayfly", |claims| claims["jti"] = "2".into()),
        fake.token("dayfly-operator", |_| {}),
    );
    let flood =
        futures_util::future::join(reviewer.review(&first, &workload), reviewer.review(&second, &workload));
    let operators = async {
        until("the flood is there", || fake.count("tokenreviews") == 1).await;
        fake.recover("tokenreviews");
        reviewer.review(&third, &operator).await
    };
    let ((first, second), operators) = futures_util::future::join(flood, operators).await;
    operators.unwrap();
    unavailable(first);
    unavailable(second);
}

/// A token that names a service account of `payments` by this uid.
fn naming(fake: &Fake, uid: u128, id: usize) -> Secret {
    fake.token("dayfly-operator", |claims| {
        claims["jti"] = id.to_string().into();
        let account = json!({"name": "api", "uid": Uid::from_u128(uid)});
        claims["kubernetes.io"] = json!({"namespace": "payments", "serviceaccount": account});
    })
}

/// A flood of such tokens, whose reviews hang, and one that names service account 2 rightly: how it fares, and how many of
/// the flood are told that they are too many.
async fn beside_a_flood(local_check: bool, flood: impl Fn(&Fake, usize) -> Secret) -> (Reviewed, usize) {
    let fake = Fake::start().await;
    fake.put("serviceaccounts", service_account("payments", "api", 2));
    let running = fake
        .ready(|config| {
            (config.local_check, config.limits.reviews_at_once) = (local_check, 32);
        })
        .await;
    let reviewer = running.cluster().reviewer;
    let operator = audience("dayfly-operator");
    fake.answer("tokenreviews", Answer::Hang);
    let tokens: Vec<_> = (0..12).map(|id| flood(&fake, id)).collect();
    let flood = futures_util::future::join_all(tokens.iter().map(|token| reviewer.review(token, &operator)));
    let real = naming(&fake, 2, 99);
    let operator = async {
        until("the flood is there", || fake.count("tokenreviews") > 0).await;
        // So that all of it is.
        tokio::time::sleep(Duration::from_millis(100)).await;
        fake.recover("tokenreviews");
        let asked = tokio::time::Instant::now();
        let reviewed = reviewer.review(&real, &operator).await;
        assert!(asked.elapsed() < Duration::from_secs(1), "it waited for the flood");
        reviewed
    };
    let (flood, operator) = futures_util::future::join(flood, operator).await;
    (operator, flood.into_iter().filter(|reviewed| *reviewed == Err(ReviewError::Overloaded)).count())
}

/// Keys are hidden, so that nobody can tell before the API server has: but a stranger does not know the uids.
#[tokio::test]
async fn made_up_tokens_keep_no_operator_from_being_reviewed() {
    let (operator, refused) = beside_a_flood(false, |fake, id| naming(fake, 1000, id)).await;
    operator.unwrap();
    assert_eq!(refused, 8, "four stand in the strangers' line");
    let (operator, refused) = beside_a_flood(true, |fake, id| {
        fake.token("dayfly-operator", |claims| claims["jti"] = id.to_string().into())
    })
    .await;
    operator.unwrap();
    assert_eq!(refused, 8);
}

#[tokio::test]
async fn tokens_of_one_namespace_keep_no_operator_of_another_from_being_reviewed() {
    let (operator, refused) = beside_a_flood(true, |fake, id| {
        fake.put("serviceaccounts", service_account("loops", "api", 3));
        fake.token("dayfly-operator", |claims| {
            claims["jti"] = id.to_string().into();
            let account = json!({"name": "api", "uid": Uid::from_u128(3)});
            claims["kubernetes.io"] = json!({"namespace": "loops", "serviceaccount": account});
        })
    })
    .await;
    operator.unwrap();
    assert_eq!(refused, 8, "four stand in its line");
}

#[tokio::test]
async fn the_brokers_token_is_read_from_its_file() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "broker-token").unwrap();
    let server = fake.url.clone();
    let running = fake
        .connect(|config| {
            config.access = crate::Access::Url { server, ca_file: None, token_file: Some(path.clone()) };
        })
        .await;
    review(&running, &fake.token("dayfly", |_| {})).await.unwrap();
    assert_eq!(fake.authorization(), "Bearer broker-token");
}

/// TokenReview does not say it; the token that it vouched for does.
#[tokio::test]
async fn a_token_that_is_bound_to_a_secret_is_known() {
    let fake = Fake::start().await;
    let running = fake.connect(no_change).await;
    for (private, of_secret) in [
        (json!({"namespace": "payments", "secret": {"name": "api", "uid": "x"}}), true),
        (json!({"namespace": "payments", "secret": null}), true),
        (json!({"namespace": "payments", "pod": {"name": "api-0"}}), false),
    ] {
        let token = fake.token("dayfly", |claims| claims["kubernetes.io"] = private);
        assert_eq!(review(&running, &token).await.unwrap().of_secret, of_secret);
    }
}
