//! The keys that are measured, by the names of the command line.

use clap::ValueEnum;
use segl_hsm::{Algorithm, DigestBytes, Input, KeyType};
use serde::{Deserialize, Serialize};

/// A key and the one algorithm that it is measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Key {
    /// ECDSA on P-256 with SHA-256
    P256,
    /// RSA of 2048 bits, PKCS#1 v1.5 with SHA-256
    Rsa2048,
    /// RSA of 3072 bits, PKCS#1 v1.5 with SHA-256
    Rsa3072,
    /// Ed25519
    Ed25519,
}

impl Key {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Key::P256 => "p256",
            Key::Rsa2048 => "rsa2048",
            Key::Rsa3072 => "rsa3072",
            Key::Ed25519 => "ed25519",
        }
    }

    pub(crate) const fn algorithm(self) -> Algorithm {
        match self {
            Key::P256 => Algorithm::EcdsaP256Sha256,
            Key::Rsa2048 | Key::Rsa3072 => Algorithm::RsaPkcs1Sha256,
            Key::Ed25519 => Algorithm::Ed25519,
        }
    }

    pub(crate) const fn key_type(self) -> KeyType {
        match self {
            Key::P256 => KeyType::EcP256,
            Key::Rsa2048 => KeyType::Rsa { bits: 2048 },
            Key::Rsa3072 => KeyType::Rsa { bits: 3072 },
            Key::Ed25519 => KeyType::Ed25519,
        }
    }

    /// As segld's configuration calls the type in `generate`.
    pub(crate) const fn configured(self) -> &'static str {
        match self {
            Key::P256 => "ec-p256",
            Key::Rsa2048 => "rsa-2048",
            Key::Rsa3072 => "rsa-3072",
            Key::Ed25519 => "ed25519",
        }
    }

    /// As OpenSC's `pkcs11-tool` calls the type.
    pub(crate) const fn pkcs11_tool(self) -> &'static str {
        match self {
            Key::P256 => "EC:prime256v1",
            Key::Rsa2048 => "rsa:2048",
            Key::Rsa3072 => "rsa:3072",
            Key::Ed25519 => "EC:edwards25519",
        }
    }
}

/// Length of what is signed: a SHA-256, or a message as short.
pub(crate) const PAYLOAD_LEN: usize = 32;

/// Whether the client sends a digest or a message; ring, which is behind the embedded token, signs messages only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Payload {
    Digest,
    Message,
}

impl Payload {
    pub(crate) fn input(self, bytes: &[u8; PAYLOAD_LEN]) -> Input {
        match self {
            Payload::Digest => Input::Digest(DigestBytes::new(bytes).expect("32 bytes are a digest")),
            Payload::Message => Input::message(bytes),
        }
    }
}

/// What the so-manieth request signs: different each time, and known again by its number.
pub(crate) fn payload(number: u64) -> [u8; PAYLOAD_LEN] {
    let mut bytes = [0x5e; PAYLOAD_LEN];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}
