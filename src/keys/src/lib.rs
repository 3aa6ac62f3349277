//! The key ring: Dayfly's own signing keys, generated, sealed at rest, published, used.
//!
//! A private key is in the store only sealed with a key-encryption key, which is not: [`KeyEncryption`] is its port,
//! [`FileKek`] the file. A key's life is `next`, `active`, `retiring`, `retired`
//! ([`KeyStage`](dayfly_core::signing::KeyStage)): [`KeyRing`] holds the keys and makes the steps, [`KeyLife`] knows which
//! step is due and takes it: committed to the store, and then in effect. `docs/decisions/signing-keys.md` says why so.

mod backup;
mod file;
mod kek;
mod life;
mod ring;
mod sessions;

pub use backup::{BackupHeader, BackupOpener, BackupSealer, OpenBackupError, SealBackupError};
pub use file::{FileKek, KekError};
pub use kek::{KekId, KeyEncryption, OpenError, SealError};
pub use life::{KeyLife, LifeError, Schedule};
pub use ring::{KeyError, KeyRing};
pub use sessions::{RingSessions, SESSION_KEYS};
