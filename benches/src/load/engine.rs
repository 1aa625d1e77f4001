//! Drives the connections from one thread, by epoll: closed loop or open loop, for a time or for a number of requests.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use segl_tests::Result;
use segl_wire::{Kind, Message, Signed, SignedAssertion, SignedBatch, SignedJws};

use super::{
    Observations, Schedule, Target, Verification, Work,
    connection::{Connection, Flight},
    observations::Sample,
    pace::OpenLoop,
};

/// A segld that answers nothing for so long is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// In an open loop the thread wakes so much before a request is due, and looks at the clock for the rest: the kernel
/// wakes nobody to the microsecond, and its lateness would be counted as segld's.
const SPIN_NS: u64 = 80_000;

/// What is sent when.
#[derive(Clone, Debug)]
pub(crate) enum Pace {
    /// So many requests in flight on each connection, always
    Closed(usize),
    /// By the clock
    Open(Schedule),
}

/// When it ends. An open loop ends with its schedule in any case.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Time(Duration),
    /// Signatures
    Signatures(u64),
}

/// The two moments between which is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    Begin,
    End,
}

/// How far a run is; others may look at it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) signatures: AtomicU64,
}

/// A run.
pub(crate) struct Run<'a> {
    pub(crate) pace: Pace,
    /// Not measured
    pub(crate) warm_up: Duration,
    pub(crate) length: Length,
    pub(crate) verification: Verification,
    /// Length of a piece of the time series
    pub(crate) interval: Duration,
    pub(crate) edge: &'a mut dyn FnMut(Edge),
    pub(crate) progress: &'a Progress,
}

/// The connections. They stay open between runs.
pub(crate) struct Engine {
    work: Work,
    connections: Vec<Connection>,
    /// What one of them receives, still encrypted: all share it, so that it stays in the cache
    raw: Vec<u8>,
    poll: rustix::fd::OwnedFd,
    epoch: Instant,
    /// Of the next request's first payload
    number: u64,
    /// Public keys of the work's tasks, DER; empty where segld lists none
    pub(crate) spkis_der: Vec<Vec<u8>>,
    server: String,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Connects so often, and looks the keys up.
    pub(crate) fn connect(target: &Target, work: Work, connections: usize) -> Result<Engine> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut spkis_der = Vec::new();
        let mut open = Vec::with_capacity(connections);
        for at in 0..connections.max(1) {
            let mut connection = Connection::open(target)?;
            if at == 0 {
                let keys = connection.keys()?.keys;
                for task in &work.tasks {
                    let key = keys.iter().find(|key| key.name == task.key);
                    let names: Vec<_> = keys.iter().map(|key| &*key.name).collect();
                    let key = key.ok_or_else(|| format!("there is no key {}; there are {names:?}", task.key))?;
                    spkis_der.push(key.spki_der.to_vec());
                }
            }
            connection.go()?;
            epoll::add(&poll, connection.fd(), epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)?;
            open.push(connection);
        }
        let server = target.address.to_string();
        Ok(Engine {
            work,
            connections: open,
            raw: vec![0; 64 * 1024],
            poll,
            epoch: Instant::now(),
            number: 1,
            spkis_der,
            server,
        })
    }

    pub(crate) fn work(&self) -> &Work {
        &self.work
    }

    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Runs, and waits for the last answer.
    pub(crate) fn run(&mut self, run: Run<'_>) -> Result<Observations> {
        let Run { pace, warm_up, length, verification, interval, edge, progress } = run;
        let mut seen = Observations::default();
        let began_ns = self.now_ns();
        let (mut open, in_flight) = match pace {
            Pace::Closed(in_flight) => (None, in_flight),
            Pace::Open(schedule) => (Some(OpenLoop::new(schedule)), usize::MAX),
        };
        let most = self.connections.iter().map(|it| it.in_flight_max / self.work.batch).min().unwrap_or(1).max(1);
        if open.is_none() && in_flight > most {
            let batch = self.work.batch;
            return Err(
                format!("{}: {most} requests of {batch} in flight at most, not {in_flight}", self.server).into()
            );
        }
        let in_flight = in_flight.min(most);
        let window_ns = began_ns + warm_up.as_nanos() as u64;
        let mut window: Option<u64> = None;
        let mut until_ns = match length {
            Length::Time(duration) => window_ns + duration.as_nanos() as u64,
            Length::Signatures(_) => u64::MAX,
        };
        let mut left_to_send = match length {
            Length::Signatures(signatures) => signatures.div_ceil(self.work.batch as u64),
            Length::Time(_) => u64::MAX,
        };
        let interval_ns = interval.as_nanos() as u64;
        let mut tick_ns = u64::MAX;
        let mut ended = false;
        let mut last_answer_ns = began_ns;
        let mut turn = 0;
        let mut events = Vec::with_capacity(256);
        let mut ready: Vec<(usize, bool)> = (0..self.connections.len()).map(|at| (at, true)).collect();
        loop {
            self.work.renew();
            let mut now = self.now_ns();
            if window.is_none() && now >= window_ns {
                seen.restart();
                edge(Edge::Begin);
                now = self.now_ns();
                window = Some(now);
                if let Length::Time(duration) = length {
                    until_ns = now + duration.as_nanos() as u64;
                }
                tick_ns = now + interval_ns;
            }
            if let Some(began) = window
                && now >= tick_ns
                && !ended
            {
                seen.tick(now, began);
                tick_ns += interval_ns;
            }
            let flying: usize = self.connections.iter().map(|connection| connection.in_flight).sum();
            let sent_all = left_to_send == 0 || open.as_ref().is_some_and(OpenLoop::is_over);
            if !ended && (now >= until_ns || sent_all && flying == 0) {
                if let Some(began) = window {
                    seen.window = Duration::from_nanos(now - began);
                }
                edge(Edge::End);
                ended = true;
            }
            if ended && flying == 0 {
                break;
            }
            // An end by the clock: what is in flight is waited for, and not counted.
            let sending = !ended && !sent_all;
            for (at, _) in &ready {
                let connection = &mut self.connections[*at];
                if open.is_none() {
                    while sending && connection.in_flight < in_flight && left_to_send > 0 {
                        left_to_send = left_to_send.saturating_sub(1);
                        send(&self.work, connection, &mut self.number, now);
                    }
                }
                if !connection.out.is_empty() {
                    self.flush(*at)?;
                }
            }
            if let Some(open) = &mut open
                && sending
            {
                while let Some(intended) = open.take(now - began_ns) {
                    let Some(at) = room(&self.connections, &mut turn, in_flight) else {
                        open.give_back(intended);
                        break;
                    };
                    seen.late.record(now - began_ns - intended);
                    send(&self.work, &mut self.connections[at], &mut self.number, began_ns + intended);
                    if !ready.contains(&(at, true)) {
                        ready.push((at, true));
                    }
                }
                for (at, _) in std::mem::take(&mut ready) {
                    if !self.connections[at].out.is_empty() {
                        self.flush(at)?;
                    }
                }
            }
            ready.clear();
            let wake_ns = {
                let next = open.as_ref().filter(|_| sending).and_then(OpenLoop::next_ns);
                // One that waits for room waits for an answer, not for its time, which has passed.
                let next = next.map(|next| began_ns + next).filter(|next| *next > now);
                let next = next.map_or(u64::MAX, |next| next.saturating_sub(SPIN_NS));
                let window_begins = if window.is_none() { window_ns } else { u64::MAX };
                // At the end only answers are waited for.
                let edges = if ended { u64::MAX } else { until_ns.min(tick_ns) };
                next.min(edges).min(window_begins).min(now + 100_000_000)
            };
            let wait = Timespec::try_from(Duration::from_nanos(wake_ns.saturating_sub(self.now_ns())))
                .expect("a tenth of a second fits");
            events.clear();
            // epoll_pwait counts in milliseconds; who sends by the clock needs ppoll's nanoseconds.
            let wait = match &open {
                None => wait,
                Some(_) => match poll(&mut [PollFd::new(&self.poll, PollFlags::IN)], Some(&wait)) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => Timespec::default(),
                    Err(error) => return Err(error.into()),
                },
            };
            match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let came = !events.is_empty();
            for event in &events {
                let at = event.data.u64() as usize;
                let flags = event.flags; // the structure is packed
                if flags.contains(epoll::EventFlags::OUT) {
                    self.flush(at)?;
                }
                let counting = window.is_some() && !ended;
                self.receive(at, &mut seen, counting, verification)?;
                ready.push((at, true));
            }
            if came {
                last_answer_ns = self.now_ns();
                progress.signatures.store(seen.signatures, Ordering::Relaxed);
            } else if flying > 0 && self.now_ns() - last_answer_ns > SILENCE_MAX.as_nanos() as u64 {
                return Err(format!("{}: no answer for {} s", self.server, SILENCE_MAX.as_secs()).into());
            } else if flying == 0 {
                last_answer_ns = self.now_ns();
            }
        }
        Ok(seen)
    }

    /// Sends what waits, and asks epoll to tell when the socket takes more.
    fn flush(&mut self, at: usize) -> Result<()> {
        let connection = &mut self.connections[at];
        let was_blocked = connection.blocked;
        connection.flush()?;
        if connection.blocked != was_blocked {
            let flags = epoll::EventFlags::IN
                | if connection.blocked { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            epoll::modify(&self.poll, connection.fd(), epoll::EventData::new_u64(at as u64), flags)?;
        }
        Ok(())
    }

    fn receive(
        &mut self,
        at: usize,
        seen: &mut Observations,
        counting: bool,
        verification: Verification,
    ) -> Result<()> {
        let connection = &mut self.connections[at];
        if !connection.receive(&mut self.raw)? {
            return Ok(());
        }
        let now = self.epoch.elapsed().as_nanos() as u64;
        let limits = connection.limits;
        loop {
            let Some((header, body)) = connection.next_frame()? else { return Ok(()) };
            let Some(kind) = header.known_kind() else { return Err("segld sent a frame of no known type".into()) };
            let keep = |offset: u64, signature: &[u8], kept: &mut Vec<(u64, Box<[u8]>)>| {
                kept.push((offset, signature.into()));
            };
            // What borrows from the frame is taken out of it before the connection is asked whose it was.
            let mut kept = Vec::new();
            let keeping = counting && verification != Verification::Off;
            let (mut good, mut timings, mut errors) = (0, None, Vec::new());
            match kind {
                Kind::Signed => {
                    let signed = Signed::decode(body, &limits)?;
                    (good, timings) = (1, signed.timings);
                    if keeping {
                        keep(0, &signed.signature, &mut kept);
                    }
                }
                Kind::SignedBatch => {
                    let batch = SignedBatch::decode(body, &limits)?;
                    for (offset, item) in (0..).zip(batch.items) {
                        match item {
                            Ok(signed) => {
                                good += 1;
                                timings = timings.max_by_token(signed.timings);
                                if keeping {
                                    keep(offset, &signed.signature, &mut kept);
                                }
                            }
                            Err(error) => errors.push(format!("{:?}: {}", error.code, error.message)),
                        }
                    }
                }
                Kind::SignedAssertion => {
                    let signed = SignedAssertion::decode(body, &limits)?;
                    (good, timings) = (1, signed.timings);
                    if keeping {
                        keep(0, &signed.xml, &mut kept);
                    }
                }
                Kind::SignedJws => {
                    let signed = SignedJws::decode(body, &limits)?;
                    (good, timings) = (1, signed.timings);
                    if keeping {
                        keep(0, &signed.compact, &mut kept);
                    }
                }
                Kind::Error => {
                    let error = segl_wire::Error::decode(body, &limits)?;
                    let what = format!("{:?}: {}", error.code, error.message);
                    if header.id == 0 {
                        return Err(format!("segld ends the connection: {what}").into());
                    }
                    errors.extend(std::iter::repeat_n(what, self.work.batch));
                }
                Kind::Ping | Kind::Pong => continue,
                Kind::GoAway => return Err("segld leaves".into()),
                other => return Err(format!("segld sent {other:?}").into()),
            }
            let Some(flight) = connection.finish(header.id) else {
                return Err(format!("an answer to a request {} that nobody made", header.id).into());
            };
            for error in errors {
                seen.failed(&error, 1);
            }
            if good > 0 && counting {
                seen.answered(now.saturating_sub(flight.since_ns), timings, good);
                for (offset, signature) in kept {
                    let number = flight.number + offset;
                    let operation = self.work.tasks[flight.task].operation;
                    if verification.keeps(operation, number, seen.samples.len()) {
                        seen.samples.push(Sample { task: flight.task, number, signature });
                    }
                }
            }
        }
    }
}

/// Of two the one that was longer in the token.
trait MaxByToken {
    fn max_by_token(self, other: Self) -> Self;
}

impl MaxByToken for Option<segl_wire::Timings> {
    fn max_by_token(self, other: Self) -> Self {
        match (self, other) {
            (Some(one), Some(two)) if two.token_us > one.token_us => Some(two),
            (None, other) => other,
            (one, _) => one,
        }
    }
}

fn send(work: &Work, connection: &mut Connection, number: &mut u64, since_ns: u64) {
    let first = *number;
    *number += work.batch as u64;
    let task = work.task_of(first);
    let id = connection.begin(Flight { since_ns, number: first, task });
    let mut out = std::mem::take(&mut connection.out);
    work.encode(task, id, first, true, &mut out);
    connection.out = out;
}

/// The next connection in turn that may have one more in flight.
fn room(connections: &[Connection], turn: &mut usize, in_flight_max: usize) -> Option<usize> {
    for _ in 0..connections.len() {
        *turn = (*turn + 1) % connections.len();
        if connections[*turn].in_flight < in_flight_max {
            return Some(*turn);
        }
    }
    None
}
