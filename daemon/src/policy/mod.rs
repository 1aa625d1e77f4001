//! Who may do what: an immutable snapshot, read for every request, replaced as a whole by a reload.
//!
//! Implicit deny. A key that is not granted and one that does not exist look the same: one look-up in the tenant's
//! own grants finds neither. What has passed is an [`Authorised`], which nothing but this module can make.

mod authorise;
mod document;
mod identity;
mod purpose;
mod registry;
pub mod suite;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use segl_hsm::{Algorithm, KeyId, KeyType};
use segl_wire::Class;

use self::identity::Clients;
use crate::{
    certificate::{Chain, Validity, spki_sha256},
    config::{self, Config, Operation, Purpose, San, SelfTest, Verify},
};

pub use self::{
    authorise::{Authorised, Denied, Parts, Permit, Request},
    document::{Faces, Rules, Unsigned, jws_key_fits},
    identity::{IdentifyError, NotACertificate, PeerIdentity},
    purpose::{PurposeConflict, purpose_conflicts},
    registry::{Registry, TenantId},
};

/// What is granted to whom, under one configuration.
#[derive(Debug)]
pub struct Policy {
    generation: u64,
    message_max: u32,
    keys: Vec<Arc<KeyEntry>>,
    tenants: Vec<Arc<Tenant>>,
    clients: Clients,
}

/// A logical key under one configuration.
#[derive(Debug)]
pub struct KeyEntry {
    /// Never another key's while the process lives
    pub id: KeyId,
    /// Its name towards clients
    pub name: Arc<str>,
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

impl KeyEntry {
    /// Where the moment lies in its certificate's life; a key without one is always valid.
    pub fn validity(&self, now_unix_s: i64) -> Validity {
        self.certificate.as_ref().map_or(Validity::Valid, |chain| chain.validity(now_unix_s))
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

/// A tenant under one configuration.
#[derive(Debug)]
pub struct Tenant {
    id: TenantId,
    name: Arc<str>,
    /// The policy's
    generation: u64,
    in_flight_max: u32,
    grants: HashMap<Arc<str>, Grant>,
}

/// What a tenant may do with a key; sets as bits, by the enumerations' own numbers.
#[derive(Debug)]
struct Grant {
    key: Arc<KeyEntry>,
    operations: u8,
    algorithms: u16,
    classes: u8,
    rules: Rules,
}

/// A grant as its holder may see it.
#[derive(Debug)]
pub struct GrantView<'a> {
    /// The key
    pub key: &'a Arc<KeyEntry>,
    grant: &'a Grant,
}

impl GrantView<'_> {
    /// What the tenant may use the key with, in the order of [`Algorithm::ALL`].
    pub fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        let granted = self.grant.algorithms;
        Algorithm::ALL.into_iter().filter(move |algorithm| granted & algorithm_bit(*algorithm) != 0)
    }
}

impl Policy {
    /// The policy of this configuration. The registry lives as long as the process and is given every configuration.
    pub fn new(config: &Config, registry: &mut Registry) -> Policy {
        let generation = registry.next_generation();
        let keys: Vec<_> = config.keys.iter().map(|key| Arc::new(KeyEntry::new(key, registry))).collect();
        let by_name: HashMap<&str, &Arc<KeyEntry>> = keys.iter().map(|key| (&*key.name, key)).collect();
        let tenants: Vec<_> =
            config.tenants.iter().map(|tenant| Arc::new(Tenant::new(tenant, &by_name, generation, registry))).collect();
        let clients = Clients::new(config.tenants.iter().map(|tenant| tenant.clients.as_slice()));
        Policy { generation, message_max: config.limits.message_max, keys, tenants, clients }
    }

    /// The tenant this client speaks for. Nobody, or several, is a refusal.
    /// With it comes the name that told: a certificate may carry others, which say nothing here.
    pub fn identify(&self, peer: &PeerIdentity) -> Result<(&Arc<Tenant>, San), IdentifyError> {
        self.clients.find(peer).map(|(at, san)| (&self.tenants[at], san))
    }

    /// Rises with every policy of the process: a connection that sees another than its own identifies anew.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// All keys, in the order of the configuration.
    pub fn keys(&self) -> &[Arc<KeyEntry>] {
        &self.keys
    }

    /// All tenants, in the order of the configuration.
    pub fn tenants(&self) -> &[Arc<Tenant>] {
        &self.tenants
    }
}

impl KeyEntry {
    fn new(key: &config::Key, registry: &mut Registry) -> KeyEntry {
        let certificate = key.certificate.as_ref().map(|file| file.content.clone());
        KeyEntry {
            faces: Faces::new(key.purpose, &key.name, certificate.as_ref()),
            id: registry.key_id(key),
            name: key.name.clone(),
            purpose: key.purpose,
            tokens: key.tokens.clone(),
            locator: key.locator.clone(),
            algorithms: key.algorithms.clone(),
            spki_sha256: certificate.as_ref().map(|chain| spki_sha256(chain.spki_der())),
            certificate,
            repeatable: key.repeatable,
            self_test: key.self_test,
            verify: key.verify,
            accept_legacy: key.accept_legacy,
        }
    }
}

impl Tenant {
    fn new(
        tenant: &config::Tenant,
        keys: &HashMap<&str, &Arc<KeyEntry>>,
        generation: u64,
        registry: &mut Registry,
    ) -> Tenant {
        let grants = tenant.grants.iter().filter_map(|grant| {
            // The configuration has seen that the key exists; were it not so, nothing would be granted.
            let key = Arc::clone(keys.get(&*grant.key)?);
            let of_key = key.algorithms.iter().fold(0, |bits, algorithm| bits | algorithm_bit(*algorithm));
            let granted = grant.algorithms.iter().fold(0, |bits, algorithm| bits | algorithm_bit(*algorithm));
            let operations = grant.operations.iter().fold(0, |bits, operation| bits | operation_bit(*operation));
            let classes = grant.classes.iter().fold(0, |bits, class| bits | class_bit(*class));
            let rules = match (&grant.assertion, &grant.jws) {
                (Some(rules), _) => Rules::Assertion(Arc::clone(rules)),
                (None, Some(rules)) => Rules::Jws(Arc::clone(rules)),
                (None, None) => Rules::None,
            };
            Some((key.name.clone(), Grant { key, operations, algorithms: granted & of_key, classes, rules }))
        });
        Tenant {
            id: registry.tenant_id(&tenant.name),
            name: tenant.name.clone(),
            generation,
            in_flight_max: tenant.in_flight_max,
            grants: grants.collect(),
        }
    }

    /// The same for a tenant of this name under every configuration of the process.
    pub fn id(&self) -> TenantId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Requests in flight over all its connections; a batch of N counts N.
    pub fn in_flight_max(&self) -> u32 {
        self.in_flight_max
    }

    /// What it may use, in no order.
    pub fn grants(&self) -> impl Iterator<Item = GrantView<'_>> {
        self.grants.values().map(|grant| GrantView { key: &grant.key, grant })
    }
}

fn algorithm_bit(algorithm: Algorithm) -> u16 {
    1 << algorithm as u16
}

fn operation_bit(operation: Operation) -> u8 {
    1 << operation as u8
}

fn class_bit(class: Class) -> u8 {
    1 << class as u8
}
