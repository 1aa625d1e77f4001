//! Keys that bring their token down: each time such a key is used the whole token fails, while its other keys sign.
//!
//! Tested with the others it would keep the token on probation for ever, and used by clients it would take the token
//! from everybody. So it is set aside there, and tested by itself after pauses that grow.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use segl_hsm::KeyId;

/// So often in a row the token has to fail with the key before it is the key's doing.
const TIMES: u32 = 2;

/// The pause after that; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// What keys are suspected of, by key and token.
#[derive(Debug, Default)]
pub(super) struct Suspects(HashMap<(KeyId, u16), Suspicion>);

#[derive(Debug)]
struct Suspicion {
    times: u32,
    not_before: Instant,
}

impl Suspects {
    /// The token failed as a whole when it was tested with this key.
    pub(super) fn accuse(&mut self, key: KeyId, token: u16, now: Instant) {
        let suspicion = self.0.entry((key, token)).or_insert(Suspicion { times: 0, not_before: now });
        suspicion.times = suspicion.times.saturating_add(1);
        let doublings = suspicion.times.saturating_sub(TIMES).min(16);
        suspicion.not_before = now + PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
    }

    /// It has signed there, or failed by itself.
    pub(super) fn clear(&mut self, key: KeyId, token: u16) {
        self.0.remove(&(key, token));
    }

    /// Whether it has brought the token down time and again.
    pub(super) fn holds(&self, key: KeyId, token: u16) -> bool {
        self.0.get(&(key, token)).is_some_and(|suspicion| suspicion.times >= TIMES)
    }

    /// Whether it may be tested there now.
    pub(super) fn may_try(&self, key: KeyId, token: u16, now: Instant) -> bool {
        !self.holds(key, token) || self.0.get(&(key, token)).is_none_or(|suspicion| suspicion.not_before <= now)
    }

    /// Of what is to be tested on a token: all but those that bring it down, unless these are all there is. Then it
    /// is the token, and none is told from the other.
    pub(super) fn set_aside<T>(&self, token: u16, keys: Vec<T>, id: impl Fn(&T) -> KeyId) -> Vec<T> {
        let (suspected, others): (Vec<T>, Vec<T>) = keys.into_iter().partition(|key| self.holds(id(key), token));
        if others.is_empty() { suspected } else { others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: KeyId = KeyId(1);
    const BAD: KeyId = KeyId(2);

    fn of_both(suspects: &Suspects) -> Vec<KeyId> {
        suspects.set_aside(0, vec![GOOD, BAD], |key| *key)
    }

    #[test]
    fn a_key_that_brings_its_token_down_twice_in_a_row_is_set_aside_there_until_it_signs() {
        let now = Instant::now();
        let mut suspects = Suspects::default();
        suspects.accuse(BAD, 0, now);
        assert_eq!(of_both(&suspects), [GOOD, BAD], "once says nothing");
        suspects.clear(BAD, 0);
        suspects.accuse(BAD, 0, now);
        assert_eq!(of_both(&suspects), [GOOD, BAD], "it signed in between");
        suspects.accuse(BAD, 0, now);
        assert_eq!(of_both(&suspects), [GOOD]);
        assert_eq!(suspects.set_aside(1, vec![GOOD, BAD], |key| *key), [GOOD, BAD], "another token, another matter");
        suspects.clear(BAD, 0);
        assert_eq!(of_both(&suspects), [GOOD, BAD]);
    }

    #[test]
    fn where_every_key_brings_the_token_down_it_is_the_token_and_all_are_tested() {
        let mut suspects = Suspects::default();
        for key in [GOOD, BAD, GOOD, BAD] {
            suspects.accuse(key, 0, Instant::now());
        }
        assert_eq!(of_both(&suspects), [GOOD, BAD]);
    }

    #[test]
    fn it_is_tried_again_after_pauses_that_double_and_have_an_end() {
        let start = Instant::now();
        let mut suspects = Suspects::default();
        suspects.accuse(BAD, 0, start);
        assert!(suspects.may_try(BAD, 0, start));
        for pause_s in [10, 20, 40, 80, 160, 320, 600, 600] {
            suspects.accuse(BAD, 0, start);
            assert!(!suspects.may_try(BAD, 0, start + Duration::from_secs(pause_s - 1)), "{pause_s} s");
            assert!(suspects.may_try(BAD, 0, start + Duration::from_secs(pause_s)), "{pause_s} s");
        }
    }
}
