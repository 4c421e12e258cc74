//! Chance that can be repeated: every choice of a run follows from its seed.

use std::time::Duration;

/// A sequence of random numbers (SplitMix64, Steele, Lea and Flood 2014): small, and the same on every machine for ever.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another sequence, for a part of the run that must not disturb the others.
    pub fn fork(&mut self) -> Self {
        Self(self.any())
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `end - 1`; `end` must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "there is no number below 0");
        // The bias is below 2^-32 for any `end` that is used here.
        self.any() % end
    }

    /// From `least` to `most`.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// From `least` to `most`, whole milliseconds.
    pub fn duration(&mut self, least: Duration, most: Duration) -> Duration {
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(0);
        let span = milliseconds(most).saturating_sub(milliseconds(least));
        least + Duration::from_millis(self.below(span + 1))
    }

    /// True in `percent` of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// True in `permille` of a thousand cases.
    pub fn permille(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// One of `things`, which must not be empty.
    pub fn pick<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len() as u64) as usize]
    }

    /// Puts `things` into any order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for end in (1..things.len()).rev() {
            things.swap(end, self.below(end as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_sequence_for_ever() {
        let mut random = Random::new(42);
        // The published reference implementation's first outputs for seed 42.
        assert_eq!(random.any(), 13_679_457_532_755_275_413);
        assert_eq!(random.any(), 2_949_826_092_126_892_291);
    }

    #[test]
    fn every_number_in_range_comes_up() {
        let mut random = Random::new(7);
        let mut seen = [0_u32; 6];
        for _ in 0..600 {
            seen[random.below(6) as usize] += 1;
        }
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
        assert!((0..100).all(|_| (5..=9).contains(&random.between(5, 9))));
        let (least, most) = (Duration::from_millis(5), Duration::from_millis(9));
        assert!((0..100).all(|_| (least..=most).contains(&random.duration(least, most))));
    }

    #[test]
    fn a_shuffle_keeps_everything() {
        let mut things: Vec<u64> = (0..20).collect();
        Random::new(1).shuffle(&mut things);
        assert_ne!(things, (0..20).collect::<Vec<_>>());
        things.sort_unstable();
        assert_eq!(things, (0..20).collect::<Vec<_>>());
    }
}
