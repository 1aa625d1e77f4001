//! When requests are meant to be sent, whether or not somebody is there to take them.
//!
//! In an open loop a request's latency counts from the moment it was *meant* to be sent. A load that waits for a slow
//! server before it goes on, and counts from the actual sending, leaves out what the waiting would have cost its users
//! (coordinated omission).

use std::collections::VecDeque;

/// A rate for a time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stretch {
    /// What it stands for
    pub(crate) name: &'static str,
    pub(crate) duration_ns: u64,
    /// Requests a second
    pub(crate) rate: f64,
}

/// When each request is meant to be sent, in nanoseconds from the start: evenly within each stretch.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    stretches: Vec<Stretch>,
    at: usize,
    /// Where the present stretch begins
    began_ns: u64,
    /// Requests of it so far
    sent: u64,
}

impl Schedule {
    pub(crate) fn new(stretches: Vec<Stretch>) -> Schedule {
        Schedule { stretches, at: 0, began_ns: 0, sent: 0 }
    }

    pub(crate) fn constant(rate: f64, duration_ns: u64) -> Schedule {
        Schedule::new(vec![Stretch { name: "", duration_ns, rate }])
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            let stretch = self.stretches.get(self.at)?;
            let offset_ns = (self.sent as f64 * 1e9 / stretch.rate) as u64;
            if stretch.rate > 0.0 && offset_ns < stretch.duration_ns {
                self.sent += 1;
                return Some(self.began_ns + offset_ns);
            }
            self.began_ns += stretch.duration_ns;
            self.at += 1;
            self.sent = 0;
        }
    }
}

/// The requests of an open loop that are due and not yet sent.
#[derive(Debug)]
pub(crate) struct OpenLoop {
    schedule: Schedule,
    next: Option<u64>,
    waiting: VecDeque<u64>,
}

impl OpenLoop {
    pub(crate) fn new(mut schedule: Schedule) -> OpenLoop {
        let next = schedule.next();
        OpenLoop { schedule, next, waiting: VecDeque::new() }
    }

    /// The intended time of the next request that is due now; it is sent and its latency counts from then.
    pub(crate) fn take(&mut self, now_ns: u64) -> Option<u64> {
        while let Some(next) = self.next.filter(|next| *next <= now_ns) {
            self.waiting.push_back(next);
            self.next = self.schedule.next();
        }
        self.waiting.pop_front()
    }

    /// Gives one back that could not be sent after all.
    pub(crate) fn give_back(&mut self, intended_ns: u64) {
        self.waiting.push_front(intended_ns);
    }

    /// When the next one is due, if none is yet.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.waiting.front().copied().or(self.next)
    }

    /// Whether all were sent.
    pub(crate) fn is_over(&self) -> bool {
        self.next.is_none() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn requests_are_spread_evenly_and_stretches_follow_each_other() {
        let night = Stretch { name: "night", duration_ns: 10 * MS, rate: 500.0 };
        let day = Stretch { name: "day", duration_ns: 4 * MS, rate: 1000.0 };
        let silent = Stretch { name: "silent", duration_ns: 5 * MS, rate: 0.0 };
        let times: Vec<_> = Schedule::new(vec![night, silent, day]).map(|ns| ns / MS).collect();
        assert_eq!(times, [0, 2, 4, 6, 8, 15, 16, 17, 18]);
        assert_eq!(Schedule::constant(1e5, 1_000_000_000).count(), 100_000);
    }

    /// A server that takes 0.1 ms for each request, one after the other, and stands still for a second in between; 100
    /// requests a second for ten seconds; a clock that only this test moves.
    #[test]
    fn who_would_have_come_while_the_server_stood_still_is_counted() {
        let mut open = OpenLoop::new(Schedule::constant(100.0, 10_000 * MS));
        let mut latencies = Histogram::<u64>::new(3).unwrap();
        let (mut now, mut stalled) = (0, false);
        while !open.is_over() {
            let Some(intended) = open.take(now) else {
                now = open.next_ns().unwrap();
                continue;
            };
            if !stalled && now >= 5_000 * MS {
                (stalled, now) = (true, now + 1_000 * MS);
            }
            now += MS / 10;
            latencies.record(now - intended).unwrap();
        }
        assert_eq!(latencies.len(), 1000);
        // 100 of the 1000 come while it stands still, and wait from 1000 ms down to nothing.
        let at = |percentile| latencies.value_at_percentile(percentile) as f64 / MS as f64;
        assert!((at(50.0) - 0.1).abs() < 0.01, "{}", at(50.0));
        assert!((at(95.0) - 500.0).abs() < 20.0, "{}", at(95.0));
        assert!((at(99.0) - 900.0).abs() < 20.0, "{}", at(99.0));
        assert!((at(100.0) - 1000.0).abs() < 20.0, "{}", at(100.0));
    }

    #[test]
    fn what_could_not_be_sent_keeps_its_time() {
        let mut open = OpenLoop::new(Schedule::constant(1000.0, 3 * MS));
        assert_eq!(open.take(2 * MS), Some(0));
        open.give_back(0);
        assert_eq!(open.next_ns(), Some(0));
        assert_eq!([open.take(9 * MS), open.take(9 * MS), open.take(9 * MS)], [Some(0), Some(MS), Some(2 * MS)]);
        assert!(open.is_over());
        assert_eq!(open.take(u64::MAX), None);
    }
}
