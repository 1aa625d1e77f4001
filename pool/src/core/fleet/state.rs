//! What is known of a token and of a session.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use segl_hsm::Error;

use crate::{
    RungCounters, Times, TokenState,
    core::{CallId, Generation, SessionId, TokenSpec, costs::Ewma},
};

#[derive(Debug)]
pub(in crate::core) struct Token {
    pub(super) name: Arc<str>,
    pub(super) sessions: Range<u16>,
    /// Its index among the modules
    pub(super) module: usize,
    pub(super) stuck_after_ns: u64,
    pub(super) keep_alive_ns: u64,
    /// Sessions it is allowed now, and when it is allowed all again
    pub(super) cap: u16,
    pub(super) all_again_ns: Option<u64>,
    /// The cap that was last told of
    pub(super) cap_told: u16,
    pub(super) standing: Standing,
    pub(super) logged_in: bool,
    /// When the present login was done: an error of a call that began before says nothing against it
    pub(super) logged_in_ns: u64,
    /// Somebody has vouched for it since it was away
    pub(super) vouched: bool,
    /// A login was refused so that only an operator can help, while an earlier one still held: when that is over,
    /// no other is tried
    pub(super) login_refused: Option<Error>,
    /// The operator has spoken since the last login began: log in once more when a session is free
    pub(super) refresh: bool,
    /// The last try to reach it failed: whoever waits for it alone, waits in vain
    pub(super) away: bool,
    /// Opens and logins that failed in a row
    pub(super) failures: u32,
    /// How often in a row all sessions were given up without one having signed in between
    pub(super) rebuilds: u32,
    /// How often in a row nobody vouched for it
    pub(super) refusals: u32,
    /// How often in a row it was rebuilt or reached for in vain: what speaks for its module being the trouble
    pub(super) rung_failed: u32,
    /// No open and no login before
    pub(super) retry_ns: u64,
    /// When it was last heard that a session was closed
    pub(super) closed_ns: Option<u64>,
    /// Its next appointment with the timer
    pub(super) due_ns: Option<u64>,
    /// Sessions in each state
    pub(super) count: [u16; STATES],
    /// The idle ones, the last to come last: it goes first, since its thread may still be awake
    pub(super) idle: VecDeque<SessionId>,
    /// Threads given up and not back
    pub(super) strays: u16,
    pub(super) last_error: Option<Error>,
    pub(super) last_error_ns: u64,
    pub(in crate::core) service: Ewma,
    pub(in crate::core) times: Times,
    pub(in crate::core) calls: u64,
    pub(in crate::core) errors: u64,
    pub(super) rungs: RungCounters,
}

/// Whether it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Out,
    In,
    NeedsOperator,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) token: u16,
    pub(super) generation: Generation,
    pub(super) state: State,
    /// The batch it has, in order
    pub(super) calls: VecDeque<(CallId, u32)>,
    /// Since when it can be in the call that it is in; since when it stands idle
    pub(super) since_ns: u64,
    /// An error has spoilt it; it is closed when it has nothing more to answer
    pub(super) spoilt: Option<Spoilt>,
    /// How often in a row it was lost by its own fault without having signed in between
    pub(super) losses: u32,
    /// Not opened before
    pub(super) reopen_ns: u64,
}

/// Why a session is not to be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoilt {
    /// An error that speaks against this session
    Faulty,
    /// An error of a request, or one that costs all sessions of the token: nothing against this place
    Blameless,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Closed,
    Opening,
    LoggingIn,
    Idle,
    Busy,
    KeepingAlive,
    Closing,
    /// No session; the place's thread initialises the module anew
    Reinitialising,
    /// What it was asked for was given up, and no other thread may take the place: it is of use again when that is
    /// back after all
    Stuck,
}

const STATES: usize = 9;

impl State {
    pub(super) const fn index(self) -> usize {
        match self {
            State::Closed => 0,
            State::Opening => 1,
            State::LoggingIn => 2,
            State::Idle => 3,
            State::Busy => 4,
            State::KeepingAlive => 5,
            State::Closing => 6,
            State::Reinitialising => 7,
            State::Stuck => 8,
        }
    }

    /// The call to the token it is in; none if it is in none.
    pub(super) const fn call(self) -> Option<&'static str> {
        match self {
            State::Closed | State::Idle | State::Stuck => None,
            State::Opening => Some("open"),
            State::LoggingIn => Some("login"),
            State::Busy => Some("sign"),
            State::KeepingAlive => Some("keep-alive"),
            State::Closing => Some("close"),
            State::Reinitialising => Some("reinitialise"),
        }
    }
}

impl Token {
    pub(super) fn new(spec: &TokenSpec, module: usize, sessions: Range<u16>) -> Self {
        let mut count = [0; STATES];
        count[State::Closed.index()] = sessions.len() as u16;
        Token {
            name: spec.name.clone(),
            module,
            stuck_after_ns: spec.stuck_after_ns,
            keep_alive_ns: spec.keep_alive_ns,
            cap: sessions.len() as u16,
            all_again_ns: None,
            cap_told: sessions.len() as u16,
            standing: Standing::Out,
            logged_in: false,
            logged_in_ns: 0,
            vouched: false,
            login_refused: None,
            refresh: false,
            away: false,
            failures: 0,
            rebuilds: 0,
            refusals: 0,
            rung_failed: 0,
            retry_ns: 0,
            closed_ns: None,
            due_ns: None,
            count,
            idle: VecDeque::with_capacity(sessions.len()),
            strays: 0,
            last_error: None,
            last_error_ns: 0,
            service: Ewma::default(),
            times: Times::default(),
            calls: 0,
            errors: 0,
            rungs: RungCounters::default(),
            sessions,
        }
    }

    pub(super) fn note(&mut self, now_ns: u64, error: Error) {
        (self.last_error, self.last_error_ns) = (Some(error), now_ns);
    }

    pub(super) fn count(&self, state: State) -> u16 {
        self.count[state.index()]
    }

    /// Sessions the token knows of and that answer.
    pub(super) fn open(&self) -> u16 {
        use State::{Busy, Idle, KeepingAlive, LoggingIn};
        self.count(Idle) + self.count(Busy) + self.count(LoggingIn) + self.count(KeepingAlive)
    }

    /// Places that hold a session or may.
    pub(super) fn taken(&self) -> u16 {
        self.sessions.len() as u16 - self.count(State::Closed)
    }

    /// Sessions it may have beside those.
    pub(super) fn room(&self) -> u16 {
        self.cap.saturating_sub(self.taken())
    }

    pub(super) fn signs(&self) -> bool {
        self.standing == Standing::In && self.logged_in
    }

    /// Whether it signs for everybody.
    pub(super) fn serves(&self) -> bool {
        self.signs() && self.vouched
    }

    pub(super) fn is_on_probation(&self) -> bool {
        self.signs() && !self.vouched
    }

    pub(super) fn state(&self, wedged: bool) -> TokenState {
        match self.standing {
            Standing::Out if self.taken() > 0 || self.strays > 0 => TokenState::Draining,
            Standing::Out => TokenState::Drained,
            Standing::NeedsOperator => TokenState::NeedsOperator,
            Standing::In if self.is_on_probation() => TokenState::Probation,
            Standing::In if self.away && wedged => TokenState::Wedged,
            Standing::In if self.away => TokenState::Away,
            Standing::In if self.logged_in => TokenState::Ready,
            Standing::In if self.open() > 0 => TokenState::LoggingIn,
            Standing::In => TokenState::Opening,
        }
    }
}

impl Session {
    pub(super) fn new(token: u16, batch_max: usize) -> Self {
        Session {
            token,
            generation: Generation(0),
            state: State::Closed,
            calls: VecDeque::with_capacity(batch_max),
            since_ns: 0,
            spoilt: None,
            losses: 0,
            reopen_ns: 0,
        }
    }

    /// Whether it is in a call that may be stuck, as far as is known.
    pub(super) fn may_be_stuck(&self) -> bool {
        self.state.call().is_some() || self.state == State::Stuck && !self.calls.is_empty()
    }
}
