//! The pool on real threads.
use std::{io, sync::Arc, time::Duration};

use segl_hsm::{Error, KeyReport};

use crate::{Clock, Completion, Config, Job, RouteId, Snapshot, TokenSet, TokenSetup, core::Alarm};

/// Where completions go.
pub trait Inbox: Send + Sync + 'static {
    /// Takes all of `completions`; called outside the pool's lock, once a batch, on a thread of the pool or of
    /// whoever submitted. Must not block. What it leaves in the vector is dropped.
    fn deliver(&self, completions: &mut Vec<Completion>);
}

/// Who hears of what happens to tokens. Called outside the pool's lock, on the pool's threads; must not block long.
pub trait Observer: Send + Sync + 'static {
    /// A login succeeded; heard before the token signs after it.
    fn token_logged_in(&self, token: u16, keys: Vec<KeyReport>);
    /// A session was spoilt by an error and is being replaced.
    fn session_lost(&self, token: u16, error: &Error);
    /// Everything else.
    fn alarm(&self, alarm: &Alarm);
}

/// How far the pool's own threads are behind. A thread inside a token's call does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How long the timer's thread is overdue
    pub timer_lag_ns: u64,
    /// The longest that work has been lying before a session's thread which had nothing else to do
    pub session_lag_ns: u64,
}

/// How a stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Threads left behind since they did not return from a token in time
    pub threads_left: usize,
}

/// Sessions as a pool.
#[derive(Debug)]
pub struct Pool {}

#[allow(clippy::todo, unused_variables, missing_docs)]
impl Pool {
    pub fn start(
        config: Config,
        tokens: Vec<TokenSetup>,
        inboxes: Vec<Arc<dyn Inbox>>,
        observer: Arc<dyn Observer>,
    ) -> io::Result<Pool> {
        todo!()
    }
    pub fn clock(&self) -> Clock {
        todo!()
    }
    pub fn submit(&self, jobs: &mut Vec<Job>) {
        todo!()
    }
    pub fn cancel(&self, inbox: u16, tag: u64) {
        todo!()
    }
    pub fn set_routes(&self, routes: &[TokenSet]) {
        todo!()
    }
    pub fn route_usable(&self, route: RouteId) -> bool {
        todo!()
    }
    pub fn refresh(&self, token: u16) {
        todo!()
    }
    pub fn join(&self, token: u16) {
        todo!()
    }
    pub fn leave(&self, token: u16) {
        todo!()
    }
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }
    pub fn progress(&self) -> Progress {
        todo!()
    }
    pub fn drain(&self) {
        todo!()
    }
    pub fn stop(&self, limit: Duration) -> Stopped {
        todo!()
    }
}
