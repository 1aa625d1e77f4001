//! Traffic: many clients, tokens with service times, and Core between them in virtual time, so that waits can be
//! measured to the nanosecond and in no time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
};

use segl_hsm::Error;

use super::{MS, SECOND};
use crate::{
    Job, Rules, TokenSet,
    core::{Action, Alarm, Call, CallResult, Core, Event, Generation, SessionId, TokenSpec, jobs::Place},
};

/// What a call to a token comes to: how long it takes and how it ends.
pub(super) type Model = Box<dyn FnMut(&Asked, &mut Draw) -> (u64, Result<(), Error>)>;

/// A call that is about to begin.
pub(super) struct Asked {
    pub(super) now_ns: u64,
    pub(super) token: u16,
    pub(super) tenant: u32,
    pub(super) call: Call<u64>,
}

/// Splits one seed into many draws.
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }

    /// From half of it to half more.
    pub(super) fn about(&mut self, ns: u64) -> u64 {
        ns / 2 + self.below(ns + 1)
    }

    /// The time to the next of events that come by chance, so many a second.
    fn pause_ns(&mut self, rate: u64) -> u64 {
        let chance = (self.below(1 << 32) + 1) as f64 / (1u64 << 32) as f64;
        (-chance.ln() * SECOND as f64 / rate as f64) as u64
    }
}

/// A client that sends jobs like this one.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) job: Job<u64>,
    /// Jobs a second, by chance
    pub(super) rate: u64,
    /// From receipt
    pub(super) timeout_ns: u64,
    /// No more after this
    pub(super) until_ns: u64,
}

/// A job's end.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) job: Job<u64>,
    pub(super) submitted_ns: u64,
    pub(super) done_ns: u64,
    pub(super) token: Option<u16>,
    pub(super) failure: Option<&'static str>,
}

impl Record {
    pub(super) fn latency_ns(&self) -> u64 {
        self.done_ns - self.submitted_ns
    }
}

enum Due {
    Arrival(usize),
    Told(Vec<Event<u64>>),
}

pub(super) struct Traffic {
    pub(super) core: Core<u64>,
    pub(super) now_ns: u64,
    pub(super) done: Vec<Record>,
    /// Time between a batch's end and when that is told
    pub(super) overhead_ns: u64,
    /// Token time that each tenant was given
    pub(super) given_ns: Vec<u64>,
    /// Time that each session spent on calls
    pub(super) busy_ns: Vec<u64>,
    /// The greatest batch that was more than a session's share of what waited, by what that share was
    pub(super) greed: BTreeMap<usize, usize>,
    /// When a job of a client that always has so many in flight ends, it sends the next
    pub(super) in_flight: bool,
    model: Model,
    draw: Draw,
    agenda: BinaryHeap<Reverse<(u64, u64)>>,
    due: HashMap<u64, Due>,
    next: u64,
    sources: Vec<Source>,
    jobs: HashMap<u64, (Job<u64>, u64)>,
    next_tag: u64,
    token_of: Vec<u16>,
}

impl Traffic {
    /// These tokens, joined and open, route 0 to all of them.
    pub(super) fn new(rules: Rules, tokens: &[TokenSpec], model: Model) -> Self {
        let token_of = (0..).zip(tokens).flat_map(|(index, token)| (0..token.sessions).map(move |_| index));
        let token_of: Vec<u16> = token_of.collect();
        let mut traffic = Traffic {
            core: Core::new(rules, tokens),
            now_ns: 0,
            done: Vec::new(),
            overhead_ns: 0,
            given_ns: vec![0; 16],
            busy_ns: vec![0; token_of.len()],
            greed: BTreeMap::new(),
            in_flight: false,
            model,
            draw: Draw(7),
            agenda: BinaryHeap::new(),
            due: HashMap::new(),
            next: 0,
            sources: Vec::new(),
            jobs: HashMap::new(),
            next_tag: 0,
            token_of,
        };
        let all: TokenSet = (0..tokens.len() as u16).collect();
        let joins = (0..tokens.len() as u16).map(|token| Event::Join { token });
        traffic.tell([Event::Routes(vec![all, TokenSet::only(0)])].into_iter().chain(joins).collect());
        traffic.play_until(SECOND);
        traffic
    }

    /// Adds a client that sends by chance.
    pub(super) fn add(&mut self, source: Source) {
        self.sources.push(source);
        let pause_ns = self.draw.pause_ns(self.sources.last().unwrap().rate);
        self.later(pause_ns, Due::Arrival(self.sources.len() - 1));
    }

    /// Submits so many jobs at once.
    pub(super) fn submit(&mut self, jobs: impl IntoIterator<Item = Job<u64>>) {
        let events = jobs.into_iter().map(|job| self.event_of(job)).collect();
        self.tell(events);
    }

    /// Plays up to this time.
    pub(super) fn play_until(&mut self, end_ns: u64) {
        loop {
            let said_ns = self.agenda.peek().map(|Reverse((at_ns, _))| *at_ns);
            let timer_ns = self.core.next_timeout_ns();
            let Some(at_ns) = [said_ns, timer_ns].into_iter().flatten().min().filter(|&at_ns| at_ns <= end_ns) else {
                self.now_ns = end_ns;
                return;
            };
            self.now_ns = self.now_ns.max(at_ns);
            if said_ns == Some(at_ns) {
                let Reverse((_, entry)) = self.agenda.pop().unwrap();
                match self.due.remove(&entry).unwrap() {
                    Due::Told(events) => self.tell(events),
                    Due::Arrival(index) => self.arrive(index),
                }
            } else {
                self.tell(vec![Event::Timer]);
            }
        }
    }

    /// The tags of a tenant's jobs that no session has.
    pub(super) fn waiting_tags(&self, tenant: u32) -> Vec<u64> {
        let waits = |tag: u64| {
            let slot = self.core.jobs.find(0, tag);
            slot.is_some_and(|slot| matches!(self.core.jobs[slot].place, Place::Waiting { .. }))
        };
        let tags = self.jobs.iter().filter(|(_, (job, _))| job.tenant == tenant).map(|(&tag, _)| tag);
        let mut tags: Vec<u64> = tags.filter(|&tag| waits(tag)).collect();
        tags.sort_unstable();
        tags
    }

    /// The latencies of signatures that match, sorted.
    pub(super) fn latencies(&self, matches: impl Fn(&Record) -> bool) -> Vec<u64> {
        let signed = self.done.iter().filter(|record| record.failure.is_none() && matches(record));
        let mut latencies: Vec<u64> = signed.map(Record::latency_ns).collect();
        latencies.sort_unstable();
        latencies
    }

    fn arrive(&mut self, index: usize) {
        let Source { job, rate, timeout_ns, until_ns } = self.sources[index].clone();
        if self.now_ns >= until_ns {
            return;
        }
        let pause_ns = self.draw.pause_ns(rate);
        self.later(pause_ns, Due::Arrival(index));
        self.submit([Job { deadline_ns: self.now_ns + timeout_ns, ..job }]);
    }

    fn event_of(&mut self, job: Job<u64>) -> Event<u64> {
        let tag = self.next_tag;
        self.next_tag += 1;
        let job = Job { tag, input: tag, ..job };
        self.jobs.insert(tag, (job.clone(), self.now_ns));
        Event::Submit(job)
    }

    fn later(&mut self, pause_ns: u64, due: Due) {
        self.agenda.push(Reverse((self.now_ns + pause_ns, self.next)));
        self.due.insert(self.next, due);
        self.next += 1;
    }

    pub(super) fn tell(&mut self, events: Vec<Event<u64>>) {
        let mut out = Vec::new();
        self.core.step_all(self.now_ns, events, &mut out);
        let mut batches: Vec<(SessionId, Generation, Vec<Call<u64>>)> = Vec::new();
        let mut again = Vec::new();
        for action in out {
            match action {
                Action::Sign { session, generation, call } => match batches.last_mut() {
                    Some(batch) if batch.0 == session => batch.2.push(call),
                    _ => batches.push((session, generation, vec![call])),
                },
                Action::Complete { completion, .. } => {
                    let (job, submitted_ns) = self.jobs.remove(&completion.tag).unwrap();
                    if self.in_flight {
                        again.push(job.clone());
                    }
                    let failure = completion.result.as_ref().err().map(|failure| failure.name());
                    let token = completion.token;
                    self.done.push(Record { job, submitted_ns, done_ns: self.now_ns, token, failure });
                }
                Action::Open { session, generation } => {
                    self.say(MS, Event::Opened { session, generation, result: Ok(()) });
                }
                Action::Login { session, generation } => {
                    self.say(MS, Event::LoggedIn { session, generation, result: Ok(()) });
                }
                Action::Close { session, generation } => self.say(MS, Event::Closed { session, generation }),
                Action::KeepAlive { session, generation } => {
                    self.say(MS, Event::KeptAlive { session, generation, result: Ok(()) });
                }
                Action::Alarm(Alarm::Probation { token, round }) => {
                    self.say(MS, Event::Vouch { token, round, ok: true });
                }
                Action::Alarm(_) | Action::TakeBack { .. } => {}
                Action::Reinitialise { .. } | Action::Replace { .. } => panic!("no call of this traffic is stuck"),
            }
        }
        self.look_for_greed(&batches);
        for (session, generation, calls) in batches {
            self.play(session, generation, calls);
        }
        let negligent = self.core.negligent_token(self.now_ns);
        assert_eq!(negligent, None, "a session of it stands idle while a job waits for it");
        if !again.is_empty() {
            self.submit(again);
        }
    }

    fn say(&mut self, pause_ns: u64, event: Event<u64>) {
        self.later(pause_ns, Due::Told(vec![event]));
    }

    fn look_for_greed(&mut self, batches: &[(SessionId, Generation, Vec<Call<u64>>)]) {
        let handed: usize = batches.iter().map(|(_, _, calls)| calls.len()).sum();
        let share = (handed + self.core.snapshot().queues.iter().flat_map(|queue| queue.depth).sum::<u32>() as usize)
            .div_ceil(self.token_of.len());
        for (_, _, calls) in batches.iter().filter(|(_, _, calls)| calls.len() > share) {
            let most = self.greed.entry(share).or_default();
            *most = calls.len().max(*most);
        }
    }

    /// The session makes one call after the other; all are told of when the last is back.
    fn play(&mut self, session: SessionId, generation: Generation, calls: Vec<Call<u64>>) {
        let token = self.token_of[usize::from(session.0)];
        let mut at_ns = self.now_ns;
        let mut spoilt = false;
        let mut events = Vec::new();
        for call in calls {
            let (id, started_ns) = (call.id, at_ns);
            let tenant = self.jobs[&call.input].0.tenant;
            let result = if spoilt {
                CallResult::Skipped
            } else if call.deadline_ns <= at_ns {
                CallResult::Expired
            } else {
                let asked = Asked { now_ns: at_ns, token, tenant, call };
                let (token_ns, result) = (self.model)(&asked, &mut self.draw);
                at_ns += token_ns;
                self.given_ns[tenant as usize] += token_ns;
                self.busy_ns[usize::from(session.0)] += token_ns;
                match result {
                    Ok(()) => CallResult::Signed(vec![1]),
                    Err(error) => {
                        spoilt = Core::<u64>::ends_batch(&error);
                        CallResult::Failed(error)
                    }
                }
            };
            let token_ns = at_ns - started_ns;
            events.push(Event::Returned { session, generation, call: id, result, started_ns, token_ns });
        }
        self.later(at_ns - self.now_ns + self.overhead_ns, Due::Told(events));
    }
}

/// A token of the own site.
pub(super) fn token(sessions: u16) -> TokenSpec {
    TokenSpec { name: "model".into(), sessions, ..TokenSpec::default() }
}

/// The value that so many thousandths are not above.
pub(super) fn quantile(sorted: &[u64], thousandths: usize) -> u64 {
    sorted[(sorted.len() * thousandths / 1000).min(sorted.len() - 1)]
}
