//! TLS towards callers: 1.2 and 1.3 with ring, a client certificate where the caller has one.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use crate::callers::{PeerCertificate, TokenHash};

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{0}")]
    Pem(#[from] pem::Error),
    #[error("there is no certificate in it")]
    Empty,
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    #[error("{0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// From PEM: our chain (leaf first) and key, and the CAs that callers' certificates may come from.
pub(crate) fn server_config(
    chain_pem: &[u8],
    key_pem: &[u8],
    roots: Option<RootCertStore>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider).allow_unauthenticated().build()?,
        ),
    };
    let mut config = builder.with_single_cert(certificates(chain_pem)?, PrivateKeyDer::from_pem_slice(key_pem)?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would not look at the client's certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The CAs in a PEM file.
pub(crate) fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// What a verified client certificate says; `None` when it cannot be read.
pub(crate) fn peer(der: &CertificateDer<'_>) -> Option<PeerCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()?;
    let names = names.iter().flat_map(|extension| &extension.value.general_names);
    let sans = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(format!("DNS:{}", name.to_ascii_lowercase())),
        GeneralName::URI(uri) => Some(format!("URI:{uri}")),
        _ => None,
    });
    Some(PeerCertificate {
        sans: sans.collect(),
        spki_sha256: TokenHash::of(certificate.public_key().raw),
        not_after_s: certificate.validity().not_after.timestamp(),
    })
}

/// When the first certificate of a PEM chain ends, in seconds since 1970.
pub(crate) fn not_after_s(chain_pem: &[u8]) -> Option<i64> {
    let chain = certificates(chain_pem).ok()?;
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    Some(leaf.validity().not_after.timestamp())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() { Err(TlsError::Empty) } else { Ok(certificates) }
}
