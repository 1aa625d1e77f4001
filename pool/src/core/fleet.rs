//! The tokens and their sessions: which are open, which sign, which are to be opened again, and when.
//!
//! A token's first session logs in for all; until then the others are not even opened, so a token that is away is
//! asked by one session, not by all of them. Further ones are opened as work waits that no idle session takes. A
//! session that an error has spoilt is closed on its own thread, then opened again in the next generation of its
//! place: at once after a first error, after a pause from the second on, until it signs again. An error that speaks
//! against the whole token costs all its sessions, since their key handles are void with it. A token that stays out of
//! reach gets its module initialised anew, where that hurts nobody ([`module`]). Who was away comes back on probation
//! ([`probation`]), and a call that does not return is waited for only so long ([`stuck`]).

mod batch;
mod care;
mod failure;
mod module;
mod open;
mod probation;
mod state;
mod stuck;

use std::ops::Range;

use self::{
    module::Module,
    state::{Session, Standing, State, Token},
    stuck::{Late, Stray},
};
use super::{
    TokenSpec,
    dice::Dice,
    event::{Generation, SessionId},
};
use crate::{Rules, TokenSet, TokenSnapshot};

pub use self::module::Obstacle;
pub(super) use self::{batch::Taken, stuck::GivenUp};

/// All tokens and sessions.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) tokens: Vec<Token>,
    sessions: Vec<Session>,
    modules: Vec<Module>,
    /// Threads that were given up and have not come back
    strays: Vec<Stray>,
    /// Calls that were given up and have not come back
    late: Vec<Late>,
    /// No call is stuck before
    stuck_check_ns: u64,
    stuck_threads_max: u16,
    module_after: u32,
    batch_max: usize,
    dice: Dice,
    backoff_ns: Range<u64>,
    module_backoff_ns: Range<u64>,
    session_count_retry_ns: u64,
}

impl Fleet {
    pub(super) fn new(tokens: &[TokenSpec], rules: &Rules) -> Self {
        assert!(tokens.len() <= TokenSet::TOKENS_MAX, "a pool has at most {} tokens", TokenSet::TOKENS_MAX);
        let mut fleet = Fleet {
            tokens: Vec::with_capacity(tokens.len()),
            sessions: Vec::new(),
            modules: Vec::new(),
            strays: Vec::new(),
            late: Vec::new(),
            stuck_check_ns: u64::MAX,
            stuck_threads_max: rules.stuck_threads_max,
            module_after: rules.module_after.max(1),
            batch_max: usize::from(rules.batch_max),
            dice: Dice::new(rules.seed),
            backoff_ns: rules.backoff_min_ns..rules.backoff_max_ns,
            module_backoff_ns: rules.module_backoff_min_ns..rules.module_backoff_max_ns,
            session_count_retry_ns: rules.session_count_retry_ns,
        };
        for (index, spec) in tokens.iter().enumerate() {
            let first = fleet.sessions.len();
            fleet.sessions.extend((0..spec.sessions).map(|_| Session::new(index as u16, fleet.batch_max)));
            let range = first as u16..u16::try_from(fleet.sessions.len()).expect("a pool has at most 65,535 sessions");
            let module = fleet.modules.iter().position(|module| module.id == spec.module).unwrap_or_else(|| {
                fleet.modules.push(Module::new(spec.module));
                fleet.modules.len() - 1
            });
            fleet.modules[module].tokens = fleet.modules[module].tokens.union(TokenSet::only(index as u16));
            fleet.tokens.push(Token::new(spec, module, range));
        }
        fleet
    }

    // --- What the queue asks ---

    /// Whether waiting for this token makes sense; for a probe also when it is on probation after it was away.
    pub(super) fn hopeful(&self, token: u16, probe: bool) -> bool {
        let token = &self.tokens[usize::from(token)];
        token.standing == Standing::In && (!token.away || probe && token.is_on_probation())
    }

    /// Sessions that serve everybody, idle or busy.
    pub(super) fn signing_sessions(&self, token: u16) -> u16 {
        let token = &self.tokens[usize::from(token)];
        if token.serves() { token.open() - token.count(State::LoggingIn) } else { 0 }
    }

    /// The same, with those that can be opened at any time: what waits is shared among these, or else the first session
    /// would take so much that no other is ever opened.
    pub(super) fn possible_sessions(&self, token: u16) -> u16 {
        let signing = self.signing_sessions(token);
        let token = &self.tokens[usize::from(token)];
        if token.serves() { signing + token.count(State::Opening) + token.room() } else { 0 }
    }

    /// Whether some session of it could take a batch; of probes only, if it is on probation.
    pub(super) fn has_idle(&self, token: u16) -> bool {
        let token = &self.tokens[usize::from(token)];
        token.signs() && !token.idle.is_empty()
    }

    /// Whether only probes may go to it.
    pub(super) fn is_on_probation(&self, token: u16) -> bool {
        self.tokens[usize::from(token)].is_on_probation()
    }

    /// When the token is tried next, for those who are told to come back.
    pub(super) fn next_try_ns(&self, token: u16) -> Option<u64> {
        let token = &self.tokens[usize::from(token)];
        (token.standing == Standing::In).then_some(token.due_ns.unwrap_or(token.retry_ns))
    }

    // --- Appointments ---

    /// The next appointment.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        let due_ns = self.tokens.iter().filter_map(|token| token.due_ns).min();
        [due_ns, self.next_stuck_ns()].into_iter().flatten().min()
    }

    /// When a call may have to be given up.
    pub(super) fn next_stuck_ns(&self) -> Option<u64> {
        (self.stuck_check_ns < u64::MAX).then_some(self.stuck_check_ns)
    }

    // --- What is told ---

    pub(super) fn snapshot(&self) -> Vec<TokenSnapshot> {
        let tokens = self.tokens.iter();
        tokens
            .map(|token| TokenSnapshot {
                name: token.name.clone(),
                state: token.state(self.modules[token.module].is_wedged()),
                sessions_open: token.open(),
                sessions_busy: token.count(State::Busy),
                sessions_cap: token.cap,
                last_error: token.last_error.clone(),
                last_error_ns: token.last_error_ns,
                service_ewma_ns: token.service.ns(),
                times: token.times.clone(),
                calls: token.calls,
                errors: token.errors,
                sessions_lost: token.rungs.session_replaced,
                threads_stuck: token.strays + token.count(State::Stuck),
                rungs: token.rungs,
            })
            .collect()
    }

    /// Sessions that are not closed, those given up not counted.
    pub(super) fn sessions_out(&self) -> usize {
        let out = |session: &&Session| !matches!(session.state, State::Closed | State::Stuck);
        self.sessions.iter().filter(out).count()
    }

    /// Threads that were given up and have not come back.
    pub(super) fn threads_stuck(&self) -> usize {
        self.strays.len() + self.sessions.iter().filter(|session| session.state == State::Stuck).count()
    }

    // --- Sessions ---

    fn session(&mut self, id: SessionId) -> &mut Session {
        &mut self.sessions[usize::from(id.0)]
    }

    fn token_of(&mut self, id: SessionId) -> &mut Token {
        let token = self.session(id).token;
        &mut self.tokens[usize::from(token)]
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

    /// The session is asked for something now, and is not waited for for ever.
    fn ask(&mut self, now_ns: u64, id: SessionId, state: State) -> Generation {
        self.set(id, state);
        self.watch(now_ns, id)
    }

    /// The call the session is in can have begun now.
    fn watch(&mut self, now_ns: u64, id: SessionId) -> Generation {
        let session = &mut self.sessions[usize::from(id.0)];
        session.since_ns = now_ns;
        let stuck_after_ns = self.tokens[usize::from(session.token)].stuck_after_ns;
        self.stuck_check_ns = self.stuck_check_ns.min(now_ns.saturating_add(stuck_after_ns));
        session.generation
    }
}
