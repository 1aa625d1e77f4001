//! What stands between a request and the bytes to sign, where that is more than a digest: JWS and SAML assertions.
//!
//! The crate checks a document against a policy, says which bytes are signed, and puts the signature to it. It holds
//! no private key and knows no network and no clock, so that all of it can be fuzzed.
//!
//! `encrypt`, behind the feature of that name, is for those who pass signed assertions on.

#![warn(missing_docs)]

mod capacity;
#[cfg(feature = "encrypt")]
pub mod encrypt;
pub mod jws;
#[cfg(feature = "encrypt")]
mod metadata;
mod pattern;
pub mod policy;
pub mod publish;
pub mod saml;
mod violation;

pub use capacity::Capacity;
#[cfg(feature = "encrypt")]
pub use metadata::{METADATA_MAX, MetadataError};
pub use pattern::{Pattern, PatternError};
pub use violation::{PLACE_MAX, Refusal, VIOLATIONS_MAX, Violation};
