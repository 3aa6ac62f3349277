//! A resource server that checks Dayfly's access tokens offline: docs/how-to/verify.md walks through it.
//!
//! It serves plain HTTP, for loopback: in a cluster, TLS is in front of it or in it, and nothing else changes.

use std::error::Error;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use dayfly_verify::{Challenge, Profile, Verified, Verifier, VerifyLayer};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let verifier = verifier(|name| std::env::var(name).map_err(|_| format!("{name} is not set")))?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app(verifier)).await?)
}

/// The verifier, by what the environment says.
pub fn verifier(setting: impl Fn(&str) -> Result<String, String>) -> Result<Verifier, Box<dyn Error>> {
    let verifier = Verifier::builder(Profile::AccessToken { issuer: setting("DAYFLY_ISSUER")? })
        .audience(setting("ORDERS_AUDIENCE")?)
        .scope("orders:read")
        .broker(setting("DAYFLY_BROKER")?, setting("DAYFLY_CA_FILE")?, setting("DAYFLY_TOKEN_FILE")?)
        .build()?;
    Ok(verifier)
}

/// The service: everything below the layer needs a good token, the probe above it none.
pub fn app(verifier: Verifier) -> Router {
    Router::new()
        .route("/orders", get(orders).post(order))
        .layer(VerifyLayer::new(verifier.clone()))
        .route("/ready", get(ready))
        .with_state(verifier)
}

async fn orders(verified: Verified) -> Json<Value> {
    Json(json!({ "orders": [], "for": verified.subject(), "owner": verified.owner().as_str() }))
}

async fn order(verified: Verified) -> Result<StatusCode, Challenge> {
    verified.require_scope("orders:write")?;
    Ok(StatusCode::CREATED)
}

async fn ready(State(verifier): State<Verifier>) -> StatusCode {
    if verifier.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
