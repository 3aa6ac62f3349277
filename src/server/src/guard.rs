//! The tower layer around every call: who calls is verified first, by its headers alone; then it takes a place, and has
//! so long. Nobody holds a place by sending a request slowly before it is known who that is.

mod held;
mod places;
mod rates;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use dayfly_api::rejection::Rejection;
use dayfly_api::v1::ErrorReason;
use dayfly_broker::Caller as Kind;
use dayfly_core::limits;
use dayfly_core::ports::{BoxFuture, Clock};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::sync::watch;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;

use held::{Held, Sending};
use places::{Full, Places, Workload};
pub(crate) use places::{Limits, Room, Who};
pub(crate) use rates::{Rate, Rates};

use crate::oauth;
use crate::services::Caller;

/// How long a refused request is read on.
const DRAIN: Duration = Duration::from_millis(200);

/// Verifies who calls.
pub(crate) trait Door: Send + Sync + 'static {
    /// What is known without asking anyone of the caller that these headers name; of this kind, or refused.
    fn known(&self, kind: Kind, headers: &HeaderMap) -> Result<Arriving, Status>;
    /// Verifies the caller to be of this kind.
    fn verify(&self, kind: Kind, caller: Caller) -> BoxFuture<'_, Result<Admitted, Status>>;
}

/// A caller at the door.
pub(crate) enum Arriving {
    /// Verified a short while ago.
    Known(Admitted),
    /// Whose cluster has to be asked.
    Unknown(Caller),
}

/// A verified caller.
pub(crate) struct Admitted {
    /// What goes with its request.
    pub(crate) caller: Arc<Caller>,
    /// What its calls are counted by.
    pub(crate) who: Who,
}

/// What is asked for, by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// For probes: always answered.
    Probe,
    /// For anyone: keys, the audit log's hashes, and that there is no such thing.
    Open,
    /// The same, with an answer that goes on, and may for ever: health watches, reflection. It holds no place that keys
    /// need.
    OpenStream,
    /// For verified callers of one kind.
    Of(Kind),
    /// For operators who end something, or ask how far that is.
    Ending,
    /// For verified callers of one kind, with an answer that goes on: it holds no place that calls need.
    Stream(Kind),
}

impl Asked {
    fn by(path: &str) -> Self {
        let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        match (service, path) {
            (_, "/livez" | "/readyz" | "/grpc.health.v1.Health/Check") => Self::Probe,
            (_, "/dayfly.v1.VerifierService/GetKeys") => Self::Open,
            (_, oauth::INTROSPECT) => Self::Of(Kind::Verifier),
            (_, "/dayfly.v1.WorkloadService/WatchMyLeases") => Self::Stream(Kind::Workload),
            (_, "/dayfly.v1.VerifierService/WatchRevocations") => Self::Stream(Kind::Verifier),
            (
                _,
                "/dayfly.v1.OperatorService/WatchEvents"
                | "/dayfly.v1.OperatorService/ExportEvents"
                | "/dayfly.v1.OperatorService/CreateBackup",
            ) => Self::Stream(Kind::Operator),
            (
                _,
                "/dayfly.v1.OperatorService/Revoke"
                | "/dayfly.v1.OperatorService/RevokeKey"
                | "/dayfly.v1.OperatorService/LiftRevocation"
                | "/dayfly.v1.OperatorService/GetRevocation",
            ) => Self::Ending,
            ("dayfly.v1.WorkloadService", _) => Self::Of(Kind::Workload),
            ("dayfly.v1.VerifierService", _) => Self::Of(Kind::Verifier),
            ("dayfly.v1.OperatorService", _) => Self::Of(Kind::Operator),
            ("grpc.health.v1.Health" | "grpc.reflection.v1.ServerReflection", _) => Self::OpenStream,
            _ => Self::Open,
        }
    }
}

/// Whether what an operator asks for ends something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ends(bool);

/// The layer.
#[derive(Clone)]
pub(crate) struct Guard {
    door: Arc<dyn Door>,
    places: Arc<Places>,
    rates: Arc<Rates<Workload>>,
    operator_rates: Arc<Rates<(Ends, Workload)>>,
    clock: Arc<dyn Clock>,
    longest: Duration,
    stopped: watch::Receiver<bool>,
    request: Arc<AtomicU64>,
}

impl Guard {
    /// A guard that lets verified callers in, as many as there are places; no call takes longer than `longest`, and what
    /// anyone watches ends when `stopped` says so.
    pub(crate) fn new(
        door: Arc<dyn Door>,
        limits: &Limits,
        longest: Duration,
        clock: Arc<dyn Clock>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self {
            door,
            places: Arc::new(Places::new(limits)),
            rates: Arc::new(Rates::new(limits.rate)),
            operator_rates: Arc::new(Rates::new(limits.operator_rate)),
            clock,
            longest,
            stopped,
            request: Arc::default(),
        }
    }

    /// The caller's place, where one is needed; its verified identity goes with the request.
    async fn admit(&self, asked: Asked, request: &mut Request<Body>) -> Result<Option<Held>, Status> {
        let kind = match asked {
            Asked::Probe => return Ok(None),
            Asked::Open => return self.places.open().map(Some).map_err(shed),
            Asked::OpenStream => return self.places.open_stream().map(Some).map_err(shed),
            Asked::Of(kind) | Asked::Stream(kind) => kind,
            Asked::Ending => Kind::Operator,
        };
        let Admitted { caller, who } = match self.door.known(kind, request.headers())? {
            Arriving::Known(admitted) => admitted,
            Arriving::Unknown(caller) => {
                let _arrival = self.places.arrive(kind, caller.token_digest()).map_err(shed)?;
                self.door.verify(kind, caller).await?
            }
        };
        let now = self.clock.monotonic();
        match kind {
            Kind::Workload => {
                self.rates.take(who.workload(), now).map_err(|w| too_often(self.rates.rate(), w))
            }
            // What is read does not use up the rate of what ends something.
            Kind::Operator => {
                let taken = self.operator_rates.take((Ends(asked == Asked::Ending), who.workload()), now);
                taken.map_err(|wait| too_often(self.operator_rates.rate(), wait))
            }
            // It calls for each of its own callers.
            Kind::Verifier => Ok(()),
        }?;
        let held = match asked {
            Asked::Stream(kind) => self.places.stream(kind, &who),
            Asked::Ending => self.places.take_to_end(&who),
            _ => self.places.take(kind, &who),
        };
        let held = held.map_err(shed)?;
        request.extensions_mut().insert(caller);
        Ok(Some(held))
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let asked = Asked::by(request.uri().path());
        let grpc = is_grpc(request.headers());
        let longest = self.guard.longest;
        let deadline = asked_deadline(request.headers()).map_or(longest, |asked| asked.min(longest));
        let number = self.guard.request.fetch_add(1, Ordering::Relaxed);
        let span = tracing::info_span!("call", path = request.uri().path(), request = number);
        // The service that was polled ready is the one to call; its clone stays for the next request.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        let guard = self.guard.clone();
        let work = async move {
            let held = match guard.admit(asked, &mut request).await {
                Ok(held) => held,
                Err(refused) => {
                    drain(request.into_body()).await;
                    return Ok(refusal(refused, grpc));
                }
            };
            let answer = with_reason(ready.call(request).await?, grpc);
            let Some(held) = held else { return Ok(answer) };
            // The place is given back when the answer has been sent, not when it begins; or when nobody takes it.
            let stopped = (asked == Asked::OpenStream).then(|| guard.stopped.clone());
            let sending = Sending { grpc, patience: limits::SLOW_READER, stopped };
            Ok(answer.map(|body| held.until_sent(body, sending)))
        };
        let bounded = async move {
            match tokio::time::timeout(deadline, work).await {
                Ok(answer) => answer,
                Err(_elapsed) => {
                    let late = "the call did not end in its time; whether it took effect is not known";
                    Ok(refusal(Rejection::new(ErrorReason::Deadline, late).into_status(), grpc))
                }
            }
        };
        Box::pin(bounded.instrument(span))
    }
}

fn too_often(Rate { per_second, burst }: Rate, wait: Duration) -> Status {
    let message = format!(
        "this caller calls too often: {per_second} calls a second, {burst} at once; ask again after the hint"
    );
    Rejection::new(ErrorReason::Overloaded, message).retry_after(wait).into_status()
}

fn shed(full: Full) -> Status {
    let secs = if matches!(full, Full::Streams | Full::OpenStreams) { 5 } else { 1 };
    let message = match full {
        Full::Broker => "the broker sheds load: ask again after the hint",
        Full::Unverified => "too many callers are being verified: ask again after the hint",
        Full::Cluster => "too many calls of this cluster are under way: ask again after the hint",
        Full::Namespace => "too many calls of this namespace are under way: ask again after the hint",
        Full::Caller => "too many calls of this caller are under way: ask again after the hint",
        Full::Pod => "too many calls of this pod are under way: ask again after the hint",
        Full::OpenStreams => "too many watch its health: end a watch, or call again after the hint",
        Full::Streams => {
            "there are too many streams open, of this caller or of all: end one, or call again after the hint"
        }
    };
    Rejection::new(ErrorReason::Overloaded, message).retry_after(Duration::from_secs(secs)).into_status()
}

/// A refusal as the caller understands it: a gRPC status, or for plain HTTPS a 503.
fn refusal(status: Status, grpc: bool) -> Response<Body> {
    if grpc {
        return status.into_http();
    }
    oauth::refused(&status)
}

/// Reads what the caller has already sent, so that its transport reads our answer rather than a reset.
async fn drain(body: Body) {
    let read = axum::body::to_bytes(body, limits::MESSAGE_BYTES);
    // Neither its end nor its failure matters.
    let _ = tokio::time::timeout(DRAIN, read).await;
}

/// What is refused before any code of ours (no such method, no message of its kind, too large) gets a reason too.
fn with_reason(answer: Response<Body>, grpc: bool) -> Response<Body> {
    let Some(status) = Status::from_header_map(answer.headers()) else { return answer };
    if status.code() == Code::Ok || !status.details().is_empty() {
        return answer;
    }
    if !grpc {
        let mut answer = Response::new(Body::from("there is nothing here\n"));
        *answer.status_mut() = StatusCode::NOT_FOUND;
        return answer;
    }
    match status.code() {
        Code::Unimplemented => {
            let message = "this broker has no such method, or not the compression that the request uses";
            Rejection::new(ErrorReason::MethodUnknown, message).into_status().into_http()
        }
        // Of health and reflection.
        Code::NotFound => answer,
        _ => {
            let message = format!(
                "the request is no message of this method, or is larger than {} bytes",
                limits::MESSAGE_BYTES
            );
            Rejection::new(ErrorReason::RequestMalformed, message).into_status().into_http()
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content.is_some_and(|content| content.starts_with("application/grpc"))
}

/// `grpc-timeout`, as the gRPC protocol writes it: up to eight digits and a unit.
fn asked_deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
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
mod tests;
