//! Operators' sessions: what a person has of Dayfly for ten minutes, after their cluster's API server said who they are.
//!
//! A session's token says who that is, as the API server said it. What they may do is asked of the API server at each call,
//! as for every operator.

use crate::ids::{KeyId, LeaseId};
use crate::ports::{InvalidToken, SignError};
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::workload::Identity;

/// The `typ` of their tokens, which are good for nothing else and nothing else is good for.
pub const TYP: &str = "dayfly-session+jwt";

/// One session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id, the token's `jti`: drawn as a lease's is, so none has it twice.
    pub id: LeaseId,
    /// Whose it is, as the API server of their cluster said it.
    pub identity: Identity,
    /// From when.
    pub issued_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
}

/// A session's token, and the key that signed it.
pub struct SessionToken {
    /// The token.
    pub token: Secret,
    /// The key.
    pub key: KeyId,
}

/// Signs the tokens of sessions, with keys of this use alone, and reads them back.
pub trait SessionTokens: Send + Sync + 'static {
    /// A session's token.
    ///
    /// # Errors
    /// When nothing signs now.
    fn sign(&self, session: &Session) -> Result<SessionToken, SignError>;

    /// The session whose token this is, if it is good at `now`. Nothing is remembered: the end of a key, by retirement or
    /// revocation, is the end of all its tokens.
    ///
    /// # Errors
    /// When the token is no session's of this store and this life of it, or is past its end.
    fn read(&self, token: &Secret, now: Timestamp) -> Result<Session, NoSession>;
}

/// A token is no session's that is good now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NoSession {
    /// What kind of wrong.
    pub kind: InvalidToken,
    /// What to do; safe to tell the caller.
    pub message: String,
}
