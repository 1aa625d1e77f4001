//! Reload: certificates, client CAs, CRLs, tenants and keys, all or nothing.
//!
//! Everything new is read, checked and, for keys, looked up on the tokens before anything is replaced. Connections
//! that stay valid notice nothing.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::gauge;
use segl_audit::Record;
use segl_pool::TokenState;

use super::tokens::Tokens;
use crate::{
    config::{self, Config},
    keeper::Keeper,
    keybook::acceptable,
    policy::{KeyEntry, Policy, Registry, conflicts},
    state::{Shared, Snapshot},
    tls::TlsSnapshot,
};

/// How long the tokens get to look up new keys.
const LOOK_UP: Duration = Duration::from_secs(10);

/// Reloads, one at a time.
#[derive(Clone)]
pub(super) struct Reloader(Arc<Mutex<Inner>>);

struct Inner {
    path: PathBuf,
    registry: Registry,
    tokens: Tokens,
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    fixed: Fixed,
    digest: [u8; 32],
}

impl Reloader {
    pub(super) fn new(
        path: PathBuf,
        registry: Registry,
        tokens: Tokens,
        shared: Arc<Shared>,
        keeper: Arc<Keeper>,
        config: &Config,
    ) -> Reloader {
        let (fixed, digest) = (Fixed::of(config), *config.digest());
        Reloader(Arc::new(Mutex::new(Inner { path, registry, tokens, shared, keeper, fixed, digest })))
    }

    /// Reads the configuration again. Whether it was taken stands in log, metrics and journal too; with it comes the
    /// digest of what is in force now.
    pub(super) fn reload(&self) -> (Result<String, String>, [u8; 32]) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = inner.try_reload();
        gauge!("segl_reload_ok").set(if outcome.is_ok() { 1.0 } else { 0.0 });
        let (ok, message) = match &outcome {
            Ok(what) => {
                tracing::info!(what, "reloaded");
                (true, what)
            }
            Err(why) => {
                tracing::error!(why, "the reload is refused; the old configuration stays in force");
                (false, why)
            }
        };
        inner.shared.desk.note(&Record::Reload(segl_audit::Reload {
            ok,
            message: message.into(),
            config_digest: inner.digest,
        }));
        (outcome, inner.digest)
    }
}

impl Inner {
    fn try_reload(&mut self) -> Result<String, String> {
        let (config, findings) = config::load(&self.path).map_err(|findings| findings.to_string())?;
        if !findings.is_empty() {
            tracing::warn!("{findings}");
        }
        let changed = self.fixed.differing(&Fixed::of(&config));
        if !changed.is_empty() {
            return Err(format!("[{}] can not change without a restart", changed.join("], [")));
        }
        self.wake_tokens();
        let old = self.shared.snapshot.load_full();
        let tls = TlsSnapshot::new(&config.tls, Some(&old.tls)).map_err(|error| error.to_string())?;
        let policy = Policy::new(&config, &mut self.registry);
        self.look_up(&old, policy.keys())?;
        self.compare(&old, policy.keys())?;

        let summary =
            format!("{} keys, {} tenants, {} CRLs", policy.keys().len(), policy.tenants().len(), tls.crls.len());
        self.test_replacements(&old, policy.keys());
        self.tokens.verify(policy.keys());
        let cards = self.shared.keys.replace(policy.keys().iter().cloned());
        self.shared.snapshot.store(Arc::new(Snapshot { policy, cards, tls }));
        self.digest = *config.digest();
        self.keeper.keys_replaced();
        if !self.keeper.wait_until_idle(LOOK_UP) {
            tracing::warn!("the self-tests after the reload are still under way");
        }
        Ok(summary)
    }

    /// Tokens that do not sign are tried again, now: this may be the operator, with a PIN that is right. Also those that
    /// are being tried at this moment, since that may be with what was there before.
    fn wake_tokens(&self) {
        let pool = self.shared.desk.pool_snapshot();
        let signs = |state| {
            matches!(state, TokenState::Ready | TokenState::Probation | TokenState::Draining | TokenState::Drained)
        };
        let others = (0u16..).zip(&pool.tokens).filter(|(_, token)| !signs(token.state));
        others.for_each(|(token, _)| self.shared.desk.refresh(token));
    }

    /// Has the tokens that sign look up the keys that are new, and those that one of them did not find before: it may
    /// have been put there since. One that is away will say later what it holds.
    fn look_up(&self, old: &Snapshot, keys: &[Arc<KeyEntry>]) -> Result<(), String> {
        let tokens = 0..self.tokens.names().len() as u16;
        let missed = |key: &KeyEntry| {
            let mut reports = tokens.clone().filter_map(|token| self.keeper.last_report(token, key.id));
            reports.any(|report| report.result.is_err())
        };
        let (new, again): (Vec<_>, Vec<_>) =
            keys.iter().filter(|key| is_new(old, key) || missed(key)).partition(|key| is_new(old, key));
        if new.is_empty() && again.is_empty() {
            return Ok(());
        }
        self.tokens.add_keys(keys);
        let wanted_on =
            |token: &str| new.iter().chain(&again).any(|key| key.tokens.iter().any(|name| **name == *token));
        let pool = self.shared.desk.pool_snapshot();
        let wanted: Vec<_> = (0u16..).zip(&pool.tokens).filter(|(_, token)| wanted_on(&token.name)).collect();
        let asked: Vec<_> = wanted
            .iter()
            .filter(|(_, token)| matches!(token.state, TokenState::Ready | TokenState::Probation))
            .map(|(token, _)| (*token, self.keeper.reports_of(*token)))
            .collect();
        // A login under way may have passed the new keys by; it is done again, and not waited for.
        let logging_in = wanted.iter().filter(|(_, token)| token.state == TokenState::LoggingIn);
        logging_in.for_each(|(token, _)| self.shared.desk.refresh(*token));
        asked.iter().for_each(|(token, _)| self.shared.desk.refresh(*token));
        // A key that was missing before must not stand in the way of a new CRL.
        if !self.keeper.wait_for_reports(&asked, LOOK_UP) && !new.is_empty() {
            return Err("the tokens did not look up the new keys in time".into());
        }
        Ok(())
    }

    /// A key that is held by other tokens from now on is another one as far as tokens and pool go, and has to pass its
    /// self-tests: until it has, what was there before signs on, so that clients notice nothing of tokens that join or
    /// leave it.
    fn test_replacements(&self, old: &Snapshot, keys: &[Arc<KeyEntry>]) {
        let replaces = |new: &KeyEntry, before: &KeyEntry| {
            new.id != before.id && new.label == before.label && new.purpose == before.purpose
        };
        let replaced = old.policy.keys().iter().filter(|before| keys.iter().any(|new| replaces(new, before)));
        let mut both: Vec<_> = replaced.cloned().collect();
        if both.is_empty() {
            return;
        }
        both.extend(keys.iter().cloned());
        self.tokens.verify(&both);
        self.shared.keys.replace(both.into_iter());
        self.keeper.keys_replaced();
        if !self.keeper.wait_until_idle(LOOK_UP) {
            tracing::warn!("the self-tests of keys that are held by other tokens now are still under way");
        }
    }

    /// Every key against what the tokens have said of it: certificate, algorithms, and one purpose a public key.
    fn compare(&self, old: &Snapshot, keys: &[Arc<KeyEntry>]) -> Result<(), String> {
        let names = self.tokens.names();
        let mut wrong = Vec::new();
        let mut held = Vec::new();
        for key in keys {
            for token in 0..names.len() as u16 {
                let Some(report) = self.keeper.last_report(token, key.id) else { continue };
                // What was wrong before must not stand in the way of a new CRL.
                let before = old.policy.keys().iter().find(|before| before.id == key.id);
                match acceptable(key, &report) {
                    Ok(info) => held.push((key, info.spki_der.clone())),
                    Err(why) if before.is_some_and(|before| acceptable(before, &report).is_err()) => {
                        tracing::warn!(key = &*key.label, why, "still not fit");
                    }
                    Err(why) => wrong.push(format!("key {} on token {}: {why}", key.label, names[usize::from(token)])),
                }
            }
        }
        let claims: Vec<_> = held.iter().map(|(key, spki_der)| key.claim(spki_der)).collect();
        for conflict in conflicts(&claims) {
            let stood_before = |at: usize| old.policy.keys().iter().any(|key| key.id == held[at].0.id);
            if stood_before(conflict.first) && stood_before(conflict.second) {
                tracing::warn!(%conflict, "still in conflict");
            } else {
                wrong.push(conflict.to_string());
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

fn is_new(old: &Snapshot, key: &KeyEntry) -> bool {
    old.policy.keys().iter().all(|known| known.id != key.id)
}

/// What lives as long as the process: a change of it wants a restart (which, with systemd's sockets, refuses nobody).
struct Fixed {
    host: config::Host,
    listen: config::Listen,
    reactor: config::Reactor,
    limits: config::Limits,
    pool: config::Pool,
    audit: config::Audit,
    admin: config::Admin,
    control: config::Control,
    log: config::Log,
    tokens: Vec<config::Token>,
}

impl Fixed {
    fn of(config: &Config) -> Fixed {
        Fixed {
            host: config.host.clone(),
            listen: config.listen.clone(),
            reactor: config.reactor.clone(),
            limits: config.limits.clone(),
            pool: config.pool.clone(),
            audit: config.audit.clone(),
            admin: config.admin.clone(),
            control: config.control.clone(),
            log: config.log.clone(),
            tokens: config.tokens.clone(),
        }
    }

    /// The sections that differ.
    fn differing(&self, new: &Fixed) -> Vec<&'static str> {
        let sections = [
            ("host", self.host == new.host),
            ("listen", self.listen == new.listen),
            ("reactor", self.reactor == new.reactor),
            ("limits", self.limits == new.limits),
            ("pool", self.pool == new.pool),
            ("audit", self.audit == new.audit),
            ("admin", self.admin == new.admin),
            ("control", self.control == new.control),
            ("log", self.log == new.log),
            ("[token]", self.tokens == new.tokens),
        ];
        sections.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }
}
