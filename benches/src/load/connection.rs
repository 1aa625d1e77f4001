//! One connection: rustls over a socket that does not block, frames in and frames out.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};
use segl_tests::Result;
use segl_wire::{
    FrameBuffer, HELLO_MAX, Header, Hello, Keys, Kind, Limits, ListKeys, Message, Meta, client::tls_config,
    encode_frame,
};

/// How long the handshake, the Hello and the list of keys may take.
const GREETING_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest body taken from a segld that is trusted to be one.
const ANSWER_MAX: u32 = 4 << 20;

/// A segld, and who comes to it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    server_name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl Target {
    /// From PEM files.
    pub(crate) fn new(address: &str, server_name: &str, ca: &Path, certificate: &Path, key: &Path) -> Result<Target> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let tls = tls_config(&read(ca)?, &read(certificate)?, &read(key)?)?;
        let address = address.to_socket_addrs()?.next().ok_or_else(|| format!("{address}: no such address"))?;
        Ok(Target { address, server_name: ServerName::try_from(server_name.to_owned())?, tls })
    }
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    /// When it was meant to be sent (open loop) or was (closed), in nanoseconds
    pub(super) since_ns: u64,
    /// Of its first payload
    pub(super) number: u64,
    pub(super) task: usize,
}

pub(super) struct Connection {
    socket: TcpStream,
    tls: ClientConnection,
    received: FrameBuffer,
    /// Frames that were not given to TLS yet
    pub(super) out: Vec<u8>,
    /// The id of the first in `flying`
    first_id: u64,
    /// By id; none: answered already
    flying: VecDeque<Option<Flight>>,
    pub(super) in_flight: usize,
    pub(super) limits: Limits,
    /// Requests in flight that segld takes
    pub(super) in_flight_max: usize,
    /// Whether the socket takes no more for now
    pub(super) blocked: bool,
}

impl Connection {
    /// Connects, and waits for the Hello.
    pub(super) fn open(target: &Target) -> Result<Connection> {
        let mut socket = TcpStream::connect_timeout(&target.address, GREETING_TIMEOUT)
            .map_err(|error| format!("{}: {error}", target.address))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(GREETING_TIMEOUT))?;
        let mut tls = ClientConnection::new(target.tls.clone(), target.server_name.clone())?;
        tls.set_buffer_limit(None);
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        let limits = Limits { batch_max: 1, message_max: 1, document_max: 1 };
        let mut connection = Connection {
            socket,
            tls,
            received: FrameBuffer::new(HELLO_MAX),
            out: Vec::new(),
            first_id: 1,
            flying: VecDeque::new(),
            in_flight: 0,
            limits,
            in_flight_max: 0,
            blocked: false,
        };
        let (header, body) = connection.await_frame()?;
        if header.known_kind() != Some(Kind::Hello) {
            return Err(format!("segld greets with a frame of type {:#x}", header.kind).into());
        }
        let hello = Hello::decode(&body, &limits)?;
        connection.limits = Limits::from(&hello);
        connection.in_flight_max = hello.in_flight_max as usize;
        connection.received.set_frame_max(ANSWER_MAX);
        Ok(connection)
    }

    /// Asks which keys there are; before any other request.
    pub(super) fn keys(&mut self) -> Result<Keys<'static>> {
        let meta = Meta { timeout_ms: 10_000, class: Default::default(), context: Default::default() };
        encode_frame(Kind::ListKeys, self.first_id, &ListKeys { meta }, &mut self.out);
        self.first_id += 1;
        self.flush()?;
        let (header, body) = self.await_frame()?;
        match header.known_kind() {
            Some(Kind::Keys) => Ok(Keys::decode(&body, &self.limits)?.into_owned()),
            Some(Kind::Error) => Err(segl_wire::Error::decode(&body, &self.limits)?.message.into_owned().into()),
            _ => Err("segld does not list its keys".into()),
        }
    }

    /// From here on nothing blocks.
    pub(super) fn go(&mut self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// Numbers a request and makes room for its answer; its frame goes to `out`.
    pub(super) fn begin(&mut self, flight: Flight) -> u64 {
        self.flying.push_back(Some(flight));
        self.in_flight += 1;
        self.first_id + self.flying.len() as u64 - 1
    }

    /// The request that an answer belongs to.
    pub(super) fn finish(&mut self, id: u64) -> Option<Flight> {
        let at = usize::try_from(id.checked_sub(self.first_id)?).ok()?;
        let flight = self.flying.get_mut(at)?.take()?;
        self.in_flight -= 1;
        while let Some(None) = self.flying.front() {
            self.flying.pop_front();
            self.first_id += 1;
        }
        Some(flight)
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.tls.writer().write_all(&self.out)?;
            self.out.clear();
        }
        self.blocked = false;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once from the socket and hands on what frames came; false when there was nothing to read. `raw` is for what
    /// is still encrypted.
    pub(super) fn receive(&mut self, raw: &mut [u8]) -> Result<bool> {
        let len = match self.socket.read(raw) {
            Ok(0) => return Err("segld has closed the connection".into()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut rest = &raw[..len];
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest)?;
            let state = self.tls.process_new_packets()?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let read = self.tls.reader().read(self.received.room())?;
                self.received.filled(read);
                left -= read;
            }
        }
        Ok(true)
    }

    /// The next frame that came.
    pub(super) fn next_frame(&mut self) -> Result<Option<(Header, &[u8])>> {
        Ok(self.received.next_frame()?)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// While the socket still blocks.
    fn await_frame(&mut self) -> Result<(Header, Vec<u8>)> {
        loop {
            if let Some((header, body)) = self.received.next_frame()? {
                return Ok((header, body.to_vec()));
            }
            // The handshake may have left something in TLS's own buffer.
            let mut early = [0; 4096];
            match self.tls.reader().read(&mut early) {
                Ok(0) => return Err("segld has closed the connection".into()),
                Ok(len) => {
                    if self.received.push(&early[..len]) < len {
                        return Err("segld's greeting is too long".into());
                    }
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if !self.receive(&mut early)? {
                return Err("segld did not answer in time".into());
            }
        }
    }
}
