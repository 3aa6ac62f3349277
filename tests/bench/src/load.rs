//! A closed loop of callers: each asks again as soon as it is answered.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use dayfly_core::clock::SystemClock;
use dayfly_core::ports::Clock as _;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::number::{float, micros_each, nanos, per_second, rounded};
use crate::procfs::{CpuTimes, CpuUse};

/// Something that asks a server once, and checks the answer.
pub(crate) trait Caller: Send + 'static {
    /// Asks once.
    ///
    /// # Errors
    /// When the answer is not what it should be: then there is no result at all.
    fn call(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// How long to warm up and to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
}

/// A row of the report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// How many a second.
    pub(crate) rate: f64,
    /// The middle one, in microseconds.
    pub(crate) p50_us: f64,
    /// The slowest in a hundred, in microseconds.
    pub(crate) p99_us: f64,
    /// The rate, of the echo's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_to_echo: Option<f64>,
    /// How many were measured.
    pub(crate) measured: u64,
}

impl Row {
    /// From latencies in nanoseconds and the time all of them took.
    pub(crate) fn new(latencies: &Histogram<u64>, took: Duration) -> Self {
        Self {
            rate: rounded(per_second(latencies.len(), took)),
            p50_us: rounded(float(latencies.value_at_quantile(0.5)) / 1000.0),
            p99_us: rounded(float(latencies.value_at_quantile(0.99)) / 1000.0),
            ratio_to_echo: None,
            measured: latencies.len(),
        }
    }

    /// With its ratio to the echo's rate.
    #[must_use]
    pub(crate) fn beside(self, echo: &Self) -> Self {
        let ratio = self.rate / echo.rate.max(f64::MIN_POSITIVE);
        Self { ratio_to_echo: Some((ratio * 1000.0).round() / 1000.0), ..self }
    }
}

/// What a request cost in CPU, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    /// In this process: the callers.
    pub(crate) client_us: f64,
    /// In the server's process.
    pub(crate) server_us: f64,
    /// Of that, by threads; those of a kind are one.
    pub(crate) server_threads_us: std::collections::BTreeMap<String, f64>,
    /// How much of the machine's cores both used, from 0 to 1.
    pub(crate) busy: f64,
}

impl Cost {
    /// Of so many requests in the time all of them took.
    pub(crate) fn new(requests: u64, took: Duration, client: &CpuUse, server: &CpuUse) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let both = (client.total + server.total).as_secs_f64();
        let share =
            both / (took.as_secs_f64() * float(u64::try_from(cores).unwrap_or(1))).max(f64::MIN_POSITIVE);
        let threads =
            server.threads.iter().map(|(name, ran)| (name.clone(), rounded(micros_each(*ran, requests))));
        Self {
            client_us: rounded(micros_each(client.total, requests)),
            server_us: rounded(micros_each(server.total, requests)),
            server_threads_us: threads.filter(|(_, micros)| *micros > 0.0).collect(),
            busy: (share * 100.0).round() / 100.0,
        }
    }
}

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const DONE: u8 = 2;

/// Lets all callers ask for as long as planned; gives them back with what it took.
pub(crate) async fn drive<C: Caller>(
    callers: Vec<C>,
    plan: Plan,
    server: u32,
) -> anyhow::Result<(Row, Cost, Vec<C>)> {
    let stage = Arc::new(AtomicU8::new(WARMING_UP));
    let clock = Arc::new(SystemClock::new());
    let mut tasks = JoinSet::new();
    for caller in callers {
        tasks.spawn(ask(caller, Arc::clone(&stage), Arc::clone(&clock)));
    }
    let timed = async {
        tokio::time::sleep(plan.warm_up).await;
        let (client, other) = (CpuTimes::own()?, CpuTimes::of_process(server)?);
        let began = clock.monotonic();
        stage.store(MEASURING, Ordering::Relaxed);
        tokio::time::sleep(plan.measure).await;
        stage.store(DONE, Ordering::Relaxed);
        let took = clock.monotonic().saturating_sub(began);
        anyhow::Ok((took, CpuTimes::own()?.since(&client), CpuTimes::of_process(server)?.since(&other)))
    };
    let (mut latencies, mut callers) = (Histogram::new(3)?, Vec::new());
    let gathered = async {
        while let Some(done) = tasks.join_next().await {
            let (caller, took) = done??;
            latencies.add(took)?;
            callers.push(caller);
        }
        anyhow::Ok(())
    };
    // A caller that fails ends the run at once.
    let ((took, client, server), ()) = tokio::try_join!(timed, gathered)?;
    anyhow::ensure!(!latencies.is_empty(), "not one call was answered in {took:?}");
    Ok((Row::new(&latencies, took), Cost::new(latencies.len(), took, &client, &server), callers))
}

async fn ask<C: Caller>(
    mut caller: C,
    stage: Arc<AtomicU8>,
    clock: Arc<SystemClock>,
) -> anyhow::Result<(C, Histogram<u64>)> {
    let mut latencies = Histogram::new(3)?;
    loop {
        let began_in = stage.load(Ordering::Relaxed);
        if began_in == DONE {
            return Ok((caller, latencies));
        }
        let asked = clock.monotonic();
        caller.call().await?;
        if began_in == MEASURING {
            latencies.record(nanos(clock.monotonic().saturating_sub(asked)))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Napping(u32);

    impl Caller for Napping {
        async fn call(&mut self) -> anyhow::Result<()> {
            tokio::time::sleep(Duration::from_millis(2)).await;
            self.0 += 1;
            anyhow::ensure!(self.0 < 10_000, "too many");
            Ok(())
        }
    }

    const SHORT: Plan = Plan { warm_up: Duration::from_millis(20), measure: Duration::from_millis(100) };

    #[tokio::test]
    async fn only_what_is_measured_counts() {
        let (row, cost, callers) =
            drive(vec![Napping(0), Napping(0)], SHORT, std::process::id()).await.unwrap();
        let asked: u32 = callers.iter().map(|caller| caller.0).sum();
        assert!(row.measured > 0 && row.measured < asked.into());
        assert!(row.p50_us >= 2000.0 && cost.busy < 1.5);
        let half = Row { rate: row.rate / 2.0, ..row.clone() }.beside(&row);
        assert_eq!(half.ratio_to_echo, Some(0.5));
    }

    #[tokio::test]
    async fn a_wrong_answer_is_no_result() {
        assert!(drive(vec![Napping(10_000)], SHORT, std::process::id()).await.is_err());
    }
}
