//! The broker as a server: configuration, TLS, tower layers, tonic and axum services, and the one place where ports
//! and adapters are wired together.

mod background;
mod backup;
mod checkpoints;
mod config;
mod guard;
mod http;
mod keys;
mod listener;
mod log;
mod oauth;
mod offline;
mod readiness;
mod restore;
mod run;
mod services;
mod sessions;
mod socket;
mod status_lists;

pub use backup::{BackupFile, BackupTaken};
pub use config::{Config, ConfigError};
pub use dayfly_jose::MAX_KEY_FILE_BYTES;
pub use dayfly_store::{
    IS_BROKEN, OpenError as StoreOpenError, Point, Restored, VerifyReport, verify as verify_store,
    verify_against as verify_store_against,
};
pub use keys::{ImportedKey, import_key};
pub use offline::revoke as revoke_offline;
pub use restore::{
    WrongBackup, adopt_offline, back_up_offline, restore, verify_backup, verify_backup_against,
};
pub use run::{Running, StartOptions, check, start};
