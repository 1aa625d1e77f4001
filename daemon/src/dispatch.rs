//! Frames to requests: decode, limits, policy, order. Every refusal is an answer to its own request.

mod documents;
mod keys;

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use segl_hsm::KeyId;
use segl_wire::{
    Cancel, Code, Context, Error, Form, GoAway, GoAwayReason, Header, Kind, Message, Meta, Payload, Ping, Sign,
    SignBatch, SignedState,
};

use crate::{
    clock,
    config::Operation,
    connection::{Client, Connection, Phase},
    keybook::Readiness,
    policy::{self, Authorised, Denied, Permit, Unsigned},
    reactor::{Answers, Batch, Reactor, Reply, Request},
    refusal,
    signing::{Circumstances, Place},
    state::Snapshot,
};

/// Takes one frame. A panic, which would be a bug of ours, costs the request and neither connection nor process.
pub(crate) fn dispatch(reactor: &Rc<Reactor>, connection: &Rc<Connection>, header: Header, body: &[u8]) {
    let taken = catch_unwind(AssertUnwindSafe(|| take(reactor, connection, header, body)));
    if taken.is_err() {
        let error = mistake().signed(SignedState::Unknown);
        refuse(reactor, connection, header.id, "unknown", error);
    }
}

fn take(reactor: &Rc<Reactor>, connection: &Rc<Connection>, header: Header, body: &[u8]) {
    let limits = reactor.wire_limits();
    let known = header.known_kind();
    let read = match known {
        Some(Kind::Ping) => Ping::decode(body, limits).map(|ping| connection.send(Kind::Pong, header.id, &ping, 0)),
        // We never ping; a Pong that nobody asked for does no harm.
        Some(Kind::Pong) => Ping::decode(body, limits).map(drop),
        Some(Kind::Cancel) => Cancel::decode(body, limits).map(|_| reactor.cancel(connection, header.id)),
        Some(Kind::GoAway) => GoAway::decode(body, limits)
            .map(|_| connection.leave(GoAwayReason::Shutdown, "as you leave", reactor.now_ns())),
        _ => return request(reactor, connection, known, header.id, body),
    };
    // An Error with the id of one of these would look like another request's answer.
    if let Err(error) = read {
        connection.break_off(reactor, error.code, &error.to_string());
    }
}

/// A request and who asks it.
struct Asked<'a> {
    reactor: &'a Rc<Reactor>,
    connection: &'a Rc<Connection>,
    client: &'a Rc<Client>,
    snapshot: &'a Snapshot,
    id: u64,
    body: &'a [u8],
    /// When it came, on the pool's clock
    began_ns: u64,
    /// And by the time of day
    now_unix_s: i64,
}

/// Everything that has an id of its own and gets one answer.
fn request(reactor: &Rc<Reactor>, connection: &Rc<Connection>, kind: Option<Kind>, id: u64, body: &[u8]) {
    if connection.phase() != Phase::Open {
        // Above GoAway's last id: not looked at, as it said.
        return;
    }
    let snapshot = &reactor.snapshot();
    // Whom the policy no longer knows is told so by GoAway, and this request's id is above its last one.
    let Some(client) = &reactor.client_under(connection, snapshot) else { return };
    if let Err(code) = connection.takes_id(id) {
        return connection.break_off(reactor, code, "request ids must rise; this one was used before, or is 0");
    }
    let (began_ns, now_unix_s) = (reactor.now_ns(), clock::unix_s());
    let asked = Asked { reactor, connection, client, snapshot, id, body, began_ns, now_unix_s };
    let (operation, answered) = match kind {
        Some(Kind::ListKeys) => ("list-keys", asked.list_keys()),
        Some(Kind::Sign) => ("sign", asked.sign()),
        Some(Kind::SignBatch) => ("sign-batch", asked.sign_batch()),
        Some(Kind::SignAssertion) => ("sign-assertion", asked.sign_assertion()),
        Some(Kind::SignAssertionBatch) => ("sign-assertion-batch", asked.sign_assertion_batch()),
        Some(Kind::SignJws) => ("sign-jws", asked.sign_jws()),
        _ => ("unknown", Err(Error::of(Code::UnknownType, "no request of this type is known here"))),
    };
    if let Err(error) = answered {
        refuse(reactor, connection, id, operation, error);
    }
}

fn refuse(reactor: &Reactor, connection: &Connection, id: u64, operation: &'static str, error: Error<'_>) {
    let tenant = connection.client().map(|client| client.tenant.clone());
    reactor.meters().refused(tenant.as_deref(), operation, error.code);
    connection.refuse(id, &error, 0);
}

type Refusable<T = ()> = Result<T, Error<'static>>;

impl<'a> Asked<'a> {
    fn read<M: Message<'a>>(&self) -> Refusable<M> {
        M::decode(self.body, self.reactor.wire_limits()).map_err(|error| refusal::malformed(&error))
    }

    fn sign(&self) -> Refusable {
        let Sign { meta, key, algorithm, payload, encoding, timings } = self.read()?;
        let common =
            self.common(Operation::Sign, &meta, &key, &algorithm, Answers { encoding, form: Form::Document, timings })?;
        let weight = payload_weight(&payload);
        common.one(weight, || Ok((common.permit.sign(&payload)?, None)))
    }

    fn sign_batch(&self) -> Refusable {
        let SignBatch { meta, key, algorithm, encoding, timings, items } = self.read()?;
        let common =
            self.common(Operation::Sign, &meta, &key, &algorithm, Answers { encoding, form: Form::Document, timings })?;
        let weights: u32 = items.iter().map(|item| payload_weight(&item.payload)).sum();
        common.admit(u32::try_from(items.len()).unwrap_or(u32::MAX), weights)?;
        let batch = Rc::new(RefCell::new(Batch::new(self.id, Kind::SignedBatch, items.len())));
        for (index, item) in items.iter().enumerate() {
            let particulars = Particulars {
                weight: payload_weight(&item.payload),
                context: &meta.context,
                reference: item.reference.as_deref(),
                reply: Reply::Item { batch: batch.clone(), index },
            };
            let ordered = common.order(particulars, || Ok((common.permit.sign(&item.payload)?, None)));
            common.item_refused(&batch, index, payload_weight(&item.payload), "sign-batch", ordered);
        }
        Ok(())
    }

    /// What the policy and the key's state say to all signatures of a request.
    fn common<'c>(
        &'c self,
        operation: Operation,
        meta: &'c Meta<'c>,
        key: &str,
        algorithm: &str,
        answers: Answers,
    ) -> Refusable<Common<'c>> {
        let permit = self.permit(operation, meta, key, algorithm)?;
        let place = self.place(permit.key().id)?;
        let deadline_ns = self.deadline_ns(meta)?;
        let Asked { reactor, connection, client, id, began_ns, .. } = *self;
        Ok(Common { reactor, connection, client, id, meta, answers, permit, place, began_ns, deadline_ns })
    }

    fn permit(&self, operation: Operation, meta: &Meta<'_>, key: &str, algorithm: &str) -> Refusable<Permit> {
        let now_unix_s = self.now_unix_s;
        let request = policy::Request { operation, key, algorithm, class: meta.class, now_unix_s };
        self.snapshot.policy.permit(&self.client.tenant, &request).map_err(|denied| {
            self.reactor.record_denial(self.client, operation, key, &denied);
            refusal::denied(&denied)
        })
    }

    fn place(&self, key: KeyId) -> Refusable<Place> {
        match self.snapshot.cards.get(&key).map(|card| card.readiness(self.now_unix_s)) {
            Some(Readiness::Usable(place)) => Ok(place),
            Some(Readiness::Unavailable) | None => {
                Err(Error::of(Code::KeyUnavailable, "no token has shown this key yet").retry_after(KEY_RETRY_MS))
            }
            Some(Readiness::Expired) => Err(Error::of(Code::KeyRefused, "the key's certificate is not valid now")),
            // What exactly is wrong is the operator's to know.
            Some(Readiness::Faulty) => {
                Err(Error::of(Code::KeyRefused, "no token has this key fit for use; the operator's log says why"))
            }
        }
    }

    fn deadline_ns(&self, meta: &Meta<'_>) -> Refusable<u64> {
        if meta.timeout_ms == 0 {
            return Err(Error::of(Code::Expired, "timeout_ms is 0: nothing can be signed in no time"));
        }
        let timeout = Duration::from_millis(meta.timeout_ms.into()).min(self.reactor.limits().timeout_max);
        Ok(self.began_ns + timeout.as_nanos() as u64)
    }
}

/// What all signatures of a request have in common.
struct Common<'a> {
    reactor: &'a Rc<Reactor>,
    connection: &'a Rc<Connection>,
    client: &'a Rc<Client>,
    id: u64,
    meta: &'a Meta<'a>,
    answers: Answers,
    permit: Permit,
    place: Place,
    began_ns: u64,
    deadline_ns: u64,
}

/// What a signature counts in its tenant's limit: one, and for what waits in memory one for each 4 KiB.
fn weight(waiting: usize) -> u32 {
    u32::try_from(waiting.div_ceil(4096)).unwrap_or(u32::MAX).max(1)
}

fn payload_weight(payload: &Payload<'_>) -> u32 {
    match payload {
        Payload::Digest(_) => 1,
        Payload::Message(message) => weight(message.len()),
    }
}

/// What one signature of a request has of its own.
struct Particulars<'a> {
    /// What it counts in its tenant's limit
    weight: u32,
    context: &'a Context<'a>,
    /// In place of the context's
    reference: Option<&'a str>,
    reply: Reply,
}

/// What may be signed, and the document that waits for the signature.
type Prepared<'p> = (Authorised<'p>, Option<Unsigned>);

/// A tenant at its limit waits for its own answers; they come within tens of milliseconds or the tokens are in trouble.
const TENANT_RETRY_MS: u32 = 50;

/// A token that has not logged in yet does so within a second or is away for longer.
const KEY_RETRY_MS: u32 = 1000;

impl Common<'_> {
    /// Takes `many` out of the connection's budget and their weight out of the tenant's.
    fn admit(&self, many: u32, weight: u32) -> Refusable {
        let limits = self.reactor.limits();
        if !self.connection.has_room_for(many, limits) {
            let text = format!("more than {} in flight on this connection", limits.in_flight_per_connection);
            return Err(Error::of(Code::TooManyInFlight, text));
        }
        if !self.client.load.takes(weight, self.client.tenant.in_flight_max()) {
            let text = "the tenant has its most in flight over all its connections";
            return Err(Error::of(Code::TenantLimit, text).retry_after(TENANT_RETRY_MS));
        }
        self.connection.took(many);
        Ok(())
    }

    /// A request for one signature, from its admission on.
    fn one<'p>(&'p self, weight: u32, prepare: impl FnOnce() -> Result<Prepared<'p>, Denied>) -> Refusable {
        self.admit(1, weight)?;
        let reply = Reply::Single { id: self.id };
        let ordered = self.order(Particulars { weight, context: &self.meta.context, reference: None, reply }, prepare);
        ordered.inspect_err(|_| {
            self.connection.gave_up(1);
            self.client.load.gave_back(weight);
        })
    }

    /// Gives back what a batch's item has taken when it was not ordered, and answers it.
    fn item_refused(
        &self,
        batch: &RefCell<Batch>,
        index: usize,
        weight: u32,
        operation: &'static str,
        ordered: Refusable,
    ) {
        let Err(error) = ordered else { return };
        self.reactor.meters().refused(Some(&self.client.tenant), operation, error.code);
        self.client.load.gave_back(weight);
        batch.borrow_mut().item_done(self.connection, index, Err(error));
    }

    /// Authorises one signature, records the intent and queues the job. A panic on the way, which would be a bug of
    /// ours in what looks into documents, costs that signature only.
    fn order<'p>(&'p self, of: Particulars<'_>, prepare: impl FnOnce() -> Result<Prepared<'p>, Denied>) -> Refusable {
        let prepared = catch_unwind(AssertUnwindSafe(prepare)).map_err(|_| mistake())?;
        let (order, unsigned) = prepared.map_err(|denied| {
            if let Denied::Document(_) = &denied {
                let (operation, key) = (self.permit.operation(), &self.permit.key().name);
                self.reactor.record_denial(self.client, operation, key, &denied);
            }
            refusal::denied(&denied)
        })?;
        let circumstances = Circumstances {
            client: &self.client.name,
            peer: Some(&self.connection.peer_name),
            context: of.context,
            reference: of.reference,
            request_id: self.id,
            connection_id: self.connection.id,
        };
        let request = Request {
            connection: self.connection.clone(),
            client: self.client.clone(),
            weight: of.weight,
            reply: of.reply,
            answers: self.answers,
            version: self.permit.key().version().cloned(),
            unsigned,
            operation: self.permit.operation(),
            algorithm: self.permit.algorithm(),
            class: self.meta.class,
            intent: 0,
            began_ns: self.began_ns,
            deadline_ns: self.deadline_ns,
        };
        self.reactor.order(order, self.place, &circumstances, request).map_err(|refused| refusal::unrecorded(&refused))
    }
}

fn mistake() -> Error<'static> {
    Error::of(Code::Internal, "segld made a mistake with this request; its log says more").signed(SignedState::No)
}
