//! What an error costs: a session, the login, all sessions of the token, or the token itself for a while.

use segl_hsm::{Error, Fault, Kind, Rung, Verdict};

use super::{Fleet, Standing, State, state::Spoilt};
use crate::core::event::{Action, Alarm, Generation, SessionId};

impl Fleet {
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
        token.note(now_ns, error.clone());
        let Verdict { fault, rung, .. } = error.verdict();
        if error.kind() == Kind::WrongSignature {
            // Whatever generation it was in: it is the token that computes wrongly.
            session.spoilt.get_or_insert(Spoilt::Blameless);
            return self.take_out(now_ns, index, error, out);
        }
        // What a session that was given up says, speaks of a generation that is over.
        if rung == Rung::None || session.spoilt.is_some() {
            return;
        }
        let faulty = fault == Fault::Token && rung < Rung::Token;
        session.spoilt = Some(if faulty { Spoilt::Faulty } else { Spoilt::Blameless });
        out.push(Action::Alarm(Alarm::SessionLost { token: index, error: error.clone() }));
        if rung >= Rung::Token {
            self.rebuild(now_ns, index, error, out);
        } else if rung == Rung::Login && token.logged_in && started_ns >= token.logged_in_ns {
            token.logged_in = false;
            token.rungs.login_again += 1;
            self.tend(now_ns, index, out);
        } else if error.kind() == Kind::Session && token.signs() {
            self.doubt_idle(now_ns, index, started_ns, out);
        }
    }

    /// A call of a thread that was given up failed. That says something of the token where it computes wrongly; and an
    /// error that costs all of its sessions has cost those that there are now, unless they were opened since.
    pub(in crate::core) fn failed_late<P>(
        &mut self,
        now_ns: u64,
        id: SessionId,
        generation: Generation,
        error: &Error,
        out: &mut Vec<Action<P>>,
    ) {
        let Some((index, outdated)) = self.stray(id, generation) else { return };
        let token = &mut self.tokens[usize::from(index)];
        if error.kind() == Kind::WrongSignature {
            token.note(now_ns, error.clone());
            self.take_out(now_ns, index, error, out);
        } else if matches!(error.verdict().rung, Rung::Token | Rung::Module) && token.signs() && !outdated {
            token.note(now_ns, error.clone());
            self.rebuild(now_ns, index, error, out);
        }
    }

    /// A session was void that had stood idle, or was about to: those that have been idle since before may be as well.
    /// They show it before they get work, or else one job would find them out one by one.
    fn doubt_idle<P>(&mut self, now_ns: u64, index: u16, since_ns: u64, out: &mut Vec<Action<P>>) {
        while let Some(&id) = self.tokens[usize::from(index)].idle.front() {
            if self.sessions[usize::from(id.0)].since_ns > since_ns {
                return;
            }
            self.tokens[usize::from(index)].idle.pop_front();
            let generation = self.ask(now_ns, id, State::KeepingAlive);
            out.push(Action::KeepAlive { session: id, generation });
        }
    }

    /// Only an operator's refresh brings it back, on probation.
    fn take_out<P>(&mut self, now_ns: u64, index: u16, error: &Error, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        if token.standing == Standing::In {
            token.standing = Standing::NeedsOperator;
            token.away = true;
            token.vouched = false;
            out.push(Action::Alarm(Alarm::WrongSignature { token: index, error: error.clone() }));
            self.give_up_generation(now_ns, index, out);
        }
        self.tend(now_ns, index, out);
    }

    /// A session could not be opened, which was asked for at that time.
    pub(super) fn open_failed<P>(
        &mut self,
        now_ns: u64,
        index: u16,
        error: Error,
        asked_ns: u64,
        out: &mut Vec<Action<P>>,
    ) {
        let token = &mut self.tokens[usize::from(index)];
        let taken = token.taken();
        let signs = token.signs() && token.count(State::Idle) + token.count(State::Busy) > 0;
        let counted = error.kind() == Kind::SessionCount;
        // One more than the token gives costs none of those that sign, whatever it says; if it is gone, they will
        // hear for themselves.
        // What has been closed since it was asked for may have had the place: two threads' news come in any order.
        let closed_since = token.closed_ns.is_some_and(|closed_ns| closed_ns >= asked_ns);
        let others = taken > token.count(State::Stuck) || closed_since;
        if counted && others || signs {
            token.note(now_ns, error);
            token.cap = token.cap.min(taken.max(1));
            // Told once it is known how many there are, and not again each time more were asked for in vain.
            if token.count(State::Opening) == 0 && token.cap != token.cap_told {
                token.cap_told = token.cap;
                out.push(Action::Alarm(Alarm::FewerSessions { token: index, sessions: token.cap }));
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

    /// A new session found the login of the others gone: with it all of them are void, whether they have heard of it or
    /// not, and the token itself is none the worse for it.
    pub(super) fn login_gone<P>(&mut self, now_ns: u64, index: u16, error: Error, out: &mut Vec<Action<P>>) {
        self.tokens[usize::from(index)].note(now_ns, error.clone());
        self.rebuild(now_ns, index, &error, out);
    }

    /// An open or a login failed: a pause for the whole token, and no hope while no session of it signs.
    pub(super) fn token_failed<P>(&mut self, now_ns: u64, index: u16, error: Error, out: &mut Vec<Action<P>>) {
        let rung = error.verdict().rung;
        if rung >= Rung::Token {
            self.give_up_generation(now_ns, index, out);
        }
        let token = &mut self.tokens[usize::from(index)];
        token.note(now_ns, error.clone());
        // What was tried before the operator spoke says nothing of what is there now: it is tried once more.
        if rung == Rung::Operator && std::mem::take(&mut token.refresh) {
            token.retry_ns = now_ns;
            return self.away_unless_signing(index, error, out);
        }
        if rung == Rung::Operator {
            if token.standing == Standing::In {
                token.standing = Standing::NeedsOperator;
                token.away = true;
                token.vouched = false;
                out.push(Action::Alarm(Alarm::NeedsOperator { token: index, error }));
            }
            return;
        }
        // Several opens that were under way at once fail together: that is one failure.
        let first = token.retry_ns <= now_ns;
        if first {
            token.failures += 1;
            let pause_ns = self.dice.pause_ns(token.failures, self.backoff_ns.start, self.backoff_ns.end);
            token.retry_ns = now_ns.saturating_add(pause_ns);
        }
        self.away_unless_signing(index, error, out);
        if first {
            self.token_rung_failed(now_ns, index, rung, out);
        }
    }

    /// All sessions and key handles of a token are void: at once the first time, after a pause from the second on, a
    /// first session is opened and logged in anew.
    fn rebuild<P>(&mut self, now_ns: u64, index: u16, error: &Error, out: &mut Vec<Action<P>>) {
        self.give_up_generation(now_ns, index, out);
        let token = &mut self.tokens[usize::from(index)];
        token.rungs.token_rebuilt += 1;
        token.rebuilds += 1;
        if token.rebuilds > 1 {
            let pause_ns = self.dice.pause_ns(token.rebuilds - 1, self.backoff_ns.start, self.backoff_ns.end);
            token.retry_ns = now_ns.saturating_add(pause_ns);
            self.away_unless_signing(index, error.clone(), out);
        }
        self.token_rung_failed(now_ns, index, error.verdict().rung, out);
        self.tend(now_ns, index, out);
    }

    /// Closes the token's sessions: the idle ones now, the others when they have answered.
    pub(super) fn give_up_generation<P>(&mut self, now_ns: u64, index: u16, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        token.logged_in = false;
        token.idle.clear();
        for place in token.sessions.clone() {
            let session = &mut self.sessions[usize::from(place)];
            match session.state {
                State::Idle => self.close(now_ns, SessionId(place), out),
                State::Opening | State::LoggingIn | State::Busy | State::KeepingAlive | State::Stuck => {
                    session.spoilt.get_or_insert(Spoilt::Blameless);
                }
                State::Closed | State::Closing | State::Reinitialising => {}
            }
        }
        for stray in self.strays.iter_mut().filter(|stray| stray.token == index) {
            stray.outdated = true;
        }
    }

    /// Declares a token away when no session of it signs.
    pub(super) fn away_unless_signing<P>(&mut self, index: u16, error: Error, out: &mut Vec<Action<P>>) {
        let token = &mut self.tokens[usize::from(index)];
        let signs = token.signs() && token.open() > 0;
        if token.standing == Standing::In && !signs {
            token.vouched = false;
            if !std::mem::replace(&mut token.away, true) {
                out.push(Action::Alarm(Alarm::TokenAway { token: index, error }));
            }
        }
    }

    /// Closes a spoilt session. It is opened again at once, after a pause if it is lost again and again.
    pub(super) fn lose<P>(&mut self, now_ns: u64, id: SessionId, spoilt: Spoilt, out: &mut Vec<Action<P>>) {
        self.close(now_ns, id, out);
        self.lost(now_ns, id, spoilt, out);
    }

    /// A session was lost, closed or not: when its place is opened again, and whether the token is still there.
    pub(super) fn lost<P>(&mut self, now_ns: u64, id: SessionId, spoilt: Spoilt, out: &mut Vec<Action<P>>) {
        let session = &mut self.sessions[usize::from(id.0)];
        let index = session.token;
        if spoilt == Spoilt::Faulty {
            session.losses += 1;
        }
        let losses = if spoilt == Spoilt::Faulty { session.losses } else { 0 };
        session.reopen_ns = now_ns;
        if losses > 1 {
            let pause_ns = self.dice.pause_ns(losses - 1, self.backoff_ns.start, self.backoff_ns.end);
            session.reopen_ns = now_ns.saturating_add(pause_ns);
        }
        // What waits for a first replacement, waits shortly. A token that spoils one session after the other is away,
        // and so is one that has lost its last session and failed to give another, or has no thread left to try.
        let token = &mut self.tokens[usize::from(index)];
        token.rungs.session_replaced += 1;
        let hopeless = losses > 1 || token.failures > 0 || token.count(State::Stuck) >= token.cap;
        if hopeless && token.count(State::Opening) + token.count(State::LoggingIn) == 0 {
            let error = token.last_error.clone().expect("a session is lost to an error, or the token was in vain");
            self.away_unless_signing(index, error, out);
        }
        self.tend(now_ns, index, out);
    }
}
