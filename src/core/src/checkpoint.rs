//! Checkpoints of the audit log (C2SP tlog-checkpoint): which log, how many leaves, the root over them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::change::LogHead;
use crate::ids::{Incarnation, InstanceId, Position};
use crate::note::{BadNote, KeyName, SignedNote, VerifierKey};
use crate::ports::BoxFuture;

/// What makes and publishes checkpoints.
pub trait Checkpoints: Send + Sync + 'static {
    /// Waits until a checkpoint that covers this position is signed and published, or for as long as an answer may wait for
    /// that: it never fails, and what was not published then is tried again.
    fn cover(&self, position: Position) -> BoxFuture<'_, ()>;
    /// The newest that was published, if one was.
    fn latest(&self) -> Option<SignedNote>;
    /// The keys that checkpoints are verified with, newest first.
    fn keys(&self) -> Vec<VerifierKey>;
}

/// A checkpoint's text: the origin, the size in decimal digits, the root in base64, each a line; then the lines `instance ID`
/// and `incarnation NUMBER` that Dayfly writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: the name of its keys, too.
    pub origin: KeyName,
    /// How many leaves, and the root over them.
    pub head: LogHead,
    /// Which store: two checkpoints of one origin, instance and incarnation are of one log that only grew.
    pub store: Option<(InstanceId, Incarnation)>,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.head.size, STANDARD.encode(self.head.root))?;
        match &self.store {
            Some((instance, incarnation)) => {
                writeln!(f, "instance {instance}\nincarnation {}", incarnation.0)
            }
            None => Ok(()),
        }
    }
}

/// A text is no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no checkpoint: an origin, a size and a root in base64, each on a line of its own")]
pub struct NotACheckpoint;

impl FromStr for Checkpoint {
    type Err = NotACheckpoint;

    /// Lines that it does not know are passed over.
    fn from_str(text: &str) -> Result<Self, NotACheckpoint> {
        let bad = NotACheckpoint;
        let mut lines = text.strip_suffix('\n').ok_or(bad)?.split('\n');
        let mut next = || lines.next().filter(|line| !line.is_empty()).ok_or(bad);
        let origin = next()?.parse().map_err(|_| bad)?;
        let decimal = next()?;
        let size: u64 = decimal.parse().map_err(|_| bad)?;
        let root = STANDARD.decode(next()?).map_err(|_| bad)?;
        let root = root.try_into().map_err(|_| bad)?;
        let rest: Vec<_> = lines.collect();
        if size.to_string() != decimal || rest.iter().any(|line| line.is_empty()) {
            return Err(bad);
        }
        let said = |name: &str| rest.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let instance = said("instance").and_then(|id| id.parse().ok());
        let incarnation = said("incarnation").and_then(|number| number.parse().ok());
        let store = instance.zip(incarnation.map(Incarnation));
        Ok(Self { origin, head: LogHead { size, root }, store })
    }
}

/// A checkpoint cannot be relied on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCheckpoint {
    /// It is no note, or not signed by who it has to be.
    #[error(transparent)]
    Note(#[from] BadNote),
    /// The note is about something else.
    #[error(transparent)]
    Text(#[from] NotACheckpoint),
    /// It is of another log than the key's.
    #[error("it is of log {0}, which none of the given keys is of")]
    Origin(KeyName),
}

/// Reads a checkpoint that one of these keys signed for its own log.
///
/// # Errors
/// When it is none, none of them signed it, or it is of another log.
pub fn open(note: &SignedNote, keys: &[VerifierKey]) -> Result<Checkpoint, BadCheckpoint> {
    let checkpoint: Checkpoint = note.open(keys)?.parse()?;
    if keys.iter().any(|key| key.name == checkpoint.origin) {
        Ok(checkpoint)
    } else {
        Err(BadCheckpoint::Origin(checkpoint.origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_what_others_do() {
        let checkpoint = Checkpoint {
            origin: "dayfly.example/log".parse().unwrap(),
            head: LogHead { size: 17, root: [7; 32] },
            store: Some((InstanceId::from_bytes([3; 16]), Incarnation(2))),
        };
        let text = checkpoint.to_string();
        assert_eq!(
            text,
            "dayfly.example/log\n17\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n\
             instance 03030303-0303-0303-0303-030303030303\nincarnation 2\n"
        );
        assert_eq!(text.parse(), Ok(checkpoint));
        // From the specification.
        let other =
            "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\nx\n";
        let other: Checkpoint = other.parse().unwrap();
        assert_eq!((other.head.size, other.store), (20_852_163, None));
        for bad in [
            "",
            "a\n",
            "a\n1\n",
            "a\n1\nAA==\n",
            "a\n01\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n",
            "a\n1\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n\n",
            "a\n1\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
            "a b\n1\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n",
        ] {
            assert_eq!(bad.parse::<Checkpoint>(), Err(NotACheckpoint), "{bad:?}");
        }
    }
}
