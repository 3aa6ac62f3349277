//! The system's clock and randomness behind their ports, and the guard against a clock that jumps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::rand::SecureRandom;

use crate::ports::{Clock, Rng, RngFailed};
use crate::time::Timestamp;

/// The operating system's clocks.
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time counts from now.
    #[expect(clippy::disallowed_methods, reason = "this is the Clock the ban points to")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the Clock the ban points to")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// The operating system's randomness, by ring.
pub struct SystemRng(ring::rand::SystemRandom);

impl SystemRng {
    /// The operating system's generator.
    #[expect(clippy::disallowed_methods, reason = "this is the Rng the ban points to")]
    pub fn new() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

impl Default for SystemRng {
    fn default() -> Self {
        Self::new()
    }
}

impl Rng for SystemRng {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RngFailed> {
        self.0.fill(bytes).map_err(|_| RngFailed)
    }
}

/// Notices a wall clock that jumped against the monotonic clock, forwards or back.
#[derive(Debug, Clone, Copy)]
pub struct ClockGuard {
    wall: Timestamp,
    monotonic: Duration,
    limit: Duration,
}

/// The wall clock jumped by more than the limit since this process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system clock jumped by {by:?} against the monotonic clock (limit {limit:?})")]
pub struct ClockJumped {
    /// How far it is off.
    pub by: Duration,
    /// The limit it went past.
    pub limit: Duration,
}

impl ClockGuard {
    /// Takes the clock as right at this moment; `limit` is how far it may drift from here.
    pub fn new(clock: &dyn Clock, limit: Duration) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic(), limit }
    }

    /// The later of what the wall clock says and of what it would say had it not been set since: what has expired by it
    /// does not come back to life because the clock went back.
    pub fn latest(&self, clock: &dyn Clock) -> Timestamp {
        clock.now().max(self.expected(clock))
    }

    /// The earlier of the two: what is over by it is over, even if the clock was set ahead.
    pub fn earliest(&self, clock: &dyn Clock) -> Timestamp {
        clock.now().min(self.expected(clock))
    }

    fn expected(&self, clock: &dyn Clock) -> Timestamp {
        self.wall.plus(clock.monotonic().saturating_sub(self.monotonic))
    }

    /// The time now.
    ///
    /// # Errors
    /// [`ClockJumped`] while the wall clock is further off than the limit. It ends when the clock is set back.
    pub fn now(&self, clock: &dyn Clock) -> Result<Timestamp, ClockJumped> {
        let now = clock.now();
        let expected = self.expected(clock);
        let by = now.since(expected).max(expected.since(now));
        if by > self.limit { Err(ClockJumped { by, limit: self.limit }) } else { Ok(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::TestClock;

    #[test]
    fn a_jump_past_the_limit_is_refused_until_it_is_set_back() {
        let clock = TestClock::at(Timestamp::from_secs(1_000_000));
        let guard = ClockGuard::new(&clock, Duration::from_secs(300));
        clock.advance(Duration::from_secs(3600));
        assert!(guard.now(&clock).is_ok());
        clock.jump(301);
        assert_eq!(guard.now(&clock).unwrap_err().by, Duration::from_secs(301));
        clock.jump(-602);
        assert!(guard.now(&clock).is_err());
        assert_eq!(guard.latest(&clock), Timestamp::from_secs(1_003_600));
        clock.jump(301);
        assert!(guard.now(&clock).is_ok());
    }
}
