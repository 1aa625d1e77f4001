//! Cuts a stream of plaintext into frames, in place.

use std::fmt;

use crate::{HEADER_LEN, Header, HeaderError};

/// Room offered to a read, and the size of an idle buffer: one TLS record's plaintext.
const ROOM: usize = 16 * 1024;

/// Less room than this is not offered: rustls takes so much at a time.
const ROOM_MIN: usize = 4 * 1024;

/// A receive buffer from which frames are taken without being copied.
///
/// Bytes go in by [`room`](Self::room) and [`filled`](Self::filled), or by [`push`](Self::push); frames come out by
/// [`next_frame`](Self::next_frame) until it says `None`. A length above `frame_max` is an error as soon as the header
/// stands, and the buffer grows with the bytes that come, not with the length announced: it never holds more than a
/// longest frame and one read.
pub struct FrameBuffer {
    /// All initialised; `start..end` is what was received and not yet taken
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    frame_max: u32,
}

impl FrameBuffer {
    /// An empty buffer for bodies of at most `frame_max` bytes.
    pub fn new(frame_max: u32) -> Self {
        FrameBuffer { buffer: Vec::new(), start: 0, end: 0, frame_max }
    }

    /// Another limit from the next frame on: a client learns it from the Hello.
    pub fn set_frame_max(&mut self, frame_max: u32) {
        self.frame_max = frame_max;
    }

    /// Where to read to; never empty once every complete frame has been taken.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > ROOM {
                self.buffer = Vec::new();
            }
        }
        // A frame moves at most once, to the front: only taking others away makes `start` rise again.
        if self.start > 0 && self.buffer.len() - self.end < ROOM_MIN {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buffer.len() - self.end < ROOM_MIN {
            let longest = HEADER_LEN + self.frame_max as usize + ROOM;
            let len = (self.end * 2).max(self.end + ROOM).min(longest).max(self.buffer.len());
            self.buffer.reserve_exact(len - self.buffer.len());
            self.buffer.resize(len, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Says that so many bytes were read into [`room`](Self::room).
    pub fn filled(&mut self, len: usize) {
        assert!(len <= self.buffer.len() - self.end, "more bytes than there was room for");
        self.end += len;
    }

    /// Copies in what fits and returns how many bytes that was; 0 only while a complete frame waits to be taken.
    #[must_use = "what did not fit must be pushed again"]
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let room = self.room();
        let len = room.len().min(bytes.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.filled(len);
        len
    }

    /// The next complete frame. After an error the stream has no meaning any more.
    pub fn next_frame(&mut self) -> Result<Option<(Header, &[u8])>, HeaderError> {
        let received = &self.buffer[self.start..self.end];
        let Some(header) = received.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = Header::parse(header)?;
        if header.len > self.frame_max {
            return Err(HeaderError::TooLong { len: header.len, max: self.frame_max });
        }
        let len = HEADER_LEN + header.len as usize;
        let Some(frame) = received.get(..len) else { return Ok(None) };
        self.start += len;
        Ok(Some((header, &frame[HEADER_LEN..])))
    }

    /// Bytes received and not yet taken: not 0 at the stream's end means that it broke inside a frame.
    pub fn pending(&self) -> usize {
        self.end - self.start
    }

    /// Bytes of memory held.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

impl fmt::Debug for FrameBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBuffer").field("pending", &self.pending()).field("frame_max", &self.frame_max).finish()
    }
}
