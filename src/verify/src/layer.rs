//! A layer that lets only requests with a good token through.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::{Layer, Service};

use crate::bearer::authenticate;
use crate::proof::Proof;
use crate::verifier::Verifier;

/// Lets only requests with `authorization: Bearer TOKEN` through whose token is good, and puts what it says, a
/// [`Verified`](crate::Verified), into the request's extensions. Others are answered as [`Challenge`](crate::Challenge) says.
/// For axum, tonic and whatever else is a tower service over http.
///
/// Tokens that are bound to a client certificate need a [`Proof::Certificate`] in the request's extensions, put there by what
/// accepted the connection. Tokens that are bound to a DPoP key are refused, as bearer tokens must be (RFC 9449, section 7.2):
/// what checks DPoP proofs calls [`Verifier::verify`] itself.
#[derive(Clone)]
pub struct VerifyLayer {
    verifier: Verifier,
}

impl VerifyLayer {
    /// A layer that checks with this verifier.
    pub const fn new(verifier: Verifier) -> Self {
        Self { verifier }
    }
}

impl<S> Layer<S> for VerifyLayer {
    type Service = Verifying<S>;

    fn layer(&self, inner: S) -> Verifying<S> {
        Verifying { verifier: self.verifier.clone(), inner }
    }
}

/// The service of [`VerifyLayer`].
#[derive(Clone)]
pub struct Verifying<S> {
    verifier: Verifier,
    inner: S,
}

impl<S, B, A> Service<Request<B>> for Verifying<S>
where
    S: Service<Request<B>, Response = Response<A>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    A: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let verifier = self.verifier.clone();
        // The one that is ready is called, and its clone is the next to become so.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let proof = parts.extensions.get::<Proof>().copied().unwrap_or_default();
            match authenticate(&verifier, &parts.headers, proof).await {
                Ok(verified) => {
                    parts.extensions.insert(verified);
                    inner.call(Request::from_parts(parts, body)).await
                }
                Err(challenge) => Ok(challenge.response(&parts.headers)),
            }
        })
    }
}
