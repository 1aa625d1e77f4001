//! A connection to segld, frame by frame, by somebody who may say anything: for what a well-behaved client never sends.

use std::{
    fmt, io,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use segl_wire::{
    ALPN, Class, Context, Error, FrameBuffer, HELLO_MAX, Header, Hello, Kind, Limits, Message, Meta, Payload, Sign,
    Signed, encode_frame,
};

use crate::{Result, pki::Identity};

/// Longest wait for a frame: far above the time-outs that the tests give their requests.
const LIMIT: Duration = Duration::from_secs(20);
/// Longest answer that is read.
const ANSWER_MAX: u32 = 1 << 20;

/// A connection after the server's Hello.
pub struct Conversation {
    stream: StreamOwned<ClientConnection, TcpStream>,
    frames: FrameBuffer,
    hello: Hello<'static>,
    last_id: u64,
}

/// A frame as it came.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Type and request
    pub header: Header,
    /// CBOR
    pub body: Vec<u8>,
}

impl Conversation {
    /// Connects, shakes hands and reads the Hello. A TLS alert from the server is an [`io::Error`] that wraps
    /// [`rustls::Error::AlertReceived`]; with TLS 1.3 a client learns of its refusal only here.
    pub fn open(address: SocketAddr, authority_pem: &str, identity: Option<&Identity>) -> Result<Self> {
        Conversation::open_with(address, authority_pem, identity, ALPN)
    }

    /// As [`open`](Self::open), with another protocol's name.
    pub fn open_with(
        address: SocketAddr,
        authority_pem: &str,
        identity: Option<&Identity>,
        alpn: &[u8],
    ) -> Result<Self> {
        Conversation::over(TcpStream::connect_timeout(&address, LIMIT)?, authority_pem, identity, alpn)
    }

    /// As [`open_with`](Self::open_with), over a connection that was made before.
    pub fn over(tcp: TcpStream, authority_pem: &str, identity: Option<&Identity>, alpn: &[u8]) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let certificate = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes())?;
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
                builder.with_client_auth_cert(vec![certificate], key)?
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(LIMIT))?;
        tcp.set_write_timeout(Some(LIMIT))?;
        let tls = ClientConnection::new(Arc::new(config), "localhost".try_into()?)?;
        let mut stream = StreamOwned::new(tls, tcp);
        let mut frames = FrameBuffer::new(HELLO_MAX);
        let frame = read_frame(&mut stream, &mut frames)?.ok_or("the server closed before its Hello")?;
        if frame.header.known_kind() != Some(Kind::Hello) {
            return Err(format!("{} in place of Hello", describe(&frame)).into());
        }
        let no_limits = Limits { batch_max: u32::MAX, message_max: u32::MAX, document_max: u32::MAX };
        let hello = Hello::decode(&frame.body, &no_limits)?.into_owned();
        frames.set_frame_max(ANSWER_MAX);
        Ok(Conversation { stream, frames, hello, last_id: 0 })
    }

    /// What the server announced.
    pub fn hello(&self) -> &Hello<'static> {
        &self.hello
    }

    /// The server's certificate, DER.
    pub fn server_certificate(&self) -> CertificateDer<'static> {
        let chain = self.stream.conn.peer_certificates().unwrap_or_default();
        chain.first().expect("a server shows its certificate in the handshake").clone().into_owned()
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends a frame with this body under a new id, which it returns.
    pub fn send_body(&mut self, kind: u8, body: &[u8]) -> io::Result<u64> {
        self.last_id += 1;
        let len = u32::try_from(body.len()).expect("tests send less than 4 GiB");
        let header = Header { len, kind, id: self.last_id };
        self.send_bytes(&[&header.encode(), body].concat())?;
        Ok(self.last_id)
    }

    /// Sends a message under a new id, which it returns.
    pub fn send<'m>(&mut self, kind: Kind, message: &impl Message<'m>) -> io::Result<u64> {
        self.last_id += 1;
        let mut frame = Vec::new();
        encode_frame(kind, self.last_id, message, &mut frame);
        self.send_bytes(&frame)?;
        Ok(self.last_id)
    }

    /// The next frame; none at the end of the stream.
    pub fn receive(&mut self) -> Result<Option<Frame>> {
        read_frame(&mut self.stream, &mut self.frames)
    }

    /// The answer to the request just sent, when nothing else is in flight.
    pub fn answer(&mut self) -> Result<Frame> {
        let frame = self.receive()?.ok_or("the server closed in place of an answer")?;
        if frame.header.id == self.last_id { Ok(frame) } else { Err(describe(&frame).into()) }
    }

    /// Sends one request and waits for its signature or error.
    pub fn sign(&mut self, request: &Sign<'_>) -> Result<Result<Vec<u8>, Error<'static>>> {
        self.send(Kind::Sign, request)?;
        let frame = self.answer()?;
        match frame.header.known_kind() {
            Some(Kind::Signed) => Ok(Ok(Signed::decode(&frame.body, &self.limits())?.signature.into_owned())),
            _ => Ok(Err(self.error(&frame)?)),
        }
    }

    /// Reads an Error frame.
    pub fn error(&self, frame: &Frame) -> Result<Error<'static>> {
        if frame.header.known_kind() != Some(Kind::Error) {
            return Err(format!("{} in place of an error", describe(frame)).into());
        }
        Ok(Error::decode(&frame.body, &self.limits())?.into_owned())
    }

    /// The error that ends the connection: with id 0, and nothing after it but a GoAway and the end of the stream.
    pub fn last_words(&mut self) -> Result<Error<'static>> {
        let mut error = None;
        while let Some(frame) = self.receive()? {
            match frame.header.known_kind() {
                Some(Kind::Error) if frame.header.id == 0 && error.is_none() => error = Some(self.error(&frame)?),
                Some(Kind::GoAway) => {}
                _ if error.is_some() => return Err(format!("{} after the error", describe(&frame)).into()),
                _ => {}
            }
        }
        error.ok_or_else(|| "the connection ended without an error".into())
    }

    fn limits(&self) -> Limits {
        Limits::from(&self.hello)
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation").field("last_id", &self.last_id).finish_non_exhaustive()
    }
}

/// A request for a signature over a digest, as a well-behaved client makes it.
pub fn sign_request<'a>(key: &'a str, algorithm: &'a str, digest: &'a [u8]) -> Sign<'a> {
    Sign {
        meta: Meta { timeout_ms: 10_000, class: Class::Signature, context: Context::default() },
        key: key.into(),
        algorithm: algorithm.into(),
        payload: Payload::Digest(digest.into()),
        encoding: segl_wire::EcdsaEncoding::Der,
        timings: false,
    }
}

fn read_frame(
    stream: &mut StreamOwned<ClientConnection, TcpStream>,
    frames: &mut FrameBuffer,
) -> Result<Option<Frame>> {
    loop {
        if let Some((header, body)) = frames.next_frame()? {
            return Ok(Some(Frame { header, body: body.to_vec() }));
        }
        let read = stream.read(frames.room())?;
        if read == 0 {
            return if frames.pending() == 0 { Ok(None) } else { Err("the stream ended inside a frame".into()) };
        }
        frames.filled(read);
    }
}

fn describe(frame: &Frame) -> String {
    format!("a frame of type {:?} with id {}", frame.header.known_kind(), frame.header.id)
}
