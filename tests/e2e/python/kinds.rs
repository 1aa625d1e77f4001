//! Every method of XML signatures with every digest, and every algorithm of JWS, on tokens and in every way to show the
//! key, before judges from outside.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::digest;
use segl_tests::{
    documents::{ASSERTION_RULES, DocumentKey, JWS_RULES, add_key, certify, claims, jws_header, person},
    http::Http,
    pki::{Authority, pem},
    programs,
    site::{FIRST, Token},
};
use segl_wire::{AssertionHow, Code, Form, KeyInfo, SignJws};
use serde_json::{Value, json};

use crate::{
    documents::{citizen, how, jws, sign_assertion},
    room::{Room, connect, spki},
};

const RSA_ALGORITHMS: [&str; 6] =
    ["rsa-pkcs1-sha256", "rsa-pkcs1-sha384", "rsa-pkcs1-sha512", "rsa-pss-sha256", "rsa-pss-sha384", "rsa-pss-sha512"];

/// Type for the embedded token and for `pkcs11-tool`, algorithms, methods in XML after `#`, and algorithms of JWS.
type Kind = (&'static str, &'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

const KINDS: [Kind; 5] = [
    (
        "rsa-3072",
        "rsa:3072",
        &RSA_ALGORITHMS,
        &["rsa-sha256", "rsa-sha384", "rsa-sha512", "sha256-rsa-MGF1", "sha384-rsa-MGF1", "sha512-rsa-MGF1"],
        &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
    ),
    ("ec-p256", "EC:prime256v1", &["ecdsa-p256-sha256"], &["ecdsa-sha256"], &["ES256"]),
    ("ec-p384", "EC:secp384r1", &["ecdsa-p384-sha384"], &["ecdsa-sha384"], &["ES384"]),
    ("ec-p521", "EC:secp521r1", &["ecdsa-p521-sha512"], &["ecdsa-sha512"], &["ES512"]),
    ("ed25519", "EC:edwards25519", &["ed25519"], &[], &["EdDSA"]),
];

const DIGESTS: [&str; 3] = [
    "http://www.w3.org/2001/04/xmlenc#sha256",
    "http://www.w3.org/2001/04/xmldsig-more#sha384",
    "http://www.w3.org/2001/04/xmlenc#sha512",
];

/// The URI of a method (RFC 9231).
fn uri(method: &str) -> String {
    let year = if method.ends_with("MGF1") { "2007/05" } else { "2001/04" };
    format!("http://www.w3.org/{year}/xmldsig-more#{method}")
}

/// What a judge says that is content.
fn ask(script: &str, question: &str) -> String {
    let python = std::env::var_os("SEGL_PYTHON").expect("SEGL_PYTHON names the Python to use");
    let mut judge = Command::new(python);
    judge.arg("-I").arg(programs::workspace().join("assertion/tests/judges").join(script));
    let mut child = judge.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that has seen enough closes its end; what it says then counts.
    let _ = child.stdin.take().unwrap().write_all(question.as_bytes());
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {}\n{out}{err}", output.status);
    out.trim().to_owned()
}

/// The installation with a key of each kind for each purpose.
fn room(token: Token) -> Room {
    Room::open(token, |site| {
        for (embedded, pkcs11, algorithms, methods, _) in KINDS {
            let name = format!("jws-{embedded}");
            let jws = DocumentKey { name: &name, purpose: "jws", embedded, pkcs11, algorithms, rules: JWS_RULES };
            add_key(site, &jws).unwrap();
            site.broker_toml += &format!("\n[[publish.jwks]]\ntenant = \"{FIRST}\"\nkey = \"{name}\"\n");
            if !methods.is_empty() {
                let name = format!("xml-{embedded}");
                let assertion = DocumentKey { name: &name, purpose: "assertion", rules: ASSERTION_RULES, ..jws };
                add_key(site, &assertion).unwrap();
            }
        }
        let operations = "operations = [\"sign-assertion\", \"sign-jws\", ";
        site.broker_toml = site.broker_toml.replacen("operations = [", operations, 1);
    })
}

fn every_kind_is_accepted(token: Token) {
    let mut room = room(token);
    let mut conversation = connect(&room.site, 0);
    let leaf = AssertionHow { key_info: KeyInfo::Leaf, ..how(("xml-ec-p256", KINDS[1].3[0]), Form::Document) };
    let leaf = AssertionHow { signature_method: uri(KINDS[1].3[0]).into(), ..leaf };
    let refused = sign_assertion(&mut conversation, leaf, citizen(), &person("_none")).unwrap_err();
    assert_eq!(refused.code, Code::BadInput, "without a certificate there is none to show: {refused}");

    let authority = Authority::new("signers").unwrap();
    let above = authority.pem().replace("\r\n", "\n");
    let jws = KINDS.map(|(embedded, ..)| format!("jws-{embedded}"));
    let xml = KINDS.into_iter().filter(|(.., methods, _)| !methods.is_empty());
    let names: Vec<String> = jws.into_iter().chain(xml.map(|(embedded, ..)| format!("xml-{embedded}"))).collect();
    let keys: Vec<_> = names.iter().map(|name| (name.as_str(), spki(&mut conversation, name))).collect();
    let made = certify(&mut room.site, &authority, &keys).unwrap();
    let certificates: BTreeMap<String, Vec<u8>> = names.into_iter().zip(made).collect();
    room.reload_taken();

    let mut cases = String::new();
    let mut signed = 0;
    for (embedded, _, _, methods, _) in KINDS {
        let name = format!("xml-{embedded}");
        for (method, digest) in methods.iter().flat_map(|method| DIGESTS.map(|digest| (uri(method), digest))) {
            for key_info in KeyInfo::OF_ASSERTIONS {
                let id = format!("_k{signed}");
                let how = AssertionHow {
                    key: name.clone().into(),
                    signature_method: method.clone().into(),
                    digest_method: digest.into(),
                    key_info,
                    form: Form::Document,
                    timings: false,
                };
                let answer = sign_assertion(&mut conversation, how, citizen(), &person(&id));
                let answer = answer.unwrap_or_else(|error| panic!("{method} {digest}: {error}"));
                let certificate = pem(&certificates[&name]);
                let (shown, issuers) = match key_info {
                    KeyInfo::Leaf => (vec![&certificate], vec![&above]),
                    KeyInfo::Chain => (vec![&certificate, &above], vec![]),
                    _ => (vec![], vec![]),
                };
                let case = json!({
                    "xml": String::from_utf8(answer.xml.into_owned()).unwrap(), "id": id, "certificate": certificate,
                    "shown": shown, "issuers": issuers, "method": method, "digest": digest,
                });
                cases += &format!("{case}\n");
                signed += 1;
            }
        }
    }
    assert_eq!(signed, 9 * 3 * 3);
    assert_eq!(ask("signatures.py", &cases), signed.to_string());
    every_jws_is_accepted(&room, &certificates);
}

fn every_jws_is_accepted(room: &Room, certificates: &BTreeMap<String, Vec<u8>>) {
    let mut conversation = connect(&room.site, 0);
    let payload = claims("kinds");
    let mut tokens = Vec::new();
    for (embedded, .., algorithms) in KINDS {
        let name = format!("jws-{embedded}");
        let certificate = &certificates[&name];
        let thumbprint = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, certificate));
        for algorithm in algorithms {
            let mut signs = |key_info, header: Value| {
                let request = SignJws {
                    meta: citizen(),
                    key: name.clone().into(),
                    algorithm: (*algorithm).into(),
                    timings: false,
                    key_info,
                    header: Some(header.to_string().into_bytes().into()),
                    payload: payload.as_bytes().into(),
                };
                jws(&mut conversation, &request).unwrap_or_else(|error| panic!("{algorithm}: {error}"))
            };
            for key_info in KeyInfo::ALL {
                let header = jws_header(&signs(*key_info, json!({ "typ": "JWT" }))).unwrap();
                let chain = header["x5c"].as_array().map_or(0, Vec::len);
                let wanted = match key_info {
                    KeyInfo::None => (0, &Value::Null),
                    KeyInfo::Leaf => (1, &Value::Null),
                    KeyInfo::Chain => (2, &Value::Null),
                    KeyInfo::Thumbprint => (0, &Value::from(thumbprint.as_str())),
                };
                assert_eq!((chain, &header["x5t#S256"]), wanted, "{key_info:?}");
                assert_eq!((&header["alg"], &header["kid"]), (&json!(algorithm), &json!(name)));
            }
            // What the caller says of the key and is true is let in.
            let compact = signs(KeyInfo::Chain, json!({ "typ": "JWT", "x5t#S256": thumbprint }));
            tokens.push(json!({ "alg": algorithm, "compact": compact, "payload": STANDARD.encode(&payload) }));
        }
    }
    let _broker = room.site.start_broker().unwrap();
    let anybody =
        Http::new(&format!("https://localhost:{}", room.site.broker.port()), &room.site.servers.pem(), None).unwrap();
    let published = anybody.get("/.well-known/jwks.json").unwrap();
    let question = json!({ "jwks": published.json, "tokens": tokens });
    assert_eq!(ask("jws.py", &question.to_string()), "10 verified, 10 changed ones refused", "{}", published.text);
}

#[test]
#[ignore = "needs judges in Python: cargo xtask test --stage python"]
fn every_kind_of_signature_of_the_embedded_token_is_accepted_by_judges() {
    every_kind_is_accepted(Token::Embedded);
}

#[test]
#[ignore = "needs judges in Python: cargo xtask test --stage python"]
fn every_kind_of_signature_of_softhsm_is_accepted_by_judges() {
    every_kind_is_accepted(Token::SoftHsm);
}
