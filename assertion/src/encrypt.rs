//! XML Encryption 1.1 of a signed assertion for the service provider that it is meant for: `saml:EncryptedAssertion`.
//!
//! The plaintext is the Assertion as it was signed, byte for byte, but for declarations of namespaces that it inherits
//! from a Response: those are put into its start tag, so that it stands by itself. Exclusive canonicalisation renders
//! a namespace where it is used, so the signature stays valid.
//!
//! Whom to encrypt for is never the caller's to say: the assertion's Audience names a provider whose metadata the
//! operator has configured.

mod methods;

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use rsa::{RsaPublicKey, pkcs8::DecodePublicKey, traits::PublicKeyParts};

pub use self::methods::{ContentMethod, KeyTransport};
use crate::{
    metadata::{self, DescribedKey, DescribedMethod, MetadataError},
    saml::{AnyXml, Element, Limits, Malformed},
};

const SAML_URI: &str = "urn:oasis:names:tc:SAML:2.0:assertion";
const SAMLP_URI: &str = "urn:oasis:names:tc:SAML:2.0:protocol";
const XMLDSIG_URI: &str = "http://www.w3.org/2000/09/xmldsig#";

/// Sizes of a provider's RSA key, in bits.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=4096;

/// Why an assertion is not encrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncryptError {
    /// The document is no XML, or beyond a limit
    #[error("the document is malformed: {0}")]
    Malformed(Malformed),
    /// Neither a signed Assertion nor a Response around one
    #[error("the document is a saml:Assertion with a ds:Signature, or a samlp:Response with exactly one")]
    NotSigned,
    /// Not exactly one Audience
    #[error("the assertion has exactly one Audience, which names the provider to encrypt for")]
    Audience,
    /// The Audience names nobody whose metadata is configured
    #[error("no metadata is configured for the assertion's Audience")]
    UnknownAudience,
    /// The metadata of its Audience is out of date
    #[error("the validUntil of the metadata of the assertion's Audience has passed")]
    OutOfDate,
    /// The system's random numbers fail
    #[error("the system gives no random numbers")]
    Random,
    /// The cipher refuses: a content beyond its limits, or a provider's key that is none
    #[error("the content or its key cannot be encrypted")]
    Cipher,
}

/// What is used where a provider's metadata lists no method. What it lists is used in its order, as far as it is AES
/// with 256 bits and RSA-OAEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// For the content
    pub content: ContentMethod,
    /// For the content's key
    pub transport: KeyTransport,
}

/// AES-256-GCM, and RSA-OAEP with SHA-256 and MGF1 with SHA-256, which is NemLog-in's.
impl Default for Defaults {
    fn default() -> Defaults {
        Defaults { content: ContentMethod::Aes256Gcm, transport: KeyTransport::RsaOaep }
    }
}

/// A service provider to encrypt for.
#[derive(Clone, Debug)]
pub struct Provider {
    entity_id: String,
    key: RsaPublicKey,
    /// In base64
    certificate: String,
    certificate_not_after_unix_s: i64,
    until_ms: Option<i64>,
    content: ContentMethod,
    transport: KeyTransport,
}

impl Provider {
    /// Reads a provider's metadata, one `md:EntityDescriptor`, and chooses the key and the methods: a key for encryption
    /// before one for any use, methods in the order of the metadata.
    ///
    /// # Errors
    /// When it has no key or no method that is taken, or is out of date at `now_unix_s`.
    pub fn from_metadata(metadata: &[u8], defaults: Defaults, now_unix_s: u64) -> Result<Provider, MetadataError> {
        let described = metadata::read(metadata, now_unix_s)?;
        let keys = described.keys.iter();
        let (key, from) = keys
            .filter_map(|from| Some((RsaPublicKey::from_public_key_der(&from.spki).ok()?, from)))
            .find(|(key, _)| RSA_BITS.contains(&key.n().bits()))
            .ok_or(MetadataError::NoEncryptionKey)?;
        Ok(Provider {
            content: content_of(from, defaults)?,
            transport: transport_of(from, defaults)?,
            entity_id: described.entity_id,
            until_ms: described.until_ms,
            key,
            certificate: STANDARD.encode(&from.certificate),
            certificate_not_after_unix_s: from.not_after_unix_s,
        })
    }

    /// Its `entityID`: the Audience that it is found by.
    pub fn entity_id(&self) -> &str {
        &self.entity_id
    }

    /// How content is encrypted for it.
    pub fn content_method(&self) -> ContentMethod {
        self.content
    }

    /// How the content's key is encrypted for it.
    pub fn key_transport(&self) -> KeyTransport {
        self.transport
    }

    /// Whether the `validUntil` of its metadata has passed (saml-metadata-2.0-os §2.3.2).
    pub fn is_out_of_date(&self, now_unix_s: u64) -> bool {
        metadata::is_over(self.until_ms, now_unix_s)
    }

    /// The `validUntil` of its metadata, the earlier of two.
    pub fn valid_until_unix_s(&self) -> Option<i64> {
        self.until_ms.map(|until_ms| until_ms.div_euclid(1000))
    }

    /// When its certificate ends. Metadata carries keys in certificates whose dates nobody checks by the profile
    /// (SAML V2.0 Metadata Interoperability Profile §2.6.1), so this is for a warning.
    pub fn certificate_not_after_unix_s(&self) -> i64 {
        self.certificate_not_after_unix_s
    }

    /// `saml:EncryptedAssertion` of an assertion.
    fn encrypt(&self, assertion: Element<'_>) -> Result<String, EncryptError> {
        let saml = wrapper_prefix(assertion);
        let (content, key) = self.content.encrypt(standalone(assertion).as_bytes())?;
        let wrapped = self.transport.wrap(&key, &self.key)?;
        let mgf = self.transport.mgf_uri().map_or(String::new(), |uri| {
            format!("<xenc11:MGF xmlns:xenc11=\"http://www.w3.org/2009/xmlenc11#\" Algorithm=\"{uri}\"/>")
        });
        Ok(format!(
            "<{saml}:EncryptedAssertion xmlns:{saml}=\"{SAML_URI}\">\
             <xenc:EncryptedData xmlns:xenc=\"http://www.w3.org/2001/04/xmlenc#\" \
             Type=\"http://www.w3.org/2001/04/xmlenc#Element\">\
             <xenc:EncryptionMethod Algorithm=\"{content_method}\"/>\
             <ds:KeyInfo xmlns:ds=\"{XMLDSIG_URI}\"><xenc:EncryptedKey Recipient=\"{recipient}\">\
             <xenc:EncryptionMethod Algorithm=\"{transport}\"><ds:DigestMethod Algorithm=\"{digest}\"/>{mgf}\
             </xenc:EncryptionMethod>\
             <ds:KeyInfo><ds:X509Data><ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>\
             <xenc:CipherData><xenc:CipherValue>{wrapped}</xenc:CipherValue></xenc:CipherData>\
             </xenc:EncryptedKey></ds:KeyInfo>\
             <xenc:CipherData><xenc:CipherValue>{content}</xenc:CipherValue></xenc:CipherData>\
             </xenc:EncryptedData></{saml}:EncryptedAssertion>",
            content_method = self.content.uri(),
            recipient = escaped(&self.entity_id),
            transport = self.transport.uri(),
            digest = self.transport.digest_uri(),
            certificate = self.certificate,
            wrapped = STANDARD.encode(wrapped),
            content = STANDARD.encode(content),
        ))
    }
}

/// The configured providers, by their `entityID`.
#[derive(Clone, Debug, Default)]
pub struct Providers(BTreeMap<String, Provider>);

impl Providers {
    /// Takes a provider. Gives back the one that had its `entityID` before, which an operator has then configured twice.
    pub fn insert(&mut self, provider: Provider) -> Option<Provider> {
        self.0.insert(provider.entity_id.clone(), provider)
    }

    /// The provider that an Audience names, compared byte for byte.
    pub fn for_audience(&self, audience: &str) -> Option<&Provider> {
        self.0.get(audience)
    }

    /// The provider that the one Assertion of a document, signed or not, is for: so that nothing is signed that could
    /// not be encrypted afterwards, or should not be.
    ///
    /// # Errors
    /// When the document is not such a one, or names nobody who is configured, or whose metadata is out of date.
    pub fn provider_of(&self, document: &[u8], limits: &Limits, now_unix_s: u64) -> Result<&Provider, EncryptError> {
        let document = AnyXml::parse(document, limits).map_err(EncryptError::Malformed)?;
        let audience = audience_of(assertion_in(document.root()).ok_or(EncryptError::NotSigned)?)?;
        let provider = self.for_audience(audience).ok_or(EncryptError::UnknownAudience)?;
        if provider.is_out_of_date(now_unix_s) { Err(EncryptError::OutOfDate) } else { Ok(provider) }
    }

    /// Encrypts the one signed Assertion of a document for the provider that its Audience names: a Response with an
    /// EncryptedAssertion in its place, or an EncryptedAssertion. That the signature is there is checked; that it is
    /// right, who has just made it knows. Whether the metadata is in date was asked before it was signed
    /// ([`Providers::provider_of`]).
    ///
    /// # Errors
    /// When the document is not such a one, or names nobody who is configured.
    pub fn encrypt(&self, signed: &[u8], limits: &Limits) -> Result<Vec<u8>, EncryptError> {
        let document = AnyXml::parse(signed, limits).map_err(EncryptError::Malformed)?;
        let assertion = signed_assertion(document.root())?;
        let provider = self.for_audience(audience_of(assertion)?).ok_or(EncryptError::UnknownAudience)?;
        let encrypted = provider.encrypt(assertion)?;
        if assertion.offset() == document.root().offset() {
            return Ok(encrypted.into_bytes());
        }
        let after = assertion.offset() + assertion.source().len();
        Ok([&signed[..assertion.offset()], encrypted.as_bytes(), &signed[after..]].concat())
    }
}

fn signed_assertion(root: Element<'_>) -> Result<Element<'_>, EncryptError> {
    let signed = assertion_in(root).filter(|assertion| assertion.all(XMLDSIG_URI, "Signature").next().is_some());
    signed.ok_or(EncryptError::NotSigned)
}

fn assertion_in(root: Element<'_>) -> Option<Element<'_>> {
    if root.is(SAML_URI, "Assertion") {
        return Some(root);
    }
    let mut assertions = root.all(SAML_URI, "Assertion");
    match (assertions.next(), assertions.next()) {
        (Some(assertion), None) if root.is(SAMLP_URI, "Response") => Some(assertion),
        _ => None,
    }
}

fn audience_of(assertion: Element<'_>) -> Result<&str, EncryptError> {
    let conditions = assertion.all(SAML_URI, "Conditions");
    let restrictions = conditions.flat_map(|conditions| conditions.all(SAML_URI, "AudienceRestriction"));
    let mut audiences = restrictions.flat_map(|restriction| restriction.all(SAML_URI, "Audience"));
    match (audiences.next(), audiences.next()) {
        (Some(audience), None) => Ok(audience.text()),
        _ => Err(EncryptError::Audience),
    }
}

/// The element with the namespaces it inherits declared in its own start tag, right after its name.
fn standalone(element: Element<'_>) -> String {
    let (source, name) = (element.source(), element.qualified_name());
    let (start, rest) = source.split_at(1 + name.len());
    let mut alone = String::with_capacity(source.len() + 256);
    alone.push_str(start);
    // An `xmlns=""` outside is no namespace, which is what there is without it.
    for outside in element.scope().into_iter().filter(|one| one.inherited && !one.namespace.is_empty()) {
        let colon = if outside.prefix.is_empty() { "" } else { ":" };
        alone.push_str(&format!(" xmlns{colon}{}=\"{}\"", outside.prefix, escaped(outside.namespace)));
    }
    alone.push_str(rest);
    alone
}

/// A prefix for EncryptedAssertion. Readers that decrypt in place keep that element around the assertion, so its prefix
/// is in force there; and if it is one of the signature's InclusiveNamespaces, it is rendered, where it was not when the
/// signature was made. So the prefix is one that the assertion has in the same sense, or does not have at all.
fn wrapper_prefix(assertion: Element<'_>) -> String {
    let scope = assertion.scope();
    let harmless = |prefix: &str| match scope.iter().find(|one| one.prefix == prefix) {
        Some(bound) => bound.namespace == SAML_URI,
        None => !assertion.source().contains(&format!("xmlns:{prefix}")),
    };
    let candidates = (1..).map(|n: u64| if n == 1 { "saml".to_owned() } else { format!("saml{n}") });
    candidates.into_iter().find(|prefix| harmless(prefix)).expect("a document has finitely many prefixes")
}

/// A value for an attribute in double quotes.
fn escaped(value: &str) -> String {
    value.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn content_of(key: &DescribedKey, defaults: Defaults) -> Result<ContentMethod, MetadataError> {
    let mut listed = key.methods.iter().filter(|method| !is_transport(&method.algorithm)).peekable();
    if listed.peek().is_none() {
        return Ok(defaults.content);
    }
    let method = listed.find_map(|method| ContentMethod::by_uri(&method.algorithm));
    method.ok_or(MetadataError::NoMethod("content encryption"))
}

fn transport_of(key: &DescribedKey, defaults: Defaults) -> Result<KeyTransport, MetadataError> {
    let mut listed = key.methods.iter().filter(|method| is_transport(&method.algorithm)).peekable();
    if listed.peek().is_none() {
        return Ok(defaults.transport);
    }
    listed.find_map(transport_by).ok_or(MetadataError::NoMethod("key transport"))
}

/// Whether a method is for keys: what is not known as one is for content.
fn is_transport(uri: &str) -> bool {
    ["#rsa-", "#kw-", "#dh", "#ECDH", "#ConcatKDF"].iter().any(|part| uri.contains(part))
}

/// The key transport that a method describes, if it is one that is done here.
fn transport_by(method: &DescribedMethod) -> Option<KeyTransport> {
    let (digest, mgf) = (method.digest.as_deref(), method.mgf.as_deref());
    match &*method.algorithm {
        methods::RSA_OAEP_URI => {
            let fits = digest.is_none_or(|uri| uri == methods::SHA256_URI)
                && mgf.is_none_or(|uri| uri == methods::MGF1_SHA256_URI);
            fits.then_some(KeyTransport::RsaOaep)
        }
        methods::RSA_OAEP_MGF1P_URI => match digest {
            None | Some(methods::SHA1_URI) => Some(KeyTransport::RsaOaepMgf1pSha1),
            Some(methods::SHA256_URI) => Some(KeyTransport::RsaOaepMgf1pSha256),
            Some(_) => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;
