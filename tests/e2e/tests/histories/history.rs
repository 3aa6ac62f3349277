//! What the clients saw, and what the checker says of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dayfly_core::audit::{Detail, EventKind};
use dayfly_core::clock::{SystemClock, SystemRng};
use dayfly_core::ids::Position;
use dayfly_core::ports::LeaseStore as _;
use dayfly_store::SledStore;
use serde::Serialize;

use crate::storm::{CLIENTS, Disturbance, OPERATIONS, OWNERS};

/// One operation, as its client saw it. `tests/histories/history.go` reads it.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Record {
    pub(crate) client: usize,
    pub(crate) owner: String,
    pub(crate) op: &'static str,
    /// The lease that is to be renewed or introspected.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) lease: String,
    /// Nanoseconds of the clients' one monotonic clock.
    pub(crate) call: u64,
    /// None where the answer was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) r#return: Option<u64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) answer: &'static str,
    /// Why it was refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    /// The new lease, the new rule, or the rule that ended the introspected lease.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) cut_off: String,
    /// Of a rule or an introspection, as answered; of a lease, as the broker's log has it.
    pub(crate) position: u64,
}

/// What the clients of one storm saw.
pub(crate) struct History {
    pub(crate) records: Vec<Record>,
    pub(crate) took: Duration,
    pub(crate) kills: usize,
    pub(crate) jumps: usize,
}

impl History {
    /// How often each operation got each answer.
    fn counts(&self) -> BTreeMap<(&'static str, &str), usize> {
        let mut counts = BTreeMap::new();
        for record in &self.records {
            let answer = match record.answer {
                "" => "lost",
                "refused" => record.reason.as_str(),
                other => other,
            };
            *counts.entry((record.op, answer)).or_default() += 1;
        }
        counts
    }

    /// It is as large as it has to be, and of everything there is enough. What is refused or lost does not count.
    pub(crate) fn is_of_a_storm(&self, disturbance: Disturbance) {
        let told = |record: &&Record| !matches!(record.answer, "" | "refused");
        let answered = self.records.iter().filter(told).count();
        assert!(answered >= usize::try_from(OPERATIONS).unwrap(), "{self}");
        let distinct = |of: fn(&Record) -> String| {
            let all: std::collections::BTreeSet<_> = self.records.iter().map(of).collect();
            all.len()
        };
        assert!(distinct(|record| record.client.to_string()) >= CLIENTS, "{self}");
        assert_eq!(distinct(|record| record.owner.clone()), OWNERS, "{self}");
        let counts = self.counts();
        let least = [
            (("issue", "issued"), 1000),
            (("renew", "issued"), 100),
            (("introspect", "active"), 500),
            (("introspect", "revoked"), 500),
            (("revoke", "rule"), 50),
        ];
        for (what, least) in least {
            assert!(counts.get(&what).is_some_and(|count| *count >= least), "too few of {what:?}: {self}");
        }
        let lost: usize =
            counts.iter().filter(|((_, answer), _)| *answer == "lost").map(|(_, count)| count).sum();
        match disturbance {
            Disturbance::None => assert_eq!((self.kills, self.jumps, lost), (0, 0, 0), "{self}"),
            Disturbance::KillsAndJumps => assert!(self.kills > 0 && self.jumps > 0 && lost > 0, "{self}"),
        }
    }
}

impl fmt::Display for History {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, took, kills, jumps } = self;
        write!(out, "{} operations in {took:.1?}, {kills} kills, {jumps} clock jumps:", records.len())?;
        self.counts().iter().try_for_each(|((op, answer), count)| write!(out, " {op} {answer} {count},"))
    }
}

/// The histories of one broker.
pub(crate) struct Histories {
    name: String,
    seed: u64,
    all: Vec<History>,
}

/// What the checker said.
pub(crate) struct Checked {
    pub(crate) folder: Folder,
    pub(crate) seed: u64,
    pub(crate) verdicts: Vec<Verdict>,
}

/// What the checker said of one history: its line.
pub(crate) struct Verdict(String);

impl Histories {
    pub(crate) fn new(name: &str, seed: u64) -> Self {
        Self { name: name.replace(' ', "-"), seed, all: Vec::new() }
    }

    pub(crate) fn add(&mut self, history: History) {
        self.all.push(history);
    }

    /// Takes leases' positions from the log of the stopped broker's store, writes the histories, and has them checked.
    pub(crate) async fn check(mut self, store: &Path) -> Checked {
        let folder = Folder::new();
        let log = positions(store, &folder.path().join(format!("{}.rules", self.name))).await;
        let mut checker = tokio::process::Command::new(program().await);
        for (number, history) in self.all.iter_mut().enumerate() {
            let mut text = String::new();
            for record in &mut history.records {
                // One that the log does not have, did not happen: the checker says so of position 0.
                if matches!(record.answer, "issued" | "rule") {
                    let at = log.get(&bytes_of(&record.id)).copied().unwrap_or_default();
                    assert!(
                        record.answer == "issued" || record.position == at,
                        "{at} in the log: {record:?}"
                    );
                    record.position = at;
                }
                writeln!(text, "{}", serde_json::to_string(record).unwrap()).unwrap();
            }
            let file = folder.path().join(format!("{}-{number}.jsonl", self.name));
            std::fs::write(&file, text).unwrap();
            checker.arg(file);
        }
        let output = checker.output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        print!("{text}");
        let verdicts: Vec<_> = text.lines().map(|line| Verdict(line.to_owned())).collect();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(verdicts.len(), self.all.len(), "{said}");
        Checked { folder, seed: self.seed, verdicts }
    }
}

impl Verdict {
    pub(crate) fn is_ok(&self) -> bool {
        self.0.starts_with("Ok ")
    }

    pub(crate) fn is_illegal(&self) -> bool {
        self.0.starts_with("Illegal ")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Where histories are: gone afterwards, unless they are to be kept.
pub(crate) enum Folder {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn new() -> Self {
        match std::env::var_os("DAYFLY_HISTORIES") {
            Some(kept) => {
                std::fs::create_dir_all(&kept).unwrap();
                Self::Kept(kept.into())
            }
            None => Self::Temporary(tempfile::Builder::new().prefix("dayfly-histories-").tempdir().unwrap()),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }

    pub(crate) fn keep(self) -> PathBuf {
        match self {
            Self::Temporary(folder) => folder.keep(),
            Self::Kept(folder) => folder,
        }
    }
}

/// The place of each lease and rule in the log of this store. Writes what the log says of each rule into a file.
async fn positions(store: &Path, rules: &Path) -> HashMap<[u8; 16], u64> {
    let (clock, rng) = (Arc::new(SystemClock::new()), Arc::new(SystemRng::new()));
    let store = SledStore::open(dayfly_store::Options::new(store, clock, rng)).unwrap();
    let (mut positions, mut next, mut text) = (HashMap::new(), Position::ZERO.next(), String::new());
    loop {
        let records = store.events(next, 1000).await.unwrap();
        if records.is_empty() {
            std::fs::write(rules, text).unwrap();
            return positions;
        }
        for record in records {
            let event = record.read().unwrap();
            next = event.position.next();
            if let (EventKind::Revoked, Some(detail)) = (event.kind, &event.detail) {
                let Detail { selector, cut_off, actor, reason, .. } = detail;
                let position = event.position;
                writeln!(text, "{position}: {selector} up to {cut_off}, by {actor}: {reason}").unwrap();
            }
            if let Some(subject) = event.subject {
                positions.entry(subject).or_insert(event.position.number());
            }
        }
    }
}

/// A UUID's bytes.
fn bytes_of(id: &str) -> [u8; 16] {
    let number = u128::from_str_radix(&id.replace('-', ""), 16);
    number.unwrap_or_else(|error| panic!("id {id}: {error}")).to_be_bytes()
}

/// The checker, built where it is not there yet.
async fn program() -> PathBuf {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../histories/build");
    let built = tokio::process::Command::new(build).output().await.unwrap();
    let (said, complaints) = (String::from_utf8_lossy(&built.stdout), String::from_utf8_lossy(&built.stderr));
    assert!(built.status.success(), "{complaints}");
    said.lines().last().unwrap().into()
}
