//! The client's TLS: 1.3 only, ring, both sides with certificates, no resumption, ALPN `segl/1`.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    client::Resumption,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

use crate::ALPN;

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Broken PEM, or without what was looked for
    #[error("{what}: {source}")]
    Pem {
        /// Which of the three
        what: &'static str,
        /// What is wrong with it
        source: pem::Error,
    },
    /// PEM without a certificate
    #[error("{what}: no certificate in it")]
    Empty {
        /// Which of the three
        what: &'static str,
    },
    /// What rustls says, such as a key that is not the certificate's
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
}

/// Makes the configuration from PEM: the CAs that a server's certificate may come from, the client's certificate
/// chain (leaf first) and its key.
pub fn tls_config(ca_pem: &[u8], chain_pem: &[u8], key_pem: &[u8]) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in certificates(ca_pem, "CA certificates")? {
        roots.add(ca)?;
    }
    let chain = certificates(chain_pem, "client certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|source| TlsError::Pem { what: "client key", source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })?;
    if certificates.is_empty() { Err(TlsError::Empty { what }) } else { Ok(certificates) }
}
