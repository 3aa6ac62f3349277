//! A backup, sealed: encrypted and authenticated in parts, with a key of its own that the key-encryption key seals.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | `dayfly-backup-1\n` |
//! | 4 | the header's length |
//! | | the header, protobuf: which store, when, the length of a part, the key-encryption key's generation |
//! | 4 | the sealed key's length |
//! | | the key of this backup, sealed with the key-encryption key, bound to everything before it |
//! | | the parts: each of the same length and a tag (16 bytes), the last one of what is left |
//!
//! A part is sealed by AES-256-GCM (NIST SP 800-38D) with the backup's own key, with its number and whether it is the last
//! as nonce (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár), bound to a digest of everything before the
//! parts. So no part can be changed, moved, left out, or taken from another backup, and none is given before it was
//! opened. Numbers are big-endian.

use std::io::{self, BufRead, BufReader, Read};

use dayfly_core::digest::Digest;
use dayfly_core::ids::{Incarnation, InstanceId};
use dayfly_core::ports::{Rng, RngFailed};
use dayfly_core::secret::Secret;
use dayfly_core::time::Timestamp;
use prost::Message as _;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::kek::{KeyEncryption, OpenError, SealError};

const MAGIC: &[u8; 16] = b"dayfly-backup-1\n";
/// A part's content, in bytes.
const PART_BYTES: u32 = 64 * 1024;
/// The longest part that is read.
const MAX_PART_BYTES: u32 = 1 << 20;
/// More than a header or a sealed key has.
const MAX_HEADER_BYTES: u32 = 1024;
const TAG_BYTES: usize = 16;

/// What a backup says of itself to those who cannot open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupHeader {
    /// Which store.
    pub instance: InstanceId,
    /// Which of its lives.
    pub incarnation: Incarnation,
    /// When it was begun.
    pub at: Timestamp,
    /// The key-encryption key that opens it.
    pub kek_generation: u32,
}

/// The header's encoding.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Header {
    #[prost(bytes = "vec", tag = "1")]
    instance: Vec<u8>,
    #[prost(uint32, tag = "2")]
    incarnation: u32,
    #[prost(uint64, tag = "3")]
    at_millis: u64,
    #[prost(uint32, tag = "4")]
    kek_generation: u32,
    #[prost(uint32, tag = "5")]
    part_bytes: u32,
}

/// A backup was not sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealBackupError {
    /// There was no randomness for its key.
    #[error(transparent)]
    Rng(#[from] RngFailed),
    /// Its key was not sealed.
    #[error(transparent)]
    Kek(#[from] SealError),
    /// The cipher failed.
    #[error("the backup cannot be sealed")]
    Failed,
}

/// A backup was not opened. Nothing of the part that is named, or after it, was given.
#[derive(Debug, thiserror::Error)]
pub enum OpenBackupError {
    /// It is something else.
    #[error("it is no backup of Dayfly, or of a newer form: it does not begin as one")]
    NotABackup,
    /// It ends before its parts begin.
    #[error("it is cut off in its header")]
    NoHeader,
    /// The header or the backup's key does not open.
    #[error("its header does not open with the key-encryption key: {0}")]
    Kek(#[from] OpenError),
    /// A part is not what was sealed there.
    #[error("part {0} was changed, moved, cut short, or is of another backup")]
    Changed(u64),
    /// There is no last part.
    #[error("it is cut off after part {0}")]
    CutOff(u64),
    /// There is more after the last part.
    #[error("there is more after its last part, {0}")]
    TooLong(u64),
    /// It does not read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Seals a backup as it comes.
pub struct BackupSealer {
    cipher: Cipher,
    part: usize,
    number: u64,
    waiting: Vec<u8>,
}

impl BackupSealer {
    /// Begins a backup of this store, with the newest key-encryption key; gives what it begins with, and the digest of that,
    /// which names the backup.
    ///
    /// # Errors
    /// When there is no randomness, or the key-encryption key does not seal.
    pub fn begin(
        kek: &dyn KeyEncryption,
        rng: &dyn Rng,
        instance: InstanceId,
        incarnation: Incarnation,
        at: Timestamp,
    ) -> Result<(Self, Vec<u8>, Digest), SealBackupError> {
        let header = Header {
            instance: instance.to_bytes().to_vec(),
            incarnation: incarnation.0,
            at_millis: at.as_millis(),
            kek_generation: kek.generation(),
            part_bytes: PART_BYTES,
        };
        let mut key = Zeroizing::new([0; 32]);
        rng.fill(key.as_mut_slice())?;
        let mut begin = MAGIC.to_vec();
        push(&mut begin, &header.encode_to_vec());
        let sealed = kek.seal(&begin, &Secret::from(key.to_vec()))?;
        push(&mut begin, &sealed);
        let digest = Digest::of(&begin);
        let cipher = Cipher::new(key.as_slice(), &digest).ok_or(SealBackupError::Failed)?;
        let part = usize::try_from(PART_BYTES).map_err(|_| SealBackupError::Failed)?;
        Ok((Self { cipher, part, number: 0, waiting: Vec::new() }, begin, digest))
    }

    /// The parts that are full with these bytes, sealed. Some wait for the next ones.
    ///
    /// # Errors
    /// When the cipher fails.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, SealBackupError> {
        self.waiting.extend_from_slice(bytes);
        let mut sealed = Vec::new();
        let mut at = 0;
        // What may be the last part waits.
        while let Some(content) =
            self.waiting.get(at..at + self.part).filter(|_| at + self.part < self.waiting.len())
        {
            sealed.extend(self.cipher.seal(self.number, false, content).ok_or(SealBackupError::Failed)?);
            self.number += 1;
            at += self.part;
        }
        self.waiting.drain(..at);
        Ok(sealed)
    }

    /// The last part, sealed.
    ///
    /// # Errors
    /// When the cipher fails.
    pub fn finish(self) -> Result<Vec<u8>, SealBackupError> {
        self.cipher.seal(self.number, true, &self.waiting).ok_or(SealBackupError::Failed)
    }
}

/// Opens a backup, part by part.
pub struct BackupOpener<R> {
    reader: BufReader<R>,
    header: BackupHeader,
    digest: Digest,
    cipher: Cipher,
    part: usize,
    number: u64,
    ended: bool,
}

impl<R: Read> BackupOpener<R> {
    /// Reads and opens the header.
    ///
    /// # Errors
    /// When it is no backup's, or the key-encryption key is not the one it was sealed with.
    pub fn begin(kek: &dyn KeyEncryption, reader: R) -> Result<Self, OpenBackupError> {
        let mut reader = BufReader::new(reader);
        let mut begin = read_at_most(&mut reader, MAGIC.len())?;
        if begin != MAGIC {
            return Err(OpenBackupError::NotABackup);
        }
        let encoded = pull(&mut reader)?;
        push(&mut begin, &encoded);
        let header = Header::decode(encoded.as_slice()).map_err(|_| OpenBackupError::NotABackup)?;
        let sealed = pull(&mut reader)?;
        let key = kek.open(&begin, header.kek_generation, &sealed)?;
        push(&mut begin, &sealed);
        let digest = Digest::of(&begin);
        let cipher = Cipher::new(key.expose(), &digest).ok_or(OpenBackupError::Kek(OpenError::Format))?;
        let instance = header.instance.as_slice().try_into().map_err(|_| OpenBackupError::NotABackup)?;
        let part = Some(header.part_bytes).filter(|bytes| (1..=MAX_PART_BYTES).contains(bytes));
        let part = part.and_then(|bytes| usize::try_from(bytes).ok()).ok_or(OpenBackupError::NotABackup)?;
        let header = BackupHeader {
            instance: InstanceId::from_bytes(instance),
            incarnation: Incarnation(header.incarnation),
            at: Timestamp::from_millis(header.at_millis),
            kek_generation: header.kek_generation,
        };
        Ok(Self { reader, header, digest, cipher, part, number: 0, ended: false })
    }

    /// What it says of itself, bound to its content.
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// What names it.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The next part's content; none after the last.
    ///
    /// # Errors
    /// When it is not the part that was sealed there. Then there is no more.
    pub fn next_part(&mut self) -> Result<Option<Vec<u8>>, OpenBackupError> {
        if self.ended {
            return Ok(None);
        }
        let sealed = read_at_most(&mut self.reader, self.part + TAG_BYTES)?;
        let last = self.reader.fill_buf()?.is_empty();
        let number = self.number;
        if let Some(content) = self.cipher.open(number, last, &sealed) {
            self.number += 1;
            self.ended = last;
            return Ok(Some(content));
        }
        Err(match self.cipher.open(number, !last, &sealed) {
            Some(_) if last => OpenBackupError::CutOff(number),
            Some(_) => OpenBackupError::TooLong(number),
            None if sealed.is_empty() => OpenBackupError::CutOff(number.saturating_sub(1)),
            None => OpenBackupError::Changed(number),
        })
    }
}

/// AES-256-GCM with a key that seals each nonce once: the number of a part, and whether it is the last.
struct Cipher {
    key: LessSafeKey,
    bound: Digest,
}

impl Cipher {
    fn new(key: &[u8], bound: &Digest) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        Some(Self { key: LessSafeKey::new(key), bound: *bound })
    }

    fn seal(&self, number: u64, last: bool, content: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = content.to_vec();
        let aad = Aad::from(self.bound.as_bytes());
        self.key.seal_in_place_append_tag(nonce(number, last), aad, &mut sealed).ok()?;
        Some(sealed)
    }

    fn open(&self, number: u64, last: bool, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut content = sealed.to_vec();
        let aad = Aad::from(self.bound.as_bytes());
        let length = self.key.open_in_place(nonce(number, last), aad, &mut content).ok()?.len();
        content.truncate(length);
        Some(content)
    }
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    if let Some((first, rest)) = nonce.split_first_mut() {
        *first = u8::from(last);
        for (byte, of) in rest.iter_mut().rev().zip(number.to_le_bytes()) {
            *byte = of;
        }
    }
    Nonce::assume_unique_for_key(nonce)
}

fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn pull(reader: &mut impl Read) -> Result<Vec<u8>, OpenBackupError> {
    let length = read_at_most(reader, 4)?;
    let length = length.try_into().map(u32::from_be_bytes).map_err(|_| OpenBackupError::NoHeader)?;
    if length > MAX_HEADER_BYTES {
        return Err(OpenBackupError::NotABackup);
    }
    let length = usize::try_from(length).map_err(|_| OpenBackupError::NotABackup)?;
    let bytes = read_at_most(reader, length)?;
    if bytes.len() == length { Ok(bytes) } else { Err(OpenBackupError::NoHeader) }
}

fn read_at_most(reader: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(most);
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    reader.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
