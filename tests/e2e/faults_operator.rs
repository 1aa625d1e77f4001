//! HSMs that want an operator: what segld leaves alone until then, and the way back by SIGHUP, without a restart.

use segl_faulty_token::{Call, Command, Does, When};
use segl_tests::site::await_keys;
use segl_wire::Code;

use crate::{
    fire::{Fire, TOKEN},
    load::Account,
    room::{connect, sound, until},
};

const TWO: [&str; 2] = ["one", "two"];

fn ready(fire: &Fire, ready: bool) {
    let wanted = f64::from(u8::from(ready));
    until("the token is ready, or not", || fire.room.metric("segl_token_ready", &["token=\"one\""]) == wanted);
}

/// Full load until the token that is back signs its share.
fn signs_again(fire: &Fire) -> Vec<Account> {
    ready(fire, true);
    fire.load(|_| fire.recovered())
}

#[test]
fn after_a_refused_pin_the_right_one_in_the_file_and_a_reload_bring_the_token_back() {
    let mut fire = Fire::light(&TWO, false);
    let mut accounts = fire.load(|load| {
        fire.tell(Command::Pin { token: None, pin: "another".into() });
        fire.tell(Command::LogOut { token: None });
        fire.hsms[0].wait_for("tokens/one/logins_refused", 1).unwrap();
        load.answers(1_000);
    });
    ready(&fire, false);
    std::fs::write(fire.room.site.dir.join("pin"), "another").unwrap();
    fire.room.reload_taken();
    accounts.extend(signs_again(&fire));
    // The other HSM has the PIN of before, and is logged in.
    let ashes = fire.put_out(&accounts, &[]);
    assert_eq!(ashes.tokens["one"].logins_refused, 1);
    assert_eq!(ashes.tokens["two"].logins_refused, 0);
}

#[test]
fn the_last_try_is_left_to_the_operator() {
    let mut fire = Fire::smoulder_with(|hsm| {
        hsm.tokens[0].tries = 2;
        hsm.commands = vec![Command::Pin { token: None, pin: "another".into() }];
    });
    fire.hsms[0].wait_for("tokens/one/logins_refused", 1).unwrap();
    assert_eq!(fire.token().tries_left, 1);
    // Even the right one.
    std::fs::write(fire.room.site.dir.join("pin"), "another").unwrap();
    fire.room.reload_taken();
    until("it says why", || fire.room.admin.get("/readyz").unwrap().text.contains("has one try left"));
    assert_eq!(fire.token().logins, 1);
    // Unlocked with the vendor's tool.
    fire.hsms[0].heal().unwrap();
    fire.room.reload_taken();
    await_keys(&fire.room.admin).unwrap();
    sound(&mut connect(&fire.room.site, 0));
    let ashes = fire.put_out(&[], &[]);
    assert_eq!((ashes.tokens["one"].logins, ashes.tokens["one"].logins_refused), (2, 1));
}

#[test]
fn after_a_wrong_signature_a_reload_puts_the_token_on_probation_and_it_signs_again() {
    let mut fire = Fire::light_with(&TWO, TOKEN, "verify = \"always\"");
    let mut accounts = fire.load(|load| {
        fire.hsms[0].fault(Call::Sign, When::Times(1), Does::WrongSignature).unwrap();
        ready(&fire, false);
        load.answers(1_000);
    });
    fire.room.reload_taken();
    accounts.extend(signs_again(&fire));
    let ashes = fire.put_out(&accounts, &[]);
    assert_eq!(ashes.tokens["one"].all_keys().wrong, 1);
    // That one, and what nobody gets to see: self-tests of two keys, at the start and on probation.
    assert!(ashes.calls["one"].discarded > 2 * 2);
}

#[test]
fn more_stuck_calls_than_threads_may_stay_behind_cost_their_sessions_until_they_return() {
    let fire = Fire::light_site(&[&["one"], &["two"]], TOKEN, "repeatable = true", |site| {
        site.segld_toml.push_str("\n[pool]\nstuck_threads_max = 2\n");
    });
    let accounts = fire.load(|load| {
        fire.hsms[0].fault(Call::Sign, When::Times(4), Does::Hang { for_ms: None }).unwrap();
        fire.hsms[0].wait_for("hanging", 4).unwrap();
        until("they are given up", || fire.room.metric("segl_threads_stuck", &["token=\"one\""]) >= 2.0);
        load.answers(2_000);
        fire.tell(Command::Release);
        until("their threads are back", || fire.room.metric("segl_threads_stuck", &["token=\"one\""]) == 0.0);
        fire.recovered();
    });
    let ashes = fire.put_out(&accounts, &[]);
    assert_eq!((ashes.calls["one"].stuck, ashes.calls["one"].late_signed), (4, 4));
}

#[test]
fn no_request_of_a_client_reaches_a_token_before_its_self_tests_have_passed() {
    let fire = Fire::smoulder(vec![Command::Fault(segl_faulty_token::Fault {
        call: Call::Sign,
        token: None,
        key: None,
        when: When::Always,
        does: Does::Hang { for_ms: None },
    })]);
    // The self-tests of both keys are inside, and go no further.
    fire.hsms[0].wait_for("hanging", 1).unwrap();
    let mut conversation = connect(&fire.room.site, 0);
    let request =
        segl_tests::conversation::sign_request(segl_tests::site::P256, "ecdsa-p256-sha256", &crate::room::DIGEST);
    let error = conversation.sign(&request).unwrap().unwrap_err();
    assert_eq!(error.code, Code::KeyUnavailable, "{error}");
    let records = crate::room::journal(&fire.room.site);
    let of_clients = records.iter().filter(|record| record["kind"] == "intent" && record["operation"] == "sign");
    assert_eq!(of_clients.count(), 0, "nothing was about to be signed for a client");
    fire.hsms[0].heal().unwrap();
    await_keys(&fire.room.admin).unwrap();
    sound(&mut conversation);
    fire.put_out(&[], &[]);
}
