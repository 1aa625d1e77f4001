//! The embedded token: the suite, and the files it makes and reads.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, sync::Arc};

use segl_hsm::{KeyId, KeyType, Kind, ModuleId, Token, embedded::EmbeddedToken};

use crate::{
    contract::{self, Held, spec},
    process::run,
};

const KEYS: [(&str, KeyType); 6] = [
    ("rsa-2048.pem", KeyType::Rsa { bits: 2048 }),
    ("rsa-3072.pem", KeyType::Rsa { bits: 3072 }),
    ("p256.pem", KeyType::EcP256),
    ("p384.pem", KeyType::EcP384),
    ("p521.pem", KeyType::EcP521),
    ("ed25519.pem", KeyType::Ed25519),
];

fn generate() -> Vec<(String, KeyType)> {
    KEYS.iter().map(|(file, key_type)| (file.to_string(), *key_type)).collect()
}

fn open(directory: &Path, generate: &[(String, KeyType)]) -> EmbeddedToken {
    EmbeddedToken::open_directory("dev", directory, ModuleId(1), generate).unwrap()
}

#[test]
fn the_embedded_token_keeps_every_promise_with_keys_it_made() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("keys");
    let token = Arc::new(open(&directory, &generate()));
    let held: Vec<_> = KEYS.iter().map(|(file, key_type)| held(file, *key_type)).collect();
    contract::keep(token, &held, "nothing.pem");
    // openssl reads what was made.
    for (file, _) in KEYS {
        run(Command::new("openssl").args(["pkey", "-noout", "-check", "-in"]).arg(directory.join(file)));
    }
}

#[test]
fn the_embedded_token_keeps_every_promise_with_keys_that_openssl_made() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("keys");
    open(&directory, &[]);
    let kinds: [(KeyType, &[&str]); 6] = [
        (KeyType::Rsa { bits: 2048 }, &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
        (KeyType::Rsa { bits: 4096 }, &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"]),
        (KeyType::EcP256, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        (KeyType::EcP384, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        (KeyType::EcP521, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"]),
        (KeyType::Ed25519, &["-algorithm", "ED25519"]),
    ];
    for (form, suffix) in [("PEM", "pem"), ("DER", "der")] {
        for (key_type, options) in kinds {
            let (any, path) = (parent.path().join("any"), directory.join(format!("{key_type}.{suffix}")));
            run(Command::new("openssl").arg("genpkey").args(options).arg("-out").arg(&any));
            let convert = ["pkcs8", "-topk8", "-nocrypt", "-outform", form, "-in"];
            run(Command::new("openssl").args(convert).arg(any).arg("-out").arg(&path));
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let held: Vec<_> = kinds.iter().map(|(key_type, _)| held(&format!("{key_type}.{suffix}"), *key_type)).collect();
        contract::keep(Arc::new(open(&directory, &[])), &held, "nothing.der");
    }
}

#[test]
fn a_key_is_made_once_and_kept() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("keys");
    let wanted = [("a.pem".to_owned(), KeyType::EcP256)];
    open(&directory, &wanted);
    let first = fs::read(directory.join("a.pem")).unwrap();
    open(&directory, &wanted);
    assert_eq!(fs::read(directory.join("a.pem")).unwrap(), first);
}

#[test]
fn a_file_that_holds_no_key_of_ours_is_said_to_be_unusable() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("keys");
    let token = open(&directory, &[]);
    let write = |file: &str, contents: &[u8]| {
        fs::write(directory.join(file), contents).unwrap();
        fs::set_permissions(directory.join(file), fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("empty.pem", b"");
    write("text.pem", b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n");
    write("long.der", &vec![0x30; 20_000]);
    let x25519 = directory.join("x25519.pem");
    run(Command::new("openssl").args(["genpkey", "-algorithm", "X25519", "-out"]).arg(&x25519));
    let small = directory.join("small.pem");
    let rsa_1024 = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out"];
    run(Command::new("openssl").args(rsa_1024).arg(&small));
    for path in [x25519, small] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let files = ["empty.pem", "text.pem", "long.der", "x25519.pem", "small.pem"];
    let specs: Vec<_> = (1..).zip(files).map(|(id, file)| spec(KeyId(id), file)).collect();
    token.add_keys(&specs);
    for (report, file) in token.open().unwrap().login().unwrap().into_iter().zip(files) {
        assert_eq!(report.result.unwrap_err().kind(), Kind::KeyUnusable, "{file}");
    }
}

#[test]
fn presence_notices_that_a_key_file_is_gone() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("keys");
    let token = open(&directory, &[("a.pem".to_owned(), KeyType::EcP256)]);
    token.add_keys(&[spec(KeyId(1), "a.pem")]);
    let mut session = contract::session(&token);
    session.presence(KeyId(1)).unwrap();
    fs::remove_file(directory.join("a.pem")).unwrap();
    assert_eq!(session.presence(KeyId(1)).unwrap_err().kind(), Kind::KeyMissing);
}

fn held(file: &str, key_type: KeyType) -> Held {
    Held { key_type, locator: file.to_owned() }
}
