//! Which session takes which job: handing out batches, and the preference among tokens.
//!
//! A job belongs to no token until a session takes it. Among the tokens that can serve it, one is *better* than
//! another if that refuses this key again and again and it does not; or if it is on the own site and the other is not;
//! or, both being alike in that, if it needs less than half the other's time for this key. A token takes a job for which there are better ones only when
//! - none of them serves (away, on probation, taken out), or
//! - none of their sessions is free, and what waits for them would keep them busy for longer than this token needs to
//!   be done with the job (the threshold that is optimal for two unequal servers; Lin, Kumar 1984), or
//! - the job has waited longer than that already (and longer than [`PATIENCE_NS`]): whatever was expected did not come
//!   about, a stall for instance, or
//! - it was held back for being slow or refusing, and was asked so long ago that this may have changed
//!   ([`SLOW_FOR_NS`]). A token that refuses takes nothing for the length of a wait.
//!
//! So Core is *work conserving* in this sense: after each step, a session that is free means that of each set of tokens
//! it serves either nothing waits, or the job whose turn it is on its token waits for better tokens, whose sessions
//! are all busy and which should come to it sooner than this one could be done with it. In particular, where all tokens
//! are alike, and for the best among them, no session is free while something waits.

use crate::{
    TokenSet,
    core::{
        Action, Call, CallId, Core,
        queues::{Group, Next},
    },
};

/// For less than this nobody is held back or let go by the clock: it is about what a wake-up of the timer is worth.
const PATIENCE_NS: u64 = 1_000_000;
/// A token is slower than another if it takes more than so many times as long: below that they are alike, since
/// measured times swing with the load.
const SLOWER: u64 = 2;
/// While several tenants or classes share a token, a batch is only so great a part of what it may be: others wait for a
/// session to come back, whether what it holds is theirs or a flood. A tenant alone has the greater batches' gain.
const SHARED_PART: u64 = 4;
/// How long a token counts as slow after it was last asked; then one job may see whether that is still so.
const SLOW_FOR_NS: u64 = 10_000_000_000;

/// Whether a token may take a job now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Yes,
    /// A better token has a session free: it is to be asked first
    AfterBetter,
    /// A better token should come to it sooner; not so any more at this time
    Until(u64),
    /// The token is on probation, and this is no probe
    OnProbation,
}

/// Whether something was passed over.
#[derive(Debug, Default)]
struct Passed {
    over: bool,
    /// Since a better token has a session free
    for_idle: bool,
}

/// Tokens that are better for a job than a certain one.
#[derive(Clone, Copy, Debug)]
struct Better {
    tokens: TokenSet,
    sessions: u32,
    idle: bool,
}

impl<P: Clone> Core<P> {
    /// Hands work to idle sessions: to each its share of what waits, so that none stands idle while another holds
    /// more than one job; and not more than a bounded time's worth, so that nobody urgent waits behind it.
    pub(super) fn dispatch(&mut self, now_ns: u64, out: &mut Vec<Action<P>>) {
        self.held_until_ns = None;
        if self.queues.len() == 0 {
            return;
        }
        // Better tokens are asked before the others, and whoever passed something over is asked again when others have
        // taken what stood in front. Which tokens are better may differ from key to key, so that two may wait for each
        // other: in the end a free session that has declined holds nobody back.
        let mut passed = Passed::default();
        let mut in_the_end = false;
        loop {
            let mut handed = false;
            let tokens = self.fleet.tokens.len();
            for offset in 0..tokens {
                let token = ((self.first_token + offset) % tokens) as u16;
                while self.fleet.has_idle(token) && self.hand_batch(now_ns, token, in_the_end, &mut passed, out) {
                    handed = true;
                }
            }
            let Passed { over, for_idle } = std::mem::take(&mut passed);
            if !over || !handed && (in_the_end || !for_idle) {
                break;
            }
            in_the_end |= !handed;
        }
        self.first_token = (self.first_token + 1) % self.fleet.tokens.len();
    }

    /// A token with a free session and a job it might take, for whoever checks Core: after a step there is none. Where
    /// no token is better than another, that is the case as soon as anything waits for a token with a free session.
    pub fn negligent_token(&mut self, now_ns: u64) -> Option<u16> {
        (0..self.tokens()).find(|&token| {
            self.queues.begin_round();
            while let Some(next) = self.queues.peek(&self.jobs, token).filter(|_| self.fleet.has_idle(token)) {
                if self.turn(now_ns, token, next, 0, true) == Turn::Yes {
                    return true;
                }
                self.queues.pass_over(next.group, token);
            }
            false
        })
    }

    /// When a job that is held for a better token may go to another.
    pub(super) fn next_release_ns(&self) -> Option<u64> {
        self.held_until_ns
    }

    /// Hands a batch to a session of the token, if there is something for it.
    fn hand_batch(
        &mut self,
        now_ns: u64,
        token: u16,
        in_the_end: bool,
        passed: &mut Passed,
        out: &mut Vec<Action<P>>,
    ) -> bool {
        self.queues.begin_round();
        let mut share = 0;
        let mut given = 0;
        let mut batch_ns = 0u64;
        let mut session = None;
        let part = if self.queues.is_shared(token, now_ns) { SHARED_PART } else { 1 };
        let most_ns = self.rules.batch_time_ns / part;
        while let Some(next) = self.queues.peek(&self.jobs, token) {
            match self.turn(now_ns, token, next, batch_ns, in_the_end) {
                Turn::Yes => {}
                Turn::AfterBetter => {
                    *passed = Passed { over: true, for_idle: true };
                    self.queues.pass_over(next.group, token);
                    continue;
                }
                Turn::OnProbation => {
                    self.queues.pass_over(next.group, token);
                    continue;
                }
                Turn::Until(held_ns) => {
                    passed.over = true;
                    self.held_until_ns = Some(self.held_until_ns.map_or(held_ns, |other_ns| other_ns.min(held_ns)));
                    self.queues.pass_over(next.group, token);
                    continue;
                }
            }
            let row = self.jobs[next.slot].cost_row;
            let cost_ns = self.costs.on_token_ns(row, token);
            if given == 0 {
                share = self.share(now_ns, token, row).min(u32::from(self.rules.batch_max));
            } else if batch_ns.saturating_add(cost_ns) > most_ns {
                break;
            }
            batch_ns = batch_ns.saturating_add(cost_ns);
            let place = *session.get_or_insert_with(|| self.fleet.begin_batch(now_ns, token));
            self.hand(now_ns, token, next, cost_ns, place, out);
            given += 1;
            if given >= share {
                break;
            }
        }
        self.counters.batches += u64::from(given > 0);
        given > 0
    }

    fn hand(
        &mut self,
        now_ns: u64,
        token: u16,
        next: Next,
        cost_ns: u64,
        (session, generation): (super::SessionId, super::Generation),
        out: &mut Vec<Action<P>>,
    ) {
        let slot = next.slot;
        self.queues.take(&mut self.jobs, token, next, cost_ns, now_ns);
        self.costs.asked(self.jobs[slot].cost_row, token, now_ns, SLOW_FOR_NS);
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.fleet.add_call(session, id, slot);
        self.jobs[slot].call = Some((session, generation, id));
        let job = &self.jobs[slot].job;
        debug_assert!(job.deadline_ns > now_ns, "the expired were answered before");
        let call = Call {
            id,
            work: job.work,
            key: job.key,
            algorithm: job.algorithm,
            input: job.input.clone(),
            deadline_ns: job.deadline_ns,
        };
        out.push(Action::Sign { session, generation, call });
    }

    /// Whether the token may take the job whose turn it is, with so much in the batch before it.
    fn turn(&self, now_ns: u64, token: u16, next: Next, batch_ns: u64, in_the_end: bool) -> Turn {
        let &Group { tokens, probe, .. } = &self.queues.groups()[usize::from(next.group)];
        if !probe && self.fleet.is_on_probation(token) {
            return Turn::OnProbation;
        }
        let entry = &self.jobs[next.slot];
        let better = self.better(now_ns, tokens, entry.cost_row, token);
        if better.sessions == 0 {
            return Turn::Yes;
        }
        if better.idle {
            return if in_the_end { Turn::Yes } else { Turn::AfterBetter };
        }
        if self.costs.refuses(entry.cost_row, token) {
            return Turn::Until(now_ns.saturating_add(SLOW_FOR_NS));
        }
        let own_ns = self.costs.on_token_ns(entry.cost_row, token);
        let held_ns = entry.submitted_ns.saturating_add(own_ns.max(PATIENCE_NS));
        if self.wait_for(better) > batch_ns.saturating_add(own_ns) || held_ns <= now_ns {
            return Turn::Yes;
        }
        Turn::Until(held_ns)
    }

    /// How long these tokens' sessions will be busy with what waits for them.
    fn wait_for(&self, better: Better) -> u64 {
        self.queues.backlog_for_ns(better.tokens) / u64::from(better.sessions)
    }

    /// The tokens of a set that are better than one of them for what this row of the table of costs stands for.
    fn better(&self, now_ns: u64, tokens: TokenSet, row: u16, token: u16) -> Better {
        let mut better = Better { tokens: TokenSet::EMPTY, sessions: 0, idle: false };
        if tokens == TokenSet::only(token) {
            return better;
        }
        let preferred = self.preferred.contains(token);
        let own_ns = self.costs.on_token_ns(row, token);
        let own_row_is_old = || self.costs.is_old(row, token, now_ns, SLOW_FOR_NS);
        let refuses = self.costs.refuses(row, token) && !own_row_is_old();
        for other in tokens.iter() {
            let is_better = if refuses != self.costs.refuses(row, other) {
                refuses
            } else if preferred == self.preferred.contains(other) {
                own_ns / SLOWER > self.costs.on_token_ns(row, other) && !own_row_is_old()
            } else {
                !preferred
            };
            if is_better && self.fleet.signing_sessions(other) > 0 {
                better.tokens = better.tokens.union(TokenSet::only(other));
                better.sessions += u32::from(self.fleet.possible_sessions(other));
                better.idle |= self.fleet.has_idle(other);
            }
        }
        better
    }

    /// A session's share of what waits for its token: over the sets of tokens it is in, what waits there for each
    /// session that takes part in it now, or will as soon as it is opened for what the others leave.
    fn share(&self, now_ns: u64, token: u16, row: u16) -> u32 {
        const ONE: u64 = 1 << 32;
        let mut share = 0;
        for group in self.queues.groups() {
            let depth: u32 = group.depth.iter().sum();
            if depth > 0 && group.tokens.contains(token) {
                let takes_part = |&other: &u16| {
                    let better = self.better(now_ns, group.tokens, row, other);
                    other == token || better.sessions == 0 || self.wait_for(better) > self.costs.on_token_ns(row, other)
                };
                let sessions = self.sessions_for(group.tokens.iter().filter(takes_part));
                share += u64::from(depth) * ONE / u64::from(sessions.max(1));
            }
        }
        share.div_ceil(ONE).max(1) as u32
    }

    /// Sessions that work for these tokens can count on: those that sign, and those that are opened when it waits.
    pub(super) fn sessions_for(&self, tokens: impl IntoIterator<Item = u16>) -> u32 {
        tokens.into_iter().map(|token| u32::from(self.fleet.possible_sessions(token))).sum()
    }
}
