//! Canonical forms of generated documents, compared with those of libxml2.

#![allow(clippy::unwrap_used, reason = "all of it is tests, the generator too")]

use std::{
    fmt::Write as _,
    io::Write,
    process::{Command, Stdio},
};

use segl_assertion::saml::{Limits, canonical_form, canonical_form_of};
use serde_json::json;

/// Documents that go through one Python process, in a few seconds.
const DOCUMENTS: u64 = 20_000;

const URIS: [&str; 5] = ["urn:example:b", "urn:example:a", "http://example.com/?q=1#x", "urn:z", "http://example.com/"];

const VALUES: [&str; 24] = [
    "x",
    "value",
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "&amp;",
    "&lt;",
    "&gt;",
    "&quot;",
    "&apos;",
    "&#9;",
    "&#10;",
    "&#13;",
    "&#xD;",
    "&#x20;",
    "Korsbæk",
    "\u{1D11E}",
    "&#x1D11E;",
    ">",
    "\u{85}",
    "\u{FFFD}",
];

const TEXTS: [&str; 8] =
    ["]", "<![CDATA[<&>]] \r\n\"]]>", "<![CDATA[]]>", "<!-- a comment -->", "<!---->", "'", "\"", "\u{2028}"];

const LOCALS: [&str; 6] = ["x", "y", "Z", "ærø", "_1", "x-1.2"];

/// A generator that needs nothing: documents are told by their number.
struct Generator {
    state: u64,
    xml: String,
    elements: u32,
}

impl Generator {
    fn below(&mut self, bound: usize) -> usize {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn document(number: u64) -> String {
        let state = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut generator = Generator { state, xml: String::new(), elements: 0 };
        match generator.below(8) {
            0 => generator.xml.push_str("<?xml version=\"1.0\" encoding=\"utf-8\" standalone='yes' ?>\r\n"),
            1 => generator.xml.push_str("<?xml version='1.0'?><!-- before -->"),
            _ => {}
        }
        generator.element(&mut Vec::new(), 0);
        if generator.below(4) == 0 {
            generator.xml.push_str("\n<!-- after --> ");
        }
        generator.xml
    }

    fn space(&mut self) {
        let space = self.pick(&[" ", " ", " ", "  ", "\n", "\t ", "\r\n"]);
        self.xml.push_str(space);
    }

    fn quoted(&mut self, value: &str, quote: char) {
        let equals = self.pick(&["=", "=", "=", " = ", "=\n"]);
        self.xml.push_str(equals);
        self.xml.push(quote);
        self.xml.push_str(value);
        self.xml.push(quote);
    }

    fn element(&mut self, scope: &mut Vec<(String, &'static str)>, depth: usize) {
        self.elements += 1;
        let outside = scope.len();
        let mut declared: Vec<(&str, &'static str)> = Vec::new();
        for _ in 0..self.below(if depth == 0 { 5 } else { 3 }) {
            let prefix = self.pick(&["", "a", "b", "c", "d", "æ"]);
            let uri = if prefix.is_empty() && self.below(3) == 0 { "" } else { self.pick(&URIS) };
            if declared.iter().all(|(other, _)| *other != prefix) {
                declared.push((prefix, uri));
                scope.push((prefix.to_owned(), uri));
            }
        }
        let bound = |scope: &[(String, &'static str)], prefix: &str| {
            scope.iter().rev().find(|(other, _)| other == prefix).map(|(_, uri)| *uri)
        };
        let prefixes: Vec<String> =
            scope.iter().map(|(prefix, _)| prefix.clone()).filter(|prefix| !prefix.is_empty()).collect();
        let qualified = |generator: &mut Generator| {
            let local = generator.pick(&LOCALS);
            if prefixes.is_empty() || generator.below(2) == 0 {
                (String::new(), local)
            } else {
                (prefixes[generator.below(prefixes.len())].clone(), local)
            }
        };
        let spell = |(prefix, local): &(String, &str)| match prefix.as_str() {
            "" => (*local).to_owned(),
            prefix => format!("{prefix}:{local}"),
        };
        let name = spell(&qualified(self));
        write!(self.xml, "<{name}").unwrap();

        let mut pieces: Vec<(String, String, char)> = Vec::new();
        for (prefix, uri) in declared {
            let name = if prefix.is_empty() { "xmlns".to_owned() } else { format!("xmlns:{prefix}") };
            pieces.push((name, uri.to_owned(), if self.below(2) == 0 { '"' } else { '\'' }));
        }
        let mut seen = Vec::new();
        for _ in 0..self.below(5) {
            let attribute = qualified(self);
            let uri = if attribute.0.is_empty() { "" } else { bound(scope, &attribute.0).unwrap() };
            if seen.contains(&(uri, attribute.1)) {
                continue;
            }
            seen.push((uri, attribute.1));
            let quote = if self.below(3) == 0 { '\'' } else { '"' };
            let mut value = String::new();
            for _ in 0..self.below(4) {
                value.push_str(self.pick(&VALUES));
                if self.below(6) == 0 {
                    value.push(if quote == '"' { '\'' } else { '"' });
                }
            }
            pieces.push((spell(&attribute), value, quote));
        }
        if self.below(10) == 0 {
            pieces.push(("xml:lang".to_owned(), "da".to_owned(), '"'));
        }
        while !pieces.is_empty() {
            let (name, value, quote) = pieces.swap_remove(self.below(pieces.len()));
            self.space();
            self.xml.push_str(&name);
            self.quoted(&value, quote);
        }
        if self.below(6) == 0 {
            self.space();
        }
        if self.below(5) == 0 {
            self.xml.push_str("/>");
        } else {
            self.xml.push('>');
            for _ in 0..self.below(5) {
                match self.below(3) {
                    0 if depth < 6 && self.elements < 30 => self.element(scope, depth + 1),
                    1 => {
                        let text = self.pick(&VALUES);
                        // `]]>` may come together from pieces.
                        if !(text == ">" && self.xml.ends_with("]]")) {
                            self.xml.push_str(text);
                        }
                    }
                    _ => {
                        let text = self.pick(&TEXTS);
                        self.xml.push_str(text);
                    }
                }
            }
            let space = self.pick(&["", "", "", " ", "\n"]);
            write!(self.xml, "</{name}{space}>").unwrap();
        }
        scope.truncate(outside);
    }
}

#[test]
fn a_canonical_form_is_its_own_canonical_form() {
    for number in 0..500 {
        let document = Generator::document(number);
        let once = canonical_form(document.as_bytes(), &[], &Limits::default()).unwrap();
        let twice = canonical_form(&once, &[], &Limits::default()).unwrap();
        assert_eq!(String::from_utf8(twice).unwrap(), String::from_utf8(once).unwrap(), "{document}");
    }
}

mod python {
    use super::*;

    #[test]
    #[ignore = "needs a Python with lxml: cargo xtask test --stage python"]
    fn canonical_forms_are_those_of_libxml2() {
        let python = std::env::var_os("SEGL_PYTHON").expect("SEGL_PYTHON names the Python to use");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/canonical.py");
        let (mut cases, mut inside) = (Vec::new(), 0);
        for number in 0..DOCUMENTS {
            let xml = Generator::document(number);
            let inclusive: &[&str] = match number % 4 {
                0 => &["a"],
                1 => &["b", "æ", "absent"],
                _ => &[],
            };
            // The root, or an element inside it, which inherits namespaces.
            let form = |element| canonical_form_of(element, xml.as_bytes(), inclusive, &Limits::default()).expect(&xml);
            let form = |element| Some((element, form(element)?));
            let wanted = (number / 4 % 5) as usize;
            let (element, canonical) = form(wanted).or_else(|| form(wanted.min(1))).or_else(|| form(0)).unwrap();
            inside += u64::from(element > 0);
            let canonical = String::from_utf8(canonical).unwrap();
            let case = json!({ "xml": xml, "element": element, "inclusive": inclusive, "canonical": canonical });
            writeln!(cases, "{case}").unwrap();
        }
        assert!(inside > DOCUMENTS / 5, "{inside}");
        let mut child =
            Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python runs");
        // The script reads to the end before it says anything, unless it has found a difference.
        let written = child.stdin.take().unwrap().write_all(&cases);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "libxml2 sees it differently; see above");
        written.unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), DOCUMENTS.to_string());
    }
}
