//! The use cases over in-memory ports, named by behaviour.
#![expect(clippy::unwrap_used, clippy::panic, reason = "fixtures of tests")]

mod attest;
mod caps;
mod checkpoint;
mod clusters;
mod credential;
mod events;
mod explain;
mod images;
mod introspect;
mod issue;
mod lift;
mod list;
mod reconcile;
mod release;
mod renew;
mod repeat;
mod revocations;
mod revoke;
mod rights;
mod sessions;
mod support;
mod teardown;
mod unwritten;
mod watch;
mod watch_revocations;
