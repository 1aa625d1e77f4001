//! HSMs that want an operator: what segld leaves alone until then, and the way back by SIGHUP, without a restart.

use std::{ffi::OsStr, process::Command as Program};

use segl_faulty_token::{Call, Command, Does, FaultyHsm, KeyType, When};
use segl_tests::{
    faulty,
    process::{Service, Signal},
    run,
    site::{P256, await_keys},
};
use segl_wire::Code;

use crate::{
    fire::{Fire, TOKEN},
    load::Account,
    room::{SOON, connect, sound, until},
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
fn a_right_pin_that_comes_while_a_wrong_one_is_being_tried_is_not_forgotten() {
    let mut fire = Fire::light(&TWO, false);
    let pin = fire.room.site.dir.join("pin");
    let mut accounts = fire.load(|load| {
        fire.tell(Command::Pin { token: None, pin: "right".into() });
        fire.tell(Command::LogOut { token: None });
        fire.hsms[0].wait_for("tokens/one/logins_refused", 1).unwrap();
        load.answers(500);
    });
    ready(&fire, false);
    // The operator's first thought was not the best, and is inside the HSM when the second comes.
    fire.hsms[0].fault(Call::Login, When::Times(1), Does::Hang { for_ms: None }).unwrap();
    std::fs::write(&pin, "wrong").unwrap();
    fire.room.reload_taken();
    fire.hsms[0].wait_for("hanging", 1).unwrap();
    std::fs::write(&pin, "right").unwrap();
    fire.room.reload_taken();
    fire.tell(Command::Release);
    accounts.extend(signs_again(&fire));
    let ashes = fire.put_out(&accounts, &[]);
    let token = &ashes.tokens["one"];
    assert_eq!((token.logins_refused, token.tries_left), (2, 5), "each wrong one once, and then the right one");
}

#[test]
fn the_last_try_is_left_to_the_operator_while_the_other_hsm_signs() {
    let fire = Fire::light(&TWO, false);
    let accounts = fire.load(|load| {
        fire.tell(Command::Pin { token: None, pin: "another".into() });
        fire.tell(Command::TriesLeft { token: None, tries: 2 });
        fire.tell(Command::LogOut { token: None });
        fire.hsms[0].wait_for("tokens/one/logins_refused", 1).unwrap();
        until("it says why", || fire.room.admin.get("/readyz").unwrap().text.contains("needs-operator"));
        // Even the right one is not tried now.
        std::fs::write(fire.room.site.dir.join("pin"), "another").unwrap();
        fire.room.segld.signal(Signal::HUP).unwrap();
        until("it says why", || fire.room.admin.get("/readyz").unwrap().text.contains("has one try left"));
        load.answers(500);
    });
    let ashes = fire.put_out(&accounts, &[]);
    let token = &ashes.tokens["one"];
    assert_eq!((token.logins_refused, token.tries_left), (1, 1));
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
    assert!(ashes.calls("one").discarded > 2 * 2);
}

#[test]
fn more_stuck_calls_than_threads_may_stay_behind_cost_their_sessions_until_they_return() {
    let fire = Fire::light_site(&[&["one"], &["two"]], TOKEN, "repeatable = true", |site| {
        site.segld_toml.push_str("\n[pool]\nstuck_threads_max = 2\n");
    });
    let accounts = fire.load(|load| {
        fire.hsms[0].fault(Call::Sign, When::Times(4), Does::Hang { for_ms: None }).unwrap();
        fire.hsms[0].wait_for("hanging", 4).unwrap();
        let stuck = ["token=\"one\"", "kind=\"stuck\""];
        until("they are given up", || fire.room.metric("segl_token_alarms_total", &stuck) == 4.0);
        load.answers(2_000);
        fire.tell(Command::Release);
        until("their threads are back", || fire.room.metric("segl_threads_stuck", &["token=\"one\""]) == 0.0);
        fire.recovered();
    });
    let ashes = fire.put_out(&accounts, &[]);
    assert_eq!((ashes.calls("one").stuck, ashes.calls("one").late_signed), (4, 4));
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

#[test]
fn two_hsms_that_hold_another_key_under_one_name_are_refused_at_the_start() {
    let fire = Fire::light(&TWO, false);
    let Fire { mut room, hsms } = fire;
    assert!(room.segld.terminate(SOON).unwrap().success());
    // The second HSM is set up again, with keys of its own under the same labels.
    let others = room.site.dir.join("other-keys");
    let mut configuration = faulty::configuration(&room.site.dir, &["two"]);
    let files: Vec<_> = configuration.tokens[0].keys.iter().map(|key| key.file.clone()).collect();
    let types = [KeyType::EcP256, KeyType::EcP256, KeyType::Ed25519];
    FaultyHsm::make_keys(&others, &files.into_iter().zip(types).collect::<Vec<_>>()).unwrap();
    configuration.tokens[0].keys_directory = others;
    hsms[1].configure(&configuration).unwrap();

    let mut segld = Service::start(room.site.segld_command(), &room.site.dir, "refused").unwrap();
    assert_eq!(segld.wait(SOON).unwrap().code(), Some(1));
    let said = segld.log();
    for what in [P256, "tokens of one key must hold the same one"] {
        assert!(said.contains(what), "{what:?} is not in {said}");
    }
}

/// Runs segld as a user of its own, whom the system can be told to give no more threads.
#[test]
fn where_no_thread_can_be_had_an_alarm_says_so_and_the_place_is_taken_once_one_can() {
    const USER: u32 = 54_321;
    let as_user = |program: &dyn AsRef<OsStr>| {
        let mut command = Program::new("setpriv");
        command.args(["--reuid", &USER.to_string(), "--clear-groups", "--"]).arg(program);
        command
    };
    let fire = Fire::light_with(&TWO, "sessions = 4\nstuck_after = \"3s\"", "repeatable = true");
    let Fire { mut room, hsms } = fire;
    assert!(room.segld.terminate(SOON).unwrap().success());
    // What the next process's HSMs count, they have not counted.
    std::fs::remove_dir_all(room.site.journal()).unwrap();
    run(Program::new("chown").arg("-R").arg(USER.to_string()).arg(room.site.dir.parent().unwrap())).unwrap();
    let segld = room.site.segld_command();
    let mut command = as_user(&segld.get_program());
    command.args(segld.get_args());
    room.segld = Service::start(command, &room.site.dir, "segld").unwrap();
    // It can not reach the socket on which it would say that it is ready.
    until("it is ready", || room.admin.get("/readyz").is_ok_and(|answer| answer.status == 200));
    await_keys(&room.admin).unwrap();
    let fire = Fire { room, hsms };
    // What may be done to the limits of a process, its own user may do.
    let limit = |threads: u32| {
        let (pid, most) = (fire.room.segld.pid().to_string(), format!("--nproc={threads}:"));
        run(as_user(&"prlimit").args(["--pid", &pid, &most])).unwrap();
    };
    let accounts = fire.load(|load| {
        fire.recovered();
        fire.hsms[0].fault(Call::Sign, When::Times(1), Does::Hang { for_ms: None }).unwrap();
        fire.hsms[0].wait_for("hanging", 1).unwrap();
        // From here on the HSM hears no command either: it has a thread for each.
        limit(1);
        let alarm = ["token=\"one\"", "kind=\"no-thread\""];
        until("somebody is told", || fire.room.metric("segl_token_alarms_total", &alarm) > 0.0);
        load.answers(500);
        limit(1_000);
        let manned = || fire.room.metric("segl_sessions", &["token=\"one\"", "state=\"open\""]) == 4.0;
        until("the place is taken", manned);
        fire.tell(Command::Release);
        fire.recovered();
    });
    assert!(fire.room.segld.log().contains("no thread can be had"));
    fire.put_out(&accounts, &[]);
}
