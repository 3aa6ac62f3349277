//! Opening a store with a million leases, in a process that does nothing else.

use std::path::PathBuf;
use std::sync::Arc;

use dayfly_core::change::{LeaseFilter, Outcome};
use dayfly_core::ports::{Clock, LeaseStore as _};
use dayfly_core::rule::Selector;
use dayfly_core::time::Timestamp;
use dayfly_store::SledStore;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{Tuning, open_store, stopwatch};
use crate::leases::{OWNERS, SteppingClock, owner_name};
use crate::number::{float, micros, nanos, rounded};
use crate::procfs::{CpuTimes, resident_bytes};

const PAGE: usize = 100;

/// Which store, and when.
#[derive(Debug, clap::Args)]
pub(crate) struct OpenArgs {
    dir: PathBuf,
    /// The store's time: milliseconds since the Unix epoch.
    at_millis: u64,
    #[command(flatten)]
    tuning: Tuning,
}

/// What opening cost.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// Leases found.
    pub(crate) leases: u64,
    /// Until the store takes commits, in milliseconds.
    pub(crate) open_ms: f64,
    /// CPU of that, in milliseconds.
    pub(crate) cpu_ms: f64,
    /// Resident memory then, in MiB.
    pub(crate) resident_mib: f64,
    /// How long the first commit took, in milliseconds.
    pub(crate) first_commit_ms: f64,
    /// A page of 100 of an owner's leases, in microseconds.
    pub(crate) page_p50_us: f64,
    /// The same, the slowest in a hundred.
    pub(crate) page_p99_us: f64,
}

/// Opens the store, reads a page for each owner, commits one change that leaves the leases as they are, and prints
/// [`Opened`] as JSON.
pub(crate) async fn open(args: &OpenArgs) -> anyhow::Result<()> {
    let clock = Arc::new(SteppingClock::at(Timestamp::from_millis(args.at_millis)));
    let before = CpuTimes::own()?;
    let watch = stopwatch();
    let store = open_store(&args.dir, args.tuning, clock as Arc<dyn Clock>)?;
    let open_ms = rounded(micros(watch.monotonic()) / 1000.0);
    let used = CpuTimes::own()?.since(&before);
    let resident_mib = rounded(float(resident_bytes()?) / 1_048_576.0);
    let leases = store.leases_kept();
    let pages = pages(&store).await?;
    let first_commit_ms = commit(&store).await?;
    let opened = Opened {
        leases,
        open_ms,
        cpu_ms: rounded(micros(used.total) / 1000.0),
        resident_mib,
        first_commit_ms,
        page_p50_us: rounded(float(pages.value_at_quantile(0.5)) / 1000.0),
        page_p99_us: rounded(float(pages.value_at_quantile(0.99)) / 1000.0),
    };
    tokio::task::spawn_blocking(move || store.close()).await?;
    println!("{}", serde_json::to_string(&opened)?);
    Ok(())
}

/// The first page of each owner's leases; each must be full and the owner's.
async fn pages(store: &SledStore) -> anyhow::Result<Histogram<u64>> {
    let watch = stopwatch();
    let mut took = Histogram::new(3)?;
    // A tenth of what an owner has on average: with a million leases that is more than a page.
    let full = usize::try_from(store.leases_kept() / OWNERS / 10)?.min(PAGE);
    for number in 0..OWNERS {
        let selector = Selector::owner(owner_name(number).parse()?);
        let asked = watch.monotonic();
        let filter = LeaseFilter { selector: Some(selector.clone()), ..LeaseFilter::default() };
        let page = store.leases(filter, None, PAGE).await?;
        took.record(nanos(watch.monotonic().saturating_sub(asked)))?;
        anyhow::ensure!(
            page.leases.len() >= full,
            "{} has only {} leases",
            owner_name(number),
            page.leases.len()
        );
        anyhow::ensure!(
            page.leases.iter().all(|lease| selector.matches(lease)),
            "a lease of another owner was listed"
        );
    }
    Ok(took)
}

/// One commit, in milliseconds: an event alone, so that the number of leases stays.
async fn commit(store: &SledStore) -> anyhow::Result<f64> {
    use dayfly_core::audit::{Draft, EventKind};
    use dayfly_core::change::Change;
    use dayfly_core::rule::Actor;

    let actor = Actor { cluster: None, username: "dayfly-bench".to_owned(), uid: String::new() };
    let draft = Draft::note(EventKind::PolicyChanged, &actor, "the first commit after opening".to_owned());
    let watch = stopwatch();
    match store.commit(Change::Note(Box::new(draft))).await? {
        Outcome::Committed(_) => Ok(rounded(micros(watch.monotonic()) / 1000.0)),
        other => anyhow::bail!("an event was not committed: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::LeaseMaker;

    #[tokio::test]
    async fn a_small_store_is_opened_and_paged() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SteppingClock::at(super::super::START));
        let tuning = Tuning { cache_mib: Some(16), recent_leases: None, recent_keys: None };
        let store = open_store(&dir.path().join("store"), tuning, clock as Arc<dyn Clock>).unwrap();
        let maker = LeaseMaker::new().unwrap();
        for number in 0..2000 {
            let change = maker.issue(number, store.draw().unwrap()).unwrap();
            assert!(matches!(store.commit(change).await.unwrap(), Outcome::Committed(_)));
        }
        assert_eq!(pages(&store).await.unwrap().len(), OWNERS);
        assert!(commit(&store).await.unwrap() > 0.0);
        assert_eq!(store.leases_kept(), 2000);
        store.close();
    }
}
