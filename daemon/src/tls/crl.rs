//! Certificate revocation lists (RFC 5280 §5): loading them, and everything that makes one unfit.
//!
//! A list that is configured but empty, foreign, older than the one in force, or past its nextUpdate and the grace,
//! is refused as a whole: silently believing less than before is how a revoked broker comes back.

use std::{path::Path, time::Duration};

use x509_parser::{
    certificate::X509Certificate, parse_x509_certificate, parse_x509_crl, revocation_list::CertificateRevocationList,
};

use super::TlsError;
use crate::{clock, config};

/// A CA's clock may be ahead of ours by so much, in seconds; a list from further in the future would keep out the real
/// ones that follow.
const AHEAD_MAX_S: i64 = 300;

/// What is known of a list in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CrlFacts {
    /// Its issuer's distinguished name
    pub(crate) issuer: String,
    /// The same, DER
    pub(crate) issuer_der: Vec<u8>,
    /// Its cRLNumber (RFC 5280 §5.2.3), big-endian without leading zeros; rises from list to list
    pub(crate) number: Option<Vec<u8>>,
    /// When it was made, Unix seconds
    pub(crate) this_update_s: i64,
    /// When the next one is due, Unix seconds
    pub(crate) next_update_s: i64,
}

impl CrlFacts {
    /// Whether it was made before the other, which is of the same issuer.
    fn is_older_than(&self, other: &CrlFacts) -> bool {
        let by_number = match (&self.number, &other.number) {
            (Some(ours), Some(theirs)) => (ours.len(), ours) < (theirs.len(), theirs),
            _ => false,
        };
        by_number || self.this_update_s < other.this_update_s
    }
}

/// Checks each configured list, and that each CA has exactly one.
pub(super) fn check(settings: &config::Tls, previous: &[CrlFacts]) -> Result<Vec<CrlFacts>, TlsError> {
    let wrong = |what: String| content(&settings.client_ca.path, what);
    if settings.crls.is_empty() {
        return match previous {
            [] => Ok(Vec::new()),
            _ => Err(wrong(
                "tls.crls is gone: revoked clients would come back; only a restart takes all lists away".into(),
            )),
        };
    }
    let authorities = settings
        .client_ca
        .content
        .iter()
        .map(|der| parse_x509_certificate(der).map(|(_, certificate)| certificate))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(format!("a certificate does not parse: {error}")))?;
    let mut lists: Vec<CrlFacts> = Vec::new();
    for file in &settings.crls {
        let facts = check_list(&file.path, &file.content, &authorities, settings.crl_grace, previous)?;
        // Of two lists of one issuer only the first would be asked.
        if lists.iter().any(|list| list.issuer_der == facts.issuer_der) {
            return Err(content(
                &file.path,
                format!("a second CRL of {}: give each CA's current list only", facts.issuer),
            ));
        }
        lists.push(facts);
    }
    for (at, authority) in authorities.iter().enumerate() {
        let (name, der) = (authority.subject(), authority.subject().as_raw());
        if authorities[..at].iter().any(|other| other.subject().as_raw() == der) {
            return Err(wrong(format!("two CAs are named {name}: a CRL could not be told to be of one or the other")));
        }
        if !lists.iter().any(|list| list.issuer_der == der) {
            return Err(wrong(format!(
                "no CRL is configured for {name}: its clients would all be refused; add its list to tls.crls"
            )));
        }
        if authority.issuer().as_raw() != der {
            tracing::warn!(ca = %name, "an intermediate CA stands in tls.client_ca: whoever revokes it is not asked");
        }
    }
    Ok(lists)
}

fn check_list(
    path: &Path,
    der: &[u8],
    authorities: &[X509Certificate<'_>],
    grace: Duration,
    previous: &[CrlFacts],
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
    let next_update = list
        .next_update()
        .ok_or_else(|| wrong("it has no nextUpdate, so nobody could tell when it is too old".into()))?;
    let facts = CrlFacts {
        issuer,
        issuer_der: list.issuer().as_raw().to_vec(),
        number: list.crl_number().map(|number| number.to_bytes_be()),
        this_update_s: list.last_update().timestamp(),
        next_update_s: next_update.timestamp(),
    };
    let now_s = clock::unix_s();
    if facts.next_update_s < now_s.saturating_sub(grace.as_secs() as i64) {
        return Err(wrong(format!(
            "expired: its nextUpdate was {next_update}; fetch the CA's current list (tls.crl_grace can bridge an outage of the CA)"
        )));
    }
    if facts.this_update_s > now_s + AHEAD_MAX_S {
        return Err(wrong(format!("made in the future ({}): look at this host's clock", list.last_update())));
    }
    let in_force = previous.iter().find(|other| other.issuer_der == facts.issuer_der);
    if in_force.is_some_and(|in_force| facts.is_older_than(in_force)) {
        return Err(wrong("older than the list in force: to go back would lift revocations".into()));
    }
    Ok(facts)
}

fn signed_by_one_of(list: &CertificateRevocationList<'_>, authorities: &[X509Certificate<'_>]) -> bool {
    authorities.iter().any(|authority| {
        authority.subject().as_raw() == list.issuer().as_raw() && list.verify_signature(authority.public_key()).is_ok()
    })
}

fn content(path: &Path, what: String) -> TlsError {
    TlsError::Content { path: path.to_owned(), what }
}
