//! XML from outside: parsed, read as a policy reads it, canonicalised, and put together with a signature.
#![no_main]

use libfuzzer_sys::fuzz_target;
use segl_assertion::saml::{DigestMethod, Document, KeyInfo, Limits, Rule, SignatureMethod, canonical_form};

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
