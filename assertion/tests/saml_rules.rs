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

/// An assertion in which every rule can be broken by putting something in the place of something else.
const SMALL: &str = "<saml:Assertion xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" \
    xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xmlns:xs=\"http://www.w3.org/2001/XMLSchema\" \
    ID=\"_1\" Version=\"2.0\" IssueInstant=\"2026-11-21T10:00:00Z\"><saml:Issuer>issuer</saml:Issuer>\
    <saml:Subject><saml:NameID>name</saml:NameID></saml:Subject>\
    <saml:Conditions><saml:AudienceRestriction><saml:Audience>sp</saml:Audience></saml:AudienceRestriction>\
    </saml:Conditions><saml:AttributeStatement><saml:Attribute Name=\"a\">\
    <saml:AttributeValue xsi:type=\"xs:string\">value</saml:AttributeValue></saml:Attribute>\
    </saml:AttributeStatement></saml:Assertion>";

/// Where its Subject ends.
const SUBJECT: &str = "</saml:Subject>";

/// The key of somebody who confirms by it.
const KEY_INFO: &str = "<KeyInfo xmlns=\"http://www.w3.org/2000/09/xmldsig#\"><X509Data><X509SKI>AA==</X509SKI>\
    </X509Data></KeyInfo>";

/// A confirmation with this in its data, and the end of its Subject.
fn confirmed(data: &str) -> String {
    format!(
        "<saml:SubjectConfirmation Method=\"m\"><saml:SubjectConfirmationData>{data}</saml:SubjectConfirmationData>\
         </saml:SubjectConfirmation>{SUBJECT}"
    )
}

/// With one thing in the place of another: the rule that is broken, or none.
fn broken(from: &str, to: &str) -> Option<Rule> {
    assert!(SMALL.contains(from), "{from}");
    parse(&SMALL.replacen(from, to, 1)).err().map(|malformed| malformed.rule)
}

#[test]
fn what_is_harmless_is_taken() {
    assert_eq!(parse(SMALL), Ok(()));
    for (from, to) in [
        (SUBJECT, &*confirmed(KEY_INFO)),
        ("<saml:Subject>", "<!-- between elements --><saml:Subject>"),
        ("<saml:Subject>", "\r\n\t<saml:Subject>"),
        (">value<", ">caf&#xE9; &amp; <"),
        (" xsi:type=\"xs:string\">value</saml:AttributeValue>", "/>"),
        (">value<", "><p:List xmlns:p=\"urn:p\"><Item>1</Item><!-- c --></p:List><"),
        (">value<", "><saml:NameID>eptid</saml:NameID><"),
        (">value<", "><p:List xmlns:p=\"urn:p\" xmlns:q=\"urn:q\" q:a=\"urn:dk:p:x\">https://p.example</p:List><"),
        // As OpenSAML writes it: declared again where it is used.
        ("xsi:type=\"xs:string\"", "xmlns:xs=\"http://www.w3.org/2001/XMLSchema\" xsi:type=\"xs:string\""),
        ("<saml:Assertion ", "\u{FEFF}<?xml version='1.0' encoding='utf-8'?>\n<!-- c --><saml:Assertion "),
        (">name<", ">Ægir \u{1D11E}<"),
        ("xs:string\">value", "xs:integer\">-12"),
        ("xs:string\">value", "xs:int\">0"),
        ("xs:string\">value", "xs:boolean\">true"),
        ("xs:string\">value", "xs:date\">2026-11-21"),
        ("xs:string\">value", "xs:dateTime\">2026-11-21T10:00:00Z"),
        ("xs:string\">value", "xs:base64Binary\">AAEC"),
        ("xs:string\">value<", "xs:anyType\"><p:x xmlns:p=\"urn:p\"/><"),
    ] {
        assert_eq!(broken(from, to), None, "{to}");
    }
}

#[test]
fn every_rule_of_xml_is_kept() {
    for (rule, from, to) in [
        (Rule::Doctype, "<saml:Assertion ", "<!DOCTYPE a [<!ENTITY e 'x'>]><saml:Assertion "),
        (Rule::Doctype, "<saml:Assertion ", "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><saml:Assertion "),
        (Rule::ProcessingInstruction, "<saml:Subject>", "<?php ?><saml:Subject>"),
        (Rule::ProcessingInstruction, ">name<", ">na<?x?>me<"),
        (Rule::ProcessingInstruction, "<saml:Assertion ", "<?xml-stylesheet href='x'?><saml:Assertion "),
        (Rule::Entity, ">name<", ">&nbsp;<"),
        (Rule::Character, ">name<", ">&#0;<"),
        (Rule::Character, ">name<", ">&#xD800;<"),
        (Rule::Character, ">name<", ">&#x110000;<"),
        (Rule::Character, ">name<", ">\u{1}<"),
        (Rule::Character, ">name<", ">\u{FFFE}<"),
        (Rule::Character, "ID=\"_1\"", "ID=\"\u{FFFF}\""),
        (Rule::Encoding, "<saml:Assertion ", "<?xml version='1.0' encoding='ISO-8859-1'?><saml:Assertion "),
        (Rule::Syntax, "<saml:Assertion ", "<?xml version='1.1'?><saml:Assertion "),
        (Rule::Syntax, "<saml:Assertion ", "<?xml encoding='utf-8'?><saml:Assertion "),
        (Rule::Syntax, "<saml:Assertion ", "<?xml ?><saml:Assertion "),
        (Rule::Syntax, "<saml:Assertion ", "<?xml version='1.0' other='x'?><saml:Assertion "),
        (Rule::Syntax, "<saml:Assertion ", "<?xml version='1.0'encoding='utf-8'?><saml:Assertion "),
        (Rule::Syntax, "<saml:Assertion ", "<?xml version='1.0' standalone='maybe'?><saml:Assertion "),
        (Rule::Syntax, "<saml:Assertion ", "<?xml version='1.0><saml:Assertion "),
        (Rule::Syntax, "<saml:Assertion ", "text<saml:Assertion "),
        (Rule::Syntax, "<saml:Subject>", "<![INCLUDE[x]]><saml:Subject>"),
        (Rule::Syntax, "</saml:Subject>", "</saml:Subject x>"),
        (Rule::Syntax, ">name<", "><![CDATA[name<"),
        (Rule::Syntax, "<saml:Subject>", "<!-- <saml:Subject>"),
        (Rule::Syntax, "<saml:Subject>", "<saml:Subject a='"),
        (Rule::Syntax, "<saml:Subject>", "<saml:a:b/><saml:Subject>"),
        (Rule::Syntax, "<saml:Subject>", "<1/><saml:Subject>"),
        (Rule::Syntax, "<saml:Subject>", "<:a/><saml:Subject>"),
        (Rule::ProcessingInstruction, "<saml:Assertion ", " <?xml version='1.0'?><saml:Assertion "),
        (Rule::Syntax, "</saml:Subject>", "</saml2:Subject>"),
        (Rule::Syntax, "</saml:Assertion>", ""),
        (Rule::Syntax, "</saml:Assertion>", "</saml:Assertion><x/>"),
        (Rule::Syntax, "</saml:Assertion>", "</saml:Assertion>x"),
        (Rule::Syntax, ">name<", ">]]><"),
        (Rule::Syntax, ">name<", ">& <"),
        (Rule::Syntax, "<saml:Subject>", "<!-- -- --><saml:Subject>"),
        (Rule::Syntax, "ID=\"_1\"", "ID=\"_<\""),
        (Rule::Syntax, "ID=\"_1\" ", "ID=\"_1\""),
        (Rule::Syntax, "ID=\"_1\"", "ID=_1"),
        (Rule::Syntax, "ID=\"_1\"", "ID"),
        (Rule::DuplicateAttribute, "ID=\"_1\"", "ID=\"_1\" ID=\"_2\""),
        (Rule::DuplicateAttribute, " ID", " xmlns:p=\"urn:p\" xmlns:p=\"urn:p\" ID"),
        (Rule::DuplicateAttribute, " Name=\"a\"", " Name=\"a\" xmlns:p=\"urn:p\" xmlns:q=\"urn:p\" p:a=\"\" q:a=\"\""),
        (Rule::NamespaceUndeclared, "<saml:Subject>", "<p:x/><saml:Subject>"),
        (Rule::NamespaceUndeclared, " Name=\"a\"", " Name=\"a\" p:a=\"\""),
        (Rule::NamespaceReserved, " ID", " xmlns:xml=\"urn:p\" ID"),
        (Rule::NamespaceReserved, " ID", " xmlns:p=\"http://www.w3.org/XML/1998/namespace\" ID"),
        (Rule::NamespaceReserved, " ID", " xmlns=\"http://www.w3.org/2000/xmlns/\" ID"),
        (Rule::NamespaceName, " ID", " xmlns:p=\"\" ID"),
        (Rule::NamespaceName, " ID", " xmlns:p=\"relative\" ID"),
        (Rule::NamespaceName, " ID", " xmlns:p=\"urn:&#97;\" ID"),
        (Rule::NamespaceName, " ID", " xmlns:p=\"urn:æ\" ID"),
        (Rule::NamespaceName, " ID", " xmlns:p=\"urn:a \" ID"),
    ] {
        assert_eq!(broken(from, to), Some(rule), "{to}");
    }
    for document in ["", " ", "<!-- c -->", "<a", "<a b", "<a b='c'", "<a b='c", "<a>", "<a><b></a>"] {
        assert_eq!(parse(document).unwrap_err().rule, Rule::Syntax, "{document}");
    }
    let refused = Document::parse(&[b"<a>", &[0xC3][..], b"</a>"].concat(), &Limits::default()).unwrap_err();
    assert_eq!((refused.rule, refused.offset), (Rule::Encoding, 3));
}

#[test]
fn what_readers_would_disagree_about_is_refused() {
    for (rule, from, to) in [
        (Rule::BrokenText, ">issuer<", ">iss<!-- -->uer<"),
        (Rule::BrokenText, ">name<", ">admin<!---->.example<"),
        (Rule::BrokenText, ">name<", "><![CDATA[name]]><"),
        (Rule::BrokenText, ">sp<", ">s<saml:Audience>p</saml:Audience><"),
        (Rule::BrokenText, ">value<", ">val<!-- -->ue<"),
        (Rule::BrokenText, ">value<", ">val<![CDATA[ue]]><"),
        (Rule::BrokenText, ">value<", "><!-- --><p:x xmlns:p=\"urn:p\"/><"),
        (Rule::BrokenText, ">value<", "><p:x xmlns:p=\"urn:p\">a<!-- -->b</p:x><"),
        (Rule::BrokenText, ">value<", "><!-- --><saml:NameID>x</saml:NameID><"),
        (Rule::BrokenText, ">value<", "><p:x xmlns:p=\"urn:p\"><p:y><![CDATA[a]]></p:y></p:x><"),
        (Rule::UnexpectedText, ">value<", ">text<p:x xmlns:p=\"urn:p\"/><"),
        (Rule::UnexpectedText, "<saml:Subject>", "text<saml:Subject>"),
        (Rule::UnexpectedText, "<saml:Subject>", "<![CDATA[ ]]><saml:Subject>"),
        (Rule::NamespaceRebound, " Name=\"a\"", " Name=\"a\" xmlns:xs=\"urn:other\""),
        (Rule::NamespaceMisused, " ID", " xmlns:ds=\"urn:other\" ID"),
        (Rule::NamespaceMisused, " ID", " xmlns:saml2=\"urn:oasis:names:tc:SAML:2.0:protocol\" ID"),
        (Rule::XmlAttribute, " ID", " xml:id=\"_2\" ID"),
        (Rule::XmlAttribute, " ID", " xml:base=\"http://example\" ID"),
        (Rule::DuplicateId, ">value<", "><p:x xmlns:p=\"urn:p\" Id=\"_1\"/><"),
        (Rule::DuplicateId, ">value<", "><p:x xmlns:p=\"urn:p\" p:id=\"_1\"/><"),
        (Rule::DuplicateId, ">value<", "><p:x xmlns:p=\"urn:p\" AssertionID=\"_1\"/><"),
        (Rule::Id, "ID=\"_1\"", "ID=\"1\""),
        (Rule::Id, "ID=\"_1\"", "ID=\"_1)(\""),
        (Rule::Id, "ID=\"_1\"", "ID=\"_&#49;\""),
        (Rule::Id, ">value<", "><p:x xmlns:p=\"urn:p\" Id=\"_2\" ID=\"_3\"/><"),
        (Rule::Type, "xs:string", "string"),
        (Rule::Type, "xs:string", "xsd:string"),
        (Rule::Type, "xs:string", " xs:string"),
        (Rule::Type, "xs:string", "xs:QName"),
        (Rule::Type, "xs:string\">value", "xs:integer\">012345678"),
        (Rule::Type, "xs:string\">value", "xs:integer\">12_345_678"),
        (Rule::Type, "xs:string\">value", "xs:int\">+1"),
        (Rule::Type, "xs:string\">value", "xs:int\">-0"),
        (Rule::Type, "xs:string\">value", "xs:int\"> 1"),
        (Rule::Type, "xs:string\">value", "xs:int\">"),
        (Rule::Type, "xs:string\">value", "xs:boolean\">1"),
        (Rule::Type, "xs:string\">value", "xs:boolean\">TRUE"),
        (Rule::Type, "xs:string\">value", "xs:date\">2026-02-30"),
        (Rule::Type, "xs:string\">value", "xs:date\">2026-11-21Z"),
        (Rule::Type, "xs:string\">value", "xs:dateTime\">2026-11-21T10:00:00"),
        (Rule::Version, "\"2.0\"", "\"1.1\""),
        (Rule::Missing, "ID=\"_1\"", ""),
        (Rule::Missing, "<saml:Issuer>issuer</saml:Issuer>", ""),
        (Rule::UnexpectedAttribute, "ID=\"_1\"", "ID=\"_1\" Extra=\"\""),
        (Rule::UnexpectedAttribute, "<saml:Conditions>", "<saml:Conditions xsi:type=\"xs:string\">"),
        (Rule::UnexpectedElement, "<saml:Subject>", "<saml:Issuer>other</saml:Issuer><saml:Subject>"),
        (Rule::UnexpectedElement, "<saml:Subject>", "<saml:Advice/><saml:Subject>"),
        (
            Rule::UnexpectedElement,
            "<saml:AttributeStatement>",
            "<saml:AuthzDecisionStatement/><saml:AttributeStatement>",
        ),
        (Rule::UnexpectedElement, "<saml:Subject>", "<p:Subject xmlns:p=\"urn:p\"/><saml:Subject>"),
        (Rule::UnexpectedElement, "<saml:Conditions>", "<saml:Subject/><saml:Conditions>"),
        (Rule::UnexpectedElement, ">value<", "><saml:Audience>sp</saml:Audience><"),
        (Rule::UnexpectedAttribute, " Name=\"a\"", " Name=\"a\" saml:Name=\"b\""),
        (Rule::UnexpectedAttribute, " Name=\"a\"", " Name=\"a\" xmlns:x=\"urn:x\" x:Name=\"b\""),
        (
            Rule::UnexpectedAttribute,
            "<saml:Attribute Name",
            "<saml:Attribute xmlns:x5=\"urn:x500\" x5:Encoding=\"LDAP\" Name",
        ),
        (
            Rule::UnexpectedAttribute,
            SUBJECT,
            "<saml:SubjectConfirmation Method=\"m\"><saml:SubjectConfirmationData saml:NotOnOrAfter=\"2099-01-01T00:00:00Z\" saml:Recipient=\"https://evil.example/acs\"/></saml:SubjectConfirmation></saml:Subject>",
        ),
        (Rule::UnexpectedAttribute, "<saml:NameID>", "<saml:NameID SPProvidedID=\"x\">"),
        (Rule::UnexpectedAttribute, "<saml:Issuer>", "<saml:Issuer NameQualifier=\"x\">"),
        (Rule::UnexpectedAttribute, "xsi:type=\"xs:string\"", "xsi:nil=\"true\""),
        (Rule::UnexpectedAttribute, "xsi:type=\"xs:string\"", "xsi:schemaLocation=\"urn:x http://evil.example/x.xsd\""),
        (Rule::UnexpectedAttribute, ">value<", "><p:x xmlns:p=\"urn:p\" xsi:nil=\"true\"/><"),
        (Rule::Type, "xs:string", "saml:EncryptedElementType"),
        (Rule::Type, "xs:string", "saml:KeyInfoConfirmationDataType"),
        (Rule::Type, "xsi:type=\"xs:string\"", "xmlns:xq=\"http://www.w3.org/2001/XMLSchema\" xsi:type=\"xq:string\""),
        (
            Rule::UnexpectedElement,
            "</saml:AudienceRestriction>",
            "</saml:AudienceRestriction><saml:ProxyRestriction Count=\"99\"/>",
        ),
        (
            Rule::UnexpectedElement,
            SUBJECT,
            "<saml:SubjectConfirmation Method=\"m\"><saml:SubjectConfirmationData><AttributeStatement xmlns=\"urn:x\"/></saml:SubjectConfirmationData></saml:SubjectConfirmation></saml:Subject>",
        ),
        (
            Rule::UnexpectedElement,
            SUBJECT,
            "<saml:SubjectConfirmation Method=\"m\"><saml:SubjectConfirmationData><KeyInfo xmlns=\"http://www.w3.org/2000/09/xmldsig#\"><RetrievalMethod URI=\"http://evil.example\"/></KeyInfo></saml:SubjectConfirmationData></saml:SubjectConfirmation></saml:Subject>",
        ),
        (Rule::UnexpectedElement, SUBJECT, &confirmed(&KEY_INFO.replace("X509SKI", "saml:Issuer"))),
        (Rule::UnexpectedElement, SUBJECT, &confirmed("<KeyInfo xmlns=\"urn:x\"/>")),
        (Rule::TooManyElements, SUBJECT, &confirmed(&KEY_INFO.repeat(2))),
        (Rule::UnexpectedAttribute, SUBJECT, &confirmed(&KEY_INFO.replacen("X509SKI", "X509SKI a=\"\"", 1))),
        (Rule::UnexpectedText, SUBJECT, &confirmed(&KEY_INFO.replace("<X509SKI>", "text<X509SKI>"))),
        (Rule::BrokenText, SUBJECT, &confirmed(&KEY_INFO.replace("AA==", "A<!-- -->A=="))),
        (Rule::UnexpectedElement, ">value<", "><AttributeStatement xmlns=\"urn:x\"/><"),
        (Rule::UnexpectedElement, ">value<", "><p:x xmlns:p=\"urn:p\"><p:NameIdentifier/></p:x><"),
        (Rule::PrefixInContent, ">value<", "><x:T xmlns:x=\"urn:x\" xmlns:q=\"urn:good\">q:admin</x:T><"),
        (Rule::PrefixInContent, ">value<", "><x:T xmlns:x=\"urn:x\">//x:admin[1]</x:T><"),
        (Rule::PrefixInContent, ">value<", "><x:T xmlns:x=\"urn:x\" type=\"xs:admin\"/><"),
        (Rule::PrefixInContent, ">value<", "><x:T xmlns:x=\"urn:x\" x:type=\"x:admin\"/><"),
        (Rule::BrokenText, ">issuer<", "> issuer<"),
        (Rule::BrokenText, ">name<", ">&#xA0;name<"),
        (Rule::BrokenText, ">sp<", ">sp\n<"),
        (Rule::UnexpectedElement, "<saml:AttributeStatement>", "<saml:AttributeStatement/><saml:AttributeStatement>"),
        (
            Rule::TooManyElements,
            "<saml:Audience>",
            "<saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience/><saml:Audience>",
        ),
        (Rule::UnexpectedElement, ">value<", "><p:x xmlns:p=\"urn:p\"><saml:NameID>x</saml:NameID></p:x><"),
        (Rule::Encrypted, "<saml:NameID>name</saml:NameID>", "<saml:EncryptedID/>"),
        (Rule::Encrypted, ">value<", "><p:EncryptedAssertion xmlns:p=\"urn:p\"/><"),
    ] {
        assert_eq!(broken(from, to), Some(rule), "{to}");
    }
}

#[test]
fn limits_come_before_meaning() {
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    let wide = format!("<a>{}</a>", "<b/>".repeat(50_000));
    let attributes: String = (0..100).map(|number| format!(" a{number}=''")).collect();
    let namespaces: String = (0..100).map(|number| format!(" xmlns:a{number}='urn:a'")).collect();
    let all_attributes = format!("<a>{}</a>", "<b c='' d='' e=''/>".repeat(1000));
    let all_namespaces = format!("<a>{}</a>", "<b xmlns='urn:a'/>".repeat(1000));
    let names: String = (0..100).map(|number| format!("<b xmlns='urn:{number}'/>")).collect();
    let ids: String = (0..40).map(|number| format!("<x xmlns=\"urn:x\" ID=\"_x{number}\"/>")).collect();
    let response = |content: &str| {
        format!("<p:Response xmlns:p=\"urn:oasis:names:tc:SAML:2.0:protocol\">{SMALL}{content}</p:Response>")
    };
    let values = format!(">{}<", "<x xmlns=\"urn:x\"/>".repeat(300));
    for (rule, document) in [
        (Rule::TooLong, " ".repeat(300_000)),
        (Rule::TooDeep, deep[..250_000].to_owned()),
        (Rule::TooManyNodes, wide),
        (Rule::TooManyAttributes, format!("<a{attributes}/>")),
        (Rule::TooManyAttributes, all_attributes),
        (Rule::TooManyNamespaces, format!("<a{namespaces}/>")),
        (Rule::TooManyNamespaces, all_namespaces),
        (Rule::TooManyNamespaces, format!("<a>{names}</a>")),
        (Rule::NameTooLong, format!("<{}/>", "a".repeat(300))),
        (Rule::Id, SMALL.replace("_1", &"a".repeat(300))),
        (Rule::Id, SMALL.replace(">value<", &format!(">{ids}<"))),
        (Rule::TooManyNodes, response(&"<p:x/>".repeat(300))),
        (Rule::TooManyNodes, SMALL.replace("<saml:Conditions>", &("<!-- -->".repeat(600) + "<saml:Conditions>"))),
        (Rule::TooManyNodes, SMALL.replace(">value<", &values)),
    ] {
        assert_eq!(parse(&document).unwrap_err().rule, rule);
    }
}

#[test]
fn a_path_tells_no_name_that_is_the_document_s_own() {
    let place = |from: &str, to: &str| parse(&SMALL.replacen(from, to, 1)).unwrap_err().xpath;
    let value = "/saml:Assertion/saml:AttributeStatement/saml:Attribute/saml:AttributeValue";
    let secret =
        "><p:Anne0101701234 xmlns:p=\"urn:p\"/><p:Anne0101701234 xmlns:p=\"urn:p\"><saml:Issuer/></p:Anne0101701234><";
    assert_eq!(place(">value<", secret), format!("{value}/*[2]/saml:Issuer"));
    assert_eq!(place("<saml:Conditions>", "<saml:Anne0101701234/><saml:Conditions>"), "/saml:Assertion/*[3]");
    let renamed = SMALL.replace("saml:", "Anne:").replace("xmlns:saml", "xmlns:Anne").replace(">name<", "> name<");
    assert_eq!(parse(&renamed).unwrap_err().xpath, "/saml:Assertion/saml:Subject/saml:NameID");
}

#[test]
fn a_signature_taken_out_again_leaves_what_was_signed() {
    for sample in [PERSON, COMPANY] {
        let limits = Limits::default();
        let document = Document::parse(sample.as_bytes(), &limits).unwrap();
        let prepared = document.prepare(SignatureMethod::RsaSha256, DigestMethod::Sha256, &KeyInfo::x509(&[b"c"]));
        let signed = String::from_utf8(prepared.finish(&[7; 384])).unwrap();
        let (before, rest) = signed.split_once("<ds:Signature ").unwrap();
        let stripped = [before, rest.split_once("</ds:Signature>").unwrap().1].concat();
        let again = Document::parse(stripped.as_bytes(), &limits).unwrap();
        assert_eq!(again.canonical_form(), document.canonical_form());
    }
}

#[test]
fn an_assertion_has_the_same_digest_in_whatever_response_it_is_put() {
    let bare = COMPANY;
    let wrapped = format!(
        "<p:Response xmlns:p=\"urn:oasis:names:tc:SAML:2.0:protocol\" xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" \
         xmlns:xs=\"http://www.w3.org/2001/XMLSchema\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">{bare}</p:Response>"
    );
    let [bare, wrapped] = [bare, &wrapped]
        .map(|document| Document::parse(document.as_bytes(), &Limits::default()).unwrap().canonical_form());
    assert_eq!(bare, wrapped);
}

#[test]
fn a_refusal_says_where_and_repeats_no_value() {
    let document = PERSON.replace(">0101701234<", ">010170<!-- -->1234<");
    let refused = parse(&document).unwrap_err();
    assert_eq!(refused.rule, Rule::BrokenText);
    let expected = "/samlp:Response/saml:Assertion/saml:AttributeStatement/saml:Attribute[5]/saml:AttributeValue";
    assert_eq!(refused.xpath, expected);
    assert_eq!(document.lines().nth(refused.line as usize - 1).unwrap().matches("010170").count(), 1);
    assert!(document[refused.offset..].starts_with("<saml:AttributeValue"));
    assert!(!refused.to_string().contains("010170"));
}

/// The eight shapes of "On Breaking SAML" (Somorovsky et al., 2012), with a signed assertion as the kernel.
#[test]
fn signature_wrapping_is_refused_in_all_its_shapes() {
    let document = Document::parse(SMALL.as_bytes(), &Limits::default()).unwrap();
    let prepared = document.prepare(SignatureMethod::RsaSha256, DigestMethod::Sha256, &KeyInfo::NONE);
    let (_, signature) = prepared.clone().signature_element(&[7; 384]);
    let signature = String::from_utf8(signature).unwrap();
    let signed = String::from_utf8(prepared.finish(&[7; 384])).unwrap();
    let evil = SMALL.replace("_1", "_evil");
    let into = |outer: &str, inner: &str| outer.replacen("</saml:Assertion>", &format!("{inner}</saml:Assertion>"), 1);
    let around =
        |inner: &str| signature.replace("</ds:Signature>", &format!("<ds:Object>{inner}</ds:Object></ds:Signature>"));
    let response = |content: &str| {
        format!(
            "<samlp:Response xmlns:samlp=\"urn:oasis:names:tc:SAML:2.0:protocol\" ID=\"_r\">{content}</samlp:Response>"
        )
    };
    let extensions = |content: &str| format!("<samlp:Extensions>{content}</samlp:Extensions>");
    let shapes = [
        // The response is signed: the evil one around the original, or beside it.
        response(&format!("{}{evil}", around(&response(&signed).replace("_r", "_r0")))),
        response(&format!("{signature}{}{evil}", response(SMALL).replace("_r", "_r0"))),
        // The assertion is signed: the evil one before it, around it, or with it in the signature.
        response(&format!("{evil}{signed}")),
        response(&into(&evil, &signed)),
        response(&format!("{}{SMALL}", evil.replacen("</saml:Issuer>", &format!("</saml:Issuer>{signature}"), 1))),
        response(&evil.replacen("</saml:Issuer>", &format!("</saml:Issuer>{}", around(SMALL)), 1)),
        response(&format!("{}{evil}", extensions(&signed))),
        response(&evil.replacen("</saml:Issuer>", &format!("</saml:Issuer>{}", around(&signed)), 1)),
    ];
    for shape in &shapes {
        let rule = parse(shape).unwrap_err().rule;
        assert!([Rule::AlreadySigned, Rule::DuplicateId].contains(&rule), "{rule:?}: {shape}");
    }
    // Two assertions without any signature, as a signer would be shown them.
    for unsigned in [
        response(&format!("{evil}{SMALL}")),
        response(&into(&evil, SMALL)),
        response(&into(SMALL, &evil)),
        response(&format!("{}{evil}", extensions(SMALL))),
        response(&format!("{evil}{}", extensions(SMALL))),
        response(&format!("{SMALL}{}", extensions("<Assertion/>"))),
        response(&into(SMALL, &format!("<saml:Advice>{evil}</saml:Advice>"))),
        SMALL.replace(">value<", &format!(">{evil}<")),
    ] {
        assert_eq!(parse(&unsigned).unwrap_err().rule, Rule::SeveralAssertions, "{unsigned}");
    }
    // Whom it is from is said once.
    let issuer = "<saml:Issuer xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\">a</saml:Issuer>";
    assert_eq!(parse(&response(&(issuer.to_owned() + SMALL))), Ok(()));
    assert_eq!(parse(&response(&(issuer.repeat(2) + SMALL))).unwrap_err().rule, Rule::UnexpectedElement);
    let hidden = response(&extensions(SMALL));
    assert_eq!(parse(&hidden).unwrap_err().rule, Rule::NoAssertion);
    assert_eq!(parse("<Response/>").unwrap_err().rule, Rule::NoAssertion);
    assert_eq!(parse(&response(SMALL)), Ok(()));
}
