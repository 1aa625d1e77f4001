//! The client against a scripted server on an in-memory stream, in virtual time.

mod loss;
mod requests;
mod upkeep;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};

use super::{transport::Stream, *};
use crate::*;

/// What a test's server announces unless it says otherwise.
fn hello() -> Hello<'static> {
    Hello {
        server: "scripted".into(),
        frame_max: 4096,
        in_flight_max: 16,
        batch_max: 8,
        message_max: 1024,
        timeout_max_ms: 60_000,
        idle_ms: 600_000,
        document_max: 1 << 17,
    }
}

/// A request told apart by its key's name.
fn sign(key: &str) -> Sign<'_> {
    Sign {
        meta: Meta { timeout_ms: 5000, class: Class::Login, context: Context::default() },
        key: key.into(),
        algorithm: "ecdsa-p256-sha256".into(),
        payload: Payload::Digest([7; 32].as_slice().into()),
        encoding: EcdsaEncoding::Der,
        timings: false,
    }
}

fn batch(len: usize) -> SignBatch<'static> {
    let Sign { meta, algorithm, payload, encoding, timings, .. } = sign("key").into_owned();
    let items = vec![BatchItem { payload, reference: None }; len];
    SignBatch { meta, key: "batch".into(), algorithm, encoding, timings, items }
}

/// The server's side of one connection.
struct Server {
    stream: DuplexStream,
    received: FrameBuffer,
}

impl Server {
    async fn greet(stream: DuplexStream, hello: &Hello<'_>) -> Server {
        let mut server = Server { stream, received: FrameBuffer::new(1 << 20) };
        server.send(Kind::Hello, 0, hello).await;
        server
    }

    async fn send<'m>(&mut self, kind: Kind, id: u64, message: &impl Message<'m>) {
        let mut out = Vec::new();
        encode_frame(kind, id, message, &mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    async fn answer(&mut self, id: u64, signature: &str) {
        let signed = Signed { signature: signature.as_bytes().into(), timings: None, version: None };
        self.send(Kind::Signed, id, &signed).await;
    }

    /// The next frame; none at the end of the stream.
    async fn next(&mut self) -> Option<(Kind, u64, Vec<u8>)> {
        loop {
            if let Some((header, body)) = self.received.next_frame().unwrap() {
                return Some((header.known_kind().unwrap(), header.id, body.to_vec()));
            }
            match self.stream.read(self.received.room()).await.unwrap() {
                0 => return None,
                len => self.received.filled(len),
            }
        }
    }

    /// The next frame, which must be a Sign.
    async fn next_sign(&mut self) -> (u64, Sign<'static>) {
        let (kind, id, body) = self.next().await.unwrap();
        assert_eq!(kind, Kind::Sign);
        let limits = Limits { batch_max: 1024, message_max: 4096, document_max: 1 << 16 };
        (id, Sign::decode(&body, &limits).unwrap().into_owned())
    }

    /// What the client has sent up to now: everything before its answer to a Ping.
    async fn sent_so_far(&mut self) -> Vec<(Kind, u64)> {
        self.send(Kind::Ping, 0, &Ping { data: b"so far".as_slice().into() }).await;
        let mut frames = Vec::new();
        loop {
            match self.next().await.unwrap() {
                (Kind::Pong, 0, _) => return frames,
                (kind, id, _) => frames.push((kind, id)),
            }
        }
    }
}

/// The way from the client to the test: every connection that is made arrives here.
struct Network {
    arrivals: mpsc::UnboundedReceiver<DuplexStream>,
    refusing: Arc<AtomicBool>,
    attempts: Arc<Mutex<Vec<tokio::time::Instant>>>,
    events: Arc<Mutex<Vec<TraceEvent>>>,
}

impl Network {
    async fn accept(&mut self, hello: &Hello<'_>) -> Server {
        Server::greet(self.arrivals.recv().await.unwrap(), hello).await
    }

    fn events(&self) -> Vec<TraceEvent> {
        self.events.lock().unwrap().clone()
    }
}

/// A client whose connections hold so many bytes in each direction.
fn client_over(buffer_len: usize) -> (Client, Network) {
    let (arrive, arrivals) = mpsc::unbounded_channel();
    let refusing = Arc::new(AtomicBool::new(false));
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::new(Mutex::new(Vec::new()));
    let network = Network { arrivals, refusing: refusing.clone(), attempts: attempts.clone(), events: events.clone() };
    let connect: Connect = Box::new(move || {
        attempts.lock().unwrap().push(tokio::time::Instant::now());
        let (ours, theirs) = tokio::io::duplex(buffer_len);
        let result = if refusing.load(Ordering::Relaxed) {
            Err(io::ErrorKind::ConnectionRefused.into())
        } else {
            arrive.send(theirs).map(|()| Box::new(ours) as Box<dyn Stream>).map_err(io::Error::other)
        };
        Box::pin(async { result })
    });
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unused = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut config = ClientConfig::new("in memory", "scripted", Arc::new(unused));
    config.keep_alive = Duration::from_secs(600); // no Pings between a script's frames but where it asks for them
    config.trace = Some(Arc::new(move |event| events.lock().unwrap().push(event)));
    (Client::start_over(connect, config), network)
}

fn client() -> (Client, Network) {
    client_over(64 * 1024)
}

/// Starts a signature in a task of its own.
fn spawn_sign(client: &Client, key: &'static str) -> tokio::task::JoinHandle<Result<Signature, ClientError>> {
    let client = client.clone();
    tokio::spawn(async move { client.sign(&sign(key)).await })
}

fn assert_not_sent(result: Result<Signature, ClientError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, ClientError::NotSent { .. }), "{error:?}");
    assert_eq!((error.signed(), error.retry(), error.code()), (SignedState::No, Retry::Elsewhere, None));
}

fn assert_lost(result: Result<Signature, ClientError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
    assert_eq!((error.signed(), error.retry(), error.code()), (SignedState::Unknown, Retry::Elsewhere, None));
}
