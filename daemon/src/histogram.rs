//! Histograms of time with fixed buckets.
//!
//! The metrics exporter keeps every sample until somebody drains it, which costs memory in proportion to the rate of
//! requests. These cost a few hundred bytes once and two additions a sample.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// Upper bounds in nanoseconds: from an embedded key's 20 us to a stuck network HSM's 30 s.
const BOUNDS_NS: [u64; 19] = [
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// Counts of samples by bucket; shared by all reactors.
#[derive(Debug)]
pub(crate) struct TimeHistogram {
    name: &'static str,
    help: &'static str,
    /// `name="value"`, or nothing
    label: &'static str,
    /// One for each bound, and one for what is beyond the last
    counts: [AtomicU64; BOUNDS_NS.len() + 1],
    sum_ns: AtomicU64,
}

impl TimeHistogram {
    /// An empty one; `name` ends in `_seconds`, as Prometheus wants it.
    pub(crate) fn new(name: &'static str, help: &'static str) -> Self {
        TimeHistogram { name, help, label: "", counts: Default::default(), sum_ns: AtomicU64::new(0) }
    }

    /// One of several of the same name, told apart by a label, as `name="value"`.
    pub(crate) fn labelled(self, label: &'static str) -> Self {
        TimeHistogram { label, ..self }
    }

    /// Counts one sample.
    pub(crate) fn record_ns(&self, ns: u64) {
        let bucket = BOUNDS_NS.partition_point(|bound_ns| *bound_ns < ns);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// The counts now, for a look at what came since an earlier one.
    pub(crate) fn counts(&self) -> Counts {
        Counts(std::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed)))
    }

    /// Appends those of one name in Prometheus' text format.
    pub(crate) fn render(family: &[TimeHistogram], out: &mut String) {
        let Some(TimeHistogram { name, help, .. }) = family.first() else { return };
        // Writing to a String can not fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        family.iter().for_each(|histogram| histogram.render_samples(out));
        out.push('\n');
    }

    fn render_samples(&self, out: &mut String) {
        let TimeHistogram { name, label, .. } = self;
        let (bucket, alone) = if label.is_empty() {
            (String::new(), String::new())
        } else {
            (format!("{label},"), format!("{{{label}}}"))
        };
        let mut cumulative = 0;
        for (count, bound_ns) in self.counts.iter().zip(BOUNDS_NS) {
            cumulative += count.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}_bucket{{{bucket}le=\"{}\"}} {cumulative}", bound_ns as f64 / 1e9);
        }
        cumulative += self.counts[BOUNDS_NS.len()].load(Ordering::Relaxed);
        let _ = writeln!(out, "{name}_bucket{{{bucket}le=\"+Inf\"}} {cumulative}");
        let _ = writeln!(out, "{name}_sum{alone} {}", self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9);
        let _ = writeln!(out, "{name}_count{alone} {cumulative}");
    }
}

/// A histogram's counts at one moment, or what came between two.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts([u64; BOUNDS_NS.len() + 1]);

impl Counts {
    /// What came since an earlier moment.
    pub(crate) fn since(&self, earlier: &Counts) -> Counts {
        Counts(std::array::from_fn(|bucket| self.0[bucket].saturating_sub(earlier.0[bucket])))
    }

    /// How many there are.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The time that this part of them (0 to 1) did not exceed, in nanoseconds, as if they were spread evenly over
    /// their bucket; none where there are none.
    pub(crate) fn quantile_ns(&self, part: f64) -> Option<u64> {
        let rank = ((self.total() as f64 * part).ceil() as u64).max(1);
        let mut before = 0;
        for (bucket, &count) in self.0.iter().enumerate() {
            if count > 0 && before + count >= rank {
                let from_ns = if bucket == 0 { 0 } else { BOUNDS_NS[bucket - 1] };
                // Beyond the last bound nothing is known but that.
                let to_ns = BOUNDS_NS.get(bucket).copied().unwrap_or(from_ns);
                return Some(from_ns + ((to_ns - from_ns) as f64 * ((rank - before) as f64 / count as f64)) as u64);
            }
            before += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_in_the_bucket_of_its_sample() {
        let histogram = TimeHistogram::new("segl_test_seconds", "A test");
        histogram.record_ns(30_000_000);
        let earlier = histogram.counts();
        (0..100).for_each(|_| histogram.record_ns(600_000));
        let since = histogram.counts().since(&earlier);
        assert_eq!(since.total(), 100);
        assert_eq!(since.quantile_ns(0.5), Some(750_000));
        assert_eq!(since.quantile_ns(1.0), Some(1_000_000));
        assert_eq!(Counts::default().quantile_ns(0.5), None);
    }

    #[test]
    fn a_sample_counts_in_its_bucket_and_all_above() {
        let histogram = TimeHistogram::new("segl_test_seconds", "A test");
        for ns in [1, 20_000, 20_001, 40_000_000_000] {
            histogram.record_ns(ns);
        }
        let mut text = String::new();
        TimeHistogram::render(&[histogram], &mut text);
        for line in [
            "# TYPE segl_test_seconds histogram",
            "segl_test_seconds_bucket{le=\"0.00002\"} 2",
            "segl_test_seconds_bucket{le=\"0.00005\"} 3",
            "segl_test_seconds_bucket{le=\"30\"} 3",
            "segl_test_seconds_bucket{le=\"+Inf\"} 4",
            "segl_test_seconds_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn those_of_one_name_share_a_head_and_are_told_apart_by_their_label() {
        let family = ["class=\"login\"", "class=\"bulk\""]
            .map(|label| TimeHistogram::new("segl_test_seconds", "A test").labelled(label));
        family[1].record_ns(1);
        let mut text = String::new();
        TimeHistogram::render(&family, &mut text);
        assert_eq!(text.matches("# TYPE").count(), 1);
        for line in [
            "segl_test_seconds_bucket{class=\"login\",le=\"+Inf\"} 0",
            "segl_test_seconds_bucket{class=\"bulk\",le=\"0.00002\"} 1",
            "segl_test_seconds_count{class=\"bulk\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
