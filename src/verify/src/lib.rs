//! For resource servers: checks Dayfly's credentials offline, revocations included.
//!
//! ```no_run
//! # async fn example(token: &str) -> Result<(), Box<dyn std::error::Error>> {
//! use dayfly_verify::{Profile, Proof, Verifier};
//!
//! let issuer = "https://dayfly.example.org".to_owned();
//! let verifier = Verifier::builder(Profile::AccessToken { issuer })
//!     .audience("https://orders.example")
//!     .scope("orders:read")
//!     .broker(
//!         "https://dayfly.dayfly-system:8443",
//!         "/var/run/dayfly/ca.crt",
//!         "/var/run/secrets/tokens/dayfly-verifier",
//!     )
//!     .build()?;
//! verifier.ready().await;
//! let verified = verifier.verify(token, Proof::Nothing)?;
//! println!("{} of {}", verified.subject(), verified.owner());
//! # Ok(())
//! # }
//! ```
//!
//! In the background it keeps two things, and asks the broker nothing for a single token: the published keys, asked for every
//! few minutes and when a token names an unknown one; and what is revoked, by the stream `WatchRevocations`, which tells of a
//! new rule within a fraction of a second.
//!
//! It fails closed: every token is refused with [`Refused::RevocationsUnknown`] until the first list of revocations is whole,
//! and when the broker has been silent for 15 s (it says something every 5 s). After a broken connection it goes on from where
//! it was; where that cannot be, it gets a new list, and the earlier one stays in force until that is whole.
//!
//! Features: `tower` for a `VerifyLayer`, which axum and tonic take alike; `axum` for an extractor.

#[cfg(any(feature = "tower", feature = "axum"))]
mod bearer;
mod builder;
#[cfg(feature = "axum")]
mod extract;
mod feed;
mod keys;
#[cfg(feature = "tower")]
mod layer;
mod origin;
mod profile;
mod proof;
mod refused;
mod revocations;
mod state;
mod verified;
mod verifier;

#[cfg(any(feature = "tower", feature = "axum"))]
pub use bearer::{Challenge, NoToken, Why};
pub use builder::{Builder, Config};
pub use dayfly_client as client;
pub use dayfly_core::lease::Confirmation;
pub use dayfly_core::{digest, ids, ports, time};
#[cfg(feature = "tower")]
pub use layer::{VerifyLayer, Verifying};
pub use origin::Origin;
pub use profile::Profile;
pub use proof::Proof;
pub use refused::Refused;
pub use verified::Verified;
pub use verifier::Verifier;
