//! `dayfly`: serve the broker, try it on a bare machine, and the verbs of workloads, verifiers and operators.

mod args;
mod audit;
mod connect;
mod dev;
mod events;
mod explain;
mod failure;
mod introspect;
mod issue;
mod keys;
mod leases;
mod logging;
mod output;
mod owners;
mod policy;
mod renew;
mod revocations;
mod serve;
mod session;
mod signals;
mod store;
mod teardown;
mod view;
mod watch;
mod whoami;

use std::process::ExitCode;

use clap::Parser;

/// See `docs/decisions/allocator.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A store that is broken on purpose, for a test, is in no program that anybody runs.
const _: () = assert!(!dayfly_server::IS_BROKEN);

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    cli.run().unwrap_or_else(|error| failure::tell(&error))
}
