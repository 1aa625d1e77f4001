//! Care for sessions: opening, logging in, closing, replacing, and the pauses between.

use segl_hsm::{Error, Fault, Kind, Rung, Verdict};

use super::{Fleet, Spoilt, Standing, State};
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
                if token.count(State::Closed) == 0 {
                    token.cap_told = token.cap;
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

    pub(in crate::core) fn logged_in<P>(
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
        let session = &self.sessions[usize::from(id.0)];
        let index = session.token;
        let token = &mut self.tokens[usize::from(index)];
        match result {
            // A login to a generation that was given up meanwhile.
            _ if session.spoilt.is_some() => self.release(now_ns, id, out),
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
                out.push(Action::Alarm(Alarm::RefreshFailed { token: index, error: error.clone() }));
                self.failed(now_ns, id, &error, now_ns, out);
                self.release(now_ns, id, out);
            }
            Err(error) => {
                self.close(id, out);
                self.token_failed(now_ns, index, error, out);
            }
        }
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
        if !self.owes(id, generation, State::Closing) {
            return false;
        }
        self.set(id, State::Closed);
        self.tend(now_ns, self.sessions[usize::from(id.0)].token, out);
        true
    }

    pub(in crate::core) fn join<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        if token.standing == Standing::Out {
            token.standing = Standing::In;
            token.away = false;
            token.failures = 0;
            token.retry_ns = now_ns;
        }
        self.tend(now_ns, index, out);
    }

    pub(in crate::core) fn leave<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        self.tokens[usize::from(index)].standing = Standing::Out;
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
        // A login that is under way may have passed the new keys by.
        token.refresh = token.logged_in || token.count(State::LoggingIn) > 0;
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

    /// The next appointment.
    pub(in crate::core) fn next_due_ns(&self) -> Option<u64> {
        self.tokens.iter().filter_map(|token| token.due_ns).min()
    }

    /// A call failed.
    pub(in crate::core) fn failed<P>(
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
        let Verdict { fault, rung, .. } = error.verdict();
        // What a session that was given up says, speaks of a generation that is over.
        if rung == Rung::None || session.spoilt.is_some() {
            return;
        }
        let faulty = fault == Fault::Token && rung < Rung::Token;
        session.spoilt = Some(if faulty { Spoilt::Faulty } else { Spoilt::Blameless });
        out.push(Action::Alarm(Alarm::SessionLost { token: index, error: error.clone() }));
        if rung >= Rung::Token {
            self.rebuild(now_ns, index, error, out);
        } else if rung == Rung::Login && started_ns >= token.logged_in_ns {
            token.logged_in = false;
            self.tend(now_ns, index, out);
        }
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
        // A sound session that is busy does the login when its batch is back; a spoilt one is not waited for.
        let places = self.tokens[usize::from(index)].sessions.clone();
        let mut sessions = self.sessions[usize::from(places.start)..usize::from(places.end)].iter();
        if !sessions.any(|session| session.state == State::Busy && session.spoilt.is_none()) {
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
                session.spoilt = None;
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
        let signs = token.signs() && token.count(State::Idle) + token.count(State::Busy) > 0;
        let counted = error.kind() == Kind::SessionCount;
        // One more than the token gives costs none of those that sign, whatever it says; if it is gone, they will
        // hear for themselves.
        if counted && taken > 0 || signs {
            token.last_error = Some(error);
            token.cap = token.cap.min(taken);
            // Told once it is known how many there are, and not again each time more were asked for in vain.
            if token.count(State::Opening) == 0 && token.cap != token.cap_told {
                token.cap_told = token.cap;
                out.push(Action::Alarm(Alarm::FewerSessions { token: index, sessions: taken }));
            }
            // Several opens that were under way at once fail together: that is one failure.
            let pausing = token.all_again_ns.is_some_and(|at_ns| at_ns > now_ns);
            if counted || !pausing {
                let pause_ns = if counted {
                    self.session_count_retry_ns
                } else {
                    token.failures += 1;
                    self.dice.pause_ns(token.failures, self.backoff_ns.start, self.backoff_ns.end)
                };
                token.all_again_ns = Some(now_ns.saturating_add(pause_ns));
            }
        } else {
            self.token_failed(now_ns, index, error, out);
        }
    }

    /// An open or a login failed: a pause for the whole token, and no hope while no session of it signs.
    fn token_failed<P>(&mut self, now_ns: u64, index: u16, error: Error, out: &mut Vec<Action<P>>) {
        let rung = error.verdict().rung;
        if rung >= Rung::Token {
            self.give_up_generation(index, out);
        }
        let token = &mut self.tokens[usize::from(index)];
        token.last_error = Some(error.clone());
        if rung == Rung::Operator {
            if token.standing == Standing::In {
                token.standing = Standing::NeedsOperator;
                token.away = true;
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

    /// All sessions and key handles of a token are void: at once the first time, after a pause from the second on, a
    /// first session is opened and logged in anew.
    fn rebuild<P>(&mut self, now_ns: u64, index: u16, error: &Error, out: &mut Vec<Action<P>>) {
        self.give_up_generation(index, out);
        let token = &mut self.tokens[usize::from(index)];
        token.rebuilds += 1;
        if token.rebuilds > 1 {
            let pause_ns = self.dice.pause_ns(token.rebuilds - 1, self.backoff_ns.start, self.backoff_ns.end);
            token.retry_ns = now_ns.saturating_add(pause_ns);
            self.away_unless_signing(index, error.clone(), out);
        }
        self.tend(now_ns, index, out);
    }

    /// Closes the token's sessions: the idle ones now, the others when they have answered.
    fn give_up_generation<P>(&mut self, index: u16, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        token.logged_in = false;
        token.idle.clear();
        for place in token.sessions.clone() {
            let session = &mut self.sessions[usize::from(place)];
            match session.state {
                State::Idle => self.close(SessionId(place), out),
                State::Opening | State::LoggingIn | State::Busy => {
                    session.spoilt.get_or_insert(Spoilt::Blameless);
                }
                State::Closed | State::Closing | State::Stuck => {}
            }
        }
    }

    /// Declares a token away when no session of it signs.
    fn away_unless_signing<P>(&mut self, index: u16, error: Error, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        let signs = token.signs() && token.open() > 0;
        if token.standing == Standing::In && !signs && !std::mem::replace(&mut token.away, true) {
            out.push(Action::Alarm(Alarm::TokenAway { token: index, error }));
        }
    }

    /// Closes a spoilt session. It is opened again at once, after a pause if it is lost again and again.
    fn lose<P>(&mut self, now_ns: u64, id: SessionId, spoilt: Spoilt, out: &mut Vec<Action<P>>) {
        let session = &mut self.sessions[usize::from(id.0)];
        let index = session.token;
        self.tokens[usize::from(index)].sessions_lost += 1;
        if spoilt == Spoilt::Faulty {
            session.losses += 1;
        }
        let losses = if spoilt == Spoilt::Faulty { session.losses } else { 0 };
        session.reopen_ns = now_ns;
        if losses > 1 {
            let pause_ns = self.dice.pause_ns(losses - 1, self.backoff_ns.start, self.backoff_ns.end);
            session.reopen_ns = now_ns.saturating_add(pause_ns);
        }
        self.close(id, out);
        // What waits for a first replacement, waits shortly. A token that spoils one session after the other is away,
        // and so is one that has lost its last session and failed to give another.
        let token = &self.tokens[usize::from(index)];
        if (losses > 1 || token.failures > 0) && token.count(State::Opening) + token.count(State::LoggingIn) == 0 {
            let error = token.last_error.clone().expect("a session is spoilt by an error");
            self.away_unless_signing(index, error, out);
        }
        self.tend(now_ns, index, out);
    }

    /// A session has nothing to do: it is free for the next batch, or closed if it is spoilt or not wanted.
    pub(super) fn release<P>(&mut self, now_ns: u64, id: SessionId, out: &mut Vec<Action<P>>) {
        let session = &self.sessions[usize::from(id.0)];
        let index = session.token;
        if let Some(spoilt) = session.spoilt {
            return self.lose(now_ns, id, spoilt, out);
        }
        self.set(id, State::Idle);
        let token = &mut self.tokens[usize::from(index)];
        token.idle.push(id);
        if token.refresh || !token.signs() {
            self.tend(now_ns, index, out);
        }
    }

    pub(super) fn close<P>(&mut self, id: SessionId, out: &mut Vec<Action<P>>) {
        self.set(id, State::Closing);
        let session = &self.sessions[usize::from(id.0)];
        out.push(Action::Close { session: id, generation: session.generation });
        let token = &mut self.tokens[usize::from(session.token)];
        // The last session's closing logs the application out (PKCS#11 3.0 §5.6.9).
        if token.open() == 0 {
            token.logged_in = false;
        }
    }
}
