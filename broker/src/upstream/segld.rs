//! One road to one `segld`, as a trait: the real one speaks the protocol, tests simulate it.

use std::{fmt, pin::Pin, time::Duration};

use segl_wire::{self as wire, SignedState};

use crate::problem::{Code, Fault, Problem, Refused, Retry, Signed, Violation};

/// An answer to come. Dropping it takes the request back.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// Something to wait for.
pub type Wait<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One connection, kept up, of one tenant to one `segld`.
pub trait Segld: Send + Sync + fmt::Debug + 'static {
    /// Whether requests can be sent now.
    fn is_ready(&self) -> bool;

    /// Comes back when requests can be sent, however long that takes.
    fn ready(&self) -> Wait<'_>;

    /// In words, for `/readyz`.
    fn state(&self) -> String;

    /// Signatures asked for and not answered.
    fn in_flight(&self) -> usize;

    /// How many it takes at once: more wait here, in the order in which they came. 0 while that is not known.
    fn capacity(&self) -> usize;

    /// One signature; gives up a little after the request's own `timeout_ms`.
    fn sign<'a>(&'a self, request: &'a wire::Sign<'a>) -> Answer<'a, Signature>;

    /// One signed assertion.
    fn sign_assertion<'a>(&'a self, request: &'a wire::SignAssertion<'a>) -> Answer<'a, Signature>;

    /// One JWS.
    fn sign_jws<'a>(&'a self, request: &'a wire::SignJws<'a>) -> Answer<'a, Signature>;

    /// Many signatures, an answer for each item, in order.
    fn sign_batch<'a>(&'a self, request: &'a wire::SignBatch<'a>) -> Answer<'a, Vec<Result<Signature, Failure>>>;

    /// Many signed assertions, an answer for each item, in order.
    fn sign_assertion_batch<'a>(
        &'a self,
        request: &'a wire::SignAssertionBatch<'a>,
    ) -> Answer<'a, Vec<Result<Signature, Failure>>>;

    /// The tenant's keys there, and how they are now.
    fn list_keys(&self, timeout: Duration) -> Answer<'_, Vec<wire::Key<'static>>>;
}

/// A signature, or a document with its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// In the form asked for
    pub bytes: Vec<u8>,
    /// When asked for
    pub timings: Option<wire::Timings>,
    /// Which version of the key signed, if it has versions
    pub version: Option<String>,
    /// Of a `ds:Signature` alone: at which byte of the document it goes
    pub offset: Option<u32>,
}

/// No signature, and what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The cause
    pub code: Code,
    /// Whose fault
    pub fault: Fault,
    /// Whether a signature may exist
    pub signed: Signed,
    /// Where trying again makes sense
    pub retry: Retry,
    /// When, at the earliest
    pub retry_after_ms: Option<u32>,
    /// Not a byte of it was sent there: the next connection to the same `segld` may be asked too
    pub not_sent: bool,
    /// For a human
    pub detail: String,
    /// What is wrong with a document
    pub violations: Vec<Violation>,
}

impl Failure {
    /// Nothing was sent: any other `segld` may be asked.
    pub fn not_sent(detail: impl Into<String>) -> Self {
        Self {
            code: Code::UpstreamUnavailable,
            fault: Fault::Server,
            signed: Signed::No,
            retry: Retry::Elsewhere,
            retry_after_ms: Some(1_000),
            not_sent: true,
            detail: detail.into(),
            violations: Vec::new(),
        }
    }

    /// It was sent and no answer came: nobody knows whether it was signed.
    pub fn unanswered(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            fault: Fault::Server,
            signed: Signed::Unknown,
            retry: Retry::Elsewhere,
            retry_after_ms: None,
            not_sent: false,
            detail: detail.into(),
            violations: Vec::new(),
        }
    }

    /// Whether another `segld` may be asked. What may have been signed is asked again only for repeatable keys.
    pub fn may_go_elsewhere(&self, repeatable: bool) -> bool {
        match self.signed {
            Signed::No => self.retry == Retry::Elsewhere,
            Signed::Unknown => repeatable && self.retry != Retry::Never,
        }
    }

    /// Whether it speaks against the `segld`. A deadline that passed may as well have been too short.
    pub fn sets_back(&self) -> bool {
        matches!(self.fault, Fault::Server | Fault::Token) && self.code != Code::Expired
    }

    /// As the caller sees it.
    pub fn into_problem(self, reference: &str) -> Problem {
        Problem {
            fault: self.fault,
            signed: self.signed,
            retry: self.retry,
            retry_after_ms: self.retry_after_ms,
            refused: (!self.violations.is_empty()).then(|| Box::new(Refused { violations: self.violations })),
            ..Problem::new(self.code, self.detail).with_reference(reference)
        }
    }
}

impl From<wire::Error<'_>> for Failure {
    fn from(error: wire::Error<'_>) -> Self {
        Self {
            code: Code::of_wire(error.code),
            fault: match error.fault {
                wire::Fault::Client => Fault::Client,
                wire::Fault::Server => Fault::Server,
                wire::Fault::Token => Fault::Token,
            },
            signed: match error.signed {
                SignedState::No => Signed::No,
                SignedState::Unknown => Signed::Unknown,
            },
            retry: match error.retry {
                wire::Retry::Never => Retry::Never,
                wire::Retry::Here => Retry::Here,
                wire::Retry::Elsewhere => Retry::Elsewhere,
            },
            retry_after_ms: error.retry_after_ms,
            not_sent: false,
            detail: error.message.into_owned(),
            violations: error.violations.into_iter().map(Violation::from).collect(),
        }
    }
}
