//! What the suite plays on: a daemon without sockets, in a directory of its own, short of patience.

use std::{cell::Cell, fs, future::Future, net, rc::Rc, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use segl_hsm::{Algorithm, verify::verify};
use segl_wire::{Meta, Payload, Sign};
use tokio::task::{LocalSet, spawn_local};

use super::client::Client;
use crate::{
    config,
    keybook::KeyCard,
    reactor::Reactor,
    run::{Assembly, assemble},
    transport::{FromSocket, Stream},
};

/// What is signed, again and again.
const MESSAGE: &[u8] = b"the suite's message";

/// How long the last traces of a connection may take to vanish.
const CLEAN: Duration = Duration::from_secs(10);

/// A daemon on a stage.
pub(super) struct Stage {
    reactor: Rc<Reactor>,
    client_config: Arc<ClientConfig>,
    most_pending: Cell<usize>,
    _directory: tempfile::TempDir,
}

pub(super) fn on_epoll<F: Future<Output = ()>>(play: impl FnOnce(Rc<Stage>) -> F) {
    on_epoll_with("", play);
}

/// As [`on_epoll`], with this at the end of the configuration, where the tenant's grants stand.
pub(super) fn on_epoll_with<F: Future<Output = ()>>(more: &str, play: impl FnOnce(Rc<Stage>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { play(Stage::set(more)).await });
}

pub(super) fn on_uring<F: Future<Output = ()>>(play: impl FnOnce(Rc<Stage>) -> F) {
    let runtime = tokio_uring::Runtime::new(tokio_uring::builder().entries(64)).unwrap();
    runtime.block_on(async { play(Stage::set("")).await });
}

/// Two ends of a connection over the loopback.
pub(super) fn sockets<S: FromSocket>() -> (S, S) {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    (S::from_socket(near).unwrap(), S::from_socket(far).unwrap())
}

impl Stage {
    fn set(more: &str) -> Rc<Stage> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let client_config = write_pki(path);
        fs::write(path.join("segld.toml"), format!("{CONFIGURATION}{more}")).unwrap();
        let (config, _) = config::load(&path.join("segld.toml")).unwrap_or_else(|findings| panic!("{findings}"));
        let Assembly { shared, inboxes, .. } = assemble(&config).unwrap();
        let reactor = Reactor::new(shared, 0, inboxes[0].clone());
        spawn_local(reactor.clone().take_completions());
        spawn_local(reactor.clone().sweep());
        let stage = Rc::new(Stage { reactor, client_config, most_pending: Cell::new(0), _directory: directory });
        spawn_local(watch_pending(Rc::downgrade(&stage)));
        stage
    }

    /// Gives the daemon its end of a connection.
    pub(super) fn serve<S: Stream>(&self, far: S) {
        assert!(self.reactor.shared.census.admits(self.reactor.limits()));
        self.reactor.run(far, "127.0.0.1:1".parse().unwrap()).unwrap();
    }

    /// Connects, up to the Hello.
    pub(super) async fn connect<A: Stream, B: Stream>(&self, near: A, far: B) -> Result<Client<A>, String> {
        self.serve(far);
        let mut client = Client::shake_hands(near, self.client_config.clone()).await?;
        let hello = client.hear().await.ok_or("no Hello")?;
        assert_eq!(hello.kind, segl_wire::Kind::Hello);
        Ok(client)
    }

    pub(super) fn sign(&self, key: &'static str) -> Sign<'static> {
        Sign {
            meta: Meta { timeout_ms: 10_000, class: Default::default(), context: Default::default() },
            key: key.into(),
            algorithm: "ecdsa-p256-sha256".into(),
            payload: Payload::Message(MESSAGE.into()),
            encoding: segl_wire::EcdsaEncoding::Raw,
            timings: true,
        }
    }

    /// By the public key of a key, or of a version: `name/version`.
    pub(super) fn verify(&self, label: &str, signature: &[u8]) {
        let card = self.card(label);
        let shown = card.shown().unwrap();
        verify(&shown.info.spki_der, Algorithm::EcdsaP256Sha256, MESSAGE, signature).unwrap();
    }

    fn card(&self, label: &str) -> Arc<KeyCard> {
        self.reactor.shared.keys.cards().into_iter().find(|card| *card.entry.label == *label).unwrap()
    }

    /// How a key or a version stands, and how often the journal says that it was to be used.
    pub(super) fn state_and_uses(&self, label: &str) -> (segl_wire::KeyState, usize) {
        let card = self.card(label);
        let (key, version) = (&*card.entry.name, card.entry.version().map(|version| &**version));
        let journal = self.reactor.desk().journal();
        journal.wait(journal.stats().appended_seq, CLEAN);
        let uses = segl_audit::Reader::open(journal.directory()).unwrap().filter(
            |entry| matches!(&entry.as_ref().unwrap().record, segl_audit::Record::Intent(intent) if intent.key == key && intent.key_version.as_deref() == version),
        );
        (card.state(|_| true), uses.count())
    }

    /// Waits until no connection, no request, no held answer and no taken budget is left.
    pub(super) async fn reactor_is_clean(&self) {
        let clean = async {
            while !self.is_clean() {
                let changed = self.reactor.changed.notified();
                // A request's end rings nothing; it comes at most a sweep later.
                let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
            }
        };
        if tokio::time::timeout(CLEAN, clean).await.is_err() {
            panic!(
                "left behind: {} connections, {} requests, intents {:?} held, {:?}",
                self.reactor.connections.borrow().len(),
                self.reactor.requests.borrow().len(),
                self.reactor.held.borrow().span(),
                self.reactor.shared.census
            );
        }
    }

    fn is_clean(&self) -> bool {
        let census = &self.reactor.shared.census;
        let tenants = self.reactor.snapshot().policy.tenants().to_vec();
        self.reactor.connections.borrow().is_empty()
            && self.reactor.requests.borrow().is_empty()
            && self.reactor.held.borrow().is_empty()
            && census.connections() == 0
            && census.handshakes() == 0
            && tenants.iter().all(|tenant| census.load(tenant.id()).taken() == 0)
    }

    fn look_at_pending(&self) {
        let connections = self.reactor.connections.borrow();
        let most = connections.iter().map(|(_, connection)| connection.pending_bytes()).max().unwrap_or(0);
        self.most_pending.set(self.most_pending.get().max(most));
    }

    /// The most that any connection was seen to have waiting to be written, in bytes.
    pub(super) fn most_pending_bytes(&self) -> usize {
        self.most_pending.get()
    }

    pub(super) fn pending_output_max(&self) -> usize {
        self.reactor.limits().pending_output_max
    }

    /// A read of 17 KiB holds at most so many ListKeys of 25 bytes, each answered by less than 512 bytes.
    pub(super) fn longest_answers_to_one_read(&self) -> usize {
        (17 << 10) / 25 * 512
    }
}

async fn watch_pending(stage: std::rc::Weak<Stage>) {
    while let Some(stage) = stage.upgrade() {
        stage.look_at_pending();
        drop(stage);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

const CONFIGURATION: &str = r#"
[listen]
addresses = ["127.0.0.1:0"]

[tls]
certificate = "server.pem"
private_key = "server.key"
client_ca = "ca.pem"

[limits]
handshake_timeout = "500ms"
idle_timeout = "1s"
write_timeout = "500ms"
pending_output_max = "64KiB"

[audit]
directory = "journal"
segment_size = "1MiB"

[[token]]
name = "embedded"
kind = "embedded"
directory = "keys"
sessions = 2
generate = [{ file = "documents.pem", type = "ec-p256" }, { file = "ca.pem", type = "ec-p256" }, { file = "seal-1.pem", type = "ec-p256" }, { file = "seal-2.pem", type = "ec-p256" }]

[[key]]
name = "documents"
purpose = "digest"
tokens = ["embedded"]
file = "documents.pem"
algorithms = ["ecdsa-p256-sha256"]

[[key]]
name = "ca"
purpose = "certificate"
tokens = ["embedded"]
file = "ca.pem"
algorithms = ["ecdsa-p256-sha256"]
self_test = "presence"

[[tenant]]
name = "suite"
clients = [{ san = "URI:spiffe://segl.example/suite" }]
[[tenant.grant]]
key = "documents"
"#;

fn write_pki(path: &std::path::Path) -> Arc<ClientConfig> {
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let (server_key, client_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let server = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&server_key, &ca).unwrap();
    let mut client = CertificateParams::new(vec![]).unwrap();
    client.subject_alt_names = vec![SanType::URI("spiffe://segl.example/suite".try_into().unwrap())];
    let client = client.signed_by(&client_key, &ca).unwrap();
    fs::write(path.join("ca.pem"), ca.pem()).unwrap();
    fs::write(path.join("server.pem"), server.pem()).unwrap();
    write_secret(&path.join("server.key"), &server_key.serialize_pem());

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![client.der().clone()], PrivatePkcs8KeyDer::from(client_key.serialize_der()).into())
        .unwrap();
    config.alpn_protocols = vec![segl_wire::ALPN.to_vec()];
    Arc::new(config)
}

fn write_secret(path: &std::path::Path, secret: &str) {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(secret.as_bytes()).unwrap();
}
