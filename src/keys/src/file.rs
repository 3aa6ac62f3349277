//! The key-encryption key in a file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_core::ports::{Rng, RngFailed};
use dayfly_core::secret::Secret;
use zeroize::Zeroizing;

use crate::kek::{Cipher, KEK_BYTES, KekId, KeyEncryption, OpenError, SealError};

/// A key-encryption key in a file: 32 random bytes, as they are or in base64, readable by its owner alone.
///
/// The file itself is generation 1. Its successors are beside it: `FILE.2`, `FILE.3`, and so on. The newest that is there
/// seals, each opens what it sealed; an older one may be removed when nothing is sealed with it any more.
///
/// Keep it away from the store and from the store's backups: whoever has both has the signing keys. Losing it loses
/// the signing keys, and with them every token not yet expired, but no lease and no rule.
pub struct FileKek {
    newest: (u32, Cipher),
    older: BTreeMap<u32, Cipher>,
    rng: Arc<dyn Rng>,
}

/// More than any form of the key has, in bytes.
const MAX_FILE_BYTES: u64 = 256;

impl FileKek {
    /// Reads the key of this file; where there is no file, makes one, whole or not at all, and on disk before it is
    /// used. Its folder must be there. For a store that has no sealed keys yet.
    ///
    /// # Errors
    /// When it cannot be read or made, others may read it, or it is no key.
    pub fn open_or_create(path: &Path, rng: Arc<dyn Rng>) -> Result<Self, KekError> {
        match Self::open(path, Arc::clone(&rng)) {
            Err(KekError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                create(path, rng.as_ref())?;
                Self::open(path, rng)
            }
            other => other,
        }
    }

    /// Reads the key of this file, and those of its successors. For a store that has sealed keys: a new one would open
    /// none of them.
    ///
    /// # Errors
    /// When one cannot be read, others may read it, or it is no key; when there is none.
    pub fn open(path: &Path, rng: Arc<dyn Rng>) -> Result<Self, KekError> {
        let mut older = successors(path)?
            .into_iter()
            .map(|(generation, path)| Ok((generation, cipher(&path)?)))
            .collect::<Result<BTreeMap<_, _>, KekError>>()?;
        match cipher(path) {
            Err(KekError::Io { source, .. }) if source.kind() == ErrorKind::NotFound && !older.is_empty() => {
            }
            first => {
                older.insert(1, first?);
            }
        }
        let newest = older.pop_last().ok_or_else(|| KekError::NotAKey { path: path.to_owned() })?;
        Ok(Self { newest, older, rng })
    }

    /// The newest generation whose file is there, without reading any: 1 where there is no successor.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn newest_at(path: &Path) -> Result<u32, KekError> {
        Ok(successors(path)?.into_iter().map(|(generation, _)| generation).max().unwrap_or(1))
    }

    /// Which key seals, as errors name it.
    pub fn id(&self) -> KekId {
        self.newest.1.id()
    }
}

fn cipher(path: &Path) -> Result<Cipher, KekError> {
    Cipher::new(&read(path)?).ok_or_else(|| KekError::NotAKey { path: path.to_owned() })
}

/// The files `FILE.N` beside this one, with their generations. A folder that is not there has none.
fn successors(path: &Path) -> Result<Vec<(u32, PathBuf)>, KekError> {
    let io = |source| KekError::Io { path: path.to_owned(), source };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries = match fs::read_dir(folder_of(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io)?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let number = file.strip_prefix(&name).and_then(|rest| rest.strip_prefix('.'));
        let generation =
            number.and_then(|number| number.parse::<u32>().ok().filter(|n| n.to_string() == number));
        found.extend(generation.filter(|n| *n > 1).map(|generation| (generation, entry.path())));
    }
    Ok(found)
}

impl KeyEncryption for FileKek {
    fn generation(&self) -> u32 {
        self.newest.0
    }

    fn seal(&self, aad: &[u8], plaintext: &Secret) -> Result<Vec<u8>, SealError> {
        self.newest.1.seal(self.rng.as_ref(), aad, plaintext)
    }

    fn open(&self, aad: &[u8], generation: u32, sealed: &[u8]) -> Result<Secret, OpenError> {
        let (newest, cipher) = &self.newest;
        let cipher = if generation == *newest { Some(cipher) } else { self.older.get(&generation) };
        cipher.ok_or(OpenError::Generation { sealed: generation, newest: *newest })?.open(aad, sealed)
    }
}

fn read(path: &Path) -> Result<Zeroizing<[u8; KEK_BYTES]>, KekError> {
    let io = |source| KekError::Io { path: path.to_owned(), source };
    let not_a_key = || KekError::NotAKey { path: path.to_owned() };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(not_a_key());
    }
    if metadata.mode() & 0o037 != 0 {
        return Err(KekError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    let mut content = Zeroizing::new(Vec::with_capacity(512));
    file.take(MAX_FILE_BYTES).read_to_end(&mut content).map_err(io)?;
    decode(&content).ok_or_else(not_a_key)
}

fn decode(content: &[u8]) -> Option<Zeroizing<[u8; KEK_BYTES]>> {
    let mut key = Zeroizing::new([0; KEK_BYTES]);
    if content.len() == KEK_BYTES {
        key.copy_from_slice(content);
        return Some(key);
    }
    // The decoder asks for room for whole groups of three bytes.
    let mut decoded = Zeroizing::new([0; KEK_BYTES + 2]);
    let length = STANDARD.decode_slice(content.trim_ascii(), decoded.as_mut_slice()).ok()?;
    key.copy_from_slice(decoded.get(..length).filter(|decoded| decoded.len() == KEK_BYTES)?);
    Some(key)
}

/// Writes a new key beside `path`, syncs it, and links it there: no reader sees half a key, and where another process
/// was first, its key stays.
fn create(path: &Path, rng: &dyn Rng) -> Result<(), KekError> {
    let io = |source| KekError::Io { path: path.to_owned(), source };
    let mut key = Zeroizing::new([0; KEK_BYTES]);
    rng.fill(key.as_mut_slice())?;
    let mut text = Zeroizing::new(STANDARD.encode(key.as_slice()));
    text.push('\n');

    let mut suffix = [0; 8];
    rng.fill(&mut suffix)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.new", u64::from_be_bytes(suffix)));
    let beside = path.with_file_name(name);

    let linked = write_synced(&beside, text.as_bytes()).and_then(|()| match fs::hard_link(&beside, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let removed = fs::remove_file(&beside);
    linked.and(removed).and_then(|()| sync_folder_of(path)).map_err(io)
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The key-encryption key's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// It cannot be read or made.
    #[error("the key-encryption key {path} cannot be read or made: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("the key-encryption key {path} has mode {mode:04o}, so others may reach it: chmod 600 {path} (or 440, as a Kubernetes Secret with fsGroup has it)", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else.
    #[error("the key-encryption key {path} must hold 32 random bytes, as they are or in base64", path = path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// There was no randomness for a new key.
    #[error(transparent)]
    Rng(#[from] RngFailed),
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use dayfly_core::ports::TestRng;

    use super::*;

    fn open(path: &Path) -> Result<FileKek, KekError> {
        FileKek::open_or_create(path, Arc::new(TestRng::new(7)))
    }

    fn write(path: &Path, content: &[u8], mode: u32) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn makes_a_key_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        let id = open(&path).unwrap().id();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        assert_eq!(open(&path).unwrap().id(), id);
    }

    #[test]
    fn of_two_that_make_it_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        create(&path, &TestRng::new(1)).unwrap();
        let first = open(&path).unwrap().id();
        create(&path, &TestRng::new(2)).unwrap();
        assert_eq!(open(&path).unwrap().id(), first);
    }

    #[test]
    fn successors_are_beside_it_and_the_newest_seals() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        let secret = Secret::from("a private key".to_owned());
        let first = open(&path).unwrap();
        assert_eq!((first.generation(), FileKek::newest_at(&path).unwrap()), (1, 1));
        let old = first.seal(b"aad", &secret).unwrap();
        // None of these is one.
        for name in ["kek.1", "kek.02", "kek.2.new", "kek.x", "kek2", "other.3"] {
            write(&folder.path().join(name), b"anything", 0o644);
        }
        assert_eq!(open(&path).unwrap().generation(), 1);
        write(&folder.path().join("kek.10"), &[10; 32], 0o600);
        write(&folder.path().join("kek.2"), &[2; 32], 0o600);
        let all = open(&path).unwrap();
        assert_eq!((all.generation(), FileKek::newest_at(&path).unwrap()), (10, 10));
        assert_ne!(all.id(), first.id());
        assert!(all.open(b"aad", 1, &old).is_ok(), "the old one opens what it sealed");
        let new = all.seal(b"aad", &secret).unwrap();
        assert!(all.open(b"aad", 10, &new).is_ok());
        assert!(matches!(all.open(b"aad", 2, &new).err(), Some(OpenError::OtherKey { .. })));

        fs::remove_file(&path).unwrap();
        let without = open(&path).unwrap();
        assert!(!path.exists(), "where there is a successor, no first one is made");
        assert!(without.open(b"aad", 10, &new).is_ok());
        let gone = OpenError::Generation { sealed: 1, newest: 10 };
        assert_eq!(without.open(b"aad", 1, &old).err(), Some(gone));
        write(&folder.path().join("kek.2"), &[2; 32], 0o644);
        assert!(matches!(open(&path).err(), Some(KekError::Exposed { .. })), "each is looked at");
    }

    #[test]
    fn a_file_that_others_may_reach_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        for mode in [0o644, 0o604, 0o620, 0o660, 0o610] {
            write(&path, &[1; 32], mode);
            let error = open(&path).err().unwrap().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
        for mode in [0o400, 0o440] {
            write(&path, &[1; 32], mode);
            assert!(open(&path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn takes_raw_bytes_and_base64_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        write(&path, &[1; 32], 0o600);
        let raw = open(&path).unwrap().id();
        write(&path, format!("{}\n", STANDARD.encode([1; 32])).as_bytes(), 0o600);
        assert_eq!(open(&path).unwrap().id(), raw);
        let short = STANDARD.encode([1; 31]);
        let long = STANDARD.encode([1; 33]);
        for bad in [b"".as_slice(), &[1; 31], &[1; 33], &[b'A'; 300], short.as_bytes(), long.as_bytes()] {
            write(&path, bad, 0o600);
            assert!(matches!(open(&path).err(), Some(KekError::NotAKey { .. })), "{} bytes", bad.len());
        }
        assert!(matches!(open(folder.path()).err(), Some(KekError::NotAKey { .. })));
        assert!(matches!(open(&folder.path().join("no/kek")).err(), Some(KekError::Io { .. })));
    }
}
