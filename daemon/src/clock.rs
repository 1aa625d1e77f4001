//! The time of day, as certificates and versions of keys have it.
//!
//! Tests set it for their own thread, on which reactors of theirs run too; other threads go on by the host's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, UTC. A clock before that is a clock on which nothing is valid.
pub(crate) fn unix_s() -> i64 {
    #[cfg(test)]
    if let Some(set) = set::SET.get() {
        return set;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
pub(crate) mod set {
    use std::cell::Cell;

    thread_local! { pub(super) static SET: Cell<Option<i64>> = const { Cell::new(None) } }

    /// From now on it is this time on this thread, and stays so.
    pub(crate) fn set(unix_s: i64) {
        SET.set(Some(unix_s));
    }
}
