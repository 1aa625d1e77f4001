//! Signed assertions before judges that we did not write: xmlsec1 (libxml2, OpenSSL) and Python's signxml (lxml).

#![allow(clippy::unwrap_used, reason = "all of it is tests, the functions that make keys too")]

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, RsaKeyPair},
};
use segl_assertion::saml::{DigestMethod, Document, KeyInfo, Limits, SignatureMethod};

const PERSON: &str = include_str!("samples/person.xml");
const COMPANY: &str = include_str!("samples/company.xml");

/// Keys and certificates, made by openssl once for all tests of a process.
struct Keys {
    _dir: tempfile::TempDir,
    rsa: Key,
    p256: Key,
    p384: Key,
}

struct Key {
    pkcs8: Vec<u8>,
    certificate: PathBuf,
}

impl Key {
    fn create(dir: &Path, name: &str, kind: &[&str]) -> Key {
        let (key, certificate, pkcs8) =
            (dir.join(format!("{name}.key")), dir.join(format!("{name}.pem")), dir.join(format!("{name}.p8")));
        let mut request = Command::new("openssl");
        request.args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/C=DK/O=Korsbaek/CN=sts", "-newkey"]);
        run(request.args(kind).arg("-keyout").arg(&key).arg("-out").arg(&certificate));
        let mut convert = Command::new("openssl");
        convert.args(["pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in"]).arg(&key).arg("-out").arg(&pkcs8);
        run(&mut convert);
        Key { pkcs8: std::fs::read(pkcs8).unwrap(), certificate }
    }

    fn pem(&self) -> String {
        std::fs::read_to_string(&self.certificate).unwrap()
    }

    fn key_info(&self) -> KeyInfo {
        let base64: String = self.pem().lines().filter(|line| !line.starts_with('-')).collect();
        KeyInfo::x509(&[STANDARD.decode(base64).unwrap()])
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        Keys {
            rsa: Key::create(dir.path(), "rsa", &["rsa:3072"]),
            p256: Key::create(dir.path(), "p256", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]),
            p384: Key::create(dir.path(), "p384", &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"]),
            _dir: dir,
        }
    })
}

/// Signs with the key that the method is for.
fn sign(document: &str, method: SignatureMethod, digest: DigestMethod, with_key_info: bool) -> (String, &'static Key) {
    let random = SystemRandom::new();
    let key = match method {
        SignatureMethod::EcdsaSha256 => &keys().p256,
        SignatureMethod::EcdsaSha384 => &keys().p384,
        _ => &keys().rsa,
    };
    let key_info = if with_key_info { key.key_info() } else { KeyInfo::NONE };
    let parsed = Document::parse(document.as_bytes(), &Limits::default()).unwrap();
    let prepared = parsed.prepare(method, digest, &key_info);
    let message = prepared.signed_info();
    let rsa = |padding: &'static dyn signature::RsaEncoding| {
        let pair = RsaKeyPair::from_pkcs8(&key.pkcs8).unwrap();
        let mut value = vec![0; pair.public().modulus_len()];
        pair.sign(padding, &random, message, &mut value).unwrap();
        value
    };
    let ecdsa = |algorithm| {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &key.pkcs8, &random).unwrap();
        pair.sign(&random, message).unwrap().as_ref().to_vec()
    };
    let value = match method {
        SignatureMethod::RsaSha256 => rsa(&signature::RSA_PKCS1_SHA256),
        SignatureMethod::RsaSha384 => rsa(&signature::RSA_PKCS1_SHA384),
        SignatureMethod::RsaSha512 => rsa(&signature::RSA_PKCS1_SHA512),
        SignatureMethod::RsaPssSha256 => rsa(&signature::RSA_PSS_SHA256),
        SignatureMethod::RsaPssSha384 => rsa(&signature::RSA_PSS_SHA384),
        SignatureMethod::RsaPssSha512 => rsa(&signature::RSA_PSS_SHA512),
        SignatureMethod::EcdsaSha256 => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        SignatureMethod::EcdsaSha384 => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        SignatureMethod::EcdsaSha512 => unreachable!("ring has no P-521"),
    };
    (String::from_utf8(prepared.finish(&value)).unwrap(), key)
}

/// What can be signed with the keys at hand.
fn methods() -> impl Iterator<Item = SignatureMethod> {
    SignatureMethod::ALL.iter().copied().filter(|method| *method != SignatureMethod::EcdsaSha512)
}

/// The samples, and what else puts namespaces in unusual places.
fn documents() -> Vec<String> {
    let xs = " xmlns:xs=\"http://www.w3.org/2001/XMLSchema\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"";
    // Declared again where it is used, as OpenSAML writes it.
    let inside = PERSON.replace(" xsi:type=\"xs:string\"", &format!("{xs} xsi:type=\"xs:string\""));
    assert!(inside.matches(xs).count() == 12);
    vec![PERSON.to_owned(), COMPANY.to_owned(), inside]
}

#[test]
fn xmlsec1_accepts_an_assertion_that_was_signed_alone_and_put_into_a_response() {
    let (signed, key) = sign(COMPANY, SignatureMethod::EcdsaSha256, DigestMethod::Sha256, true);
    let response = format!(
        "<p:Response xmlns:p=\"urn:oasis:names:tc:SAML:2.0:protocol\" xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" \
         xmlns:xs=\"http://www.w3.org/2001/XMLSchema\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">{signed}</p:Response>"
    );
    assert!(xmlsec1_accepts(&response, key), "{response}");
}

fn xmlsec1_accepts(document: &str, key: &Key) -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document).unwrap();
    let mut xmlsec1 = Command::new("xmlsec1");
    xmlsec1.args(["--verify", "--id-attr:ID", "urn:oasis:names:tc:SAML:2.0:assertion:Assertion", "--pubkey-cert-pem"]);
    xmlsec1.arg(&key.certificate).arg(file.path()).output().expect("xmlsec1 runs").status.success()
}

#[test]
fn xmlsec1_accepts_every_document_and_algorithm_it_knows() {
    for document in documents() {
        for method in methods() {
            // xmlsec1 learnt RSASSA-PSS with version 1.3; signxml judges that.
            if method.uri().ends_with("MGF1") {
                continue;
            }
            let (signed, key) = sign(&document, method, DigestMethod::Sha256, true);
            assert!(xmlsec1_accepts(&signed, key), "{method:?}: {signed}");
        }
    }
    for digest in DigestMethod::ALL {
        let (signed, key) = sign(PERSON, SignatureMethod::EcdsaSha256, *digest, false);
        assert!(xmlsec1_accepts(&signed, key), "{digest:?}: {signed}");
    }
}

#[test]
fn xmlsec1_refuses_an_assertion_changed_after_it_was_signed() {
    let (signed, key) = sign(COMPANY, SignatureMethod::EcdsaSha256, DigestMethod::Sha256, true);
    for (from, to) in [
        (">12345678<", ">12345679<"),
        ("Korsbæk Kommune</Att", "Korsbaek Kommune</Att"),
        ("08:30:00Z", "08:30:01Z"),
        ("saml:KeyInfoConfirmationDataType", "saml:KeyInfoConfirmationDataTypo"),
        ("</AttributeStatement>", " </AttributeStatement>"),
    ] {
        let changed = signed.replace(from, to);
        assert_ne!(changed, signed, "{from}");
        assert!(!xmlsec1_accepts(&changed, key), "{from} -> {to}");
    }
    let rebound = signed.replace("xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\"", "xmlns:saml=\"urn:other\"");
    assert_ne!(rebound, signed);
    assert!(!xmlsec1_accepts(&rebound, key), "what xsi:type means is not in the digest");
}

mod python {
    use super::*;

    #[test]
    #[ignore = "needs a Python with signxml: cargo xtask test --stage python"]
    fn signxml_accepts_every_document_and_algorithm() {
        let python = std::env::var_os("SEGL_PYTHON").expect("SEGL_PYTHON names the Python to use");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/verify.py");
        let mut cases = Vec::new();
        let mut count = 0;
        for document in documents() {
            let parsed = Document::parse(document.as_bytes(), &Limits::default()).unwrap();
            for (index, method) in methods().enumerate() {
                let digest = DigestMethod::ALL[index % 3];
                let (xml, key) = sign(&document, method, digest, index % 2 == 0);
                let id = parsed.assertion().id();
                let case = serde_json::json!({ "xml": xml, "certificate": key.pem(), "id": id });
                writeln!(cases, "{case}").unwrap();
                count += 1;
            }
        }
        let mut child =
            Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python runs");
        let written = child.stdin.take().unwrap().write_all(&cases);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "signxml refuses one; see above");
        written.unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), count.to_string());
    }
}
