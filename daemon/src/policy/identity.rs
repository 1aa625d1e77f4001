//! From a client's certificate to the tenant it speaks for.

use std::collections::HashMap;

use x509_parser::{extensions::GeneralName, prelude::FromDer, prelude::X509Certificate};

use crate::{
    certificate::spki_sha256,
    config::{Client, San},
};

/// Most names of a certificate that are looked at; one with more has none.
const SANS_MAX: usize = 64;

/// What a client's certificate says of it. The chain has been verified before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// uniformResourceIdentifier names, as they stand
    pub uri_sans: Vec<String>,
    /// dNSName names
    pub dns_sans: Vec<String>,
    /// SHA-256 of the SubjectPublicKeyInfo
    pub spki_sha256: [u8; 32],
}

/// The peer's certificate can not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client's certificate can not be read")]
pub struct NotACertificate;

/// Why a client speaks for no tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentifyError {
    /// No tenant names it
    #[error("no tenant names this client certificate")]
    Unknown,
    /// Its names belong to several tenants
    #[error("this client certificate belongs to several tenants")]
    Ambiguous,
}

impl PeerIdentity {
    /// Reads a verified client certificate (DER).
    pub fn from_certificate(der: &[u8]) -> Result<PeerIdentity, NotACertificate> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| NotACertificate)?;
        let mut identity =
            PeerIdentity { spki_sha256: spki_sha256(certificate.public_key().raw), ..Default::default() };
        let names = certificate.subject_alternative_name().map_err(|_| NotACertificate)?;
        let names = names.map_or(&[][..], |extension| &extension.value.general_names);
        if names.len() > SANS_MAX {
            return Ok(identity);
        }
        for name in names {
            match name {
                GeneralName::URI(uri) => identity.uri_sans.push((*uri).to_owned()),
                GeneralName::DNSName(name) => identity.dns_sans.push(name.to_ascii_lowercase()),
                _ => {}
            }
        }
        Ok(identity)
    }
}

/// Which tenant each client belongs to.
#[derive(Debug, Default)]
pub(super) struct Clients {
    by_name: HashMap<San, Vec<Named>>,
}

/// Who has that name.
#[derive(Debug)]
struct Named {
    /// And this key, if it is pinned
    spki_sha256: Option<[u8; 32]>,
    /// The tenant's place in the list
    tenant: usize,
}

impl Clients {
    /// The clients of each tenant, by its place in the list.
    pub(super) fn new<'c>(tenants: impl Iterator<Item = &'c [Client]>) -> Clients {
        let mut clients = Clients::default();
        for (at, tenant) in tenants.enumerate() {
            for client in tenant {
                clients
                    .by_name
                    .entry(client.san.clone())
                    .or_default()
                    .push(Named { spki_sha256: client.spki_sha256, tenant: at });
            }
        }
        clients
    }

    /// The tenant's place in the list, and the name by which it was found.
    pub(super) fn find(&self, peer: &PeerIdentity) -> Result<(usize, San), IdentifyError> {
        let uris = peer.uri_sans.iter().map(|uri| San::Uri(uri.clone()));
        let names = peer.dns_sans.iter().map(|name| San::Dns(name.to_ascii_lowercase()));
        let mut found: Option<(usize, San)> = None;
        for san in uris.chain(names) {
            for named in self.by_name.get(&san).into_iter().flatten() {
                if named.spki_sha256.is_some_and(|pin| pin != peer.spki_sha256) {
                    continue;
                }
                match &found {
                    None => found = Some((named.tenant, san.clone())),
                    Some((tenant, _)) if *tenant != named.tenant => return Err(IdentifyError::Ambiguous),
                    Some(_) => {}
                }
            }
        }
        found.ok_or(IdentifyError::Unknown)
    }
}
