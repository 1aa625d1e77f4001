//! The reading task: bytes to TLS, plaintext to frames, frames to the dispatcher.

use std::{io::Read, rc::Rc};

use segl_wire::{Code, Error, FrameBuffer, GoAwayReason};

use super::{Connection, Phase};
use crate::{dispatch::dispatch, reactor::Reactor, transport::Reading};

/// Serves a connection's input until the peer ends it or the connection is closed.
///
/// Once TLS or the framing has failed, what still comes is thrown away unread until the peer goes or the sweep ends
/// the wait: a socket closed with bytes unread resets, and the reset would destroy our last words on their way.
pub(crate) async fn read_from<R: Reading>(connection: Rc<Connection>, reactor: Rc<Reactor>, mut reader: R) {
    // Part of a frame, between two reads.
    let mut begun: Option<FrameBuffer> = None;
    let mut tls_failed = false;
    let _last_rites = Gone { connection: connection.clone(), reactor: reactor.clone() };
    loop {
        while connection.pending_bytes.get() > reactor.limits().pending_output_max
            && connection.phase() != Phase::Closed
        {
            connection.room.notified().await;
        }
        reader.ready().await;
        let (back, buffer, result) = reader.read(connection.buffers.bytes()).await;
        reader = back;
        match result {
            Ok(count) if count > 0 && connection.phase() != Phase::Closed => {}
            _ => break,
        }
        if tls_failed {
            connection.buffers.give_back(buffer);
            continue;
        }
        connection.heard_ns.set(reactor.now_ns());
        let mut frames = begun.take().unwrap_or_else(|| connection.buffers.frames());
        let taken = connection.take_in(&reactor, &buffer, &mut frames);
        connection.buffers.give_back(buffer);
        begun = connection.buffers.give_back_frames(frames);
        reactor.submit();
        connection.frame_goes_on(begun.is_some(), reactor.now_ns());
        match taken {
            Ok(Taken::Everything) => {}
            Ok(Taken::PeerClosed) => break,
            Err(error) => {
                reactor.tls_failed(&connection, &error);
                tls_failed = true;
            }
        }
    }
}

/// Gives up the connection's place when its reader ends, also by a panic.
struct Gone {
    connection: Rc<Connection>,
    reactor: Rc<Reactor>,
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.reactor.gone(&self.connection);
    }
}

/// What became of bytes that came in.
enum Taken {
    Everything,
    /// TLS's own end of stream
    PeerClosed,
}

impl Connection {
    /// Decrypts what came, and hands on each whole frame.
    fn take_in(
        self: &Rc<Self>,
        reactor: &Rc<Reactor>,
        bytes: &[u8],
        frames: &mut FrameBuffer,
    ) -> Result<Taken, rustls::Error> {
        let mut rest = bytes;
        let mut closed = false;
        while !rest.is_empty() {
            let mut tls = self.tls.borrow_mut();
            // rustls takes at most 4 KiB at once, and nothing after the peer's close_notify.
            match tls.read_tls(&mut rest) {
                Ok(0) => return Ok(Taken::PeerClosed),
                Ok(_) => {}
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            }
            let processed = tls.process_new_packets();
            if tls.wants_write() {
                self.to_write.notify_one();
            }
            let state = processed?;
            closed |= state.peer_has_closed();
            let mut plaintext = state.plaintext_bytes_to_read();
            let established = !tls.is_handshaking();
            drop(tls);
            if established && self.phase() == Phase::Handshake {
                reactor.established(self);
            }
            while plaintext > 0 {
                let read = self
                    .tls
                    .borrow_mut()
                    .reader()
                    .read(frames.room())
                    .map_err(|error| rustls::Error::General(error.to_string()))?;
                if read == 0 {
                    break;
                }
                plaintext = plaintext.saturating_sub(read);
                // After broken framing plaintext has no meaning any more: it is overwritten by what comes next.
                if !self.deaf.get() {
                    frames.filled(read);
                    self.take_frames(reactor, frames);
                }
            }
        }
        Ok(if closed { Taken::PeerClosed } else { Taken::Everything })
    }

    fn take_frames(self: &Rc<Self>, reactor: &Rc<Reactor>, frames: &mut FrameBuffer) {
        while !self.deaf.get() {
            match frames.next_frame() {
                Ok(None) => return,
                Ok(Some((header, body))) => {
                    self.frame_since_ns.set(None);
                    dispatch(reactor, self, header, body);
                }
                Err(error) => self.break_off(reactor, error.code(), &error.to_string()),
            }
        }
    }

    /// The client broke the protocol: it is told, gets the answers in flight, and is listened to no more.
    pub(crate) fn break_off(&self, reactor: &Reactor, code: Code, why: &str) {
        self.refuse(0, &Error::of(code, why), 0);
        reactor.meters().protocol_error(code);
        self.deaf.set(true);
        self.leave(GoAwayReason::Protocol, why, reactor.now_ns());
    }

    /// Notes since when a frame is only there in part.
    fn frame_goes_on(&self, partly: bool, now_ns: u64) {
        let since_ns = self.frame_since_ns.get().unwrap_or(now_ns);
        self.frame_since_ns.set(partly.then_some(since_ns));
    }

    /// Whether this request id is a new one; ids rise.
    pub(crate) fn takes_id(&self, id: u64) -> Result<(), Code> {
        if id <= self.last_id.get() {
            return Err(Code::BadId);
        }
        self.last_id.set(id);
        Ok(())
    }
}
