//! Streams on io_uring.

use std::{
    io,
    net::{self, Shutdown},
    rc::Rc,
};

use tokio_uring::net::TcpStream;

use super::{Closing, FromSocket, Reading, Stream, Writing};

/// A TCP stream on io_uring. Lives on the thread of its ring.
pub(crate) struct Uring(Rc<TcpStream>);

/// Its reading half.
pub(crate) struct UringReader(Rc<TcpStream>);

/// Its writing half.
pub(crate) struct UringWriter(Rc<TcpStream>);

/// Its closer.
#[derive(Clone)]
pub(crate) struct UringCloser(Rc<TcpStream>);

impl FromSocket for Uring {
    fn from_socket(socket: net::TcpStream) -> io::Result<Self> {
        // A non-blocking socket makes io_uring answer EAGAIN instead of waiting.
        socket.set_nonblocking(false)?;
        Ok(Uring(Rc::new(TcpStream::from_std(socket))))
    }
}

impl Stream for Uring {
    type Reader = UringReader;
    type Writer = UringWriter;
    type Closer = UringCloser;

    fn split(self) -> (UringReader, UringWriter, UringCloser) {
        (UringReader(self.0.clone()), UringWriter(self.0.clone()), UringCloser(self.0))
    }
}

impl Reading for UringReader {
    async fn read(self, mut buffer: Vec<u8>) -> (Self, Vec<u8>, io::Result<usize>) {
        buffer.clear();
        let (result, buffer) = self.0.read(buffer).await;
        (self, buffer, result)
    }
}

impl Writing for UringWriter {
    async fn write_all(self, buffer: Vec<u8>) -> (Self, Vec<u8>, io::Result<()>) {
        let (result, buffer) = self.0.write_all(buffer).await;
        (self, buffer, result)
    }
}

impl Closing for UringCloser {
    fn close(&self) {
        // The socket may be gone already; then there is nothing left to end.
        let _ = self.0.shutdown(Shutdown::Both);
    }

    fn finish(&self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }
}
