//! A single HSM that misbehaves: errors at once and of the right kind, and service again when it heals.

use std::time::{Duration, Instant};

use segl_faulty_token::{Call, Command, Does, Fault, Revives, Seen, When, cryptoki_sys::CKR_DEVICE_ERROR};
use segl_tests::{
    conversation::{Conversation, sign_request},
    site::{P256, await_keys},
};
use segl_wire::{Code, Error, Retry, SignedState};

use crate::{
    fire::Fire,
    room::{DIGEST, connect, sound, until},
};

/// Well below a request's own time-out of 10 s.
const AT_ONCE: Duration = Duration::from_secs(4);

fn refused(conversation: &mut Conversation) -> Error<'static> {
    let started = Instant::now();
    let error = conversation.sign(&sign_request(P256, "ecdsa-p256-sha256", &DIGEST)).unwrap().unwrap_err();
    assert!(started.elapsed() < AT_ONCE, "{error} after {:?}", started.elapsed());
    error
}

/// Asks until the token is known to be away, and then what a client hears.
fn while_it_is_away(fire: &Fire, conversation: &mut Conversation) {
    until("the token is away", || {
        fire.room.metric("segl_token_ready", &["token=\"one\""]) == 0.0 || {
            let _ = conversation.sign(&sign_request(P256, "ecdsa-p256-sha256", &DIGEST)).unwrap();
            false
        }
    });
    let error = refused(conversation);
    assert_eq!((error.code, error.signed), (Code::KeyUnavailable, SignedState::No), "{error}");
    assert_eq!(error.retry, Retry::Elsewhere);
}

fn served_again(fire: &Fire, conversation: &mut Conversation) {
    await_keys(&fire.room.admin).unwrap();
    sound(conversation);
}

#[test]
fn a_token_that_dies_is_said_to_be_away_and_serves_again_when_it_heals() {
    for opens in [true, false] {
        let fire = Fire::light(&["one"], false);
        let mut conversation = connect(&fire.room.site, 0);
        sound(&mut conversation);
        fire.tell(Command::Die { token: None, opens, until: Revives::Healing });
        while_it_is_away(&fire, &mut conversation);
        fire.hsms[0].heal().unwrap();
        served_again(&fire, &mut conversation);
        fire.put_out(&[], &[]);
    }
}

#[test]
fn a_token_that_is_removed_is_said_to_be_away_and_serves_again_in_another_slot() {
    let fire = Fire::light(&["one"], false);
    let mut conversation = connect(&fire.room.site, 0);
    sound(&mut conversation);
    for (slot, seen) in [(7, Seen::AtOnce), (8, Seen::Reinitialised)] {
        fire.tell(Command::Remove { token: None });
        while_it_is_away(&fire, &mut conversation);
        fire.tell(Command::Insert { token: None, slot: Some(slot), seen });
        served_again(&fire, &mut conversation);
    }
    fire.put_out(&[], &[]);
}

#[test]
fn a_c_sign_of_unknown_fate_is_reported_as_such() {
    let fire = Fire::light(&["one"], false);
    let mut conversation = connect(&fire.room.site, 0);
    sound(&mut conversation);
    fire.hsms[0].fault(Call::Sign, When::Times(1), Does::Answer(CKR_DEVICE_ERROR)).unwrap();
    let error = refused(&mut conversation);
    assert_eq!((error.code, error.signed), (Code::TokenFailed, SignedState::Unknown), "{error}");
    served_again(&fire, &mut conversation);
    fire.put_out(&[], &[]);
}

#[test]
fn a_c_sign_that_hangs_is_given_up_in_time_and_its_place_is_taken() {
    let fire = Fire::light(&["one"], false);
    let mut conversation = connect(&fire.room.site, 0);
    sound(&mut conversation);
    fire.hsms[0].fault(Call::Sign, When::Times(1), Does::Hang { for_ms: None }).unwrap();
    let error = refused(&mut conversation);
    assert_eq!(error.signed, SignedState::Unknown, "{error}");
    sound(&mut conversation);
    fire.tell(Command::Release);
    until("its thread is back", || fire.room.metric("segl_threads_stuck", &["token=\"one\""]) == 0.0);
    let ashes = fire.put_out(&[], &[]);
    assert_eq!(ashes.calls["one"].late_signed, 1);
}

#[test]
fn an_hsm_that_is_away_at_the_start_is_used_when_it_comes() {
    let away = |call| {
        let does = Does::Answer(CKR_DEVICE_ERROR);
        Command::Fault(Fault { call, token: None, key: None, when: When::Always, does })
    };
    for commands in [vec![away(Call::Initialize)], vec![Command::Remove { token: None }], vec![away(Call::OpenSession)]]
    {
        let fire = Fire::smoulder(commands);
        let mut conversation = connect(&fire.room.site, 0);
        let error = refused(&mut conversation);
        assert_eq!(error.code, Code::KeyUnavailable, "{error}");
        fire.hsms[0].heal().unwrap();
        served_again(&fire, &mut conversation);
        fire.put_out(&[], &[]);
    }
}
