//! Verifies what a token signed. Messages by ring, digests (which ring has no call for), P-521 and short RSA keys by
//! RustCrypto. Only public keys are at work here: rsa's open advisory (RUSTSEC-2023-0071) is about private ones.

use p521::ecdsa::signature::hazmat::PrehashVerifier;
use ring::{digest, signature as ring_signature};
use rsa::{
    Pkcs1v15Sign, Pss, RsaPublicKey,
    pkcs1::DecodeRsaPublicKey,
    sha2::{Sha256, Sha384, Sha512},
};

use crate::{Algorithm, Digest, Input, KeyType, spki};

/// Why a signature was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The public key can not be read, or not used (RSA under 2048 bits)
    #[error("the public key can not be used")]
    Key,
    /// Algorithm and key do not go together
    #[error("the algorithm does not fit the key")]
    Algorithm,
    /// It is no signature of this message by this key
    #[error("the signature does not verify")]
    Signature,
}

/// Verifies a signature over the message itself. ECDSA signatures are `r || s`, as tokens give them. RSA keys under
/// 2048 bits are refused.
pub fn verify(spki_der: &[u8], algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
    let verifier = Verifier::new(spki_der)?;
    if matches!(verifier.key_type, KeyType::Rsa { bits: ..2048 }) {
        return Err(VerifyError::Key);
    }
    verifier.check(algorithm, signature)?;
    verifier.message(algorithm, message, signature)
}

/// A public key, read once, to verify many signatures with.
#[derive(Clone, Debug)]
pub struct Verifier {
    key_type: KeyType,
    /// In ring's form
    key: Vec<u8>,
    digests: Digests,
}

/// For signatures over digests.
#[derive(Clone, Debug)]
enum Digests {
    Rsa(Box<RsaPublicKey>),
    P256(Box<p256::ecdsa::VerifyingKey>),
    P384(Box<p384::ecdsa::VerifyingKey>),
    P521(Box<p521::ecdsa::VerifyingKey>),
    Ed25519,
}

impl Verifier {
    /// Reads a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`VerifyError::Key`] when it is of no key known here, a point that is not on its curve, or RSA above 4096 bits.
    pub fn new(spki_der: &[u8]) -> Result<Verifier, VerifyError> {
        let public = spki::read(spki_der).map_err(|_| VerifyError::Key)?;
        let unusable = |_| VerifyError::Key;
        let digests = match public.key_type {
            KeyType::Rsa { .. } => {
                Digests::Rsa(Box::new(RsaPublicKey::from_pkcs1_der(public.key).map_err(|_| VerifyError::Key)?))
            }
            KeyType::EcP256 => {
                Digests::P256(Box::new(p256::ecdsa::VerifyingKey::from_sec1_bytes(public.key).map_err(unusable)?))
            }
            KeyType::EcP384 => {
                Digests::P384(Box::new(p384::ecdsa::VerifyingKey::from_sec1_bytes(public.key).map_err(unusable)?))
            }
            KeyType::EcP521 => {
                Digests::P521(Box::new(p521::ecdsa::VerifyingKey::from_sec1_bytes(public.key).map_err(unusable)?))
            }
            KeyType::Ed25519 => Digests::Ed25519,
        };
        Ok(Verifier { key_type: public.key_type, key: public.key.to_vec(), digests })
    }

    /// Verifies what [`crate::Session::sign`] gave for this input.
    ///
    /// # Errors
    /// When it is not what the token should have given.
    pub fn verify(&self, algorithm: Algorithm, input: &Input, signature: &[u8]) -> Result<(), VerifyError> {
        self.check(algorithm, signature)?;
        match input {
            Input::Message(message) => self.message(algorithm, message, signature),
            Input::Digest(digest) => {
                let expected = algorithm.digest().ok_or(VerifyError::Algorithm)?;
                if digest.as_slice().len() != expected.len() {
                    return Err(VerifyError::Algorithm);
                }
                self.digest(algorithm, digest.as_slice(), signature)
            }
        }
    }

    fn check(&self, algorithm: Algorithm, signature: &[u8]) -> Result<(), VerifyError> {
        if !algorithm.fits(self.key_type) {
            return Err(VerifyError::Algorithm);
        }
        if signature.len() != self.key_type.signature_len() {
            return Err(VerifyError::Signature);
        }
        Ok(())
    }

    fn message(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        let parameters: &dyn ring_signature::VerificationAlgorithm = match algorithm {
            // What ring does not do: P-521, and RSA below 2048 bits.
            _ if matches!(self.key_type, KeyType::EcP521 | KeyType::Rsa { bits: ..2048 }) => {
                let hash = match algorithm.digest().ok_or(VerifyError::Algorithm)? {
                    Digest::Sha256 => &digest::SHA256,
                    Digest::Sha384 => &digest::SHA384,
                    Digest::Sha512 => &digest::SHA512,
                };
                return self.digest(algorithm, digest::digest(hash, message).as_ref(), signature);
            }
            Algorithm::RsaPkcs1Sha256 => &ring_signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RsaPkcs1Sha384 => &ring_signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RsaPkcs1Sha512 => &ring_signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::RsaPssSha256 => &ring_signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::RsaPssSha384 => &ring_signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::RsaPssSha512 => &ring_signature::RSA_PSS_2048_8192_SHA512,
            Algorithm::EcdsaP256Sha256 => &ring_signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::EcdsaP384Sha384 => &ring_signature::ECDSA_P384_SHA384_FIXED,
            Algorithm::EcdsaP521Sha512 => return Err(VerifyError::Algorithm),
            Algorithm::Ed25519 => &ring_signature::ED25519,
        };
        ring_signature::UnparsedPublicKey::new(parameters, &self.key)
            .verify(message, signature)
            .map_err(|_| VerifyError::Signature)
    }

    fn digest(&self, algorithm: Algorithm, digest: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        let accepted = match &self.digests {
            Digests::Rsa(key) => match algorithm {
                Algorithm::RsaPkcs1Sha256 => key.verify(Pkcs1v15Sign::new::<Sha256>(), digest, signature).is_ok(),
                Algorithm::RsaPkcs1Sha384 => key.verify(Pkcs1v15Sign::new::<Sha384>(), digest, signature).is_ok(),
                Algorithm::RsaPkcs1Sha512 => key.verify(Pkcs1v15Sign::new::<Sha512>(), digest, signature).is_ok(),
                Algorithm::RsaPssSha256 => key.verify(Pss::<Sha256>::new(), digest, signature).is_ok(),
                Algorithm::RsaPssSha384 => key.verify(Pss::<Sha384>::new(), digest, signature).is_ok(),
                Algorithm::RsaPssSha512 => key.verify(Pss::<Sha512>::new(), digest, signature).is_ok(),
                _ => return Err(VerifyError::Algorithm),
            },
            Digests::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
            Digests::P384(key) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
            Digests::P521(key) => p521::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
            Digests::Ed25519 => return Err(VerifyError::Algorithm),
        };
        if accepted { Ok(()) } else { Err(VerifyError::Signature) }
    }
}
