//! Accepting. Always by epoll, also where connections run on io_uring: an accept that is dropped there may swallow
//! a connection, and accepting is rare.

use std::{io, rc::Rc, time::Duration};

use tokio::{net::TcpListener, task::spawn_local};

use super::{Peer, Reactor};
use crate::{
    connection::{Phase, read_from, write_to},
    transport::{FromSocket, Stream},
};

/// Without descriptors accept fails at once, hundreds of thousands of times a second.
const BACK_OFF: Duration = Duration::from_millis(100);

impl Reactor {
    /// Accepts until draining begins; what the kernel had accepted by then is still served (and told GoAway).
    pub(super) async fn accept<S: FromSocket>(self: Rc<Self>, listener: TcpListener) {
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.until_draining() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    failing = false;
                    self.serve::<S>(socket, peer);
                }
                Err(error) if !exhausted(&error) => tracing::debug!(%error, "gone before it was accepted"),
                Err(error) => {
                    self.meters.accept_failed();
                    // One line for a storm.
                    if !failing {
                        tracing::error!(%error, "a connection could not be accepted (are there descriptors left?)");
                    }
                    failing = true;
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    async fn until_draining(&self) {
        while !self.draining.get() {
            self.changed.notified().await;
        }
    }

    fn serve<S: FromSocket>(self: &Rc<Self>, socket: tokio::net::TcpStream, peer: Peer) {
        if self.shared.census.handshakes() >= self.limits().handshakes {
            self.close_oldest_handshake();
        }
        if !self.shared.census.admits(self.limits()) {
            self.meters.closed("too-many");
            if let Some(held_back) = self.shared.census.strangers.passes(self.now_ns()) {
                tracing::warn!(%peer, held_back, "not accepted: too many connections");
            }
            return;
        }
        // From here on the connection counts; a socket that is gone already gives it back.
        if let Err(error) = self.start::<S>(socket, peer) {
            tracing::debug!(%peer, %error, "gone as soon as it was accepted");
            self.shared.census.handshake_ended();
            self.shared.census.connection_ended();
        }
    }

    /// Strangers who only begin handshakes must not keep out those who finish theirs: the oldest makes room.
    fn close_oldest_handshake(&self) {
        let connections = self.connections.borrow();
        let shaking = connections.iter().filter(|(_, connection)| connection.phase() == Phase::Handshake);
        let oldest = shaking.min_by_key(|(_, connection)| connection.opened_ns).map(|(_, oldest)| oldest.clone());
        drop(connections);
        if let Some(oldest) = oldest {
            self.meters.closed("handshake-displaced");
            oldest.close(self.now_ns());
        }
    }

    fn start<S: FromSocket>(self: &Rc<Self>, socket: tokio::net::TcpStream, peer: Peer) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let stream = S::from_socket(socket.into_std()?)?;
        self.run(stream, peer)
    }

    /// Puts a connection's two tasks to work.
    pub(crate) fn run<S: Stream>(self: &Rc<Self>, stream: S, peer: Peer) -> io::Result<()> {
        let (reader, writer, closer) = stream.split();
        let connection = self.opened(peer, closer).map_err(io::Error::other)?;
        spawn_local(write_to(connection.clone(), self.clone(), writer));
        spawn_local(read_from(connection, self.clone(), reader));
        Ok(())
    }
}

/// Whether the system has run out of something, so that the next accept would fail at once.
fn exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhaustion = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| exhaustion.iter().any(|errno| errno.raw_os_error() == code))
}
