//! The store itself, for operators: a backup of it, and its adoption after a restore.
//!
//! It holds what is of every owner and cluster: who may touch it may so cluster-wide, and where several clusters are served
//! only in the home cluster.

use dayfly_core::change::{Change, Conflict, Outcome};
use dayfly_core::ids::{Incarnation, Position};
use dayfly_core::rule::Actor;

use crate::operator::By;
use crate::{Broker, Error};

/// What an adoption found or wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adopted {
    /// The store was adopted before, or never a copy.
    pub already: bool,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its newest position.
    pub position: Position,
}

impl Broker {
    /// The operator, if it may take a backup: that takes `create` on all `backups`.
    ///
    /// # Errors
    /// When it may not, or is not known.
    pub async fn may_back_up<'a>(&'a self, by: impl Into<By<'a>>) -> Result<Actor, Error> {
        let operator = self.operator(by).await?;
        let may = operator.at_home("create", "backups", None).await;
        self.noted(&operator, may)?;
        Ok(operator.actor())
    }

    /// Says that a store that was restored, or accepted behind its witness, is the one that counts. It takes `adopt` on all
    /// `stores`.
    ///
    /// # Errors
    /// When the operator may not, or is not known, or the store cannot commit.
    pub async fn adopt_store<'a>(&'a self, by: impl Into<By<'a>>) -> Result<Adopted, Error> {
        let operator = self.operator(by).await?;
        let may = operator.at_home("adopt", "stores", None).await;
        self.noted(&operator, may)?;
        let already = match self.store.commit(Change::Adopt { by: operator.actor() }).await? {
            Outcome::Committed(_) => false,
            Outcome::Conflict(Conflict::Adopted) => true,
            other => return Err(Error::internal(format!("the store answered an adoption with {other:?}"))),
        };
        self.prove().await;
        let status = self.store.status();
        Ok(Adopted { already, incarnation: status.incarnation, position: status.position })
    }
}
