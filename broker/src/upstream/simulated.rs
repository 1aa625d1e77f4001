//! A `segld` that does what a test tells it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use segl_wire as wire;
use tokio::sync::{Notify, watch};

use super::{Answer, Failure, Segld, Signature, Wait};
use crate::problem::{Code, Fault, Retry, Signed};

/// What it does with a request; without one it signs.
#[derive(Debug)]
pub(crate) enum Deed {
    Fail(Failure),
    /// It leaves, and the request is not looked at any more
    Leave,
    /// These items of a batch fail
    FailItems(Vec<usize>, Failure),
    /// Each item of a batch fails in its own way
    FailEach(Vec<Failure>),
    /// It makes this of it
    Make(Vec<u8>),
    /// It waits, then signs
    Hold(Arc<Notify>),
    Never,
}

/// What it was asked, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) key: String,
    pub(crate) context: wire::Context<'static>,
    pub(crate) class: wire::Class,
    pub(crate) payloads: Vec<wire::Payload<'static>>,
    pub(crate) references: Vec<Option<String>>,
}

#[derive(Debug)]
pub(crate) struct SimulatedSegld {
    ready: watch::Sender<bool>,
    pub(crate) busy: AtomicUsize,
    pub(crate) capacity: AtomicUsize,
    deeds: Mutex<VecDeque<Deed>>,
    asked: watch::Sender<Vec<Asked>>,
    keys: Mutex<Vec<wire::Key<'static>>>,
    pub(crate) looks: watch::Sender<usize>,
}

impl SimulatedSegld {
    pub(crate) fn new(keys: Vec<wire::Key<'static>>) -> Arc<Self> {
        Arc::new(Self {
            ready: watch::Sender::new(true),
            busy: AtomicUsize::new(0),
            capacity: AtomicUsize::new(0),
            deeds: Mutex::default(),
            asked: watch::Sender::default(),
            keys: Mutex::new(keys),
            looks: watch::Sender::default(),
        })
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.send_replace(ready);
    }

    pub(crate) fn set_keys(&self, keys: Vec<wire::Key<'static>>) {
        *self.keys.lock().unwrap() = keys;
    }

    pub(crate) fn will(&self, deed: Deed) {
        self.deeds.lock().unwrap().push_back(deed);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    /// Until it was asked so many times.
    pub(crate) async fn wait_asked(&self, count: usize) {
        let _ = self.asked.subscribe().wait_for(|asked| asked.len() >= count).await;
    }

    /// A document is signed as a message is.
    fn document<'a>(&'a self, key: &str, meta: &wire::Meta<'_>, document: &[u8]) -> Answer<'a, Signature> {
        let asked = Asked {
            key: key.to_owned(),
            context: meta.context.clone().into_owned(),
            class: meta.class,
            payloads: vec![wire::Payload::Message(document.to_vec().into())],
            references: vec![],
        };
        Box::pin(async { self.act(asked).await?.remove(0) })
    }

    async fn act(&self, asked: Asked) -> Result<Vec<Result<Signature, Failure>>, Failure> {
        let deed = self.deeds.lock().unwrap().pop_front();
        let mut answers: Vec<_> = asked.payloads.iter().map(|payload| Ok(signature(payload))).collect();
        self.asked.send_modify(|all| all.push(asked));
        match deed {
            None => {}
            Some(Deed::Fail(failure)) => return Err(failure),
            Some(Deed::Leave) => {
                self.set_ready(false);
                return Err(Failure::not_sent("it leaves"));
            }
            Some(Deed::FailItems(items, failure)) => items.iter().for_each(|at| answers[*at] = Err(failure.clone())),
            Some(Deed::FailEach(failures)) => answers = failures.into_iter().map(Err).collect(),
            Some(Deed::Make(bytes)) => {
                answers = vec![Ok(Signature { bytes, timings: None, version: None, offset: None })]
            }
            Some(Deed::Hold(until)) => until.notified().await,
            Some(Deed::Never) => std::future::pending().await,
        }
        Ok(answers)
    }
}

/// What it answers to a payload.
pub(crate) fn signature(payload: &wire::Payload<'_>) -> Signature {
    let (wire::Payload::Digest(bytes) | wire::Payload::Message(bytes)) = payload;
    let timings = Some(wire::Timings { queue_us: 1, token_us: 2 });
    Signature { bytes: [b"signed:", &bytes[..]].concat(), timings, version: None, offset: None }
}

/// A key that can sign.
pub(crate) fn key(name: &str, state: wire::KeyState) -> wire::Key<'static> {
    wire::Key {
        name: name.to_owned().into(),
        purpose: "digest".into(),
        key_type: "ec-p256".into(),
        bits: 256,
        algorithms: vec!["ecdsa-p256-sha256".into()],
        spki_der: vec![0x30; 91].into(),
        certificates: vec![vec![0x31; 10].into()],
        state,
        versions: Vec::new(),
    }
}

/// A failure of this code.
pub(crate) fn failure(code: Code, signed: Signed, retry: Retry) -> Failure {
    Failure {
        code,
        fault: Fault::Token,
        signed,
        retry,
        retry_after_ms: None,
        not_sent: false,
        detail: format!("simulated {code:?}"),
        violations: Vec::new(),
    }
}

impl Segld for SimulatedSegld {
    fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    fn ready(&self) -> Wait<'_> {
        let mut ready = self.ready.subscribe();
        Box::pin(async move {
            let _ = ready.wait_for(|ready| *ready).await;
        })
    }

    fn state(&self) -> String {
        if self.is_ready() { "ready".into() } else { "connecting".into() }
    }

    fn in_flight(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    fn sign<'a>(&'a self, request: &'a wire::Sign<'a>) -> Answer<'a, Signature> {
        let asked = Asked {
            key: request.key.to_string(),
            context: request.meta.context.clone().into_owned(),
            class: request.meta.class,
            payloads: vec![request.payload.clone().into_owned()],
            references: vec![],
        };
        Box::pin(async { self.act(asked).await?.remove(0) })
    }

    fn sign_assertion<'a>(&'a self, request: &'a wire::SignAssertion<'a>) -> Answer<'a, Signature> {
        let signed = self.document(&request.how.key, &request.meta, &request.document);
        let offset = (request.how.form == wire::Form::Signature).then_some(0);
        Box::pin(async move { Ok(Signature { offset, ..signed.await? }) })
    }

    fn sign_jws<'a>(&'a self, request: &'a wire::SignJws<'a>) -> Answer<'a, Signature> {
        self.document(&request.key, &request.meta, &request.payload)
    }

    fn sign_batch<'a>(&'a self, request: &'a wire::SignBatch<'a>) -> Answer<'a, Vec<Result<Signature, Failure>>> {
        let asked = Asked {
            key: request.key.to_string(),
            context: request.meta.context.clone().into_owned(),
            class: request.meta.class,
            payloads: request.items.iter().map(|item| item.payload.clone().into_owned()).collect(),
            references: request.items.iter().map(|item| item.reference.as_ref().map(ToString::to_string)).collect(),
        };
        Box::pin(self.act(asked))
    }

    fn sign_assertion_batch<'a>(
        &'a self,
        request: &'a wire::SignAssertionBatch<'a>,
    ) -> Answer<'a, Vec<Result<Signature, Failure>>> {
        let payload = |item: &wire::AssertionItem<'_>| wire::Payload::Message(item.document.to_vec().into());
        let asked = Asked {
            key: request.how.key.to_string(),
            context: request.meta.context.clone().into_owned(),
            class: request.meta.class,
            payloads: request.items.iter().map(payload).collect(),
            references: request.items.iter().map(|item| item.reference.as_ref().map(ToString::to_string)).collect(),
        };
        Box::pin(self.act(asked))
    }

    fn list_keys(&self, _: Duration) -> Answer<'_, Vec<wire::Key<'static>>> {
        let keys = self.keys.lock().unwrap().clone();
        self.looks.send_modify(|looks| *looks += 1);
        Box::pin(std::future::ready(Ok(keys)))
    }
}
