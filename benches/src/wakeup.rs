//! What an idle wake-up of a thread on another core costs on this machine: the unit in which an unloaded request's
//! latency is to be read, since machines differ in it by ten times.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_setaffinity};
use segl_tests::Result;
use serde::Serialize;

use crate::statistics::median;

const ROUNDS: usize = 300;

/// Of many wake-ups, each after a millisecond of idleness, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Wakeup {
    pub(crate) median_us: f64,
    pub(crate) p99_us: f64,
}

impl fmt::Display for Wakeup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} us (99%: {:.1} us)", self.median_us, self.p99_us)
    }
}

/// One thread sleeps; this one, on another core where there is one, wakes it and says when it did.
pub(crate) fn measure() -> Result<Wakeup> {
    let epoch = Instant::now();
    let now_ns = move || epoch.elapsed().as_nanos() as u64;
    let woken_at = Arc::new(AtomicU64::new(0));
    let (answer, answers) = mpsc::channel();
    let sleeper = thread::Builder::new().name("sleeper".into()).spawn({
        let woken_at = woken_at.clone();
        move || {
            pin(1);
            for _ in 0..ROUNDS {
                loop {
                    thread::park();
                    let asked = woken_at.swap(0, Ordering::Acquire);
                    if asked != 0 {
                        let _ = answer.send(now_ns().saturating_sub(asked));
                        break;
                    }
                }
            }
        }
    })?;
    let waker = thread::Builder::new().name("waker".into()).spawn(move || {
        pin(0);
        let mut took_us = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            thread::sleep(Duration::from_millis(1));
            woken_at.store(now_ns().max(1), Ordering::Release);
            sleeper.thread().unpark();
            took_us.extend(answers.recv_timeout(Duration::from_secs(5)).map(|ns| ns as f64 / 1000.0));
        }
        took_us
    })?;
    let mut took_us = waker.join().map_err(|_| "the waking thread ended")?;
    took_us.sort_by(f64::total_cmp);
    let p99_us = took_us.get(took_us.len() * 99 / 100).copied().ok_or("nobody was woken")?;
    Ok(Wakeup { median_us: median(&took_us), p99_us })
}

/// To the core of this number, if the process has so many: where it may not be, the measurement is as good as it can be.
fn pin(core: usize) {
    if core < crate::token::cores() {
        let mut cores = CpuSet::new();
        cores.set(core);
        let _ = sched_setaffinity(None, &cores);
    }
}
