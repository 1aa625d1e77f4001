//! Where a session's thread sits: orders are laid before it, and it is woken once for all of them.
//!
//! A thread that is stuck in the token's code loses its seat to another. Each has its *tenure*, and what the one before
//! does after that touches nothing here: it hands its answer to Core itself, closes what it holds, and goes.

use std::collections::VecDeque;

use segl_hsm::{Input, ModuleId};

use super::sync::{
    Clock, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    hint,
    thread::{self, Thread},
};
use crate::core::{Call, CallId, CallResult, Event, Generation, SessionId};

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

impl Order {
    fn generation(&self) -> Generation {
        match *self {
            Order::Open(generation)
            | Order::Login(generation)
            | Order::Sign(generation, _)
            | Order::Close(generation)
            | Order::KeepAlive(generation)
            | Order::Reinitialise(generation, _) => generation,
        }
    }
}

/// The tenure of a seat that nobody has lost yet.
pub(super) const FIRST_TENURE: u32 = 0;

/// A session's place among the threads.
#[derive(Debug, Default)]
pub(super) struct Seat {
    laid: Mutex<Laid>,
    batch: Mutex<Batch>,
    /// Since when orders have been lying here, 0 when none are. Written under the lock of what is laid
    ordered_ns: AtomicU64,
    /// Whose seat it is now. Written with both locks held
    tenure: AtomicU32,
    /// No thread can be had for it
    vacant: AtomicBool,
}

/// What is laid before the thread.
#[derive(Debug, Default)]
pub(super) struct Laid {
    orders: Vec<Order>,
    /// Once it has sat down
    thread: Option<Thread>,
    /// Orders of this generation and earlier ones come too late
    given_up: Generation,
    /// Threads that have lost the seat and may go: their tenure, and the generation they were given up in
    dismissed: Vec<(u32, Generation)>,
}

impl Laid {
    /// Lays an order before the thread; it comes back if its generation was given up.
    pub(super) fn lay(&mut self, order: Order) -> Result<(), Order> {
        if order.generation() <= self.given_up {
            return Err(order);
        }
        self.orders.push(order);
        Ok(())
    }
}

/// A thread that has just lost its seat.
#[derive(Debug)]
pub(super) struct Evicted {
    tenure: u32,
    /// None if it never sat down: there is no such thread
    thread: Option<Thread>,
    generation: Generation,
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

impl Evicted {
    /// The generation it was given up in.
    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    /// The tenure of whoever comes after it.
    pub(super) fn successor(&self) -> u32 {
        self.tenure.wrapping_add(1)
    }
}

impl Seat {
    /// Whose seat it is.
    pub(super) fn tenure(&self) -> u32 {
        self.tenure.load(Ordering::Acquire)
    }

    /// The calling thread takes its seat; false if it was given up before: it was told of as one that never was.
    pub(super) fn sit(&self, tenure: u32) -> bool {
        let mut laid = self.laid();
        let own = self.tenure() == tenure;
        if own {
            laid.thread = Some(thread::current());
            self.vacant.store(false, Ordering::Relaxed);
        }
        own
    }

    /// No thread can be had for it: until one sits down, what lies here lies before nobody.
    pub(super) fn stay_vacant(&self) {
        self.vacant.store(true, Ordering::Relaxed);
    }

    /// What is laid, to add to it and then to [`Seat::hand_over`].
    pub(super) fn laid(&self) -> MutexGuard<'_, Laid> {
        self.laid.lock().expect("nobody panics while holding orders")
    }

    /// Lays orders before the thread and wakes it, unless it is the one that speaks.
    pub(super) fn hand_over(&self, laid: MutexGuard<'_, Laid>, now_ns: u64) {
        self.ordered_ns.store(now_ns.max(1), Ordering::Release);
        wake(laid);
    }

    /// Makes the thread look up.
    pub(super) fn wake(&self) {
        wake(self.laid());
    }

    /// Takes the seat from its thread: what is done and what has not begun is the caller's to tell, before
    /// [`Seat::dismiss`] lets the thread say its last word.
    pub(super) fn evict(&self, session: SessionId, generation: Generation, into: &mut Vec<Event<Input>>) -> Evicted {
        let mut laid = self.laid();
        let mut batch = self.batch();
        let tenure = self.tenure.fetch_add(1, Ordering::AcqRel);
        self.ordered_ns.store(0, Ordering::Relaxed);
        laid.given_up = generation;
        into.append(&mut batch.answers);
        let unbegun = batch.orders.drain(..).chain(laid.orders.drain(..));
        into.extend(unbegun.filter_map(|order| skipped(session, order)));
        drop(batch);
        Evicted { tenure, thread: laid.thread.take(), generation }
    }

    /// Lets the evicted thread go; whether there is one.
    pub(super) fn dismiss(&self, evicted: Evicted) -> bool {
        let Some(thread) = evicted.thread else { return false };
        self.laid().dismissed.push((evicted.tenure, evicted.generation));
        thread.unpark();
        true
    }

    /// Asks, for a thread that has nothing more to do here, whether it has lost the seat: in which generation, once it
    /// may go.
    pub(super) fn resign(&self, tenure: u32) -> Option<Generation> {
        while self.tenure() != tenure {
            let mut laid = self.laid();
            if let Some(position) = laid.dismissed.iter().position(|&(dismissed, _)| dismissed == tenure) {
                return Some(laid.dismissed.swap_remove(position).1);
            }
            // Whoever dismisses needs it.
            drop(laid);
            thread::park();
        }
        None
    }

    /// Waits for orders, which [`Seat::next`] then gives one by one; false when there are none and the thread is to go
    /// home, or has lost the seat.
    pub(super) fn take(&self, tenure: u32, clock: Clock, spin_ns: u64, leaving: &AtomicBool) -> bool {
        let mut spin_until_ns = None;
        loop {
            if self.tenure() != tenure {
                return false;
            }
            if self.ordered_ns.load(Ordering::Acquire) != 0 {
                let mut laid = self.laid();
                if self.tenure() != tenure {
                    return false;
                }
                self.ordered_ns.store(0, Ordering::Relaxed);
                self.batch().orders.extend(laid.orders.drain(..));
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
    pub(super) fn next(&self, tenure: u32) -> Option<Order> {
        let mut batch = self.batch();
        if self.tenure() == tenure { batch.orders.pop_front() } else { None }
    }

    /// Lays down what came of an order; whether there is another to be begun. It comes back if the thread has lost the
    /// seat, to be told by itself.
    // What comes back is as large as what went in, and hardly ever does.
    #[allow(clippy::result_large_err)]
    pub(super) fn answer(&self, tenure: u32, answer: Event<Input>, now_ns: u64) -> Result<bool, Event<Input>> {
        let mut batch = self.batch();
        if self.tenure() != tenure {
            return Err(answer);
        }
        if batch.answers.is_empty() {
            batch.answered_ns = now_ns;
        }
        batch.answers.push(answer);
        Ok(!batch.orders.is_empty())
    }

    /// Takes what is done. Whoever takes it tells Core.
    pub(super) fn collect(&self, tenure: u32, into: &mut Vec<Event<Input>>) {
        let mut batch = self.batch();
        if self.tenure() == tenure {
            into.append(&mut batch.answers);
        }
    }

    /// Takes what has been done for so long that the thread must be in a long call after it; whether there is something
    /// that has not been for so long.
    pub(super) fn collect_overdue(&self, into: &mut Vec<Event<Input>>, since_ns: u64) -> bool {
        let mut batch = self.batch();
        if batch.answered_ns <= since_ns {
            into.append(&mut batch.answers);
        }
        !batch.answers.is_empty()
    }

    /// Takes a call back if it has not begun: its answer is then the caller's to tell.
    pub(super) fn take_back(&self, session: SessionId, id: CallId) -> Option<Event<Input>> {
        self.take_out(session, |call| call.id == id)
    }

    /// Takes any call back that has not begun, for another session to make.
    pub(super) fn take_back_any(&self, session: SessionId) -> Option<Event<Input>> {
        self.take_out(session, |_| true)
    }

    fn take_out(&self, session: SessionId, wanted: impl Fn(&Call<Input>) -> bool) -> Option<Event<Input>> {
        let is_it = |order: &Order| matches!(order, Order::Sign(_, call) if wanted(call));
        // An order passes from one list to the other with both locks held, so it is in one of them, or begun.
        let mut laid = self.laid();
        let order = match laid.orders.iter().position(is_it) {
            Some(place) => laid.orders.remove(place),
            None => {
                let mut batch = self.batch();
                let place = batch.orders.iter().position(is_it)?;
                batch.orders.remove(place)?
            }
        };
        skipped(session, order)
    }

    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().expect("nobody panics while holding a batch")
    }

    /// How long orders have been lying before the thread.
    pub(super) fn lag_ns(&self, now_ns: u64) -> u64 {
        if self.vacant.load(Ordering::Relaxed) {
            return 0;
        }
        match self.ordered_ns.load(Ordering::Relaxed) {
            0 => 0,
            ordered_ns => now_ns.saturating_sub(ordered_ns),
        }
    }
}

/// Wakes the thread once the lock is free, unless it is the one that speaks.
fn wake(laid: MutexGuard<'_, Laid>) {
    let thread = laid.thread.clone();
    drop(laid);
    if let Some(thread) = thread
        && thread.id() != thread::current().id()
    {
        thread.unpark();
    }
}

/// The answer to an order that is not begun, if Core waits for one: of a session that is given up it waits for its
/// calls only.
pub(super) fn skipped(session: SessionId, order: Order) -> Option<Event<Input>> {
    let Order::Sign(generation, call) = order else { return None };
    let result = CallResult::Skipped;
    Some(Event::Returned { session, generation, call: call.id, result, started_ns: 0, token_ns: 0 })
}
