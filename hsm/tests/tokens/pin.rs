//! No restart loop locks a token: a PIN that was refused once is not tried again.
//!
//! SoftHSM2 does not count its tries, but says that there was a wrong one (CKF_USER_PIN_COUNT_LOW), and takes that
//! back when somebody logs in. So a flag that stays away proves that nothing was tried.

use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt, path::Path};

use segl_hsm::{Fault, Kind, Result, Retry, Rung, Token, pkcs11::PinSource};

use crate::{
    process::{in_own_process, run},
    softhsm::{PIN, make_token, module_path, pin_file, softhsm, token, tool},
};

const WRONG: &str = "999999";

fn log_in(directory: &Path, pin: &str) -> Result<()> {
    // A token object of its own is what a restart makes.
    let mut session = token(directory, "pkcs11:token=segl", pin).open()?;
    let result = session.login().map(drop);
    session.close().unwrap();
    result
}

fn a_wrong_pin_was_tried() -> bool {
    let list =
        run(std::process::Command::new("pkcs11-tool").arg("--module").arg(module_path()).arg("--list-token-slots"));
    list.contains("user PIN count low")
}

/// Another program logs in and out: the token's counter starts anew.
fn reset_the_counter() {
    run(tool(&module_path(), "segl").arg("--list-objects"));
    assert!(!a_wrong_pin_was_tried());
}

fn state_files(directory: &Path) -> usize {
    let Ok(files) = fs::read_dir(directory.join("state")) else { return 0 };
    // The lock stays: whoever removes a lock's file makes room for two holders.
    files.filter(|file| file.as_ref().unwrap().path().extension().is_none_or(|extension| extension != "lock")).count()
}

#[test]
fn a_refused_pin_is_tried_once_and_never_again() {
    softhsm("pin::a_refused_pin_is_tried_once_and_never_again", |directory| {
        make_token("segl");
        log_in(directory, PIN).unwrap();
        assert_eq!(state_files(directory), 0, "a login that succeeded leaves nothing behind");

        let error = log_in(directory, WRONG).unwrap_err();
        assert_eq!(error.kind(), Kind::PinIncorrect);
        let verdict = error.verdict();
        assert_eq!((verdict.fault, verdict.retry, verdict.rung), (Fault::Operator, Retry::Elsewhere, Rung::Operator));
        assert!(a_wrong_pin_was_tried());
        reset_the_counter();
        for _restart in 0..5 {
            let error = log_in(directory, WRONG).unwrap_err();
            assert_eq!(error.kind(), Kind::PinHeldBack);
            assert!(!format!("{error} {error:?}").contains(WRONG));
        }
        assert!(!a_wrong_pin_was_tried());
    });
}

#[test]
fn another_pin_is_tried_and_so_is_the_same_one_when_the_operator_says_so() {
    softhsm("pin::another_pin_is_tried_and_so_is_the_same_one_when_the_operator_says_so", |directory| {
        make_token("segl");
        // One PIN in 4,096 looks like another to the guard, by design: then once more.
        let changed = (0..3).any(|_| {
            log_in(directory, WRONG).unwrap_err();
            let result = log_in(directory, PIN);
            let _ = fs::remove_dir_all(directory.join("state"));
            result.is_ok()
        });
        assert!(changed);

        log_in(directory, WRONG).unwrap_err();
        reset_the_counter();
        let operator = token(directory, "pkcs11:token=segl", WRONG);
        assert_eq!(log_in(directory, WRONG).unwrap_err().kind(), Kind::PinHeldBack);
        operator.retry_pin().unwrap();
        assert_eq!(log_in(directory, WRONG).unwrap_err().kind(), Kind::PinIncorrect);
        assert!(a_wrong_pin_was_tried());
    });
}

#[test]
fn a_pin_that_can_not_be_had_is_no_attempt() {
    softhsm("pin::a_pin_that_can_not_be_had_is_no_attempt", |directory| {
        make_token("segl");
        let token = token(directory, "pkcs11:token=segl", PIN);
        let PinSource::File(path) = pin_file(directory, PIN) else { unreachable!() };
        fs::remove_file(path).unwrap();
        let mut session = token.open().unwrap();
        assert_eq!(session.login().unwrap_err().kind(), Kind::PinUnavailable);
        assert_eq!(state_files(directory), 0);
        session.close().unwrap();
    });
}

#[test]
fn a_pin_is_not_tried_where_the_attempt_can_not_be_noted() {
    softhsm("pin::a_pin_is_not_tried_where_the_attempt_can_not_be_noted", |directory| {
        make_token("segl");
        fs::write(directory.join("state"), "a file where the directory should be").unwrap();
        assert_eq!(log_in(directory, WRONG).unwrap_err().kind(), Kind::PinUnavailable);
        assert!(!a_wrong_pin_was_tried());
    });
}

#[test]
fn a_credential_is_found_where_systemd_puts_it() {
    let environment = |directory: &Path| -> Vec<(&'static str, OsString)> {
        let credentials = directory.join("credentials");
        fs::create_dir(&credentials).unwrap();
        fs::write(credentials.join("hsm-pin"), PIN).unwrap();
        fs::set_permissions(credentials.join("hsm-pin"), fs::Permissions::from_mode(0o400)).unwrap();
        fs::write(directory.join("outside"), PIN).unwrap();
        vec![("CREDENTIALS_DIRECTORY", credentials.into())]
    };
    in_own_process("pin::a_credential_is_found_where_systemd_puts_it", environment, |_| {
        let check = |name: &str| PinSource::Credential(name.to_owned()).check();
        check("hsm-pin").unwrap();
        for bad in ["missing", "../outside", "..", ""] {
            assert_eq!(check(bad).unwrap_err().kind(), Kind::PinUnavailable, "{bad:?}");
        }
    });
}

#[test]
fn without_systemd_a_credential_is_unavailable_and_the_reason_is_told() {
    let environment = |_: &Path| -> Vec<(&'static str, OsString)> { vec![("CREDENTIALS_DIRECTORY", OsString::new())] };
    let test = "pin::without_systemd_a_credential_is_unavailable_and_the_reason_is_told";
    in_own_process(test, environment, |_| {
        let error = PinSource::Credential("hsm-pin".into()).check().unwrap_err();
        assert!(error.to_string().contains("LoadCredential="), "{error}");
    });
}
