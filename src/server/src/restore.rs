//! What is done to a store while its broker is stopped: a backup, a restore, an adoption.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use dayfly_core::change::{Change, Conflict, LogHead, Mark, Outcome};
use dayfly_core::clock::{SystemClock, SystemRng};
use dayfly_core::ports::{Clock, LeaseStore, Rng, Witness};
use dayfly_core::rule::Actor;
use dayfly_keys::{BackupOpener, FileKek, OpenBackupError};
use dayfly_store::{FileWitness, Options, Point, Restore, RestoreError, Restored, SledStore, VerifyReport};

use crate::backup::{BackupFile, BackupTaken, Backups};
use crate::config::Config;
use crate::run::{StartOptions, open_store, store_options};

/// Takes a backup of the store of a broker that is stopped, into a new file.
///
/// # Errors
/// When the store is open elsewhere or behind its witness, or the file is there already. There is no file then.
pub async fn back_up_offline(config: &Config, out: &Path) -> anyhow::Result<BackupTaken> {
    let mut file = BackupFile::create(out)?;
    let stopped = Stopped::open(config).await?;
    let backups = Backups {
        store: Arc::clone(&stopped.store),
        kek_file: config.keys.kek_file.clone(),
        clock: Arc::new(SystemClock::new()),
        rng: Arc::new(SystemRng::new()),
    };
    let taken = async {
        let mut backup = backups.begin(by()).await?;
        while let Some(bytes) = backup.next().await? {
            file.write(&bytes)?;
        }
        backup.taken().context("the backup did not end")
    };
    let taken = taken.await;
    stopped.close().await?;
    let taken = taken?;
    file.finish()?;
    Ok(taken)
}

/// Says that the store of a broker that is stopped is the one that counts. False where it was adopted before, or never a
/// copy.
///
/// # Errors
/// When the store is open elsewhere or behind its witness.
pub async fn adopt_offline(config: &Config) -> anyhow::Result<(bool, Mark)> {
    let stopped = Stopped::open(config).await?;
    let adopted = stopped.store.commit(Change::Adopt { by: by() }).await;
    let mark = stopped.store.mark();
    stopped.close().await?;
    match adopted? {
        Outcome::Committed(_) => Ok((true, mark)),
        Outcome::Conflict(Conflict::Adopted) => Ok((false, mark)),
        other => anyhow::bail!("the store answered an adoption with {other:?}"),
    }
}

/// Makes the store that the configuration names from a backup. It is there when all of it was checked, in a new incarnation:
/// everything issued before is revoked, and nothing downstream is touched until it is adopted. The witness knows it then.
///
/// # Errors
/// When the backup does not open or is not whole, there is a store already, or the witness has seen another one. There is no
/// store then.
pub async fn restore(config: &Config, from: &Path) -> anyhow::Result<Restored> {
    let witness = witness(config)?;
    let expected = witness.read().await?;
    let (options, kek_file, from) =
        (options(config, &config.store.dir), config.keys.kek_file.clone(), from.to_owned());
    writable_by_its_owner(&options.dir)?;
    let restored = tokio::task::spawn_blocking(move || {
        let (restore, story) = fill(options, &kek_file, &from)?;
        anyhow::Ok(restore.finish(expected, story)?)
    });
    let restored = restored.await??;
    witness
        .write(restored.mark)
        .await
        .context("the store is restored; the witness is not written: the next start writes it")?;
    Ok(restored)
}

/// Checks a backup: makes a store of it in a folder beside the file, checks that, and removes it.
///
/// # Errors
/// When it does not open, or is not whole.
pub async fn verify_backup(config: &Config, from: &Path) -> anyhow::Result<(Point, VerifyReport)> {
    with_backup(config, from, Restore::check).await
}

/// Checks a backup as [`verify_backup`] does, and that its log is the one whose heads these were, grown. What does not fit is in
/// the report.
///
/// # Errors
/// [`WrongBackup`] when it was changed or cut off, and others when it could not be checked.
pub async fn verify_backup_against(
    config: &Config,
    from: &Path,
    published: Vec<LogHead>,
) -> anyhow::Result<VerifyReport> {
    let checked = with_backup(config, from, move |restore| restore.check_against(&published)).await;
    let (_, report) = checked.map_err(|error| if is_wrong(&error) { wrong(&error) } else { error })?;
    Ok(report)
}

/// A backup is not what was sealed, or not a whole store.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongBackup(String);

fn wrong(error: &anyhow::Error) -> anyhow::Error {
    WrongBackup(format!("{error:#}")).into()
}

/// Whether it is the backup that is wrong, and not its key, the disk or the file that was named.
fn is_wrong(error: &anyhow::Error) -> bool {
    match (error.downcast_ref::<OpenBackupError>(), error.downcast_ref::<RestoreError>()) {
        (Some(error), _) => matches!(
            error,
            OpenBackupError::NoHeader
                | OpenBackupError::Changed(_)
                | OpenBackupError::CutOff(_)
                | OpenBackupError::TooLong(_)
        ),
        (None, Some(error)) => matches!(error, RestoreError::NotWhole(_)),
        (None, None) => false,
    }
}

/// Makes a store of a backup in a folder beside the file, for as long as this takes.
async fn with_backup<T: Send + 'static>(
    config: &Config,
    from: &Path,
    look: impl FnOnce(&mut Restore) -> Result<T, RestoreError> + Send + 'static,
) -> anyhow::Result<T> {
    let (kek_file, from) = (config.keys.kek_file.clone(), from.to_owned());
    let name = from.file_name().with_context(|| format!("{} is no file", from.display()))?.to_string_lossy();
    let dir = from.with_file_name(format!("{name}.verify"));
    let options = options(config, &dir);
    let looked = tokio::task::spawn_blocking(move || {
        let (mut restore, _) = fill(options, &kek_file, &from)?;
        anyhow::Ok(look(&mut restore)?)
    });
    looked.await?
}

/// Opens a backup, and writes what each part says once it has opened.
fn fill(options: Options, kek_file: &Path, from: &Path) -> anyhow::Result<(Restore, String)> {
    let shown = from.display().to_string();
    let file = File::open(from).with_context(|| format!("cannot open {shown}"))?;
    let kek = FileKek::open(kek_file, Arc::clone(&options.rng)).context(
        "a backup opens with the key-encryption key that the store had: put it back (keys.kek_file)",
    )?;
    let mut opener = BackupOpener::begin(&kek, file).with_context(|| format!("the backup {shown}"))?;
    let header = *opener.header();
    let story = format!("the backup {} of {}", opener.digest(), header.at);
    let mut restore = Restore::begin(options)?;
    while let Some(part) = opener.next_part().with_context(|| format!("the backup {shown}"))? {
        restore.write(&part).with_context(|| format!("the backup {shown}"))?;
    }
    Ok((restore, story))
}

fn options(config: &Config, dir: &Path) -> Options {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let rng: Arc<dyn Rng> = Arc::new(SystemRng::new());
    Options { dir: PathBuf::from(dir), ..store_options(config, &config.limits(), &clock, &rng) }
}

fn witness(config: &Config) -> anyhow::Result<FileWitness> {
    let store = &config.store;
    let beside = store.witness.danger_witness_beside_store;
    Ok(FileWitness::new(&store.witness.file, &store.dir, beside)?)
}

/// What another user leaves there, root too, the broker could not write to.
fn writable_by_its_owner(dir: &Path) -> anyhow::Result<()> {
    let folder = dir.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(found) = std::fs::metadata(folder) else { return Ok(()) };
    let (owner, own) = (found.uid(), rustix::process::geteuid().as_raw());
    anyhow::ensure!(
        owner == own || owner == 0,
        "the folder {} is of user {owner}: run this as that user (sudo -u '#{owner}')",
        folder.display()
    );
    Ok(())
}

fn by() -> Actor {
    Actor::socket(rustix::process::getuid().as_raw())
}

/// The store of a broker that is stopped, open.
struct Stopped {
    store: Arc<SledStore>,
    witness: FileWitness,
}

impl Stopped {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        let witness = witness(config)?;
        let expected = witness.read().await?;
        let dir = &config.store.dir;
        let shown = dir.display();
        let owner = std::fs::metadata(dir).with_context(|| format!("there is no store at {shown}"))?.uid();
        anyhow::ensure!(
            owner == rustix::process::geteuid().as_raw(),
            "the store {shown} is of user {owner}: run this as that user (sudo -u '#{owner}')"
        );
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let rng: Arc<dyn Rng> = Arc::new(SystemRng::new());
        let store = open_store(config, StartOptions::default(), expected, &config.limits(), &clock, &rng)
            .await
            .context(
                "--store is for a broker that is stopped: one that runs is asked without, or by --socket",
            )?;
        Ok(Self { store, witness })
    }

    async fn close(self) -> anyhow::Result<()> {
        let closing = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || closing.close()).await?;
        Ok(self.witness.write(self.store.mark()).await?)
    }
}
