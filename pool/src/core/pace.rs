//! How fast a group is really served: what leaves its queue a second, against what its sessions should do.
//!
//! Service times alone promise too much: sessions wait for threads, tokens serve other groups beside this one, some are
//! slower than the average or held back. All that shows in the rate at which a queue drains while it is never empty.

/// A measurement takes so long at least: some hundred batches, and no stall passes for the rule.
const WINDOW_NS: u64 = 100_000_000;
/// The pace of sessions that do what their service times promise.
const ONE: u64 = 1024;
/// No measurement counts for less or more: beyond it is a stall, or costs that were guessed.
const BOUNDS: std::ops::RangeInclusive<u64> = ONE / 64..=ONE * 2;

/// The pace of one group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// In 1,024ths of what its sessions should do
    measured: u64,
    /// Since when the queue has not been empty, or the last measurement
    since_ns: u64,
    /// Expected token time of what was taken since
    taken_ns: u64,
    /// Sessions that signed then
    sessions: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { measured: ONE, since_ns: 0, taken_ns: 0, sessions: 0 }
    }
}

impl Pace {
    /// The queue was empty until now. Whoever empties a queue is not too slow: what speaks against that is half
    /// forgotten, lest a pace that was bad once keeps out those by whom it would be measured anew.
    pub(super) fn begin(&mut self, now_ns: u64, sessions: u32) {
        self.measured = (self.measured + self.measured.max(ONE)) / 2;
        self.measure(now_ns, sessions);
    }

    /// Something was taken from the queue.
    pub(super) fn taken(&mut self, cost_ns: u64) {
        self.taken_ns = self.taken_ns.saturating_add(cost_ns);
    }

    /// Looks at the clock: a measurement may be complete.
    pub(super) fn look(&mut self, now_ns: u64, sessions: u32) {
        let window_ns = now_ns.saturating_sub(self.since_ns);
        if sessions != self.sessions {
            self.measure(now_ns, sessions);
        } else if window_ns >= WINDOW_NS && sessions > 0 {
            let ideal_ns = u128::from(window_ns) * u128::from(sessions);
            let pace = u128::from(self.taken_ns) * u128::from(ONE) / ideal_ns;
            let pace = u64::try_from(pace).unwrap_or(u64::MAX).clamp(*BOUNDS.start(), *BOUNDS.end());
            self.measured = (self.measured + pace) / 2;
            self.measure(now_ns, sessions);
        }
    }

    fn measure(&mut self, now_ns: u64, sessions: u32) {
        *self = Pace { measured: self.measured, since_ns: now_ns, taken_ns: 0, sessions };
    }

    /// How long these sessions need for so much.
    pub(super) fn time_for_ns(&self, work_ns: u64, sessions: u32) -> u64 {
        // More than half a year's work need not be told exactly.
        work_ns.saturating_mul(ONE) / (u64::from(sessions.max(1)) * self.measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_drains_at_half_the_promised_rate_is_taken_to_need_twice_the_time() {
        let mut pace = Pace::default();
        assert_eq!(pace.time_for_ns(8_000, 4), 2_000, "as promised, before anything was measured");
        pace.begin(0, 4);
        for window in 1..=10 {
            pace.taken(2 * WINDOW_NS);
            pace.look(window * WINDOW_NS, 4);
        }
        assert!((3_900..=4_000).contains(&pace.time_for_ns(8_000, 4)), "{pace:?}");
        assert!((7_800..=8_000).contains(&pace.time_for_ns(8_000, 2)), "a pace of sessions: half of them are gone");
        (11..=20).for_each(|window| pace.begin(window * WINDOW_NS, 4));
        assert!(
            (2_000..=2_010).contains(&pace.time_for_ns(8_000, 4)),
            "queues that are emptied are not slow: {pace:?}"
        );
    }

    #[test]
    fn neither_an_idle_time_nor_a_change_of_sessions_is_taken_for_a_pace() {
        let mut pace = Pace::default();
        pace.begin(0, 4);
        pace.begin(50 * WINDOW_NS, 4);
        pace.taken(WINDOW_NS);
        pace.look(50 * WINDOW_NS + WINDOW_NS / 2, 4);
        pace.look(51 * WINDOW_NS, 2);
        assert_eq!(pace.time_for_ns(8_000, 4), 2_000);
    }
}
