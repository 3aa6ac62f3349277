//! `dayfly-bench`: what issuing costs, beside the ceilings of the machine it runs on. One run, one machine, one table.
//!
//! - `dayfly-bench` compares the real broker with a bare gRPC echo in the same run: [`run`].
//! - `dayfly-bench store` is the gate of the embedded store: [`gate`].
//!
//! Servers are this same binary, started anew with a hidden subcommand: [`serve`]. `docs/reference/benchmarks.md` says
//! what each row is.

mod calls;
mod ceilings;
mod fanout;
mod fill;
mod gate;
mod leases;
mod load;
mod machine;
mod number;
mod procfs;
mod report;
mod run;
mod serve;
mod tls;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// `dayfly`'s own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Dayfly on this machine. Without a subcommand: issuing and introspecting, beside an echo and the ceilings.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The store's gate: commits, CPU, memory and opening with a million leases.
    Store(gate::GateArgs),
    /// Opens a store and measures that: a part of `store`, in a process of its own.
    #[command(hide = true)]
    OpenStore(gate::open::OpenArgs),
    /// Makes the store that `issue_warm` runs on.
    #[command(hide = true)]
    FillStore(fill::FillArgs),
    /// Runs the broker until standard input ends.
    #[command(hide = true)]
    ServeBroker(serve::BrokerArgs),
    /// Runs the echo until standard input ends.
    #[command(hide = true)]
    ServeEcho(serve::EchoArgs),
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    // As many workers as cores, as `dayfly serve` has.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            None => run::run(&cli.run).await.map(|()| ExitCode::SUCCESS),
            Some(Command::Store(args)) => gate::run(&args).await,
            Some(Command::OpenStore(args)) => gate::open::open(&args).await.map(|()| ExitCode::SUCCESS),
            Some(Command::FillStore(args)) => fill::fill(&args).await.map(|()| ExitCode::SUCCESS),
            Some(Command::ServeBroker(args)) => serve::broker(&args).await.map(|()| ExitCode::SUCCESS),
            Some(Command::ServeEcho(args)) => serve::echo(&args).await.map(|()| ExitCode::SUCCESS),
        }
    })
}
