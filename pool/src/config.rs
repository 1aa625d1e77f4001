//! What the daemon decides about the pool, with defaults and the reason for each.

use std::{fmt, sync::Arc};

use segl_hsm::Token;

use crate::{Attempts, core::TokenSpec};

/// A pool's configuration.
#[derive(Clone, Default)]
pub struct Config {
    /// What Core goes by
    pub rules: Rules,
    /// How long a session's thread looks for work before it parks. A parked thread's wake-up costs 20 to 25 us;
    /// where sessions have cores to spare, 50 us here take that out of an unloaded request. 0: park at once.
    pub spin_ns: u64,
    /// Called first on every thread of the pool: the place to pin it to a core.
    pub on_thread_start: Option<Arc<dyn Fn(ThreadRole) + Send + Sync>>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("rules", &self.rules).field("spin_ns", &self.spin_ns).finish_non_exhaustive()
    }
}

/// What a thread of the pool is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadRole {
    /// It holds one session
    Session {
        /// The token's index
        token: u16,
        /// The session's number on that token
        session: u16,
    },
    /// It answers expired jobs and keeps appointments
    Timer,
}

/// One token of the pool; its index is its place in the list given to [`crate::Pool::start`].
#[derive(Clone)]
pub struct TokenSetup {
    /// The token
    pub token: Arc<dyn Token>,
    /// Most sessions to hold open: a property of the HSM, not of this machine's cores. They are opened as work waits
    pub sessions: u16,
    /// How long a call may take before it is waited for no longer: above the longest service time there is
    pub stuck_after_ns: u64,
    /// How long a session may stand idle before the token is reminded of it; `u64::MAX` for never
    pub keep_alive_ns: u64,
    /// Whether it is on this site: another one is used when the preferred ones are away or too busy
    pub preferred: bool,
}

impl TokenSetup {
    /// A preferred token, with calls given up after half a minute and no keep-alive.
    pub fn new(token: Arc<dyn Token>, sessions: u16) -> Self {
        let TokenSpec { stuck_after_ns, keep_alive_ns, preferred, .. } = TokenSpec::default();
        TokenSetup { token, sessions, stuck_after_ns, keep_alive_ns, preferred }
    }
}

impl fmt::Debug for TokenSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSetup")
            .field("token", &self.token.name())
            .field("sessions", &self.sessions)
            .finish_non_exhaustive()
    }
}

/// The bounds and intervals Core goes by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Most jobs a session takes at once: more than 64 gained nothing
    pub batch_max: u16,
    /// Most expected token time a session takes at once, so that a login never waits longer behind bulk; a
    /// quarter of it while several tenants or classes share the token
    pub batch_time_ns: u64,
    /// Most jobs of one class (login, signature, bulk) that may wait for one set of tokens: with 1 ms a signature and 16
    /// sessions, what is done in a second. Beyond it, a tenant with more waiting gives way to one with less
    pub queue_depth_max: [u32; 3],
    /// Most jobs of one tenant and class that may wait for one set of tokens: half a queue, so that no tenant fills it
    /// alone
    pub tenant_depth_max: u32,
    /// While signatures wait, one dispatch in so many is one of them, however many logins wait
    pub signature_one_in: u32,
    /// While bulk waits, one dispatch in so many is bulk
    pub bulk_one_in: u32,
    /// How often a job is tried again after an attempt that failed: a third token that fails is no accident. At most 3
    pub retries_max: u8,
    /// Retries allowed in the long run, in percent of the jobs accepted: a dying token may add so much to the load of
    /// the healthy ones, no more. Beyond it an attempt's error is the answer
    pub retry_budget_percent: u32,
    /// Retries that are allowed at once, if there were none for a while: at least one for each session of the pool, since
    /// a token that dies fails a call of each of its sessions
    pub retry_burst: u32,
    /// What a signature is taken to cost before the first one was measured
    pub service_guess_ns: u64,
    /// Pause after a token failed twice in a row; doubles with each further failure
    pub backoff_min_ns: u64,
    /// Longest such pause
    pub backoff_max_ns: u64,
    /// Most threads of a token that are given up as stuck and have not come back; beyond that a stuck call holds its
    /// session's place
    pub stuck_threads_max: u16,
    /// How often in a row a token is rebuilt or reached for in vain before its module is initialised anew
    pub module_after: u32,
    /// Pause after a module was initialised anew, until that may be done again; doubles with each further time that
    /// brought no token back. Far above `backoff_min_ns`: C_Finalize and C_Initialize make an HSM build up connections
    /// and sessions anew, and what did not help a moment ago does not help now
    pub module_backoff_min_ns: u64,
    /// Longest such pause. A token that comes back by itself does not wait for it
    pub module_backoff_max_ns: u64,
    /// When a token that has no session left to give is asked for more again
    pub session_count_retry_ns: u64,
    /// Seed of the jitter on pauses
    pub seed: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            batch_max: 64,
            batch_time_ns: 1_000_000,
            queue_depth_max: [16_384, 16_384, 16_384],
            tenant_depth_max: 8_192,
            signature_one_in: 4,
            bulk_one_in: 16,
            retries_max: 2,
            retry_budget_percent: 20,
            retry_burst: 64,
            service_guess_ns: 500_000,
            backoff_min_ns: 100_000_000,
            backoff_max_ns: 10_000_000_000,
            stuck_threads_max: 4,
            module_after: 3,
            module_backoff_min_ns: 5_000_000_000,
            module_backoff_max_ns: 60_000_000_000,
            session_count_retry_ns: 60_000_000_000,
            seed: 0x5e61,
        }
    }
}

/// A rule that can not be, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RulesError(String);

impl Rules {
    /// Whether a pool can go by these rules.
    ///
    /// # Errors
    /// The first rule that can not be.
    pub fn check(&self) -> Result<(), RulesError> {
        let positive = [
            ("batch_max", u64::from(self.batch_max), "a session takes one job at least"),
            ("batch_time", self.batch_time_ns, "a session takes one job at least"),
            ("queue_depth_max of logins", u64::from(self.queue_depth_max[0]), "nothing could wait"),
            ("queue_depth_max of signatures", u64::from(self.queue_depth_max[1]), "nothing could wait"),
            ("queue_depth_max of bulk", u64::from(self.queue_depth_max[2]), "nothing could wait"),
            ("tenant_depth_max", u64::from(self.tenant_depth_max), "nothing could wait"),
            ("service_guess", self.service_guess_ns, "no signature is free"),
            ("backoff_min", self.backoff_min_ns, "a token that is away would be asked without a pause"),
            (
                "module_after",
                u64::from(self.module_after),
                "a module is not initialised anew before anything has failed",
            ),
            ("module_backoff_min", self.module_backoff_min_ns, "an HSM that is away would be kept from coming back"),
            ("session_count_retry", self.session_count_retry_ns, "a full token would be asked without a pause"),
        ];
        if let Some((name, _, reason)) = positive.iter().find(|(_, value, _)| *value == 0) {
            return Err(RulesError(format!("{name} must not be 0: {reason}")));
        }
        let refusal = if self.signature_one_in < 2 || self.bulk_one_in < 2 {
            "signature_one_in and bulk_one_in must be 2 at least: with every dispatch one of theirs, logins would starve"
        } else if self.signature_one_in == 2 && self.bulk_one_in == 2 {
            "signature_one_in and bulk_one_in must not both be 2: half and half, and logins would starve"
        } else if usize::from(self.retries_max) >= Attempts::MAX {
            return Err(RulesError(format!("retries_max must not be above {}", Attempts::MAX - 1)));
        } else if self.retry_budget_percent > 100 {
            "retry_budget_percent must not be above 100: retries would be the greater part of the load"
        } else if self.backoff_max_ns < self.backoff_min_ns {
            "backoff_max must not be below backoff_min"
        } else if self.module_backoff_max_ns < self.module_backoff_min_ns {
            "module_backoff_max must not be below module_backoff_min"
        } else {
            return Ok(());
        };
        Err(RulesError(refusal.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_rules_a_pool_can_go_by_and_what_can_not_be_is_refused_in_a_sentence() {
        Rules::default().check().unwrap();
        type Spoil = fn(&mut Rules);
        let refused: [(&str, Spoil); 18] = [
            ("batch_max", |rules| rules.batch_max = 0),
            ("batch_time", |rules| rules.batch_time_ns = 0),
            ("logins", |rules| rules.queue_depth_max[0] = 0),
            ("signatures", |rules| rules.queue_depth_max[1] = 0),
            ("bulk", |rules| rules.queue_depth_max[2] = 0),
            ("tenant_depth_max", |rules| rules.tenant_depth_max = 0),
            ("service_guess", |rules| rules.service_guess_ns = 0),
            ("backoff_min", |rules| rules.backoff_min_ns = 0),
            ("module_backoff_min", |rules| rules.module_backoff_min_ns = 0),
            ("below module_backoff_min", |rules| rules.module_backoff_max_ns = 1),
            ("session_count_retry", |rules| rules.session_count_retry_ns = 0),
            ("logins would starve", |rules| rules.signature_one_in = 1),
            ("logins would starve", |rules| rules.bulk_one_in = 1),
            ("half and half", |rules| (rules.signature_one_in, rules.bulk_one_in) = (2, 2)),
            ("not be above 3", |rules| rules.retries_max = 4),
            ("retry_budget_percent", |rules| rules.retry_budget_percent = 101),
            ("below backoff_min", |rules| rules.backoff_max_ns = 1),
            ("module_after", |rules| rules.module_after = 0),
        ];
        for (named, spoil) in refused {
            let mut rules = Rules::default();
            spoil(&mut rules);
            let sentence = rules.check().unwrap_err().to_string();
            assert!(sentence.contains(named) && sentence.contains(' '), "{named}: {sentence}");
        }
    }
}
