//! `segl` and the control socket: what operators see in each state, what they can do, that all of it is recorded, and
//! that nobody else can.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use segl_faulty_token::{Call, Command as Tell, Does, Fault, Seen, When};
use segl_tests::{
    conversation::sign_request,
    programs,
    site::{FIRST, P256, Site, Token, await_keys},
};
use segl_wire::Code;
use serde_json::Value;

use crate::{
    fire::{Fire, TOKEN},
    room::{DIGEST, Room, SOON, connect, journal, sound, until},
};

/// The hosts of tests have no time daemon, which the status would rightly tell of.
pub(crate) fn with_a_clock(site: &mut Site) {
    std::fs::write(site.dir.join("clock"), "").unwrap();
    site.segld_toml.push_str("\n[host]\nclock_marker = \"clock\"\n");
}

fn room() -> Room {
    Room::open(Token::Embedded, with_a_clock)
}

/// HSMs that have these tokens each.
pub(crate) fn light(hsms: &[&[&str]], key: &str) -> Fire {
    Fire::light_site(hsms, TOKEN, key, with_a_clock)
}

/// What came of a command: its exit status and both its outputs.
struct Said {
    status: i32,
    out: String,
    err: String,
}

fn said(output: Output) -> Said {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn segl(site: &Site, words: &[&str]) -> Said {
    said(site.segl_command().args(words).output().unwrap())
}

/// A command that is carried out.
#[track_caller]
fn done(site: &Site, words: &[&str]) -> String {
    let said = segl(site, words);
    assert_eq!(said.status, 0, "segl {words:?}: {}{}", said.out, said.err);
    said.out
}

/// A command that is not, with its reason on standard error.
#[track_caller]
fn refused(site: &Site, words: &[&str], why: &str) {
    let said = segl(site, words);
    assert_eq!(said.status, 1, "segl {words:?}: {}{}", said.out, said.err);
    assert!(said.err.contains(why), "{why:?} is not in {}", said.err);
}

/// The status: its exit status, its JSON, and what people see.
fn status(site: &Site) -> (i32, Value, String) {
    let json = segl(site, &["status", "--json"]);
    let text = segl(site, &["status"]);
    let value: Value =
        serde_json::from_str(&json.out).unwrap_or_else(|error| panic!("{error}: {}{}", json.out, json.err));
    (json.status, value, text.out)
}

/// Waits until the status is of this kind and says this first.
fn status_says(site: &Site, exit: i32, finding: &str) -> Value {
    let mut last = Value::Null;
    until(&format!("status {exit} with {finding:?}"), || {
        let (status, value, _) = status(site);
        let findings = value["findings"].as_array().unwrap();
        let found = findings.iter().any(|found| found["what"].as_str().unwrap().contains(finding));
        last = value.clone();
        status == exit && found
    });
    last
}

fn token<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["tokens"].as_array().unwrap().iter().find(|token| token["name"] == name).unwrap()
}

/// The journal's records of operators.
fn operators(records: &[Value]) -> Vec<&Value> {
    records.iter().filter(|record| record["kind"] == "operator").collect()
}

#[test]
fn a_healthy_segld_shows_everything_and_monitoring_is_content() {
    let mut room = room();
    let mut conversation = connect(&room.site, 0);
    for _ in 0..20 {
        sound(&mut conversation);
    }
    let error = conversation.sign(&sign_request("no-such-key", "ecdsa-p256-sha256", &DIGEST)).unwrap().unwrap_err();
    assert_eq!(error.code, Code::NotGranted, "{error}");
    // Rates are what came between two looks, a second apart.
    until("the signatures are in the last minute's rate", || {
        status(&room.site).1["tokens"][0]["signatures_per_s_1m"].as_f64().unwrap() > 0.0
    });
    let (exit, value, text) = status(&room.site);
    assert_eq!((exit, &value["health"], &value["findings"]), (0, &"ok".into(), &Value::Array(vec![])), "{text}");
    assert_eq!(value["format"], 1);
    let embedded = token(&value, "embedded");
    assert_eq!((&embedded["state"], &embedded["kind"]), (&"ready".into(), &"embedded".into()));
    assert!(embedded["p50_us"].as_u64().unwrap() > 0 && embedded["p50_us"].as_u64() <= embedded["p99_us"].as_u64());
    assert!(embedded["sessions_open"].as_u64() <= embedded["sessions_cap"].as_u64());
    assert!(value["requests"]["p99_us"].as_u64().unwrap() > 0);
    for key in value["keys"].as_array().unwrap() {
        assert_eq!((&key["state"], &key["granted"]), (&"usable".into(), &true.into()), "{key}");
        let holding = &key["tokens"][0];
        assert_eq!((&holding["used"], &holding["self_test"]["result"]), (&true.into(), &"passed".into()), "{key}");
    }
    let first = value["tenants"].as_array().unwrap().iter().find(|tenant| tenant["name"] == FIRST).unwrap();
    assert_eq!((&first["served"], &first["refused"]), (&20.into(), &1.into()));
    assert_eq!(value["daemon"]["listeners"][0], room.site.segld.to_string());
    assert_eq!(value["daemon"]["pid"], room.segld.pid());
    assert_eq!(value["journal"]["state"], "open");
    assert!(value["tls"]["crls"][0]["next_update_in_s"].as_i64().unwrap() > 29 * 86_400);
    for expected in ["OK  ", "embedded", P256, FIRST, &room.site.segld.to_string(), "JOURNAL    open"] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    assert!(!text.contains('\x1b'), "no colours but on a terminal");
    let keys = done(&room.site, &["keys", P256]);
    assert!(keys.contains(P256) && keys.contains("yes") && !keys.contains("seal-rsa"), "{keys}");
    refused(&room.site, &["keys", "nobody's"], "there is no key \"nobody's\"");

    // Looking leaves no trace, and with segld its socket goes.
    assert!(operators(&journal(&room.site)).is_empty());
    assert!(room.segld.terminate(SOON).unwrap().success());
    let gone = segl(&room.site, &["status"]);
    assert_eq!(gone.status, 3, "{}", gone.err);
    assert!(gone.err.contains("systemctl status segld"), "{}", gone.err);
    assert_eq!(segl(&room.site, &["reload", "--wait"]).status, 3);
    assert_eq!(segl(&room.site, &["stauts"]).status, 3, "what is no command tells monitoring nothing");
}

#[test]
fn a_token_is_drained_under_load_and_taken_in_again_and_no_request_notices() {
    let fire = light(&[&["one"], &["two"]], "");
    let site = &fire.room.site;
    let accounts = fire.load(|load| {
        assert!(done(site, &["token", "drain", "one"]).contains("one is drained: nobody is inside it"));
        let value = status_says(site, 1, "token one is drained");
        assert_eq!(token(&value, "one")["sessions_open"], 0);
        let before = fire.token().all_keys().signed;
        load.answers(1_000);
        assert_eq!(fire.token().all_keys().signed, before, "nothing reaches it");
        // A reload does not bring it back.
        done(site, &["reload", "--wait"]);
        assert_eq!(token(&status(site).1, "one")["state"], "drained");
        refused(site, &["token", "drain", "two"], "without two nobody can sign with");
        assert!(done(site, &["token", "resume", "one"]).contains("one is ready: it signs"));
        fire.recovered();
    });
    assert_eq!(status(site).0, 0);
    refused(site, &["token", "resume", "one"], "one is not drained: it is ready");
    refused(site, &["token", "drain", "three"], "there is no token \"three\"");
    let records = journal(site);
    let told: Vec<_> = operators(&records).iter().map(|record| record["command"].clone()).collect();
    let [drain, reload, resume] = ["token drain one", "reload --wait", "token resume one"].map(Value::from);
    assert_eq!(told, [&drain, &drain, &reload, &reload, &resume, &resume].map(Clone::clone));
    for pair in operators(&records).chunks(2) {
        assert_eq!((&pair[0]["result"], &pair[1]["asked"]), (&"asked".into(), &pair[0]["seq"]), "{pair:?}");
        assert_eq!((&pair[0]["who"], &pair[0]["uid"]), (&"root".into(), &0.into()));
        assert!(pair[0]["pid"].as_u64().unwrap() > 1);
    }
    // What it says of a reload stands between the wish and the outcome.
    let reloaded = records.iter().find(|record| record["kind"] == "reload").unwrap();
    let wish = operators(&records)[2];
    assert!(wish["seq"].as_u64() < reloaded["seq"].as_u64());
    fire.put_out(&accounts, &[]);
}

#[test]
fn the_last_token_is_drained_only_by_force_and_then_nothing_is_signed() {
    let fire = light(&[&["one"]], "");
    let site = &fire.room.site;
    refused(site, &["token", "drain", "one"], "without one nobody can sign with");
    assert_eq!(status(site).0, 0, "nothing was done");
    done(site, &["token", "drain", "--force", "one"]);
    let value = status_says(site, 2, "NO KEY CAN SIGN");
    assert_eq!(value["health"], "down");
    let error = connect(site, 0).sign(&sign_request(P256, "ecdsa-p256-sha256", &DIGEST)).unwrap().unwrap_err();
    assert_eq!(error.code, Code::KeyUnavailable, "{error}");
    done(site, &["token", "resume", "one"]);
    await_keys(&fire.room.admin).unwrap();
    sound(&mut connect(site, 0));
    fire.put_out(&[], &[]);
}

#[test]
fn a_token_that_is_away_is_told_of_with_its_last_error_and_its_time() {
    let fire = light(&[&["one"], &["two"]], "repeatable = true");
    let site = &fire.room.site;
    let accounts = fire.load(|load| {
        fire.tell(Tell::Remove { token: None });
        let value = status_says(site, 1, "token one is away");
        let error = &token(&value, "one")["last_error"];
        assert!(
            !error["text"].as_str().unwrap().is_empty() && error["time"].as_str().unwrap().ends_with('Z'),
            "{error}"
        );
        load.answers(500);
        fire.tell(Tell::Insert { token: None, slot: None, seen: Seen::AtOnce });
        until("it is back", || status(site).0 == 0);
    });
    let rungs = token(&status(site).1, "one")["rungs"].clone();
    assert!(rungs["probation"].as_u64().unwrap() >= 2 && rungs["session"].as_u64().unwrap() >= 1, "{rungs}");
    fire.put_out(&accounts, &[]);
}

#[test]
fn a_module_is_begun_anew_at_an_operator_s_word_when_no_other_token_of_it_signs() {
    let fire = light(&[&["one", "two"]], "");
    let site = &fire.room.site;
    refused(site, &["token", "reinit", "one"], "two of the same module would have to log in again too");
    done(site, &["token", "drain", "two"]);
    let done_text = done(site, &["token", "reinit", "one"]);
    assert!(done_text.contains("one is ready: it signs"), "{done_text}");
    refused(site, &["token", "reinit", "two"], "segl token resume two");
    done(site, &["token", "resume", "two"]);
    assert_eq!(token(&status(site).1, "one")["rungs"]["module"], 1);
    sound(&mut connect(site, 0));
    fire.put_out(&[], &[]);
}

#[test]
fn a_module_with_a_call_stuck_inside_is_not_begun_anew() {
    let fire = light(&[&["one"], &["two"]], "repeatable = true");
    let site = &fire.room.site;
    let accounts = fire.load(|load| {
        let fault =
            Fault { call: Call::Sign, token: None, key: None, when: When::Times(1), does: Does::Hang { for_ms: None } };
        fire.tell(Tell::Fault(fault));
        status_says(site, 1, "calls are stuck inside token one");
        refused(site, &["token", "reinit", "one"], "a call is stuck inside the module of one");
        load.answers(500);
        fire.tell(Tell::Release);
        until("the thread is back", || status(site).0 == 0);
    });
    fire.put_out(&accounts, &[]);
}

#[test]
fn a_refused_pin_waits_for_the_operator_who_has_it_tried_once_more() {
    let fire = light(&[&["one"], &["two"]], "");
    let site = &fire.room.site;
    let accounts = fire.load(|load| {
        fire.tell(Tell::Pin { token: None, pin: "another".into() });
        fire.tell(Tell::LogOut { token: None });
        let value = status_says(site, 1, "token one waits for you");
        let action = value["findings"][0]["action"].as_str().unwrap();
        assert!(action.contains("segl pin retry one"), "{action}");
        // It was the token's PIN that was wrong, and somebody has put that right.
        fire.tell(Tell::Pin { token: None, pin: segl_tests::faulty::PIN.into() });
        done(site, &["reload", "--wait"]);
        status_says(site, 1, "it is not tried again");
        assert!(done(site, &["pin", "retry", "one"]).contains("one is ready: it signs"));
        load.answers(500);
    });
    let ashes = fire.put_out(&accounts, &[]);
    assert_eq!(ashes.tokens["one"].logins_refused, 1, "the same PIN was tried once, and then at an operator's word");
}

#[test]
fn a_pin_that_is_still_wrong_says_so() {
    let fire = light(&[&["one"], &["two"]], "");
    let site = &fire.room.site;
    fire.tell(Tell::Pin { token: None, pin: "another".into() });
    fire.tell(Tell::LogOut { token: None });
    let accounts = fire.load(|load| load.answers(500));
    status_says(site, 1, "token one waits for you");
    refused(site, &["pin", "retry", "one"], "CKR_PIN_INCORRECT");
    // To the HSM it is a caller who tries a refused PIN again, as he may at an operator's word alone.
    let ashes = fire.sift(&accounts, &[]);
    assert_eq!((ashes.tokens["one"].logins_refused, ashes.violations.refused_pins), (2, 1));
}

#[test]
fn a_reload_that_is_waited_for_says_whether_it_was_taken_and_why_not() {
    let mut room = room();
    assert!(done(&room.site, &["reload", "--wait"]).contains("reloaded: 4 keys, 2 tenants, 1 CRLs"));
    // What a service manager is told has to be read, or segld waits for that.
    room.segld.notified("RELOADING=1", SOON).unwrap();
    room.segld.ready(SOON).unwrap();
    let good = room.site.segld_toml.clone();
    room.site.segld_toml =
        good.replace("purpose = \"digest\"", "purpose = \"digets\"") + "\n[limits]\nconections = 4\n";
    room.site.write().unwrap();
    for why in
        ["[limits] has no setting `conections`", "did you mean \"digest\"?", "the old configuration stays in force"]
    {
        refused(&room.site, &["reload", "--wait"], why);
        room.segld.notified("RELOADING=1", SOON).unwrap();
        room.segld.ready(SOON).unwrap();
    }
    let value = status_says(&room.site, 1, "the last reload was refused");
    assert_eq!(value["daemon"]["reload"]["ok"], false);
    sound(&mut connect(&room.site, 0));
    // The check says the same, before.
    let config = room.site.segld_config();
    let check = said(Command::new(programs::segl()).arg("check").arg(&config).output().unwrap());
    assert!(check.status == 1 && check.out.contains("conections"), "{}", check.out);
    room.site.segld_toml = good;
    room.site.write().unwrap();
    assert!(done(&room.site, &["reload"]).contains("the configuration is read again"));
    until("it is taken", || status(&room.site).0 == 0);
    assert!(room.segld.terminate(SOON).unwrap().success());
}

#[test]
fn keys_are_tested_at_an_operator_s_word_and_each_use_is_recorded() {
    let room = room();
    let tests = |records: &[Value]| {
        let of_key = |record: &&Value| record["operation"] == "self-test" && record["key"] == P256;
        records.iter().filter(of_key).count()
    };
    let before = tests(&journal(&room.site));
    let shown = done(&room.site, &["selftest", P256]);
    assert!(shown.contains(P256) && shown.contains("passed") && shown.contains("signed"), "{shown}");
    assert_eq!(shown.lines().filter(|line| line.contains("embedded")).count(), 1, "{shown}");
    let records = journal(&room.site);
    assert_eq!(tests(&records), before + 1);
    let wish = operators(&records)[0];
    assert_eq!((&wish["command"], &wish["result"]), (&format!("selftest {P256}").into(), &"asked".into()));
    assert_eq!(operators(&records)[1]["result"], "1 passed, 0 failed, 0 neither");
    assert_eq!(done(&room.site, &["selftest"]).lines().filter(|line| line.contains("passed")).count(), 4);
    refused(&room.site, &["selftest", "nobody's"], "there is no key \"nobody's\"");
}

#[test]
fn a_self_test_that_fails_is_told_and_a_token_that_is_away_is_not_tested() {
    let fire = light(&[&["one"], &["two"]], "verify = \"off\"");
    let site = &fire.room.site;
    let fault = Fault { call: Call::Sign, token: None, key: None, when: When::Times(1), does: Does::WrongSignature };
    fire.tell(Tell::Fault(fault));
    done(site, &["token", "drain", "two"]);
    let tested = segl(site, &["selftest", P256]);
    assert_eq!(tested.status, 1, "{}", tested.out);
    assert!(tested.out.contains("it made a WRONG signature"), "{}", tested.out);
    assert!(tested.out.contains("not made") && tested.out.contains("the token is drained"), "{}", tested.out);
}

#[test]
fn the_log_says_more_at_an_operator_s_word() {
    let room = room();
    assert_eq!(done(&room.site, &["log-level"]), "info\n");
    assert_eq!(done(&room.site, &["log-level", "debug"]), "debug\n");
    let before = room.segld.log().len();
    done(&room.site, &["selftest", P256]);
    until("what is only said at `debug` is said", || room.segld.log()[before..].contains("self-test passed"));
    assert_eq!(status(&room.site).1["daemon"]["log_level"], "debug");
    assert_eq!(segl(&room.site, &["log-level", "loud"]).status, 3, "the command line knows the levels");
}

/// A site whose socket others can get at, and two groups of the host's that mean something to it.
fn open_house(operators: &str, watchers: Option<&str>) -> (Room, tempfile::TempDir) {
    let house = tempfile::tempdir().unwrap();
    std::fs::set_permissions(house.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = house.path().join("control.sock");
    let mut lines = format!("socket = {socket:?}\noperator_group = \"{operators}\"");
    if let Some(watchers) = watchers {
        lines += &format!("\nwatcher_group = \"{watchers}\"");
    }
    let room = Room::open(Token::Embedded, |site| {
        with_a_clock(site);
        site.segld_toml = site.segld_toml.replace("socket = \"control.sock\"", &lines);
    });
    (room, house)
}

/// The same command by somebody else: nobody, in this group.
fn segl_as(house: &Path, group: &str, words: &[&str]) -> Said {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", &format!("--regid={group}"), "--clear-groups", "--"]);
    // The build's folder need not be one that everybody may enter.
    let program = house.join("segl");
    if !program.exists() {
        std::fs::copy(programs::segl(), &program).unwrap();
    }
    command.arg(&program).arg("--socket").arg(house.join("control.sock")).args(words);
    said(command.output().unwrap())
}

#[test]
fn watchers_look_operators_change_and_a_stranger_is_turned_away_and_recorded() {
    let (room, house) = open_house("games", Some("audio"));
    let watcher = |words: &[&str]| segl_as(house.path(), "audio", words);
    assert_eq!(watcher(&["status"]).status, 0);
    assert_eq!(watcher(&["log-level"]).out, "info\n");
    for words in [&["token", "drain", "--force", "embedded"][..], &["reload"], &["selftest"], &["log-level", "trace"]] {
        let said = watcher(words);
        assert!(said.status == 1 && said.err.contains("may look, and change nothing"), "{words:?}: {}", said.err);
    }
    let operator = segl_as(house.path(), "games", &["reload", "--wait"]);
    assert_eq!(operator.status, 0, "{}", operator.err);
    let stranger = segl_as(house.path(), "65534", &["status"]);
    assert_eq!(stranger.status, 3);
    assert!(stranger.err.contains("(uid 65534) may not speak to segld"), "{}", stranger.err);

    let records = journal(&room.site);
    let told = operators(&records);
    assert_eq!(told.iter().filter(|record| record["command"] == "reload --wait").count(), 2);
    assert!(told.iter().all(|record| record["uid"] == 65_534), "{told:?}");
    let turned_away = told.iter().filter(|record| record["result"] == "denied").count();
    assert_eq!(turned_away, 1, "{told:?}");
    assert_eq!(told.len(), 3, "what watchers were refused was not done: {told:?}");
}

#[test]
fn with_one_group_the_kernel_keeps_strangers_out_before_segld_hears_of_them() {
    let (room, house) = open_house("games", None);
    let stranger = segl_as(house.path(), "audio", &["status"]);
    assert!(stranger.status == 3 && stranger.err.contains("Permission denied"), "{}", stranger.err);
    assert!(stranger.err.contains("members of the group"), "{}", stranger.err);
    assert_eq!(segl_as(house.path(), "games", &["status"]).status, 0);
    assert!(operators(&journal(&room.site)).is_empty());
}

#[test]
fn what_is_no_request_is_answered_and_harms_nobody() {
    let room = room();
    let open = || {
        let stream = UnixStream::connect(room.site.control()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    };
    let ask = |bytes: &[u8]| {
        let mut stream = open();
        // It need not hear all of it, and may be gone by then.
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        let mut answer = String::new();
        // A line that was too long is not read to its end, and the rest of it may be thrown back.
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for wrong in ["\n", "status\n", "{\"command\":\"sign\",\"digest\":\"00\"}\n", "{\"command\":\"status\"", "[[[[[[[["]
    {
        assert!(ask(wrong.as_bytes()).contains("\"reason\":\"malformed\""), "{wrong:?}");
    }
    assert!(ask(&[0xff; 100]).contains("malformed"));
    assert!(ask(&[b'x'; 4 << 10]).contains("malformed"));
    assert!(ask(&vec![b'x'; 1 << 20]).contains("at most 4096 bytes"));
    assert!(ask("[".repeat(4_000).as_bytes()).contains("malformed"));
    // Two requests on one connection, the second behind a mistake.
    let mut stream = open();
    stream.write_all(b"{}\n{\"command\":\"log-level\"}\n").unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.next().unwrap().unwrap().contains("malformed"));
    assert_eq!(lines.next().unwrap().unwrap(), "{\"log-level\":\"info\"}");

    // More than there is room for, silent all of them: whoever comes then is told, and when they go it is his turn.
    // One more each time: those before may have left their room a moment late.
    let mut silent: Vec<_> = (0..32).map(|_| open()).collect();
    until("there is no room", || {
        silent.push(open());
        segl(&room.site, &["status"]).err.contains("32 connections to the control socket")
    });
    drop(silent);
    until("there is room again", || segl(&room.site, &["status"]).status == 0);
    sound(&mut connect(&room.site, 0));
    assert!(operators(&journal(&room.site)).is_empty());
}

#[test]
fn a_socket_that_a_killed_segld_left_is_taken_over_and_one_that_lives_is_not() {
    let mut room = room();
    // Another one with the same socket, and everything else its own.
    let (mut other, _dir) = crate::room::site(Token::Embedded);
    other.segld_toml = other.segld_toml.replace("\"control.sock\"", &format!("{:?}", room.site.control()));
    other.write().unwrap();
    let output = other.segld_command().output().unwrap();
    assert!(!output.status.success());
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(err.contains("another segld serves this control socket"), "{err}");
    assert_eq!(segl(&room.site, &["status"]).status, 0, "the first one's socket is untouched");

    room.segld.kill().unwrap();
    assert!(room.site.control().exists());
    room.segld = room.site.start_segld().unwrap();
    assert_eq!(segl(&room.site, &["status"]).status, 0);
    // Not where nobody can be.
    room.site.segld_toml = room.site.segld_toml.replace("\"control.sock\"", "\"no/such/control.sock\"");
    room.segld.terminate(Duration::from_secs(30)).unwrap();
    room.site.write().unwrap();
    let output = room.site.segld_command().output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && err.contains("the control socket can not be made"), "{err}");
}
