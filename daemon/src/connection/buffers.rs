//! Memory that a reactor's connections share: each has some only while it needs it.
//!
//! Most connections are idle at any moment, and one after the other is served in the same memory, which the core's
//! caches then still hold: with many connections, memory of their own made each request wait for the next level of
//! cache many times over.
//!
//! What one connection had in clear is still in the memory that the next one gets, and is out of its reach: a buffer is
//! given out empty, and shows only what was put in since.

use std::cell::RefCell;

use segl_wire::FrameBuffer;

/// A TLS record at its largest and a little more: so a full record is read at once.
pub(super) const BUFFER_BYTES: usize = 17 << 10;

/// Larger ones are given back to the allocator: one large answer must not keep its memory for ever.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// So many are kept of each kind, a few rounds' worth.
const KEPT: usize = 64;

/// The buffers that nobody uses now, the one used last on top.
pub(crate) struct Buffers {
    bytes: RefCell<Vec<Vec<u8>>>,
    frames: RefCell<Vec<FrameBuffer>>,
    frame_max: u32,
}

impl Buffers {
    /// For frames of at most `frame_max` bytes.
    pub(crate) fn new(frame_max: u32) -> Buffers {
        Buffers { bytes: RefCell::default(), frames: RefCell::default(), frame_max }
    }

    /// An empty one, with room for [`BUFFER_BYTES`] at least.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    pub(super) fn give_back(&self, mut bytes: Vec<u8>) {
        let mut kept = self.bytes.borrow_mut();
        if (BUFFER_BYTES..=BUFFER_BYTES_MAX).contains(&bytes.capacity()) && kept.len() < KEPT {
            bytes.clear();
            kept.push(bytes);
        }
    }

    /// One in which no bytes are left.
    pub(super) fn frames(&self) -> FrameBuffer {
        self.frames.borrow_mut().pop().unwrap_or_else(|| FrameBuffer::new(self.frame_max))
    }

    /// Takes it back if no bytes are left in it.
    pub(super) fn give_back_frames(&self, frames: FrameBuffer) -> Option<FrameBuffer> {
        if frames.pending() > 0 {
            return Some(frames);
        }
        let mut kept = self.frames.borrow_mut();
        if frames.capacity() <= BUFFER_BYTES_MAX && kept.len() < KEPT {
            kept.push(frames);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_used_again_and_holds_nothing() {
        let buffers = Buffers::new(1 << 20);
        let mut first = buffers.bytes();
        first.extend_from_slice(b"secret");
        let place = first.as_ptr();
        buffers.give_back(first);
        let again = buffers.bytes();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));

        let mut frames = buffers.frames();
        assert_eq!(frames.push(b"SE"), 2);
        let frames = buffers.give_back_frames(frames).expect("part of a frame is left in it");
        assert_eq!((frames.pending(), buffers.frames().pending()), (2, 0));
    }

    #[test]
    fn neither_too_large_ones_are_kept_nor_too_small_ones_nor_too_many() {
        let buffers = Buffers::new(1 << 20);
        buffers.give_back(Vec::new());
        buffers.give_back(Vec::with_capacity(BUFFER_BYTES_MAX + 1));
        assert_eq!(buffers.bytes.borrow().len(), 0);
        (0..2 * KEPT).for_each(|_| buffers.give_back(Vec::with_capacity(BUFFER_BYTES)));
        (0..2 * KEPT).for_each(|_| assert!(buffers.give_back_frames(FrameBuffer::new(1)).is_none()));
        assert_eq!((buffers.bytes.borrow().len(), buffers.frames.borrow().len()), (KEPT, KEPT));
    }
}
