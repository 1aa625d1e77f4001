//! A reactor: one thread with its own runtime, its own connections, its own requests in flight.
//!
//! Three kinds of task run on it beside the connections' own: accepting, taking completions back from the pool, and
//! a sweep that watches every deadline. None of them shares mutable state with another thread but through
//! [`ReactorInbox`].

mod accept;
mod answer;
mod complete;
mod held;
mod inbox;
mod rest;
#[cfg(test)]
mod suite;
mod sweep;
mod table;
mod thread;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use arc_swap::Cache;
use rustls::ServerConnection;
use segl_audit::{ConnectionEvent, Record, Refusal};
use segl_hsm::Algorithm;
use segl_pool::RouteId;
use segl_wire::{Class, Code, Error, GoAwayReason, Kind, Limits as WireLimits};
use tokio::sync::Notify;

use self::{
    held::HeldAnswers,
    table::{Table, Tag},
};
use crate::{
    config::{Limits, Operation},
    connection::{Buffers, Client, Connection, Phase},
    gate::and_more,
    meters::ReactorMeters,
    policy::{Authorised, Denied, PeerIdentity, Tenant, Unsigned},
    signing::{Address, Circumstances, Desk, Orders, Place},
    state::{Shared, Snapshot},
    transport::{Closing, Peer},
};

pub(crate) use answer::{Answer, Answers, Batch, Made, Reply};
pub(crate) use inbox::ReactorInbox;
pub(crate) use thread::{Control, RING_ENTRIES, ReactorSetup, ReactorThread, Teller, spawn};

/// How old what a client learns of its keys' state may be.
const USABLE_FOR_NS: u64 = 20_000_000;

/// A request in the pool.
pub(crate) struct Request {
    pub(crate) connection: Rc<Connection>,
    pub(crate) client: Rc<Client>,
    /// What it has taken of the tenant's limit
    pub(crate) weight: u32,
    pub(crate) reply: Reply,
    pub(crate) answers: Answers,
    /// Which version of the key it is for
    pub(crate) version: Option<Arc<str>>,
    /// The document that waits for the signature: its one copy in this process
    pub(crate) unsigned: Option<Unsigned>,
    pub(crate) operation: Operation,
    pub(crate) algorithm: Algorithm,
    pub(crate) class: Class,
    /// Its number in the journal
    pub(crate) intent: u64,
    pub(crate) began_ns: u64,
    pub(crate) deadline_ns: u64,
}

/// One reactor's state.
pub(crate) struct Reactor {
    shared: Arc<Shared>,
    index: u16,
    inbox: Arc<ReactorInbox>,
    snapshot: RefCell<Cache<Arc<arc_swap::ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    buffers: Rc<Buffers>,
    connections: RefCell<Table<Rc<Connection>>>,
    requests: RefCell<Table<Request>>,
    orders: RefCell<Orders>,
    held: RefCell<HeldAnswers>,
    meters: ReactorMeters,
    /// Until when it holds (on the pool's clock), and by route
    usable: RefCell<(u64, Vec<bool>)>,
    draining: Cell<bool>,
    /// Rung when draining begins, and when a connection has gone
    changed: Notify,
}

impl Reactor {
    fn new(shared: Arc<Shared>, index: u16, inbox: Arc<ReactorInbox>) -> Rc<Reactor> {
        let snapshot = RefCell::new(Cache::new(shared.snapshot.clone()));
        let meters = ReactorMeters::new(shared.times.clone(), shared.tenants.clone());
        let buffers = Rc::new(Buffers::new(shared.limits.frame_max));
        Rc::new(Reactor {
            shared,
            index,
            inbox,
            snapshot,
            buffers,
            connections: RefCell::default(),
            requests: RefCell::default(),
            orders: RefCell::default(),
            held: RefCell::default(),
            meters,
            usable: RefCell::default(),
            draining: Cell::new(false),
            changed: Notify::new(),
        })
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.shared.desk.now_ns()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(crate) fn wire_limits(&self) -> &WireLimits {
        &self.shared.wire_limits
    }

    pub(crate) fn meters(&self) -> &ReactorMeters {
        &self.meters
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.shared.desk
    }

    /// Whether some session could sign by this route, as of a moment ago: a client that asks for its keys again and
    /// again must not hold the pool's lock.
    pub(crate) fn route_usable(&self, route: RouteId) -> bool {
        let now_ns = self.now_ns();
        let mut usable = self.usable.borrow_mut();
        if now_ns >= usable.0 {
            *usable = (now_ns + USABLE_FOR_NS, self.desk().pool_snapshot().route_usable);
        }
        usable.1.get(route.0 as usize).copied().unwrap_or(false)
    }

    /// The policy and TLS in force.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow_mut().load().clone()
    }

    /// A connection was accepted.
    fn opened(self: &Rc<Self>, peer: Peer, closer: impl Closing) -> Result<Rc<Connection>, rustls::Error> {
        let tls = ServerConnection::new(self.snapshot().tls.config.clone())?;
        let mut made = None;
        let id = self.shared.census.next_connection_id();
        self.connections.borrow_mut().insert_with(|tag| {
            let connection = Connection::new(id, tag, peer, self.now_ns(), tls, self.buffers.clone(), closer);
            made = Some(connection.clone());
            connection
        });
        Ok(made.expect("insert_with calls its closure"))
    }

    /// TLS is agreed on: who is it, and is it one of ours?
    pub(crate) fn established(&self, connection: &Rc<Connection>) {
        self.handshake_over(connection);
        let (chain, agreed_on_segl) = connection.agreed();
        let now_ns = self.now_ns();
        let identity = match chain.first().map(|leaf| PeerIdentity::from_certificate(leaf)) {
            Some(Ok(identity)) => Rc::new(identity),
            _ => {
                connection.open(None, now_ns);
                return self.turn_away(connection, None, Code::NotGranted, "the client certificate can not be read");
            }
        };
        if !agreed_on_segl {
            connection.open(None, now_ns);
            let why = "ALPN must offer segl/1";
            return self.turn_away(connection, Some(&identity), Code::Malformed, why);
        }
        let snapshot = self.snapshot();
        let (tenant, name) = match snapshot.policy.identify(&identity) {
            Ok((tenant, name)) => (tenant.clone(), name.to_string()),
            Err(error) => {
                connection.open(None, now_ns);
                return self.turn_away(connection, Some(&identity), Code::NotGranted, &error.to_string());
            }
        };
        let load = self.shared.census.load(tenant.id());
        if !load.admits_connection(self.limits().connections_per_tenant) {
            connection.open(None, now_ns);
            let why = "the tenant has its most connections open";
            return self.turn_away(connection, Some(&identity), Code::TenantLimit, why);
        }
        self.note_connection(connection, Some(&name), Some(&tenant), ConnectionEvent::Opened, None);
        tracing::debug!(connection = connection.id, peer = %connection.peer, client = name, tenant = &**tenant.name(), "open");
        let generation = snapshot.policy.generation();
        connection.open(Some(Client { chain, identity, tenant, generation, load, name: name.into() }), now_ns);
        connection.send(Kind::Hello, 0, &self.shared.hello, 0);
        if self.draining.get() {
            connection.leave(GoAwayReason::Shutdown, "segld is stopping", now_ns);
        }
    }

    /// Tells a client that TLS let in why it may not stay.
    fn turn_away(&self, connection: &Connection, identity: Option<&PeerIdentity>, code: Code, why: &str) {
        self.meters.protocol_error(code);
        let name = identity.map(client_name);
        self.note_connection(connection, name.as_deref(), None, ConnectionEvent::Refused, Some(why));
        connection.refuse(0, &Error::of(code, why.to_owned()), 0);
        connection.leave(GoAwayReason::Unauthorised, why, self.now_ns());
    }

    /// The client as the policy in force sees it; one that it knows no more is sent away.
    pub(crate) fn client_under(&self, connection: &Connection, snapshot: &Snapshot) -> Option<Rc<Client>> {
        let client = connection.client()?;
        if client.generation == snapshot.policy.generation() {
            return Some(client);
        }
        match snapshot.policy.identify(&client.identity) {
            Ok((tenant, name)) => {
                let load = self.shared.census.load(tenant.id());
                if !Arc::ptr_eq(&load, &client.load) {
                    client.load.connection_ended();
                    load.adopts_connection();
                }
                let (generation, name) = (snapshot.policy.generation(), name.to_string().into());
                let client = Rc::new(Client { tenant: tenant.clone(), generation, load, name, ..(*client).clone() });
                connection.identified(client.clone());
                Some(client)
            }
            Err(error) => {
                self.send_away(connection, &client, &error.to_string());
                None
            }
        }
    }

    /// A client that was good and is no longer.
    fn send_away(&self, connection: &Connection, client: &Client, why: &str) {
        self.note_connection(connection, Some(&client.name), Some(&client.tenant), ConnectionEvent::Refused, Some(why));
        connection.leave(GoAwayReason::Unauthorised, why, self.now_ns());
    }

    /// Records the intent, remembers the request, queues the job.
    pub(crate) fn order(
        &self,
        order: Authorised<'_>,
        place: Place,
        circumstances: &Circumstances<'_>,
        mut request: Request,
    ) -> Result<(), Refusal> {
        let mut outcome = Ok(());
        let (connection, id) = (request.connection.clone(), request.reply.id());
        let tag = self.requests.borrow_mut().insert_with(|tag| {
            let address = Address { inbox: self.index, tag };
            let mut orders = self.orders.borrow_mut();
            match self.desk().order(&mut orders, order, place, circumstances, request.deadline_ns, address) {
                Ok(intent) => request.intent = intent,
                Err(refusal) => outcome = Err(refusal),
            }
            request
        });
        match outcome {
            Ok(()) => connection.remember(id, tag, |tag| self.requests.borrow().contains(tag)),
            Err(_) => drop(self.requests.borrow_mut().remove(tag)),
        }
        outcome
    }

    /// Hands what has been ordered to the pool.
    pub(crate) fn submit(&self) {
        let mut orders = self.orders.borrow_mut();
        if !orders.is_empty() {
            self.desk().submit(&mut orders);
        }
    }

    /// The client does not want the answer any more. It gets one all the same.
    pub(crate) fn cancel(&self, connection: &Rc<Connection>, id: u64) {
        if connection.in_flight() == 0 {
            return;
        }
        // What was asked for a moment ago may still wait to be submitted.
        self.submit();
        self.cancel_all(&connection.forget(id));
    }

    /// Takes back what the pool has not begun; each completes all the same.
    fn cancel_all(&self, tags: &[Tag]) {
        for tag in tags.iter().filter(|tag| self.requests.borrow().contains(**tag)) {
            self.desk().cancel(Address { inbox: self.index, tag: *tag });
        }
    }

    /// A refusal by the policy, for the record. A tenant that is refused all the time does not fill the journal with it.
    pub(crate) fn record_denial(&self, client: &Client, operation: Operation, key: &str, denied: &Denied) {
        let Some(held_back) = client.load.events.passes(self.now_ns()) else { return };
        let reason = and_more(&denied.to_string(), held_back);
        tracing::info!(client = &*client.name, key, reason, "refused");
        self.desk().note(&Record::Refused(segl_audit::Refused {
            tenant: Some((&**client.tenant.name()).into()),
            client: (&*client.name).into(),
            operation: operation.name().into(),
            key: key.into(),
            code: crate::refusal::denied(denied).code.name().into(),
            reason: reason.into(),
        }));
    }

    /// TLS broke: during the handshake the alert still goes out, afterwards nothing does.
    pub(crate) fn tls_failed(&self, connection: &Connection, error: &rustls::Error) {
        let handshake = connection.phase() == Phase::Handshake;
        self.meters.tls_failed(error);
        tracing::debug!(connection = connection.id, peer = %connection.peer, handshake, %error, "TLS failed");
        self.handshake_over(connection);
        if handshake {
            self.note_connection(connection, None, None, ConnectionEvent::Refused, Some(&error.to_string()));
        }
        connection.fail(self.now_ns());
    }

    /// The reader is at its end: what the client had queued is taken back, and the place is given up.
    pub(crate) fn gone(&self, connection: &Rc<Connection>) {
        self.handshake_over(connection);
        if connection.in_flight() > 0 {
            self.submit();
            self.cancel_all(&connection.forget_all());
        }
        connection.close(self.now_ns());
        self.connections.borrow_mut().remove(connection.slot);
        self.shared.census.connection_ended();
        if let Some(client) = connection.client() {
            client.load.connection_ended();
            self.note_connection(connection, Some(&client.name), Some(&client.tenant), ConnectionEvent::Closed, None);
        }
        self.changed.notify_waiters();
    }

    fn handshake_over(&self, connection: &Connection) {
        if connection.handshake_over() {
            self.shared.census.handshake_ended();
        }
    }

    /// For record and log, as far as the gate of its tenant, or of all strangers, lets it through.
    fn note_connection(
        &self,
        connection: &Connection,
        client: Option<&str>,
        tenant: Option<&Tenant>,
        event: ConnectionEvent,
        reason: Option<&str>,
    ) {
        let census = &self.shared.census;
        let passed = match tenant {
            Some(tenant) => census.load(tenant.id()).events.passes(self.now_ns()),
            None => census.strangers.passes(self.now_ns()),
        };
        let Some(held_back) = passed else { return };
        let reason = match (reason, held_back) {
            (None, 0) => None,
            (reason, held_back) => Some(and_more(reason.unwrap_or_default(), held_back)),
        };
        let name = tenant.map(|tenant| &**tenant.name());
        if event == ConnectionEvent::Refused {
            tracing::warn!(connection = connection.id, peer = %connection.peer, client, tenant = name, reason, "turned away");
        }
        self.desk().note(&Record::Connection(segl_audit::Connection {
            client: client.map(Into::into),
            tenant: name.map(Into::into),
            peer: Some((&*connection.peer_name).into()),
            connection_id: connection.id,
            event,
            reason: reason.map(Into::into),
        }));
    }
}

/// What a client without a tenant is called in record and log.
fn client_name(identity: &PeerIdentity) -> String {
    identity.uri_sans.first().or(identity.dns_sans.first()).cloned().unwrap_or_else(|| "(no URI or DNS name)".into())
}
