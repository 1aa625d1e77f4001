//! The pool on real threads: a mutex around Core, a thread for each session, one for the timer. It decides nothing.
//!
//! Whoever has something to tell Core locks it, lets it step, unlocks, and carries out what Core asked for: orders to
//! sessions' threads, completions to inboxes, news to the observer. So neither a token nor an inbox is ever called
//! with the lock held.

mod crew;
mod seat;
mod session;
#[cfg(test)]
mod tests;
mod timer;

use std::{
    cell::RefCell,
    io, iter, mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use segl_hsm::{Error, Input, KeyReport};

use self::{
    crew::Crew,
    seat::{Evicted, Laid, Order, Seat},
};
use crate::{
    Clock, Completion, Config, Job, RouteId, Snapshot, ThreadRole, TokenSet, TokenSetup,
    clock::as_ns,
    core::{Action, Alarm, Core, Event, SessionId, TokenSpec},
};

/// Where completions go.
pub trait Inbox: Send + Sync + 'static {
    /// Takes all of `completions`; a panic on a thread of the pool ends the process. Called outside the pool's lock, once a batch, on a thread of the pool or of
    /// whoever called the pool. Must not block. What it leaves in the vector is dropped; the vector is used again.
    fn deliver(&self, completions: &mut Vec<Completion>);
}

/// Who hears of what happens to tokens. A panic ends the process, as in [`Inbox`]. Called outside the pool's lock, on a thread of the pool or of whoever called
/// it; must not block long.
pub trait Observer: Send + Sync + 'static {
    /// A login succeeded; heard before the token signs after it.
    fn token_logged_in(&self, token: u16, keys: Vec<KeyReport>);

    /// A session was spoilt by an error and is being replaced.
    fn session_lost(&self, token: u16, error: &Error);

    /// Everything else.
    fn alarm(&self, alarm: &Alarm);
}

/// How far the pool's own threads are behind. A thread inside a token's call does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How long the timer's thread is overdue; it shows itself once a second at least
    pub timer_lag_ns: u64,
    /// The longest that an order has been lying before a session's thread
    pub session_lag_ns: u64,
}

/// How a stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Threads left behind since they did not return from a token in time
    pub threads_left: usize,
}

/// What [`Pool::stop`] keeps of its limit for threads that are not stuck, at most.
const STOP_RESERVE_NS: u64 = 100_000_000;

/// Sessions as a pool. Shared by reference among threads; dropped without [`Pool::stop`], it stops without waiting.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// Starts the threads and begins to open sessions. Returns before any token has answered: a token that is away
    /// is no failure of the start.
    ///
    /// # Errors
    /// With rules that can not be, or when a thread can not be had.
    ///
    /// # Panics
    /// With more than 64 tokens or 65,535 sessions.
    pub fn start(
        config: Config,
        tokens: Vec<TokenSetup>,
        inboxes: Vec<Arc<dyn Inbox>>,
        observer: Arc<dyn Observer>,
    ) -> io::Result<Pool> {
        config.rules.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let specs: Vec<TokenSpec> = tokens
            .iter()
            .map(|setup| TokenSpec {
                name: setup.token.name().into(),
                sessions: setup.sessions,
                module: setup.token.module(),
                stuck_after_ns: setup.stuck_after_ns,
                keep_alive_ns: setup.keep_alive_ns,
                preferred: setup.preferred,
            })
            .collect();
        let core = Core::new(config.rules.clone(), &specs);
        let crew = Crew::new(&config, tokens);
        let shared = Arc::new_cyclic(|me| Shared {
            heart: Mutex::new(Heart { core, timer_ns: u64::MAX, stopping: false, threads: 0 }),
            timer_news: Condvar::new(),
            stop_news: Condvar::new(),
            me: me.clone(),
            seats: (0..crew.places()).map(|_| Seat::default()).collect(),
            crew,
            inboxes,
            observer,
            tokens: specs.len() as u16,
            clock: Clock::start(),
            timer_due_ns: AtomicU64::new(timer::HEARTBEAT_NS),
            leaving: AtomicBool::new(false),
        });
        let pool = Pool { shared };

        // All threads stand before the first order goes out. When one can not be had, the drop sends the rest home.
        for place in 0..pool.shared.seats.len() {
            pool.shared.spawn_session(SessionId(place as u16))?;
        }
        pool.shared.spawn("segl-timer".into(), ThreadRole::Timer, |shared| timer::run(&shared))?;
        pool.shared.tell((0..pool.shared.tokens).map(|token| Event::Join { token }));
        Ok(pool)
    }

    /// The clock deadlines are on.
    pub fn clock(&self) -> Clock {
        self.shared.clock
    }

    /// Submits all of `jobs`, under one lock. Each ends in one completion; a refusal is one too, delivered before
    /// this returns.
    ///
    /// # Panics
    /// When a job names an inbox that the pool was not started with.
    pub fn submit(&self, jobs: &mut Vec<Job>) {
        assert!(jobs.iter().all(|job| usize::from(job.inbox) < self.shared.inboxes.len()), "no such inbox");
        self.shared.tell(jobs.drain(..).map(Event::Submit));
    }

    /// Takes a job back, as far as that is still possible: one that waits completes as cancelled, one that a session
    /// has completes as it would have, but is not tried again. An address nobody has is passed over.
    pub fn cancel(&self, inbox: u16, tag: u64) {
        self.shared.tell([Event::Cancel { inbox, tag }]);
    }

    /// Sets which tokens hold which keys: route `n` is the `n`-th set. Routes beyond the end of the list stay as they
    /// are, and jobs that wait keep the set they were submitted with.
    pub fn set_routes(&self, routes: &[TokenSet]) {
        self.shared.tell([Event::Routes(routes.to_vec())]);
    }

    /// Whether some session could sign with the keys of this route now.
    pub fn route_usable(&self, route: RouteId) -> bool {
        self.shared.lock().core.route_usable(route)
    }

    /// Logs in again: looks up keys added since, and tries a token again that waits for its operator.
    ///
    /// # Panics
    /// When there is no such token.
    pub fn refresh(&self, token: u16) {
        self.shared.check_token(token);
        self.shared.tell([Event::Refresh { token }]);
    }

    /// Says whether a token on probation ([`Alarm::Probation`]) may sign: it is ready then, else it is away again for a
    /// while. Of a token that is not on probation nothing follows.
    ///
    /// # Panics
    /// When there is no such token.
    pub fn vouch(&self, token: u16, ok: bool) {
        self.shared.check_token(token);
        self.shared.tell([Event::Vouch { token, ok }]);
    }

    /// Takes a token out: what runs there ends, nothing new begins, its sessions are closed.
    ///
    /// # Panics
    /// When there is no such token.
    pub fn leave(&self, token: u16) {
        self.shared.check_token(token);
        self.shared.tell([Event::Leave { token }]);
    }

    /// Takes a token that was taken out in again. At the start all are in.
    ///
    /// # Panics
    /// When there is no such token.
    pub fn join(&self, token: u16) {
        self.shared.check_token(token);
        self.shared.tell([Event::Join { token }]);
    }

    /// The state of everything.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.lock().core.snapshot()
    }

    /// How far the pool's own threads are behind, for a watchdog. Takes no lock.
    pub fn progress(&self) -> Progress {
        let now_ns = self.shared.clock.now_ns();
        let timer_due_ns = self.shared.timer_due_ns.load(Ordering::Relaxed);
        let session_lags = self.shared.seats.iter().map(|seat| seat.lag_ns(now_ns));
        Progress {
            timer_lag_ns: now_ns.saturating_sub(timer_due_ns),
            session_lag_ns: session_lags.max().unwrap_or_default(),
        }
    }

    /// Refuses new jobs from now on; those that are here are finished.
    pub fn drain(&self) {
        self.shared.tell([Event::Drain]);
    }

    /// Ends the pool: answers what waits as draining, lets calls under way return, closes the sessions and joins
    /// their threads. What is not back within the limit completes as stuck, and its thread is left behind.
    pub fn stop(&self, limit: Duration) -> Stopped {
        let shared = &self.shared;
        let end_ns = shared.clock.in_ns(limit);
        // Some of the limit is kept for the threads' way home.
        let settle_ns = end_ns - as_ns(limit / 8).min(STOP_RESERVE_NS);
        shared.lock().stopping = true;
        shared.tell([Event::Drain].into_iter().chain((0..shared.tokens).map(|token| Event::Leave { token })));
        if !shared.wait_until(settle_ns, |heart| heart.core.sessions_out() == 0 && heart.core.jobs() == 0) {
            // What is known for certain of the batches that are stuck: what they have done, and what they have not begun.
            shared.tell_overdue(u64::MAX);
            let places = shared.seats.iter().zip(0..).map(|(seat, place)| (seat, SessionId(place)));
            let unbegun = places.flat_map(|(seat, id)| iter::from_fn(move || seat.take_back_any(id)));
            shared.tell(unbegun.collect::<Vec<_>>());
            shared.tell([Event::Abandon]);
        }

        let stuck = {
            let heart = shared.lock();
            shared.leaving.store(true, Ordering::Release);
            shared.timer_news.notify_all();
            (heart.core.sessions_out() + heart.core.threads_stuck()) as u32
        };
        shared.seats.iter().for_each(Seat::wake);
        shared.wait_until(end_ns, |heart| heart.threads <= stuck);
        Stopped { threads_left: shared.crew.join() }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.shared.heart.is_poisoned() {
            // Core is broken: nothing can be ended in order, and a second panic would help nobody.
            self.shared.leaving.store(true, Ordering::Release);
            self.shared.seats.iter().for_each(Seat::wake);
        } else if !self.shared.leaving.load(Ordering::Acquire) {
            self.stop(Duration::ZERO);
        }
    }
}

/// What the threads of a pool share.
struct Shared {
    me: Weak<Shared>,
    crew: Crew,
    heart: Mutex<Heart>,
    /// The timer's thread is to look at its appointment again
    timer_news: Condvar,
    /// Somebody who stops the pool is to look again
    stop_news: Condvar,
    /// By session
    seats: Vec<Seat>,
    inboxes: Vec<Arc<dyn Inbox>>,
    observer: Arc<dyn Observer>,
    tokens: u16,
    clock: Clock,
    /// When the timer's thread will next have shown itself
    timer_due_ns: AtomicU64,
    /// Threads that have nothing to do go home
    leaving: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("seats", &self.seats.len()).finish_non_exhaustive()
    }
}

/// What the lock guards.
struct Heart {
    core: Core<Input>,
    /// When the timer's thread will wake by itself
    timer_ns: u64,
    stopping: bool,
    /// Threads of the pool that are not over
    threads: u32,
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
    fn lock(&self) -> MutexGuard<'_, Heart> {
        self.heart.lock().expect("Core found itself broken: nothing may be signed on its word")
    }

    /// Tells Core what happened, and carries out what it asks for.
    fn tell(&self, events: impl IntoIterator<Item = Event<Input>>) {
        // An inbox may call the pool from within: the inner call then starts with vectors of its own.
        let mut scratch = SCRATCH.with(|scratch| mem::take(&mut *scratch.borrow_mut()));
        let now_ns;
        {
            let mut heart = self.lock();
            // The time is read under the lock, so that it never runs backwards for Core.
            now_ns = self.clock.now_ns();
            heart.core.step_all(now_ns, events, &mut scratch.actions);
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

    /// Puts another thread into the place of one that was given up, and lets that go once it is back: all that it has
    /// left behind was told.
    fn replace(&self, session: SessionId, evicted: Evicted) {
        let generation = evicted.generation();
        if !self.seats[usize::from(session.0)].dismiss(evicted) {
            self.tell([Event::Gone { session, generation }]);
        }
        let me = self.me.upgrade().expect("whoever speaks here holds the pool");
        // Where no thread can be had, nobody carries out what the place is asked for: after a while it is given up like
        // one that is stuck, and a thread is asked for again.
        let _ = me.spawn_session(session);
    }

    /// Tells Core what sessions have done that are now stuck in the next call of their batch.
    fn tell_overdue(&self, since_ns: u64) {
        let mut overdue = Vec::new();
        for seat in &self.seats {
            seat.collect_overdue(&mut overdue, since_ns);
        }
        if !overdue.is_empty() {
            self.tell(overdue);
        }
    }

    /// Core trusts its indices; a caller's mistake must not break it.
    fn check_token(&self, token: u16) {
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
                Action::Replace { session, generation } => {
                    if let Some((open, laid)) = desk.take() {
                        open.hand_over(laid, now_ns);
                    }
                    let seat = &self.seats[usize::from(session.0)];
                    scratch.evicted.push((session, seat.evict(session, generation, &mut scratch.taken_back)));
                    continue;
                }
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
    fn wait_until(&self, end_ns: u64, is_so: impl Fn(&Heart) -> bool) -> bool {
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
