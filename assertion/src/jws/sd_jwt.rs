//! SD-JWT (RFC 9901) as far as the issuer's JWT goes: the disclosures after `~` are not signed and are not ours.
//!
//! A policy sees what stands in clear. A claim behind a digest cannot be checked, so a policy that must see a claim
//! requires it on the top level, and one that must not see a claim lets nothing be behind a digest.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::json::{Json, Object, told};
use crate::violation::Violations;

/// Hashes of IANA's "Named Information Hash Algorithm" that are strong enough (RFC 9901 §9.4), and their lengths.
const HASHES: [(&str, usize); 6] =
    [("sha-256", 32), ("sha-384", 48), ("sha-512", 64), ("sha3-256", 32), ("sha3-384", 48), ("sha3-512", 64)];

/// Whether a `typ` says that the payload is of this kind. `vc+sd-jwt` is the older name of `dc+sd-jwt`.
pub(super) fn is_type(kind: &str) -> bool {
    let kind = kind.strip_prefix("application/").unwrap_or(kind);
    kind == "sd-jwt" || kind.ends_with("+sd-jwt")
}

/// Refuses whatever a reader could take for a claim behind a digest.
pub(super) fn check_none(claims: &Object, violations: &mut Violations) {
    none_in(claims, "/payload", violations);
}

fn none_in(members: &Object, place: &str, violations: &mut Violations) {
    for (name, value) in members {
        let place = told(place, name);
        if ["_sd", "_sd_alg", "..."].contains(&&**name) {
            let text = "no claim is behind a digest: the policy does not allow it, or `typ` does not say so";
            violations.add("claim-selective", || &*place, text);
        }
        none_of(value, &place, violations);
    }
}

fn none_of(value: &Json, place: &str, violations: &mut Violations) {
    match value {
        Json::Object(members) => none_in(members, place, violations),
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                none_of(item, &format!("{place}/{index}"), violations);
            }
        }
        _ => {}
    }
}

/// Checks what the standard demands of `vct`, `_sd_alg`, `_sd` and `...`.
pub(super) fn check(claims: &Object, violations: &mut Violations) {
    if claims.get("vct").is_some_and(|vct| vct.text().is_none_or(str::is_empty)) {
        violations.add("sd-jwt-vct", || "/payload/vct", "`vct` is a text");
    }
    let hash = match claims.get("_sd_alg") {
        None => Some(32),
        Some(name) => HASHES.iter().find(|(known, _)| name.text() == Some(known)).map(|(_, len)| *len),
    };
    let Some(digest_len) = hash else {
        violations.add("sd-jwt-alg", || "/payload/_sd_alg", "`_sd_alg` names SHA-2 or SHA-3 of at least 256 bits");
        return;
    };
    let mut walk = Walk { digest_len, seen: BTreeSet::new(), violations };
    walk.object(claims, "/payload", true);
}

struct Walk<'a, 'v> {
    digest_len: usize,
    seen: BTreeSet<&'a str>,
    violations: &'v mut Violations,
}

impl<'a> Walk<'a, '_> {
    fn object(&mut self, members: &'a Object, place: &str, top: bool) {
        for (name, value) in members {
            let place = told(place, name);
            match &**name {
                "_sd" => self.digests(value, &place),
                "_sd_alg" if !top => {
                    self.violations.add("sd-jwt-alg", || &*place, "`_sd_alg` stands on the top level only");
                }
                "..." => self.violations.add("sd-jwt-array", || &*place, "`...` stands alone in an object in an array"),
                _ => self.value(value, &place),
            }
        }
    }

    fn value(&mut self, value: &'a Json, place: &str) {
        match value {
            Json::Object(members) => self.object(members, place, false),
            Json::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let place = format!("{place}/{index}");
                    match item {
                        Json::Object(members) if members.len() == 1 && members.contains_key("...") => {
                            self.digest(&members["..."], &format!("{place}/..."));
                        }
                        other => self.value(other, &place),
                    }
                }
            }
            _ => {}
        }
    }

    fn digests(&mut self, value: &'a Json, place: &str) {
        let Json::Array(items) = value else {
            self.violations.add("sd-jwt-digest", || place, "`_sd` is an array of digests");
            return;
        };
        for (index, item) in items.iter().enumerate() {
            self.digest(item, &format!("{place}/{index}"));
        }
    }

    /// RFC 9901 §7.1: a digest that stands twice makes the whole token invalid.
    fn digest(&mut self, value: &'a Json, place: &str) {
        let good = |text: &&str| URL_SAFE_NO_PAD.decode(text).is_ok_and(|digest| digest.len() == self.digest_len);
        match value.text().filter(good) {
            None => self.violations.add("sd-jwt-digest", || place, "a digest is in base64url and as long as its hash"),
            Some(text) if !self.seen.insert(text) => {
                self.violations.add("sd-jwt-digest", || place, "a digest stands once only");
            }
            Some(_) => {}
        }
    }
}
