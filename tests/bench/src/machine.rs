//! The machine a run was on, and how busy it was.

use std::fs;
use std::path::Path;

use dayfly_core::clock::SystemClock;
use dayfly_core::ports::Clock as _;
use serde::Serialize;

/// The machine, and what else it was doing.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// When the run began, RFC 3339.
    pub(crate) date: String,
    /// The processor's name.
    pub(crate) cpu: String,
    /// Cores this process may use.
    pub(crate) cores: usize,
    /// Memory, in MiB.
    pub(crate) memory_mib: u64,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The file system of the benchmark's folder.
    pub(crate) file_system: String,
    /// `release` or `debug`.
    pub(crate) build: &'static str,
    /// Runnable processes over the last minute when the run began: what is above 0 is others.
    pub(crate) load_before: f64,
    /// The same when it ended; this run itself is in it.
    pub(crate) load_after: f64,
}

impl Machine {
    /// As it is now; `dir` is where the benchmark writes.
    pub(crate) fn now(dir: &Path) -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib: u64 =
            value(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
        let load = load_average();
        Self {
            date: SystemClock::new().now().to_string(),
            cpu: value(&cpus, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            file_system: file_system(dir),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            load_before: load,
            load_after: load,
        }
    }

    /// Notes how busy the machine was at the end.
    pub(crate) fn ended(&mut self) {
        self.load_after = load_average();
    }

    /// In a line, for the table.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} · {} cores of {} · Linux {} · {} · {} build · load {:.2} before, {:.2} after",
            self.date,
            self.cores,
            self.cpu,
            self.kernel,
            self.file_system,
            self.build,
            self.load_before,
            self.load_after
        )
    }

    /// What to know before trusting the numbers, if anything.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let debug = (self.build == "debug").then(|| "a debug build: nothing here is a result".to_owned());
        let busy = (self.load_before > 0.5).then(|| {
            format!(
                "the load was {:.2} before the run: rates and latencies are noise, CPU is less so",
                self.load_before
            )
        });
        debug.into_iter().chain(busy).collect()
    }
}

fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

/// The first value of `name` in lines of the form `name : value`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':')).map(str::trim)
}

/// The type of the mount that holds `dir`.
fn file_system(dir: &Path) -> String {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let of_mount = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        dir.starts_with(point).then(|| (point.len(), kind.to_owned()))
    };
    mounts.lines().filter_map(of_mount).max().map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_values_and_this_machine() {
        assert_eq!(value("a : 1\nmodel name\t: EPYC\n", "model name"), Some("EPYC"));
        let machine = Machine::now(Path::new("."));
        assert!(machine.cores > 0 && machine.memory_mib > 0 && !machine.kernel.is_empty());
    }
}
