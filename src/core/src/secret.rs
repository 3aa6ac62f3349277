//! The one type that holds a secret.

use std::str::Utf8Error;

use zeroize::Zeroizing;

/// Secret bytes: a token, a minted credential, a private key. Wiped when dropped.
///
/// It has no `Debug`, `Display`, `Serialize` or `PartialEq`: [`Secret::expose`] is the only way in, and comparing is
/// done over digests ([`crate::digest::Digest`]), in constant time.
///
/// ```compile_fail
/// let secret = dayfly_core::secret::Secret::from("hunter2".to_owned());
/// println!("{secret:?}");
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The bytes themselves. What they are copied into is the caller's to protect.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The secret as text.
    ///
    /// # Errors
    /// When the bytes are not UTF-8.
    pub fn expose_text(&self) -> Result<&str, Utf8Error> {
        std::str::from_utf8(&self.0)
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text.into_bytes()))
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}
