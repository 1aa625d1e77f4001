//! A single HSM that misbehaves: errors at once and of the right kind, and service again when it heals.

use std::time::{Duration, Instant};

use segl_faulty_token::{
    Call, Command, Does, Fault, Revives, Seen, Tempo, Violations, When,
    cryptoki_sys::{
        CKR_DEVICE_ERROR, CKR_DEVICE_MEMORY, CKR_FUNCTION_FAILED, CKR_MECHANISM_INVALID, CKR_USER_NOT_LOGGED_IN,
    },
};
use segl_tests::{
    conversation::{Conversation, sign_request},
    site::{P256, await_keys},
};
use segl_wire::{Code, Error, Retry, SignedState};

use crate::{
    fire::{Ashes, Fire, Load, TOKEN},
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
    assert_eq!(ashes.calls("one").late_signed, 1);
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

/// Full load on the one HSM while this befalls it and until `ill` has seen enough; then it is healed, and signs again
/// for everybody. Errors come at once, and are of these kinds.
fn befalls(fire: Fire, ill: impl FnOnce(&Load), allowed: &[Code]) -> Ashes {
    let mut accounts = fire.load(ill);
    fire.hsms[0].heal().unwrap();
    served_again(&fire, &mut connect(&fire.room.site, 0));
    // All that is left of it is over, and nobody hears of it any more.
    let afterwards = fire.load(|load| {
        fire.recovered();
        load.answers(500);
    });
    for account in &afterwards {
        assert!(account.refused.is_empty(), "{:?}", account.refused.values().next());
    }
    accounts.extend(afterwards);
    for account in &accounts {
        assert!(account.slowest < AT_ONCE, "{:?}", account.slowest);
    }
    fire.put_out(&accounts, allowed)
}

/// Waits until clients have heard of it, without an end in sight.
fn unavailable(fire: &Fire, load: &Load) {
    until("it is away", || fire.room.metric("segl_token_ready", &["token=\"one\""]) == 0.0);
    load.answers(500);
}

#[test]
fn with_fewer_sessions_it_signs_with_those_it_gives() {
    let fire = Fire::light(&["one"], false);
    let few = |load: &Load| {
        fire.tell(Command::Sessions { token: None, max: Some(1), announced: false });
        fire.tell(Command::LogOut { token: None });
        fire.recovered();
        load.answers(500);
    };
    // What a logout finds inside is told so by C_Sign, and has not signed; it waits for the login.
    let mut accounts = fire.load(few);
    fire.hsms[0].heal().unwrap();
    accounts.extend(fire.load(|load| load.answers(500)));
    fire.put_out(&accounts, &[]);
}

#[test]
fn sessions_that_it_closes_when_idle_cost_no_request_anything() {
    let fire = Fire::light_with(&["one"], "sessions = 4\nkeep_alive = \"0s\"", "");
    fire.tell(Command::IdleLimit { token: None, limit_ms: Some(200) });
    let mut accounts = Vec::new();
    for _ in 0..2 {
        until("all are closed", || fire.token().sessions == 0);
        accounts.extend(fire.load(|load| load.answers(500)));
    }
    fire.put_out(&accounts, &[]);
}

#[test]
fn a_logout_from_elsewhere_is_waited_out() {
    let fire = Fire::light(&["one"], false);
    let accounts = fire.load(|_| {
        for _ in 0..3 {
            fire.tell(Command::LogOut { token: None });
            fire.recovered();
        }
    });
    fire.put_out(&accounts, &[]);
}

#[test]
fn a_restart_costs_what_was_inside_and_no_more() {
    let fire = Fire::light(&["one"], false);
    const RESTARTS: u64 = 3;
    let accounts = fire.load(|_| {
        for _ in 0..RESTARTS {
            fire.tell(Command::Restart { token: None });
            fire.recovered();
        }
    });
    let ashes = fire.sift(&accounts, &[Code::TokenFailed, Code::KeyUnavailable]);
    // Nothing tells a caller before it calls that its number was given to another: who is on the way at that moment can
    // not know. Whoever is not, hears of it.
    let strangers_used = ashes.violations.strangers_used;
    assert!(strangers_used <= RESTARTS, "{strangers_used} calls went to strangers");
    assert_eq!(ashes.violations, Violations { strangers_used, ..Violations::default() });
}

#[test]
fn codes_of_every_kind_are_errors_at_once_and_it_signs_again() {
    for (code, allowed) in [
        (CKR_DEVICE_ERROR, [Code::TokenFailed, Code::KeyUnavailable]),
        (CKR_FUNCTION_FAILED, [Code::TokenFailed, Code::KeyUnavailable]),
        (CKR_DEVICE_MEMORY, [Code::Overloaded, Code::Overloaded]),
        (CKR_USER_NOT_LOGGED_IN, [Code::TokenFailed, Code::KeyUnavailable]),
        (CKR_MECHANISM_INVALID, [Code::KeyRefused, Code::KeyRefused]),
    ] {
        let fire = Fire::light(&["one"], false);
        let hsm = fire.hsms[0].clone();
        let ashes = befalls(
            fire,
            move |load| {
                hsm.fault(Call::SignInit, When::Always, Does::Answer(code)).unwrap();
                load.answers(1_000);
            },
            &allowed,
        );
        assert!(ashes.refused > 0 && ashes.calls("one").unknown == 0, "nothing was signed: {code:#x}");
    }
}

#[test]
fn a_call_that_hangs_while_sessions_come_and_go_is_an_error_at_once_until_it_returns() {
    for call in [Call::OpenSession, Call::Login, Call::Finalize] {
        let fire = Fire::light(&["one"], false);
        let (hsm, room) = (fire.hsms[0].clone(), &fire.room);
        let until_away = |load: &Load| {
            hsm.fault(call, When::Times(1), Does::Hang { for_ms: None }).unwrap();
            hsm.command(&match call {
                Call::Finalize => Command::Die { token: None, opens: true, until: Revives::Finalise },
                _ => Command::LogOut { token: None },
            })
            .unwrap();
            hsm.wait_for("hanging", 1).unwrap();
            until("it is away", || room.metric("segl_token_ready", &["token=\"one\""]) == 0.0);
            load.answers(500);
        };
        let accounts = fire.load(until_away);
        fire.hsms[0].heal().unwrap();
        served_again(&fire, &mut connect(&fire.room.site, 0));
        let ashes = fire.put_out(&accounts, &[Code::TokenFailed, Code::KeyUnavailable]);
        assert!(ashes.refused > 0);
    }
}

#[test]
fn an_answer_of_another_length_is_an_error_and_in_doubt() {
    let fire = Fire::light(&["one"], false);
    let hsm = fire.hsms[0].clone();
    let cut = move |load: &Load| {
        hsm.fault(Call::Sign, When::OneIn(50), Does::Length(4_711)).unwrap();
        load.answers(1_000);
    };
    let ashes = befalls(fire, cut, &[Code::TokenFailed]);
    assert!(ashes.refused > 0);
    assert_eq!(ashes.calls("one").unknown, ashes.refused as u64);
}

#[test]
fn a_refused_pin_makes_its_keys_unavailable_at_once_and_is_not_tried_again() {
    let mut fire = Fire::light(&["one"], false);
    let accounts = fire.load(|load| {
        fire.tell(Command::Pin { token: None, pin: "another".into() });
        fire.tell(Command::LogOut { token: None });
        unavailable(&fire, load);
    });
    std::fs::write(fire.room.site.dir.join("pin"), "another").unwrap();
    fire.room.reload_taken();
    served_again(&fire, &mut connect(&fire.room.site, 0));
    let ashes = fire.put_out(&accounts, &[Code::KeyUnavailable]);
    assert!(ashes.refused > 0);
    assert_eq!(ashes.tokens["one"].logins_refused, 1);
}

#[test]
fn after_a_wrong_signature_its_keys_are_unavailable_until_the_operator_has_acted() {
    let mut fire = Fire::light_with(&["one"], TOKEN, "verify = \"always\"");
    let accounts = fire.load(|load| {
        fire.hsms[0].fault(Call::Sign, When::Times(1), Does::WrongSignature).unwrap();
        unavailable(&fire, load);
    });
    fire.room.reload_taken();
    served_again(&fire, &mut connect(&fire.room.site, 0));
    // The one whose signature it was, and those that wait in vain.
    let ashes = fire.put_out(&accounts, &[Code::TokenFailed, Code::KeyUnavailable]);
    assert_eq!((ashes.tokens["one"].all_keys().wrong, ashes.calls("one").unknown), (1, 0));
}

#[test]
fn handles_that_change_their_meaning_make_its_keys_unavailable_and_no_stranger_s_signature_leaves() {
    let mut fire = Fire::light_with(&["one"], TOKEN, "verify = \"always\"");
    let accounts = fire.load(|load| {
        fire.tell(Command::Reshuffle { token: None });
        unavailable(&fire, load);
    });
    fire.room.reload_taken();
    served_again(&fire, &mut connect(&fire.room.site, 0));
    // Nothing told the caller that its handles had changed: to have used them is no fault of its own.
    let ashes = fire.sift(&accounts, &[Code::TokenFailed, Code::KeyUnavailable]);
    assert!(ashes.calls("one").discarded > 0);
}

#[test]
fn a_long_tail_is_waited_for_and_no_error() {
    let fire = Fire::light(&["one"], false);
    let tempo = Tempo { base_us: 200, spread_us: 300, tail_one_in: 100, tail_us: 200_000, parallel: 2 };
    fire.tell(Command::Tempo { token: None, tempo });
    let accounts = fire.load(|load| load.answers(1_000));
    fire.put_out(&accounts, &[]);
}
