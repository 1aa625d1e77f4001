//! A reactor's rest between two rounds while requests stand in line anyway.
//!
//! Each time a reactor wakes it takes a core from a session, and finds caches that are full of other things. While
//! all who are answered have waited in the queue for long, it does not come for each of them alone: it rests for a small
//! part of that wait, and then finds several answers and several requests. Whoever does not wait does not pay: the
//! shortest wait of the last moments decides.

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

/// The part of the queue's wait that a rest takes, and what it takes at most.
const PART_OF_WAIT: u32 = 8;
const REST_MAX: Duration = Duration::from_millis(12);

/// Below this a rest is not worth the timer.
const REST_MIN: Duration = Duration::from_micros(100);

/// How long a short wait is remembered at least; twice as long at most.
const MEMORY: Duration = Duration::from_millis(50);

/// What a reactor knows of its answers' waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    /// The shortest since `since`, and of the time before that
    shortest: Duration,
    before: Duration,
    since: Instant,
}

impl Waits {
    pub(super) fn new(now: Instant) -> Waits {
        Waits { shortest: Duration::MAX, before: Duration::ZERO, since: now }
    }

    /// A round of answers begins, the shortest of whose waits in the queue was this. Returns how long to rest after it.
    fn round(&mut self, wait: Duration, now: Instant) -> Duration {
        if now.saturating_duration_since(self.since) >= MEMORY {
            *self = Waits { shortest: Duration::MAX, before: self.shortest, since: now };
        }
        self.shortest = self.shortest.min(wait);
        let rest = (self.shortest.min(self.before) / PART_OF_WAIT).min(REST_MAX);
        if rest < REST_MIN { Duration::ZERO } else { rest }
    }

    /// As above, on the reactor's thread: what there is to do is done first.
    pub(super) fn rest_after_round(&mut self, wait: Duration) {
        let now = Instant::now();
        UP_AT.set(Some(now + self.round(wait, now)));
    }
}

thread_local! {
    /// When the reactor of this thread wants to be up again
    static UP_AT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Before the thread waits for events: everything there was to do is done.
pub(super) fn before_parking() {
    if let Some(left) = UP_AT.take().and_then(|up_at| up_at.checked_duration_since(Instant::now())) {
        thread::sleep(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_rests_for_a_part_of_a_wait_that_everybody_has_and_not_otherwise() {
        let begin = Instant::now();
        let mut waits = Waits::new(begin);
        assert_eq!(waits.round(24 * MS, begin), Duration::ZERO, "nothing is known yet");
        assert_eq!(waits.round(24 * MS, begin + MEMORY), 3 * MS);
        assert_eq!(waits.round(900 * MS, begin + MEMORY), 3 * MS);
        assert_eq!(
            waits.round(Duration::from_micros(700), begin + MEMORY),
            Duration::ZERO,
            "he would pay for the others"
        );
        assert_eq!(waits.round(24 * MS, begin + 2 * MEMORY), Duration::ZERO, "another like him may come");
        assert_eq!(waits.round(900 * MS, begin + 3 * MEMORY), 3 * MS, "none came");
        assert_eq!(waits.round(900 * MS, begin + 4 * MEMORY), REST_MAX);
    }
}
