//! The rung above the token: C_Finalize and C_Initialize, which are module-wide.
//!
//! A token climbs it after it was rebuilt, or reached for in vain, several times in a row. Its module is initialised
//! anew only where that hurts nobody: no other token of it signs, all its sessions are closed, and no call is stuck
//! inside it. Until all are closed none is opened. A token that only seems to sign, since nobody has used it for long, is
//! asked. Afterwards slots, sessions and handles are others than before, for all of its tokens: each of them logs in,
//! looks its keys up and is on probation, also one that was not away.

use segl_hsm::{Error, ModuleId, Rung};

use super::{Fleet, Standing, State, stuck::Stray};
use crate::{
    TokenSet,
    core::event::{Action, Alarm, Generation, SessionId},
};

#[derive(Debug)]
pub(super) struct Module {
    pub(super) id: ModuleId,
    pub(super) tokens: TokenSet,
    phase: Phase,
    /// How often in a row it was initialised anew without a token having come back
    tries: u32,
    /// Not again before
    retry_ns: u64,
    /// It should have been initialised anew, and a stuck call did not let it; said once
    wedged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Calm,
    /// Its sessions are being closed
    Clearing,
    /// It is being initialised anew
    Running,
    /// It was, by a call that has been given up: nobody knows what the module is now
    Hung,
}

/// What stands in the way of a module's being begun anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The token was taken out, or waits for its operator: it has no thread that would do it
    NotInUse,
    /// Other tokens of the module sign, and would all have to begin anew with it
    OthersSign(TokenSet),
    /// A call is stuck inside the module: unless it returns, only a restart of the process helps
    Stuck,
    /// It is being done already
    UnderWay,
}

impl Module {
    pub(super) fn new(id: ModuleId) -> Self {
        Module { id, tokens: TokenSet::EMPTY, phase: Phase::Calm, tries: 0, retry_ns: 0, wedged: false }
    }

    /// Whether sessions may be opened.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Calm
    }

    pub(super) fn is_wedged(&self) -> bool {
        self.wedged
    }
}

impl Fleet {
    /// A token was rebuilt or reached for in vain.
    pub(super) fn token_rung_failed<P>(&mut self, now_ns: u64, index: u16, rung: Rung, out: &mut Vec<Action<P>>) {
        if !matches!(rung, Rung::Token | Rung::Module) {
            return;
        }
        let token = &mut self.tokens[usize::from(index)];
        token.rung_failed = token.rung_failed.saturating_add(1);
        let (place, count) = (token.module, token.rung_failed);
        let module = &self.modules[place];
        if count < self.module_after || module.phase != Phase::Calm || module.retry_ns > now_ns {
            return;
        }
        let healthy: TokenSet =
            module.tokens.iter().filter(|&other| other != index && self.is_healthy(other)).collect();
        if !healthy.is_empty() {
            // Whoever is in a call will hear how the module is; the others are asked, and count as what they are by the
            // next time that this one fails.
            for other in healthy.iter() {
                let token = &self.tokens[usize::from(other)];
                if token.open() == token.count(State::Idle) {
                    self.remind(now_ns, other, 0, out);
                }
            }
            return;
        }
        if self.is_somebody_stuck_in(place) {
            return self.wedge(place, out);
        }
        self.clear(now_ns, place, out);
    }

    /// Why an operator's word does not begin the token's module anew.
    pub(in crate::core) fn obstacle(&self, index: u16) -> Option<Obstacle> {
        let token = &self.tokens[usize::from(index)];
        let module = &self.modules[token.module];
        let others = || module.tokens.without(TokenSet::only(index)).iter().filter(|&other| self.is_healthy(other));
        match module.phase {
            _ if token.standing != Standing::In || token.sessions.is_empty() => Some(Obstacle::NotInUse),
            _ if self.is_somebody_stuck_in(token.module) => Some(Obstacle::Stuck),
            Phase::Calm => others().next().map(|_| Obstacle::OthersSign(others().collect())),
            Phase::Clearing | Phase::Running | Phase::Hung => Some(Obstacle::UnderWay),
        }
    }

    /// An operator wants the token's module begun anew, whatever speaks for it.
    pub(in crate::core) fn reinitialise<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        if self.obstacle(index).is_none() {
            let place = self.tokens[usize::from(index)].module;
            self.clear(now_ns, place, out);
            self.tend(now_ns, index, out);
        }
    }

    fn clear<P>(&mut self, now_ns: u64, place: usize, out: &mut Vec<Action<P>>) {
        self.modules[place].phase = Phase::Clearing;
        for token in self.modules[place].tokens.iter() {
            self.give_up_generation(now_ns, token, out);
        }
    }

    /// Initialises a module anew once its last session is closed.
    pub(super) fn advance_module<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        let place = self.tokens[usize::from(index)].module;
        let module = &self.modules[place];
        if module.phase != Phase::Clearing {
            return;
        }
        let tokens = module.tokens;
        if self.is_somebody_stuck_in(place) {
            self.wedge(place, out);
            return self.reopen(now_ns, place, out);
        }
        if tokens.iter().any(|token| self.tokens[usize::from(token)].taken() > 0) {
            return;
        }
        let with_places = |&token: &u16| {
            let token = &self.tokens[usize::from(token)];
            token.standing == Standing::In && !token.sessions.is_empty()
        };
        // Who asked for it may have been taken out meanwhile, and all the others too.
        let Some(token) = tokens.iter().find(with_places) else { return self.reopen(now_ns, place, out) };
        self.modules[place].phase = Phase::Running;
        for token in tokens.iter() {
            self.tokens[usize::from(token)].vouched = false;
        }
        let session = SessionId(self.tokens[usize::from(token)].sessions.start);
        let generation = self.begin_generation(now_ns, session, State::Reinitialising);
        out.push(Action::Reinitialise { module: self.modules[place].id, session, generation });
    }

    pub(in crate::core) fn reinitialised<P>(
        &mut self,
        now_ns: u64,
        id: SessionId,
        generation: Generation,
        result: Result<(), Error>,
        out: &mut Vec<Action<P>>,
    ) -> bool {
        if !self.awaits(now_ns, (id, generation), State::Reinitialising, false, out) {
            return false;
        }
        self.set(id, State::Closed);
        let place = self.token_of(id).module;
        let module = &mut self.modules[place];
        module.tries += 1;
        let pause_ns = self.dice.pause_ns(module.tries, self.module_backoff_ns.start, self.module_backoff_ns.end);
        module.retry_ns = now_ns.saturating_add(pause_ns);
        let id = module.id;
        // Its tokens are not held back for so long: one may be back without that.
        let knock_ns = self.dice.pause_ns(module.tries, self.backoff_ns.start, self.backoff_ns.end);
        let retry_ns = now_ns.saturating_add(knock_ns);
        for token in module.tokens.iter() {
            let token = &mut self.tokens[usize::from(token)];
            if result.is_ok() {
                token.rungs.module_reinitialised += 1;
                token.rung_failed = 0;
            }
            token.retry_ns = if result.is_ok() { now_ns } else { retry_ns };
        }
        out.push(Action::Alarm(match result {
            Ok(()) => Alarm::ModuleReinitialised { module: id },
            Err(error) => Alarm::ReinitialiseFailed { module: id, error },
        }));
        self.reopen(now_ns, place, out);
        true
    }

    /// The call that was to initialise the module anew was given up.
    pub(super) fn module_hung<P>(&mut self, place: usize, out: &mut Vec<Action<P>>) {
        self.modules[place].phase = Phase::Hung;
        self.wedge(place, out);
    }

    /// A stuck call came back.
    pub(super) fn module_freed<P>(&mut self, now_ns: u64, place: usize, out: &mut Vec<Action<P>>) {
        if self.is_somebody_stuck_in(place) {
            return;
        }
        let module = &mut self.modules[place];
        module.wedged = false;
        if module.phase == Phase::Hung {
            self.reopen(now_ns, place, out);
        }
    }

    /// A token of it works again.
    pub(super) fn module_works(&mut self, place: usize) {
        self.modules[place].tries = 0;
    }

    /// Sessions may be opened again.
    fn reopen<P>(&mut self, now_ns: u64, place: usize, out: &mut Vec<Action<P>>) {
        self.modules[place].phase = Phase::Calm;
        for token in self.modules[place].tokens.iter() {
            self.tend(now_ns, token, out);
        }
    }

    fn wedge<P>(&mut self, place: usize, out: &mut Vec<Action<P>>) {
        let module = &mut self.modules[place];
        if !std::mem::replace(&mut module.wedged, true) {
            out.push(Action::Alarm(Alarm::ModuleWedged { module: module.id }));
        }
    }

    fn is_somebody_stuck_in(&self, place: usize) -> bool {
        let tokens = self.modules[place].tokens;
        let stray = |stray: &Stray| tokens.contains(stray.token);
        self.strays.iter().any(stray)
            || tokens.iter().any(|token| self.tokens[usize::from(token)].count(State::Stuck) > 0)
    }

    fn is_healthy(&self, token: u16) -> bool {
        let token = &self.tokens[usize::from(token)];
        token.serves() && !token.away && token.open() > 0
    }
}
