//! A connection with many requests in flight, and the account of every one of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use ring::{
    digest::{SHA256, digest},
    signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey},
};
use segl_wire::{
    BatchItem, Cancel, Class, Code, Context, EcdsaEncoding, Error, Kind, Limits, Message, Meta, Payload, Sign,
    SignBatch, Signed, SignedBatch, SignedState, encode_frame,
};

use super::{
    ground::{KEYS, Key},
    health::Health,
};
use crate::{
    Result,
    conversation::{Conversation, Frame},
};

/// What clients share while they run.
pub(super) struct Common<'a> {
    pub(super) health: &'a Health,
    /// By place in [`KEYS`]
    pub(super) public_keys: Vec<Vec<u8>>,
    pub(super) answers: AtomicU64,
    pub(super) errors: AtomicU64,
}

/// What became of a request, or of an item of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Sent
    Open,
    /// Answered with a signature that verifies
    Signed,
    /// Answered with an error
    Refused,
    /// The client went away before the answer
    Forgone,
}

/// An error that the rules did not allow at once: what the journal says of it is looked up at the end.
#[derive(Clone, Debug)]
pub(super) struct Complaint {
    /// The request's place in the account
    pub(super) request: u32,
    pub(super) key: usize,
    pub(super) code: Code,
    pub(super) signed: SignedState,
    pub(super) text: String,
    pub(super) at: Duration,
    pub(super) took: Duration,
}

/// One client's account, over all its connections.
#[derive(Debug)]
pub(super) struct Account {
    /// Its name in references: `NAME-NUMBER` is the request at that place of `states`
    pub(super) name: String,
    pub(super) states: Vec<State>,
    /// Errors by their name and the reason why they are allowed
    pub(super) allowed: BTreeMap<(&'static str, &'static str), u64>,
    pub(super) complaints: Vec<Complaint>,
    /// What must not be
    pub(super) broken: Vec<String>,
    /// The longest time without a signature while requests waited and a token was well, by key
    pub(super) stalls: BTreeMap<usize, Duration>,
    pub(super) slowest: Duration,
    pub(super) cancels: u64,
    pub(super) connections: u64,
}

/// More complaints than anybody reads.
const COMPLAINTS_MAX: usize = 10_000;
const BROKEN_MAX: usize = 100;

impl Account {
    pub(super) fn new(name: String) -> Account {
        Account {
            name,
            states: Vec::new(),
            allowed: BTreeMap::new(),
            complaints: Vec::new(),
            broken: Vec::new(),
            stalls: BTreeMap::new(),
            slowest: Duration::ZERO,
            cancels: 0,
            connections: 0,
        }
    }

    pub(super) fn breaks(&mut self, what: String) {
        if self.broken.len() < BROKEN_MAX {
            self.broken.push(what);
        }
    }

    fn reference(&self, request: u32) -> String {
        format!("{}-{request}", self.name)
    }
}

/// A frame that waits for its answer.
struct Waiting {
    /// Requests, by place in the account
    requests: std::ops::Range<u32>,
    key: usize,
    batch: bool,
    sent: Duration,
    timeout: Duration,
    cancelled: bool,
}

/// A connection, and what is in flight on it.
pub(super) struct Line<'a> {
    conversation: Conversation,
    limits: Limits,
    common: &'a Common<'a>,
    pub(super) account: &'a mut Account,
    waiting: HashMap<u64, Waiting>,
    in_flight: usize,
    /// The latest signature, while others waited, by key
    latest: [Duration; KEYS.len()],
    /// Whether stalls are the server's: not of a client that reads late, takes back or gives little time
    pub(super) attentive: bool,
}

impl<'a> Line<'a> {
    pub(super) fn new(conversation: Conversation, common: &'a Common<'a>, account: &'a mut Account) -> Self {
        account.connections += 1;
        let limits = Limits::from(conversation.hello());
        let latest = [common.health.now(); KEYS.len()];
        Line { conversation, limits, common, account, waiting: HashMap::new(), in_flight: 0, latest, attentive: false }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Asks for `items` signatures, in a batch if there are several. Returns the frame's id.
    pub(super) fn ask(&mut self, key: usize, items: u32, class: Class, timeout: Duration) -> Result<u64> {
        let first = u32::try_from(self.account.states.len())?;
        let requests = first..first + items;
        self.account.states.extend(requests.clone().map(|_| State::Open));
        let references: Vec<_> = requests.clone().map(|request| self.account.reference(request)).collect();
        let Key { name, ed25519, .. } = &KEYS[key];
        let algorithm = KEYS[key].algorithm();
        let payload = |reference: &String| match ed25519 {
            true => Payload::Message(reference.as_bytes().to_vec().into()),
            false => Payload::Digest(digest(&SHA256, reference.as_bytes()).as_ref().to_vec().into()),
        };
        let reference = |reference: &String| Some(reference.clone().into());
        let timeout_ms = u32::try_from(timeout.as_millis())?;
        let context = Context { reference: reference(&references[0]), ..Context::default() };
        let meta = Meta { timeout_ms, class, context };
        let (key_name, algorithm, encoding) = ((*name).into(), algorithm.into(), EcdsaEncoding::Der);
        let sent = self.common.health.now();
        let batch = items > 1;
        let id = if batch {
            let item = |name| BatchItem { payload: payload(name), reference: reference(name) };
            let items = references.iter().map(item).collect();
            let request = SignBatch { meta, key: key_name, algorithm, encoding, timings: false, items };
            self.conversation.send(Kind::SignBatch, &request)?
        } else {
            let payload = payload(&references[0]);
            let request = Sign { meta, key: key_name, algorithm, payload, encoding, timings: false };
            self.conversation.send(Kind::Sign, &request)?
        };
        if !self.waiting.values().any(|waiting| waiting.key == key) {
            self.latest[key] = sent;
        }
        self.waiting.insert(id, Waiting { requests, key, batch, sent, timeout, cancelled: false });
        self.in_flight += items as usize;
        Ok(id)
    }

    /// Takes a request back; its answer still comes.
    pub(super) fn cancel(&mut self, id: u64) -> Result<()> {
        let mut frame = Vec::new();
        encode_frame(Kind::Cancel, id, &Cancel, &mut frame);
        self.conversation.send_bytes(&frame)?;
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.cancelled = true;
            self.account.cancels += 1;
        }
        Ok(())
    }

    /// Reads an answer. Returns whether it holds an error.
    pub(super) fn take(&mut self) -> Result<bool> {
        let frame = self.conversation.receive()?.ok_or("the server ended the connection")?;
        let waiting = self.waiting.remove(&frame.header.id);
        let waiting = waiting.ok_or_else(|| format!("a frame that answers nothing: {:?}", frame.header))?;
        self.in_flight -= waiting.requests.len();
        let now = self.common.health.now();
        let answers = self.answers(&frame, &waiting)?;
        if answers.len() != waiting.requests.len() {
            return Err(format!("{} answers to {} items", answers.len(), waiting.requests.len()).into());
        }
        let mut errors = false;
        for (request, answer) in waiting.requests.clone().zip(answers) {
            let state = match answer {
                Ok(signature) => {
                    self.verify(waiting.key, request, &signature);
                    self.common.answers.fetch_add(1, Ordering::Relaxed);
                    State::Signed
                }
                Err(error) => {
                    errors = true;
                    self.common.errors.fetch_add(1, Ordering::Relaxed);
                    self.judge(&waiting, request, &error, now);
                    State::Refused
                }
            };
            self.account.states[request as usize] = state;
            if state == State::Signed {
                self.note_stall(waiting.key, now);
            }
        }
        self.account.slowest = self.account.slowest.max(now - waiting.sent);
        Ok(errors)
    }

    /// Waits for all that is in flight.
    pub(super) fn drain(&mut self) -> Result<()> {
        while !self.waiting.is_empty() {
            self.take()?;
        }
        Ok(())
    }

    /// Goes away without waiting for what is in flight.
    pub(super) fn forgo(self) {
        for waiting in self.waiting.values() {
            for request in waiting.requests.clone() {
                self.account.states[request as usize] = State::Forgone;
            }
        }
    }

    /// Sends bytes as they are.
    pub(super) fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.conversation.send_bytes(bytes)?)
    }

    fn answers(&self, frame: &Frame, waiting: &Waiting) -> Result<Vec<Result<Vec<u8>, Error<'static>>>> {
        let owned = |answer: Result<Signed<'_>, Error<'_>>| match answer {
            Ok(signed) => Ok(signed.signature.into_owned()),
            Err(error) => Err(error.into_owned()),
        };
        match (frame.header.known_kind(), waiting.batch) {
            (Some(Kind::Signed), false) => Ok(vec![owned(Ok(Signed::decode(&frame.body, &self.limits)?))]),
            (Some(Kind::SignedBatch), true) => {
                let answer = SignedBatch::decode(&frame.body, &self.limits)?;
                Ok(answer.items.into_iter().map(owned).collect())
            }
            (Some(Kind::Error), _) => {
                let error = self.conversation.error(frame)?;
                Ok(waiting.requests.clone().map(|_| Err(error.clone())).collect())
            }
            (other, _) => Err(format!("a frame of type {other:?} in place of an answer").into()),
        }
    }

    fn verify(&mut self, key: usize, request: u32, signature: &[u8]) {
        let algorithm: &dyn ring::signature::VerificationAlgorithm =
            if KEYS[key].ed25519 { &ED25519 } else { &ECDSA_P256_SHA256_ASN1 };
        let reference = self.account.reference(request);
        let public_key = UnparsedPublicKey::new(algorithm, &self.common.public_keys[key]);
        if public_key.verify(reference.as_bytes(), signature).is_err() {
            self.account.breaks(format!("{reference}: a signature with {} that does not verify", KEYS[key].name));
        }
    }

    /// Allows an error, or keeps it for the end.
    fn judge(&mut self, waiting: &Waiting, request: u32, error: &Error<'_>, now: Duration) {
        let took = now - waiting.sent;
        let of_the_token = matches!(error.code, Code::KeyUnavailable | Code::TokenFailed | Code::KeyRefused);
        // The record too has to be on disk in time.
        let too_late = matches!(error.code, Code::Expired | Code::Overloaded | Code::AuditUnavailable);
        let short = waiting.timeout < super::clients::PATIENCE;
        let reason = if error.code == Code::Cancelled && waiting.cancelled {
            Some("the client took it back")
        } else if too_late && short {
            Some("the client gave it too little time")
        } else if of_the_token && !self.common.health.one_was_well(KEYS[waiting.key].tokens, waiting.sent, now) {
            Some("no token with the key was well all the time")
        } else if of_the_token && (waiting.cancelled || (short && took >= waiting.timeout)) {
            Some("tried no more, since the client no longer waited")
        } else {
            None
        };
        match reason {
            Some(reason) => *self.account.allowed.entry((error.code.name(), reason)).or_default() += 1,
            None if self.account.complaints.len() < COMPLAINTS_MAX => self.account.complaints.push(Complaint {
                request,
                key: waiting.key,
                code: error.code,
                signed: error.signed,
                text: error.message.to_string(),
                at: now,
                took,
            }),
            None => self.account.breaks("more errors than can be looked up".into()),
        }
    }

    fn note_stall(&mut self, key: usize, now: Duration) {
        let from = std::mem::replace(&mut self.latest[key], now);
        let stall = self.account.stalls.entry(key).or_default();
        if self.attentive && now - from > *stall {
            *stall = (*stall).max(self.common.health.longest_well(KEYS[key].tokens, from, now));
        }
    }
}
