//! Keys: what clients call one, and its versions, of which one signs at a time.
//!
//! To everything below the policy a version is a key of its own. Which of them signs is decided for each request, by
//! the time that the request brings along: nothing has to happen at the instant when one takes over from another.

use std::sync::Arc;

use segl_hsm::{Algorithm, KeyId, KeyType};
use segl_wire::VersionPhase;

use super::{Claim, Faces, Registry, suite};
use crate::{
    certificate::{Chain, Validity, spki_sha256},
    config::{self, Purpose, SelfTest, Verify},
};

/// A key as clients know it.
#[derive(Debug)]
pub struct LogicalKey {
    /// By the time from which they sign; at least one
    versions: Vec<Arc<KeyEntry>>,
}

/// A key on its tokens, under one configuration: a version of a [`LogicalKey`], often the only one.
#[derive(Debug)]
pub struct KeyEntry {
    /// Never another key's while the process lives
    pub id: KeyId,
    /// Its name towards clients
    pub name: Arc<str>,
    /// Its name, and which version it is: `name/version`. No other key's in this configuration
    pub label: Arc<str>,
    /// When it signs; none of a key that has no versions, which signs at any time
    pub term: Option<Term>,
    /// The one thing it is for
    pub purpose: Purpose,
    /// The tokens that hold it, by name, sorted
    pub tokens: Vec<Arc<str>>,
    /// Where they hold it
    pub locator: Arc<str>,
    /// What it may be used with
    pub algorithms: Vec<Algorithm>,
    /// Its certificate and those above it
    pub certificate: Option<Chain>,
    /// SHA-256 of the certificate's SubjectPublicKeyInfo
    pub spki_sha256: Option<[u8; 32]>,
    /// Whether a signature may be tried again when the first try's fate is unknown
    pub repeatable: bool,
    /// How it shows that it is well
    pub self_test: SelfTest,
    /// How many of its signatures are verified before they leave
    pub verify: Verify,
    /// Signs even with what ETSI TS 119 312 has ended
    pub accept_legacy: bool,
    /// What its signatures say of it
    pub faces: Faces,
}

/// The time in which a version signs, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The version's name
    pub version: Arc<str>,
    /// Its first second
    pub from_unix_s: i64,
    /// The next one's first second
    pub until_unix_s: Option<i64>,
}

impl Term {
    /// Whether the moment lies before it, in it or after it.
    pub fn phase(&self, now_unix_s: i64) -> VersionPhase {
        if now_unix_s < self.from_unix_s {
            VersionPhase::Next
        } else if self.until_unix_s.is_some_and(|until| until <= now_unix_s) {
            VersionPhase::Former
        } else {
            VersionPhase::Active
        }
    }
}

impl LogicalKey {
    pub(super) fn new(key: &config::Key, registry: &mut Registry) -> LogicalKey {
        let ends = key.versions.iter().skip(1).map(|next| next.term.as_ref().map(|term| term.active_from_unix_s));
        let ends = ends.chain([None]);
        let entry = |(version, end)| Arc::new(KeyEntry::new(key, version, end, registry));
        LogicalKey { versions: key.versions.iter().zip(ends).map(entry).collect() }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.first().name
    }

    /// The one thing that all its versions are for.
    pub fn purpose(&self) -> Purpose {
        self.first().purpose
    }

    /// What all its versions may be used with.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.first().algorithms
    }

    /// Its versions, by the time from which they sign; at least one.
    pub fn versions(&self) -> &[Arc<KeyEntry>] {
        &self.versions
    }

    /// The version that signs at this moment; before the first one's time none does.
    pub fn active(&self, now_unix_s: i64) -> Option<&Arc<KeyEntry>> {
        // The active one is seldom far from the end, and there are few.
        self.versions.iter().rev().find(|version| version.phase(now_unix_s) == VersionPhase::Active)
    }

    fn first(&self) -> &Arc<KeyEntry> {
        self.versions.first().expect("a configured key has a version")
    }
}

impl KeyEntry {
    fn new(
        key: &config::Key,
        version: &config::KeyVersion,
        until_unix_s: Option<i64>,
        registry: &mut Registry,
    ) -> KeyEntry {
        let certificate = version.certificate.as_ref().map(|file| file.content.clone());
        let label = version.label(&key.name);
        KeyEntry {
            faces: Faces::new(key.purpose, &label, certificate.as_ref()),
            id: registry.key_id(&key.name, &version.locator, &key.tokens),
            name: key.name.clone(),
            label,
            term: version.term.as_ref().map(|term| Term {
                version: term.name.clone(),
                from_unix_s: term.active_from_unix_s,
                until_unix_s,
            }),
            purpose: key.purpose,
            tokens: key.tokens.clone(),
            locator: version.locator.clone(),
            algorithms: key.algorithms.clone(),
            spki_sha256: certificate.as_ref().map(|chain| spki_sha256(chain.spki_der())),
            certificate,
            repeatable: key.repeatable,
            self_test: key.self_test,
            verify: key.verify,
            accept_legacy: key.accept_legacy,
        }
    }

    /// That it is this public key.
    pub fn claim<'a>(&'a self, spki_der: &'a [u8]) -> Claim<'a> {
        Claim { key: &self.name, label: &self.label, purpose: self.purpose, spki_der }
    }

    /// Which version it is, of a key that has versions.
    pub fn version(&self) -> Option<&Arc<str>> {
        self.term.as_ref().map(|term| &term.version)
    }

    /// Whether its time is to come, is now, or is over.
    pub fn phase(&self, now_unix_s: i64) -> VersionPhase {
        self.term.as_ref().map_or(VersionPhase::Active, |term| term.phase(now_unix_s))
    }

    /// Where the moment lies in its certificate's life; a key without one is always valid.
    pub fn validity(&self, now_unix_s: i64) -> Validity {
        self.certificate.as_ref().map_or(Validity::Valid, |chain| chain.validity(now_unix_s))
    }

    /// Whether its time begins after the one moment and no later than the other.
    pub fn begins_in(&self, after_unix_s: i64, now_unix_s: i64) -> bool {
        self.term.as_ref().is_some_and(|term| after_unix_s < term.from_unix_s && term.from_unix_s <= now_unix_s)
    }

    /// Whether it may be used at this moment: it is its time, and its certificate's.
    pub fn signs(&self, now_unix_s: i64) -> bool {
        self.phase(now_unix_s) == VersionPhase::Active && self.validity(now_unix_s) == Validity::Valid
    }

    /// Why a token's key of that type is not fit for what the configuration says of it, if it is not: it can not do
    /// one of the algorithms, or ETSI TS 119 312 has ended it.
    pub fn misfit(&self, key_type: KeyType, now_unix_s: i64) -> Option<String> {
        self.algorithms.iter().find_map(|algorithm| {
            if !algorithm.fits(key_type) {
                return Some(format!("a key of type {key_type} can not do {algorithm}, which is configured for it"));
            }
            let reason = suite::refusal(*algorithm, key_type, self.accept_legacy, now_unix_s)?;
            Some(format!("{algorithm} with a key of type {key_type}: {reason}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use segl_wire::Class;

    use super::*;
    use crate::{
        config::{Operation, tests::Site},
        policy::{Denied, Policy, Request},
    };

    /// Three versions, the second of which has a certificate that ends before the third begins.
    const TEXT: &str = r#"
[tls]
certificate = "server.pem"
private_key = "server.key"
client_ca = "clients-ca.pem"
[audit]
directory = "journal"

[[token]]
name = "keys"
kind = "embedded"
directory = "keys"
generate = [
    { file = "a.pem", type = "ec-p256" },
    { file = "b.pem", type = "ec-p256" },
    { file = "c.pem", type = "ec-p256" },
]

[[key]]
name = "seal"
purpose = "digest"
tokens = ["keys"]
algorithms = ["ecdsa-p256-sha256"]
[[key.version]]
name = "c"
file = "c.pem"
active_from = 2028-01-01T00:00:00Z
[[key.version]]
name = "a"
file = "a.pem"
active_from = 2026-01-01T00:00:00Z
[[key.version]]
name = "b"
file = "b.pem"
active_from = 2026-12-01T00:00:00Z
certificate = "login.pem"

[[tenant]]
name = "borger"
clients = [{ san = "URI:spiffe://segl.example/borger" }]
[[tenant.grant]]
key = "seal"
"#;
    const A: i64 = 1_767_225_600;
    const B: i64 = 1_796_083_200;
    /// Of the certificate of `b`.
    const END: i64 = 1_798_761_600;
    const C: i64 = 1_830_297_600;

    fn version_at(policy: &Policy, now_unix_s: i64) -> Result<String, Denied> {
        let (operation, algorithm) = (Operation::Sign, "ecdsa-p256-sha256");
        let request = Request { operation, key: "seal", algorithm, class: Class::Login, now_unix_s };
        let permit = policy.permit(&policy.tenants()[0], &request)?;
        Ok(permit.key().version().unwrap().to_string())
    }

    #[test]
    fn the_version_whose_time_it_is_signs_to_the_second_and_within_its_certificates_life() {
        let policy = Policy::new(&Site::new().config(TEXT), &mut Registry::new());
        let at = |now_unix_s| version_at(&policy, now_unix_s);
        assert_eq!(at(A - 1), Err(Denied::KeyNotYetActive));
        assert_eq!([at(A), at(B - 1)], [Ok("a".into()), Ok("a".into())]);
        assert_eq!([at(B), at(END)], [Ok("b".into()), Ok("b".into())]);
        assert_eq!([at(END + 1), at(C - 1)], [Err(Denied::KeyExpired), Err(Denied::KeyExpired)]);
        assert_eq!([at(C), at(i64::MAX)], [Ok("c".into()), Ok("c".into())]);
    }

    #[test]
    fn a_key_that_gets_versions_goes_on_under_its_id_and_each_version_has_its_own() {
        let (site, mut registry) = (Site::new(), Registry::new());
        let mut ids = |text: &str| -> Vec<(KeyId, Arc<str>)> {
            let policy = Policy::new(&site.config(text), &mut registry);
            policy.keys().iter().map(|key| (key.id, key.locator.clone())).collect()
        };
        let (begin, end) = (TEXT.find("[[key.version]]").unwrap(), TEXT.find("[[tenant]]").unwrap());
        let alone = [&TEXT[..begin], "file = \"a.pem\"\n", &TEXT[end..]].concat();
        let before = ids(&alone);
        let after = ids(TEXT);
        assert_eq!(before, after[..1]);
        assert!(after[0].0 != after[1].0 && after[1].0 != after[2].0 && after[0].0 != after[2].0);
        assert_eq!(ids(&TEXT.replace("name = \"b\"", "name = \"renamed\"")), after);
    }

    #[test]
    fn a_version_is_used_by_self_tests_in_its_time_only() {
        let policy = Policy::new(&Site::new().config(TEXT), &mut Registry::new());
        let [a, b, _] = policy.keys() else { panic!() };
        assert_eq!([A - 1, A, B - 1, B].map(|now| a.signs(now)), [false, true, true, false]);
        assert_eq!([B - 1, B, END, END + 1].map(|now| b.signs(now)), [false, true, true, false]);
        assert!(b.begins_in(B - 1, B) && !b.begins_in(B, B + 1) && !b.begins_in(B - 2, B - 1));
    }
}
