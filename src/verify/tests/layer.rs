//! The layer and the extractor, in axum routers, and the layer in a server of tonic's. Tokens and keys are those of vectors/make.py.
#![cfg(all(feature = "tower", feature = "axum"))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its fixtures too")]

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{Request, Response, StatusCode};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_api::v1;
use dayfly_api::v1::verifier_service_client::VerifierServiceClient;
use dayfly_api::v1::verifier_service_server::{VerifierService, VerifierServiceServer};
use dayfly_core::ports::TestClock;
use dayfly_core::time::Timestamp;
use dayfly_verify::{Challenge, Profile, Proof, Verified, Verifier, VerifyLayer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Status};
use tower::util::ServiceExt as _;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/vectors.json")).unwrap()
}

fn vector<'a>(vectors: &'a Value, name: &str) -> &'a Value {
    vectors["vectors"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap()
}

fn verifier(vectors: &Value) -> Verifier {
    let text = |name: &str| vectors[name].as_str().unwrap().to_owned();
    Verifier::builder(Profile::AccessToken { issuer: text("issuer") })
        .audience(text("audience"))
        .scope(text("scope"))
        .danger_without_broker(vectors["jwks"].to_string())
        .clock(Arc::new(TestClock::at(Timestamp::from_secs(vectors["now"].as_u64().unwrap()))))
        .build()
        .unwrap()
}

async fn who(verified: Verified) -> String {
    verified.subject().to_owned()
}

async fn admin(verified: Verified) -> Result<&'static str, Challenge> {
    verified.require_scope("admin")?;
    Ok("admin")
}

/// One app by the layer, one by the extractor alone: they answer alike.
fn apps(verifier: &Verifier) -> [Router; 2] {
    let routes = || Router::new().route("/", get(who)).route("/admin", get(admin));
    [
        routes().layer(VerifyLayer::new(verifier.clone())).with_state(verifier.clone()),
        routes().with_state(verifier.clone()),
    ]
}

fn request(path: &str, authorization: &[&str]) -> Request<Body> {
    let mut request = Request::get(path);
    for value in authorization {
        request = request.header(AUTHORIZATION, *value);
    }
    request.body(Body::empty()).unwrap()
}

fn challenge(answer: &Response<Body>) -> &str {
    answer.headers().get(WWW_AUTHENTICATE).map_or("", |it| it.to_str().unwrap())
}

async fn body(answer: Response<Body>) -> String {
    String::from_utf8(axum::body::to_bytes(answer.into_body(), 1024).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn only_good_tokens_come_through() {
    let vectors = vectors();
    let bearer = |name: &str| format!("Bearer {}", vector(&vectors, name)["token"].as_str().unwrap());
    let (good, expired) = (bearer("as Dayfly mints it"), bearer("expired"));
    let narrow = bearer("of another scope");
    for app in apps(&verifier(&vectors)) {
        let ask = async |path: &str, authorization: &[&str]| {
            app.clone().oneshot(request(path, authorization)).await.unwrap()
        };
        let answer = ask("/", &[&good]).await;
        assert_eq!((answer.status(), challenge(&answer)), (StatusCode::OK, ""));
        assert_eq!(body(answer).await, "east:payments:api");

        let answer = ask("/", &[]).await;
        assert_eq!((answer.status(), challenge(&answer)), (StatusCode::UNAUTHORIZED, "Bearer"));
        let answer = ask("/", &[&expired]).await;
        assert_eq!(
            (answer.status(), challenge(&answer)),
            (
                StatusCode::UNAUTHORIZED,
                r#"Bearer error="invalid_token", error_description="the token has expired""#
            )
        );
        assert_eq!(body(answer).await, "");
        let answer = ask("/", &[&good, &good]).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert!(challenge(&answer).starts_with(r#"Bearer error="invalid_request""#));
        let answer = ask("/", &[&narrow]).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert!(challenge(&answer).ends_with(r#"scope="orders:read""#), "{}", challenge(&answer));
        let answer = ask("/admin", &[&good]).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert!(challenge(&answer).contains("insufficient_scope"));
    }
}

#[tokio::test]
async fn bound_tokens_need_the_certificate_and_are_never_bearer_tokens_of_a_key() {
    let vectors = vectors();
    let bearer = |vector: &Value| format!("Bearer {}", vector["token"].as_str().unwrap());
    let to_certificate = vector(&vectors, "bound to a certificate that was proven");
    let to_key = vector(&vectors, "bound to a key that was proven");
    let certificate = Proof::certificate(
        &STANDARD.decode(to_certificate["proof"]["certificate"].as_str().unwrap()).unwrap(),
    );
    let key = Proof::jwk_thumbprint(to_key["proof"]["jkt"].as_str().unwrap()).unwrap();
    let verifier = verifier(&vectors);
    assert!(verifier.verify(to_key["token"].as_str().unwrap(), key).is_ok());
    for app in apps(&verifier) {
        let ask = async |token: &str, proof: Option<Proof>| {
            let mut request = request("/", &[token]);
            if let Some(proof) = proof {
                request.extensions_mut().insert(proof);
            }
            app.clone().oneshot(request).await.unwrap().status()
        };
        assert_eq!(ask(&bearer(to_certificate), Some(certificate)).await, StatusCode::OK);
        assert_eq!(ask(&bearer(to_certificate), None).await, StatusCode::UNAUTHORIZED);
        assert_eq!(ask(&bearer(to_certificate), Some(key)).await, StatusCode::UNAUTHORIZED);
        assert_eq!(ask(&bearer(to_key), Some(key)).await, StatusCode::UNAUTHORIZED);
        assert_eq!(ask(&bearer(to_key), None).await, StatusCode::UNAUTHORIZED);
    }
}

/// A service of gRPC, of which one call is used: it says who calls.
struct Calls;

#[tonic::async_trait]
impl VerifierService for Calls {
    type WatchRevocationsStream = tokio_stream::Empty<Result<v1::WatchRevocationsResponse, Status>>;

    async fn introspect(
        &self,
        _: tonic::Request<v1::IntrospectRequest>,
    ) -> Result<tonic::Response<v1::IntrospectResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }

    async fn watch_revocations(
        &self,
        _: tonic::Request<v1::WatchRevocationsRequest>,
    ) -> Result<tonic::Response<Self::WatchRevocationsStream>, Status> {
        Err(Status::unimplemented("not used"))
    }

    async fn get_keys(
        &self,
        request: tonic::Request<v1::GetKeysRequest>,
    ) -> Result<tonic::Response<v1::GetKeysResponse>, Status> {
        let verified: &Verified = request.extensions().get().unwrap();
        let issuer = verified.subject().to_owned();
        Ok(tonic::Response::new(v1::GetKeysResponse { issuer, ..v1::GetKeysResponse::default() }))
    }
}

#[tokio::test]
async fn calls_of_grpc_are_let_through_or_get_a_status() {
    let vectors = vectors();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder()
        .layer(VerifyLayer::new(verifier(&vectors)))
        .add_service(VerifierServiceServer::new(Calls));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let client =
        VerifierServiceClient::new(tonic::transport::Endpoint::from_shared(endpoint).unwrap().connect_lazy());
    let call = async |name: Option<&str>| {
        let mut request = tonic::Request::new(v1::GetKeysRequest {});
        if let Some(name) = name {
            let bearer = format!("Bearer {}", vector(&vectors, name)["token"].as_str().unwrap());
            request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        }
        let answer = client.clone().get_keys(request).await;
        answer.map(|it| it.into_inner().issuer).map_err(|it| (it.code(), it.message().to_owned()))
    };
    assert_eq!(call(Some("as Dayfly mints it")).await.unwrap(), "east:payments:api");
    assert_eq!(call(None).await.unwrap_err().0, Code::Unauthenticated);
    assert_eq!(
        call(Some("expired")).await.unwrap_err(),
        (Code::Unauthenticated, "the token has expired".to_owned())
    );
    assert_eq!(call(Some("of another scope")).await.unwrap_err().0, Code::PermissionDenied);
}
