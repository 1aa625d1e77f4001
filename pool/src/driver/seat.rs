//! Where a session's thread sits: orders are laid before it, and it is woken once for all of them.

use std::{
    collections::VecDeque,
    hint,
    sync::{
        Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
};

use segl_hsm::{Input, ModuleId};

use crate::{
    Clock,
    core::{Call, CallId, CallResult, Event, Generation, SessionId},
};

/// What a session's thread is to do.
#[derive(Debug)]
pub(super) enum Order {
    Open(Generation),
    Login(Generation),
    Sign(Generation, Call<Input>),
    Close(Generation),
    KeepAlive(Generation),
    Reinitialise(Generation, ModuleId),
}

/// A session's place among the threads.
#[derive(Debug, Default)]
pub(super) struct Seat {
    orders: Mutex<Vec<Order>>,
    batch: Mutex<Batch>,
    /// Since when orders have been lying here, 0 when none are. Written under the lock of the orders
    ordered_ns: AtomicU64,
    thread: OnceLock<Thread>,
}

/// What the thread is at. It is not the thread's own, so that a call which does not return holds nothing but itself:
/// others can take back what has not begun, and take along what is done.
#[derive(Debug, Default)]
struct Batch {
    /// Not begun, the next one first
    orders: VecDeque<Order>,
    /// Done and not told to Core
    answers: Vec<Event<Input>>,
    /// Since when there are such
    answered_ns: u64,
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

    /// Waits for orders, which [`Seat::next`] then gives one by one; false when there are none and the thread is to go
    /// home.
    pub(super) fn take(&self, clock: Clock, spin_ns: u64, leaving: &AtomicBool) -> bool {
        let mut spin_until_ns = None;
        loop {
            if self.ordered_ns.load(Ordering::Acquire) != 0 {
                let mut orders = self.orders();
                self.ordered_ns.store(0, Ordering::Relaxed);
                self.batch().orders.extend(orders.drain(..));
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

    /// The order that is begun now.
    pub(super) fn next(&self) -> Option<Order> {
        self.batch().orders.pop_front()
    }

    /// Lays down what came of an order.
    pub(super) fn answer(&self, answer: Event<Input>, now_ns: u64) {
        let mut batch = self.batch();
        if batch.answers.is_empty() {
            batch.answered_ns = now_ns;
        }
        batch.answers.push(answer);
    }

    /// Takes what is done. Whoever takes it tells Core.
    pub(super) fn collect(&self, into: &mut Vec<Event<Input>>) {
        into.append(&mut self.batch().answers);
    }

    /// Takes what has been done for so long that the thread must be stuck in the call after it.
    pub(super) fn collect_overdue(&self, into: &mut Vec<Event<Input>>, since_ns: u64) {
        let mut batch = self.batch();
        if batch.answered_ns <= since_ns {
            into.append(&mut batch.answers);
        }
    }

    /// Takes a call back if it has not begun: its answer is then the caller's to tell.
    pub(super) fn take_back(&self, session: SessionId, id: CallId, now_ns: u64) -> Option<Event<Input>> {
        self.take_out(session, CallResult::Expired, now_ns, |call| call.id == id)
    }

    /// Takes any call back that has not begun, for another session to make.
    pub(super) fn take_back_any(&self, session: SessionId, now_ns: u64) -> Option<Event<Input>> {
        self.take_out(session, CallResult::Skipped, now_ns, |_| true)
    }

    fn take_out(
        &self,
        session: SessionId,
        result: CallResult,
        started_ns: u64,
        wanted: impl Fn(&Call<Input>) -> bool,
    ) -> Option<Event<Input>> {
        let is_it = |order: &Order| matches!(order, Order::Sign(_, call) if wanted(call));
        // An order passes from one list to the other with both locks held, so it is in one of them, or begun.
        let mut laid = self.orders();
        let order = match laid.iter().position(is_it) {
            Some(place) => laid.remove(place),
            None => {
                let mut batch = self.batch();
                let place = batch.orders.iter().position(is_it)?;
                batch.orders.remove(place)?
            }
        };
        let Order::Sign(generation, call) = order else { return None };
        Some(Event::Returned { session, generation, call: call.id, result, started_ns, token_ns: 0 })
    }

    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().expect("nobody panics while holding a batch")
    }

    /// How long orders have been lying here.
    pub(super) fn lag_ns(&self, now_ns: u64) -> u64 {
        match self.ordered_ns.load(Ordering::Relaxed) {
            0 => 0,
            ordered_ns => now_ns.saturating_sub(ordered_ns),
        }
    }
}
