//! Credentials that are signed tokens: what both kinds share.

use std::sync::Arc;

use dayfly_core::digest::Digest;
use dayfly_core::limits;
use dayfly_core::ports::{
    BoxFuture, Engine, KeyFor, KeyUse, MintError, Minted, Order, SignError, Signer, SigningKey,
};
use serde::Serialize;

use crate::jwt::JwtEngine;
use crate::svid::SvidEngine;

/// A token, in bytes: what Dayfly itself takes as one, when it is introspected.
pub const MAX_BYTES: usize = limits::TOKEN_BYTES;

/// Mints what is signed: each lease's credential by the engine of its kind. The lease says which that is, so that a
/// repeated request gives the same kind again, whatever the target has become.
pub struct SignedEngines {
    jwt: JwtEngine,
    svid: SvidEngine,
}

impl SignedEngines {
    /// Engines that sign with the keys of this signer.
    pub fn new(signer: &Arc<dyn Signer>) -> Self {
        Self { jwt: JwtEngine::new(Arc::clone(signer)), svid: SvidEngine::new(Arc::clone(signer)) }
    }
}

impl Engine for SignedEngines {
    fn prepare(&self, wanted: &KeyFor) -> Result<SigningKey, MintError> {
        match wanted.key_use {
            KeyUse::AccessToken => self.jwt.prepare(wanted),
            KeyUse::Svid(_) => self.svid.prepare(wanted),
            // No lease is of a session, of a list, or of a checkpoint.
            KeyUse::OperatorSession | KeyUse::StatusList | KeyUse::Checkpoint => Err(SignError::NoKey.into()),
        }
    }

    fn mint<'a>(&'a self, order: &'a Order<'a>) -> BoxFuture<'a, Result<Minted, MintError>> {
        match order.lease.key_use() {
            KeyUse::AccessToken => self.jwt.mint(order),
            KeyUse::Svid(_) => self.svid.mint(order),
            KeyUse::OperatorSession | KeyUse::StatusList | KeyUse::Checkpoint => {
                Box::pin(std::future::ready(Err(SignError::NoKey.into())))
            }
        }
    }
}

/// The order's claims, signed with its lease's key for this use.
pub(crate) fn sign(
    signer: &dyn Signer,
    order: &Order<'_>,
    key_use: &KeyUse,
    claims: &impl Serialize,
) -> Result<Minted, MintError> {
    let lease = order.lease;
    let payload = serde_json::to_vec(claims).map_err(|_| SignError::Failed)?;
    if payload.len() > MAX_BYTES {
        return Err(MintError::TooLarge(payload.len()));
    }
    let credential = signer.sign(&lease.key_id, key_use, &lease.target_ref(), &payload)?;
    if credential.len() > MAX_BYTES {
        return Err(MintError::TooLarge(credential.len()));
    }
    Ok(Minted { digest: Digest::of(credential.expose()), credential })
}
