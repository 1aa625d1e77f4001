//! What stands between a request and the bytes to sign, where that is more than a digest: the signing input of a JWS
//! today, SAML assertions beside it.
//!
//! No operation of the protocol uses this crate yet: keys of the purposes `jws` and `assertion` are listed and tested
//! by segld, and sign nothing. The crate knows no key, no policy and no network, so that all of it can be fuzzed.

#![warn(missing_docs)]

mod jws;

pub use jws::{JwsAlgorithm, JwsError, PAYLOAD_MAX, Prepared, prepare};
