//! Each key, by its public key, has exactly one purpose, and is one version only.
//!
//! Two names for one key with two purposes would make the laxer purpose a way around the stricter one's checks: who
//! signs raw digests with a login key signs any assertion. And a version that is the same key as the one before would
//! be no rollover, whatever a breach of the old one.

use std::{collections::HashMap, fmt};

use crate::config::Purpose;

/// What a name says of a public key.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The key's name
    pub key: &'a str,
    /// The name and the version's, the same as the name of a key without versions
    pub label: &'a str,
    /// What it is for
    pub purpose: Purpose,
    /// SubjectPublicKeyInfo, DER: from a certificate or as a token reports it
    pub spki_der: &'a [u8],
}

/// Two claims on one public key that can not both stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The place of the one that came first
    pub first: usize,
    /// The place of the other
    pub second: usize,
    text: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Finds them: for each claim the first one that it can not stand beside.
pub fn conflicts(claims: &[Claim<'_>]) -> Vec<Conflict> {
    let mut of_key: HashMap<&[u8], Vec<usize>> = HashMap::new();
    let mut conflicts = Vec::new();
    for (second, claim) in claims.iter().enumerate() {
        let earlier = of_key.entry(claim.spki_der).or_default();
        let found = earlier.iter().find_map(|first| Some((*first, between(&claims[*first], claim)?)));
        conflicts.extend(found.map(|(first, text)| Conflict { first, second, text }));
        earlier.push(second);
    }
    conflicts
}

/// Why the two can not both be had on one public key.
fn between(one: &Claim<'_>, other: &Claim<'_>) -> Option<String> {
    let ((one_label, one_purpose), (label, purpose)) = ((one.label, one.purpose), (other.label, other.purpose));
    if one_purpose != purpose {
        return Some(format!(
            "keys \"{one_label}\" ({one_purpose}) and \"{label}\" ({purpose}) are one public key: a key has one purpose"
        ));
    }
    (one.key == other.key && one_label != label)
        .then(|| format!("versions \"{one_label}\" and \"{label}\" are one public key: a version has a key of its own"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim<'a>(key: &'a str, label: &'a str, purpose: Purpose, spki_der: &'a [u8]) -> Claim<'a> {
        Claim { key, label, purpose, spki_der }
    }

    #[test]
    fn one_public_key_with_two_purposes_is_found_whatever_its_names() {
        let found = conflicts(&[
            claim("documents", "documents", Purpose::Digest, b"one"),
            claim("login", "login", Purpose::Assertion, b"two"),
            claim("documents-again", "documents-again", Purpose::Digest, b"one"),
            claim("login-digests", "login-digests", Purpose::Digest, b"two"),
        ]);
        let [conflict] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((conflict.first, conflict.second), (1, 3));
    }

    #[test]
    fn two_versions_on_one_public_key_are_found_also_behind_another_key_on_it() {
        let found = conflicts(&[
            claim("documents", "documents", Purpose::Digest, b"one"),
            claim("seal", "seal/2026", Purpose::Digest, b"one"),
            claim("seal", "seal/2027", Purpose::Digest, b"one"),
            claim("seal", "seal/2028", Purpose::Digest, b"two"),
            // Two tokens that hold the same.
            claim("seal", "seal/2028", Purpose::Digest, b"two"),
        ]);
        let [conflict] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((conflict.first, conflict.second), (1, 2));
        assert!(conflict.to_string().starts_with("versions \"seal/2026\" and \"seal/2027\""), "{conflict}");
    }
}
