//! What the driver stands on, under the scheduler's hand: Shuttle's threads and locks, and a clock that is moved.

pub(super) use shuttle::{
    hint,
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread, thread_local,
};

use std::{cell::Cell, time::Duration};

use crate::clock::as_ns;

/// Whoever reads the clock sees it move by so much: no loop that waits for a time is endless.
const TICK_NS: u64 = 1_000;

// All threads of a schedule are played by one thread of the system.
std::thread_local! {
    static NOW_NS: Cell<u64> = const { Cell::new(0) };
}

/// The clock of the schedule that is being played.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock;

impl Clock {
    /// Starts at nought.
    pub(super) fn start() -> Self {
        NOW_NS.set(0);
        Clock
    }

    pub(super) fn now_ns(self) -> u64 {
        NOW_NS.set(NOW_NS.get() + TICK_NS);
        NOW_NS.get()
    }

    pub(super) fn in_ns(self, wait: Duration) -> u64 {
        self.now_ns().saturating_add(as_ns(wait))
    }

    /// Lets time pass. Whoever waits for a time is to be woken by the caller: Shuttle's waits never end by themselves.
    pub(super) fn pass(self, time: Duration) {
        NOW_NS.set(NOW_NS.get() + as_ns(time));
    }
}
