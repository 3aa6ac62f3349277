//! When to ask again.

use std::time::Duration;

use dayfly_core::ports::Rng;

/// Tries of one call, the first included, unless set otherwise.
pub(crate) const ATTEMPTS: u32 = 4;

/// A pause that doubles with each failure, up to a cap, and is never the same for two callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// The longest.
    pub cap: Duration,
}

impl Backoff {
    /// Between the tries of one call.
    pub(crate) const CALL: Self = Self { first: Duration::from_millis(100), cap: Duration::from_secs(2) };
    /// Between refreshes that failed.
    pub(crate) const REFRESH: Self = Self { first: Duration::from_secs(1), cap: Duration::from_secs(30) };

    /// The pause after so many failures (from 1): half to all of the doubled one; never less than the hint, and up to a
    /// fifth more, so that those who got the same hint do not come back together.
    pub fn pause(self, failures: u32, hint: Option<Duration>, rng: &dyn Rng) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.cap);
        let own = doubled.mul_f64(0.5 + 0.5 * fraction(rng));
        own.max(hint.map_or(Duration::ZERO, |hint| hint.mul_f64(1.0 + 0.2 * fraction(rng))))
    }
}

/// A number from 0 up to 1; where there is no randomness, the middle.
pub(crate) fn fraction(rng: &dyn Rng) -> f64 {
    let mut bytes = [0; 4];
    match rng.fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use dayfly_core::clock::SystemRng;

    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_honour_the_hint() {
        let rng = SystemRng::new();
        for (failures, least, most) in
            [(1, 50, 100), (2, 100, 200), (3, 200, 400), (9, 1000, 2000), (99, 1000, 2000)]
        {
            let pause = Backoff::CALL.pause(failures, None, &rng);
            assert!(
                pause >= Duration::from_millis(least) && pause <= Duration::from_millis(most),
                "{pause:?}"
            );
        }
        let hint = Duration::from_secs(7);
        let pause = Backoff::CALL.pause(1, Some(hint), &rng);
        assert!(pause >= hint && pause <= hint.mul_f64(1.2), "{pause:?}");
    }
}
