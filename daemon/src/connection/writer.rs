//! The writing task: everything that waits goes into one TLS write; the budget is given back when it is written.

use std::{io, io::Write, rc::Rc};

use super::{Connection, Phase};
use crate::{reactor::Reactor, transport::Writing};

/// Plaintext that rustls is handed at once: its own buffer limit.
const TLS_CHUNK: usize = 64 << 10;

/// Serves a connection's output until everything is said or nothing can be said any more.
pub(crate) async fn write_to<W: Writing>(connection: Rc<Connection>, reactor: Rc<Reactor>, mut writer: W) {
    loop {
        connection.to_write.notified().await;
        loop {
            if connection.phase() == Phase::Closed {
                return;
            }
            let frames = connection.outgoing.take();
            let mut sealed = connection.buffers.bytes();
            let done = connection.in_flight() == 0 && connection.phase() == Phase::Leaving;
            if let Err(error) = connection.seal(&frames, done, &mut sealed) {
                tracing::warn!(connection = connection.id, %error, "TLS can not write");
                return connection.close(reactor.now_ns());
            }
            let bytes = frames.len();
            connection.buffers.give_back(frames);
            if !sealed.is_empty() {
                connection.writing_since_ns.set(Some(reactor.now_ns()));
                let (back, buffer, result) = writer.write_all(sealed).await;
                (writer, sealed) = (back, buffer);
                connection.writing_since_ns.set(None);
                connection.written(bytes);
                if result.is_err() {
                    return connection.close(reactor.now_ns());
                }
            }
            connection.buffers.give_back(sealed);
            if done {
                connection.finish(reactor.now_ns());
                return;
            }
            if connection.outgoing.borrow().is_empty() && !connection.tls.borrow().wants_write() {
                break;
            }
        }
    }
}

impl Connection {
    /// Encrypts frames, and what TLS itself wants to say, into `sealed`.
    fn seal(&self, frames: &[u8], last: bool, sealed: &mut Vec<u8>) -> io::Result<()> {
        let mut tls = self.tls.borrow_mut();
        for chunk in frames.chunks(TLS_CHUNK) {
            tls.writer().write_all(chunk)?;
            while tls.wants_write() {
                tls.write_tls(sealed)?;
            }
        }
        if last {
            tls.send_close_notify();
        }
        while tls.wants_write() {
            tls.write_tls(sealed)?;
        }
        Ok(())
    }

    /// Everything is written: the peer may read to the end, and we read on until it has gone.
    fn finish(&self, now_ns: u64) {
        self.enter(Phase::Finished, now_ns);
        self.closer.finish();
    }

    /// The kernel took so many bytes of answers.
    fn written(&self, bytes: usize) {
        self.pending_bytes.set(self.pending_bytes.get() - bytes);
        self.room.notify_one();
    }
}
