//! Whoever owns a broker looks for an assertion that the policy reads in one way and a service provider in another. Here
//! the samples are changed at random, in the ways that such attacks have gone; what is still taken is read by libraries
//! that service providers use, and by those who read carelessly.

use std::fmt::Write;

use segl_assertion::saml::{Assertion, Document, Limits};
use serde_json::{Value, json};

use crate::tools::{COMPANY, PERSON, folder, python, run};

/// Documents that are still taken, of each sample.
const TAKEN: usize = 1_500;

/// What is put between two pieces of markup, into texts and after them.
const PIECES: [&str; 36] = [
    "<!-- c -->",
    "<!---->",
    "<![CDATA[x]]>",
    "<![CDATA[]]>",
    " ",
    "\r\n\t",
    "&#xA0;",
    "&#xD;",
    "&#x9;",
    "\u{200B}",
    "&amp;",
    "&lt;!-- --&gt;",
    "x",
    "<saml:Audience>https://evil.example</saml:Audience>",
    "<saml:AttributeValue>evil</saml:AttributeValue>",
    "<saml:AttributeValue/>",
    "<saml:NameID>evil</saml:NameID>",
    "<NameID xmlns=\"urn:x\">evil</NameID>",
    "<x:Audience xmlns:x=\"urn:x\">evil</x:Audience>",
    "<x:y xmlns:x=\"urn:x\">evil</x:y>",
    "<x:y xmlns:x=\"urn:x\" Name=\"evil\" ID=\"_e\"/>",
    "<y xmlns=\"\">evil</y>",
    "<y xmlns=\"\"><z/>evil<!-- c --></y>",
    "<saml:AuthnContextClassRef>evil</saml:AuthnContextClassRef>",
    "<saml:AuthenticatingAuthority>urn:a</saml:AuthenticatingAuthority>",
    "<saml:AudienceRestriction><saml:Audience>urn:a</saml:Audience></saml:AudienceRestriction>",
    "<saml:OneTimeUse/>",
    "<saml:SubjectLocality Address=\"1.2.3.4\"/>",
    "<saml:SubjectConfirmation Method=\"urn:m\"><saml:SubjectConfirmationData Recipient=\"urn:r\"/></saml:SubjectConfirmation>",
    "<saml:Attribute Name=\"urn:extra\"><saml:AttributeValue>1</saml:AttributeValue></saml:Attribute>",
    "<saml:Attribute Name=\"urn:two\"><saml:AttributeValue>1</saml:AttributeValue><saml:AttributeValue>2</saml:AttributeValue></saml:Attribute>",
    "<saml:Attribute Name=\"urn:none\"/>",
    "<saml:Attribute Name=\"urn:elements\"><saml:AttributeValue><y xmlns=\"urn:y\"/></saml:AttributeValue></saml:Attribute>",
    "<saml:Advice/>",
    "<samlp:Extensions/>",
    "<saml:Assertion/>",
];

/// What is put into tags.
const ATTRIBUTES: [&str; 20] = [
    " xml:lang=\"da\"",
    " xml:space=\"preserve\"",
    " xmlns:x=\"urn:x\"",
    " xmlns:x=\"urn:x\" x:Name=\"evil\"",
    " xmlns:saml2=\"urn:oasis:names:tc:SAML:2.0:assertion\"",
    " xmlns=\"urn:oasis:names:tc:SAML:2.0:assertion\"",
    " xmlns=\"urn:x\"",
    " xmlns=\"\"",
    " FriendlyName=\"x\"",
    " NameQualifier=\"urn:q\"",
    " SPNameQualifier=\"urn:q\"",
    " SessionNotOnOrAfter=\"2026-11-21T12:00:00Z\"",
    " NotBefore=\"2026-11-21T10:00:00Z\"",
    " Address=\"a&#10;b\"",
    " InResponseTo=\"a\tb\"",
    " Id=\"_e\"",
    " saml:Recipient=\"urn:evil\"",
    " xsi:type=\"xs:integer\"",
    " xsi:type=\"xs:boolean\"",
    "\n ",
];

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// A place right before or after a `<`, `>` or `"`, or anywhere in a text.
    fn place(&mut self, document: &str) -> usize {
        let marks: Vec<usize> = match self.below(4) {
            0 => document.match_indices('<').map(|(at, _)| at).collect(),
            1 | 2 => document.match_indices('>').map(|(at, _)| at + 1).collect(),
            _ => document.char_indices().map(|(at, _)| at).collect(),
        };
        marks[self.below(marks.len())]
    }

    fn changed(&mut self, sample: &str) -> String {
        let mut document = sample.to_owned();
        for _ in 0..=self.below(3) {
            let at = self.place(&document);
            match self.below(8) {
                0..=3 => document.insert_str(at, self.pick(&PIECES)),
                4 | 5 => {
                    let ends: Vec<usize> = document.match_indices('>').map(|(at, _)| at).collect();
                    let end = ends[self.below(ends.len())];
                    let end = if document[..end].ends_with('/') { end - 1 } else { end };
                    document.insert_str(end, self.pick(&ATTRIBUTES));
                }
                6 => {
                    // A copy of some of it.
                    let (from, to) = (self.place(&document), self.place(&document));
                    let to = document.floor_char_boundary(from.max(to).min(from.min(to) + 400));
                    let piece = document[from.min(to)..to].to_owned();
                    document.insert_str(at, &piece);
                }
                _ => {
                    // Some of it gone.
                    let to = self.place(&document);
                    if at.abs_diff(to) < 400 {
                        document.replace_range(at.min(to)..at.max(to), "");
                    }
                }
            }
        }
        if sample == COMPANY { document.replace("saml:A", "A").replace("saml:N", "N") } else { document }
    }
}

/// What a policy reads. None of what every policy refuses: without what must be there, and with names that stand twice.
fn reading(assertion: Assertion<'_>) -> Option<Value> {
    let subject = assertion.subject()?;
    let name_id = subject.name_id()?;
    let conditions = assertion.conditions()?;
    let statement = assertion.authn_statements().next()?;
    assertion.attribute_statements().next()?;
    let names: Vec<&str> = assertion.attributes().map(|attribute| attribute.name()).collect();
    let friendly_names: Vec<&str> = assertion.attributes().filter_map(|attribute| attribute.friendly_name()).collect();
    let twice = |names: &[&str]| names.iter().enumerate().any(|(at, name)| names[..at].contains(name));
    if twice(&names) || twice(&friendly_names) || statement.class_ref().is_none() || name_id.value().is_empty() {
        return None;
    }
    let audiences = conditions.audience_restrictions().flat_map(|restriction| restriction.audiences());
    let audiences: Vec<&str> = audiences.map(|audience| audience.text()).collect();
    if audiences.is_empty() || audiences.contains(&"") || assertion.issuer().value().is_empty() {
        return None;
    }
    let confirmations = subject.confirmations().filter_map(|confirmation| {
        let data = confirmation.data()?;
        Some(json!([confirmation.method(), data.recipient(), data.not_on_or_after(), data.in_response_to()]))
    });
    let attributes = assertion.attributes().map(|attribute| {
        let values: Vec<Option<&str>> = attribute.values().map(|value| value.text()).collect();
        json!([attribute.name(), attribute.friendly_name(), values])
    });
    Some(json!({
        "id": assertion.id(), "issue_instant": assertion.issue_instant(), "issuer": assertion.issuer().value(),
        "name_id": [name_id.value(), name_id.format(), name_id.sp_name_qualifier()],
        "confirmations": confirmations.collect::<Vec<_>>(),
        "conditions": [conditions.not_before(), conditions.not_on_or_after()], "audiences": audiences,
        "session": [statement.session_index(), statement.session_not_on_or_after()],
        "class_ref": [statement.class_ref()], "attributes": attributes.collect::<Vec<_>>(),
    }))
}

#[test]
fn what_is_taken_is_read_by_every_reader_as_the_policy_reads_it() {
    let mut lines = String::new();
    for sample in [PERSON, COMPANY] {
        let (mut taken, mut tried) = (0, 0);
        while taken < TAKEN {
            tried += 1;
            assert!(tried < 100 * TAKEN, "{taken} of {tried} are taken");
            let xml = Dice((tried as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)).changed(sample);
            let Ok(document) = Document::parse(xml.as_bytes(), &Limits::default()) else { continue };
            let Some(reading) = reading(document.assertion()) else { continue };
            writeln!(lines, "{}", json!({ "xml": xml, "reading": reading })).unwrap();
            taken += 1;
        }
    }
    let said = run(python().arg(folder().join("readers.py")), lines.as_bytes()).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(said.trim(), (2 * TAKEN).to_string());
}
