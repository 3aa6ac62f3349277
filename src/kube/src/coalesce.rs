//! One piece of work for all who ask for the same at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dayfly_core::ports::BoxFuture;
use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};

type Work<T> = BoxFuture<'static, T>;
type UnderWay<K, T> = Mutex<HashMap<K, (u64, WeakShared<Work<T>>)>>;

/// Work under way, by what it is about. It goes on as long as anyone waits for it, and is forgotten when it ends:
/// nothing is kept here.
pub(crate) struct Coalesce<K, T: Clone> {
    under_way: Arc<UnderWay<K, T>>,
    serial: AtomicU64,
}

impl<K, T> Coalesce<K, T>
where
    K: Hash + Eq + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Self { under_way: Arc::default(), serial: AtomicU64::new(0) }
    }

    /// The work under way for `key`, else what `start` begins, if it begins any.
    pub(crate) fn join_or(&self, key: K, start: impl FnOnce() -> Option<Work<T>>) -> Option<Shared<Work<T>>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(joined) = under_way.get(&key).and_then(|(_, work)| work.upgrade()) {
            return Some(joined);
        }
        let work = start()?;
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let forget = Forget { under_way: Arc::clone(&self.under_way), key: key.clone(), serial };
        let work: Work<T> = Box::pin(async move {
            let _forget = forget;
            work.await
        });
        let work = work.shared();
        if let Some(weak) = work.downgrade() {
            under_way.insert(key, (serial, weak));
        }
        Some(work)
    }
}

/// Takes the work off the list when it ends, or when the last who waited for it has left.
struct Forget<K: Hash + Eq, T: Clone> {
    under_way: Arc<UnderWay<K, T>>,
    key: K,
    serial: u64,
}

impl<K: Hash + Eq, T: Clone> Drop for Forget<K, T> {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.get(&self.key).is_some_and(|(serial, _)| *serial == self.serial) {
            under_way.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn all_who_ask_at_once_share_one_piece_of_work_and_it_is_forgotten() {
        let coalesce = Coalesce::<u8, usize>::new();
        let runs = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let runs = Arc::clone(&runs);
            let work = coalesce.join_or(1, || {
                Some(Box::pin(async move {
                    tokio::task::yield_now().await;
                    runs.fetch_add(1, Ordering::SeqCst)
                }))
            });
            work.unwrap()
        };
        let (first, second) = (ask(), ask());
        assert_eq!((first.await, second.await), (0, 0));
        assert!(coalesce.under_way.lock().unwrap().is_empty());
        assert_eq!(ask().await, 1, "a later one asks again");
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_stops_and_is_forgotten() {
        let coalesce = Coalesce::<u8, ()>::new();
        let work = coalesce.join_or(1, || Some(Box::pin(std::future::pending()))).unwrap();
        let mut other = coalesce.join_or(1, || None).unwrap();
        drop(work);
        assert!(futures_util::poll!(&mut other).is_pending());
        drop(other);
        assert!(coalesce.under_way.lock().unwrap().is_empty());
        assert!(coalesce.join_or(1, || None).is_none());
    }
}
