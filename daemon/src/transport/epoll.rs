//! Streams on epoll, by Tokio: where the kernel refuses io_uring, and for comparison.

use std::{io, net, rc::Rc};

use rustix::{
    buffer::spare_capacity,
    net::{Shutdown, shutdown},
};
use tokio::{io::Interest, net::TcpStream};

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
    async fn ready(&self) {
        // An error is the read's to tell.
        let _ = self.0.readable().await;
    }

    async fn read(self, mut buffer: Vec<u8>) -> (Self, Vec<u8>, io::Result<usize>) {
        buffer.clear();
        let result = loop {
            if let Err(error) = self.0.readable().await {
                break Err(error);
            }
            let mut count = None;
            let tried = self.0.try_io(Interest::READABLE, || {
                let got = rustix::io::read(&*self.0, spare_capacity(&mut buffer))?;
                count = Some(got);
                // Less than there is room for is all there was. Tokio takes this as the kernel's own word that the
                // socket is empty: so nobody has to ask it once more, and epoll tells when more has come.
                if 0 < got && got < buffer.capacity() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (count, tried) {
                (Some(count), _) => break Ok(count),
                (None, Ok(())) => unreachable!("what has not failed has a count"),
                (None, Err(error))
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                (None, Err(error)) => break Err(error),
            }
        };
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
