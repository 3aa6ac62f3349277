//! Targets of kind `jwt`: OAuth 2.0 access tokens as JWTs (RFC 9068), signed by ES256.

mod claims;

use std::sync::Arc;

use dayfly_core::digest::Digest;
use dayfly_core::limits;
use dayfly_core::ports::{
    BoxFuture, Engine, KeyUse, MintError, Minted, Order, SignError, Signer, SigningKey,
};

pub use claims::{Claims, Cnf, DayflyClaim, claims};

/// The `typ` of an access token's header (RFC 9068, section 2.1).
pub const TYP: &str = "at+jwt";

/// A token, in bytes: what Dayfly itself takes as one, when it is introspected.
pub const MAX_BYTES: usize = limits::TOKEN_BYTES;

/// Mints access tokens (RFC 9068). It has no effect outside: nothing is to be undone when a lease is not committed.
///
/// The same order gives the same claims, so that a repeated request's lease can be signed again.
pub struct JwtEngine {
    signer: Arc<dyn Signer>,
}

impl JwtEngine {
    /// An engine that signs with the [`KeyUse::AccessToken`] keys of this signer.
    pub fn new(signer: Arc<dyn Signer>) -> Self {
        Self { signer }
    }

    fn sign(&self, order: &Order<'_>) -> Result<Minted, MintError> {
        let payload = serde_json::to_vec(&claims(order)).map_err(|_| SignError::Failed)?;
        if payload.len() > MAX_BYTES {
            return Err(MintError::TooLarge(payload.len()));
        }
        let credential = self.signer.sign(&order.lease.key_id, TYP, &payload)?;
        if credential.len() > MAX_BYTES {
            return Err(MintError::TooLarge(credential.len()));
        }
        Ok(Minted { digest: Digest::of(credential.expose()), credential })
    }
}

impl Engine for JwtEngine {
    fn prepare(&self) -> Result<SigningKey, MintError> {
        Ok(self.signer.current(KeyUse::AccessToken)?)
    }

    fn mint<'a>(&'a self, order: &'a Order<'a>) -> BoxFuture<'a, Result<Minted, MintError>> {
        Box::pin(std::future::ready(self.sign(order)))
    }
}

#[cfg(test)]
mod tests;
