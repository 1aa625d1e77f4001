//! Certificate revocation lists (RFC 5280 §5): loading them, and everything that makes one unfit.
//!
//! A list that is configured but empty, foreign, older than the one in force, or past its nextUpdate and the grace,
//! is refused as a whole: silently believing less than before is how a revoked broker comes back.

use std::path::Path;

use x509_parser::{
    certificate::X509Certificate, parse_x509_certificate, parse_x509_crl, revocation_list::CertificateRevocationList,
};

use super::TlsError;
use crate::{clock, config};

/// What is known of a list in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CrlFacts {
    /// Its issuer's distinguished name
    pub(crate) issuer: String,
    /// The same, DER
    pub(crate) issuer_der: Vec<u8>,
    /// When it was made, Unix seconds
    pub(crate) this_update_s: i64,
    /// When the next one is due, Unix seconds
    pub(crate) next_update_s: i64,
}

/// Checks each configured list, and that no CA is left without one.
pub(super) fn check(settings: &config::Tls, previous: &[CrlFacts]) -> Result<Vec<CrlFacts>, TlsError> {
    if settings.crls.is_empty() {
        return Ok(Vec::new());
    }
    let authorities = settings
        .client_ca
        .content
        .iter()
        .map(|der| parse_x509_certificate(der).map(|(_, certificate)| certificate))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(&settings.client_ca.path, format!("a certificate does not parse: {error}")))?;
    let oldest_next_update_s = clock::unix_s().saturating_sub(settings.crl_grace.as_secs() as i64);

    let lists = settings
        .crls
        .iter()
        .map(|file| check_list(&file.path, &file.content, &authorities, previous, oldest_next_update_s))
        .collect::<Result<Vec<_>, _>>()?;
    for authority in &authorities {
        if !lists.iter().any(|list| list.issuer_der == authority.subject().as_raw()) {
            let name = authority.subject();
            return Err(content(
                &settings.client_ca.path,
                format!("no CRL is configured for {name}: its clients would all be refused; add its list to tls.crls"),
            ));
        }
    }
    Ok(lists)
}

fn check_list(
    path: &Path,
    der: &[u8],
    authorities: &[X509Certificate<'_>],
    previous: &[CrlFacts],
    oldest_next_update_s: i64,
) -> Result<CrlFacts, TlsError> {
    let wrong = |what: String| content(path, what);
    let (rest, list) = parse_x509_crl(der).map_err(|error| wrong(format!("not a CRL: {error}")))?;
    if !rest.is_empty() {
        return Err(wrong(format!("{} bytes follow the CRL", rest.len())));
    }
    let issuer = list.issuer().to_string();
    if !signed_by_one_of(&list, authorities) {
        return Err(wrong(format!("a CRL of {issuer}, which is none of the client CAs or did not sign it")));
    }
    let this_update_s = list.last_update().timestamp();
    let next_update_s = list
        .next_update()
        .ok_or_else(|| wrong("it has no nextUpdate, so nobody could tell when it is too old".into()))?
        .timestamp();
    if next_update_s < oldest_next_update_s {
        return Err(wrong(format!(
            "expired: its nextUpdate was {}; fetch the CA's current list (tls.crl_grace can bridge an outage of the CA)",
            list.next_update().map(|at| at.to_string()).unwrap_or_default()
        )));
    }
    if let Some(older) = previous.iter().find(|facts| facts.issuer == issuer && facts.this_update_s > this_update_s) {
        return Err(wrong(format!(
            "older than the list in force (thisUpdate {this_update_s} against {} s): a roll-back would lift revocations",
            older.this_update_s
        )));
    }
    Ok(CrlFacts { issuer, issuer_der: list.issuer().as_raw().to_vec(), this_update_s, next_update_s })
}

fn signed_by_one_of(list: &CertificateRevocationList<'_>, authorities: &[X509Certificate<'_>]) -> bool {
    authorities.iter().any(|authority| {
        authority.subject().as_raw() == list.issuer().as_raw() && list.verify_signature(authority.public_key()).is_ok()
    })
}

fn content(path: &Path, what: String) -> TlsError {
    TlsError::Content { path: path.to_owned(), what }
}
