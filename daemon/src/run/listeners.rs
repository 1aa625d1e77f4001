//! Listening sockets: systemd's where it passes some, else our own, one a reactor and address by SO_REUSEPORT.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};

use super::{RunError, system};
use crate::config::Listen;

/// Where connections come from.
pub(super) enum Listeners {
    /// Sockets that systemd holds open over a restart; all reactors accept from each
    Systemd(Vec<TcpListener>),
    /// Addresses to bind, once a reactor
    Own { addresses: Vec<SocketAddr>, backlog: i32 },
}

/// Takes systemd's sockets or makes sure that ours can be had. Never both: an operator who moved to socket activation
/// would not expect a second door.
pub(super) fn open(settings: &Listen) -> Result<Listeners, RunError> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let socket = passed.take_tcp_listener(index).map_err(system("a socket passed by systemd"))?;
        sockets.extend(socket);
    }
    if !sockets.is_empty() {
        if !settings.addresses.is_empty() {
            tracing::warn!("listen.addresses is not used: systemd passes the sockets");
        }
        return Ok(Listeners::Systemd(sockets));
    }
    if settings.addresses.is_empty() {
        let error = std::io::Error::other("listen.addresses is empty and systemd passed no socket");
        return Err(system("nowhere to listen")(error));
    }
    Ok(Listeners::Own {
        addresses: settings.addresses.clone(),
        backlog: i32::try_from(settings.backlog).unwrap_or(i32::MAX),
    })
}

impl Listeners {
    /// Where clients connect.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Listeners::Systemd(sockets) => sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect(),
            Listeners::Own { addresses, .. } => addresses.clone(),
        }
    }

    /// Each reactor's sockets.
    pub(super) fn share_out(self, reactors: usize) -> Result<Vec<Vec<TcpListener>>, RunError> {
        match self {
            Listeners::Systemd(sockets) => (0..reactors)
                .map(|_| sockets.iter().map(TcpListener::try_clone).collect::<Result<_, _>>())
                .collect::<Result<_, _>>()
                .map_err(system("a socket passed by systemd")),
            Listeners::Own { addresses, backlog } => {
                let reactors = (0..reactors).map(|_| addresses.iter().map(|address| bind(*address, backlog)).collect());
                reactors.collect()
            }
        }
    }
}

fn bind(address: SocketAddr, backlog: i32) -> Result<TcpListener, RunError> {
    let bound = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(TcpListener::from(socket))
    };
    let listener = bound().map_err(system(format!("listening on {address}")))?;
    tracing::info!(%address, "listening");
    Ok(listener)
}
