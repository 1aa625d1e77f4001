//! A file that is touched whenever the clock was adjusted: its time says how long ago.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use super::{Sighting, by_age};

/// systemd-timesyncd's: touched with every answer of its server that it believes, 34 minutes apart at most unless
/// configured otherwise (timesyncd.conf(5), PollIntervalMaxSec=).
pub(super) const TIMESYNCD: &str = "/run/systemd/timesync/synchronized";

/// None where there is no such file: its daemon does not run, or has not been right since the boot.
pub(super) fn look(path: &Path, now: SystemTime, age_max: Duration) -> Option<Sighting> {
    let touched = path.metadata().and_then(|found| found.modified()).ok()?;
    let source = if path == Path::new(TIMESYNCD) { "systemd-timesyncd".to_owned() } else { path.display().to_string() };
    Some(by_age(&source, touched, now, age_max))
}
