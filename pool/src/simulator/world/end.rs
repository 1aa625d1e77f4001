//! The end of a run: all trouble is over, all heals, all is served, and the pool is emptied.

use super::World;
use crate::{
    Class, TokenSet, TokenState,
    core::Event,
    simulator::{
        script::{Burst, Ending, SECOND},
        thread::Thread,
        watch::promise,
    },
};

impl World {
    /// Nothing fails any more, and operators do what is theirs to do.
    pub(super) fn calm_down(&mut self) {
        if self.broken() {
            return;
        }
        self.calm = true;
        self.trace.deed(self.now_ns, || "all trouble is over".into());
        for index in 0..self.tokens.len() {
            self.tokens[index].recover_all();
            let token = index as u16;
            match self.state(token) {
                TokenState::Draining | TokenState::Drained => self.tell(vec![Event::Join { token }]),
                TokenState::Ready | TokenState::Probation => {}
                _ => self.tell(vec![Event::Refresh { token }]),
            }
        }
        let all = (0..self.tokens.len() as u16).collect();
        self.tell(vec![Event::Routes(vec![all])]);
    }

    /// Time enough for every pause there can be, one after the other.
    pub(super) fn healing_ns(&self) -> u64 {
        let rules = &self.script.rules;
        let stuck_ns = self.script.tokens.iter().map(|token| token.stuck_after_ns).max().unwrap_or_default();
        let failures = u64::from(rules.module_after) + 4;
        failures * (rules.backoff_max_ns + rules.module_backoff_max_ns)
            + 8 * stuck_ns
            + 2 * rules.session_count_retry_ns
            + 15 * SECOND
    }

    /// Tokens that nothing stands in the way of: no thread is inside their module for ever.
    fn servable(&self) -> TokenSet {
        let lost = |module: u32| {
            let inside = |thread: &&Thread| self.tokens[usize::from(thread.token)].plan.module == module;
            self.threads
                .iter()
                .filter(inside)
                .filter(|thread| thread.running.as_ref().is_some_and(|call| call.for_ever))
                .count()
        };
        let sound = |index: &usize| {
            let module = self.tokens[*index].plan.module;
            lost(module) == 0
        };
        (0..self.tokens.len()).filter(sound).map(|index| index as u16).collect()
    }

    pub(super) fn check_healed(&mut self) {
        if self.broken() {
            return;
        }
        for token in self.servable().iter() {
            let state = self.state(token);
            if state != TokenState::Ready {
                let detail = format!("token {token} is {state:?}");
                return self.watch.fail(promise::HEALS, detail);
            }
        }
    }

    /// All is well: whatever is asked now is served.
    pub(super) fn serve_at_last(&mut self) {
        if self.broken() || self.servable().is_empty() {
            return;
        }
        // What nobody has used for long may be stale: that is found out now.
        self.ask_for_everything();
        self.watch.healed = true;
        self.ask_for_everything();
        self.watch.healed = false;
        let unfinished = self.watch.unfinished();
        if !self.broken() && !unfinished.is_empty() {
            self.watch.fail(promise::SERVED, format!("jobs {unfinished:?} are not answered"));
        }
    }

    fn ask_for_everything(&mut self) {
        for class in Class::ALL {
            for tenant in 0..3 {
                self.submit(&Burst::at_last(tenant, class, 0));
            }
        }
        self.play_until(self.now_ns + 20 * SECOND);
    }

    pub(super) fn end(&mut self) {
        if self.broken() {
            return;
        }
        let tokens = self.tokens.len() as u16;
        if self.script.ending == Ending::Abandoned {
            for tenant in 0..2 {
                self.submit(&Burst { count: 30, ..Burst::at_last(tenant, Class::Bulk, 0) });
            }
        }
        let mut events = vec![Event::Drain];
        events.extend((0..tokens).map(|token| Event::Leave { token }));
        self.tell(events);
        if self.script.ending == Ending::Abandoned {
            // As the driver does: what is done is told, what has not begun is taken back.
            let mut events = Vec::new();
            for thread in &mut self.threads {
                events.append(&mut thread.answers);
                for call in thread.unbegun_calls() {
                    events.extend(thread.take_back(call, self.now_ns));
                }
            }
            self.tell(events);
            self.tell(vec![Event::Abandon]);
        }
        self.play_until(self.now_ns + 200 * SECOND);
        if self.broken() {
            return;
        }
        let unfinished = self.watch.unfinished();
        if !unfinished.is_empty() {
            self.watch.fail(promise::ENDS_ONCE, format!("jobs {unfinished:?} never end"));
        }
        let inside = |thread: &&Thread| thread.running.is_some() && thread.given_up.is_none();
        let stuck = self.threads.iter().filter(inside).count();
        let out = self.core.sessions_out();
        if out > stuck {
            self.watch.fail(promise::CLOSED, format!("{out} sessions are not closed, {stuck} threads are stuck"));
        }
        let made = self.tokens.iter().map(|token| token.made).sum();
        self.watch.check_accounts(made);
    }
}
