//! Dayfly's public API: the code generated from `proto/dayfly/v1`, its conversions to and from core, and the form of
//! every rejection.
//!
//! The protobuf is the reference: its comments say units, limits and errors. `just gen` writes [`v1`] anew.

mod convert;
mod events;
pub mod rejection;
mod secret_messages;

pub use convert::{
    BadField, Thumbprints, confirmation, lease, lease_for_its_workload, lease_for_operators, lease_state,
    policy_object, provenance, revocation_rule, rule, selector, timestamp, workload,
};
pub use events::{event, event_record};

/// The generated code.
#[expect(
    clippy::pedantic,
    clippy::large_enum_variant,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    reason = "generated"
)]
pub mod v1 {
    include!("generated/dayfly.v1.rs");
}

/// The descriptors of the API and of all it imports, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/dayfly.v1.bin");

/// Metadata that chooses among clusters of one issuer.
pub const CLUSTER_METADATA: &str = "dayfly-cluster";
