//! Carrying out what a test says.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use crate::{
    Answer, Command, Seen,
    module::{Module, State},
    token::Death,
};

impl Module {
    pub(crate) fn carry_out(&self, command: Command) -> Answer {
        let answer = match command {
            Command::Await { count, at_least, limit_ms } => {
                return self.wait_for(&count, at_least, Duration::from_millis(limit_ms));
            }
            command => self.state().carry_out(command).unwrap_or_else(Answer::Refused),
        };
        for waiting in [&self.counted, &self.freed, &self.let_go] {
            waiting.notify_all();
        }
        answer
    }

    fn wait_for(&self, count: &str, at_least: u64, limit: Duration) -> Answer {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        loop {
            let counts = state.counts();
            let Some(number) = counts.number(count) else {
                return Answer::Refused(format!("there is no count {count}"));
            };
            if number >= at_least {
                return Answer::Counts(Box::new(counts));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Answer::Refused(format!("{count} is {number} after {limit:?}, not {at_least}"));
            }
            state = self.counted.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn carry_out(&mut self, command: Command) -> Result<Answer, String> {
        match command {
            Command::Tempo { token, tempo } => self.each(token, |state, at| state.tokens[at].service.tempo = tempo)?,
            Command::Sessions { token, max, announced } => self.each(token, |state, at| {
                let token = &mut state.tokens[at];
                (token.sessions_max, token.sessions_announced) = (max, announced);
            })?,
            Command::IdleLimit { token, limit_ms } => self.each(token, |state, at| {
                state.tokens[at].idle_limit = limit_ms.map(Duration::from_millis);
            })?,
            Command::Fault(fault) => {
                if let Some(serial) = &fault.token {
                    self.named(serial)?;
                }
                return Ok(Answer::Fault(self.faults.add(fault)));
            }
            Command::Clear { fault } => {
                if !self.faults.clear(fault) {
                    return Err("there is no such fault".into());
                }
            }
            Command::Release => self.releases += 1,
            Command::Heal => self.heal(),
            Command::LogOut { token } => self.each(token, |state, at| state.tokens[at].log_out())?,
            Command::Die { token, opens, until } => self.each(token, |state, at| {
                state.tokens[at].dead = Some(Death { opens, until, told: false });
            })?,
            Command::Remove { token } => self.each(token, |state, at| {
                state.end_sessions(at);
                state.tokens[at].present = false;
            })?,
            Command::Insert { token, slot, seen } => self.each(token, |state, at| {
                let token = &mut state.tokens[at];
                let slot = slot.unwrap_or(token.slot);
                match seen {
                    Seen::AtOnce => (token.slot, token.present, token.arriving) = (slot, true, None),
                    Seen::Reinitialised => token.arriving = Some(slot),
                }
            })?,
            Command::Restart { token } => {
                self.each(token, |state, at| {
                    state.end_sessions(at);
                    state.tokens[at].handles.restart();
                })?;
                self.sessions.restart_numbers();
            }
            Command::Reshuffle { token } => self.each(token, |state, at| state.tokens[at].handles.reshuffle())?,
            Command::Pin { token, pin } => {
                self.each(token, |state, at| state.tokens[at].login.set_pin(pin.as_bytes()))?;
            }
            Command::TriesLeft { token, tries } => {
                self.each(token, |state, at| state.tokens[at].login.tries_left = tries)?;
            }
            Command::Counts => return Ok(Answer::Counts(Box::new(self.counts()))),
            Command::Await { .. } => return Err("a command to wait does not run under the lock".into()),
        }
        Ok(Answer::Done)
    }

    fn each(&mut self, token: Option<String>, mut done: impl FnMut(&mut State, usize)) -> Result<(), String> {
        let places = match token {
            None => 0..self.tokens.len(),
            Some(serial) => {
                let place = self.named(&serial)?;
                place..place + 1
            }
        };
        places.for_each(|place| done(self, place));
        Ok(())
    }

    fn named(&self, serial: &str) -> Result<usize, String> {
        let place = self.tokens.iter().position(|token| token.serial == serial);
        place.ok_or_else(|| format!("there is no token with the serial number {serial:?}"))
    }

    fn heal(&mut self) {
        self.faults.clear(None);
        self.releases += 1;
        for token in &mut self.tokens {
            token.dead = None;
            (token.sessions_max, token.sessions_announced, token.idle_limit) = (None, false, None);
            token.login.unlock();
            token.present |= token.arriving.is_none();
        }
    }
}
