//! chronyd: what `chronyc tracking` asks, by chrony's own protocol (candm.h, version 6), which it answers on the
//! loopback unless `cmdport 0` forbids it. Its socket in /run/chrony is for root alone.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use super::{Sighting, State, ask, by_age, unix_time};

pub(super) const PORT: u16 = 323;

const VERSION: u8 = 6;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const TRACKING: u16 = 33;
const TRACKING_REPLY: u16 = 5;
/// A question is as long as its answer, so that nobody's flood is made bigger by it.
const LENGTH: usize = 104;
const SEQUENCE: u32 = 0x5365_676c;
/// Offsets in the answer: the header has 28 bytes, reference id and address of the source 24.
const STRATUM: usize = 52;
const LEAP: usize = 54;
const REFERENCE_TIME: usize = 56;
/// Leap status "not synchronised".
const UNSYNCHRONISED: u16 = 3;

const NAME: &str = "chronyd";

/// None where nobody answers.
pub(super) fn look(at: SocketAddr, now: SystemTime, age_max: Duration) -> Option<Sighting> {
    let mut question = [0; LENGTH];
    question[..2].copy_from_slice(&[VERSION, REQUEST]);
    question[4..6].copy_from_slice(&TRACKING.to_be_bytes());
    question[8..12].copy_from_slice(&SEQUENCE.to_be_bytes());
    let answer = ask(at, &question)?;
    Some(
        judge(&answer, now, age_max)
            .unwrap_or_else(|| Sighting::new(State::Unsynchronised, NAME, "something that segld does not understand")),
    )
}

/// None if it is no answer to the question.
fn judge(answer: &[u8], now: SystemTime, age_max: Duration) -> Option<Sighting> {
    let number = |at: usize| Some(u16::from_be_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u32::from_be_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let header = answer.starts_with(&[VERSION, REPLY]) && number(4)? == TRACKING && long(16)? == SEQUENCE;
    if !header {
        return None;
    }
    if number(8)? != 0 {
        return Some(Sighting::new(State::Unsynchronised, NAME, "that it does not answer us"));
    }
    if number(6)? != TRACKING_REPLY {
        return None;
    }
    let (stratum, leap) = (number(STRATUM)?, number(LEAP)?);
    if leap == UNSYNCHRONISED || stratum == 0 || stratum >= 16 {
        return Some(Sighting::new(State::Unsynchronised, NAME, "that it follows no source"));
    }
    let seconds = u64::from(long(REFERENCE_TIME)?) << 32 | u64::from(long(REFERENCE_TIME + 4)?);
    Some(by_age(NAME, unix_time(seconds)?, now, age_max))
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    /// What chronyd 4.3 answers, with these values.
    pub(in crate::synchronisation) fn answer(leap: u16, stratum: u16, heard: SystemTime) -> Vec<u8> {
        let mut answer = vec![0; LENGTH];
        answer[..8].copy_from_slice(&[6, 2, 0, 0, 0, 33, 0, 5]);
        answer[16..20].copy_from_slice(&SEQUENCE.to_be_bytes());
        answer[STRATUM..STRATUM + 2].copy_from_slice(&stratum.to_be_bytes());
        answer[LEAP..LEAP + 2].copy_from_slice(&leap.to_be_bytes());
        let seconds = heard.duration_since(UNIX_EPOCH).unwrap().as_secs();
        answer[REFERENCE_TIME..REFERENCE_TIME + 8].copy_from_slice(&seconds.to_be_bytes());
        answer
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn state(answer: &[u8]) -> Option<State> {
        judge(answer, SystemTime::now(), HOUR).map(|seen| seen.state)
    }

    #[test]
    fn it_is_synchronised_while_it_follows_a_source_and_has_heard_of_it() {
        let now = SystemTime::now();
        assert_eq!(state(&answer(0, 3, now)), Some(State::Synchronised));
        assert_eq!(state(&answer(1, 3, now)), Some(State::Synchronised), "a leap second is announced");
        assert_eq!(state(&answer(0, 3, now - 2 * HOUR)), Some(State::Unsynchronised));
        assert_eq!(state(&answer(3, 0, UNIX_EPOCH)), Some(State::Unsynchronised));
        assert_eq!(state(&answer(0, 16, now)), Some(State::Unsynchronised));
    }

    /// Answers of chronyd 4.3 (Debian 12), but for the sequence number: with `local stratum 8`, and with a server that
    /// does not answer.
    #[test]
    fn real_answers_are_understood() {
        let local = "060200000021000500000000000000005365676c00000000000000007f7f01010000000000000000000000000000000000000000\
                     00080000000000006b0d3cc53b52e489000000000000000000000000000000000000000000000000000000000000000000000000";
        let none = "060200000021000500000000000000005365676c0000000000000000000000000000000000000000000000000000000000000000\
                     00000003000000000000000000000000000000000000000000000000000000000000000000000000048000000480000000000000";
        let bytes = |text: &str| -> Vec<u8> {
            (0..LENGTH).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
        };
        let (local, none) = (bytes(local), bytes(none));
        let at = unix_time(0x6b0d_3cc5 + 1).unwrap();
        assert_eq!(judge(&local, at, HOUR).unwrap().state, State::Synchronised);
        assert_eq!(judge(&none, at, HOUR).unwrap().state, State::Unsynchronised);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = state(&bytes);
        }

        #[test]
        fn a_sound_answer_that_was_cut_or_changed_is_never_worse_than_refused(
            cut in 0..=LENGTH, at in 0..LENGTH, to in any::<u8>(),
        ) {
            let mut changed = answer(0, 3, SystemTime::now());
            changed[at] = to;
            let _ = state(&changed[..cut]);
        }
    }
}
