//! Calls that do not return: they are waited for only so long.
//!
//! A thread that is stuck in the token's code is given up and another one takes its place, up to a number a token;
//! beyond that the place is lost until the call returns. Nothing that such a thread says later is used: a signature
//! that nobody waits for any more is discarded, and told.

use std::{collections::VecDeque, mem};

use segl_hsm::{Error, Fault, Kind, Retry, Rung, Signed, Verdict};

use super::{Fleet, State, state::Spoilt};
use crate::core::event::{Action, Alarm, CallId, Generation, SessionId};

/// A thread that was given up.
#[derive(Debug)]
pub(super) struct Stray {
    pub(super) id: SessionId,
    pub(super) generation: Generation,
    pub(super) token: u16,
    /// Calls of its batch that were not given up: asked back, and not heard of yet
    pub(super) calls: VecDeque<(CallId, u32)>,
    /// Since when the first of these can have begun
    pub(super) since_ns: u64,
    /// The token's sessions have been given up since it entered its call, so that it says nothing of what they are now
    pub(super) outdated: bool,
}

/// A call that was given up.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) id: SessionId,
    pub(super) generation: Generation,
    pub(super) call: CallId,
    /// The job's
    pub(super) reference: u64,
    pub(super) token: u16,
}

/// Who did not return in time.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) enum Stuck {
    Place(SessionId),
    /// By its place among the strays
    Stray(usize),
}

/// A call that is given up.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) struct GivenUp {
    pub(in crate::core) id: SessionId,
    pub(in crate::core) generation: Generation,
    pub(in crate::core) token: u16,
    pub(in crate::core) call: CallId,
    pub(in crate::core) slot: u32,
    /// Since when it can have been in the token
    pub(in crate::core) since_ns: u64,
}

/// What is said of a call that did not return.
pub(in crate::core) fn stuck_error() -> Error {
    let verdict =
        Verdict { fault: Fault::Token, signed: Signed::Unknown, retry: Retry::Elsewhere, rung: Rung::Session };
    Error::new(Kind::Other, verdict, "token", "a call did not return in time").with_code("stuck")
}

impl Fleet {
    /// Somebody who did not return in time.
    pub(in crate::core) fn find_stuck(&mut self, now_ns: u64) -> Option<Stuck> {
        if self.stuck_check_ns > now_ns {
            return None;
        }
        let mut next_ns = u64::MAX;
        for (index, session) in self.sessions.iter().enumerate().filter(|(_, session)| session.may_be_stuck()) {
            let stuck_ns = session.since_ns.saturating_add(self.tokens[usize::from(session.token)].stuck_after_ns);
            if stuck_ns <= now_ns {
                return Some(Stuck::Place(SessionId(index as u16)));
            }
            next_ns = next_ns.min(stuck_ns);
        }
        for (index, stray) in self.strays.iter().enumerate().filter(|(_, stray)| !stray.calls.is_empty()) {
            let stuck_ns = stray.since_ns.saturating_add(self.tokens[usize::from(stray.token)].stuck_after_ns);
            if stuck_ns <= now_ns {
                return Some(Stuck::Stray(index));
            }
            next_ns = next_ns.min(stuck_ns);
        }
        self.stuck_check_ns = next_ns;
        None
    }

    /// Takes the call out that it must be stuck in, if it is one of a batch.
    pub(in crate::core) fn give_up_head(&mut self, now_ns: u64, stuck: Stuck) -> Option<GivenUp> {
        let (id, generation, token, since_ns, calls) = match stuck {
            Stuck::Place(id) => {
                let session = &mut self.sessions[usize::from(id.0)];
                (id, session.generation, session.token, &mut session.since_ns, &mut session.calls)
            }
            Stuck::Stray(index) => {
                let stray = &mut self.strays[index];
                (stray.id, stray.generation, stray.token, &mut stray.since_ns, &mut stray.calls)
            }
        };
        let (call, slot) = calls.pop_front()?;
        let since_ns = mem::replace(since_ns, now_ns);
        Some(GivenUp { id, generation, token, call, slot, since_ns })
    }

    /// Keeps in mind that a call was given up, for when it comes back after all.
    pub(in crate::core) fn remember(&mut self, given_up: GivenUp, reference: u64) {
        let GivenUp { id, generation, token, call, .. } = given_up;
        self.late.push(Late { id, generation, call, reference, token });
    }

    /// Gives the thread up, if it was not before: what has not begun is asked back.
    pub(in crate::core) fn give_up<P>(&mut self, now_ns: u64, stuck: Stuck, out: &mut Vec<Action<P>>) {
        let Stuck::Place(id) = stuck else { return };
        let session = &mut self.sessions[usize::from(id.0)];
        let (was, index, generation) = (session.state, session.token, session.generation);
        let Some(call) = was.call() else { return };
        for &(call, _) in &session.calls {
            out.push(Action::TakeBack { session: id, generation, call });
        }
        let spoilt = session.spoilt.take();
        let token = &mut self.tokens[usize::from(index)];
        token.note(now_ns, stuck_error());
        let replaced = token.strays < self.stuck_threads_max;
        if replaced {
            token.strays += 1;
            token.rungs.thread_replaced += 1;
            let calls = mem::replace(&mut session.calls, VecDeque::with_capacity(self.batch_max));
            let outdated = spoilt.is_some();
            let stray = Stray { id, generation, token: index, calls, since_ns: now_ns, outdated };
            self.strays.push(stray);
            self.set(id, State::Closed);
            out.push(Action::Replace { session: id, generation });
        } else {
            session.since_ns = now_ns;
            session.spoilt = spoilt;
            self.set(id, State::Stuck);
        }
        self.stuck_check_ns =
            self.stuck_check_ns.min(now_ns.saturating_add(self.tokens[usize::from(index)].stuck_after_ns));
        out.push(Action::Alarm(Alarm::Stuck { token: index, call, replaced }));
        self.forget_login_without_sessions(id);
        let module = self.tokens[usize::from(index)].module;
        match was {
            State::Opening => self.open_failed(now_ns, index, stuck_error(), now_ns, out),
            State::LoggingIn if spoilt.is_none() && !self.tokens[usize::from(index)].logged_in => {
                self.token_failed(now_ns, index, stuck_error(), out);
            }
            State::Busy | State::KeepingAlive | State::LoggingIn => {
                self.lost(now_ns, id, spoilt.unwrap_or(Spoilt::Faulty), out);
            }
            State::Reinitialising => self.module_hung(module, out),
            State::Closed | State::Closing | State::Idle | State::Stuck => {}
        }
        self.tend(now_ns, index, out);
    }

    /// A thread that was given up, by what it says: its token, and whether it is outdated.
    pub(super) fn stray(&self, id: SessionId, generation: Generation) -> Option<(u16, bool)> {
        let stray = self.strays.iter().find(|stray| (stray.id, stray.generation) == (id, generation));
        let held = self.sessions.get(usize::from(id.0));
        let held = held.filter(|session| session.generation == generation && session.state == State::Stuck);
        let held = held.map(|session| (session.token, session.spoilt.is_some()));
        stray.map(|stray| (stray.token, stray.outdated)).or(held)
    }

    /// A call came back whose place was held for it, or the last one did: the place is of use again.
    pub(in crate::core) fn settle<P>(
        &mut self,
        now_ns: u64,
        id: SessionId,
        generation: Generation,
        out: &mut Vec<Action<P>>,
    ) {
        let late = |late: &Late| (late.id, late.generation) == (id, generation);
        if self.owes(id, generation, State::Stuck) && self.session(id).calls.is_empty() && !self.late.iter().any(late) {
            self.unstick(now_ns, id, true, out);
        }
    }

    /// Whether this is the answer that the place owes. If it was given up, its coming back frees the place and says no
    /// more; `open` tells whether it has left a session behind.
    pub(super) fn awaits<P>(
        &mut self,
        now_ns: u64,
        (id, generation): (SessionId, Generation),
        state: State,
        open: bool,
        out: &mut Vec<Action<P>>,
    ) -> bool {
        if self.owes(id, generation, State::Stuck) {
            self.unstick(now_ns, id, open, out);
            return false;
        }
        self.owes(id, generation, state)
    }

    /// What a place was held for has come back: its session is closed if it has one.
    pub(super) fn unstick<P>(&mut self, now_ns: u64, id: SessionId, open: bool, out: &mut Vec<Action<P>>) {
        if open {
            self.close(now_ns, id, out);
        } else {
            self.set(id, State::Closed);
        }
        let token = self.token_of(id);
        let module = token.module;
        let index = self.session(id).token;
        self.module_freed(now_ns, module, out);
        self.tend(now_ns, index, out);
    }

    /// A thread that was given up is at its end. What it still had is in doubt for ever.
    pub(in crate::core) fn gone<P>(
        &mut self,
        now_ns: u64,
        id: SessionId,
        generation: Generation,
        out: &mut Vec<Action<P>>,
    ) -> Option<Vec<GivenUp>> {
        let index = self.strays.iter().position(|stray| (stray.id, stray.generation) == (id, generation))?;
        let stray = self.strays.swap_remove(index);
        self.late.retain(|late| (late.id, late.generation) != (id, generation));
        let token = &mut self.tokens[usize::from(stray.token)];
        token.strays -= 1;
        let module = token.module;
        self.module_freed(now_ns, module, out);
        self.tend(now_ns, stray.token, out);
        let Stray { token, since_ns, calls, .. } = stray;
        let given_up = |(call, slot)| GivenUp { id, generation, token, call, slot, since_ns };
        Some(calls.into_iter().map(given_up).collect())
    }

    /// Gives up on all batches under way.
    pub(in crate::core) fn abandon(&mut self) -> Vec<GivenUp> {
        let mut given_up = Vec::new();
        for index in 0..self.sessions.len() {
            let id = SessionId(index as u16);
            let session = &mut self.sessions[index];
            let (generation, token, since_ns) = (session.generation, session.token, session.since_ns);
            let calls = session.calls.drain(..);
            given_up.extend(calls.map(|(call, slot)| GivenUp { id, generation, token, call, slot, since_ns }));
            if session.state == State::Busy {
                self.set(id, State::Stuck);
                self.forget_login_without_sessions(id);
            }
        }
        for stray in &mut self.strays {
            let Stray { id, generation, token, since_ns, .. } = *stray;
            let calls = stray.calls.drain(..);
            given_up.extend(calls.map(|(call, slot)| GivenUp { id, generation, token, call, slot, since_ns }));
        }
        given_up
    }
}
