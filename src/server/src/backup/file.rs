//! A backup's file: under another name until it is whole and on disk, and never in the place of another.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{CWD, RenameFlags};

/// A backup that is being written. Dropped before [`BackupFile::finish`], it is removed.
pub struct BackupFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    named: bool,
}

impl BackupFile {
    /// Begins a file that will be at `path`, for its owner alone.
    ///
    /// # Errors
    /// When something is there, or it cannot be written.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let taken = fs::symlink_metadata(path).is_ok();
        anyhow::ensure!(!taken, "{shown} is there already: a backup is never written over anything");
        let mut name = path.file_name().map(OsString::from).with_context(|| format!("{shown} is no file"))?;
        name.push(format!(".part-{}", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let file = file.with_context(|| format!("cannot make {}", temporary.display()))?;
        Ok(Self { file, temporary, path: path.to_owned(), named: false })
    }

    /// Writes the next bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.temporary.display()))
    }

    /// Makes it durable, and gives it its name.
    ///
    /// # Errors
    /// When something has taken its name meanwhile, or it cannot be made durable.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let shown = self.path.display();
        self.file.sync_all().with_context(|| format!("cannot sync {}", self.temporary.display()))?;
        match rustix::fs::renameat_with(CWD, &self.temporary, CWD, &self.path, RenameFlags::NOREPLACE) {
            // A file system that cannot: it was not there a moment ago.
            Err(rustix::io::Errno::INVAL) => fs::rename(&self.temporary, &self.path),
            renamed => renamed.map_err(io::Error::from),
        }
        .with_context(|| format!("cannot give the backup its name {shown}"))?;
        self.named = true;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("cannot sync {}", folder.display()))
    }
}

impl Drop for BackupFile {
    fn drop(&mut self) {
        if !self.named
            && let Err(error) = fs::remove_file(&self.temporary)
        {
            tracing::warn!(%error, path = %self.temporary.display(), "a part of a backup is not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_has_its_name_when_it_is_whole_and_takes_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        let mut file = BackupFile::create(&path).unwrap();
        file.write(b"half").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(names(), 0);

        let mut file = BackupFile::create(&path).unwrap();
        file.write(b"whole").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(BackupFile::create(&path).err().unwrap().to_string().contains("there already"));

        // One that comes between the two.
        let other = dir.path().join("other");
        let file = BackupFile::create(&other).unwrap();
        fs::write(&other, "somebody's").unwrap();
        assert!(file.finish().is_err());
        assert_eq!((fs::read(&other).unwrap(), names()), (b"somebody's".to_vec(), 2));
    }
}
