//! The client over real TLS on loopback: certificates on both sides, 1.3, ALPN.

use std::{sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use segl_wire::{
    client::{Client, ClientConfig, Status, TlsError, tls_config},
    *,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate and its key, as PEM.
    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn client(&self) -> Arc<rustls::ClientConfig> {
        let (chain, key) = self.issue("client.test", ExtendedKeyUsagePurpose::ClientAuth);
        tls_config(self.pem.as_bytes(), chain.as_bytes(), key.as_bytes()).unwrap()
    }

    fn acceptor(&self, alpn: &[u8]) -> TlsAcceptor {
        let (chain, key) = self.issue("segld.test", ExtendedKeyUsagePurpose::ServerAuth);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

fn request() -> Sign<'static> {
    Sign {
        meta: Meta { timeout_ms: 10_000, class: Class::Login, context: Context::default() },
        key: "key".into(),
        algorithm: "ed25519".into(),
        payload: Payload::Message(b"message".as_slice().into()),
        encoding: EcdsaEncoding::Der,
        timings: false,
    }
}

/// Answers every Sign of a connection with its own message, until the client goes.
async fn echo(mut stream: TlsStream<TcpStream>) {
    let hello = Hello {
        server: "echo".into(),
        frame_max: 4096,
        in_flight_max: 64,
        batch_max: 8,
        message_max: 1024,
        timeout_max_ms: 60_000,
        idle_ms: 60_000,
        document_max: 1 << 17,
    };
    let limits = Limits::from(&hello);
    let mut out = Vec::new();
    encode_frame(Kind::Hello, 0, &hello, &mut out);
    let mut frames = FrameBuffer::new(hello.frame_max);
    loop {
        stream.write_all(&out).await.unwrap();
        stream.flush().await.unwrap();
        out.clear();
        match stream.read(frames.room()).await {
            Ok(0) | Err(_) => return,
            Ok(len) => frames.filled(len),
        }
        while let Some((header, body)) = frames.next_frame().unwrap() {
            let Payload::Message(message) = Sign::decode(body, &limits).unwrap().payload else { panic!("a digest") };
            let signed = Signed { signature: message, timings: None, version: None };
            encode_frame(Kind::Signed, header.id, &signed, &mut out);
        }
    }
}

#[tokio::test]
async fn many_requests_go_over_one_mutually_authenticated_connection() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = authority.acceptor(ALPN);
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(tcp).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(ALPN));
        assert!(stream.get_ref().1.peer_certificates().is_some());
        echo(stream).await;
    });
    let client = Client::start(ClientConfig::new(address, "segld.test", authority.client()));
    let requests = (0..1000).map(|number: u32| {
        let client = client.clone();
        tokio::spawn(async move {
            let message = number.to_be_bytes();
            let request = Sign { payload: Payload::Message(message.as_slice().into()), ..request() };
            assert_eq!(client.sign(&request).await.unwrap().bytes, message);
        })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await.unwrap();
    }
    assert_eq!(client.hello().unwrap().server, "echo");
    drop(client);
    server.await.unwrap();
}

/// What the client says of a server that it can not agree with.
async fn complaint(acceptor: TlsAcceptor, server_name: &str, client: Arc<rustls::ClientConfig>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let _ = acceptor.accept(tcp).await;
    });
    let client = Client::start(ClientConfig::new(address, server_name, client));
    let mut status = client.watch_status();
    let down =
        tokio::time::timeout(Duration::from_secs(30), status.wait_for(|status| matches!(status, Status::Down { .. })));
    let Status::Down { error, .. } = down.await.unwrap().unwrap().clone() else { unreachable!() };
    server.await.unwrap();
    error.to_string()
}

#[tokio::test]
async fn a_server_that_is_not_the_right_one_is_not_spoken_to() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let stranger = complaint(theirs.acceptor(ALPN), "segld.test", ours.client()).await;
    assert!(stranger.contains("invalid peer certificate"), "{stranger}");
    let other_name = complaint(ours.acceptor(ALPN), "other.test", ours.client()).await;
    assert!(other_name.contains("not valid for name"), "{other_name}");
    let other_protocol = complaint(ours.acceptor(b"http/1.1"), "segld.test", ours.client()).await;
    assert!(other_protocol.contains("NoApplicationProtocol"), "{other_protocol}");
}

#[test]
fn what_is_wrong_with_the_files_is_named() {
    let authority = Authority::new();
    let (chain, key) = authority.issue("client.test", ExtendedKeyUsagePurpose::ClientAuth);
    let (_, other_key) = authority.issue("client.test", ExtendedKeyUsagePurpose::ClientAuth);
    let (ca, chain, key) = (authority.pem.as_bytes(), chain.as_bytes(), key.as_bytes());
    assert!(tls_config(ca, chain, key).is_ok());
    let error = tls_config(b"", chain, key).unwrap_err();
    assert_eq!(error.to_string(), "CA certificates: no certificate in it");
    assert!(matches!(tls_config(ca, key, key).unwrap_err(), TlsError::Empty { what: "client certificate" }));
    assert!(matches!(tls_config(ca, chain, chain).unwrap_err(), TlsError::Pem { what: "client key", .. }));
    assert!(matches!(tls_config(ca, chain, other_key.as_bytes()).unwrap_err(), TlsError::Rustls(_)));
}
