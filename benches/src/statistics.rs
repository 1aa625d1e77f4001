//! The arithmetic behind a ratio that can be trusted: slices in turn, pairs, the median, and how sure it is.

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The ceiling: the token alone
    A,
    /// segld with its load
    B,
}

/// Whose turn slice number `at` is, in ABBA order: a drift that is a straight line cancels out within four slices.
pub(crate) fn turn(at: usize) -> Side {
    match at % 4 {
        0 | 3 => Side::A,
        _ => Side::B,
    }
}

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

/// A median and the interval it lies in.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    /// Lower end of the 95% interval
    pub(crate) low: f64,
    /// Upper end
    pub(crate) high: f64,
}

impl Estimate {
    /// By the percentile bootstrap: the median of so many samples drawn from the values with replacement.
    pub(crate) fn bootstrap(values: &[f64]) -> Estimate {
        const SAMPLES: usize = 4000;
        let mut random = Random(0x5e61);
        let mut medians: Vec<f64> = (0..SAMPLES)
            .map(|_| {
                let drawn: Vec<f64> = values.iter().map(|_| values[random.below(values.len())]).collect();
                median(&drawn)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: f64| medians[((SAMPLES - 1) as f64 * share).round() as usize];
        Estimate { median: median(values), low: at(0.025), high: at(0.975) }
    }

    /// Half the interval's width.
    pub(crate) fn half_width(&self) -> f64 {
        (self.high - self.low) / 2.0
    }
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} [{:.3}, {:.3}]", self.median, self.low, self.high)
    }
}

/// SplitMix64: the same numbers each time, which is what a bench wants of chance.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_abba() {
        let turns: String = (0..8).map(|at| if turn(at) == Side::A { 'A' } else { 'B' }).collect();
        assert_eq!(turns, "ABBAABBA");
    }

    #[test]
    fn a_steady_drift_leaves_the_ratio_as_it_is() {
        // The machine gets faster by the slice; B does 0.8 of what A does at the same moment.
        let speed = |at: usize| 1000.0 + 10.0 * at as f64;
        let slices: Vec<f64> = (0..40).map(|at| speed(at) * if turn(at) == Side::A { 1.0 } else { 0.8 }).collect();
        let ratios: Vec<f64> = slices
            .chunks(2)
            .enumerate()
            .map(|(pair, two)| if pair % 2 == 0 { two[1] / two[0] } else { two[0] / two[1] })
            .collect();
        assert!((median(&ratios) - 0.8).abs() < 0.001, "{}", median(&ratios));
    }

    #[test]
    fn the_median_takes_the_middle_and_no_notice_of_outliers() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[1.0, 1.0, 1.0, 1.0, 900.0]), 1.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_interval_narrows_as_the_root_of_the_number_of_pairs() {
        let mut random = Random(7);
        let mut noise =
            |n: usize| -> Vec<f64> { (0..n).map(|_| 0.9 + (random.below(2001) as f64 - 1000.0) / 10_000.0).collect() };
        let (few, many) = (Estimate::bootstrap(&noise(16)), Estimate::bootstrap(&noise(1024)));
        assert!(few.low <= few.median && few.median <= few.high);
        // Evenly spread over 0.2, the median of n has a standard deviation of 0.1 / sqrt(n): 95% is 1.96 of it.
        let expected = 1.96 * 0.1 / (1024f64).sqrt();
        assert!((many.half_width() / expected - 1.0).abs() < 0.35, "{} {expected}", many.half_width());
        assert!(many.half_width() < few.half_width() / 3.0);
        assert!((many.median - 0.9).abs() < 0.02);
    }

    #[test]
    fn equal_values_leave_no_doubt() {
        let estimate = Estimate::bootstrap(&[0.95; 8]);
        assert_eq!((estimate.median, estimate.half_width()), (0.95, 0.0));
        assert_eq!(estimate.to_string(), "0.950 [0.950, 0.950]");
    }
}
