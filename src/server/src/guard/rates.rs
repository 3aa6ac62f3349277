//! How often one workload may call.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Workloads that are remembered in one span. Those beyond are not held back: their calls in flight are bounded still.
const WORKLOADS: usize = 100_000;

/// How often one may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Calls in a second, steadily; at least 1.
    pub(crate) per_second: u32,
    /// Calls at once after a rest; at least 1.
    pub(crate) burst: u32,
}

/// A token bucket each (as the generic cell rate algorithm: the time at which the bucket would be full again is all that
/// is kept). Who has not called for so long that its bucket is full is forgotten.
pub(crate) struct Rates<K> {
    rate: Rate,
    /// Between two calls at the steady rate.
    interval: Duration,
    /// How far ahead of it a burst may run.
    ahead: Duration,
    buckets: Mutex<Buckets<K>>,
}

struct Buckets<K> {
    /// When the first of `young` was put there.
    since: Duration,
    young: HashMap<K, Duration>,
    old: HashMap<K, Duration>,
}

impl<K: Hash + Eq> Rates<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        let Rate { per_second, burst } = rate;
        let interval = Duration::from_secs(1) / per_second.max(1);
        let buckets = Buckets { since: Duration::ZERO, young: HashMap::new(), old: HashMap::new() };
        Self { rate, interval, ahead: interval * burst.saturating_sub(1), buckets: Mutex::new(buckets) }
    }

    /// How often each may call.
    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// One more call of this workload, at `now` of the monotonic clock.
    ///
    /// # Errors
    /// One too many; the time after which another is not.
    pub(crate) fn take(&self, who: K, now: Duration) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        // What is older than the time in which any bucket fills says nothing any more.
        if now.saturating_sub(buckets.since) > self.ahead + self.interval {
            buckets.old = std::mem::take(&mut buckets.young);
            buckets.since = now;
        }
        let kept = buckets.young.get(&who).or_else(|| buckets.old.get(&who)).copied();
        let full = kept.unwrap_or_default().max(now);
        let early = full.saturating_sub(now).saturating_sub(self.ahead);
        if !early.is_zero() {
            return Err(early);
        }
        if kept.is_some() || buckets.young.len() < WORKLOADS {
            buckets.young.insert(who, full + self.interval);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_then_a_steady_rate_each_by_itself() {
        let rates = Rates::new(Rate { per_second: 10, burst: 3 });
        for _ in 0..3 {
            assert_eq!(rates.take("loops", at(5000)), Ok(()));
        }
        assert_eq!(rates.take("loops", at(5000)), Err(at(100)));
        assert_eq!(rates.take("loops", at(5040)), Err(at(60)), "the hint is exact, and asking costs nothing");
        assert_eq!(rates.take("neighbour", at(5040)), Ok(()));
        assert_eq!(rates.take("loops", at(5100)), Ok(()));
        assert_eq!(rates.take("loops", at(5100)), Err(at(100)));
        for _ in 0..3 {
            assert_eq!(rates.take("loops", at(5500)), Ok(()), "full again");
        }
        assert!(rates.take("loops", at(5500)).is_err());
    }

    #[test]
    fn one_at_once_is_the_least() {
        let rates = Rates::new(Rate { per_second: 1, burst: 1 });
        assert_eq!(rates.take((), at(1)), Ok(()));
        assert_eq!(rates.take((), at(2)), Err(at(999)));
        assert_eq!(rates.take((), at(1001)), Ok(()));
    }

    #[test]
    fn no_moment_of_forgetting_lets_more_through() {
        let rates = Rates::new(Rate { per_second: 10, burst: 50 });
        let mut passed = 0;
        for millis in 0..60_000 {
            passed += u32::from(rates.take((), at(1_000_000 + millis)).is_ok());
        }
        assert_eq!(passed, 50 + 599);
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let rates = Rates::new(Rate { per_second: 10, burst: 50 });
        for n in 0..2 * WORKLOADS {
            rates.take(n, at(1000)).unwrap();
        }
        assert_eq!(rates.buckets.lock().unwrap().young.len(), WORKLOADS);
        for round in 1..4 {
            rates.take(0, at(1000 + 6000 * round)).unwrap();
        }
        let buckets = rates.buckets.lock().unwrap();
        assert_eq!((buckets.young.len(), buckets.old.len()), (1, 1));
    }
}
