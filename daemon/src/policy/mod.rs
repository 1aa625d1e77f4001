//! Who may do what: an immutable snapshot, read for every request, replaced as a whole by a reload.
//!
//! Implicit deny. A key that is not granted and one that does not exist look the same: one look-up in the tenant's
//! own grants finds neither. What has passed is an [`Authorised`], which nothing but this module can make.

mod authorise;
mod document;
mod identity;
mod key;
mod purpose;
mod registry;
pub mod suite;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use segl_hsm::Algorithm;
use segl_wire::Class;

use self::identity::Clients;
use crate::config::{self, Config, Operation, San};

pub use self::{
    authorise::{Authorised, Denied, Parts, Permit, Request},
    document::{Faces, Rules, Unsigned, jws_key_fits},
    identity::{IdentifyError, NotACertificate, PeerIdentity},
    key::{KeyEntry, LogicalKey, Term},
    purpose::{Claim, Conflict, conflicts},
    registry::{Registry, TenantId},
};

/// What is granted to whom, under one configuration.
#[derive(Debug)]
pub struct Policy {
    generation: u64,
    message_max: u32,
    /// Every version of every key
    keys: Vec<Arc<KeyEntry>>,
    tenants: Vec<Arc<Tenant>>,
    clients: Clients,
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
    key: Arc<LogicalKey>,
    operations: u8,
    algorithms: u16,
    classes: u8,
    rules: Rules,
}

/// A grant as its holder may see it.
#[derive(Debug)]
pub struct GrantView<'a> {
    /// The key
    pub key: &'a Arc<LogicalKey>,
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
        let logical: Vec<_> = config.keys.iter().map(|key| Arc::new(LogicalKey::new(key, registry))).collect();
        let by_name: HashMap<&str, &Arc<LogicalKey>> = logical.iter().map(|key| (&**key.name(), key)).collect();
        let keys = logical.iter().flat_map(|key| key.versions().iter().cloned()).collect();
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

    /// Every version of every key, in the order of the configuration.
    pub fn keys(&self) -> &[Arc<KeyEntry>] {
        &self.keys
    }

    /// All tenants, in the order of the configuration.
    pub fn tenants(&self) -> &[Arc<Tenant>] {
        &self.tenants
    }
}

impl Tenant {
    fn new(
        tenant: &config::Tenant,
        keys: &HashMap<&str, &Arc<LogicalKey>>,
        generation: u64,
        registry: &mut Registry,
    ) -> Tenant {
        let grants = tenant.grants.iter().filter_map(|grant| {
            // The configuration has seen that the key exists; were it not so, nothing would be granted.
            let key = Arc::clone(keys.get(&*grant.key)?);
            let of_key = key.algorithms().iter().fold(0, |bits, algorithm| bits | algorithm_bit(*algorithm));
            let granted = grant.algorithms.iter().fold(0, |bits, algorithm| bits | algorithm_bit(*algorithm));
            let operations = grant.operations.iter().fold(0, |bits, operation| bits | operation_bit(*operation));
            let classes = grant.classes.iter().fold(0, |bits, class| bits | class_bit(*class));
            let rules = match (&grant.assertion, &grant.jws) {
                (Some(rules), _) => Rules::Assertion(Arc::clone(rules)),
                (None, Some(rules)) => Rules::Jws(Arc::clone(rules)),
                (None, None) => Rules::None,
            };
            Some((key.name().clone(), Grant { key, operations, algorithms: granted & of_key, classes, rules }))
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
