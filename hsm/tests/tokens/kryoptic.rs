//! Kryoptic: the suite once more, on a module that speaks PKCS#11 3.2. `SEGL_KRYOPTIC` names it.

use std::{env, ffi::OsString, fs, path::Path, process::Command, sync::Arc};

use segl_hsm::{
    Kind, ModuleId, Token,
    pkcs11::{Module, Pkcs11Token},
};

use crate::{
    contract::{self, Held},
    process::{in_own_process, run},
    softhsm::{KEYS, SO_PIN, pin_file},
};

/// Kryoptic wants eight digits.
const PIN: &str = "27182818";

fn kryoptic(test: &str, body: impl FnOnce(&Path, &Path)) {
    let Some(module) = env::var_os("SEGL_KRYOPTIC") else {
        eprintln!("SKIPPED {test}: SEGL_KRYOPTIC is not set. `cargo xtask test` builds Kryoptic and sets it");
        return;
    };
    let environment = |directory: &Path| -> Vec<(&'static str, OsString)> {
        let configuration = directory.join("token.conf");
        let database = directory.join("token.sql");
        let text = format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = {:?}\n", database.to_str().unwrap());
        fs::write(&configuration, text).unwrap();
        vec![("KRYOPTIC_CONF", configuration.into())]
    };
    in_own_process(test, environment, |directory| body(directory, Path::new(&module)));
}

fn tool(module: &Path, arguments: &[&str]) {
    run(Command::new("pkcs11-tool").arg("--module").arg(module).args(arguments));
}

fn make_token(module: &Path) {
    tool(module, &["--init-token", "--slot", "1", "--label", "segl", "--so-pin", SO_PIN]);
    let security_officer = ["--token-label", "segl", "--login", "--login-type", "so", "--so-pin", SO_PIN];
    tool(module, &[&security_officer[..], &["--init-pin", "--pin", PIN]].concat());
}

fn token(directory: &Path, module: &Path, pin: &str) -> Pkcs11Token {
    let module = Module::load(module, ModuleId(1)).unwrap();
    let uri = "pkcs11:token=segl".parse().unwrap();
    Pkcs11Token::new("kryoptic", module, uri, pin_file(directory, pin), directory.join("state")).unwrap()
}

#[test]
fn kryoptic_keeps_every_promise() {
    kryoptic("kryoptic::kryoptic_keeps_every_promise", |directory, module| {
        make_token(module);
        let mut held = Vec::new();
        for (place, (name, key_type)) in KEYS.into_iter().enumerate() {
            let (label, id) = (format!("key {place}"), format!("0{place}"));
            let user = ["--token-label", "segl", "--login", "--pin", PIN, "--keypairgen", "--usage-sign"];
            tool(module, &[&user[..], &["--key-type", name, "--label", &label, "--id", &id]].concat());
            held.push(Held { key_type, locator: format!("pkcs11:object=key%20{place};id=%0{place}") });
        }
        contract::keep(Arc::new(token(directory, module, PIN)), &held, "pkcs11:object=nothing");
    });
}

/// Kryoptic does lock: this is what the guard is for.
#[test]
fn no_restart_loop_locks_a_token_that_counts() {
    kryoptic("kryoptic::no_restart_loop_locks_a_token_that_counts", |directory, module| {
        make_token(module);
        let log_in = |pin: &str| {
            let token = token(directory, module, pin);
            let mut session = token.open().unwrap();
            let result = session.login().map(drop);
            session.close().unwrap();
            result
        };
        assert_eq!(log_in("99999999").unwrap_err().kind(), Kind::PinIncorrect);
        for _restart in 0..20 {
            assert_eq!(log_in("99999999").unwrap_err().kind(), Kind::PinHeldBack);
        }
        // The operator, who knows the PIN, still gets in; the guard may take one PIN in 4,096 for the wrong one.
        token(directory, module, PIN).retry_pin().unwrap();
        log_in(PIN).unwrap();
    });
}

/// Tokens count their tries and say before the last one.
#[test]
fn the_last_try_is_never_taken() {
    kryoptic("kryoptic::the_last_try_is_never_taken", |directory, module| {
        make_token(module);
        let wrong = ["--token-label", "segl", "--login", "--pin", "99999999", "--list-objects"];
        let list = || run(Command::new("pkcs11-tool").arg("--module").arg(module).arg("--list-token-slots"));
        for _attempt in 0..100 {
            if list().contains("final user PIN try") || list().contains("user PIN locked") {
                break;
            }
            let _ = Command::new("pkcs11-tool").arg("--module").arg(module).args(wrong).output().unwrap();
        }
        let token = token(directory, module, PIN);
        let mut session = token.open().unwrap();
        // Even the right PIN: it is the operator's last chance, not ours.
        assert_eq!(session.login().unwrap_err().kind(), Kind::PinLocked);
        assert!(!directory.join("state").exists(), "nothing was tried");
        session.close().unwrap();
    });
}
