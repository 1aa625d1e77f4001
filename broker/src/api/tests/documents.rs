//! Assertions and JWS.

use segl_assertion::encrypt::{Defaults, Provider};

use super::*;

#[tokio::test]
async fn an_assertion_goes_to_segld_as_it_came_and_comes_back_as_text() {
    let setup = setup().await;
    let document = "<saml:Assertion>Korsbæk\u{a0}Kommune</saml:Assertion>";
    let body = json!({ "key": "a-key", "signature_method": "urn:x", "document": document, "key_info": "leaf",
                       "capacity": { "type": "company", "cvr": "12345678" }, "reference": "r-1" });
    let got = setup.post("/v1/assertions", body).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(got.body["document"], format!("signed:{document}"));
    assert_eq!((&got.body["key"], &got.body["reference"]), (&"a-key".into(), &"r-1".into()));
    let asked = [setup.one.asked(), setup.two.asked()].concat().remove(0);
    assert_eq!(asked.payloads, [wire::Payload::Message(document.as_bytes().to_vec().into())]);
    assert_eq!(asked.context.on_behalf_of.as_deref(), Some("idp"));
    assert!(matches!(asked.context.capacity, Some(wire::Capacity::Company(_))));
}

#[tokio::test]
async fn the_signature_alone_comes_back_with_its_place_unless_it_is_to_be_encrypted() {
    let setup = setup().await;
    let body = |more: serde_json::Value| {
        let mut body = json!({ "key": "a-key", "signature_method": "urn:x", "form": "signature" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let got = setup.post("/v1/assertions", body(json!({ "document": "<a/>" }))).await;
    assert_eq!((got.status, &got.body["signature"]), (200, &"signed:<a/>".into()), "{}", got.body);
    assert_eq!((&got.body["offset"], &got.body["document"]), (&0.into(), &serde_json::Value::Null));
    let encrypt = body(json!({ "document": "<a/>", "encrypt": true }));
    setup.post("/v1/assertions", encrypt).await.is_problem(Code::BadInput).points_at("#/form");
}

#[tokio::test]
async fn the_claims_of_a_jws_are_signed_byte_for_byte() {
    let setup = setup().await;
    let body = r#"{"key":"a-key","algorithm":"ES256","payload":{ "b" : 1.0,"a":"\u00e6" },"header":{"typ":"JWT"}}"#;
    let got = setup.send(post_as("n-token", "/v1/jws"), body).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(got.body["jws"], "signed:{ \"b\" : 1.0,\"a\":\"\\u00e6\" }");
}

#[tokio::test]
async fn what_is_against_the_policy_is_listed() {
    let setup = setup().await;
    let violation =
        crate::problem::Violation { rule: "issuer".into(), place: Some("/Assertion/Issuer".into()), text: "x".into() };
    let refused = failure(Code::PolicyViolation, Signed::No, Retry::Never);
    setup.both_will(&Failure { violations: vec![violation; 2], ..refused });
    let body = json!({ "key": "a-key", "signature_method": "urn:x", "document": "<x/>" });
    let got = setup.post("/v1/assertions", body).await;
    got.is_problem(Code::PolicyViolation);
    let told = json!({ "rule": "issuer", "place": "/Assertion/Issuer", "text": "x" });
    assert_eq!(got.body["violations"], json!([told, told]));
}

#[tokio::test]
async fn documents_are_operations_of_their_own() {
    let setup = setup().await;
    for path in ["/v1/assertions", "/v1/jws"] {
        setup.send(post_as("r-token", path), "{}").await.is_problem(Code::OperationNotGranted);
    }
    let body = json!({ "key": "secret", "algorithm": "ES256", "payload": {} });
    setup.post("/v1/jws", body).await.is_problem(Code::NotGranted);
}

#[tokio::test]
async fn several_assertions_have_an_answer_each() {
    let setup = setup().await;
    for segld in [&setup.one, &setup.two] {
        segld.will(Deed::FailItems(vec![1], failure(Code::PolicyViolation, Signed::No, Retry::Never)));
    }
    let body = json!({ "key": "a-key", "signature_method": "urn:x", "reference": "all", "items": [
        { "document": "<a/>", "reference": "first" }, { "document": "<b/>" },
        { "document": "<c/>", "capacity": { "type": "citizen" } },
    ]});
    let got = setup.post("/v1/assertions", body).await;
    assert_eq!((got.status, &got.body["signed"]), (200, &2.into()), "{}", got.body);
    assert_eq!((&got.body["algorithm"], &got.body["reference"]), (&"urn:x".into(), &"all".into()));
    let items = got.body["items"].as_array().unwrap();
    assert_eq!((&items[0]["document"], &items[2]["document"]), (&"signed:<a/>".into(), &"signed:<c/>".into()));
    assert_eq!(
        (&items[1]["problem"]["code"], &items[1]["problem"]["reference"]),
        (&"policy-violation".into(), &"all".into())
    );
    let asked = [setup.one.asked(), setup.two.asked()].concat().remove(0);
    assert_eq!(asked.references, [Some("first".to_owned()), None, None]);
}

#[tokio::test]
async fn a_document_or_several_and_never_too_many() {
    let setup = setup().await;
    let item = json!({ "document": "<a/>" });
    let wrong_capacity = json!({ "document": "<a/>", "capacity": { "type": "company", "cvr": "1" } });
    for (fields, code, pointer) in [
        (json!({}), Code::BadInput, "#/document"),
        (json!({ "document": "<a/>", "items": [item] }), Code::BadInput, "#/document"),
        (json!({ "items": [] }), Code::BadBatch, "#/items"),
        (json!({ "items": [item, item, item, item, item] }), Code::BadBatch, "#/items"),
        (json!({ "items": [item, { "document": "<a/>", "reference": "" }] }), Code::BadInput, "#/items/1/reference"),
        (json!({ "items": [item, wrong_capacity] }), Code::BadInput, "#/items/1/capacity/cvr"),
    ] {
        let mut body = fields;
        body["key"] = "a-key".into();
        body["signature_method"] = "urn:x".into();
        setup.post("/v1/assertions", body).await.is_problem(code).points_at(pointer);
    }
    assert_eq!(setup.asked_in_all(), 0);
}

/// With RSA-2048 in its metadata, which lists AES-256-CBC and the older RSA-OAEP.
fn provider(audience: &str) -> Provider {
    provider_until("", audience)
}

/// With more attributes of its metadata.
fn provider_until(until: &str, audience: &str) -> Provider {
    let key = rcgen::KeyPair::from_pem(include_str!("../../../../assertion/tests/keys/rsa-2048.pem")).unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let metadata = format!(
        "<EntityDescriptor xmlns=\"urn:oasis:names:tc:SAML:2.0:metadata\" entityID=\"{audience}\" {until}><SPSSODescriptor>\
         <KeyDescriptor><KeyInfo xmlns=\"http://www.w3.org/2000/09/xmldsig#\"><X509Data><X509Certificate>{}\
         </X509Certificate></X509Data></KeyInfo>\
         <EncryptionMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#aes256-cbc\"/>\
         <EncryptionMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p\"/></KeyDescriptor>\
         </SPSSODescriptor></EntityDescriptor>",
        STANDARD.encode(certificate.der())
    );
    Provider::from_metadata(metadata.as_bytes(), Defaults::default(), 0).unwrap()
}

/// As far as encryption looks at it.
fn assertion(audience: &str, signature: &str) -> String {
    format!(
        "<Assertion xmlns=\"urn:oasis:names:tc:SAML:2.0:assertion\" ID=\"_1\"><Issuer>secret</Issuer>{signature}\
         <Conditions><AudienceRestriction><Audience>{audience}</Audience></AudienceRestriction></Conditions></Assertion>"
    )
}

#[tokio::test]
async fn an_assertion_is_encrypted_for_the_provider_that_its_audience_names_as_its_metadata_says() {
    let setup = setup().await;
    setup.change(|snapshot| drop(snapshot.providers.insert(provider("https://sp.example"))));
    let signature = "<Signature xmlns=\"http://www.w3.org/2000/09/xmldsig#\"/>";
    for segld in [&setup.one, &setup.two] {
        segld.will(Deed::Make(assertion("https://sp.example", signature).into_bytes()));
    }
    let body =
        |document: &str| json!({ "key": "a-key", "signature_method": "urn:x", "document": document, "encrypt": true });
    let got = setup.post("/v1/assertions", body(&assertion("https://sp.example", ""))).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let document = got.body["document"].as_str().unwrap();
    assert!(document.starts_with("<saml:EncryptedAssertion ") && !document.contains("secret"), "{document}");
    assert!(document.contains("xmlenc#aes256-cbc\"") && document.contains("xmlenc#rsa-oaep-mgf1p\""), "{document}");
}

#[tokio::test]
async fn what_can_not_be_encrypted_is_not_signed() {
    let setup = setup().await;
    setup.change(|snapshot| drop(snapshot.providers.insert(provider("https://sp.example"))));
    // It was in date when it was read.
    let ended = provider_until("validUntil=\"2020-01-01T00:00:00Z\"", "https://ended.example");
    setup.change(|snapshot| drop(snapshot.providers.insert(ended.clone())));
    let (good, other) = (assertion("https://sp.example", ""), assertion("https://other.example", ""));
    let ended = assertion("https://ended.example", "");
    let nobody = good.replace("<Audience>https://sp.example</Audience>", "");
    for (document, code) in [
        (other.as_str(), Code::NoProvider),
        (&nobody, Code::NoProvider),
        (&ended, Code::NoProvider),
        ("<Assertion/>", Code::MalformedDocument),
        ("<!DOCTYPE a><a/>", Code::MalformedDocument),
    ] {
        let one = json!({ "key": "a-key", "signature_method": "urn:x", "document": document, "encrypt": true });
        setup.post("/v1/assertions", one).await.is_problem(code).points_at("#/document");
        let items = json!([{ "document": good }, { "document": document }]);
        let several = json!({ "key": "a-key", "signature_method": "urn:x", "items": items, "encrypt": true });
        setup.post("/v1/assertions", several).await.is_problem(code).points_at("#/items/1/document");
    }
    assert_eq!(setup.asked_in_all(), 0);
    // What was signed and then could not be encrypted may be out there.
    let body = json!({ "key": "a-key", "signature_method": "urn:x", "document": good, "encrypt": true });
    let got = setup.post("/v1/assertions", body).await;
    got.is_problem(Code::Internal);
    assert_eq!(got.body["signed"], "unknown");
}
