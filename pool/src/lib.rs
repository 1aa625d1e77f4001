//! Sessions as a pool: many waiting requests on one side, a handful of blocking sessions on the other.
//!
//! [`core`] decides: a state machine without thread, clock, lock or I/O, which is fed events and the time and answers
//! with actions. The driver behind [`Pool`] carries the actions out, on a thread per session and one for the timer,
//! and decides nothing. So a simulator can put the same Core under every fault in virtual time.
//!
//! The crate knows no network, no PKCS#11 and no asynchronous runtime; tokens come in through the traits of
//! `segl-hsm`, completions leave through [`Inbox`].

#![warn(missing_docs)]

mod attempt;
mod clock;
mod config;
pub mod core;
mod driver;
mod job;
#[cfg(any(test, feature = "simulator"))]
pub mod simulator;
mod snapshot;
mod times;

pub use attempt::{Attempt, Attempts, Discard, Fate};
pub use clock::Clock;
pub use config::{Config, Rules, RulesError, ThreadRole, TokenSetup};
pub use driver::{Inbox, Observer, Pool, Progress, Stopped};
pub use job::{Class, Completion, Failure, Job, RouteId, TokenSet, Work};
pub use snapshot::{Counters, QueueSnapshot, RungCounters, Snapshot, TokenSnapshot, TokenState};
pub use times::Times;
