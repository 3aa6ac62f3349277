//! The tower layer around every call: who is let in when it is crowded, how long a call may take, and its trace.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use dayfly_api::rejection::Rejection;
use dayfly_api::v1::ErrorReason;
use http::{Request, Response};
use tokio::sync::Semaphore;
use tower::{Layer, Service};
use tracing::Instrument as _;

/// How a crowded broker divides its places. Operators' are kept apart: they are never shed for the others.
#[derive(Clone)]
pub(crate) struct Guard {
    callers: Arc<Semaphore>,
    operators: Arc<Semaphore>,
    longest: Duration,
    request: Arc<AtomicU64>,
}

impl Guard {
    /// So many places for workloads' and verifiers' calls, so many for operators', and the longest a call may take.
    pub(crate) fn new(callers: usize, operators: usize, longest: Duration) -> Self {
        Self {
            callers: Arc::new(Semaphore::new(callers)),
            operators: Arc::new(Semaphore::new(operators)),
            longest,
            request: Arc::new(AtomicU64::new(0)),
        }
    }

    fn places(&self, path: &str) -> &Arc<Semaphore> {
        if path.starts_with("/dayfly.v1.OperatorService/") { &self.operators } else { &self.callers }
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, guard: self.clone() }
    }
}

/// A service behind a [`Guard`].
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let Ok(place) = Arc::clone(self.guard.places(&path)).try_acquire_owned() else {
            let shed =
                Rejection::new(ErrorReason::Overloaded, "the broker sheds load: ask again after the hint")
                    .retry_after(Duration::from_secs(1));
            return Box::pin(async move { Ok(shed.into_status().into_http()) });
        };
        let deadline =
            asked_deadline(&request).map_or(self.guard.longest, |asked| asked.min(self.guard.longest));
        let span =
            tracing::info_span!("call", path, request = self.guard.request.fetch_add(1, Ordering::Relaxed));
        // The service that was polled ready is the one to call; its clone stays for the next request.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        let work = async move {
            let _place = place;
            if let Ok(answer) = tokio::time::timeout(deadline, ready.call(request)).await {
                return answer;
            }
            let late = "the call did not end in its time; whether it took effect is not known";
            Ok(Rejection::new(ErrorReason::Deadline, late).into_status().into_http())
        };
        Box::pin(work.instrument(span))
    }
}

/// `grpc-timeout`, as the gRPC protocol writes it: up to eight digits and a unit.
fn asked_deadline(request: &Request<Body>) -> Option<Duration> {
    let text = request.headers().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;
    use tower::ServiceExt as _;

    use super::*;

    fn request(path: &str, timeout: Option<&str>) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        if let Some(timeout) = timeout {
            request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        }
        request
    }

    fn reason(response: &Response<Body>) -> String {
        let status = tonic::Status::from_header_map(response.headers()).unwrap();
        status.get_details_error_info().unwrap().reason
    }

    #[test]
    fn reads_grpc_timeouts() {
        let asked = |text| asked_deadline(&request("/", Some(text)));
        assert_eq!(asked("5S"), Some(Duration::from_secs(5)));
        assert_eq!(asked("250m"), Some(Duration::from_millis(250)));
        for bad in ["", "S", "5", "123456789S", "5x", "-5S", "5ä"] {
            let mut request = request("/", None);
            if let Ok(value) = http::HeaderValue::from_bytes(bad.as_bytes()) {
                request.headers_mut().insert("grpc-timeout", value);
            }
            assert_eq!(asked_deadline(&request), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn operators_are_not_shed_for_the_others() {
        let guard = Guard::new(1, 1, Duration::from_secs(60));
        let never = guard.layer(tower::service_fn(|_| async {
            std::future::pending::<()>().await;
            Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
        }));
        let busy = tokio::spawn(never.oneshot(request("/dayfly.v1.WorkloadService/Issue", None)));
        let quick = guard.layer(tower::service_fn(|_| async {
            Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
        }));
        while guard.callers.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let shed = quick.clone().oneshot(request("/dayfly.v1.WorkloadService/Issue", None)).await.unwrap();
        assert_eq!(reason(&shed), "OVERLOADED");
        let operator = quick.oneshot(request("/dayfly.v1.OperatorService/Revoke", None)).await.unwrap();
        assert!(operator.headers().get("grpc-status").is_none());
        busy.abort();
    }

    #[tokio::test]
    async fn a_call_ends_at_the_lesser_deadline() {
        let guard = Guard::new(1, 1, Duration::from_millis(60));
        for (timeout, least, most) in [(Some("20m"), 20, 59), (None, 60, 5000), (Some("60S"), 60, 5000)] {
            let started = tokio::time::Instant::now();
            let never = guard.layer(tower::service_fn(|_| async {
                std::future::pending::<()>().await;
                Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
            }));
            let late = never.oneshot(request("/dayfly.v1.WorkloadService/Issue", timeout)).await.unwrap();
            assert_eq!(reason(&late), "DEADLINE");
            let took = started.elapsed().as_millis();
            assert!((least..most).contains(&took), "{timeout:?} took {took} ms");
        }
    }
}
