//! A client in another language, written from docs/PROTOCOL.md alone, signs over mutual TLS. It needs a Python with
//! `cbor2`, which `cargo xtask test --stage python` makes and names in `SEGL_PYTHON`.

mod kinds;

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use segl_tests::{
    documents::{
        self, COMPANYS_AUDIENCE, CVR, ECDSA_SHA256, LOGIN, LOGIN_RSA, PERSONS_AUDIENCE, PROVIDER_KEY, RSA_SHA256,
        TOKENS, claims, company, person,
    },
    http::Http,
    programs,
    site::{ED25519, P256, P384, RSA, Site, Token},
};
use serde_json::{Value, json};

use crate::room::{Room, connect, spki};

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

/// A judge in `tests/python/judge.py` looks at this and says what it has found.
fn judge(question: &Value) -> String {
    let python = std::env::var_os("SEGL_PYTHON").expect("SEGL_PYTHON names the Python to use");
    let mut command = Command::new(python);
    command.arg(programs::workspace().join("tests/python/judge.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
#[ignore = "needs a Python with cbor2: cargo xtask test --stage python"]
fn a_client_in_python_has_assertions_and_jws_signed() {
    let room = Room::open(Token::Embedded, |site| documents::add(site).unwrap());
    let site = &room.site;
    let mut conversation = connect(site, 0);
    let write = |name: &str, text: &str| {
        let path = site.dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let one = write("one.xml", &person("_y1"));
    let evil = write("evil.xml", &person("_y2").replace(documents::ISSUER, "https://evil.example"));
    let two = write("two.xml", &person("_y3"));
    let firm = write("firm.xml", &company("_y4"));
    for (key, method) in [(LOGIN, ECDSA_SHA256), (LOGIN_RSA, RSA_SHA256)] {
        let spki = spki(&mut conversation, key);
        let words = ["sign-assertion", "--key-name", key, "--signature-method", method, "--key-info", "none"];
        let sign = |more: &[&str]| client(site, &[&words, more].concat());
        documents::xmlsec1(sign(&[&one]).as_bytes(), &spki).unwrap();
        documents::xmlsec1(sign(&["--element-only", &one]).as_bytes(), &spki).unwrap();
        documents::xmlsec1(sign(&["--cvr", CVR, &firm]).as_bytes(), &spki).unwrap();
        let lines = sign(&[&one, &evil, &two]);
        let answers: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for at in [0, 2] {
            documents::xmlsec1(answers[at]["document"].as_str().unwrap().as_bytes(), &spki).unwrap();
        }
        assert_eq!(answers[1]["code"], "policy_violation", "{lines}");
        assert_eq!(answers[1]["violations"][0]["rule"], "issuer", "{lines}");
    }
    let payload = write("claims.json", &claims("token-1"));
    let words = ["sign-jws", "--key-name", TOKENS, "--algorithm", "ES256", "--header", r#"{"typ":"JWT"}"#];
    let compact = client(site, &[&words[..], &[&payload]].concat());
    documents::es256(compact.trim(), &spki(&mut conversation, TOKENS)).unwrap();
}

/// A caller of the broker, and anybody.
fn both(site: &Site) -> (Http, Http) {
    let base = format!("https://localhost:{}", site.broker.port());
    (site.caller(&site.tenants[0]).unwrap(), Http::new(&base, &site.servers.pem(), None).unwrap())
}

#[test]
#[ignore = "needs a Python with jwcrypto: cargo xtask test --stage python"]
fn a_library_finds_the_key_of_a_jws_among_the_published_ones_with_and_without_versions() {
    let room = Room::open(Token::Embedded, |site| documents::add(site).unwrap());
    let versions = Room::open(Token::Embedded, |site| {
        documents::add(site).unwrap();
        let plain = format!("file = \"{TOKENS}.pem\"\nalgorithms = [\"ecdsa-p256-sha256\"]\naccept_legacy = true\n");
        let of = |name: &str, file: &str, from: &str| {
            format!("[[key.version]]\nname = \"{name}\"\nfile = \"{file}.pem\"\nactive_from = {from}\n")
        };
        let described = [
            "algorithms = [\"ecdsa-p256-sha256\"]\n".to_owned(),
            of("now", TOKENS, "2026-01-01T00:00:00Z"),
            of("later", "tokens-later", "2099-01-01T00:00:00Z"),
        ]
        .concat();
        assert!(site.segld_toml.contains(&plain));
        let generate = "generate = [\n    { file = \"tokens-later.pem\", type = \"ec-p256\" },\n";
        site.segld_toml = site.segld_toml.replace(&plain, &described).replacen("generate = [\n", generate, 1);
    });
    let versioned = format!("{TOKENS}/now");
    for (room, kid, published) in [(&room, TOKENS, 1), (&versions, versioned.as_str(), 2)] {
        let _broker = room.site.start_broker().unwrap();
        let (caller, anybody) = both(&room.site);
        let payload: Value = serde_json::from_str(&claims("token-1")).unwrap();
        let body = json!({ "key": TOKENS, "algorithm": "ES256", "payload": payload, "header": { "typ": "JWT" } });
        let signed = caller.post("/v1/jws", &body, &[]).unwrap();
        assert_eq!(signed.status, 200, "{}", signed.text);
        let jwks = anybody.get("/.well-known/jwks.json").unwrap();
        assert_eq!(jwks.json["keys"].as_array().unwrap().len(), published, "{}", jwks.text);
        assert_eq!(judge(&json!({ "jwks": jwks.json, "compact": signed.json["jws"] })), kid);
    }
}

#[test]
#[ignore = "needs a Python with xmlsec: cargo xtask test --stage python"]
fn a_service_provider_decrypts_what_the_broker_encrypted_for_it_and_verifies_it_with_a_published_key() {
    const CBC: &str = "http://www.w3.org/2001/04/xmlenc#aes256-cbc";
    let room = Room::open(Token::Embedded, |site| {
        documents::add(site).unwrap();
        // What is used where nothing is listed: AES-256-GCM and RSA-OAEP with SHA-256.
        documents::add_provider(site, PERSONS_AUDIENCE, &[]).unwrap();
        documents::add_provider(site, COMPANYS_AUDIENCE, &[CBC]).unwrap();
    });
    let _broker = room.site.start_broker().unwrap();
    let (caller, anybody) = both(&room.site);
    let cvr = json!({ "type": "company", "cvr": CVR });
    let citizen = json!({ "type": "citizen" });
    for (document, id, capacity, method) in [
        (person("_x1"), "_x1", &citizen, "xmlenc11#aes256-gcm"),
        (person("_x2"), "_x2", &citizen, "xmlenc11#rsa-oaep"),
        (company("_x3"), "_x3", &cvr, "xmlenc#aes256-cbc"),
    ] {
        let body = json!({ "key": LOGIN, "signature_method": ECDSA_SHA256, "document": document, "encrypt": true,
                           "capacity": capacity });
        let answer = caller.post("/v1/assertions", &body, &[]).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        let encrypted = answer.json["document"].as_str().unwrap();
        assert!(encrypted.contains(method), "{encrypted}");
        let descriptors = anybody.get("/v1/metadata/key-descriptors").unwrap().json;
        let question = json!({ "encrypted": encrypted, "private_key": PROVIDER_KEY, "key_descriptors": descriptors });
        assert_eq!(judge(&question), format!("{id} by {LOGIN}"));
    }
}
