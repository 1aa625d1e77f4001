//! Full load over mutual TLS on two HSMs with the same keys, of which one misbehaves: no wrong answer, none lost, no
//! error that a client could have been spared, recovery without a restart, and counts that match.

use segl_faulty_token::{
    Call, Command, Does, Fault, Revives, Seen, Tempo, When,
    cryptoki_sys::{
        CKR_DEVICE_ERROR, CKR_DEVICE_MEMORY, CKR_FUNCTION_FAILED, CKR_GENERAL_ERROR, CKR_HOST_MEMORY,
        CKR_KEY_HANDLE_INVALID, CKR_SESSION_HANDLE_INVALID, CKR_USER_NOT_LOGGED_IN,
    },
};
use segl_tests::{conversation::sign_request, faulty::DECOY, journal::Register, process::Signal, site::ED25519};
use segl_wire::{Code, Payload};

use crate::{
    fire::{Fire, Load, TOKEN},
    load::{Account, public_key, verifies},
    room::{DIGEST, SOON, connect, journal, sound, until},
};

const TWO: [&str; 2] = ["one", "two"];

/// Full load with that fault, from now on in `share` of the calls, until it is taken back.
fn with_fault(fire: &Fire, call: Call, when: When, does: Does) -> Vec<Account> {
    fire.load(|load| {
        let fault = fire.hsms[0].fault(call, when, does).unwrap();
        load.answers(2_000);
        fire.hsms[0].clear(fault).unwrap();
        fire.recovered();
        load.answers(500);
    })
}

#[test]
fn a_call_that_fails_before_c_sign_costs_no_client_anything() {
    let fire = Fire::light(&TWO, false);
    let accounts = fire.load(|load| {
        for code in [CKR_DEVICE_ERROR, CKR_GENERAL_ERROR, CKR_SESSION_HANDLE_INVALID, CKR_KEY_HANDLE_INVALID] {
            let fault = fire.hsms[0].fault(Call::SignInit, When::OneIn(20), Does::Answer(code)).unwrap();
            load.answers(1_000);
            fire.hsms[0].clear(fault).unwrap();
            fire.recovered();
        }
    });
    let ashes = fire.put_out(&accounts, &[]);
    assert!(ashes.calls("one").failed > 0);
}

/// From `SHOWN` failures on a storm is no accident of a busy machine.
const SHOWN: u64 = 20;

#[test]
fn a_storm_of_errors_is_one_line_in_the_log_and_a_number_in_the_metrics() {
    let fire = Fire::light(&TWO, false);
    let accounts = with_fault(&fire, Call::SignInit, When::OneIn(20), Does::Answer(CKR_SESSION_HANDLE_INVALID));
    assert!(fire.room.metric("segl_sessions_lost_total", &["token=\"one\""]) > SHOWN as f64);
    assert!(fire.room.metric("segl_token_rungs_total", &["token=\"one\"", "rung=\"session\""]) > SHOWN as f64);
    // One in ten seconds, and the load takes a few.
    let lines = fire.room.segld.log().matches("a session was lost").count();
    assert!((1..=2).contains(&lines), "{lines} lines");
    let ashes = fire.put_out(&accounts, &[]);
    assert!(ashes.calls("one").failed > SHOWN);
}

#[test]
fn a_c_sign_that_fails_is_repeated_elsewhere_where_the_key_allows_it() {
    let fire = Fire::light(&TWO, true);
    let accounts = with_fault(&fire, Call::Sign, When::OneIn(50), Does::Answer(CKR_DEVICE_ERROR));
    let ashes = fire.put_out(&accounts, &[]);
    assert!(ashes.calls("one").unknown > 0);
}

#[test]
fn of_a_key_that_is_not_repeatable_as_many_errors_show_as_there_are_calls_of_unknown_fate() {
    let fire = Fire::light(&TWO, false);
    let accounts = with_fault(&fire, Call::Sign, When::OneIn(50), Does::Answer(CKR_FUNCTION_FAILED));
    let ashes = fire.put_out(&accounts, &[Code::TokenFailed]);
    assert!(ashes.refused > 0);
    assert_eq!(ashes.calls("one").unknown, ashes.refused as u64);
}

#[test]
fn a_signature_that_was_made_and_withheld_is_in_doubt_in_the_journal() {
    let fire = Fire::light(&TWO, true);
    let accounts = with_fault(&fire, Call::Sign, When::OneIn(50), Does::AnswerAfter(CKR_DEVICE_ERROR));
    let ashes = fire.put_out(&accounts, &[]);
    let withheld = ashes.tokens["one"].all_keys().withheld;
    assert!(withheld > 0);
    assert_eq!(ashes.calls("one").unknown, withheld);
}

#[test]
fn an_answer_of_another_length_is_never_released() {
    let fire = Fire::light(&TWO, true);
    let accounts = with_fault(&fire, Call::Sign, When::OneIn(50), Does::Length(4_711));
    let made = fire.token().all_keys();
    assert!(made.cut > 0);
    // The journal says of them that nobody knows; the HSM that it made them.
    let ashes = fire.put_out(&accounts, &[]);
    assert_eq!(ashes.calls("one").unknown, made.cut);
}

#[test]
fn overload_that_looks_like_a_failure_moves_the_work_and_no_more() {
    let fire = Fire::light(&TWO, true);
    for code in [CKR_HOST_MEMORY, CKR_DEVICE_MEMORY] {
        let accounts = with_fault(&fire, Call::Sign, When::OneIn(30), Does::Answer(code));
        assert!(accounts.iter().all(|account| account.refused.is_empty()));
    }
    fire.put_out(&[], &[]);
}

#[test]
fn after_a_device_error_with_void_sessions_for_ever_the_module_is_begun_anew() {
    let fire = Fire::light(&TWO, true);
    let accounts = fire.load(|load| {
        fire.tell(Command::Die { token: None, opens: true, until: Revives::Finalise });
        fire.hsms[0].wait_for("finalised", 1).unwrap();
        fire.recovered();
        load.answers(500);
    });
    fire.put_out(&accounts, &[]);
}

#[test]
fn a_dead_token_is_used_again_when_it_heals() {
    for opens in [true, false] {
        let fire = Fire::light(&TWO, true);
        let accounts = fire.load(|load| {
            fire.tell(Command::Die { token: None, opens, until: Revives::Healing });
            load.answers(2_000);
            fire.hsms[0].heal().unwrap();
            fire.recovered();
        });
        fire.put_out(&accounts, &[]);
    }
}

#[test]
fn a_logout_from_elsewhere_costs_a_login() {
    let fire = Fire::light(&TWO, false);
    let accounts = fire.load(|_| {
        for _ in 0..3 {
            let logins = fire.token().logins;
            fire.tell(Command::LogOut { token: None });
            fire.hsms[0].wait_for("tokens/one/logins", logins + 1).unwrap();
            fire.recovered();
        }
    });
    // A call under way when it happens is told so by C_Sign, which then has not signed.
    let ashes = fire.put_out(&accounts, &[]);
    assert_eq!(ashes.tokens["one"].logins_refused, 0);
}

#[test]
fn a_token_that_says_it_is_logged_out_for_a_while_is_back_afterwards() {
    let fire = Fire::light(&TWO, false);
    let accounts = with_fault(&fire, Call::SignInit, When::Always, Does::Answer(CKR_USER_NOT_LOGGED_IN));
    fire.put_out(&accounts, &[]);
}

#[test]
fn a_token_with_few_sessions_signs_with_those_it_gives() {
    let fire = Fire::light(&TWO, true);
    let accounts = fire.load(|load| {
        fire.tell(Command::Sessions { token: None, max: Some(2), announced: false });
        fire.tell(Command::Restart { token: None });
        fire.recovered();
        load.answers(1_000);
    });
    let sessions = fire.token().sessions;
    assert_eq!(sessions, 2);
    fire.put_out(&accounts, &[]);
}

#[test]
fn sessions_that_the_token_closes_when_idle_cost_no_request_anything() {
    let fire = Fire::light_with(&TWO, "sessions = 4\nkeep_alive = \"0s\"", "");
    fire.tell(Command::IdleLimit { token: None, limit_ms: Some(300) });
    let mut accounts = Vec::new();
    for _ in 0..3 {
        until("all are closed", || fire.token().sessions == 0);
        accounts.extend(fire.load(|load| load.answers(500)));
    }
    let ashes = fire.put_out(&accounts, &[]);
    assert!(ashes.tokens["one"].dead_handles > 0);
}

#[test]
fn sessions_are_kept_alive_while_nobody_signs() {
    let fire = Fire::light_with(&TWO, "sessions = 4\nkeep_alive = \"100ms\"", "");
    // All are opened, and have work.
    let accounts = fire.load(|_| fire.recovered());
    fire.tell(Command::IdleLimit { token: None, limit_ms: Some(2_000) });
    let asked = fire.hsms[0].counts().unwrap().of(Call::GetSessionInfo);
    // Four sessions, ten times a second: three seconds at least.
    fire.hsms[0].wait_for("calls/C_GetSessionInfo", asked + 120).unwrap();
    // The anchor is nobody's to sign with, and goes.
    assert!(fire.token().sessions >= 4);
    let ashes = fire.put_out(&accounts, &[]);
    assert_eq!(ashes.tokens["one"].dead_handles, 0);
}

#[test]
fn a_module_with_another_healthy_token_is_not_begun_anew() {
    let fire = Fire::light_hsms(&[&["one", "two"]], TOKEN, "repeatable = true");
    let token = || Some("one".to_owned());
    let accounts = fire.load(|load| {
        fire.tell(Command::Die { token: token(), opens: true, until: Revives::Healing });
        load.answers(5_000);
        fire.tell(Command::Heal);
        fire.recovered();
    });
    assert_eq!(fire.hsms[0].counts().unwrap().finalised, 0);
    fire.put_out(&accounts, &[]);
}

#[test]
fn a_token_that_comes_back_in_another_slot_is_found() {
    let fire = Fire::light(&TWO, true);
    let accounts = fire.load(|load| {
        for (slot, seen) in [(7, Seen::AtOnce), (8, Seen::Reinitialised)] {
            fire.tell(Command::Remove { token: None });
            load.answers(1_000);
            fire.tell(Command::Insert { token: None, slot: Some(slot), seen });
            fire.recovered();
        }
    });
    assert!(fire.hsms[0].counts().unwrap().finalised > 0, "the second time it is seen by who looks anew");
    fire.put_out(&accounts, &[]);
}

#[test]
fn handle_numbers_that_begin_anew_lead_to_no_stranger() {
    let fire = Fire::light(&TWO, true);
    let accounts = fire.load(|_| {
        for _ in 0..3 {
            fire.tell(Command::Restart { token: None });
            fire.recovered();
        }
    });
    fire.put_out(&accounts, &[]);
}

#[test]
fn a_wrong_signature_never_leaves_and_takes_the_token_out() {
    let fire = Fire::light_with(&TWO, TOKEN, "verify = \"always\"");
    let accounts = fire.load(|load| {
        fire.hsms[0].fault(Call::Sign, When::OneIn(100), Does::WrongSignature).unwrap();
        until("the token is out", || fire.room.metric("segl_token_ready", &["token=\"one\""]) == 0.0);
        load.answers(2_000);
    });
    let ashes = fire.put_out(&accounts, &[]);
    let wrong = ashes.tokens["one"].all_keys().wrong;
    assert!(wrong > 0);
}

#[test]
fn a_token_that_computes_wrongly_is_found_out_by_the_samples_and_taken_out() {
    const SESSIONS: usize = 4;
    const ONE_IN: usize = 128;
    let mut fire = Fire::light_with(&TWO, TOKEN, "verify = \"sample\"");
    let public_key = public_key(&fire.room.site);
    let accounts = fire.load(|load| {
        fire.hsms[0].fault(Call::Sign, When::Always, Does::WrongSignature).unwrap();
        until("the token is out", || fire.room.metric("segl_token_ready", &["token=\"one\""]) == 0.0);
        load.answers(2_000);
    });
    // What was not in the sample left: that is the bargain, and its bound.
    let signed = || accounts.iter().flat_map(|account| account.signed.values());
    let wrong = signed().filter(|(reference, signature)| !verifies(&public_key, reference, signature)).count();
    assert!(wrong < SESSIONS * ONE_IN, "{wrong} wrong signatures left");
    assert!(accounts.iter().all(|account| account.lost().is_empty() && account.refused.is_empty()));
    let made = fire.token().all_keys();
    assert!(fire.room.segld.terminate(SOON).unwrap().success());
    let mut register = Register::default();
    journal(&fire.room.site).iter().for_each(|record| register.note(record).unwrap());
    let calls = register.of_token("one");
    assert!(calls.discarded > 0 && calls.account_for(&made), "{made:?} in the HSM, {calls:?} in the journal");
}

#[test]
fn a_handle_that_names_another_key_all_of_a_sudden_signs_nothing_that_leaves() {
    let fire = Fire::light_with(&TWO, TOKEN, "verify = \"always\"");
    let accounts = fire.load(|load| {
        fire.tell(Command::Reshuffle { token: None });
        load.answers(2_000);
    });
    // Nothing told the caller that its handles had changed: to have used them is no fault of its own.
    let ashes = fire.sift(&accounts, &[]);
    assert!(ashes.violations.stale_objects > 0);
    assert!(ashes.tokens["one"].keys[DECOY].signed > 0 && ashes.calls("one").discarded > 0);
}

#[test]
fn calls_that_hang_in_c_sign_are_given_up_done_elsewhere_and_discarded_when_they_return() {
    let fire = Fire::light(&TWO, true);
    let accounts = fire.load(|load| {
        fire.hsms[0].fault(Call::Sign, When::Times(2), Does::Hang { for_ms: None }).unwrap();
        fire.hsms[0].wait_for("hanging", 2).unwrap();
        until("they are given up", || fire.room.metric("segl_threads_stuck", &["token=\"one\""]) == 2.0);
        load.answers(1_000);
        fire.tell(Command::Release);
        until("their threads are back", || fire.room.metric("segl_threads_stuck", &["token=\"one\""]) == 0.0);
        fire.recovered();
    });
    let ashes = fire.put_out(&accounts, &[]);
    assert_eq!((ashes.calls("one").unknown, ashes.calls("one").late_signed), (2, 2));
}

#[test]
fn a_call_that_hangs_for_less_than_it_may_is_waited_for_and_holds_up_nobody_else() {
    let fire = Fire::light_with(&TWO, "sessions = 4\nstuck_after = \"4s\"", "");
    let accounts = fire.load(|load| {
        fire.hsms[0].fault(Call::Sign, When::Times(3), Does::Hang { for_ms: Some(1_000) }).unwrap();
        fire.hsms[0].wait_for("hanging", 1).unwrap();
        load.answers(2_000);
        fire.recovered();
    });
    let ashes = fire.put_out(&accounts, &[]);
    assert_eq!((ashes.refused, ashes.calls("one").unknown), (0, 0));
}

/// A hang of a call that is made when sessions come and go, brought about by a logout.
fn hang_beside_signing(call: Call, load: &Load, fire: &Fire) {
    fire.hsms[0].fault(call, When::Times(1), Does::Hang { for_ms: None }).unwrap();
    fire.tell(Command::LogOut { token: None });
    fire.hsms[0].wait_for("hanging", 1).unwrap();
    load.answers(2_000);
    fire.tell(Command::Release);
    fire.recovered();
}

#[test]
fn calls_that_hang_while_sessions_come_and_go_hold_up_nobody() {
    for call in [Call::OpenSession, Call::Login, Call::CloseSession] {
        let fire = Fire::light(&TWO, false);
        let accounts = fire.load(|load| hang_beside_signing(call, load, &fire));
        fire.put_out(&accounts, &[]);
    }
}

#[test]
fn a_c_finalize_or_c_initialize_that_hangs_holds_up_its_own_module_alone() {
    for call in [Call::Finalize, Call::Initialize] {
        let fire = Fire::light(&TWO, true);
        let accounts = fire.load(|load| {
            fire.hsms[0].fault(call, When::Times(1), Does::Hang { for_ms: None }).unwrap();
            fire.tell(Command::Die { token: None, opens: true, until: Revives::Finalise });
            fire.hsms[0].wait_for("hanging", 1).unwrap();
            load.answers(2_000);
            fire.tell(Command::Release);
            fire.recovered();
        });
        fire.put_out(&accounts, &[]);
    }
}

#[test]
fn a_pin_that_is_refused_is_tried_once_and_the_other_token_signs_on() {
    let fire = Fire::light(&TWO, false);
    let accounts = fire.load(|load| {
        fire.tell(Command::Pin { token: None, pin: "another".into() });
        fire.tell(Command::LogOut { token: None });
        fire.hsms[0].wait_for("tokens/one/logins_refused", 1).unwrap();
        load.answers(3_000);
    });
    let ashes = fire.put_out(&accounts, &[]);
    let token = &ashes.tokens["one"];
    assert_eq!((token.logins_refused, token.tries_left), (1, 4));
}

#[test]
fn a_token_with_a_long_tail_slows_down_nobody_beyond_it() {
    let fire = Fire::light(&TWO, false);
    let tempo = Tempo { base_us: 200, spread_us: 300, tail_one_in: 100, tail_us: 200_000, parallel: 2 };
    fire.tell(Command::Tempo { token: None, tempo });
    let accounts = fire.load(|load| {
        load.answers(3_000);
    });
    let ashes = fire.put_out(&accounts, &[]);
    assert!(ashes.signed > 3_000);
    assert_eq!(ashes.calls("one").unknown, 0, "slow is not stuck");
}

#[test]
fn a_dying_hsm_adds_no_more_than_the_budget_to_the_load_of_the_healthy_one() {
    const PERCENT: f64 = 5.0;
    /// Retries that may be done at once: see `retry_burst` in segl-pool
    const BURST: f64 = 64.0;
    let fire = Fire::light_site(&[&["one"], &["two"]], TOKEN, "", |site| {
        site.segld_toml.push_str(&format!("\n[pool]\nretry_budget_percent = {PERCENT}\n"));
    });
    // It takes its half of the work, and fails half of that: more than the budget would have tried again.
    let accounts = with_fault(&fire, Call::SignInit, When::OneIn(2), Does::Answer(CKR_HOST_MEMORY));
    let (retries, refused) =
        (fire.room.metric("segl_retries_total", &[]), fire.room.metric("segl_retries_refused_total", &[]));
    let accepted: usize = accounts.iter().map(|account| account.sent.len()).sum();
    assert!(refused > 0.0 && retries > 0.0);
    // Self-tests are jobs too.
    assert!(retries <= BURST + (accepted as f64 + 100.0) * PERCENT / 100.0, "{retries} retries of {accepted}");
    let ashes = fire.put_out(&accounts, &[Code::Overloaded]);
    assert_eq!(ashes.refused as f64, refused, "an error for each retry that was not made, and none else");
}

#[test]
fn the_own_site_signs_until_it_is_too_busy_or_away_and_clients_notice_neither() {
    let fire = Fire::light_site(&[&["one"], &["two"]], TOKEN, "repeatable = true", |site| {
        site.segld_toml.push_str("\n[host]\nsite = \"here\"\n");
        for (token, place) in [("one", "here"), ("two", "there")] {
            let name = format!("[[token]]\nname = \"{token}\"\n");
            site.segld_toml = site.segld_toml.replace(&name, &format!("{name}site = \"{place}\"\n"));
        }
    });
    let signed = |at: usize| fire.hsms[at].counts().unwrap().all_keys().signed;
    let there = signed(1);
    let mut conversation = connect(&fire.room.site, 0);
    (0..200).for_each(|_| sound(&mut conversation));
    assert_eq!(signed(1), there, "nothing goes to the other site without need");
    let accounts = fire.load(|load| {
        // More than the own site can do.
        let tempo = Tempo { base_us: 20_000, ..Tempo::default() };
        fire.tell(Command::Tempo { token: None, tempo });
        load.answers(500);
        assert!(signed(1) > there + 100, "the other site helps");
        fire.tell(Command::Die { token: None, opens: true, until: Revives::Healing });
        load.answers(2_000);
        fire.hsms[0].heal().unwrap();
        fire.recovered();
    });
    fire.put_out(&accounts, &[]);
}

#[test]
fn a_key_that_brings_its_token_down_is_set_aside_there_and_the_others_go_on() {
    let fire = Fire::light(&TWO, true);
    let poison = Fault {
        call: Call::Sign,
        token: None,
        key: Some(ED25519.to_owned()),
        when: When::Always,
        does: Does::Answer(CKR_DEVICE_ERROR),
    };
    let fault = fire.hsms[0].add(poison).unwrap();
    let mut conversation = connect(&fire.room.site, 0);
    let mut ask = || {
        let mut request = sign_request(ED25519, "ed25519", &DIGEST);
        request.payload = Payload::Message(DIGEST.to_vec().into());
        conversation.sign(&request).unwrap().unwrap();
    };
    let accounts = fire.load(|load| {
        let labels = [format!("key=\"{ED25519}\""), "token=\"one\"".into(), "result=\"failed\"".into()];
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        until("it is found guilty", || {
            ask();
            fire.room.metric("segl_self_tests_total", &labels) >= 1.0
        });
        fire.recovered();
        let entered = || fire.hsms[0].counts().unwrap().tokens["one"].keys[ED25519].entered;
        let retried = || fire.room.metric("segl_self_tests_total", &labels) as u64;
        let before = (entered(), retried());
        (0..100).for_each(|_| ask());
        load.answers(500);
        until("it is used there only to see whether it still brings the token down", || {
            entered() - before.0 == retried() - before.1
        });
        fire.recovered();
        assert!(fire.room.segld.log().contains("it brings the token down, whose other keys sign"));
        fire.hsms[0].clear(fault).unwrap();
        until("it is found innocent", || {
            fire.room.metric("segl_key_fit", &[&format!("key=\"{ED25519}\""), "token=\"one\""]) == 1.0
        });
    });
    fire.put_out(&accounts, &[]);
}

#[test]
fn a_token_that_leaves_a_key_and_joins_it_again_changes_nothing_for_clients() {
    let fire = Fire::light(&TWO, false);
    let site = &fire.room.site;
    let alone = site.segld_toml.replace("tokens = [\"one\", \"two\"]", "tokens = [\"two\"]");
    assert_ne!(alone, site.segld_toml);
    let signed = || fire.token().all_keys().signed;
    let accounts = fire.load(|load| {
        for toml in [&alone, &site.segld_toml] {
            std::fs::write(site.segld_config(), toml).unwrap();
            let reloads = || fire.room.segld.log().matches("reloaded").count();
            let before = reloads();
            fire.room.segld.signal(Signal::HUP).unwrap();
            until("the reload is through", || reloads() > before);
            load.answers(1_000);
            if std::ptr::eq(toml, &alone) {
                let before = signed();
                load.answers(500);
                assert_eq!(signed(), before, "it has left");
            }
        }
        fire.recovered();
    });
    fire.put_out(&accounts, &[]);
}
