//! The main job: a caller posts a request to the broker, which forwards it over mutual TLS to segld, which records and
//! signs it; openssl accepts the signature.

use std::{path::PathBuf, process::Command, time::Duration};

use segl_tests::{
    openssl,
    process::Service,
    programs, signing,
    site::{ED25519, P256, P384, RSA, Site, Token},
};

const DOCUMENT: &[u8] = b"I, the undersigned, act for CVR 12345678.";

const EVERYTHING: [(&str, &str); 9] = [
    (RSA, "rsa-pkcs1-sha256"),
    (RSA, "rsa-pkcs1-sha384"),
    (RSA, "rsa-pkcs1-sha512"),
    (RSA, "rsa-pss-sha256"),
    (RSA, "rsa-pss-sha384"),
    (RSA, "rsa-pss-sha512"),
    (P256, "ecdsa-p256-sha256"),
    (P384, "ecdsa-p384-sha384"),
    (ED25519, "ed25519"),
];

/// An installation with both daemons running.
struct Running {
    site: Site,
    segld: Service,
    broker: Service,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(token: Token) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::create(&dir.path().join("site"), token, &[]).unwrap();
        let segld = site.start_segld().unwrap();
        let broker = site.start_broker().unwrap();
        Running { site, segld, broker, _dir: dir }
    }

    /// What `segl audit show --json` says, a value a line.
    fn journal(&self) -> Vec<serde_json::Value> {
        let output = Command::new(programs::segl()).args(["audit", "show", "--json"]).arg(self.site.journal()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn openssl_accepts_everything(token: Token) {
    let mut running = Running::start(token);
    let caller = running.site.caller(&running.site.tenants[0]).unwrap();
    for (key, algorithm) in EVERYTHING {
        let spki = signing::public_key(&caller, key).unwrap();
        let signed = signing::sign(&caller, key, algorithm, DOCUMENT, algorithm).unwrap();
        openssl::verify(algorithm, &spki, DOCUMENT, &signed.signature).unwrap();
    }
    let documents: Vec<Vec<u8>> = (0..100).map(|at| format!("document {at}").into_bytes()).collect();
    let signed = signing::sign_batch(&caller, P256, "ecdsa-p256-sha256", &documents, "batch").unwrap();
    let spki = signing::public_key(&caller, P256).unwrap();
    for (document, signed) in documents.iter().zip(&signed) {
        openssl::verify("ecdsa-p256-sha256", &spki, document, &signed.signature).unwrap();
    }

    let journal = running.journal();
    let recorded = |reference: &str| journal.iter().any(|entry| entry["reference"] == reference);
    for (_, algorithm) in EVERYTHING {
        assert!(recorded(algorithm), "{algorithm} is not in the journal");
    }
    for signed in &signed {
        assert!(recorded(&signed.reference), "{} is not in the journal", signed.reference);
    }
    for service in [&mut running.broker, &mut running.segld] {
        assert!(service.terminate(Duration::from_secs(30)).unwrap().success(), "{service:?}");
    }
}

#[test]
fn openssl_accepts_what_the_embedded_token_signed_and_the_journal_has_it() {
    openssl_accepts_everything(Token::Embedded);
}

#[test]
fn openssl_accepts_what_softhsm_signed_and_the_journal_has_it() {
    openssl_accepts_everything(Token::SoftHsm);
}

#[test]
fn a_caller_sees_and_uses_the_keys_of_its_tenant_alone() {
    let running = Running::start(Token::Embedded);
    let stranger = running.site.caller(&running.site.tenants[1]).unwrap();
    let keys = stranger.get("/v1/keys").unwrap();
    let names: Vec<_> = keys.json["keys"].as_array().unwrap().iter().map(|key| key["name"].clone()).collect();
    assert_eq!(names, [P256]);
    signing::sign(&stranger, P256, "ecdsa-p256-sha256", DOCUMENT, "its-own").unwrap();

    let refuse = |key: &str| {
        let body = signing::request(key, "rsa-pss-sha256", DOCUMENT, "not-its-own").unwrap();
        let answer = stranger.post("/v1/sign", &body, &[]).unwrap();
        assert_eq!(answer.content_type, "application/problem+json", "{}", answer.text);
        (answer.status, answer.json["title"].clone(), answer.json["signed"].clone())
    };
    assert_eq!(refuse(RSA), refuse("no-such-key"), "a key that is not granted and one that is not there look the same");
    assert_eq!(refuse(RSA).0 / 100, 4);
    assert!(
        !running
            .journal()
            .iter()
            .any(|entry| entry["reference"] == "not-its-own" && entry["key"] == RSA && entry["kind"] == "intent")
    );
}

#[test]
fn a_caller_without_a_known_token_is_told_nothing() {
    let running = Running::start(Token::Embedded);
    let base = format!("https://localhost:{}", running.site.broker.port());
    let nobody = segl_tests::http::Http::new(&base, &running.site.servers.pem(), None).unwrap();
    assert_eq!(nobody.get("/v1/keys").unwrap().status, 401);
    assert_eq!(nobody.with_bearer("guessed").get("/v1/keys").unwrap().status, 401);
}

#[test]
fn check_accepts_sound_configurations_and_tells_every_mistake_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::create(&dir.path().join("site"), Token::Embedded, &[]).unwrap();
    let check = |program: PathBuf, config: PathBuf| {
        let output = Command::new(program).args(["check", "--config"]).arg(config).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let check_both =
        |site: &Site| [check(programs::segld(), site.segld_config()), check(programs::broker(), site.broker_config())];
    for (sound, said) in check_both(&site) {
        assert!(sound, "{said}");
    }

    site.segld_toml =
        site.segld_toml.replace("kind = \"embedded\"", "kind = \"imbedded\"").replace("[admin]", "[admim]");
    site.broker_toml = site.broker_toml.replace("room-1", "room 1").replace("[admin]", "[admim]");
    site.write().unwrap();
    let texts = [&site.segld_toml, &site.broker_toml];
    for (((sound, said), text), mistakes) in
        check_both(&site).iter().zip(texts).zip([["imbedded", "admim"], ["room 1", "admim"]])
    {
        assert!(!sound);
        for mistake in mistakes {
            let line = text.lines().position(|line| line.contains(mistake)).unwrap() + 1;
            assert!(said.contains(mistake) && said.contains(&format!(":{line}:")), "line {line}, {mistake}: {said}");
        }
    }
}
