//! The million leases that `issue_warm` runs on: made once through the store itself, all of them ended an hour ago, so
//! that each lease issued later lets the oldest of these go.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use dayfly_core::change::Outcome;
use dayfly_core::clock::{SystemClock, SystemRng};
use dayfly_core::ports::{Clock, LeaseStore as _};
use dayfly_store::{Options, SledStore};
use tokio::task::JoinSet;

use crate::leases::{LeaseMaker, SteppingClock};
use crate::number::per_second;

/// The leases were issued over this long, and the last of them this long ago.
const SPAN: Duration = Duration::from_secs(24 * 3600);
const AGO: Duration = Duration::from_secs(3600);
/// Commits outstanding while the store is made.
const OUTSTANDING: usize = 64;
/// What marks a store as complete.
const COMPLETE: &str = "complete";

/// Which store, and how many leases.
#[derive(Debug, clap::Args)]
pub(crate) struct FillArgs {
    dir: PathBuf,
    leases: u64,
}

/// Where the broker's files of a store with so many leases are.
pub(crate) fn home(dir: &Path, leases: u64) -> PathBuf {
    dir.join(format!("leases-{leases}"))
}

/// The store itself within its home.
pub(crate) fn store(home: &Path) -> PathBuf {
    home.join("store")
}

/// Makes the store in `home`, unless one is there, complete, and opens.
pub(crate) async fn ensure(home: &Path, leases: u64) -> anyhow::Result<()> {
    let status = tokio::process::Command::new(std::env::current_exe()?)
        .arg("fill-store")
        .arg(home)
        .arg(leases.to_string())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .status()
        .await?;
    anyhow::ensure!(status.success(), "the store was not made: {status}");
    Ok(())
}

/// Does it, in a process of its own.
pub(crate) async fn fill(args: &FillArgs) -> anyhow::Result<()> {
    let dir = store(&args.dir);
    if args.dir.join(COMPLETE).exists() {
        match SledStore::open(Options::new(&dir, Arc::new(SystemClock::new()), Arc::new(SystemRng::new()))) {
            Ok(store) => {
                let kept = store.leases_kept();
                close(store).await?;
                if kept >= args.leases - args.leases / 20 {
                    return Ok(());
                }
                eprintln!("the store in {} keeps only {kept} leases: making it anew", dir.display());
            }
            Err(error) => eprintln!("making the store anew: {error}"),
        }
    }
    if args.dir.exists() {
        fs::remove_dir_all(&args.dir).with_context(|| format!("cannot remove {}", args.dir.display()))?;
    }
    fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {}", args.dir.display()))?;
    make(&dir, args.leases).await?;
    fs::write(args.dir.join(COMPLETE), "")?;
    Ok(())
}

async fn make(dir: &Path, leases: u64) -> anyhow::Result<()> {
    let watch = SystemClock::new();
    let clock = Arc::new(SteppingClock::at(watch.now().minus(SPAN + AGO)));
    let step = u64::try_from(SPAN.as_micros())? / leases;
    let options = Options::new(dir, Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(SystemRng::new()));
    let (store, maker) = (SledStore::open(options)?, Arc::new(LeaseMaker::new()?));
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..OUTSTANDING {
        let (store, maker) = (Arc::clone(&store), Arc::clone(&maker));
        let (clock, next) = (Arc::clone(&clock), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= leases {
                    return anyhow::Ok(());
                }
                clock.step(step);
                match store.commit(maker.issue(number, store.draw()?)?).await? {
                    Outcome::Committed(_) => {}
                    other => anyhow::bail!("lease {number} was not committed: {other:?}"),
                }
            }
        });
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(2));
    loop {
        tokio::select! {
            done = tasks.join_next() => match done {
                None => break,
                Some(done) => done??,
            },
            _ = ticks.tick() => {
                let made = next.load(Ordering::Relaxed).min(leases);
                let rate = per_second(made, watch.monotonic());
                eprintln!("making the store: {made} of {leases} leases, {rate:.0}/s");
            }
        }
    }
    close(store).await
}

async fn close(store: Arc<SledStore>) -> anyhow::Result<()> {
    Ok(tokio::task::spawn_blocking(move || store.close()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let args = FillArgs { dir: dir.path().join("home"), leases: 2000 };
        fill(&args).await.unwrap();
        let made = fs::metadata(args.dir.join(COMPLETE)).unwrap().modified().unwrap();
        fill(&args).await.unwrap();
        assert_eq!(fs::metadata(args.dir.join(COMPLETE)).unwrap().modified().unwrap(), made);
        let options =
            Options::new(store(&args.dir), Arc::new(SystemClock::new()), Arc::new(SystemRng::new()));
        let store = SledStore::open(options).unwrap();
        assert_eq!(store.leases_kept(), 2000);
        store.close();
    }
}
