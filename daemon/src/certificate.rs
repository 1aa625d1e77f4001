//! Certificate chains of keys and of the daemon itself: read once, with the facts that policy and health ask for.
//!
//! Nothing here verifies a signature: the chain of a signing key is the operator's statement, that of a client is
//! rustls's business. What is checked is that the leaf names the key it is used with and when it is valid.

use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use segl_hsm::{KeyType, spki};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Most certificates in a chain: one from a root to a leaf is seldom longer than four.
const CHAIN_MAX: usize = 10;

/// A certificate chain, leaf first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    spki_der: Vec<u8>,
    key_type: KeyType,
    subject: String,
    not_before_unix_s: i64,
    not_after_unix_s: i64,
}

/// Where a moment lies in a certificate's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Before notBefore
    NotYet,
    /// Between the two, both included (RFC 5280 §4.1.2.5)
    Valid,
    /// After notAfter
    Expired,
}

/// Why a chain can not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Not PEM
    #[error("it is not PEM ({0})")]
    Pem(String),
    /// PEM, but no certificate in it
    #[error("there is no certificate in it")]
    Empty,
    /// Longer than any real chain
    #[error("there are more than {CHAIN_MAX} certificates in it")]
    TooLong,
    /// Not X.509
    #[error("certificate {0} is not a sound X.509 certificate")]
    Der(usize),
    /// A key that no algorithm of Segl's fits
    #[error("the public key of its first certificate is of a kind that Segl does not use")]
    KeyType,
    /// Issuer and subject do not meet
    #[error("certificate {0} was not issued by the one after it: the order is leaf first, then its issuer")]
    Order(usize),
}

impl Chain {
    /// Reads a chain of `CERTIFICATE` blocks (RFC 7468); other blocks are skipped.
    pub fn from_pem(pem: &[u8]) -> Result<Chain, ChainError> {
        let certificates = certificates_from_pem(pem)?;
        if certificates.len() > CHAIN_MAX {
            return Err(ChainError::TooLong);
        }
        let parsed = parse_all(&certificates)?;
        if let Some(at) = parsed.windows(2).position(|pair| pair[0].issuer().as_raw() != pair[1].subject().as_raw()) {
            return Err(ChainError::Order(at + 1));
        }
        let leaf = parsed.first().ok_or(ChainError::Empty)?;
        let public_key = spki::read(leaf.public_key().raw).map_err(|_| ChainError::KeyType)?;
        let (spki_der, key_type) = (public_key.to_spki_der(), public_key.key_type);
        let subject = leaf.subject().to_string();
        let not_before_unix_s = leaf.validity().not_before.timestamp();
        let not_after_unix_s = leaf.validity().not_after.timestamp();
        Ok(Chain { certificates, spki_der, key_type, subject, not_before_unix_s, not_after_unix_s })
    }

    /// Where the moment lies in the leaf's life.
    pub fn validity(&self, now_unix_s: i64) -> Validity {
        if now_unix_s < self.not_before_unix_s {
            Validity::NotYet
        } else if now_unix_s > self.not_after_unix_s {
            Validity::Expired
        } else {
            Validity::Valid
        }
    }

    /// The certificates, DER, leaf first; at least one.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The leaf's SubjectPublicKeyInfo, DER, in the one form that tokens report too ([`spki`]).
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// Type and size of the leaf's key.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The leaf's subject, as text.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The leaf's notBefore, in seconds since 1970.
    pub fn not_before_unix_s(&self) -> i64 {
        self.not_before_unix_s
    }

    /// The leaf's notAfter, in seconds since 1970.
    pub fn not_after_unix_s(&self) -> i64 {
        self.not_after_unix_s
    }
}

/// The certificates of a PEM file, in its order, at least one, none of them looked into.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ChainError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ChainError::Pem(error.to_string()))?;
    if certificates.is_empty() { Err(ChainError::Empty) } else { Ok(certificates) }
}

/// SHA-256 of a SubjectPublicKeyInfo: by this a client's key is pinned and a signing key named.
pub fn spki_sha256(spki_der: &[u8]) -> [u8; 32] {
    digest(&SHA256, spki_der).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn parse_all<'a>(certificates: &'a [CertificateDer<'static>]) -> Result<Vec<X509Certificate<'a>>, ChainError> {
    let parse = |(at, der): (usize, &'a CertificateDer<'static>)| match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(ChainError::Der(at + 1)),
    };
    certificates.iter().enumerate().map(parse).collect()
}
