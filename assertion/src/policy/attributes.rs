//! What is said about the subject.

use super::{CORE, Checked};
use crate::{
    saml::{Assertion, Attribute},
    violation::Violations,
};

pub(super) const SPEC_VERSION: &str = "https://data.gov.dk/model/core/specVersion";

/// The level of assurance (NSIS), and the two parts it is made of.
pub(super) const LOA: &str = "https://data.gov.dk/concept/core/nsis/loa";
pub(super) const IAL: &str = "https://data.gov.dk/concept/core/nsis/ial";
pub(super) const AAL: &str = "https://data.gov.dk/concept/core/nsis/aal";

/// The attributes of an assertion, by name.
pub(super) struct Attributes<'a>(Vec<(&'a str, Attribute<'a>)>);

/// What an attribute that ought to have one value has.
pub(super) enum Single<'a> {
    Absent,
    Value(&'a str),
    /// Several values, none, or elements
    Other,
}

impl<'a> Attributes<'a> {
    pub(super) fn of(assertion: Assertion<'a>) -> Attributes<'a> {
        Attributes(assertion.attributes().map(|attribute| (attribute.name(), attribute)).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a str, Attribute<'a>)> + '_ {
        self.0.iter().copied()
    }

    /// The first attribute of a name; that there is no second is a rule of its own.
    pub(super) fn named(&self, name: &str) -> Option<Attribute<'a>> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, attribute)| *attribute)
    }

    /// The one value of an attribute that `OIOSAML` calls by this name below its prefix.
    pub(super) fn core(&self, name: &str) -> Single<'a> {
        let found = self.0.iter().find(|(other, _)| other.strip_prefix(CORE) == Some(name));
        found.map_or(Single::Absent, |(_, attribute)| single(*attribute))
    }

    pub(super) fn xpath_of(&self, name: &str, otherwise: Assertion<'_>) -> String {
        self.named(name).map_or_else(|| otherwise.xpath(), Attribute::xpath)
    }
}

pub(super) fn single(attribute: Attribute<'_>) -> Single<'_> {
    let mut values = attribute.values();
    match (values.next().and_then(|value| value.text()), values.next()) {
        (Some(text), None) => Single::Value(text),
        _ => Single::Other,
    }
}

pub(super) fn check(checked: &Checked<'_>, violations: &mut Violations) {
    let Checked { policy, assertion, attributes, .. } = checked;
    for (index, (name, attribute)) in attributes.iter().enumerate() {
        if attributes.0[..index].iter().any(|(before, _)| *before == name) {
            let text = "no two attributes have the same Name: readers disagree on which one counts";
            violations.add("attribute-twice", attribute.xpath(), text);
        }
        if policy.forbidden_attributes.iter().any(|pattern| pattern.matches(name)) {
            violations.add("attribute-forbidden", attribute.xpath(), "this attribute is not allowed");
        }
        let elements = attribute.values().any(|value| value.is_element_valued());
        if elements && !policy.element_valued_attributes.iter().any(|allowed| allowed == name) {
            violations.add("attribute-elements", attribute.xpath(), "the values of this attribute are texts");
        }
    }
    for required in &policy.required_attributes {
        let there = attributes.named(required).is_some_and(|attribute| {
            attribute.values().any(|value| value.text().is_none_or(|text| !text.trim().is_empty()))
        });
        if !there {
            // The name is the policy's, not the assertion's.
            let text = format!("the attribute {required} is there, with a value");
            violations.add("attribute-required", attributes.xpath_of(required, *assertion), text);
        }
    }
    one_of(checked, SPEC_VERSION, &policy.spec_versions, "spec-version", violations);
    one_of(checked, LOA, &policy.assurance_levels, "assurance-level", violations);
}

/// An attribute that is there once with one of the allowed values, or, where none is allowed, is not there.
fn one_of(checked: &Checked<'_>, name: &str, allowed: &[String], rule: &'static str, violations: &mut Violations) {
    let attribute = checked.attributes.named(name);
    let good = match attribute.map(single) {
        None => allowed.is_empty(),
        Some(Single::Value(value)) => allowed.iter().any(|one| one == value),
        Some(_) => false,
    };
    if !good {
        let text = if allowed.is_empty() {
            format!("{name} is left out: no value is allowed")
        } else {
            format!("{name} is there with one value, one of the allowed")
        };
        violations.add(rule, checked.attributes.xpath_of(name, checked.assertion), text);
    }
}
