//! Verifies what a token signed: for self-tests, which know their message. By ring, and by p521 where ring has no
//! curve.

use p521::ecdsa::signature::Verifier;
use ring::signature as ring_signature;

use crate::{Algorithm, KeyType, spki};

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

/// Verifies a signature over the message itself. ECDSA signatures are `r || s`, as tokens give them.
pub fn verify(spki_der: &[u8], algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
    let public = spki::read(spki_der).map_err(|_| VerifyError::Key)?;
    if !algorithm.fits(public.key_type) {
        return Err(VerifyError::Algorithm);
    }
    if signature.len() != public.key_type.signature_len() {
        return Err(VerifyError::Signature);
    }
    if matches!(public.key_type, KeyType::Rsa { bits: ..2048 }) {
        return Err(VerifyError::Key);
    }
    let parameters: &dyn ring_signature::VerificationAlgorithm = match algorithm {
        Algorithm::RsaPkcs1Sha256 => &ring_signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RsaPkcs1Sha384 => &ring_signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RsaPkcs1Sha512 => &ring_signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::RsaPssSha256 => &ring_signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::RsaPssSha384 => &ring_signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::RsaPssSha512 => &ring_signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::EcdsaP256Sha256 => &ring_signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::EcdsaP384Sha384 => &ring_signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::EcdsaP521Sha512 => return verify_p521(public.key, message, signature),
        Algorithm::Ed25519 => &ring_signature::ED25519,
    };
    ring_signature::UnparsedPublicKey::new(parameters, public.key)
        .verify(message, signature)
        .map_err(|_| VerifyError::Signature)
}

fn verify_p521(point: &[u8], message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
    let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| VerifyError::Key)?;
    let signature = p521::ecdsa::Signature::from_slice(signature).map_err(|_| VerifyError::Signature)?;
    key.verify(message, &signature).map_err(|_| VerifyError::Signature)
}
