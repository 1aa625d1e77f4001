//! Where a session's thread sits: orders are laid before it, and it is woken once for all of them.

use std::{
    hint,
    sync::{
        Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
};

use segl_hsm::Input;

use crate::{
    Clock,
    core::{Call, Generation},
};

/// What a session's thread is to do.
#[derive(Debug)]
pub(super) enum Order {
    Open(Generation),
    Login(Generation),
    Sign(Generation, Call<Input>),
    Close(Generation),
}

/// A session's place among the threads.
#[derive(Debug, Default)]
pub(super) struct Seat {
    orders: Mutex<Vec<Order>>,
    /// Since when orders have been lying here, 0 when none are. Written under the lock of the orders
    ordered_ns: AtomicU64,
    thread: OnceLock<Thread>,
}

impl Seat {
    /// Says whose seat it is, before the first order.
    pub(super) fn belongs_to(&self, thread: Thread) {
        self.thread.set(thread).expect("a seat has one thread");
    }

    /// The orders, to add some and then to [`Seat::hand_over`].
    pub(super) fn orders(&self) -> MutexGuard<'_, Vec<Order>> {
        self.orders.lock().expect("nobody panics while holding orders")
    }

    /// Lays orders before the thread and wakes it, unless it is the one that speaks.
    pub(super) fn hand_over(&self, orders: MutexGuard<'_, Vec<Order>>, now_ns: u64) {
        self.ordered_ns.store(now_ns.max(1), Ordering::Release);
        drop(orders);
        self.wake();
    }

    /// Makes the thread look up.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get()
            && thread.id() != thread::current().id()
        {
            thread.unpark();
        }
    }

    /// Waits for orders and takes them all; false when there are none and the thread is to go home.
    pub(super) fn take(&self, into: &mut Vec<Order>, clock: Clock, spin_ns: u64, leaving: &AtomicBool) -> bool {
        debug_assert!(into.is_empty());
        let mut spin_until_ns = None;
        loop {
            if self.ordered_ns.load(Ordering::Acquire) != 0 {
                let mut orders = self.orders();
                self.ordered_ns.store(0, Ordering::Relaxed);
                std::mem::swap(&mut *orders, into);
                return true;
            }
            if leaving.load(Ordering::Acquire) {
                return false;
            }
            let now_ns = if spin_ns == 0 { 0 } else { clock.now_ns() };
            if now_ns < *spin_until_ns.get_or_insert(now_ns + spin_ns) {
                hint::spin_loop();
            } else {
                thread::park();
                spin_until_ns = None;
            }
        }
    }

    /// How long orders have been lying here.
    pub(super) fn lag_ns(&self, now_ns: u64) -> u64 {
        match self.ordered_ns.load(Ordering::Relaxed) {
            0 => 0,
            ordered_ns => now_ns.saturating_sub(ordered_ns),
        }
    }
}
