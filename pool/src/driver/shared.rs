//! What the pool's threads share: Core behind its lock, and how it is told what happened and what it asks for is
//! carried out.

use std::{
    cell::RefCell,
    mem,
    sync::{Arc, Weak},
    time::Duration,
};

use segl_hsm::Input;

use super::{
    crew::Crew,
    pool::{Inbox, Observer},
    seat::{self, Evicted, Laid, Order, Seat},
    sync::{
        Clock, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
        thread_local,
    },
    timer,
};
use crate::{
    Completion,
    core::{Action, Alarm, Core, Event, SessionId},
};

/// What the threads of a pool share.
pub(super) struct Shared {
    pub(super) me: Weak<Shared>,
    pub(super) crew: Crew,
    pub(super) heart: Mutex<Heart>,
    /// The timer's thread is to look at its appointment again
    pub(super) timer_news: Condvar,
    /// Somebody who stops the pool is to look again
    pub(super) stop_news: Condvar,
    /// By session
    pub(super) seats: Vec<Seat>,
    /// Places for which no thread could be had, with the tenure that waits for one
    pub(super) vacancies: Mutex<Vec<(SessionId, u32)>>,
    pub(super) inboxes: Vec<Arc<dyn Inbox>>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) tokens: u16,
    pub(super) clock: Clock,
    /// When the timer's thread will next have shown itself
    pub(super) timer_due_ns: AtomicU64,
    /// Some session may have done something that it can not tell
    pub(super) untold: AtomicBool,
    /// Threads that have nothing to do go home
    pub(super) leaving: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("seats", &self.seats.len()).finish_non_exhaustive()
    }
}

/// What the lock guards.
pub(super) struct Heart {
    pub(super) core: Core<Input>,
    /// When the timer's thread will wake by itself
    pub(super) timer_ns: u64,
    pub(super) stopping: bool,
    /// Threads of the pool that are not over
    pub(super) threads: u32,
}

/// Vectors that a thread uses again each time it tells Core something.
#[derive(Default)]
struct Scratch {
    actions: Vec<Action<Input>>,
    /// By inbox
    completions: Vec<Vec<Completion>>,
    alarms: Vec<Alarm>,
    /// What sessions did not begin, and what was done by those that were given up
    taken_back: Vec<Event<Input>>,
    evicted: Vec<(SessionId, Evicted)>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Heart> {
        self.heart.lock().expect("Core found itself broken: nothing may be signed on its word")
    }

    /// Tells Core what happened, and carries out what it asks for.
    pub(super) fn tell(&self, events: impl IntoIterator<Item = Event<Input>>) {
        // An inbox may call the pool from within: the inner call then starts with vectors of its own.
        let mut scratch = SCRATCH.with(|scratch| mem::take(&mut *scratch.borrow_mut()));
        let now_ns;
        {
            let mut heart = self.lock();
            // The time is read under the lock, so that it never runs backwards for Core.
            now_ns = self.clock.now_ns();
            heart.core.step_all(now_ns, events, &mut scratch.actions);
            self.evict(&mut scratch);
            let next_ns = heart.core.next_timeout_ns().unwrap_or(u64::MAX);
            if next_ns < heart.timer_ns {
                heart.timer_ns = next_ns;
                self.timer_news.notify_one();
            }
            if heart.stopping {
                self.stop_news.notify_all();
            }
        }
        self.carry_out(&mut scratch, now_ns);
        let taken_back = mem::take(&mut scratch.taken_back);
        let evicted = mem::take(&mut scratch.evicted);
        SCRATCH.with(|kept| kept.replace(scratch));
        if !taken_back.is_empty() {
            self.tell(taken_back);
        }
        for (session, evicted) in evicted {
            self.replace(session, evicted);
        }
    }

    /// Takes their seats from threads that were given up. Core's lock is held: whatever it asks of the place next,
    /// another thread may lay there at once, and that is for the next one to sit there.
    fn evict(&self, scratch: &mut Scratch) {
        for action in &scratch.actions {
            if let Action::Replace { session, generation } = *action {
                let evicted = self.seats[usize::from(session.0)].evict(session, generation, &mut scratch.taken_back);
                scratch.evicted.push((session, evicted));
            }
        }
    }

    /// A session's thread has something done and not told, and is at the next call: if that takes long, the timer tells.
    pub(super) fn leave_untold(&self) {
        if !self.untold.swap(true, Ordering::AcqRel) {
            let mut heart = self.lock();
            let look_ns = self.clock.now_ns().saturating_add(timer::LOOK_NS);
            if look_ns < heart.timer_ns {
                heart.timer_ns = look_ns;
                self.timer_news.notify_one();
            }
        }
    }

    /// Puts another thread into the place of one that was given up, and lets that go once it is back: all that it has
    /// left behind was told.
    fn replace(&self, session: SessionId, evicted: Evicted) {
        let (generation, tenure) = (evicted.generation(), evicted.successor());
        if !self.seats[usize::from(session.0)].dismiss(evicted) {
            self.tell([Event::Gone { session, generation }]);
        }
        self.fill(session, tenure);
    }

    /// Asks again for the threads that could not be had. What was laid before their seats meanwhile they find there.
    pub(super) fn fill_vacancies(&self) {
        let vacancies = mem::take(&mut *self.vacancies());
        for (session, tenure) in vacancies {
            // Another thread may have been found when the place was given up once more.
            if self.seats[usize::from(session.0)].tenure() == tenure {
                self.fill(session, tenure);
            }
        }
    }

    fn fill(&self, session: SessionId, tenure: u32) {
        let me = self.me.upgrade().expect("whoever speaks here holds the pool");
        if let Err(error) = me.spawn_session(session, tenure) {
            self.seats[usize::from(session.0)].stay_vacant();
            self.vacancies().push((session, tenure));
            let (token, _) = self.crew.token(session);
            self.observer.alarm(&Alarm::NoThread { token, error: error.to_string().into() });
        }
    }

    fn vacancies(&self) -> MutexGuard<'_, Vec<(SessionId, u32)>> {
        self.vacancies.lock().expect("nobody panics while holding the list of vacancies")
    }

    /// Tells Core what sessions have done that are now stuck in the next call of their batch.
    pub(super) fn tell_overdue(&self, since_ns: u64) {
        let mut overdue = Vec::new();
        // Whoever is not seen below says so again.
        self.untold.store(false, Ordering::Release);
        for seat in &self.seats {
            if seat.collect_overdue(&mut overdue, since_ns) {
                self.untold.store(true, Ordering::Release);
            }
        }
        if !overdue.is_empty() {
            self.tell(overdue);
        }
    }

    /// Core trusts its indices; a caller's mistake must not break it.
    pub(super) fn check_token(&self, token: u16) {
        assert!(token < self.tokens, "there is no token {token}");
    }

    fn carry_out(&self, scratch: &mut Scratch, now_ns: u64) {
        scratch.completions.resize_with(self.inboxes.len(), Vec::new);
        // Orders first: sessions can begin while the rest is handed over. Those of one batch follow each other, and
        // take one lock and one wake-up.
        let mut desk: Option<(&Seat, MutexGuard<'_, Laid>)> = None;
        for action in scratch.actions.drain(..) {
            let (SessionId(session), order) = match action {
                Action::Sign { session, generation, call } => (session, Order::Sign(generation, call)),
                Action::Open { session, generation } => (session, Order::Open(generation)),
                Action::Login { session, generation } => (session, Order::Login(generation)),
                Action::Close { session, generation } => (session, Order::Close(generation)),
                Action::Complete { inbox, completion, input: _ } => {
                    scratch.completions[usize::from(inbox)].push(completion);
                    continue;
                }
                Action::Alarm(alarm) => {
                    scratch.alarms.push(alarm);
                    continue;
                }
                Action::TakeBack { session, generation: _, call } => {
                    // Never two seats' locks at once.
                    if let Some((open, orders)) = desk.take() {
                        open.hand_over(orders, now_ns);
                    }
                    let seat = &self.seats[usize::from(session.0)];
                    scratch.taken_back.extend(seat.take_back(session, call));
                    continue;
                }
                Action::KeepAlive { session, generation } => (session, Order::KeepAlive(generation)),
                Action::Reinitialise { module, session, generation } => {
                    (session, Order::Reinitialise(generation, module))
                }
                // It was done before Core could say anything else.
                Action::Replace { .. } => continue,
            };
            let seat = &self.seats[usize::from(session)];
            let orders = match desk.take() {
                Some((open, orders)) if std::ptr::eq(open, seat) => orders,
                other => {
                    if let Some((open, orders)) = other {
                        open.hand_over(orders, now_ns);
                    }
                    seat.laid()
                }
            };
            let (_, laid) = desk.insert((seat, orders));
            if let Err(order) = laid.lay(order) {
                scratch.taken_back.extend(seat::skipped(SessionId(session), order));
            }
        }
        if let Some((open, orders)) = desk {
            open.hand_over(orders, now_ns);
        }
        for (inbox, completions) in self.inboxes.iter().zip(&mut scratch.completions) {
            if !completions.is_empty() {
                inbox.deliver(completions);
                completions.clear();
            }
        }
        for alarm in scratch.alarms.drain(..) {
            match &alarm {
                Alarm::SessionLost { token, error } => self.observer.session_lost(*token, error),
                _ => self.observer.alarm(&alarm),
            }
        }
    }

    /// Waits for something to become true that [`Shared::tell`] or the end of a thread brings about.
    pub(super) fn wait_until(&self, end_ns: u64, is_so: impl Fn(&Heart) -> bool) -> bool {
        let mut heart = self.lock();
        loop {
            let now_ns = self.clock.now_ns();
            if is_so(&heart) || now_ns >= end_ns {
                return is_so(&heart);
            }
            let waited = self.stop_news.wait_timeout(heart, Duration::from_nanos(end_ns - now_ns));
            heart = waited.expect("Core found itself broken: nothing may be signed on its word").0;
        }
    }
}
