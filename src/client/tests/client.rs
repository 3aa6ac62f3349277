//! The client against an in-process broker that follows a script.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its fixtures too")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dayfly_api::rejection::Rejection;
use dayfly_api::v1::workload_service_server::{WorkloadService, WorkloadServiceServer};
use dayfly_api::v1::{self, ErrorReason};
use dayfly_client::{Builder, Client, Error};
use dayfly_core::clock::SystemClock;
use dayfly_core::ports::Clock;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

/// What the broker does with the next call.
enum Act {
    Refuse(Status),
    Hang,
    /// Issues a credential of this life.
    Issue(Duration),
}

/// What a call brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Seen {
    authorization: String,
    cluster: String,
    deadline: bool,
    key: String,
    /// The lease that is to be renewed; of an Issue none.
    renews: String,
}

#[derive(Clone, Default)]
struct Broker {
    script: Arc<Mutex<VecDeque<Act>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Broker {
    fn of(acts: impl IntoIterator<Item = Act>) -> Self {
        Self { script: Arc::new(Mutex::new(acts.into_iter().collect())), seen: Arc::default() }
    }

    async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let service = WorkloadServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        addr
    }

    async fn client(&self) -> Client {
        self.builder().await.build().unwrap()
    }

    async fn builder(&self) -> Builder {
        Client::builder(format!("http://{}", self.listen().await)).danger_plaintext()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl WorkloadService for Broker {
    async fn issue(&self, request: Request<v1::IssueRequest>) -> Result<Response<v1::IssueResponse>, Status> {
        let text = |name: &str| request.metadata().get(name).map(|v| v.to_str().unwrap().to_owned());
        let count = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(Seen {
                authorization: text("authorization").unwrap_or_default(),
                cluster: text("dayfly-cluster").unwrap_or_default(),
                deadline: text("grpc-timeout").is_some(),
                key: request.get_ref().idempotency_key.clone(),
                renews: String::new(),
            });
            seen.len()
        };
        let act = self.script.lock().unwrap().pop_front();
        match act {
            Some(Act::Refuse(status)) => Err(status),
            Some(Act::Issue(life)) => Ok(Response::new(issued(count, life))),
            Some(Act::Hang) | None => std::future::pending().await,
        }
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let count = {
            let mut seen = self.seen.lock().unwrap();
            let key = request.get_ref().idempotency_key.clone();
            seen.push(Seen { key, renews: request.get_ref().lease.clone(), ..Seen::default() });
            seen.len()
        };
        let act = self.script.lock().unwrap().pop_front();
        match act {
            Some(Act::Refuse(status)) => Err(status),
            Some(Act::Issue(life)) => {
                let v1::IssueResponse { credential, lease, renew_after } = issued(count, life);
                Ok(Response::new(v1::RenewResponse { credential, lease, renew_after, earlier: None }))
            }
            Some(Act::Hang) | None => std::future::pending().await,
        }
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let lease = v1::Lease { id: request.into_inner().lease, ..Default::default() };
        Ok(Response::new(v1::ReleaseResponse { lease: Some(lease) }))
    }

    async fn explain(
        &self,
        _: Request<v1::WorkloadServiceExplainRequest>,
    ) -> Result<Response<v1::WorkloadServiceExplainResponse>, Status> {
        Err(Status::unimplemented("the client does not call it"))
    }

    type WatchMyLeasesStream = tonic::codegen::BoxStream<v1::WatchMyLeasesResponse>;

    /// Each act but a refusal to begin is one message: a refusal cuts the stream.
    async fn watch_my_leases(
        &self,
        _: Request<v1::WatchMyLeasesRequest>,
    ) -> Result<Response<Self::WatchMyLeasesStream>, Status> {
        let script = Arc::clone(&self.script);
        let count = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(Seen::default());
            seen.len() as u64
        };
        let messages = futures_util::stream::unfold(script, move |script| async move {
            let act = script.lock().unwrap().pop_front();
            let message = match act {
                Some(Act::Refuse(status)) => Err(status),
                Some(Act::Issue(_)) => {
                    Ok(v1::WatchMyLeasesResponse { position: count, ..Default::default() })
                }
                Some(Act::Hang) | None => std::future::pending().await,
            };
            Some((message, script))
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn who_am_i(&self, _: Request<v1::WhoAmIRequest>) -> Result<Response<v1::WhoAmIResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }
}

fn issued(count: usize, life: Duration) -> v1::IssueResponse {
    let now = SystemClock::new().now();
    let time = |millis: u64| prost_types::Timestamp {
        seconds: i64::try_from(millis / 1000).unwrap(),
        nanos: i32::try_from(millis % 1000).unwrap() * 1_000_000,
    };
    v1::IssueResponse {
        credential: format!("credential-{count}"),
        lease: Some(v1::Lease {
            id: format!("lease-{count}"),
            issued_at: Some(time(now.as_millis())),
            expires_at: Some(time(now.plus(life).as_millis())),
            ..Default::default()
        }),
        renew_after: None,
    }
}

fn refusal(reason: ErrorReason) -> Rejection {
    Rejection::new(reason, "try it differently").with("field", "target")
}

fn request() -> v1::IssueRequest {
    v1::IssueRequest { target: "orders".to_owned(), ..Default::default() }
}

const MINUTE: Duration = Duration::from_secs(60);

async fn failure(client: &Client) -> Error {
    client.issue(request()).await.err().unwrap()
}

#[tokio::test]
async fn asks_again_with_the_same_key_where_that_can_help() {
    let outrun = refusal(ErrorReason::DecisionOutrun).into_status();
    let overloaded = refusal(ErrorReason::Overloaded).into_status();
    let starting = refusal(ErrorReason::NotReady).into_status();
    let broker = Broker::of([
        Act::Refuse(outrun),
        Act::Refuse(overloaded),
        Act::Refuse(starting),
        Act::Issue(MINUTE),
        Act::Issue(MINUTE),
    ]);
    let client = broker.client().await;
    let credential = client.issue(request()).await.ok().unwrap();
    assert_eq!(credential.secret.expose(), b"credential-4");
    assert_eq!(credential.life, MINUTE);
    assert_eq!(credential.renew_after, Duration::from_secs(42));
    client.issue(request()).await.ok().unwrap();
    let keys: Vec<_> = broker.seen().into_iter().map(|seen| seen.key).collect();
    assert!(
        keys[0].len() == 32 && keys[..4].iter().all(|key| *key == keys[0]) && keys[4] != keys[0],
        "{keys:?}"
    );
}

#[tokio::test]
async fn gives_up_after_its_attempts() {
    let broker = Broker::of((0..9).map(|_| Act::Refuse(refusal(ErrorReason::NotReady).into_status())));
    let client = broker.builder().await.attempts(3).build().unwrap();
    assert_eq!(failure(&client).await.reason(), Some("NOT_READY"));
    assert_eq!(broker.seen().len(), 3);
}

#[tokio::test]
async fn tells_why_it_was_denied_and_does_not_ask_again() {
    let broker = Broker::of([Act::Refuse(refusal(ErrorReason::GrantMissing).into_status())]);
    let error = failure(&broker.client().await).await;
    assert_eq!((error.reason(), error.code()), (Some("GRANT_MISSING"), Some(Code::PermissionDenied)));
    assert_eq!(error.to_string(), "try it differently");
    assert_eq!(error.metadata()["field"], "target");
    assert_eq!(broker.seen().len(), 1);
}

#[tokio::test]
async fn waits_for_the_brokers_hint() {
    let hint = Duration::from_millis(700);
    let overloaded = refusal(ErrorReason::Overloaded).retry_after(hint).into_status();
    let broker = Broker::of([Act::Refuse(overloaded), Act::Issue(MINUTE)]);
    let client = broker.client().await;
    let began = tokio::time::Instant::now();
    client.issue(request()).await.ok().unwrap();
    assert!(began.elapsed() >= hint, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_hint_past_the_deadline_is_not_waited_for() {
    let full = refusal(ErrorReason::StoreFull).retry_after(MINUTE).into_status();
    let broker = Broker::of([Act::Refuse(full)]);
    let began = tokio::time::Instant::now();
    assert_eq!(failure(&broker.client().await).await.reason(), Some("STORE_FULL"));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let broker = Broker::of([Act::Refuse(refusal(ErrorReason::NotReady).into_status()), Act::Hang]);
    let client = broker.builder().await.call_timeout(Duration::from_millis(600)).build().unwrap();
    let error = failure(&client).await;
    assert!(matches!(error, Error::Deadline { last: Some(_), .. }), "{error:?}");
    assert_eq!(error.to_string(), "the call did not end within 600ms; the last try: try it differently");
    assert!(broker.seen().iter().all(|seen| seen.deadline));
}

#[tokio::test]
async fn an_unreachable_broker_is_told_from_one_that_refuses() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::builder(format!("http://{free}")).danger_plaintext().attempts(2).build().unwrap();
    let error = failure(&client).await;
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
    assert_eq!((error.code(), error.reason()), (Some(Code::Unavailable), None));
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn sends_the_token_that_is_in_the_file_now() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "first\n").unwrap();
    let broker = Broker::of([Act::Issue(MINUTE), Act::Issue(MINUTE), Act::Issue(MINUTE)]);
    let client = broker.builder().await.token_file(&path).cluster("east").build().unwrap();
    client.issue(request()).await.ok().unwrap();
    client.issue(request()).await.ok().unwrap();
    std::fs::write(folder.path().join("next"), "second").unwrap();
    std::fs::rename(folder.path().join("next"), &path).unwrap();
    client.issue(request()).await.ok().unwrap();
    let sent: Vec<_> = broker.seen().into_iter().map(|seen| (seen.authorization, seen.cluster)).collect();
    let east = |token: &str| (format!("Bearer {token}"), "east".to_owned());
    assert_eq!(sent, [east("first"), east("first"), east("second")]);

    std::fs::remove_file(&path).unwrap();
    let error = failure(&client).await;
    assert!(matches!(error, Error::Token(_)), "{error:?}");
    assert_eq!(broker.seen().len(), 3);
}

#[tokio::test]
async fn a_credential_is_replaced_before_it_ends() {
    let second = Duration::from_secs(1);
    let broker = Broker::of([
        Act::Issue(2 * second),
        Act::Refuse(refusal(ErrorReason::GrantMissing).into_status()),
        Act::Issue(MINUTE),
    ]);
    let fresh = broker.client().await.keep_fresh(request()).await.unwrap();
    let mut states = fresh.watch();
    assert_eq!(fresh.current().ok().unwrap().secret.expose(), b"credential-1");
    states.changed().await.unwrap();
    let failed = states.borrow_and_update().clone();
    assert_eq!((failed.serial, failed.error.unwrap().reason()), (1, Some("GRANT_MISSING")));
    states.changed().await.unwrap();
    let good = states.borrow_and_update().clone();
    assert!(good.serial == 2 && good.error.is_none());
    assert_eq!(fresh.current().ok().unwrap().secret.expose(), b"credential-3");
    let keys: Vec<_> = broker.seen().into_iter().map(|seen| seen.key).collect();
    assert!(keys[0] != keys[1] && keys[1] != keys[2], "{keys:?}");
}

#[tokio::test]
async fn a_kept_credential_is_renewed_and_issued_anew_where_the_broker_says_so() {
    let second = Duration::from_secs(1);
    let ended = refusal(ErrorReason::LeaseEnded).into_status();
    let broker =
        Broker::of([Act::Issue(2 * second), Act::Issue(2 * second), Act::Refuse(ended), Act::Issue(MINUTE)]);
    let fresh = broker.client().await.keep_fresh(request()).await.unwrap();
    let mut states = fresh.watch();
    for _ in 0..2 {
        states.changed().await.unwrap();
        assert!(states.borrow_and_update().error.is_none());
    }
    assert_eq!(fresh.current().ok().unwrap().secret.expose(), b"credential-4");
    let renews: Vec<_> = broker.seen().into_iter().map(|seen| seen.renews).collect();
    assert_eq!(renews, ["", "lease-1", "lease-2", ""]);
}

#[tokio::test]
async fn a_watch_that_is_cut_calls_again() {
    let slow = refusal(ErrorReason::ReaderSlow).retry_after(Duration::ZERO).into_status();
    let gone = refusal(ErrorReason::PodGone).into_status();
    let broker = Broker::of([
        Act::Issue(MINUTE),
        Act::Refuse(slow),
        Act::Issue(MINUTE),
        Act::Refuse(gone),
        Act::Issue(MINUTE),
    ]);
    let mut watch = broker.client().await.watch_my_leases().await.unwrap();
    assert_eq!(watch.next().await.unwrap().position, 1);
    assert_eq!(watch.next().await.unwrap().position, 2, "of the second stream");
    assert_eq!(watch.next().await.unwrap_err().reason(), Some("POD_GONE"));
    assert_eq!(watch.next().await.unwrap().position, 3, "whoever asks again is answered again");
}

#[tokio::test]
async fn an_expired_credential_is_never_handed_out() {
    let denials = (0..20).map(|_| Act::Refuse(refusal(ErrorReason::Held).into_status()));
    let broker = Broker::of(std::iter::once(Act::Issue(Duration::from_secs(2))).chain(denials));
    let fresh = broker.client().await.keep_fresh(request()).await.unwrap();
    fresh.current().ok().unwrap();
    let mut states = fresh.watch();
    let error = loop {
        if let Err(error) = fresh.current() {
            break error;
        }
        // Looks at each change; time passes between them.
        let _ = tokio::time::timeout(Duration::from_millis(100), states.changed()).await;
    };
    assert!(matches!(error, Error::Stale(_)), "{error:?}");
    while fresh.current().err().and_then(|error| error.reason().map(str::to_owned)).as_deref() != Some("HELD")
    {
        states.changed().await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_handle_asks_no_more() {
    let broker = Broker::of((0..9).map(|_| Act::Issue(Duration::from_secs(2))));
    let fresh = broker.client().await.keep_fresh(request()).await.unwrap();
    let mut states = fresh.watch();
    states.changed().await.unwrap();
    drop(fresh);
    // The sender goes with the task.
    while states.changed().await.is_ok() {}
    let asked = broker.seen().len();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(broker.seen().len(), asked);
}
