//! Jobs and calls: what each job may go through, and what must be told of it.

use segl_hsm::{Error, Kind, Retry, Signed};

use super::{Watch, promise};
use crate::{
    Attempts, Completion, Discard, Failure, Fate, Job, TokenSet, Work,
    core::{Call, CallId, CallResult, Generation, SessionId},
    simulator::script::{MS, ROOMY_BURST},
};

/// A job.
#[derive(Clone, Debug)]
pub(in crate::simulator) struct JobSeen {
    pub(super) job: Job<u64>,
    /// The tokens it may go to
    pub(super) tokens: TokenSet,
    /// The call it is in
    pub(super) with: Option<CallId>,
    pub(super) attempts: Vec<AttemptSeen>,
    doubtful: bool,
    pub(super) done: bool,
    cancelled: bool,
    /// Where the last error said to try again, and by which token
    retry: Option<(Retry, u16)>,
    /// Attempts it had when it was last counted as tried again
    counted: usize,
    in_shares: bool,
}

/// A call that began.
#[derive(Clone, Debug)]
pub(super) struct AttemptSeen {
    call: CallId,
    token: u16,
    session: u16,
    fate: Fate,
}

/// A call that was asked for.
#[derive(Clone, Debug)]
pub(in crate::simulator) struct CallSeen {
    tag: u64,
    place: SessionId,
    generation: Generation,
    token: u16,
    /// When it entered the token
    pub(super) begun_ns: Option<u64>,
    made: bool,
    told: bool,
    given_up: bool,
}

impl Watch {
    // --- What the models did ---

    /// The call enters the token.
    pub(in crate::simulator) fn begun(&mut self, call: CallId) {
        let now_ns = self.now_ns;
        let seen = self.calls.get_mut(&call).expect("only what was asked for is begun");
        seen.begun_ns = Some(now_ns);
        let tag = seen.tag;
        let deadline_ns = self.jobs[&tag].job.deadline_ns;
        self.check(now_ns < deadline_ns, promise::DEADLINE, || {
            format!("{call:?} of job {tag} begins at {now_ns}, its deadline is {deadline_ns}")
        });
    }

    /// A signature was made, whoever hears of it.
    pub(in crate::simulator) fn made(&mut self, call: CallId) {
        self.calls.get_mut(&call).expect("only what was asked for is made").made = true;
    }

    // --- What Core hears ---

    pub(super) fn submitted(&mut self, job: &Job<u64>) {
        self.submitted += 1;
        let seen = JobSeen {
            job: job.clone(),
            tokens: self.tokens_of(job),
            with: None,
            attempts: Vec::new(),
            doubtful: false,
            done: false,
            cancelled: false,
            retry: None,
            counted: 0,
            in_shares: true,
        };
        self.shares.waits(seen.tokens, job);
        self.jobs.insert(job.tag, seen);
    }

    pub(super) fn cancelled(&mut self, tag: u64) {
        if let Some(job) = self.jobs.get_mut(&tag) {
            job.cancelled |= !job.done;
        }
    }

    pub(super) fn returned(&mut self, id: SessionId, generation: Generation, call: CallId, result: &CallResult) {
        let Some(seen) = self.calls.get_mut(&call) else { return };
        if (seen.place, seen.generation) != (id, generation) || std::mem::replace(&mut seen.told, true) {
            return;
        }
        let CallSeen { tag, token, given_up, .. } = *seen;
        let entered = matches!(result, CallResult::Signed(_) | CallResult::Failed(_));
        if given_up {
            if let Some(signed) = news(result) {
                let reference = self.jobs[&tag].job.reference;
                self.late.push((reference, token, signed));
            }
        } else {
            let job = self.jobs.get_mut(&tag).expect("a call has a job");
            job.with = None;
            if let Some(fate) = fate(result) {
                job.attempts.push(AttemptSeen { call, token, session: id.0, fate });
                job.doubtful |= fate == Fate::Unknown;
            }
            job.retry = match result {
                CallResult::Failed(error) => Some((error.verdict().retry, token)),
                _ => job.retry,
            };
            let elsewhere = matches!(result, CallResult::Failed(error) if error.verdict().retry == Retry::Elsewhere);
            self.tokens[usize::from(token)].refuses |= elsewhere;
            if !entered {
                self.waits_again(tag);
            }
        }
        let now_ns = self.now_ns;
        let place = &mut self.places[usize::from(id.0)];
        if place.generation == generation {
            place.heard_ns = now_ns;
            place.batch.retain(|&running| running != call);
            if place.batch.is_empty() && place.standing == super::places::Standing::Signing {
                place.standing = super::places::Standing::Idle;
            }
            match result {
                // Of a call that was given up nothing is believed.
                CallResult::Failed(error) if !given_up => self.spoil(id, error),
                CallResult::Signed(_) if !given_up && self.jobs[&tag].job.work == Work::Sign => self.has_signed(id),
                _ => {}
            }
        }
    }

    /// Core waits for this call no longer.
    pub(super) fn given_up(&mut self, call: CallId) {
        let seen = self.calls.get_mut(&call).expect("a call that was asked for");
        if seen.told || seen.begun_ns.is_none() || std::mem::replace(&mut seen.given_up, true) {
            return;
        }
        let CallSeen { tag, token, place, .. } = *seen;
        let job = self.jobs.get_mut(&tag).expect("a call has a job");
        job.with = None;
        job.doubtful = true;
        job.retry = Some((Retry::Elsewhere, token));
        job.attempts.push(AttemptSeen { call, token, session: place.0, fate: Fate::Unknown });
    }

    /// A job is spoken of that was in a call: then that call was given up, which must have been due.
    fn leaves_call(&mut self, tag: u64) {
        let Some(call) = self.jobs[&tag].with else { return };
        let seen = self.calls[&call].clone();
        let after_ns = self.script.tokens[usize::from(seen.token)].stuck_after_ns;
        // When a call can have begun is a little before it began.
        let due = self.abandoned || seen.begun_ns.is_some_and(|begun_ns| self.now_ns + MS >= begun_ns + after_ns);
        if self.check(due && !seen.told, promise::ONE_SESSION, || format!("job {tag} leaves {call:?}: {seen:?}")) {
            self.given_up(call);
        }
    }

    // --- What Core asks for ---

    pub(super) fn sign(&mut self, id: SessionId, generation: Generation, call: &Call<u64>) {
        let tag = call.input;
        let rises = self.last_call.is_none_or(|last| last < call.id);
        self.last_call = Some(call.id);
        let Some(job) = self.jobs.get(&tag).map(|seen| seen.job.clone()) else {
            return self.fail(promise::CALL_AS_ASKED, format!("{call:?} is for no job"));
        };
        let same = (call.work, call.key, call.algorithm, call.deadline_ns)
            == (job.work, job.key, job.algorithm, job.deadline_ns);
        self.check(same && rises, promise::CALL_AS_ASKED, || format!("{call:?} is for {job:?}"));
        let now_ns = self.now_ns;
        self.check(job.deadline_ns > now_ns, promise::DEADLINE, || {
            format!("job {tag} is handed out past its deadline")
        });
        self.leaves_call(tag);
        let token = self.places[usize::from(id.0)].token;
        let seen = self.jobs[&tag].clone();
        self.check(!seen.done, promise::ENDS_ONCE, || format!("job {tag} is handed out after its end"));
        self.check(seen.tokens.contains(token), promise::ROUTE, || format!("job {tag} goes to {token}: {seen:?}"));
        let max = usize::from(self.script.rules.retries_max);
        if !seen.attempts.is_empty() {
            self.check(seen.attempts.len() <= max, promise::RETRIES, || format!("job {tag} is tried again: {seen:?}"));
            self.check(!seen.doubtful || job.repeatable, promise::DOUBT, || {
                format!("job {tag} is tried again: {seen:?}")
            });
            let never = matches!(seen.retry, Some((Retry::Never, _)));
            self.check(!seen.cancelled && !never, promise::NO_RETRY, || format!("job {tag} is tried again: {seen:?}"));
            if seen.counted < seen.attempts.len() {
                self.retried += 1;
                self.check_budget();
            }
        }
        self.shares.handed(token, seen.tokens, &job);
        let in_shares = seen.in_shares;
        if in_shares {
            self.shares.waits_no_more(seen.tokens, &job);
        }
        if let Some((promise, detail)) = self.shares.broken.take() {
            self.fail(promise, detail);
        }
        let job = self.jobs.get_mut(&tag).expect("it was just there");
        job.counted = job.attempts.len();
        job.in_shares = false;
        job.with = Some(call.id);
        let probe = job.job.probe;
        let seen =
            CallSeen { tag, place: id, generation, token, begun_ns: None, made: false, told: false, given_up: false };
        self.calls.insert(call.id, seen);
        self.handed(id, generation, call.id, probe);
    }

    /// As if every job had earned its share: some were refused.
    fn check_budget(&mut self) {
        let rules = &self.script.rules;
        let burst = u64::from(rules.retry_burst).max(self.places.len() as u64);
        let (retried, earned) = (self.retried, self.submitted * u64::from(rules.retry_budget_percent) / 100);
        self.check(retried <= burst + earned, promise::RETRY_BUDGET, || format!("{retried} of {burst} + {earned}"));
    }

    pub(super) fn completed(&mut self, completion: &Completion, input: u64) {
        let tag = completion.tag;
        if !self.jobs.contains_key(&tag) || tag != input {
            return self.fail(promise::ENDS_ONCE, format!("job {tag} (payload {input}) was never submitted"));
        }
        if !self.jobs[&tag].done {
            self.leaves_call(tag);
            self.ended += 1;
        }
        let seen = self.jobs[&tag].clone();
        if seen.in_shares && !seen.done {
            self.shares.waits_no_more(seen.tokens, &seen.job);
        }
        let entry = self.jobs.get_mut(&tag).expect("it was just there");
        entry.in_shares = false;
        entry.done = true;
        self.check(!seen.done, promise::ENDS_ONCE, || format!("job {tag} ends again: {completion:?}"));
        self.check(same(&completion.attempts, &seen.attempts), promise::ATTEMPTS, || {
            format!("job {tag} is told {:?}, had {:?}", completion.attempts, seen.attempts)
        });
        if let Some(verdict) = completion.verdict() {
            self.check((verdict.signed == Signed::Unknown) == seen.doubtful, promise::DOUBT, || {
                format!("job {tag} ends with {verdict:?}: {seen:?}")
            });
        }
        self.check_result(completion, &seen);
    }

    fn check_result(&mut self, completion: &Completion, seen: &JobSeen) {
        let tag = completion.tag;
        let now_ns = self.now_ns;
        if self.healed && !seen.job.probe {
            // A session or a login that nobody used since it went stale may be found out now.
            let stale = |failure: &Failure| match failure {
                Failure::Token(error) => matches!(error.kind(), Kind::Session | Kind::NotLoggedIn),
                _ => false,
            };
            let served = completion.result.as_ref().err().is_none_or(stale);
            self.check(served, promise::SERVED, || format!("job {tag} ends with {:?}", completion.result));
        }
        match &completion.result {
            Ok(_) => {
                let released = seen.attempts.last().is_some_and(|last| last.fate == Fate::Released);
                self.check(released, promise::ATTEMPTS, || format!("job {tag} has a signature, and {seen:?}"));
            }
            Err(Failure::Expired) => {
                self.check(now_ns >= seen.job.deadline_ns, promise::NEEDLESS, || {
                    format!("job {tag} expires at {now_ns}, before its deadline {}", seen.job.deadline_ns)
                });
            }
            Err(Failure::Cancelled) => {
                self.check(seen.cancelled, promise::NEEDLESS, || format!("job {tag} was not cancelled"));
            }
            Err(Failure::KeyUnavailable { .. }) => {
                let there = seen.tokens.iter().find(|&token| self.idle_of(token) > 0);
                self.check(there.is_none(), promise::NEEDLESS, || {
                    format!("job {tag} is told that its key is unavailable, which token {there:?} has")
                });
            }
            Err(Failure::Token(error)) => self.check_given_up(tag, seen, error),
            Err(Failure::Stuck) => {
                let stuck = seen.attempts.last().is_some_and(|last| last.fate == Fate::Unknown);
                self.check(stuck, promise::NEEDLESS, || format!("job {tag} is stuck nowhere: {seen:?}"));
                let hopeless = !seen.job.repeatable || self.abandoned || self.hopeless(seen);
                self.check(hopeless, promise::NEEDLESS, || format!("job {tag} ends as stuck: {seen:?}"));
            }
            Err(_) => {}
        }
    }

    /// An error was passed on: was there nothing else to try?
    fn check_given_up(&mut self, tag: u64, seen: &JobSeen, error: &Error) {
        let verdict = error.verdict();
        let barred = verdict.retry == Retry::Never || seen.doubtful && !seen.job.repeatable;
        if !barred {
            let hopeless = self.hopeless(seen);
            self.check(hopeless, promise::NEEDLESS, || format!("job {tag} ends with {error:?}: {seen:?}"));
        }
    }

    /// Whether trying again was of no use, or not allowed, whatever the error.
    fn hopeless(&self, seen: &JobSeen) -> bool {
        let used_up = seen.attempts.len() > usize::from(self.script.rules.retries_max);
        let over = seen.cancelled || self.now_ns >= seen.job.deadline_ns;
        let there = seen.tokens.iter().any(|token| self.idle_of(token) > 0);
        used_up || over || !there || self.budget_is_tight()
    }

    /// Whether it may have been the budget that forbade it.
    fn budget_is_tight(&self) -> bool {
        self.script.rules.retry_burst < ROOMY_BURST
    }

    // --- What holds in the end ---

    /// Every signature that was made is accounted for.
    pub(in crate::simulator) fn check_accounts(&mut self, made: u64) {
        let counted = self.calls.values().filter(|call| call.made).count() as u64;
        self.check(counted == made, promise::ACCOUNTS, || format!("the tokens made {made}, the calls {counted}"));
        let unaccounted = self.calls.iter().find(|(id, call)| {
            let attempts = &self.jobs[&call.tag].attempts;
            let fate = attempts.iter().find(|attempt| attempt.call == **id).map(|attempt| attempt.fate);
            call.made && call.told && matches!(fate, None | Some(Fate::Failed))
        });
        if let Some((id, call)) = unaccounted {
            let detail = format!("{id:?} made a signature that nobody knows of: {call:?}");
            self.fail(promise::ACCOUNTS, detail);
        }
    }

    /// Jobs that have not ended.
    pub(in crate::simulator) fn unfinished(&self) -> Vec<u64> {
        self.jobs.iter().filter(|(_, seen)| !seen.done).map(|(&tag, _)| tag).collect()
    }

    /// Sets of tokens for which clients' jobs wait that were never begun.
    pub(super) fn waiting_sets(&self) -> Vec<TokenSet> {
        self.shares.waiting_sets()
    }

    /// A job that a session gave back unbegun waits again.
    fn waits_again(&mut self, tag: u64) {
        let seen = self.jobs.get_mut(&tag).expect("a job that was handed out");
        if !seen.done && seen.attempts.is_empty() && seen.with.is_none() && !seen.in_shares {
            seen.in_shares = true;
            let (tokens, job) = (seen.tokens, seen.job.clone());
            self.shares.waits(tokens, &job);
        }
    }
}

/// What became of what a call gave; none if it was not begun.
fn fate(result: &CallResult) -> Option<Fate> {
    match result {
        CallResult::Signed(_) => Some(Fate::Released),
        CallResult::Failed(error) if Watch::is_wrong(error) => Some(Fate::Discarded(Discard::WrongSignature)),
        CallResult::Failed(error) if error.verdict().signed == Signed::Unknown => Some(Fate::Unknown),
        CallResult::Failed(_) => Some(Fate::Failed),
        CallResult::Expired | CallResult::Skipped => None,
    }
}

/// Whether a signature was made, where a late result says something new about that.
fn news(result: &CallResult) -> Option<bool> {
    match fate(result)? {
        Fate::Released => Some(true),
        Fate::Unknown => None,
        Fate::Discarded(_) => Some(true),
        Fate::Failed => Some(false),
    }
}

fn same(told: &Attempts, seen: &[AttemptSeen]) -> bool {
    told.len() == seen.len()
        && told
            .iter()
            .zip(seen)
            .all(|(told, seen)| (told.token, told.session, told.fate) == (seen.token, seen.session, seen.fate))
}
