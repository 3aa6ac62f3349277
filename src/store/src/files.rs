//! Folders, locks and syncs around the database.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, StatVfs};

use crate::error::OpenError;

/// What is in a store's folder.
pub(crate) enum Found {
    /// Nothing, or no folder.
    Nothing,
    /// A database, by its files.
    Database,
    /// Something, but not all of a database.
    Parts(&'static str),
}

/// Looks at a store's folder without touching it: sled would make what is missing.
pub(crate) fn look(dir: &Path) -> Result<Found, OpenError> {
    match is_empty(dir) {
        Ok(true) => return Ok(Found::Nothing),
        Ok(false) => {}
        Err(OpenError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Found::Nothing);
        }
        Err(error) => return Err(error),
    }
    for (file, missing) in [("db", "there is no file `db`"), ("conf", "there is no file `conf`")] {
        match fs::metadata(dir.join(file)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Parts(missing)),
            Err(error) => return Err(OpenError::io("look at", &dir.join(file))(error)),
        }
    }
    Ok(Found::Database)
}

/// Whether a folder has nothing in it.
pub(crate) fn is_empty(dir: &Path) -> Result<bool, OpenError> {
    Ok(fs::read_dir(dir).map_err(OpenError::io("read the folder", dir))?.next().is_none())
}

/// Makes the folder above a store's, and the ones above that, durably.
pub(crate) fn make_parents(dir: &Path) -> Result<(), OpenError> {
    let parent = parent(dir);
    let missing: Vec<_> = parent.ancestors().take_while(|folder| !folder.exists()).collect();
    for folder in missing.into_iter().rev() {
        fs::create_dir(folder).map_err(OpenError::io("make the folder", folder))?;
        sync_folder(&self::parent(folder))?;
    }
    Ok(())
}

/// The folder that `dir` is in.
pub(crate) fn parent(dir: &Path) -> PathBuf {
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => dir.to_owned(),
    }
}

/// What a new store's temporary name begins with.
pub(crate) fn temporary_name(dir: &Path) -> String {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{name}.new-")
}

/// Removes what an interrupted creation left, unless another process is at it.
pub(crate) fn remove_leftovers(dir: &Path) -> Result<(), OpenError> {
    let (parent, prefix) = (parent(dir), temporary_name(dir));
    let Ok(entries) = fs::read_dir(&parent) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(OpenError::io("read the folder", &parent))?.path();
        let left = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
        if left && !matches!(Lock::state(&path), Lock::Held) {
            fs::remove_dir_all(&path)
                .map_err(OpenError::io("remove the leftover of an interrupted creation", &path))?;
        }
    }
    Ok(())
}

/// Removes snapshots that sled had not finished when it was cut off: it would read them and take the store for damaged.
/// The one before is there until the new one has its name.
pub(crate) fn remove_unfinished_snapshots(dir: &Path) -> Result<(), OpenError> {
    let Ok(database) = File::open(dir.join("db")) else { return Ok(()) };
    if !take(&database) {
        return Err(OpenError::InUse { dir: dir.to_owned() });
    }
    let removed = remove_snapshots(dir);
    give_back(&database);
    removed
}

fn remove_snapshots(dir: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(dir).map_err(OpenError::io("read the folder", dir))? {
        let path = entry.map_err(OpenError::io("read the folder", dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path).map_err(OpenError::io("remove the unfinished snapshot", &path))?;
        }
    }
    Ok(())
}

/// Whether some process holds a database.
pub(crate) enum Lock {
    /// It is open somewhere.
    Held,
    /// It is not.
    Free,
    /// There is none.
    None,
}

impl Lock {
    /// Of the database in `dir`: sled locks its file `db` (`flock(2)`).
    pub(crate) fn state(dir: &Path) -> Self {
        let Ok(file) = File::open(dir.join("db")) else { return Self::None };
        if take(&file) {
            give_back(&file);
            Self::Free
        } else {
            Self::Held
        }
    }
}

/// Takes the lock that sled takes (`flock(2)`); false where another process has it.
fn take(database: &File) -> bool {
    rustix::fs::flock(database, FlockOperation::NonBlockingLockExclusive)
        != Err(rustix::io::Errno::WOULDBLOCK)
}

/// Gives it back at once: closing the file would not, while a process that is being started still has a copy of it.
fn give_back(database: &File) {
    if let Err(error) = rustix::fs::flock(database, FlockOperation::Unlock) {
        tracing::warn!(%error, "the store's lock was not given back");
    }
}

/// `fsync(2)` of a file.
pub(crate) fn sync_file(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(OpenError::io("sync", path))
}

/// `fsync(2)` of a folder: the names in it are durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), OpenError> {
    sync_file(path)
}

/// Bytes that an unprivileged process may still write on the disk of `dir`.
pub(crate) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let StatVfs { f_bavail, f_frsize, .. } = rustix::fs::statvfs(dir)?;
    Ok(f_bavail.saturating_mul(f_frsize))
}
