//! JSON Web Signatures (RFC 7515) in compact serialisation: what is checked, what is signed, and how the signature is
//! put to it.
//!
//! The payload that is signed is the caller's byte for byte. The protected header is written anew from what is let in:
//! `alg` and everything that names a key come from the key, the rest from the caller as far as the policy allows.

mod algorithm;
mod claims;
mod header;
mod json;
mod key;
mod sd_jwt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

pub(crate) use self::key::x5t_s256;
pub use self::{
    algorithm::JwsAlgorithm,
    claims::{ClaimRule, JwsPolicy},
    header::{HEADER_PARAMETERS_NEVER, may_be_allowed},
    key::{JwsKey, JwsKeyError, Shown, ShownChain},
};
use crate::{
    Capacity, Refusal,
    violation::{Violation, Violations},
};

/// Longest payload in bytes: an id_token with every claim is below 4 KiB, an SD-JWT VC with a hundred disclosures
/// below 32 KiB.
pub const PAYLOAD_MAX: usize = 64 << 10;

/// Longest header in bytes, a chain in `x5c` included.
pub const HEADER_MAX: usize = 16 << 10;

/// A JWS that passed the policy and lacks nothing but its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedJws {
    signing_input: String,
    jti: Option<String>,
}

/// Checks header and payload, and prepares the JWS.
///
/// `header` is the caller's protected header, a JSON object (`{}` when the caller has nothing to say). `payload` is
/// signed as it is. `capacity` is the request's "acting as".
///
/// # Errors
/// [`Refusal::Malformed`] with the first reason why either is not read; else [`Refusal::Policy`] with the violations
/// of both.
pub fn prepare(
    header: &[u8],
    payload: &[u8],
    algorithm: JwsAlgorithm,
    key: &JwsKey,
    policy: &JwsPolicy,
    capacity: Option<Capacity<'_>>,
    now_unix_s: u64,
) -> Result<PreparedJws, Refusal> {
    for (place, len, max) in [("/header", header.len(), HEADER_MAX), ("/payload", payload.len(), PAYLOAD_MAX)] {
        if len > max {
            let text = format!("at most {max} bytes are taken");
            return Err(Refusal::Malformed(Violation { rule: "jws-size", place: place.to_owned(), text }));
        }
    }
    let parameters = json::object(header, "/header").map_err(Refusal::Malformed)?;
    let claims = json::object(payload, "/payload").map_err(Refusal::Malformed)?;

    let mut violations = Violations::default();
    header::check(&parameters, algorithm, key, policy, &mut violations);
    claims::check(&claims, policy, capacity, now_unix_s, &mut violations);
    let selective = parameters.get("typ").and_then(json::Json::text).is_some_and(sd_jwt::is_type);
    if selective && policy.selective && !policy.needs_the_whole_payload() {
        sd_jwt::check(&claims, &mut violations);
    } else {
        sd_jwt::check_none(&claims, &mut violations);
    }
    let violations = violations.into_vec();
    if !violations.is_empty() {
        return Err(Refusal::Policy(violations));
    }

    let header = header::write(&parameters, algorithm, key);
    let mut signing_input = String::with_capacity((header.len() + payload.len()) * 4 / 3 + 8);
    URL_SAFE_NO_PAD.encode_string(header, &mut signing_input);
    signing_input.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut signing_input);
    Ok(PreparedJws { signing_input, jti: claims.get("jti").and_then(json::Json::text).map(str::to_owned) })
}

impl PreparedJws {
    /// What is signed (RFC 7515 §5.1, step 5): header and payload in base64url, a dot between.
    pub fn signing_input(&self) -> &[u8] {
        self.signing_input.as_bytes()
    }

    /// The payload's `jti`, if it has one: at most 128 bytes without control characters.
    pub fn jti(&self) -> Option<&str> {
        self.jti.as_deref()
    }

    /// The compact serialisation (RFC 7515 §7.1). An ECDSA signature is `r || s` (RFC 7518 §3.4).
    pub fn finish(self, signature: &[u8]) -> String {
        let mut compact = self.signing_input;
        compact.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut compact);
        compact
    }
}

#[cfg(test)]
mod tests;
