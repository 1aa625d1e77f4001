//! SoftHSM2: the suite, and what only a PKCS#11 token can do wrong.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use cryptoki::{context::Pkcs11, mechanism::Mechanism, object::Attribute, session::UserType, types::AuthPin};
use segl_hsm::{
    Algorithm, Fault, Input, KeyId, KeyType, Kind, ModuleId, Rung, Signature, Token,
    pkcs11::{Module, PinSource, Pkcs11Token},
};

use crate::{
    contract::{self, Held, spec},
    process::{in_own_process, run},
};

pub(crate) const PIN: &str = "271828";
pub(crate) const SO_PIN: &str = "31415926";

/// What `pkcs11-tool --key-type` calls them.
pub(crate) const KEYS: [(&str, KeyType); 6] = [
    ("rsa:2048", KeyType::Rsa { bits: 2048 }),
    ("rsa:3072", KeyType::Rsa { bits: 3072 }),
    ("EC:secp256r1", KeyType::EcP256),
    ("EC:secp384r1", KeyType::EcP384),
    ("EC:secp521r1", KeyType::EcP521),
    ("EC:edwards25519", KeyType::Ed25519),
];

/// Where the distributions put it.
pub(crate) fn module_path() -> PathBuf {
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"];
    let place = places.iter().map(Path::new).find(|path| path.exists());
    place.expect("SoftHSM2 is not installed: `cargo xtask test` installs what the tests need").to_owned()
}

/// Runs a test with an empty SoftHSM2 of its own.
pub(crate) fn softhsm(test: &str, body: impl FnOnce(&Path)) {
    let environment = |directory: &Path| -> Vec<(&'static str, OsString)> {
        vec![("SOFTHSM2_CONF", softhsm_configuration(directory).into())]
    };
    in_own_process(test, environment, body);
}

/// Makes room for tokens, and the file that says where.
pub(crate) fn softhsm_configuration(directory: &Path) -> PathBuf {
    let tokens = directory.join("tokens");
    fs::create_dir(&tokens).unwrap();
    let configuration = directory.join("softhsm2.conf");
    let text = format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
    fs::write(&configuration, text).unwrap();
    configuration
}

pub(crate) fn make_token(label: &str) {
    let arguments = ["--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN];
    run(Command::new("softhsm2-util").args(arguments));
}

/// `pkcs11-tool` logged in to the token of that label.
pub(crate) fn tool(module: &Path, label: &str) -> Command {
    let mut command = Command::new("pkcs11-tool");
    command.arg("--module").arg(module).args(["--token-label", label, "--login", "--pin", PIN]);
    command
}

pub(crate) fn make_key(module: &Path, token: &str, key_type: &str, label: &str, id: &str) {
    let arguments = ["--keypairgen", "--usage-sign", "--key-type", key_type, "--label", label, "--id", id];
    run(tool(module, token).args(arguments));
}

pub(crate) fn pin_file(directory: &Path, pin: &str) -> PinSource {
    let private = directory.join("private");
    let _ = fs::create_dir(&private);
    let path = private.join("pin");
    let _ = fs::remove_file(&path);
    fs::write(&path, format!("{pin}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    PinSource::File(path)
}

pub(crate) fn token(directory: &Path, uri: &str, pin: &str) -> Pkcs11Token {
    let module = Module::load(module_path(), ModuleId(1)).unwrap();
    Pkcs11Token::new("hsm", module, uri.parse().unwrap(), pin_file(directory, pin), directory.join("state")).unwrap()
}

#[test]
fn softhsm_keeps_every_promise() {
    softhsm("softhsm::softhsm_keeps_every_promise", |directory| {
        make_token("segl");
        let mut held = Vec::new();
        for (place, (name, key_type)) in KEYS.into_iter().enumerate() {
            make_key(&module_path(), "segl", name, &format!("key {place}"), &format!("0{place}"));
            held.push(Held { key_type, locator: format!("pkcs11:object=key%20{place};id=%0{place};type=private") });
        }
        let token = token(directory, "pkcs11:token=segl", PIN);
        contract::keep(Arc::new(token), &held, "pkcs11:object=nothing");
    });
}

#[test]
fn a_module_is_loaded_once_and_under_one_id() {
    softhsm("softhsm::a_module_is_loaded_once_and_under_one_id", |directory| {
        let first = Module::load(module_path(), ModuleId(1)).unwrap();
        let again = Module::load(module_path(), ModuleId(1)).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        // A link leads to the same library, which must not be initialised twice.
        let link = directory.join("link.so");
        std::os::unix::fs::symlink(module_path(), &link).unwrap();
        assert!(Arc::ptr_eq(&first, &Module::load(link, ModuleId(1)).unwrap()));
        assert_eq!(Module::load(module_path(), ModuleId(2)).unwrap_err().kind(), Kind::Module);
        assert_eq!(Module::load("libsofthsm2.so", ModuleId(1)).unwrap_err().kind(), Kind::Module);
        assert_eq!(Module::load("/nowhere.so", ModuleId(1)).unwrap_err().kind(), Kind::Module);
        let no_module = directory.join("no.so");
        fs::write(&no_module, "no library").unwrap();
        assert_eq!(Module::load(no_module, ModuleId(3)).unwrap_err().kind(), Kind::Module);
    });
}

#[test]
fn tokens_of_one_label_are_told_apart_by_serial_or_refused() {
    softhsm("softhsm::tokens_of_one_label_are_told_apart_by_serial_or_refused", |directory| {
        make_token("twin");
        make_token("twin");
        let error = token(directory, "pkcs11:token=twin", PIN).open().err().unwrap();
        assert_eq!(error.kind(), Kind::TokenAbsent);
        assert_eq!(error.verdict().fault, Fault::Operator);
        // The error lists them, so that the operator can choose.
        let text = error.to_string();
        let serials: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
        assert_eq!(serials.len(), 2, "{text}");
        for serial in serials {
            let one = token(directory, &format!("pkcs11:token=twin;serial={serial}"), PIN);
            contract::session(&one).close().unwrap();
        }
        let none = token(directory, "pkcs11:token=twin;serial=0000", PIN).open().err().unwrap();
        assert_eq!((none.kind(), none.verdict().rung), (Kind::TokenAbsent, Rung::Token));
    });
}

#[test]
fn keys_that_can_not_be_told_apart_or_used_are_refused_with_the_reason() {
    softhsm("softhsm::keys_that_can_not_be_told_apart_or_used_are_refused_with_the_reason", |directory| {
        make_token("segl");
        let module = module_path();
        make_key(&module, "segl", "EC:secp256r1", "twin", "01");
        make_key(&module, "segl", "EC:secp256r1", "twin", "02");
        make_key(&module, "segl", "EC:secp256r1", "orphan", "04");
        run(tool(&module, "segl").args(["--delete-object", "--type", "pubkey", "--id", "04"]));
        let token = token(directory, "pkcs11:token=segl", PIN);
        // The first session initialises the module.
        token.open().unwrap().close().unwrap();
        make_key_that_may_not_sign("decrypts");
        let cases = [
            ("pkcs11:object=twin", Kind::KeyMissing, "several"),
            ("pkcs11:object=decrypts", Kind::KeyUnusable, "CKA_SIGN"),
            ("pkcs11:id=%04", Kind::KeyUnusable, "neither a public key nor a certificate"),
            ("pkcs11:object=twin;token=other", Kind::KeyMissing, "another token"),
            ("pkcs11:token=segl", Kind::KeyMissing, "neither object= nor id="),
            ("pkcs11:object=twin;id=%01;type=public", Kind::KeyMissing, "private"),
            ("login.pem", Kind::KeyMissing, "pkcs11:"),
        ];
        let specs: Vec<_> = (1..).zip(cases).map(|(id, (uri, ..))| spec(KeyId(id), uri)).collect();
        token.add_keys(&specs);
        token.add_keys(&[spec(KeyId(99), "pkcs11:object=twin;id=%02;token=segl")]);
        let mut session = token.open().unwrap();
        let mut reports = session.login().unwrap();
        reports.pop().unwrap().result.unwrap();
        for (report, (uri, kind, reason)) in reports.into_iter().zip(cases) {
            let error = report.result.unwrap_err();
            assert_eq!(error.kind(), kind, "{uri}: {error}");
            assert!(error.to_string().contains(reason), "{uri}: {error}");
        }
        session.close().unwrap();
    });
}

/// By cryptoki, on the module that is initialised already: no tool at hand makes such a key.
fn make_key_that_may_not_sign(label: &str) {
    let context = Pkcs11::new(module_path()).unwrap();
    let slot = context.get_slots_with_initialized_token().unwrap()[0];
    let session = context.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&AuthPin::new(PIN.into()))).unwrap();
    let public = [Attribute::Token(true), Attribute::ModulusBits(2048.into()), Attribute::Id(vec![3])];
    let private = [
        Attribute::Token(true),
        Attribute::Label(label.into()),
        Attribute::Id(vec![3]),
        Attribute::Decrypt(true),
        Attribute::Sign(false),
    ];
    session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private).unwrap();
}

#[test]
fn the_public_key_is_found_in_a_certificate_too() {
    softhsm("softhsm::the_public_key_is_found_in_a_certificate_too", |directory| {
        make_token("segl");
        let module = module_path();
        let (key, certificate) = (directory.join("key.pem"), directory.join("certificate.der"));
        let request =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-subj", "/CN=x"];
        run(Command::new("openssl")
            .args(request)
            .args(["-outform", "DER", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate));
        run(tool(&module, "segl").arg("--write-object").arg(&key).args([
            "--type",
            "privkey",
            "--usage-sign",
            "--id",
            "07",
        ]));
        run(tool(&module, "segl").arg("--write-object").arg(&certificate).args(["--type", "cert", "--id", "07"]));
        let token = token(directory, "pkcs11:token=segl", PIN);
        token.add_keys(&[spec(KeyId(1), "pkcs11:id=%07")]);
        let mut session = token.open().unwrap();
        let info = session.login().unwrap().remove(0).result.unwrap();
        assert_eq!(info.key_type, KeyType::EcP384);
        let mut signature = Signature::new();
        let algorithm = Algorithm::EcdsaP384Sha384;
        session.sign(KeyId(1), algorithm, &Input::message(b"text"), &mut signature).unwrap();
        segl_hsm::verify::verify(&info.spki_der, algorithm, b"text", &signature).unwrap();
        session.close().unwrap();
    });
}

#[test]
fn a_key_deleted_on_the_token_costs_a_generation_and_is_missing_in_the_next() {
    softhsm("softhsm::a_key_deleted_on_the_token_costs_a_generation_and_is_missing_in_the_next", |directory| {
        make_token("segl");
        let module = module_path();
        for (label, id) in [("goes", "01"), ("stays", "02")] {
            make_key(&module, "segl", "EC:secp256r1", label, id);
        }
        let token = token(directory, "pkcs11:token=segl", PIN);
        token.add_keys(&[spec(KeyId(1), "pkcs11:object=goes"), spec(KeyId(2), "pkcs11:object=stays")]);
        let mut signature = Signature::new();
        let mut sign = |session: &mut Box<dyn segl_hsm::Session>, id| {
            session.sign(KeyId(id), Algorithm::EcdsaP256Sha256, &Input::message(b"text"), &mut signature)
        };
        let (mut one, mut other) = (contract::session(&token), contract::session(&token));
        sign(&mut one, 1).unwrap();
        one.presence(KeyId(1)).unwrap();
        run(tool(&module, "segl").args(["--delete-object", "--type", "privkey", "--id", "01"]));
        // To look is cheap: it says what is missing, and the others go on.
        assert_eq!(one.presence(KeyId(1)).unwrap_err().kind(), Kind::KeyMissing);
        sign(&mut one, 2).unwrap();
        let error = sign(&mut one, 1).unwrap_err();
        assert_eq!((error.kind(), error.verdict().rung), (Kind::KeyHandle, Rung::Token), "{error}");
        // Its sister belongs to the same generation: no handle of it is used again.
        assert_eq!(sign(&mut other, 2).unwrap_err().kind(), Kind::Session);
        one.close().unwrap();
        let mut new = contract::session(&token);
        assert_eq!(sign(&mut new, 1).unwrap_err().kind(), Kind::KeyMissing);
        sign(&mut new, 2).unwrap();
        // A late close hits nobody.
        other.close().unwrap();
        sign(&mut new, 2).unwrap();
        new.close().unwrap();
    });
}

#[test]
fn another_key_under_the_same_locator_is_never_signed_with() {
    softhsm("softhsm::another_key_under_the_same_locator_is_never_signed_with", |directory| {
        make_token("segl");
        let module = module_path();
        make_key(&module, "segl", "EC:secp256r1", "one", "01");
        make_key(&module, "segl", "EC:secp256r1", "stays", "02");
        let token = token(directory, "pkcs11:token=segl", PIN);
        token.add_keys(&[spec(KeyId(1), "pkcs11:object=one"), spec(KeyId(2), "pkcs11:object=stays")]);
        let mut signature = Signature::new();
        let mut sign = |session: &mut Box<dyn segl_hsm::Session>, id| {
            session.sign(KeyId(id), Algorithm::EcdsaP256Sha256, &Input::message(b"text"), &mut signature)
        };
        let mut old = contract::session(&token);
        sign(&mut old, 1).unwrap();
        for object in ["privkey", "pubkey"] {
            run(tool(&module, "segl").args(["--delete-object", "--type", object, "--id", "01"]));
        }
        make_key(&module, "segl", "EC:secp256r1", "one", "01");
        assert_eq!(sign(&mut old, 1).unwrap_err().verdict().rung, Rung::Token, "the old handle is void");
        old.close().unwrap();

        let mut new = token.open().unwrap();
        for _refresh in 0..2 {
            let reports = new.login().unwrap();
            let error = reports[0].result.as_ref().unwrap_err();
            assert_eq!(error.kind(), Kind::KeyUnusable);
            assert!(error.to_string().contains("another public key than before"), "{error}");
            assert!(reports[1].result.is_ok());
        }
        let error = sign(&mut new, 1).unwrap_err();
        assert_eq!((error.kind(), error.verdict().rung), (Kind::KeyUnusable, Rung::None), "{error}");
        sign(&mut new, 2).unwrap();
        new.close().unwrap();
    });
}

#[test]
fn a_token_uri_must_select_a_token_and_nothing_else() {
    softhsm("softhsm::a_token_uri_must_select_a_token_and_nothing_else", |directory| {
        let module = Module::load(module_path(), ModuleId(1)).unwrap();
        for uri in ["pkcs11:", "pkcs11:object=x", "pkcs11:token=segl;object=x"] {
            let new = Pkcs11Token::new("x", module.clone(), uri.parse().unwrap(), PinSource::None, directory);
            let error = new.err().unwrap();
            assert_eq!((error.kind(), error.verdict().fault), (Kind::TokenAbsent, Fault::Operator), "{uri}");
        }
    });
}

#[test]
fn a_token_made_since_is_found_when_the_module_is_begun_anew() {
    softhsm("softhsm::a_token_made_since_is_found_when_the_module_is_begun_anew", |directory| {
        make_token("first");
        make_key(&module_path(), "first", "EC:secp256r1", "one", "01");
        let (first, late) = (token(directory, "pkcs11:token=first", PIN), token(directory, "pkcs11:token=late", PIN));
        first.add_keys(&[spec(KeyId(1), "pkcs11:object=one")]);
        late.add_keys(&[spec(KeyId(2), "pkcs11:object=two")]);
        let mut session = contract::session(&first);
        assert_eq!(late.open().err().unwrap().kind(), Kind::TokenAbsent);
        make_token("late");
        make_key(&module_path(), "late", "EC:secp256r1", "two", "01");
        assert_eq!(late.open().err().unwrap().kind(), Kind::TokenAbsent, "SoftHSM2 looks once");
        session.keep_alive().unwrap();
        session.close().unwrap();

        late.reinitialise().unwrap();
        let (mut one, mut other) = (contract::session(&first), contract::session(&late));
        let mut signature = Signature::new();
        let algorithm = Algorithm::EcdsaP256Sha256;
        one.sign(KeyId(1), algorithm, &Input::message(b"text"), &mut signature).unwrap();
        other.sign(KeyId(2), algorithm, &Input::message(b"text"), &mut signature).unwrap();
        // Numbers of handles begin anew with the module. What is closed belongs to this world, and closing one
        // session leaves the other's alone.
        one.close().unwrap();
        other.sign(KeyId(2), algorithm, &Input::message(b"text"), &mut signature).unwrap();
        other.close().unwrap();
    });
}

#[test]
fn a_keep_alive_notices_that_somebody_has_logged_us_out() {
    softhsm("softhsm::a_keep_alive_notices_that_somebody_has_logged_us_out", |directory| {
        make_token("segl");
        let token = token(directory, "pkcs11:token=segl", PIN);
        let mut session = contract::session(&token);
        session.keep_alive().unwrap();
        let context = Pkcs11::new(module_path()).unwrap();
        let slot = context.get_slots_with_initialized_token().unwrap()[0];
        context.open_ro_session(slot).unwrap().logout().unwrap();
        let error = session.keep_alive().unwrap_err();
        assert_eq!((error.kind(), error.verdict().rung), (Kind::NotLoggedIn, Rung::Token), "{error}");
        session.close().unwrap();
        let mut session = contract::session(&token);
        session.keep_alive().unwrap();
        session.close().unwrap();
    });
}
