//! Assertions and JWS.

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
