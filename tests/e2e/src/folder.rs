//! Temporary folders.

use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::TempDir;

/// What the name of every one of them begins with.
const PREFIX: &str = "dayfly-test-";
const LOCK: &str = "lock";

/// A temporary folder, readable by us alone. Dropping it removes it; where a process ended without that, the next folder made
/// removes what it left (etcd's log alone takes 64 MB).
#[derive(Debug)]
pub(crate) struct Folder {
    dir: TempDir,
    _lock: File,
}

impl Folder {
    pub(crate) fn new(of: &str) -> io::Result<Self> {
        remove_abandoned();
        let dir = tempfile::Builder::new().prefix(&format!("{PREFIX}{of}-")).tempdir()?;
        let unlocked = dir.path().join("lock.new");
        let lock = File::create(&unlocked)?;
        lock.lock()?;
        std::fs::rename(unlocked, dir.path().join(LOCK))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes the folders whose lock nobody holds. Best effort: others may be removing them too.
fn remove_abandoned() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_ours && File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
