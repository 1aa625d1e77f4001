//! What is taken and what is refused, on documents that differ from a good one in one place.

use segl_assertion::saml::{DigestMethod, Document, KeyInfo, Limits, Malformed, Rule, SignatureMethod};

const PERSON: &str = include_str!("samples/person.xml");
const COMPANY: &str = include_str!("samples/company.xml");

fn parse(document: &str) -> Result<(), Malformed> {
    Document::parse(document.as_bytes(), &Limits::default()).map(drop)
}

#[test]
fn both_samples_are_taken_and_read_as_what_they_say() {
    let limits = Limits::default();
    let person = Document::parse(PERSON.as_bytes(), &limits).unwrap();
    let assertion = person.assertion();
    assert_eq!(assertion.id(), "_a3b9d2e84-5a0e-4c37-8f21-9d0c6b7e1a42");
    assert_eq!(assertion.xpath(), "/samlp:Response/saml:Assertion");
    assert_eq!(assertion.issuer().value(), "https://saml.nemlog-in.example");
    assert_eq!(assertion.attributes().count(), 11);
    let email = assertion.attributes().find(|attribute| attribute.name().ends_with("eid/email")).unwrap();
    assert_eq!(email.values().next().unwrap().text(), Some("boeje&co@korsbaek.example"));
    assert_eq!(email.xpath(), "/samlp:Response/saml:Assertion/saml:AttributeStatement/saml:Attribute[8]");

    let company = Document::parse(COMPANY.as_bytes(), &limits).unwrap();
    let assertion = company.assertion();
    assert_eq!(assertion.xpath(), "/Assertion");
    let cvr = assertion.attributes().nth(2).unwrap();
    // A tab in an attribute is a space.
    assert_eq!(cvr.friendly_name(), Some("CVR nummer"));
    assert_eq!(cvr.values().next().unwrap().text(), Some("12345678"));
    let confirmation = assertion.subject().unwrap().confirmations().next().unwrap();
    let recipient = confirmation.data().unwrap().recipient();
    assert_eq!(recipient, Some("https://sag.korsbaek.example/saml/acs?system=byg&miljø=prod"));
    let audience = assertion.conditions().unwrap().audience_restrictions().next().unwrap().audiences().next().unwrap();
    assert_eq!(audience.text(), "https://sag.korsbaek.example");
}

#[test]
fn a_signature_is_put_right_after_the_issuer_and_nothing_else_changes() {
    for sample in [PERSON, COMPANY] {
        let document = Document::parse(sample.as_bytes(), &Limits::default()).unwrap();
        let key_info = KeyInfo::x509(&[b"certificate"]);
        let prepared = document.prepare(SignatureMethod::RsaSha256, DigestMethod::Sha256, &key_info);
        let (at, element) = prepared.clone().signature_element(&[7; 384]);
        assert!(sample[..at].ends_with("Issuer>"));
        let signed = prepared.finish(&[7; 384]);
        let expected = [&sample.as_bytes()[..at], &element, &sample.as_bytes()[at..]].concat();
        assert_eq!(signed, expected);
        let refused = parse(std::str::from_utf8(&signed).unwrap()).unwrap_err();
        assert_eq!(refused.rule, Rule::AlreadySigned);
    }
}
