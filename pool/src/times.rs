//! How long signatures took, counted in buckets: enough for a quantile over any stretch of time between two looks.

/// Sub-buckets of each doubling: a quantile is right to an eighth or better.
const PARTS: usize = 8;
const PARTS_LOG2: u32 = PARTS.trailing_zeros();
/// The first doubling begins at 2^13 ns, 8 us: less than any token takes.
const FIRST_LOG2: u32 = 13;
/// The last ends at 2^37 ns, more than two minutes: longer calls are given up long before.
const LAST_LOG2: u32 = 36;
const BUCKETS: usize = (LAST_LOG2 - FIRST_LOG2 + 1) as usize * PARTS;

/// Counts of durations since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    counts: Box<[u64; BUCKETS]>,
}

impl Default for Times {
    fn default() -> Self {
        Times { counts: Box::new([0; BUCKETS]) }
    }
}

impl Times {
    /// Counts one.
    pub fn count(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Those that came after `earlier`, an earlier state of the same counts.
    pub fn since(&self, earlier: &Times) -> Times {
        let mut counts = self.counts.clone();
        for (count, before) in counts.iter_mut().zip(earlier.counts.iter()) {
            *count = count.saturating_sub(*before);
        }
        Times { counts }
    }

    /// The time that this part of them (0 to 1) did not exceed, in nanoseconds; none where there are none.
    pub fn quantile_ns(&self, part: f64) -> Option<u64> {
        let total = self.total();
        let rank = ((total as f64 * part).ceil() as u64).clamp(1, total.max(1));
        let mut before = 0;
        for (index, &count) in self.counts.iter().enumerate() {
            if count > 0 && before + count >= rank {
                let (from_ns, to_ns) = bounds_ns(index);
                // As if they were spread evenly over the bucket.
                let within = (rank - before) as f64 / count as f64;
                return Some(from_ns + ((to_ns - from_ns) as f64 * within) as u64);
            }
            before += count;
        }
        None
    }
}

fn bucket(ns: u64) -> usize {
    let ns = ns.clamp(1 << FIRST_LOG2, (1 << (LAST_LOG2 + 1)) - 1);
    let doubling = ns.ilog2();
    let part = (ns >> (doubling - PARTS_LOG2)) as usize & (PARTS - 1);
    (doubling - FIRST_LOG2) as usize * PARTS + part
}

fn bounds_ns(bucket: usize) -> (u64, u64) {
    let doubling = FIRST_LOG2 + (bucket / PARTS) as u32;
    let part_ns = 1u64 << (doubling - PARTS_LOG2);
    let from_ns = (1u64 << doubling) + (bucket % PARTS) as u64 * part_ns;
    (from_ns, from_ns + part_ns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quantile_is_of_what_came_since_the_last_look() {
        let mut times = Times::default();
        (0..1_000).for_each(|_| times.count(5_000_000));
        let earlier = times.clone();
        for us in 1..=100 {
            times.count(us * 10_000);
        }
        let since = times.since(&earlier);
        assert_eq!((since.total(), earlier.since(&earlier).quantile_ns(0.5)), (100, None));
        let near = |ns: Option<u64>, expected_us: u64| ns.unwrap().abs_diff(expected_us * 1_000) < expected_us * 125;
        assert!(near(since.quantile_ns(0.5), 500) && near(since.quantile_ns(0.99), 990), "{since:?}");
    }

    proptest! {
        #[test]
        fn every_time_has_its_bucket(ns in any::<u64>()) {
            let (from_ns, to_ns) = bounds_ns(bucket(ns));
            let shown_ns = ns.clamp(1 << FIRST_LOG2, (1 << (LAST_LOG2 + 1)) - 1);
            prop_assert!(from_ns <= shown_ns && shown_ns < to_ns);
            prop_assert!(to_ns - from_ns <= from_ns / PARTS as u64);
        }
    }
}
