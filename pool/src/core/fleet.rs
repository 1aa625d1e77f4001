//! The tokens and their sessions: which are open, which sign, which are to be opened again, and when.
//!
//! A token's first session logs in for all; until then the others are not even opened, so a token that is away is
//! asked by one session, not by all of them. A session that an error has spoilt is closed on its own thread, then
//! opened again in the next generation of its place: at once after a first error, after a pause from the second on,
//! until it signs again. An error that speaks against the whole token costs all its sessions, since their key handles
//! are void with it. What happens to modules is not decided here yet.

mod care;

use std::{collections::VecDeque, ops::Range, sync::Arc};

use segl_hsm::Error;

use super::{
    TokenSpec,
    costs::Ewma,
    dice::Dice,
    event::{Action, CallId, Generation, SessionId},
};
use crate::{Rules, RungCounters, TokenSet, TokenSnapshot, TokenState};

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
    /// How often in a row all sessions were given up without one having signed in between
    rebuilds: u32,
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
    /// An error has spoilt it; it is closed when it has nothing more to answer
    spoilt: Option<Spoilt>,
    /// How often in a row it was lost by its own fault without having signed in between
    losses: u32,
    /// Not opened before
    reopen_ns: u64,
}

/// Why a session is not to be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoilt {
    /// An error that speaks against this session
    Faulty,
    /// An error of a request, or one that costs all sessions of the token: nothing against this place
    Blameless,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Opening,
    LoggingIn,
    Idle,
    Busy,
    Closing,
    /// Its batch was given up; closed when that is back after all
    Stuck,
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
            State::Stuck => 6,
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
    pub(super) fn new(tokens: &[TokenSpec], rules: &Rules) -> Self {
        assert!(tokens.len() <= TokenSet::TOKENS_MAX, "a pool has at most {} tokens", TokenSet::TOKENS_MAX);
        let mut fleet = Fleet {
            tokens: Vec::with_capacity(tokens.len()),
            sessions: Vec::new(),
            dice: Dice::new(rules.seed),
            backoff_ns: rules.backoff_min_ns..rules.backoff_max_ns,
            session_count_retry_ns: rules.session_count_retry_ns,
        };
        for (index, TokenSpec { name, sessions, .. }) in tokens.iter().enumerate() {
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

    /// Whose call a running job is.
    pub(super) fn call_of(&self, slot: u32) -> Option<(SessionId, Generation, CallId)> {
        let busy = self.sessions.iter().enumerate().filter(|(_, session)| session.state == State::Busy);
        busy.flat_map(|(index, session)| session.calls.iter().map(move |call| (index, session, call)))
            .find(|&(_, _, &(_, running))| running == slot)
            .map(|(index, session, &(call, _))| (SessionId(index as u16), session.generation, call))
    }

    /// Takes a returned call out of its batch: the job's slot and the token; none if nobody waits for it.
    pub(super) fn take_call(&mut self, id: SessionId, generation: Generation, call: CallId) -> Option<(u32, u16)> {
        let (slot, session) = self.take_out(id, generation, call, State::Busy)?;
        Some((slot, self.sessions[session].token))
    }

    /// A call returned that nobody waits for: if its session was given up, the last such call ends it.
    pub(super) fn late_return<P>(
        &mut self,
        id: SessionId,
        generation: Generation,
        call: CallId,
        out: &mut Vec<Action<P>>,
    ) {
        let Some((_, session)) = self.take_out(id, generation, call, State::Stuck) else { return };
        if self.sessions[session].calls.is_empty() {
            self.close(id, out);
        }
    }

    fn take_out(&mut self, id: SessionId, generation: Generation, call: CallId, state: State) -> Option<(u32, usize)> {
        let index = usize::from(id.0);
        let session = self.sessions.get_mut(index)?;
        if session.generation != generation || session.state != state {
            return None;
        }
        let position = session.calls.iter().position(|&(running, _)| running == call)?;
        session.calls.remove(position).map(|(_, slot)| (slot, index))
    }

    /// The session has signed: it is sound.
    pub(super) fn signed(&mut self, id: SessionId) {
        let session = &mut self.sessions[usize::from(id.0)];
        session.losses = 0;
        // One of a generation that was given up says nothing for the next.
        if session.spoilt.is_none() {
            self.tokens[usize::from(session.token)].rebuilds = 0;
        }
    }

    /// Ends a batch when all of it is back: the session is free again, or closed if it is spoilt or not wanted.
    pub(super) fn end_batch<P>(&mut self, now_ns: u64, id: SessionId, out: &mut Vec<Action<P>>) {
        let session = &self.sessions[usize::from(id.0)];
        debug_assert_eq!(session.state, State::Busy);
        if session.calls.is_empty() {
            self.release(now_ns, id, out);
        }
    }

    /// Gives up on the batches under way: the slots of their jobs.
    pub(super) fn abandon(&mut self) -> Vec<(u32, SessionId, u16)> {
        let mut given_up = Vec::new();
        for index in 0..self.sessions.len() {
            let session = &mut self.sessions[index];
            if session.state == State::Busy {
                let token = usize::from(session.token);
                let id = SessionId(index as u16);
                given_up.extend(session.calls.iter().map(|&(_, slot)| (slot, id, session.token)));
                self.set(SessionId(index as u16), State::Stuck);
                // As with the last session's closing: nobody is left to vouch for the login.
                self.tokens[token].logged_in &= self.tokens[token].open() > 0;
            }
        }
        given_up
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
                threads_stuck: token.count(State::Stuck),
                rungs: RungCounters { session_replaced: token.sessions_lost, ..RungCounters::default() },
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
            rebuilds: 0,
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
            spoilt: None,
            losses: 0,
            reopen_ns: 0,
        }
    }
}
