//! The module: its state under one lock, and the frame that every call of it runs in.

use std::{
    path::Path,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use cryptoki_sys::*;

use crate::{
    Call, Configuration, Counts, Revives, TokenCounts,
    faults::{Faults, Spoilt, Target},
    sessions::Sessions,
    token::Token,
};

/// A module, loaded.
#[derive(Debug)]
pub(crate) struct Module {
    state: Mutex<State>,
    /// A count has changed
    pub(crate) counted: Condvar,
    /// A place to sign may be free
    pub(crate) freed: Condvar,
    /// Calls that hang may go on
    pub(crate) let_go: Condvar,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) initialised: bool,
    pub(crate) tokens: Vec<Token>,
    pub(crate) sessions: Sessions,
    pub(crate) faults: Faults,
    /// How often hanging calls were let go
    pub(crate) releases: u64,
    pub(crate) counts: Counts,
}

/// What a call concerns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whom {
    Module,
    Slot(CK_SLOT_ID),
    Session(CK_SESSION_HANDLE),
    /// An object, in a session
    Object(CK_SESSION_HANDLE, CK_OBJECT_HANDLE),
    /// A key, by its place on the token at this place
    Key(usize, usize),
}

/// A call inside the module.
pub(crate) struct Inside<'a> {
    module: &'a Module,
    call: Call,
}

impl Module {
    /// Reads the configuration and makes the module of it.
    pub(crate) fn load(path: &Path) -> Result<Module, String> {
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let configuration: Configuration =
            serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let tokens = configuration.tokens.iter().map(Token::new).collect::<Result<Vec<_>, _>>()?;
        let mut counts = Counts::new();
        for token in &tokens {
            let keys = token.keys.all().iter().map(|key| (key.label.clone(), Default::default())).collect();
            counts.tokens.insert(token.serial.clone(), TokenCounts { keys, ..TokenCounts::default() });
        }
        let state = State {
            initialised: false,
            tokens,
            sessions: Sessions::default(),
            faults: Faults::default(),
            releases: 0,
            counts,
        };
        let module =
            Module { state: Mutex::new(state), counted: Condvar::new(), freed: Condvar::new(), let_go: Condvar::new() };
        for command in configuration.commands {
            module.carry_out(command);
        }
        Ok(module)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The frame of a call: counted, spoilt by the faults that fit it, and done under the lock.
    pub(crate) fn call<T>(
        &self,
        call: Call,
        whom: Whom,
        body: impl FnOnce(&mut State) -> Result<T, CK_RV>,
    ) -> Result<T, CK_RV> {
        let _inside = self.enter(call)?;
        let spoilt = self.misbehave(call, whom);
        if let Some(code) = spoilt.answer {
            return Err(code);
        }
        let done = body(&mut self.state());
        spoilt.answer_after.map_or(done, Err)
    }

    pub(crate) fn enter(&self, call: Call) -> Result<Inside<'_>, CK_RV> {
        let mut state = self.state();
        *state.counts.calls.entry(call).or_default() += 1;
        if !state.initialised && call != Call::Initialize {
            if !matches!(call, Call::GetInfo | Call::Finalize) {
                state.counts.violations.not_initialised += 1;
            }
            return Err(CKR_CRYPTOKI_NOT_INITIALIZED);
        }
        if call == Call::Finalize && state.counts.inside.values().any(|inside| *inside > 0) {
            state.counts.violations.finalised_with_calls_inside += 1;
        }
        *state.counts.inside.entry(call).or_default() += 1;
        drop(state);
        self.counted.notify_all();
        Ok(Inside { module: self, call })
    }

    /// Asks the faults about a call, and hangs if they say so.
    pub(crate) fn misbehave(&self, call: Call, whom: Whom) -> Spoilt {
        let mut state = self.state();
        let spoilt = state.judge(call, whom);
        if let Some(for_ms) = spoilt.hang_ms {
            let until = for_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
            let releases = state.releases;
            state.counts.hanging += 1;
            self.counted.notify_all();
            while state.releases == releases {
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                state = match left {
                    Some(Duration::ZERO) => break,
                    Some(left) => self.let_go.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                    None => self.let_go.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
            }
            state.counts.hanging -= 1;
            drop(state);
            self.counted.notify_all();
        }
        spoilt
    }

    pub(crate) fn initialise(&self) -> Result<(), CK_RV> {
        self.call(Call::Initialize, Whom::Module, |state| {
            if state.initialised {
                state.counts.violations.second_initialise += 1;
                return Err(CKR_CRYPTOKI_ALREADY_INITIALIZED);
            }
            state.initialised = true;
            state.counts.initialised += 1;
            state.sessions.restart();
            for token in &mut state.tokens {
                if let Some(slot) = token.arriving.take() {
                    (token.slot, token.present) = (slot, true);
                }
            }
            Ok(())
        })
    }

    pub(crate) fn finalise(&self) -> Result<(), CK_RV> {
        self.call(Call::Finalize, Whom::Module, |state| {
            state.initialised = false;
            state.counts.finalised += 1;
            for place in 0..state.tokens.len() {
                state.end_sessions(place);
                let dead = &mut state.tokens[place].dead;
                *dead = dead.filter(|dead| dead.until != Revives::Finalise);
            }
            Ok(())
        })
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.module.state();
        *state.counts.inside.entry(self.call).or_default() -= 1;
        drop(state);
        self.module.counted.notify_all();
    }
}

impl State {
    fn judge(&mut self, call: Call, whom: Whom) -> Spoilt {
        let (token, key) = match whom {
            Whom::Module => (None, None),
            Whom::Slot(slot) => (self.tokens.iter().position(|token| token.slot == slot), None),
            Whom::Session(session) => (self.sessions.token_of(session), None),
            Whom::Object(session, object) => {
                let token = self.sessions.token_of(session);
                (token, token.and_then(|token| self.tokens[token].handles.key(object)))
            }
            Whom::Key(token, key) => (Some(token), Some(key)),
        };
        let token = token.map(|place| &self.tokens[place]);
        let target = Target {
            call,
            token: token.map(|token| token.serial.as_str()),
            key: token.zip(key).map(|(token, key)| token.keys.key(key).label.as_str()),
        };
        self.faults.judge(target)
    }

    /// The token in a slot, present or not.
    pub(crate) fn token_in(&self, slot: CK_SLOT_ID) -> Result<usize, CK_RV> {
        self.tokens.iter().position(|token| token.slot == slot).ok_or(CKR_SLOT_ID_INVALID)
    }

    /// The token in a slot, which must be present.
    pub(crate) fn token_present(&self, slot: CK_SLOT_ID) -> Result<usize, CK_RV> {
        let place = self.token_in(slot)?;
        if self.tokens[place].present { Ok(place) } else { Err(CKR_TOKEN_NOT_PRESENT) }
    }

    /// The slots, all or those with a token.
    pub(crate) fn slots(&self, with_token: bool) -> Vec<CK_SLOT_ID> {
        self.tokens.iter().filter(|token| token.present || !with_token).map(|token| token.slot).collect()
    }

    pub(crate) fn count_of(&mut self, token: usize) -> &mut TokenCounts {
        let serial = &self.tokens[token].serial;
        self.counts.tokens.get_mut(serial).expect("made for every token at the start")
    }

    /// The counts, with what is kept elsewhere filled in.
    pub(crate) fn counts(&mut self) -> Counts {
        self.end_idle_sessions();
        let mut counts = self.counts.clone();
        for (place, token) in self.tokens.iter().enumerate() {
            let count = counts.tokens.get_mut(&token.serial).expect("made for every token at the start");
            count.tries_left = u64::from(token.login.tries_left);
            count.sessions = self.sessions.of(place);
            count.busy = u64::from(token.service.busy);
            count.queued = token.service.queue.len() as u64;
        }
        counts
    }
}

/// The thread that makes a call stands for the caller.
pub(crate) fn caller() -> thread::ThreadId {
    thread::current().id()
}
