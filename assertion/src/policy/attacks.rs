//! Documents that say one thing to the policy and another to some reader, or that cost more than they are worth.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{tests::*, *};
use crate::saml::{Document, Limits};

#[test]
fn no_name_passes_that_some_reader_takes_for_another() {
    for (name, more, expected) in [
        ("https://data.gov.dk/model/core/eid/Professional/CVR", "", &["attribute-not-allowed", "capacity"][..]),
        ("&#x9;https://data.gov.dk/model/core/eid/professional/cvr ", "", &["attribute-not-allowed", "capacity"]),
        ("https://data.gov.dk/model/core/eid/bootstrapToken ", "", &["attribute-not-allowed"]),
        ("dk:gov:saml:attribute:CvrNumberIdentifier", "", &["attribute-not-allowed", "capacity"]),
        ("dk:gov:saml:attribute:Privileges_intermediate", "", &["attribute-not-allowed", "privileges"]),
        ("dk:gov:saml:attribute:AssuranceLevel", "", &["attribute-not-allowed", "assurance-level"]),
        ("urn:x", "FriendlyName=\"cvr\"", &["attribute-not-allowed", "friendly-name"]),
        ("https://data.gov.dk/model/core/eid/alias", "FriendlyName=\"cvr\"", &["friendly-name"]),
        ("https://data.gov.dk/model/core/eid/alias", "FriendlyName=\"alias\"", &[]),
        (
            "https://data.gov.dk/model/core/eid/dateOfBirth",
            "FriendlyName=\"Fulde navn\"",
            &["friendly-name", "attribute-twice"],
        ),
    ] {
        let told: Vec<_> = broken(PERSON, END, &attribute(name, more, "4"));
        let told: Vec<_> = told.into_iter().filter(|rule| *rule != "oiosaml3-professional").collect();
        assert_eq!(told, expected, "{name} {more}");
    }
    let twin = attribute("https://data.gov.dk/model/core/eid/professional/CVR", "", "87654321").replace("saml:", "");
    assert_eq!(broken(COMPANY, "</AttributeStatement>", &twin), ["attribute-not-allowed"]);
    // One attribute's FriendlyName is another's Name.
    let email = format!("{CORE}eid/email");
    let friendly =
        PERSON.replacen(&format!("Name=\"{email}\""), &format!("Name=\"{email}\" FriendlyName=\"email\""), 1);
    let short = AssertionPolicy { allowed_attributes: texts(&["email"]), ..policy() };
    let both = friendly.replacen(END, &attribute("email", "", "eve@evil.example"), 1);
    assert_eq!(violations(&short, &friendly, Some(Capacity::Citizen)), []);
    assert_eq!(rules(&violations(&short, &both, Some(Capacity::Citizen))), ["attribute-twice"]);
    // Without a profile nothing is allowed but what is listed.
    let bare = AssertionPolicy { profile: None, ..policy() };
    let told = violations(&bare, PERSON, Some(Capacity::Citizen));
    assert_eq!(rules(&told), ["attribute-not-allowed"; 6]);
    let names =
        ["firstName", "lastName", "cprNumber", "cprUuid", "age", "email"].map(|name| format!("{CORE}eid/{name}"));
    let listed = AssertionPolicy { allowed_attributes: names.into(), ..bare };
    assert_eq!(violations(&listed, PERSON, Some(Capacity::Citizen)), []);
}

#[test]
fn a_level_of_assurance_is_no_higher_anywhere_than_the_policy_says() {
    let low = AssertionPolicy { assurance_levels: texts(&["Substantial"]), ..policy() };
    let ask = |document: &str| rules(&violations(&low, document, Some(Capacity::Citizen)));
    assert_eq!(ask(PERSON), [""; 0]);
    for part in ["ial", "aal"] {
        let at = PERSON.find(&format!("nsis/{part}\"")).unwrap();
        let higher = [&PERSON[..at], &PERSON[at..].replacen(">Substantial<", ">High<", 1)].concat();
        assert_eq!(ask(&higher), ["assurance-level"], "{part}");
    }
    let class = "urn:oasis:names:tc:SAML:2.0:ac:classes:MobileTwoFactorContract";
    let element = |class: &str| format!("<saml:AuthnContextClassRef>{class}</saml:AuthnContextClassRef>");
    let level = |level: &str| element(&format!("{LEVEL_CLASS}{level}"));
    let more = |name: &str| format!("{}<saml:{name}>urn:x</saml:{name}>", element(class));
    for (to, expected) in [
        (level("High"), &["authn-context"][..]),
        (level("Substantial"), &[]),
        (level("substantial"), &["authn-context"]),
        (element("urn:other"), &["authn-context"]),
        (String::new(), &["authn-context"]),
        (more("AuthnContextDeclRef"), &["authn-context"]),
        (more("AuthenticatingAuthority"), &["authn-context"]),
    ] {
        assert_eq!(ask(&PERSON.replacen(&element(class), &to, 1)), expected, "{to}");
    }
    let from = PERSON.find("<saml:AuthnContext>").unwrap();
    let to = PERSON.find("</saml:AuthnContext>").unwrap() + "</saml:AuthnContext>".len();
    assert_eq!(ask(&[&PERSON[..from], &PERSON[to..]].concat()), ["authn-context"]);
}

#[test]
fn who_confirms_shows_the_key_or_comes_to_the_recipient() {
    let recipient = " Recipient=\"https://selvbetjening.korsbaek.example/saml/acs\"";
    let bare = AssertionPolicy {
        profile: None,
        allowed_attributes: PERSON
            .split("Name=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().into())
            .collect(),
        ..policy()
    };
    let ask = |policy: &AssertionPolicy, document: &str| rules(&violations(policy, document, Some(Capacity::Citizen)));
    assert_eq!(ask(&bare, PERSON), [""; 0]);
    assert_eq!(ask(&bare, &PERSON.replacen(recipient, "", 1)), ["recipient"]);
    let from = PERSON.find("<saml:SubjectConfirmation ").unwrap();
    let to = PERSON.find("</saml:Subject>").unwrap();
    let confirmed = |by: &str| {
        let method = "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key";
        let confirmation = format!("<saml:SubjectConfirmation Method=\"{method}\">{by}</saml:SubjectConfirmation>");
        ask(&bare, &[&PERSON[..from], &confirmation, &PERSON[to..]].concat())
    };
    assert_eq!(confirmed(""), ["confirmation"]);
    assert_eq!(confirmed("<saml:SubjectConfirmationData/>"), ["confirmation"]);
    let key = "<saml:SubjectConfirmationData><ds:KeyInfo xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">\
               <ds:X509Data><ds:X509SKI>AA==</ds:X509SKI></ds:X509Data></ds:KeyInfo></saml:SubjectConfirmationData>";
    assert_eq!(confirmed(key), [""; 0]);
    let bearer = AssertionPolicy { confirmation_methods: vec![ConfirmationMethod::Bearer], ..policy() };
    assert_eq!(rules(&violations(&bearer, COMPANY, Some(Capacity::Company(CVR)))), ["confirmation"]);
    // A key that somebody who bears the assertion need not have.
    let in_bearer = COMPANY.replacen("cm:holder-of-key", "cm:bearer", 1);
    assert!(rules(&violations(&policy(), &in_bearer, Some(Capacity::Company(CVR)))).contains(&"confirmation"));
    let qualified = |qualifier: &str| PERSON.replacen("<saml:NameID ", &format!("<saml:NameID {qualifier} "), 1);
    for (qualifier, expected) in [
        ("NameQualifier=\"https://saml.nemlog-in.example\"", &[][..]),
        ("SPNameQualifier=\"https://sag.korsbaek.example\"", &[]),
        ("NameQualifier=\"https://evil.example\"", &["name-id"]),
        ("SPNameQualifier=\"https://evil.example\"", &["name-id"]),
    ] {
        assert_eq!(ask(&policy(), &qualified(qualifier)), expected, "{qualifier}");
    }
}

#[test]
fn a_list_of_privileges_has_nothing_that_a_reader_could_take_for_another_scope() {
    let cvr = "urn:dk:gov:saml:cvrNumberIdentifier:87654321";
    let cpr = "urn:dk:gov:saml:cprNumberIdentifier:0101701234";
    let ask = |inner: &str| {
        let list = format!(
            "<b:PrivilegeList xmlns:b=\"http://digst.dk/oiosaml/basic_privilege_profile\">{inner}</b:PrivilegeList>"
        );
        broken(PERSON, END, &privileges(&STANDARD.encode(list)))
    };
    let group = |more: &str, inner: &str| format!("<PrivilegeGroup {more}>{inner}</PrivilegeGroup>");
    let good = group(
        &format!("Scope=\"{cpr}\""),
        "<!-- c --><Privilege>urn:x</Privilege><Constraint Name=\"urn:c\">1</Constraint>",
    );
    assert_eq!(ask(&good), [""; 0]);
    assert_eq!(ask(&group(&format!("Scope=\"{cvr}\""), "")), ["capacity"]);
    for refused in [
        group(&format!("Scope=\"{cpr}\""), &group(&format!("Scope=\"{cvr}\""), "<Privilege>urn:x</Privilege>")),
        group(&format!("Scope=\"{}\"", cvr.replace("urn:", "URN:")), ""),
        group(&format!("Scope=\"&#xA0;{cvr}\""), ""),
        group(&format!("Scope=\"&#x9;{cpr}\""), ""),
        group(&format!("Scope=\"{cpr}\" b:Scope=\"{cvr}\""), ""),
        group(&format!("Scope=\"{}\"", cvr.replace("cvr", "Cvr")), ""),
        group(&format!("Scope=\"{cpr}\""), "text"),
        group(&format!("Scope=\"{cpr}\""), "<Privilege>a<!-- c -->b</Privilege>"),
        group(&format!("Scope=\"{cpr}\""), &format!("<Privilege Scope=\"{cvr}\">urn:x</Privilege>")),
        group(&format!("Scope=\"{cpr}\""), "<Privilege><Privilege>urn:x</Privilege></Privilege>"),
    ] {
        assert_eq!(ask(&refused), ["privileges"], "{refused}");
    }
}

#[test]
fn nobody_who_acts_for_one_company_may_represent_another() {
    let name = format!("{CORE}eid/professional/authorizedToRepresent");
    let end = "</AttributeStatement>";
    let with = |value: &str| attribute(&name, "", value).replace("saml:", "");
    let two = with("12345678</AttributeValue><AttributeValue>87654321");
    assert_eq!(broken(COMPANY, end, &with(CVR)), [""; 0]);
    for value in [with("87654321"), with(""), with(" 12345678"), two] {
        assert_eq!(broken(COMPANY, end, &value), ["capacity"], "{value}");
    }
    let others = AssertionPolicy { other_companies: true, ..policy() };
    let document = COMPANY.replacen(end, &with("87654321"), 1);
    assert_eq!(violations(&others, &document, Some(Capacity::Company(CVR))), []);
}

#[test]
fn an_assertion_of_the_future_is_valid_no_longer_than_one_of_now() {
    let far = AssertionPolicy { clock_distance_max_s: 3600, ..policy() };
    let issued_later = |not_before: &str, until: &str| {
        let document = COMPANY
            .replacen("IssueInstant=\"2026-11-21T08:00:00Z\"", "IssueInstant=\"2026-11-21T09:00:00Z\"", 1)
            .replacen("NotBefore='2026-11-21T08:00:00Z'", &format!("NotBefore='2026-11-21T{not_before}Z'"), 1)
            .replacen("2026-11-21T08:30:00Z", &format!("2026-11-21T{until}Z"), 1);
        rules(&violations(&far, &document, Some(Capacity::Company(CVR))))
    };
    assert_eq!(issued_later("08:00:00", "09:00:01"), [""; 0]);
    assert_eq!(issued_later("08:00:00", "10:00:00"), ["conditions"]);
    assert_eq!(issued_later("10:00:00", "09:00:01"), ["conditions"]);
}

/// What a document costs is counted in steps from child to child, and the longest of frames is given to it.
#[test]
fn no_document_costs_more_than_a_few_readings_of_it() {
    let within = |limit: u64, document: &str| {
        let before = crate::saml::steps();
        if let Ok(parsed) = Document::parse(document.as_bytes(), &Limits::default()) {
            policy().check(parsed.assertion(), Some(Capacity::Citizen), now_of(document));
        }
        let steps = crate::saml::steps() - before;
        assert!(steps <= limit, "{steps} steps: {:.80}", &document[document.len() / 2..]);
    };
    let into =
        |sample: &str, at: &str, what: &str, many: usize| sample.replacen(at, &format!("{at}{}", what.repeat(many)), 1);
    within(3_000, COMPANY);
    within(3_000, PERSON);
    within(20_000, &into(COMPANY, "<AudienceRestriction>", "<Audience/>", 3950));
    let (statement, subject) = ("<saml:AttributeStatement>", "<saml:Subject>");
    within(20_000, &into(PERSON, statement, "<saml:Attribute Name=\"x\"/>", 1900));
    within(100_000, &into(PERSON, statement, "<saml:Attribute Name=\"x\"/>", 117));
    within(
        100_000,
        &into(PERSON, statement, "<!---->", 300).replacen(
            statement,
            &format!("{statement}{}", "<saml:Attribute Name=\"x\"/>".repeat(100)),
            1,
        ),
    );
    within(20_000, &into(PERSON, subject, "<!---->", 3900));
    within(20_000, &into(PERSON, "</saml:Conditions>", "<saml:AuthnStatement AuthnInstant=\"\"/>", 900));
    within(20_000, &into(PERSON, "</samlp:Status>", "<samlp:Extensions/>", 3900));
    let confirmation = "<saml:SubjectConfirmation Method=\"urn:oasis:names:tc:SAML:2.0:cm:bearer\"/>";
    within(20_000, &PERSON.replacen("</saml:Subject>", &format!("{}</saml:Subject>", confirmation.repeat(2000)), 1));
}
