//! The pool's decisions, as a state machine without thread, clock, lock or I/O.
//!
//! [`Core::step`] is told what happened and when, and answers with what is to be done. The same events at the same
//! times give the same actions, jitter included.

mod admission;
mod budget;
mod costs;
mod deadlines;
mod dice;
mod event;
mod fleet;
mod hash;
mod jobs;
mod pace;
mod placement;
mod queues;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use segl_hsm::{Error, Kind, ModuleId, Retry, Signature, Signed};

pub use self::fleet::Obstacle;
pub use event::{Action, Alarm, Call, CallId, CallResult, Event, Generation, SessionId};

use self::{
    budget::Budget,
    costs::Costs,
    deadlines::Deadlines,
    fleet::{Fleet, GivenUp, Taken},
    jobs::{Entry, Jobs, Place},
    queues::{Group, Queues},
};
use crate::{Attempt, Attempts, Completion, Counters, Discard, Failure, Fate, Rules, Snapshot, TokenSet, Work};

/// How long after a job was asked back it is asked back again.
const TAKE_BACK_AGAIN_NS: u64 = 100_000_000;

/// A token as Core knows it.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    /// The operator's name for it
    pub name: Arc<str>,
    /// Most sessions to hold open
    pub sessions: u16,
    /// The module it belongs to
    pub module: ModuleId,
    /// How long a call may take, from when it can have begun, before it is waited for no longer
    pub stuck_after_ns: u64,
    /// How long a session may stand idle before the token is reminded of it; `u64::MAX` for never
    pub keep_alive_ns: u64,
    /// Whether it is used before those that are not
    pub preferred: bool,
}

/// A preferred token without sessions, its calls given up after half a minute, and no keep-alive.
impl Default for TokenSpec {
    fn default() -> Self {
        TokenSpec {
            name: "".into(),
            sessions: 0,
            module: ModuleId(0),
            stuck_after_ns: 30_000_000_000,
            keep_alive_ns: u64::MAX,
            preferred: true,
        }
    }
}

/// The state machine. `P` is what a job carries for the token; Core clones it for each attempt and never looks at it.
#[derive(Debug)]
pub struct Core<P> {
    rules: Rules,
    jobs: Jobs<P>,
    queues: Queues,
    costs: Costs,
    deadlines: Deadlines,
    fleet: Fleet,
    budget: Budget,
    /// The tokens of each route
    routes: Vec<TokenSet>,
    /// The tokens of the own site
    preferred: TokenSet,
    /// When a job that is held for a better token may go to another
    held_until_ns: Option<u64>,
    counters: Counters,
    draining: bool,
    next_call: u64,
    /// The token that is served first next time
    first_token: usize,
}

impl<P: Clone> Core<P> {
    /// A pool of these tokens, all of them out until they join. Sessions are numbered through, in their order.
    ///
    /// # Panics
    /// With more tokens than a [`TokenSet`] holds, more than 65,535 sessions, or rules that [`Rules::check`] refuses.
    pub fn new(rules: Rules, tokens: &[TokenSpec]) -> Self {
        if let Err(error) = rules.check() {
            panic!("{error}");
        }
        let fleet = Fleet::new(tokens, &rules);
        Core {
            jobs: Jobs::new(),
            queues: Queues::new(tokens.len(), rules.signature_one_in, rules.bulk_one_in),
            costs: Costs::new(tokens.len(), rules.service_guess_ns),
            deadlines: Deadlines::default(),
            fleet,
            budget: Budget::new(&rules, tokens.iter().map(|token| u32::from(token.sessions)).sum()),
            routes: Vec::new(),
            preferred: (0..).zip(tokens).filter(|(_, token)| token.preferred).map(|(index, _)| index).collect(),
            held_until_ns: None,
            counters: Counters::default(),
            draining: false,
            next_call: 0,
            first_token: 0,
            rules,
        }
    }

    /// Takes one event in. Times never run backwards.
    pub fn step(&mut self, now_ns: u64, event: Event<P>, out: &mut Vec<Action<P>>) {
        self.step_all(now_ns, [event], out);
    }

    /// Takes several events in before it hands out work: a burst of jobs is shared among the sessions as one, and a
    /// batch that comes back is understood as a whole.
    pub fn step_all(&mut self, now_ns: u64, events: impl IntoIterator<Item = Event<P>>, out: &mut Vec<Action<P>>) {
        for event in events {
            self.apply(now_ns, event, out);
        }
        self.expire(now_ns, out);
        self.answer_hopeless(now_ns, out);
        self.dispatch(now_ns, out);
        self.open_more(now_ns, out);
        debug_assert_eq!(self.counters.submitted, self.counters.completed() + self.jobs.len() as u64);
    }

    /// When [`Event::Timer`] is due if nothing else happens. It may be early, never late.
    pub fn next_timeout_ns(&self) -> Option<u64> {
        let due_ns = [self.deadlines.next_ns(), self.fleet.next_due_ns(), self.next_release_ns()];
        due_ns.into_iter().flatten().min()
    }

    /// Whether a session is spoilt by this error: the rest of its batch is then skipped.
    pub fn ends_batch(error: &Error) -> bool {
        error.verdict().rung != segl_hsm::Rung::None
    }

    /// How many tokens there are.
    pub fn tokens(&self) -> u16 {
        self.fleet.tokens.len() as u16
    }

    /// Sessions that are open, being opened or being closed; what was given up as stuck is not among them.
    pub fn sessions_out(&self) -> usize {
        self.fleet.sessions_out()
    }

    /// Jobs that were accepted and are not completed.
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Threads that were given up as stuck in a token's code and have not come back.
    pub fn threads_stuck(&self) -> usize {
        self.fleet.threads_stuck()
    }

    /// When a call may have to be given up as stuck: whoever tells [`Event::Timer`] then, first tells all that is done.
    pub fn next_stuck_ns(&self) -> Option<u64> {
        self.fleet.next_stuck_ns()
    }

    /// Whether some session could sign with the keys of this route now.
    pub fn route_usable(&self, route: crate::RouteId) -> bool {
        self.routes.get(route.0 as usize).is_some_and(|tokens| self.sessions_of(*tokens) > 0)
    }

    /// What stands in the way of [`Event::Reinitialise`].
    pub fn obstacle(&self, token: u16) -> Option<Obstacle> {
        self.fleet.obstacle(token)
    }

    /// The state of everything.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            tokens: self.fleet.snapshot(),
            queues: self.queue_snapshots(),
            counters: self.counters,
            retries_left: self.budget.left(),
            running: self.jobs.len() as u32 - self.queues.len(),
            draining: self.draining,
            route_usable: self.routes.iter().map(|tokens| self.sessions_of(*tokens) > 0).collect(),
        }
    }

    fn apply(&mut self, now_ns: u64, event: Event<P>, out: &mut Vec<Action<P>>) {
        match event {
            Event::Submit(job) => self.submit(now_ns, job, out),
            Event::Cancel { inbox, tag } => self.cancel(now_ns, inbox, tag, out),
            Event::Returned { session, generation, call, result, started_ns, token_ns } => {
                let begun = matches!(result, CallResult::Signed(_) | CallResult::Failed(_));
                let ended_ns = begun.then(|| started_ns.saturating_add(token_ns).min(now_ns));
                let taken = self.fleet.take_call(session, generation, call, ended_ns);
                if let (Taken::Stray { .. } | Taken::Late { .. }, CallResult::Failed(error)) = (taken, &result) {
                    self.fleet.failed_late(now_ns, session, generation, error, out);
                }
                match taken {
                    Taken::Batch { slot, token } | Taken::Stray { slot, token } => {
                        let own = matches!(taken, Taken::Batch { .. });
                        self.returned(now_ns, session, own, slot, token, result, started_ns, token_ns, out);
                    }
                    Taken::Late { reference, token } => {
                        self.counters.stale += 1;
                        discard_late(reference, token, &result, out);
                    }
                    Taken::Unknown => self.counters.stale += 1,
                }
                if !matches!(taken, Taken::Batch { .. }) {
                    self.fleet.settle(now_ns, session, generation, out);
                }
            }
            Event::Opened { session, generation, result } => {
                let known = self.fleet.opened(now_ns, session, generation, result, out);
                self.counters.stale += u64::from(!known);
            }
            Event::LoggedIn { session, generation, result } => {
                if let Err(error) = &result {
                    self.fleet.failed_late(now_ns, session, generation, error, out);
                }
                let known = self.fleet.logged_in(now_ns, session, generation, result, out);
                self.counters.stale += u64::from(!known);
            }
            Event::Closed { session, generation } => {
                let known = self.fleet.closed(now_ns, session, generation, out);
                self.counters.stale += u64::from(!known);
            }
            Event::KeptAlive { session, generation, result } => {
                if let Err(error) = &result {
                    self.fleet.failed_late(now_ns, session, generation, error, out);
                }
                let known = self.fleet.kept_alive(now_ns, session, generation, result, out);
                self.counters.stale += u64::from(!known);
            }
            Event::Reinitialised { module: _, session, generation, result } => {
                let known = self.fleet.reinitialised(now_ns, session, generation, result, out);
                self.counters.stale += u64::from(!known);
            }
            Event::Gone { session, generation } => match self.fleet.gone(now_ns, session, generation, out) {
                Some(calls) => calls.into_iter().for_each(|call| self.give_up(now_ns, call, out)),
                None => self.counters.stale += 1,
            },
            Event::Timer => {
                self.give_up_stuck(now_ns, out);
                self.fleet.keep_appointments(now_ns, out);
            }
            Event::Vouch { token, round, ok } => self.fleet.vouch(now_ns, token, round, ok, out),
            Event::Join { token } => self.fleet.join(now_ns, token, out),
            Event::Leave { token } => self.fleet.leave(now_ns, token, out),
            Event::Refresh { token } => self.fleet.refresh(now_ns, token, out),
            Event::Reinitialise { token } => self.fleet.reinitialise(now_ns, token, out),
            Event::Routes(routes) => {
                self.routes.resize(self.routes.len().max(routes.len()), TokenSet::EMPTY);
                let all: TokenSet = (0..self.tokens()).collect();
                for (route, tokens) in self.routes.iter_mut().zip(routes) {
                    *route = tokens.intersection(all);
                }
            }
            Event::Drain => self.draining = true,
            Event::Abandon => self.abandon(now_ns, out),
        }
    }

    fn cancel(&mut self, now_ns: u64, inbox: u16, tag: u64, out: &mut Vec<Action<P>>) {
        let Some(slot) = self.jobs.find(inbox, tag) else { return };
        match self.jobs[slot].place {
            Place::Waiting { .. } => self.fail_waiting(now_ns, slot, Failure::Cancelled, out),
            Place::Running { .. } => self.jobs[slot].cancelled = true,
        }
    }

    /// A call came back; `own` if its session was not given up meanwhile.
    #[allow(clippy::too_many_arguments)] // the fields of one event
    fn returned(
        &mut self,
        now_ns: u64,
        session: SessionId,
        own: bool,
        slot: u32,
        token: u16,
        result: CallResult,
        started_ns: u64,
        token_ns: u64,
        out: &mut Vec<Action<P>>,
    ) {
        let fate = fate_of(&result);
        if fate.is_none() {
            self.queues.refund(&self.jobs, slot, token);
        }
        let entry = &mut self.jobs[slot];
        if let Some(fate) = fate {
            let (code, call) = match &result {
                CallResult::Failed(error) => (Some(error.code()), Some(error.context())),
                _ => (None, None),
            };
            entry.attempts.push(Attempt { token, session: session.0, fate, code, call, token_us: as_us(token_ns) });
            entry.started_ns = started_ns;
            self.fleet.tokens[usize::from(token)].calls += 1;
        }
        match result {
            CallResult::Signed(signature) => {
                self.costs.learn(entry.cost_row, token, token_ns);
                if entry.job.work == Work::Sign {
                    let of = &mut self.fleet.tokens[usize::from(token)];
                    of.service.learn(token_ns);
                    of.times.count(token_ns);
                    if own {
                        self.fleet.signed(session);
                    }
                }
                self.complete(now_ns, slot, Ok(signature), out);
            }
            CallResult::Failed(error) => {
                self.fleet.tokens[usize::from(token)].errors += 1;
                if error.verdict().retry == Retry::Elsewhere {
                    self.costs.refused(entry.cost_row, token);
                }
                if own {
                    self.fleet.failed(now_ns, session, &error, started_ns, out);
                }
                self.retry_or_fail(now_ns, slot, token, Failure::Token(error), out);
            }
            CallResult::Expired => {
                self.complete(now_ns, slot, Err(Failure::Expired), out);
            }
            CallResult::Skipped => {
                self.wait_again(now_ns, slot, out);
            }
        }
        if own {
            self.fleet.end_batch(now_ns, session, out);
        }
    }

    /// Waits no longer for calls that have not returned in time, each of them the first of its batch; the others of
    /// the batch are asked back.
    fn give_up_stuck(&mut self, now_ns: u64, out: &mut Vec<Action<P>>) {
        while let Some(stuck) = self.fleet.find_stuck(now_ns) {
            let call = self.fleet.give_up_head(now_ns, stuck);
            self.fleet.give_up(now_ns, stuck, out);
            if let Some(call) = call {
                self.give_up(now_ns, call, out);
            }
        }
    }

    /// Waits no longer for a call: what became of it is unknown.
    fn give_up(&mut self, now_ns: u64, call: GivenUp, out: &mut Vec<Action<P>>) {
        self.note_given_up(now_ns, call);
        self.retry_or_fail(now_ns, call.slot, call.token, Failure::Stuck, out);
    }

    fn note_given_up(&mut self, now_ns: u64, call: GivenUp) {
        let GivenUp { id, token, slot, since_ns, .. } = call;
        let entry = &mut self.jobs[slot];
        let token_us = as_us(now_ns.saturating_sub(since_ns));
        let attempt = Attempt { token, session: id.0, fate: Fate::Unknown, code: Some("stuck"), call: None, token_us };
        entry.attempts.push(attempt);
        entry.started_ns = since_ns;
        self.fleet.remember(call, entry.job.reference);
    }

    /// Tries a failed job again where that is allowed and can help, else answers with the failure.
    fn retry_or_fail(&mut self, now_ns: u64, slot: u32, token: u16, failure: Failure, out: &mut Vec<Action<P>>) {
        let verdict = failure.verdict();
        let entry = &self.jobs[slot];
        let unknown = verdict.signed == Signed::Unknown;
        self.counters.unknown += u64::from(unknown);

        let probe = entry.job.probe;
        let (lane, group) = entry.place.origin();
        let allowed = (!unknown || entry.job.repeatable)
            && !entry.cancelled
            && entry.attempts.count() <= self.retries_max()
            && entry.job.deadline_ns > now_ns;
        let tokens = self.queues.groups()[usize::from(group)].tokens;
        let others = tokens.without(TokenSet::only(token));
        let home = self.queues.groups()[usize::from(entry.home)].tokens;
        let tokens = match verdict.retry {
            Retry::Never => TokenSet::EMPTY,
            Retry::Elsewhere if self.hopeful(others, probe) => others,
            // Whatever was wrong with a session of this token, the last try is worth another one.
            Retry::Here if entry.attempts.count() == self.retries_max() && self.hopeful(others, probe) => others,
            // With no other token, another session of this one is better than an error.
            Retry::Here | Retry::Elsewhere if self.hopeful(tokens, probe) => tokens,
            Retry::Here | Retry::Elsewhere => home,
        };
        if !allowed || !self.hopeful(tokens, probe) {
            return self.complete(now_ns, slot, Err(failure), out);
        }
        if !self.budget.spend() {
            self.counters.retries_refused += 1;
            return self.complete(now_ns, slot, Err(failure), out);
        }
        self.counters.retries += 1;
        let group = self.queues.group(tokens, probe);
        self.jobs[slot].place = Place::Waiting { lane, group };
        self.wait(now_ns, slot);
    }

    /// Puts a job that was not begun back where it stood.
    fn wait_again(&mut self, now_ns: u64, slot: u32, out: &mut Vec<Action<P>>) {
        let entry = &self.jobs[slot];
        if entry.cancelled {
            self.complete(now_ns, slot, Err(Failure::Cancelled), out);
        } else if entry.job.deadline_ns <= now_ns {
            // Its place among the deadlines may be gone.
            self.complete(now_ns, slot, Err(Failure::Expired), out);
        } else {
            self.wait(now_ns, slot);
        }
    }

    /// Puts a job into the queue it names.
    fn wait(&mut self, now_ns: u64, slot: u32) {
        let (_, group) = self.jobs[slot].place.origin();
        if self.queues.groups()[usize::from(group)].depth == [0; 3] {
            let sessions = self.sessions_for(self.queues.groups()[usize::from(group)].tokens.iter());
            self.queues.pace(group).begin(now_ns, sessions);
        }
        self.queues.push(&mut self.jobs, slot);
    }

    /// Answers waiting jobs whose deadline has come. Those in a token are answered by the token; those that wait behind
    /// another in a session's batch are asked back.
    fn expire(&mut self, now_ns: u64, out: &mut Vec<Action<P>>) {
        while let Some(slot) = self.deadlines.pop_due(now_ns, &self.jobs) {
            if matches!(self.jobs[slot].place, Place::Waiting { .. }) {
                self.fail_waiting(now_ns, slot, Failure::Expired, out);
            } else if let Some((session, generation, call)) = self.jobs[slot].call {
                out.push(Action::TakeBack { session, generation, call });
                // Another thread may not have laid it before the session yet: so once more, if need be.
                self.deadlines.push(now_ns.saturating_add(TAKE_BACK_AGAIN_NS), slot, &self.jobs);
            }
        }
    }

    /// Answers jobs that wait only for tokens which are away: their owners can do better than to wait.
    fn answer_hopeless(&mut self, now_ns: u64, out: &mut Vec<Action<P>>) {
        if self.queues.len() == 0 {
            return;
        }
        for group in 0..self.queues.groups().len() as u16 {
            let &Group { tokens, depth, probe, .. } = &self.queues.groups()[usize::from(group)];
            if depth.iter().all(|&depth| depth == 0) || self.hopeful(tokens, probe) {
                continue;
            }
            let failure = self.unavailable(now_ns, tokens);
            for lane in 0..self.queues.lanes() {
                while let Some(slot) = self.queues.first_of(lane, group) {
                    let home = self.jobs[slot].home;
                    if self.hopeful(self.queues.groups()[usize::from(home)].tokens, probe) {
                        // It was to be tried again elsewhere. Where it failed is better than nowhere.
                        self.queues.remove(&mut self.jobs, slot);
                        self.jobs[slot].place = Place::Waiting { lane, group: home };
                        self.wait(now_ns, slot);
                    } else {
                        self.fail_waiting(now_ns, slot, failure.clone(), out);
                    }
                }
            }
        }
    }

    fn abandon(&mut self, now_ns: u64, out: &mut Vec<Action<P>>) {
        for call in self.fleet.abandon() {
            self.note_given_up(now_ns, call);
            self.counters.unknown += 1;
            self.complete(now_ns, call.slot, Err(Failure::Stuck), out);
        }
    }

    /// Opens further sessions for what still waits, when all sessions of its tokens are busy.
    fn open_more(&mut self, now_ns: u64, out: &mut Vec<Action<P>>) {
        if self.queues.len() == 0 {
            return;
        }
        for token in 0..self.tokens() {
            if self.fleet.has_room(token) && !self.fleet.has_idle(token) {
                let groups = self.queues.groups().iter().filter(|group| group.tokens.contains(token));
                let waiting = groups.flat_map(|group| group.depth).sum();
                self.fleet.open_for(now_ns, token, waiting, out);
            }
        }
    }

    /// How often a job may be tried again at most.
    fn retries_max(&self) -> u8 {
        self.rules.retries_max.min(Attempts::MAX as u8 - 1)
    }

    /// Sessions that sign, of all these tokens.
    fn sessions_of(&self, tokens: TokenSet) -> u32 {
        tokens.iter().map(|token| u32::from(self.fleet.signing_sessions(token))).sum()
    }

    /// Whether waiting for one of these tokens makes sense.
    fn hopeful(&self, tokens: TokenSet, probe: bool) -> bool {
        tokens.iter().any(|token| self.fleet.hopeful(token, probe))
    }

    /// Answers a job that waits.
    fn fail_waiting(&mut self, now_ns: u64, slot: u32, failure: Failure, out: &mut Vec<Action<P>>) {
        self.queues.remove(&mut self.jobs, slot);
        self.complete(now_ns, slot, Err(failure), out);
    }

    /// Answers a job that is in no queue and no session any more. The only place where a job ends.
    fn complete(&mut self, now_ns: u64, slot: u32, result: Result<Signature, Failure>, out: &mut Vec<Action<P>>) {
        let Entry { job, submitted_ns, attempts, started_ns, .. } = self.jobs.remove(slot);
        let left_ns = if attempts.is_empty() { now_ns } else { started_ns };
        let completion = Completion {
            tag: job.tag,
            result,
            queue_us: as_us(left_ns.saturating_sub(submitted_ns)),
            token_us: attempts.last().map_or(0, |attempt| attempt.token_us),
            token: attempts.last().map(|attempt| attempt.token),
            attempts,
        };
        self.emit(job.inbox, completion, job.input, out);
    }

    fn emit(&mut self, inbox: u16, completion: Completion, input: P, out: &mut Vec<Action<P>>) {
        let counters = &mut self.counters;
        *match &completion.result {
            Ok(_) => &mut counters.signed,
            Err(Failure::Expired) => &mut counters.expired,
            Err(Failure::Cancelled) => &mut counters.cancelled,
            Err(Failure::Overloaded { .. }) => &mut counters.overloaded,
            Err(Failure::TenantLimit { .. }) => &mut counters.tenant_limit,
            Err(Failure::KeyUnavailable { .. }) => &mut counters.key_unavailable,
            Err(Failure::Draining) => &mut counters.draining,
            Err(Failure::Stuck) => &mut counters.stuck,
            Err(Failure::Token(_)) => &mut counters.token_error,
        } += 1;
        out.push(Action::Complete { inbox, completion, input });
    }
}

/// What became of a call that entered the token; none if it did not.
fn fate_of(result: &CallResult) -> Option<Fate> {
    match result {
        CallResult::Signed(_) => Some(Fate::Released),
        CallResult::Failed(error) => Some(match error.verdict().signed {
            Signed::Unknown => Fate::Unknown,
            Signed::No if error.kind() == Kind::WrongSignature => Fate::Discarded(Discard::WrongSignature),
            Signed::No => Fate::Failed,
        }),
        CallResult::Expired | CallResult::Skipped => None,
    }
}

/// Tells of a call that came back after it was given up, unless that says nothing new of its fate.
fn discard_late<P>(reference: u64, token: u16, result: &CallResult, out: &mut Vec<Action<P>>) {
    let signed = match result {
        CallResult::Signed(_) => true,
        CallResult::Failed(error) if error.verdict().signed == Signed::Unknown => return,
        // It counts as one where signatures are counted, and nobody gets to see it either.
        CallResult::Failed(error) if error.kind() == Kind::WrongSignature => true,
        CallResult::Failed(_) | CallResult::Expired | CallResult::Skipped => false,
    };
    out.push(Action::Alarm(Alarm::Discarded { reference, token, reason: Discard::Late, signed }));
}

/// Microseconds, as far as the answer can count them: 71 minutes.
fn as_us(ns: u64) -> u32 {
    u32::try_from(ns / 1000).unwrap_or(u32::MAX)
}
