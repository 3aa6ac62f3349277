//! One phase of the gate: leases committed with so many commits outstanding.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dayfly_core::audit::{Draft, SALT_BYTES};
use dayfly_core::change::{Change, Draw, Outcome};
use dayfly_core::encoding::{Own, encode_basis};
use dayfly_core::ids::{LeaseId, Position};
use dayfly_core::ports::{Clock as _, LeaseStore as _};
use dayfly_store::SledStore;
use hdrhistogram::Histogram;
use prost::Message as _;
use serde::Serialize;
use tokio::task::JoinSet;

use super::{START, stopwatch};
use crate::leases::{LeaseMaker, SteppingClock};
use crate::number::{float, micros_each, nanos, per_second, rounded};
use crate::procfs::{CpuTimes, MemorySampler};

/// What the phases share.
pub(crate) struct Bench<'a> {
    pub(crate) store: &'a Arc<SledStore>,
    pub(crate) maker: &'a Arc<LeaseMaker>,
    pub(crate) clock: &'a Arc<SteppingClock>,
    /// How far the clock goes with each lease, in microseconds.
    pub(crate) step: u64,
    pub(crate) memory: &'a MemorySampler,
}

/// What a phase cost.
#[derive(Debug, Serialize)]
pub(crate) struct Phase {
    /// Commits outstanding at once.
    pub(crate) outstanding: u64,
    /// Leases in a commit group, on average.
    pub(crate) actual_group: f64,
    /// Leases committed.
    pub(crate) leases: u64,
    /// Leases a second.
    pub(crate) rate: f64,
    /// From asking for the commit to its answer, in milliseconds.
    pub(crate) p50_ms: f64,
    /// The same, the slowest in a hundred.
    pub(crate) p99_ms: f64,
    /// CPU of the whole process a lease, in microseconds.
    pub(crate) cpu_us: f64,
    /// Of it the store's writer.
    pub(crate) writer_us: f64,
    /// Of it sled's own threads.
    pub(crate) sled_us: f64,
    /// Of it everything else: making leases, waking tasks.
    pub(crate) others_us: f64,
    /// The most resident memory, in MiB.
    pub(crate) resident_mib: f64,
}

impl Bench<'_> {
    /// Commits `leases` leases, numbered from `first`, with `outstanding` commits outstanding.
    pub(crate) async fn phase(&self, outstanding: u64, first: u64, leases: u64) -> anyhow::Result<Phase> {
        let next = Arc::new(AtomicU64::new(first));
        let seen = Arc::new(Groups::default());
        let watch = stopwatch();
        let before = CpuTimes::own()?;
        let mut tasks = JoinSet::new();
        for _ in 0..outstanding {
            tasks.spawn(issue(Issuing {
                store: Arc::clone(self.store),
                maker: Arc::clone(self.maker),
                clock: Arc::clone(self.clock),
                step: self.step,
                next: Arc::clone(&next),
                end: first + leases,
                seen: Arc::clone(&seen),
            }));
        }
        let mut latencies = Histogram::<u64>::new(3)?;
        while let Some(done) = tasks.join_next().await {
            latencies.add(done??)?;
        }
        let took = watch.monotonic();
        let used = CpuTimes::own()?.since(&before);
        anyhow::ensure!(latencies.len() == leases, "{} of {leases} leases were committed", latencies.len());
        let (writer, sled) = (used.of_threads("store-writer"), used.of_threads("sled"));
        let millis = |quantile| rounded(float(latencies.value_at_quantile(quantile)) / 1e4) / 100.0;
        Ok(Phase {
            outstanding,
            actual_group: rounded(float(leases) / float(seen.count.load(Ordering::Relaxed).max(1))),
            leases,
            rate: rounded(per_second(leases, took)),
            p50_ms: millis(0.5),
            p99_ms: millis(0.99),
            cpu_us: rounded(micros_each(used.total, leases)),
            writer_us: rounded(micros_each(writer, leases)),
            sled_us: rounded(micros_each(sled, leases)),
            others_us: rounded(micros_each(used.total.saturating_sub(writer + sled), leases)),
            resident_mib: rounded(float(self.memory.take_most()) / 1_048_576.0),
        })
    }
}

struct Issuing {
    store: Arc<SledStore>,
    maker: Arc<LeaseMaker>,
    clock: Arc<SteppingClock>,
    step: u64,
    next: Arc<AtomicU64>,
    end: u64,
    seen: Arc<Groups>,
}

/// Draws, makes and commits one lease after the other; gives how long each commit took, in nanoseconds.
async fn issue(of: Issuing) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = Histogram::new(3)?;
    let watch = stopwatch();
    loop {
        let number = of.next.fetch_add(1, Ordering::Relaxed);
        if number >= of.end {
            return Ok(latencies);
        }
        of.clock.step(of.step);
        let change = of.maker.issue(number, of.store.draw()?)?;
        let asked = watch.monotonic();
        match of.store.commit(change).await? {
            Outcome::Committed(_) => {}
            other => anyhow::bail!("lease {number} was not committed: {other:?}"),
        }
        latencies.record(nanos(watch.monotonic().saturating_sub(asked)))?;
        of.seen.at(of.store.mark().position);
    }
}

/// Counts commit groups by their ends. Whoever is answered looks where the store is, which is the end of its own group:
/// the next one takes a sync longer. A group that nobody saw in time is counted with the next.
#[derive(Default)]
struct Groups {
    last: AtomicU64,
    count: AtomicU64,
}

impl Groups {
    fn at(&self, end: Position) {
        if self.last.fetch_max(end.number(), Ordering::Relaxed) < end.number() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a lease brings to the store, beside its keys, in bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Payload {
    /// What is its own.
    pub(crate) record: usize,
    /// Its basis, which it mostly has in common with others.
    pub(crate) basis: usize,
    /// Its event in the audit log.
    pub(crate) event: usize,
}

impl Payload {
    /// Of one lease as the maker makes them.
    pub(crate) fn of(maker: &LeaseMaker) -> anyhow::Result<Self> {
        let draw = Draw { id: LeaseId::first_at(START), position: Position::ZERO, now: START };
        let Change::Issue(issue) = maker.issue(1, draw)? else { anyhow::bail!("the change is no issue") };
        let (event, _) = Draft::issued(&issue.lease).place(Position::new(1), START, [0; SALT_BYTES]);
        let record = Own::of(&issue.lease, LeaseId::from_u128(0)).encode();
        Ok(Self { record: record.len(), basis: encode_basis(&issue.lease).len(), event: event.encoded_len() })
    }
}

/// The CPU of making one lease, in microseconds.
pub(crate) fn cost_of_making(maker: &LeaseMaker) -> anyhow::Result<f64> {
    const LEASES: u64 = 50_000;
    let watch = stopwatch();
    for number in 0..LEASES {
        let draw = Draw { id: LeaseId::from_u128(number.into()), position: Position::ZERO, now: START };
        std::hint::black_box(maker.issue(number, draw)?);
    }
    Ok(micros_each(watch.monotonic(), LEASES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_once() {
        let groups = Groups::default();
        for end in [3, 3, 1, 8, 8, 3] {
            groups.at(Position::new(end));
        }
        assert_eq!(groups.count.load(Ordering::Relaxed), 2);
    }
}
