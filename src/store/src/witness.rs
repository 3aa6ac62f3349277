//! A witness in a file, on another file system than the store.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dayfly_core::change::Mark;
use dayfly_core::ids::{Incarnation, Position};
use dayfly_core::ports::{BoxFuture, Witness, WitnessError};
use serde_json::{Value, json};

use crate::files;

/// Keeps the store's [`Mark`] in a file, as JSON: `instance`, `incarnation`, `position`, `highest`. It is replaced
/// whole, by rename, and durable when a write returns.
#[derive(Debug, Clone)]
pub struct FileWitness {
    path: PathBuf,
}

impl FileWitness {
    /// A witness in the file `path`, for the store in `store_dir`. Neither has to exist yet.
    ///
    /// # Errors
    /// When both are on one file system: whatever puts an older copy of the store in place would put the witness back
    /// with it. `danger_witness_beside_store` accepts that.
    pub fn new(
        path: impl Into<PathBuf>,
        store_dir: &Path,
        danger_witness_beside_store: bool,
    ) -> Result<Self, WitnessError> {
        let path = path.into();
        if !danger_witness_beside_store && device(&path)? == device(store_dir)? {
            return Err(WitnessError(format!(
                "file {} is on the same file system as the store {}: a snapshot of one is a snapshot of both; put it on another one, or set danger_witness_beside_store",
                path.display(),
                store_dir.display()
            )));
        }
        Ok(Self { path })
    }
}

impl Witness for FileWitness {
    fn read(&self) -> BoxFuture<'_, Result<Option<Mark>, WitnessError>> {
        let path = self.path.clone();
        Box::pin(blocking(move || {
            match fs::read(&path) {
            Ok(bytes) => mark_of(&bytes).map(Some).ok_or_else(|| {
                WitnessError(format!("file {} does not hold a mark: put it back from where it is kept; without it an older copy of the store would not be noticed, so remove it only if you know that the store is the newest", path.display()))
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(WitnessError(format!("file {} cannot be read: {error}", path.display()))),
        }
        }))
    }

    fn write(&self, mark: Mark) -> BoxFuture<'_, Result<(), WitnessError>> {
        let path = self.path.clone();
        Box::pin(blocking(move || {
            replace(&path, &json_of(&mark))
                .map_err(|error| WitnessError(format!("file {} cannot be written: {error}", path.display())))
        }))
    }
}

async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, WitnessError> + Send + 'static,
) -> Result<T, WitnessError> {
    let failed = |error| WitnessError(format!("was not asked: {error}"));
    tokio::task::spawn_blocking(run).await.map_err(failed)?
}

fn json_of(mark: &Mark) -> String {
    json!({
        "instance": mark.instance.to_string(),
        "incarnation": mark.incarnation.0,
        "position": mark.position.number(),
        "highest": mark.highest.to_string(),
    })
    .to_string()
}

fn mark_of(bytes: &[u8]) -> Option<Mark> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let text = |field: &str| value.get(field)?.as_str();
    let number = |field: &str| value.get(field)?.as_u64();
    Some(Mark {
        instance: text("instance")?.parse().ok()?,
        incarnation: Incarnation(number("incarnation")?.try_into().ok()?),
        position: Position::new(number("position")?),
        highest: text("highest")?.parse().ok()?,
    })
}

/// Replaces a file whole, by rename; durable when it returns.
///
/// # Errors
/// When it cannot be written. The earlier content is there then, or the new one.
pub fn replace(path: &Path, content: &str) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = File::create(&temporary)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(files::parent(path))?.sync_all()
}

/// The device of a path, or of the nearest folder above it that exists.
fn device(path: &Path) -> Result<u64, WitnessError> {
    let unreadable = |error| {
        WitnessError(format!("cannot be told from the store: {} is unreadable: {error}", path.display()))
    };
    let mut path = std::path::absolute(path).map_err(unreadable)?;
    loop {
        match fs::metadata(&path) {
            Ok(found) => return Ok(found.dev()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !path.pop() {
                    return Err(unreadable(error));
                }
            }
            Err(error) => return Err(unreadable(error)),
        }
    }
}
