//! Reviews, kept for seconds: good ones, and apart from them refusals.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dayfly_core::digest::Digest;
use dayfly_core::ids::Uid;
use dayfly_core::ports::ReviewError;
use dayfly_core::workload::Identity;

/// Reviews kept for one cluster, and objects known to be gone.
const ENTRIES: usize = 100_000;
/// Refusals kept for one cluster, of tokens whose signature is good: only the cluster itself can make more of them.
const REFUSALS: usize = 10_000;
/// Refusals kept where signatures are not checked before: anyone can make them.
const UNCHECKED_REFUSALS: usize = 256;

/// Reviews by the digest of audience and token, the token itself is never kept.
///
/// A good review ends with its time, or with its pod or service account. What is gone is remembered for longer than any
/// review that may still be under way or kept: uids never come back. A refusal ends with its time alone, and is kept
/// where it takes no good review's room.
pub(crate) struct ReviewCache {
    ttl: Duration,
    refused_ttl: Duration,
    held: Mutex<Held>,
}

struct Held {
    reviews: Aged<Digest, Review>,
    refused: Aged<Digest, Refusal>,
    gone: Aged<Uid, ()>,
}

struct Refusal {
    error: ReviewError,
    until: Duration,
}

struct Review {
    identity: Arc<Identity>,
    until: Duration,
    objects: [Option<Uid>; 2],
}

impl ReviewCache {
    /// An empty cache that keeps a good review no longer than `ttl`, and a refusal no longer than `refused_ttl`.
    /// `checked` says that signatures are checked before a review.
    pub(crate) fn new(ttl: Duration, refused_ttl: Duration, checked: bool) -> Self {
        let refusals = if checked { REFUSALS } else { UNCHECKED_REFUSALS };
        let held =
            Held { reviews: Aged::new(ENTRIES), refused: Aged::new(refusals), gone: Aged::new(ENTRIES) };
        Self { ttl, refused_ttl, held: Mutex::new(held) }
    }

    /// What was said of it; `now` is the monotonic clock, here and below.
    pub(crate) fn get(&self, key: &Digest, now: Duration) -> Option<Result<Arc<Identity>, ReviewError>> {
        let held = self.held();
        if let Some(review) = held.reviews.get(key)
            && now < review.until
            && !held.any_gone(review.objects)
        {
            return Some(Ok(Arc::clone(&review.identity)));
        }
        let refusal = held.refused.get(key).filter(|refusal| now < refusal.until)?;
        Some(Err(refusal.error.clone()))
    }

    /// Whether a good review is kept.
    #[cfg(test)]
    pub(crate) fn has_good(&self, key: &Digest, now: Duration) -> bool {
        self.get(key, now).is_some_and(|said| said.is_ok())
    }

    /// Keeps the API server's refusal of a token, answered at `now`.
    pub(crate) fn put_refused(&self, key: Digest, error: &ReviewError, now: Duration) {
        let mut held = self.held();
        held.refused.forget_before(now.saturating_sub(self.refused_ttl));
        held.refused.put(key, Refusal { error: error.clone(), until: now + self.refused_ttl }, now);
    }

    /// Keeps a good review that was asked for at `asked`, of a token with `life` to go then.
    pub(crate) fn put(&self, key: Digest, identity: &Arc<Identity>, asked: Duration, life: Duration) {
        let objects = [
            identity.pod().map(|pod| pod.uid),
            identity.service_account().map(|service_account| service_account.uid),
        ];
        let until = asked + self.ttl.min(life);
        let mut held = self.held();
        if until > asked && !held.any_gone(objects) {
            held.reviews.forget_before(asked.saturating_sub(self.ttl));
            held.reviews.put(key, Review { identity: Arc::clone(identity), until, objects }, asked);
        }
    }

    /// A pod or service account is gone: nothing that was said of it counts any more.
    pub(crate) fn gone(&self, uid: Uid, now: Duration) {
        let mut held = self.held();
        held.gone.forget_before(now.saturating_sub(self.ttl + Duration::from_secs(30)));
        held.gone.put(uid, (), now);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn any_gone(&self, objects: [Option<Uid>; 2]) -> bool {
        objects.iter().flatten().any(|uid| self.gone.get(uid).is_some())
    }
}

/// A bounded map that forgets the oldest first.
pub(crate) struct Aged<K, V> {
    most: usize,
    entries: HashMap<K, (u64, V)>,
    order: VecDeque<(Duration, u64, K)>,
    serial: u64,
}

impl<K: std::hash::Hash + Eq + Copy, V> Aged<K, V> {
    /// An empty one, of at most so many entries.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, entries: HashMap::new(), order: VecDeque::new(), serial: 0 }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(crate) fn put(&mut self, key: K, value: V, now: Duration) {
        // The order may hold an entry twice, where it was replaced: it is what is bounded.
        if self.order.len() >= self.most {
            self.forget_oldest();
        }
        self.serial += 1;
        self.entries.insert(key, (self.serial, value));
        self.order.push_back((now, self.serial, key));
    }

    pub(crate) fn forget_before(&mut self, time: Duration) {
        while self.order.front().is_some_and(|(put, _, _)| *put < time) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, serial, key)) = self.order.pop_front() else { return };
        if self.entries.get(&key).is_some_and(|(newest, _)| *newest == serial) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use dayfly_core::ports::InvalidToken;

    use super::*;
    use crate::testing::identity;

    const TTL: Duration = Duration::from_secs(10);
    const HOUR: Duration = Duration::from_secs(3600);

    fn cache() -> ReviewCache {
        ReviewCache::new(TTL, at(2), true)
    }

    fn key(n: usize) -> Digest {
        Digest::of(&n.to_be_bytes())
    }

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_review_is_kept_until_its_time_or_the_tokens_end() {
        let cache = cache();
        let identity = Arc::new(identity(1, 2));
        cache.put(key(1), &identity, at(100), HOUR);
        cache.put(key(2), &identity, at(100), at(3));
        cache.put(key(3), &identity, at(100), Duration::ZERO);
        assert!(cache.has_good(&key(1), at(109)) && !cache.has_good(&key(1), at(110)));
        assert!(cache.has_good(&key(2), at(102)) && !cache.has_good(&key(2), at(103)));
        assert!(!cache.has_good(&key(3), at(100)));
    }

    #[test]
    fn nothing_said_of_what_is_gone_counts_before_or_after() {
        let cache = cache();
        cache.put(key(1), &Arc::new(identity(1, 2)), at(100), HOUR);
        cache.put(key(2), &Arc::new(identity(3, 2)), at(100), HOUR);
        cache.gone(Uid::from_u128(1), at(101));
        assert!(!cache.has_good(&key(1), at(101)) && cache.has_good(&key(2), at(101)));
        cache.put(key(1), &Arc::new(identity(1, 2)), at(101), HOUR);
        assert!(!cache.has_good(&key(1), at(101)), "a review that was under way is not kept");
        cache.gone(Uid::from_u128(2), at(102));
        assert!(!cache.has_good(&key(2), at(102)), "the service account went");
    }

    #[test]
    fn the_oldest_is_evicted() {
        let cache = cache();
        let identity = Arc::new(identity(1, 2));
        for n in 0..=ENTRIES {
            cache.put(key(n), &identity, at(100), HOUR);
        }
        assert_eq!(cache.held().reviews.entries.len(), ENTRIES);
        assert!(!cache.has_good(&key(0), at(100)) && cache.has_good(&key(1), at(100)));
        cache.put(key(0), &identity, at(200), HOUR);
        assert_eq!(cache.held().reviews.entries.len(), 1, "what is past its time goes too");
    }

    fn no() -> ReviewError {
        crate::local::invalid(InvalidToken::Refused, "gone")
    }

    #[test]
    fn a_refusal_ends_with_its_time_alone() {
        let cache = cache();
        cache.put_refused(key(1), &no(), at(100));
        assert_eq!(cache.get(&key(1), at(101)).unwrap().unwrap_err(), no());
        cache.gone(Uid::from_u128(1), at(101));
        assert!(cache.get(&key(1), at(101)).is_some() && cache.get(&key(1), at(102)).is_none());
    }

    #[test]
    fn refusals_take_no_good_reviews_room_and_unchecked_ones_hardly_any() {
        for (checked, most) in [(true, REFUSALS), (false, UNCHECKED_REFUSALS)] {
            let cache = ReviewCache::new(TTL, at(2), checked);
            cache.put(key(0), &Arc::new(identity(1, 2)), at(100), HOUR);
            for n in 1..=ENTRIES {
                cache.put_refused(key(n), &no(), at(100));
            }
            assert!(cache.has_good(&key(0), at(100)));
            let held = cache.held();
            assert_eq!((held.refused.entries.len(), held.refused.order.len()), (most, most));
        }
    }
}
