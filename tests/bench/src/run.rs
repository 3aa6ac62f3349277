//! `dayfly-bench`: the broker beside an echo and the ceilings, in one run on one machine. Callers and server share the
//! cores, in every row alike, so that the ratios are fair.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use prost::Message as _;
use serde::Serialize;

use crate::calls::{self, Introspecting, Issuing};
use crate::load::{Cost, Plan, Row, drive};
use crate::machine::Machine;
use crate::report::{Table, shown, write_json};
use crate::serve::Server;
use crate::tls::Tls;
use crate::world::World;
use crate::{ceilings, fanout, fill};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Measures for 5 s a row instead of 20 s.
    #[arg(long)]
    quick: bool,
    /// Writes the report as JSON into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leases in the store; it is made once and kept.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    leases: u64,
    /// Connections, each with one call under way.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// Where the store is kept.
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    dir: PathBuf,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    settings: Settings,
    results: Results,
    cost: Costs,
}

#[derive(Debug, Serialize)]
struct Settings {
    connections: u16,
    tokens: usize,
    owners: u64,
    leases: u64,
    measured_secs: u64,
    request_bytes: usize,
    response_bytes: usize,
    token_bytes: usize,
}

/// The rows; their names are stable.
#[derive(Debug, Serialize)]
struct Results {
    echo: Row,
    issue_warm: Row,
    introspect: Row,
    revocation_fanout: Row,
    sign: Row,
    fdatasync: Row,
}

/// CPU a request, of the rows that have a server.
#[derive(Debug, Serialize)]
struct Costs {
    echo: Cost,
    issue_warm: Cost,
    introspect: Cost,
    revocation_fanout: Cost,
}

/// An answer of the broker, from which the echo and the signature take their sizes.
struct Sample {
    answer: dayfly_api::v1::IssueResponse,
    payload_bytes: usize,
}

/// Measures and prints.
pub(crate) async fn run(args: &RunArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {}", args.dir.display()))?;
    let plan = if args.quick {
        Plan { warm_up: Duration::from_secs(2), measure: Duration::from_secs(5) }
    } else {
        Plan { warm_up: Duration::from_secs(4), measure: Duration::from_secs(20) }
    };
    let home = fill::home(&args.dir, args.leases);
    fill::ensure(&home, args.leases).await?;
    let mut machine = Machine::now(&args.dir);
    let warnings = machine.warnings();
    let tls = Tls::make(&home)?;
    let world = World::make(&home, args.leases, &tls).await?;
    let bearers = world.tokens.iter().map(|token| calls::bearer(token)).collect::<Result<Vec<_>, _>>()?;

    eprintln!("starting the broker");
    let broker = Server::start(&[Path::new("serve-broker"), &world.config], &home.join("broker.log")).await?;
    let connections = usize::from(args.connections);
    let callers = |channels: Vec<tonic::transport::Channel>, distinct| {
        let share = |n: usize| bearers.iter().skip(n).step_by(connections).cloned().collect();
        channels
            .into_iter()
            .enumerate()
            .map(|(n, channel)| Issuing::new(channel, share(n), distinct))
            .collect::<Vec<_>>()
    };
    let mut issuing = callers(tls.connect(broker.addr(), connections).await?, true);
    let sample = sample(&mut issuing).await?;

    eprintln!("echo");
    let answer = home.join("answer");
    std::fs::write(&answer, sample.answer.encode_to_vec())?;
    let echo_server =
        Server::start(&[Path::new("serve-echo"), &home, &answer], &home.join("echo.log")).await?;
    let echoing = callers(tls.connect(echo_server.addr(), connections).await?, false);
    let (echo, echo_cost, _) = drive(echoing, plan, echo_server.id()).await?;
    echo_server.stop().await?;

    eprintln!("issue_warm");
    once_each(&mut issuing).await?;
    let (issue_warm, issue_cost, issuing) = drive(issuing, plan, broker.id()).await?;
    calls::all_distinct(&issuing)?;

    eprintln!("introspect");
    let verifier = calls::bearer(&world.verifier_token)?;
    let mut introspecting = Vec::new();
    for (channel, issued) in tls.connect(broker.addr(), connections).await?.into_iter().zip(&issuing) {
        introspecting.push(Introspecting::new(channel, verifier.clone(), issued.held().collect())?);
    }
    let (introspect, introspect_cost, _) = drive(introspecting, plan, broker.id()).await?;

    eprintln!("revocation_fanout");
    let channels = tls.connect(broker.addr(), fanout::CONNECTIONS).await?;
    let (revocation_fanout, fanout_cost) = fanout::fanout(channels, &world, broker.id()).await?;
    broker.stop().await?;

    eprintln!("ceilings");
    let (measure, dir) = (plan.measure, args.dir.clone());
    let (sign, fdatasync) = tokio::task::spawn_blocking(move || {
        anyhow::Ok((ceilings::sign(sample.payload_bytes, measure)?, ceilings::fdatasync(&dir, measure)?))
    })
    .await??;
    machine.ended();

    let report = Report {
        machine,
        settings: Settings {
            connections: args.connections,
            tokens: world.tokens.len(),
            owners: crate::leases::OWNERS,
            leases: args.leases,
            measured_secs: plan.measure.as_secs(),
            request_bytes: calls::request().encoded_len(),
            response_bytes: sample.answer.encoded_len(),
            token_bytes: world.tokens.iter().map(String::len).max().unwrap_or_default(),
        },
        results: Results {
            issue_warm: issue_warm.beside(&echo),
            introspect: introspect.beside(&echo),
            revocation_fanout,
            echo,
            sign,
            fdatasync,
        },
        cost: Costs {
            echo: echo_cost,
            issue_warm: issue_cost,
            introspect: introspect_cost,
            revocation_fanout: fanout_cost,
        },
    };
    print(&report, &warnings);
    write_json(args.json.as_deref(), &report)
}

/// One answer, and how many bytes of its credential were signed over.
async fn sample(callers: &mut [Issuing]) -> anyhow::Result<Sample> {
    let answer = callers.first_mut().context("there is no caller")?.issue().await?;
    let payload = answer.credential.split('.').nth(1).context("the credential is not a compact JWS")?;
    let payload_bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload)?.len();
    Ok(Sample { answer, payload_bytes })
}

/// Each token once, so that the broker has reviewed all of them.
async fn once_each(callers: &mut Vec<Issuing>) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for mut caller in std::mem::take(callers) {
        tasks.spawn(async move { caller.once_each().await.map(|()| caller) });
    }
    while let Some(done) = tasks.join_next().await {
        callers.push(done??);
    }
    Ok(())
}

fn print(report: &Report, warnings: &[String]) {
    let settings = &report.settings;
    println!("{}", report.machine.line());
    println!(
        "{} connections, {} tokens of {} bytes, {} owners, {} leases, {} s a row; request {} bytes, response {} bytes",
        settings.connections,
        settings.tokens,
        settings.token_bytes,
        settings.owners,
        settings.leases,
        settings.measured_secs,
        settings.request_bytes,
        settings.response_bytes
    );
    for warning in warnings {
        println!("note: {warning}");
    }
    let results = &report.results;
    let mut table = Table::new(["", "/s", "p50 µs", "p99 µs", "of the echo"]);
    let rows = [
        ("echo", &results.echo),
        ("issue_warm", &results.issue_warm),
        ("introspect", &results.introspect),
        ("revocation_fanout", &results.revocation_fanout),
        ("sign", &results.sign),
        ("fdatasync", &results.fdatasync),
    ];
    for (name, row) in rows {
        let ratio = row.ratio_to_echo.map_or_else(String::new, |ratio| format!("{:.1} %", ratio * 100.0));
        table.row([name.to_owned(), shown(row.rate), shown(row.p50_us), shown(row.p99_us), ratio]);
    }
    println!("\n{table}\n{}", costs(report));
}

/// Where the CPU of a request goes, in microseconds.
fn costs(report: &Report) -> Table {
    let Costs { echo, issue_warm, introspect, revocation_fanout } = &report.cost;
    let costs = [echo, issue_warm, introspect, revocation_fanout];
    let mut table =
        Table::new(["CPU a request, µs", "echo", "issue_warm", "introspect", "revocation_fanout"]);
    let mut row = |name: &str, cells: [f64; 4]| {
        table.row(
            std::iter::once(name.to_owned())
                .chain(cells.map(|cell| if cell > 0.0 { shown(cell) } else { String::new() })),
        );
    };
    row("callers", costs.map(|cost| cost.client_us));
    row("server", costs.map(|cost| cost.server_us));
    let mut names: Vec<_> = costs.iter().flat_map(|cost| cost.server_threads_us.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let cells = costs.map(|cost| cost.server_threads_us.get(name).copied().unwrap_or_default());
        if cells.iter().any(|cell| *cell >= 0.5) {
            row(&format!("  {name}"), cells);
        }
    }
    row("  of it the signature", [0.0, report.results.sign.p50_us, 0.0, 0.0]);
    row("cores used, %", costs.map(|cost| cost.busy * 100.0));
    table
}
