//! The store's behaviour, through its public face.

#[path = "store/smoke.rs"]
mod smoke;
