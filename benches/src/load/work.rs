//! What is asked for: which operations with which keys, by which weight.

use std::{
    borrow::Cow,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::ValueEnum;
use segl_hsm::Algorithm;
use segl_tests::{Result, documents};
use segl_wire::{
    AssertionHow, BatchItem, Capacity, Class, Context, EcdsaEncoding, Form, KeyInfo, Kind, Meta,
    Payload as WirePayload, Sign, SignAssertion, SignBatch, SignJws, encode_frame,
};
use serde::Serialize;

use crate::{
    key::{Payload, payload},
    statistics::Random,
};

/// How long segld may take: so long that it is the measurement that ends a run, not a deadline.
const TIMEOUT_MS: u32 = 30_000;

/// After so long documents are issued anew: segld takes none that was issued long ago.
const RENEW_AFTER: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    /// A SHA-256 made by the client
    Digest,
    /// A message of 32 bytes, hashed by segld's token
    Message,
    /// A SAML assertion of a citizen, 4 KiB in a Response, for a key whose rules take it (see ratio)
    Assertion,
    /// A JSON Web Signature of a small id_token, for a key whose rules take it
    Jws,
}

/// One kind of request.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) key: String,
    /// segld's name of it
    pub(crate) algorithm: Algorithm,
    pub(crate) operation: Operation,
    pub(crate) class: Class,
    /// Out of the sum of all weights
    pub(crate) weight: u64,
}

/// All kinds of requests, and in which order they come: the order depends on a request's number alone.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) tasks: Vec<Task>,
    /// Signatures a request asks for
    pub(crate) batch: usize,
    documents: Vec<Documents>,
    issued: Instant,
}

/// Used for all requests until they are issued anew.
#[derive(Clone, Debug, Default)]
struct Documents {
    assertion: String,
    claims: String,
}

impl Work {
    pub(crate) fn new(tasks: Vec<Task>, batch: usize) -> Result<Work> {
        if tasks.is_empty() || tasks.iter().all(|task| task.weight == 0) {
            return Err("nothing to do: no key has a weight".into());
        }
        if batch > 1 && tasks.iter().any(|task| matches!(task.operation, Operation::Assertion | Operation::Jws)) {
            return Err("only digests and messages go in batches here".into());
        }
        if let Some(task) =
            tasks.iter().find(|it| it.operation == Operation::Assertion && it.signature_method().is_none())
        {
            return Err(format!("{} signs no assertions", task.algorithm.name()).into());
        }
        let documents = tasks.iter().map(|task| Documents::issue(task.operation)).collect();
        Ok(Work { tasks, batch, documents, issued: Instant::now() })
    }

    /// Issues documents anew when they are some seconds old.
    pub(crate) fn renew(&mut self) {
        if self.issued.elapsed() > RENEW_AFTER {
            self.documents = self.tasks.iter().map(|task| Documents::issue(task.operation)).collect();
            self.issued = Instant::now();
        }
    }

    /// Which task the request of this number is.
    pub(crate) fn task_of(&self, number: u64) -> usize {
        if self.tasks.len() == 1 {
            return 0;
        }
        let total: u64 = self.tasks.iter().map(|task| task.weight).sum();
        let mut drawn = Random(number).next() % total;
        for (at, task) in self.tasks.iter().enumerate() {
            match drawn.checked_sub(task.weight) {
                Some(left) => drawn = left,
                None => return at,
            }
        }
        unreachable!("what is drawn is less than the sum of the weights")
    }

    /// Appends the frame of a request. Its signatures are over [`payload`]s from `number` on.
    pub(crate) fn encode(&self, task: usize, id: u64, number: u64, timings: bool, out: &mut Vec<u8>) {
        let (documents, task) = (&self.documents[task], &self.tasks[task]);
        // Which the assertion says too.
        let capacity = (task.operation == Operation::Assertion).then_some(Capacity::Citizen);
        let context = Context { capacity, ..Context::default() };
        let meta = Meta { timeout_ms: TIMEOUT_MS, class: task.class, context };
        let (key, algorithm) = (Cow::Borrowed(task.key.as_str()), Cow::Borrowed(task.algorithm.name()));
        let encoding = EcdsaEncoding::Raw;
        let mut bytes = payload(number);
        let wire = |bytes| match task.operation {
            Operation::Digest => WirePayload::Digest(bytes),
            _ => WirePayload::Message(bytes),
        };
        match task.operation {
            Operation::Assertion => {
                let how = AssertionHow {
                    key,
                    signature_method: task.signature_method().expect("looked at when the work was made").into(),
                    digest_method: documents::SHA256.into(),
                    key_info: KeyInfo::None,
                    form: Form::Document,
                    timings,
                };
                let document = Cow::Borrowed(documents.assertion.as_bytes());
                encode_frame(Kind::SignAssertion, id, &SignAssertion { meta, how, document }, out);
            }
            Operation::Jws => {
                let message = SignJws {
                    meta,
                    key,
                    algorithm: jws_name(task.algorithm).into(),
                    timings,
                    key_info: KeyInfo::None,
                    header: Some(Cow::Borrowed(br#"{"typ":"JWT"}"#)),
                    payload: Cow::Borrowed(documents.claims.as_bytes()),
                };
                encode_frame(Kind::SignJws, id, &message, out);
            }
            _ if self.batch == 1 => {
                let payload = wire(Cow::Borrowed(&bytes[..]));
                encode_frame(Kind::Sign, id, &Sign { meta, key, algorithm, payload, encoding, timings }, out);
            }
            _ => {
                let items = (0..self.batch as u64).map(|at| {
                    bytes = payload(number + at);
                    BatchItem { payload: wire(Cow::Owned(bytes.to_vec())), reference: None }
                });
                let message = SignBatch { meta, key, algorithm, encoding, timings, items: items.collect() };
                encode_frame(Kind::SignBatch, id, &message, out);
            }
        }
    }
}

impl Task {
    /// How its payloads are to be verified.
    pub(crate) fn payload(&self) -> Payload {
        if self.operation == Operation::Digest { Payload::Digest } else { Payload::Message }
    }

    /// URI of the algorithm in XML (XML-DSig §6.4, RFC 6931), of those that the bench's keys have.
    fn signature_method(&self) -> Option<&'static str> {
        match self.algorithm {
            Algorithm::EcdsaP256Sha256 => Some(documents::ECDSA_SHA256),
            Algorithm::RsaPkcs1Sha256 => Some(documents::RSA_SHA256),
            _ => None,
        }
    }
}

impl Documents {
    /// Now.
    fn issue(operation: Operation) -> Documents {
        match operation {
            Operation::Assertion => Documents { assertion: documents::person("_segl-bench"), ..Documents::default() },
            Operation::Jws => {
                let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs();
                let claims = format!(
                    r#"{{"iss":"https://idp.example","aud":"https://app.example/a","sub":"bench","iat":{now_s},"exp":{}}}"#,
                    now_s + 300
                );
                Documents { claims, ..Documents::default() }
            }
            Operation::Digest | Operation::Message => Documents::default(),
        }
    }
}

/// `alg` of an algorithm (RFC 7518 §3.1, RFC 8037).
fn jws_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::EcdsaP256Sha256 => "ES256",
        Algorithm::EcdsaP384Sha384 => "ES384",
        Algorithm::EcdsaP521Sha512 => "ES512",
        Algorithm::Ed25519 => "EdDSA",
        Algorithm::RsaPssSha256 => "PS256",
        Algorithm::RsaPssSha384 => "PS384",
        Algorithm::RsaPssSha512 => "PS512",
        Algorithm::RsaPkcs1Sha256 => "RS256",
        Algorithm::RsaPkcs1Sha384 => "RS384",
        Algorithm::RsaPkcs1Sha512 => "RS512",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_come_by_their_weights_and_the_same_each_time() {
        let task = |weight| Task {
            key: "bench".into(),
            algorithm: Algorithm::EcdsaP256Sha256,
            operation: Operation::Digest,
            class: Class::Login,
            weight,
        };
        let work = Work::new(vec![task(30_000_000), task(560_000), task(0)], 1).unwrap();
        let drawn: Vec<_> = (0..100_000).map(|number| work.task_of(number)).collect();
        let share = drawn.iter().filter(|task| **task == 1).count() as f64 / 100_000.0;
        assert!((share - 560.0 / 30_560.0).abs() < 0.002, "{share}");
        assert!(!drawn.contains(&2));
        assert_eq!(drawn, (0..100_000).map(|number| work.task_of(number)).collect::<Vec<_>>());
        assert!(Work::new(vec![task(0)], 1).is_err());
    }
}
