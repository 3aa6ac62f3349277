//! The command line, whole: which verbs there are and what they share.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::connect::Connection;
use crate::{
    connect, dev, introspect, issue, keys, leases, output, owners, policy, revocations, serve, store, whoami,
};

/// Short-lived credentials for Kubernetes workloads, owned and ended by their owners.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 denied, 4 the broker or something under it is not available.
#[derive(Parser)]
#[command(name = "dayfly", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Asks for a credential, as a workload.
    Issue(issue::Issue),
    /// Says who the broker takes you for, as a workload.
    Whoami(whoami::Whoami),
    /// Says whether a credential is good now, as a verifier. The credential comes from a file or standard input.
    Introspect(introspect::Introspect),
    /// Prints the public keys that credentials are signed with, as a JWK Set.
    Keys(keys::Keys),
    /// Looks at leases, as an operator.
    #[command(subcommand)]
    Leases(leases::Leases),
    /// Looks at owners, as an operator.
    #[command(subcommand)]
    Owners(owners::Owners),
    /// Ends every credential that the selector covers, at once, as an operator.
    Revoke(Box<revocations::Revoke>),
    /// Looks at revocations, as an operator.
    #[command(subcommand)]
    Revocations(revocations::Revocations),
    /// Checks policy.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Looks after a store.
    #[command(subcommand)]
    Store(store::Store),
    /// Runs the broker until SIGTERM or SIGINT, then drains; a second signal ends it at once.
    Serve(serve::Serve),
    /// Runs everything on this machine, shows what Dayfly does in seven checked steps, and stays up to be tried.
    Dev(dev::Dev),
    /// Prints the version.
    Version,
}

impl Cli {
    /// Does what was asked.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { connection, verb } = self;
        match verb {
            Verb::Issue(verb) => connect::run(verb.run(&connection)),
            Verb::Whoami(verb) => connect::run(verb.run(&connection)),
            Verb::Introspect(verb) => connect::run(verb.run(&connection)),
            Verb::Keys(verb) => connect::run(verb.run(&connection)),
            Verb::Leases(verb) => connect::run(verb.run(&connection)),
            Verb::Owners(verb) => connect::run(verb.run(&connection)),
            Verb::Revoke(verb) => connect::run(verb.run(&connection)),
            Verb::Revocations(verb) => connect::run(verb.run(&connection)),
            Verb::Policy(verb) => verb.run(),
            Verb::Store(verb) => verb.run(),
            Verb::Serve(verb) => connect::run(verb.run()),
            Verb::Dev(verb) => connect::run(verb.run()),
            Verb::Version => output::print(concat!("dayfly ", env!("CARGO_PKG_VERSION"), "\n")),
        }
    }
}
