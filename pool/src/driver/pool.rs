//! The pool as its owner sees it: started, asked, told, and stopped.

use std::{io, iter, sync::Arc, time::Duration};

use segl_hsm::{Error, KeyReport};

use super::{
    crew::Crew,
    seat::{FIRST_TENURE, Seat},
    shared::{Heart, Shared},
    sync::{
        Clock, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    timer,
};
use crate::{
    Completion, Config, Job, RouteId, Snapshot, ThreadRole, TokenSet, TokenSetup,
    clock::as_ns,
    core::{Alarm, Core, Event, Obstacle, SessionId, TokenSpec},
};

/// Where completions go.
pub trait Inbox: Send + Sync + 'static {
    /// Takes all of `completions`; a panic on a thread of the pool ends the process. Called outside the pool's lock,
    /// once a batch, on a thread of the pool or of whoever called the pool. Must not block. What it leaves in the vector is dropped; the vector is used again.
    fn deliver(&self, completions: &mut Vec<Completion>);
}

/// Who hears of what happens to tokens. A panic ends the process, as in [`Inbox`]. Called outside the pool's lock, on a
/// thread of the pool or of whoever called it; must not block long.
pub trait Observer: Send + Sync + 'static {
    /// A login succeeded; heard before the token signs after it.
    fn token_logged_in(&self, token: u16, keys: Vec<KeyReport>);

    /// A session was spoilt by an error and is being replaced.
    fn session_lost(&self, token: u16, error: &Error);

    /// Everything else. Of what happens on several threads at once, a later alarm may come before an earlier one: a
    /// token may have been back before it is heard to be away.
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
    pub(super) shared: Arc<Shared>,
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
            vacancies: Mutex::default(),
            crew,
            inboxes,
            observer,
            tokens: specs.len() as u16,
            clock: Clock::start(),
            timer_due_ns: AtomicU64::new(timer::HEARTBEAT_NS),
            untold: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        });
        let pool = Pool { shared };

        // All threads stand before the first order goes out. When one can not be had, the drop sends the rest home.
        for place in 0..pool.shared.seats.len() {
            pool.shared.spawn_session(SessionId(place as u16), FIRST_TENURE)?;
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
    /// while. Of a token that is not on probation, or on another than the one of this `round`, nothing follows.
    ///
    /// # Panics
    /// When there is no such token.
    pub fn vouch(&self, token: u16, round: u64, ok: bool) {
        self.shared.check_token(token);
        self.shared.tell([Event::Vouch { token, round, ok }]);
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

    /// Begins the token's module anew (C_Finalize, C_Initialize): the calls inside it are waited for, and all of its
    /// tokens log in again and are on probation.
    ///
    /// # Errors
    /// What stands in the way; then nothing is done.
    ///
    /// # Panics
    /// When there is no such token.
    pub fn reinitialise(&self, token: u16) -> Result<(), Obstacle> {
        self.shared.check_token(token);
        // Core looks again: what comes about meanwhile is no worse than what would have a moment later.
        if let Some(obstacle) = self.shared.lock().core.obstacle(token) {
            return Err(obstacle);
        }
        self.shared.tell([Event::Reinitialise { token }]);
        Ok(())
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
        if self.shared.heart.lock().is_err() {
            // Core is broken: nothing can be ended in order, and a second panic would help nobody.
            self.shared.leaving.store(true, Ordering::Release);
            self.shared.seats.iter().for_each(Seat::wake);
        } else if !self.shared.leaving.load(Ordering::Acquire) {
            self.stop(Duration::ZERO);
        }
    }
}
