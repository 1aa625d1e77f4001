//! Keys as the rest of Segl sees them: an id, what the token says of it, never a handle.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{Error, Verdict};

/// A logical key, the same on every token that holds it. Given by the daemon, never used again for another key
/// while the process lives, so that a late answer can not name a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u32);

/// A key's type and size, as read from the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// RSA with a modulus of so many bits
    Rsa {
        /// Modulus length
        bits: u16,
    },
    /// NIST P-256
    EcP256,
    /// NIST P-384
    EcP384,
    /// NIST P-521
    EcP521,
    /// Edwards25519
    Ed25519,
}

impl KeyType {
    /// The name without the size: `rsa`, `ec-p256`, ...
    pub const fn name(self) -> &'static str {
        match self {
            KeyType::Rsa { .. } => "rsa",
            KeyType::EcP256 => "ec-p256",
            KeyType::EcP384 => "ec-p384",
            KeyType::EcP521 => "ec-p521",
            KeyType::Ed25519 => "ed25519",
        }
    }

    /// Size in bits: the modulus of RSA, the field of a curve.
    pub const fn bits(self) -> u16 {
        match self {
            KeyType::Rsa { bits } => bits,
            KeyType::EcP256 => 256,
            KeyType::EcP384 => 384,
            KeyType::EcP521 => 521,
            KeyType::Ed25519 => 256,
        }
    }
}

impl KeyType {
    /// Length of its signatures in bytes, in the token's own form ([`crate::Signature`]).
    pub const fn signature_len(self) -> usize {
        match self {
            KeyType::Rsa { bits } => (bits as usize).div_ceil(8),
            KeyType::EcP256 | KeyType::Ed25519 => 64,
            KeyType::EcP384 => 96,
            KeyType::EcP521 => 132,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyType::Rsa { bits } => write!(f, "rsa-{bits}"),
            other => f.write_str(other.name()),
        }
    }
}

/// No key type has that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown key type: rsa-2048, rsa-3072, rsa-4096, ec-p256, ec-p384, ec-p521 or ed25519")]
pub struct UnknownKeyType;

impl FromStr for KeyType {
    type Err = UnknownKeyType;

    /// Reads what [`fmt::Display`] writes; of RSA the sizes new keys may have.
    fn from_str(name: &str) -> Result<Self, UnknownKeyType> {
        Ok(match name {
            "rsa-2048" => KeyType::Rsa { bits: 2048 },
            "rsa-3072" => KeyType::Rsa { bits: 3072 },
            "rsa-4096" => KeyType::Rsa { bits: 4096 },
            "ec-p256" => KeyType::EcP256,
            "ec-p384" => KeyType::EcP384,
            "ec-p521" => KeyType::EcP521,
            "ed25519" => KeyType::Ed25519,
            _ => return Err(UnknownKeyType),
        })
    }
}

/// Where a token finds a key: for PKCS#11 an RFC 7512 URI (`object`, `id`), for the embedded token a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// The logical key
    pub id: KeyId,
    /// In the token's own language
    pub locator: Arc<str>,
}

/// What a token says of a key it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Type and size
    pub key_type: KeyType,
    /// SubjectPublicKeyInfo, DER (RFC 5280 §4.1.2.7): by this two tokens' keys are the same key
    pub spki_der: Vec<u8>,
}

/// The result of looking a key up once, at login.
#[derive(Clone, Debug)]
pub struct KeyReport {
    /// The logical key
    pub id: KeyId,
    /// What the token holds under its locator, or why it can not be used there
    pub result: Result<KeyInfo, Error>,
}

impl KeyReport {
    /// The verdict on a failed look-up.
    pub fn verdict(&self) -> Option<Verdict> {
        self.result.as_ref().err().map(Error::verdict)
    }
}
