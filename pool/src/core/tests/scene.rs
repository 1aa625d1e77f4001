//! A small stage: Core, a clock that moves when told, and everything Core asked for, sorted.

use std::collections::VecDeque;

use segl_hsm::{Error, ModuleId};

use super::{MS, SECOND};
use crate::{
    Completion, Failure, Job, Rules, TokenSet,
    core::{Action, Alarm, Call, CallId, CallResult, Core, Event, Generation, SessionId, TokenSpec},
};

pub(super) struct Scene {
    pub(super) core: Core<u64>,
    pub(super) now_ns: u64,
    pub(super) opens: VecDeque<(SessionId, Generation)>,
    pub(super) logins: VecDeque<(SessionId, Generation)>,
    pub(super) closes: VecDeque<(SessionId, Generation)>,
    pub(super) reminders: VecDeque<(SessionId, Generation)>,
    pub(super) reinitialises: VecDeque<(ModuleId, SessionId, Generation)>,
    pub(super) replaced: VecDeque<(SessionId, Generation)>,
    /// Tokens that came on probation and were not vouched for
    pub(super) probations: VecDeque<u16>,
    /// Batches in the order they were handed out
    pub(super) batches: VecDeque<Batch>,
    pub(super) done: Vec<Completion>,
    pub(super) alarms: Vec<Alarm>,
    /// Calls that were asked back
    pub(super) taken_back: Vec<(SessionId, Generation, CallId)>,
}

#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) session: SessionId,
    pub(super) generation: Generation,
    pub(super) calls: Vec<Call<u64>>,
}

impl Batch {
    pub(super) fn tags(&self) -> Vec<u64> {
        self.calls.iter().map(|call| call.input).collect()
    }
}

impl Scene {
    /// Tokens with so many sessions each, route 0 to all of them; nothing has joined.
    pub(super) fn new(rules: Rules, sessions: &[u16]) -> Self {
        let token = |&sessions: &u16| TokenSpec { sessions, ..TokenSpec::default() };
        Scene::of(rules, sessions.iter().map(token).collect())
    }

    /// The same with tokens as given.
    pub(super) fn of(rules: Rules, tokens: Vec<TokenSpec>) -> Self {
        let mut scene = Scene {
            core: Core::new(rules, &tokens),
            now_ns: SECOND,
            opens: VecDeque::new(),
            logins: VecDeque::new(),
            closes: VecDeque::new(),
            reminders: VecDeque::new(),
            reinitialises: VecDeque::new(),
            replaced: VecDeque::new(),
            probations: VecDeque::new(),
            batches: VecDeque::new(),
            done: Vec::new(),
            alarms: Vec::new(),
            taken_back: Vec::new(),
        };
        scene.step(Event::Routes(vec![(0..tokens.len() as u16).collect::<TokenSet>()]));
        scene
    }

    /// The same with all sessions open, logged in and vouched for.
    pub(super) fn ready(rules: Rules, sessions: &[u16]) -> Self {
        let mut scene = Scene::new(rules, sessions);
        scene.join_all();
        scene
    }

    /// All tokens are there, with all their sessions.
    pub(super) fn join_all(&mut self) {
        for token in 0..self.core.tokens() {
            self.step(Event::Join { token });
            self.answer_all_well();
            self.open_all(token);
        }
    }

    /// Opens what would be opened if very much waited.
    pub(super) fn open_all(&mut self, token: u16) {
        while self.core.fleet.has_room(token) {
            let mut out = Vec::new();
            self.core.fleet.open_for(self.now_ns, token, u32::MAX, &mut out);
            assert!(!out.is_empty(), "there is room, and it may be used now");
            self.obey(out);
            self.answer_all_well();
        }
    }

    pub(super) fn step(&mut self, event: Event<u64>) {
        self.step_all([event]);
    }

    pub(super) fn step_all(&mut self, events: impl IntoIterator<Item = Event<u64>>) {
        let mut out = Vec::new();
        self.core.step_all(self.now_ns, events, &mut out);
        self.obey(out);
    }

    fn obey(&mut self, out: Vec<Action<u64>>) {
        for action in out {
            match action {
                Action::Open { session, generation } => self.opens.push_back((session, generation)),
                Action::Login { session, generation } => self.logins.push_back((session, generation)),
                Action::Close { session, generation } => self.closes.push_back((session, generation)),
                Action::Sign { session, generation, call } => match self.batches.back_mut() {
                    Some(batch) if batch.session == session && batch.generation == generation => batch.calls.push(call),
                    _ => self.batches.push_back(Batch { session, generation, calls: vec![call] }),
                },
                Action::Complete { inbox, completion, input } => {
                    assert_eq!((inbox, input), (0, completion.tag));
                    self.done.push(completion);
                }
                Action::TakeBack { session, generation, call } => self.taken_back.push((session, generation, call)),
                Action::Alarm(Alarm::Probation { token, .. }) => self.probations.push_back(token),
                Action::Alarm(alarm) => self.alarms.push(alarm),
                Action::KeepAlive { session, generation } => self.reminders.push_back((session, generation)),
                Action::Reinitialise { module, session, generation } => {
                    self.reinitialises.push_back((module, session, generation));
                }
                Action::Replace { session, generation } => self.replaced.push_back((session, generation)),
            }
        }
    }

    pub(super) fn submit(&mut self, jobs: impl IntoIterator<Item = Job<u64>>) {
        self.step_all(jobs.into_iter().map(Event::Submit));
    }

    /// The word on the token's present probation.
    pub(super) fn vouch(&mut self, token: u16, ok: bool) {
        let round = self.core.snapshot().tokens[usize::from(token)].rungs.probations;
        self.step(Event::Vouch { token, round, ok });
    }

    /// Moves the clock to the next appointment and keeps it.
    pub(super) fn await_timer(&mut self) {
        let due_ns = self.core.next_timeout_ns().expect("something is due");
        self.now_ns = self.now_ns.max(due_ns);
        self.step(Event::Timer);
    }

    /// Answers opens, logins, reminders and closes with success, and vouches for who comes back, until there are none.
    pub(super) fn answer_all_well(&mut self) {
        loop {
            if let Some((session, generation)) = self.closes.pop_front() {
                self.step(Event::Closed { session, generation });
            } else if let Some((session, generation)) = self.opens.pop_front() {
                self.step(Event::Opened { session, generation, result: Ok(()) });
            } else if let Some((session, generation)) = self.logins.pop_front() {
                self.step(Event::LoggedIn { session, generation, result: Ok(()) });
            } else if let Some((session, generation)) = self.reminders.pop_front() {
                self.step(Event::KeptAlive { session, generation, result: Ok(()) });
            } else if let Some((module, session, generation)) = self.reinitialises.pop_front() {
                self.step(Event::Reinitialised { module, session, generation, result: Ok(()) });
            } else if let Some(token) = self.probations.pop_front() {
                self.vouch(token, true);
            } else {
                return;
            }
        }
    }

    /// Answers closes with success until there are none.
    pub(super) fn answer_closes(&mut self) {
        while let Some((session, generation)) = self.closes.pop_front() {
            self.step(Event::Closed { session, generation });
        }
    }

    pub(super) fn fail_open(&mut self, error: Error) {
        let (session, generation) = self.opens.pop_front().expect("a session is being opened");
        self.step(Event::Opened { session, generation, result: Err(error) });
    }

    pub(super) fn fail_login(&mut self, error: Error) {
        let (session, generation) = self.logins.pop_front().expect("a login is under way");
        self.step(Event::LoggedIn { session, generation, result: Err(error) });
    }

    /// The oldest batch comes back, every call signed in a millisecond.
    pub(super) fn sign_batch(&mut self) -> Batch {
        let batch = self.batches.pop_front().expect("a batch is out");
        let results: Vec<_> = batch.calls.iter().map(|_| CallResult::Signed(vec![1])).collect();
        self.return_batch(&batch, results, MS);
        batch
    }

    /// The oldest batch comes back: its first call failed, the others were skipped if the session is spoilt.
    pub(super) fn fail_batch(&mut self, error: Error) -> Batch {
        let batch = self.batches.pop_front().expect("a batch is out");
        let rest = if Core::<u64>::ends_batch(&error) { CallResult::Skipped } else { CallResult::Signed(vec![1]) };
        let mut results = vec![rest; batch.calls.len()];
        results[0] = CallResult::Failed(error);
        self.return_batch(&batch, results, MS);
        batch
    }

    pub(super) fn return_batch(&mut self, batch: &Batch, results: Vec<CallResult>, token_ns: u64) {
        let mut started_ns = self.now_ns;
        let mut events = Vec::new();
        for (call, result) in batch.calls.iter().zip(results) {
            let (session, generation) = (batch.session, batch.generation);
            events.push(Event::Returned { session, generation, call: call.id, result, started_ns, token_ns });
            started_ns += token_ns;
        }
        self.now_ns = started_ns;
        self.step_all(events);
    }

    /// Signs whatever is out until nothing is.
    pub(super) fn sign_all(&mut self) {
        while !self.batches.is_empty() {
            self.sign_batch();
        }
    }

    /// The completions so far, taken.
    pub(super) fn take_done(&mut self) -> Vec<(u64, Result<(), &'static str>)> {
        let done = self.done.drain(..);
        done.map(|done| (done.tag, done.result.map(drop).map_err(|failure: Failure| failure.name()))).collect()
    }
}
