//! Care for sessions: what they answer to being opened, logged in, kept alive and closed, and what operators ask for.

use segl_hsm::{Error, Kind, Rung};

use super::{Fleet, Standing, State};
use crate::core::event::{Action, Alarm, Generation, SessionId};

impl Fleet {
    pub(in crate::core) fn opened<P>(
        &mut self,
        now_ns: u64,
        id: SessionId,
        generation: Generation,
        result: Result<(), Error>,
        out: &mut Vec<Action<P>>,
    ) -> bool {
        if !self.awaits(now_ns, (id, generation), State::Opening, result.is_ok(), out) {
            return false;
        }
        let index = self.session(id).token;
        match result {
            Ok(()) => {
                let token = &mut self.tokens[usize::from(index)];
                if token.logged_in {
                    token.failures = 0;
                }
                if token.count(State::Closed) == 0 {
                    token.cap_told = token.cap;
                }
                self.release(now_ns, id, out);
            }
            Err(error) => {
                let (spoilt, asked_ns) = (self.session(id).spoilt.is_some(), self.session(id).since_ns);
                self.set(id, State::Closed);
                if error.kind() != Kind::NotLoggedIn {
                    self.open_failed(now_ns, index, error, asked_ns, out);
                } else if !spoilt {
                    self.login_gone(now_ns, index, error, out);
                }
            }
        }
        self.tend(now_ns, index, out);
        true
    }

    pub(in crate::core) fn logged_in<P>(
        &mut self,
        now_ns: u64,
        id: SessionId,
        generation: Generation,
        result: Result<(), Error>,
        out: &mut Vec<Action<P>>,
    ) -> bool {
        if !self.awaits(now_ns, (id, generation), State::LoggingIn, true, out) {
            return false;
        }
        let session = &self.sessions[usize::from(id.0)];
        let index = session.token;
        let token = &mut self.tokens[usize::from(index)];
        if let Err(error) = &result
            && error.verdict().rung == Rung::Operator
            && !token.refresh
        {
            token.login_refused = Some(error.clone());
        }
        match result {
            // A login to a generation that was given up meanwhile.
            _ if session.spoilt.is_some() => self.release(now_ns, id, out),
            Ok(()) => {
                let again = std::mem::replace(&mut token.logged_in, true);
                token.logged_in_ns = now_ns;
                token.failures = 0;
                if !again && token.is_on_probation() {
                    token.rungs.probations += 1;
                    out.push(Action::Alarm(Alarm::Probation { token: index, round: token.rungs.probations }));
                }
                self.release(now_ns, id, out);
            }
            Err(error) if token.logged_in => {
                out.push(Action::Alarm(Alarm::RefreshFailed { token: index, error: error.clone() }));
                // A refused login costs nothing while the one before holds.
                if error.verdict().rung != Rung::Operator {
                    self.failed(now_ns, id, &error, now_ns, out);
                }
                self.release(now_ns, id, out);
            }
            Err(error) => {
                self.close(now_ns, id, out);
                self.token_failed(now_ns, index, error, out);
            }
        }
        self.tend(now_ns, index, out);
        true
    }

    pub(in crate::core) fn kept_alive<P>(
        &mut self,
        now_ns: u64,
        id: SessionId,
        generation: Generation,
        result: Result<(), Error>,
        out: &mut Vec<Action<P>>,
    ) -> bool {
        if !self.awaits(now_ns, (id, generation), State::KeepingAlive, true, out) {
            return false;
        }
        let session = self.session(id);
        let (index, asked_ns) = (session.token, session.since_ns);
        if let Err(error) = result {
            self.failed(now_ns, id, &error, asked_ns, out);
        }
        self.release(now_ns, id, out);
        self.tend(now_ns, index, out);
        true
    }

    pub(in crate::core) fn closed<P>(
        &mut self,
        now_ns: u64,
        id: SessionId,
        generation: Generation,
        out: &mut Vec<Action<P>>,
    ) -> bool {
        if !self.awaits(now_ns, (id, generation), State::Closing, false, out) {
            return false;
        }
        self.set(id, State::Closed);
        let index = self.session(id).token;
        self.tokens[usize::from(index)].closed_ns = Some(now_ns);
        self.tend(now_ns, index, out);
        true
    }

    pub(in crate::core) fn join<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        if token.standing == Standing::Out {
            token.standing = Standing::In;
            token.away = false;
            token.failures = 0;
            token.retry_ns = now_ns;
            token.login_refused = None;
            // What it was before says nothing of what it is now.
            self.give_up_generation(now_ns, index, out);
        }
        self.tend(now_ns, index, out);
    }

    pub(in crate::core) fn leave<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        token.standing = Standing::Out;
        token.vouched = false;
        self.tend(now_ns, index, out);
    }

    pub(in crate::core) fn refresh<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        match token.standing {
            Standing::Out => return,
            Standing::NeedsOperator => token.standing = Standing::In,
            Standing::In => {}
        }
        token.retry_ns = now_ns;
        token.login_refused = None;
        // A login that is under way may have passed the new keys by, and was tried with the PIN of before.
        token.refresh = true;
        self.tend(now_ns, index, out);
    }

    /// Keeps the appointments that have come.
    pub(in crate::core) fn keep_appointments<P>(&mut self, now_ns: u64, out: &mut Vec<Action<P>>) {
        for index in 0..self.tokens.len() {
            if self.tokens[index].due_ns.is_some_and(|due_ns| due_ns <= now_ns) {
                self.tend(now_ns, index as u16, out);
            }
        }
    }

    /// A session has nothing to do: it is free for the next batch, or closed if it is spoilt or not wanted.
    pub(super) fn release<P>(&mut self, now_ns: u64, id: SessionId, out: &mut Vec<Action<P>>) {
        let session = self.session(id);
        let index = session.token;
        if let Some(spoilt) = session.spoilt {
            return self.lose(now_ns, id, spoilt, out);
        }
        session.since_ns = now_ns;
        self.set(id, State::Idle);
        let token = &mut self.tokens[usize::from(index)];
        token.idle.push_back(id);
        if token.keep_alive_ns < u64::MAX {
            let stale_ns = now_ns.saturating_add(token.keep_alive_ns);
            token.due_ns = Some(token.due_ns.map_or(stale_ns, |due_ns| due_ns.min(stale_ns)));
        }
        if token.refresh || !token.signs() {
            self.tend(now_ns, index, out);
        }
    }

    pub(super) fn close<P>(&mut self, now_ns: u64, id: SessionId, out: &mut Vec<Action<P>>) {
        let generation = self.ask(now_ns, id, State::Closing);
        out.push(Action::Close { session: id, generation });
        self.forget_login_without_sessions(id);
    }

    /// The last session's closing logs the application out (PKCS#11 3.0 §5.6.9), and nobody is left to vouch for the
    /// login where the last one is given up.
    pub(super) fn forget_login_without_sessions(&mut self, id: SessionId) {
        let token = self.token_of(id);
        token.logged_in &= token.open() > 0;
    }
}
