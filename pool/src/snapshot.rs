//! What the pool tells of itself: for metrics, health and the operator.

use std::sync::Arc;

use segl_hsm::Error;

use crate::{Class, Times, TokenSet};

/// The pool at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// By token index
    pub tokens: Vec<TokenSnapshot>,
    /// What waits, by set of tokens; every set that ever had a job is listed
    pub queues: Vec<QueueSnapshot>,
    /// Since the start
    pub counters: Counters,
    /// Retries that the budget still allows
    pub retries_left: u32,
    /// Jobs handed to sessions and not returned
    pub running: u32,
    /// Whether new jobs are refused
    pub draining: bool,
    /// Per route of [`crate::Pool::set_routes`]: whether some session could sign with its keys now
    pub route_usable: Vec<bool>,
}

impl Snapshot {
    /// Jobs of a class that wait, for any token.
    pub fn queued(&self, class: Class) -> u32 {
        self.queues.iter().map(|queue| queue.depth[class.index()]).sum()
    }
}

/// One token at one moment.
#[derive(Clone, Debug)]
pub struct TokenSnapshot {
    /// The operator's name for it
    pub name: Arc<str>,
    /// How it is
    pub state: TokenState,
    /// Sessions open, busy ones included
    pub sessions_open: u16,
    /// Sessions that hold jobs
    pub sessions_busy: u16,
    /// Sessions it is allowed now: fewer than configured while it has none left to give
    pub sessions_cap: u16,
    /// The latest error of any call to it
    pub last_error: Option<Error>,
    /// When that was, on the pool's clock
    pub last_error_ns: u64,
    /// Moving average of the time of a signature, all keys together; 0 before the first
    pub service_ewma_ns: u64,
    /// How long each signature took that it made
    pub times: Times,
    /// Signing calls that returned
    pub calls: u64,
    /// Of these, the ones that failed
    pub errors: u64,
    /// Sessions lost to an error
    pub sessions_lost: u64,
    /// Threads that were given up inside the token's code and have not come back, places that are held by one included
    pub threads_stuck: u16,
    /// How often each rung of recovery was taken
    pub rungs: RungCounters,
}

/// How often each rung of recovery was taken for a token, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RungCounters {
    /// A session was spoilt and closed, to be opened anew
    pub session_replaced: u64,
    /// A thread was stuck in the token's code and given up
    pub thread_replaced: u64,
    /// The login was lost and done again
    pub login_again: u64,
    /// All sessions and key handles were given up together
    pub token_rebuilt: u64,
    /// The token's module was finalised and initialised anew
    pub module_reinitialised: u64,
    /// It came back and was put on probation
    pub probations: u64,
}

/// How a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenState {
    /// Its first session is being opened
    Opening,
    /// A session is open, and the login under way
    LoggingIn,
    /// It is open and logged in, and signs nothing but self-tests until somebody vouches for it
    Probation,
    /// It signs
    Ready,
    /// It failed; it is tried again by itself
    Away,
    /// It is away, and so is all of its module, which a stuck call keeps from being initialised anew: unless that call
    /// returns, only a restart of the process helps
    Wedged,
    /// It failed, and only an operator can change that: [`crate::Pool::refresh`] tries again
    NeedsOperator,
    /// It was taken out: what it has is finished, and its sessions are closed
    Draining,
    /// It was taken out, and nobody is inside it
    Drained,
}

impl TokenState {
    /// All there are.
    pub const ALL: [TokenState; 9] = [
        TokenState::Opening,
        TokenState::LoggingIn,
        TokenState::Probation,
        TokenState::Ready,
        TokenState::Away,
        TokenState::Wedged,
        TokenState::NeedsOperator,
        TokenState::Draining,
        TokenState::Drained,
    ];

    /// The name used in metrics and by the operator's commands.
    pub const fn name(self) -> &'static str {
        match self {
            TokenState::Opening => "opening",
            TokenState::LoggingIn => "logging-in",
            TokenState::Probation => "probation",
            TokenState::Ready => "ready",
            TokenState::Away => "away",
            TokenState::Wedged => "wedged",
            TokenState::NeedsOperator => "needs-operator",
            TokenState::Draining => "draining",
            TokenState::Drained => "drained",
        }
    }
}

/// What waits for one set of tokens.
#[derive(Clone, Debug)]
pub struct QueueSnapshot {
    /// The set
    pub tokens: TokenSet,
    /// Jobs waiting, by class (login, signature, bulk)
    pub depth: [u32; 3],
    /// Expected time until a job of the least urgent class that comes now begins; none while nobody serves the set
    pub wait_ns: Option<u64>,
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Jobs submitted, refused ones included
    pub submitted: u64,
    /// Completed with a signature
    pub signed: u64,
    /// Completed as expired
    pub expired: u64,
    /// Completed as cancelled
    pub cancelled: u64,
    /// Completed as overloaded
    pub overloaded: u64,
    /// Completed over their tenant's limit
    pub tenant_limit: u64,
    /// Completed since no token was there
    pub key_unavailable: u64,
    /// Completed since the pool was draining
    pub draining: u64,
    /// Completed as stuck in a token
    pub stuck: u64,
    /// Completed with a token's error
    pub token_error: u64,
    /// Attempts that were followed by another of the same job
    pub retries: u64,
    /// Attempts that would have been followed by another if the budget had not been used up
    pub retries_refused: u64,
    /// Jobs that lost their place in a full queue to a tenant with less waiting; of those completed as overloaded
    pub displaced: u64,
    /// Attempts that ended without saying whether a signature was made
    pub unknown: u64,
    /// Answers of sessions that nobody waited for any more, discarded
    pub stale: u64,
    /// Batches handed to sessions
    pub batches: u64,
}

impl Counters {
    /// Jobs completed, by whatever outcome.
    pub fn completed(&self) -> u64 {
        self.signed
            + self.expired
            + self.cancelled
            + self.overloaded
            + self.tenant_limit
            + self.key_unavailable
            + self.draining
            + self.stuck
            + self.token_error
    }
}
