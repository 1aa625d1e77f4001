//! From the configuration's tokens to the pool's.

use std::{collections::HashMap, env, path::PathBuf, sync::Arc};

use rustix::thread::{CpuSet, sched_setaffinity};
use segl_hsm::{
    KeySpec, ModuleId, Token,
    embedded::{self, EmbeddedToken},
    pkcs11::{Module, Pkcs11Token},
};
use segl_pool::{Rules, ThreadRole, TokenSetup};

use super::RunError;
use crate::{
    config::{self, Config, TokenKind},
    policy::KeyEntry,
};

/// All tokens, in the order of the configuration: an index here is the pool's.
#[derive(Clone)]
pub(super) struct Tokens(Vec<Arc<dyn Token>>);

/// Loads modules and opens key directories.
pub(super) fn build(config: &Config) -> Result<Tokens, RunError> {
    let state = state_directory(config);
    let mut modules = HashMap::new();
    let mut tokens = Vec::new();
    for token in &config.tokens {
        let failed = |error| RunError::Token { token: token.name.to_string(), error };
        tokens.push(match &token.kind {
            TokenKind::Pkcs11 { module, uri, pin } => {
                let next = ModuleId(modules.len() as u32);
                let id = *modules.entry(module.canonicalize().unwrap_or_else(|_| module.clone())).or_insert(next);
                let module = Module::load(module, id).map_err(failed)?;
                let pkcs11 = Pkcs11Token::new(&*token.name, module, uri.clone(), pin.clone(), &state);
                Arc::new(pkcs11.map_err(failed)?) as Arc<dyn Token>
            }
            TokenKind::Embedded { directory, generate } => {
                tracing::warn!(token = &*token.name, "{}", embedded::WARNING);
                let generate: Vec<_> = generate.iter().map(|key| (key.file.clone(), key.key_type)).collect();
                // An embedded token shares its module with nobody.
                let id = ModuleId(u32::MAX - tokens.len() as u32);
                let embedded = EmbeddedToken::open_directory(&*token.name, directory, id, &generate);
                Arc::new(embedded.map_err(failed)?) as Arc<dyn Token>
            }
        });
    }
    Ok(Tokens(tokens))
}

/// Where it is kept which PIN a token has refused: systemd's StateDirectory, else beside the journal.
fn state_directory(config: &Config) -> PathBuf {
    match env::var_os("STATE_DIRECTORY") {
        Some(directories) => {
            let first = directories.to_string_lossy().split(':').next().map(PathBuf::from).unwrap_or_default();
            first.join("pins")
        }
        None => config.audit.directory.with_file_name("pins"),
    }
}

impl Tokens {
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.0.iter().map(|token| token.name().into()).collect()
    }

    /// Tells each token which keys to look up at its next login.
    pub(super) fn add_keys(&self, keys: &[Arc<KeyEntry>]) {
        for token in &self.0 {
            let held = keys.iter().filter(|key| key.tokens.iter().any(|name| **name == *token.name()));
            let specs: Vec<_> = held.map(|key| KeySpec { id: key.id, locator: key.locator.clone() }).collect();
            token.add_keys(&specs);
        }
    }

    pub(super) fn setups(&self, config: &Config) -> Vec<TokenSetup> {
        let setup = |(token, settings): (&Arc<dyn Token>, &config::Token)| {
            TokenSetup::new(token.clone(), settings.sessions)
        };
        self.0.iter().zip(&config.tokens).map(setup).collect()
    }
}

/// The pool's rules and where its threads run.
pub(super) fn pool_config(config: &Config) -> segl_pool::Config {
    let pool = &config.pool;
    let rules = Rules {
        batch_max: pool.batch_max,
        batch_time_ns: pool.batch_time.as_nanos() as u64,
        queue_depth_max: pool.queue_depth_max,
        tenant_depth_max: pool.tenant_depth_max,
        signature_one_in: pool.signature_one_in,
        bulk_one_in: pool.bulk_one_in,
        retries_max: pool.retries_max,
        backoff_min_ns: pool.backoff_min.as_nanos() as u64,
        backoff_max_ns: pool.backoff_max.as_nanos() as u64,
        ..Rules::default()
    };
    let cores: Vec<Vec<usize>> = config.tokens.iter().map(|token| token.cores.clone()).collect();
    let pin = move |role| {
        let ThreadRole::Session { token, session } = role else { return };
        let cores = &cores[usize::from(token)];
        if cores.is_empty() {
            return;
        }
        let mut set = CpuSet::new();
        set.set(cores[usize::from(session) % cores.len()]);
        if let Err(error) = sched_setaffinity(None, &set) {
            tracing::warn!(%error, token, session, "a session's thread is not pinned");
        }
    };
    segl_pool::Config { rules, spin_ns: pool.spin.as_nanos() as u64, on_thread_start: Some(Arc::new(pin)) }
}
