//! The pool's clock: monotonic nanoseconds since it was made.

use std::time::{Duration, Instant};

/// A monotonic clock; copies of it tell the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Clock { origin: Instant::now() }
    }

    /// Nanoseconds since the pool started.
    pub fn now_ns(&self) -> u64 {
        as_ns(self.origin.elapsed())
    }

    /// The time so far ahead: a deadline for a job.
    pub fn in_ns(&self, wait: Duration) -> u64 {
        self.now_ns().saturating_add(as_ns(wait))
    }
}

/// Nanoseconds of a duration; 584 years and more are all the same.
pub(crate) fn as_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
