//! Who is told of what: the newest changes of leases, bounded, and a bell that rings with each commit.

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use dayfly_core::change::News;
use dayfly_core::digest::Digest;
use dayfly_core::ids::{LeaseId, Position};
use dayfly_core::ports::StoreError;
use tokio::sync::watch;

/// A change of a lease, and whose it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) position: Position,
    pub(crate) caller: Digest,
    pub(crate) lease: LeaseId,
}

/// The newest changes of leases. Only the writer adds to it.
pub(crate) struct Newest {
    bound: usize,
    told: RwLock<Remembered>,
    bell: watch::Sender<Heard>,
    /// Rings for rules alone, with the newest one's position.
    rules: watch::Sender<Heard>,
}

/// What the bell says.
#[derive(Clone, Copy)]
struct Heard {
    position: Position,
    closing: bool,
}

struct Remembered {
    /// By position, oldest first.
    told: VecDeque<Told>,
    /// Everything after this position is in it.
    since: Position,
}

impl Newest {
    /// Remembers the last `bound` changes from `since` on.
    pub(crate) fn new(bound: usize, since: Position) -> Self {
        let told = RwLock::new(Remembered { told: VecDeque::new(), since });
        let bell = |position| watch::Sender::new(Heard { position, closing: false });
        Self { bound, told, bell: bell(since), rules: bell(Position::ZERO) }
    }

    /// Adds what a commit changed; nobody is told yet.
    pub(crate) fn add(&self, told: Vec<Told>) {
        if told.is_empty() {
            return;
        }
        let mut kept = self.told.write().unwrap_or_else(PoisonError::into_inner);
        kept.told.extend(told);
        while kept.told.len() > self.bound {
            if let Some(oldest) = kept.told.pop_front() {
                kept.since = kept.since.max(oldest.position);
            }
        }
    }

    /// What happened up to `position` can be read now, and the rules up to `ruled`.
    pub(crate) fn ring(&self, position: Position, ruled: Position) {
        for (bell, position) in [(&self.bell, position), (&self.rules, ruled)] {
            bell.send_if_modified(|heard| std::mem::replace(&mut heard.position, position) != position);
        }
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        for bell in [&self.bell, &self.rules] {
            bell.send_modify(|heard| heard.closing = true);
        }
    }

    /// What was changed is not known: everybody lists anew.
    pub(crate) fn forget(&self, position: Position) {
        *self.told.write().unwrap_or_else(PoisonError::into_inner) =
            Remembered { told: VecDeque::new(), since: position };
    }

    /// Waits for a position above `after`, then says which of a caller's leases changed.
    pub(crate) fn after(
        &self,
        caller: Digest,
        after: Position,
    ) -> impl Future<Output = Result<News, StoreError>> + Send + use<'_> {
        let heard = heard(self.bell.subscribe(), after);
        async move {
            let position = heard.await?;
            Ok(News { position, leases: self.between(&caller, after, position) })
        }
    }

    /// Waits for a rule later than `after`, and gives the newest one's position.
    pub(crate) fn ruled(
        &self,
        after: Position,
    ) -> impl Future<Output = Result<Position, StoreError>> + Send + use<> {
        heard(self.rules.subscribe(), after)
    }

    /// Waits for a position above `after`, and gives the newest.
    pub(crate) fn committed(
        &self,
        after: Position,
    ) -> impl Future<Output = Result<Position, StoreError>> + Send + use<> {
        heard(self.bell.subscribe(), after)
    }

    fn between(&self, caller: &Digest, after: Position, to: Position) -> Option<Vec<LeaseId>> {
        let kept = self.told.read().unwrap_or_else(PoisonError::into_inner);
        if after < kept.since {
            return None;
        }
        let newer = kept.told.iter().rev().take_while(|told| told.position > after);
        let mut leases: Vec<LeaseId> = Vec::new();
        for told in newer.filter(|told| told.position <= to && told.caller == *caller) {
            if !leases.contains(&told.lease) {
                leases.push(told.lease);
            }
        }
        leases.reverse();
        Some(leases)
    }
}

/// Waits until a bell rings with a position above `after`.
async fn heard(mut bell: watch::Receiver<Heard>, after: Position) -> Result<Position, StoreError> {
    let rung = bell.wait_for(|heard| heard.closing || heard.position > after).await;
    let Heard { position, closing } = *rung.map_err(|_| StoreError::Closing)?;
    if closing { Err(StoreError::Closing) } else { Ok(position) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_caller_of_its_own_and_says_when_it_has_forgotten() {
        let (mine, other) = (Digest::of(b"mine"), Digest::of(b"other"));
        let (at, lease) = (Position::new, LeaseId::from_u128);
        let told = |position, caller, id| Told { position: at(position), caller, lease: lease(id) };
        let newest = Newest::new(4, at(10));
        newest.add(vec![told(11, mine, 1), told(12, other, 2), told(13, mine, 1), told(13, mine, 3)]);
        assert_eq!(newest.between(&mine, at(10), at(13)), Some(vec![lease(1), lease(3)]));
        assert_eq!(newest.between(&mine, at(10), at(12)), Some(vec![lease(1)]));
        assert_eq!(newest.between(&mine, at(13), at(14)), Some(vec![]));
        assert_eq!(newest.between(&mine, at(9), at(13)), None, "it was not there then");
        newest.add(vec![told(14, mine, 4)]);
        assert_eq!(newest.between(&mine, at(10), at(14)), None, "position 11 is forgotten");
        assert_eq!(newest.between(&mine, at(11), at(14)), Some(vec![lease(1), lease(3), lease(4)]));
    }
}
