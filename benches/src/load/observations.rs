//! What a run has seen: latencies, a time series, errors, signatures to be verified.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use segl_wire::Timings;
use serde::Serialize;

/// Longest latency that is told from longer ones, in nanoseconds.
const LONGEST_NS: u64 = 120_000_000_000;

/// A histogram of nanoseconds, to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Latencies(Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("these bounds are good"))
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// In microseconds.
    pub(crate) fn percentile_us(&self, percentile: f64) -> f64 {
        self.0.value_at_percentile(percentile) as f64 / 1000.0
    }

    pub(crate) fn add(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    /// For a report.
    pub(crate) fn summary(&self) -> serde_json::Value {
        serde_json::json!({
            "count": self.len(),
            "p50_us": self.percentile_us(50.0), "p90_us": self.percentile_us(90.0),
            "p99_us": self.percentile_us(99.0), "p99_9_us": self.percentile_us(99.9),
            "max_us": self.percentile_us(100.0),
        })
    }
}

/// A piece of the time series.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Interval {
    /// Its end, from the window's start
    pub(crate) until_s: f64,
    pub(crate) signatures_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

/// A signature that is looked at when the clock has stopped.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) task: usize,
    /// Of the payload
    pub(crate) number: u64,
    pub(crate) signature: Box<[u8]>,
}

/// What was seen within a window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observations {
    /// Signatures that came
    pub(crate) signatures: u64,
    /// Of a request, from the intended moment (open loop) or from the sending to the answer
    pub(crate) total: Latencies,
    /// The same less that request's own time in the token
    pub(crate) added: Latencies,
    /// In the pool's queue
    pub(crate) queue: Latencies,
    /// In the token
    pub(crate) token: Latencies,
    /// How late this program itself was: from the intended moment to the sending
    pub(crate) late: Latencies,
    /// By what segld called them
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) window: Duration,
    interval: Latencies,
    interval_signatures: u64,
    interval_began_ns: u64,
}

impl Observations {
    /// An answer with so many signatures. Items of a batch have their own times in the token; the longest is taken.
    pub(crate) fn answered(&mut self, latency_ns: u64, timings: Option<Timings>, signatures: u64) {
        self.signatures += signatures;
        self.interval_signatures += signatures;
        self.total.record(latency_ns);
        self.interval.record(latency_ns);
        if let Some(timings) = timings {
            let token_ns = u64::from(timings.token_us) * 1000;
            self.token.record(token_ns);
            self.queue.record(u64::from(timings.queue_us) * 1000);
            self.added.record(latency_ns.saturating_sub(token_ns));
        }
    }

    pub(crate) fn failed(&mut self, why: &str, times: u64) {
        *self.errors.entry(why.to_owned()).or_insert(0) += times;
    }

    pub(crate) fn errors_in_all(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Closes a piece of the time series.
    pub(crate) fn tick(&mut self, now_ns: u64, window_began_ns: u64) {
        let took_ns = now_ns.saturating_sub(self.interval_began_ns.max(window_began_ns)).max(1);
        self.intervals.push(Interval {
            until_s: now_ns.saturating_sub(window_began_ns) as f64 / 1e9,
            signatures_per_s: self.interval_signatures as f64 * 1e9 / took_ns as f64,
            p50_us: self.interval.percentile_us(50.0),
            p99_us: self.interval.percentile_us(99.0),
            max_us: self.interval.percentile_us(100.0),
        });
        self.interval.clear();
        self.interval_signatures = 0;
        self.interval_began_ns = now_ns;
    }

    /// Forgets all but what must not be forgotten: errors of the warm-up count too.
    pub(crate) fn restart(&mut self) {
        *self = Observations { errors: std::mem::take(&mut self.errors), ..Observations::default() };
    }

    /// Signatures a second.
    pub(crate) fn rate(&self) -> f64 {
        self.signatures as f64 / self.window.as_secs_f64()
    }

    /// Puts a later run's to these.
    pub(crate) fn add(&mut self, other: Observations) {
        self.signatures += other.signatures;
        for (mine, theirs) in [
            (&mut self.total, &other.total),
            (&mut self.added, &other.added),
            (&mut self.queue, &other.queue),
            (&mut self.token, &other.token),
            (&mut self.late, &other.late),
        ] {
            mine.add(theirs);
        }
        for (why, times) in &other.errors {
            self.failed(why, *times);
        }
        let offset_s = self.window.as_secs_f64();
        self.intervals.extend(
            other.intervals.iter().map(|interval| Interval { until_s: interval.until_s + offset_s, ..*interval }),
        );
        self.samples.extend(other.samples);
        self.window += other.window;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_each_requests_own_and_not_a_difference_of_percentiles() {
        let mut seen = Observations::default();
        let timings = |token_us| Some(Timings { queue_us: 0, token_us });
        // Slow in the token and quick around it, and the other way round.
        for _ in 0..50 {
            seen.answered(1_010_000, timings(1000), 1);
            seen.answered(1_010_000, timings(10), 1);
        }
        assert_eq!(seen.total.percentile_us(50.0).round(), 1010.0);
        assert!((seen.added.percentile_us(50.0) - 10.0).abs() < 0.1);
        assert!((seen.added.percentile_us(99.0) - 1000.0).abs() < 1.0);
    }

    #[test]
    fn percentiles_are_right_to_three_digits() {
        let mut latencies = Latencies::default();
        (1..=100_000u64).for_each(|us| latencies.record(us * 1000));
        for percentile in [50.0, 90.0, 99.0, 99.9, 100.0] {
            let expected = percentile * 1000.0;
            assert!((latencies.percentile_us(percentile) / expected - 1.0).abs() < 0.001);
        }
        latencies.record(u64::MAX);
        assert!(latencies.percentile_us(100.0) >= LONGEST_NS as f64 / 1000.0);
    }

    #[test]
    fn a_piece_of_the_series_has_its_own_rate_and_latency() {
        let mut seen = Observations::default();
        seen.answered(1000, None, 5);
        seen.tick(1_500_000_000, 1_000_000_000);
        seen.answered(9000, None, 1);
        seen.tick(2_500_000_000, 1_000_000_000);
        let [first, second] = seen.intervals[..] else { panic!("{:?}", seen.intervals) };
        assert_eq!((first.until_s, first.signatures_per_s), (0.5, 10.0));
        assert_eq!((second.until_s, second.signatures_per_s), (1.5, 1.0));
        assert!(second.p50_us > 8.9 && first.max_us < 1.1);
    }
}
