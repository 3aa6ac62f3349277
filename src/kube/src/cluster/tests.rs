use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ports::{InvalidToken, ReviewError};
use dayfly_core::secret::Secret;

use super::*;
use crate::testing::{Answer, Fake, audience};

/// The configurations of `east` and `west`, which have the same issuer.
fn configs(fakes: [&Arc<Fake>; 2]) -> [ClusterConfig; 2] {
    let of = |fake: &Arc<Fake>, name: &str| {
        let mut config = crate::testing::config(&fake.url);
        config.name = name.parse().unwrap();
        config.clock = fake.clock.clone();
        config.limits.review_timeout = Duration::from_millis(500);
        config
    };
    [of(fakes[0], "east"), of(fakes[1], "west")]
}

async fn pair(fakes: [&Arc<Fake>; 2]) -> [RunningCluster; 2] {
    connect_all(configs(fakes)).await.unwrap().try_into().ok().unwrap()
}

async fn review(running: &RunningCluster, token: &Secret) -> Result<String, ReviewError> {
    let reviewed = running.cluster().reviewer.review(token, &audience("dayfly")).await;
    reviewed.map(|identity| identity.cluster.to_string())
}

fn unavailable(reviewed: Result<String, ReviewError>) -> String {
    match reviewed {
        Err(ReviewError::Unavailable { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

fn bad_signature(reviewed: &Result<String, ReviewError>) {
    assert!(matches!(reviewed, Err(ReviewError::Invalid { kind: InvalidToken::BadSignature, .. })));
}

async fn reread(running: &RunningCluster, fake: &Fake) {
    fake.clock.advance(Duration::from_secs(10));
    let _ = running.keys.as_ref().unwrap().refresh().await;
}

#[tokio::test]
async fn a_token_is_of_the_one_cluster_whose_key_signed_it() {
    let (one, other) = (Fake::start().await, Fake::start().await);
    let [east, west] = pair([&one, &other]).await;
    // Same issuer, namespace, service account, pod, uids and claims.
    let (of_east, of_west) = (one.token("dayfly", |_| {}), other.token("dayfly", |_| {}));
    for _ in 0..2 {
        assert_eq!(review(&east, &of_east).await.unwrap(), "east");
        bad_signature(&review(&west, &of_east).await);
        assert_eq!(review(&west, &of_west).await.unwrap(), "west");
        bad_signature(&review(&east, &of_west).await);
    }
    assert_eq!((one.count("tokenreviews"), other.count("tokenreviews")), (1, 1), "each is kept for its own");
}

#[tokio::test]
async fn one_clusters_word_is_not_kept_for_another() {
    let (one, other) = (Fake::start().await, Fake::start().await);
    let [mut first, mut second] = configs([&one, &other]);
    (first.issuer, second.issuer) = ("https://one".to_owned(), "https://other".to_owned());
    (first.local_check, second.local_check) = (false, false);
    let [east, west] = <[_; 2]>::try_from(connect_all([first, second]).await.unwrap()).ok().unwrap();
    let token = one.token("dayfly", |claims| claims["iss"] = "https://one".into());
    one.answer("tokenreviews", Answer::Body(r#"{"status": {}}"#.to_owned()));
    let refused = review(&east, &token).await.unwrap_err();
    assert!(matches!(refused, ReviewError::Invalid { kind: InvalidToken::Refused, .. }));
    let token = other.token("dayfly", |claims| claims["iss"] = "https://other".into());
    assert_eq!(review(&west, &token).await.unwrap(), "west");
    assert!(review(&east, &token).await.is_err());
}

#[tokio::test]
async fn clusters_that_share_a_key_are_not_served() {
    let (one, other) = (Fake::start().await, Fake::start().await);
    let key = Arc::clone(&one.key.lock().unwrap());
    *other.key.lock().unwrap() = key;
    let error = connect_all(configs([&one, &other])).await.err().unwrap().to_string();
    assert!(error.contains("east") && error.contains("west") && error.contains("in common"), "{error}");
    assert_eq!((one.count("tokenreviews"), other.count("tokenreviews")), (0, 0));
}

#[tokio::test]
async fn a_key_that_comes_to_be_shared_ends_all_reviews_of_both_until_it_is_not() {
    let (one, other) = (Fake::start().await, Fake::start().await);
    let [east, west] = pair([&one, &other]).await;
    let (of_east, of_west) = (one.token("dayfly", |_| {}), other.token("dayfly", |_| {}));
    review(&east, &of_east).await.unwrap();
    review(&west, &of_west).await.unwrap();
    let own = Arc::clone(&other.key.lock().unwrap());
    let shared = Arc::clone(&one.key.lock().unwrap());
    *other.key.lock().unwrap() = shared;
    // A token of the other cluster's makes this one look, and then know.
    other.clock.advance(Duration::from_secs(10));
    assert!(unavailable(review(&west, &of_east).await).contains("cluster east of the same issuer"));
    assert!(unavailable(review(&east, &of_east).await).contains("cluster west"), "not even what was kept");
    assert!(east.cluster().reviewer.known(&of_east, &audience("dayfly")).unwrap().is_err());
    assert!(unavailable(review(&west, &of_west).await).contains("cluster east"));
    assert_eq!((one.count("tokenreviews"), other.count("tokenreviews")), (1, 1));
    *other.key.lock().unwrap() = own;
    reread(&west, &other).await;
    assert_eq!(review(&east, &of_east).await.unwrap(), "east");
    assert_eq!(review(&west, &of_west).await.unwrap(), "west");
}

#[tokio::test]
async fn a_cluster_that_is_down_harms_no_namesake_and_is_compared_before_it_is_served() {
    for answer in [Answer::Status(500, None), Answer::Hang] {
        let (one, other) = (Fake::start().await, Fake::start().await);
        other.answer("jwks", answer);
        let [east, west] = pair([&one, &other]).await;
        let (of_east, of_west) = (one.token("dayfly", |_| {}), other.token("dayfly", |_| {}));
        assert_eq!(review(&east, &of_east).await.unwrap(), "east");
        unavailable(review(&west, &of_west).await);
        other.recover("jwks");
        let shared = Arc::clone(&one.key.lock().unwrap());
        let own = std::mem::replace(&mut *other.key.lock().unwrap(), shared);
        reread(&west, &other).await;
        unavailable(review(&east, &of_east).await);
        unavailable(review(&west, &of_east).await);
        *other.key.lock().unwrap() = own;
        reread(&west, &other).await;
        assert_eq!(review(&west, &of_west).await.unwrap(), "west");
        assert_eq!(review(&east, &of_east).await.unwrap(), "east");
    }
}

#[tokio::test]
async fn clusters_of_one_issuer_do_not_hide_their_keys() {
    let (one, other) = (Fake::start().await, Fake::start().await);
    for hides in [0, 1] {
        let mut configs = configs([&one, &other]);
        configs[hides].local_check = false;
        let error = connect_all(configs).await.err().unwrap();
        assert!(matches!(error, ConnectError::NamesakeHidesKeys(..)), "{error}");
    }
}
