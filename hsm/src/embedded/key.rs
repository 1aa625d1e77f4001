//! One private key, in the forms its two libraries want it, and the making of new ones.

use p256::pkcs8::{
    DecodePrivateKey, EncodePrivateKey, LineEnding, PrivateKeyInfoRef, SecretDocument, der::pem::PemLabel,
};
use ring::{
    rand::SystemRandom,
    signature::{self as ring_signature, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use rsa::{
    Pkcs1v15Sign, Pss, RsaPrivateKey,
    pkcs1::EncodeRsaPrivateKey,
    rand_core::UnwrapErr,
    sha2::{Sha256, Sha384, Sha512},
    traits::PublicKeyParts,
};
use zeroize::Zeroizing;

use crate::{Algorithm, Error, Input, KeyInfo, KeyType, Kind, Result, Signature, spki::PublicKey};

pub(super) struct PrivateKey {
    pub(super) info: KeyInfo,
    pair: Pair,
}

/// For messages the one, for digests the other. Boxed where they are large.
enum Pair {
    Rsa(Box<(RsaKeyPair, RsaPrivateKey)>),
    P256(EcdsaKeyPair, p256::ecdsa::SigningKey),
    P384(EcdsaKeyPair, p384::ecdsa::SigningKey),
    P521(Box<p521::ecdsa::SigningKey>),
    Ed25519(Ed25519KeyPair),
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivateKey({})", self.info.key_type)
    }
}

impl PrivateKey {
    /// Reads PKCS#8 (RFC 5208, 5958), PEM or DER, not encrypted.
    pub(super) fn from_file(contents: &[u8]) -> Result<PrivateKey> {
        let der = match std::str::from_utf8(contents) {
            Ok(text) if text.trim_start().starts_with("-----BEGIN") => {
                let (label, document) = SecretDocument::from_pem(text).map_err(unusable)?;
                PrivateKeyInfoRef::validate_pem_label(label)
                    .map_err(|_| unusable(format!("PEM label {label:?}, not PRIVATE KEY (PKCS#8)")))?;
                document
            }
            _ => SecretDocument::try_from(contents).map_err(unusable)?,
        };
        PrivateKey::from_pkcs8(der.as_bytes())
    }

    fn from_pkcs8(der: &[u8]) -> Result<PrivateKey> {
        let algorithm = PrivateKeyInfoRef::try_from(der).map_err(unusable)?.algorithm;
        let curve = algorithm.parameters_oid().map(|oid| oid.to_string()).unwrap_or_default();
        match (algorithm.oid.to_string().as_str(), curve.as_str()) {
            ("1.2.840.113549.1.1.1", _) => PrivateKey::rsa(der),
            ("1.2.840.10045.2.1", "1.2.840.10045.3.1.7") => PrivateKey::p256(der),
            ("1.2.840.10045.2.1", "1.3.132.0.34") => PrivateKey::p384(der),
            ("1.2.840.10045.2.1", "1.3.132.0.35") => {
                let key = p521::ecdsa::SigningKey::from_pkcs8_der(der).map_err(unusable)?;
                let point = key.verifying_key().to_sec1_point(false);
                Ok(PrivateKey::new(KeyType::EcP521, point.as_bytes(), Pair::P521(Box::new(key))))
            }
            ("1.3.101.112", _) => {
                let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(unusable)?;
                let public = key.public_key().as_ref().to_vec();
                Ok(PrivateKey::new(KeyType::Ed25519, &public, Pair::Ed25519(key)))
            }
            (oid, _) => Err(unusable(format!("algorithm {oid} {curve} is none of ours"))),
        }
    }

    fn rsa(der: &[u8]) -> Result<PrivateKey> {
        let key = RsaPrivateKey::from_pkcs8_der(der).map_err(unusable)?;
        let pkcs1 = key.to_pkcs1_der().map_err(unusable)?;
        // ring takes 2048 to 4096 bits, as this token does.
        let pair = RsaKeyPair::from_der(pkcs1.as_bytes()).map_err(unusable)?;
        let bits = u16::try_from(key.n().bits()).map_err(unusable)?;
        let public = pair.public_key().as_ref().to_vec();
        Ok(PrivateKey::new(KeyType::Rsa { bits }, &public, Pair::Rsa(Box::new((pair, key)))))
    }

    fn p256(der: &[u8]) -> Result<PrivateKey> {
        let key = p256::ecdsa::SigningKey::from_pkcs8_der(der).map_err(unusable)?;
        let point = key.verifying_key().to_sec1_point(false);
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ring_signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &Zeroizing::new(key.to_bytes()),
            point.as_bytes(),
            &SystemRandom::new(),
        );
        let pair = pair.map_err(unusable)?;
        Ok(PrivateKey::new(KeyType::EcP256, point.as_bytes(), Pair::P256(pair, key)))
    }

    fn p384(der: &[u8]) -> Result<PrivateKey> {
        let key = p384::ecdsa::SigningKey::from_pkcs8_der(der).map_err(unusable)?;
        let point = key.verifying_key().to_sec1_point(false);
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ring_signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            &Zeroizing::new(key.to_bytes()),
            point.as_bytes(),
            &SystemRandom::new(),
        );
        let pair = pair.map_err(unusable)?;
        Ok(PrivateKey::new(KeyType::EcP384, point.as_bytes(), Pair::P384(pair, key)))
    }

    fn new(key_type: KeyType, public: &[u8], pair: Pair) -> PrivateKey {
        let spki_der = PublicKey { key_type, key: public }.to_spki_der();
        PrivateKey { info: KeyInfo { key_type, spki_der }, pair }
    }

    pub(super) fn sign(&self, algorithm: Algorithm, input: &Input, out: &mut Signature) -> Result<()> {
        if !algorithm.fits(self.info.key_type) {
            let detail = format!("{algorithm} with a key of type {}", self.info.key_type);
            return Err(Error::of(Kind::AlgorithmUnsupported, "sign", detail));
        }
        match input {
            Input::Message(message) => self.sign_message(algorithm, message, out),
            Input::Digest(digest) => {
                let checked = Input::digest(algorithm, digest.as_slice());
                checked.map_err(|error| Error::of(Kind::InputRefused, "sign", error.to_string()))?;
                self.sign_digest(algorithm, digest.as_slice(), out)
            }
        }
    }

    fn sign_message(&self, algorithm: Algorithm, message: &[u8], out: &mut Signature) -> Result<()> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let padding: &dyn ring_signature::RsaEncoding = match algorithm {
                    Algorithm::RsaPkcs1Sha256 => &ring_signature::RSA_PKCS1_SHA256,
                    Algorithm::RsaPkcs1Sha384 => &ring_signature::RSA_PKCS1_SHA384,
                    Algorithm::RsaPkcs1Sha512 => &ring_signature::RSA_PKCS1_SHA512,
                    Algorithm::RsaPssSha256 => &ring_signature::RSA_PSS_SHA256,
                    Algorithm::RsaPssSha384 => &ring_signature::RSA_PSS_SHA384,
                    _ => &ring_signature::RSA_PSS_SHA512,
                };
                out.resize(pair.0.public().modulus_len(), 0);
                pair.0.sign(padding, &random, message, out).map_err(failed)
            }
            Pair::P256(pair, _) | Pair::P384(pair, _) => {
                out.extend_from_slice(pair.sign(&random, message).map_err(failed)?.as_ref());
                Ok(())
            }
            Pair::P521(_) => {
                let digest = ring::digest::digest(&ring::digest::SHA512, message);
                self.sign_digest(algorithm, digest.as_ref(), out)
            }
            Pair::Ed25519(pair) => {
                out.extend_from_slice(pair.sign(message).as_ref());
                Ok(())
            }
        }
    }

    /// ECDSA's nonces are RFC 6979's; RSA's blinding and salt are the system's random numbers.
    fn sign_digest(&self, algorithm: Algorithm, digest: &[u8], out: &mut Signature) -> Result<()> {
        use p256::ecdsa::signature::hazmat::PrehashSigner;
        match &self.pair {
            Pair::Rsa(pair) => {
                let key = &pair.1;
                let signature = match algorithm {
                    Algorithm::RsaPkcs1Sha256 => key.sign(Pkcs1v15Sign::new::<Sha256>(), digest),
                    Algorithm::RsaPkcs1Sha384 => key.sign(Pkcs1v15Sign::new::<Sha384>(), digest),
                    Algorithm::RsaPkcs1Sha512 => key.sign(Pkcs1v15Sign::new::<Sha512>(), digest),
                    Algorithm::RsaPssSha256 => key.sign(Pss::<Sha256>::new(), digest),
                    Algorithm::RsaPssSha384 => key.sign(Pss::<Sha384>::new(), digest),
                    _ => key.sign(Pss::<Sha512>::new(), digest),
                };
                out.extend_from_slice(&signature.map_err(failed)?);
            }
            Pair::P256(_, key) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash(digest).map_err(failed)?;
                out.extend_from_slice(&signature.to_bytes());
            }
            Pair::P384(_, key) => {
                let signature: p384::ecdsa::Signature = key.sign_prehash(digest).map_err(failed)?;
                out.extend_from_slice(&signature.to_bytes());
            }
            Pair::P521(key) => {
                let signature: p521::ecdsa::Signature = key.sign_prehash(digest).map_err(failed)?;
                out.extend_from_slice(&signature.to_bytes());
            }
            Pair::Ed25519(_) => {
                return Err(Error::of(Kind::InputRefused, "sign", "Ed25519 signs a message, not a digest"));
            }
        }
        Ok(())
    }
}

/// A new key as PKCS#8 in PEM, which openssl reads as well.
pub(super) fn generate_pem(key_type: KeyType) -> Result<Zeroizing<Vec<u8>>> {
    use p256::elliptic_curve::Generate;
    let pem = match key_type {
        KeyType::Rsa { bits } if matches!(bits, 2048 | 3072 | 4096) => {
            let mut random = UnwrapErr(getrandom::SysRng);
            let key = RsaPrivateKey::new(&mut random, usize::from(bits)).map_err(failed)?;
            key.to_pkcs8_pem(LineEnding::LF)
        }
        KeyType::Rsa { bits } => {
            let detail = format!("RSA of {bits} bits: 2048, 3072 or 4096");
            return Err(Error::of(Kind::AlgorithmUnsupported, "generate", detail));
        }
        KeyType::EcP256 => p256::SecretKey::generate().to_pkcs8_pem(LineEnding::LF),
        KeyType::EcP384 => p384::SecretKey::generate().to_pkcs8_pem(LineEnding::LF),
        KeyType::EcP521 => p521::SecretKey::generate().to_pkcs8_pem(LineEnding::LF),
        KeyType::Ed25519 => {
            // Version 1 (RFC 8410 §7), since openssl 3.0 does not read ring's version 2.
            let mut der = Zeroizing::new([0; 48]);
            let (head, seed) = der.split_at_mut(16);
            head.copy_from_slice(&ED25519_PKCS8_HEAD);
            getrandom::fill(seed).map_err(failed)?;
            SecretDocument::try_from(&der[..])
                .and_then(|document| document.to_pem("PRIVATE KEY", LineEnding::LF))
                .map_err(Into::into)
        }
    };
    Ok(Zeroizing::new(pem.map_err(failed)?.as_bytes().to_vec()))
}

/// SEQUENCE, version 0, id-Ed25519, and the heads of the two OCTET STRINGs around the seed.
const ED25519_PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

fn unusable(why: impl std::fmt::Display) -> Error {
    Error::of(Kind::KeyUnusable, "key file", why.to_string())
}

fn failed(why: impl std::fmt::Display) -> Error {
    Error::of(Kind::Other, "embedded", why.to_string())
}
