//! The command line, whole: which verbs there are and what they share.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::connect::Connection;
use crate::{
    audit, connect, dev, events, explain, introspect, issue, keys, leases, output, owners, policy, renew,
    revocations, serve, session, store, watch, whoami,
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
    /// Asks for a credential in the place of an earlier one, as a workload.
    ///
    /// It is decided by the policy and the revocations of now, for the same target and Grant. The earlier lease ends a minute
    /// later. One that has ended, or was renewed before, is not renewed: use `issue`.
    Renew(renew::Renew),
    /// Gives a lease back, as a workload: its credential is not good from then on.
    Release(renew::Release),
    /// Tells of your own leases, as a workload: those that are good now, then each change.
    Watch(watch::Watch),
    /// Says who the broker takes you for, as a workload.
    Whoami(whoami::Whoami),
    /// Says whether a credential is good now, as a verifier.
    ///
    /// The credential comes from standard input or a file, never from an argument: arguments can be read by everyone on
    /// the machine.
    Introspect(introspect::Introspect),
    /// Prints the public keys that credentials are signed with, a JWK Set; or looks after them.
    Keys(keys::Keys),
    /// Looks at leases, as an operator.
    #[command(subcommand)]
    Leases(leases::Leases),
    /// Looks at owners, as an operator.
    #[command(subcommand)]
    Owners(owners::Owners),
    /// Gets an operator's token of ten minutes, as whoever a kubeconfig says you are.
    ///
    /// Your cluster's API server says who you are, by whatever the kubeconfig holds: a client certificate, OpenID Connect, a
    /// plugin. It takes `create` on `operatorsessions.sessions.dayfly.dev`; what you may do then is asked of the API server
    /// at each call. Of the connection's options only --timeout counts.
    Session(session::Session),
    /// Says why a workload is answered as it is, as an operator.
    ///
    /// For a token, a workload that is described, a lease or a denial: every check and object, in order, and the first
    /// thing that would have to change. Nothing is issued. With `--own`, as a workload: your own reason.
    Explain(Box<explain::Explain>),
    /// Ends every credential that matches, at once, as an operator.
    ///
    /// It writes one durable rule, however many credentials that covers, and answers when it is in force. What comes
    /// after is always said: `reissue` lets those who lose their credentials ask again, `hold` does not.
    Revoke(Box<revocations::Revoke>),
    /// Looks at revocations, as an operator.
    #[command(subcommand)]
    Revocations(revocations::Revocations),
    /// Checks the audit log, and proves what is in it.
    #[command(subcommand)]
    Audit(Box<audit::Audit>),
    /// Looks at the audit log, as an operator.
    #[command(subcommand)]
    Events(Box<events::Events>),
    /// Checks policy and tries it, without a broker.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Looks after a store.
    #[command(subcommand)]
    Store(store::Store),
    /// Runs the broker.
    ///
    /// SIGTERM or SIGINT ends it in order: calls under way may end, new ones are refused. A second signal ends it at
    /// once. `DAYFLY_LOG` says what is logged: a level, or `TARGET=LEVEL`, separated by commas; `info` if not set.
    Serve(serve::Serve),
    /// Runs everything on this machine, with a guide through it.
    ///
    /// The cluster is a stand-in for the Kubernetes API, on loopback. The guide shows what Dayfly does, in seven steps
    /// through the public API, each one checked, then it stays up to be tried. Fails if a step was not as it
    /// should be.
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
            Verb::Renew(verb) => connect::run(verb.run(&connection)),
            Verb::Release(verb) => connect::run(verb.run(&connection)),
            Verb::Watch(verb) => connect::run(verb.run(&connection)),
            Verb::Whoami(verb) => connect::run(verb.run(&connection)),
            Verb::Introspect(verb) => connect::run(verb.run(&connection)),
            Verb::Keys(verb) => verb.run(&connection),
            Verb::Leases(verb) => connect::run(verb.run(&connection)),
            Verb::Owners(verb) => connect::run(verb.run(&connection)),
            Verb::Session(verb) => connect::run(verb.run(connection.timeout())),
            Verb::Explain(verb) => connect::run(verb.run(&connection)),
            Verb::Revoke(verb) => connect::run(verb.run(&connection)),
            Verb::Revocations(verb) => connect::run(verb.run(&connection)),
            Verb::Audit(verb) => verb.run(&connection),
            Verb::Events(verb) => connect::run(verb.run(&connection)),
            Verb::Policy(verb) => verb.run(),
            Verb::Store(verb) => verb.run(&connection),
            Verb::Serve(verb) => connect::run(verb.run()),
            Verb::Dev(verb) => connect::run(verb.run()),
            Verb::Version => output::print(concat!("dayfly ", env!("CARGO_PKG_VERSION"), "\n")),
        }
    }
}
