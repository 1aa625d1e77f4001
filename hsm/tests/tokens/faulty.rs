//! The faulty token: the suite, and what a token of a failing module does.

use std::{cell::RefCell, collections::BTreeMap, fs, sync::Arc, sync::mpsc, thread, time::Duration};

use segl_faulty_token::{
    Call, Command, Configuration, Does, Fault as Failure, FaultyHsm, KeyConfiguration, TokenConfiguration, When,
};
use segl_hsm::{
    Algorithm, Fault, Input, KeyId, KeyType, Kind, ModuleId, Retry, Rung, Session, Signature, Signed, Token,
    pkcs11::{Module, Pkcs11Token},
};

use crate::{
    contract::{self, Held, spec},
    softhsm::{KEYS, PIN, pin_file},
};

const GENERAL_ERROR: u64 = 0x5;
const FUNCTION_FAILED: u64 = 0x6;
const DEVICE_ERROR: u64 = 0x30;
const DEVICE_REMOVED: u64 = 0x32;
const RANDOM_NO_RNG: u64 = 0x121;
const FUNCTION_NOT_SUPPORTED: u64 = 0x54;
const SESSION_CLOSED: u64 = 0xb0;
const SESSION_HANDLE_INVALID: u64 = 0xb3;
const TOKEN_NOT_PRESENT: u64 = 0xe0;
const VENDOR: u64 = 0x8000_1234;

/// An HSM with one token, its module not loaded yet.
struct Faulty {
    hsm: FaultyHsm,
    directory: tempfile::TempDir,
    /// The one fault of each call, by number
    standing: RefCell<BTreeMap<Call, u64>>,
}

impl Faulty {
    /// With the P-256 keys `one` and `two`.
    fn new() -> Faulty {
        Faulty::holding(&[("one", KeyType::EcP256), ("two", KeyType::EcP256)])
    }

    fn holding(keys: &[(&str, KeyType)]) -> Faulty {
        let directory = tempfile::tempdir().unwrap();
        let keys_directory = directory.path().join("keys");
        let files: Vec<_> = keys.iter().map(|(label, key_type)| (format!("{label}.pem"), *key_type)).collect();
        FaultyHsm::make_keys(&keys_directory, &files).unwrap();
        let keys = (1..).zip(keys).zip(&files).map(|((id, (label, _)), (file, _))| KeyConfiguration {
            label: (*label).into(),
            id: vec![id],
            file: file.clone(),
        });
        let token = TokenConfiguration {
            slot: 3,
            label: "segl".into(),
            serial: "S1".into(),
            pin: PIN.into(),
            tries: 10,
            keys_directory,
            keys: keys.collect(),
        };
        let configuration = Configuration { tokens: vec![token], commands: Vec::new() };
        let hsm = FaultyHsm::install(directory.path(), "hsm", &configuration).unwrap();
        Faulty { hsm, directory, standing: RefCell::default() }
    }

    /// Makes the call do this, and nothing else, until [`Faulty::is_well`] is told of it.
    fn does(&self, call: Call, key: Option<&str>, does: Does) {
        // The socket is there once the module is loaded.
        self.module();
        self.is_well(call);
        let fault = Failure { call, token: None, key: key.map(str::to_owned), when: When::Always, does };
        self.standing.borrow_mut().insert(call, self.hsm.add(fault).unwrap());
    }

    fn fails(&self, call: Call, code: u64) {
        self.does(call, None, Does::Answer(code));
    }

    fn is_well(&self, call: Call) {
        if let Some(fault) = self.standing.borrow_mut().remove(&call) {
            self.hsm.clear(fault).unwrap();
        }
    }

    fn module(&self) -> Arc<Module> {
        Module::load(self.hsm.module(), ModuleId(1)).unwrap()
    }

    fn token(&self) -> Pkcs11Token {
        let directory = self.directory.path();
        let (uri, pin, state) = ("pkcs11:token=segl", pin_file(directory, PIN), directory.join("state"));
        let token = Pkcs11Token::new("hsm", self.module(), uri.parse().unwrap(), pin, state).unwrap();
        token.add_keys(&[spec(KeyId(1), "pkcs11:object=one")]);
        token
    }
}

/// Whatever was done to it, the caller behaved.
impl Drop for Faulty {
    fn drop(&mut self) {
        if !thread::panicking() {
            let violations = self.hsm.counts().unwrap().violations;
            let tolerated =
                segl_faulty_token::Violations { second_initialise: violations.second_initialise, ..Default::default() };
            assert_eq!(violations, tolerated);
        }
    }
}

#[test]
fn the_faulty_token_keeps_every_promise_while_it_is_well() {
    let labels: Vec<String> = (0..KEYS.len()).map(|place| format!("key {place}")).collect();
    let keys: Vec<_> = labels.iter().zip(KEYS).map(|(label, (_, key_type))| (label.as_str(), key_type)).collect();
    let hsm = Faulty::holding(&keys);
    let held: Vec<_> = (1..)
        .zip(&keys)
        .map(|(id, (label, key_type))| {
            let locator = format!("pkcs11:object={};id=%{id:02x}", label.replace(' ', "%20"));
            Held { key_type: *key_type, locator }
        })
        .collect();
    let directory = hsm.directory.path();
    let (uri, pin) = ("pkcs11:token=segl".parse().unwrap(), pin_file(directory, PIN));
    let token = Pkcs11Token::new("hsm", hsm.module(), uri, pin, directory.join("state")).unwrap();
    contract::keep(Arc::new(token), &held, "pkcs11:object=nothing");
}

fn sign(session: &mut Box<dyn Session>, key: u32) -> segl_hsm::Result<()> {
    let algorithm = Algorithm::EcdsaP256Sha256;
    session.sign(KeyId(key), algorithm, &Input::message(b"text"), &mut Signature::new())
}

#[test]
fn a_module_that_can_not_be_initialised_is_loaded_and_tried_again_at_every_open() {
    let hsm = Faulty::new();
    hsm.fails(Call::Initialize, GENERAL_ERROR);
    let token = hsm.token();
    for _ in 0..3 {
        let error = token.open().err().unwrap();
        let verdict = error.verdict();
        assert_eq!((error.kind(), verdict.retry, verdict.rung), (Kind::Module, Retry::Elsewhere, Rung::Module));
        assert!(error.to_string().contains("CKR_GENERAL_ERROR"), "{error}");
    }
    hsm.is_well(Call::Initialize);
    let mut session = contract::session(&token);
    sign(&mut session, 1).unwrap();
    // Another token of it, and a load once more, find it initialised.
    contract::session(&hsm.token()).close().unwrap();
    session.close().unwrap();
}

#[test]
fn an_open_that_fails_leaves_the_sessions_that_are_open_alone() {
    let hsm = Faulty::new();
    let token = hsm.token();
    let mut session = contract::session(&token);
    for code in [GENERAL_ERROR, DEVICE_ERROR, DEVICE_REMOVED, TOKEN_NOT_PRESENT] {
        hsm.fails(Call::OpenSession, code);
        assert_eq!(token.open().err().unwrap().verdict().rung, Rung::Token);
        sign(&mut session, 1).unwrap();
    }
    hsm.is_well(Call::OpenSession);
    session.close().unwrap();
    // With none open it is the generation's first, and so its end.
    hsm.fails(Call::OpenSession, GENERAL_ERROR);
    token.open().err().unwrap();
    hsm.is_well(Call::OpenSession);
    let mut session = contract::session(&token);
    sign(&mut session, 1).unwrap();
    session.close().unwrap();
}

#[test]
fn a_login_of_unclear_end_is_repeated_once_and_then_waits_for_the_operator() {
    let hsm = Faulty::new();
    let log_in = || {
        let mut session = hsm.token().open().unwrap();
        let result = session.login().map(drop);
        session.close().unwrap();
        result.map_err(|error| error.kind())
    };
    // These end before the PIN is looked at.
    for code in [SESSION_CLOSED, SESSION_HANDLE_INVALID, TOKEN_NOT_PRESENT, DEVICE_REMOVED] {
        hsm.fails(Call::Login, code);
        for _ in 0..3 {
            assert_ne!(log_in().unwrap_err(), Kind::PinHeldBack, "{code:#x}");
        }
    }
    // And of these nobody knows: one more try may lock the token.
    for code in [GENERAL_ERROR, FUNCTION_FAILED, VENDOR] {
        hsm.fails(Call::Login, code);
        let unclear = log_in().unwrap_err();
        assert_eq!((unclear, log_in().unwrap_err()), (Kind::Device, Kind::Device), "{code:#x}");
        assert_eq!(log_in().unwrap_err(), Kind::PinHeldBack, "{code:#x}");
        hsm.token().retry_pin().unwrap();
    }
    hsm.fails(Call::Login, GENERAL_ERROR);
    log_in().unwrap_err();
    hsm.is_well(Call::Login);
    log_in().unwrap();
    hsm.fails(Call::Login, GENERAL_ERROR);
    assert_eq!(log_in().unwrap_err(), Kind::Device, "a login that succeeds clears the record");
}

#[test]
fn one_key_that_makes_every_look_up_fail_keeps_the_others_from_nothing() {
    let hsm = Faulty::new();
    let token = hsm.token();
    token.add_keys(&[spec(KeyId(2), "pkcs11:object=two")]);
    for code in [FUNCTION_FAILED, GENERAL_ERROR] {
        hsm.does(Call::GetAttributeValue, Some("one"), Does::Answer(code));
        let mut session = token.open().unwrap();
        if code == FUNCTION_FAILED {
            assert_ne!(session.login().unwrap_err().verdict().rung, Rung::None, "it may have been the session");
            session.close().unwrap();
            session = token.open().unwrap();
        }
        let reports = session.login().unwrap();
        let error = reports[0].result.as_ref().unwrap_err();
        assert_eq!((error.kind(), error.verdict().rung), (Kind::KeyUnusable, Rung::None), "{error}");
        assert!(reports[1].result.is_ok());
        sign(&mut session, 2).unwrap();
        assert_eq!(sign(&mut session, 1).unwrap_err().kind(), Kind::KeyUnusable);
        session.close().unwrap();
    }
    hsm.is_well(Call::GetAttributeValue);
    let mut session = contract::session(&token);
    session.login().unwrap();
    sign(&mut session, 1).unwrap();
    session.close().unwrap();
}

#[test]
fn the_last_session_a_token_has_left_is_used_for_signing() {
    let hsm = Faulty::new();
    let token = hsm.token();
    hsm.hsm.command(&Command::Sessions { token: None, max: Some(1), announced: false }).unwrap();
    let mut session = contract::session(&token);
    sign(&mut session, 1).unwrap();
    assert_eq!(token.open().err().unwrap().kind(), Kind::SessionCount);
    sign(&mut session, 1).unwrap();
    session.close().unwrap();
    let mut session = contract::session(&token);
    sign(&mut session, 1).unwrap();
    session.close().unwrap();
}

#[test]
fn a_module_is_never_begun_anew_while_somebody_may_be_inside() {
    let hsm = Faulty::new();
    let token = hsm.token();
    let mut session = contract::session(&token);
    let refused = |token: &Pkcs11Token| {
        let error = token.reinitialise().unwrap_err();
        assert_eq!((error.kind(), error.verdict().fault, error.context()), (Kind::Module, Fault::Segl, "C_Finalize"));
    };
    refused(&token);
    sign(&mut session, 1).unwrap();
    session.close().unwrap();
    hsm.does(Call::OpenSession, None, Does::Hang { for_ms: None });
    thread::scope(|scope| {
        scope.spawn(|| token.open().unwrap().close().unwrap());
        hsm.hsm.wait_for("hanging", 1).unwrap();
        refused(&token);
        // And who wants a session meanwhile hears so, and does not stand behind it for ever.
        assert_eq!(hsm.token().open().err().unwrap().kind(), Kind::Overloaded);
        hsm.is_well(Call::OpenSession);
        hsm.hsm.command(&Command::Release).unwrap();
    });
    token.reinitialise().unwrap();
    let mut session = contract::session(&token);
    sign(&mut session, 1).unwrap();
    session.close().unwrap();
}

#[test]
fn a_module_that_will_not_end_goes_on_and_one_that_will_not_begin_is_tried_again_by_the_next_open() {
    let hsm = Faulty::new();
    let token = hsm.token();
    contract::session(&token).close().unwrap();
    hsm.fails(Call::Finalize, GENERAL_ERROR);
    let error = token.reinitialise().unwrap_err();
    assert_eq!((error.verdict().rung, error.code()), (Rung::Module, "CKR_GENERAL_ERROR"), "{error}");
    // The anchor is where it was, and with it the login.
    let mut session = contract::session(&token);
    sign(&mut session, 1).unwrap();
    session.close().unwrap();
    hsm.is_well(Call::Finalize);
    hsm.fails(Call::Initialize, DEVICE_ERROR);
    assert_eq!(token.reinitialise().unwrap_err().verdict().rung, Rung::Module);
    assert_eq!(token.open().err().unwrap().code(), "CKR_DEVICE_ERROR");
    // Again is no worse than once.
    assert_eq!(token.reinitialise().unwrap_err().code(), "CKR_DEVICE_ERROR");
    hsm.is_well(Call::Initialize);
    let mut session = contract::session(&token);
    sign(&mut session, 1).unwrap();
    session.close().unwrap();
}

#[test]
fn a_keep_alive_says_what_has_become_of_the_session() {
    let hsm = Faulty::new();
    let token = hsm.token();
    let mut session = contract::session(&token);
    session.keep_alive().unwrap();
    // A token without a random generator is no worse for it.
    for code in [FUNCTION_NOT_SUPPORTED, RANDOM_NO_RNG] {
        hsm.fails(Call::GenerateRandom, code);
        session.keep_alive().unwrap();
    }
    for (call, code, kind, rung) in [
        (Call::GetSessionInfo, SESSION_HANDLE_INVALID, Kind::Session, Rung::Session),
        (Call::GenerateRandom, SESSION_HANDLE_INVALID, Kind::Session, Rung::Session),
        (Call::GenerateRandom, DEVICE_ERROR, Kind::Device, Rung::Token),
    ] {
        hsm.fails(call, code);
        let error = session.keep_alive().unwrap_err();
        assert_eq!((error.kind(), error.verdict().rung), (kind, rung), "{error}");
        assert_eq!(error.verdict().signed, Signed::No);
        hsm.is_well(call);
    }
    // The device's error has cost the generation, as it would in signing.
    assert_eq!(sign(&mut session, 1).unwrap_err().kind(), Kind::Session);
    session.close().unwrap();
}

#[test]
fn an_answer_of_another_length_than_the_key_s_is_never_taken_for_a_signature() {
    let hsm = Faulty::new();
    let token = hsm.token();
    // Shorter, longer, longer than the room there is, and longer than any memory.
    for length in [0, 63, 65, 1024, 1025, 100_000, u64::MAX] {
        hsm.does(Call::Sign, None, Does::Length(length));
        let mut session = contract::session(&token);
        let mut signature = vec![7; 10];
        let input = Input::message(b"text");
        let error = session.sign(KeyId(1), Algorithm::EcdsaP256Sha256, &input, &mut signature).unwrap_err();
        assert_eq!((error.kind(), error.verdict().signed), (Kind::Nonsense, Signed::Unknown), "{length}: {error}");
        assert!(signature.is_empty(), "{length}");
        session.close().unwrap();
    }
    hsm.is_well(Call::Sign);
    let mut session = contract::session(&token);
    sign(&mut session, 1).unwrap();
    session.close().unwrap();
}

#[test]
fn sessions_that_are_void_from_the_beginning_speak_against_the_token_until_one_works() {
    let hsm = Faulty::new();
    let token = hsm.token();
    let mut lives = contract::session(&token);
    sign(&mut lives, 1).unwrap();
    let rungs = |call: Call| {
        hsm.fails(call, SESSION_HANDLE_INVALID);
        let rungs: Vec<_> = (0..4)
            .map(|_| {
                let mut session = token.open().unwrap();
                let failed = session.login().map(drop).and_then(|()| sign(&mut session, 1)).unwrap_err();
                session.close().unwrap();
                assert_eq!(failed.kind(), Kind::Session);
                failed.verdict().rung
            })
            .collect();
        hsm.is_well(call);
        rungs
    };
    let device_says_so_for_ever = [Rung::Session, Rung::Session, Rung::Token, Rung::Token];
    assert_eq!(rungs(Call::SignInit), device_says_so_for_ever);
    lives.close().unwrap();
    let mut session = contract::session(&token);
    sign(&mut session, 1).unwrap();
    assert_eq!(rungs(Call::GetSessionInfo), device_says_so_for_ever, "one that worked has ended the row");
    session.close().unwrap();
    let mut session = contract::session(&token);
    for _idle_too_long in 0..5 {
        sign(&mut session, 1).unwrap();
        hsm.fails(Call::SignInit, SESSION_HANDLE_INVALID);
        assert_eq!(sign(&mut session, 1).unwrap_err().verdict().rung, Rung::Session);
        hsm.is_well(Call::SignInit);
        session.close().unwrap();
        session = contract::session(&token);
    }
    session.close().unwrap();
}

#[test]
fn a_session_of_a_new_generation_asks_for_a_login_and_one_of_the_generation_before_for_all_to_be_rebuilt() {
    let hsm = Faulty::new();
    let token = hsm.token();
    let (mut one, mut other) = (contract::session(&token), contract::session(&token));
    sign(&mut other, 1).unwrap();
    hsm.fails(Call::Sign, DEVICE_ERROR);
    assert_eq!(sign(&mut one, 1).unwrap_err().verdict().rung, Rung::Token);
    hsm.is_well(Call::Sign);
    // Whoever gave the first call up has not heard of it: the others say the same.
    let error = sign(&mut other, 1).unwrap_err();
    assert_eq!((error.kind(), error.verdict().rung), (Kind::Session, Rung::Token), "{error}");
    assert_eq!((error.verdict().signed, error.verdict().retry), (Signed::No, Retry::Here));
    assert_eq!(other.login().unwrap_err().verdict().rung, Rung::Token);
    // And who opens one more without a login has no key there.
    let mut new = token.open().unwrap();
    let error = sign(&mut new, 1).unwrap_err();
    assert_eq!((error.kind(), error.verdict().rung), (Kind::NotLoggedIn, Rung::Login), "{error}");
    assert_eq!((error.verdict().signed, error.verdict().retry), (Signed::No, Retry::Here));
    assert_eq!(new.presence(KeyId(1)).unwrap_err().verdict().rung, Rung::Login);
    new.login().unwrap();
    sign(&mut new, 1).unwrap();
    // A key that was added since is missing, until the next look-up.
    token.add_keys(&[spec(KeyId(2), "pkcs11:object=two")]);
    assert_eq!(sign(&mut new, 2).unwrap_err().kind(), Kind::KeyMissing);
    for session in [one, other, new] {
        session.close().unwrap();
    }
}

/// Longer than anything here takes, unless it waits for ever.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn an_open_that_hangs_holds_up_no_close_and_what_was_left_open_is_closed_by_the_next() {
    let hsm = Faulty::new();
    let token = hsm.token();
    let ((tell, heard), (go, start)) = (mpsc::channel(), mpsc::channel::<()>());
    thread::scope(|scope| {
        let token = &token;
        scope.spawn(move || {
            let session = contract::session(token);
            tell.send(()).unwrap();
            start.recv().unwrap();
            session.close().unwrap();
            tell.send(()).unwrap();
        });
        heard.recv().unwrap();
        hsm.does(Call::OpenSession, None, Does::Hang { for_ms: None });
        scope.spawn(|| token.open().unwrap().close().unwrap());
        hsm.hsm.wait_for("hanging", 1).unwrap();
        go.send(()).unwrap();
        let closed = heard.recv_timeout(PATIENCE);
        hsm.is_well(Call::OpenSession);
        hsm.hsm.command(&Command::Release).unwrap();
        closed.expect("a close waits behind an open that hangs");
    });
    let sessions = || hsm.hsm.counts().unwrap().tokens["S1"].sessions;
    assert_eq!(sessions(), 1, "the anchor");
    // It is not counted as open any more either.
    token.reinitialise().unwrap();
    contract::session(&token).close().unwrap();
    assert_eq!(sessions(), 1);
}

#[test]
fn a_login_that_hangs_holds_up_no_other() {
    let hsm = Faulty::new();
    let token = hsm.token();
    hsm.does(Call::Login, None, Does::Hang { for_ms: None });
    let (told, heard) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| contract::session(&token).close().unwrap());
        hsm.hsm.wait_for("hanging", 1).unwrap();
        scope.spawn(|| {
            let mut session = token.open().unwrap();
            let error = session.login().unwrap_err();
            session.close().unwrap();
            told.send((error.kind(), error.verdict().rung)).unwrap();
        });
        let said = heard.recv_timeout(PATIENCE);
        hsm.is_well(Call::Login);
        hsm.hsm.command(&Command::Release).unwrap();
        assert_eq!(said, Ok((Kind::Overloaded, Rung::Session)));
    });
    contract::session(&token).close().unwrap();
}

#[test]
fn a_login_that_succeeded_is_one_although_the_guard_can_not_note_it_and_is_noted_before_the_next() {
    let hsm = Faulty::new();
    let token = hsm.token();
    hsm.does(Call::Login, None, Does::Hang { for_ms: None });
    let state = hsm.directory.path().join("state");
    let mut mark = state.clone();
    thread::scope(|scope| {
        let login = scope.spawn(|| contract::session(&token).close().unwrap());
        hsm.hsm.wait_for("hanging", 1).unwrap();
        let files = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
        mark = files.into_iter().find(|path| path.extension().is_none()).unwrap();
        // Nobody can remove the file now, not even root.
        fs::rename(&mark, state.join("kept")).unwrap();
        fs::create_dir(&mark).unwrap();
        hsm.is_well(Call::Login);
        hsm.hsm.command(&Command::Release).unwrap();
        login.join().unwrap();
    });
    token.reinitialise().unwrap();
    let mut session = token.open().unwrap();
    for _ in 0..3 {
        let error = session.login().unwrap_err();
        assert_eq!((error.kind(), error.verdict().rung), (Kind::PinUnavailable, Rung::Session), "{error}");
    }
    assert_eq!(hsm.hsm.counts().unwrap().tokens["S1"].logins, 1, "the PIN is not tried when that can not be noted");
    fs::remove_dir(&mark).unwrap();
    fs::rename(state.join("kept"), &mark).unwrap();
    // As often as one likes: what succeeded is not held against the PIN.
    for _ in 0..3 {
        session.login().unwrap();
        session.close().unwrap();
        token.reinitialise().unwrap();
        session = token.open().unwrap();
    }
    session.close().unwrap();
}

#[test]
fn an_anchor_that_the_device_has_closed_costs_no_login() {
    let hsm = Faulty::new();
    let token = hsm.token();
    let mut session = contract::session(&token);
    sign(&mut session, 1).unwrap();
    session.close().unwrap();
    // All that is idle is closed, once.
    let idle = |limit_ms| hsm.hsm.command(&Command::IdleLimit { token: None, limit_ms }).unwrap();
    idle(Some(0));
    assert_eq!(hsm.hsm.counts().unwrap().tokens["S1"].sessions, 0);
    idle(None);
    let mut session = contract::session(&token);
    sign(&mut session, 1).unwrap();
    session.close().unwrap();
    assert_eq!(hsm.hsm.counts().unwrap().tokens["S1"].sessions, 1, "a new anchor");
}
