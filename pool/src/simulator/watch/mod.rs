//! What Core may never do. The watch hears all that Core hears and says, knows besides what the models did, and keeps
//! its own books; it asks Core for nothing but its snapshot.

mod jobs;
mod places;
mod shares;

use std::collections::BTreeMap;

use segl_hsm::{Kind, Rung};

use self::{
    jobs::{CallSeen, JobSeen},
    places::{PlaceSeen, TokenSeen},
    shares::Shares,
};
use super::script::Script;
use crate::{
    Discard, Job, Snapshot,
    core::{Action, Alarm, CallId, Event},
};

/// The promises that are watched, by the sentence that is printed when one is broken.
pub(super) mod promise {
    pub(crate) const ENDS_ONCE: &str = "each accepted job ends exactly once";
    pub(crate) const DEADLINE: &str = "no call starts at or after its job's deadline";
    pub(crate) const CALL_AS_ASKED: &str = "a call is what its job asked for, with a number of its own";
    pub(crate) const ONE_SESSION: &str = "a job is with one session at a time";
    pub(crate) const GENERATION: &str = "no session of an old generation is used or closed in a new one";
    pub(crate) const VOID: &str = "no session is used that is known to be void";
    pub(crate) const FREE: &str = "a session is asked for nothing while it owes an answer";
    pub(crate) const LOGGED_IN: &str = "nothing is signed before a login";
    pub(crate) const REINITIALISE: &str =
        "no reinitialisation with a call inside the module, a session open, or a healthy token";
    pub(crate) const REINITIALISE_EARNED: &str = "a module is begun anew only after its token failed often enough";
    pub(crate) const PIN: &str = "no PIN is tried twice after a refusal without an operator";
    pub(crate) const OPERATOR: &str = "a token that waits for its operator is left alone";
    pub(crate) const HEARD: &str = "what was tried before the operator spoke is not held against the token";
    pub(crate) const PROBATION: &str = "no client's job goes to a token on probation";
    pub(crate) const SESSION_CAP: &str = "no more sessions than the token gives";
    pub(crate) const DEPTH: &str = "queues are bounded";
    pub(crate) const RETRIES: &str = "no more attempts than allowed";
    pub(crate) const NO_RETRY: &str = "what is cancelled, or fails everywhere, is not tried again";
    pub(crate) const RETRY_BUDGET: &str = "retries keep within their budget";
    pub(crate) const DOUBT: &str = "a job in doubt that is not repeatable is never tried again, and the doubt is told";
    pub(crate) const STUCK_EARLY: &str = "no thread is given up before its time";
    pub(crate) const STUCK_THREADS: &str = "given-up threads are bounded";
    pub(crate) const STUCK: &str = "nothing waits for a stuck call";
    pub(crate) const ATTEMPTS: &str = "the attempts told are the calls that entered the token";
    pub(crate) const LATE: &str = "what comes too late is discarded and told, once";
    pub(crate) const ACCOUNTS: &str = "signatures made = released + discarded + in doubt";
    pub(crate) const FAIR: &str = "tenants share a token fairly";
    pub(crate) const STARVED: &str = "no class starves";
    pub(crate) const CONSERVING: &str = "no healthy session stands idle while its queue waits";
    pub(crate) const NEEDLESS: &str = "no error reaches a client that another attempt could have spared it";
    pub(crate) const ROUTE: &str = "a job goes only to the tokens of its route";
    pub(crate) const COUNTS: &str = "what Core tells of itself is true";
    pub(crate) const TIMER: &str = "the timer does not spin";
    pub(crate) const HEALS: &str = "after the faults everything heals without a restart";
    pub(crate) const SERVED: &str = "when all is well all that can be served is served";
    pub(crate) const CLOSED: &str = "every session is closed in the end";
    pub(crate) const PANIC: &str = "Core does not panic";
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The promise
    pub promise: &'static str,
    /// What happened instead
    pub detail: String,
    /// When, in virtual time
    pub at_ns: u64,
}

/// The books.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) now_ns: u64,
    pub(super) broken: Option<Violation>,
    script: Script,
    pub(super) jobs: BTreeMap<u64, JobSeen>,
    pub(super) calls: BTreeMap<CallId, CallSeen>,
    last_call: Option<CallId>,
    pub(super) places: Vec<PlaceSeen>,
    pub(super) tokens: Vec<TokenSeen>,
    /// Sessions are numbered as they are opened
    next_opened: u64,
    /// When each was asked for
    opened_ns: Vec<u64>,
    shares: Shares,
    submitted: u64,
    ended: u64,
    retried: u64,
    /// Late answers that must be told of in this step: reference, token, signed
    late: Vec<(u64, u16, bool)>,
    draining: bool,
    pub(super) abandoned: bool,
    /// Nothing must be refused or fail any more
    pub(super) healed: bool,
}

impl Watch {
    pub(super) fn new(script: &Script) -> Self {
        let token = |index: usize| (0..script.tokens[index].sessions).map(move |_| PlaceSeen::new(index as u16));
        Watch {
            now_ns: 0,
            broken: None,
            jobs: BTreeMap::new(),
            calls: BTreeMap::new(),
            last_call: None,
            places: (0..script.tokens.len()).flat_map(token).collect(),
            tokens: script.tokens.iter().map(|_| TokenSeen::default()).collect(),
            next_opened: 1,
            opened_ns: Vec::new(),
            shares: Shares::new(script),
            submitted: 0,
            ended: 0,
            retried: 0,
            late: Vec::new(),
            draining: false,
            abandoned: false,
            healed: false,
            script: script.clone(),
        }
    }

    /// A wrong PIN was tried.
    pub(super) fn refused(&mut self, token: u16) {
        let seen = &mut self.tokens[usize::from(token)];
        // One that was under way when the operator spoke was with the PIN of before.
        seen.refusals += u32::from(!seen.operator_spoke);
        let refusals = seen.refusals;
        self.check(refusals < 2, promise::PIN, || format!("token {token} refused {refusals} logins"));
    }

    /// The whole table of routes.
    pub(super) fn set_routes(&mut self, routes: &[crate::TokenSet]) {
        self.script.routes = routes.to_vec();
    }

    pub(super) fn fail(&mut self, promise: &'static str, detail: impl Into<String>) {
        let at_ns = self.now_ns;
        self.broken.get_or_insert_with(|| Violation { promise, detail: detail.into(), at_ns });
    }

    fn check(&mut self, holds: bool, promise: &'static str, detail: impl FnOnce() -> String) -> bool {
        if !holds {
            self.fail(promise, detail());
        }
        holds
    }

    /// What Core is about to hear.
    pub(super) fn hear(&mut self, event: &Event<u64>) {
        self.count_late_failure(event);
        match event {
            Event::Submit(job) => self.submitted(job),
            Event::Cancel { tag, .. } => self.cancelled(*tag),
            Event::Returned { session, generation, call, result, .. } => {
                self.returned(*session, *generation, *call, result);
            }
            Event::Opened { session, generation, result } => self.opened(*session, *generation, result),
            Event::LoggedIn { session, generation, result } => self.logged_in(*session, *generation, result),
            Event::KeptAlive { session, generation, result } => self.kept_alive(*session, *generation, result),
            Event::Closed { session, generation } => self.closed(*session, *generation),
            Event::Reinitialised { session, generation, result, .. } => {
                self.reinitialised(*session, *generation, result.is_ok());
            }
            Event::Gone { session, generation } => self.gone(*session, *generation),
            Event::Vouch { token, round, ok } => {
                let seen = &mut self.tokens[usize::from(*token)];
                // Nobody asked about one that is not on probation, or about an earlier time.
                if seen.probation == Some(*round) {
                    seen.probation = None;
                    seen.vouched = *ok;
                }
            }
            Event::Join { token } => {
                let seen = &mut self.tokens[usize::from(*token)];
                if !std::mem::replace(&mut seen.joined, true) {
                    seen.needs_operator = false;
                    seen.login_refused = false;
                    seen.refusals = 0;
                }
            }
            Event::Leave { token } => {
                let seen = &mut self.tokens[usize::from(*token)];
                seen.joined = false;
            }
            Event::Refresh { token } => {
                let seen = &mut self.tokens[usize::from(*token)];
                if seen.joined {
                    seen.operator_spoke = true;
                    seen.needs_operator = false;
                    seen.login_refused = false;
                    seen.refusals = 0;
                }
            }
            Event::Reinitialise { .. } => {}
            Event::Routes(routes) => {
                for (index, &tokens) in routes.iter().enumerate() {
                    self.script.routes[index] = tokens;
                }
            }
            Event::Drain => self.draining = true,
            Event::Abandon => self.abandoned = true,
            Event::Timer => {}
        }
    }

    /// What Core has just asked for.
    pub(super) fn saw(&mut self, action: &Action<u64>) {
        match action {
            Action::Open { session, generation } => self.open(*session, *generation),
            Action::Login { session, generation } => self.log_in(*session, *generation),
            Action::KeepAlive { session, generation } => self.keep_alive(*session, *generation),
            Action::Sign { session, generation, call } => self.sign(*session, *generation, call),
            Action::TakeBack { .. } => {}
            Action::Close { session, generation } => self.close(*session, *generation),
            Action::Reinitialise { module, session, generation } => {
                self.reinitialise(module.0, *session, *generation);
            }
            Action::Replace { session, generation } => self.replace(*session, *generation),
            Action::Complete { completion, input, .. } => self.completed(completion, *input),
            Action::Alarm(alarm) => self.alarmed(alarm),
        }
    }

    fn alarmed(&mut self, alarm: &Alarm) {
        match alarm {
            Alarm::Probation { token, round } => {
                let seen = &mut self.tokens[usize::from(*token)];
                seen.probation = Some(*round);
                seen.vouched = false;
            }
            Alarm::TokenAway { token, .. }
            | Alarm::NeedsOperator { token, .. }
            | Alarm::WrongSignature { token, .. } => {
                let unheard = matches!(alarm, Alarm::NeedsOperator { .. }) && self.tokens[usize::from(*token)].outdated;
                self.check(!unheard, promise::HEARD, || format!("token {token} waits for its operator again"));
                let seen = &mut self.tokens[usize::from(*token)];
                seen.probation = None;
                seen.vouched = false;
            }
            Alarm::Discarded { reference, token, reason, signed } => {
                let told = (*reference, *token, *signed);
                match self.late.iter().position(|&late| late == told) {
                    Some(place) => drop(self.late.remove(place)),
                    None => self.fail(promise::LATE, format!("{alarm:?} tells of nothing that came late")),
                }
                self.check(*reason == Discard::Late, promise::LATE, || format!("{alarm:?} gives another reason"));
            }
            Alarm::Stuck { token, call, replaced: false } => self.place_lost(*token, call),
            _ => {}
        }
    }

    /// What must hold when Core has spoken and everybody has done what it asked for.
    pub(super) fn check_between(&mut self, snapshot: &Snapshot, negligent: Option<u16>) {
        if let Some(late) = self.late.first() {
            let late = format!("the late answer (reference, token, signed) {late:?} was passed over in silence");
            self.fail(promise::LATE, late);
        }
        self.late.clear();
        self.check_counts(snapshot);
        if !self.abandoned {
            self.check_conserving(negligent);
            self.check_stuck();
        }
    }

    fn check_counts(&mut self, snapshot: &Snapshot) {
        let waiting: u64 = snapshot.queues.iter().flat_map(|queue| queue.depth).map(u64::from).sum();
        let alive = self.submitted - self.ended;
        let running = u64::from(snapshot.running);
        self.check(waiting + running == alive, promise::COUNTS, || {
            format!("{alive} jobs live; Core tells of {waiting} that wait and {running} in sessions")
        });
        let counters = snapshot.counters;
        let counted = (counters.submitted, counters.completed());
        let counts = (self.submitted, self.ended);
        self.check(counted == counts, promise::COUNTS, || {
            format!("(submitted, completed) are {counts:?}; Core tells of {counted:?}")
        });
        // What was let in before it failed comes back beyond the bound.
        let slack: u32 = self.places.len() as u32 * u32::from(self.script.rules.batch_max);
        for queue in &snapshot.queues {
            for (depth, max) in queue.depth.into_iter().zip(self.script.rules.queue_depth_max) {
                self.check(depth <= max + slack, promise::DEPTH, || {
                    format!("{depth} jobs wait in one queue, of {max}")
                });
            }
        }
    }

    /// Whether this error says that the PIN was refused, or that only the operator can help.
    fn is_operators(error: &segl_hsm::Error) -> bool {
        error.verdict().rung == Rung::Operator
    }

    fn is_wrong(error: &segl_hsm::Error) -> bool {
        error.kind() == Kind::WrongSignature
    }

    /// The tokens a new job would go to.
    fn tokens_of(&self, job: &Job<u64>) -> crate::TokenSet {
        let tokens = self.script.routes.get(job.route.0 as usize).copied().unwrap_or_default();
        match job.only_token {
            Some(token) if tokens.contains(token) => crate::TokenSet::only(token),
            Some(_) => crate::TokenSet::EMPTY,
            None => tokens,
        }
    }
}
