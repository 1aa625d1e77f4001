//! What goes into a token and what comes out: small, owned, bounded.

use std::{fmt, sync::Arc};

use crate::{Algorithm, Digest};

/// The longest signature of any algorithm: RSA-8192.
pub const SIGNATURE_LEN_MAX: usize = 1024;

/// A digest, held inline so that queueing it allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DigestBytes {
    len: u8,
    bytes: [u8; 64],
}

impl DigestBytes {
    /// Takes 32, 48 or 64 bytes, anything else is none of our digests.
    pub fn new(digest: &[u8]) -> Option<Self> {
        if !matches!(digest.len(), 32 | 48 | 64) {
            return None;
        }
        let mut bytes = [0; 64];
        bytes[..digest.len()].copy_from_slice(digest);
        Some(DigestBytes { len: digest.len() as u8, bytes })
    }

    /// The digest's own bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for DigestBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What is signed.
#[derive(Clone, PartialEq, Eq)]
pub enum Input {
    /// The hash of the data, made elsewhere (a DTBS/R); its length is the algorithm's
    Digest(DigestBytes),
    /// The data itself; the token hashes it as the algorithm says
    Message(Arc<[u8]>),
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Digest(digest) => write!(f, "Digest({digest:?})"),
            Input::Message(message) => write!(f, "Message({} bytes)", message.len()),
        }
    }
}

/// An input that does not go with the algorithm: the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// A digest of another length than the algorithm's hash
    #[error("{algorithm} signs a digest of {} bytes, not {got}", expected.len())]
    DigestLength {
        /// The algorithm asked for
        algorithm: Algorithm,
        /// Its hash
        expected: Digest,
        /// Bytes given
        got: usize,
    },
    /// A digest for an algorithm that signs the message itself
    #[error("{algorithm} signs a message, not a digest")]
    DigestGiven {
        /// The algorithm asked for
        algorithm: Algorithm,
    },
}

impl Input {
    /// A digest for this algorithm, its length checked.
    pub fn digest(algorithm: Algorithm, digest: &[u8]) -> Result<Input, InputError> {
        let Some(expected) = algorithm.digest() else { return Err(InputError::DigestGiven { algorithm }) };
        let wrong = InputError::DigestLength { algorithm, expected, got: digest.len() };
        if digest.len() != expected.len() {
            return Err(wrong);
        }
        DigestBytes::new(digest).map(Input::Digest).ok_or(wrong)
    }

    /// A message; the caller has bounded its length.
    pub fn message(message: &[u8]) -> Input {
        Input::Message(message.into())
    }
}

/// A signature in the token's own form: ECDSA is `r || s` of fixed width (PKCS#11 3.0 §2.3.1), the daemon makes DER.
pub type Signature = Vec<u8>;
