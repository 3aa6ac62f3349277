//! What informers have noticed, for whoever ends what depended on it.

use std::sync::{Mutex, PoisonError};

use dayfly_core::ports::{Affected, AffectedObjects};
use tokio::sync::Notify;

/// AffectedObjects that are remembered until somebody takes them.
const REMEMBERED: usize = 10_000;

/// AffectedObjects that nobody has taken yet.
#[derive(Default)]
pub(crate) struct AffectedQueue {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Default)]
struct Waiting {
    affected: Vec<Affected>,
    too_many: bool,
}

impl AffectedQueue {
    pub(crate) fn put(&self, affected: Affected) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.affected.len() < REMEMBERED && !waiting.too_many {
            waiting.affected.push(affected);
        } else {
            *waiting = Waiting { affected: Vec::new(), too_many: true };
        }
        drop(waiting);
        self.more.notify_one();
    }

    /// Waits for some, and takes all of them.
    pub(crate) async fn take(&self) -> AffectedObjects {
        loop {
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            match waiting {
                Waiting { too_many: true, .. } => return AffectedObjects::Many,
                Waiting { affected, .. } if !affected.is_empty() => return AffectedObjects::These(affected),
                Waiting { .. } => self.more.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dayfly_core::ids::Uid;

    use super::*;

    #[tokio::test]
    async fn each_is_told_once_and_too_many_are_told_as_that() {
        let queue = AffectedQueue::default();
        let affected =
            |n: usize| Affected { namespace: "payments".parse().unwrap(), uid: Uid::from_u128(n as u128) };
        queue.put(affected(1));
        queue.put(affected(2));
        assert_eq!(queue.take().await, AffectedObjects::These(vec![affected(1), affected(2)]));
        (0..=REMEMBERED).for_each(|n| queue.put(affected(n)));
        queue.put(affected(1));
        assert_eq!(queue.take().await, AffectedObjects::Many);
        queue.put(affected(3));
        assert_eq!(queue.take().await, AffectedObjects::These(vec![affected(3)]));
    }
}
