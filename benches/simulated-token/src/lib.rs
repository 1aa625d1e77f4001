//! The simulated token: a PKCS#11 module with one key that takes a set time for each signature, on so many slots at
//! once, without burning CPU, as an HSM at the other end of a network does. **It makes no signatures**: what it gives
//! has the length of one and is the same each time. For benches, which have to say so beside every figure.
//!
//! The configuration is the JSON file that [`CONFIGURATION_VARIABLE`] names, read when the module is initialised.
//!
//! No lock is held through a signature, nothing is counted and nothing checked that a bench does not need, so that what
//! is measured is the road to the token. [`entry`] alone holds `unsafe` code.

#![warn(missing_docs)]

mod entry;
mod service;

use serde::Deserialize;

use service::Tempo;

/// The environment variable that names the configuration's file.
pub(crate) const CONFIGURATION_VARIABLE: &str = "SEGL_SIMULATED_TOKEN";

/// What the token is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Configuration {
    /// CK_TOKEN_INFO's label
    pub(crate) label: String,
    /// The key's CKA_LABEL
    pub(crate) key_label: String,
    /// The key's CKA_KEY_TYPE
    pub(crate) key_type: u64,
    /// SubjectPublicKeyInfo, DER: of a real key, which signs nothing
    pub(crate) spki_der: Vec<u8>,
    /// Length of a signature in bytes
    pub(crate) signature_len: usize,
    /// How long one takes
    pub(crate) tempo: Tempo,
}
