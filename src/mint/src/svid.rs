//! Targets of kind `svid`: SPIFFE JWT-SVIDs, signed by ES256 with the keys of their trust domain.

mod claims;

use std::sync::Arc;

use dayfly_core::ports::{
    BoxFuture, Engine, KeyFor, MintError, Minted, Order, SignError, Signer, SigningKey,
};

use crate::signed::sign;

pub use claims::{Claims, claims};

/// Mints JWT-SVIDs. It has no effect outside: nothing is to be undone when a lease is not committed.
///
/// The same order gives the same claims, so that a repeated request's lease can be signed again.
pub struct SvidEngine {
    signer: Arc<dyn Signer>,
}

impl SvidEngine {
    /// An engine that signs with the [`KeyUse::Svid`](dayfly_core::ports::KeyUse::Svid) keys of this signer.
    pub fn new(signer: Arc<dyn Signer>) -> Self {
        Self { signer }
    }

    fn sign(&self, order: &Order<'_>) -> Result<Minted, MintError> {
        // Without an id it is a lease of another kind.
        let claims = claims(order).ok_or(SignError::NoKey)?;
        sign(self.signer.as_ref(), order, &order.lease.key_use(), &claims)
    }
}

impl Engine for SvidEngine {
    fn prepare(&self, wanted: &KeyFor) -> Result<SigningKey, MintError> {
        Ok(self.signer.current(wanted)?)
    }

    fn mint<'a>(&'a self, order: &'a Order<'a>) -> BoxFuture<'a, Result<Minted, MintError>> {
        Box::pin(std::future::ready(self.sign(order)))
    }
}

#[cfg(test)]
mod tests;
