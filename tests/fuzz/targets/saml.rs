//! XML from outside: parsed, held against a policy, canonicalised, and put together with a signature.
#![no_main]

use libfuzzer_sys::fuzz_target;
use segl_assertion::{
    Capacity, Pattern, VIOLATIONS_MAX,
    policy::{AssertionPolicy, ConfirmationMethod, Profile},
    saml::{DigestMethod, Document, KeyInfo, Limits, Rule, SignatureMethod, canonical_form},
};

/// When the seeds were issued: 2026-11-21T10:15:31Z.
const NOW: u64 = 1_795_256_131;

/// What takes the seeds.
fn policy() -> AssertionPolicy {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    AssertionPolicy {
        issuers: texts(&["https://saml.nemlog-in.example"]),
        audiences: vec![Pattern::new("https://selvbetjening.korsbaek.example").expect("a pattern")],
        confirmation_methods: vec![ConfirmationMethod::Bearer, ConfirmationMethod::HolderOfKey],
        validity_max_s: 3600,
        clock_distance_max_s: 60,
        name_id_formats: texts(&["urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"]),
        spec_versions: texts(&["OIO-SAML-3.0"]),
        assurance_levels: texts(&["Low", "Substantial"]),
        authn_context_classes: texts(&["urn:oasis:names:tc:SAML:2.0:ac:classes:MobileTwoFactorContract"]),
        profile: Some(Profile::Oiosaml3),
        ..AssertionPolicy::default()
    }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    if let Ok(canonical) = canonical_form(bytes, &[], &limits) {
        let again = canonical_form(&canonical, &[], &Limits { bytes_max: usize::MAX, ..limits });
        assert_eq!(again.as_ref(), Ok(&canonical), "a canonical form is its own");
    }
    let document = match Document::parse(bytes, &limits) {
        Ok(document) => document,
        Err(malformed) => {
            assert!(malformed.offset <= bytes.len() && malformed.line >= 1);
            return;
        }
    };
    let assertion = document.assertion();
    assert_eq!(assertion.id(), document.assertion().element().attribute("ID").unwrap_or_default());
    for attribute in assertion.attributes() {
        assert!(attribute.xpath().starts_with("/"));
        assert!(attribute.values().all(|value| value.text().is_none() == value.is_element_valued()));
    }
    let policy = policy();
    for capacity in [None, Some(Capacity::Citizen), Some(Capacity::Company("12345678"))] {
        let violations = policy.check(assertion, capacity, NOW);
        assert!(violations.len() <= VIOLATIONS_MAX);
        assert!(capacity.is_some() || !violations.is_empty());
        if violations.is_empty() {
            let level = |value: &str| assertion.attributes().any(|attribute| {
                attribute.name().ends_with("nsis/loa") && attribute.values().any(|other| other.text() == Some(value))
            });
            assert_eq!(assertion.issuer().value(), policy.issuers[0]);
            assert!(level("Low") || level("Substantial"));
            assert!(!level("High"));
        }
    }
    let prepared = document.prepare(SignatureMethod::RsaSha256, DigestMethod::Sha256, &KeyInfo::NONE);
    let (at, element) = prepared.clone().signature_element(&[1; 384]);
    let signed = prepared.finish(&[1; 384]);
    assert_eq!(signed, [&bytes[..at], &element, &bytes[at..]].concat());
    // Were the signature not there, what was signed is what is read.
    let more = Limits { bytes_max: usize::MAX, ..limits };
    let refused = Document::parse(&signed, &more).expect_err("it is signed now").rule;
    let limited = [Rule::TooManyNodes, Rule::TooManyAttributes, Rule::TooManyNamespaces, Rule::TooDeep];
    assert!(refused == Rule::AlreadySigned || limited.contains(&refused), "{refused:?}");
});
