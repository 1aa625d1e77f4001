//! What a token of a failing module does: SoftHSM2 behind `failing.c`, which fails as files tell it to.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use segl_hsm::{
    Algorithm, Fault, Input, KeyId, Kind, ModuleId, Retry, Rung, Session, Signature, Signed, Token,
    pkcs11::{Module, Pkcs11Token},
};

use crate::{
    contract::{self, spec},
    process::{in_own_process, run},
    softhsm::{PIN, make_key, make_token, module_path, pin_file, softhsm_configuration},
};

const GENERAL_ERROR: &str = "5";

struct Failing<'a> {
    directory: &'a Path,
}

/// Runs a test on a SoftHSM2 of its own with the key `one`, behind a module that can be told to fail.
fn failing(test: &str, body: impl FnOnce(&Failing<'_>)) {
    let environment = |directory: &Path| -> Vec<(&'static str, OsString)> {
        fs::create_dir(directory.join("faults")).unwrap();
        let softhsm = softhsm_configuration(directory);
        vec![("SOFTHSM2_CONF", softhsm.into()), ("SEGL_TEST_FAULTS", directory.join("faults").into())]
    };
    in_own_process(test, environment, |directory| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokens/failing.c");
        let softhsm = format!("-DSOFTHSM=\"{}\"", module_path().display());
        let mut cc = Command::new("cc");
        run(cc.args(["-shared", "-fPIC", "-o"]).arg(directory.join("failing.so")).arg(softhsm).arg(source).arg("-ldl"));
        make_token("segl");
        make_key(&module_path(), "segl", "EC:secp256r1", "one", "01");
        body(&Failing { directory });
    });
}

impl Failing<'_> {
    fn fails(&self, call: &str, with: &str) {
        fs::write(self.fault(call), with).unwrap();
    }

    fn is_well(&self, call: &str) {
        fs::remove_file(self.fault(call)).unwrap();
    }

    fn fault(&self, call: &str) -> PathBuf {
        PathBuf::from(env::var_os("SEGL_TEST_FAULTS").unwrap()).join(call)
    }

    /// Makes the call hang until [`Failing::is_well`] is told of it.
    fn hangs(&self, call: &str) {
        self.fails(&format!("{call}.hangs"), "");
    }

    fn returns(&self, call: &str) {
        self.is_well(&format!("{call}.hangs"));
    }

    /// Waits until somebody is inside.
    fn await_entered(&self, call: &str) {
        let entered = self.fault(&format!("{call}.entered"));
        while !entered.exists() {
            thread::yield_now();
        }
    }

    fn token(&self) -> Pkcs11Token {
        let module = Module::load(self.directory.join("failing.so"), ModuleId(1)).unwrap();
        let (uri, pin, state) = ("pkcs11:token=segl", pin_file(self.directory, PIN), self.directory.join("state"));
        let token = Pkcs11Token::new("hsm", module, uri.parse().unwrap(), pin, state).unwrap();
        token.add_keys(&[spec(KeyId(1), "pkcs11:object=one")]);
        token
    }
}

fn sign(session: &mut Box<dyn Session>, key: u32) -> segl_hsm::Result<()> {
    let algorithm = Algorithm::EcdsaP256Sha256;
    session.sign(KeyId(key), algorithm, &Input::message(b"text"), &mut Signature::new())
}

#[test]
fn a_module_that_can_not_be_initialised_is_loaded_and_tried_again_at_every_open() {
    failing("failing::a_module_that_can_not_be_initialised_is_loaded_and_tried_again_at_every_open", |hsm| {
        hsm.fails("C_Initialize", GENERAL_ERROR);
        let token = hsm.token();
        for _ in 0..3 {
            let error = token.open().err().unwrap();
            let verdict = error.verdict();
            assert_eq!((error.kind(), verdict.retry, verdict.rung), (Kind::Module, Retry::Elsewhere, Rung::Module));
            assert!(error.to_string().contains("CKR_GENERAL_ERROR"), "{error}");
        }
        hsm.is_well("C_Initialize");
        let mut session = contract::session(&token);
        sign(&mut session, 1).unwrap();
        // Another token of it, and a load once more, find it initialised.
        contract::session(&hsm.token()).close().unwrap();
        session.close().unwrap();
    });
}

#[test]
fn an_open_that_fails_leaves_the_sessions_that_are_open_alone() {
    failing("failing::an_open_that_fails_leaves_the_sessions_that_are_open_alone", |hsm| {
        let token = hsm.token();
        let mut session = contract::session(&token);
        for code in [GENERAL_ERROR, "30", "32", "e0"] {
            hsm.fails("C_OpenSession", code);
            assert_eq!(token.open().err().unwrap().verdict().rung, Rung::Token);
            sign(&mut session, 1).unwrap();
        }
        hsm.is_well("C_OpenSession");
        session.close().unwrap();
        // With none open it is the generation's first, and so its end.
        hsm.fails("C_OpenSession", GENERAL_ERROR);
        token.open().err().unwrap();
        hsm.is_well("C_OpenSession");
        let mut session = contract::session(&token);
        sign(&mut session, 1).unwrap();
        session.close().unwrap();
    });
}

#[test]
fn a_login_of_unclear_end_is_repeated_once_and_then_waits_for_the_operator() {
    failing("failing::a_login_of_unclear_end_is_repeated_once_and_then_waits_for_the_operator", |hsm| {
        let log_in = || {
            let mut session = hsm.token().open().unwrap();
            let result = session.login().map(drop);
            session.close().unwrap();
            result.map_err(|error| error.kind())
        };
        // These end before the PIN is looked at.
        for code in ["b0", "b3", "e0", "32"] {
            hsm.fails("C_Login", code);
            for _ in 0..3 {
                assert_ne!(log_in().unwrap_err(), Kind::PinHeldBack, "{code}");
            }
        }
        // And of these nobody knows: one more try may lock the token.
        for code in [GENERAL_ERROR, "6", "80001234"] {
            hsm.fails("C_Login", code);
            let unclear = log_in().unwrap_err();
            assert_eq!((unclear, log_in().unwrap_err()), (Kind::Device, Kind::Device), "{code}");
            assert_eq!(log_in().unwrap_err(), Kind::PinHeldBack, "{code}");
            hsm.token().retry_pin().unwrap();
        }
        hsm.fails("C_Login", GENERAL_ERROR);
        log_in().unwrap_err();
        hsm.is_well("C_Login");
        log_in().unwrap();
        hsm.fails("C_Login", GENERAL_ERROR);
        assert_eq!(log_in().unwrap_err(), Kind::Device, "a login that succeeds clears the record");
    });
}

#[test]
fn one_key_that_makes_every_look_up_fail_keeps_the_others_from_nothing() {
    failing("failing::one_key_that_makes_every_look_up_fail_keeps_the_others_from_nothing", |hsm| {
        make_key(&module_path(), "segl", "EC:secp256r1", "two", "02");
        hsm.fails("poisoned", "one");
        let token = hsm.token();
        token.add_keys(&[spec(KeyId(2), "pkcs11:object=two")]);
        for code in ["6", GENERAL_ERROR] {
            hsm.fails("C_GetAttributeValue", code);
            let mut session = token.open().unwrap();
            if code == "6" {
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
        hsm.is_well("C_GetAttributeValue");
        let mut session = contract::session(&token);
        session.login().unwrap();
        sign(&mut session, 1).unwrap();
        session.close().unwrap();
    });
}

#[test]
fn the_last_session_a_token_has_left_is_used_for_signing() {
    failing("failing::the_last_session_a_token_has_left_is_used_for_signing", |hsm| {
        hsm.fails("sessions", "1");
        let token = hsm.token();
        let mut session = contract::session(&token);
        sign(&mut session, 1).unwrap();
        assert_eq!(token.open().err().unwrap().kind(), Kind::SessionCount);
        sign(&mut session, 1).unwrap();
        session.close().unwrap();
        let mut session = contract::session(&token);
        sign(&mut session, 1).unwrap();
        session.close().unwrap();
    });
}

#[test]
fn a_module_is_never_begun_anew_while_somebody_may_be_inside() {
    failing("failing::a_module_is_never_begun_anew_while_somebody_may_be_inside", |hsm| {
        let token = hsm.token();
        let mut session = contract::session(&token);
        let refused = |token: &Pkcs11Token| {
            let error = token.reinitialise().unwrap_err();
            assert_eq!(
                (error.kind(), error.verdict().fault, error.context()),
                (Kind::Module, Fault::Segl, "C_Finalize")
            );
        };
        refused(&token);
        sign(&mut session, 1).unwrap();
        session.close().unwrap();
        hsm.hangs("C_OpenSession");
        thread::scope(|scope| {
            scope.spawn(|| token.open().unwrap().close().unwrap());
            hsm.await_entered("C_OpenSession");
            refused(&token);
            // And who wants a session meanwhile hears so, and does not stand behind it for ever.
            assert_eq!(hsm.token().open().err().unwrap().kind(), Kind::Overloaded);
            hsm.returns("C_OpenSession");
        });
        token.reinitialise().unwrap();
        let mut session = contract::session(&token);
        sign(&mut session, 1).unwrap();
        session.close().unwrap();
    });
}

#[test]
fn a_module_that_will_not_end_goes_on_and_one_that_will_not_begin_is_tried_again_by_the_next_open() {
    let name =
        "failing::a_module_that_will_not_end_goes_on_and_one_that_will_not_begin_is_tried_again_by_the_next_open";
    failing(name, |hsm| {
        let token = hsm.token();
        contract::session(&token).close().unwrap();
        hsm.fails("C_Finalize", GENERAL_ERROR);
        let error = token.reinitialise().unwrap_err();
        assert_eq!((error.verdict().rung, error.code()), (Rung::Module, "CKR_GENERAL_ERROR"), "{error}");
        // The anchor is where it was, and with it the login.
        let mut session = contract::session(&token);
        sign(&mut session, 1).unwrap();
        session.close().unwrap();
        hsm.is_well("C_Finalize");
        hsm.fails("C_Initialize", "30");
        assert_eq!(token.reinitialise().unwrap_err().verdict().rung, Rung::Module);
        assert_eq!(token.open().err().unwrap().code(), "CKR_DEVICE_ERROR");
        // Again is no worse than once.
        assert_eq!(token.reinitialise().unwrap_err().code(), "CKR_DEVICE_ERROR");
        hsm.is_well("C_Initialize");
        let mut session = contract::session(&token);
        sign(&mut session, 1).unwrap();
        session.close().unwrap();
    });
}

#[test]
fn a_keep_alive_says_what_has_become_of_the_session() {
    failing("failing::a_keep_alive_says_what_has_become_of_the_session", |hsm| {
        let token = hsm.token();
        let mut session = contract::session(&token);
        session.keep_alive().unwrap();
        // A token without a random generator is no worse for it.
        for code in ["54", "121"] {
            hsm.fails("C_GenerateRandom", code);
            session.keep_alive().unwrap();
        }
        for (call, code, kind, rung) in [
            ("C_GetSessionInfo", "b3", Kind::Session, Rung::Session),
            ("C_GenerateRandom", "b3", Kind::Session, Rung::Session),
            ("C_GenerateRandom", "30", Kind::Device, Rung::Token),
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
    });
}

#[test]
fn an_answer_of_another_length_than_the_key_s_is_never_taken_for_a_signature() {
    failing("failing::an_answer_of_another_length_than_the_key_s_is_never_taken_for_a_signature", |hsm| {
        let token = hsm.token();
        // Shorter, longer, longer than the room there is, and longer than any memory.
        for length in ["0", "63", "65", "1024", "1025", "100000", "18446744073709551615"] {
            hsm.fails("C_Sign.length", length);
            let mut session = contract::session(&token);
            let mut signature = vec![7; 10];
            let input = Input::message(b"text");
            let error = session.sign(KeyId(1), Algorithm::EcdsaP256Sha256, &input, &mut signature).unwrap_err();
            assert_eq!((error.kind(), error.verdict().signed), (Kind::Nonsense, Signed::Unknown), "{length}: {error}");
            assert!(signature.is_empty(), "{length}");
            session.close().unwrap();
        }
        hsm.is_well("C_Sign.length");
        let mut session = contract::session(&token);
        sign(&mut session, 1).unwrap();
        session.close().unwrap();
    });
}

#[test]
fn sessions_that_are_void_from_the_beginning_speak_against_the_token_until_one_works() {
    let name = "failing::sessions_that_are_void_from_the_beginning_speak_against_the_token_until_one_works";
    failing(name, |hsm| {
        let token = hsm.token();
        let mut lives = contract::session(&token);
        sign(&mut lives, 1).unwrap();
        let rungs = |call: &str| {
            hsm.fails(call, "b3");
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
        assert_eq!(rungs("C_SignInit"), device_says_so_for_ever);
        lives.close().unwrap();
        let mut session = contract::session(&token);
        sign(&mut session, 1).unwrap();
        assert_eq!(rungs("C_GetSessionInfo"), device_says_so_for_ever, "one that worked has ended the row");
        session.close().unwrap();
        let mut session = contract::session(&token);
        for _idle_too_long in 0..5 {
            sign(&mut session, 1).unwrap();
            hsm.fails("C_SignInit", "b3");
            assert_eq!(sign(&mut session, 1).unwrap_err().verdict().rung, Rung::Session);
            hsm.is_well("C_SignInit");
            session.close().unwrap();
            session = contract::session(&token);
        }
        session.close().unwrap();
    });
}
