//! TLS towards the brokers: version 1.3 alone, a client certificate always, ALPN `segl/1`, revocation by CRL.
//!
//! Nothing is resumed: a resumed session would skip the revocation check, so there are no tickets, no session
//! storage and no early data. What is loaded here is one immutable [`TlsSnapshot`]; a reload makes another or keeps
//! the old one, and verifies the chains of the living connections against it.

mod crl;
mod verifier;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};

use crate::config;

pub(crate) use crl::CrlFacts;
use verifier::FreshnessVerifier;

/// Everything TLS needs, loaded together and replaced together.
#[derive(Debug)]
pub(crate) struct TlsSnapshot {
    /// For new connections
    pub(crate) config: Arc<ServerConfig>,
    /// What is known of each CRL
    pub(crate) crls: Vec<CrlFacts>,
    /// End of validity of the server's own certificate, Unix seconds
    pub(crate) certificate_not_after_s: i64,
    /// For how long a list is honoured past its time
    pub(crate) crl_grace: Duration,
    verifier: Arc<FreshnessVerifier>,
}

/// Why the material can not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file does not hold what it should
    #[error("{}: {what}", path.display())]
    Content {
        /// The file
        path: PathBuf,
        /// What is wrong with it
        what: String,
    },
    /// Certificate and key do not go together
    #[error("{0}")]
    Unusable(String),
}

impl TlsSnapshot {
    /// Checks everything; a CRL must not be older than its counterpart in `previous`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its file.
    pub(crate) fn new(settings: &config::Tls, previous: Option<&TlsSnapshot>) -> Result<TlsSnapshot, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = &settings.certificate.content;
        let crls = crl::check(settings, previous.map_or(&[], |snapshot| &snapshot.crls))?;
        let verifier = Arc::new(verifier(&provider, settings, &crls)?);

        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| TlsError::Unusable(format!("TLS 1.3 is not available: {error}")))?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(chain.certificates().to_vec(), settings.private_key.content.clone_key())
            .map_err(|error| {
                TlsError::Unusable(format!(
                    "{} and {} do not go together: {error}",
                    settings.certificate.path.display(),
                    settings.private_key.path.display()
                ))
            })?;
        config.alpn_protocols = vec![segl_wire::ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;

        Ok(TlsSnapshot {
            config: Arc::new(config),
            crls,
            certificate_not_after_s: chain.not_after_unix_s(),
            crl_grace: settings.crl_grace,
            verifier,
        })
    }

    /// Verifies the chain of a living connection as a new handshake would.
    pub(crate) fn verify_again(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), rustls::Error> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        self.verifier.verify_chain(leaf, intermediates, unix_time(now))
    }
}

fn verifier(
    provider: &Arc<CryptoProvider>,
    settings: &config::Tls,
    crls: &[CrlFacts],
) -> Result<FreshnessVerifier, TlsError> {
    let wrong = |what| TlsError::Content { path: settings.client_ca.path.clone(), what };
    let mut roots = RootCertStore::empty();
    for authority in &settings.client_ca.content {
        roots.add(authority.clone()).map_err(|error| wrong(format!("a certificate is no trust anchor: {error}")))?;
    }
    // Expiry of CRLs is enforced by FreshnessVerifier, which knows the grace.
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .with_crls(settings.crls.iter().map(|crl| crl.content.clone()))
        .build()
        .map_err(|error| wrong(error.to_string()))?;
    Ok(FreshnessVerifier::new(inner, crls, settings.crl_grace))
}

fn unix_time(now: SystemTime) -> UnixTime {
    // A clock before 1970 is a clock that nothing is valid on.
    UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default())
}
