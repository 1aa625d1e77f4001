//! The protected header: what of the caller's is let in, and the one that is signed.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    JwsAlgorithm, JwsKey, JwsPolicy,
    json::{Json, Object, pointer, told},
};
use crate::violation::Violations;

/// Longest `typ` and `cty` in bytes.
const TYPE_MAX: usize = 128;

/// Parameters that no policy can allow: they name another key or a place to fetch one from (RFC 8725 §3.9, §3.10),
/// change what is signed (`b64`, RFC 7797), say what we do not understand (`crit`), use SHA-1 (`x5t`), or belong to
/// encryption.
pub const HEADER_PARAMETERS_NEVER: [&str; 18] = [
    "jku", "jwk", "x5u", "x5t", "crit", "b64", "zip", "enc", "epk", "apu", "apv", "iv", "tag", "p2s", "p2c", "x5c",
    "x5t#S256", "alg",
];

/// Whether a policy may allow the caller this further parameter. Those with a meaning here (`typ`, `cty`, `kid`) have
/// their own rules.
pub fn may_be_allowed(parameter: &str) -> bool {
    !parameter.is_empty()
        && parameter.len() <= TYPE_MAX
        && !["typ", "cty", "kid"].iter().chain(&HEADER_PARAMETERS_NEVER).any(|own| own.eq_ignore_ascii_case(parameter))
}

/// Checks the caller's header.
pub(super) fn check(
    header: &Object,
    algorithm: JwsAlgorithm,
    key: &JwsKey,
    policy: &JwsPolicy,
    violations: &mut Violations,
) {
    for (name, value) in header {
        let place = || pointer("/header", name);
        match &**name {
            "alg" if value.text() != Some(algorithm.name()) => {
                violations.add("header-alg", place, "`alg` is the algorithm that the request names, or left out");
            }
            "kid" if key.kid.is_none() || value.text() != key.kid.as_deref() => {
                violations.add("header-kid", place, "`kid` is the key's own, or left out");
            }
            "x5t#S256" if key.x5t_s256.is_none() || value.text() != key.x5t_s256.as_deref() => {
                violations.add("header-x5t-s256", place, "`x5t#S256` is that of the key's certificate, or left out");
            }
            "x5c" if !is_chain(value, &key.x5c) => {
                let text = "`x5c` is the key's certificate, alone or with its whole chain, or left out";
                violations.add("header-x5c", place, text);
            }
            "alg" | "kid" | "x5t#S256" | "x5c" => {}
            "typ" => one_of(value, &policy.types, "header-typ", "/header/typ", violations),
            "cty" => one_of(value, &policy.content_types, "header-cty", "/header/cty", violations),
            other if may_be_allowed(other) && policy.header_parameters.iter().any(|allowed| allowed == other) => {
                if has_float(value) {
                    violations.add("header-number", place, "a number in the header is an integer of 64 bits");
                }
            }
            _ => violations.add(
                "header-parameter",
                || told("/header", name),
                "this parameter is not allowed in a caller's header",
            ),
        }
    }
    // RFC 8725 §3.11: where types are told apart, none may go without.
    if !policy.types.is_empty() && !header.contains_key("typ") {
        violations.add("header-typ", || "/header/typ", "`typ` is there, and is one of the allowed");
    }
}

/// The header that is signed, as JSON: `alg`, what names the key, and what was let in of the caller's.
pub(super) fn write(header: &Object, algorithm: JwsAlgorithm, key: &JwsKey) -> Vec<u8> {
    serde_json::to_vec(&Written { header, algorithm, key }).expect("texts and integers serialise to JSON")
}

struct Written<'a> {
    header: &'a Object,
    algorithm: JwsAlgorithm,
    key: &'a JwsKey,
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let &Written { header, algorithm, key } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("alg", algorithm.name())?;
        // What the caller says of the key, and was found right, is said even where the key alone would not.
        if let Some(kid) = &key.kid
            && (key.shown.kid || header.contains_key("kid"))
        {
            map.serialize_entry("kid", kid)?;
        }
        if let Some(thumbprint) = &key.x5t_s256
            && (key.shown.x5t_s256 || header.contains_key("x5t#S256"))
        {
            map.serialize_entry("x5t#S256", thumbprint)?;
        }
        for (name, value) in header {
            if !["alg", "kid", "x5t#S256", "x5c"].contains(&&**name) {
                map.serialize_entry(name, value)?;
            }
        }
        match (header.get("x5c"), key.shown_chain()) {
            (Some(callers), _) => map.serialize_entry("x5c", callers)?,
            (None, []) => {}
            (None, chain) => map.serialize_entry("x5c", chain)?,
        }
        map.end()
    }
}

fn is_chain(value: &Json, chain: &[String]) -> bool {
    let Json::Array(items) = value else { return false };
    let same = items.len() <= chain.len() && items.iter().zip(chain).all(|(item, own)| item.text() == Some(own));
    same && !items.is_empty() && (items.len() == 1 || items.len() == chain.len())
}

/// `typ` and `cty`: media types, compared byte for byte, since readers do not agree on more.
fn one_of(value: &Json, allowed: &[String], rule: &'static str, place: &str, violations: &mut Violations) {
    let good = |text: &str| text.len() <= TYPE_MAX && allowed.iter().any(|allowed| allowed == text);
    if !value.text().is_some_and(good) {
        let text = if allowed.is_empty() { "left out: no value is allowed" } else { "one of the allowed media types" };
        violations.add(rule, || place, text);
    }
}

fn has_float(value: &Json) -> bool {
    match value {
        Json::Float(_) => true,
        Json::Array(items) => items.iter().any(has_float),
        Json::Object(members) => members.values().any(has_float),
        _ => false,
    }
}
