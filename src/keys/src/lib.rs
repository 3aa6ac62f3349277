//! The key ring: Dayfly's own signing keys, generated, sealed at rest, published, used.
//!
//! A private key is in the store only sealed with a key-encryption key, which is not: [`KeyEncryption`] is its port,
//! [`FileKek`] the file. A new key is published before it signs:
//!
//! 1. [`KeyRing::generate`] makes it, [`KeyRing::import`] reads one that was made elsewhere; the caller commits its sealed form to the store (`Change::Key`);
//! 2. [`KeyRing::publish`] puts its public half into [`Signer::jwks`](dayfly_core::ports::Signer::jwks);
//! 3. [`KeyRing::activate`] lets it sign, once verifiers can have seen it.
//!
//! At start, [`KeyRing::load`] opens all of them: each is published, the newest of each purpose signs: of each
//! use, algorithm, and target where it was imported for one.

mod file;
mod kek;
mod ring;

pub use file::{FileKek, KekError};
pub use kek::{KekId, KeyEncryption, OpenError, SealError};
pub use ring::{KeyError, KeyRing, NewKey};
