//! `dayfly-bench store`: whether the embedded store is good enough to build on.
//!
//! One store takes a million leases in groups of several sizes, then half as many again while as many are pruned, and is
//! then opened by a process of its own. Time in the store is a clock of ours: with each lease it goes on by the
//! retention divided by the leases, so that pruning begins when the million is full and then keeps pace.

pub(crate) mod open;
mod phase;

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dayfly_core::clock::{SystemClock, SystemRng};
use dayfly_core::limits::Limits;
use dayfly_core::ports::Clock;
use dayfly_core::time::Timestamp;
use dayfly_store::{Options, SledStore};
use serde::Serialize;

use crate::leases::{LeaseMaker, SteppingClock};
use crate::machine::Machine;
use crate::number::{float, rounded};
use crate::procfs::MemorySampler;
use crate::report::{Table, shown, write_json};
use open::Opened;
use phase::{Bench, Payload, Phase};

/// How long the store keeps a lease, by its clock.
const RETENTION: Duration = Duration::from_secs(3600);
/// The store's clock when it is made.
const START: Timestamp = Timestamp::from_secs(1_795_392_000);
/// Commits outstanding at once, and their share of a phase's leases in hundredths: one alone, and twice the groups of 8,
/// 64 and 32, since half of what is outstanding is being answered. The size that is gated comes last, on the largest
/// store.
const GROUPS: [(u64, u64); 4] = [(1, 5), (16, 10), (128, 15), (64, 70)];
/// What is outstanding where groups are of 32, which is what the aim is for.
const GATED: u64 = 64;
const AIM_CPU_MICROS: f64 = 45.0;
const AIM_RESIDENT_MIB: f64 = 400.0;
const AIM_OPEN_SECS: f64 = 2.0;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct GateArgs {
    /// Leases in the store before pruning begins.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(2_000..=100_000_000))]
    leases: u64,
    /// Writes the report as JSON into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Exits with 1 if an aim is missed.
    #[arg(long = "gate")]
    fail: bool,
    #[command(flatten)]
    tuning: Tuning,
    /// Where to make the store; it is removed afterwards.
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    dir: PathBuf,
}

/// Settings of the store to try others than its defaults with.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Tuning {
    /// sled's page cache, in MiB, where not the store's default.
    #[arg(long, value_name = "MIB")]
    cache_mib: Option<u64>,
    /// Leases kept in memory, where not the store's default.
    #[arg(long, value_name = "LEASES")]
    recent_leases: Option<usize>,
    /// Idempotency keys kept in memory, where not the store's default.
    #[arg(long, value_name = "KEYS")]
    recent_keys: Option<usize>,
}

#[derive(Debug, Serialize)]
struct GateReport {
    machine: Machine,
    leases: u64,
    /// CPU of making one lease, which every `cpu_us` holds too.
    make_lease_us: f64,
    payload: Payload,
    issue: Vec<Phase>,
    issue_and_prune: Vec<Phase>,
    open: Opened,
    /// Opened once more: sled's own snapshot is fresh then.
    open_again: Opened,
    store_mib: f64,
    aims: Vec<Aim>,
}

#[derive(Debug, Serialize)]
struct Aim {
    what: &'static str,
    at_most: f64,
    measured: f64,
    met: bool,
}

impl Aim {
    fn at_most(what: &'static str, aim: f64, measured: f64) -> Self {
        Self { what, at_most: aim, measured, met: measured <= aim }
    }
}

/// Measures, prints, and says by the exit code whether the aims are met, where that is asked.
pub(crate) async fn run(args: &GateArgs) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {}", args.dir.display()))?;
    let dir = args.dir.join("gate");
    remove(&dir)?;
    let mut machine = Machine::now(&args.dir);
    let warnings = machine.warnings();

    let clock = Arc::new(SteppingClock::at(START));
    let step = u64::try_from(RETENTION.as_micros())? / args.leases;
    let maker = Arc::new(LeaseMaker::new()?);
    let make_lease_us = rounded(phase::cost_of_making(&maker)?);
    let memory = MemorySampler::start()?;
    let store = open_store(&dir, args.tuning, Arc::clone(&clock) as Arc<dyn Clock>)?;
    // Past the window of idempotency keys, in which a store that was just opened looks for them on disk.
    clock.step(u64::try_from(Limits::default().idempotency.as_micros())?);
    let bench = Bench { store: &store, maker: &maker, clock: &clock, step, memory: &memory };
    let (mut issued, mut issue, mut issue_and_prune) = (0, Vec::new(), Vec::new());
    for (group, share) in GROUPS {
        let leases = args.leases * share / 100;
        issue.push(bench.phase(group, issued, leases).await?);
        issued += leases;
        progress("issue", issue.last());
    }
    anyhow::ensure!(
        store.leases_kept() == issued,
        "the store keeps {} leases of {issued}",
        store.leases_kept()
    );
    for (group, share) in GROUPS {
        let leases = args.leases * share / 200;
        issue_and_prune.push(bench.phase(group, issued, leases).await?);
        issued += leases;
        progress("issue+prune", issue_and_prune.last());
    }
    let kept = store.leases_kept();
    anyhow::ensure!(
        kept.abs_diff(args.leases) <= args.leases / 20,
        "pruning does not keep pace: the store keeps {kept} leases where {} should be",
        args.leases
    );
    tokio::task::spawn_blocking(move || store.close()).await?;
    let store_mib = rounded(float(bytes(&dir)?) / 1_048_576.0);
    let open = opened_elsewhere(&dir, args.tuning, clock.now()).await?;
    anyhow::ensure!(open.leases == kept, "after opening the store keeps {} leases of {kept}", open.leases);
    let open_again = opened_elsewhere(&dir, args.tuning, clock.now()).await?;
    remove(&dir)?;
    machine.ended();

    let aims = aims(&issue, &issue_and_prune, &open);
    let report = GateReport {
        machine,
        leases: args.leases,
        make_lease_us,
        payload: Payload::of(&maker)?,
        issue,
        issue_and_prune,
        open,
        open_again,
        store_mib,
        aims,
    };
    print(&report, &warnings);
    write_json(args.json.as_deref(), &report)?;
    let met = report.aims.iter().all(|aim| aim.met);
    Ok(if args.fail && !met { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn aims(issue: &[Phase], issue_and_prune: &[Phase], open: &Opened) -> Vec<Aim> {
    let gated = |phases: &[Phase]| {
        phases.iter().find(|phase| phase.outstanding == GATED).map_or(f64::INFINITY, |phase| phase.cpu_us)
    };
    let phases = issue.iter().chain(issue_and_prune);
    let resident = phases.map(|phase| phase.resident_mib).fold(open.resident_mib, f64::max);
    vec![
        Aim::at_most("CPU a lease in groups of 32, µs", AIM_CPU_MICROS, gated(issue)),
        Aim::at_most("most resident memory, MiB", AIM_RESIDENT_MIB, resident),
        Aim::at_most("opening until ready, s", AIM_OPEN_SECS, open.open_ms / 1000.0),
    ]
}

/// Opens the store of the gate, whose clock stands where `clock` does.
fn open_store(dir: &Path, tuning: Tuning, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<SledStore>> {
    let default = Options::new(dir, clock, Arc::new(SystemRng::new()));
    Ok(SledStore::open(Options {
        retention: RETENTION,
        cache_bytes: tuning.cache_mib.map_or(default.cache_bytes, |mib| mib * 1_048_576),
        recent_leases: tuning.recent_leases.unwrap_or(default.recent_leases),
        recent_keys: tuning.recent_keys.unwrap_or(default.recent_keys),
        ..default
    })?)
}

/// Opens the store in a process of its own, whose memory holds nothing else.
async fn opened_elsewhere(dir: &Path, tuning: Tuning, at: Timestamp) -> anyhow::Result<Opened> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.arg("open-store").arg(dir).arg(at.as_millis().to_string());
    if let Some(mib) = tuning.cache_mib {
        command.arg("--cache-mib").arg(mib.to_string());
    }
    let output = command.stderr(Stdio::inherit()).output().await?;
    anyhow::ensure!(output.status.success(), "opening the store failed: {}", output.status);
    serde_json::from_slice(&output.stdout).context("the process that opened the store said something else")
}

fn remove(dir: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Bytes of the files in a folder.
fn bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let about = entry.metadata()?;
        sum += if about.is_dir() { bytes(&entry.path())? } else { about.len() };
    }
    Ok(sum)
}

fn progress(what: &str, phase: Option<&Phase>) {
    if let Some(phase) = phase {
        eprintln!("{what}, {} outstanding: {} leases, {:.0}/s", phase.outstanding, phase.leases, phase.rate);
    }
}

fn print(report: &GateReport, warnings: &[String]) {
    println!("{}", report.machine.line());
    for warning in warnings {
        println!("note: {warning}");
    }
    println!();
    let headings = [
        "phase",
        "outstanding",
        "group",
        "leases",
        "/s",
        "p50 ms",
        "p99 ms",
        "CPU µs",
        "writer",
        "sled",
        "others",
        "max MiB",
    ];
    let mut table = Table::new(headings);
    let issue = report.issue.iter().map(|phase| ("issue", phase));
    let issue_and_prune = report.issue_and_prune.iter().map(|phase| ("issue+prune", phase));
    for (name, phase) in issue.chain(issue_and_prune) {
        table.row([
            name.to_owned(),
            phase.outstanding.to_string(),
            shown(phase.actual_group),
            phase.leases.to_string(),
            shown(phase.rate),
            format!("{:.2}", phase.p50_ms),
            format!("{:.2}", phase.p99_ms),
            shown(phase.cpu_us),
            shown(phase.writer_us),
            shown(phase.sled_us),
            shown(phase.others_us),
            shown(phase.resident_mib),
        ]);
    }
    println!("{table}");
    println!(
        "CPU is of the whole process, a lease; of that {} µs is making the lease. A lease is a record of {} bytes, an \
         event of {} bytes, and a basis of {} bytes in common with others; the store of {} leases has {:.0} MiB on disk.",
        report.make_lease_us,
        report.payload.record,
        report.payload.event,
        report.payload.basis,
        report.open.leases,
        report.store_mib
    );
    for (what, open) in [("first open", &report.open), ("second open", &report.open_again)] {
        print_opened(what, open);
    }
    println!();
    let mut table = Table::new(["", "aim", "measured", ""]);
    for aim in &report.aims {
        let verdict = if aim.met { "met" } else { "MISSED" };
        table.row([
            aim.what.to_owned(),
            format!("≤ {}", aim.at_most),
            shown(aim.measured),
            verdict.to_owned(),
        ]);
    }
    print!("{table}");
}

fn print_opened(what: &str, open: &Opened) {
    println!(
        "{what}: {:.0} ms, {:.0} ms of CPU, {:.0} MiB resident; first commit after {:.1} ms; a page of 100 of an \
         owner's leases p50 {:.0} µs, p99 {:.0} µs",
        open.open_ms,
        open.cpu_ms,
        open.resident_mib,
        open.first_commit_ms,
        open.page_p50_us,
        open.page_p99_us,
    );
}

/// A stopwatch: the system's monotonic clock.
pub(crate) fn stopwatch() -> SystemClock {
    SystemClock::new()
}
