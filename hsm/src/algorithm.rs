//! What a key can be asked to do, by the field's own names.

use std::{fmt, str::FromStr};

use crate::KeyType;

/// A hash function of FIPS 180-4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

impl Digest {
    /// Length of its output in bytes.
    #[allow(clippy::len_without_is_empty)] // a digest is never empty
    pub const fn len(self) -> usize {
        match self {
            Digest::Sha256 => 32,
            Digest::Sha384 => 48,
            Digest::Sha512 => 64,
        }
    }
}

/// A signature algorithm with everything fixed: scheme, hash, and for ECDSA the curve.
///
/// RSASSA-PSS (RFC 8017 §8.1) always uses MGF1 with the same hash and a salt as long as the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2)
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512
    RsaPkcs1Sha512,
    /// RSASSA-PSS with SHA-256
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512
    RsaPssSha512,
    /// ECDSA on P-256 with SHA-256 (FIPS 186-5)
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-384
    EcdsaP384Sha384,
    /// ECDSA on P-521 with SHA-512
    EcdsaP521Sha512,
    /// Ed25519, pure (RFC 8032); it signs the message, not a digest
    Ed25519,
}

impl Algorithm {
    /// Every algorithm there is, in the order of declaration.
    pub const ALL: [Algorithm; 10] = [
        Algorithm::RsaPkcs1Sha256,
        Algorithm::RsaPkcs1Sha384,
        Algorithm::RsaPkcs1Sha512,
        Algorithm::RsaPssSha256,
        Algorithm::RsaPssSha384,
        Algorithm::RsaPssSha512,
        Algorithm::EcdsaP256Sha256,
        Algorithm::EcdsaP384Sha384,
        Algorithm::EcdsaP521Sha512,
        Algorithm::Ed25519,
    ];

    /// The name used in configuration, on the wire and in the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::RsaPkcs1Sha256 => "rsa-pkcs1-sha256",
            Algorithm::RsaPkcs1Sha384 => "rsa-pkcs1-sha384",
            Algorithm::RsaPkcs1Sha512 => "rsa-pkcs1-sha512",
            Algorithm::RsaPssSha256 => "rsa-pss-sha256",
            Algorithm::RsaPssSha384 => "rsa-pss-sha384",
            Algorithm::RsaPssSha512 => "rsa-pss-sha512",
            Algorithm::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Algorithm::EcdsaP384Sha384 => "ecdsa-p384-sha384",
            Algorithm::EcdsaP521Sha512 => "ecdsa-p521-sha512",
            Algorithm::Ed25519 => "ed25519",
        }
    }

    /// The hash whose output is signed; none for Ed25519, which hashes inside.
    pub const fn digest(self) -> Option<Digest> {
        match self {
            Algorithm::RsaPkcs1Sha256 | Algorithm::RsaPssSha256 | Algorithm::EcdsaP256Sha256 => Some(Digest::Sha256),
            Algorithm::RsaPkcs1Sha384 | Algorithm::RsaPssSha384 | Algorithm::EcdsaP384Sha384 => Some(Digest::Sha384),
            Algorithm::RsaPkcs1Sha512 | Algorithm::RsaPssSha512 | Algorithm::EcdsaP521Sha512 => Some(Digest::Sha512),
            Algorithm::Ed25519 => None,
        }
    }

    /// Whether a key of this type can do it at all (the token may still lack the mechanism).
    pub const fn fits(self, key: KeyType) -> bool {
        match self {
            Algorithm::RsaPkcs1Sha256
            | Algorithm::RsaPkcs1Sha384
            | Algorithm::RsaPkcs1Sha512
            | Algorithm::RsaPssSha256
            | Algorithm::RsaPssSha384
            | Algorithm::RsaPssSha512 => matches!(key, KeyType::Rsa { .. }),
            Algorithm::EcdsaP256Sha256 => matches!(key, KeyType::EcP256),
            Algorithm::EcdsaP384Sha384 => matches!(key, KeyType::EcP384),
            Algorithm::EcdsaP521Sha512 => matches!(key, KeyType::EcP521),
            Algorithm::Ed25519 => matches!(key, KeyType::Ed25519),
        }
    }

    /// Whether it is ECDSA, whose signatures exist as `r || s` and as DER.
    pub const fn is_ecdsa(self) -> bool {
        matches!(self, Algorithm::EcdsaP256Sha256 | Algorithm::EcdsaP384Sha384 | Algorithm::EcdsaP521Sha512)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is none of [`Algorithm::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown algorithm")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or(UnknownAlgorithm)
    }
}
