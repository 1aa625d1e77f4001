//! Reads `[tls]` and the files it names: what was looked at here is what is served with.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use rustls::{
    crypto::ring::default_provider,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::{
    FromFile, Tls,
    files::Files,
    reader::{Section, Value},
};
use crate::certificate::{Chain, Validity, certificates_from_pem};

/// From when on an end to come is worth a warning.
const EXPIRES_SOON_S: i64 = 14 * 86_400;

/// `[tls]` as far as it could be read.
#[derive(Debug)]
pub(crate) struct TlsParts {
    pub(crate) certificate: Option<FromFile<Chain>>,
    private_key: Option<FromFile<PrivateKeyDer<'static>>>,
    pub(crate) client_ca: Option<FromFile<Vec<CertificateDer<'static>>>>,
    pub(crate) crls: Option<Vec<FromFile<CertificateRevocationListDer<'static>>>>,
    crl_grace: Duration,
}

impl TlsParts {
    pub(super) fn whole(self) -> Option<Tls> {
        let TlsParts { certificate, private_key, client_ca, crls, crl_grace } = self;
        let (certificate, private_key) = (certificate?, private_key?);
        Some(Tls { certificate, private_key, client_ca: client_ca?, crls: crls?, crl_grace })
    }
}

pub(super) fn tls(section: Section<'_>, files: &Files<'_>) -> TlsParts {
    let hint = "segld's own certificate chain: certificate = \"server.pem\", or \"credential:NAME\"";
    let certificate_at = section.required("certificate", hint);
    let certificate = certificate_at.and_then(|value| {
        let chain = files.content(value, "certificate chain", chain)?;
        own_validity(value, &chain.content, files);
        Some(chain)
    });
    let hint = "the certificate's key: private_key = \"server.key\", or \"credential:NAME\"";
    let private_key_at = section.required("private_key", hint);
    let private_key =
        private_key_at.and_then(|value| private_key(value, certificate.as_ref().map(|file| &file.content), files));
    let hint = "who vouches for clients: client_ca = \"clients-ca.pem\"";
    let client_ca = section.required("client_ca", hint).and_then(|value| client_ca(value, files));
    let crl_grace = section.duration("crl_grace", "0s", Duration::ZERO..=Duration::from_secs(30 * 86_400));
    let crls = section
        .value("crls")
        .map(|value| crls(value, client_ca.as_ref(), crl_grace, files))
        .unwrap_or(Some(Vec::new()));
    section.finish();
    TlsParts { certificate, private_key, client_ca, crls, crl_grace }
}

/// For [`Files::content`].
pub(super) fn chain(pem: &[u8]) -> Result<Chain, String> {
    Chain::from_pem(pem).map_err(|error| error.to_string())
}

fn pem_error(error: pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "there is none in it".to_owned(),
        other => format!("it is not PEM ({other})"),
    }
}

fn own_validity(value: Value<'_>, chain: &Chain, files: &Files<'_>) {
    let now = files.now_unix_s();
    match chain.validity(now) {
        Validity::Expired => {
            value.error("the certificate has expired: no client would accept it", "put a new one there")
        }
        Validity::NotYet => {
            value.error("the certificate is not valid yet: no client would accept it", "check the host's clock");
        }
        Validity::Valid if chain.not_after_unix_s() - now < EXPIRES_SOON_S => {
            let days = (chain.not_after_unix_s() - now) / 86_400;
            value.warning(format!("the certificate expires in {days} days"), "put a new one there and reload");
        }
        Validity::Valid => {}
    }
}

fn private_key(value: Value<'_>, chain: Option<&Chain>, files: &Files<'_>) -> Option<FromFile<PrivateKeyDer<'static>>> {
    let parse = |bytes: &[u8]| PrivateKeyDer::from_pem_slice(bytes).map_err(pem_error);
    let key = files.content(value, "private key", parse)?;
    if key.path.metadata().is_ok_and(|found| found.permissions().mode() & 0o004 != 0) {
        value.warning(format!("everybody may read {}", key.path.display()), "chmod 0600, owned by segld's user");
    }
    let loaded = match default_provider().key_provider.load_private_key(key.content.clone_key()) {
        Ok(loaded) => loaded,
        Err(error) => {
            value
                .error(format!("the private key can not be used: {error}"), "use ECDSA (P-256, P-384), Ed25519 or RSA");
            return None;
        }
    };
    if let (Some(chain), Some(spki)) = (chain, loaded.public_key())
        && spki.as_ref() != chain.spki_der()
    {
        value.error(
            format!("the private key does not belong to the certificate of {}", chain.subject()),
            "give the key that the certificate was made for",
        );
        return None;
    }
    Some(key)
}

fn client_ca(value: Value<'_>, files: &Files<'_>) -> Option<FromFile<Vec<CertificateDer<'static>>>> {
    let parse = |pem: &[u8]| certificates_from_pem(pem).map_err(|error| error.to_string());
    let authorities = files.content(value, "CA certificate", parse)?;
    for (at, der) in authorities.content.iter().enumerate() {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            value.error(format!("certificate {} in it is not a sound X.509 certificate", at + 1), "take it out");
            continue;
        };
        if !certificate.is_ca() {
            value.error(
                format!("{} is not a CA", certificate.subject()),
                "give the CA that issues clients' certificates",
            );
        } else if certificate.validity().not_after.timestamp() < files.now_unix_s() {
            let text = format!("the CA {} has expired: its clients are refused", certificate.subject());
            value.warning(text, "put its successor beside it");
        }
    }
    Some(authorities)
}

fn crls(
    value: Value<'_>,
    authorities: Option<&FromFile<Vec<CertificateDer<'static>>>>,
    grace: Duration,
    files: &Files<'_>,
) -> Option<Vec<FromFile<CertificateRevocationListDer<'static>>>> {
    let items = value.list()?;
    let count = items.len();
    let lists: Vec<_> = items.into_iter().filter_map(|item| crl(item, authorities, grace, files)).collect();
    if let (Some(authorities), true) = (authorities, count > 0 && lists.len() == count) {
        every_authority_has_one(value, authorities, &lists);
    }
    (lists.len() == count).then_some(lists)
}

/// rustls refuses a client whose CA has no list, once there are lists.
fn every_authority_has_one(
    value: Value<'_>,
    authorities: &FromFile<Vec<CertificateDer<'static>>>,
    lists: &[FromFile<CertificateRevocationListDer<'static>>],
) {
    let issuers: Vec<_> =
        lists.iter().filter_map(|list| Some(CertificateRevocationList::from_der(&list.content).ok()?.1)).collect();
    for der in &authorities.content {
        let Ok((_, authority)) = X509Certificate::from_der(der) else { continue };
        if !issuers.iter().any(|list| list.issuer().as_raw() == authority.subject().as_raw()) {
            value.error(
                format!("there is no CRL of {}: its clients would all be refused", authority.subject()),
                "add its CRL, or take the CA out of `client_ca`",
            );
        }
    }
}

fn crl(
    value: Value<'_>,
    authorities: Option<&FromFile<Vec<CertificateDer<'static>>>>,
    grace: Duration,
    files: &Files<'_>,
) -> Option<FromFile<CertificateRevocationListDer<'static>>> {
    let list = files.content(value, "certificate revocation list", |bytes| {
        // A DER CRL is a SEQUENCE; PEM is text.
        if bytes.first() == Some(&0x30) {
            return Ok(CertificateRevocationListDer::from(bytes.to_vec()));
        }
        CertificateRevocationListDer::from_pem_slice(bytes).map_err(pem_error)
    })?;
    let parsed = match CertificateRevocationList::from_der(&list.content) {
        Ok(([], parsed)) => parsed,
        _ => {
            value.error(format!("{} is no sound CRL", list.path.display()), "fetch it again from the CA");
            return None;
        }
    };
    let grace_s = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
    match parsed.next_update().map(|time| time.timestamp()) {
        None => value.error("the CRL names no nextUpdate: nobody can tell when it is stale", "have the CA set one"),
        Some(end) if end.saturating_add(grace_s) < files.now_unix_s() => {
            value.error(
                "the CRL has expired (nextUpdate, with `crl_grace`, is past)",
                "fetch the current one from the CA",
            );
        }
        Some(end) if end < files.now_unix_s() => {
            value.warning("the CRL has expired and lives on `crl_grace`", "fetch the current one from the CA");
        }
        Some(_) => {}
    }
    let issued_by = |der: &CertificateDer<'_>| {
        X509Certificate::from_der(der).is_ok_and(|(_, ca)| ca.subject().as_raw() == parsed.issuer().as_raw())
    };
    if authorities.is_some_and(|authorities| !authorities.content.iter().any(issued_by)) {
        value.error(
            format!("the CRL is from {}, which is not in `client_ca`", parsed.issuer()),
            "give the CRL of a CA that vouches for clients",
        );
    }
    Some(list)
}
