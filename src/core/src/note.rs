//! Signed notes (C2SP signed-note): a text, and Ed25519 signatures under it, each with the name and the hash of its key.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Digest;
use crate::ports::SignError;

/// The longest note that is read, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;
/// Before each signature: an em dash and a space.
const DASH: &str = "\u{2014} ";
/// The kind of an Ed25519 signature in a key's hash.
const ED25519: u8 = 1;

/// Signs the audit log's checkpoints with Dayfly's own keys for that, which sign nothing else.
pub trait NoteSigner: Send + Sync + 'static {
    /// Signs `text`, under this name, with each key that signs checkpoints: the active one, and those that are retiring,
    /// so that whoever knows only an earlier key has a day to learn the next.
    ///
    /// # Errors
    /// [`SignError::NoKey`] where there is none.
    fn sign_note(&self, name: &KeyName, text: &str) -> Result<SignedNote, SignError>;
    /// The public keys that checkpoints are verified with, newest first: those that retired too, since what they signed
    /// stays true, and none that was revoked.
    fn note_keys(&self) -> Vec<[u8; 32]>;
}

/// The name of a note's key: not empty, without spaces, control characters and `+`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text is no name of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name of a key has 1 to 255 bytes, no spaces, no control characters and no +")]
pub struct NotAName;

impl FromStr for KeyName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if text.is_empty() || text.len() > 255 || text.chars().any(bad) {
            return Err(NotAName);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A public key that notes are verified with. As text it is `NAME+HASH+KEY`: the hash in hexadecimal digits, the key's kind
/// and its 32 bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    /// Its name.
    pub name: KeyName,
    /// Ed25519 (RFC 8032, section 5.1.5).
    pub public: [u8; 32],
}

impl VerifierKey {
    /// `SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key)`, the first four bytes.
    pub fn hash(&self) -> [u8; 4] {
        let digest = Digest::of_parts(&[self.name.as_str().as_bytes(), &[b'\n', ED25519], &self.public]);
        digest.as_bytes().first_chunk().copied().unwrap_or_default()
    }

    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, self.public);
        key.verify(text.as_bytes(), signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = u32::from_be_bytes(self.hash());
        let key = STANDARD.encode([&[ED25519], self.public.as_slice()].concat());
        write!(f, "{}+{hash:08x}+{key}", self.name)
    }
}

/// A text is no verifier key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a verifier key is NAME+HASH+KEY, as /log/keys gives it, of an Ed25519 key")]
pub struct NotAKey;

impl FromStr for VerifierKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let (name, rest) = text.split_once('+').ok_or(NotAKey)?;
        let (hash, key) = rest.split_once('+').ok_or(NotAKey)?;
        let bytes = STANDARD.decode(key).map_err(|_| NotAKey)?;
        let Some((&ED25519, public)) = bytes.split_first() else { return Err(NotAKey) };
        let public = public.try_into().map_err(|_| NotAKey)?;
        let key = Self { name: name.parse().map_err(|_| NotAKey)?, public };
        let same = hash.len() == 8 && u32::from_str_radix(hash, 16) == Ok(u32::from_be_bytes(key.hash()));
        if same { Ok(key) } else { Err(NotAKey) }
    }
}

/// One signature of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The key's name.
    pub name: KeyName,
    /// The key's hash.
    pub hash: [u8; 4],
    /// 64 bytes of Ed25519, or what another kind of key signs.
    pub bytes: Vec<u8>,
}

impl Signature {
    /// What this key signed.
    pub fn by(key: &VerifierKey, bytes: Vec<u8>) -> Self {
        Self { name: key.name.clone(), hash: key.hash(), bytes }
    }
}

/// A note: as text, the text it signs, an empty line, and a line for each signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    /// What is signed: it ends with a newline.
    pub text: String,
    /// At least one.
    pub signatures: Vec<Signature>,
}

impl SignedNote {
    /// The text, where a signature of one of `keys` is under it. Signatures of other keys do not matter.
    ///
    /// # Errors
    /// When none of the keys signed it, or one's signature is not of this text.
    pub fn open(&self, keys: &[VerifierKey]) -> Result<&str, BadNote> {
        let mut signed = false;
        for signature in &self.signatures {
            let of = |key: &&VerifierKey| key.name == signature.name && key.hash() == signature.hash;
            let Some(key) = keys.iter().find(of) else { continue };
            if !key.verifies(&self.text, &signature.bytes) {
                return Err(BadNote::Signature(key.name.clone()));
            }
            signed = true;
        }
        if signed { Ok(&self.text) } else { Err(BadNote::Unsigned) }
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|Signature { name, hash, bytes }| {
            writeln!(f, "{DASH}{name} {}", STANDARD.encode([hash, bytes.as_slice()].concat()))
        })
    }
}

/// A note is none, or not signed by who it has to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNote {
    /// It is no signed note.
    #[error("it is no signed note")]
    Malformed,
    /// None of the keys signed it.
    #[error("none of the given keys has signed it")]
    Unsigned,
    /// A key's signature is not of this text.
    #[error("the signature of key {0} is not of this text: the text or the signature was changed")]
    Signature(KeyName),
}

impl FromStr for SignedNote {
    type Err = BadNote;

    fn from_str(note: &str) -> Result<Self, BadNote> {
        let malformed = BadNote::Malformed;
        let control = |c: char| c.is_control() && c != '\n';
        if note.len() > MAX_BYTES || !note.ends_with('\n') || note.chars().any(control) {
            return Err(malformed);
        }
        let (text, lines) = note.rsplit_once("\n\n").ok_or(BadNote::Malformed)?;
        let signatures = lines.lines().map(signature).collect::<Option<Vec<_>>>();
        match signatures.filter(|signatures| !signatures.is_empty()) {
            Some(signatures) if !text.is_empty() => Ok(Self { text: format!("{text}\n"), signatures }),
            _ => Err(malformed),
        }
    }
}

fn signature(line: &str) -> Option<Signature> {
    let (name, encoded) = line.strip_prefix(DASH)?.split_once(' ')?;
    let bytes = STANDARD.decode(encoded).ok()?;
    let (hash, bytes) = bytes.split_first_chunk()?;
    let signature = Signature { name: name.parse().ok()?, hash: *hash, bytes: bytes.to_vec() };
    (!bytes.is_empty()).then_some(signature)
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    /// The one in the documentation of Go's `golang.org/x/mod/sumdb/note`.
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
         then you don't know what your problem is.\n\n\
         \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_note_of_another_implementation_opens() {
        let key: VerifierKey = PETER.parse().unwrap();
        assert_eq!(key.to_string(), PETER);
        let note: SignedNote = NOTE.parse().unwrap();
        assert_eq!(note.to_string(), NOTE);
        assert!(note.open(std::slice::from_ref(&key)).unwrap().starts_with("If you think"));
        let changed: SignedNote = NOTE.replace("your problem is", "your answer is").parse().unwrap();
        assert_eq!(changed.open(&[key]), Err(BadNote::Signature("PeterNeumann".parse().unwrap())));
        assert_eq!(note.open(&[]), Err(BadNote::Unsigned));
    }

    #[test]
    fn of_several_signatures_one_known_key_is_enough_and_none_may_be_wrong() {
        let pairs = [1, 2].map(|seed| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap());
        let keys = pairs.each_ref().map(|pair| VerifierKey {
            name: "a.example/log".parse().unwrap(),
            public: pair.public_key().as_ref().try_into().unwrap(),
        });
        let text = "a.example/log\n1\nAA==\n";
        let sign = |n: usize| Signature::by(&keys[n], pairs[n].sign(text.as_bytes()).as_ref().to_vec());
        let note = SignedNote { text: text.to_owned(), signatures: vec![sign(0), sign(1)] };
        let again: SignedNote = note.to_string().parse().unwrap();
        assert_eq!(again, note);
        for key in &keys {
            assert_eq!(again.open(std::slice::from_ref(key)), Ok(text));
        }
        let mut bad = note;
        bad.signatures[1].bytes[0] ^= 1;
        assert_eq!(bad.open(&keys[..1]), Ok(text));
        assert!(matches!(bad.open(&keys), Err(BadNote::Signature(_))));
    }

    #[test]
    fn what_is_no_note_or_key_is_refused() {
        for bad in ["", "\n", "a\n", "a\n\n", "a\n\nb\n", "\n\n\u{2014} a AAAAAAA=\n", "a\n\n\u{2014} a AAAA"]
        {
            assert_eq!(bad.parse::<SignedNote>(), Err(BadNote::Malformed), "{bad:?}");
        }
        let wrong_hash = PETER.replace("c74f20a3", "c74f20a4");
        let wrong_kind = PETER.replace("+ARpc", "+Ahpc");
        for bad in ["", "a", "a+b", "a+00000000+", &wrong_hash, &wrong_kind] {
            assert_eq!(bad.parse::<VerifierKey>(), Err(NotAKey), "{bad:?}");
        }
        for bad in ["", "a b", "a+b", "a\nb", "a\u{a0}b"] {
            assert_eq!(bad.parse::<KeyName>(), Err(NotAName), "{bad:?}");
        }
    }
}
