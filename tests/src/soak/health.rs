//! Which token was well when, as far as whoever makes them ill can tell.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A token is ill from before something is done to it until it is seen to sign again.
#[derive(Debug)]
pub(super) struct Health {
    began: Instant,
    tokens: Mutex<Vec<Vec<Illness>>>,
}

#[derive(Clone, Copy, Debug)]
struct Illness {
    from: Duration,
    /// None while it lasts
    to: Option<Duration>,
    name: &'static str,
}

impl Health {
    /// All are well.
    pub(super) fn new(tokens: usize) -> Health {
        Health { began: Instant::now(), tokens: Mutex::new(vec![Vec::new(); tokens]) }
    }

    /// Since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn falls_ill(&self, token: usize, name: &'static str) {
        let from = self.now();
        self.tokens()[token].push(Illness { from, to: None, name });
    }

    pub(super) fn recovers(&self, token: usize) {
        let now = self.now();
        if let Some(last) = self.tokens()[token].last_mut() {
            last.to.get_or_insert(now);
        }
    }

    /// What ails each token now.
    pub(super) fn present(&self) -> Vec<Option<&'static str>> {
        let last = |illnesses: &Vec<Illness>| illnesses.last().filter(|last| last.to.is_none()).map(|last| last.name);
        self.tokens().iter().map(last).collect()
    }

    /// Whether one of these tokens was well all the time.
    pub(super) fn one_was_well(&self, tokens: &[usize], from: Duration, to: Duration) -> bool {
        self.longest_well(tokens, from, to) == to.saturating_sub(from)
    }

    /// The longest part of that time in which one and the same of these tokens was well.
    pub(super) fn longest_well(&self, tokens: &[usize], from: Duration, to: Duration) -> Duration {
        let all = self.tokens();
        tokens.iter().map(|&token| longest_gap(&all[token], from, to)).max().unwrap_or_default()
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, Vec<Vec<Illness>>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn longest_gap(illnesses: &[Illness], from: Duration, to: Duration) -> Duration {
    // Only the latest can matter: what is asked about is of the last seconds.
    let first = illnesses.partition_point(|illness| illness.to.is_some_and(|end| end <= from));
    let (mut well_since, mut longest) = (from, Duration::ZERO);
    for illness in &illnesses[first..] {
        longest = longest.max(illness.from.min(to).saturating_sub(well_since));
        well_since = well_since.max(illness.to.unwrap_or(Duration::MAX));
    }
    longest.max(to.saturating_sub(well_since))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn well_is_who_was_well_in_one_piece() {
        let ill = |from, to| Illness { from: S(from), to: Some(S(to)), name: "ill" };
        let health = Health::new(2);
        *health.tokens() = vec![vec![ill(10, 20), Illness { from: S(50), to: None, name: "ill" }], vec![ill(15, 40)]];
        for (tokens, from, to, longest) in [
            (&[0][..], 0, 9, 9),
            (&[0], 0, 12, 10),
            (&[0], 12, 18, 0),
            (&[0], 12, 25, 5),
            (&[0], 5, 25, 5),
            (&[0], 30, 60, 20),
            (&[0], 55, 60, 0),
            (&[0, 1], 12, 22, 3),
            (&[0, 1], 21, 49, 28),
        ] {
            assert_eq!(health.longest_well(tokens, S(from), S(to)), S(longest), "{tokens:?} from {from} to {to}");
            assert_eq!(health.one_was_well(tokens, S(from), S(to)), longest == to - from);
        }
    }
}
