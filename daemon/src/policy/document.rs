//! Documents that Segl looks into: what a grant says of them, and the way from a document to an [`Authorised`].
//!
//! Here and nowhere else a key for assertions or JWS gets something to sign, and it is always made from a document that
//! has passed its grant's rules.

use std::sync::Arc;

use ring::digest::{self, digest};
use rustls::pki_types::CertificateDer;
use segl_assertion::{
    Capacity, Refusal, Violation,
    jws::{self, JwsAlgorithm, JwsKey, JwsKeyError, JwsPolicy, PreparedJws, Shown, ShownChain},
    policy::AssertionPolicy,
    saml::{self, DigestMethod, Document, Malformed, SignatureMethod},
};
use segl_hsm::{Algorithm, Digest, Input};
use segl_wire::KeyInfo;

use super::{Authorised, Denied, Permit};
use crate::{certificate::Chain, config::Purpose};

/// Longest message that waits for its token as it is, beside its document, in bytes: SignedInfo is shorter.
const MESSAGE_MAX: usize = 2048;

/// What a grant allows of documents.
#[derive(Clone, Debug)]
pub enum Rules {
    /// Signatures of what Segl does not look into: no document at all
    None,
    /// Of assertions
    Assertion(Arc<AssertionPolicy>),
    /// Of JWS
    Jws(Arc<JwsPolicy>),
}

/// A document that passed and lacks nothing but its signature.
#[derive(Debug)]
pub enum Unsigned {
    /// An assertion, or the Response around it
    Assertion(saml::Prepared),
    /// A JWS
    Jws(PreparedJws),
}

impl Unsigned {
    /// What is signed.
    fn message(&self) -> &[u8] {
        match self {
            Unsigned::Assertion(prepared) => prepared.signed_info(),
            Unsigned::Jws(prepared) => prepared.signing_input(),
        }
    }

    /// By what the record knows it.
    fn id(&self) -> Option<&str> {
        match self {
            Unsigned::Assertion(prepared) => Some(prepared.id()),
            Unsigned::Jws(prepared) => prepared.jti(),
        }
    }
}

/// What a key's signatures say of it, made once.
#[derive(Debug, Default)]
pub struct Faces {
    /// In the order of [`KeyInfo::ALL`]; those that need a certificate are missing without one
    jws: [Option<JwsKey>; 4],
    /// Likewise
    assertion: [Option<saml::KeyInfo>; 4],
    /// Bytes of each
    lens: [usize; 4],
}

impl Faces {
    pub(super) fn new(purpose: Purpose, label: &str, certificate: Option<&Chain>) -> Faces {
        let certificates = certificate.map_or(&[][..], Chain::certificates);
        // In base64 (of a JWS's header in base64 once more), with what is around each of them.
        let len = |der: &CertificateDer<'_>| der.len() * if purpose == Purpose::Jws { 16 } else { 12 } / 9 + 100;
        let chain = certificates.iter().map(len).sum();
        let lens = [0, certificates.first().map_or(0, len), chain, 0];
        match purpose {
            Purpose::Jws => Faces { jws: jws_faces(label, certificates), lens, ..Faces::default() },
            Purpose::Assertion => Faces { assertion: assertion_faces(certificates), lens, ..Faces::default() },
            _ => Faces::default(),
        }
    }

    /// By how much a signature that shows its key so makes its document longer, at most, in bytes; what waits with it
    /// for the token is counted in.
    pub fn growth(&self, key_info: KeyInfo) -> usize {
        const SIGNATURE: usize = 3072;
        self.lens[key_info as usize] + SIGNATURE
    }
}

fn assertion_faces(certificates: &[CertificateDer<'static>]) -> [Option<saml::KeyInfo>; 4] {
    let of = |certificates: &[CertificateDer<'static>]| {
        (!certificates.is_empty()).then(|| saml::KeyInfo::x509(certificates))
    };
    // XML-DSig has no thumbprint.
    [Some(saml::KeyInfo::NONE), of(&certificates[..certificates.len().min(1)]), of(certificates), None]
}

/// What a key is called is its `kid`: its name, and which version it is.
fn jws_faces(label: &str, certificates: &[CertificateDer<'static>]) -> [Option<JwsKey>; 4] {
    let face = |shown| JwsKey::new(Some(label), certificates, shown).ok();
    let kid = Shown { kid: true, ..Shown::default() };
    [
        face(kid),
        face(Shown { x5c: ShownChain::Leaf, ..kid }),
        face(Shown { x5c: ShownChain::All, ..kid }),
        face(Shown { x5t_s256: true, ..kid }),
    ]
}

/// Whether a key for JWS could show itself, for the one who reads the configuration.
///
/// # Errors
/// When what it is called, or its chain, is longer than a header takes.
pub fn jws_key_fits(label: &str, certificate: Option<&Chain>) -> Result<(), JwsKeyError> {
    let certificates = certificate.map_or(&[][..], Chain::certificates);
    JwsKey::new(Some(label), certificates, Shown { kid: true, ..Shown::default() }).map(drop)
}

/// The algorithm that a JWS calls so.
pub(super) fn jws_algorithm(name: &str) -> Option<Algorithm> {
    JwsAlgorithm::by_name(name).map(|algorithm| match algorithm {
        JwsAlgorithm::Rs256 => Algorithm::RsaPkcs1Sha256,
        JwsAlgorithm::Rs384 => Algorithm::RsaPkcs1Sha384,
        JwsAlgorithm::Rs512 => Algorithm::RsaPkcs1Sha512,
        JwsAlgorithm::Ps256 => Algorithm::RsaPssSha256,
        JwsAlgorithm::Ps384 => Algorithm::RsaPssSha384,
        JwsAlgorithm::Ps512 => Algorithm::RsaPssSha512,
        JwsAlgorithm::Es256 => Algorithm::EcdsaP256Sha256,
        JwsAlgorithm::Es384 => Algorithm::EcdsaP384Sha384,
        JwsAlgorithm::Es512 => Algorithm::EcdsaP521Sha512,
        JwsAlgorithm::EdDsa => Algorithm::Ed25519,
    })
}

/// The algorithm that an XML signature calls so (RFC 9231). Of ECDSA the curve is the key's.
pub(super) fn xml_algorithm(uri: &str) -> Option<Algorithm> {
    SignatureMethod::from_uri(uri).map(|method| match method {
        SignatureMethod::RsaSha256 => Algorithm::RsaPkcs1Sha256,
        SignatureMethod::RsaSha384 => Algorithm::RsaPkcs1Sha384,
        SignatureMethod::RsaSha512 => Algorithm::RsaPkcs1Sha512,
        SignatureMethod::RsaPssSha256 => Algorithm::RsaPssSha256,
        SignatureMethod::RsaPssSha384 => Algorithm::RsaPssSha384,
        SignatureMethod::RsaPssSha512 => Algorithm::RsaPssSha512,
        SignatureMethod::EcdsaSha256 => Algorithm::EcdsaP256Sha256,
        SignatureMethod::EcdsaSha384 => Algorithm::EcdsaP384Sha384,
        SignatureMethod::EcdsaSha512 => Algorithm::EcdsaP521Sha512,
    })
}

impl Permit {
    /// Decides on one assertion. `bytes_max` is the longest document that was announced.
    pub fn assertion(
        &self,
        document: &[u8],
        digest_method: &str,
        key_info: KeyInfo,
        capacity: Option<&segl_wire::Capacity>,
        bytes_max: u32,
    ) -> Result<(Authorised<'_>, Unsigned), Denied> {
        let Rules::Assertion(rules) = &self.rules else { return Err(Denied::NotGranted) };
        let method = SignatureMethod::ALL.iter().find(|known| xml_algorithm(known.uri()) == Some(self.algorithm));
        let method = *method.ok_or(Denied::AlgorithmNotAllowed)?;
        let digest_method = DigestMethod::from_uri(digest_method).ok_or(Denied::AlgorithmNotAllowed)?;
        let face = self.key.faces.assertion[key_info as usize].as_ref().ok_or(Denied::NoCertificate)?;
        let limits = saml::Limits { bytes_max: bytes_max as usize, ..saml::Limits::default() };
        let parsed = Document::parse(document, &limits).map_err(|why| Denied::Document(malformed(why)))?;
        let now_unix_s = u64::try_from(self.now_unix_s).unwrap_or_default();
        let violations = rules.check(parsed.assertion(), capacity.map(capacity_of), now_unix_s);
        if !violations.is_empty() {
            return Err(Denied::Document(Refusal::Policy(violations)));
        }
        self.document(Unsigned::Assertion(parsed.prepare(method, digest_method, face)))
    }

    /// Decides on one JWS.
    pub fn jws(
        &self,
        (header, payload): (&[u8], &[u8]),
        key_info: KeyInfo,
        capacity: Option<&segl_wire::Capacity>,
    ) -> Result<(Authorised<'_>, Unsigned), Denied> {
        let Rules::Jws(rules) = &self.rules else { return Err(Denied::NotGranted) };
        let algorithm = JwsAlgorithm::ALL.into_iter().find(|known| jws_algorithm(known.name()) == Some(self.algorithm));
        let algorithm = algorithm.ok_or(Denied::AlgorithmNotAllowed)?;
        let face = self.key.faces.jws[key_info as usize].as_ref().ok_or(Denied::NoCertificate)?;
        let now_unix_s = u64::try_from(self.now_unix_s).unwrap_or_default();
        let prepared = jws::prepare(header, payload, algorithm, face, rules, capacity.map(capacity_of), now_unix_s)
            .map_err(Denied::Document)?;
        self.document(Unsigned::Jws(prepared))
    }

    /// What has passed may be signed: the message, or of a long one its digest. Tokens hash as well as we do, and one in
    /// this process signs messages by a faster and safer library than digests.
    fn document(&self, unsigned: Unsigned) -> Result<(Authorised<'_>, Unsigned), Denied> {
        let message = unsigned.message();
        let input = match self.algorithm.digest() {
            Some(hash) if message.len() > MESSAGE_MAX => {
                Input::digest(self.algorithm, digest(ring_digest(hash), message).as_ref())?
            }
            _ => Input::message(message),
        };
        let document = unsigned.id().map(Into::into);
        Ok((Authorised { permit: self, input, document }, unsigned))
    }
}

fn malformed(why: Malformed) -> Refusal {
    let text = format!("{} (line {}, byte {})", why.text, why.line, why.offset);
    Refusal::Malformed(Violation { rule: why.rule.name(), place: why.xpath, text })
}

fn ring_digest(hash: Digest) -> &'static digest::Algorithm {
    match hash {
        Digest::Sha256 => &digest::SHA256,
        Digest::Sha384 => &digest::SHA384,
        Digest::Sha512 => &digest::SHA512,
    }
}

fn capacity_of(capacity: &segl_wire::Capacity) -> Capacity<'_> {
    match capacity {
        segl_wire::Capacity::Citizen => Capacity::Citizen,
        segl_wire::Capacity::Company(cvr) => Capacity::Company(cvr.as_str()),
    }
}
