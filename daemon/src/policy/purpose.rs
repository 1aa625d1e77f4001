//! Each key, by its public key, has exactly one purpose.
//!
//! Two names for one key with two purposes would make the laxer purpose a way around the stricter one's checks: who
//! signs raw digests with a login key signs any assertion.

use std::{collections::HashMap, fmt};

use crate::config::Purpose;

/// Two names for one public key, with different purposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurposeConflict {
    /// The name that came first
    pub first: String,
    /// Its purpose
    pub first_purpose: Purpose,
    /// The other name
    pub second: String,
    /// Its purpose
    pub second_purpose: Purpose,
}

impl fmt::Display for PurposeConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "keys \"{}\" ({}) and \"{}\" ({}) are one public key: a key has one purpose",
            self.first, self.first_purpose, self.second, self.second_purpose
        )
    }
}

/// Finds them among keys with their purposes and SubjectPublicKeyInfo (DER), from certificates or as tokens report.
pub fn purpose_conflicts(keys: &[(&str, Purpose, &[u8])]) -> Vec<PurposeConflict> {
    let mut first_with: HashMap<&[u8], (&str, Purpose)> = HashMap::new();
    let mut conflicts = Vec::new();
    for (second, second_purpose, spki_der) in keys {
        let (first, first_purpose) = *first_with.entry(spki_der).or_insert((second, *second_purpose));
        if first_purpose != *second_purpose {
            conflicts.push(PurposeConflict {
                first: first.to_owned(),
                first_purpose,
                second: (*second).to_owned(),
                second_purpose: *second_purpose,
            });
        }
    }
    conflicts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_public_key_with_two_purposes_is_found_whatever_its_names() {
        let conflicts = purpose_conflicts(&[
            ("documents", Purpose::Digest, b"one"),
            ("login", Purpose::Assertion, b"two"),
            ("documents-again", Purpose::Digest, b"one"),
            ("login-digests", Purpose::Digest, b"two"),
        ]);
        let [conflict] = conflicts.as_slice() else { panic!("{conflicts:?}") };
        assert_eq!((conflict.first.as_str(), conflict.second.as_str()), ("login", "login-digests"));
    }
}
