//! Towards the service manager: readiness, reloads, the watchdog, and the health that feeds it.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;

use crate::state::Shared;

/// A thread of ours that has not come round for so long is stuck; they come round ten times a second.
const STUCK: Duration = Duration::from_secs(5);

/// Without a service manager's watchdog our own look at the threads is this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// `Type=notify-reload` wants the time beside it (sd_notify(3)).
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager can not be told");
    }
}

/// Whether our own threads make progress. A token that hangs is none of them: restarting would not mend it.
#[derive(Clone)]
pub(super) struct Health(Arc<Shared>);

impl Health {
    pub(super) fn new(shared: Arc<Shared>) -> Health {
        Health(shared)
    }

    /// # Errors
    /// Which thread is stuck.
    pub(super) fn check(&self) -> Result<(), String> {
        let stuck_ns = STUCK.as_nanos() as u64;
        let now_ns = self.0.desk.now_ns();
        for (index, heartbeat) in self.0.progress.iter().enumerate() {
            if heartbeat.age_ns(now_ns) > stuck_ns {
                return Err(format!(
                    "reactor {index} has not come round for {} ms",
                    heartbeat.age_ns(now_ns) / 1_000_000
                ));
            }
        }
        let pool = self.0.desk.pool_progress();
        if pool.timer_lag_ns > stuck_ns || pool.session_lag_ns > stuck_ns {
            return Err(format!("the pool's threads lag: {pool:?}"));
        }
        Ok(())
    }

    /// Whether the journal's disk answers. Like a token it is none of our threads: a restart would not mend it.
    ///
    /// # Errors
    /// For how long it has not.
    pub(super) fn check_disk(&self) -> Result<(), String> {
        match Duration::from_nanos(self.0.desk.journal().stats().committing_ns) {
            waiting if waiting > STUCK => Err(format!("the journal's disk has not answered for {waiting:?}")),
            _ => Ok(()),
        }
    }
}

/// Feeds the service manager's watchdog for as long as [`Health`] is well, whatever else the main thread waits for.
pub(super) async fn feed_watchdog(health: Health) {
    let watchdog = sd_notify::watchdog_enabled();
    let mut ticks = tokio::time::interval(watchdog.map_or(LOOK_EVERY, |limit| limit / 3));
    loop {
        ticks.tick().await;
        match health.check() {
            // Nobody else reads it, and a socket that is full would hold us up.
            Ok(()) if watchdog.is_some() => tell(&[NotifyState::Watchdog]),
            Ok(()) => {}
            Err(why) => tracing::error!(why, "not well: the watchdog is not fed"),
        }
    }
}
