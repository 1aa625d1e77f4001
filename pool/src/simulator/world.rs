//! A run: virtual time, the models around Core, and the watch over all of them.

mod calls;
mod end;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use segl_hsm::{Algorithm, KeyId, ModuleId};

use super::{
    draw::Draw,
    script::{Act, Burst, KEEPER, MS, SECOND, Script, Trouble, What},
    thread::Thread,
    token::{Module, Token},
    trace::Trace,
    watch::{Violation, Watch, promise},
};
use crate::{
    Class, Completion, Failure, Job, RouteId, TokenSet, TokenState, Work,
    core::{Action, Alarm, CallId, CallResult, Core, Event, Generation, SessionId, TokenSpec},
};

/// The route of self-tests of token `n` is this and `n`.
const PROBE_ROUTES: u32 = 20;

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Jobs submitted
    pub jobs: u64,
    /// Signatures the models made
    pub signatures: u64,
    /// Steps of Core
    pub steps: u64,
    /// Virtual time that passed
    pub ran_ns: u64,
}

pub(super) struct World {
    script: Script,
    core: Core<u64>,
    now_ns: u64,
    /// What happens later; the number breaks ties and names it
    agenda: BinaryHeap<Reverse<(u64, u64)>>,
    items: BTreeMap<u64, Item>,
    next_item: u64,
    draw: Draw,
    modules: Vec<Module>,
    tokens: Vec<Token>,
    threads: Vec<Thread>,
    /// The thread of each place
    seats: Vec<usize>,
    watch: Watch,
    trace: Trace,
    next_tag: u64,
    /// Self-tests under way
    probes: BTreeMap<u64, (u16, u64)>,
    /// How late the timer's thread wakes, at most
    timer_lag_ns: u64,
    /// What Core asked for while it spoke, told afterwards
    taken_back: Vec<Event<u64>>,
    calm: bool,
    summary: Summary,
}

/// Something that happens later.
#[derive(Clone, Debug)]
enum Item {
    Act(What),
    /// The thread looks at its orders
    Look {
        thread: usize,
    },
    /// The thread's call returns
    Return {
        thread: usize,
    },
    /// The timer's thread tells what this one has done, which is stuck after it
    Overdue {
        thread: usize,
        answered_ns: u64,
    },
    Recover {
        token: u16,
        trouble: Trouble,
    },
    SelfTest {
        token: u16,
        round: u64,
    },
    Vouch {
        token: u16,
        round: u64,
        ok: bool,
    },
}

impl World {
    pub(super) fn new(script: &Script, traced: bool) -> Self {
        let draw = Draw::new(script.seed).apart(1);
        let plans = script.tokens.iter().enumerate();
        let specs: Vec<_> = plans
            .clone()
            .map(|(index, plan)| TokenSpec {
                name: format!("hsm{index}").into(),
                sessions: plan.sessions,
                module: ModuleId(plan.module),
                stuck_after_ns: plan.stuck_after_ns,
                keep_alive_ns: plan.keep_alive_ns,
                preferred: plan.preferred,
            })
            .collect();
        let places = plans.clone().flat_map(|(index, plan)| (0..plan.sessions).map(move |_| index as u16));
        let threads: Vec<_> =
            places.enumerate().map(|(place, token)| Thread::new(SessionId(place as u16), token)).collect();
        let mut world = World {
            core: Core::new(script.rules.clone(), &specs),
            now_ns: 0,
            agenda: BinaryHeap::new(),
            items: BTreeMap::new(),
            next_item: 0,
            modules: vec![Module::default(); script.tokens.len()],
            tokens: plans.map(|(index, plan)| Token::new(plan.clone(), draw.apart(100 + index as u64))).collect(),
            seats: (0..threads.len()).collect(),
            threads,
            watch: Watch::new(script),
            trace: Trace::new(traced),
            next_tag: 0,
            probes: BTreeMap::new(),
            timer_lag_ns: 0,
            taken_back: Vec::new(),
            calm: false,
            summary: Summary::default(),
            draw,
            script: script.clone(),
        };
        world.timer_lag_ns = world.draw.of(&[1, MS, 5 * MS]);
        for Act { at_ns, what } in &script.acts {
            world.put(*at_ns, Item::Act(what.clone()));
        }
        world
    }

    /// Plays it to its end, or to the first broken promise.
    pub(super) fn run(&mut self) -> Result<Summary, Violation> {
        let mut routes = self.script.routes.clone();
        routes.resize(PROBE_ROUTES as usize, TokenSet::EMPTY);
        routes.extend((0..self.tokens.len() as u16).map(TokenSet::only));
        self.watch_routes(&routes);
        self.tell(vec![Event::Routes(routes)]);
        self.tell((0..self.tokens.len() as u16).map(|token| Event::Join { token }).collect());
        self.play_until(self.script.calm_ns);
        self.calm_down();
        self.play_until(self.now_ns + self.healing_ns());
        self.check_healed();
        self.serve_at_last();
        self.end();
        self.summary.ran_ns = self.now_ns;
        self.summary.signatures = self.tokens.iter().map(|token| token.made).sum();
        match self.watch.broken.take() {
            Some(violation) => Err(violation),
            None => Ok(self.summary),
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    pub(super) fn into_trace(self) -> Vec<String> {
        self.trace.into_lines()
    }

    fn put(&mut self, at_ns: u64, item: Item) {
        self.agenda.push(Reverse((at_ns.max(self.now_ns), self.next_item)));
        self.items.insert(self.next_item, item);
        self.next_item += 1;
    }

    fn broken(&self) -> bool {
        self.watch.broken.is_some()
    }

    // --- Time ---

    fn play_until(&mut self, end_ns: u64) {
        while !self.broken() && self.play_next(end_ns) {}
        if !self.broken() {
            self.set_now(end_ns);
        }
    }

    fn set_now(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.watch.now_ns = self.now_ns;
    }

    /// Plays the next thing that happens, if it happens by then.
    fn play_next(&mut self, end_ns: u64) -> bool {
        let item_ns = self.agenda.peek().map(|&Reverse((at_ns, _))| at_ns);
        let due_ns = self.core.next_timeout_ns();
        // A thread that is late is late by as much each time it is asked about the same appointment.
        let timer_ns = due_ns.map(|due_ns| due_ns.saturating_add(due_ns % self.timer_lag_ns));
        let Some(at_ns) = [item_ns, timer_ns].into_iter().flatten().min().filter(|&at_ns| at_ns <= end_ns) else {
            return false;
        };
        self.set_now(at_ns);
        if item_ns.is_some_and(|item_ns| item_ns <= at_ns) {
            let Reverse((_, number)) = self.agenda.pop().expect("it was just looked at");
            let item = self.items.remove(&number).expect("what is on the agenda is there");
            self.play(item);
        } else {
            self.ring();
        }
        true
    }

    /// The timer's thread: first what has come back, then what is due.
    fn ring(&mut self) {
        let mut events = Vec::new();
        for thread in &mut self.threads {
            events.append(&mut thread.answers);
        }
        events.push(Event::Timer);
        self.tell(events);
        let now_ns = self.now_ns;
        if self.core.next_timeout_ns().is_some_and(|next_ns| next_ns <= now_ns) {
            self.watch.fail(promise::TIMER, "it is due again at once");
        }
    }

    fn play(&mut self, item: Item) {
        match item {
            Item::Act(what) => self.act(what),
            Item::Look { thread } => self.look(thread),
            Item::Return { thread } => self.come_back(thread),
            Item::Overdue { thread, answered_ns } => {
                let thread = &mut self.threads[thread];
                if !thread.answers.is_empty() && thread.answered_ns == answered_ns {
                    let answers = std::mem::take(&mut thread.answers);
                    self.tell(answers);
                }
            }
            Item::Recover { token, trouble } => self.recover(token, &trouble),
            Item::SelfTest { token, round } => self.self_test(token, round),
            Item::Vouch { token, round, ok } => self.tell(vec![Event::Vouch { token, round, ok }]),
        }
    }

    // --- Core ---

    /// Tells Core, and does what it asks for.
    fn tell(&mut self, events: Vec<Event<u64>>) {
        let mut events = events;
        while !events.is_empty() && !self.broken() {
            for event in &events {
                self.trace.event(self.now_ns, event);
                self.watch.hear(event);
            }
            self.summary.steps += 1;
            let mut actions = Vec::new();
            self.core.step_all(self.now_ns, events, &mut actions);
            for action in &actions {
                self.trace.action(self.now_ns, action);
                self.watch.saw(action);
            }
            for action in actions {
                self.obey(action);
            }
            let negligent = self.core.negligent_token(self.now_ns);
            self.watch.check_between(&self.core.snapshot(), negligent);
            events = std::mem::take(&mut self.taken_back);
        }
    }

    fn watch_routes(&mut self, routes: &[TokenSet]) {
        self.watch.set_routes(routes);
    }

    // --- Clients, operators and fate ---

    fn act(&mut self, what: What) {
        match what {
            What::Submit(burst) => self.submit(&burst),
            What::Cancel { back } if back < self.next_tag => {
                self.tell(vec![Event::Cancel { inbox: 0, tag: self.next_tag - 1 - back }]);
            }
            What::Cancel { .. } => {}
            What::Join { token } => self.tell(vec![Event::Join { token }]),
            What::Leave { token } => self.tell(vec![Event::Leave { token }]),
            What::Refresh { token } => self.tell(vec![Event::Refresh { token }]),
            What::Reinitialise { token } => {
                if self.core.obstacle(token).is_none() {
                    self.watch.operator_wants_it_anew(token);
                }
                self.tell(vec![Event::Reinitialise { token }]);
            }
            What::Vouch { token, back, ok } => {
                let round = self.core.snapshot().tokens[usize::from(token)].rungs.probations.saturating_sub(back);
                self.tell(vec![Event::Vouch { token, round, ok }]);
            }
            What::Routes(routes) => self.tell(vec![Event::Routes(routes)]),
            What::Stray { number } => self.stray(number),
            What::Trouble { token, trouble } => self.suffer(token, trouble),
        }
    }

    fn submit(&mut self, burst: &Burst) {
        if self.broken() {
            return;
        }
        let events = (0..burst.count).map(|_| Event::Submit(self.job(burst))).collect();
        self.tell(events);
    }

    fn job(&mut self, burst: &Burst) -> Job<u64> {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.summary.jobs += 1;
        Job {
            work: if burst.presence { Work::Presence } else { Work::Sign },
            key: KeyId(burst.key),
            algorithm: Algorithm::EcdsaP256Sha256,
            input: tag,
            route: RouteId(burst.route),
            only_token: burst.only_token,
            class: burst.class,
            tenant: burst.tenant,
            deadline_ns: self.now_ns + burst.timeout_ns,
            repeatable: burst.repeatable,
            probe: false,
            reference: 1_000_000 + tag,
            inbox: 0,
            tag,
        }
    }

    /// Answers that nobody waits for: of a generation that never was, of a place that is none.
    fn stray(&mut self, number: u64) {
        let session = SessionId((number % 20) as u16);
        let generation = Generation(u32::MAX);
        let (call, result) = (CallId(number), CallResult::Signed(vec![6]));
        let module = ModuleId(0);
        self.tell(vec![
            Event::Returned { session, generation, call, result, started_ns: 0, token_ns: 1 },
            Event::Opened { session, generation, result: Ok(()) },
            Event::LoggedIn { session, generation, result: Ok(()) },
            Event::KeptAlive { session, generation, result: Ok(()) },
            Event::Reinitialised { module, session, generation, result: Ok(()) },
            Event::Closed { session, generation },
            Event::Gone { session, generation },
        ]);
    }

    fn suffer(&mut self, token: u16, trouble: Trouble) {
        self.trace.deed(self.now_ns, || format!("token {token} suffers {trouble:?}"));
        if let Trouble::ModuleBroken { answer } = trouble {
            let module = self.tokens[usize::from(token)].plan.module;
            self.modules[module as usize].broken = Some(answer);
        }
        self.tokens[usize::from(token)].suffer(&trouble);
        if let Some(for_ns) = trouble.for_ns() {
            self.put(self.now_ns + for_ns, Item::Recover { token, trouble });
        }
    }

    fn recover(&mut self, token: u16, trouble: &Trouble) {
        if self.calm {
            return;
        }
        // One who asks before the right PIN is in its place asks again right afterwards.
        if matches!(trouble, Trouble::PinWrong { .. }) && self.draw.percent(30) {
            self.tell(vec![Event::Refresh { token }]);
            let again_ns = self.now_ns + self.draw.below(8 * MS);
            return self.put(again_ns, Item::Recover { token, trouble: trouble.clone() });
        }
        self.trace.deed(self.now_ns, || format!("token {token} recovers from {trouble:?}"));
        self.tokens[usize::from(token)].recover(trouble);
        // The operator has put the right PIN in its place, and says so.
        if matches!(trouble, Trouble::PinWrong { .. }) && self.draw.percent(70) {
            self.tell(vec![Event::Refresh { token }]);
        }
    }

    /// The keeper's answer to a probation: a self-test.
    fn self_test(&mut self, token: u16, round: u64) {
        let burst = Burst::at_last(KEEPER, Class::Login, PROBE_ROUTES + u32::from(token));
        let job =
            Job { probe: true, only_token: Some(token), deadline_ns: self.now_ns + 5 * SECOND, ..self.job(&burst) };
        self.probes.insert(job.tag, (token, round));
        self.tell(vec![Event::Submit(job)]);
    }

    fn tested(&mut self, token: u16, round: u64, completion: &Completion) {
        let pause_ns = self.draw.between(MS / 10, 20 * MS);
        let lies = !self.calm && self.draw.percent(5);
        let item = match &completion.result {
            Ok(_) => Item::Vouch { token, round, ok: !lies },
            Err(Failure::Token(_) | Failure::Stuck) => Item::Vouch { token, round, ok: false },
            Err(Failure::Draining) => return,
            Err(_) if self.state(token) == TokenState::Probation => Item::SelfTest { token, round },
            // It is away: it will be said when it is back.
            Err(_) => return,
        };
        self.put(self.now_ns + pause_ns, item);
    }

    fn state(&self, token: u16) -> TokenState {
        self.core.snapshot().tokens[usize::from(token)].state
    }

    fn obey(&mut self, action: Action<u64>) {
        match action {
            Action::Complete { completion, .. } => {
                if let Some((token, round)) = self.probes.remove(&completion.tag) {
                    self.tested(token, round, &completion);
                }
            }
            Action::Alarm(Alarm::Probation { token, round }) => {
                let pause_ns = self.draw.between(MS / 10, 30 * MS);
                self.put(self.now_ns + pause_ns, Item::SelfTest { token, round });
            }
            Action::Alarm(_) => {}
            order => self.order(order),
        }
    }
}
