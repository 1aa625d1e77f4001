//! What the daemon decides about the pool, with defaults and the reason for each.

use std::{fmt, sync::Arc};

use segl_hsm::Token;

use crate::core::TokenSpec;

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
    /// Most expected token time a session takes at once, so that a login never waits longer behind bulk
    pub batch_time_ns: u64,
    /// Most jobs of one class (login, signature, bulk) that may wait for one set of tokens
    pub queue_depth_max: [u32; 3],
    /// Most jobs of one tenant that may wait, all classes together
    pub tenant_depth_max: u32,
    /// While signatures wait, one dispatch in so many is one of them, however many logins wait
    pub signature_one_in: u32,
    /// While bulk waits, one dispatch in so many is bulk
    pub bulk_one_in: u32,
    /// How often a job is tried again after an attempt that failed
    pub retries_max: u8,
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
            service_guess_ns: 500_000,
            backoff_min_ns: 100_000_000,
            backoff_max_ns: 10_000_000_000,
            stuck_threads_max: 4,
            module_after: 3,
            session_count_retry_ns: 60_000_000_000,
            seed: 0x5e61,
        }
    }
}
