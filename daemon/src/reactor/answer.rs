//! Answers to signatures, of whatever kind, alone or as parts of a batch.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use segl_wire::{
    Code, EcdsaEncoding, Error, Form, Kind, Signed, SignedAssertion, SignedAssertionBatch, SignedBatch, SignedJws,
    Timings,
};

use crate::{connection::Connection, policy::Unsigned};

/// The form in which answers are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answers {
    /// Of ECDSA signatures
    pub(crate) encoding: EcdsaEncoding,
    /// Of signed documents
    pub(crate) form: Form,
    /// With times
    pub(crate) timings: bool,
}

/// What an answer is part of.
pub(crate) enum Reply {
    /// A frame of its own
    Single {
        /// The request's id
        id: u64,
    },
    /// One of many
    Item {
        /// The others
        batch: Rc<RefCell<Batch>>,
        /// Its place
        index: usize,
    },
}

impl Reply {
    /// The id of the request on its connection.
    pub(super) fn id(&self) -> u64 {
        match self {
            Reply::Single { id } => *id,
            Reply::Item { batch, .. } => batch.borrow().id,
        }
    }
}

/// A good answer.
#[derive(Debug)]
pub(crate) enum Made {
    /// Of what Segl did not look into
    Signed(Signed<'static>),
    /// Of an assertion
    Assertion(SignedAssertion<'static>),
    /// Of a JWS
    Jws(SignedJws<'static>),
}

impl Made {
    /// Puts the signature to what it was made for.
    ///
    /// # Errors
    /// When that fails, which would be a mistake of ours: the signature is then destroyed.
    pub(super) fn new(
        unsigned: Option<Unsigned>,
        form: Form,
        signature: &[u8],
        timings: Option<Timings>,
        version: Option<&str>,
    ) -> Result<Made, &'static str> {
        let version = version.map(|version| version.to_owned().into());
        let Some(unsigned) = unsigned else {
            return Ok(Made::Signed(Signed { signature: signature.to_vec().into(), timings, version }));
        };
        let made = catch_unwind(AssertUnwindSafe(|| match unsigned {
            Unsigned::Assertion(prepared) => {
                let (xml, offset) = match form {
                    Form::Document => (prepared.finish(signature), None),
                    Form::Signature => {
                        let (offset, element) = prepared.signature_element(signature);
                        (element, Some(u32::try_from(offset).expect("a frame holds the document")))
                    }
                };
                Made::Assertion(SignedAssertion { xml: xml.into(), timings, version, offset })
            }
            Unsigned::Jws(prepared) => {
                let compact = prepared.finish(signature).into_bytes().into();
                Made::Jws(SignedJws { compact, timings, version })
            }
        }));
        made.map_err(|_| "segld could not put the signature to its document")
    }

    pub(super) fn send(&self, connection: &Connection, id: u64) {
        match self {
            Made::Signed(signed) => connection.send(Kind::Signed, id, signed, 1),
            Made::Assertion(signed) => connection.send(Kind::SignedAssertion, id, signed, 1),
            Made::Jws(signed) => connection.send(Kind::SignedJws, id, signed, 1),
        }
    }
}

/// An answer, or the other one.
pub(crate) type Answer = Result<Made, Error<'static>>;

/// The answers to a batch, as they come in.
pub(crate) struct Batch {
    id: u64,
    /// What its answer is
    kind: Kind,
    items: Vec<Option<Answer>>,
    missing: usize,
}

impl Batch {
    /// Answered by `kind`, which is SignedBatch or SignedAssertionBatch.
    pub(crate) fn new(id: u64, kind: Kind, items: usize) -> Batch {
        debug_assert!(matches!(kind, Kind::SignedBatch | Kind::SignedAssertionBatch));
        Batch { id, kind, items: (0..items).map(|_| None).collect(), missing: items }
    }

    /// One of them has its answer; the last one sends them all.
    pub(crate) fn item_done(&mut self, connection: &Connection, index: usize, answer: Answer) {
        debug_assert!(self.items[index].is_none(), "an item is answered once");
        self.items[index] = Some(answer);
        self.missing -= 1;
        if self.missing > 0 {
            return;
        }
        let weight = self.items.len() as u32;
        let answers = std::mem::take(&mut self.items).into_iter().flatten();
        match self.kind {
            Kind::SignedAssertionBatch => {
                let violations_max = (BATCH_VIOLATIONS_MAX / weight.max(1) as usize).max(1);
                let items = answers.map(|answer| match answer {
                    Ok(Made::Assertion(signed)) => Ok(signed),
                    Ok(_) => Err(stranger()),
                    Err(mut error) => {
                        error.violations.truncate(violations_max);
                        Err(error)
                    }
                });
                let answer = SignedAssertionBatch { items: items.collect() };
                connection.send(self.kind, self.id, &answer, weight);
            }
            _ => {
                let items = answers.map(|answer| match answer {
                    Ok(Made::Signed(signed)) => Ok(signed),
                    Ok(_) => Err(stranger()),
                    Err(error) => Err(error),
                });
                connection.send(Kind::SignedBatch, self.id, &SignedBatch { items: items.collect() }, weight);
            }
        }
    }
}

/// Most violations in one frame when its items are many, so that it stays below what a client reads: with the longest
/// texts this is 3.5 MiB.
const BATCH_VIOLATIONS_MAX: usize = 4096;

fn stranger() -> Error<'static> {
    Error::of(Code::Internal, "a batch's answer is of another kind")
}
