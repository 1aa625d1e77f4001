//! What the world is told of signing keys, as `segld` lists them: all versions of a key, those that sign from later on
//! included, until its operator takes them out of `segld`'s configuration.
//!
//! What was seen last is told for as long as the process lives, with its age: verifiers must not fail because the road
//! to a `segld` does. It is put together at most once in [`RENEWAL`], so that everybody may ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::Bytes;
use segl_assertion::{
    jws::JwsAlgorithm,
    publish::{self, Jwk, PublishError},
};
use segl_wire as wire;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{api::Snapshot, config::PublishedKey};

/// How long one rendering serves everybody.
pub const RENEWAL: Duration = Duration::from_secs(1);

/// What was seen, and what was made of it.
#[derive(Debug, Default)]
pub struct Published(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By tenant and key
    seen: BTreeMap<(String, String), Seen>,
    jwks: Option<Set>,
    key_descriptors: Option<Set>,
    /// What was said about them in the log
    told: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    entries: Vec<Entry>,
}

/// A key, or a version of one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kid: String,
    key: String,
    version: Option<Version>,
    spki: Vec<u8>,
    certificates: Vec<Vec<u8>>,
    algorithm: Option<JwsAlgorithm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    name: String,
    active_from_unix_s: u64,
}

/// One of the two documents.
#[derive(Clone, Debug)]
pub struct Set {
    /// JSON
    pub body: Bytes,
    /// When the oldest part of it was seen
    pub seen_at: Instant,
    /// Whether all keys that are configured are in it
    pub complete: bool,
    made_at: Instant,
}

/// The two documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RFC 7517 §5
    Jwks,
    /// SAML metadata
    KeyDescriptors,
}

/// The keys that sign SAML assertions.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyDescriptors {
    /// By name; versions by the time from which they sign
    pub keys: Vec<KeyDescriptor>,
}

/// A key, or a version of one, for a provider's metadata.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyDescriptor {
    /// Name of the key
    pub key: String,
    /// Name of its version, if it has versions
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// From when it signs, in seconds since 1970, if it has versions
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_from: Option<u64>,
    /// `md:KeyDescriptor` with `use="signing"`: XML that declares its own namespaces
    pub key_descriptor: String,
}

impl Published {
    /// Takes what is seen now of all keys that are published.
    pub fn look(&self, snapshot: &Snapshot) {
        self.lock().look(snapshot);
    }

    /// The document as of now; none while nothing is known of any of its keys.
    pub fn set(&self, kind: Kind, snapshot: &Snapshot) -> Option<Set> {
        let mut state = self.lock();
        let made = match kind {
            Kind::Jwks => &state.jwks,
            Kind::KeyDescriptors => &state.key_descriptors,
        };
        if let Some(made) = made.as_ref().filter(|made| made.made_at.elapsed() < RENEWAL) {
            return Some(made.clone());
        }
        state.look(snapshot);
        let set = state.make(kind, snapshot);
        match kind {
            Kind::Jwks => state.jwks = set.clone(),
            Kind::KeyDescriptors => state.key_descriptors = set.clone(),
        }
        set
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn look(&mut self, snapshot: &Snapshot) {
        let mut seen = BTreeMap::new();
        for PublishedKey { tenant, key } in snapshot.publish.keys() {
            let name = (tenant.value.clone(), key.clone());
            let shown = snapshot.tenants.get(&tenant.value).and_then(|tenant| tenant.last_seen(key));
            let now = shown.map(|(at, shown)| Seen { at, entries: entries(&shown) });
            let now = now.filter(|now| !now.entries.is_empty());
            // A new road that has shown nothing yet leaves what the one before it showed.
            if let Some(last) = now.or_else(|| self.seen.get(&name).cloned()) {
                seen.insert(name, last);
            }
        }
        self.seen = seen;
    }

    fn make(&mut self, kind: Kind, snapshot: &Snapshot) -> Option<Set> {
        let keys = match kind {
            Kind::Jwks => &snapshot.publish.jwks,
            Kind::KeyDescriptors => &snapshot.publish.key_descriptors,
        };
        let mut seen_at: Option<Instant> = None;
        let (mut entries, mut complete) = (Vec::<&Entry>::new(), true);
        for key in keys {
            let Some(seen) = self.seen.get(&(key.tenant.value.clone(), key.key.clone())) else {
                complete = false;
                continue;
            };
            seen_at = Some(seen_at.map_or(seen.at, |earlier| earlier.min(seen.at)));
            for entry in &seen.entries {
                // Tenants that share a key show it alike.
                if !entries.iter().any(|other| other.kid == entry.kid && other.spki == entry.spki) {
                    entries.push(entry);
                }
            }
        }
        let (mut jwks, mut descriptors, mut unfit) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries {
            let made = match kind {
                Kind::Jwks => entry.jwk().map(|jwk| jwks.push(jwk)),
                Kind::KeyDescriptors => entry.key_descriptor().map(|descriptor| descriptors.push(descriptor)),
            };
            if let Err(error) = made {
                complete = false;
                unfit.push(format!("{}: {error}", entry.kid));
            }
        }
        for line in unfit {
            if self.told.insert(line.clone()) {
                tracing::warn!(key = line, "can not be published");
            }
        }
        let body = match kind {
            Kind::Jwks => publish::jwks(&jwks).into(),
            Kind::KeyDescriptors => {
                let set = KeyDescriptors { keys: descriptors };
                serde_json::to_vec(&set).expect("texts and numbers serialise").into()
            }
        };
        Some(Set { body, seen_at: seen_at?, complete, made_at: Instant::now() })
    }
}

impl Entry {
    fn jwk(&self) -> Result<Jwk, PublishError> {
        Jwk::new(&self.spki, &self.certificates, self.algorithm, Some(&self.kid))
    }

    fn key_descriptor(&self) -> Result<KeyDescriptor, PublishError> {
        Ok(KeyDescriptor {
            key: self.key.clone(),
            version: self.version.as_ref().map(|version| version.name.clone()),
            active_from: self.version.as_ref().map(|version| version.active_from_unix_s),
            key_descriptor: publish::key_descriptor(&self.spki, &self.certificates)?,
        })
    }
}

/// A key and its versions as several `segld` show them, each once: a version that one of them knows already is told of.
/// What is refused where it is (`faulty`) may be another key than it says.
fn entries(shown: &[wire::Key<'_>]) -> Vec<Entry> {
    let mut entries = Vec::<Entry>::new();
    let mut add = |key: &wire::Key<'_>, version: Option<Version>, state, spki: &[u8], certificates: &[_]| {
        if state == wire::KeyState::Faulty || spki.is_empty() {
            return;
        }
        // As `segld` writes it into the header of a JWS (docs/PROTOCOL.md, SignJws).
        let kid = version.as_ref().map_or(key.name.to_string(), |version| format!("{}/{}", key.name, version.name));
        if !entries.iter().any(|entry| entry.kid == kid && entry.spki == spki) {
            let certificates = certificates.iter().map(|certificate: &std::borrow::Cow<'_, [u8]>| certificate.to_vec());
            entries.push(Entry {
                kid,
                key: key.name.to_string(),
                version,
                spki: spki.to_vec(),
                certificates: certificates.collect(),
                algorithm: only_algorithm(key),
            });
        }
    };
    for key in shown {
        if key.versions.is_empty() {
            add(key, None, key.state, &key.spki_der, &key.certificates);
        }
        for of in &key.versions {
            let version = Version { name: of.name.to_string(), active_from_unix_s: of.active_from_unix_s };
            add(key, Some(version), of.state, &of.spki_der, &of.certificates);
        }
    }
    let active_from = |entry: &Entry| entry.version.as_ref().map(|version| version.active_from_unix_s);
    entries.sort_by_key(active_from);
    entries
}

/// The algorithm of a key that has only one: `alg` is a promise that there is no other.
fn only_algorithm(key: &wire::Key<'_>) -> Option<JwsAlgorithm> {
    let [name] = key.algorithms.as_slice() else { return None };
    Some(match &**name {
        "rsa-pkcs1-sha256" => JwsAlgorithm::Rs256,
        "rsa-pkcs1-sha384" => JwsAlgorithm::Rs384,
        "rsa-pkcs1-sha512" => JwsAlgorithm::Rs512,
        "rsa-pss-sha256" => JwsAlgorithm::Ps256,
        "rsa-pss-sha384" => JwsAlgorithm::Ps384,
        "rsa-pss-sha512" => JwsAlgorithm::Ps512,
        "ecdsa-p256-sha256" => JwsAlgorithm::Es256,
        "ecdsa-p384-sha384" => JwsAlgorithm::Es384,
        "ecdsa-p521-sha512" => JwsAlgorithm::Es512,
        "ed25519" => JwsAlgorithm::EdDsa,
        _ => return None,
    })
}
