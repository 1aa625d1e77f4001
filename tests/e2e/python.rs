//! A client in another language, written from docs/PROTOCOL.md alone, signs over mutual TLS. It needs a Python with
//! `cbor2`, which `cargo xtask test --stage python` makes and names in `SEGL_PYTHON`.

use std::process::Command;

use segl_tests::{
    programs,
    site::{ED25519, P256, P384, RSA, Site, Token},
};

fn client(site: &Site, words: &[&str]) -> String {
    let python = std::env::var_os("SEGL_PYTHON").expect("SEGL_PYTHON names the Python to use");
    let files = &site.tenants[0].files;
    let output = Command::new(python)
        .arg(programs::workspace().join("tests/python/segl_client.py"))
        .args(["--address", &site.segld.to_string(), "--server-name", "localhost", "--ca"])
        .arg(site.dir.join("pki/servers-ca.pem"))
        .arg("--cert")
        .arg(&files.certificate)
        .arg("--key")
        .arg(&files.key)
        .args(words)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

#[test]
#[ignore = "needs a Python with cbor2: cargo xtask test --stage python"]
fn a_client_in_python_lists_the_keys_and_signs_with_every_kind_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::create(&dir.path().join("site"), Token::Embedded, &[]).unwrap();
    let _segld = site.start_segld().unwrap();
    let keys = client(&site, &["keys"]);
    for key in [RSA, P256, P384, ED25519] {
        assert!(keys.contains(key), "{key} is not among {keys}");
    }
    client(&site, &["demo"]);
    let (short, long) = ("ab".repeat(32), "cd".repeat(48));
    for (key, algorithm, digest) in [
        (RSA, "rsa-pkcs1-sha256", &short),
        (RSA, "rsa-pss-sha256", &short),
        (P256, "ecdsa-p256-sha256", &short),
        (P384, "ecdsa-p384-sha384", &long),
    ] {
        client(&site, &["sign", "--key-name", key, "--algorithm", algorithm, "--digest-hex", digest, "--verify"]);
    }
    client(&site, &["sign", "--key-name", ED25519, "--algorithm", "ed25519", "--message", "hello", "--verify"]);
}
