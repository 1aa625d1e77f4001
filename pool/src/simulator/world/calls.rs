//! The threads' part of a run: orders are laid, calls enter the module and come back.

use segl_hsm::{Error, ModuleId};

use super::{Item, World};
use crate::{
    Work,
    core::{Action, CallResult, Core, Event, Generation},
    simulator::{
        faults::Answer,
        script::MS,
        thread::{Order, Running, Thread},
        token::{Handle, Signing},
        watch::promise,
    },
};

/// How long after its time the timer's thread tells what another has done and can not tell, at most.
const LOOK_NS: u64 = 25 * MS;

impl World {
    /// Lays an order before the thread of its place.
    pub(super) fn order(&mut self, action: Action<u64>) {
        let (place, order) = match action {
            Action::Open { session, generation } => (session, Order::Open(generation)),
            Action::Login { session, generation } => (session, Order::Login(generation)),
            Action::Sign { session, generation, call } => (session, Order::Sign(generation, call)),
            Action::KeepAlive { session, generation } => (session, Order::KeepAlive(generation)),
            Action::Close { session, generation } => (session, Order::Close(generation)),
            Action::Reinitialise { module, session, generation } => (session, Order::Reinitialise(module, generation)),
            Action::TakeBack { session, generation: _, call } => {
                // It may lie before the thread that was given up.
                let threads = self.threads.iter_mut().filter(|thread| thread.place == session);
                let taken: Vec<_> = threads.filter_map(|thread| thread.take_back(call, self.now_ns)).collect();
                self.taken_back.extend(taken);
                return;
            }
            Action::Replace { session, generation } => {
                let old = self.seats[usize::from(session.0)];
                self.threads[old].given_up = Some(generation);
                self.seats[usize::from(session.0)] = self.threads.len();
                let token = self.threads[old].token;
                self.threads.push(Thread::new(session, token));
                return;
            }
            Action::Complete { .. } | Action::Alarm(_) => unreachable!("these are not for threads"),
        };
        let index = self.seats[usize::from(place.0)];
        let thread = &mut self.threads[index];
        let rests = thread.running.is_none() && thread.orders.is_empty();
        thread.orders.push_back(order);
        if rests {
            thread.resting = true;
            let wake_ns = self.draw.below(MS / 10);
            self.put(self.now_ns + wake_ns, Item::Look { thread: index });
        }
    }

    /// The thread looks at what lies before it.
    pub(super) fn look(&mut self, index: usize) {
        let thread = &mut self.threads[index];
        if !std::mem::replace(&mut thread.resting, false) {
            return;
        }
        thread.spoilt = false;
        thread.told_ns = self.now_ns;
        self.go_on(index);
    }

    /// The next order, or an end of the batch.
    fn go_on(&mut self, index: usize) {
        let now_ns = self.now_ns;
        while let Some(order) = self.threads[index].orders.pop_front() {
            if let Order::Sign(generation, call) = &order {
                let thread = &mut self.threads[index];
                let unbegun = if thread.spoilt {
                    Some(CallResult::Skipped)
                } else if call.deadline_ns <= now_ns {
                    Some(CallResult::Expired)
                } else {
                    None
                };
                if let Some(result) = unbegun {
                    let answer = thread.unbegun(*generation, call, result, now_ns);
                    self.answer(index, answer);
                    continue;
                }
            }
            return self.enter(index, order);
        }
        let answers = std::mem::take(&mut self.threads[index].answers);
        if !answers.is_empty() {
            self.tell(answers);
        }
    }

    /// A call enters the module.
    fn enter(&mut self, index: usize, order: Order) {
        let kind = order.kind();
        let token = usize::from(self.threads[index].token);
        let module = self.tokens[token].plan.module as usize;
        let key = match &order {
            Order::Sign(_, call) => {
                self.watch.begun(call.id);
                call.key.0
            }
            _ => 0,
        };
        self.check_entry(index, &order);
        self.modules[module].inside += 1;
        let duration_ns = self.tokens[token].duration_ns(kind, key);
        self.trace.deed(self.now_ns, || {
            let place = self.threads[index].place.0;
            match duration_ns {
                Some(_) => format!("place {place} enters {kind:?}"),
                None => format!("place {place} enters {kind:?}, never to return"),
            }
        });
        let (started_ns, for_ever, pin_wrong) = (self.now_ns, duration_ns.is_none(), self.tokens[token].pin_wrong);
        self.threads[index].running = Some(Running { order, started_ns, for_ever, pin_wrong });
        if let Some(duration_ns) = duration_ns {
            self.put(self.now_ns + duration_ns, Item::Return { thread: index });
        }
        let thread = &self.threads[index];
        if !thread.answers.is_empty() {
            let answered_ns = thread.answered_ns;
            let told_ns = answered_ns + self.script.rules.batch_time_ns + LOOK_NS;
            self.put(told_ns, Item::Overdue { thread: index, answered_ns });
        }
    }

    /// What must be so when a call enters, whatever Core thinks.
    fn check_entry(&mut self, index: usize, order: &Order) {
        let thread = &self.threads[index];
        let module = &self.modules[self.tokens[usize::from(thread.token)].plan.module as usize];
        let held = thread.held;
        match order {
            Order::Open(_) if held.is_some() => {
                self.watch.fail(promise::GENERATION, format!("a thread opens a session and holds {held:?}"));
            }
            Order::Open(_) => {}
            Order::Reinitialise(id, _) => {
                let inside = module.inside;
                let of = |thread: &&Thread| self.tokens[usize::from(thread.token)].plan.module == id.0;
                let open = self.threads.iter().filter(of).filter(|thread| thread.held.is_some()).count();
                if inside > 0 || open > 0 {
                    let detail = format!("module {} has {inside} calls inside and {open} sessions open", id.0);
                    self.watch.fail(promise::REINITIALISE, detail);
                }
            }
            _ => match held {
                Some((generation, handle)) if generation == order.generation() && handle.epoch == module.epoch => {}
                _ => {
                    let detail = format!("a call uses {held:?} as {:?}, epoch {}", order.generation(), module.epoch);
                    self.watch.fail(promise::GENERATION, detail);
                }
            },
        }
    }

    /// A call comes back.
    pub(super) fn come_back(&mut self, index: usize) {
        let running = self.threads[index].running.take().expect("it was inside");
        let token = usize::from(self.threads[index].token);
        let module = self.tokens[token].plan.module as usize;
        self.modules[module].inside -= 1;
        let answer = self.answer_to(index, running);
        let now_ns = self.now_ns;
        match self.threads[index].given_up {
            None => {
                if let Some(answer) = answer {
                    self.answer(index, answer);
                }
                let thread = &mut self.threads[index];
                if now_ns - thread.told_ns > self.script.rules.batch_time_ns {
                    thread.told_ns = now_ns;
                    let answers = std::mem::take(&mut thread.answers);
                    self.tell(answers);
                }
                // It may have been told to begin another batch meanwhile.
                if !self.threads[index].resting {
                    self.go_on(index);
                }
            }
            Some(generation) => self.come_back_late(index, generation, answer),
        }
    }

    /// A thread that was given up: it says what it has to say, closes what it holds, and is gone.
    fn come_back_late(&mut self, index: usize, generation: Generation, answer: Option<Event<u64>>) {
        let thread = &mut self.threads[index];
        let place = thread.place;
        let mut events = std::mem::take(&mut thread.answers);
        events.extend(answer);
        for call in thread.unbegun_calls() {
            events.extend(thread.take_back(call, self.now_ns));
        }
        thread.orders.clear();
        if let Some((of, _)) = thread.held {
            self.tell(events);
            self.enter(index, Order::Close(of));
        } else {
            events.push(Event::Gone { session: place, generation });
            self.tell(events);
        }
    }

    /// What the call gives, by what is true now.
    fn answer_to(&mut self, index: usize, running: Running) -> Option<Event<u64>> {
        let Running { order, started_ns, pin_wrong, .. } = running;
        let now_ns = self.now_ns;
        let thread = &self.threads[index];
        let session = thread.place;
        let given_up = thread.given_up.is_some();
        let handle = thread.held.map(|(_, handle)| handle);
        let token = &mut self.tokens[usize::from(thread.token)];
        let module = &self.modules[token.plan.module as usize];
        let held = |handle: Option<Handle>| handle.expect("a session is held, or the watch has spoken");
        match order {
            Order::Open(generation) => {
                let result = token.open(module, now_ns).map(|handle| {
                    self.threads[index].held = Some((generation, handle));
                });
                Some(Event::Opened { session, generation, result })
            }
            Order::Login(generation) => {
                let (result, tried_wrong) = token.log_in(module, held(handle), pin_wrong, now_ns);
                // What a login gives that was given up is known to nobody; of that `segl-hsm` takes care.
                if tried_wrong && !given_up {
                    self.watch.refused(self.threads[index].token);
                }
                Some(Event::LoggedIn { session, generation, result })
            }
            Order::KeepAlive(generation) => {
                let result = token.keep_alive(module, held(handle), now_ns);
                Some(Event::KeptAlive { session, generation, result })
            }
            Order::Close(generation) => {
                token.close(held(handle));
                self.threads[index].held = None;
                let answer = Event::Closed { session, generation };
                // One that was given up while it closed says so; one that cleans up behind itself is only gone.
                Some(answer).filter(|_| !given_up)
            }
            Order::Reinitialise(module, generation) => {
                let result = self.begin_anew(module);
                Some(Event::Reinitialised { module, session, generation, result })
            }
            Order::Sign(generation, call) => {
                let signing = match call.work {
                    Work::Sign => token.sign(module, held(handle), now_ns),
                    Work::Presence => Signing { result: token.presence(module, held(handle), now_ns), made: false },
                };
                if signing.made {
                    self.watch.made(call.id);
                }
                let result = match signing.result {
                    Ok(()) => CallResult::Signed(vec![1]),
                    Err(error) => {
                        self.threads[index].spoilt = Core::<u64>::ends_batch(&error);
                        CallResult::Failed(error)
                    }
                };
                let token_ns = now_ns - started_ns;
                Some(Event::Returned { session, generation, call: call.id, result, started_ns, token_ns })
            }
        }
    }

    fn begin_anew(&mut self, module: ModuleId) -> Result<(), Error> {
        if !self.calm && self.draw.percent(20) {
            return Err(Answer::General.beside_sign("C_Initialize"));
        }
        let id = module.0;
        self.modules[id as usize].epoch += 1;
        self.modules[id as usize].broken = None;
        for token in self.tokens.iter_mut().filter(|token| token.plan.module == id) {
            token.forget_all();
        }
        Ok(())
    }

    fn answer(&mut self, index: usize, answer: Event<u64>) {
        let now_ns = self.now_ns;
        let thread = &mut self.threads[index];
        if thread.answers.is_empty() {
            thread.answered_ns = now_ns;
        }
        thread.answers.push(answer);
    }
}
