//! The broker as a server: configuration, TLS, tower layers, tonic and axum services, and the one place where ports
//! and adapters are wired together.

mod config;
mod guard;
mod listener;

pub use config::{Config, ConfigError};
