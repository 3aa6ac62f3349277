//! The lives of the signing keys, for operators: list, rotate, revoke.
//!
//! Keys are of no owner: who may touch them may so cluster-wide, and where several clusters are served only in the home
//! cluster. The right is on resource `keys`, by the name of the purpose or key.

use std::time::Duration;

use dayfly_core::ids::KeyId;
use dayfly_core::keeper::{KeeperError, KeyState, RevokedKey};
use dayfly_core::signing::KeyPurpose;

use crate::operator::By;
use crate::reads::Read;
use crate::revoke::check_reason;
use crate::{Broker, Error, Reason};

impl Broker {
    /// Every signing key, oldest first; with `gone`, those that have retired or were revoked too. It takes `list` on all
    /// `keys`.
    ///
    /// # Errors
    /// When the operator may not, or is not known.
    pub async fn list_keys<'a>(&'a self, by: impl Into<By<'a>>, gone: bool) -> Result<Vec<KeyState>, Error> {
        let operator = self.operator(by).await?;
        let may = operator.at_home("list", "keys", None).await;
        self.noted(&operator, may)?;
        self.note_read(&operator, Read::of("ListKeys", ""));
        let keys = self.keys.keys().into_iter();
        Ok(keys.filter(|key| gone || key.stage.is_published()).collect())
    }

    /// Makes a next key, where there is none; with `now`, it signs at once. It takes `rotate` on the purpose.
    ///
    /// # Errors
    /// When nothing was done; where the store did not answer, it may be found done later.
    pub async fn rotate_key<'a>(
        &'a self,
        by: impl Into<By<'a>>,
        purpose: &KeyPurpose,
        now: bool,
    ) -> Result<KeyState, Error> {
        let operator = self.operator(by).await?;
        let may = operator.at_home("rotate", "keys", Some(purpose.to_string())).await;
        self.noted(&operator, may)?;
        let key = self.keys.rotate(purpose, now, &operator.actor()).await?;
        self.prove().await;
        Ok(key)
    }

    /// Ends a key and all that it signed, at once. It takes `revoke` on the key.
    ///
    /// # Errors
    /// As [`Broker::rotate_key`].
    pub async fn revoke_key<'a>(
        &'a self,
        by: impl Into<By<'a>>,
        key: &KeyId,
        reason: &str,
    ) -> Result<RevokedKey, Error> {
        let operator = self.operator(by).await?;
        check_reason(reason)?;
        let may = operator.at_home("revoke", "keys", Some(key.to_string())).await;
        self.noted(&operator, may)?;
        let revoked = self.keys.revoke(key, &operator.actor(), reason).await?;
        self.prove().await;
        Ok(revoked)
    }

    /// After how long at most verifiers ask for the published keys again.
    pub fn key_refresh(&self) -> Duration {
        self.keys.refresh()
    }
}

impl From<KeeperError> for Error {
    fn from(error: KeeperError) -> Self {
        match error {
            KeeperError::NoSuchKey(_) | KeeperError::NoSuchPurpose(_) => {
                Self::NotFound { message: error.to_string() }
            }
            KeeperError::Stage(message) => Self::stale(Reason::KeyStage, message),
            KeeperError::Store(error) => error.into(),
            KeeperError::Failed(cause) => Self::internal(cause),
        }
    }
}
