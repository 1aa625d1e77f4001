//! The only road to the keys: this module alone holds the pool, and takes nothing but an [`Authorised`], which only
//! the policy can make.
//!
//! For each attempt the intent is appended to the journal and the job handed to the pool in the same breath; the disk
//! works while the token does. [`Desk::settled`] says whether the intent is durable: until then nobody sees a
//! signature. The outcome follows by [`Desk::close`].

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use segl_audit::{Intent, Journal, Outcome, OutcomeResult, Record, Refusal, Settled};
use segl_hsm::{Algorithm, Input};
use segl_pool::{
    Clock, Completion, Discard, Fate, Job, Pool, Progress, RouteId, Snapshot, Stopped, TokenSet, Work, core::Obstacle,
};
use segl_wire::{Capacity, Class, Context};

use crate::{
    clock,
    gate::Gate,
    policy::{Authorised, KeyEntry},
};

/// Where a completion goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    /// The inbox's index in the pool
    pub(crate) inbox: u16,
    /// The request's tag there
    pub(crate) tag: u64,
}

/// What the record says beside the order itself.
#[derive(Debug)]
pub(crate) struct Circumstances<'a> {
    /// The client's identity
    pub(crate) client: &'a str,
    /// The client's address
    pub(crate) peer: Option<&'a str>,
    /// Reference, caller's caller, capacity
    pub(crate) context: &'a Context<'a>,
    /// In place of the context's reference: a batch item's own
    pub(crate) reference: Option<&'a str>,
    /// Id of the request on its connection
    pub(crate) request_id: u64,
    /// The connection
    pub(crate) connection_id: u64,
}

/// Where a key can be used at this moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The tokens that hold it
    pub(crate) route: RouteId,
    /// Of these this one only
    pub(crate) only_token: Option<u16>,
    /// SHA-256 of the public key the tokens showed
    pub(crate) spki_sha256: [u8; 32],
}

/// Orders recorded and not yet handed to the pool; one for each reactor, used again and again.
#[derive(Default)]
pub(crate) struct Orders(Vec<Job>);

impl Orders {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Orders").field(&self.0.len()).finish()
    }
}

/// The pool and the journal, which nothing passes but together.
pub(crate) struct Desk {
    pool: Pool,
    journal: Journal,
    clock: Clock,
    host: String,
    /// By index in the pool
    token_names: Vec<Arc<str>>,
    /// For the log, when the journal takes nothing
    unrecorded: Gate,
    /// For benches: intents get numbers from here and are thrown away
    thrown_away: Option<AtomicU64>,
}

impl Desk {
    pub(crate) fn new(pool: Pool, journal: Journal, host: &str, token_names: Vec<Arc<str>>) -> Desk {
        let clock = pool.clock();
        let unrecorded = Gate::new(1);
        Desk { pool, journal, clock, host: host.to_owned(), token_names, unrecorded, thrown_away: None }
    }

    /// The same, but nothing is recorded of what is signed: `unrecorded_for_benchmarks`, which the configuration allows
    /// for tokens made for benches only.
    pub(crate) fn throwing_records_away(self, thrown_away: bool) -> Desk {
        Desk { thrown_away: thrown_away.then(AtomicU64::default), ..self }
    }

    fn append_intent<'a>(&self, intent: impl FnOnce() -> Intent<'a>) -> Result<u64, Refusal> {
        match &self.thrown_away {
            Some(last) => Ok(last.fetch_add(1, Ordering::Relaxed) + 1),
            None => self.journal.append(&Record::Intent(intent())),
        }
    }

    /// Now, on the pool's clock.
    pub(crate) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Records the intent and queues the job; returns the intent's number. [`Desk::submit`] sends the queue off.
    ///
    /// # Errors
    /// When the journal takes no intents: then nothing is signed.
    pub(crate) fn order(
        &self,
        orders: &mut Orders,
        order: Authorised<'_>,
        place: Place,
        circumstances: &Circumstances<'_>,
        deadline_ns: u64,
        address: Address,
    ) -> Result<u64, Refusal> {
        let intent = self.append_intent(|| intent(&order, place, circumstances))?;
        let order = order.into_parts();
        orders.0.push(Job {
            work: Work::Sign,
            key: order.key.id,
            algorithm: order.algorithm,
            input: order.input,
            route: place.route,
            only_token: place.only_token,
            class: pool_class(order.class),
            tenant: order.tenant.id().0,
            deadline_ns,
            repeatable: order.key.repeatable,
            probe: false,
            reference: intent,
            inbox: address.inbox,
            tag: address.tag,
        });
        Ok(intent)
    }

    /// Records and queues a self-test of a key on one token.
    ///
    /// What is signed is made here, from nothing a caller chooses, and can be no document of anybody's: otherwise a
    /// self-test would be an oracle.
    ///
    /// # Errors
    /// When there is no randomness, or the journal takes no intents.
    pub(crate) fn order_self_test(
        &self,
        orders: &mut Orders,
        key: &KeyEntry,
        algorithm: Algorithm,
        place: Place,
        deadline_ns: u64,
        address: Address,
    ) -> Result<(u64, SelfTestOrder), SelfTestError> {
        let order = SelfTestOrder::new(&self.host, &key.name, algorithm)?;
        let intent = self.append_intent(|| order.intent(key, place))?;
        orders.0.push(Job {
            work: Work::Sign,
            key: key.id,
            algorithm,
            input: order.input(),
            route: place.route,
            only_token: place.only_token,
            class: segl_pool::Class::Signature,
            tenant: SELF_TEST_TENANT,
            deadline_ns,
            repeatable: false,
            probe: true,
            reference: intent,
            inbox: address.inbox,
            tag: address.tag,
        });
        Ok((intent, order))
    }

    /// Queues the question whether a token still holds a key. Nothing is signed, so nothing is recorded.
    pub(crate) fn order_presence(
        &self,
        orders: &mut Orders,
        key: &KeyEntry,
        algorithm: Algorithm,
        place: Place,
        deadline_ns: u64,
        address: Address,
    ) {
        orders.0.push(Job {
            work: Work::Presence,
            key: key.id,
            algorithm,
            // Nobody looks at it.
            input: Input::message(&[]),
            route: place.route,
            only_token: place.only_token,
            class: segl_pool::Class::Signature,
            tenant: SELF_TEST_TENANT,
            deadline_ns,
            repeatable: true,
            probe: true,
            reference: 0,
            inbox: address.inbox,
            tag: address.tag,
        });
    }

    /// Hands everything queued to the pool, under one lock.
    pub(crate) fn submit(&self, orders: &mut Orders) {
        if !orders.is_empty() {
            self.pool.submit(&mut orders.0);
        }
    }

    /// Takes an order back, if no token has begun with it; a completion comes in any case.
    pub(crate) fn cancel(&self, address: Address) {
        self.pool.cancel(address.inbox, address.tag);
    }

    /// Whether the intent is on disk.
    pub(crate) fn settled(&self, intent: u64) -> Settled {
        if self.thrown_away.is_some() { Settled::Durable } else { self.journal.settled(intent) }
    }

    /// Somebody waits for it to be.
    pub(crate) fn hasten(&self, intent: u64) {
        if self.thrown_away.is_none() {
            self.journal.hasten(intent);
        }
    }

    /// Waits until it is, or the limit has passed.
    pub(crate) fn wait_until_settled(&self, intent: u64, limit: Duration) -> Settled {
        if self.thrown_away.is_some() { Settled::Durable } else { self.journal.wait(intent, limit) }
    }

    /// Records what became of an intent, attempt by attempt.
    pub(crate) fn close<'a>(
        &self,
        intent: u64,
        result: impl FnOnce() -> OutcomeResult<'a>,
        token: Option<&str>,
        completion: &Completion,
    ) {
        if self.thrown_away.is_some() {
            return;
        }
        let result = result();
        let why_discarded = match &result {
            OutcomeResult::Discarded { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        let recorded = |attempt: &segl_pool::Attempt| {
            let (fate, code) = fate(attempt, why_discarded.as_deref());
            segl_audit::Attempt {
                token: Cow::Borrowed(self.token_name(attempt.token)),
                session: attempt.session,
                fate,
                code: code.map(Cow::Borrowed),
                call: attempt.call.map(Cow::Borrowed),
                token_us: attempt.token_us,
            }
        };
        let attempts = completion.attempts.iter().map(recorded);
        let tries: Vec<_> = attempts.collect();
        self.note(&Record::Outcome(Outcome {
            intent,
            token: token.map(Cow::Borrowed),
            attempts: completion.attempts.count(),
            attempts_unknown: completion.attempts.unknown(),
            tries: Cow::Borrowed(&tries),
            queue_us: completion.queue_us,
            token_us: completion.token_us,
            result,
        }));
    }

    /// Records that a call which was given up came back after all.
    pub(crate) fn discarded(&self, intent: u64, token: u16, reason: Discard, signed: bool) {
        if self.thrown_away.is_some() {
            return;
        }
        let (token, reason) = (Cow::Borrowed(self.token_name(token)), Cow::Borrowed(reason.name()));
        self.note(&Record::Discarded(segl_audit::Discarded { intent, token, reason, signed }));
    }

    fn token_name(&self, token: u16) -> &str {
        self.token_names.get(usize::from(token)).map_or("?", |name| name)
    }

    /// Records that an intent's fate was not learnt before the end.
    pub(crate) fn abandon(&self, intent: u64, code: &str) {
        if self.thrown_away.is_some() {
            return;
        }
        let result = OutcomeResult::Unknown { code: Cow::Borrowed(code) };
        let outcome = Outcome {
            intent,
            result,
            token: None,
            attempts: 0,
            attempts_unknown: 0,
            tries: Cow::Borrowed(&[]),
            queue_us: 0,
            token_us: 0,
        };
        self.note(&Record::Outcome(outcome));
    }

    /// Records an event that nobody waits for.
    pub(crate) fn note(&self, record: &Record<'_>) {
        let Err(refusal) = self.journal.append(record) else { return };
        // The journal counts what it could not take and writes that down as a gap; here only the log is left.
        if let Some(held_back) = self.unrecorded.passes(self.now_ns()) {
            tracing::error!(%refusal, held_back, "an event could not be recorded");
        }
    }

    /// Changes which tokens hold which keys.
    pub(crate) fn set_routes(&self, routes: &[TokenSet]) {
        self.pool.set_routes(routes);
    }

    /// Whether some session could sign by this route now.
    pub(crate) fn route_usable(&self, route: RouteId) -> bool {
        self.pool.route_usable(route)
    }

    /// Says whether a token on probation may sign for clients.
    pub(crate) fn vouch(&self, token: u16, round: u64, ok: bool) {
        self.pool.vouch(token, round, ok);
    }

    /// Logs in to a token again, which looks up keys added since.
    pub(crate) fn refresh(&self, token: u16) {
        self.pool.refresh(token);
    }

    /// Gives a token no more work, finishes what it has and closes its sessions.
    pub(crate) fn drain_token(&self, token: u16) {
        self.pool.leave(token);
    }

    /// Takes a drained token in again; of another nothing follows.
    pub(crate) fn resume_token(&self, token: u16) {
        self.pool.join(token);
    }

    /// Begins a token's module anew.
    pub(crate) fn reinitialise_token(&self, token: u16) -> Result<(), Obstacle> {
        self.pool.reinitialise(token)
    }

    pub(crate) fn pool_snapshot(&self) -> Snapshot {
        self.pool.snapshot()
    }

    pub(crate) fn pool_progress(&self) -> Progress {
        self.pool.progress()
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Takes no new orders.
    pub(crate) fn drain(&self) {
        self.pool.drain();
    }

    /// Closes the sessions; a token that does not answer in time is left behind.
    pub(crate) fn stop(&self, limit: Duration) -> Stopped {
        self.pool.stop(limit)
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

/// What an attempt came to: what the pool gave to us may still have gone to nobody.
fn fate<'a>(attempt: &segl_pool::Attempt, why_discarded: Option<&'a str>) -> (segl_audit::Fate, Option<&'a str>) {
    match (attempt.fate, why_discarded) {
        (Fate::Released, None) => (segl_audit::Fate::Released, None),
        (Fate::Released, Some(why)) => (segl_audit::Fate::Discarded, Some(why)),
        (Fate::Failed, _) => (segl_audit::Fate::Failed, attempt.code),
        (Fate::Unknown, _) => (segl_audit::Fate::Unknown, attempt.code),
        (Fate::Discarded(reason), _) => (segl_audit::Fate::Discarded, Some(reason.name())),
    }
}

/// Self-tests have a share of their own in the pool; tenants are numbered from 0.
const SELF_TEST_TENANT: u32 = u32::MAX;

/// Why a self-test could not be ordered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelfTestError {
    /// The journal takes no intents
    #[error(transparent)]
    Unrecorded(#[from] Refusal),
    /// The kernel gives no random bytes
    #[error("no random bytes")]
    Random,
}

/// A self-test's message: `SEGL-SELF-TEST-v1`, a zero byte, host, key, time, 32 random bytes.
pub(crate) struct SelfTestOrder {
    pub(crate) algorithm: Algorithm,
    message: Vec<u8>,
}

impl SelfTestOrder {
    fn new(host: &str, key: &str, algorithm: Algorithm) -> Result<SelfTestOrder, SelfTestError> {
        let mut random = [0; 32];
        SystemRandom::new().fill(&mut random).map_err(|_| SelfTestError::Random)?;
        let mut message = b"SEGL-SELF-TEST-v1\0".to_vec();
        message.extend_from_slice(host.as_bytes());
        message.push(0);
        message.extend_from_slice(key.as_bytes());
        message.push(0);
        message.extend_from_slice(&clock::unix_s().to_be_bytes());
        message.extend_from_slice(&random);
        Ok(SelfTestOrder { algorithm, message })
    }

    /// What the signature must verify against.
    pub(crate) fn message(&self) -> &[u8] {
        &self.message
    }

    /// The hash of the message; what signs messages only gets the hash as its message.
    fn input(&self) -> Input {
        Input::message(&self.message)
    }

    fn intent(&self, key: &KeyEntry, place: Place) -> Intent<'static> {
        Intent {
            tenant: Cow::Borrowed(""),
            client: Cow::Borrowed("segld"),
            peer: None,
            on_behalf_of: None,
            operation: Cow::Borrowed("self-test"),
            key: Cow::Owned(key.name.to_string()),
            key_spki_sha256: place.spki_sha256,
            algorithm: Cow::Borrowed(self.algorithm.name()),
            digest: Cow::Owned(digest(&SHA256, &self.message).as_ref().to_vec()),
            message_len: Some(self.message.len() as u64),
            capacity: None,
            class: Cow::Borrowed(segl_pool::Class::Signature.name()),
            reference: None,
            attempt: 1,
            request_id: 0,
            connection_id: 0,
            document: None,
            key_version: key.version().map(|version| Cow::Owned(version.to_string())),
        }
    }
}

fn intent<'a>(order: &'a Authorised<'_>, place: Place, circumstances: &Circumstances<'a>) -> Intent<'a> {
    let context = circumstances.context;
    let (digest, message_len) = match order.input() {
        Input::Digest(digest) => (Cow::Borrowed(digest.as_slice()), None),
        Input::Message(message) => (Cow::Owned(digest(&SHA256, message).as_ref().to_vec()), Some(message.len() as u64)),
    };
    Intent {
        tenant: Cow::Borrowed(order.tenant().name().as_ref()),
        client: Cow::Borrowed(circumstances.client),
        peer: circumstances.peer.map(Cow::Borrowed),
        on_behalf_of: context.on_behalf_of.as_deref().map(Cow::Borrowed),
        operation: Cow::Borrowed(order.operation().name()),
        key: Cow::Borrowed(order.key().name.as_ref()),
        key_spki_sha256: place.spki_sha256,
        algorithm: Cow::Borrowed(order.algorithm().name()),
        digest,
        message_len,
        capacity: context.capacity.as_ref().map(|capacity| match capacity {
            Capacity::Citizen => segl_audit::Capacity::Citizen,
            Capacity::Company(cvr) => segl_audit::Capacity::Company(Cow::Borrowed(cvr.as_str())),
        }),
        class: Cow::Borrowed(pool_class(order.class()).name()),
        reference: circumstances.reference.or(context.reference.as_deref()).map(Cow::Borrowed),
        attempt: 1,
        request_id: circumstances.request_id,
        connection_id: circumstances.connection_id,
        document: order.document().map(Cow::Borrowed),
        key_version: order.key().version().map(|version| Cow::Borrowed(&**version)),
    }
}

fn pool_class(class: Class) -> segl_pool::Class {
    match class {
        Class::Login => segl_pool::Class::Login,
        Class::Signature => segl_pool::Class::Signature,
        Class::Bulk => segl_pool::Class::Bulk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_that_the_client_did_not_get_is_discarded_in_the_record_of_its_attempt() {
        let (code, call) = (Some("CKR_DEVICE_ERROR"), Some("C_Sign"));
        let attempt = |fate| segl_pool::Attempt { token: 0, session: 3, fate, code, call, token_us: 7 };
        use segl_audit::Fate as Recorded;
        assert_eq!(fate(&attempt(Fate::Released), None), (Recorded::Released, None));
        let closed = Some("the connection was closed");
        assert_eq!(fate(&attempt(Fate::Released), closed), (Recorded::Discarded, closed));
        let wrong = Fate::Discarded(Discard::WrongSignature);
        assert_eq!(fate(&attempt(wrong), closed), (Recorded::Discarded, Some("wrong-signature")));
        assert_eq!(fate(&attempt(Fate::Unknown), None), (Recorded::Unknown, Some("CKR_DEVICE_ERROR")));
        assert_eq!(fate(&attempt(Fate::Failed), closed), (Recorded::Failed, Some("CKR_DEVICE_ERROR")));
    }
}
