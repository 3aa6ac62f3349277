//! The time as the store takes it.

use std::time::Duration;

use dayfly_core::clock::{ClockGuard, ClockJumped};
use dayfly_core::ports::Clock;
use dayfly_core::time::Timestamp;

/// The clock, guarded since the store was opened.
pub(crate) struct Time {
    guard: ClockGuard,
    wall: Timestamp,
    monotonic: Duration,
}

impl Time {
    pub(crate) fn new(clock: &dyn Clock, limit: Duration) -> Self {
        Self { guard: ClockGuard::new(clock, limit), wall: clock.now(), monotonic: clock.monotonic() }
    }

    /// The time, for what may only be done while the clock can be trusted.
    pub(crate) fn trusted(&self, clock: &dyn Clock) -> Result<Timestamp, ClockJumped> {
        self.guard.now(clock)
    }

    /// The time, for what is done in any case. Where the clock has jumped, the earlier of what it says and what it
    /// should say: a rule that is dated too late would not end what expires before its date.
    pub(crate) fn cautious(&self, clock: &dyn Clock) -> Timestamp {
        self.trusted(clock).unwrap_or_else(|_| {
            let expected = self.wall.plus(clock.monotonic().saturating_sub(self.monotonic));
            clock.now().min(expected)
        })
    }
}
