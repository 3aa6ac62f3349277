//! A verifier beside a broker that follows a script. Tokens and keys are those of vectors/make.py.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its fixtures too")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dayfly_api::rejection::Rejection;
use dayfly_api::v1::verifier_service_server::{VerifierService, VerifierServiceServer};
use dayfly_api::v1::{self, ErrorReason};
use dayfly_core::ports::{BoxFuture, TestClock};
use dayfly_core::secret::Secret;
use dayfly_core::time::Timestamp;
use dayfly_verify::client::{Client, TokenError, TokenSource};
use dayfly_verify::{Builder, Profile, Proof, Refused, Verifier};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status};

type Message = v1::WatchRevocationsResponse;
type News = UnboundedReceiverStream<Result<Message, Status>>;

/// The `jti` of the good tokens.
const LEASE: &str = "01a207bf-a800-7000-8000-000000000001";
/// One right below it.
const BELOW: &str = "01a207bf-a800-7000-8000-000000000000";
const PATIENCE: Duration = Duration::from_secs(10);

struct Script {
    keys: Mutex<v1::GetKeysResponse>,
    asked_for_keys: AtomicU32,
    calls: mpsc::UnboundedSender<Call>,
}

/// A call of WatchRevocations that waits to be answered.
struct Call {
    resume: String,
    authorization: String,
    answer: oneshot::Sender<Result<News, Status>>,
}

impl Call {
    fn accept(self) -> Stream {
        let (sender, messages) = mpsc::unbounded_channel();
        assert!(self.answer.send(Ok(messages.into())).is_ok());
        Stream(sender)
    }

    fn refuse(self, status: Status) {
        assert!(self.answer.send(Err(status)).is_ok());
    }
}

struct Stream(mpsc::UnboundedSender<Result<Message, Status>>);

impl Stream {
    fn tell(&self, message: Message) {
        self.0.send(Ok(message)).unwrap();
    }
}

struct Scripted(Arc<Script>);

#[tonic::async_trait]
impl VerifierService for Scripted {
    type WatchRevocationsStream = News;

    async fn introspect(
        &self,
        _: Request<v1::IntrospectRequest>,
    ) -> Result<Response<v1::IntrospectResponse>, Status> {
        Err(Status::unimplemented("a verifier works offline"))
    }

    async fn watch_revocations(
        &self,
        request: Request<v1::WatchRevocationsRequest>,
    ) -> Result<Response<News>, Status> {
        assert!(request.metadata().get("grpc-timeout").is_none(), "it would be the whole stream's");
        let authorization = request.metadata().get("authorization").map(|it| it.to_str().unwrap().to_owned());
        let (answer, answered) = oneshot::channel();
        let resume = request.into_inner().resume;
        let call = Call { resume, authorization: authorization.unwrap_or_default(), answer };
        self.0.calls.send(call).map_err(|_| Status::unavailable("the test is over"))?;
        answered.await.map_err(|_| Status::unavailable("the test is over"))?.map(Response::new)
    }

    async fn get_keys(
        &self,
        _: Request<v1::GetKeysRequest>,
    ) -> Result<Response<v1::GetKeysResponse>, Status> {
        self.0.asked_for_keys.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(self.0.keys.lock().unwrap().clone()))
    }
}

struct World {
    vectors: Value,
    script: Arc<Script>,
    calls: mpsc::UnboundedReceiver<Call>,
    clock: Arc<TestClock>,
    endpoint: String,
}

struct Sesame;

impl TokenSource for Sesame {
    fn token(&self) -> BoxFuture<'_, Result<Arc<Secret>, TokenError>> {
        Box::pin(async { Ok(Arc::new(Secret::from("sesame".to_owned()))) })
    }
}

impl World {
    async fn new() -> Self {
        let vectors: Value = serde_json::from_str(include_str!("vectors/vectors.json")).unwrap();
        let keys = v1::GetKeysResponse {
            jwks: vectors["jwks"].to_string(),
            issuer: vectors["issuer"].as_str().unwrap().to_owned(),
            bundles: vec![v1::SpiffeBundle {
                trust_domain: vectors["trust_domain"].as_str().unwrap().to_owned(),
                bundle: vectors["bundle"].to_string(),
            }],
        };
        let (sender, calls) = mpsc::unbounded_channel();
        let script =
            Arc::new(Script { keys: Mutex::new(keys), asked_for_keys: AtomicU32::new(0), calls: sender });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(VerifierServiceServer::new(Scripted(Arc::clone(&script))));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let clock = Arc::new(TestClock::at(Timestamp::from_secs(vectors["now"].as_u64().unwrap())));
        Self { vectors, script, calls, clock, endpoint }
    }

    fn of(&self, profile: Profile) -> Builder {
        let client = Client::builder(&self.endpoint).danger_plaintext();
        Verifier::builder(profile)
            .audience(self.vectors["audience"].as_str().unwrap())
            .broker_by(client, Arc::new(Sesame))
            .clock(Arc::clone(&self.clock) as Arc<_>)
    }

    fn builder(&self) -> Builder {
        self.of(Profile::AccessToken { issuer: self.vectors["issuer"].as_str().unwrap().to_owned() })
    }

    fn token(&self, name: &str) -> String {
        let vectors = self.vectors["vectors"].as_array().unwrap();
        vectors.iter().find(|it| it["name"] == name).unwrap()["token"].as_str().unwrap().to_owned()
    }

    fn good(&self) -> String {
        self.token("as Dayfly mints it")
    }

    /// The next call of WatchRevocations.
    async fn call(&mut self) -> Call {
        timeout(PATIENCE, self.calls.recv()).await.unwrap().unwrap()
    }

    /// A verifier that knows keys, and that these rules are all.
    async fn ready(&mut self, rules: Vec<v1::RevocationRule>) -> (Verifier, Stream) {
        let verifier = self.builder().build().unwrap();
        let call = self.call().await;
        assert_eq!((&*call.resume, &*call.authorization), ("", "Bearer sesame"));
        let stream = call.accept();
        stream.tell(list(rules, "one", false));
        timeout(PATIENCE, verifier.ready()).await.unwrap();
        (verifier, stream)
    }
}

fn list(rules: Vec<v1::RevocationRule>, resume: &str, more: bool) -> Message {
    Message { position: 7, resume: resume.to_owned(), rules, snapshot: true, more, ..Message::default() }
}

fn news(rules: Vec<v1::RevocationRule>, resume: &str) -> Message {
    Message { position: 8, resume: resume.to_owned(), rules, ..Message::default() }
}

fn rule(cut_off: &str, selector: v1::Selector) -> v1::RevocationRule {
    v1::RevocationRule {
        id: "01a207bf-b000-7000-8000-000000000000".to_owned(),
        position: 1,
        selector: Some(selector),
        cut_off: cut_off.to_owned(),
        after: v1::After::Reissue.into(),
        until: None,
    }
}

fn of_owner(owner: &str) -> v1::Selector {
    v1::Selector { owner: owner.to_owned(), ..v1::Selector::default() }
}

/// Polls until the verifier says this of the token.
async fn says(verifier: &Verifier, token: &str, expected: Result<(), Refused>) {
    let mut last = None;
    for _ in 0..1000 {
        let said = verifier.verify(token, Proof::Nothing).map(drop);
        if said == expected {
            return;
        }
        last = Some(said);
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it says {last:?}, and not {expected:?}");
}

async fn until_it_is_at(verifier: &Verifier, position: u64) {
    let there = async {
        while verifier.position() != Some(position) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, there).await.unwrap();
}

fn now(verifier: &Verifier, token: &str) -> Result<(), Refused> {
    verifier.verify(token, Proof::Nothing).map(drop)
}

#[tokio::test]
async fn every_token_is_refused_until_the_list_is_whole() {
    let mut world = World::new().await;
    let good = world.good();
    let verifier = world.builder().build().unwrap();
    assert_eq!(now(&verifier, &good), Err(Refused::KeysUnknown));
    let stream = world.call().await.accept();
    says(&verifier, &good, Err(Refused::RevocationsUnknown)).await;
    stream.tell(list(vec![rule(LEASE, of_owner("orders"))], "", true));
    stream.tell(list(vec![rule(BELOW, of_owner("payments"))], "", true));
    sleep(Duration::from_millis(200)).await;
    assert_eq!(now(&verifier, &good), Err(Refused::RevocationsUnknown));
    assert!(!verifier.is_ready() && verifier.position().is_none());
    stream.tell(list(vec![], "one", false));
    timeout(PATIENCE, verifier.ready()).await.unwrap();
    assert_eq!(now(&verifier, &good), Ok(()));
    assert_eq!(verifier.position(), Some(7));
}

#[tokio::test]
async fn a_list_that_breaks_off_is_not_used_and_begun_anew() {
    let mut world = World::new().await;
    let good = world.good();
    let verifier = world.builder().build().unwrap();
    let stream = world.call().await.accept();
    stream.tell(list(vec![rule(LEASE, of_owner("payments"))], "half", true));
    drop(stream);
    let call = world.call().await;
    assert_eq!(call.resume, "", "nothing was whole");
    assert_eq!(now(&verifier, &good), Err(Refused::RevocationsUnknown));
    let stream = call.accept();
    stream.tell(list(vec![], "one", false));
    says(&verifier, &good, Ok(())).await;
}

#[tokio::test]
async fn a_rule_by_either_owner_or_a_spelled_out_lease_revokes_at_once() {
    let mut world = World::new().await;
    let good = world.good();
    for owner in ["payments", "payments-batch"] {
        let (verifier, stream) = world.ready(vec![]).await;
        assert_eq!(now(&verifier, &good), Ok(()));
        stream.tell(news(vec![rule(BELOW, of_owner(owner))], "two"));
        stream.tell(news(vec![rule(LEASE, of_owner("orders"))], "three"));
        sleep(Duration::from_millis(100)).await;
        assert_eq!(now(&verifier, &good), Ok(()), "issued after it, or of another owner");
        stream.tell(news(vec![rule(LEASE, of_owner(owner))], "four"));
        says(&verifier, &good, Err(Refused::Revoked)).await;
    }
    let (verifier, stream) = world.ready(vec![]).await;
    let image = v1::Selector { image_digest: "sha256:00".to_owned(), ..v1::Selector::default() };
    let by_image = rule(LEASE, image);
    let covered =
        v1::CoveredLeases { rule: by_image.id.clone(), leases: vec![LEASE.to_owned()], complete: true };
    stream.tell(news(vec![by_image], "two"));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(now(&verifier, &good), Ok(()));
    stream.tell(Message { covered: vec![covered], ..news(vec![], "three") });
    says(&verifier, &good, Err(Refused::Revoked)).await;
}

#[tokio::test]
async fn a_credential_in_use_is_good_until_it_expires_or_is_revoked() {
    let mut world = World::new().await;
    let good = world.good();
    let (verifier, stream) = world.ready(vec![]).await;
    let verified = verifier.verify(&good, Proof::Nothing).unwrap();
    assert_eq!(verifier.still_good(&verified), Ok(()));
    stream.tell(news(vec![rule(LEASE, of_owner("payments"))], "two"));
    says(&verifier, &good, Err(Refused::Revoked)).await;
    assert_eq!(verifier.still_good(&verified), Err(Refused::Revoked));
    let (verifier, _stream) = world.ready(vec![]).await;
    assert_eq!(verifier.still_good(&verified), Ok(()));
    world.clock.advance(Duration::from_secs(20));
    assert_eq!(verifier.still_good(&verified), Err(Refused::RevocationsUnknown));
    world.clock.advance(Duration::from_secs(310));
    assert_eq!(verifier.still_good(&verified), Err(Refused::Expired));
}

#[tokio::test]
async fn a_silent_broker_is_not_trusted_and_resumed_from_where_it_was() {
    let mut world = World::new().await;
    let (good, other) = (world.good(), world.token("SVID as Dayfly mints it"));
    let (verifier, stream) = world.ready(vec![rule(BELOW, of_owner("payments"))]).await;
    stream.tell(news(vec![], "two"));
    until_it_is_at(&verifier, 8).await;
    world.clock.advance(Duration::from_secs(15));
    assert_eq!(now(&verifier, &good), Ok(()));
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(now(&verifier, &good), Err(Refused::RevocationsUnknown));
    assert_eq!(now(&verifier, &other), Err(Refused::Typ), "its own fault is told first");
    assert!(!verifier.is_ready());
    // What was under way meanwhile is as old as the silence.
    stream.tell(news(vec![], "three"));
    let call = world.call().await;
    assert_eq!(call.resume, "two");
    assert_eq!(now(&verifier, &good), Err(Refused::RevocationsUnknown));
    let stream = call.accept();
    stream.tell(Message { more: true, ..news(vec![], "four") });
    sleep(Duration::from_millis(200)).await;
    assert_eq!(now(&verifier, &good), Err(Refused::RevocationsUnknown), "there is more to come");
    stream.tell(news(vec![], "five"));
    says(&verifier, &good, Ok(())).await;
    stream.tell(news(vec![rule(LEASE, of_owner("payments"))], "six"));
    says(&verifier, &good, Err(Refused::Revoked)).await;
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(now(&verifier, &good), Err(Refused::Revoked), "what was known stays so");
}

#[tokio::test]
async fn where_it_cannot_be_resumed_the_earlier_list_stays_until_the_new_one_is_whole() {
    let mut world = World::new().await;
    let good = world.good();
    let (verifier, stream) = world.ready(vec![rule(LEASE, of_owner("payments"))]).await;
    assert_eq!(now(&verifier, &good), Err(Refused::Revoked));
    drop(stream);
    let call = world.call().await;
    assert_eq!(call.resume, "one");
    call.refuse(Rejection::new(ErrorReason::ResumeOutOfRange, "call again without resume").into_status());
    let call = world.call().await;
    assert_eq!(call.resume, "");
    let stream = call.accept();
    stream.tell(list(vec![rule(LEASE, of_owner("orders"))], "", true));
    sleep(Duration::from_millis(200)).await;
    assert_eq!(now(&verifier, &good), Err(Refused::Revoked));
    stream.tell(list(vec![], "nine", false));
    says(&verifier, &good, Ok(())).await;
    drop(stream);
    assert_eq!(world.call().await.resume, "nine");
}

#[tokio::test]
async fn a_rule_that_cannot_be_read_ends_all_trust_until_all_is_told_anew() {
    let mut world = World::new().await;
    let good = world.good();
    let (verifier, stream) = world.ready(vec![]).await;
    stream.tell(news(vec![rule("no id", of_owner("orders"))], "two"));
    says(&verifier, &good, Err(Refused::RevocationsUnknown)).await;
    let call = world.call().await;
    assert_eq!(call.resume, "");
    call.accept().tell(list(vec![], "one", false));
    says(&verifier, &good, Ok(())).await;
}

#[tokio::test]
async fn a_broker_that_refuses_is_asked_again_and_nothing_is_accepted_meanwhile() {
    let mut world = World::new().await;
    let good = world.good();
    let verifier = world.builder().build().unwrap();
    for reason in [ErrorReason::NotAVerifier, ErrorReason::Overloaded] {
        world.call().await.refuse(Rejection::new(reason, "no").into_status());
    }
    says(&verifier, &good, Err(Refused::RevocationsUnknown)).await;
    world.call().await.accept().tell(list(vec![], "one", false));
    says(&verifier, &good, Ok(())).await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_brings_nothing_back_to_life() {
    let mut world = World::new().await;
    let good = world.good();
    let (verifier, stream) = world.ready(vec![]).await;
    world.clock.advance(Duration::from_secs(10));
    // The clock jumps over the token's end, and revocations are swept by it.
    world.clock.jump(400);
    stream.tell(news(vec![], "two"));
    let stream = world.call().await.accept();
    stream.tell(news(vec![], "three"));
    says(&verifier, &good, Err(Refused::Expired)).await;
    sleep(Duration::from_millis(100)).await;
    world.clock.jump(-400);
    assert_eq!(now(&verifier, &good), Err(Refused::Expired));
    stream.tell(news(vec![], "four"));
    let call = world.call().await;
    assert_eq!(call.resume, "", "what was dropped may count again");
    call.accept().tell(list(vec![rule(LEASE, of_owner("payments"))], "one", false));
    says(&verifier, &good, Err(Refused::Revoked)).await;
}

#[tokio::test]
async fn the_danger_is_that_only_what_is_known_is_refused() {
    let mut world = World::new().await;
    let good = world.good();
    let verifier = world.builder().danger_accept_where_revocations_are_unknown().build().unwrap();
    says(&verifier, &good, Ok(())).await;
    let stream = world.call().await.accept();
    stream.tell(list(vec![rule(LEASE, of_owner("payments"))], "one", false));
    says(&verifier, &good, Err(Refused::Revoked)).await;
    world.clock.advance(Duration::from_secs(100));
    assert_eq!(now(&verifier, &good), Err(Refused::Revoked));
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_once_and_not_for_each_token() {
    let mut world = World::new().await;
    let (good, next) = (world.good(), world.token("by the next key"));
    let strange = world.token("by a key that nobody published");
    let whole = world.script.keys.lock().unwrap().clone();
    let mut jwks = world.vectors["jwks"].clone();
    jwks["keys"].as_array_mut().unwrap().remove(1);
    world.script.keys.lock().unwrap().jwks = jwks.to_string();
    let (verifier, _stream) = world.ready(vec![]).await;
    assert_eq!(now(&verifier, &good), Ok(()));
    *world.script.keys.lock().unwrap() = whole;
    assert_eq!(world.script.asked_for_keys.load(Ordering::Relaxed), 1);
    for _ in 0..1000 {
        assert_eq!(now(&verifier, &strange), Err(Refused::UnknownKey));
        // Asked for a moment ago: it does not wait.
        assert_eq!(
            verifier.verify_with_fresh_keys(&strange, Proof::Nothing).await.map(drop),
            Err(Refused::UnknownKey)
        );
    }
    assert_eq!(world.script.asked_for_keys.load(Ordering::Relaxed), 1);
    says(&verifier, &next, Ok(())).await;
    assert_eq!(world.script.asked_for_keys.load(Ordering::Relaxed), 2, "5 s after the first");
}

#[tokio::test]
async fn the_first_token_of_a_new_key_waits_for_it() {
    let mut world = World::new().await;
    let next = world.token("by the next key");
    let whole = world.script.keys.lock().unwrap().clone();
    world.script.keys.lock().unwrap().jwks = r#"{"keys":[]}"#.to_owned();
    let (verifier, _stream) = world.ready(vec![]).await;
    *world.script.keys.lock().unwrap() = whole;
    sleep(Duration::from_secs(5)).await;
    world.clock.advance(Duration::from_secs(6));
    let verified = verifier.verify_with_fresh_keys(&next, Proof::Nothing).await;
    assert!(verified.is_ok(), "{verified:?}");
}

#[tokio::test]
async fn keys_of_another_issuer_or_trust_domain_are_not_taken() {
    let mut world = World::new().await;
    let (good, svid) = (world.good(), world.token("SVID as Dayfly mints it"));
    let wrong = [
        Profile::AccessToken { issuer: "https://another.example".to_owned() },
        Profile::Svid { trust_domain: "another.example".parse().unwrap() },
    ];
    for profile in wrong {
        let verifier = world.of(profile).build().unwrap();
        let stream = world.call().await.accept();
        stream.tell(list(vec![], "one", false));
        until_it_is_at(&verifier, 7).await;
        sleep(Duration::from_millis(200)).await;
        assert_eq!(now(&verifier, &good), Err(Refused::KeysUnknown));
        drop(verifier);
        timeout(PATIENCE, stream.0.closed()).await.unwrap();
    }
    let verifier =
        world.of(Profile::Svid { trust_domain: "prod.example.org".parse().unwrap() }).build().unwrap();
    let stream = world.call().await.accept();
    stream.tell(list(vec![], "one", false));
    says(&verifier, &svid, Ok(())).await;
    assert_eq!(now(&verifier, &good), Err(Refused::Typ));
    stream.tell(news(vec![rule("01a207bf-a800-7000-8000-000000000002", of_owner("payments"))], "two"));
    says(&verifier, &svid, Err(Refused::Revoked)).await;
}

#[tokio::test]
async fn it_stops_to_listen_when_its_last_clone_is_dropped() {
    let mut world = World::new().await;
    let (verifier, stream) = world.ready(vec![]).await;
    drop(verifier.clone());
    sleep(Duration::from_millis(100)).await;
    assert!(!stream.0.is_closed());
    drop(verifier);
    timeout(PATIENCE, stream.0.closed()).await.unwrap();
}

#[tokio::test]
async fn it_says_what_is_wrong_with_its_setup() {
    let access = || Profile::AccessToken { issuer: "https://dayfly.example".to_owned() };
    let said = |builder: Builder| builder.build().err().map(|error| error.to_string()).unwrap_or_default();
    let whole = || Verifier::builder(access()).audience("a").danger_without_broker(r#"{"keys":[]}"#);
    assert_eq!(said(whole()), "");
    assert!(said(Verifier::builder(access()).audience("a")).contains("which broker"));
    assert!(said(Verifier::builder(access()).danger_without_broker("{}")).contains("audience"));
    assert!(said(whole().audience("a b")).contains("an audience"));
    assert!(said(whole().scope("a b")).contains("a scope"));
    assert!(said(whole().leeway(Duration::from_secs(31))).contains("at most 30s"));
    assert!(!said(whole().danger_without_broker("[]")).is_empty());
    assert!(said(whole().broker("https://b", "/no/ca", "/no/token")).contains("/no/ca"));
    let no_issuer = Profile::AccessToken { issuer: String::new() };
    assert!(said(Verifier::builder(no_issuer).audience("a")).contains("issuer is empty"));
}
