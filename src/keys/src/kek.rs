//! The port to whatever holds the key-encryption key, and sealing with a key in memory.

use dayfly_core::digest::Digest;
use dayfly_core::ports::{Rng, RngFailed};
use dayfly_core::secret::Secret;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// The key-encryption key: it seals what rests in the store, and is never there itself.
///
/// A file today ([`crate::FileKek`]); Kubernetes KMS v2 later, which unwraps a seed once, so this stays synchronous.
pub trait KeyEncryption: Send + Sync + 'static {
    /// Which of its keys seals now. It only ever grows.
    fn generation(&self) -> u32;
    /// Seals `plaintext` with the key of [`KeyEncryption::generation`], bound to `aad`.
    fn seal(&self, aad: &[u8], plaintext: &Secret) -> Result<Vec<u8>, SealError>;
    /// Opens what the key of `generation` sealed, with the same `aad`.
    fn open(&self, aad: &[u8], generation: u32, sealed: &[u8]) -> Result<Secret, OpenError>;
}

/// Nothing was sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There was no randomness for a nonce.
    #[error(transparent)]
    Rng(#[from] RngFailed),
    /// The cipher, or whatever holds the key, failed.
    #[error("the key-encryption key cannot seal")]
    Failed,
}

/// A sealed key does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is not in the form that this seals.
    #[error("it is not in a known sealed form")]
    Format,
    /// It was sealed by a generation of the key-encryption key that is not there.
    #[error(
        "it was sealed with generation {sealed} of the key-encryption key, which is not there (the newest is {newest})"
    )]
    Generation {
        /// The one it was sealed with.
        sealed: u32,
        /// The newest there is.
        newest: u32,
    },
    /// It was sealed by another key-encryption key.
    #[error(
        "it was sealed with the key-encryption key {sealed}, and this is {have}: configure the one this store was made with"
    )]
    OtherKey {
        /// Which key sealed it.
        sealed: KekId,
        /// Which key this is.
        have: KekId,
    },
    /// The key is the right one, the content is not.
    #[error("it was changed, or is of another key, purpose, generation or store")]
    Changed,
}

/// Which key-encryption key: the first 8 bytes of a digest over it. Shown as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KekId([u8; 8]);

impl std::fmt::Display for KekId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The key's length in bytes.
pub(crate) const KEK_BYTES: usize = 32;

/// AES-256-GCM (NIST SP 800-38D) with random 96-bit nonces: good for 2^32 seals, and a ring seals a few a month.
///
/// Sealed: version 1, the key's id (8 bytes), the nonce (12 bytes), ciphertext, tag (16 bytes).
pub(crate) struct Cipher {
    key: LessSafeKey,
    id: KekId,
}

const VERSION: u8 = 1;

impl Cipher {
    /// `None` never comes of [`KEK_BYTES`] bytes.
    pub(crate) fn new(key: &Zeroizing<[u8; KEK_BYTES]>) -> Option<Self> {
        let digest = Digest::of_parts(&[b"dayfly key-encryption key id\0", key.as_slice()]);
        let mut id = [0; 8];
        id.copy_from_slice(digest.as_bytes().first_chunk::<8>()?);
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).ok()?;
        Some(Self { key: LessSafeKey::new(key), id: KekId(id) })
    }

    pub(crate) fn id(&self) -> KekId {
        self.id
    }

    pub(crate) fn seal(&self, rng: &dyn Rng, aad: &[u8], plaintext: &Secret) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        rng.fill(&mut nonce)?;
        let mut content = Zeroizing::new(plaintext.expose().to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), content.as_mut())
            .map_err(|_| SealError::Failed)?;
        Ok([&[VERSION], self.id.0.as_slice(), &nonce, &content, tag.as_ref()].concat())
    }

    pub(crate) fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Secret, OpenError> {
        let rest = sealed.strip_prefix(&[VERSION]).ok_or(OpenError::Format)?;
        let (id, rest) = rest.split_first_chunk::<8>().ok_or(OpenError::Format)?;
        let (nonce, content) = rest.split_first_chunk::<NONCE_LEN>().ok_or(OpenError::Format)?;
        if *id != self.id.0 {
            return Err(OpenError::OtherKey { sealed: KekId(*id), have: self.id });
        }
        let mut content = Zeroizing::new(content.to_vec());
        let plaintext = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), content.as_mut())
            .map_err(|_| OpenError::Changed)?;
        Ok(Secret::from(plaintext.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use dayfly_core::ports::TestRng;
    use proptest::prelude::*;

    use super::*;

    fn cipher(byte: u8) -> Cipher {
        Cipher::new(&Zeroizing::new([byte; KEK_BYTES])).unwrap()
    }

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let secret = Secret::from("a private key".to_owned());
        let rng = TestRng::new(1);
        let sealed = cipher(1).seal(&rng, b"aad", &secret).unwrap();
        assert_eq!(cipher(1).open(b"aad", &sealed).unwrap().expose(), secret.expose());
        assert_eq!(cipher(1).open(b"AAD", &sealed).err(), Some(OpenError::Changed));
        assert!(matches!(cipher(2).open(b"aad", &sealed).err(), Some(OpenError::OtherKey { .. })));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(cipher(1).open(b"aad", &changed).is_err(), "changed at {at}");
            assert!(cipher(1).open(b"aad", &sealed[..at]).is_err(), "cut at {at}");
        }
        assert_ne!(sealed, cipher(1).seal(&rng, b"aad", &secret).unwrap(), "nonces differ");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(cipher(1).open(b"", &bytes).is_err());
        }
    }
}
