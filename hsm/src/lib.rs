//! The vocabulary of Segl's signing: tokens, sessions, keys, algorithms, and errors that say whose fault they are.
//!
//! Without features this crate is words only: traits and types that the pool and the daemon share, no dependency
//! on PKCS#11 or on any cryptography. The tokens stand behind features: `pkcs11` (any PKCS#11 module, by cryptoki)
//! and `embedded` (keys in this process, for development).
//!
//! Nothing above these traits may assume that a session lives in this address space: only key ids, algorithms and
//! bytes cross, so that a module can later live in a supervised child process.

#![warn(missing_docs)]

mod algorithm;
mod der;
pub mod ecdsa;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod input;
mod key;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
pub mod spki;
mod token;
#[cfg(feature = "verify")]
pub mod verified;
#[cfg(feature = "verify")]
pub mod verify;

pub use algorithm::{Algorithm, Digest, UnknownAlgorithm};
pub use error::{Error, Fault, Kind, Result, Retry, Rung, Signed, Verdict};
pub use input::{DigestBytes, Input, InputError, SIGNATURE_LEN_MAX, Signature};
pub use key::{KeyId, KeyInfo, KeyReport, KeySpec, KeyType, UnknownKeyType};
pub use token::{ModuleId, Session, Token};
