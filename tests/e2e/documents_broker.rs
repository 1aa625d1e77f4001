//! Assertions, JWS and published keys over the broker's HTTP, as a caller and everybody else see them.

use segl_tests::{
    documents::{
        self, COMPANYS_AUDIENCE, CVR, ECDSA_SHA256, LOGIN, PERSONS_AUDIENCE, PROVIDER_KEY, TOKENS, company, person,
    },
    http::{Answer, Http},
    process::{Service, Signal},
    site::{Site, Token},
};
use serde_json::{Value, json};

use crate::room::{Room, SOON, until};

const AES_GCM: &str = "http://www.w3.org/2009/xmlenc11#aes256-gcm";
const RSA_OAEP_MGF1P: &str = "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p";

fn room() -> Room {
    Room::open(Token::Embedded, |site| documents::add(site).unwrap())
}

fn caller(site: &Site) -> Http {
    site.caller(&site.tenants[0]).unwrap()
}

fn citizen() -> Value {
    json!({ "type": "citizen" })
}

fn body(document: &str, capacity: &Value) -> Value {
    json!({ "key": LOGIN, "signature_method": ECDSA_SHA256, "document": document, "capacity": capacity })
}

#[test]
fn a_caller_of_the_broker_gets_signed_assertions_and_jws_or_all_that_is_wrong() {
    let room = room();
    let _broker = room.site.start_broker().unwrap();
    let caller = caller(&room.site);
    let (citizen, cvr) = (citizen(), json!({ "type": "company", "cvr": CVR }));
    let spki = segl_tests::signing::public_key(&caller, LOGIN).unwrap();
    for (document, capacity) in [(person("_h1"), &citizen), (company("_h2"), &cvr)] {
        let answer = caller.post("/v1/assertions", &body(&document, capacity), &[]).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        documents::xmlsec1(answer.json["document"].as_str().unwrap().as_bytes(), &spki).unwrap();
    }
    // The signature alone, and where it goes, counted in bytes.
    let document = company("_h4");
    let mut alone = body(&document, &cvr);
    alone["form"] = "signature".into();
    let answer = caller.post("/v1/assertions", &alone, &[]).unwrap();
    let at = usize::try_from(answer.json["offset"].as_u64().unwrap_or_else(|| panic!("{}", answer.text))).unwrap();
    let signature = answer.json["signature"].as_str().unwrap();
    documents::xmlsec1([&document[..at], signature, &document[at..]].concat().as_bytes(), &spki).unwrap();
    let answer = caller.post("/v1/assertions", &body(&company("_h3"), &citizen), &[]).unwrap();
    assert_eq!((answer.status, &answer.json["code"]), (422, &"policy-violation".into()), "{}", answer.text);
    assert!(!answer.json["violations"].as_array().unwrap().is_empty(), "{}", answer.text);

    let payload: Value = serde_json::from_str(&documents::claims("token-1")).unwrap();
    let body = json!({ "key": TOKENS, "algorithm": "ES256", "payload": payload, "header": { "typ": "JWT" } });
    let answer = caller.post("/v1/jws", &body, &[]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    let spki = segl_tests::signing::public_key(&caller, TOKENS).unwrap();
    documents::es256(answer.json["jws"].as_str().unwrap(), &spki).unwrap();
}

#[test]
fn several_assertions_in_one_request_have_an_answer_each() {
    let room = room();
    let _broker = room.site.start_broker().unwrap();
    let caller = caller(&room.site);
    let cvr = json!({ "type": "company", "cvr": CVR });
    let evil = person("_s1").replace(documents::ISSUER, "https://evil.example");
    let items = json!([{ "document": person("_s0") }, { "document": evil, "reference": "second" },
                       { "document": company("_s2"), "capacity": cvr }]);
    let body = json!({ "key": LOGIN, "signature_method": ECDSA_SHA256, "items": items, "capacity": citizen() });
    let once = [("idempotency-key", "k-1")];
    let answer = caller.post("/v1/assertions", &body, &once).unwrap();
    assert_eq!((answer.status, &answer.json["signed"]), (200, &2.into()), "{}", answer.text);
    let spki = segl_tests::signing::public_key(&caller, LOGIN).unwrap();
    for (at, id) in [(0, "_s0"), (2, "_s2")] {
        let document = answer.json["items"][at]["document"].as_str().unwrap();
        documents::xmlsec1(document.as_bytes(), &spki).unwrap();
        assert!(document.contains(&format!("#{id}")), "{document}");
    }
    let problem = &answer.json["items"][1]["problem"];
    assert_eq!((&problem["code"], &problem["reference"]), (&"policy-violation".into(), &"second".into()));
    assert_eq!(problem["violations"][0]["rule"], "issuer");
    assert_eq!(caller.post("/v1/assertions", &body, &once).unwrap().text, answer.text, "kept");
}

#[test]
fn the_header_of_a_jws_names_a_published_key_even_while_segld_is_away() {
    let mut room = room();
    let _broker = room.site.start_broker().unwrap();
    let caller = caller(&room.site);
    let anybody =
        Http::new(&format!("https://localhost:{}", room.site.broker.port()), &room.site.servers.pem(), None).unwrap();
    let answer = anybody.get("/.well-known/jwks.json").unwrap();
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/jwk-set+json"), "{}", answer.text);
    let keys = answer.json["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1, "{}", answer.text);
    let descriptors = anybody.get("/v1/metadata/key-descriptors").unwrap();
    assert_eq!(descriptors.json["keys"].as_array().unwrap().len(), 2, "{}", descriptors.text);

    let payload: Value = serde_json::from_str(&documents::claims("token-1")).unwrap();
    let jws = json!({ "key": TOKENS, "algorithm": "ES256", "payload": payload, "header": { "typ": "JWT" } });
    let signed = caller.post("/v1/jws", &jws, &[]).unwrap();
    let compact = signed.json["jws"].as_str().unwrap_or_else(|| panic!("{}", signed.text));
    let header = segl_tests::documents::jws_header(compact).unwrap();
    assert_eq!((&header["kid"], &header["alg"]), (&keys[0]["kid"], &keys[0]["alg"]));

    room.segld.terminate(SOON).unwrap();
    until("the broker notices", || caller.get("/v1/keys").unwrap().status == 503);
    let away = anybody.get("/.well-known/jwks.json").unwrap();
    assert_eq!((away.status, away.json), (200, answer.json));
}

#[test]
fn an_assertion_is_encrypted_for_providers_that_a_reload_brings() {
    let mut room = room();
    let mut broker = room.site.start_broker().unwrap();
    let encrypted = |caller: &Http, document: &str, capacity: &Value| -> Answer {
        let mut body = body(document, capacity);
        body["encrypt"] = true.into();
        caller.post("/v1/assertions", &body, &[]).unwrap()
    };
    let answer = encrypted(&caller(&room.site), &person("_e0"), &citizen());
    assert_eq!((answer.status, &answer.json["code"]), (422, &"no-provider".into()), "{}", answer.text);

    documents::add_provider(&mut room.site, PERSONS_AUDIENCE, &[AES_GCM, RSA_OAEP_MGF1P]).unwrap();
    documents::add_provider(&mut room.site, COMPANYS_AUDIENCE, &[AES_GCM, RSA_OAEP_MGF1P]).unwrap();
    reload(&mut broker);
    // The reload may have closed the connection before.
    let caller = caller(&room.site);
    let spki = segl_tests::signing::public_key(&caller, LOGIN).unwrap();
    let cvr = json!({ "type": "company", "cvr": CVR });
    // The Response around the first stays; the second is nothing but an assertion.
    for (document, capacity, root) in
        [(person("_e1"), citizen(), "<samlp:Response"), (company("_e2"), cvr, "<saml:EncryptedAssertion")]
    {
        let answer = encrypted(&caller, &document, &capacity);
        assert_eq!(answer.status, 200, "{}", answer.text);
        let document = answer.json["document"].as_str().unwrap();
        assert!(document.contains(root), "{document}");
        assert!(!document.contains("AttributeValue") && document.contains(AES_GCM), "{document}");
        let decrypted = documents::xmlsec1_decrypt(document.as_bytes(), PROVIDER_KEY).unwrap();
        documents::xmlsec1(&decrypted, &spki).unwrap();
    }
    let records = crate::room::journal(&room.site);
    assert!(records.iter().all(|record| record["document"] != "_e0"), "what nobody could read was not signed");
}

fn reload(broker: &mut Service) {
    broker.signal(Signal::HUP).unwrap();
    broker.notified("RELOADING=1", SOON).unwrap();
    broker.ready(SOON).unwrap();
}
