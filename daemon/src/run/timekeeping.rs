//! The host's clock, by which certificates end, keys change versions and records are dated: looked at before the start
//! and every few seconds from then on.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use segl_audit::Record;

use super::RunError;
use crate::{
    config,
    gate::{Gate, and_more},
    state::Shared,
    synchronisation::{Sighting, Sources},
};

/// How often it is looked at: three questions that do not leave the host.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// After a boot a time daemon needs some seconds; the unit gives the start 90.
const FIRST_WAIT: Duration = Duration::from_secs(45);
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A clock that stays unsynchronised is spoken of again so often.
const REMIND_EVERY: Duration = Duration::from_secs(3600);

/// What changes back and forth within ten minutes is one storm: its first loss and recovery are logged.
const STORM_NS: u64 = 600_000_000_000;

/// Looks at the clock before anything is signed, and waits for it where it is required.
///
/// # Errors
/// It is required, and nobody says that it is synchronised.
pub(super) fn begin(host: &config::Host) -> Result<(Sources, Sighting), RunError> {
    let sources = Sources::of_host(host.clock_marker.clone(), host.clock_age_max);
    let seen = first(&sources, host.clock, FIRST_WAIT)?;
    Ok((sources, seen))
}

fn first(sources: &Sources, clock: config::Clock, wait: Duration) -> Result<Sighting, RunError> {
    let began = Instant::now();
    let mut said = false;
    loop {
        let seen = sources.look();
        if seen.is_good() || clock == config::Clock::Warn {
            return Ok(seen);
        }
        if began.elapsed() >= wait {
            return Err(RunError::Clock(seen.to_string()));
        }
        if !std::mem::replace(&mut said, true) {
            tracing::warn!("the clock is {seen}; waiting for it for {} s, since [host] demands it", wait.as_secs());
        }
        thread::sleep(FIRST_PAUSE);
    }
}

/// Looks at it for as long as segld runs.
pub(super) async fn look_after(shared: Arc<Shared>, sources: Sources, first: Sighting) {
    let storm = Gate::per_period(2, STORM_NS);
    let began = Instant::now();
    let mut spoken = Instant::now();
    // The first is recorded whatever it is: every record after the start is dated by this clock.
    shared.clock.saw(first.clone());
    note(&shared, &first);
    say(&first, 0);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let sources = sources.clone();
        let Ok(seen) = tokio::task::spawn_blocking(move || sources.look()).await else { continue };
        let changed = shared.clock.saw(seen.clone());
        if changed {
            note(&shared, &seen);
        }
        let remind = !seen.is_good() && spoken.elapsed() >= REMIND_EVERY;
        if (changed || remind)
            && let Some(held_back) = storm.passes(began.elapsed().as_nanos() as u64)
        {
            say(&seen, held_back);
            spoken = Instant::now();
        }
    }
}

fn note(shared: &Shared, seen: &Sighting) {
    shared.desk.note(&Record::Clock(segl_audit::Clock {
        synchronised: seen.is_good(),
        source: seen.source.as_str().into(),
        detail: seen.detail.as_str().into(),
    }));
}

fn say(seen: &Sighting, held_back: u64) {
    let text = and_more(&format!("the clock is {seen}"), held_back);
    if seen.is_good() {
        tracing::info!("{text}");
    } else {
        tracing::warn!("{text}; certificates, versions of keys and the journal rest on it: see OPERATIONS.md, Clock");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_required_is_waited_for_and_then_refuses_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join("synchronised");
        let sources = Sources::of_marker(marker.clone(), Duration::from_secs(60));
        let refused = first(&sources, config::Clock::Required, Duration::ZERO).unwrap_err().to_string();
        assert!(
            refused.contains("no time daemon was found") && refused.contains("see that the time daemon runs"),
            "{refused}"
        );
        assert!(!first(&sources, config::Clock::Warn, Duration::ZERO).unwrap().is_good());
        let waiting = thread::spawn(move || first(&sources, config::Clock::Required, Duration::from_secs(30)));
        std::fs::write(marker, "").unwrap();
        assert!(waiting.join().unwrap().unwrap().is_good());
    }
}
