//! The pool's threads: one for each session's place and one for the timer, and others in the place of those that are
//! stuck in a token's code.

use std::{fmt, io, process, sync::Arc};

use super::{
    session,
    shared::Shared,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
        thread::{self, JoinHandle},
    },
};
use crate::{Config, ThreadRole, TokenSetup, core::SessionId};

type OnStart = Arc<dyn Fn(ThreadRole) + Send + Sync>;

/// What threads are made of, and the list of them.
pub(super) struct Crew {
    pub(super) tokens: Vec<TokenSetup>,
    /// By place: the token, and the session's number there
    places: Vec<(u16, u16)>,
    pub(super) spin_ns: u64,
    /// What is done is told after so long at the latest
    pub(super) tell_ns: u64,
    on_start: Option<OnStart>,
    threads: Mutex<Vec<(Arc<AtomicBool>, JoinHandle<()>)>>,
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Crew {
    pub(super) fn new(config: &Config, tokens: Vec<TokenSetup>) -> Crew {
        let numbered = (0..).zip(&tokens);
        let places = numbered.flat_map(|(token, setup)| (0..setup.sessions).map(move |session| (token, session)));
        Crew {
            places: places.collect(),
            spin_ns: config.spin_ns,
            tell_ns: config.rules.batch_time_ns,
            on_start: config.on_thread_start.clone(),
            threads: Mutex::default(),
            tokens,
        }
    }

    /// How many places there are.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// The token a place belongs to.
    pub(super) fn token(&self, id: SessionId) -> (u16, &TokenSetup) {
        let (token, _) = self.places[usize::from(id.0)];
        (token, &self.tokens[usize::from(token)])
    }

    /// Joins those that are over; how many are not.
    pub(super) fn join(&self) -> usize {
        let mut left = 0;
        for (over, thread) in self.threads().drain(..) {
            if over.load(Ordering::Acquire) {
                // Its last statement is behind it.
                drop(thread.join());
            } else {
                left += 1;
            }
        }
        left
    }

    fn threads(&self) -> MutexGuard<'_, Vec<(Arc<AtomicBool>, JoinHandle<()>)>> {
        self.threads.lock().expect("nobody panics while holding the list of threads")
    }
}

impl Shared {
    /// Starts the thread of a place, for this tenure of its seat.
    pub(super) fn spawn_session(self: &Arc<Self>, id: SessionId, tenure: u32) -> io::Result<()> {
        let (token, session) = self.crew.places[usize::from(id.0)];
        let role = ThreadRole::Session { token, session };
        let name = session_thread_name(self.crew.tokens[usize::from(token)].token.name(), session);
        self.spawn(name, role, move |shared| session::run(&shared, id, tenure))
    }

    /// Starts a thread of the pool.
    pub(super) fn spawn(
        self: &Arc<Self>,
        name: String,
        role: ThreadRole,
        body: impl FnOnce(Arc<Shared>) + Send + 'static,
    ) -> io::Result<()> {
        let over = Arc::new(AtomicBool::new(false));
        let shared = self.clone();
        let on_start = self.crew.on_start.clone();
        let attendance = Attendance { shared: shared.clone(), over: over.clone() };
        self.lock().threads += 1;
        let handle = thread::Builder::new().name(name).spawn(move || {
            let attendance = attendance;
            if let Some(on_start) = on_start {
                on_start(role);
            }
            body(shared);
            drop(attendance);
        })?;
        let mut threads = self.crew.threads();
        threads.retain(|(over, _)| !over.load(Ordering::Acquire));
        threads.push((over, handle));
        Ok(())
    }
}

/// Held by a thread of the pool while it lives; ends the process when the thread panics.
struct Attendance {
    shared: Arc<Shared>,
    over: Arc<AtomicBool>,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A token's panic was caught; this one came from an inbox, the observer or the pool itself. What the
            // thread had in hand is lost: Core would wait for ever for its session, and owners for their answers. Who
            // starts the process anew gets a whole one.
            eprintln!("segl-pool: a thread of the pool panicked; the process is not whole any more and ends");
            process::abort();
        }
        self.over.store(true, Ordering::Release);
        // When Core is broken nobody waits for this any more, and a panic here would be the second.
        if let Ok(mut heart) = self.shared.heart.lock() {
            heart.threads -= 1;
            self.shared.stop_news.notify_all();
        }
    }
}

/// `segl-s-hsm1-0`: Linux shows 15 bytes of a thread's name, and the number must be among them.
pub(super) fn session_thread_name(token: &str, session: u16) -> String {
    let number = session.to_string();
    let room = 15 - "segl-s--".len() - number.len();
    let name: String = token.chars().filter(char::is_ascii_graphic).take(room).collect();
    format!("segl-s-{name}-{number}")
}
