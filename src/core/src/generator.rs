//! Lease ids that only ever grow.

use crate::ids::LeaseId;
use crate::ports::{Rng, RngFailed};
use crate::time::Timestamp;

/// Makes UUIDv7s (RFC 9562, section 5.7), each greater than all before it (section 6.2, method 2: monotonic random).
///
/// The store keeps one behind a lock and persists the highest id it has committed; a rule's cut-off is drawn from the
/// same generator inside the commit, so it is above every id committed.
#[derive(Debug)]
pub struct IdGenerator {
    highest: u128,
}

const VERSION_AND_VARIANT: u128 = (0x7 << 76) | (0b10 << 62);
/// The 74 bits that are neither time, version nor variant.
const RANDOM: u128 = (0xFFF << 64) | ((1 << 62) - 1);

impl IdGenerator {
    /// A generator whose ids are all above `highest`.
    pub fn above(highest: LeaseId) -> Self {
        Self { highest: highest.as_u128() }
    }

    /// The next id. Its time is `now`, or the highest id's where `now` is not later.
    ///
    /// # Errors
    /// When there is no randomness to be had.
    pub fn next(&mut self, now: Timestamp, rng: &dyn Rng) -> Result<LeaseId, RngFailed> {
        let mut random = [0; 16];
        rng.fill(&mut random)?;
        let random = u128::from_be_bytes(random);
        let fresh = LeaseId::first_at(now).as_u128() | VERSION_AND_VARIANT | (random & RANDOM);
        let id = if fresh > self.highest {
            fresh
        } else {
            // The same millisecond, or a clock that went back: a random step up from the highest, of up to 2^32.
            step(self.highest, 1 + (random >> 96))
        };
        self.highest = id;
        Ok(LeaseId::from_u128(id))
    }

    /// The highest id given so far.
    pub fn highest(&self) -> LeaseId {
        LeaseId::from_u128(self.highest)
    }
}

/// `id` with its 74 random bits, and beyond them its time, counted up by `by`.
fn step(id: u128, by: u128) -> u128 {
    let low = id & ((1 << 62) - 1);
    let middle = (id >> 64) & 0xFFF;
    let time = id >> 80;
    let counter = ((time << 74) | (middle << 62) | low).wrapping_add(by);
    let (low, middle, time) = (counter & ((1 << 62) - 1), (counter >> 62) & 0xFFF, counter >> 74);
    (time << 80) | VERSION_AND_VARIANT | (middle << 64) | low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ports::TestRng;

    proptest! {
        #[test]
        fn every_id_is_a_uuid_v7_above_all_before(times in prop::collection::vec(0u64..1 << 44, 1..200), seed: u64) {
            let rng = TestRng::new(seed);
            let mut generator = IdGenerator::above(LeaseId::from_u128(0));
            let mut last = LeaseId::from_u128(0);
            for time in times {
                let id = generator.next(Timestamp::from_millis(time), &rng).unwrap();
                prop_assert!(id > last);
                let uuid = uuid::Uuid::from_u128(id.as_u128());
                prop_assert_eq!(uuid.get_version_num(), 7);
                prop_assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
                last = id;
            }
        }

        #[test]
        fn stepping_carries_over_version_and_variant(time in 0u128..1 << 40, by in 1u128..1 << 33) {
            let full = (time << 80) | VERSION_AND_VARIANT | RANDOM;
            let next = step(full, by);
            prop_assert!(next > full);
            prop_assert_eq!(next >> 80, time + 1);
            prop_assert_eq!(next & VERSION_AND_VARIANT, VERSION_AND_VARIANT);
        }
    }

    #[test]
    fn time_is_read_back() {
        let now = Timestamp::from_secs(1_795_435_200);
        let mut generator = IdGenerator::above(LeaseId::from_u128(0));
        let id = generator.next(now, &TestRng::new(1)).unwrap();
        assert_eq!(id.time(), now);
        assert!(LeaseId::first_at(now) <= id);
    }
}
