//! ntpd (ntpsec, ntp.org, OpenNTPD with `listen on 127.0.0.1`): what any NTP client asks (RFC 5905), on the loopback.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use super::{Sighting, State, ask, by_age, unix_time};

pub(super) const PORT: u16 = 123;

/// No leap second announced, version 4, mode client.
const CLIENT: u8 = 0b00_100_011;
const MODE_SERVER: u8 = 4;
/// "Clock unsynchronised".
const ALARM: u8 = 3;
/// A packet without extensions.
const LENGTH: usize = 48;
/// When the server's clock was last set or corrected.
const REFERENCE: usize = 16;
/// The client's own transmit time, as the server gives it back.
const ORIGIN: usize = 24;
const TRANSMIT: usize = 40;
/// From 1900 to 1970.
const EPOCH_S: u64 = 2_208_988_800;
/// The time of a packet begins anew in 2036: what looks like the time before 1968 is after it.
const ERA_S: u64 = 1 << 32;

const NAME: &str = "the NTP daemon";

/// None where nobody answers.
pub(super) fn look(at: SocketAddr, now: SystemTime, age_max: Duration) -> Option<Sighting> {
    let mut question = [0; LENGTH];
    question[0] = CLIENT;
    // Only our own port hears the answer; this tells it from a stray one.
    let cookie = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    question[TRANSMIT..].copy_from_slice(&cookie.to_be_bytes());
    let answer = ask(at, &question)?;
    Some(
        judge(&answer, cookie, now, age_max)
            .unwrap_or_else(|| Sighting::new(State::Unsynchronised, NAME, "something that segld does not understand")),
    )
}

/// None if it is no answer to the question.
fn judge(answer: &[u8], cookie: u64, now: SystemTime, age_max: Duration) -> Option<Sighting> {
    let packet: &[u8; LENGTH] = answer.get(..LENGTH)?.try_into().ok()?;
    let (leap, mode, stratum) = (packet[0] >> 6, packet[0] & 7, packet[1]);
    if mode != MODE_SERVER || packet[ORIGIN..ORIGIN + 8] != cookie.to_be_bytes() {
        return None;
    }
    if leap == ALARM || stratum == 0 || stratum >= 16 {
        return Some(Sighting::new(State::Unsynchronised, NAME, "that it follows no source"));
    }
    let seconds = u64::from(u32::from_be_bytes(packet[REFERENCE..REFERENCE + 4].try_into().ok()?));
    let unix_s = if seconds >= 1 << 31 { seconds - EPOCH_S } else { seconds + ERA_S - EPOCH_S };
    Some(by_age(NAME, unix_time(unix_s)?, now, age_max))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The NTP time now, in seconds.
    pub(in crate::synchronisation) fn seconds_now() -> u32 {
        let unix_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        (unix_s + EPOCH_S) as u32
    }

    /// A server's answer to this question.
    pub(in crate::synchronisation) fn answer_to(question: &[u8], leap: u8, stratum: u8, reference_s: u32) -> Vec<u8> {
        let mut answer = vec![0; LENGTH];
        answer[..2].copy_from_slice(&[leap << 6 | 4 << 3 | MODE_SERVER, stratum]);
        answer[REFERENCE..REFERENCE + 4].copy_from_slice(&reference_s.to_be_bytes());
        answer[ORIGIN..ORIGIN + 8].copy_from_slice(&question[TRANSMIT..TRANSMIT + 8]);
        answer
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const COOKIE: u64 = 0x0101_0101_0101_0101;

    fn state(answer: &[u8], now: SystemTime) -> Option<State> {
        judge(answer, COOKIE, now, HOUR).map(|seen| seen.state)
    }

    fn answer(leap: u8, stratum: u8, reference_s: u32) -> Vec<u8> {
        let mut question = [0; LENGTH];
        question[TRANSMIT..].copy_from_slice(&COOKIE.to_be_bytes());
        answer_to(&question, leap, stratum, reference_s)
    }

    #[test]
    fn it_is_synchronised_while_it_follows_a_source_and_has_heard_of_it() {
        let now = SystemTime::now();
        assert_eq!(state(&answer(0, 2, seconds_now()), now), Some(State::Synchronised));
        assert_eq!(state(&answer(0, 2, seconds_now() - 7200), now), Some(State::Unsynchronised));
        assert_eq!(state(&answer(3, 0, 0), now), Some(State::Unsynchronised));
        assert_eq!(state(&answer(0, 16, seconds_now()), now), Some(State::Unsynchronised));
    }

    #[test]
    fn the_era_that_begins_in_2036_is_as_good() {
        let in_2040 = unix_time(2_208_988_800).unwrap();
        let reference_s = (2_208_988_800 + EPOCH_S - 60) as u32;
        assert_eq!(state(&answer(0, 2, reference_s), in_2040), Some(State::Synchronised));
    }

    /// An answer of ntpd 1.2.2 (ntpsec, Debian 12) right after its start.
    #[test]
    fn a_real_answer_is_understood() {
        let text = "e40000e80000000000000001494e495400000000000000000101010101010101eeb7bb4ba6bd25f7eeb7bb4ba6c03653";
        let bytes: Vec<u8> = (0..LENGTH).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
        assert_eq!(state(&bytes, SystemTime::now()), Some(State::Unsynchronised));
    }

    #[test]
    fn an_answer_to_somebody_elses_question_is_none() {
        let mut stray = answer(0, 2, seconds_now());
        stray[ORIGIN] ^= 1;
        assert_eq!(state(&stray, SystemTime::now()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = state(&bytes, SystemTime::now());
        }
    }
}
