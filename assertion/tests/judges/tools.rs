//! Where the judges are, and keys that sign in this process.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use p521::ecdsa::signature::Signer as _;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use ring::{rand::SystemRandom, signature};
use segl_assertion::jws::JwsAlgorithm;

/// A citizen's assertion in a Response.
pub(crate) const PERSON: &str = include_str!("../samples/person.xml");
/// An assertion of somebody who acts for a company.
pub(crate) const COMPANY: &str = include_str!("../samples/company.xml");

/// A sample as if it were issued now.
pub(crate) fn issued_now(sample: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut fresh = sample.to_owned();
    for (old, age_s) in [
        ("2026-11-21T10:15:30.123Z", 0),
        ("2026-11-21T10:15:29.871Z", 0),
        ("2026-11-21T10:20:30.123Z", 300),
        ("2026-11-21T11:15:30.123Z", 3600),
        ("2026-11-21T07:59:58Z", 0),
        ("2026-11-21T08:00:00Z", 0),
        ("2026-11-21T08:05:00Z", 300),
        ("2026-11-21T08:30:00Z", 1800),
    ] {
        fresh = fresh.replace(old, &instant(now + age_s));
    }
    fresh
}

/// `xs:dateTime` of a second since 1970 (Howard Hinnant's days_from_civil, backwards).
fn instant(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400 + 719_468, unix_s % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let (month, next) = if march < 10 { (march + 3, 0) } else { (march - 9, 1) };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", year_of_era + era * 400 + next)
}

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
            JwsAlgorithm::Es512 => Key::p521(),
            JwsAlgorithm::EdDsa => Key::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()),
            _ => Key::rsa(),
        }
    }

    pub(crate) fn rsa() -> Key {
        let pem = include_str!("../keys/rsa-2048.pem");
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        Key::from_pkcs8(&STANDARD.decode(body).unwrap())
    }

    /// Neither ring nor rcgen knows the curve.
    fn p521() -> Key {
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str| place.path().join(name);
        let mut make = Command::new("openssl");
        make.args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=sp.example", "-outform", "DER"]);
        make.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"]).arg("-keyout").arg(file("key"));
        run(make.arg("-out").arg(file("certificate")), b"").unwrap();
        let mut pkcs8 = Command::new("openssl");
        pkcs8.args(["pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in"]).arg(file("key"));
        run(pkcs8.arg("-out").arg(file("pkcs8")), b"").unwrap();
        let mut public = Command::new("openssl");
        public.args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(file("key"));
        run(public.arg("-out").arg(file("spki")), b"").unwrap();
        let read = |name: &str| std::fs::read(file(name)).unwrap();
        Key { pkcs8: read("pkcs8"), spki: read("spki"), certificate: read("certificate") }
    }

    /// The same with a certificate from an authority.
    pub(crate) fn issued_by(self, authority: &CertifiedIssuer<'_, KeyPair>) -> Key {
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = place.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut issue = Command::new("openssl");
        issue.args(["x509", "-new", "-subj", "/CN=sts", "-days", "30", "-outform", "DER", "-force_pubkey"]);
        issue.arg(file("public.pem", &pem("PUBLIC KEY", &self.spki)));
        issue.arg("-CA").arg(file("ca.pem", &authority.pem()));
        issue.arg("-CAkey").arg(file("ca.key", &authority.key().serialize_pem()));
        let issued = place.path().join("issued");
        run(issue.arg("-out").arg(&issued), b"").unwrap();
        Key { certificate: std::fs::read(issued).unwrap(), ..self }
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Key {
        let pair = KeyPair::try_from(pkcs8).unwrap();
        let certificate = CertificateParams::new(vec!["sp.example".to_owned()]).unwrap().self_signed(&pair).unwrap();
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
            JwsAlgorithm::Es512 => {
                use p521::{ecdsa::SigningKey, pkcs8::DecodePrivateKey};
                let key = SigningKey::from_pkcs8_der(&self.pkcs8).unwrap();
                let signature: p521::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
        }
    }
}
