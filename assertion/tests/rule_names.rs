//! The rules that docs/PROTOCOL.md promises to programs are those that the code names.

#![allow(clippy::unwrap_used, reason = "a test that can not go on says where")]

use std::{collections::BTreeSet, fs, path::Path};

const PROTOCOL: &str = include_str!("../../docs/PROTOCOL.md");

/// The text of all sources, tests left out.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_test = ["tests.rs", "attacks.rs"].iter().any(|name| path.ends_with(name));
        if path.is_dir() {
            text += &sources(&path);
        } else if !is_test {
            text += fs::read_to_string(&path).unwrap().split("#[cfg(test)]\nmod").next().unwrap();
        }
    }
    text
}

/// Names in the first column of the tables of the document's last part.
fn promised() -> BTreeSet<&'static str> {
    let (_, rules) = PROTOCOL.split_once("\n## Rules\n").unwrap();
    rules.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect()
}

/// The literals that stand right behind `before`, white space aside.
fn named<'t>(text: &'t str, before: &str) -> BTreeSet<&'t str> {
    let literal = |rest: &'t str| rest.trim_start().strip_prefix('"')?.split_once('"').map(|(name, _)| name);
    text.split(before).skip(1).filter_map(literal).collect()
}

#[test]
fn every_rule_that_is_named_is_promised_and_every_promised_one_is_in_the_code() {
    let (text, promised) = (sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")), promised());
    let mut named: BTreeSet<_> =
        ["violations.add(", "const RULE: &str =", "rule:"].iter().flat_map(|before| named(&text, before)).collect();
    named.extend(segl_assertion::saml::Rule::ALL.iter().map(|rule| rule.name()));
    assert!(named.len() > 50, "{named:?}");
    let untold: Vec<_> = named.difference(&promised).collect();
    assert!(untold.is_empty(), "not in PROTOCOL.md: {untold:?}");
    let absent: Vec<_> = promised.iter().filter(|name| !text.contains(&format!("\"{name}\""))).collect();
    assert!(absent.is_empty(), "in PROTOCOL.md alone: {absent:?}");
}
