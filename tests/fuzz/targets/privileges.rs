//! A PrivilegeList, which stands in base64 inside an attribute: what rights it gives is read a second time, off its
//! canonical form, and the verdicts of the policy are held against that.
#![no_main]

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use libfuzzer_sys::fuzz_target;
use segl_assertion::{
    Capacity, Pattern,
    policy::{AssertionPolicy, ConfirmationMethod, Profile},
    saml::{Document, Limits, canonical_form},
};

/// A citizen's assertion, which has no list, and a professional's, which has one; each with a second after its issue.
const PERSON: &str = include_str!("../../../assertion/tests/samples/person.xml");
const PERSON_NOW: u64 = 1_795_256_131;
const COMPANY: &str = include_str!("../../../assertion/tests/samples/company.xml");
const COMPANY_NOW: u64 = 1_795_248_001;

/// The company of the professional.
const CVR: &str = "12345678";

/// The Scope that is that company's, and how that of a person begins.
const OWN_SCOPE: &str = "urn:dk:gov:saml:cvrNumberIdentifier:12345678";
const PERSON_SCOPE: &str = "urn:dk:gov:saml:cprNumberIdentifier:";

/// What takes both, but for their lists.
static POLICY: LazyLock<AssertionPolicy> = LazyLock::new(|| {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let pattern = |text: &str| Pattern::new(text).expect("a pattern");
    AssertionPolicy {
        issuers: texts(&["https://saml.nemlog-in.example"]),
        audiences: vec![pattern("https://selvbetjening.korsbaek.example"), pattern("https://sag.korsbaek.example")],
        confirmation_methods: vec![ConfirmationMethod::Bearer, ConfirmationMethod::HolderOfKey],
        validity_max_s: 3600,
        clock_distance_max_s: 60,
        name_id_formats: texts(&[
            "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
            "urn:oasis:names:tc:SAML:2.0:nameid-format:transient",
        ]),
        spec_versions: texts(&["OIO-SAML-3.0"]),
        assurance_levels: texts(&["Substantial", "High"]),
        authn_context_classes: texts(&[
            "urn:oasis:names:tc:SAML:2.0:ac:classes:MobileTwoFactorContract",
            "urn:oasis:names:tc:SAML:2.0:ac:classes:X509",
        ]),
        friendly_names: [("eid/fullName", "Fulde navn"), ("eid/professional/cvr", "CVR nummer")]
            .map(|(attribute, name)| (format!("https://data.gov.dk/model/core/{attribute}"), name.to_owned()))
            .into(),
        profile: Some(Profile::Oiosaml3),
        ..AssertionPolicy::default()
    }
});

/// The citizen's assertion with a list: a mandate, if it is for a company.
fn mandate(list: &str) -> String {
    const END: &str = "</saml:AttributeStatement>";
    let attribute = format!(
        "<saml:Attribute Name=\"https://data.gov.dk/model/core/eid/privilegesIntermediate\" \
         NameFormat=\"urn:oasis:names:tc:SAML:2.0:attrname-format:uri\"><saml:AttributeValue>{list}\
         </saml:AttributeValue></saml:Attribute>{END}"
    );
    PERSON.replacen(END, &attribute, 1)
}

/// The professional's assertion with another list in place of its own, the only one that begins so.
fn professional(list: &str) -> String {
    let (before, rest) = COMPANY.split_once("PD94").expect("the sample has a list");
    let (_, after) = rest.split_once('<').expect("an end tag follows the list");
    [before, list, "<", after].concat()
}

/// The rules that a document breaks.
fn broken(document: &str, capacity: Capacity<'_>, now_unix_s: u64) -> Vec<&'static str> {
    let parsed = Document::parse(document.as_bytes(), &Limits::default()).expect("base64 is any text");
    let violations = POLICY.check(parsed.assertion(), Some(capacity), now_unix_s);
    violations.into_iter().map(|violation| violation.rule).collect()
}

/// The Scope of every PrivilegeGroup of a list that was read. In the canonical form there is no comment, no `<` but that
/// of a tag, no quote inside a value and no more than one space between attributes.
fn scopes(list: &[u8]) -> Vec<String> {
    let canonical = canonical_form(list, &[], &Limits::default()).expect("it was read with narrower limits");
    let canonical = String::from_utf8(canonical).expect("XML of text is text");
    let scope_of = |tag: &str| {
        let (name, mut rest) = tag.split_at(tag.find([' ', '>'])?);
        if name.rsplit(':').next() != Some("PrivilegeGroup") {
            return None;
        }
        // An end tag has no attribute and stops at its `>`.
        while let Some((attribute, value)) = rest.strip_prefix(' ').and_then(|rest| rest.split_once("=\"")) {
            let (value, after) = value.split_once('"')?;
            if attribute == "Scope" {
                return Some(value.to_owned());
            }
            rest = after;
        }
        None
    };
    canonical.split('<').skip(1).filter_map(scope_of).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let list = STANDARD.encode(bytes);
    let mandate = mandate(&list);
    let as_citizen = broken(&mandate, Capacity::Citizen, PERSON_NOW);
    // What is no list is a violation by itself, and gives nobody a right.
    let unreadable = as_citizen.contains(&"privileges");
    let scopes = if unreadable { Vec::new() } else { scopes(bytes) };
    let is_persons = |scope: &String| scope.starts_with(PERSON_SCOPE);
    let own = scopes.iter().any(|scope| scope == OWN_SCOPE);
    let others = scopes.iter().any(|scope| scope != OWN_SCOPE && !is_persons(scope));
    let expected = |capacity: usize| {
        let mut rules = vec!["privileges"; usize::from(unreadable)];
        rules.resize(rules.len() + capacity, "capacity");
        rules
    };
    // A citizen has rights for persons alone.
    assert_eq!(as_citizen, expected(usize::from(own || others)), "{scopes:?}");
    // Who is no professional acts for the company that his rights are for; and nobody has rights for another company
    // or for a part of one, which does not say of which.
    let by_mandate = broken(&mandate, Capacity::Company(CVR), PERSON_NOW);
    assert_eq!(by_mandate, expected(usize::from(!own) + usize::from(others)), "{scopes:?}");
    let by_profession = broken(&professional(&list), Capacity::Company(CVR), COMPANY_NOW);
    assert_eq!(by_profession, expected(usize::from(others)), "{scopes:?}");
});
