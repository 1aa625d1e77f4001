//! From the configuration's tokens to the pool's.

use std::{collections::HashMap, env, path::PathBuf, sync::Arc, time::Duration};

use rustix::thread::{CpuSet, sched_setaffinity};
use segl_hsm::{
    KeySpec, ModuleId, Token,
    embedded::{self, EmbeddedToken},
    pkcs11::{Module, Pkcs11Token},
    verified::{Mode, VerifiedToken, VerifyModes},
};
use segl_pool::{Rules, ThreadRole, TokenSetup};

use super::RunError;
use crate::{
    config::{self, Config, TokenKind, Verify},
    policy::KeyEntry,
};

/// All tokens, in the order of the configuration: an index here is the pool's.
#[derive(Clone)]
pub(super) struct Tokens {
    all: Vec<Arc<dyn Token>>,
    /// How much of what they sign is verified
    modes: Arc<VerifyModes>,
}

/// Loads modules and opens key directories.
pub(super) fn build(config: &Config) -> Result<Tokens, RunError> {
    let state = state_directory(config);
    let mut modules = HashMap::new();
    let modes: Arc<VerifyModes> = Arc::default();
    let mut tokens: Vec<Arc<dyn Token>> = Vec::new();
    for token in &config.tokens {
        let failed = |error| RunError::Token { token: token.name.to_string(), error };
        let inner = match &token.kind {
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
        };
        tokens.push(Arc::new(VerifiedToken::new(inner, modes.clone())));
    }
    Ok(Tokens { all: tokens, modes })
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
    /// The module that each belongs to.
    pub(super) fn modules(&self) -> Vec<ModuleId> {
        self.all.iter().map(|token| token.module()).collect()
    }

    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.all.iter().map(|token| token.name().into()).collect()
    }

    /// Themselves, by their index in the pool.
    pub(super) fn all(&self) -> &[Arc<dyn Token>] {
        &self.all
    }

    /// Tells each token which keys to look up at its next login.
    pub(super) fn add_keys(&self, keys: &[Arc<KeyEntry>]) {
        for token in &self.all {
            let held = keys.iter().filter(|key| key.tokens.iter().any(|name| **name == *token.name()));
            let specs: Vec<_> = held.map(|key| KeySpec { id: key.id, locator: key.locator.clone() }).collect();
            token.add_keys(&specs);
        }
    }

    /// Says how many of each key's signatures are verified before they leave.
    pub(super) fn verify(&self, keys: &[Arc<KeyEntry>]) {
        let mode = |verify| match verify {
            Verify::Off => Mode::Off,
            Verify::Sample => Mode::Sample(Verify::SAMPLE),
            Verify::Always => Mode::Always,
        };
        self.modes.replace(keys.iter().map(|key| (key.id, mode(key.verify))));
    }

    pub(super) fn setups(&self, config: &Config) -> Vec<TokenSetup> {
        let setup = |(token, settings): (&Arc<dyn Token>, &config::Token)| TokenSetup {
            token: token.clone(),
            sessions: settings.sessions,
            stuck_after_ns: settings.stuck_after.as_nanos() as u64,
            keep_alive_ns: match settings.keep_alive {
                Duration::ZERO => u64::MAX,
                every => every.as_nanos() as u64,
            },
            preferred: settings.preferred,
        };
        self.all.iter().zip(&config.tokens).map(setup).collect()
    }
}

/// The pool's rules and where its threads run.
pub(super) fn pool_config(config: &Config) -> segl_pool::Config {
    let pool = &config.pool;
    // A token that dies fails a call of each of its sessions at once.
    let sessions = config.tokens.iter().map(|token| u32::from(token.sessions)).sum();
    let rules = pool.rules();
    let rules = Rules { retry_burst: rules.retry_burst.max(sessions), ..rules };
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
