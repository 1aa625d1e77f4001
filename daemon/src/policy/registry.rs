//! Numbers that keep their meaning for the life of the process, over all reloads.

use std::{collections::HashMap, sync::Arc};

use segl_hsm::KeyId;

/// A tenant's number: its queue in the pool and its line in the metrics outlive a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(pub u32);

/// Gives numbers to keys and tenants. A number is never given to another: an answer that comes late, from before a
/// reload, can not name a stranger. There is one for the process.
#[derive(Debug, Default)]
pub struct Registry {
    keys: HashMap<KeyIdentity, KeyId>,
    tenants: HashMap<Arc<str>, TenantId>,
    generations: u64,
}

/// What makes a key, or a version of one, the one it is. Any of it different, and it is another. What a version is called
/// is no part of it: a key that gets versions stays the same on its tokens.
#[derive(Debug, PartialEq, Eq, Hash)]
struct KeyIdentity {
    name: Arc<str>,
    locator: Arc<str>,
    tokens: Vec<Arc<str>>,
}

impl Registry {
    /// Nothing numbered yet.
    pub fn new() -> Registry {
        Registry::default()
    }

    pub(super) fn key_id(&mut self, name: &Arc<str>, locator: &Arc<str>, tokens: &[Arc<str>]) -> KeyId {
        let identity = KeyIdentity { name: name.clone(), locator: locator.clone(), tokens: tokens.to_vec() };
        let next = next(self.keys.len());
        *self.keys.entry(identity).or_insert(KeyId(next))
    }

    pub(super) fn tenant_id(&mut self, name: &Arc<str>) -> TenantId {
        let next = next(self.tenants.len());
        *self.tenants.entry(name.clone()).or_insert(TenantId(next))
    }

    pub(super) fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }
}

fn next(given: usize) -> u32 {
    u32::try_from(given).expect("nobody reloads four thousand million names")
}
