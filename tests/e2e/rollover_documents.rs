//! The key of assertions is rolled over: its next version is published with its certificate, signs from its instant on,
//! and no longer than its certificate says; reloads bring it and retire the one before.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair};
use segl_tests::{
    documents::{self, ECDSA_SHA256, LOGIN, person},
    http::Http,
    site::{Site, Token},
};
use segl_wire::{AssertionHow, Code, Form, KeyInfo, Kind, Limits, ListKeys, Message, VersionPhase};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    documents::{KEYS, citizen, how, sign_assertion},
    room::{Room, connect, until},
};

/// Of its three versions, as files of the token.
const FILES: [&str; 3] = ["login-p256", "login-next", "login-last"];

/// From a reload that publishes a version to its instant: longer than a reload takes on a loaded machine.
const NOTICE: Duration = Duration::from_secs(6);
/// From that instant to the end of its certificate.
const LIFE: Duration = Duration::from_secs(4);

/// A certificate of a key of the token, valid until then; its DER in base64, as XML has it.
fn certify(site: &Site, file: &str, until: OffsetDateTime) -> String {
    let key = KeyPair::from_pem(&std::fs::read_to_string(site.dir.join(format!("keys/{file}.pem"))).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::now_utc() - time::Duration::days(1);
    params.not_after = until;
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(site.dir.join(format!("{file}.crt")), certificate.pem()).unwrap();
    STANDARD.encode(certificate.der())
}

/// `[[key.version]]` of a file of the token, with its certificate.
fn version(name: &str, file: &str, active_from: OffsetDateTime, more: &str) -> String {
    let from = active_from.format(&Rfc3339).unwrap();
    format!(
        "[[key.version]]\nname = \"{name}\"\nfile = \"{file}.pem\"\ncertificate = \"{file}.crt\"\n\
         active_from = {from}\n{more}"
    )
}

/// The key's versions in the place of the key alone.
fn versions(plain: &str, versions: &[String]) -> String {
    let alone = format!("file = \"{LOGIN}.pem\"\nalgorithms = [\"ecdsa-p256-sha256\"]\naccept_legacy = true\n");
    assert!(plain.contains(&alone));
    plain.replace(&alone, &format!("algorithms = [\"ecdsa-p256-sha256\"]\n{}", versions.concat()))
}

fn wait_until(instant: OffsetDateTime) {
    until("the clock is there", || SystemTime::now() >= SystemTime::from(instant));
}

/// Each version's name, phase and public key.
fn listed(conversation: &mut segl_tests::conversation::Conversation) -> Vec<(String, VersionPhase, Vec<u8>)> {
    conversation.send(Kind::ListKeys, &ListKeys { meta: citizen() }).unwrap();
    let frame = conversation.answer().unwrap();
    let keys = segl_wire::Keys::decode(&frame.body, &Limits::from(conversation.hello())).unwrap();
    let login = keys.keys.iter().find(|key| key.name == LOGIN).unwrap();
    let told = |of: &segl_wire::KeyVersion<'_>| (of.name.to_string(), of.phase, of.spki_der.to_vec());
    login.versions.iter().map(told).collect()
}

/// Which certificates the broker shows to everybody for the key.
fn published(anybody: &Http) -> Vec<String> {
    let descriptors = anybody.get("/v1/metadata/key-descriptors").unwrap();
    let keys = descriptors.json["keys"].as_array().unwrap().clone();
    let of_login = keys.iter().filter(|described| described["key"] == LOGIN);
    let certificate = |described: &serde_json::Value| {
        let xml = described["key_descriptor"].as_str().unwrap().to_owned();
        let (_, rest) = xml.split_once("<ds:X509Certificate>")?;
        rest.split_once('<').map(|(certificate, _)| certificate.to_owned())
    };
    of_login.filter_map(certificate).collect()
}

#[test]
fn each_version_of_a_login_key_signs_in_its_time_under_its_own_published_certificate() {
    let mut room = Room::open(Token::Embedded, |site| {
        documents::add(site).unwrap();
        let made: String =
            FILES[1..].iter().map(|file| format!("    {{ file = \"{file}.pem\", type = \"ec-p256\" }},\n")).collect();
        site.segld_toml = site.segld_toml.replacen("generate = [\n", &format!("generate = [\n{made}"), 1);
    });
    let plain = room.site.segld_toml.clone();
    let _broker = room.site.start_broker().unwrap();
    let caller = room.site.caller(&room.site.tenants[0]).unwrap();
    let base = format!("https://localhost:{}", room.site.broker.port());
    let anybody = Http::new(&base, &room.site.servers.pem(), None).unwrap();
    let mut conversation = connect(&room.site, 0);
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    let (past, instant) = (now - time::Duration::days(300), now + NOTICE);
    let year = time::Duration::days(365);
    let ends = [now + year, instant + LIFE, now + year];
    let certificates = [0, 1, 2].map(|at| certify(&room.site, FILES[at], ends[at]));

    let leaf = |key| AssertionHow { key_info: KeyInfo::Leaf, ..how(key, Form::Document) };
    let mut signs = |at: usize, id: &str, names: [&str; 3], spkis: &[Vec<u8>]| {
        let signed = sign_assertion(&mut conversation, leaf(KEYS[0]), citizen(), &person(id)).unwrap();
        assert_eq!(signed.version.as_deref(), Some(names[at]));
        let xml = String::from_utf8(signed.xml.into_owned()).unwrap();
        assert!(xml.contains(&format!("<ds:X509Certificate>{}<", certificates[at])), "its own certificate: {xml}");
        documents::xmlsec1(xml.as_bytes(), &spkis[at]).unwrap();
        // Over HTTP it is the same.
        let body = serde_json::json!({ "key": LOGIN, "signature_method": ECDSA_SHA256, "document": person(id),
                                       "key_info": "leaf", "capacity": { "type": "citizen" } });
        let answer = caller.post("/v1/assertions", &body, &[]).unwrap();
        assert_eq!((answer.status, &answer.json["version"]), (200, &names[at].into()), "{}", answer.text);
        documents::xmlsec1(answer.json["document"].as_str().unwrap().as_bytes(), &spkis[at]).unwrap();
    };
    let names = ["2026", "2027", "2028"];
    let of = |at: usize, from, more: &str| version(names[at], FILES[at], from, more);

    // The next one is told to everybody before it signs anything.
    room.site.segld_toml = versions(&plain, &[of(0, past, ""), of(1, instant, "")]);
    room.reload_taken();
    let mut watcher = connect(&room.site, 0);
    let told = listed(&mut watcher);
    let phases: Vec<_> = told.iter().map(|(name, phase, _)| (&**name, *phase)).collect();
    assert_eq!(phases, [("2026", VersionPhase::Active), ("2027", VersionPhase::Next)]);
    let mut spkis: Vec<_> = told.into_iter().map(|(.., spki)| spki).collect();
    until("both are published", || published(&anybody) == certificates[..2]);
    signs(0, "_v1", names, &spkis);
    assert!(OffsetDateTime::now_utc() < instant, "the machine is too slow for this test's notice");

    wait_until(instant);
    signs(1, "_v2", names, &spkis);
    assert_eq!(listed(&mut watcher)[0].1, VersionPhase::Former);

    // Its certificate ends, and with it its signatures; the version before does not come back.
    wait_until(ends[1] + Duration::from_secs(1));
    let mut other = connect(&room.site, 0);
    let refused = sign_assertion(&mut other, leaf(KEYS[0]), citizen(), &person("_v3")).unwrap_err();
    assert_eq!(refused.code, Code::KeyRefused, "{refused}");

    // A reload brings the next one and retires the first.
    let from = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    room.site.segld_toml = versions(&plain, &[of(0, past, "retired = true\n"), of(1, instant, ""), of(2, from, "")]);
    room.reload_taken();
    let told = listed(&mut watcher);
    let phases: Vec<_> = told.iter().map(|(name, phase, _)| (&**name, *phase)).collect();
    assert_eq!(phases, [("2027", VersionPhase::Former), ("2028", VersionPhase::Active)]);
    spkis.push(told[1].2.clone());
    signs(2, "_v4", names, &spkis);
    until("the first is published no more", || published(&anybody) == certificates[1..]);
}
