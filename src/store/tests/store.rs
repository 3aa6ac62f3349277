//! The store's behaviour, through its public face.
#![expect(clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "tests")]

#[path = "store/contract.rs"]
mod contract;
#[path = "store/fixture.rs"]
mod fixture;
#[path = "store/model.rs"]
mod model;
