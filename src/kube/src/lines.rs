//! Lines for the review of operators' tokens: one for each namespace that tokens are of, and one for all tokens of service
//! accounts that the cluster is not known to have. Each has a part of what may be under way, so that none keeps another's
//! operators from being reviewed, although whose a token is has yet to be shown.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dayfly_core::ids::{Namespace, ServiceAccountName, Uid};
use dayfly_jose::peek;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::informer::Store;
use crate::objects::ServiceAccounts;

/// The lines in which anyone stands.
pub(crate) struct Lines {
    accounts: Arc<Store<ServiceAccounts>>,
    /// Of one line, under review at once.
    at_once: usize,
    /// Of one line, those that wait included.
    longest: usize,
    standing: Arc<Mutex<Standing>>,
}

type Standing = HashMap<Line, (usize, Arc<Semaphore>)>;

/// Whose line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Line {
    /// Tokens of this namespace's service accounts: they name one by its uid, which a stranger does not know.
    Of(Namespace),
    /// All others.
    Strangers,
}

impl Lines {
    /// Lines for so many reviews at once: a quarter of them for each.
    pub(crate) fn new(reviews: usize, accounts: Arc<Store<ServiceAccounts>>) -> Self {
        Self { accounts, at_once: (reviews / 4).max(1), longest: reviews.max(2), standing: Arc::default() }
    }

    /// This token's turn, once it comes; none where its line is too long.
    pub(crate) async fn turn(&self, token: &str) -> Option<Turn> {
        let line = self.line(token).unwrap_or(Line::Strangers);
        let (place, turns) = {
            let mut lines = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
            let (count, turns) =
                lines.entry(line.clone()).or_insert_with(|| (0, Arc::new(Semaphore::new(self.at_once))));
            if *count >= self.longest {
                return None;
            }
            *count += 1;
            (Place { lines: Arc::clone(&self.standing), line }, Arc::clone(turns))
        };
        Some(Turn { _turn: turns.acquire_owned().await.ok()?, _place: place })
    }

    /// What the token says of itself, where that may be so. While nothing is known of service accounts, all may.
    fn line(&self, token: &str) -> Option<Line> {
        let claims = peek(token).ok()?.claims.all;
        let said = claims.get("kubernetes.io")?;
        let account = said.get("serviceaccount")?;
        let namespace: Namespace = said.get("namespace")?.as_str()?.parse().ok()?;
        let name: ServiceAccountName = account.get("name")?.as_str()?.parse().ok()?;
        let uid: Uid = account.get("uid")?.as_str()?.parse().ok()?;
        let may_be = !self.accounts.listed()
            || self.accounts.get(&namespace, &name).is_some_and(|known| known.uid == uid);
        may_be.then_some(Line::Of(namespace))
    }
}

/// A token's turn to be reviewed.
pub(crate) struct Turn {
    _turn: OwnedSemaphorePermit,
    _place: Place,
}

struct Place {
    lines: Arc<Mutex<Standing>>,
    line: Line,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.get_mut(&self.line) {
            Some((count, _)) if *count > 1 => *count -= 1,
            _ => drop(lines.remove(&self.line)),
        }
    }
}
