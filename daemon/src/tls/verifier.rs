//! The client certificate verifier: webpki's, and on top of it that no CRL is believed past its time.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use x509_parser::parse_x509_certificate;

use super::CrlFacts;

/// webpki knows no grace: this checks the nextUpdate of the lists a chain rests on itself, and leaves everything else
/// to webpki.
#[derive(Debug)]
pub(super) struct FreshnessVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    /// Issuer (DER name) and the moment its list is too old, Unix seconds
    stale_after_s: Vec<(Vec<u8>, u64)>,
}

impl FreshnessVerifier {
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, crls: &[CrlFacts], grace: Duration) -> Self {
        let stale_after_s = crls
            .iter()
            .map(|crl| {
                let next_update_s = u64::try_from(crl.next_update_s).unwrap_or(0);
                (crl.issuer_der.clone(), next_update_s.saturating_add(grace.as_secs()))
            })
            .collect();
        FreshnessVerifier { inner, stale_after_s }
    }

    pub(super) fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        self.inner.verify_client_cert(leaf, intermediates, now)?;
        for certificate in std::iter::once(leaf).chain(intermediates) {
            let (_, parsed) =
                parse_x509_certificate(certificate).map_err(|_| Error::from(CertificateError::BadEncoding))?;
            let issuer = parsed.issuer().as_raw();
            if self.stale_after_s.iter().any(|(name, stale_s)| name == issuer && now.as_secs() > *stale_s) {
                return Err(CertificateError::ExpiredRevocationList.into());
            }
        }
        Ok(())
    }
}

impl ClientCertVerifier for FreshnessVerifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify_chain(leaf, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
