//! Pauses that double, with jitter from a seeded generator: the same seed gives the same run.

/// SplitMix64 (Steele, Lea, Flood 2014): enough for jitter, nothing else is drawn from it.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Dice(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// The pause after so many failures in a row: `min` doubled with each, at most `max`, and of that a random part
    /// between a half and all, so that sessions which failed together do not come back together.
    pub(super) fn pause_ns(&mut self, failures: u32, min_ns: u64, max_ns: u64) -> u64 {
        let doublings = failures.saturating_sub(1).min(32);
        let full_ns = min_ns.saturating_mul(1 << doublings).min(max_ns).max(1);
        full_ns - self.roll() % (full_ns / 2 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_stay_below_their_bound_and_differ() {
        let mut dice = Dice::new(1);
        let pauses: Vec<u64> = (1..60).map(|failures| dice.pause_ns(failures, 100, 10_000)).collect();
        assert!((50..=100).contains(&pauses[0]));
        assert!((100..=200).contains(&pauses[1]));
        assert!(pauses.iter().skip(10).all(|pause| (5_000..=10_000).contains(pause)));
        assert!(pauses.iter().skip(10).collect::<std::collections::HashSet<_>>().len() > 40);
    }
}
