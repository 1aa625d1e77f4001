//! Assertions and JWS over every token there is, through mutual TLS to segld itself, with judges from outside.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use segl_tests::{
    conversation::{Conversation, sign_request},
    documents::{self, CVR, ECDSA_SHA256, LOGIN, LOGIN_RSA, RSA_SHA256, SHA256, TOKENS, company, person},
    site::Token,
};
use segl_wire::{
    AssertionHow, AssertionItem, Capacity, Code, Context, Cvr, Error, Form, KeyInfo, Kind, Limits, Message, Meta,
    SignAssertion, SignAssertionBatch, SignJws, SignedAssertion, SignedAssertionBatch, SignedJws,
};

use crate::room::{DIGEST, Room, connect, journal, spki};

pub(crate) const KEYS: [(&str, &str); 2] = [(LOGIN, ECDSA_SHA256), (LOGIN_RSA, RSA_SHA256)];

fn room(token: Token) -> Room {
    Room::open(token, |site| documents::add(site).unwrap())
}

fn meta(capacity: Capacity) -> Meta<'static> {
    let context = Context { capacity: Some(capacity), reference: Some("login-1".into()), on_behalf_of: None };
    Meta { context, ..sign_request("", "", &[]).meta }
}

pub(crate) fn citizen() -> Meta<'static> {
    meta(Capacity::Citizen)
}

fn for_company() -> Capacity {
    Capacity::Company(Cvr::new(CVR).unwrap())
}

pub(crate) fn how((key, method): (&'static str, &'static str), form: Form) -> AssertionHow<'static> {
    AssertionHow {
        key: key.into(),
        signature_method: method.into(),
        digest_method: SHA256.into(),
        key_info: KeyInfo::None,
        form,
        timings: true,
    }
}

fn asks<'m, T, M: Message<'m>>(
    conversation: &mut Conversation,
    kind: Kind,
    request: &M,
    read: impl FnOnce(&[u8], &Limits) -> T,
) -> Result<T, Error<'static>> {
    conversation.send(kind, request).unwrap();
    let frame = conversation.answer().unwrap();
    match frame.header.known_kind() {
        Some(Kind::Error) => Err(conversation.error(&frame).unwrap()),
        _ => Ok(read(&frame.body, &Limits::from(conversation.hello()))),
    }
}

pub(crate) fn sign_assertion(
    conversation: &mut Conversation,
    how: AssertionHow<'static>,
    meta: Meta<'static>,
    document: &str,
) -> Result<SignedAssertion<'static>, Error<'static>> {
    let request = SignAssertion { meta, how, document: document.as_bytes().into() };
    asks(conversation, Kind::SignAssertion, &request, |body, limits| {
        SignedAssertion::decode(body, limits).unwrap().into_owned()
    })
}

fn signs_assertions(token: Token) {
    let room = room(token);
    let mut conversation = connect(&room.site, 0);
    for key in KEYS {
        let spki = spki(&mut conversation, key.0);
        for (document, capacity) in [(person("_p1"), Capacity::Citizen), (company("_c1"), for_company())] {
            let whole = sign_assertion(&mut conversation, how(key, Form::Document), meta(capacity), &document).unwrap();
            assert!(whole.timings.is_some() && whole.offset.is_none() && whole.version.is_none());
            documents::xmlsec1(&whole.xml, &spki).unwrap();
            let part = sign_assertion(&mut conversation, how(key, Form::Signature), meta(capacity), &document).unwrap();
            let at = part.offset.unwrap() as usize;
            let put = [&document.as_bytes()[..at], &part.xml, &document.as_bytes()[at..]].concat();
            documents::xmlsec1(&put, &spki).unwrap();
            // The rest is the input byte for byte.
            let text = String::from_utf8(whole.xml.into_owned()).unwrap();
            let (before, after) = text.split_once("<ds:Signature").unwrap();
            let after = after.split_once("</ds:Signature>").unwrap().1;
            assert_eq!([before, after].concat(), document);
            documents::xmlsec1(text.replace("OIO-SAML-3.0", "OIO-SAML-3.1").as_bytes(), &spki).unwrap_err();
        }
    }
    let claims = documents::claims("token-1");
    let compact = sign_jws(&mut conversation, "ES256", &claims).unwrap();
    let parts: Vec<&str> = compact.split('.').collect();
    let [header, payload, _] = parts.as_slice() else { panic!("{compact}") };
    assert_eq!(URL_SAFE_NO_PAD.decode(payload).unwrap(), claims.as_bytes());
    let header: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!(header, serde_json::json!({ "alg": "ES256", "kid": TOKENS, "typ": "JWT" }));
    documents::es256(&compact, &spki(&mut conversation, TOKENS)).unwrap();

    let records = journal(&room.site);
    let recorded = |id: &str| records.iter().filter(|record| record["document"] == id).count();
    assert_eq!((recorded("_p1"), recorded("_c1"), recorded("token-1")), (4, 4, 1));
    let intent = records.iter().find(|record| record["document"] == "_c1").unwrap();
    assert_eq!((&intent["operation"], &intent["capacity"]), (&"sign-assertion".into(), &CVR.into()));
}

fn sign_jws(conversation: &mut Conversation, algorithm: &str, claims: &str) -> Result<String, Error<'static>> {
    let request = SignJws {
        meta: citizen(),
        key: TOKENS.into(),
        algorithm: algorithm.into(),
        timings: false,
        key_info: KeyInfo::None,
        header: Some(br#"{"typ":"JWT"}"#.as_slice().into()),
        payload: claims.as_bytes().into(),
    };
    jws(conversation, &request)
}

/// In compact serialisation.
pub(crate) fn jws(conversation: &mut Conversation, request: &SignJws<'_>) -> Result<String, Error<'static>> {
    asks(conversation, Kind::SignJws, request, |body, limits| {
        String::from_utf8(SignedJws::decode(body, limits).unwrap().compact.into_owned()).unwrap()
    })
}

#[test]
fn the_embedded_token_signs_assertions_and_jws_that_others_verify() {
    signs_assertions(Token::Embedded);
}

#[test]
fn softhsm_signs_assertions_and_jws_that_others_verify() {
    signs_assertions(Token::SoftHsm);
}

#[test]
fn kryoptic_signs_assertions_and_jws_that_others_verify() {
    if std::env::var_os("SEGL_KRYOPTIC").is_none() {
        eprintln!("SKIPPED: SEGL_KRYOPTIC is not set; `cargo xtask test` builds Kryoptic and sets it");
        return;
    }
    signs_assertions(Token::Kryoptic);
}

#[test]
fn a_document_against_the_policy_is_refused_with_all_that_is_wrong_and_nothing_is_signed() {
    let room = room(Token::Embedded);
    let mut conversation = connect(&room.site, 0);
    let stolen = person("_evil")
        .replace(documents::ISSUER, "https://evil.example")
        .replace("https://selvbetjening.korsbaek.example<", "https://elsewhere.example<");
    let refused = |conversation: &mut Conversation, document: &str, capacity| {
        sign_assertion(conversation, how(KEYS[0], Form::Document), meta(capacity), document).unwrap_err()
    };
    let rules = |error: &Error<'_>| error.violations.iter().map(|at| at.rule.to_string()).collect::<Vec<_>>();
    let error = refused(&mut conversation, &stolen, Capacity::Citizen);
    assert_eq!(error.code, Code::PolicyViolation, "{error}");
    assert!(rules(&error).contains(&"issuer".into()) && rules(&error).contains(&"audience".into()), "{error:?}");
    assert!(error.violations.iter().all(|at| at.place.is_some()), "{error:?}");
    // A company's assertion for another company, and for a citizen.
    for capacity in [Capacity::Company(Cvr::new("87654321").unwrap()), Capacity::Citizen] {
        let error = refused(&mut conversation, &company("_evil"), capacity);
        assert_eq!(error.code, Code::PolicyViolation, "{error}");
    }
    let entity = format!("<!DOCTYPE x [<!ENTITY e 'x'>]>{}", person("_evil"));
    let error = refused(&mut conversation, &entity, Capacity::Citizen);
    assert_eq!((error.code, rules(&error)), (Code::MalformedDocument, vec!["doctype".to_owned()]));
    let error =
        sign_jws(&mut conversation, "ES256", &documents::claims("token-1").replace("idp.example", "evil.example"))
            .unwrap_err();
    assert_eq!((error.code, rules(&error)), (Code::PolicyViolation, vec!["claim-iss".to_owned()]));

    // The key for assertions signs no digest that the client made, and no JWS.
    let error = conversation.sign(&sign_request(LOGIN, "ecdsa-p256-sha256", &DIGEST)).unwrap().unwrap_err();
    assert_eq!(error.code, Code::PurposeViolated);
    let how = AssertionHow { key: TOKENS.into(), ..how(KEYS[0], Form::Document) };
    let error = sign_assertion(&mut conversation, how, citizen(), &person("_evil")).unwrap_err();
    assert_eq!(error.code, Code::PurposeViolated);

    let records = journal(&room.site);
    assert!(records.iter().all(|record| record["document"] != "_evil"), "nothing was about to be signed");
    assert!(records.iter().any(|record| record["code"] == "policy_violation"), "the refusals are recorded");
}

#[test]
fn each_assertion_of_a_batch_has_its_own_answer() {
    let room = room(Token::Embedded);
    let mut conversation = connect(&room.site, 0);
    let spki = spki(&mut conversation, LOGIN);
    let (one, two) = (person("_b0"), company("_b2"));
    let evil = person("_b1").replace(documents::ISSUER, "https://evil.example");
    let item = |document: &str, capacity| AssertionItem {
        document: document.as_bytes().to_vec().into(),
        reference: None,
        capacity,
    };
    let items = vec![item(&one, None), item(&evil, None), item(&two, Some(for_company()))];
    let request = SignAssertionBatch { meta: citizen(), how: how(KEYS[0], Form::Document), items };
    let answer = asks(&mut conversation, Kind::SignAssertionBatch, &request, |body, limits| {
        SignedAssertionBatch::decode(body, limits).unwrap().into_owned().items
    });
    let answers = answer.unwrap();
    let [first, second, third] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!(second.as_ref().unwrap_err().code, Code::PolicyViolation);
    for (answer, id) in [(first, "_b0"), (third, "_b2")] {
        let signed = answer.as_ref().unwrap_or_else(|error| panic!("{id}: {error:?}"));
        documents::xmlsec1(&signed.xml, &spki).unwrap();
        assert!(String::from_utf8_lossy(&signed.xml).contains(id));
    }
}
