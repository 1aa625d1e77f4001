//! Accepting. Always by epoll, also where connections run on io_uring: an accept that is dropped there may swallow
//! a connection, and accepting is rare.

use std::{io, rc::Rc, time::Duration};

use tokio::{net::TcpListener, task::spawn_local};

use super::Reactor;
use crate::{
    connection::{read_from, write_to},
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
                accepted = listener.accept() => accepted,
                () = self.until_draining() => break,
            };
            match accepted.and_then(|(socket, _)| self.serve::<S>(socket)) {
                Ok(()) => failing = false,
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

    fn serve<S: FromSocket>(self: &Rc<Self>, socket: tokio::net::TcpStream) -> io::Result<()> {
        let peer = socket.peer_addr()?;
        if let Err(why) = self.shared.census.admits(self.limits()) {
            tracing::warn!(%peer, why, "not accepted");
            self.meters.closed("too-many");
            return Ok(());
        }
        // From here on the connection counts; every way out of this function gives it back.
        let started = self.start::<S>(socket, peer);
        if started.is_err() {
            self.shared.census.handshake_ended();
            self.shared.census.connection_ended();
        }
        started
    }

    fn start<S: FromSocket>(self: &Rc<Self>, socket: tokio::net::TcpStream, peer: super::Peer) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let stream = S::from_socket(socket.into_std()?)?;
        self.run(stream, peer)
    }

    /// Puts a connection's two tasks to work.
    pub(crate) fn run<S: Stream>(self: &Rc<Self>, stream: S, peer: super::Peer) -> io::Result<()> {
        let (reader, writer, closer) = stream.split();
        let connection = self.opened(peer, closer).map_err(io::Error::other)?;
        spawn_local(write_to(connection.clone(), self.clone(), writer));
        spawn_local(read_from(connection, self.clone(), reader));
        Ok(())
    }
}
