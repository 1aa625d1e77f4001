//! How a connection is made. Everything above sees a stream of plaintext, so tests can put another one under it.

use std::{future::Future, io, pin::Pin, sync::Arc};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::ALPN;

/// Plaintext in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Makes one connection each time it is called.
pub(super) type Connect = Box<dyn Fn() -> Connecting + Send + Sync>;

/// A connection being made; the caller bounds the time.
pub(super) type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// TLS over TCP.
pub(super) fn tls(address: String, server_name: String, config: Arc<rustls::ClientConfig>) -> Connect {
    Box::new(move || {
        let (address, server_name, config) = (address.clone(), server_name.clone(), config.clone());
        Box::pin(async move {
            let server_name = ServerName::try_from(server_name)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            let stream = TlsConnector::from(config).connect(server_name, tcp).await?;
            if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
                return Err(io::Error::other("the server does not speak segl/1"));
            }
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    })
}
