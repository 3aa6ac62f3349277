use std::convert::Infallible;

use tonic_types::StatusExt as _;
use tower::ServiceExt as _;

use super::*;

const ISSUE: &str = "/dayfly.v1.WorkloadService/Issue";
const REVOKE: &str = "/dayfly.v1.OperatorService/Revoke";

/// Takes everyone for whom `authorization` says; `nobody` is refused, `slow` waits for ever.
struct TestDoor;

impl Door for TestDoor {
    fn admit(&self, _: Kind, headers: HeaderMap) -> BoxFuture<'_, Result<(Arc<Caller>, Who), Status>> {
        Box::pin(async move {
            let caller = Caller::of(&headers).map_err(Rejection::into_status)?;
            let who = caller.token.expose_text().unwrap().to_owned();
            match who.as_str() {
                "nobody" => return Err(Status::unauthenticated("nobody")),
                "slow" => std::future::pending().await,
                _ => {}
            }
            // `USER/POD`, as a workload is told from another of its user.
            let user = who.split('/').next().unwrap_or_default().to_owned();
            Ok((Arc::new(caller), Who { user, workload: who }))
        })
    }
}

fn guard(limits: &Limits) -> Guard {
    Guard::new(Arc::new(TestDoor), limits, Duration::from_secs(60))
}

fn limits() -> Limits {
    Limits {
        callers: 2,
        operators: 2,
        of_one_caller: 2,
        of_one_operator: 1,
        open: 1,
        streams: 3,
        streams_of_one_workload: 2,
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
    let guard = Guard::new(Arc::new(TestDoor), &limits(), Duration::from_millis(60));
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
