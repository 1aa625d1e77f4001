//! A simulated network in memory, with seeded short reads, stalls and errors, for tests.

use std::{cell::RefCell, collections::VecDeque, io, rc::Rc};

use tokio::sync::Notify;

use super::{Closing, Reading, Stream, Writing};

/// What a simulated stream does to those who use it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Reads and writes move at most so many bytes at once; 0 is no limit
    pub(crate) piece_max: usize,
    /// One operation in so many yields to others first; 0 is never
    pub(crate) stall_one_in: u64,
    /// One operation in so many fails; 0 is never
    pub(crate) error_one_in: u64,
    /// Seed of the above
    pub(crate) seed: u64,
}

struct Pipe {
    bytes: RefCell<VecDeque<u8>>,
    ended: RefCell<bool>,
    changed: Notify,
    capacity: usize,
}

impl Pipe {
    fn new(capacity: usize) -> Rc<Pipe> {
        Rc::new(Pipe {
            bytes: RefCell::new(VecDeque::new()),
            ended: RefCell::new(false),
            changed: Notify::new(),
            capacity,
        })
    }

    fn end(&self) {
        *self.ended.borrow_mut() = true;
        self.changed.notify_waiters();
    }
}

struct Dice {
    state: u64,
    faults: Faults,
}

impl Dice {
    fn new(faults: Faults, side: u64) -> Dice {
        Dice { state: faults.seed.wrapping_mul(2).wrapping_add(side).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, faults }
    }

    /// xorshift64*, good enough to choose lengths.
    fn roll(&mut self, below: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below.max(1)
    }

    fn one_in(&mut self, many: u64) -> bool {
        many != 0 && self.roll(many) == 0
    }

    fn piece(&mut self, wanted: usize) -> usize {
        match self.faults.piece_max {
            0 => wanted,
            most => wanted.min(1 + self.roll(most as u64) as usize),
        }
    }
}

/// One end of a simulated connection.
pub(crate) struct Memory {
    incoming: Rc<Pipe>,
    outgoing: Rc<Pipe>,
    faults: Faults,
}

/// The two ends of a connection; each direction holds at most `capacity` bytes.
pub(crate) fn simulated_pair(capacity: usize, faults: Faults) -> (Memory, Memory) {
    let (a, b) = (Pipe::new(capacity), Pipe::new(capacity));
    (
        Memory { incoming: a.clone(), outgoing: b.clone(), faults },
        Memory { incoming: b, outgoing: a, faults: Faults { seed: faults.seed ^ 0xffff, ..faults } },
    )
}

/// Its reading half.
pub(crate) struct MemoryReader {
    pipe: Rc<Pipe>,
    dice: Dice,
}

/// Its writing half.
pub(crate) struct MemoryWriter {
    pipe: Rc<Pipe>,
    dice: Dice,
}

/// Its closer.
#[derive(Clone)]
pub(crate) struct MemoryCloser {
    incoming: Rc<Pipe>,
    outgoing: Rc<Pipe>,
}

impl Stream for Memory {
    type Reader = MemoryReader;
    type Writer = MemoryWriter;
    type Closer = MemoryCloser;

    fn split(self) -> (MemoryReader, MemoryWriter, MemoryCloser) {
        (
            MemoryReader { pipe: self.incoming.clone(), dice: Dice::new(self.faults, 0) },
            MemoryWriter { pipe: self.outgoing.clone(), dice: Dice::new(self.faults, 1) },
            MemoryCloser { incoming: self.incoming, outgoing: self.outgoing },
        )
    }
}

impl Reading for MemoryReader {
    async fn read(mut self, mut buffer: Vec<u8>) -> (Self, Vec<u8>, io::Result<usize>) {
        buffer.clear();
        let pipe = self.pipe.clone();
        if self.dice.one_in(self.dice.faults.stall_one_in) {
            tokio::task::yield_now().await;
        }
        if self.dice.one_in(self.dice.faults.error_one_in) {
            pipe.end();
            return (self, buffer, Err(io::ErrorKind::ConnectionReset.into()));
        }
        loop {
            let changed = pipe.changed.notified();
            let waiting = pipe.bytes.borrow().len();
            if waiting > 0 {
                let count = self.dice.piece(buffer.capacity().min(waiting));
                buffer.extend(pipe.bytes.borrow_mut().drain(..count));
                pipe.changed.notify_waiters();
                return (self, buffer, Ok(count));
            }
            if *pipe.ended.borrow() {
                return (self, buffer, Ok(0));
            }
            changed.await;
        }
    }
}

impl Writing for MemoryWriter {
    async fn write_all(mut self, buffer: Vec<u8>) -> (Self, Vec<u8>, io::Result<()>) {
        let pipe = self.pipe.clone();
        let mut written = 0;
        while written < buffer.len() {
            if self.dice.one_in(self.dice.faults.stall_one_in) {
                tokio::task::yield_now().await;
            }
            let changed = pipe.changed.notified();
            if *pipe.ended.borrow() {
                return (self, buffer, Err(io::ErrorKind::BrokenPipe.into()));
            }
            let room = pipe.capacity - pipe.bytes.borrow().len();
            if room == 0 {
                changed.await;
                continue;
            }
            let count = self.dice.piece(room.min(buffer.len() - written));
            pipe.bytes.borrow_mut().extend(&buffer[written..written + count]);
            pipe.changed.notify_waiters();
            written += count;
        }
        (self, buffer, Ok(()))
    }
}

impl Closing for MemoryCloser {
    fn close(&self) {
        self.incoming.end();
        self.outgoing.end();
    }

    fn finish(&self) {
        self.outgoing.end();
    }
}
