//! A service provider's SAML metadata, as far as encrypting for it needs: its name, its certificate and the methods it
//! can decrypt with (SAML metadata §2.4.1.1).
//!
//! The metadata is the operator's configuration and trusted as such; a signature in it is not looked at.

use base64::{Engine, engine::general_purpose::STANDARD};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::saml::{AnyXml, Element, Limits, Malformed, unix_ms};

const METADATA_URI: &str = "urn:oasis:names:tc:SAML:2.0:metadata";
const XMLDSIG_URI: &str = "http://www.w3.org/2000/09/xmldsig#";
const XMLENC_URI: &str = "http://www.w3.org/2001/04/xmlenc#";
const XMLENC11_URI: &str = "http://www.w3.org/2009/xmlenc11#";

/// Longest metadata in bytes.
pub const METADATA_MAX: usize = 256 << 10;

/// Why metadata is of no use: the operator's or the provider's mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// No XML, or beyond a limit
    #[error("the metadata is malformed: {0}")]
    Malformed(Malformed),
    /// The root is something else
    #[error("the root of the metadata is one md:EntityDescriptor with an entityID")]
    NoEntity,
    /// No or several md:SPSSODescriptor
    #[error("the metadata has exactly one md:SPSSODescriptor")]
    NoServiceProvider,
    /// `validUntil` has passed, or is no time
    #[error("the metadata's validUntil has passed, or is no UTC time")]
    Expired,
    /// No KeyDescriptor for encryption with an X.509 certificate of an RSA key
    #[error("the metadata has no KeyDescriptor for encryption with the certificate of an RSA key of 2048 to 4096 bits")]
    NoEncryptionKey,
    /// Only methods that are weaker than allowed, or unknown here
    #[error("the metadata lists no {0} that is allowed here")]
    NoMethod(&'static str),
}

/// What metadata says about encryption, before anything is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) entity_id: String,
    /// `validUntil`, the earlier of two, in milliseconds since 1970
    pub(crate) until_ms: Option<i64>,
    /// The certificates of one KeyDescriptor each, in DER: those for encryption before those for any use
    pub(crate) keys: Vec<DescribedKey>,
}

/// A KeyDescriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DescribedKey {
    pub(crate) certificate: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) not_after_unix_s: i64,
    pub(crate) methods: Vec<DescribedMethod>,
}

/// An EncryptionMethod: identifiers as they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DescribedMethod {
    pub(crate) algorithm: String,
    pub(crate) digest: Option<String>,
    pub(crate) mgf: Option<String>,
}

/// Reads an EntityDescriptor.
pub(crate) fn read(metadata: &[u8], now_unix_s: u64) -> Result<Described, MetadataError> {
    let limits = Limits { bytes_max: METADATA_MAX, ..Limits::default() };
    let document = AnyXml::parse(metadata, &limits).map_err(MetadataError::Malformed)?;
    let entity = document.root();
    let entity_id = entity.attribute("entityID").filter(|id| !id.is_empty()).ok_or(MetadataError::NoEntity)?;
    if !entity.is(METADATA_URI, "EntityDescriptor") {
        return Err(MetadataError::NoEntity);
    }
    let mut roles = entity.all(METADATA_URI, "SPSSODescriptor");
    let (Some(role), None) = (roles.next(), roles.next()) else { return Err(MetadataError::NoServiceProvider) };
    let mut until_ms: Option<i64> = None;
    for until in [entity, role].into_iter().filter_map(|element| element.attribute("validUntil")) {
        let until = unix_ms(until).ok_or(MetadataError::Expired)?;
        until_ms = Some(until_ms.map_or(until, |other| other.min(until)));
    }
    if is_over(until_ms, now_unix_s) {
        return Err(MetadataError::Expired);
    }
    let mut keys = Vec::new();
    for wanted in [Some("encryption"), None] {
        let descriptors = role.all(METADATA_URI, "KeyDescriptor");
        keys.extend(descriptors.filter(|one| one.attribute("use") == wanted).filter_map(described_key));
    }
    Ok(Described { entity_id: entity_id.to_owned(), until_ms, keys })
}

/// Whether a `validUntil` has passed.
pub(crate) fn is_over(until_ms: Option<i64>, now_unix_s: u64) -> bool {
    let now_ms = i64::try_from(now_unix_s).unwrap_or(i64::MAX).saturating_mul(1000);
    until_ms.is_some_and(|until_ms| until_ms <= now_ms)
}

/// The first certificate of a KeyDescriptor, when it can be read.
fn described_key(descriptor: Element<'_>) -> Option<DescribedKey> {
    let info = descriptor.all(XMLDSIG_URI, "KeyInfo").next()?;
    let data = info.all(XMLDSIG_URI, "X509Data").next()?;
    let certificate = data.all(XMLDSIG_URI, "X509Certificate").next()?.text();
    let certificate: String = certificate.split_ascii_whitespace().collect();
    let certificate = STANDARD.decode(certificate).ok()?;
    let Ok(([], parsed)) = X509Certificate::from_der(&certificate) else { return None };
    let (spki, not_after_unix_s) = (parsed.public_key().raw.to_vec(), parsed.validity().not_after.timestamp());
    let methods = descriptor.all(METADATA_URI, "EncryptionMethod").filter_map(described_method).collect();
    Some(DescribedKey { spki, not_after_unix_s, certificate, methods })
}

/// None for RSA-OAEP with a label, which nobody uses and nothing here supports.
fn described_method(method: Element<'_>) -> Option<DescribedMethod> {
    let algorithm_of = |element: Element<'_>| element.attribute("Algorithm").map(str::to_owned);
    let labelled = method.all(XMLENC_URI, "OAEPparams").next().is_some();
    Some(DescribedMethod {
        algorithm: algorithm_of(method).filter(|_| !labelled)?,
        digest: method.all(XMLDSIG_URI, "DigestMethod").next().and_then(algorithm_of),
        mgf: method.all(XMLENC11_URI, "MGF").next().and_then(algorithm_of),
    })
}
