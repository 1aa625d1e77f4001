//! A gate for what strangers can cause: so many a second pass, the rest are counted, so that nobody fills log or
//! journal for the price of a packet.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Lets a number of events through each second, or in each longer period.
#[derive(Debug)]
pub(crate) struct Gate {
    most: u32,
    period_ns: u64,
    period: AtomicU64,
    passed: AtomicU32,
    held_back: AtomicU64,
}

impl Gate {
    pub(crate) const fn new(per_second: u32) -> Gate {
        Gate::per_period(per_second, 1_000_000_000)
    }

    pub(crate) const fn per_period(most: u32, period_ns: u64) -> Gate {
        let (period, passed, held_back) = (AtomicU64::new(0), AtomicU32::new(0), AtomicU64::new(0));
        Gate { most, period_ns, period, passed, held_back }
    }

    /// Whether this event passes, and then how many did not since the last one that did.
    pub(crate) fn passes(&self, now_ns: u64) -> Option<u64> {
        let period = now_ns / self.period_ns;
        if self.period.swap(period, Ordering::Relaxed) != period {
            self.passed.store(0, Ordering::Relaxed);
        }
        if self.passed.fetch_add(1, Ordering::Relaxed) < self.most {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// The text of an event that stands for others too.
pub(crate) fn and_more(text: &str, held_back: u64) -> String {
    match held_back {
        0 => text.to_owned(),
        more => format!("{text} (and {more} more of the kind not listed)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_counted_and_told_by_the_next_that_passes() {
        let gate = Gate::new(2);
        let at = |ms: u64| gate.passes(ms * 1_000_000);
        assert_eq!([at(0), at(1), at(2), at(3)], [Some(0), Some(0), None, None]);
        assert_eq!([at(1000), at(1001), at(1002)], [Some(2), Some(0), None]);
    }
}
