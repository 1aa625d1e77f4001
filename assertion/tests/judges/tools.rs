//! Where the judges are, and keys that sign in this process.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{rand::SystemRandom, signature};
use segl_assertion::jws::JwsAlgorithm;

/// The folder of this file.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges")
}

/// A Python with the packages of tests/python/requirements.txt.
pub(crate) fn python() -> Command {
    let python = installed("SEGL_PYTHON", "venv/bin/python");
    let mut command = Command::new(python);
    command.arg("-I");
    command
}

/// A Node that finds the packages of tests/node/package.json.
pub(crate) fn node() -> Command {
    let folder = installed("SEGL_NODE", "node");
    let mut command = Command::new("node");
    command.env("NODE_PATH", folder.join("node_modules"));
    command
}

/// The judge of XML signatures and encryption.
pub(crate) fn xmlsec1() -> Command {
    Command::new("xmlsec1")
}

/// DER in PEM (RFC 7468).
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn installed(variable: &str, in_cache: &str) -> PathBuf {
    let from_cache = || {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
        cache.unwrap_or_default().join("segl").join(in_cache)
    };
    let path = std::env::var_os(variable).map_or_else(from_cache, PathBuf::from);
    assert!(path.exists(), "{} is missing: `cargo xtask test --stage install` makes it", path.display());
    path
}

/// Runs a judge with an input; what it says on standard output when it is content.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Result<String, String> {
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| format!("{command:?}: {error}: `cargo xtask test --stage install`"))?;
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    // A judge that has seen enough closes its end; what it says then counts.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{command:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr)))
    }
}

/// A private key, its public key and a certificate.
pub(crate) struct Key {
    pub(crate) pkcs8: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) certificate: Vec<u8>,
}

impl Key {
    pub(crate) fn for_algorithm(algorithm: JwsAlgorithm) -> Key {
        use signature::{
            ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        };
        let random = SystemRandom::new();
        match algorithm {
            JwsAlgorithm::Es256 => {
                let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
                Key::from_pkcs8(key.as_ref())
            }
            JwsAlgorithm::Es384 => {
                let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
                Key::from_pkcs8(key.as_ref())
            }
            JwsAlgorithm::EdDsa => Key::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()),
            _ => Key::rsa(),
        }
    }

    pub(crate) fn rsa() -> Key {
        let pem = include_str!("../keys/rsa-2048.pem");
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        Key::from_pkcs8(&STANDARD.decode(body).unwrap())
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Key {
        let pair = rcgen::KeyPair::try_from(pkcs8).unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["sp.example".to_owned()]).unwrap().self_signed(&pair).unwrap();
        Key {
            pkcs8: pkcs8.to_vec(),
            spki: rcgen::PublicKeyData::subject_public_key_info(&pair),
            certificate: certificate.der().to_vec(),
        }
    }

    /// A signature as an HSM would make it: of ECDSA, `r || s`.
    pub(crate) fn sign(&self, algorithm: JwsAlgorithm, message: &[u8]) -> Vec<u8> {
        use signature::{
            ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
            RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
            RsaEncoding, RsaKeyPair,
        };
        let random = SystemRandom::new();
        let rsa = |encoding: &'static dyn RsaEncoding| {
            let key = RsaKeyPair::from_pkcs8(&self.pkcs8).unwrap();
            let mut signature = vec![0; key.public().modulus_len()];
            key.sign(encoding, &random, message, &mut signature).unwrap();
            signature
        };
        let ecdsa = |algorithm| {
            let key = EcdsaKeyPair::from_pkcs8(algorithm, &self.pkcs8, &random).unwrap();
            key.sign(&random, message).unwrap().as_ref().to_vec()
        };
        match algorithm {
            JwsAlgorithm::Rs256 => rsa(&RSA_PKCS1_SHA256),
            JwsAlgorithm::Rs384 => rsa(&RSA_PKCS1_SHA384),
            JwsAlgorithm::Rs512 => rsa(&RSA_PKCS1_SHA512),
            JwsAlgorithm::Ps256 => rsa(&RSA_PSS_SHA256),
            JwsAlgorithm::Ps384 => rsa(&RSA_PSS_SHA384),
            JwsAlgorithm::Ps512 => rsa(&RSA_PSS_SHA512),
            JwsAlgorithm::Es256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            JwsAlgorithm::Es384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            JwsAlgorithm::EdDsa => {
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(&self.pkcs8).unwrap().sign(message).as_ref().to_vec()
            }
            JwsAlgorithm::Es512 => unreachable!("ring has no P-521"),
        }
    }
}
