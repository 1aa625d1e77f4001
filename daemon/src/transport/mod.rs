//! How bytes reach a socket: owned buffers, passed by value.
//!
//! With io_uring the kernel writes into a buffer until the operation completes, whatever became of the future that
//! started it. A dropped read would go on eating the connection's bytes, a dropped write would go on sending an old
//! buffer. So [`Reading::read`] and [`Writing::write_all`] take the half itself: whoever drops the future has lost the
//! half and can not read or write past it. Deadlines do not drop futures either: they call the [`Closer`], which shuts
//! the socket down, and the operation then completes by itself.

use std::{io, net::SocketAddr};

mod epoll;
#[cfg(test)]
pub(crate) mod memory;
mod probe;
mod uring;

pub(crate) use epoll::Epoll;
pub(crate) use probe::probe_uring;
pub(crate) use uring::Uring;

/// The reading half of a connection.
pub(crate) trait Reading: Sized + 'static {
    /// Waits until there may be something to read, where that can be told without a buffer: an idle connection then
    /// needs none.
    async fn ready(&self) {}

    /// Reads into the buffer's whole capacity, replacing what was in it; `Ok(0)` is the peer's end of stream.
    /// The buffer comes back with exactly the bytes read.
    async fn read(self, buffer: Vec<u8>) -> (Self, Vec<u8>, io::Result<usize>);
}

/// The writing half of a connection.
pub(crate) trait Writing: Sized + 'static {
    /// Writes all of the buffer or fails; the buffer comes back for its allocation.
    async fn write_all(self, buffer: Vec<u8>) -> (Self, Vec<u8>, io::Result<()>);
}

/// Ends a connection from outside its two tasks.
pub(crate) trait Closing: Clone + 'static {
    /// Shuts both directions down: a pending read and a pending write complete.
    fn close(&self);

    /// Says that nothing more will be written, so that the peer reads to the end; reading goes on.
    fn finish(&self);
}

/// A connected stream, before it is split.
pub(crate) trait Stream: 'static {
    /// Its reading half
    type Reader: Reading;
    /// Its writing half
    type Writer: Writing;
    /// Its closer
    type Closer: Closing;

    /// Takes it apart.
    fn split(self) -> (Self::Reader, Self::Writer, Self::Closer);
}

/// A kind of stream made from an accepted socket.
pub(crate) trait FromSocket: Stream + Sized {
    /// Takes over a non-blocking socket.
    fn from_socket(socket: std::net::TcpStream) -> io::Result<Self>;
}

/// The kinds of I/O that a reactor can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Io {
    /// io_uring by tokio-uring
    Uring,
    /// epoll by Tokio
    Epoll,
}

impl Io {
    /// The name in configuration, log and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Io::Uring => "uring",
            Io::Epoll => "epoll",
        }
    }
}

/// Who is at the other end, for the log.
pub(crate) type Peer = SocketAddr;

#[cfg(test)]
mod suite;
