//! Connections over loopback: who is let in, what closes them.

use axum::{extract::Request, routing::get};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _, SanType};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::callers::TokenHash;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for a DNS name and a URI, and its key.
    fn issue(&self, name: &str) -> (String, KeyPair) {
        let mut params = CertificateParams::new(vec![name.into()]).unwrap();
        params.subject_alt_names.push(SanType::URI(format!("urn:{name}").try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key)
    }
}

/// A server that says who asks, and at `/slow` waits for `go`.
struct Setup {
    authority: Authority,
    address: SocketAddr,
    epoch: watch::Sender<u64>,
    reached: Arc<Notify>,
    go: Arc<Notify>,
}

impl Setup {
    async fn new(tls: bool, change: impl FnOnce(&mut Server)) -> Self {
        let authority = Authority::new();
        let (chain, key) = authority.issue("localhost");
        let roots = tls::roots(authority.0.pem().as_bytes()).unwrap();
        let config = tls::server_config(chain.as_bytes(), key.serialize_pem().as_bytes(), Some(roots)).unwrap();
        let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (reached, go) = (reached.clone(), go.clone());
            async move || {
                reached.notify_one();
                go.notified().await;
                "slow"
            }
        };
        let who = async |request: Request| match request.extensions().get::<Arc<PeerCertificate>>() {
            Some(peer) => format!("{} {}", peer.sans.join(" "), peer.spki_sha256),
            None => "nobody".into(),
        };
        let (epoch, seen) = watch::channel(0);
        let mut server = Server {
            router: Router::new().route("/", get(who)).route("/slow", get(slow)),
            tls: Arc::new(ArcSwapOption::new(tls.then_some(config))),
            handshake_timeout: Duration::from_secs(60),
            header_timeout: Duration::from_secs(60),
            connections: Arc::new(Semaphore::new(10)),
            epoch: seen,
        };
        change(&mut server);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server.accept(listener));
        Self { authority, address, epoch, reached, go }
    }

    async fn plain(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn tls(
        &self,
        identity: Option<(String, KeyPair)>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.plain().await).await
    }
}

/// Sends a request on a connection that is then closed, and gives the body.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    rest(&mut stream).await
}

async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").map_or(answer.clone(), |(_, body)| body.to_owned()))
}

#[tokio::test]
async fn a_callers_certificate_is_told_by_names_and_key_in_both_versions_of_tls() {
    let setup = Setup::new(true, |_| {}).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (chain, key) = setup.authority.issue("portal");
        let hash = TokenHash::of(&key.subject_public_key_info());
        let stream = setup.tls(Some((chain, key)), version).await.unwrap();
        assert_eq!(ask(stream).await.unwrap(), format!("DNS:portal URI:urn:portal {hash}"));
        let stream = setup.tls(None, version).await.unwrap();
        assert_eq!(ask(stream).await.unwrap(), "nobody");
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let setup = Setup::new(true, |_| {}).await;
    let identity = Authority::new().issue("portal");
    // In TLS 1.3 the client may be done before the server has looked.
    let refused = match setup.tls(Some(identity), &rustls::version::TLS13).await {
        Ok(stream) => ask(stream).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
}

#[tokio::test]
async fn a_silent_handshake_and_a_silent_request_are_closed() {
    let setup = Setup::new(true, |server| server.handshake_timeout = Duration::from_millis(20)).await;
    assert_eq!(setup.plain().await.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let setup = Setup::new(false, |server| server.header_timeout = Duration::from_millis(20)).await;
    let mut stream = setup.plain().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
    assert!(rest(&mut stream).await.is_ok_and(|body| !body.contains("nobody")));
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_and_the_others_served() {
    let setup = Setup::new(false, |server| server.connections = Arc::new(Semaphore::new(1))).await;
    let mut first = setup.plain().await;
    first.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    setup.reached.notified().await;
    assert_eq!(setup.plain().await.read(&mut [0; 1]).await.unwrap_or(0), 0);
    setup.go.notify_one();
    assert_eq!(rest(&mut first).await.unwrap(), "slow");
}

#[tokio::test]
async fn a_new_configuration_closes_idle_connections_and_lets_the_others_finish() {
    let setup = Setup::new(false, |_| {}).await;
    let (mut idle, mut busy) = (setup.plain().await, setup.plain().await);
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 512];
    assert!(idle.read(&mut answer).await.unwrap() > 0);
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    setup.reached.notified().await;
    setup.epoch.send_modify(|epoch| *epoch += 1);
    assert_eq!(idle.read(&mut answer).await.unwrap(), 0);
    setup.go.notify_one();
    assert_eq!(rest(&mut busy).await.unwrap(), "slow", "and then it closes too");
    assert_eq!(ask(setup.plain().await).await.unwrap(), "nobody", "a new one is served");
}
