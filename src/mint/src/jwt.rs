//! Targets of kind `jwt`: OAuth 2.0 access tokens as JWTs (RFC 9068), signed by ES256, EdDSA or RS256.

mod claims;

use std::sync::Arc;

use dayfly_core::ports::{
    BoxFuture, Engine, KeyFor, KeyUse, MintError, Minted, Order, SignError, Signer, SigningKey,
};

use crate::signed::sign;

pub use claims::{Claims, Cnf, DayflyClaim, Status, StatusRef, claims};

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
        match order.lease.key_use() {
            KeyUse::AccessToken => sign(self.signer.as_ref(), order, &KeyUse::AccessToken, &claims(order)),
            KeyUse::Svid(_) | KeyUse::OperatorSession | KeyUse::StatusList | KeyUse::Checkpoint => {
                Err(SignError::NoKey.into())
            }
        }
    }
}

impl Engine for JwtEngine {
    fn prepare(&self, wanted: &KeyFor) -> Result<SigningKey, MintError> {
        Ok(self.signer.current(wanted)?)
    }

    fn mint<'a>(&'a self, order: &'a Order<'a>) -> BoxFuture<'a, Result<Minted, MintError>> {
        Box::pin(std::future::ready(self.sign(order)))
    }
}

#[cfg(test)]
pub(crate) mod tests;
