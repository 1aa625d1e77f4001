//! Batches on their way: which call is with which session, and what a returned one belongs to.

use super::{Fleet, State};
use crate::core::event::{Action, CallId, Generation, SessionId};

/// What a returned call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) enum Taken {
    /// The batch of a session
    Batch {
        slot: u32,
        token: u16,
    },
    /// The batch of a thread that was given up, but not this call of it
    Stray {
        slot: u32,
        token: u16,
    },
    /// Nobody any more: it was given up
    Late {
        reference: u64,
        token: u16,
    },
    Unknown,
}

impl Fleet {
    /// Takes an idle session for a batch.
    pub(in crate::core) fn begin_batch(&mut self, now_ns: u64, token: u16) -> (SessionId, Generation) {
        let id = self.tokens[usize::from(token)].idle.pop_back().expect("has_idle was asked");
        (id, self.ask(now_ns, id, State::Busy))
    }

    /// Notes a call of the batch.
    pub(in crate::core) fn add_call(&mut self, id: SessionId, call: CallId, slot: u32) {
        self.session(id).calls.push_back((call, slot));
    }

    /// Takes a returned call out of its batch. `ended_ns` is when it came back, if it was begun.
    pub(in crate::core) fn take_call(
        &mut self,
        id: SessionId,
        generation: Generation,
        call: CallId,
        ended_ns: Option<u64>,
    ) -> Taken {
        let is_it = |&(running, _): &(CallId, u32)| running == call;
        let place = self.sessions.get_mut(usize::from(id.0)).filter(|session| session.generation == generation);
        if let Some(session) = place
            && let Some(position) = session.calls.iter().position(is_it)
        {
            let (_, slot) = session.calls.remove(position).expect("it was found there");
            session.since_ns = session.since_ns.max(ended_ns.unwrap_or(0));
            let token = session.token;
            return if session.state == State::Busy {
                Taken::Batch { slot, token }
            } else {
                Taken::Stray { slot, token }
            };
        }
        for stray in self.strays.iter_mut().filter(|stray| (stray.id, stray.generation) == (id, generation)) {
            if let Some(position) = stray.calls.iter().position(is_it) {
                let (_, slot) = stray.calls.remove(position).expect("it was found there");
                stray.since_ns = stray.since_ns.max(ended_ns.unwrap_or(0));
                return Taken::Stray { slot, token: stray.token };
            }
        }
        let late = self.late.iter().position(|late| (late.id, late.generation, late.call) == (id, generation, call));
        match late.map(|position| self.late.swap_remove(position)) {
            Some(late) => Taken::Late { reference: late.reference, token: late.token },
            None => Taken::Unknown,
        }
    }

    /// The session has signed: it is sound.
    pub(in crate::core) fn signed(&mut self, id: SessionId) {
        let session = &mut self.sessions[usize::from(id.0)];
        session.losses = 0;
        // One of a generation that was given up says nothing for the next.
        if session.spoilt.is_none() {
            let token = &mut self.tokens[usize::from(session.token)];
            token.rebuilds = 0;
            token.rung_failed = 0;
        }
    }

    /// Ends a batch when all of it is back: the session is free again, or closed if it is spoilt or not wanted.
    pub(in crate::core) fn end_batch<P>(&mut self, now_ns: u64, id: SessionId, out: &mut Vec<Action<P>>) {
        let session = self.session(id);
        debug_assert_eq!(session.state, State::Busy);
        if session.calls.is_empty() {
            self.release(now_ns, id, out);
        }
    }
}
