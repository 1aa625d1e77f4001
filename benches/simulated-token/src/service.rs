//! How long a signature takes, and how many are served at once.

use std::{
    cell::Cell,
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use serde::Deserialize;

/// How long C_Sign takes, by sleeping: a network HSM costs its caller no CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tempo {
    /// Each call, in microseconds; 0: it returns at once
    pub(crate) service_us: u64,
    /// One call in so many takes [`Self::tail_us`] on top; 0: none
    pub(crate) tail_one_in: u64,
    /// In microseconds
    pub(crate) tail_us: u64,
    /// Calls that are served at once, others wait inside; 0: all
    pub(crate) slots: u32,
}

/// The places at which calls are served.
#[derive(Debug)]
pub(crate) struct Service {
    tempo: Tempo,
    free: Mutex<u32>,
    freed: Condvar,
}

impl Service {
    pub(crate) fn new(tempo: Tempo) -> Service {
        let free = if tempo.slots == 0 { u32::MAX } else { tempo.slots };
        Service { tempo, free: Mutex::new(free), freed: Condvar::new() }
    }

    /// Takes as long as a signature.
    pub(crate) fn serve(&self) {
        if self.tempo.service_us == 0 && self.tempo.tail_one_in == 0 {
            return;
        }
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        drop(free);
        thread::sleep(Duration::from_micros(self.tempo.draw_us(random())));
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.freed.notify_one();
    }
}

impl Tempo {
    /// What a call takes that draws this number.
    fn draw_us(self, random: u64) -> u64 {
        let late = self.tail_one_in > 0 && random.is_multiple_of(self.tail_one_in);
        self.service_us + if late { self.tail_us } else { 0 }
    }
}

/// Numbers without a pattern that matters here (xorshift64), of each thread's own.
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }
    STATE.with(|state| {
        let mut x = state.get();
        if x == 0 {
            // Where the state stands differs from thread to thread.
            x = std::ptr::from_ref(state).addr() as u64 | 1;
        }
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_in_so_many_takes_the_tail_on_top() {
        let tempo = Tempo { service_us: 1000, tail_one_in: 10, tail_us: 9000, slots: 0 };
        let drawn: Vec<_> = (0..100).map(|random| tempo.draw_us(random)).collect();
        assert_eq!(drawn.iter().filter(|us| **us == 10_000).count(), 10);
        assert_eq!(drawn.iter().filter(|us| **us == 1000).count(), 90);
    }

    #[test]
    fn no_more_calls_than_slots_are_served_at_once() {
        let service = Service::new(Tempo { service_us: 2000, slots: 2, ..Tempo::default() });
        let began = std::time::Instant::now();
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| service.serve());
            }
        });
        assert!(began.elapsed() >= Duration::from_millis(6), "six calls on two slots are three in a row");
    }
}
