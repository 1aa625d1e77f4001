//! Messages to bytes and back: what every message's codec shares.

mod answer;
mod connection;
mod document;
mod request;

use crate::{
    Code, DecodeError, Hello,
    cbor::{Reader, Writer},
};

/// What can travel as a frame's body.
pub trait Message<'a>: Sized {
    /// Appends the body. Texts and lengths beyond the protocol's limits are written as they are; the other side
    /// refuses them.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a body, borrowing strings from it. Anything but the one deterministic encoding is an error.
    fn decode(body: &'a [u8], limits: &Limits) -> Result<Self, DecodeError>;
}

/// What a Hello allows inside a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Items in a batch
    pub batch_max: u32,
    /// Longest message to sign, in bytes
    pub message_max: u32,
    /// Longest document, in bytes
    pub document_max: u32,
}

impl From<&Hello<'_>> for Limits {
    fn from(hello: &Hello<'_>) -> Self {
        Limits { batch_max: hello.batch_max, message_max: hello.message_max, document_max: hello.document_max }
    }
}

type Result<T, E = DecodeError> = std::result::Result<T, E>;

/// A message's own part of the work; the rest (the end of the body) is the same for all.
trait Body<'a>: Sized {
    fn write(&self, w: &mut Writer<'_>);
    fn read(r: &mut Reader<'a>, limits: &Limits) -> Result<Self>;
}

impl<'a, T: Body<'a>> Message<'a> for T {
    fn encode(&self, out: &mut Vec<u8>) {
        self.write(&mut Writer(out));
    }

    fn decode(body: &'a [u8], limits: &Limits) -> Result<Self> {
        let mut reader = Reader::new(body);
        let message = T::read(&mut reader, limits)?;
        reader.end()?;
        Ok(message)
    }
}

/// The value of a key that must be there.
fn need<T>(value: Option<T>, r: &Reader<'_>, what: &'static str) -> Result<T> {
    value.ok_or_else(|| r.malformed(what))
}

/// A byte string of at most `max` bytes; `code` blames a longer one.
fn bytes_up_to<'a>(r: &mut Reader<'a>, max: usize, code: Code, what: &'static str) -> Result<&'a [u8]> {
    let bytes = r.bytes()?;
    if bytes.len() > max { Err(r.refused(code, what)) } else { Ok(bytes) }
}
