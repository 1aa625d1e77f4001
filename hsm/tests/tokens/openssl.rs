//! The judge: `openssl pkeyutl -verify`.

use std::{fs, path::Path, process::Command};

use segl_hsm::{Algorithm, Digest, ecdsa};

use crate::process::run;

/// The digest of a message as openssl computes it.
pub(crate) fn digest(hash: Digest, message: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("message"), directory.path().join("digest"));
    fs::write(&input, message).unwrap();
    run(Command::new("openssl").args(["dgst", name(hash), "-binary", "-out"]).arg(&output).arg(&input));
    fs::read(output).unwrap()
}

/// Panics unless openssl accepts the signature over the message.
pub(crate) fn verify(spki_der: &[u8], algorithm: Algorithm, message: &[u8], signature: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    };
    let key = file("spki.der", spki_der);
    let signature = match algorithm.is_ecdsa() {
        true => file("signature", &ecdsa::der_from_raw(signature).unwrap()),
        false => file("signature", signature),
    };
    let input = match algorithm.digest() {
        Some(hash) => file("input", &digest(hash, message)),
        None => file("input", message),
    };
    let said = run(pkeyutl(algorithm, &key, &signature).arg("-in").arg(input));
    assert!(said.contains("Signature Verified Successfully"), "{algorithm}: {said}");
}

fn pkeyutl(algorithm: Algorithm, key: &Path, signature: &Path) -> Command {
    let mut command = Command::new("openssl");
    command.args(["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey"]).arg(key);
    command.arg("-sigfile").arg(signature);
    let mut option = |option: &str| {
        command.args(["-pkeyopt", option]);
    };
    match algorithm.digest() {
        Some(hash) => option(&format!("digest:{}", &name(hash)[1..])),
        None => {
            command.arg("-rawin");
            return command;
        }
    }
    if algorithm.name().starts_with("rsa-pss") {
        option("rsa_padding_mode:pss");
        option("rsa_pss_saltlen:digest");
        option(&format!("rsa_mgf1_md:{}", &name(algorithm.digest().unwrap())[1..]));
    }
    command
}

fn name(hash: Digest) -> &'static str {
    match hash {
        Digest::Sha256 => "-sha256",
        Digest::Sha384 => "-sha384",
        Digest::Sha512 => "-sha512",
    }
}
