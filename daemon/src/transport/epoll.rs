//! Streams on epoll, by Tokio: where the kernel refuses io_uring, and for comparison.

use std::{io, net, rc::Rc};

use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;

use super::{Closing, FromSocket, Reading, Stream, Writing};

/// A TCP stream on epoll.
pub(crate) struct Epoll(Rc<TcpStream>);

/// Its reading half.
pub(crate) struct EpollReader(Rc<TcpStream>);

/// Its writing half.
pub(crate) struct EpollWriter(Rc<TcpStream>);

/// Its closer.
#[derive(Clone)]
pub(crate) struct EpollCloser(Rc<TcpStream>);

impl FromSocket for Epoll {
    fn from_socket(socket: net::TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Epoll(Rc::new(TcpStream::from_std(socket)?)))
    }
}

impl Stream for Epoll {
    type Reader = EpollReader;
    type Writer = EpollWriter;
    type Closer = EpollCloser;

    fn split(self) -> (EpollReader, EpollWriter, EpollCloser) {
        (EpollReader(self.0.clone()), EpollWriter(self.0.clone()), EpollCloser(self.0))
    }
}

impl Reading for EpollReader {
    async fn read(self, mut buffer: Vec<u8>) -> (Self, Vec<u8>, io::Result<usize>) {
        buffer.clear();
        let capacity = buffer.capacity();
        // `try_read` wants initialised bytes; zeroing a reused buffer costs less than an unsafe line.
        buffer.resize(capacity, 0);
        let result = loop {
            if let Err(error) = self.0.readable().await {
                break Err(error);
            }
            match self.0.try_read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                result => break result,
            }
        };
        buffer.truncate(*result.as_ref().unwrap_or(&0));
        (self, buffer, result)
    }
}

impl Writing for EpollWriter {
    async fn write_all(self, buffer: Vec<u8>) -> (Self, Vec<u8>, io::Result<()>) {
        let mut written = 0;
        while written < buffer.len() {
            match self.0.try_write(&buffer[written..]) {
                Ok(0) => return (self, buffer, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.0.writable().await {
                        return (self, buffer, Err(error));
                    }
                }
                Err(error) => return (self, buffer, Err(error)),
            }
        }
        (self, buffer, Ok(()))
    }
}

impl Closing for EpollCloser {
    fn close(&self) {
        // The socket may be gone already; then there is nothing left to end.
        let _ = shutdown(&*self.0, Shutdown::Both);
    }

    fn finish(&self) {
        let _ = shutdown(&*self.0, Shutdown::Write);
    }
}
