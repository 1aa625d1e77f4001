//! The timer's thread: answers expired jobs, keeps Core's appointments, tells what stuck threads have done, and asks
//! again for threads that could not be had.

use std::time::Duration;

use super::{shared::Shared, sync::atomic::Ordering};
use crate::core::Event;

/// It wakes at least this often, for the watchdog to see.
pub(super) const HEARTBEAT_NS: u64 = 1_000_000_000;

/// What is done and not told after so long, is told by the timer however long batches may be.
const OVERDUE_NS: u64 = 250_000_000;

/// So often it looks while somebody has done something that is not told: what is finished waits for a slow call behind
/// it only this much longer than the time after which its thread would have told it.
pub(super) const LOOK_NS: u64 = 25_000_000;

/// Runs until the pool is left.
pub(super) fn run(shared: &Shared) {
    let (mut looked_ns, mut filled_ns) = (0, 0);
    let mut heart = shared.lock();
    while !shared.leaving.load(Ordering::Acquire) {
        let now_ns = shared.clock.now_ns();
        let untold = shared.untold.load(Ordering::Acquire);
        if untold && now_ns - looked_ns >= LOOK_NS {
            looked_ns = now_ns;
            drop(heart);
            shared.tell_overdue(now_ns.saturating_sub(shared.crew.tell_ns.min(OVERDUE_NS)));
            heart = shared.lock();
            // While it was not held, the pool may have been left: nobody wakes for that once more.
            continue;
        }
        if now_ns - filled_ns >= HEARTBEAT_NS {
            filled_ns = now_ns;
            drop(heart);
            shared.fill_vacancies();
            heart = shared.lock();
            continue;
        }
        let due_ns = heart.core.next_timeout_ns().unwrap_or(u64::MAX);
        if due_ns <= now_ns {
            let stuck = heart.core.next_stuck_ns().is_some_and(|stuck_ns| stuck_ns <= now_ns);
            drop(heart);
            if stuck {
                // Who has done something and not told it is not stuck in that.
                shared.tell_overdue(now_ns);
            }
            shared.tell([Event::Timer]);
            heart = shared.lock();
            continue;
        }
        let wake_ns = due_ns.min(now_ns + if untold { LOOK_NS } else { HEARTBEAT_NS });
        heart.timer_ns = wake_ns;
        shared.timer_due_ns.store(wake_ns, Ordering::Relaxed);
        let waited = shared.timer_news.wait_timeout(heart, Duration::from_nanos(wake_ns - now_ns));
        heart = waited.expect("Core found itself broken: nothing may be signed on its word").0;
    }
    shared.timer_due_ns.store(u64::MAX, Ordering::Relaxed);
}
