//! The time of day, as certificates have it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, UTC. A clock before that is a clock on which nothing is valid.
pub(crate) fn unix_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
