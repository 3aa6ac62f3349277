//! Randomness that can be repeated.

use dayfly_core::clock::SystemRng;
use dayfly_core::ports::Rng as _;

/// `SplitMix64`.
pub(crate) struct Dice(u64);

impl Dice {
    /// `DAYFLY_SEED`, or any.
    pub(crate) fn seed() -> u64 {
        if let Ok(seed) = std::env::var("DAYFLY_SEED") {
            return seed.parse().unwrap_or_else(|error| panic!("DAYFLY_SEED={seed}: {error}"));
        }
        let mut bytes = [0; 4];
        SystemRng::new().fill(&mut bytes).unwrap();
        u32::from_le_bytes(bytes).into()
    }

    /// Those of this seed that one of several has.
    pub(crate) fn of(seed: u64, one: u64) -> Self {
        let mut dice = Self(seed);
        Self(dice.next().wrapping_add(one.wrapping_mul(0xD1B5_4A32_D192_ED03)))
    }

    /// A number below this.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }

    /// A place in a list of this length.
    pub(crate) fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap())).unwrap()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
