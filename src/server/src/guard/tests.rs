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
    guard_by(limits, clock())
}

fn guard_by(limits: &Limits, clock: Arc<TestClock>) -> Guard {
    Guard::new(Arc::new(TestDoor), limits, Duration::from_secs(60), clock, watch::channel(false).1)
}

/// So many places for so many of each user, and no other share.
fn room(places: usize, of_one_user: usize) -> Room {
    Room { places, of_one_cluster: 100, of_one_namespace: 100, of_one_user, of_one_pod: 100 }
}

fn limits() -> Limits {
    const OFTEN: Rate = Rate { per_second: 1000, burst: 1000 };
    Limits {
        callers: room(2, 2),
        operators: room(2, 1),
        ending: room(0, 0),
        unverified: 100,
        unverified_operators: 100,
        open: 1,
        open_streams: 1,
        streams: 3,
        streams_of_one_workload: 2,
        verifier_streams: 3,
        streams_of_one_verifier: 2,
        operator_streams: 3,
        streams_of_one_operator: 2,
        rate: OFTEN,
        operator_rate: OFTEN,
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
    let callers = Room { of_one_namespace: 2, of_one_cluster: 3, ..room(10, 2) };
    let guard = guard(&Limits { callers, ..limits() });
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
    let guard = guard_by(&Limits { rate: Rate { per_second: 2, burst: 3 }, ..limits() }, Arc::clone(&clock));
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
    let guard = guard(&Limits { callers: room(10, 2), unverified: 2, ..limits() });
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
async fn keys_are_served_while_every_health_watch_is_taken() {
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let guard = guard(&limits());
    let _watch = quick(&guard, "/grpc.health.v1.Health/Watch", "-").await;
    let shed = quick(&guard, REFLECTION, "-").await;
    assert_eq!(reason(&shed).unwrap(), "OVERLOADED");
    assert_eq!(retry_after(&shed), Some(Duration::from_secs(5)));
    for path in ["/dayfly.v1.VerifierService/GetKeys", "/.well-known/jwks.json", "/spiffe/a/bundle.json"] {
        assert_eq!(reason(&quick(&guard, path, "-").await), None, "{path}");
    }
    assert_eq!(reason(&quick(&guard, "/grpc.health.v1.Health/Check", "-").await), None, "for probes");
}

const LIST: &str = "/dayfly.v1.OperatorService/ListLeases";
const PROGRESS: &str = "/dayfly.v1.OperatorService/GetRevocation";

#[tokio::test]
async fn no_namespace_or_cluster_keeps_others_operators_from_revoking() {
    let operators = Room { of_one_namespace: 2, of_one_cluster: 3, ..room(4, 1) };
    let guard = guard(&Limits { operators, ..limits() });
    let loops = stuck(&guard, REVOKE, &["loops/a", "loops/b", "loops/c"]).await;
    let shed = quick(&guard, REVOKE, "loops/d").await;
    assert!(message(&shed).contains("of this namespace"), "{}", message(&shed));
    assert_eq!(retry_after(&shed), Some(Duration::from_secs(1)));
    assert_eq!(reason(&quick(&guard, REVOKE, "ops/oncall").await), None);
    let others = stuck(&guard, REVOKE, &["other/x"]).await;
    let shed = quick(&guard, REVOKE, "ops/oncall").await;
    assert!(message(&shed).contains("of this cluster"), "{}", message(&shed));
    assert_eq!(reason(&quick(&guard, REVOKE, "west/ops/oncall").await), None);
    assert_eq!(
        reason(&quick(&guard, REVOKE, "ada").await),
        None,
        "a person is no part of her cluster's share"
    );
    for call in loops.into_iter().chain(others) {
        call.abort();
        let _ = call.await;
    }
    assert!(guard.places.nobody_counts());
}

#[tokio::test]
async fn what_is_read_never_crowds_out_what_ends_something() {
    let ending = Room { of_one_namespace: 1, ..room(2, 1) };
    let guard = guard(&Limits { operators: room(3, 100), ending, ..limits() });
    let reads = stuck(&guard, LIST, &["a/0", "b/0", "c/0"]).await;
    assert_eq!(reason(&quick(&guard, LIST, "ops/oncall").await).unwrap(), "OVERLOADED");
    for path in [REVOKE, PROGRESS] {
        assert_eq!(reason(&quick(&guard, path, "ops/oncall").await), None, "{path}");
    }
    // Nor does one namespace that calls what ends something.
    let ends = stuck(&guard, REVOKE, &["a/0", "a/1", "a/2"]).await;
    assert_eq!(reason(&quick(&guard, REVOKE, "a/3").await).unwrap(), "OVERLOADED");
    assert_eq!(reason(&quick(&guard, REVOKE, "ops/oncall").await), None);
    reads.iter().chain(&ends).for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_operator_that_loops_has_a_rate_and_may_still_end_something() {
    let clock = clock();
    let operator_rate = Rate { per_second: 2, burst: 3 };
    let guard = guard_by(&Limits { operator_rate, ..limits() }, Arc::clone(&clock));
    for _ in 0..3 {
        assert_eq!(reason(&quick(&guard, LIST, "a/loops").await), None);
    }
    let shed = quick(&guard, LIST, "a/loops").await;
    assert_eq!(reason(&shed).unwrap(), "OVERLOADED");
    assert_eq!(retry_after(&shed), Some(Duration::from_millis(500)));
    assert_eq!(reason(&quick(&guard, REVOKE, "a/loops").await), None);
    assert_eq!(reason(&quick(&guard, LIST, "a/calm").await), None);
    clock.advance(Duration::from_millis(500));
    assert_eq!(reason(&quick(&guard, LIST, "a/loops").await), None);
}

#[tokio::test]
async fn unverified_operators_share_one_allowance_and_calls_of_one_token_another() {
    let guard = guard(&Limits { operators: room(10, 2), unverified_operators: 2, ..limits() });
    let same = stuck(&guard, REVOKE, &["slow-1", "slow-1"]).await;
    let shed = quick(&guard, REVOKE, "slow-1").await;
    assert!(message(&shed).contains("of this caller"), "{}", message(&shed));
    assert_eq!(reason(&quick(&guard, REVOKE, "ops/oncall").await), None);
    let other = stuck(&guard, REVOKE, &["slow-2"]).await;
    let shed = quick(&guard, REVOKE, "ops/oncall").await;
    assert!(message(&shed).contains("being verified"), "{}", message(&shed));
    assert_eq!(retry_after(&shed), Some(Duration::from_secs(1)));
    assert_eq!(reason(&quick(&guard, REVOKE, "known/oncall").await), None);
    assert_eq!(reason(&quick(&guard, ISSUE, "a/0").await), None, "workloads have their own");
    same.iter().chain(&other).for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_pod_leaves_places_to_the_others_of_its_service_account() {
    let callers = Room { of_one_pod: 2, ..room(10, 4) };
    let guard = guard(&Limits { callers, ..limits() });
    let pod = |number: u128| Who {
        cluster: "east".parse().unwrap(),
        user: "system:serviceaccount:a:api".to_owned(),
        namespace: Some("a".parse().unwrap()),
        pod: Some(Uid::from_u128(number)),
    };
    let take = |number: u128| guard.places.take(Kind::Workload, &pod(number));
    let held = [take(1).unwrap(), take(1).unwrap()];
    assert_eq!(take(1).err(), Some(Full::Pod));
    let neighbour = [take(2).unwrap(), take(2).unwrap()];
    assert_eq!(take(3).err(), Some(Full::Caller));
    drop((held, neighbour));
    assert!(guard.places.nobody_counts());
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
async fn verifiers_have_streams_of_their_own() {
    const WATCH: &str = "/dayfly.v1.VerifierService/WatchRevocations";
    let guard = guard(&Limits { streams: 0, ..limits() });
    let pod = [quick(&guard, WATCH, "a/0").await, quick(&guard, WATCH, "a/0").await];
    assert!(pod.iter().all(|answer| reason(answer).is_none()), "workloads' streams leave them theirs");
    assert_eq!(reason(&quick(&guard, WATCH, "a/0").await).unwrap(), "OVERLOADED", "two of one verifier");
    let other = quick(&guard, WATCH, "a/1").await;
    assert_eq!(reason(&other), None);
    assert_eq!(reason(&quick(&guard, WATCH, "b/0").await).unwrap(), "OVERLOADED", "three in all");
    drop(pod);
    assert_eq!(reason(&quick(&guard, WATCH, "b/0").await), None);
}

#[tokio::test]
async fn operators_have_streams_of_their_own() {
    const WATCH: &str = "/dayfly.v1.OperatorService/WatchEvents";
    const EXPORT: &str = "/dayfly.v1.OperatorService/ExportEvents";
    let guard = guard(&Limits { streams: 0, verifier_streams: 0, operators: room(1, 1), ..limits() });
    let own = [quick(&guard, WATCH, "a/0").await, quick(&guard, EXPORT, "a/0").await];
    assert!(own.iter().all(|answer| reason(answer).is_none()), "others' streams leave them theirs");
    assert_eq!(reason(&quick(&guard, WATCH, "a/0").await).unwrap(), "OVERLOADED", "two of one operator");
    assert_eq!(
        reason(&quick(&guard, "/dayfly.v1.OperatorService/Revoke", "a/0").await),
        None,
        "a call has its place"
    );
    drop(own);
    assert_eq!(reason(&quick(&guard, WATCH, "a/0").await), None);
}

#[tokio::test]
async fn plain_https_is_told_by_its_status() {
    let guard = guard(&Limits { open: 0, ..limits() });
    let service = tower::service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let mut keys = Request::new(Body::empty());
    *keys.uri_mut() = "/.well-known/jwks.json".parse().unwrap();
    let answer = guard.layer(service).oneshot(keys).await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn a_call_ends_at_the_lesser_deadline() {
    let stopped = watch::channel(false).1;
    let guard = Guard::new(Arc::new(TestDoor), &limits(), Duration::from_millis(60), clock(), stopped);
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
