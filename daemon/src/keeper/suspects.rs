//! Keys that bring their token down: each time such a key is used the whole token fails, while its other keys sign.
//! That they sign meanwhile is what tells such a key from one that only was the first to notice an outage.
//!
//! Tested with the others it would keep the token on probation for ever, and used by clients it would take the token
//! from everybody. So it is set aside there, and tested by itself after pauses that grow. The first ones are short: a
//! token that fails now and then can make an innocent key look guilty, and its clients should not wait for long.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use segl_hsm::KeyId;

/// So often in a row the token has to fail with the key before it is the key's doing.
const TIMES: u32 = 3;

/// The pause after that; it doubles each time, so that a guilty one brings its token down ten times in ten minutes and
/// once in ten from then on.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// What keys are suspected of, by key and token.
#[derive(Debug, Default)]
pub(super) struct Suspects(HashMap<(KeyId, u16), Suspicion>);

#[derive(Debug)]
struct Suspicion {
    times: u32,
    /// Of the first of these times, Unix seconds
    since_s: i64,
    /// Once it is found guilty
    set_aside: Option<SetAside>,
}

#[derive(Debug)]
struct SetAside {
    pause: Duration,
    not_before: Instant,
}

impl Suspects {
    /// The token failed as a whole when it was tested with this key. `signed_since` says whether another key of the
    /// token has signed there after a moment, in Unix seconds. Whether it is the key's doing.
    pub(super) fn accuse(
        &mut self,
        key: KeyId,
        token: u16,
        (now, now_s): (Instant, i64),
        signed_since: impl Fn(i64) -> bool,
    ) -> bool {
        let new = Suspicion { times: 0, since_s: now_s, set_aside: None };
        let suspicion = self.0.entry((key, token)).or_insert(new);
        suspicion.times = suspicion.times.saturating_add(1);
        let pause = match &suspicion.set_aside {
            Some(before) => before.pause.saturating_mul(2).min(PAUSE_MAX),
            None if suspicion.times >= TIMES && signed_since(suspicion.since_s) => PAUSE_MIN,
            None => return false,
        };
        suspicion.set_aside = Some(SetAside { pause, not_before: now + pause });
        true
    }

    /// It has signed there, or failed by itself.
    pub(super) fn clear(&mut self, key: KeyId, token: u16) {
        self.0.remove(&(key, token));
    }

    /// Whether it has brought the token down time and again.
    pub(super) fn holds(&self, key: KeyId, token: u16) -> bool {
        self.0.get(&(key, token)).is_some_and(|suspicion| suspicion.set_aside.is_some())
    }

    /// Those that are set aside, where, and from when on they may be tested.
    pub(super) fn guilty(&self) -> Vec<(KeyId, u16, Instant)> {
        let when = |suspicion: &Suspicion| suspicion.set_aside.as_ref().map(|set_aside| set_aside.not_before);
        self.0.iter().filter_map(|(&(key, token), suspicion)| Some((key, token, when(suspicion)?))).collect()
    }

    /// It is tested there now, and may be again after a moment if that says nothing of it.
    pub(super) fn tries(&mut self, key: KeyId, token: u16, now: Instant) {
        if let Some(set_aside) = self.0.get_mut(&(key, token)).and_then(|suspicion| suspicion.set_aside.as_mut()) {
            set_aside.not_before = now + PAUSE_MIN;
        }
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

    fn accuse(suspects: &mut Suspects, key: KeyId, others_sign: bool) -> bool {
        suspects.accuse(key, 0, (Instant::now(), 0), |_| others_sign)
    }

    #[test]
    fn a_key_that_brings_its_token_down_time_and_again_while_others_sign_is_set_aside_there_until_it_signs() {
        let mut suspects = Suspects::default();
        assert!(!accuse(&mut suspects, BAD, true) && !accuse(&mut suspects, BAD, true));
        suspects.clear(BAD, 0);
        assert!(!accuse(&mut suspects, BAD, true) && !accuse(&mut suspects, BAD, true), "it signed in between");
        assert_eq!(of_both(&suspects), [GOOD, BAD]);
        assert!(accuse(&mut suspects, BAD, true));
        assert_eq!(of_both(&suspects), [GOOD]);
        assert_eq!(suspects.set_aside(1, vec![GOOD, BAD], |key| *key), [GOOD, BAD], "another token, another matter");
        suspects.clear(BAD, 0);
        assert_eq!(of_both(&suspects), [GOOD, BAD]);
    }

    #[test]
    fn a_key_that_only_is_the_first_to_notice_an_outage_is_not_set_aside() {
        let mut suspects = Suspects::default();
        for _ in 0..100 {
            assert!(!accuse(&mut suspects, BAD, false));
        }
        assert_eq!(of_both(&suspects), [GOOD, BAD]);
        assert_eq!(suspects.guilty(), []);
    }

    #[test]
    fn it_is_tried_again_after_pauses_that_double_and_have_an_end() {
        let start = Instant::now();
        let mut suspects = Suspects::default();
        let accuse = |suspects: &mut Suspects| suspects.accuse(BAD, 0, (start, 0), |_| true);
        assert!(!accuse(&mut suspects) && !accuse(&mut suspects));
        assert_eq!(suspects.guilty(), []);
        (0..10).for_each(|_| assert!(!suspects.accuse(BAD, 0, (start, 0), |_| false)));
        for pause_s in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600] {
            assert!(accuse(&mut suspects));
            assert_eq!(suspects.guilty(), [(BAD, 0, start + Duration::from_secs(pause_s))], "{pause_s} s");
        }
    }
}
