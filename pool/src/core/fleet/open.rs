//! Opening: a first session for the login, further ones as work waits for them; and the calls that keep idle ones
//! alive.

use super::{Fleet, Standing, State};
use crate::core::event::{Action, Generation, SessionId};

impl Fleet {
    /// Does for a token whatever can be done now, and notes when there will be more.
    pub(super) fn tend<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        self.advance_module(now_ns, index, out);
        let token = &mut self.tokens[usize::from(index)];
        token.due_ns = None;
        if token.standing != Standing::In || !self.modules[token.module].is_open() {
            while let Some(id) = self.tokens[usize::from(index)].idle.pop_back() {
                self.close(now_ns, id, out);
            }
            return;
        }
        if let Some(error) = token.login_refused.take_if(|_| !token.logged_in) {
            return self.token_failed(now_ns, index, error, out);
        }
        if token.all_again_ns.is_some_and(|all_again_ns| all_again_ns <= now_ns) {
            token.all_again_ns = None;
            token.cap = token.sessions.len() as u16;
        }
        if token.retry_ns <= now_ns {
            if !token.logged_in {
                self.log_in_or_open(now_ns, index, out);
            } else if token.refresh && token.count(State::LoggingIn) == 0 {
                self.log_in(now_ns, index, out);
            }
        }
        self.keep_alive(now_ns, index, out);
        let due_ns = self.next_appointment_ns(now_ns, index);
        self.tokens[usize::from(index)].due_ns = due_ns;
    }

    /// So many jobs wait for this token that no idle session takes: opens sessions for them, at most as many at once
    /// as there are, so that a token is not overrun and is still all there after a few rounds.
    pub(in crate::core) fn open_for<P>(&mut self, now_ns: u64, index: u16, waiting: u32, out: &mut Vec<Action<P>>) {
        let token = &self.tokens[usize::from(index)];
        let under_way = token.count(State::Opening);
        // One at a time while it is not known whether the token gives any.
        let at_once = if token.failures == 0 { token.open().max(1) } else { 1 };
        let wanted = waiting.min(u32::from(at_once)).saturating_sub(u32::from(under_way)) as u16;
        if wanted == 0 || token.retry_ns > now_ns || !self.modules[token.module].is_open() {
            return;
        }
        if let Some(reopen_ns) = self.open_some(now_ns, index, wanted, out) {
            let token = &mut self.tokens[usize::from(index)];
            token.due_ns = Some(token.due_ns.map_or(reopen_ns, |due_ns| due_ns.min(reopen_ns)));
        }
    }

    /// Whether it serves and has room for a further session.
    pub(in crate::core) fn has_room(&self, index: u16) -> bool {
        let token = &self.tokens[usize::from(index)];
        token.serves() && token.room() > 0
    }

    fn log_in_or_open<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        let token = &self.tokens[usize::from(index)];
        if token.count(State::LoggingIn) > 0 || self.log_in(now_ns, index, out) {
            return;
        }
        let token = &self.tokens[usize::from(index)];
        let mut sessions = self.sessions[usize::from(token.sessions.start)..usize::from(token.sessions.end)].iter();
        // A sound session that is busy does the login when its batch is back; a spoilt one is not waited for.
        let busy = |state| matches!(state, State::Busy | State::KeepingAlive);
        if token.count(State::Opening) == 0 && !sessions.any(|session| busy(session.state) && session.spoilt.is_none())
        {
            self.open_some(now_ns, index, 1, out);
        }
    }

    fn log_in<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) -> bool {
        let token = &mut self.tokens[usize::from(index)];
        let Some(id) = token.idle.pop_back() else { return false };
        token.refresh = false;
        let generation = self.ask(now_ns, id, State::LoggingIn);
        out.push(Action::Login { session: id, generation });
        true
    }

    /// Opens so many sessions, as far as there is room. When the next place may be opened, if one was not for its pause.
    fn open_some<P>(&mut self, now_ns: u64, index: u16, mut wanted: u16, out: &mut Vec<Action<P>>) -> Option<u64> {
        let mut reopen_ns = None;
        for place in self.tokens[usize::from(index)].sessions.clone() {
            let token = &self.tokens[usize::from(index)];
            if token.taken() >= token.cap || wanted == 0 {
                return None;
            }
            let session = &mut self.sessions[usize::from(place)];
            if session.state != State::Closed {
                continue;
            }
            if session.reopen_ns > now_ns {
                reopen_ns = Some(reopen_ns.map_or(session.reopen_ns, |at_ns: u64| at_ns.min(session.reopen_ns)));
                continue;
            }
            wanted -= 1;
            let generation = self.begin_generation(now_ns, SessionId(place), State::Opening);
            out.push(Action::Open { session: SessionId(place), generation });
        }
        reopen_ns
    }

    /// A closed place begins anew.
    pub(super) fn begin_generation(&mut self, now_ns: u64, id: SessionId, state: State) -> Generation {
        let session = self.session(id);
        session.generation = Generation(session.generation.0 + 1);
        session.spoilt = None;
        self.ask(now_ns, id, state)
    }

    /// Reminds the token of sessions that have long been idle; of half of them at once, so that the others serve.
    fn keep_alive<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        let token = &self.tokens[usize::from(index)];
        if token.keep_alive_ns < u64::MAX && token.signs() && token.count(State::KeepingAlive) == 0 {
            self.remind(now_ns, index, token.keep_alive_ns, out);
        }
    }

    /// The same of those that have been idle for so long.
    pub(super) fn remind<P>(&mut self, now_ns: u64, index: u16, idle_ns: u64, out: &mut Vec<Action<P>>) {
        let token = &self.tokens[usize::from(index)];
        for _ in 0..token.idle.len().div_ceil(2) {
            let token = &mut self.tokens[usize::from(index)];
            // The first has been idle longest.
            let id = token.idle[0];
            let stale_ns = self.sessions[usize::from(id.0)].since_ns.saturating_add(idle_ns);
            if stale_ns > now_ns {
                return;
            }
            token.idle.pop_front();
            let generation = self.ask(now_ns, id, State::KeepingAlive);
            out.push(Action::KeepAlive { session: id, generation });
        }
    }

    /// When there will be something to tend that no event announces.
    fn next_appointment_ns(&self, now_ns: u64, index: u16) -> Option<u64> {
        let token = &self.tokens[usize::from(index)];
        let sessions = &self.sessions[usize::from(token.sessions.start)..usize::from(token.sessions.end)];
        let open = !token.logged_in && token.taken() < token.cap;
        let closed = sessions.iter().filter(|session| open && session.state == State::Closed);
        let reopen_ns = closed.map(|session| session.reopen_ns.max(token.retry_ns)).filter(|&at| at > now_ns).min();
        let log_in = !token.logged_in && !token.idle.is_empty() || token.refresh;
        let log_in_ns = (log_in && token.retry_ns > now_ns).then_some(token.retry_ns);
        // What is under way now is followed by another look.
        let keeps_alive = token.keep_alive_ns < u64::MAX && token.signs() && token.count(State::KeepingAlive) == 0;
        let idle = token.idle.front().filter(|_| keeps_alive);
        let stale_ns = idle.map(|id| self.sessions[usize::from(id.0)].since_ns.saturating_add(token.keep_alive_ns));
        [reopen_ns, log_in_ns, stale_ns, token.all_again_ns].into_iter().flatten().min()
    }
}
