//! Accepts connections and serves HTTP/1.1 on them, with a limit on everything that a peer could make last.
//!
//! A reload closes connections of the earlier configuration after the request they are at; so does the way out.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::Service as _;

use crate::{callers::PeerCertificate, metrics, tls};

/// Longest header of a request, in bytes: tokens and a few names are far shorter.
const HEADER_MAX: usize = 32 << 10;

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// Bytes that a peer does not acknowledge, or does not read, for so long end the connection: an answer is never
/// written for ever.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// A silent connection is probed after this, so that peers that vanished are noticed.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// After an accept that failed for want of descriptors or memory: it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener serves.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) router: Router,
    /// `None` inside while plain HTTP is served
    pub(crate) tls: Arc<ArcSwapOption<rustls::ServerConfig>>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) header_timeout: Duration,
    /// A permit for each connection
    pub(crate) connections: Arc<Semaphore>,
    /// Which configuration is at work; connections begun under another close
    pub(crate) epoch: watch::Receiver<u64>,
}

impl Server {
    /// Accepts until dropped.
    pub(crate) async fn accept(self, listener: TcpListener) -> Infallible {
        loop {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // A peer that left before it was accepted is its own affair; anything else would come back at once.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        tracing::warn!(%error, "accept failed");
                        metrics::connection_refused("accept-error");
                        sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            };
            let Ok(permit) = self.connections.clone().try_acquire_owned() else {
                metrics::connection_refused("too-many");
                continue;
            };
            if let Err(error) = prepare(&stream) {
                tracing::debug!(%error, %address, "a connection could not be prepared");
                continue;
            }
            let mut server = self.clone();
            // Before its TLS configuration is looked up: what changes from here on closes it.
            server.epoch.mark_unchanged();
            tokio::spawn(server.connection(stream, address, permit));
        }
    }

    async fn connection(self, stream: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        let _counted = Counted::new(permit);
        let Some(config) = self.tls.load_full() else {
            return self.serve(stream, None, address).await;
        };
        let handshake = TlsAcceptor::from(config).accept(stream);
        match timeout(self.handshake_timeout, handshake).await {
            Ok(Ok(stream)) => {
                let peer = peer(&stream);
                self.serve(stream, peer, address).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, %address, "a TLS handshake failed");
                metrics::connection_refused("handshake");
            }
            Err(_) => metrics::connection_refused("handshake-timeout"),
        }
    }

    async fn serve<S>(mut self, stream: S, peer: Option<Arc<PeerCertificate>>, address: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let router = self.router;
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            router.clone().call(request.map(Body::new))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_buf_size(HEADER_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            Ok(()) = self.epoch.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, %address, "a connection ended");
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MAX.as_millis() as u32)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_socket_keepalive(stream, true)?;
    Ok(())
}

fn peer(stream: &TlsStream<TcpStream>) -> Option<Arc<PeerCertificate>> {
    let leaf = stream.get_ref().1.peer_certificates()?.first()?;
    tls::peer(leaf).map(Arc::new)
}

/// A connection in the gauge, for as long as it holds its permit.
struct Counted(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Counted {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::connections(1.0);
        Self(permit)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::connections(-1.0);
    }
}

#[cfg(test)]
mod tests;
