//! Checkpoints of the audit log: signed, kept, published. `docs/decisions/checkpoints.md` says why so.

mod sinks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use dayfly_core::change::LogHead;
use dayfly_core::checkpoint::{Checkpoint, Checkpoints};
use dayfly_core::ids::Position;
use dayfly_core::note::{KeyName, NoteSigner, SignedNote, VerifierKey};
use dayfly_core::ports::{BoxFuture, LeaseStore};
use dayfly_core::proof;
use tokio::sync::watch;

use crate::config::Config;
use sinks::Sinks;

/// How long an answer waits at most for a checkpoint that covers it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How soon a checkpoint is tried again that could not be made.
const AGAIN: Duration = Duration::from_secs(5);

/// Makes and publishes the checkpoints of one store's log, one at a time.
pub(crate) struct Publisher {
    store: Arc<dyn LeaseStore>,
    signer: Arc<dyn NoteSigner>,
    origin: KeyName,
    /// Where the newest one is kept, outside the store.
    kept: PathBuf,
    latest: ArcSwapOption<SignedNote>,
    sinks: Sinks,
    /// Up to which size somebody waits for one.
    wanted: watch::Sender<u64>,
    /// The newest one's size, when it is published and the sinks have it, or could not take it.
    covered: watch::Sender<u64>,
}

impl Publisher {
    /// The publisher of this configuration, once it is sure that the log is the one that the last checkpoint was of, grown;
    /// the first checkpoint is made.
    ///
    /// # Errors
    /// When the log is not that one, or it cannot be told.
    pub(crate) async fn start(
        config: &Config,
        store: Arc<dyn LeaseStore>,
        signer: Arc<dyn NoteSigner>,
    ) -> anyhow::Result<Arc<Self>> {
        let kept = beside(&config.store.witness.file);
        let latest = check(&kept, store.as_ref()).await?;
        let publisher = Arc::new(Self {
            store,
            signer,
            origin: config.origin()?,
            kept,
            latest: ArcSwapOption::new(latest.map(Arc::new)),
            sinks: Sinks::start(&config.log)?,
            wanted: watch::Sender::new(0),
            covered: watch::Sender::new(0),
        });
        if let Err(error) = publisher.make().await {
            tracing::error!(error = format!("{error:#}"), "no checkpoint is made: it is tried again");
        }
        Ok(publisher)
    }

    /// Makes one when the log has grown, at this interval, and whenever somebody waits for one.
    pub(crate) async fn run(self: Arc<Self>, every: Duration) {
        let mut wanted = self.wanted.subscribe();
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // Its sender is in `self`.
                _ = wanted.changed() => {}
            }
            while let Err(error) = self.make().await {
                let error = format!("{error:#}");
                if told.as_ref() != Some(&error) {
                    tracing::error!(
                        error,
                        "no checkpoint is made: it is tried again, and nothing else waits for it"
                    );
                }
                told = Some(error);
                tokio::time::sleep(AGAIN).await;
            }
            told = None;
        }
    }

    /// Signs, keeps and publishes a checkpoint of the log as it is, where it has grown. It is kept before anyone sees it, so
    /// that nothing is ever published that a later start does not know of.
    async fn make(&self) -> anyhow::Result<()> {
        let (head, mark) = (self.store.log_head(), self.store.mark());
        if head.size <= *self.covered.borrow() {
            return Ok(());
        }
        let checkpoint =
            Checkpoint { origin: self.origin.clone(), head, store: Some((mark.instance, mark.incarnation)) };
        let note =
            self.signer.sign_note(&self.origin, &checkpoint.to_string()).context("it is not signed")?;
        let text: Arc<str> = note.to_string().into();
        let (path, kept) = (self.kept.clone(), Arc::clone(&text));
        tokio::task::spawn_blocking(move || dayfly_store::replace_file(&path, &kept))
            .await?
            .with_context(|| format!("file {} cannot be written", self.kept.display()))?;
        self.latest.store(Some(Arc::new(note)));
        self.sinks.take(head.size, text).await;
        self.covered.send_replace(head.size);
        Ok(())
    }
}

impl Checkpoints for Publisher {
    fn cover(&self, position: Position) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let wanted = position.number();
            let mut covered = self.covered.subscribe();
            self.wanted.send_if_modified(|size| {
                let more = *size < wanted;
                *size = wanted.max(*size);
                more
            });
            let made = covered.wait_for(|size| *size >= wanted);
            if tokio::time::timeout(PATIENCE, made).await.is_err() {
                tracing::warn!(%position, "an answer goes out before a checkpoint covers it: one is made later");
            }
        })
    }

    fn latest(&self) -> Option<SignedNote> {
        self.latest.load().as_deref().cloned()
    }

    fn keys(&self) -> Vec<VerifierKey> {
        let key = |public| VerifierKey { name: self.origin.clone(), public };
        self.signer.note_keys().into_iter().map(key).collect()
    }
}

/// The file of the newest checkpoint: beside the witness, so that what takes back the store does not take it back.
fn beside(witness: &Path) -> PathBuf {
    let mut name = witness.as_os_str().to_owned();
    name.push(".checkpoint");
    name.into()
}

/// What was published last, where the log of the store is that one, grown since.
async fn check(path: &Path, store: &dyn LeaseStore) -> anyhow::Result<Option<SignedNote>> {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if store.status().start.0 > 1 {
                tracing::warn!(%shown, "the store is not new and its last checkpoint is missing: if the audit log was changed, this start does not notice");
            }
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("{shown} cannot be read")),
    };
    let note: SignedNote = text.parse().with_context(|| unreadable(path))?;
    let checkpoint: Checkpoint = note.text.parse().with_context(|| unreadable(path))?;
    let (mark, head, then) = (store.mark(), store.log_head(), checkpoint.head);
    if checkpoint.store != Some((mark.instance, mark.incarnation)) {
        tracing::warn!(%shown, published = checkpoint.to_string().trim_end().replace('\n', ", "), "the last checkpoint is of another store or incarnation: whoever has it cannot follow the log from there to here");
        return Ok(None);
    }
    let root = if then.size <= head.size { root_at(store, then.size).await? } else { None };
    anyhow::ensure!(
        root == Some(then.root),
        "the audit log is not the one that was published: the checkpoint in {shown} is of {} events, and the store, of \
         {}, does not begin with those. Events were changed or cut. Keep the store and that file for whoever finds out why; to \
         start nevertheless, remove the file: outsiders with an earlier checkpoint will see that the log does not follow from \
         it",
        then.size,
        head.size
    );
    Ok(Some(note))
}

fn unreadable(path: &Path) -> String {
    format!(
        "{} holds no checkpoint: put it back, or remove it if you know that nobody changed the store",
        path.display()
    )
}

/// The root that the log had with this size.
async fn root_at(store: &dyn LeaseStore, size: u64) -> anyhow::Result<Option<[u8; 32]>> {
    let tiles = proof::tiles_of_root(size);
    let read = store.log_tiles(tiles.clone()).await?;
    let tiles: BTreeMap<_, _> = tiles.into_iter().zip(read).collect();
    Ok(proof::root_at(size, &tiles))
}

/// What the routes of the log need of a checkpoint.
pub(crate) fn size_of(note: &SignedNote) -> Option<LogHead> {
    Some(note.text.parse::<Checkpoint>().ok()?.head)
}
