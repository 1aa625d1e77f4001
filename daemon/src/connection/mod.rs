//! A connection: TLS state, what is in flight, what waits to be written. Lives on one reactor's thread.
//!
//! Two tasks serve it, [`reader`] and [`writer`]; they share this state and wake each other. Neither is ever
//! aborted, and neither's socket operation is ever dropped: what must end is ended through the closer.

mod buffers;
mod reader;
mod writer;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
};

use rustls::{ServerConnection, pki_types::CertificateDer};
use segl_wire::{Error, GoAway, GoAwayReason, Kind, Message, encode_frame, explanation};
use tokio::sync::Notify;

use crate::{
    config::Limits,
    policy::{PeerIdentity, Tenant},
    state::Load,
    transport::{Closing, Peer},
};

pub(crate) use buffers::Buffers;
pub(crate) use reader::read_from;
pub(crate) use writer::write_to;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// TLS is being agreed on
    Handshake,
    /// Requests are taken
    Open,
    /// GoAway was sent: what is in flight is answered, nothing more is taken
    Leaving,
    /// All is written and the peer knows: only its end of stream is awaited
    Finished,
    /// Both tasks are at their end or on the way there
    Closed,
}

/// The client behind an open connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Its certificates as presented, leaf first
    pub(crate) chain: Rc<[CertificateDer<'static>]>,
    /// What the leaf says
    pub(crate) identity: Rc<PeerIdentity>,
    /// Whom the policy takes it for
    pub(crate) tenant: Arc<Tenant>,
    /// Which generation of the policy said so
    pub(crate) generation: u64,
    /// What the tenant has in flight, over all its connections
    pub(crate) load: Arc<Load>,
    /// The name by which the policy knows it, as record and log have it
    pub(crate) name: Rc<str>,
}

/// One client's connection.
pub(crate) struct Connection {
    /// Unique in the process, for journal and log
    pub(crate) id: u64,
    /// Place in the reactor's table
    pub(crate) slot: u64,
    /// The address at the other end
    pub(crate) peer: Peer,
    /// The same, in words
    pub(crate) peer_name: Rc<str>,
    /// When it was accepted, on the pool's clock
    pub(crate) opened_ns: u64,
    /// When bytes last came
    pub(crate) heard_ns: Cell<u64>,
    /// Since when a frame is only there in part
    pub(crate) frame_since_ns: Cell<Option<u64>>,
    /// Since when a write waits for the peer to read
    pub(crate) writing_since_ns: Cell<Option<u64>>,
    /// When it came into its present phase
    pub(crate) phase_since_ns: Cell<u64>,
    phase: Cell<Phase>,
    tls: RefCell<ServerConnection>,
    client: RefCell<Option<Rc<Client>>>,
    buffers: Rc<Buffers>,
    /// Whole frames that wait to be written, in clear; without memory when there are none
    outgoing: RefCell<Vec<u8>>,
    /// Bytes of answers made and not yet taken by the kernel
    pending_bytes: Cell<usize>,
    /// Requests taken and not answered. An answer may be read before its write is known here to be done, so it is
    /// the answer's making that counts; how much waits to be written is bounded by `pending_bytes`
    in_flight: Cell<u32>,
    /// Highest request id seen
    last_id: Cell<u64>,
    /// Requests by their ids, which rise, for Cancel; those that are answered are swept out now and then
    asked: RefCell<VecDeque<(u64, u64)>>,
    /// Nothing the client says is listened to any more
    deaf: Cell<bool>,
    to_write: Notify,
    room: Notify,
    /// Its handshake is no longer counted
    handshake_over: Cell<bool>,
    closer: Box<dyn Close>,
}

/// [`Closing`] without its type.
trait Close {
    fn close(&self);
    fn finish(&self);
}

impl<C: Closing> Close for C {
    fn close(&self) {
        Closing::close(self);
    }

    fn finish(&self) {
        Closing::finish(self);
    }
}

impl Connection {
    pub(crate) fn new(
        id: u64,
        slot: u64,
        peer: Peer,
        now_ns: u64,
        tls: ServerConnection,
        buffers: Rc<Buffers>,
        closer: impl Closing,
    ) -> Rc<Connection> {
        Rc::new(Connection {
            id,
            slot,
            peer,
            peer_name: peer.to_string().into(),
            opened_ns: now_ns,
            heard_ns: Cell::new(now_ns),
            frame_since_ns: Cell::new(None),
            writing_since_ns: Cell::new(None),
            phase_since_ns: Cell::new(now_ns),
            phase: Cell::new(Phase::Handshake),
            tls: RefCell::new(tls),
            client: RefCell::new(None),
            buffers,
            outgoing: RefCell::default(),
            pending_bytes: Cell::new(0),
            in_flight: Cell::new(0),
            last_id: Cell::new(0),
            asked: RefCell::default(),
            deaf: Cell::new(false),
            to_write: Notify::new(),
            room: Notify::new(),
            handshake_over: Cell::new(false),
            closer: Box::new(closer),
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Phases only go forward.
    fn enter(&self, phase: Phase, now_ns: u64) {
        debug_assert!(phase as u8 >= self.phase.get() as u8, "a connection never goes back a phase");
        self.phase.set(phase);
        self.phase_since_ns.set(now_ns);
    }

    /// The client, once TLS and policy have said who it is.
    pub(crate) fn client(&self) -> Option<Rc<Client>> {
        self.client.borrow().clone()
    }

    /// The policy has been asked (again) who the client is.
    pub(crate) fn identified(&self, client: Rc<Client>) {
        *self.client.borrow_mut() = Some(client);
    }

    /// Whether a request may be taken that counts `weight`.
    pub(crate) fn has_room_for(&self, weight: u32, limits: &Limits) -> bool {
        self.in_flight.get().saturating_add(weight) <= limits.in_flight_per_connection
    }

    /// A request was taken: it counts until its answer is made.
    pub(crate) fn took(&self, weight: u32) {
        self.in_flight.set(self.in_flight.get() + weight);
    }

    /// What was taken is answered, or refused after all.
    pub(crate) fn gave_up(&self, weight: u32) {
        self.in_flight.set(self.in_flight.get() - weight);
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Remembers under which tag a request went, so that it can be taken back.
    pub(crate) fn remember(&self, id: u64, tag: u64, waits: impl Fn(u64) -> bool) {
        let mut asked = self.asked.borrow_mut();
        if asked.len() > 2 * self.in_flight.get() as usize + 64 {
            asked.retain(|(_, tag)| waits(*tag));
        }
        asked.push_back((id, tag));
    }

    /// The tags of a request (many for a batch); asking again finds none.
    pub(crate) fn forget(&self, id: u64) -> Vec<u64> {
        let mut asked = self.asked.borrow_mut();
        let (from, to) = (asked.partition_point(|(at, _)| *at < id), asked.partition_point(|(at, _)| *at <= id));
        asked.drain(from..to).map(|(_, tag)| tag).collect()
    }

    /// The tags of all requests.
    pub(crate) fn forget_all(&self) -> Vec<u64> {
        self.asked.take().into_iter().map(|(_, tag)| tag).collect()
    }

    /// Bytes of answers made and not yet taken by the kernel.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending_bytes.get()
    }

    /// Appends a frame that answers a request counting `weight` (0 for frames that answer nothing taken).
    pub(crate) fn send<'m>(&self, kind: Kind, id: u64, message: &impl Message<'m>, weight: u32) {
        self.gave_up(weight);
        if matches!(self.phase.get(), Phase::Finished | Phase::Closed) {
            return;
        }
        let mut outgoing = self.outgoing.borrow_mut();
        if outgoing.capacity() == 0 {
            *outgoing = self.buffers.bytes();
        }
        let before = outgoing.len();
        encode_frame(kind, id, message, &mut outgoing);
        self.pending_bytes.set(self.pending_bytes.get() + outgoing.len() - before);
        self.to_write.notify_one();
    }

    /// Appends the other answer.
    pub(crate) fn refuse(&self, id: u64, error: &Error<'_>, weight: u32) {
        self.send(Kind::Error, id, error, weight);
    }

    /// Says GoAway and takes nothing more; what is in flight is still answered. Saying it twice says it once.
    pub(crate) fn leave(&self, reason: GoAwayReason, message: &str, now_ns: u64) {
        match self.phase.get() {
            Phase::Handshake => self.close(now_ns),
            Phase::Open => {
                let farewell = GoAway { last_id: self.last_id.get(), reason, message: explanation(message) };
                self.send(Kind::GoAway, 0, &farewell, 0);
                self.enter(Phase::Leaving, now_ns);
                self.to_write.notify_one();
            }
            Phase::Leaving | Phase::Finished | Phase::Closed => {}
        }
    }

    /// TLS has failed: its alert is still written, then the connection is at its end.
    pub(crate) fn fail(&self, now_ns: u64) {
        match self.phase.get() {
            Phase::Handshake => {
                self.enter(Phase::Leaving, now_ns);
                self.to_write.notify_one();
            }
            // Nothing sent over a broken TLS session can be believed.
            _ => self.close(now_ns),
        }
    }

    /// Says once that the handshake is over, one way or the other.
    pub(crate) fn handshake_over(&self) -> bool {
        !self.handshake_over.replace(true)
    }

    /// The handshake is over; without a client it is about to be turned away.
    pub(crate) fn open(&self, client: Option<Client>, now_ns: u64) {
        *self.client.borrow_mut() = client.map(Rc::new);
        self.enter(Phase::Open, now_ns);
    }

    /// The certificates that the client presented, and the protocol it agreed on.
    pub(crate) fn agreed(&self) -> (Rc<[CertificateDer<'static>]>, bool) {
        let tls = self.tls.borrow();
        let chain = tls.peer_certificates().unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
        (chain, tls.alpn_protocol() == Some(segl_wire::ALPN))
    }

    /// Ends both tasks, whatever they wait for.
    pub(crate) fn close(&self, now_ns: u64) {
        if self.phase.get() != Phase::Closed {
            self.enter(Phase::Closed, now_ns);
        }
        self.closer.close();
        self.to_write.notify_one();
        self.room.notify_one();
    }
}
