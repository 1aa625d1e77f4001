//! The tokens and their sessions: which are open, which sign, which are to be opened again, and when.
//!
//! A token's first session logs in for all; until then the others are not even opened, so a token that is away is
//! asked by one session, not by all of them. A session that an error has spoilt is closed on its own thread, then
//! opened again in the next generation of its place: at once after a first error, after a pause from the second on,
//! until it signs again.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use segl_hsm::{Error, Kind, Rung};

use super::{
    costs::Ewma,
    dice::Dice,
    event::{Action, Alarm, CallId, Generation, SessionId},
};
use crate::{Rules, TokenSet, TokenSnapshot, TokenState};

/// All tokens and sessions.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) tokens: Vec<Token>,
    sessions: Vec<Session>,
    dice: Dice,
    backoff_ns: Range<u64>,
    session_count_retry_ns: u64,
}

#[derive(Debug)]
pub(super) struct Token {
    name: Arc<str>,
    sessions: Range<u16>,
    /// Sessions it is allowed now, and when it is allowed all again
    cap: u16,
    all_again_ns: Option<u64>,
    /// The cap that was last told of
    cap_told: u16,
    standing: Standing,
    logged_in: bool,
    /// When the present login was done: an error of a call that began before says nothing against it
    logged_in_ns: u64,
    /// Log in once more when a session is free
    refresh: bool,
    /// The last try to reach it failed: whoever waits for it alone, waits in vain
    away: bool,
    /// Opens and logins that failed in a row
    failures: u32,
    /// No open and no login before
    retry_ns: u64,
    /// Its next appointment with the timer
    due_ns: Option<u64>,
    /// Sessions in each state
    count: [u16; STATES],
    /// The idle ones, the last to come first: its thread may still be awake
    idle: Vec<SessionId>,
    last_error: Option<Error>,
    pub(super) service: Ewma,
    pub(super) calls: u64,
    pub(super) errors: u64,
    sessions_lost: u64,
}

/// Whether it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Out,
    In,
    NeedsOperator,
}

#[derive(Debug)]
struct Session {
    token: u16,
    generation: Generation,
    state: State,
    /// The batch it has, in order
    calls: VecDeque<(CallId, u32)>,
    /// An error has spoilt it; it is closed when its batch is back
    spoilt: bool,
    /// How often in a row it was lost without having signed in between
    losses: u32,
    /// Not opened before
    reopen_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Opening,
    LoggingIn,
    Idle,
    Busy,
    Closing,
    /// Given up with so many calls outstanding; closed when they are back after all
    Stuck(u16),
}

const STATES: usize = 7;

impl State {
    const fn index(self) -> usize {
        match self {
            State::Closed => 0,
            State::Opening => 1,
            State::LoggingIn => 2,
            State::Idle => 3,
            State::Busy => 4,
            State::Closing => 5,
            State::Stuck(_) => 6,
        }
    }
}

impl Token {
    fn count(&self, state: State) -> u16 {
        self.count[state.index()]
    }

    /// Sessions the token knows of and that answer.
    fn open(&self) -> u16 {
        self.count(State::Idle) + self.count(State::Busy) + self.count(State::LoggingIn)
    }

    fn signs(&self) -> bool {
        self.standing == Standing::In && self.logged_in
    }

    fn state(&self) -> TokenState {
        match self.standing {
            Standing::Out => TokenState::Left,
            Standing::NeedsOperator => TokenState::NeedsOperator,
            Standing::In if self.away => TokenState::Away,
            Standing::In if self.logged_in => TokenState::Ready,
            Standing::In if self.open() > 0 => TokenState::LoggingIn,
            Standing::In => TokenState::Opening,
        }
    }
}

impl Fleet {
    pub(super) fn new(tokens: &[(Arc<str>, u16)], rules: &Rules) -> Self {
        assert!(tokens.len() <= TokenSet::TOKENS_MAX, "a pool has at most {} tokens", TokenSet::TOKENS_MAX);
        let mut fleet = Fleet {
            tokens: Vec::with_capacity(tokens.len()),
            sessions: Vec::new(),
            dice: Dice::new(rules.seed),
            backoff_ns: rules.backoff_min_ns..rules.backoff_max_ns,
            session_count_retry_ns: rules.session_count_retry_ns,
        };
        for (index, (name, sessions)) in tokens.iter().enumerate() {
            let first = fleet.sessions.len();
            fleet.sessions.extend((0..*sessions).map(|_| Session::new(index as u16, usize::from(rules.batch_max))));
            let range = first as u16..u16::try_from(fleet.sessions.len()).expect("a pool has at most 65,535 sessions");
            fleet.tokens.push(Token::new(name.clone(), range));
        }
        fleet
    }

    // --- What the queue asks ---

    /// Whether waiting for this token makes sense.
    pub(super) fn hopeful(&self, token: u16) -> bool {
        let token = &self.tokens[usize::from(token)];
        token.standing == Standing::In && !token.away
    }

    /// Sessions that sign, idle or busy.
    pub(super) fn signing_sessions(&self, token: u16) -> u16 {
        let token = &self.tokens[usize::from(token)];
        if token.signs() { token.count(State::Idle) + token.count(State::Busy) } else { 0 }
    }

    /// Whether some session of it could take a batch.
    pub(super) fn has_idle(&self, token: u16) -> bool {
        let token = &self.tokens[usize::from(token)];
        token.signs() && !token.idle.is_empty()
    }

    /// When the token is tried next, for those who are told to come back.
    pub(super) fn next_try_ns(&self, token: u16) -> Option<u64> {
        let token = &self.tokens[usize::from(token)];
        (token.standing == Standing::In).then_some(token.due_ns.unwrap_or(token.retry_ns))
    }

    // --- Batches ---

    /// Takes an idle session for a batch.
    pub(super) fn begin_batch(&mut self, token: u16) -> (SessionId, Generation) {
        let id = self.tokens[usize::from(token)].idle.pop().expect("has_idle was asked");
        self.set(id, State::Busy);
        (id, self.sessions[usize::from(id.0)].generation)
    }

    /// Notes a call of the batch.
    pub(super) fn add_call(&mut self, id: SessionId, call: CallId, slot: u32) {
        self.sessions[usize::from(id.0)].calls.push_back((call, slot));
    }

    /// Takes a returned call out of its batch: the job's slot and the token; none if nobody waits for it.
    pub(super) fn take_call(&mut self, id: SessionId, generation: Generation, call: CallId) -> Option<(u32, u16)> {
        let session = self.sessions.get_mut(usize::from(id.0)).filter(|session| session.generation == generation)?;
        let position = session.calls.iter().position(|&(running, _)| running == call)?;
        let (_, slot) = session.calls.remove(position)?;
        Some((slot, session.token))
    }

    /// A call returned that nobody waits for: if its session was given up, the last such call ends it.
    pub(super) fn late_return<P>(&mut self, id: SessionId, generation: Generation, out: &mut Vec<Action<P>>) {
        let Some(session) = self.sessions.get(usize::from(id.0)) else { return };
        let State::Stuck(owed) = session.state else { return };
        if session.generation != generation {
            return;
        }
        match owed.saturating_sub(1) {
            0 => self.close(id, out),
            owed => self.set(id, State::Stuck(owed)),
        }
    }

    /// The session has signed: it is sound.
    pub(super) fn signed(&mut self, id: SessionId) {
        self.sessions[usize::from(id.0)].losses = 0;
    }

    /// A call failed.
    pub(super) fn failed<P>(
        &mut self,
        now_ns: u64,
        id: SessionId,
        error: &Error,
        started_ns: u64,
        out: &mut Vec<Action<P>>,
    ) {
        let session = &mut self.sessions[usize::from(id.0)];
        let index = session.token;
        let token = &mut self.tokens[usize::from(index)];
        token.last_error = Some(error.clone());
        if error.verdict().rung == Rung::None || session.spoilt {
            return;
        }
        session.spoilt = true;
        if error.verdict().rung == Rung::Login && started_ns >= token.logged_in_ns {
            token.logged_in = false;
            self.tend(now_ns, index, out);
        }
        out.push(Action::Alarm(Alarm::SessionLost { token: index, error: error.clone() }));
    }

    /// Ends a batch when all of it is back: the session is free again, or closed if it is spoilt or not wanted.
    pub(super) fn end_batch<P>(&mut self, now_ns: u64, id: SessionId, out: &mut Vec<Action<P>>) {
        let session = &self.sessions[usize::from(id.0)];
        debug_assert_eq!(session.state, State::Busy);
        if !session.calls.is_empty() {
            return;
        }
        if session.spoilt { self.lose(now_ns, id, out) } else { self.release(now_ns, id, out) }
    }

    /// Gives up on the batches under way: the slots of their jobs.
    pub(super) fn abandon(&mut self) -> Vec<(u32, u16)> {
        let mut given_up = Vec::new();
        for index in 0..self.sessions.len() {
            let session = &mut self.sessions[index];
            if session.state == State::Busy {
                let owed = session.calls.len() as u16;
                given_up.extend(session.calls.drain(..).map(|(_, slot)| (slot, session.token)));
                self.set(SessionId(index as u16), State::Stuck(owed));
            }
        }
        given_up
    }

    // --- Opening, logging in, closing ---

    pub(super) fn opened<P>(
        &mut self,
        now_ns: u64,
        id: SessionId,
        generation: Generation,
        result: Result<(), Error>,
        out: &mut Vec<Action<P>>,
    ) -> bool {
        if !self.owes(id, generation, State::Opening) {
            return false;
        }
        let index = self.sessions[usize::from(id.0)].token;
        match result {
            Ok(()) => {
                let token = &mut self.tokens[usize::from(index)];
                if token.logged_in {
                    token.failures = 0;
                }
                self.release(now_ns, id, out);
            }
            Err(error) => {
                self.set(id, State::Closed);
                self.open_failed(now_ns, index, error, out);
            }
        }
        self.tend(now_ns, index, out);
        true
    }

    pub(super) fn logged_in<P>(
        &mut self,
        now_ns: u64,
        id: SessionId,
        generation: Generation,
        result: Result<(), Error>,
        out: &mut Vec<Action<P>>,
    ) -> bool {
        if !self.owes(id, generation, State::LoggingIn) {
            return false;
        }
        let index = self.sessions[usize::from(id.0)].token;
        let token = &mut self.tokens[usize::from(index)];
        match result {
            Ok(()) => {
                token.logged_in = true;
                token.logged_in_ns = now_ns;
                token.failures = 0;
                if std::mem::take(&mut token.away) && token.standing == Standing::In {
                    out.push(Action::Alarm(Alarm::TokenBack { token: index }));
                }
                self.release(now_ns, id, out);
            }
            Err(error) if token.logged_in => {
                token.last_error = Some(error.clone());
                let spoilt = error.verdict().rung != Rung::None;
                out.push(Action::Alarm(Alarm::RefreshFailed { token: index, error }));
                if spoilt { self.lose(now_ns, id, out) } else { self.release(now_ns, id, out) }
            }
            Err(error) => {
                self.close(id, out);
                self.token_failed(now_ns, index, error, out);
            }
        }
        self.tend(now_ns, index, out);
        true
    }

    pub(super) fn closed<P>(
        &mut self,
        now_ns: u64,
        id: SessionId,
        generation: Generation,
        out: &mut Vec<Action<P>>,
    ) -> bool {
        if !self.owes(id, generation, State::Closing) {
            return false;
        }
        self.set(id, State::Closed);
        self.tend(now_ns, self.sessions[usize::from(id.0)].token, out);
        true
    }

    pub(super) fn join<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        if token.standing == Standing::Out {
            token.standing = Standing::In;
            token.away = false;
            token.failures = 0;
            token.retry_ns = now_ns;
        }
        self.tend(now_ns, index, out);
    }

    pub(super) fn leave<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        self.tokens[usize::from(index)].standing = Standing::Out;
        self.tend(now_ns, index, out);
    }

    pub(super) fn refresh<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        match token.standing {
            Standing::Out => return,
            Standing::NeedsOperator => token.standing = Standing::In,
            Standing::In => {}
        }
        token.retry_ns = now_ns;
        // A login that is under way may have passed the new keys by.
        token.refresh = token.logged_in || token.count(State::LoggingIn) > 0;
        self.tend(now_ns, index, out);
    }

    /// Keeps the appointments that have come.
    pub(super) fn keep_appointments<P>(&mut self, now_ns: u64, out: &mut Vec<Action<P>>) {
        for index in 0..self.tokens.len() {
            if self.tokens[index].due_ns.is_some_and(|due_ns| due_ns <= now_ns) {
                self.tend(now_ns, index as u16, out);
            }
        }
    }

    /// The next appointment.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        self.tokens.iter().filter_map(|token| token.due_ns).min()
    }

    /// Does for a token whatever can be done now, and notes when there will be more.
    fn tend<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        token.due_ns = None;
        if token.standing != Standing::In {
            while let Some(id) = self.tokens[usize::from(index)].idle.pop() {
                self.close(id, out);
            }
            return;
        }
        if token.all_again_ns.is_some_and(|all_again_ns| all_again_ns <= now_ns) {
            token.all_again_ns = None;
            token.cap = token.sessions.len() as u16;
        }
        if token.retry_ns <= now_ns {
            if !token.logged_in {
                self.log_in_or_open(now_ns, index, out);
            } else {
                if token.refresh && token.count(State::LoggingIn) == 0 {
                    self.log_in(index, out);
                }
                self.open_missing(now_ns, index, out);
            }
        }
        let due_ns = self.next_appointment_ns(now_ns, index);
        self.tokens[usize::from(index)].due_ns = due_ns;
    }

    fn log_in_or_open<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        let token = &self.tokens[usize::from(index)];
        if token.count(State::LoggingIn) > 0 || self.log_in(index, out) {
            return;
        }
        // With a session busy, the login is done on it when its batch is back.
        if self.tokens[usize::from(index)].open() == 0 {
            self.open_missing(now_ns, index, out);
        }
    }

    fn log_in<P>(&mut self, index: u16, out: &mut Vec<Action<P>>) -> bool {
        let token = &mut self.tokens[usize::from(index)];
        let Some(id) = token.idle.pop() else { return false };
        token.refresh = false;
        self.set(id, State::LoggingIn);
        out.push(Action::Login { session: id, generation: self.sessions[usize::from(id.0)].generation });
        true
    }

    fn open_missing<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        let token = &self.tokens[usize::from(index)];
        // One at a time while it is not known whether the token gives any.
        let at_once = if token.logged_in && token.failures == 0 { u16::MAX } else { 1 };
        for place in token.sessions.clone() {
            let token = &self.tokens[usize::from(index)];
            let taken = token.sessions.len() as u16 - token.count(State::Closed);
            if taken >= token.cap || token.count(State::Opening) >= at_once {
                return;
            }
            let session = &mut self.sessions[usize::from(place)];
            if session.state == State::Closed && session.reopen_ns <= now_ns {
                session.generation = Generation(session.generation.0 + 1);
                session.spoilt = false;
                let generation = session.generation;
                self.set(SessionId(place), State::Opening);
                out.push(Action::Open { session: SessionId(place), generation });
            }
        }
    }

    /// When there will be something to tend that no event announces.
    fn next_appointment_ns(&self, now_ns: u64, index: u16) -> Option<u64> {
        let token = &self.tokens[usize::from(index)];
        let taken = token.sessions.len() as u16 - token.count(State::Closed);
        let sessions = &self.sessions[usize::from(token.sessions.start)..usize::from(token.sessions.end)];
        let reopen_ns =
            (taken < token.cap).then(|| sessions.iter().filter(|session| session.state == State::Closed)).and_then(
                |closed| closed.map(|session| session.reopen_ns.max(token.retry_ns)).filter(|&at| at > now_ns).min(),
            );
        let log_in = !token.logged_in && !token.idle.is_empty() || token.refresh;
        let log_in_ns = (log_in && token.retry_ns > now_ns).then_some(token.retry_ns);
        [reopen_ns, log_in_ns, token.all_again_ns].into_iter().flatten().min()
    }

    /// A session could not be opened.
    fn open_failed<P>(&mut self, now_ns: u64, index: u16, error: Error, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        let taken = token.sessions.len() as u16 - token.count(State::Closed);
        if error.kind() == Kind::SessionCount && taken > 0 {
            token.last_error = Some(error);
            token.cap = token.cap.min(taken);
            // Told once it is known how many there are, and not again each time more were asked for in vain.
            if token.count(State::Opening) == 0 && token.cap != token.cap_told {
                token.cap_told = token.cap;
                out.push(Action::Alarm(Alarm::FewerSessions { token: index, sessions: taken }));
            }
            let pause_ns = self.session_count_retry_ns;
            token.all_again_ns = Some(now_ns.saturating_add(pause_ns));
        } else {
            self.token_failed(now_ns, index, error, out);
        }
    }

    /// An open or a login failed: a pause for the whole token, and no hope while no session of it signs.
    fn token_failed<P>(&mut self, now_ns: u64, index: u16, error: Error, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        token.last_error = Some(error.clone());
        if error.verdict().rung == Rung::Operator {
            if token.standing == Standing::In {
                token.standing = Standing::NeedsOperator;
                out.push(Action::Alarm(Alarm::NeedsOperator { token: index, error }));
            }
            return;
        }
        // Several opens that were under way at once fail together: that is one failure.
        if token.retry_ns <= now_ns {
            token.failures += 1;
            let pause_ns = self.dice.pause_ns(token.failures, self.backoff_ns.start, self.backoff_ns.end);
            token.retry_ns = now_ns.saturating_add(pause_ns);
        }
        self.away_unless_signing(index, error, out);
    }

    /// Declares a token away when no session of it signs.
    fn away_unless_signing<P>(&mut self, index: u16, error: Error, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        let signs = token.signs() && token.count(State::Idle) + token.count(State::Busy) > 0;
        if token.standing == Standing::In && !signs && !std::mem::replace(&mut token.away, true) {
            out.push(Action::Alarm(Alarm::TokenAway { token: index, error }));
        }
    }

    /// Closes a spoilt session; it is opened again at once the first time, after a pause from then on.
    fn lose<P>(&mut self, now_ns: u64, id: SessionId, out: &mut Vec<Action<P>>) {
        let session = &mut self.sessions[usize::from(id.0)];
        session.losses += 1;
        let losses = session.losses;
        let index = session.token;
        session.reopen_ns = now_ns;
        if losses > 1 {
            let pause_ns = self.dice.pause_ns(losses - 1, self.backoff_ns.start, self.backoff_ns.end);
            session.reopen_ns = now_ns.saturating_add(pause_ns);
        }
        self.tokens[usize::from(index)].sessions_lost += 1;
        self.close(id, out);
        // What waits for a first replacement, waits shortly. A token that spoils one session after the other is away.
        let token = &self.tokens[usize::from(index)];
        if losses > 1 && token.count(State::Opening) + token.count(State::LoggingIn) == 0 {
            let error = token.last_error.clone().expect("a session is spoilt by an error");
            self.away_unless_signing(index, error, out);
        }
        self.tend(now_ns, index, out);
    }

    /// A sound session has nothing to do.
    fn release<P>(&mut self, now_ns: u64, id: SessionId, out: &mut Vec<Action<P>>) {
        self.set(id, State::Idle);
        let index = self.sessions[usize::from(id.0)].token;
        let token = &mut self.tokens[usize::from(index)];
        token.idle.push(id);
        if token.refresh || !token.signs() {
            self.tend(now_ns, index, out);
        }
    }

    fn close<P>(&mut self, id: SessionId, out: &mut Vec<Action<P>>) {
        self.set(id, State::Closing);
        let session = &self.sessions[usize::from(id.0)];
        out.push(Action::Close { session: id, generation: session.generation });
        let token = &mut self.tokens[usize::from(session.token)];
        // The last session's closing logs the application out (PKCS#11 3.0 §5.6.9).
        if token.open() == 0 {
            token.logged_in = false;
        }
    }

    /// Whether this is the answer the session of that place owes.
    fn owes(&self, id: SessionId, generation: Generation, state: State) -> bool {
        let session = self.sessions.get(usize::from(id.0));
        session.is_some_and(|session| session.generation == generation && session.state == state)
    }

    fn set(&mut self, id: SessionId, state: State) {
        let session = &mut self.sessions[usize::from(id.0)];
        let token = &mut self.tokens[usize::from(session.token)];
        token.count[session.state.index()] -= 1;
        token.count[state.index()] += 1;
        session.state = state;
    }

    // --- What is told ---

    pub(super) fn snapshot(&self) -> Vec<TokenSnapshot> {
        let tokens = self.tokens.iter();
        tokens
            .map(|token| TokenSnapshot {
                name: token.name.clone(),
                state: token.state(),
                sessions_open: token.open(),
                sessions_busy: token.count(State::Busy),
                sessions_cap: token.cap,
                last_error: token.last_error.clone(),
                service_ewma_ns: token.service.ns(),
                calls: token.calls,
                errors: token.errors,
                sessions_lost: token.sessions_lost,
            })
            .collect()
    }

    /// Sessions that are not closed.
    pub(super) fn sessions_out(&self) -> usize {
        self.sessions.iter().filter(|session| session.state != State::Closed).count()
    }
}

impl Token {
    fn new(name: Arc<str>, sessions: Range<u16>) -> Self {
        let mut count = [0; STATES];
        count[State::Closed.index()] = sessions.len() as u16;
        Token {
            name,
            cap: sessions.len() as u16,
            all_again_ns: None,
            cap_told: sessions.len() as u16,
            standing: Standing::Out,
            logged_in: false,
            logged_in_ns: 0,
            refresh: false,
            away: false,
            failures: 0,
            retry_ns: 0,
            due_ns: None,
            count,
            idle: Vec::with_capacity(sessions.len()),
            last_error: None,
            service: Ewma::default(),
            calls: 0,
            errors: 0,
            sessions_lost: 0,
            sessions,
        }
    }
}

impl Session {
    fn new(token: u16, batch_max: usize) -> Self {
        Session {
            token,
            generation: Generation(0),
            state: State::Closed,
            calls: VecDeque::with_capacity(batch_max),
            spoilt: false,
            losses: 0,
            reopen_ns: 0,
        }
    }
}
