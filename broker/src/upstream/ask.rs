//! What is asked of `segld`, the same whichever of them gets it.

use std::{borrow::Cow, time::Duration};

use segl_wire as wire;
use tokio::time::Instant;

use super::segld::{Failure, Segld, Signature};

/// What is asked, the same whichever `segld` gets it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Name of the key
    pub key: String,
    /// Name of the algorithm
    pub algorithm: String,
    /// When the caller stops waiting
    pub deadline: Instant,
    /// Urgency
    pub class: wire::Class,
    /// For the record
    pub context: wire::Context<'static>,
    /// Form of an ECDSA signature
    pub encoding: wire::EcdsaEncoding,
    /// Whether the answer shall carry timings
    pub timings: bool,
    /// Whether the key is marked so that a request of unknown fate may be made again
    pub repeatable: bool,
}

impl Ask {
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Asks one `segld` for one signature.
    pub(super) async fn one(&self, segld: &dyn Segld, what: &What<'_>) -> Result<Signature, Failure> {
        let (meta, timings) = (self.meta(), self.timings);
        let (key, algorithm) = (Cow::Borrowed(&*self.key), Cow::Borrowed(&*self.algorithm));
        match what {
            What::Payload(payload) => {
                let (payload, encoding) = (payload.clone(), self.encoding);
                segld.sign(&wire::Sign { meta, key, algorithm, payload, encoding, timings }).await
            }
            What::Assertion { document, form } => {
                let how = self.how(form);
                let document = Cow::Borrowed(*document);
                segld.sign_assertion(&wire::SignAssertion { meta, how, document }).await
            }
            What::Jws { header, payload, key_info } => {
                let (header, payload) = (header.map(Cow::Borrowed), Cow::Borrowed(*payload));
                let key_info = *key_info;
                segld.sign_jws(&wire::SignJws { meta, key, algorithm, timings, key_info, header, payload }).await
            }
        }
    }

    /// Asks one `segld` for those of the items that are still open.
    pub(super) async fn many(
        &self,
        segld: &dyn Segld,
        items: &Items<'_>,
        open: &[usize],
    ) -> Result<Vec<Result<Signature, Failure>>, Failure> {
        let (meta, timings) = (self.meta(), self.timings);
        let (key, algorithm) = (Cow::Borrowed(&*self.key), Cow::Borrowed(&*self.algorithm));
        match items {
            Items::Payloads(items) => {
                let (items, encoding) = (open.iter().map(|at| items[*at].clone()).collect(), self.encoding);
                segld.sign_batch(&wire::SignBatch { meta, key, algorithm, encoding, timings, items }).await
            }
            Items::Assertions { items, form } => {
                let items = open.iter().map(|at| items[*at].clone()).collect();
                let how = self.how(form);
                segld.sign_assertion_batch(&wire::SignAssertionBatch { meta, how, items }).await
            }
        }
    }

    fn how<'a>(&'a self, signed: &SignedForm<'a>) -> wire::AssertionHow<'a> {
        wire::AssertionHow {
            key: Cow::Borrowed(&self.key),
            signature_method: Cow::Borrowed(&self.algorithm),
            digest_method: Cow::Borrowed(signed.digest_method),
            key_info: signed.key_info,
            form: signed.form,
            timings: self.timings,
        }
    }

    /// Under which it is recorded.
    pub fn reference(&self) -> &str {
        self.context.reference.as_deref().unwrap_or_default()
    }

    fn meta(&self) -> wire::Meta<'_> {
        let timeout_ms = u32::try_from(self.left().as_millis()).unwrap_or(u32::MAX).max(1);
        wire::Meta { timeout_ms, class: self.class, context: self.context.clone() }
    }
}

/// What is to be signed.
#[derive(Clone, Debug)]
pub enum What<'a> {
    /// A digest or message that nobody looks into
    Payload(wire::Payload<'a>),
    /// An assertion; the ask's algorithm is the signature's URI
    Assertion {
        /// XML
        document: &'a [u8],
        /// Of its signature
        form: SignedForm<'a>,
    },
    /// A JWS; the ask's algorithm is its `alg`
    Jws {
        /// The caller's part of the header, a JSON object
        header: Option<&'a [u8]>,
        /// A JSON object
        payload: &'a [u8],
        /// What the header says of the key
        key_info: wire::KeyInfo,
    },
}

/// What is to be signed with one key, in one request.
#[derive(Clone, Debug)]
pub enum Items<'a> {
    /// Digests or messages that nobody looks into
    Payloads(&'a [wire::BatchItem<'a>]),
    /// Assertions; the ask's algorithm is the signatures' URI
    Assertions {
        /// Each with what is its own
        items: Vec<wire::AssertionItem<'a>>,
        /// Of their signatures
        form: SignedForm<'a>,
    },
}

/// What an assertion's signature is like, beside its algorithm.
#[derive(Clone, Copy, Debug)]
pub struct SignedForm<'a> {
    /// URI
    pub digest_method: &'a str,
    /// What the signature says of the key
    pub key_info: wire::KeyInfo,
    /// What comes back
    pub form: wire::Form,
}

impl Items<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Items::Payloads(items) => items.len(),
            Items::Assertions { items, .. } => items.len(),
        }
    }
}

/// How it ended, and after how many tries.
#[derive(Debug)]
pub struct Outcome<T> {
    /// The answer
    pub result: T,
    /// How many `segld` were asked
    pub tries: u32,
}
