//! Dayfly's words as types: ids, the workload, the lease and its life, rules and what they cover, the audit
//! encoding, limits, the one secret type, and the ports every adapter stands behind.
//!
//! Nothing here does I/O, and nothing here knows another crate of ours. Start reading at [`lease`], then [`rule`],
//! then [`ports`].

pub mod audit;
pub mod change;
pub mod checkpoint;
pub mod claims;
pub mod clock;
pub mod digest;
pub mod encoding;
pub mod generator;
pub mod ids;
pub mod keeper;
pub mod lease;
pub mod limits;
pub mod live;
pub mod merkle;
pub mod note;
pub mod ports;
pub mod proof;
pub mod provenance;
pub mod rule;
pub mod rules;
pub mod secret;
pub mod session;
pub mod signing;
pub mod spiffe;
pub mod status;
pub mod teardown;
pub mod tiles;
pub mod time;
pub mod workload;
