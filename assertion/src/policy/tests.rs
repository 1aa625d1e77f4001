//! Each rule, on documents that differ from a good one in one place.

use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;
use crate::{
    VIOLATIONS_MAX,
    saml::{Document, Limits, unix_ms},
};

pub(super) const PERSON: &str = include_str!("../../tests/samples/person.xml");
pub(super) const COMPANY: &str = include_str!("../../tests/samples/company.xml");
const PERSISTENT: &str = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent";
const TRANSIENT: &str = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient";
pub(super) const CVR: &str = "12345678";

pub(super) fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn patterns(patterns: &[&str]) -> Vec<Pattern> {
    patterns.iter().map(|pattern| Pattern::new(pattern).unwrap()).collect()
}

pub(super) fn policy() -> AssertionPolicy {
    AssertionPolicy {
        issuers: texts(&["https://saml.nemlog-in.example"]),
        audiences: patterns(&["https://selvbetjening.korsbaek.example", "https://sag.korsbaek.example"]),
        recipients: patterns(&["https://selvbetjening.korsbaek.example/*", "https://sag.korsbaek.example/*"]),
        validity_max_s: 3600,
        clock_distance_max_s: 60,
        name_id_formats: texts(&[PERSISTENT, TRANSIENT]),
        required_attributes: texts(&["https://data.gov.dk/model/core/eid/fullName"]),
        forbidden_attributes: patterns(&["https://data.gov.dk/model/core/eid/bootstrapToken"]),
        spec_versions: texts(&["OIO-SAML-3.0"]),
        assurance_levels: texts(&["Substantial", "High"]),
        authn_context_classes: texts(&[
            "urn:oasis:names:tc:SAML:2.0:ac:classes:MobileTwoFactorContract",
            "urn:oasis:names:tc:SAML:2.0:ac:classes:X509",
        ]),
        confirmation_methods: vec![ConfirmationMethod::Bearer, ConfirmationMethod::HolderOfKey],
        friendly_names: [("eid/fullName", "Fulde navn"), ("eid/professional/cvr", "CVR nummer")]
            .map(|(attribute, name)| (format!("{CORE}{attribute}"), name.to_owned()))
            .into(),
        profile: Some(Profile::Oiosaml3),
        ..AssertionPolicy::default()
    }
}

fn seconds(instant: &str) -> u64 {
    u64::try_from(unix_ms(instant).unwrap() / 1000).unwrap()
}

pub(super) fn now_of(document: &str) -> u64 {
    seconds(if document.contains("samlp:Response") { "2026-11-21T10:15:31Z" } else { "2026-11-21T08:00:01Z" })
}

pub(super) fn violations(policy: &AssertionPolicy, document: &str, capacity: Option<Capacity<'_>>) -> Vec<Violation> {
    let parsed = Document::parse(document.as_bytes(), &Limits::default()).unwrap();
    policy.check(parsed.assertion(), capacity, now_of(document))
}

pub(super) fn rules(violations: &[Violation]) -> Vec<&'static str> {
    violations.iter().map(|violation| violation.rule).collect()
}

/// The rules broken when one place of a sample is another.
pub(super) fn broken(sample: &str, from: &str, to: &str) -> Vec<&'static str> {
    assert!(sample.contains(from), "{from}");
    let capacity = if sample == COMPANY { Capacity::Company(CVR) } else { Capacity::Citizen };
    rules(&violations(&policy(), &sample.replacen(from, to, 1), Some(capacity)))
}

#[test]
fn a_citizen_s_and_a_professional_s_assertion_pass() {
    assert_eq!(violations(&policy(), PERSON, Some(Capacity::Citizen)), []);
    assert_eq!(violations(&policy(), COMPANY, Some(Capacity::Company(CVR))), []);
}

#[test]
fn a_policy_that_says_nothing_allows_nothing() {
    let told = violations(&AssertionPolicy::default(), PERSON, None);
    let expected = [
        "issuer",
        "name-id-format",
        "confirmation",
        "audience",
        "attribute-not-allowed",
        "authn-context",
        "issue-instant",
        "conditions",
        "confirmation-data",
        "spec-version",
        "assurance-level",
        "capacity",
    ];
    for rule in expected {
        assert!(rules(&told).contains(&rule), "{rule}: {told:?}");
    }
}

#[test]
fn every_violation_is_told_at_once_with_its_xpath_and_without_the_value() {
    let document = PERSON
        .replace("https://saml.nemlog-in.example", "https://saml.evil.example")
        .replace("2026-11-21T11:15:30.123Z", "2036-11-21T11:15:30.123Z")
        .replace(">Substantial<", ">Low<")
        .replace("eid/cprNumber", "eid/bootstrapToken")
        .replace("eid/fullName", "eid/professional/cvr");
    let told = violations(&policy(), &document, Some(Capacity::Citizen));
    let told: Vec<(&str, &str)> = told.iter().map(|violation| (violation.rule, &*violation.place)).collect();
    let assertion = "/samlp:Response/saml:Assertion";
    let attribute = |at: usize| format!("{assertion}/saml:AttributeStatement/saml:Attribute[{at}]");
    assert_eq!(
        told,
        [
            ("issuer", &*format!("{assertion}/saml:Issuer")),
            ("conditions", &format!("{assertion}/saml:Conditions/@NotOnOrAfter")),
            ("friendly-name", &attribute(2)),
            ("attribute-forbidden", &attribute(5)),
            ("attribute-required", assertion),
            ("assurance-level", &attribute(9)),
            ("assurance-level", &attribute(10)),
            ("assurance-level", &attribute(11)),
            ("capacity", &attribute(2)),
            ("oiosaml3-professional", &attribute(2)),
            ("oiosaml3-professional", assertion),
        ]
    );
    let told = format!("{:?}", violations(&policy(), &document, Some(Capacity::Citizen)));
    for value in ["evil", "0101701234", "Østergård", "2036", "37a5a1aa"] {
        assert!(!told.contains(value), "{value} is repeated in {told}");
    }
}

#[test]
fn who_says_it_of_whom_and_to_whom_is_what_the_policy_allows() {
    let mail = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress";
    let audience = "<saml:Audience>https://selvbetjening.korsbaek.example</saml:Audience>";
    let restriction = "<saml:AudienceRestriction>";
    for (from, to, expected) in [
        ("<saml:Audience>https://selv", "<saml:Audience>https://selv.", &["audience"][..]),
        (audience, &format!("{audience}<saml:Audience>urn:other</saml:Audience>"), &["audience"]),
        (audience, "", &["audience"]),
        (restriction, &format!("<saml:AudienceRestriction/>{restriction}"), &["audience"]),
        ("Recipient=\"https://selv", "Recipient=\"https://evil.example/?selv", &["recipient"]),
        (PERSISTENT, mail, &["name-id-format", "oiosaml3-name-id"]),
        (&format!(" Format=\"{PERSISTENT}\""), "", &["name-id-format", "oiosaml3-name-id"]),
        ("cm:bearer", "cm:sender-vouches", &["confirmation", "oiosaml3-bearer"]),
        ("cm:bearer", "cm:holder-of-key", &["confirmation", "oiosaml3-bearer"]),
        ("NotOnOrAfter=\"2026-11-21T10:20:30.123Z\" ", "", &["confirmation-data"]),
        (
            "<saml:SubjectConfirmationData ",
            "<saml:NameID>x</saml:NameID><saml:SubjectConfirmationData ",
            &["confirmation"],
        ),
    ] {
        assert_eq!(broken(PERSON, from, to), expected, "{to}");
    }
    let subject = &PERSON[PERSON.find("<saml:Subject>").unwrap()..PERSON.find("<saml:Conditions").unwrap()];
    assert_eq!(broken(PERSON, subject, ""), ["subject"]);
    let between = |from: &str, to: &str| {
        let start = PERSON.find(from).unwrap();
        &PERSON[start..start + PERSON[start..].find(to).unwrap() + to.len()]
    };
    let statement = between("<saml:AuthnStatement", "</saml:AuthnStatement>");
    assert_eq!(broken(PERSON, statement, ""), ["authn-statement"]);
    let statement = between("<saml:AttributeStatement", "</saml:AttributeStatement>");
    assert!(broken(PERSON, statement, "").contains(&"attribute-statement"));
    let name_id = between("<saml:NameID", "</saml:NameID>");
    assert_eq!(broken(PERSON, name_id, ""), ["name-id"]);
    let empty = format!("<saml:NameID Format=\"{PERSISTENT}\"/>");
    assert_eq!(broken(PERSON, name_id, &empty), ["name-id", "oiosaml3-name-id"]);
    let confirmation = between("<saml:SubjectConfirmation ", "</saml:SubjectConfirmation>");
    assert_eq!(broken(PERSON, confirmation, ""), ["confirmation", "oiosaml3-bearer"]);
    let data = between("<saml:SubjectConfirmationData", "/>");
    assert_eq!(broken(PERSON, data, ""), ["recipient", "confirmation-data"]);
    let recipient = " Recipient=\"https://selvbetjening.korsbaek.example/saml/acs\"";
    assert_eq!(broken(PERSON, recipient, ""), ["recipient", "oiosaml3-bearer"]);
}

#[test]
fn times_are_near_and_short() {
    let issued = "ID=\"_a3b9d2e84-5a0e-4c37-8f21-9d0c6b7e1a42\" IssueInstant=\"2026-11-21T10:15:30.123Z\"";
    let issued_at = |time: &str| issued.replace("2026-11-21T10:15:30.123Z", time);
    let session = |time: &str| format!("SessionNotOnOrAfter=\"{time}\" SessionIndex");
    let data_until = "NotOnOrAfter=\"2026-11-21T10:20:30.123Z\"";
    let conditions = "NotOnOrAfter=\"2026-11-21T11:15:30.123Z\"";
    let begins = "NotBefore=\"2026-11-21T10:15:30.123Z\"";
    for (from, to, expected) in [
        (issued, issued_at("2026-11-21T10:14:00Z"), &["issue-instant", "conditions", "conditions"][..]),
        (issued, issued_at("2026-11-21T10:17:00Z"), &["issue-instant", "conditions"]),
        (issued, issued_at("2026-11-21T10:15:30+00:00"), &["issue-instant"]),
        (issued, issued_at(""), &["issue-instant"]),
        (conditions, "NotOnOrAfter=\"2026-11-21T11:15:30.124Z\"".into(), &["conditions"]),
        (conditions, "NotOnOrAfter=\"2026-11-21T10:15:31Z\"".into(), &["conditions"]),
        (conditions, "NotOnOrAfter=\"2026-11-20T24:00:00Z\"".into(), &["conditions"]),
        (conditions, String::new(), &["conditions"]),
        (begins, "NotBefore=\"2026-11-21T10:16:30.124Z\"".into(), &["conditions"]),
        (begins, "NotBefore=\"2026-11-21T10:14:30Z\"".into(), &["conditions"]),
        (begins, String::new(), &[]),
        (data_until, "NotOnOrAfter=\"2026-11-21T11:15:30.124Z\"".into(), &["confirmation-data"]),
        (data_until, "NotOnOrAfter=\"2026-11-21T10:15:30Z\"".into(), &["confirmation-data"]),
        (data_until, format!("{begins} {data_until}"), &["oiosaml3-bearer"]),
        (
            "AuthnInstant=\"2026-11-21T10:15:29.871Z\"",
            "AuthnInstant=\"2026-11-21T10:17:00Z\"".into(),
            &["authn-instant"],
        ),
        ("AuthnInstant=\"2026-11-21T10:15:29.871Z\"", "AuthnInstant=\"\"".into(), &["authn-instant"]),
        ("SessionIndex", session("2026-11-21T11:15:30Z"), &[]),
        ("SessionIndex", session("2026-11-21T18:15:30Z"), &["session"]),
        ("SessionIndex", session("never"), &["session"]),
    ] {
        assert_eq!(broken(PERSON, from, &to), expected, "{to}");
    }
    let long = AssertionPolicy { session_max_s: Some(8 * 3600), ..policy() };
    let document = PERSON.replacen("SessionIndex", &session("2026-11-21T18:15:30Z"), 1);
    assert_eq!(violations(&long, &document, Some(Capacity::Citizen)), []);
    let all = &PERSON[PERSON.find("<saml:Conditions").unwrap()..PERSON.find("<saml:AuthnStatement").unwrap()];
    assert_eq!(broken(PERSON, all, ""), ["audience", "conditions"]);
}

#[test]
fn attributes_are_what_policy_and_profile_allow() {
    let value = |text: &str| format!("<saml:AttributeValue xsi:type=\"xs:string\">{text}</saml:AttributeValue>");
    let uri = " NameFormat=\"urn:oasis:names:tc:SAML:2.0:attrname-format:uri\"";
    let level = value("Substantial");
    for (from, to, expected) in [
        ("eid/firstName", "eid/lastName".to_owned(), &["attribute-twice"][..]),
        ("eid/age", "eid/bootstrapToken".into(), &["attribute-forbidden"]),
        (">Bøje Æresen Østergård-Łukasz<", "> <".into(), &["attribute-required"]),
        (&*value("56"), "<saml:AttributeValue><a/></saml:AttributeValue>".into(), &["attribute-elements"]),
        (uri, String::new(), &["oiosaml3-name-format"]),
        ("OIO-SAML-3.0", "OIO-SAML-2.0".into(), &["spec-version", "oiosaml3-spec-version"]),
        (&level, level.clone() + &level, &["assurance-level", "oiosaml3-assurance"]),
        (&level, value("Low"), &["assurance-level"]),
        (&level, value("4"), &["assurance-level", "oiosaml3-assurance"]),
        (&level, String::new(), &["assurance-level", "oiosaml3-assurance"]),
        ("nsis/ial", "nsis/other".into(), &["attribute-not-allowed"]),
        ("eid/person/uuid/37a5a1aa-67ce", "eid/person/uuid/37a5a1aa67ce-".into(), &["oiosaml3-name-id"]),
        ("https://data.gov.dk/model/core/eid/person/uuid", "urn:uuid".into(), &["oiosaml3-name-id"]),
        (
            "<saml:Issuer>https://saml.nemlog-in.example</saml:Issuer>\n    <",
            "<saml:Issuer Format=\"urn:x\">https://saml.nemlog-in.example</saml:Issuer>\n    <".into(),
            &["oiosaml3-issuer"],
        ),
    ] {
        assert_eq!(broken(PERSON, from, &to), expected, "{to}");
    }
    let allowed = texts(&["https://data.gov.dk/model/core/eid/age"]);
    let elements = AssertionPolicy { element_valued_attributes: allowed, ..policy() };
    let document = PERSON.replacen(&value("56"), "<saml:AttributeValue><a/></saml:AttributeValue>", 1);
    assert_eq!(violations(&elements, &document, Some(Capacity::Citizen)), []);
}

#[test]
fn a_professional_has_a_company_with_a_number_and_a_name() {
    assert_eq!(broken(COMPANY, ">12345678<", ">1234567<"), ["capacity", "oiosaml3-professional"]);
    assert_eq!(broken(COMPANY, ">Korsbæk Kommune<", "><"), ["oiosaml3-professional"]);
    assert_eq!(
        broken(COMPANY, "eid/professional/orgName", "eid/orgName"),
        ["attribute-not-allowed", "oiosaml3-professional"]
    );
}

pub(super) const END: &str = "</saml:AttributeStatement>";

/// An attribute at the end of the statement.
pub(super) fn attribute(name: &str, more: &str, value: &str) -> String {
    format!(
        "<saml:Attribute Name=\"{name}\" {more} NameFormat=\"urn:oasis:names:tc:SAML:2.0:attrname-format:uri\">\
         <saml:AttributeValue>{value}</saml:AttributeValue></saml:Attribute>{END}"
    )
}

pub(super) fn privileges(list: &str) -> String {
    attribute(&format!("{CORE}{PRIVILEGES}"), "", list)
}

pub(super) fn with_scopes(scopes: &[&str]) -> String {
    let groups: String = scopes.iter().map(|scope| format!("<PrivilegeGroup Scope=\"{scope}\"/>")).collect();
    let namespace = "http://itst.dk/oiosaml/basic_privilege_profile";
    STANDARD.encode(format!("<b:PrivilegeList xmlns:b=\"{namespace}\">{groups}</b:PrivilegeList>"))
}

fn in_privileges(sample: &str, list: &str) -> String {
    let start = sample.find("PD94").unwrap();
    let end = start + sample[start..].find('<').unwrap();
    [&sample[..start], list, &sample[end..]].concat()
}

#[test]
fn acting_for_a_company_is_what_the_assertion_says() {
    let ask = |document: &str, cvr: &str| rules(&violations(&policy(), document, Some(Capacity::Company(cvr))));
    let scope = |cvr: &str| format!("urn:dk:gov:saml:cvrNumberIdentifier:{cvr}");
    // The number, and the rights for another than is acted for.
    assert_eq!(ask(COMPANY, "87654321"), ["capacity", "capacity"]);
    assert_eq!(ask(PERSON, CVR), ["capacity"]);
    assert_eq!(ask(&COMPANY.replace(">12345678<", ">12345678 <"), CVR), ["capacity", "oiosaml3-professional"]);
    assert_eq!(ask(&COMPANY.replace(">12345678<", "><"), ""), ["capacity", "capacity", "oiosaml3-professional"]);
    // Another company's professional, with rights for ours; ours, with rights for another, or for what may be another's.
    assert_eq!(ask(&COMPANY.replacen(">12345678<", ">87654321<", 1), CVR), ["capacity"]);
    for scopes in [&[&*scope("87654321")][..], &[&scope(CVR), "urn:dk:gov:saml:productionUnitIdentifier:1234567890"]] {
        let document = in_privileges(COMPANY, &with_scopes(scopes));
        assert_eq!(ask(&document, CVR), ["capacity"], "{scopes:?}");
        let other_companies = AssertionPolicy { other_companies: true, ..policy() };
        assert_eq!(violations(&other_companies, &document, Some(Capacity::Company(CVR))), []);
    }
    // The NameID of a person in a professional's assertion.
    assert_eq!(ask(&COMPANY.replacen("eid/professional/uuid/5d", "eid/person/uuid/5d", 1), CVR), ["capacity"]);
    // A mandate: somebody who is no professional has rights for a company.
    let mandate = |scopes: &[&str]| PERSON.replacen(END, &privileges(&with_scopes(scopes)), 1);
    assert_eq!(ask(&mandate(&[&scope(CVR)]), CVR), [""; 0]);
    assert_eq!(ask(&mandate(&[&scope(CVR), &scope("87654321")]), CVR), ["capacity"]);
    assert_eq!(ask(&mandate(&[&scope(CVR)]), "22222222"), ["capacity", "capacity"]);
    assert_eq!(ask(&in_privileges(COMPANY, "AAAA"), CVR), ["privileges"]);
    assert_eq!(ask(&in_privileges(COMPANY, "AAAA"), "87654321"), ["privileges", "capacity"]);
    assert_eq!(rules(&violations(&policy(), COMPANY, None)), ["capacity"]);
    let not_compared = AssertionPolicy { capacity: CapacityRule::NotCompared, ..policy() };
    assert_eq!(violations(&not_compared, COMPANY, None), []);
}

#[test]
fn a_citizen_s_assertion_has_nothing_of_a_professional() {
    let told = violations(&policy(), COMPANY, Some(Capacity::Citizen));
    // Three attributes, the rights and the NameID.
    assert_eq!(rules(&told), ["capacity"; 5]);
    let list = |scope: &str| broken(PERSON, END, &privileges(&with_scopes(&[scope])));
    assert_eq!(list("urn:dk:gov:saml:cprNumberIdentifier:0101701234"), [""; 0]);
    assert_eq!(list("urn:dk:gov:saml:cvrNumberIdentifier:12345678"), ["capacity"]);
    assert_eq!(list("urn:dk:gov:saml:productionUnitIdentifier:1234567890"), ["capacity"]);
}

#[test]
fn a_document_with_very_many_violations_is_told_of_some() {
    let attribute = "<saml:Attribute Name=\"urn:a\"/>".repeat(100);
    let document = PERSON.replacen("</saml:AttributeStatement>", &(attribute + "</saml:AttributeStatement>"), 1);
    let told = violations(&policy(), &document, Some(Capacity::Citizen));
    assert_eq!((told.len(), told.last().unwrap().rule), (VIOLATIONS_MAX, "more"));
}

proptest! {
    /// Whatever is written for the end of validity, nothing passes that ends later than the policy says.
    #[test]
    fn nothing_passes_that_is_valid_for_longer(
        time in prop_oneof![
            "20[23][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,4})?(Z|\\+01:00)?",
            "2026-11-21T1[01]:[0-2][0-9]:[0-5][0-9]Z",
            "[0-9TZ:.-]{0,24}",
        ],
    ) {
        let document = PERSON.replacen("2026-11-21T11:15:30.123Z", &time, 1);
        let told = violations(&policy(), &document, Some(Capacity::Citizen));
        let issued_ms = unix_ms("2026-11-21T10:15:30.123Z").unwrap();
        let good = unix_ms(&time).is_some_and(|end| end > issued_ms + 877 && end <= issued_ms + 3_600_000);
        prop_assert_eq!(rules(&told), if good { vec![] } else { vec!["conditions"] });
    }

    /// Whatever the names and values: a citizen's assertion that passes has no attribute of a professional.
    #[test]
    fn no_citizen_passes_with_an_attribute_of_a_professional(
        name in prop_oneof!["eid/(person|professional)/[a-z]{0,4}", "eid/[a-zA-Z/]{0,12}"],
        value in "[a-zA-Z0-9 ]{0,9}",
    ) {
        let attribute = format!(
            "<saml:Attribute Name=\"https://data.gov.dk/model/core/{name}\" \
             NameFormat=\"urn:oasis:names:tc:SAML:2.0:attrname-format:uri\"><saml:AttributeValue>{value}\
             </saml:AttributeValue></saml:Attribute></saml:AttributeStatement>"
        );
        let document = PERSON.replacen("</saml:AttributeStatement>", &attribute, 1);
        let told = violations(&policy(), &document, Some(Capacity::Citizen));
        prop_assert!(!name.starts_with("eid/professional/") || rules(&told).contains(&"capacity"));
    }

    #[test]
    fn no_list_of_privileges_makes_it_panic(list in "[A-Za-z0-9+/= ]{0,40}", xml in "[<>/a-zA-Z=\" :]{0,40}") {
        for list in [list, STANDARD.encode(xml)] {
            let told = violations(&policy(), &in_privileges(COMPANY, &list), Some(Capacity::Company(CVR)));
            prop_assert_eq!(rules(&told), ["privileges"]);
        }
    }
}
