//! Coming back: a token that was away signs nobody's job before its self-test has passed.
//!
//! After its login it is on probation and gets probes only. Whoever watches tests it and says how that went: it is
//! ready, or away again for a pause that grows. The first time it is here is no different. Each probation has a number:
//! a test that was made in an earlier one says nothing of what the token is now.

use segl_hsm::{Error, Kind};

use super::Fleet;
use crate::core::event::{Action, Alarm};

impl Fleet {
    pub(in crate::core) fn vouch<P>(
        &mut self,
        now_ns: u64,
        index: u16,
        round: u64,
        ok: bool,
        out: &mut Vec<Action<P>>,
    ) {
        let token = &mut self.tokens[usize::from(index)];
        if !token.is_on_probation() || round != token.rungs.probations {
            return;
        }
        if ok {
            token.vouched = true;
            token.refusals = 0;
            token.rung_failed = 0;
            if std::mem::take(&mut token.away) {
                out.push(Action::Alarm(Alarm::TokenBack { token: index }));
            }
            let module = token.module;
            self.module_works(module);
        } else {
            token.refusals = token.refusals.saturating_add(1);
            let pause_ns = self.dice.pause_ns(token.refusals, self.backoff_ns.start, self.backoff_ns.end);
            token.retry_ns = now_ns.saturating_add(pause_ns);
            let error = Error::of(Kind::Other, "self-test", "nobody vouches for the token");
            if token.last_error.is_none() {
                token.note(now_ns, error.clone());
            }
            self.give_up_generation(now_ns, index, out);
            self.away_unless_signing(index, error, out);
        }
        self.tend(now_ns, index, out);
    }
}
