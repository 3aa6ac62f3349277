//! What the kernel says of a process: CPU by thread, and resident memory.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;

/// The unit of times in `/proc/PID/stat`: 1/100 s on every Linux that is in use.
const TICK: Duration = Duration::from_millis(10);
const SAMPLE_EVERY: Duration = Duration::from_millis(20);

/// The CPU time of a process so far.
#[derive(Debug, Clone)]
pub(crate) struct CpuTimes {
    total: Duration,
    threads: BTreeMap<u32, (String, Duration)>,
}

/// The CPU time of a process between two moments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CpuUse {
    /// All of it, ended threads too.
    pub(crate) total: Duration,
    /// By the name of the threads that live; a name's trailing number is dropped.
    pub(crate) threads: BTreeMap<String, Duration>,
}

impl CpuTimes {
    /// This process'.
    pub(crate) fn own() -> anyhow::Result<Self> {
        Self::of("self")
    }

    /// Another process', by its id.
    pub(crate) fn of_process(id: u32) -> anyhow::Result<Self> {
        Self::of(&id.to_string())
    }

    fn of(process: &str) -> anyhow::Result<Self> {
        let path = format!("/proc/{process}/stat");
        let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let total = total(&stat).with_context(|| format!("{path} is not as expected"))?;
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{process}/task"))? {
            let entry = entry?;
            let id = entry.file_name().to_string_lossy().parse()?;
            let (name, ran) = (
                fs::read_to_string(entry.path().join("comm")),
                fs::read_to_string(entry.path().join("schedstat")),
            );
            // A thread may end while we look.
            let (Ok(name), Ok(ran)) = (name, ran) else { continue };
            let ran = ran.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default();
            threads.insert(id, (kind(name.trim()).to_owned(), Duration::from_nanos(ran)));
        }
        Ok(Self { total, threads })
    }

    /// What was used since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> CpuUse {
        let mut threads = BTreeMap::new();
        for (id, (name, ran)) in &self.threads {
            let before = earlier.threads.get(id).map_or(Duration::ZERO, |(_, ran)| *ran);
            *threads.entry(name.clone()).or_insert(Duration::ZERO) += ran.saturating_sub(before);
        }
        CpuUse { total: self.total.saturating_sub(earlier.total), threads }
    }
}

impl CpuUse {
    /// The time of threads whose name starts so.
    pub(crate) fn of_threads(&self, name: &str) -> Duration {
        self.threads.iter().filter(|(thread, _)| thread.starts_with(name)).map(|(_, ran)| *ran).sum()
    }
}

/// User and system time: fields 14 and 15, counted after the name, which may hold blanks and brackets.
fn total(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(TICK * (user + system))
}

/// A thread's name without the number that tells it from its like.
fn kind(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['-', '_'])
}

/// Resident memory of this process now, in bytes.
pub(crate) fn resident_bytes() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("/proc/self/status has no VmRSS")? * 1024)
}

/// Samples this process' resident memory on a thread of its own, until it is dropped.
pub(crate) struct MemorySampler {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MemorySampler {
    /// Begins.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let (most, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (highest, stopped) = (Arc::clone(&most), Arc::clone(&stop));
        let sample = move || {
            while !stopped.load(Ordering::Relaxed) {
                highest.fetch_max(resident_bytes().unwrap_or_default(), Ordering::Relaxed);
                std::thread::sleep(SAMPLE_EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("bench-memory".to_owned()).spawn(sample)?;
        Ok(Self { most, stop, thread: Some(thread) })
    }

    /// The most seen since the last time this was asked, in bytes.
    pub(crate) fn take_most(&self) -> u64 {
        let now = resident_bytes().unwrap_or_default();
        self.most.swap(0, Ordering::Relaxed).max(now)
    }
}

impl Drop for MemorySampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does nothing that can fail.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_behind_an_odd_name() {
        let stat = "42 (a) b (c) S 1 1 1 0 -1 4194304 1 2 3 4 150 50 7 8 20 0 3 0 100 200 300";
        assert_eq!(total(stat), Some(Duration::from_secs(2)));
        assert_eq!(total("42 (a)"), None);
    }

    #[test]
    fn threads_of_a_kind_are_one() {
        let names = ["store-reader-1", "store-writer", "tokio-rt-worker", "worker_12"].map(kind);
        assert_eq!(names, ["store-reader", "store-writer", "tokio-rt-worker", "worker"]);
    }

    #[test]
    fn own_use_grows_and_memory_is_seen() {
        let before = CpuTimes::own().unwrap();
        let sampler = MemorySampler::start().unwrap();
        let sum = (0..50_000_000_u64).fold(0_u64, |sum, n| sum.wrapping_add(std::hint::black_box(n)));
        assert!(std::hint::black_box(sum) > 0);
        let used = CpuTimes::own().unwrap().since(&before);
        assert!(used.threads.values().sum::<Duration>() > Duration::ZERO);
        assert!(sampler.take_most() > 1024 * 1024);
    }
}
