//! A folder of policy files, as Git checks it out or a ConfigMap mounts it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use dayfly_core::limits;

use crate::load::{File, Loaded, Reserved, load_after, of_file};
use crate::problem::Problem;
use crate::set::PolicySet;

/// How deep folders may lie in each other.
const DEPTH: usize = 8;

/// The source cannot be read. The policy that was read last is used for a while, then requests are denied.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A folder or file cannot be read.
    #[error("{} cannot be read: {why}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// There are more files than are read.
    #[error("{} holds more than {} policy files", .0.display(), limits::POLICY_FILES)]
    TooManyFiles(PathBuf),
    /// Folders lie too deep in each other.
    #[error("{} lies more than {DEPTH} folders deep", .0.display())]
    TooDeep(PathBuf),
}

/// Reads every `*.yaml` and `*.yml` of a folder and the folders in it. Names that begin with a dot are passed over,
/// links to files are followed, links to folders are not. Of a mounted ConfigMap or Secret, the version is read that
/// `..data` points to when the folder is opened, so that an update under way is seen whole or not at all.
///
/// # Errors
/// When the folder or a file in it cannot be read: then nothing is known, which is not the same as an empty policy.
pub fn load_folder(path: &Path, reserved: &Reserved) -> Result<Loaded, SourceError> {
    load_folder_after(path, reserved, None)
}

/// As [`load_folder`], where `before` is what the same folder said when it was read last: what an Owner claimed in a file
/// that does not read now stays nobody's until the file reads again, or is gone.
///
/// # Errors
/// As [`load_folder`].
pub fn load_folder_after(
    path: &Path,
    reserved: &Reserved,
    before: Option<&PolicySet>,
) -> Result<Loaded, SourceError> {
    let mut found = Found { files: Vec::new(), problems: Vec::new() };
    found.folder(path, "", 0)?;
    Ok(load_after(&found.files, found.problems, reserved, before))
}

struct Found {
    files: Vec<File>,
    problems: Vec<Problem>,
}

impl Found {
    fn folder(&mut self, path: &Path, prefix: &str, depth: usize) -> Result<(), SourceError> {
        if depth > DEPTH {
            return Err(SourceError::TooDeep(path.to_owned()));
        }
        let io = |why| SourceError::Io { path: path.to_owned(), why };
        let mounted = path.join("..data");
        let path = if mounted.is_dir() { &fs::canonicalize(&mounted).map_err(io)? } else { path };
        let mut entries: Vec<_> =
            fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(io)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let shown = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            if name.starts_with('.') {
                continue;
            }
            let path = entry.path();
            let io = |why| SourceError::Io { path: path.clone(), why };
            if entry.file_type().map_err(io)?.is_dir() {
                self.folder(&path, &shown, depth + 1)?;
            } else if is_yaml(&path) && fs::metadata(&path).map_err(io)?.is_file() {
                self.file(&path, shown)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: String) -> Result<(), SourceError> {
        if self.files.len() + self.problems.len() >= limits::POLICY_FILES {
            return Err(SourceError::TooManyFiles(path.parent().unwrap_or(path).to_owned()));
        }
        let io = |why| SourceError::Io { path: path.to_owned(), why };
        let mut bytes = Vec::new();
        // One byte more than is allowed is enough to know that it is too much.
        let file = fs::File::open(path).map_err(io)?;
        file.take(limits::POLICY_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        match String::from_utf8(bytes) {
            Ok(text) => self.files.push(File { name, text }),
            Err(_) => self.problems.push(of_file(&name, "is not UTF-8")),
        }
        Ok(())
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}
