//! The temporary folder of a control plane.

use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::TempDir;

const PREFIX: &str = "dayfly-cluster-";
const LOCK: &str = "lock";

/// A temporary folder, readable by us alone. Dropping it removes it; where a process ended without that, the next folder made
/// removes what it left (etcd's log alone takes 64 MB).
#[derive(Debug)]
pub(super) struct Folder {
    dir: TempDir,
    _lock: File,
}

impl Folder {
    pub(super) fn new() -> io::Result<Self> {
        remove_abandoned();
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let unlocked = dir.path().join("lock.new");
        let lock = File::create(&unlocked)?;
        lock.lock()?;
        std::fs::rename(unlocked, dir.path().join(LOCK))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
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
