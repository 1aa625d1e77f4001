//! One connection: requests are numbered and gathered, written together, and matched with their answers.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::{ClientError, Request, Signature, Trace, TraceEvent};
use crate::{
    Cancel, Code, DecodeError, Error, GoAway, HEADER_LEN, Header, Hello, Keys, Kind, Limits, Message, Ping, Signed,
    SignedAssertion, SignedAssertionBatch, SignedBatch, SignedJws, SignedState, encode_frame,
};

/// Output kept for a server that does not read, beyond what requests in flight can be: answers to its own Pings.
const PONGS_MAX: usize = 1024;

/// An answer, decoded and owned.
pub(super) enum Reply {
    Signed(Signature),
    SignedBatch(Vec<Result<Signature, Error<'static>>>),
    SignedAssertion(SignedAssertion<'static>),
    SignedAssertionBatch(Vec<Result<SignedAssertion<'static>, Error<'static>>>),
    SignedJws(SignedJws<'static>),
    Keys(Keys<'static>),
}

impl Reply {
    /// How many answers it holds, when it is a batch's.
    fn items(&self) -> Option<usize> {
        match self {
            Reply::SignedBatch(items) => Some(items.len()),
            Reply::SignedAssertionBatch(items) => Some(items.len()),
            _ => None,
        }
    }
}

type Answer = Result<Reply, ClientError>;

/// A request on its way.
pub(super) struct Submission {
    pub(super) id: u64,
    pub(super) answer: oneshot::Receiver<Answer>,
}

/// How a connection stops taking requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The server said so; answers may still come
    Draining,
    /// It is gone
    Closed,
}

pub(super) fn said(error: &Result<Error<'_>, DecodeError>) -> Arc<str> {
    match error {
        Ok(error) => format!("the server says {}: {}", error.code.name(), error.message).into(),
        Err(error) => format!("the server's Error: {error}").into(),
    }
}

/// What callers and the connection's task share.
pub(super) struct Link {
    number: u64,
    pub(super) hello: Arc<Hello<'static>>,
    /// As many as the Hello allows in flight; closed when the connection takes no more requests
    pub(super) slots: Arc<Semaphore>,
    state: Mutex<State>,
    /// There is something to write
    pub(super) output: Notify,
    /// Nothing is in flight any more
    pub(super) emptied: Notify,
    left: watch::Sender<Option<Left>>,
    useful: AtomicBool,
    /// Counts reads, for the keep-alive
    pub(super) reads: AtomicU64,
    trace: Option<Trace>,
}

#[derive(Default)]
struct State {
    /// Whole frames, not yet given to the stream
    out: Vec<u8>,
    /// The last id given
    last_id: u64,
    /// Ids up to here were given to the stream: their fate is the server's
    written_id: u64,
    pending: HashMap<u64, Pending>,
    pings: HashMap<u64, oneshot::Sender<()>>,
    last_ping: u64,
    /// Pongs in `out`
    pongs: usize,
    why_left: Option<Arc<str>>,
}

struct Pending {
    expected: Kind,
    items: usize,
    signed_when_lost: SignedState,
    answer: oneshot::Sender<Answer>,
    /// Held until the final answer, even when nobody waits for it any more
    _slots: OwnedSemaphorePermit,
}

impl Link {
    pub(super) fn new(number: u64, hello: Arc<Hello<'static>>, trace: Option<Trace>) -> Self {
        let slots = (hello.in_flight_max as usize).min(Semaphore::MAX_PERMITS);
        Link {
            number,
            hello,
            slots: Arc::new(Semaphore::new(slots)),
            state: Mutex::default(),
            output: Notify::new(),
            emptied: Notify::new(),
            left: watch::Sender::new(None),
            useful: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            trace,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.slots.is_closed()
    }

    /// Slots taken.
    pub(super) fn taken(&self) -> usize {
        (self.hello.in_flight_max as usize).saturating_sub(self.slots.available_permits())
    }

    /// Waits until the connection takes no more requests.
    pub(super) async fn left(&self) -> Left {
        let mut left = self.left.subscribe();
        let left = left.wait_for(Option::is_some).await.map(|left| *left);
        left.ok().flatten().unwrap_or(Left::Closed)
    }

    /// Whether it ever answered anything.
    pub(super) fn was_useful(&self) -> bool {
        self.useful.load(Ordering::Relaxed)
    }

    /// Whether every request has its final answer.
    pub(super) fn is_empty(&self) -> bool {
        self.state().pending.is_empty()
    }

    pub(super) fn why_left(&self) -> Arc<str> {
        self.state().why_left.clone().unwrap_or_else(|| "the connection ended".into())
    }

    /// Gives the request its id and queues it; none when the connection has just left.
    pub(super) fn submit<'m, R: Request<'m>>(
        &self,
        request: &R,
        slots: OwnedSemaphorePermit,
    ) -> Result<Option<Submission>, Error<'static>> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state();
        // Checked under the lock that leaving takes: a request is seen by it or sees it.
        if !self.is_open() {
            return Ok(None);
        }
        let id = state.last_id + 1;
        let start = state.out.len();
        let len = encode_frame(R::KIND, id, request, &mut state.out);
        if len > self.hello.frame_max as usize {
            state.out.truncate(start);
            let what = format!("a frame's body has at most {} bytes here, not {len}", self.hello.frame_max);
            return Err(Error::of(Code::FrameTooLong, what));
        }
        state.last_id = id;
        let pending = Pending {
            expected: R::ANSWER,
            items: request.cost(),
            signed_when_lost: R::signed_when_lost(),
            answer: sender,
            _slots: slots,
        };
        state.pending.insert(id, pending);
        drop(state);
        self.output.notify_one();
        Ok(Some(Submission { id, answer }))
    }

    /// Queues a Ping; none when the connection is gone.
    pub(super) fn ping(&self) -> Option<oneshot::Receiver<()>> {
        let (sender, pong) = oneshot::channel();
        let mut state = self.state();
        if *self.left.borrow() == Some(Left::Closed) {
            return None;
        }
        state.pings.retain(|_, sender| !sender.is_closed());
        state.last_ping += 1;
        let number = state.last_ping;
        state.pings.insert(number, sender);
        let data = number.to_be_bytes();
        encode_frame(Kind::Ping, 0, &Ping { data: data.as_slice().into() }, &mut state.out);
        drop(state);
        self.output.notify_one();
        Some(pong)
    }

    /// Nobody waits for the answer any more.
    fn abandon(&self, id: u64) {
        let mut state = self.state();
        if state.pending.contains_key(&id) {
            encode_frame(Kind::Cancel, id, &Cancel, &mut state.out);
            drop(state);
            self.output.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding the lock")
    }

    fn trace(&self, event: impl FnOnce(u64) -> TraceEvent) {
        if let Some(trace) = &self.trace {
            trace(event(self.number));
        }
    }

    /// A frame of the server. An error ends the connection.
    pub(super) fn receive(&self, header: Header, body: &[u8]) -> Result<(), Arc<str>> {
        let limits = Limits::from(&*self.hello);
        let bad = |what: &str, error: DecodeError| Arc::from(format!("the server's {what}: {error}"));
        match header.known_kind() {
            Some(
                kind @ (Kind::Signed
                | Kind::SignedBatch
                | Kind::SignedAssertion
                | Kind::SignedAssertionBatch
                | Kind::SignedJws
                | Kind::Keys),
            ) => self.answered(kind, header.id, body),
            Some(Kind::Error) if header.id == 0 => {
                self.leave(Left::Draining, said(&Error::decode(body, &limits)));
                Ok(())
            }
            Some(Kind::Error) => self.answered(Kind::Error, header.id, body),
            Some(Kind::Ping) => {
                let ping = Ping::decode(body, &limits).map_err(|error| bad("Ping", error))?;
                let mut state = self.state();
                state.pongs += 1;
                if state.pongs > PONGS_MAX {
                    return Err("the server sends Pings and does not read".into());
                }
                encode_frame(Kind::Pong, header.id, &ping, &mut state.out);
                drop(state);
                self.output.notify_one();
                Ok(())
            }
            Some(Kind::Pong) => {
                let pong = Ping::decode(body, &limits).map_err(|error| bad("Pong", error))?;
                let number = <[u8; 8]>::try_from(&*pong.data).map(u64::from_be_bytes);
                let sender = number.ok().and_then(|number| self.state().pings.remove(&number));
                // Whoever asked may have given up.
                sender.map(|sender| sender.send(()));
                Ok(())
            }
            Some(Kind::GoAway) => {
                let going = GoAway::decode(body, &limits).map_err(|error| bad("GoAway", error))?;
                self.going_away(&going);
                Ok(())
            }
            _ => Err(format!("the server sent a frame of type {:#04x}", header.kind).into()),
        }
    }

    fn answered(&self, kind: Kind, id: u64, body: &[u8]) -> Result<(), Arc<str>> {
        let pending = {
            let mut state = self.state();
            if id > state.written_id {
                return Err(format!("the server answered request {id}, which was not sent").into());
            }
            let pending = state.pending.remove(&id);
            if state.pending.is_empty() {
                self.emptied.notify_one();
            }
            pending.ok_or_else(|| Arc::from(format!("the server answered request {id} twice")))?
        };
        let limits = Limits::from(&*self.hello);
        match decode_answer(kind, &pending, body, &limits) {
            Ok(answer) => {
                self.useful.store(true, Ordering::Relaxed);
                self.trace(|connection| match &answer {
                    Err(ClientError::Refused(error)) => TraceEvent::Refused { connection, id, code: error.code },
                    _ => TraceEvent::Answered { connection, id },
                });
                let _ = pending.answer.send(answer); // the caller may have given up
                Ok(())
            }
            Err(cause) => {
                let cause: Arc<str> = format!("the server's answer: {cause}").into();
                let signed = pending.signed_when_lost;
                let _ = pending.answer.send(Err(ClientError::Lost { id, signed, cause: cause.clone() }));
                Err(cause)
            }
        }
    }

    fn going_away(&self, going: &GoAway<'_>) {
        let last_id = going.last_id;
        self.trace(|connection| TraceEvent::GoAway { connection, last_id });
        let cause: Arc<str> = format!("the server leaves: {}", going.message).into();
        self.leave(Left::Draining, cause.clone());
        let mut state = self.state();
        state.forget_above(last_id);
        let untouched: Vec<u64> = state.pending.keys().copied().filter(|id| *id > last_id).collect();
        for id in untouched {
            if let Some(pending) = state.pending.remove(&id) {
                let _ = pending.answer.send(Err(ClientError::NotSent { cause: cause.clone() }));
            }
        }
        if state.pending.is_empty() {
            self.emptied.notify_one();
        }
    }

    /// Takes no more requests.
    fn leave(&self, how: Left, cause: Arc<str>) {
        let mut state = self.state();
        self.slots.close();
        state.why_left.get_or_insert(cause);
        drop(state);
        self.left.send_replace(Some(how));
    }

    /// The end: nothing more will be heard of what is in flight.
    pub(super) fn close(&self, cause: Arc<str>) {
        self.leave(Left::Closed, cause.clone());
        let (pending, written_id) = {
            let mut state = self.state();
            state.pings.clear();
            (mem::take(&mut state.pending), state.written_id)
        };
        let mut lost = Vec::new();
        for (id, pending) in pending {
            let cause = cause.clone();
            let error = if id > written_id {
                ClientError::NotSent { cause }
            } else {
                lost.push(id);
                ClientError::Lost { id, signed: pending.signed_when_lost, cause }
            };
            let _ = pending.answer.send(Err(error)); // the caller may have given up
        }
        lost.sort_unstable();
        self.trace(|connection| TraceEvent::ClosedWith { connection, pending: lost });
    }

    /// Takes what is to be written, and with that the promise that it was never sent.
    pub(super) fn take_output(&self, into: &mut Vec<u8>) {
        let sent = {
            let mut state = self.state();
            mem::swap(&mut state.out, into);
            state.pongs = 0;
            let last_id = state.last_id;
            mem::replace(&mut state.written_id, last_id) + 1..=last_id
        };
        if self.trace.is_some() {
            sent.for_each(|id| self.trace(|connection| TraceEvent::Sent { connection, id }));
        }
    }
}

impl State {
    /// Drops what is queued about requests above `last_id`. No id is given any more.
    fn forget_above(&mut self, last_id: u64) {
        self.last_id = self.last_id.min(last_id.max(self.written_id));
        let out = mem::take(&mut self.out);
        let mut rest = out.as_slice();
        while let Some(bytes) = rest.first_chunk::<HEADER_LEN>() {
            let header = Header::parse(bytes).expect("the queue holds our own frames");
            let (frame, after) = rest.split_at(HEADER_LEN + header.len as usize);
            if header.id <= last_id || matches!(header.known_kind(), Some(Kind::Ping | Kind::Pong)) {
                self.out.extend_from_slice(frame);
            }
            rest = after;
        }
    }
}

fn decode_answer(kind: Kind, pending: &Pending, body: &[u8], limits: &Limits) -> Result<Answer, String> {
    let read = match kind {
        Kind::Error => Error::decode(body, limits).map(|error| Err(ClientError::Refused(error.into_owned()))),
        kind if kind != pending.expected => return Err(format!("{kind:?} in place of {:?}", pending.expected)),
        kind => decode_reply(kind, body, limits).map(Ok),
    };
    let answer = read.map_err(|error| error.to_string())?;
    match answer.as_ref().ok().and_then(Reply::items) {
        Some(items) if items != pending.items => Err(format!("{items} answers to a batch of {}", pending.items)),
        _ => Ok(answer),
    }
}

fn decode_reply(kind: Kind, body: &[u8], limits: &Limits) -> Result<Reply, DecodeError> {
    Ok(match kind {
        Kind::Signed => Reply::Signed(keep(Signed::decode(body, limits)?)),
        Kind::SignedBatch => {
            let items = SignedBatch::decode(body, limits)?.items.into_iter();
            Reply::SignedBatch(items.map(|item| item.map(keep).map_err(Error::into_owned)).collect())
        }
        Kind::SignedAssertion => Reply::SignedAssertion(SignedAssertion::decode(body, limits)?.into_owned()),
        Kind::SignedAssertionBatch => {
            Reply::SignedAssertionBatch(SignedAssertionBatch::decode(body, limits)?.into_owned().items)
        }
        Kind::SignedJws => Reply::SignedJws(SignedJws::decode(body, limits)?.into_owned()),
        _ => Reply::Keys(Keys::decode(body, limits)?.into_owned()),
    })
}

fn keep(signed: Signed<'_>) -> Signature {
    Signature {
        bytes: signed.signature.into_owned(),
        timings: signed.timings,
        version: signed.version.map(|version| version.into_owned()),
    }
}

/// Takes the request back when its caller goes away before the answer.
pub(super) struct Awaiting<'l> {
    link: &'l Link,
    id: u64,
    answered: bool,
}

impl<'l> Awaiting<'l> {
    pub(super) fn new(link: &'l Link, id: u64) -> Self {
        Awaiting { link, id, answered: false }
    }

    pub(super) fn answered(&mut self) {
        self.answered = true;
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.link.abandon(self.id);
        }
    }
}
