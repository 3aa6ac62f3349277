//! An extractor for axum.

use axum::extract::{FromRef, FromRequestParts};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::request::Parts;

use crate::bearer::{Challenge, authenticate};
use crate::proof::Proof;
use crate::verified::Verified;
use crate::verifier::Verifier;

/// What the request's token says, where it is good: of `VerifyLayer` where that let the request
/// through, else checked now with the [`Verifier`] in the router's state.
impl<S> FromRequestParts<S> for Verified
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = Challenge;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Challenge> {
        if let Some(verified) = parts.extensions.get::<Self>() {
            return Ok(verified.clone());
        }
        let proof = parts.extensions.get::<Proof>().copied().unwrap_or_default();
        authenticate(&Verifier::from_ref(state), &parts.headers, proof).await
    }
}

impl IntoResponse for Challenge {
    fn into_response(self) -> Response {
        self.response(&HeaderMap::new())
    }
}
