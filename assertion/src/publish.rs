//! What the world is told of a signing key: an entry of a JWK set (RFC 7517, RFC 7518 §6, RFC 8037) and the
//! `md:KeyDescriptor` of SAML metadata.
//!
//! Both are made from the public key and the configured certificates alone.

mod public_key;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::digest;
use serde::Serialize;

use self::public_key::{Curve, PublicKey};
use crate::jws::{JwsAlgorithm, x5t_s256};

/// Why a key cannot be published: the operator's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not DER of a SubjectPublicKeyInfo (RFC 5280 §4.1)
    #[error("the public key is no SubjectPublicKeyInfo in DER")]
    PublicKey,
    /// A key of a kind that Segl does not sign with
    #[error("the public key is neither RSA nor on P-256, P-384, P-521 or Ed25519, or its point is compressed")]
    UnknownKind,
    /// Not DER of a certificate
    #[error("a certificate is no X.509 in DER")]
    Certificate,
    /// The first certificate is another key's
    #[error("the first certificate is not that of the public key")]
    OtherKey,
    /// An algorithm that this key cannot do
    #[error("the key cannot sign with {0}")]
    Algorithm(&'static str),
}

/// An entry of a JWK set: a public signing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Jwk {
    kty: &'static str,
    kid: String,
    #[serde(rename = "use")]
    usage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'static str>,
    #[serde(flatten)]
    parameters: Parameters,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    x5c: Vec<String>,
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    x5t_s256: Option<String>,
}

/// The members that a key type has of its own (RFC 7518 §6, RFC 8037 §2), in the order that RFC 7638 §3.2 hashes them
/// in, `kty` aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Parameters {
    Ec { crv: &'static str, x: String, y: String },
    Okp { crv: &'static str, x: String },
    Rsa { e: String, n: String },
}

impl Jwk {
    /// Takes the public key as SubjectPublicKeyInfo, its certificates (the leaf first, all in DER), the one algorithm it
    /// signs with if there is one only, and its `kid`; without one, the `kid` is the key's [`thumbprint`].
    ///
    /// # Errors
    /// When the parts cannot be read or do not belong together.
    pub fn new(
        spki: &[u8],
        certificates: &[impl AsRef<[u8]>],
        algorithm: Option<JwsAlgorithm>,
        kid: Option<&str>,
    ) -> Result<Jwk, PublishError> {
        let key = PublicKey::parse(spki)?;
        public_key::check_certificates(spki, certificates)?;
        if let Some(algorithm) = algorithm.filter(|algorithm| !key.can(*algorithm)) {
            return Err(PublishError::Algorithm(algorithm.name()));
        }
        let (kty, parameters) = parameters(&key);
        Ok(Jwk {
            kty,
            kid: kid.map_or_else(|| thumbprint_of(kty, &parameters), str::to_owned),
            usage: "sig",
            alg: algorithm.map(JwsAlgorithm::name),
            parameters,
            x5c: certificates.iter().map(|certificate| STANDARD.encode(certificate)).collect(),
            x5t_s256: certificates.first().map(|leaf| x5t_s256(leaf.as_ref())),
        })
    }

    /// The key's `kid`.
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

/// A JWK set (RFC 7517 §5), `application/jwk-set+json`.
pub fn jwks(keys: &[Jwk]) -> String {
    #[derive(Serialize)]
    struct Set<'a> {
        keys: &'a [Jwk],
    }
    serde_json::to_string(&Set { keys }).expect("texts serialise to JSON")
}

/// The JWK thumbprint with SHA-256 (RFC 7638), in base64url: the `kid` of a key that has no other.
///
/// # Errors
/// When the key cannot be read or is of no known kind.
pub fn thumbprint(spki: &[u8]) -> Result<String, PublishError> {
    let (kty, parameters) = parameters(&PublicKey::parse(spki)?);
    Ok(thumbprint_of(kty, &parameters))
}

/// A `md:KeyDescriptor` with `use="signing"` (SAML metadata §2.4.1.1), standing by itself: it declares its own
/// namespaces. It carries the certificates, the leaf first; without one, the public key as `ds:KeyValue`.
///
/// # Errors
/// When the parts cannot be read or do not belong together; an Ed25519 key without a certificate has no `KeyValue`.
pub fn key_descriptor(spki: &[u8], certificates: &[impl AsRef<[u8]>]) -> Result<String, PublishError> {
    let key = PublicKey::parse(spki)?;
    public_key::check_certificates(spki, certificates)?;
    let info = if certificates.is_empty() {
        key_value(&key)?
    } else {
        let element =
            |certificate: &[u8]| format!("<ds:X509Certificate>{}</ds:X509Certificate>", STANDARD.encode(certificate));
        let all: String = certificates.iter().map(|certificate| element(certificate.as_ref())).collect();
        format!("<ds:X509Data>{all}</ds:X509Data>")
    };
    Ok(format!(
        "<md:KeyDescriptor xmlns:md=\"urn:oasis:names:tc:SAML:2.0:metadata\" use=\"signing\">\
         <ds:KeyInfo xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">{info}</ds:KeyInfo></md:KeyDescriptor>"
    ))
}

/// XML Signature 1.1 §4.5.2.
fn key_value(key: &PublicKey<'_>) -> Result<String, PublishError> {
    let value = match key {
        PublicKey::Rsa { modulus, exponent } => format!(
            "<ds:RSAKeyValue><ds:Modulus>{}</ds:Modulus><ds:Exponent>{}</ds:Exponent></ds:RSAKeyValue>",
            STANDARD.encode(modulus),
            STANDARD.encode(exponent)
        ),
        PublicKey::Ec { curve, point, .. } => format!(
            "<dsig11:ECKeyValue xmlns:dsig11=\"http://www.w3.org/2009/xmldsig11#\">\
             <dsig11:NamedCurve URI=\"urn:oid:{}\"/><dsig11:PublicKey>{}</dsig11:PublicKey></dsig11:ECKeyValue>",
            curve.oid(),
            STANDARD.encode(point)
        ),
        PublicKey::Ed25519 { .. } => return Err(PublishError::UnknownKind),
    };
    Ok(format!("<ds:KeyValue>{value}</ds:KeyValue>"))
}

fn parameters(key: &PublicKey<'_>) -> (&'static str, Parameters) {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match *key {
        PublicKey::Rsa { modulus, exponent } => ("RSA", Parameters::Rsa { e: text(exponent), n: text(modulus) }),
        PublicKey::Ec { curve, x, y, .. } => ("EC", Parameters::Ec { crv: curve.name(), x: text(x), y: text(y) }),
        PublicKey::Ed25519 { x } => ("OKP", Parameters::Okp { crv: "Ed25519", x: text(x) }),
    }
}

fn thumbprint_of(kty: &str, parameters: &Parameters) -> String {
    // Names in lexicographic order, no space; the values need no escape.
    let hashed = match parameters {
        Parameters::Ec { crv, x, y } => format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}"#),
        Parameters::Okp { crv, x } => format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}"}}"#),
        Parameters::Rsa { e, n } => format!(r#"{{"e":"{e}","kty":"{kty}","n":"{n}"}}"#),
    };
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, hashed.as_bytes()))
}

impl PublicKey<'_> {
    /// Whether the key can sign with the algorithm (RFC 7518 §3.1: the curve belongs to the algorithm).
    fn can(&self, algorithm: JwsAlgorithm) -> bool {
        use JwsAlgorithm::{EdDsa, Es256, Es384, Es512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        match self {
            PublicKey::Rsa { .. } => matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512),
            PublicKey::Ec { curve: Curve::P256, .. } => algorithm == Es256,
            PublicKey::Ec { curve: Curve::P384, .. } => algorithm == Es384,
            PublicKey::Ec { curve: Curve::P521, .. } => algorithm == Es512,
            PublicKey::Ed25519 { .. } => algorithm == EdDsa,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [&[u8]; 0] = [];

    /// RFC 8037 appendix A.2 and A.3.
    #[test]
    fn the_thumbprint_of_an_ed25519_key_is_that_of_the_rfc() {
        let x = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let spki = [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", &*x].concat();
        assert_eq!(thumbprint(&spki).unwrap(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let jwk = Jwk::new(&spki, &NONE, Some(JwsAlgorithm::EdDsa), None).unwrap();
        assert_eq!(
            jwks(&[jwk]),
            r#"{"keys":[{"kty":"OKP","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","use":"sig","alg":"EdDSA","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#
        );
    }

    /// RFC 7638 §3.1.
    #[test]
    fn the_thumbprint_of_an_rsa_key_is_that_of_the_rfc() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCi\
                 FV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb\
                 9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls\
                 1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let n = URL_SAFE_NO_PAD.decode(n).unwrap();
        let spki = [
            &b"\x30\x82\x01\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x01\x0f\x00"[..],
            b"\x30\x82\x01\x0a\x02\x82\x01\x01\x00",
            &n,
            b"\x02\x03\x01\x00\x01",
        ]
        .concat();
        assert_eq!(thumbprint(&spki).unwrap(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(Jwk::new(&spki, &NONE, Some(JwsAlgorithm::Es256), None), Err(PublishError::Algorithm("ES256")));
        let modulus = STANDARD.encode(&n);
        let descriptor = key_descriptor(&spki, &NONE).unwrap();
        assert!(descriptor.contains(&format!("<ds:Modulus>{modulus}</ds:Modulus><ds:Exponent>AQAB</ds:Exponent>")));
    }

    #[test]
    fn what_is_no_key_or_another_s_certificate_is_refused() {
        // Ed25519, with a byte more in the sequence behind the key.
        for more in [0, 7] {
            let head = b"\x30\x2b\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".as_slice();
            let longer = [head, &[7; 32], &[more]].concat();
            assert_eq!(thumbprint(&longer), Err(PublishError::PublicKey));
        }
        assert_eq!(thumbprint(b""), Err(PublishError::PublicKey));
        let x25519 = [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x6e\x03\x21\x00".as_slice(), &[1; 32]].concat();
        assert_eq!(thumbprint(&x25519), Err(PublishError::UnknownKind));
        let own = rcgen::KeyPair::generate().unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&other).unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&own);
        let refused = Jwk::new(&spki, &[certificate.der()], None, None);
        assert_eq!(refused, Err(PublishError::OtherKey));
        assert_eq!(key_descriptor(&spki, &[b"no certificate"]), Err(PublishError::Certificate));
        let trailing = [&*spki, b"\x00"].concat();
        assert_eq!(thumbprint(&trailing), Err(PublishError::PublicKey));
    }
}
