//! Keeps one connection up: connects, hands it to the callers, and connects again when it leaves or breaks.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    ClientConfig, conversation,
    link::{Left, Link},
    transport::Connect,
};

/// How the connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is being made, for the first time or after the last one broke
    Connecting,
    /// It takes requests
    Ready,
    /// The server leaves: what is in flight is finished while another connection is made
    Draining,
    /// The last attempt failed; the next one comes after a pause. Requests fail at once as not sent
    Down {
        /// What went wrong
        error: Arc<str>,
        /// The first failure since it was last ready
        since: std::time::Instant,
    },
}

/// The same with what only the client itself needs.
pub(super) enum Phase {
    Connecting,
    Ready(Arc<Link>),
    Draining(Arc<Link>),
    Down { error: Arc<str> },
}

impl Phase {
    /// The present connection.
    pub(super) fn link(&self) -> Option<&Arc<Link>> {
        match self {
            Phase::Ready(link) | Phase::Draining(link) => Some(link),
            Phase::Connecting | Phase::Down { .. } => None,
        }
    }

    /// The connection that takes requests. It may close a moment before this phase changes.
    pub(super) fn open_link(&self) -> Option<&Arc<Link>> {
        match self {
            Phase::Ready(link) => link.is_open().then_some(link),
            _ => None,
        }
    }
}

/// Runs until every handle is gone.
pub(super) async fn run(
    connect: Connect,
    config: ClientConfig,
    phase: watch::Sender<Phase>,
    status: watch::Sender<Status>,
    mut stop: watch::Receiver<()>,
) {
    let mut attempts_failed = 0u32;
    let mut down_since = None;
    let mut connections = 0;
    loop {
        let attempt = timeout(config.connect_timeout, conversation::open(&connect));
        let attempt = tokio::select! {
            attempt = attempt => attempt,
            _ = stop.changed() => return,
        };
        let error: Arc<str> = match attempt {
            Ok(Ok(opened)) => {
                connections += 1;
                let opened_at = Instant::now();
                let link = Arc::new(Link::new(connections, opened.hello.clone(), config.trace.clone()));
                tracing::debug!(address = config.address, server = %link.hello.server, "connected");
                tokio::spawn(conversation::run(link.clone(), opened, config.keep_alive, config.grace, stop.clone()));
                down_since = None;
                phase.send_replace(Phase::Ready(link.clone()));
                status.send_replace(Status::Ready);
                let ended = tokio::select! {
                    ended = link.left() => ended,
                    _ = stop.changed() => return,
                };
                match ended {
                    Left::Draining => {
                        phase.send_replace(Phase::Draining(link.clone()));
                        status.send_replace(Status::Draining);
                    }
                    Left::Closed => {
                        phase.send_replace(Phase::Connecting);
                        status.send_replace(Status::Connecting);
                    }
                }
                // A server that takes connections only to drop them is not asked without a pause.
                if link.was_useful() || opened_at.elapsed() > config.backoff_max {
                    attempts_failed = 0;
                    continue;
                }
                link.why_left()
            }
            Ok(Err(error)) => error,
            Err(_) => "no connection in time".into(),
        };
        tracing::debug!(address = config.address, %error, "no connection");
        let since = *down_since.get_or_insert_with(std::time::Instant::now);
        phase.send_replace(Phase::Down { error: error.clone() });
        status.send_replace(Status::Down { error, since });
        attempts_failed += 1;
        tokio::select! {
            () = sleep(pause(attempts_failed, &config)) => {}
            _ = stop.changed() => return,
        }
    }
}

/// Doubles with every failure; a random half is left out, so that clients do not come back in step.
fn pause(attempts_failed: u32, config: &ClientConfig) -> Duration {
    let doubled = config.backoff_min.saturating_mul(1 << attempts_failed.saturating_sub(1).min(20));
    let longest = doubled.min(config.backoff_max);
    // A fresh RandomState is the standard library's own source of random numbers.
    let random = RandomState::new().hash_one(attempts_failed) as u32;
    longest / 2 + (longest / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}
