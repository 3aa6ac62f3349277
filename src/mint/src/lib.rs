//! The credential engines, a folder each; they sign only through [`Signer`](dayfly_core::ports::Signer).
//!
//! To add one: a module here that implements [`Engine`](dayfly_core::ports::Engine), and its place in the server's
//! wiring. An engine decides nothing: the order says all of what is to be made.

pub mod jwt;
pub mod signed;
pub mod status_list;
pub mod svid;
