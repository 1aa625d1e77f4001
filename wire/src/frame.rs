//! The frame: 16 bytes of header, then a CBOR body.

use crate::{Code, Message, numbered::numbered};

/// The ALPN protocol id (RFC 7301) that both sides demand.
pub const ALPN: &[u8] = b"segl/1";

/// Length of a frame's header in bytes.
pub const HEADER_LEN: usize = 16;

/// Longest body of a Hello, and of what may come in its place, in bytes: all that a client reads unannounced.
pub const HELLO_MAX: u32 = 4096;

/// Longest body that a server sends, in bytes. (What it takes is announced: [`crate::Hello::frame_max`].)
pub const ANSWER_MAX: u32 = 16 << 20;

/// Header: `length: u32` (of the body) | `kind: u8` | `flags: u8` (0) | `reserved: u16` (0) | `id: u64`, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the body in bytes
    pub len: u32,
    /// The type, as on the wire: it may be one we do not know
    pub kind: u8,
    /// Request id; 0 is the connection's own
    pub id: u64,
}

impl Header {
    /// Reads a header. The length is not judged here: [`crate::FrameBuffer`] knows the limit.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Header, HeaderError> {
        let [l0, l1, l2, l3, kind, flags, r0, r1, id @ ..] = *bytes;
        if (flags, r0, r1) != (0, 0, 0) {
            return Err(HeaderError::Reserved);
        }
        Ok(Header { len: u32::from_be_bytes([l0, l1, l2, l3]), kind, id: u64::from_be_bytes(id) })
    }

    /// The header as it travels.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&self.len.to_be_bytes());
        bytes[4] = self.kind;
        bytes[8..].copy_from_slice(&self.id.to_be_bytes());
        bytes
    }

    /// The type, when it is one of ours.
    pub fn known_kind(&self) -> Option<Kind> {
        Kind::from_u8(self.kind)
    }
}

/// An error of the framing: it costs the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Flags or reserved bytes are not zero
    #[error("flags or reserved bytes of a frame's header are not zero")]
    Reserved,
    /// The body is longer than announced
    #[error("a frame's body of {len} bytes, at most {max} were announced")]
    TooLong {
        /// Length in the header
        len: u32,
        /// The limit
        max: u32,
    },
}

impl HeaderError {
    /// The code to tell the other side.
    pub fn code(self) -> Code {
        match self {
            HeaderError::Reserved => Code::Malformed,
            HeaderError::TooLong { .. } => Code::FrameTooLong,
        }
    }
}

/// Appends a whole frame and returns the length of its body; the header's length is filled in afterwards, so that
/// nothing is copied twice. The caller compares with the other side's `frame_max`.
pub fn encode_frame<'m>(kind: Kind, id: u64, message: &impl Message<'m>, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&Header { len: 0, kind: kind as u8, id }.encode());
    message.encode(out);
    let len = out.len() - start - HEADER_LEN;
    let announced = u32::try_from(len).expect("a message is built from parts far below 4 GiB");
    out[start..start + 4].copy_from_slice(&announced.to_be_bytes());
    len
}

numbered! {
    /// Frame types.
    pub enum Kind {
        /// Server's first frame, id 0
        Hello = 0x01,
        /// Either side asks whether the other lives
        Ping = 0x02,
        /// The answer, same id, same body
        Pong = 0x03,
        /// Which keys may I use, and how are they
        ListKeys = 0x10,
        /// Answer to ListKeys
        Keys = 0x11,
        /// One signature
        Sign = 0x12,
        /// Answer to Sign
        Signed = 0x13,
        /// Many signatures with one key
        SignBatch = 0x14,
        /// Answer to SignBatch
        SignedBatch = 0x15,
        /// One SAML assertion
        SignAssertion = 0x16,
        /// Answer to SignAssertion
        SignedAssertion = 0x17,
        /// Many SAML assertions with one key
        SignAssertionBatch = 0x18,
        /// Answer to SignAssertionBatch
        SignedAssertionBatch = 0x19,
        /// One JSON Web Signature
        SignJws = 0x1a,
        /// Answer to SignJws
        SignedJws = 0x1b,
        /// The request with the header's id is not wanted any more; it gets one final answer still
        Cancel = 0x20,
        /// The sender starts to leave, id 0
        GoAway = 0x21,
        /// The other answer to any request; with id 0 it is about the connection, which then ends
        Error = 0x7f,
    }
}
