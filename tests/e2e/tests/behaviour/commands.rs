//! The command line beside a broker that has a socket of its own.

use dayfly_e2e::broker::{Broker, Options};
use serde_json::Value;

pub(crate) fn with_socket() -> Options {
    Options { socket: true, ..Options::default() }
}

/// Runs a command that must succeed, and gives its JSON.
pub(crate) async fn json(broker: &Broker, arguments: &[&str]) -> Value {
    let (status, said) = broker.command(&[arguments, &["-o", "json"]].concat()).await.unwrap();
    assert!(status.success(), "{arguments:?}: {said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Runs a command that must fail, and gives what it said.
pub(crate) async fn fails(broker: &Broker, arguments: &[&str]) -> String {
    let (status, said) = broker.command(arguments).await.unwrap();
    assert!(!status.success(), "{arguments:?}: {said}");
    said
}
