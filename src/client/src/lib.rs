//! The client of Dayfly's API: it connects, authenticates, retries, and keeps a credential fresh.
//!
//! ```no_run
//! # async fn example() -> Result<(), dayfly_client::Error> {
//! use dayfly_client::{Client, v1::IssueRequest};
//!
//! let client = Client::builder("https://dayfly.dayfly-system:8443")
//!     .ca_file("/var/run/dayfly/ca.crt")
//!     .token_file("/var/run/secrets/tokens/dayfly")
//!     .build()?;
//! let orders = client.keep_fresh(IssueRequest { target: "orders".into(), ..Default::default() }).await?;
//! let credential = orders.current()?; // never an expired one
//! # let _ = credential.secret.expose();
//! # Ok(())
//! # }
//! ```
//!
//! What it does on its own: it reads the token file again when the kubelet has replaced it, gives every call a deadline
//! (10 s), and asks again where the broker says that asking again can help (`UNAVAILABLE`, `RESOURCE_EXHAUSTED`,
//! `ABORTED`), as late as the broker's hint, at most three times more, within the deadline. Calls that write carry an
//! idempotency key, so that a repeat is the same request. A kept credential is renewed, and issued anew where the broker says
//! so; a watch that is cut calls again.

mod builder;
mod client;
mod credential;
mod error;
mod fetch;
mod fresh;
mod retry;
mod stream;
mod token;
mod watch;
mod watch_events;

pub use builder::Builder;
pub use client::Client;
pub use credential::Credential;
pub use dayfly_api::v1;
pub use dayfly_core::secret::Secret;
pub use error::{Error, Rejected};
pub use fresh::{Fresh, State};
pub use retry::Backoff;
pub use token::{TokenError, TokenFile, TokenSource};
pub use watch::Watch;
pub use watch_events::EventWatch;
