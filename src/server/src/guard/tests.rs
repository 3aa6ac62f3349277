use std::convert::Infallible;

use dayfly_core::ids::Uid;
use dayfly_core::ports::TestClock;
use dayfly_core::time::Timestamp;
use tonic_types::StatusExt as _;
use tower::ServiceExt as _;

use super::*;

const ISSUE: &str = "/dayfly.v1.WorkloadService/Issue";
const REVOKE: &str = "/dayfly.v1.OperatorService/Revoke";

/// Takes everyone for whom `authorization` says, `[CLUSTER/]NAMESPACE/POD`; `nobody` is refused, `slow` waits for ever,
/// and whoever is `known` is let in at once.
struct TestDoor;

fn who(name: &str) -> Who {
    let mut parts = name.rsplit('/');
    let pod = parts.next().unwrap();
    Who {
        user: pod.to_owned(),
        namespace: parts.next().map(|namespace| namespace.parse().unwrap()),
        cluster: parts.next().unwrap_or("east").parse().unwrap(),
        pod: Some(Uid::from_u128(pod.bytes().fold(0, |sum, byte| sum * 256 + u128::from(byte)))),
    }
}

impl Door for TestDoor {
    fn known(&self, _: Kind, headers: &HeaderMap) -> Result<Arriving, Status> {
        let caller = Caller::of(headers).map_err(Rejection::into_status)?;
        let name = caller.token.expose_text().unwrap().to_owned();
        if name.starts_with("known") {
            return Ok(Arriving::Known(Admitted { caller: Arc::new(caller), who: who(&name) }));
        }
        Ok(Arriving::Unknown(caller))
    }

    fn verify(&self, _: Kind, caller: Caller) -> BoxFuture<'_, Result<Admitted, Status>> {
        Box::pin(async move {
            let name = caller.token.expose_text().unwrap().to_owned();
            if name == "nobody" {
                return Err(Status::unauthenticated("nobody"));
            }
            if name.starts_with("slow") {
                std::future::pending::<()>().await;
            }
            Ok(Admitted { caller: Arc::new(caller), who: who(&name) })
        })
    }
}

fn clock() -> Arc<TestClock> {
    Arc::new(TestClock::at(Timestamp::from_secs(1_795_435_200)))
}

fn guard(limits: &Limits) -> Guard {
    Guard::new(Arc::new(TestDoor), limits, Duration::from_secs(60), clock())
}

fn limits() -> Limits {
    Limits {
        callers: 2,
        of_one_cluster: 100,
        of_one_namespace: 100,
        of_one_caller: 2,
        unverified: 100,
        operators: 2,
        of_one_operator: 1,
        open: 1,
        streams: 3,
        streams_of_one_workload: 2,
        rate: (1000, 1000),
    }
}

fn request(path: &str, who: &str) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap();
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    request.headers_mut().insert("authorization", format!("Bearer {who}").parse().unwrap());
    request
}

fn reason(response: &Response<Body>) -> Option<String> {
    let status = Status::from_header_map(response.headers())?;
    Some(status.get_details_error_info().map_or(status.message().to_owned(), |info| info.reason))
}

fn message(response: &Response<Body>) -> String {
    Status::from_header_map(response.headers()).unwrap().message().to_owned()
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    Status::from_header_map(response.headers())?.get_details_retry_info()?.retry_delay
}

async fn quick(guard: &Guard, path: &str, who: &str) -> Response<Body> {
    let service = tower::service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    guard.layer(service).oneshot(request(path, who)).await.unwrap()
}

/// Calls that never end. They hold what they hold until aborted.
async fn stuck(guard: &Guard, path: &'static str, who: &[&'static str]) -> Vec<tokio::task::JoinHandle<()>> {
    let mut calls = Vec::new();
    for who in who {
        let service = tower::service_fn(|_| async {
            std::future::pending::<()>().await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let call = guard.layer(service).oneshot(request(path, who));
        calls.push(tokio::spawn(async move { drop(call.await) }));
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    calls
}

#[test]
fn reads_grpc_timeouts() {
    let asked = |text: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", http::HeaderValue::from_bytes(text).unwrap());
        asked_deadline(&headers)
    };
    assert_eq!(asked(b"5S"), Some(Duration::from_secs(5)));
    assert_eq!(asked(b"250m"), Some(Duration::from_millis(250)));
    for bad in ["", "S", "5", "123456789S", "5x", "-5S", "+5S", "5ä"] {
        assert_eq!(asked(bad.as_bytes()), None, "{bad}");
    }
}

#[tokio::test]
async fn operators_are_not_shed_for_the_others() {
    let guard = guard(&limits());
    let calls = stuck(&guard, ISSUE, &["a", "b"]).await;
    assert_eq!(reason(&quick(&guard, ISSUE, "c").await).unwrap(), "OVERLOADED");
    assert_eq!(reason(&quick(&guard, REVOKE, "oncall").await), None);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn one_caller_does_not_take_every_place() {
    let guard = guard(&limits());
    let calls = stuck(&guard, REVOKE, &["greedy", "greedy", "greedy"]).await;
    assert_eq!(reason(&quick(&guard, REVOKE, "greedy").await).unwrap(), "OVERLOADED");
    assert_eq!(reason(&quick(&guard, REVOKE, "oncall").await), None);
    for call in calls {
        call.abort();
        let _ = call.await;
    }
    assert_eq!(reason(&quick(&guard, REVOKE, "greedy").await), None);
}

#[tokio::test]
async fn who_is_not_verified_takes_no_place() {
    let guard = guard(&limits());
    assert_eq!(reason(&quick(&guard, REVOKE, "nobody").await).unwrap(), "nobody");
    // Callers whose reviews are slow wait in a room of their own: those who are known go past them.
    let arriving = stuck(&guard, ISSUE, &["slow"]).await;
    assert_eq!(reason(&quick(&guard, ISSUE, "a").await), None);
    let also = stuck(&guard, ISSUE, &["slow", "slow"]).await;
    assert_eq!(reason(&quick(&guard, ISSUE, "a").await).unwrap(), "OVERLOADED");
    assert_eq!(reason(&quick(&guard, REVOKE, "oncall").await), None);
    arriving.iter().chain(&also).for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_namespace_and_a_cluster_leave_places_to_the_others() {
    let guard = guard(&Limits { callers: 10, of_one_namespace: 2, of_one_cluster: 3, ..limits() });
    let calls = stuck(&guard, ISSUE, &["loops/a", "loops/b"]).await;
    let loops = quick(&guard, ISSUE, "loops/c").await;
    assert!(message(&loops).contains("of this namespace"), "{}", message(&loops));
    assert_eq!(retry_after(&loops), Some(Duration::from_secs(1)));
    assert_eq!(
        reason(&quick(&guard, "/dayfly.v1.VerifierService/Introspect", "loops/c").await).unwrap(),
        "OVERLOADED"
    );
    assert_eq!(reason(&quick(&guard, ISSUE, "calm/c").await), None);
    assert_eq!(reason(&quick(&guard, ISSUE, "west/loops/a").await), None, "of the same name, elsewhere");
    let more = stuck(&guard, ISSUE, &["calm/a"]).await;
    let calm = quick(&guard, ISSUE, "calm/c").await;
    assert!(message(&calm).contains("of this cluster"), "{}", message(&calm));
    assert_eq!(reason(&quick(&guard, ISSUE, "west/calm/c").await), None);
    assert_eq!(reason(&quick(&guard, REVOKE, "loops/oncall").await), None);
    for call in calls.into_iter().chain(more) {
        call.abort();
        let _ = call.await;
    }
    assert_eq!(reason(&quick(&guard, ISSUE, "loops/c").await), None);
    assert!(guard.places.nobody_counts(), "nothing is remembered of who has gone");
}

#[tokio::test]
async fn a_pod_that_loops_is_told_when_to_come_again_and_its_neighbours_are_served() {
    let clock = clock();
    let limits = Limits { rate: (2, 3), ..limits() };
    let guard = Guard::new(Arc::new(TestDoor), &limits, Duration::from_secs(60), clock.clone());
    for _ in 0..3 {
        assert_eq!(reason(&quick(&guard, ISSUE, "a/loops").await), None);
    }
    let shed = quick(&guard, ISSUE, "a/loops").await;
    assert_eq!(reason(&shed).unwrap(), "OVERLOADED");
    assert_eq!(Status::from_header_map(shed.headers()).unwrap().code(), Code::ResourceExhausted);
    assert!(message(&shed).contains("2 calls a second, 3 at once"), "{}", message(&shed));
    let hint = retry_after(&shed).unwrap();
    assert_eq!(hint, Duration::from_millis(500));
    assert_eq!(reason(&quick(&guard, ISSUE, "a/calm").await), None);
    for _ in 0..10 {
        assert_eq!(reason(&quick(&guard, REVOKE, "a/loops").await), None);
        assert_eq!(reason(&quick(&guard, "/dayfly.v1.VerifierService/Introspect", "a/loops").await), None);
    }
    clock.advance(hint);
    assert_eq!(reason(&quick(&guard, ISSUE, "a/loops").await), None);
    assert_eq!(reason(&quick(&guard, ISSUE, "a/loops").await).unwrap(), "OVERLOADED");
}

#[tokio::test]
async fn the_unverified_share_one_allowance_which_the_known_and_operators_do_not_need() {
    let guard = guard(&Limits { callers: 10, unverified: 2, ..limits() });
    // Calls of one token wait for one review.
    let calls = stuck(&guard, ISSUE, &["slow-1", "slow-1", "slow-1", "slow-2"]).await;
    let shed = quick(&guard, ISSUE, "a/new").await;
    assert_eq!(reason(&shed).unwrap(), "OVERLOADED");
    assert!(message(&shed).contains("being verified"), "{}", message(&shed));
    assert_eq!(reason(&quick(&guard, ISSUE, "known/a").await), None);
    assert_eq!(reason(&quick(&guard, REVOKE, "a/oncall").await), None);
    for call in calls {
        call.abort();
        let _ = call.await;
    }
    assert_eq!(reason(&quick(&guard, ISSUE, "a/new").await), None);
    assert!(guard.places.nobody_counts());
}

#[tokio::test]
async fn a_place_is_held_until_the_answer_is_sent() {
    let guard = guard(&limits());
    let streaming = quick(&guard, "/grpc.health.v1.Health/Watch", "-").await;
    assert_eq!(reason(&quick(&guard, "/grpc.health.v1.Health/Watch", "-").await).unwrap(), "OVERLOADED");
    assert_eq!(quick(&guard, "/livez", "-").await.status(), StatusCode::OK);
    drop(streaming);
    assert_eq!(reason(&quick(&guard, "/grpc.health.v1.Health/Watch", "-").await), None);
}

#[tokio::test]
async fn a_stream_holds_no_place_of_a_call_and_has_bounds_of_its_own() {
    const WATCH: &str = "/dayfly.v1.WorkloadService/WatchMyLeases";
    let guard = guard(&limits());
    let pod = [quick(&guard, WATCH, "a/0").await, quick(&guard, WATCH, "a/0").await];
    assert_eq!(reason(&quick(&guard, WATCH, "a/0").await).unwrap(), "OVERLOADED", "two of one workload");
    let other = quick(&guard, WATCH, "a/1").await;
    assert_eq!(reason(&other), None, "another pod has its own");
    assert_eq!(reason(&quick(&guard, WATCH, "b/0").await).unwrap(), "OVERLOADED", "three in all");
    let calls = [quick(&guard, ISSUE, "a/0").await, quick(&guard, ISSUE, "a/0").await];
    assert!(calls.iter().all(|answer| reason(answer).is_none()), "calls have their places");
    drop(pod);
    assert_eq!(reason(&quick(&guard, WATCH, "b/0").await), None);
}

#[tokio::test]
async fn plain_https_is_told_by_its_status() {
    let guard = guard(&Limits { open: 0, ..limits() });
    let service = tower::service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let mut keys = Request::new(Body::empty());
    *keys.uri_mut() = "/.well-known/jwks.json".parse().unwrap();
    let answer = guard.layer(service).oneshot(keys).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_call_ends_at_the_lesser_deadline() {
    let guard = Guard::new(Arc::new(TestDoor), &limits(), Duration::from_millis(60), clock());
    for (timeout, least, most) in [(Some("20m"), 20, 59), (None, 60, 5000), (Some("60S"), 60, 5000)] {
        let started = tokio::time::Instant::now();
        let never = guard.layer(tower::service_fn(|_| async {
            std::future::pending::<()>().await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }));
        let mut request = request(ISSUE, "a");
        if let Some(timeout) = timeout {
            request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        }
        let late = never.oneshot(request).await.unwrap();
        assert_eq!(reason(&late).unwrap(), "DEADLINE");
        let took = started.elapsed().as_millis();
        assert!((least..most).contains(&took), "{timeout:?} took {took} ms");
    }
}
