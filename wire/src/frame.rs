//! The frame: 16 bytes of header, then a CBOR body.

/// The ALPN protocol id (RFC 7301) that both sides demand.
pub const ALPN: &[u8] = b"segl/1";

/// Length of a frame's header in bytes.
pub const HEADER_LEN: usize = 16;

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

/// Frame types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
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
    /// The request with the header's id is not wanted any more; it gets one final answer still
    Cancel = 0x20,
    /// The sender starts to leave, id 0
    GoAway = 0x21,
    /// The other answer to any request; with id 0 it is about the connection, which then ends
    Error = 0x7f,
}
