//! What a change of one byte does to a signed assertion.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use proptest::prelude::*;
use segl_assertion::saml::{DigestMethod, Document, KeyInfo, Limits, SignatureMethod, canonical_form};

const PERSON: &str = include_str!("samples/person.xml");
const COMPANY: &str = include_str!("samples/company.xml");

/// What a byte is replaced with.
const REPLACEMENTS: &[u8] = b" \n\tx0&<>'\"=/:#";

fn parse(document: &str) -> Document<'_> {
    Document::parse(document.as_bytes(), &Limits::default()).expect("the sample is sound")
}

/// The Signature of a document, and where it goes.
fn signature(document: &Document<'_>) -> (usize, String) {
    let prepared = document.prepare(SignatureMethod::EcdsaSha256, DigestMethod::Sha256, &KeyInfo::NONE);
    let (at, element) = prepared.signature_element(&[7; 64]);
    (at, String::from_utf8(element).expect("XML is UTF-8"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_changed_byte_changes_the_digest_exactly_when_it_changes_the_canonical_octets(
        company: bool,
        at: prop::sample::Index,
        with in prop::sample::select(REPLACEMENTS),
    ) {
        let sample = if company { COMPANY } else { PERSON };
        let mut changed = sample.as_bytes().to_vec();
        let at = at.index(changed.len());
        changed[at] = with;
        // Most changes make it no document, or another rule refuses it: those are not signed at all.
        if let Ok(changed) = Document::parse(&changed, &Limits::default()) {
            let sample = parse(sample);
            let same = changed.canonical_form() == sample.canonical_form();
            let digests = [&changed, &sample].map(|document| document.digest(DigestMethod::Sha256).as_ref().to_vec());
            prop_assert_eq!(same, digests[0] == digests[1]);
        }
    }
}

#[test]
fn the_output_is_the_input_s_tree_and_the_signature() {
    for sample in [PERSON, COMPANY] {
        let document = parse(sample);
        let (at, element) = signature(&document);
        let output = [&sample[..at], &element, &sample[at..]].concat();
        let [before, after] = [sample, &output].map(|document| {
            String::from_utf8(canonical_form(document.as_bytes(), &[], &Limits::default()).unwrap()).unwrap()
        });
        // The signature is written as the canonical form writes it.
        let (left, right) = after.split_once(&element).expect("the signature is there as it was made");
        assert_eq!([left, right].concat(), before);
        assert!(left.ends_with("Issuer>"));
    }
}

#[test]
fn the_digest_is_that_of_the_canonical_octets() {
    for sample in [PERSON, COMPANY] {
        let document = parse(sample);
        let octets = document.canonical_form();
        for (method, algorithm) in [
            (DigestMethod::Sha256, &ring::digest::SHA256),
            (DigestMethod::Sha384, &ring::digest::SHA384),
            (DigestMethod::Sha512, &ring::digest::SHA512),
        ] {
            assert_eq!(document.digest(method).as_ref(), ring::digest::digest(algorithm, &octets).as_ref());
        }
    }
}

mod python {
    use super::*;

    #[test]
    #[ignore = "needs a Python with lxml: cargo xtask test --stage python"]
    fn libxml2_verifies_a_changed_document_exactly_when_its_canonical_octets_are_the_same() {
        let python = std::env::var_os("SEGL_PYTHON").expect("SEGL_PYTHON names the Python to use");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/digest.py");
        let (mut cases, mut count, mut verifying) = (Vec::new(), 0, 0);
        for sample in [PERSON, COMPANY] {
            let (_, element) = signature(&parse(sample));
            let canonical = parse(sample).canonical_form();
            let places = sample.char_indices().filter(|(_, character)| character.is_ascii());
            for (index, (at, _)) in places.enumerate() {
                let with = char::from(REPLACEMENTS[index % REPLACEMENTS.len()]);
                let changed = format!("{}{with}{}", &sample[..at], &sample[at + 1..]);
                // What is refused is not signed; what libxml2 would make of it is nobody's concern.
                let Ok(document) = Document::parse(changed.as_bytes(), &Limits::default()) else { continue };
                let verifies = document.canonical_form() == canonical;
                let (into, _) = signature(&document);
                let xml = [&changed[..into], &element, &changed[into..]].concat();
                let case =
                    serde_json::json!({ "xml": xml, "verifies": verifies, "changed": format!("{at}: {with:?}") });
                writeln!(cases, "{case}").unwrap();
                count += 1;
                verifying += usize::from(verifies);
            }
        }
        assert!(count > 4000 && verifying > 100, "{count} documents, {verifying} of them still verify");
        let mut child =
            Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python runs");
        let written = child.stdin.take().unwrap().write_all(&cases);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "libxml2 sees it differently; see above");
        written.unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), count.to_string());
    }
}
