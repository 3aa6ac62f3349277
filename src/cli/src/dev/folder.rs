//! The folder that dev works in.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;

/// What says that a dev works, or has worked, in a folder.
const LOCK: &str = ".dayfly-dev";

/// Only its owner gets in: tokens and keys are in it.
const OWN_MODE: u32 = 0o700;

/// A folder: a temporary one goes when this is dropped.
pub(crate) struct Folder {
    path: PathBuf,
    _temporary: Option<TempDir>,
    /// Locked while a dev works in it.
    _lock: Option<File>,
}

impl Folder {
    /// The folder that was asked for, made if it is not there, or a temporary one.
    pub(crate) fn open(asked: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = asked else {
            let temporary = tempfile::Builder::new()
                .prefix("dayfly-dev-")
                .permissions(fs::Permissions::from_mode(OWN_MODE))
                .tempdir()?;
            return Ok(Self { path: temporary.path().to_owned(), _temporary: Some(temporary), _lock: None });
        };
        let make = || DirBuilder::new().recursive(true).mode(OWN_MODE).create(&path);
        make().with_context(|| format!("cannot make {}", path.display()))?;
        let path = fs::canonicalize(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let config = path.join("dayfly.toml");
        let by_dev = fs::read_to_string(&config).is_ok_and(|text| text.starts_with(super::world::MARK));
        let locked = path.join(LOCK);
        let empty =
            fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?.next().is_none();
        if !by_dev && !empty && !locked.exists() {
            anyhow::bail!("{} has files that are not by `dayfly dev`: choose another folder", path.display());
        }
        let open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&locked);
        let lock = open().with_context(|| format!("cannot open {}", locked.display()))?;
        if lock.try_lock().is_err() {
            anyhow::bail!(
                "another `dayfly dev` works in {}: stop it, or choose another folder",
                path.display()
            );
        }
        Ok(Self { path, _temporary: None, _lock: Some(lock) })
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file that only its owner can read, and puts it in place whole.
    pub(crate) fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        let write = || -> std::io::Result<()> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            // What a run that was cut off left may have other rights.
            let _ = fs::remove_file(&new);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(content.as_bytes())?;
            fs::rename(&new, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes a file unless it is there: what a reader changed stays.
    pub(crate) fn write_first(&self, name: &str, content: &str) -> anyhow::Result<()> {
        if self.path(name).exists() { Ok(()) } else { self.write(name, content) }
    }
}
