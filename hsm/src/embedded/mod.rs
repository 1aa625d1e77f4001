//! A token in this process, for development: keys are PKCS#8 files in a directory, a session is nothing at all.
//!
//! **Not for production**: whoever reads this process's memory or the directory has the keys. [`WARNING`] is what
//! the daemon logs at start.
//!
//! What is read from a file is wiped from memory after use; the keys that the two libraries make of it are not (ring
//! wipes nothing).
//!
//! A locator is a file name within the directory (`login-rsa.pem`). Messages and Ed25519 are signed by ring; ring has
//! no call for a digest made elsewhere, so those are signed by RustCrypto's p256, p384, p521 and rsa.

mod directory;
mod key;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::{directory::KeyDirectory, key::PrivateKey};
use crate::{
    Algorithm, Error, Input, KeyId, KeyInfo, KeyReport, KeySpec, KeyType, Kind, ModuleId, Result, Session, Signature,
    Token,
};

/// What the operator must hear when this token is in use.
pub const WARNING: &str = "keys are held in this process and in plain files: the embedded token is for development, \
                           never for production";

/// The embedded token.
#[derive(Debug)]
pub struct EmbeddedToken {
    name: String,
    module: ModuleId,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: KeyDirectory,
    keys: Mutex<BTreeMap<KeyId, Slot>>,
}

/// A key that was asked for, and what came of looking it up.
#[derive(Debug)]
struct Slot {
    locator: Arc<str>,
    found: Option<Result<Arc<PrivateKey>>>,
}

impl EmbeddedToken {
    /// Opens the token whose keys are the files of `directory`, which is made (mode 0700) if it is missing, and
    /// refused if anybody else may enter it. Files named in `generate` that are missing are made first, each with a
    /// new key of its type: that takes seconds for RSA.
    pub fn open_directory(
        name: impl Into<String>,
        directory: impl AsRef<Path>,
        module: ModuleId,
        generate: &[(String, KeyType)],
    ) -> Result<EmbeddedToken> {
        let directory = KeyDirectory::open(directory.as_ref())?;
        for (file, key_type) in generate {
            if !directory.holds(file)? {
                directory.write(file, &key::generate_pem(*key_type)?)?;
            }
        }
        let shared = Arc::new(Shared { directory, keys: Mutex::default() });
        Ok(EmbeddedToken { name: name.into(), module, shared })
    }
}

impl Token for EmbeddedToken {
    fn name(&self) -> &str {
        &self.name
    }

    fn module(&self) -> ModuleId {
        self.module
    }

    fn add_keys(&self, keys: &[KeySpec]) {
        let mut known = self.shared.keys();
        for spec in keys {
            if known.get(&spec.id).is_none_or(|slot| slot.locator != spec.locator) {
                known.insert(spec.id, Slot { locator: spec.locator.clone(), found: None });
            }
        }
    }

    fn open(&self) -> Result<Box<dyn Session>> {
        Ok(Box::new(EmbeddedSession { shared: self.shared.clone(), cached: BTreeMap::new() }))
    }

    /// There is no module behind it.
    fn reinitialise(&self) -> Result<()> {
        Ok(())
    }
}

impl Shared {
    fn keys(&self) -> MutexGuard<'_, BTreeMap<KeyId, Slot>> {
        // Nothing is left half done under this lock.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, id: KeyId) -> Result<Arc<PrivateKey>> {
        match self.keys().get(&id).and_then(|slot| slot.found.as_ref()) {
            Some(found) => found.clone(),
            None => Err(Error::of(Kind::KeyMissing, "key", "not looked up on this token")),
        }
    }
}

struct EmbeddedSession {
    shared: Arc<Shared>,
    /// Keys this session has signed with. An id never names another key, so they stay right.
    cached: BTreeMap<KeyId, Arc<PrivateKey>>,
}

impl EmbeddedSession {
    fn key(&mut self, id: KeyId) -> Result<&PrivateKey> {
        use std::collections::btree_map::Entry;
        match self.cached.entry(id) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(self.shared.key(id)?)),
        }
    }
}

impl Session for EmbeddedSession {
    fn login(&mut self) -> Result<Vec<KeyReport>> {
        let mut known = self.shared.keys();
        let reports = known.iter_mut().map(|(id, slot)| {
            // A failed look-up is tried at every login, so that a file put right is found.
            if !matches!(slot.found, Some(Ok(_))) {
                slot.found = Some(self.shared.directory.load(&slot.locator).map(Arc::new));
            }
            let result = match slot.found.as_ref() {
                Some(Ok(key)) => Ok(key.info().clone()),
                Some(Err(error)) => Err(error.clone()),
                None => Err(Error::of(Kind::KeyMissing, "key", "not looked up")),
            };
            KeyReport { id: *id, result }
        });
        let reports = reports.collect();
        self.cached.clear();
        Ok(reports)
    }

    fn sign(&mut self, key: KeyId, algorithm: Algorithm, input: &Input, out: &mut Signature) -> Result<()> {
        out.clear();
        self.key(key)?.sign(algorithm, input, out)
    }

    fn presence(&mut self, key: KeyId) -> Result<()> {
        self.shared.key(key)?;
        let locator = self.shared.keys().get(&key).map(|slot| slot.locator.clone());
        match locator {
            Some(locator) if self.shared.directory.holds(&locator)? => Ok(()),
            _ => Err(Error::of(Kind::KeyMissing, "presence", "the key's file is gone")),
        }
    }

    /// Nothing of it can go away.
    fn keep_alive(&mut self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl KeyDirectory {
    fn load(&self, locator: &str) -> Result<PrivateKey> {
        PrivateKey::from_file(&self.read(locator)?)
    }
}

impl PrivateKey {
    fn info(&self) -> &KeyInfo {
        &self.info
    }
}
