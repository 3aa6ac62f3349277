use std::time::Duration;

use dayfly_core::ids::Uid;
use dayfly_core::ports::{AffectedObjects, DirectoryError, PodFacts, PodPhase};
use serde_json::json;

use crate::testing::{Answer, Fake, namespace, pod, service_account, until};
use crate::{ClusterConfig, RunningCluster};

async fn find(running: &RunningCluster, name: &str) -> Result<Option<PodFacts>, DirectoryError> {
    running.cluster().directory.pod(&"payments".parse().unwrap(), &name.parse().unwrap(), None).await
}

/// Waits until what the directory says of a pod is this uid, or that there is none.
async fn until_found(running: &RunningCluster, name: &str, uid: Option<u128>) {
    for _ in 0..1000 {
        if find(running, name).await.unwrap().map(|facts| facts.uid) == uid.map(Uid::from_u128) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain for {name} to be {uid:?}");
}

fn no_change(_: &mut ClusterConfig) {}

#[tokio::test]
async fn is_ready_after_the_first_lists_of_all_pages() {
    let fake = Fake::start().await;
    for n in 0..5 {
        fake.put("pods", pod("payments", &format!("api-{n}"), n));
    }
    fake.put("serviceaccounts", service_account("payments", "api", 9));
    fake.answer("list serviceaccounts", Answer::Hang);
    let running = fake.connect(no_change).await;
    until("pods are watched", || fake.count("watch pods") == 1).await;
    assert!(!running.cluster().directory.ready());
    running.shutdown().await;

    fake.recover("list serviceaccounts");
    fake.answer("list namespaces", Answer::Status(403, None));
    let running = fake.connect(no_change).await;
    until("namespaces are listed", || fake.count("list namespaces") > 1).await;
    assert!(!running.cluster().directory.ready());
    running.shutdown().await;

    fake.recover("list namespaces");
    let before = fake.count("list pods");
    let running = fake.ready(no_change).await;
    for n in 0..5 {
        let facts = find(&running, &format!("api-{n}")).await.unwrap().unwrap();
        assert_eq!((facts.uid, facts.phase, facts.deleting), (Uid::from_u128(n), PodPhase::Running, None));
    }
    let directory = running.cluster().directory;
    let service_account = directory
        .service_account(&"payments".parse().unwrap(), &"api".parse().unwrap(), None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(service_account.uid, Uid::from_u128(9));
    assert_eq!(
        (fake.count("list pods") - before, fake.count("get pods"), fake.count("get serviceaccounts")),
        (3, 0, 0)
    );
}

#[tokio::test]
async fn namespaces_are_known_as_they_change_and_asked_for_when_new() {
    let fake = Fake::start().await;
    fake.put("namespaces", namespace("payments", 1));
    let running = fake.ready(no_change).await;
    let directory = running.cluster().directory;
    let find = async |name: &str| directory.namespace(&name.parse().unwrap()).await.unwrap();
    let facts = find("payments").await.unwrap();
    assert_eq!((facts.uid, facts.deleting), (Uid::from_u128(1), false));
    assert_eq!(facts.labels["kubernetes.io/metadata.name"], "payments");
    assert_eq!(fake.count("get namespaces"), 0);

    let mut deleting = namespace("payments", 1);
    deleting["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z".into();
    fake.put("namespaces", deleting);
    for _ in 0..1000 {
        if find("payments").await.unwrap().deleting {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(find("payments").await.unwrap().deleting);
    fake.store("namespaces", namespace("new", 2));
    assert_eq!(find("new").await.unwrap().uid, Uid::from_u128(2));
    assert_eq!(find("none").await, None);
    assert_eq!(fake.count("get namespaces"), 2);
}

#[tokio::test]
async fn what_changes_is_known_without_asking() {
    let fake = Fake::start().await;
    fake.put("pods", pod("payments", "api-0", 1));
    let running = fake.ready(no_change).await;
    let mut deleting = pod("payments", "api-0", 1);
    deleting["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z".into();
    fake.put("pods", deleting);
    for _ in 0..1000 {
        if find(&running, "api-0").await.unwrap().unwrap().deleting.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        find(&running, "api-0").await.unwrap().unwrap().deleting,
        Some("2026-11-23T12:00:00Z".parse().unwrap())
    );
    assert_eq!(fake.count("get pods"), 0);
    // Gone, and come back under its name.
    fake.delete("pods", "payments", "api-0");
    until_found(&running, "api-0", None).await;
    fake.put("pods", pod("payments", "api-0", 2));
    until_found(&running, "api-0", Some(2)).await;
}

#[tokio::test]
async fn a_pod_not_seen_yet_is_asked_for_once() {
    let fake = Fake::start().await;
    let running = fake.ready(no_change).await;
    // It is there, but the watch has not said so.
    fake.store("pods", pod("payments", "new-0", 7));
    fake.answer("get pods", Answer::Slow(Duration::from_millis(200)));
    let found = futures_util::future::join_all((0..50).map(|_| find(&running, "new-0"))).await;
    assert!(found.into_iter().all(|found| found.unwrap().unwrap().uid == Uid::from_u128(7)));
    assert_eq!(fake.count("get pods"), 1);
    // Nothing was kept: a pod that goes at once is gone.
    fake.forget("pods", "payments", "new-0");
    assert_eq!(find(&running, "new-0").await, Ok(None));
    assert_eq!(fake.count("get pods"), 2);
}

#[tokio::test]
async fn an_expired_watch_is_listed_again() {
    let fake = Fake::start().await;
    fake.put("pods", pod("payments", "api-0", 1));
    fake.put("pods", pod("payments", "api-1", 2));
    let running = fake.ready(no_change).await;
    // What the watch missed: one went, one was made anew, one came.
    fake.forget("pods", "payments", "api-0");
    fake.store("pods", pod("payments", "api-1", 3));
    fake.store("pods", pod("payments", "api-2", 4));
    assert_eq!(
        find(&running, "api-0").await.unwrap().unwrap().uid,
        Uid::from_u128(1),
        "the last state stays"
    );
    fake.tell(
        "pods",
        "ERROR",
        &json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}),
    );
    until("it was listed again", || fake.count("list pods") > 1 && fake.count("watch pods") > 1).await;
    let gets = fake.count("get pods");
    assert_eq!(find(&running, "api-1").await.unwrap().unwrap().uid, Uid::from_u128(3));
    assert_eq!(find(&running, "api-2").await.unwrap().unwrap().uid, Uid::from_u128(4));
    assert_eq!(fake.count("get pods"), gets);
    assert_eq!(find(&running, "api-0").await, Ok(None));
}

/// 410: it is too old. 504: it is of the future, since etcd was restored.
#[tokio::test]
async fn a_watch_whose_version_is_lost_while_away_is_listed_again() {
    for code in [410, 504] {
        let fake = Fake::start().await;
        let running = fake.ready(no_change).await;
        fake.answer("watch pods", Answer::Status(code, None));
        fake.hang_up();
        until("it tried", || fake.count("list pods") > 1).await;
        fake.recover("watch pods");
        fake.put("pods", pod("payments", "api-0", 1));
        until_found(&running, "api-0", Some(1)).await;
    }
}

/// What an API server that has just come back may answer: 200, and no objects. It is news that all of them went, which is
/// a reason to ask, and each is asked for before it is gone.
#[tokio::test]
async fn an_empty_list_after_an_error_ends_nothing() {
    let empty = json!({"metadata": {"resourceVersion": "9"}, "items": []}).to_string();
    for code in [410, 500] {
        let fake = Fake::start().await;
        fake.put("pods", pod("payments", "api-0", 1));
        fake.put("pods", pod("payments", "api-1", 2));
        let running = fake.ready(no_change).await;
        let directory = running.cluster().directory;
        fake.answer("list pods", Answer::Body(empty.clone()));
        fake.answer("get pods", Answer::Status(503, None));
        let lists = fake.count("list pods");
        fake.tell("pods", "ERROR", &json!({"kind": "Status", "code": code, "message": "too old"}));
        until("it was listed again", || fake.count("list pods") > lists).await;
        // All that is said of them: look at these.
        let AffectedObjects::These(told) = directory.affected().await else { panic!("{code}: too many") };
        assert_eq!(told.len(), 2, "{code}");
        // It does not answer: neither is gone.
        for name in ["api-0", "api-1"] {
            find(&running, name).await.unwrap_err();
        }
        // It has one of them, and says of the other in so many words that it has not.
        fake.recover("get pods");
        fake.forget("pods", "payments", "api-1");
        let gets = fake.count("get pods");
        assert_eq!(find(&running, "api-0").await.unwrap().unwrap().uid, Uid::from_u128(1), "{code}");
        assert_eq!(find(&running, "api-1").await, Ok(None), "{code}");
        assert_eq!(fake.count("get pods"), gets + 2, "by a GET each");
        running.shutdown().await;
    }
}

#[tokio::test]
async fn a_broken_watch_goes_on_where_it_was() {
    let fake = Fake::start().await;
    fake.put("pods", pod("payments", "api-0", 1));
    let running = fake.ready(no_change).await;
    fake.answer("watch pods", Answer::Status(503, None));
    fake.hang_up();
    until("it tried", || fake.count("watch pods") > 2).await;
    assert!(find(&running, "api-0").await.unwrap().is_some(), "nothing ends for lack of news");
    fake.store("pods", pod("payments", "api-1", 2));
    fake.recover("watch pods");
    let gets = fake.count("get pods");
    until("it watches again", || fake.watching("pods")).await;
    until_found(&running, "api-1", Some(2)).await;
    assert_eq!(fake.count("list pods"), 1);
    assert!(fake.count("get pods") <= gets + 1);
}

#[tokio::test]
async fn a_silent_informer_is_not_trusted() {
    let fake = Fake::start().await;
    fake.put("pods", pod("payments", "api-0", 1));
    let running = fake.ready(no_change).await;
    fake.clock.advance(Duration::from_secs(149));
    find(&running, "api-0").await.unwrap().unwrap();
    assert_eq!(fake.count("get pods"), 0);
    fake.clock.advance(Duration::from_secs(1));
    find(&running, "api-0").await.unwrap().unwrap();
    find(&running, "api-0").await.unwrap().unwrap();
    assert_eq!(fake.count("get pods"), 2);
    fake.answer("get pods", Answer::Status(503, Some(4)));
    let error = find(&running, "api-0").await.unwrap_err();
    assert_eq!((error.why.as_str(), error.retry_after.as_secs()), ("it failed (503)", 4));
    // A bookmark is news.
    fake.bookmark("pods");
    until_found_in_informer(&running, &fake).await;
}

/// The clock stands still here: this is about the watch itself, which a half-open connection would keep for ever.
#[tokio::test]
async fn a_watch_that_says_nothing_is_begun_anew() {
    let fake = Fake::start().await;
    let running = fake.ready(|config| config.limits.informer_silence = Duration::from_millis(150)).await;
    until("it watched again", || fake.count("watch pods") > 2).await;
    running.shutdown().await;
}

/// A watch that the API server, or a proxy before it, takes and then says nothing in.
#[tokio::test]
async fn a_watch_that_is_mute_is_not_news() {
    let fake = Fake::start().await;
    fake.put("pods", pod("payments", "api-0", 1));
    let running = fake.ready(|config| config.limits.informer_silence = Duration::from_millis(150)).await;
    // What the watch does not tell is listed.
    fake.store("pods", pod("payments", "api-1", 2));
    fake.clock.advance(Duration::from_millis(100));
    let lists = fake.count("list pods");
    until("it listed again", || fake.count("list pods") > lists).await;
    assert!(find(&running, "api-1").await.unwrap().is_some());
    assert_eq!(fake.count("get pods"), 0);

    fake.answer("list pods", Answer::Hang);
    fake.clock.advance(Duration::from_millis(150));
    assert!(find(&running, "api-0").await.unwrap().is_some());
    assert_eq!(fake.count("get pods"), 1, "each is asked for");
    running.shutdown().await;
}

/// What the broker was allowed when it started, it may lose while it runs.
#[tokio::test]
async fn rights_that_are_lost_while_running_are_missed_within_the_silence() {
    let fake = Fake::start().await;
    fake.put("pods", pod("payments", "api-0", 1));
    let running = fake.ready(no_change).await;
    let forbidden = || Answer::Status(403, None);
    for call in ["watch pods", "list pods", "get pods"] {
        fake.answer(call, forbidden());
    }
    let watches = fake.count("watch pods");
    fake.hang_up();
    until("it tried to watch", || fake.count("watch pods") > watches).await;
    assert!(find(&running, "api-0").await.unwrap().is_some(), "what was heard lately");
    fake.clock.advance(Duration::from_secs(150));
    let error = find(&running, "api-0").await.unwrap_err();
    assert!(error.why.contains("may not get pods (403)"), "{error}");
    for call in ["watch pods", "list pods", "get pods"] {
        fake.recover(call);
    }
    until_found_in_informer(&running, &fake).await;
    running.shutdown().await;
}

/// Waits until the informer answers by itself again.
async fn until_found_in_informer(running: &RunningCluster, fake: &Fake) {
    for _ in 0..1000 {
        let before = fake.count("get pods");
        if find(running, "api-0").await.is_ok() && fake.count("get pods") == before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the informer is still not trusted");
}

#[tokio::test]
async fn what_cannot_be_read_is_unavailable_and_never_gone() {
    let fake = Fake::start().await;
    let running = fake.connect(|config| config.limits.review_timeout = Duration::from_millis(300)).await;
    for (answer, says) in [
        (Answer::Status(403, None), "may not get pods (403)"),
        (Answer::Status(404, None), "failed (404)"),
        (Answer::Body("<html>".to_owned()), "cannot be read"),
        (Answer::Hang, "did not answer within"),
    ] {
        fake.answer("get pods", answer);
        let error = find(&running, "api-0").await.unwrap_err();
        assert!(error.why.contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_closed_cluster_asks_nothing_more() {
    let fake = Fake::start().await;
    let running = fake.ready(no_change).await;
    let cluster = running.cluster();
    running.shutdown().await;
    fake.hang_up();
    let watches = fake.count("watch pods");
    fake.put("pods", pod("payments", "api-0", 1));
    let found = cluster.directory.pod(&"payments".parse().unwrap(), &"api-0".parse().unwrap(), None).await;
    assert!(found.unwrap().is_some(), "by a GET");
    assert_eq!(fake.count("watch pods"), watches);
}

/// A pod of a StatefulSet comes back under its name: a caller that has the new one's token is not told of the old one.
#[tokio::test]
async fn a_recreated_pod_that_was_not_heard_of_is_asked_for_once() {
    let fake = Fake::start().await;
    fake.put("pods", pod("payments", "api-0", 1));
    let running = fake.ready(no_change).await;
    until_found(&running, "api-0", Some(1)).await;
    fake.answer("watch pods", Answer::Hang);
    let directory = running.cluster().directory;
    let asked = |uid: u128| {
        let directory = std::sync::Arc::clone(&directory);
        async move {
            let expected = Some(Uid::from_u128(uid));
            let found =
                directory.pod(&"payments".parse().unwrap(), &"api-0".parse().unwrap(), expected).await;
            found.unwrap().map(|facts| facts.uid)
        }
    };
    assert_eq!(asked(1).await, Some(Uid::from_u128(1)));
    assert_eq!(fake.count("get pods"), 0);
    assert_eq!(asked(2).await, Some(Uid::from_u128(1)));
    assert_eq!(fake.count("get pods"), 1);
}
